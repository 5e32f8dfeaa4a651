"""
Exporters without sockets: a factory, or its incoming side, on a fake reactor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import ExporterSettings, Key, Metric, MetricKind, MetricsFactory, decode
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.ledger import Ledger, Marker, Taken
from txmetrics_tcp._exporter.totals import Totals
from txmetrics_tcp._instruments.recorder import Counter, Gauge, Histogram
from txmetrics_tcp.testing import FakeReactor


class FactoryTestCase(SynchronousTestCase):
    """
    @ivar reactor_thread: whether a factory takes the test's thread for the reactor thread.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.reactor_thread = False

    def now_ns(self) -> int:
        """Return the fake reactor's time, in nanoseconds."""
        return round(self.reactor.seconds() * 1e9)

    def factory(
        self,
        buffer_size: int | None = 10,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] | None = None,
        **settings: Any,
    ) -> MetricsFactory:
        """Return a factory; by default, without own metrics and without a timer for events."""
        return MetricsFactory(
            self.reactor,
            ExporterSettings(
                buffer_size=buffer_size, **{"own_metrics": False, "max_delay": 0, **settings}
            ),
            clock=clock,
            monotonic=monotonic or self.reactor.seconds,
            in_reactor_thread=lambda: self.reactor_thread,
        )


def events(taken: Taken) -> list[Metric]:
    """Decode the metric events of a batch."""
    frames = b"" if taken.batch is None else taken.batch.joined
    return [event for event in decode(frames) if isinstance(event, Metric)]


def totals_of(marker: Marker) -> dict[Key, float]:
    """Return the totals of a marker's snapshot."""
    frames, index = b"", 0
    while index < len(marker.snapshot):
        chunk, index = marker.snapshot.chunk(index, sys.maxsize)
        frames += chunk
    return {metric.key: metric.value for metric in cast("list[Metric]", decode(frames))}


class IncomingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.now = 1_000
        self.wanted = 0

    def incoming(
        self,
        buffer_size: int | None = 10,
        totals: Totals | None = None,
        in_reactor_thread: bool = False,
        streaming: bool = True,
        **options: Any,
    ) -> Incoming:
        def want() -> bool:
            self.wanted += 1
            return False

        incoming = Incoming(
            self.reactor,
            buffer_size,
            want,
            totals,
            at_once=want,
            clock=lambda: self.now,
            in_reactor_thread=lambda: in_reactor_thread,
            **options,
        )
        if streaming:
            incoming.start_streaming()
        return incoming

    def counter(self, incoming: Incoming, name: str = "c") -> Counter:
        key = Key(MetricKind.COUNTER, name)
        return Counter(key, incoming.series(key))

    def gauge(self, incoming: Incoming, name: str = "g") -> Gauge:
        key = Key(MetricKind.GAUGE, name)
        return Gauge(key, incoming.series(key))

    def histogram(self, incoming: Incoming, name: str = "h") -> Histogram:
        key = Key(MetricKind.HISTOGRAM, name)
        return Histogram(key, incoming.series(key))

    def take(self, incoming: Incoming) -> list[object]:
        """Take the next batch, and return the values of its events."""
        return [event.value for event in events(incoming.take())]

    def take_all(self, incoming: Incoming) -> list[object]:
        """Take all pending events, and return their values."""
        values = []
        while incoming.more():
            values += self.take(incoming)
        return values

    def interrupt_epoch(self, act: Callable[[], object]) -> None:
        """Call C{act} once, the next time that events are applied."""
        first_in_epoch = Ledger._first_in_epoch

        def interrupted(this: Ledger, *args: Any) -> object:
            self.patch(Ledger, "_first_in_epoch", first_in_epoch)
            act()
            return first_in_epoch(this, *args)

        self.patch(Ledger, "_first_in_epoch", interrupted)
