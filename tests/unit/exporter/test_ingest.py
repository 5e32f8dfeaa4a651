"""
Tests of the incoming side: the log, the ledger and bounds.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock, skipIf

from hypothesis import example, given
from hypothesis import strategies as st

from tests.daemon import LIMIT
from tests.exporting import IncomingTestCase, events, totals_of
from txmetrics_tcp import Key, Metadata, MetricKind, Operation
from txmetrics_tcp._codec.encoder import Encoder
from txmetrics_tcp._codec.wire import encode_metadata
from txmetrics_tcp._exporter import ingest, ledger
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.ingest import LOG_LIMIT, Incoming
from txmetrics_tcp._exporter.ledger import BATCH, FREE_REPEATS, Ledger, Taken
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals
from txmetrics_tcp._instruments.recorder import Counter
from txmetrics_tcp._instruments.sink import Sink
from txmetrics_tcp._model import U64_MAX

try:
    import _testcapi
except ImportError:
    _testcapi: Any = None  # type: ignore[no-redef]

COUNTS = (1, FREE_REPEATS, FREE_REPEATS + 1, BATCH, BATCH + 1, 2000 + FREE_REPEATS, 10**9)
"""Counts around the limits of `Histogram.record_many`."""


class StartTests(IncomingTestCase):
    def test_interruptedStart(self) -> None:
        """If `start_streaming` is interrupted, the next client starts the stream."""
        incoming = self.incoming(streaming=False)
        start_streaming = ledger.Ledger.start_streaming

        def interrupted(this: Ledger) -> None:
            start_streaming(this)
            raise KeyboardInterrupt

        patch = self.patch(Ledger, "start_streaming", interrupted)
        self.assertRaises(KeyboardInterrupt, incoming.start_streaming)
        patch.restore()
        incoming.start_streaming()
        self.counter(incoming).increment(3)
        self.assertEqual(self.take_all(incoming), [3])


class TakeTests(IncomingTestCase):
    def test_order(self) -> None:
        incoming = self.incoming()
        counter = self.counter(incoming)
        for i in range(5):
            counter.increment(i)
        self.assertEqual(self.take(incoming), [0, 1, 2, 3, 4])
        self.assertEqual(self.take(incoming), [])

    def test_stamps(self) -> None:
        """An event has the time at which it was recorded."""
        incoming = self.incoming()
        self.counter(incoming).increment()
        self.now += 5
        self.counter(incoming).increment()
        self.now += 5
        self.assertEqual([event.timestamp_ns for event in events(incoming.take())], [1000, 1005])

    def test_recorded(self) -> None:
        """A batch has the time at which its first event was recorded, if there is one."""
        incoming = self.incoming()
        counter = self.counter(incoming)
        for _ in range(2):
            self.now += 5
            counter.increment()
        incoming.stamped = False
        self.assertEqual(self.batch(incoming).recorded_ns, 1005)
        counter.increment()
        self.assertEqual(self.batch(incoming).recorded_ns, 0)

    def batch(self, incoming: Incoming) -> Batch:
        batch = incoming.take().batch
        assert batch is not None
        return batch

    def test_oneBatchAtATime(self) -> None:
        """`take` returns at most one batch, for any number of pending events."""
        incoming = self.incoming(buffer_size=None)
        counter = self.counter(incoming)
        for i in range(BATCH * 2 + 5):
            counter.increment(i)
        sizes = []
        while incoming.more():
            sizes.append(len(events(incoming.take())))
        self.assertEqual(sizes, [BATCH, BATCH, 5])

    def test_takeDropsNothing(self) -> None:
        """`take` returns all events of the log, even if the buffer is small."""
        incoming = self.incoming(buffer_size=10)
        for i in range(10):
            self.counter(incoming).increment(i)
        self.assertEqual(self.take(incoming), list(range(10)))

    def test_latestDescription(self) -> None:
        """`take` returns only the latest of several descriptions of a kind and name, once."""
        incoming = self.incoming()
        first = Metadata(MetricKind.COUNTER, "a", None, "first")
        second = Metadata(MetricKind.COUNTER, "a", None, "second")
        gauge = Metadata(MetricKind.GAUGE, "a", None, "other kind")
        for metadata in (first, gauge, second):
            incoming.describe(metadata)
        taken = incoming.take_described()
        self.assertEqual(list(taken.values()), [encode_metadata(one) for one in (second, gauge)])
        self.assertEqual(incoming.take_described(), {})

    def test_manyDescriptions(self) -> None:
        """The buffer size does not limit descriptions."""
        incoming = self.incoming(buffer_size=1)
        described = [Metadata(MetricKind.COUNTER, f"c{i}") for i in range(5000)]
        for metadata in described:
            incoming.describe(metadata)
        taken = incoming.take_described()
        self.assertEqual(list(taken.values()), [encode_metadata(one) for one in described])


class BoundTests(IncomingTestCase):
    def test_newestAreDropped(self) -> None:
        """If no events are taken, the oldest are kept, and newer ones are dropped and counted."""
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)
        for i in range(1000):
            counter.increment(i)
        counts = incoming.counts()
        self.assertEqual(counts.waiting, 10)
        self.assertEqual(counts.recorded, counts.waiting + counts.dropped)
        self.assertEqual(counts.recorded + len(incoming.log), 1000)
        self.assertLessEqual(len(incoming.log), 11)
        taken = self.take_all(incoming)
        # The oldest ten events, and the events that were still in the log.
        self.assertEqual(taken, [*range(10), *range(counts.recorded, 1000)])

    def test_unbounded(self) -> None:
        incoming = self.incoming(buffer_size=None)
        counter = self.counter(incoming)
        for i in range(20 * BATCH):
            counter.increment(i)
        self.assertEqual(self.take_all(incoming), list(range(20 * BATCH)))
        self.assertEqual(incoming.counts().dropped, 0)

    def test_onTheReactorThread(self) -> None:
        """On the reactor thread, events are delivered instead of dropped."""
        taken: list[object] = []

        def want() -> bool:
            taken.extend(self.take(incoming))
            return True

        incoming = Incoming(self.reactor, 10, want, at_once=want, in_reactor_thread=lambda: True)
        incoming.start_streaming()
        counter = self.counter(incoming)
        for i in range(1000):
            counter.increment(i)
        want()
        self.assertEqual(taken, list(range(1000)))
        self.assertEqual(incoming.counts().dropped, 0)

    def test_onTheReactorThreadWhileDelivering(self) -> None:
        """If a delivery that is in progress refuses to drain, events are dropped and counted."""
        incoming = self.incoming(buffer_size=10, in_reactor_thread=True)
        counter = self.counter(incoming)
        for i in range(1000):
            counter.increment(i)
        self.assertGreater(self.wanted, 0)
        counts = incoming.counts()
        self.assertEqual(counts.waiting, 10)
        self.assertEqual(counts.recorded, counts.waiting + counts.dropped)

    def test_lockHeld(self) -> None:
        """
        While another thread holds the lock, recording waits only if the log is far too long.
        """
        held, release, waits, ended = (threading.Event() for _ in range(4))
        self.addCleanup(release.set)

        def sleep(seconds: float) -> None:
            waits.set()
            ended.wait(LIMIT)

        self.patch(ingest, "time", SimpleNamespace(sleep=sleep))
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)

        def wait() -> None:
            held.set()
            release.wait(LIMIT)

        def hold() -> None:
            incoming._call_locked(wait)
            ended.set()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(LIMIT)
        for i in range(40):
            counter.increment(i)
        self.assertEqual((len(incoming.log), waits.is_set()), (40, False))
        finished = []
        recorder = threading.Thread(target=lambda: finished.append(counter.increment(40)))
        recorder.start()
        self.assertTrue(waits.wait(LIMIT))
        self.assertEqual((len(incoming.log), finished), (41, []))
        release.set()
        holder.join(LIMIT)
        recorder.join(LIMIT)
        self.assertEqual(finished, [None])
        self.assertEqual(incoming.counts().recorded, 41)

    @skipIf(_testcapi is None, "needs CPython's test module")
    def test_noMemoryForOne(self) -> None:
        """If memory is exhausted once while events are dropped, all of them are counted."""
        # CPython cannot call a trace function, such as that of coverage, without memory.
        self.addCleanup(sys.settrace, sys.gettrace())
        sys.settrace(None)
        for at in range(60):
            incoming = self.incoming(buffer_size=1, totals=Totals())
            series = incoming.series(Key.of(MetricKind.COUNTER, "c"))
            # The encoder encodes such a time itself: protobuf crashes without memory.
            entries = [(series, Operation.INCREMENT_COUNTER, 1, 1 << 28)] * 20
            incoming.log.extend(entries)
            try:
                _testcapi.set_nomemory(at, at + 1)
                incoming.ledger.apply()
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()
            counts = incoming.counts()
            self.assertEqual(counts.recorded + len(incoming.log), 20, at)
            self.assertEqual(counts.recorded, counts.dropped + counts.waiting, at)


class RecordManyTests(IncomingTestCase):
    def limit_repeats(self, repeats: int) -> int:
        """Lower the limit of repeated samples, so that decoding is faster."""
        self.patch(ledger, "REPEATS", repeats)
        return repeats

    def test_repeatedSamples(self) -> None:
        """Each sample of a C{record_many} call is one event."""
        incoming = self.incoming()
        self.histogram(incoming).record_many(0.5, 3)
        self.assertEqual(
            [event[1:3] for event in events(incoming.take())],
            [(Operation.RECORD_HISTOGRAM, 0.5)] * 3,
        )
        self.assertEqual(incoming.counts().recorded, 3)

    def test_moreThanOneBatch(self) -> None:
        """Samples that exceed one batch are taken in several, before later events."""
        incoming = self.incoming()
        histogram = self.histogram(incoming)
        histogram.record(1)
        histogram.record_many(2, 3 * BATCH)
        histogram.record(3)
        taken: list[object] = []
        while incoming.more():
            batch = self.take(incoming)
            self.assertLessEqual(len(batch), BATCH)
            taken += batch
        self.assertEqual(taken, [1.0] + [2.0] * (3 * BATCH) + [3.0])
        self.assertEqual(incoming.counts(), (3 * BATCH + 2, 0, 0))

    def test_moreThanFits(self) -> None:
        """Samples that exceed the buffer are counted, in constant time."""
        incoming = self.incoming(buffer_size=10)
        histogram = self.histogram(incoming)
        for _ in range(11):
            histogram.record_many(1, 2**60)
        self.assertEqual(incoming.counts(), (11 * 2**60, 11 * 2**60 - 10, 10))

    def test_hugeCount(self) -> None:
        """A limited number of samples of a huge count is streamed, and the rest are dropped."""
        self.assertLessEqual(ledger.REPEATS, 50 * BATCH)
        repeats = self.limit_repeats(2 * BATCH + 7)
        for buffer_size in (10, 2000, None):
            incoming = self.incoming(buffer_size)
            histogram = self.histogram(incoming)
            for _ in range(2):
                histogram.record_many(2, 10**9)
                histogram.record(3)
                values = self.take_all(incoming)
                self.assertEqual(values, [2.0] * (FREE_REPEATS + repeats) + [3.0])
            self.assertEqual(
                incoming.counts(),
                (2 * 10**9 + 2, 2 * (10**9 - FREE_REPEATS - repeats), 0),
                buffer_size,
            )

    def test_manyHugeCounts(self) -> None:
        """Calls with huge counts share one limit until the log is empty."""
        repeats = self.limit_repeats(2 * BATCH + 7)
        incoming = self.incoming(buffer_size=None)
        histogram = self.histogram(incoming)
        for _ in range(50):
            histogram.record_many(2, U64_MAX)
            histogram.record(3)
        epochs = 0
        taken: list[float] = []
        while incoming.more():
            taken += self.take(incoming)
            epochs += 1
        streamed = 50 * FREE_REPEATS + repeats
        self.assertLessEqual(epochs, 2 + (50 + streamed) // BATCH)
        self.assertEqual((taken.count(2.0), taken.count(3.0)), (streamed, 50))
        recorded, dropped, waiting = incoming.counts()
        self.assertEqual((recorded, waiting), (50 * U64_MAX + 50, 0))
        self.assertEqual(recorded - dropped, len(taken))

    def test_manySmallCounts(self) -> None:
        """All samples of calls with small counts are streamed, for any number of calls."""
        self.limit_repeats(1000)
        incoming = self.incoming(buffer_size=10)
        histogram = self.histogram(incoming)
        for _ in range(10):
            histogram.record_many(2, FREE_REPEATS)
        self.assertEqual(self.take_all(incoming), [2.0] * 10 * FREE_REPEATS)
        incoming = self.incoming(buffer_size=None)
        histogram = self.histogram(incoming)
        for _ in range(200):
            histogram.record_many(2, 30)
        self.assertEqual(self.take_all(incoming), [2.0] * 6000)

    @given(
        st.lists(st.one_of(st.none(), st.integers(1, 6000), st.sampled_from(COUNTS)), max_size=12),
        st.integers(1, 30),
        st.booleans(),
    )
    @example([None, *COUNTS, None], 30, False)
    @example([None, *COUNTS, None], 30, True)
    @example([None, *COUNTS, None], 2, False)
    def test_anyCounts(self, counts: list[int | None], take_every: int, bounded: bool) -> None:
        """For any counts, every event is taken or dropped, and the order is kept."""
        self.limit_repeats(2000)
        incoming = self.incoming(buffer_size=5 if bounded else None)
        histogram = self.histogram(incoming)
        recorded = 0
        taken: list[float] = []
        for number, count in enumerate(counts):
            if count is None:
                histogram.record(number)
            else:
                histogram.record_many(number, count)
            recorded += count or 1
            if number % take_every == 0:
                taken += self.take(incoming)
        taken += self.take_all(incoming)
        self.assertEqual(taken, sorted(taken))
        self.assertEqual(incoming.counts(), (recorded, recorded - len(taken), 0))
        if not bounded:
            self.assertEqual(set(taken), set(range(len(counts))))

    def test_withoutClients(self) -> None:
        incoming = self.incoming(totals=Totals(), streaming=False)
        histogram = self.histogram(incoming)
        for _ in range(11):
            histogram.record_many(1, 2**40)
            histogram.record(1)
        incoming.start_streaming()
        self.assertEqual(incoming.counts(), (11 * 2**40 + 11, 0, 0))

    def test_remainderWithoutClients(self) -> None:
        """Samples left for later batches are counted even if the last client disconnects."""
        incoming = self.incoming(totals=Totals())
        histogram = self.histogram(incoming)
        histogram.record_many(1, 2 * BATCH)
        self.take(incoming)
        incoming.stop_streaming()
        incoming.start_streaming()
        self.assertEqual(incoming.counts(), (2 * BATCH, 0, 0))

    def test_describedMeanwhile(self) -> None:
        """A description that another thread adds during `take_described` is taken next."""
        incoming = self.incoming()

        class Describing(dict[object, bytes]):
            def __iter__(self) -> Iterator[object]:
                names = list(super().__iter__())
                incoming.describe(Metadata(MetricKind.COUNTER, "later"))
                return iter(names)

        incoming._described = Describing()  # type: ignore[assignment]
        for name in "abc":
            incoming.describe(Metadata(MetricKind.COUNTER, name))
        self.assertEqual([name for _, name in incoming.take_described()], ["a", "b", "c"])
        self.assertEqual([name for _, name in incoming.take_described()], ["later"])

    def test_anyPositionInEpoch(self) -> None:
        """Repeated samples are streamed completely, wherever they occur in an epoch."""
        for ahead, count in ((0, 2), (1, BATCH), (BATCH - 1, 2), (3, 2 * BATCH), (0, BATCH)):
            incoming = self.incoming(buffer_size=None)
            histogram = self.histogram(incoming)
            for _ in range(ahead):
                histogram.record(1)
            histogram.record_many(2, count)
            for _ in range(5):
                histogram.record(3)
            self.assertEqual(self.take_all(incoming), [1] * ahead + [2] * count + [3] * 5)
            self.assertEqual(incoming.counts(), (ahead + count + 5, 0, 0))


class ReentrancyTests(IncomingTestCase):
    """
    A finalizer or a signal handler records while the same thread applies or takes events.
    """

    def count(self, counter: Counter, times: int) -> None:
        for _ in range(times):
            counter.increment()

    def during(self, method: str, act: Callable[[], None]) -> None:
        """Call C{act} once within a method of the ledger, under the lock."""
        original = getattr(Ledger, method)

        def interrupted(this: Ledger, *args: object) -> None:
            self.patch(Ledger, method, original)
            act()
            original(this, *args)
            act()

        self.patch(Ledger, method, interrupted)

    def test_recordWhileApplying(self) -> None:
        """
        A re-entrant record does not deadlock, does not nest epochs, and is counted: on recording
        threads, with and without clients, and on the reactor thread.
        """
        for method, streaming, first in (
            ("_apply", True, 11),
            ("_apply_without_clients", False, 11),
            ("_apply", True, 1),
        ):
            incoming = self.incoming(10, Totals(), streaming=streaming)
            counter = self.counter(incoming)
            self.during(method, lambda counter=counter: self.count(counter, 100))
            for _ in range(first):
                counter.increment()
            taken = self.take_all(incoming)
            self.assertEqual(list(incoming.snapshot().values()), [200 + first])
            if streaming:
                counts = incoming.counts()
                self.assertEqual((len(taken) + counts.dropped, counts.recorded), (200 + first,) * 2)

    def test_exceptionWhileApplying(self) -> None:
        """If a signal handler raises during an epoch, later events are taken normally."""
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)

        def interrupt() -> None:
            raise KeyboardInterrupt

        self.during("_apply", interrupt)
        for _ in range(10):
            counter.increment()
        self.assertRaises(KeyboardInterrupt, counter.increment)
        self.assertEqual(len(self.take_all(incoming)), 11)

    def test_exceptionWhileEncoding(self) -> None:
        """Events lost to an exception are not counted, but clients receive totals again."""
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)

        def interrupt(self: Encoder, entries: object) -> None:
            raise KeyboardInterrupt

        for _ in range(5):
            counter.increment()
        with mock.patch.object(Encoder, "encode", interrupt):
            self.assertRaises(KeyboardInterrupt, incoming.take)
        counter.increment(7)
        taken = incoming.take()
        self.assertIsNotNone(taken.dropped_since)
        self.assertEqual([event.value for event in events(taken)], [7])

    def test_orderWhileTaking(self) -> None:
        """Events that a finalizer records during an epoch follow the events of that epoch."""
        incoming = self.incoming(buffer_size=10)
        histogram = self.histogram(incoming)
        first_in_epoch = Ledger._first_in_epoch

        def interrupted(this: Ledger, *args: object) -> object:
            self.patch(Ledger, "_first_in_epoch", first_in_epoch)
            for number in range(5, 50):
                histogram.record(number)
            return first_in_epoch(this, *args)

        for number in range(5):
            histogram.record(number)
        self.patch(Ledger, "_first_in_epoch", interrupted)
        self.assertEqual(self.take_all(incoming), [float(number) for number in range(50)])

    def test_manyRecordsWhileApplying(self) -> None:
        """
        Every streamed event is taken once, even if a finalizer records so many events that its own
        record would apply them.  C{take}, a record or C{start_streaming} applies the events.
        """
        for applying in ("take", "record", "start"):
            totals = Totals()
            incoming = self.incoming(None, totals, streaming=applying != "start")
            counter = self.counter(incoming)
            for _ in range(LOG_LIMIT if applying == "record" else 5):
                counter.increment()

            def act(counter: Counter = counter) -> None:
                for _ in range(3 * LOG_LIMIT):
                    counter.increment()

            self.interrupt_epoch(act)
            if applying == "start":
                incoming.start_streaming()
            elif applying == "record":
                counter.increment()
            taken = self.take_all(incoming)
            expected = {"take": 5, "record": LOG_LIMIT + 1, "start": 5}[applying] + 3 * LOG_LIMIT
            self.assertEqual(list(incoming.snapshot().values()), [expected])
            self.assertEqual(incoming.counts(), (expected, 0, 0))
            # Events recorded before streaming started are not streamed.
            self.assertEqual(len(taken), expected - 5 if applying == "start" else expected)

    def test_orderWhileApplyingWithoutClients(self) -> None:
        """Without clients, events recorded during an epoch follow the events of that epoch."""
        incoming = self.incoming(streaming=False, totals=Totals())
        gauge = self.gauge(incoming)
        for value in range(5):
            gauge.set(value)
        # More events than the limit, and fewer than the events that remain to be applied.
        more = range(5, 5 + LOG_LIMIT - 3)
        self.interrupt_epoch(lambda: [gauge.set(value) for value in more])
        incoming.start_streaming()
        self.assertEqual(list(incoming.snapshot().values()), [more[-1]])
        self.assertEqual(self.take_all(incoming), list(more))
        self.assertEqual(incoming.counts().recorded, 5 + len(more))


class SeriesTests(IncomingTestCase):
    def test_sameKey(self) -> None:
        """Equal keys have the same series."""
        incoming = self.incoming()
        key = Key(MetricKind.COUNTER, "c", (("a", "b"),))
        same = Key(MetricKind.COUNTER, "c", (("a", "b"),))
        self.assertIs(incoming.series(key), incoming.series(same))

    def test_released(self) -> None:
        """A series that is no longer referenced takes no memory."""
        incoming = self.incoming()
        for i in range(100):
            incoming.series(Key(MetricKind.COUNTER, f"c{i}"))
        self.assertEqual(len(incoming._registry), 0)

    def test_totalOutlivesHandles(self) -> None:
        """A total survives the last handle of its series."""
        incoming = self.incoming(totals=Totals())
        self.counter(incoming).increment(3)
        incoming.take()
        self.counter(incoming).increment(4)
        self.assertEqual(incoming.snapshot(), {Key(MetricKind.COUNTER, "c"): 7})

    def test_sameSeriesMeanwhile(self) -> None:
        """A finalizer that requests a series while it is being made gets the same series."""
        incoming = self.incoming()
        key = Key(MetricKind.COUNTER, "c")
        meanwhile: list[StreamedSeries] = []

        def make(key: Key, sink: Sink) -> StreamedSeries:
            self.patch(ingest, "StreamedSeries", StreamedSeries)
            meanwhile.append(incoming.series(key))
            return StreamedSeries(key, sink)

        self.patch(ingest, "StreamedSeries", make)
        self.assertIs(incoming.series(key), meanwhile[0])
        self.assertIs(incoming.series(key), meanwhile[0])


class StreamingTests(IncomingTestCase):
    """Starting and stopping the stream, and pending events."""

    def test_discardedAtStop(self) -> None:
        """Pending events, drops and markers are discarded when streaming stops."""
        incoming = self.incoming(buffer_size=1)
        counter = self.counter(incoming)
        for _ in range(4):
            counter.increment()
        self.assertEqual(incoming.counts().waiting, 1)
        self.assertGreater(incoming.counts().dropped, 0)
        incoming.mark(0)
        incoming.stop_streaming()
        self.assertEqual(incoming.counts().waiting, 0)
        incoming.start_streaming()
        self.assertEqual(incoming.take(), Taken(None, None, None))
        incoming.mark(0)
        counter.increment(7)
        taken = incoming.take()
        self.assertIsNotNone(taken.marker)
        self.assertIsNone(taken.batch)
        self.assertEqual(self.take_all(incoming), [7])

    def test_more(self) -> None:
        """`more` is true while events are pending, even if the log is empty."""
        incoming = self.incoming(buffer_size=1)
        counter = self.counter(incoming)
        counter.increment()
        counter.increment()
        self.assertEqual(len(incoming.log), 0)
        self.assertTrue(incoming.more())

    def test_applyOnlyIfNothingPending(self) -> None:
        """`take` applies no events while batches or markers are pending."""
        incoming = self.incoming(buffer_size=2)
        counter = self.counter(incoming)
        for _ in range(4):
            counter.increment()
        incoming.take()
        self.assertEqual(len(incoming.log), 1)
        incoming = self.incoming(buffer_size=2)
        counter = self.counter(incoming)
        counter.increment()
        incoming.mark(0)
        self.assertIsNotNone(incoming.take().marker)
        self.assertEqual(len(incoming.log), 1)

    def test_takeWithoutClients(self) -> None:
        """Without clients, `take` leaves events in the log."""
        incoming = self.incoming(totals=Totals(), streaming=False)
        self.counter(incoming).increment()
        self.assertEqual(incoming.take(), Taken(None, None, None))
        self.assertEqual(incoming.counts().waiting, 0)
        self.assertEqual(len(incoming.log), 1)

    def test_startAfterStop(self) -> None:
        """A client that connects does not open a stopped sink."""
        incoming = self.incoming(streaming=False)
        incoming.stop()
        incoming.start_streaming()
        self.assertFalse(incoming.open)

    def test_restart(self) -> None:
        """After `stop` and `restart` with connected clients, events are taken again."""
        incoming = self.incoming()
        incoming.stop()
        incoming.restart()
        self.counter(incoming).increment()
        self.assertEqual(self.take_all(incoming), [1])

    def test_reactorThreadWithoutClients(self) -> None:
        """Without clients, recording on the reactor thread does not drain."""
        incoming = self.incoming(totals=Totals(), in_reactor_thread=True, streaming=False)
        counter = self.counter(incoming)
        for _ in range(100):
            counter.increment()
        self.assertEqual(self.wanted, 0)


class MarkTests(IncomingTestCase):
    def test_position(self) -> None:
        """A marker follows the events applied before it, and precedes later ones."""
        incoming = self.incoming(buffer_size=3, totals=Totals())
        counter = self.counter(incoming)
        for _ in range(4):
            counter.increment()
        self.assertEqual(incoming.counts(), (4, 1, 3))
        incoming.mark(0)
        counter.increment(10)
        first, second = incoming.take(), incoming.take()
        self.assertEqual([event.value for event in events(first)], [1, 1, 1])
        assert first.marker is not None
        self.assertEqual([*totals_of(first.marker).values()], [4])
        self.assertEqual(first.marker.counts, (4, 1, 3))
        self.assertEqual(([event.value for event in events(second)], second.marker), ([10], None))

    def test_changedSeriesOnly(self) -> None:
        incoming = self.incoming(totals=Totals())
        self.counter(incoming, "old").increment()
        incoming.take()
        self.counter(incoming, "new").increment()
        batch = incoming.take().batch
        assert batch is not None
        incoming.mark(batch.since)
        marker = incoming.take().marker
        assert marker is not None
        self.assertEqual([key.name for key in totals_of(marker)], ["new"])

    def test_droppedSince(self) -> None:
        """`take` reports the first epoch in which events were dropped, once."""
        incoming = self.incoming(buffer_size=1, totals=Totals())
        counter = self.counter(incoming)
        self.assertIsNone(incoming.take().dropped_since)
        for _ in range(100):
            counter.increment()
        since = incoming.take().dropped_since
        assert since is not None
        incoming.mark(since)
        taken = incoming.take()
        assert taken.marker is not None
        self.assertEqual([*totals_of(taken.marker).values()], [100])
        self.assertIsNone(taken.dropped_since)


class ForkTests(IncomingTestCase):
    def test_whileAnotherThreadApplies(self) -> None:
        """A child process can apply events even if another thread of the parent was doing so."""
        incoming = self.incoming(totals=Totals())
        counter = self.counter(incoming)
        counter.increment()
        applying, forked = threading.Event(), threading.Event()

        def wait() -> None:
            applying.set()
            forked.wait(LIMIT)

        self.interrupt_epoch(wait)
        parent = threading.Thread(target=incoming.take)
        parent.start()
        applying.wait(LIMIT)
        try:
            incoming.after_fork(silence=False)
            counter.increment()
            taken: list[object] = []
            child = threading.Thread(target=lambda: taken.extend(self.take(incoming)), daemon=True)
            child.start()
            child.join(LIMIT)
            self.assertEqual(taken, [1])
        finally:
            forked.set()
            parent.join()

    def test_silenced(self) -> None:
        """A silenced child has no pending events, and records none."""
        incoming = self.incoming(buffer_size=1, totals=Totals())
        counter = self.counter(incoming)
        for _ in range(5):
            counter.increment()
        self.assertTrue(incoming.more())
        incoming.after_fork(silence=True)
        self.assertFalse(incoming.open)
        self.assertEqual((incoming.more(), incoming.counts().waiting), (False, 0))
        counter.increment()
        incoming.start_streaming()
        self.assertEqual((len(incoming.log), incoming.more()), (0, False))
