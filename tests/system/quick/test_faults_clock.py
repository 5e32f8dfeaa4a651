"""
The clock is set, back or forward, also to before 1970.
"""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.python.runtime import seconds as time_of_day
from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import Viewer
from tests.programs import Program
from tests.reader import FakeClient, truth
from tests.unit.codec.test_wire import by_protobuf
from txmetrics_tcp import Key, Metric, MetricKind, MetricsFactory, Operation, decode
from txmetrics_tcp._codec.encoder import Encoder, encode_metric
from txmetrics_tcp._exporter.totals import StreamedSeries
from txmetrics_tcp._net.reactor_clock import measure_steadily
from txmetrics_tcp.testing import FakeReactor

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NOW = 1_700_000_000 * SECOND

BEFORE_1970 = (
    -1,
    -SECOND + 1,
    -SECOND,
    -SECOND - 1,
    -(1 << 14),
    -(1 << 28),
    -86_400 * SECOND - 5,
    -62_135_596_800 * SECOND,
)


class EncodingTests(SynchronousTestCase):
    def test_before_1970(self) -> None:
        """As protobuf itself writes it, and it comes back as what it was."""
        key = Key.of(MetricKind.COUNTER, "c", {"a": "b"})
        for when in BEFORE_1970:
            metric = Metric(key, Operation.INCREMENT_COUNTER, 1, when)
            self.assertEqual(encode_metric(metric), by_protobuf(metric), when)
            self.assertEqual(decode(encode_metric(metric)), [metric])

    def test_first_of_all(self) -> None:
        """An encoder has no second that it takes for the one before 1970."""
        for when in BEFORE_1970:
            metric = Metric(Key.of(MetricKind.GAUGE, "g"), Operation.SET_GAUGE, 1.5, when)
            series = StreamedSeries(metric.key, None)  # type: ignore[arg-type]
            entry = (series, metric.operation, metric.value, when)
            self.assertEqual(Encoder().encode([entry])[0], by_protobuf(metric), when)


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.monotonic = 0.0
        self.reactor = FakeReactor()
        self.factory = MetricsFactory(
            self.reactor,  # type: ignore[arg-type]
            clock=lambda: self.now,
            monotonic=lambda: self.monotonic,
        )

    def test_follows_the_clock(self) -> None:
        """
        Each event has the time that the clock showed, and arrives in its order; totals are true.
        """
        client = FakeClient(self.factory)
        counter = self.factory.recorder.counter("c")
        times = [NOW, NOW - HOUR, NOW + HOUR, -HOUR, -1, 1, SECOND, NOW]
        for self.now in times:
            counter.increment()
        client.read_all(self.reactor)
        seen = [metric for metric in client.reader.metrics if metric.key.name == "c"]
        self.assertEqual([metric.timestamp_ns for metric in seen], times)
        self.assertEqual(client.reader.bits(), truth(self.factory))

    def test_snapshot_before_1970(self) -> None:
        self.factory.recorder.counter("c").increment(3)
        self.now = -HOUR - 1
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        [metric] = [metric for metric in client.reader.metrics if metric.key.name == "c"]
        self.assertEqual((metric.value, metric.timestamp_ns), (3, -HOUR - 1))

    def test_latency(self) -> None:
        """Latencies are measured with a clock that cannot be set."""
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        for hours in (-1, 1, -100):
            self.now += hours * HOUR
            self.factory.recorder.counter("c").increment()
            self.monotonic += 0.25
            self.reactor.settle()
            self.reactor.advance(1)
            client.read_all(self.reactor)
        samples = client.reader.values("txmetrics_record_to_write_seconds")
        self.assertEqual(samples[:1], [0.25])
        self.assertTrue(all(0 <= sample <= 0.25 for sample in samples), samples)

    def test_idle(self) -> None:
        """A series is not idle because the clock was set."""
        factory = MetricsFactory(
            self.reactor,  # type: ignore[arg-type]
            idle_after=60,
            own_metrics=False,
            clock=lambda: self.now,
            monotonic=lambda: self.monotonic,
        )
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        client.read_all(self.reactor)
        self.now += 1000 * HOUR
        self.reactor.advance(1)
        self.assertEqual(len(factory.recorder.snapshot()), 1)


# The time of day goes back by a second with each look: set before Twisted is imported, which keeps
# what it finds.
BACKWARDS = """
import itertools, os, threading, time
ticks = itertools.count(int(time.time()), -1)
time.time = lambda: float(next(ticks))
time.time_ns = lambda: next(ticks) * 10**9
from twisted.internet import reactor
from txmetrics_tcp import MetricsFactory

factory = MetricsFactory(reactor, None, own_metrics=False)
counter = factory.recorder.counter("c")
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
os.write(1, f"port={port.getHost().port}\\n".encode())

def record():
    while not factory.stats().clients:
        time.sleep(0.001)
    for _ in range(5000):
        counter.increment()

threading.Thread(target=record).start()
reactor.run()
"""


class RealReactorTests(SynchronousTestCase):
    def test_set_back_all_the_time(self) -> None:
        """
        With a clock that is set back at any moment, so that none of Twisted's timers ever comes,
        a stream of more than one batch goes on to its end.
        """
        program = Program(self, BACKWARDS, preamble="")
        last: Metric | None = None
        total = 0
        for event in Viewer(self, program.port):
            if isinstance(event, Metric):
                if last is not None:
                    self.assertLess(event.timestamp_ns, last.timestamp_ns)
                last = event
                if event.operation is Operation.INCREMENT_COUNTER:
                    total += 1
                else:
                    total = int(event.value)
                if total == 5000:
                    break
        self.assertEqual(total, 5000)


class UntouchedReactor(ReactorBase):
    """As real as those that select or poll, but for the descriptors."""

    def installWaker(self) -> None:
        pass


class SteadyTests(SynchronousTestCase):
    def test_reactor(self) -> None:
        """What waits keeps its due time, and what comes is due on the steady clock."""
        earliest = time.monotonic()
        reactor = UntouchedReactor()
        self.assertIs(reactor.seconds, time_of_day)
        before = reactor.callLater(100, lambda: None)
        measure_steadily(reactor)
        after = reactor.callLater(100, lambda: None)
        self.assertIs(reactor.seconds, time.monotonic)
        for call in (before, after):
            self.assertTrue(call.getTime() - earliest > 99)
            self.assertTrue(call.getTime() - time.monotonic() <= 100)
        measure_steadily(reactor)
        self.assertIs(reactor.seconds, time.monotonic)

    def test_others(self) -> None:
        """One with a clock of its own keeps it."""
        reactor = FakeReactor()
        measure_steadily(reactor)
        self.assertEqual(reactor.seconds(), 0.0)
