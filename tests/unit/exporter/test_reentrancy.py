"""
Tests of finalizers and signal handlers that record, or raise, while library code runs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from twisted.internet.abstract import FileDescriptor

from tests.daemon import LIMIT
from tests.exporting import FactoryTestCase, IncomingTestCase, totals_of
from tests.reader import FakeClient, exact_totals
from txmetrics_tcp import Key, Metric, MetricKind, Operation, decode
from txmetrics_tcp._exporter import ingest
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.ingest import LOG_LIMIT, Incoming
from txmetrics_tcp._exporter.ledger import BATCH, Ledger, Marker, Taken
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals
from txmetrics_tcp._instruments.recorder import Counter
from txmetrics_tcp._net.writers import Outlet


class InterruptedSeries(dict[StreamedSeries, None]):
    """Retained series that call C{act} once, after the first series of an iteration."""

    act: Callable[[], object] | None = None

    def __iter__(self) -> Iterator[StreamedSeries]:
        for series in super().__iter__():
            yield series
            act, self.act = self.act, None
            if act is not None:
                act()


class InterruptedIncomingTests(IncomingTestCase):
    """A record that interrupts a method of the ledger applies no events."""

    def setUp(self) -> None:
        super().setUp()
        self.counters: list[Counter] = []
        self.retained = InterruptedSeries()

    def prepare(self, idle_after: float | None = None) -> Incoming:
        """Make two retained counters; `record` is called when they are next iterated over."""
        totals = Totals(idle_after=idle_after)
        incoming = self.incoming(totals=totals)
        self.counters = [self.counter(incoming, name) for name in "ab"]
        for counter in self.counters:
            counter.increment()
        self.take_all(incoming)
        self.counters += [self.counter(incoming, name) for name in "cde"]
        self.retained = totals._retained = InterruptedSeries(totals._retained)
        self.retained.act = self.record
        return incoming

    def record(self) -> None:
        """Record enough events to exceed the log's limit, some of them of new series."""
        for _ in range(20):
            for counter in self.counters:
                counter.increment()

    def test_mark(self) -> None:
        """The totals of a marker plus later events equal the snapshot."""
        incoming = self.prepare()
        incoming.mark(0)
        found: dict[Key, float] = {}
        markers = 0
        while incoming.more():
            taken = incoming.take()
            if taken.batch is not None:
                for event in decode(taken.batch.joined):
                    assert isinstance(event, Metric)
                    self.assertIs(event.operation, Operation.INCREMENT_COUNTER)
                    found[event.key] = found.get(event.key, 0) + event.value
            if taken.marker is not None:
                markers += 1
                found = totals_of(taken.marker)
        self.assertEqual(markers, 1)
        self.assertEqual(found, incoming.snapshot())
        self.assertEqual(sorted(found.values()), [20] * 3 + [21] * 2)

    def test_snapshot(self) -> None:
        """A snapshot includes all events recorded while it is made."""
        incoming = self.prepare()
        snapshot = incoming.snapshot()
        self.assertEqual(sorted(snapshot.values()), [20] * 3 + [21] * 2)
        self.assertEqual(incoming.snapshot(), snapshot)

    def test_releaseIdle(self) -> None:
        """A series that changes while it is released is retained again."""
        incoming = self.prepare(idle_after=2)
        incoming.release_idle(0)
        incoming.release_idle(10)
        self.assertEqual(sorted(incoming.snapshot().values()), [20] * 3 + [21] * 2)
        self.take_all(incoming)
        self.assertEqual(sorted(incoming.snapshot().values()), [20] * 3 + [21] * 2)

    def test_stopStreaming(self) -> None:
        incoming = self.prepare()
        self.retained.act = None
        stop_streaming = Ledger.stop_streaming
        applied: list[int] = []

        def interrupted(this: Ledger) -> None:
            before = this.counts().recorded
            self.record()
            applied.append(this.counts().recorded - before)
            stop_streaming(this)

        self.patch(Ledger, "stop_streaming", interrupted)
        incoming.stop_streaming()
        self.assertEqual(applied, [0])
        self.assertEqual(sorted(incoming.snapshot().values()), [20] * 3 + [21] * 2)

    def test_startStreamingRaises(self) -> None:
        """After an exception in `start_streaming`, events are still applied."""
        incoming = self.incoming(totals=Totals(), streaming=False)
        counter = self.counter(incoming)
        counter.increment()
        first_in_epoch = Ledger._first_in_epoch

        def interrupted(this: Incoming, *args: Any) -> object:
            raise KeyboardInterrupt

        self.patch(Ledger, "_first_in_epoch", interrupted)
        with self.assertRaises(KeyboardInterrupt):
            incoming.start_streaming()
        self.patch(Ledger, "_first_in_epoch", first_in_epoch)
        for _ in range(100):
            counter.increment()
            self.assertLessEqual(len(incoming.log), 10)
        incoming.start_streaming()
        counter.increment(7)
        self.assertEqual(self.take_all(incoming), [7])

    def test_uncountedBatch(self) -> None:
        """
        If an exception leaves a batch uncounted, markers are still returned, and the count of
        pending events is correct once none are pending.
        """

        class Raising(deque[Any]):
            armed = True

            def append(self, one: object) -> None:
                super().append(one)
                if self.armed:
                    self.armed = False
                    raise KeyboardInterrupt

        incoming = self.incoming(totals=Totals())
        incoming.ledger._ready = Raising()
        counter = self.counter(incoming)
        with self.assertRaises(KeyboardInterrupt):
            for _ in range(20):
                counter.increment()
        for _ in range(3):
            for _ in range(4):
                counter.increment()
            incoming.mark(0)
            markers = 0
            for _ in range(10):
                markers += incoming.take().marker is not None
            self.assertEqual(markers, 1)
            self.assertFalse(incoming.more())
            self.assertEqual(incoming.counts().waiting, 0)


class OtherThreadTests(IncomingTestCase):
    """No call deadlocks while another thread, which may wait for this one, holds the lock."""

    def setUp(self) -> None:
        super().setUp()
        # Shortens the wait for the lock.
        self.patch(ingest, "WAITS", 2)

    def while_held(
        self,
        incoming: Incoming,
        act: Callable[[], object],
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        """Check that C{act} returns in a thread while another thread holds the lock."""
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            def wait() -> None:
                held.set()
                release.wait(LIMIT)

            if lock is None:
                incoming._call_locked(wait)
            else:
                with lock:
                    wait()

        holder = threading.Thread(target=hold)
        actor = threading.Thread(target=act, daemon=True)
        holder.start()
        held.wait(LIMIT)
        try:
            actor.start()
            actor.join(LIMIT)
            self.assertFalse(actor.is_alive())
        finally:
            release.set()
            holder.join(LIMIT)
            actor.join(LIMIT)

    def test_farOverTheWakeThreshold(self) -> None:
        """A thread far over the threshold does not wait indefinitely, and its events are kept."""
        incoming = self.incoming(None, Totals())
        counter = self.counter(incoming)

        def record() -> None:
            for _ in range(4 * LOG_LIMIT + 3):
                counter.increment()

        self.while_held(incoming, record)
        self.assertEqual(len(self.take_all(incoming)), 4 * LOG_LIMIT + 3)

    def handler(self, counter: Counter) -> Callable[..., None]:
        """A signal handler that records, at most 200 times; C{self.handled} counts the calls."""
        self.depth = self.deepest = self.handled = 0

        def signalled(*_: object) -> None:
            if self.handled == 200:
                return
            self.handled += 1
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            counter.increment()
            self.depth -= 1

        return signalled

    def test_signalsWhileLocked(self) -> None:
        """
        A signal handler that records while its thread waits for the lock does not nest, for any
        number of signals.
        """
        incoming = self.incoming(None, Totals())
        counter = self.counter(incoming)
        signalled = self.handler(counter)

        class Interrupted:
            """A lock that is free after many signals."""

            def __enter__(self) -> None:
                for _ in range(10):
                    signalled()

            def __exit__(self, *_: object) -> None:
                pass

        incoming._lock = Interrupted()  # type: ignore[assignment]
        for _ in range(LOG_LIMIT + 1):
            counter.increment()
        self.assertEqual((self.handled, self.deepest), (10, 1))
        self.assertEqual(incoming.counts().recorded, BATCH)

    def test_signalsWhileWaiting(self) -> None:
        """
        A signal handler that records while its thread waits for another thread's epoch does not
        nest.
        """
        incoming = self.incoming(None, Totals())
        counter = self.counter(incoming)
        self.patch(ingest, "WAITS", 5)
        self.patch(ingest, "time", SimpleNamespace(sleep=self.handler(counter)))
        incoming._holder = -1
        for _ in range(4 * LOG_LIMIT + 1):
            counter.increment()
        self.assertEqual((self.handled, self.deepest), (5, 1))
        # The next record may wait again.
        counter.increment()
        self.assertEqual((self.handled, self.deepest), (10, 1))

    def test_series(self) -> None:
        """A thread that makes and releases a series does not wait for an epoch."""
        incoming = self.incoming(totals=Totals())
        key = Key(MetricKind.COUNTER, "c")

        def ask() -> None:
            incoming.series(key)

        self.while_held(incoming, ask)
        self.assertEqual(len(incoming._registry), 0)

    def test_releasedAtExit(self) -> None:
        """During interpreter shutdown, releasing a series takes no lock."""
        incoming = self.incoming(totals=Totals())
        series = [incoming.series(Key(MetricKind.COUNTER, "c"))]
        self.patch(ingest, "sys", SimpleNamespace(is_finalizing=lambda: True))
        self.while_held(incoming, series.clear, incoming._registry._lock)


class RepeatedTests(IncomingTestCase):
    def test_manyRepeats(self) -> None:
        """An epoch returns at most one batch, for any repeat count and buffer size."""
        for buffer_size in (100_000, 10_000, None):
            incoming = self.incoming(buffer_size)
            histogram = self.histogram(incoming)
            histogram.record_many(-1, 5 * BATCH + 7)
            for number in range(LOG_LIMIT + 5):
                histogram.record(number)
            values: list[object] = []
            while incoming.more():
                found = self.take(incoming)
                self.assertLessEqual(len(found), BATCH)
                values += found
            expected = [-1] * (5 * BATCH + 7) + list(range(LOG_LIMIT + 5))
            self.assertEqual(values, expected)
            self.assertEqual(incoming.counts(), (len(expected), 0, 0))


class SnapshotTests(IncomingTestCase):
    def test_noRoom(self) -> None:
        """A snapshot has at most C{max_series} series, even if the log has more."""
        for streaming in (False, True):
            totals = Totals(max_series=2)
            incoming = self.incoming(None, totals, streaming=streaming)
            counters = [self.counter(incoming, name) for name in "abc"]
            counters[0].increment()
            if streaming:
                self.take_all(incoming)
            for _ in range(3):
                for counter in counters:
                    counter.increment()
            before = incoming.snapshot()
            self.assertEqual({key.name: total for key, total in before.items()}, {"a": 4, "b": 3})
            incoming.start_streaming()
            self.take_all(incoming)
            self.assertEqual(incoming.snapshot(), before)


class InterruptedTransportTests(FactoryTestCase):
    """
    A record on the reactor thread interrupts a method of a transport.  Data written to the
    transport then would be lost.
    """

    def setUp(self) -> None:
        super().setUp()
        self.reactor_thread = True

    def test_queuedUntilNextIteration(self) -> None:
        factory = self.factory(None)
        client = FakeClient(factory)
        histogram = factory.recorder.histogram("h")
        written: list[bytes] = []

        def act() -> None:
            factory.recorder.describe_histogram("h", "seconds")
            for number in range(2 * LOG_LIMIT):
                histogram.record(number)
            written.append(client.transport.written)

        client.read_all(self.reactor)
        in_descriptor(act)
        self.assertEqual(written, [b""])
        self.assertEqual(client.transport.written, b"")
        # The next iteration sends it.
        self.reactor.drain()
        client.read()
        self.assertEqual(len(client.reader.metadata), 1)
        self.assertIs(client.reader.events[0], client.reader.metadata[0])
        self.assertGreater(len(client.reader.values("h")), LOG_LIMIT)
        client.read_all(self.reactor)
        self.assertEqual(client.reader.values("h"), list(range(2 * LOG_LIMIT)))
        stats = client.protocol.stats()
        self.assertEqual(
            (stats.written, stats.waiting, stats.dropped_client), (2 * LOG_LIMIT, 0, 0)
        )

    def test_order(self) -> None:
        """Events recorded after queued events are sent after them."""
        factory = self.factory(None)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        histogram = factory.recorder.histogram("h")

        def act() -> None:
            for number in range(LOG_LIMIT + 1):
                histogram.record(number)

        in_descriptor(act)
        for number in range(LOG_LIMIT + 1, 2 * LOG_LIMIT + 2):
            histogram.record(number)
        self.assertEqual(client.transport.written, b"")
        client.read_all(self.reactor)
        self.assertEqual(client.reader.values("h"), list(range(2 * LOG_LIMIT + 2)))

    def test_nested(self) -> None:
        """A nested record does not reset C{interrupting}."""
        factory = self.factory(None)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        histogram = factory.recorder.histogram("h")
        take = Incoming.take
        interrupted: list[int] = []

        def interrupted_take(this: Incoming) -> Taken:
            if factory._fanout.interrupting and not interrupted:
                interrupted.append(1)
                histogram.record(LOG_LIMIT + 1)
            return take(this)

        def act() -> None:
            for number in range(LOG_LIMIT + 1):
                histogram.record(number)
            self.assertEqual(client.transport.written, b"")

        self.patch(Incoming, "take", interrupted_take)
        in_descriptor(act)
        self.assertEqual(interrupted, [1])
        self.assertFalse(factory._fanout.interrupting)
        client.read_all(self.reactor)
        self.assertEqual(client.reader.values("h"), list(range(LOG_LIMIT + 2)))

    def test_markerAfterQueued(self) -> None:
        """A client with queued data needs no marker until the data is sent."""
        factory = self.factory(10)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        mark = Ledger.mark
        markers: list[int] = []

        def counted(this: Ledger, since: int) -> Marker:
            markers.append(since)
            return mark(this, since)

        def act() -> None:
            # More events than the buffer holds, so the client needs totals.
            for _ in range(220):
                factory.recorder.counter("c").increment()

        self.patch(Ledger, "mark", counted)
        in_descriptor(act)
        self.assertEqual((client.transport.written, markers), (b"", []))
        self.assertEqual(len(client.protocol._outbox.events), 10)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        stats = client.protocol.stats()
        self.assertEqual((stats.recorded, stats.written, stats.dropped_client), (220, 10, 210))
        self.assertEqual(len(markers), 1)

    def test_bypasses(self) -> None:
        """A client that can bypass its transport is sent events at once."""
        self.patch(Outlet, "bypasses", True)
        factory = self.factory(10)
        client = FakeClient(factory)
        self.reactor.settle()
        for _ in range(11):
            factory.recorder.counter("c").increment()
        self.assertFalse(factory._fanout.interrupting)
        self.assertGreater(len(client.transport.written), 0)

    def test_duringResume(self) -> None:
        """Events recorded while pending events are sent are queued, or dropped and counted."""
        for totals in (False, True):
            factory = self.factory(4, totals=totals)
            client = FakeClient(factory, limit=0)
            client.read_all(self.reactor)
            counter = factory.recorder.counter("c")
            numbers = iter(range(1, 100))

            def record(
                count: int, counter: Counter = counter, numbers: Iterator[int] = numbers
            ) -> None:
                for _ in range(count):
                    counter.absolute(next(numbers))

            client.protocol.pauseProducing()
            record(4)
            self.reactor.settle()
            self.assertEqual(client.protocol.stats().waiting, 4)
            chunk = Batch.chunk
            interrupted: list[int] = []

            def interrupt(
                this: Batch,
                *args: int,
                chunk: Any = chunk,
                interrupted: list[int] = interrupted,
                record: Callable[[int], None] = record,
            ) -> object:
                found = chunk(this, *args)
                if not interrupted:
                    interrupted.append(1)
                    record(5)
                return found

            patch = self.patch(Batch, "chunk", interrupt)
            client.protocol.resumeProducing()
            patch.restore()
            self.assertEqual(interrupted, [1])
            reader = client.read_all(self.reactor)
            stats = client.protocol.stats()
            self.assertEqual(stats.recorded, 9)
            self.assertEqual((stats.dropped_client, stats.dropped_incoming), (0, 1))
            self.assertEqual((stats.written, stats.waiting), (8, 0))
            self.assertEqual(reader.values("c"), [1, 2, 3, 4, 5, 6, 7, 8] + ([9] if totals else []))
            record(1)
            self.assertEqual(client.read_all(self.reactor).values("c")[-1], 10)


class ResyncTests(FactoryTestCase):
    def test_stallBeforeMarker(self) -> None:
        """
        A client that stalls after a marker was requested, so that pending events are dropped,
        receives their totals.
        """
        factory = self.factory(4096, repair_interval=0.5)
        client = FakeClient(factory, limit=10**9)
        hot, single = (factory.recorder.counter(name) for name in ("hot", "single"))
        client.read_all(self.reactor)
        for _ in range(3 * (LOG_LIMIT + 1)):
            hot.increment()
        # This epoch fits into the buffer; later ones do not.
        single.increment(7)
        for _ in range(5 * (LOG_LIMIT + 1)):
            hot.increment()
        self.reactor.drain()
        self.assertGreater(client.protocol.stats().dropped_incoming, 0)
        self.reactor.advance(0.5)
        while client.protocol._marker_since is None:
            self.assertTrue(factory.incoming.more())
            self.reactor.drain()
        self.assertEqual(len(client.protocol._outbox.events), 0)
        client.transport.limit = 0
        while client.protocol._marker_since is not None:
            self.reactor.drain()
        self.assertGreater(client.protocol.stats().dropped_client, 0)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual(client.reader.totals[single.key], 7)

    def test_markerRequestedAgain(self) -> None:
        """If a signal handler raises while a marker is made, another one is requested."""
        factory = self.factory()
        client = FakeClient(factory)
        client.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(100):
            counter.increment()
        mark = Incoming.mark

        def interrupted(this: Incoming, since: int) -> None:
            raise KeyboardInterrupt

        self.patch(Incoming, "mark", interrupted)
        with self.assertRaises(KeyboardInterrupt):
            self.reactor.settle()
        self.patch(Incoming, "mark", mark)
        counter.increment()
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual(client.protocol.stats().repairs, 1)


def in_descriptor(act: Callable[[], object]) -> None:
    """Call C{act} within a method of a transport."""

    class Descriptor(FileDescriptor):
        connected = 1
        dataBuffer = b"data"

        def writeSomeData(self, data: bytes) -> int:
            act()
            return len(data)

        def stopWriting(self) -> None:
            pass

    Descriptor(reactor=object()).doWrite()  # type: ignore[arg-type]
