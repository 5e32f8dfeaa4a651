"""
Programs that disturb their exporter.  They block the reactor, raise in recorders and log observers,
and record from finalizers, signal handlers and log observers at the same time.
"""

from __future__ import annotations

import gc
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any
from unittest import skipIf

from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import provider

from tests.daemon import LIMIT
from tests.loopback import LoopbackTestCase, WatchedFactory, reactor, record_numbers
from tests.reader import exact_totals
from txmetrics_tcp import (
    ExporterSettings,
    FanoutRecorder,
    Key,
    Metadata,
    MetricKind,
    MetricsService,
    Recorder,
    TcpRecorder,
)
from txmetrics_tcp._instruments.sink import Series, Sink
from txmetrics_tcp._net.endpoints import server_endpoint

BLOCKED = 0.2
"""The number of seconds for which the program blocks the reactor."""

THREADS = 4
EACH = 5_000


class FaultTestCase(LoopbackTestCase):
    async def exporter_with_own_metrics(self, **settings: Any) -> WatchedFactory:
        self.factory = WatchedFactory(
            reactor, ExporterSettings(flush_timeout=10 * LIMIT, **settings)
        )
        self.service = MetricsService(self.factory, [server_endpoint(reactor, 0)])
        self._services.append(self.service)
        await self.service.listen()
        return self.factory

    def observe(self, observer: Callable[[LogEvent], object]) -> None:
        provided = provider(ILogObserver)(observer)
        globalLogPublisher.addObserver(provided)
        self.addCleanup(globalLogPublisher.removeObserver, provided)


class BlockedReactorTests(FaultTestCase):
    async def test_blocked(self) -> None:
        """
        While the reactor is blocked, threads record without waiting for it. Afterwards the totals
        and the account are exact, and the stream has the latency.
        """
        factory = await self.exporter_with_own_metrics()
        client = await self.connect()

        def latencies() -> list[float]:
            return client.reader.values("txmetrics_record_to_write_seconds")

        late = self.in_thread(client.read, until=lambda: max(latencies(), default=0) >= BLOCKED)

        def record(thread: int) -> None:
            counter = factory.recorder.counter("c", thread=thread)
            gauge = factory.recorder.gauge("g", thread=thread)
            for _ in range(EACH):
                counter.increment()
                gauge.increment(0.5)

        self.while_blocked(record, THREADS)
        # Blocks the reactor for at least this time.
        time.sleep(BLOCKED)
        # Own metrics are published once a second.
        await late
        reading = self.in_thread(client.read)
        await self.service.stop()
        await reading

        [protocol] = factory.protocols
        self.check_account(protocol)
        stats = protocol.stats()
        self.assertGreaterEqual(stats.recorded, 2 * THREADS * EACH)
        self.assertGreater(stats.dropped_incoming, 0)
        self.assertEqual(client.reader.bits(), exact_totals(factory))
        totals = {
            (key.name, dict(key.labels).get("thread")): value
            for key, value in client.reader.totals.items()
        }
        for thread in range(THREADS):
            self.assertEqual(totals["c", str(thread)], EACH)
            self.assertEqual(totals["g", str(thread)], EACH / 2)


class Tally:
    """Records, and counts its events independently."""

    def __init__(self, recorder: TcpRecorder, name: str) -> None:
        self._recorder = recorder
        self._counter = recorder.counter(name)
        # Appending is atomic; adding to a number is not.
        self._begun: list[None] = []
        self._all: list[None] = []
        self.name = name

    @property
    def recorded(self) -> int:
        return len(self._all)

    @property
    def busy(self) -> bool:
        """Whether a thread is counting."""
        return len(self._begun) > len(self._all)

    def record(self) -> None:
        """Called from anywhere, also re-entrantly."""
        self._begun.append(None)
        self._counter.increment()
        # A new handle, a description, a snapshot and statistics.
        self._all.append(None)
        number = len(self._all)
        self._recorder.histogram("h", number=number % 100).record(1.0)
        if number % 64 == 0:
            self._recorder.describe_counter(self.name, "count", f"{number}")
            self._recorder.snapshot()
            self._recorder.stats()


class ReentrancyTests(FaultTestCase):
    @skipIf(not hasattr(signal, "setitimer"), "needs interval timers")
    async def test_from_everywhere(self) -> None:
        """
        Finalizers, callbacks of the garbage collector, a signal handler and a log observer record
        while threads record and the reactor drains: no deadlock occurs, and no event is missing.
        """
        factory = await self.exporter(buffer_size=200)
        recorder = factory.recorder
        client = await self.connect()
        reading = self.in_thread(client.read)
        finalizers, collections, signals, logs = (
            Tally(recorder, name) for name in ("finalizers", "collections", "signals", "logs")
        )

        class Finalized:
            def __init__(self) -> None:
                # A cycle, which the garbage collector finds at an arbitrary time.
                self.itself = self

            def __del__(self) -> None:
                finalizers.record()

        def collected(phase: str, info: dict[str, int]) -> None:
            collections.record()

        def signalled(number: int, frame: FrameType | None) -> None:
            began = time.monotonic()
            signals.record()
            # If the next signal arrived before this one is handled, no other code would run. The
            # maximum guarantees more signals after a pause of the machine.
            arm(min(max(0.001, 2 * (time.monotonic() - began)), 0.1))

        def arm(seconds: float) -> None:
            if not recorded:
                signal.setitimer(signal.ITIMER_REAL, seconds)

        def logged(event: LogEvent) -> None:
            # More than the buffer's size. Called while draining, among other places.
            for _ in range(500):
                logs.record()

        def record(thread: int) -> None:
            counter = recorder.counter("c", thread=thread)
            for number in range(20_000):
                counter.increment()
                if number % 10 == 0:
                    Finalized()

        self.observe(logged)
        gc.callbacks.append(collected)
        self.addCleanup(lambda: collected in gc.callbacks and gc.callbacks.remove(collected))
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(50)
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, signalled))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        recorded: list[bool] = []
        arm(0.001)

        # Overflows the buffer, which is logged.
        self.while_blocked(lambda thread: record_numbers(recorder, thread, 1000))
        await self.all_in_threads(record, THREADS)
        while signals.recorded <= 10:
            await deferLater(reactor, 0)
        recorded.append(True)
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.callbacks.remove(collected)
        gc.disable()
        self.addCleanup(gc.enable)
        tallies = (finalizers, collections, signals, logs)
        # Another thread may still be collecting.
        while finalizers.recorded < THREADS * 2_000 or any(tally.busy for tally in tallies):
            gc.collect()
            await deferLater(reactor, 0)
        await self.service.stop()
        await reading

        for tally in tallies:
            self.assertGreater(tally.recorded, 10, tally.name)
        # The last log lines may be too late to be recorded.
        totals = {key.name: value for key, value in recorder.snapshot().items()}
        self.assertLessEqual(totals.pop("logs"), logs.recorded)
        for tally in tallies[:3]:
            self.assertEqual(totals[tally.name], tally.recorded, tally.name)
        self.assertEqual(
            sum(value for key, value in recorder.snapshot().items() if key.name == "c"),
            THREADS * 20_000,
        )
        self.check_account(factory.protocols[0])
        self.assertEqual(client.reader.bits(), exact_totals(factory))
        self.assertEqual(client.reader.unfinished, 0)

    async def test_observer_fails(self) -> None:
        """A log observer that raises at each line does not affect the stream."""
        factory = await self.exporter(buffer_size=10)
        client = await self.connect()
        reading = self.in_thread(client.read)

        def failing(event: LogEvent) -> None:
            factory.recorder.counter("observed").increment()
            raise LookupError("in an observer")

        self.observe(failing)
        counter = factory.recorder.counter("c")

        def record(thread: int) -> None:
            for _ in range(10_000):
                counter.increment()

        # Overflows the buffer, which is logged.
        self.while_blocked(lambda thread: record_numbers(factory.recorder, thread, 1000))
        await self.all_in_threads(record, THREADS)
        await self.service.stop()
        await reading
        self.check_account(factory.protocols[0])
        self.assertGreater(factory.protocols[0].stats().dropped_incoming, 0)
        self.assertEqual(client.reader.bits(), exact_totals(factory))
        key = Key.of(MetricKind.COUNTER, "c")
        self.assertEqual(client.reader.totals[key], THREADS * 10_000)
        # Later log lines belong to other tests.
        globalLogPublisher.removeObserver(provider(ILogObserver)(failing))
        self.assertTrue(self.flushLoggedErrors(LookupError))


class Broken(Recorder):
    """
    A recorder that fails.

    @ivar how: the part that fails.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def attach(self, key: Key) -> Series:
        return Series(key, BrokenSink(self.how))

    def describe(self, metadata: Metadata) -> None:
        pass


class BrokenLog(deque[Any]):
    def append(self, entry: Any, /) -> None:
        raise LookupError("log")


class BrokenSink(Sink):
    __slots__ = ("_how",)

    def __init__(self, how: str) -> None:
        super().__init__(BrokenLog() if how == "log" else deque(), clock=self._show)
        self._how = how

    def _show(self) -> int:
        if self._how == "clock":
            raise LookupError("clock")
        return 1

    def notify(self) -> None:
        if self._how == "notify":
            raise LookupError("notify")


class BrokenRecorderTests(FaultTestCase):
    async def test_in_a_fan_out(self) -> None:
        """
        The caller sees the exception of a failing recorder. The exporter in the same fan-out still
        receives every event of every thread.
        """
        factory = await self.exporter()
        client = await self.connect()
        reading = self.in_thread(client.read)
        events = 5000

        def record(thread: int) -> None:
            how = ("log", "clock", "notify")[thread]
            counter = FanoutRecorder(Broken(how), factory.recorder).counter("c", how=how)
            for _ in range(events):
                self.assertEqual(str(self.assertRaises(LookupError, counter.increment)), f"{how}")

        await self.all_in_threads(record, 3)
        await self.service.stop()
        await reading
        self.assertEqual(client.reader.bits(), exact_totals(factory))
        self.assertEqual(list(client.reader.totals.values()), [events] * 3)
        self.check_account(factory.protocols[0])
