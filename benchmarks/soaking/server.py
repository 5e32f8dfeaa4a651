"""
The process of the exporter under test: ``python -m soaking.server SEED``.

Commands: C{record} (begin), C{look} (answer its current state), C{quiet} (stop recording) and
C{stop}.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from suite.commands import allow_many_files, commands, say
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import blockingCallFromThread
from twisted.python.threadable import isInIOThread

from soaking import plan
from soaking.tally import BY, MANY, show, stamp
from tests.reader import exact_totals
from txmetrics_tcp import (
    ExporterSettings,
    Key,
    MetricKind,
    MetricsFactory,
    MetricsProtocol,
    MetricsService,
)

reactor: Any = global_reactor

BUFFER_SIZE = 512
FLUSH_TIMEOUT = 60.0

TICK = 0.005
"""The seconds between two slices of a recorder with a rate."""

SLICE = 500
"""The maximum number of events in one slice."""

BATCH = 7
"""The number of samples that C{record_many} records at once, after every hundred events."""


class Recording:
    """
    One recorder: records at changing rates, on permanent and on temporary series.

    @ivar by: its name.
    @ivar number: the number of events recorded, which is the number of the next event.
    @ivar described: its last description of each name.
    """

    def __init__(self, recorder: Any, seed: int, by: str) -> None:
        self._recorder = recorder
        self._seed = seed
        self.by = by
        self.number = 0
        self.described: dict[str, str] = {}
        self._random = plan.source(seed, "series", by)
        labels = {BY: by}
        gauge, level = recorder.gauge("soak_gauge", labels), recorder.gauge("soak_level", labels)
        self._stays: list[Callable[[int], object]] = [
            recorder.counter("soak_counter", labels).increment,
            gauge.increment,
            gauge.decrement,
            recorder.histogram("soak_histogram", labels).record,
            *(recorder.counter("soak_route", labels, route=str(i)).increment for i in range(20)),
        ]
        if by != "reactor":  # a `set` on the reactor thread would look like a total
            absolute = recorder.counter("soak_absolute", labels).absolute
            self._stays += [absolute, level.set, level.set]
        self._many = recorder.histogram(MANY, labels)

    def steps(self) -> Iterator[float]:
        """Record in steps; yield the seconds to wait before each next step.  Never ends."""
        for number, phase in enumerate(plan.phases(self._seed, self.by)):
            name = f"soak_phase_{self.by}"
            self.described[name] = f"phase {number}"
            self._recorder.describe_gauge(name, "count", self.described[name])
            # Uses every permanent series in each phase. An idle series would be released, and
            # would return with an extra event that no recorder has counted.
            for record in self._stays:
                self._record(record)
            begun = [self._begin(number, index) for index in range(phase.new_series)]
            yield from self._phase(phase, self._stays + begun)

    def _phase(self, phase: plan.Phase, records: list[Callable[[int], object]]) -> Iterator[float]:
        start = last = time.monotonic()
        left, due = phase.events, 0.0
        while left > 0 and last - start < phase.seconds:
            now = time.monotonic()
            due = SLICE if phase.rate is None else due + phase.rate * (now - last)
            last = now
            size = min(int(due), SLICE, left)
            due -= size
            left -= size
            for record in self._random.choices(records, k=size):
                self._record(record)
            if phase.rate is not None:
                yield TICK
            elif self.by == "reactor":
                yield 0.0

    def _record(self, record: Callable[[int], object]) -> None:
        number = self.number
        record(number)
        self.number = number + 1
        if number % 100 == 0:
            self._many.record_many(self.number, BATCH)
            self.number += BATCH

    def _begin(self, phase: int, index: int) -> Callable[[int], object]:
        kind = self._random.choice(list(MetricKind))
        labels = {BY: self.by, "phase": str(phase), "number": str(index)}
        key = Key.of(kind, f"soak_passing_{kind.value}", labels)
        # By key, since the recorder caches the last few thousand handles by name.
        handle = getattr(self._recorder, f"register_{kind.value}")(key)
        record: Callable[[int], object]
        record = handle.record if kind is MetricKind.HISTOGRAM else handle.increment
        self._record(record)
        return record


class Watched(MetricsFactory):
    """
    @ivar gone: the accounts of clients that disconnected since the last C{look}.
    @ivar released: the number of series that have gone while clients were connected.
    @ivar quiet: whether no more series are released.
    """

    def __init__(self, reactor: Any, seed: int) -> None:
        super().__init__(
            reactor,
            ExporterSettings(
                buffer_size=BUFFER_SIZE,
                idle_after=30.0,
                repair_interval=2.0,
                flush_timeout=FLUSH_TIMEOUT,
                own_metrics=False,  # their values are not event numbers
                source="soak",
            ),
            clock=lambda: stamp(time.time_ns(), reactor=isInIOThread()),
        )
        self.gone: list[dict[str, Any]] = []
        self.released = 0
        self.quiet = False
        ledger = self.incoming.ledger
        totals = ledger._totals
        assert totals is not None
        release = totals.release

        def counted(series: Any, epoch: int) -> None:
            self.released += ledger.streaming
            release(series, epoch)

        totals.release = counted  # type: ignore[method-assign]
        self._send_buffers = plan.send_buffers(seed)

    @property
    def connections(self) -> int:
        """
        The number of connections, including those whose stream has not begun, which C{stats()} does
        not count.
        """
        return len(self._present)

    def _release_idle(self) -> None:
        if not self.quiet:
            super()._release_idle()

    def client_connected(self, client: MetricsProtocol) -> None:
        size = next(self._send_buffers)
        if size is not None:
            handle: socket.socket = client.transport.getHandle()  # type: ignore[attr-defined]
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        super().client_connected(client)

    def client_disconnected(self, client: MetricsProtocol) -> None:
        super().client_disconnected(client)
        self.gone.append(asdict(client.stats()))


class Server:
    """Answers commands, on a thread other than the reactor thread."""

    def __init__(self, factory: Watched, service: MetricsService, seed: int) -> None:
        self._factory = factory
        self._service = service
        self._recordings = [Recording(factory.recorder, seed, by) for by in plan.RECORDERS]
        self._over = threading.Event()
        self._in_reactor: Deferred[None] = Deferred()
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        for word, _options in commands():
            say(getattr(self, word)())
        reactor.callFromThread(reactor.stop)

    def record(self) -> dict[str, Any]:
        *others, in_reactor = self._recordings
        reactor.callFromThread(self._step, in_reactor.steps())
        for recording in others:
            thread = threading.Thread(target=self._record, args=[recording.steps()], daemon=True)
            thread.start()
            self._threads.append(thread)
        return {}

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = blockingCallFromThread(reactor, self.look_here)
        return found

    def quiet(self) -> dict[str, Any]:
        self._over.set()
        for thread in self._threads:
            thread.join()
        blockingCallFromThread(reactor, lambda: self._in_reactor)
        # The clients are compared with the totals of this moment.
        self._factory.quiet = True
        descriptions: dict[str, str] = {}
        for recording in self._recordings:
            descriptions.update(recording.described)
        return {
            "recorded": {recording.by: recording.number for recording in self._recordings},
            "exact_totals": {
                str(key): show(value) for key, value in exact_totals(self._factory).items()
            },
            "descriptions": descriptions,
        }

    def stop(self) -> dict[str, Any]:
        blockingCallFromThread(reactor, self._service.stop)
        return self.look()

    def look_here(self) -> dict[str, Any]:
        """Return the answer to C{look}; called on the reactor thread."""
        gone, self._factory.gone = self._factory.gone, []
        with open("/proc/self/statm") as numbers:
            resident = int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "resident": resident,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "connections": self._factory.connections,
            "gone": gone,
            "released": self._factory.released,
            **asdict(self._factory.stats()),
        }

    def _record(self, steps: Iterator[float]) -> None:
        for delay in steps:
            if self._over.wait(delay):
                return

    def _step(self, steps: Iterator[float]) -> None:
        delay = next(steps)
        if self._over.is_set():
            self._in_reactor.callback(None)
        else:
            reactor.callLater(delay, self._step, steps)


def main() -> None:
    seed = int(sys.argv[1])
    allow_many_files()
    factory = Watched(reactor, seed)
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
    service = MetricsService(factory, [endpoint])
    server = Server(factory, service, seed)

    def listening(_: object) -> None:
        say({"port": service.addresses[0].port})  # type: ignore[attr-defined]
        threading.Thread(target=server.run, daemon=True).start()

    reactor.callWhenRunning(lambda: service.listen().addCallback(listening))
    reactor.run()


if __name__ == "__main__":
    main()
