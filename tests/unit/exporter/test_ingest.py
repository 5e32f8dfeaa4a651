"""
The log, folding and its bounds: what recording threads share with the reactor.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import cast
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Key, Metadata, Metric, MetricKind, Operation, decode
from txmetrics_tcp._codec.encoder import Encoder
from txmetrics_tcp._codec.wire import encode_metadata
from txmetrics_tcp._exporter import ingest
from txmetrics_tcp._exporter.ingest import BATCH, FREE_REPEATS, REPEATS, Incoming, Taken
from txmetrics_tcp._exporter.settings import check_buffer_size
from txmetrics_tcp._exporter.totals import Totals
from txmetrics_tcp._instruments.recorder import Counter, Gauge, Histogram
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp.testing import FakeReactor


def events(taken: Taken) -> list[Metric]:
    """What was taken, decoded."""
    return [] if taken.batch is None else cast("list[Metric]", decode(taken.batch.joined))


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

    def take(self, incoming: Incoming) -> list[object]:
        """The values of the events of the next batch."""
        return [event.value for event in events(incoming.take())]

    def take_all(self, incoming: Incoming) -> list[object]:
        """The values of all that waits."""
        values = []
        while incoming.more():
            values += self.take(incoming)
        return values


class BufferSizeTests(SynchronousTestCase):
    def test_valid(self) -> None:
        for size in (1, 1024, 10**9, None):
            self.assertEqual(check_buffer_size(size), size)

    def test_invalid(self) -> None:
        for bad, error in ((0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)):
            with self.assertRaisesRegex(error, f"buffer_size must be .* not {bad}"):
                check_buffer_size(bad)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "buffer_size must be at most"):
            check_buffer_size(sys.maxsize + 1)
        with self.assertRaisesRegex(TypeError, "not '1'"):
            check_buffer_size("1")  # type: ignore[arg-type]


class WakeTests(IncomingTestCase):
    def test_onceForMany(self) -> None:
        """The first event wakes the reactor, those behind it ride along."""
        incoming = self.incoming()
        counter = self.counter(incoming)
        for _ in range(5):
            counter.increment()
        self.assertEqual(self.reactor.waiting, 1)
        self.reactor.drain()
        self.assertEqual(self.wanted, 1)

    def test_againAfterRearm(self) -> None:
        incoming = self.incoming()
        self.counter(incoming).increment()
        incoming.rearm()
        self.counter(incoming).increment()
        self.assertEqual(self.reactor.waiting, 2)

    def test_nobodyListens(self) -> None:
        """While nobody listens nobody is woken, whether or not totals are kept."""
        for totals in (None, Totals()):
            incoming = self.incoming(totals=totals, streaming=False)
            self.counter(incoming).increment()
            incoming.describe(Metadata(MetricKind.COUNTER, "c"))
            incoming.rearm()
            self.counter(incoming).increment()
            self.assertEqual(self.reactor.waiting, 0)

    def test_describing(self) -> None:
        incoming = self.incoming()
        incoming.describe(Metadata(MetricKind.COUNTER, "c"))
        self.assertEqual(self.reactor.waiting, 1)

    def test_reactorIsGone(self) -> None:
        """A reactor that refuses to be woken is no error of who records; nor is it forgotten."""
        attempts = []

        def closed(*args: object) -> None:
            attempts.append(args)
            raise RuntimeError("Event loop is closed")

        self.patch(self.reactor, "callFromThread", closed)
        incoming = self.incoming()
        counter = self.counter(incoming)
        for i in range(100):
            counter.increment(i)
            self.assertEqual(incoming.slack, -1)
        self.assertEqual(len(attempts), 100)
        self.assertEqual(incoming.counts().waiting, 10)
        self.assertLessEqual(len(incoming.log), 11)

    def test_interrupted(self) -> None:
        """Where a signal handler raises in the middle of waking, the next event wakes."""
        wake = self.reactor.callFromThread

        def interrupted(*args: object) -> None:
            self.patch(self.reactor, "callFromThread", wake)
            raise KeyboardInterrupt

        def timed_out() -> float:
            incoming.monotonic = monotonic
            raise TimeoutError

        incoming = self.incoming()
        monotonic = incoming.monotonic
        counter = self.counter(incoming)
        self.patch(self.reactor, "callFromThread", interrupted)
        self.assertRaises(KeyboardInterrupt, counter.increment)
        incoming.monotonic = timed_out
        self.assertRaises(TimeoutError, counter.increment)
        self.assertEqual(self.reactor.waiting, 0)
        counter.increment()
        self.assertEqual(self.reactor.waiting, 1)


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

    def test_oneBatchAtATime(self) -> None:
        """However much waits, the reactor takes no more at once than it can handle."""
        incoming = self.incoming(buffer_size=None)
        counter = self.counter(incoming)
        for i in range(BATCH * 2 + 5):
            counter.increment(i)
        sizes = []
        while incoming.more():
            sizes.append(len(events(incoming.take())))
        self.assertEqual(sizes, [BATCH, BATCH, 5])

    def test_nothingDroppedForTheReactor(self) -> None:
        """What is in the log when the reactor comes is taken, however small the buffer is."""
        incoming = self.incoming(buffer_size=10)
        for i in range(10):
            self.counter(incoming).increment(i)
        self.assertEqual(self.take(incoming), list(range(10)))

    def test_descriptionsOnce(self) -> None:
        """The latest of each kind and name."""
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
        """No bound applies to descriptions."""
        incoming = self.incoming(buffer_size=1)
        described = [Metadata(MetricKind.COUNTER, f"c{i}") for i in range(5000)]
        for metadata in described:
            incoming.describe(metadata)
        taken = incoming.take_described()
        self.assertEqual(list(taken.values()), [encode_metadata(one) for one in described])


class BoundTests(IncomingTestCase):
    def test_newestAreDropped(self) -> None:
        """Nobody takes: as many as fit wait, and the rest is dropped and counted."""
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
        # The oldest ten, and what was still in the log.
        self.assertEqual(taken, [*range(10), *range(counts.recorded, 1000)])

    def test_unbounded(self) -> None:
        incoming = self.incoming(buffer_size=None)
        counter = self.counter(incoming)
        for i in range(50_000):
            counter.increment(i)
        taken: list[object] = []
        while incoming.more():
            taken += self.take(incoming)
        self.assertEqual(taken, list(range(50_000)))
        self.assertEqual(incoming.counts().dropped, 0)

    def test_onTheReactorThread(self) -> None:
        """The reactor thread delivers instead of dropping."""
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
        """What is recorded by something that a delivery calls counts as any other."""
        incoming = self.incoming(buffer_size=10, in_reactor_thread=True)
        counter = self.counter(incoming)
        for i in range(1000):
            counter.increment(i)
        self.assertGreater(self.wanted, 0)
        counts = incoming.counts()
        self.assertEqual(counts.waiting, 10)
        self.assertEqual(counts.recorded, counts.waiting + counts.dropped)

    def test_lockTaken(self) -> None:
        """
        While another thread folds, recording goes on without waiting; far over the slack, it
        waits for one fold.
        """
        # Longer than this test takes, however busy the machine is.
        self.patch(ingest, "WAITS", 1_000_000)
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with incoming._held():
                held.set()
                release.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(60)
        for i in range(40):
            # Does not block: that would be for ever, as nobody else runs here.
            counter.increment(i)
        self.assertEqual(len(incoming.log), 40)
        finished = []
        recorder = threading.Thread(target=lambda: finished.append(counter.increment(40)))
        recorder.start()
        while len(incoming.log) < 41:
            pass
        self.assertEqual(finished, [])
        release.set()
        holder.join(60)
        recorder.join(60)
        self.assertEqual(finished, [None])
        self.assertEqual(incoming.counts().recorded, 41)


class RecordManyTests(IncomingTestCase):
    def histogram(self, incoming: Incoming) -> Histogram:
        key = Key(MetricKind.HISTOGRAM, "h")
        return Histogram(key, incoming.series(key))

    def test_becomesMany(self) -> None:
        incoming = self.incoming()
        self.histogram(incoming).record_many(0.5, 3)
        self.assertEqual(
            [event[1:3] for event in events(incoming.take())],
            [(Operation.RECORD_HISTOGRAM, 0.5)] * 3,
        )
        self.assertEqual(incoming.counts().recorded, 3)

    def test_moreThanABatch(self) -> None:
        """The reactor takes them batch by batch, and what comes behind them stays behind."""
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
        """They are counted one by one, and cost no time in proportion."""
        incoming = self.incoming(buffer_size=10)
        histogram = self.histogram(incoming)
        for _ in range(11):
            histogram.record_many(1, 2**60)
        self.assertEqual(incoming.counts(), (11 * 2**60, 11 * 2**60 - 10, 10))

    def test_hugeCount(self) -> None:
        """
        Of a huge count so many are streamed, and the rest is dropped: what is recorded behind it
        comes a moment later.
        """
        for buffer_size in (10, 2000, None):
            incoming = self.incoming(buffer_size)
            histogram = self.histogram(incoming)
            for _ in range(2):
                histogram.record_many(2, 10**9)
                histogram.record(3)
                values = self.take_all(incoming)
                self.assertEqual(values, [2.0] * (FREE_REPEATS + REPEATS) + [3.0])
            self.assertEqual(
                incoming.counts(),
                (2 * 10**9 + 2, 2 * (10**9 - FREE_REPEATS - REPEATS), 0),
                buffer_size,
            )

    def test_manyHugeCounts(self) -> None:
        """Several share what one may have, until the log has been empty again."""
        incoming = self.incoming(buffer_size=None)
        histogram = self.histogram(incoming)
        for _ in range(500):
            histogram.record_many(2, U64_MAX)
            histogram.record(3)
        folds = 0
        taken: list[float] = []
        while incoming.more():
            taken += self.take(incoming)
            folds += 1
        streamed = 500 * FREE_REPEATS + REPEATS
        self.assertLessEqual(folds, 2 + (500 + streamed) // BATCH)
        self.assertEqual((taken.count(2.0), taken.count(3.0)), (streamed, 500))
        recorded, dropped, waiting = incoming.counts()
        self.assertEqual((recorded, waiting), (500 * U64_MAX + 500, 0))
        self.assertEqual(recorded - dropped, len(taken))

    def test_manySmallCounts(self) -> None:
        """Counts of everyday use are streamed as single samples would be, however many calls."""
        incoming = self.incoming(buffer_size=10)
        histogram = self.histogram(incoming)
        for _ in range(10):
            histogram.record_many(2, FREE_REPEATS)
        self.assertEqual(self.take_all(incoming), [2.0] * 10 * FREE_REPEATS)
        incoming = self.incoming(buffer_size=None)
        histogram = self.histogram(incoming)
        for _ in range(2000):
            histogram.record_many(2, 30)
        self.assertEqual(self.take_all(incoming), [2.0] * 60_000)

    @given(
        st.lists(st.one_of(st.none(), st.integers(1, 3 * REPEATS)), max_size=12),
        st.integers(1, 30),
        st.booleans(),
    )
    def test_anyCounts(self, counts: list[int | None], take_every: int, bounded: bool) -> None:
        """Whatever the counts are, every event is taken or dropped, and order is kept."""
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

    def test_unheard(self) -> None:
        incoming = self.incoming(totals=Totals(), streaming=False)
        histogram = self.histogram(incoming)
        for _ in range(11):
            histogram.record_many(1, 2**40)
            histogram.record(1)
        incoming.start_streaming()
        self.assertEqual(incoming.counts(), (11 * 2**40 + 11, 0, 0))

    def test_restUnheard(self) -> None:
        """What was for later batches counts as well when the last client leaves before."""
        incoming = self.incoming(totals=Totals())
        histogram = self.histogram(incoming)
        histogram.record_many(1, 2 * BATCH)
        self.take(incoming)
        incoming.stop_streaming()
        incoming.start_streaming()
        self.assertEqual(incoming.counts(), (2 * BATCH, 0, 0))

    def test_describedMeanwhile(self) -> None:
        """A description that another thread makes meanwhile takes no other's place."""
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


class ReentrancyTests(IncomingTestCase):
    """
    A finalizer or a signal handler records in the middle of anything that the same thread does
    here.
    """

    def during(self, incoming: Incoming, method: str, act: Callable[[], None]) -> None:
        """Call C{act} once inside a method, while it holds the lock."""
        original = getattr(Incoming, method)

        def interrupted(this: Incoming, *args: object) -> None:
            self.patch(Incoming, method, original)
            act()
            original(this, *args)
            act()

        self.patch(Incoming, method, interrupted)

    def test_recordWhileFolding(self) -> None:
        """No deadlock, no second fold inside the first, nothing lost that is not counted."""
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)

        def record() -> None:
            for _ in range(100):
                counter.increment()

        self.during(incoming, "_fold", record)
        for _ in range(11):
            counter.increment()
        self.assertEqual(incoming.counts().recorded + len(incoming.log), 211)

    def test_recordWhileFoldingUnheard(self) -> None:
        incoming = self.incoming(buffer_size=10, totals=Totals(), streaming=False)
        counter = self.counter(incoming)

        def record() -> None:
            for _ in range(100):
                counter.increment()

        self.during(incoming, "_fold_unheard", record)
        for _ in range(11):
            counter.increment()
        self.assertEqual(list(incoming.snapshot().values()), [211])

    def test_recordWhileTaking(self) -> None:
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)
        counter.increment()

        def record() -> None:
            for _ in range(100):
                counter.increment()

        self.during(incoming, "_fold", record)
        taken = len(self.take_all(incoming))
        counts = incoming.counts()
        self.assertEqual((taken + counts.dropped, counts.recorded), (201, 201))

    def test_exceptionInTheMiddle(self) -> None:
        """A signal handler that raises leaves everything usable."""
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)

        def interrupt() -> None:
            raise KeyboardInterrupt

        self.during(incoming, "_fold", interrupt)
        for _ in range(10):
            counter.increment()
        self.assertRaises(KeyboardInterrupt, counter.increment)
        self.assertEqual(len(self.take_all(incoming)), 11)

    def test_exceptionWhileEncoding(self) -> None:
        """What it costs is counted, so that totals are repaired."""
        incoming = self.incoming(buffer_size=10)
        counter = self.counter(incoming)

        def interrupt(self: Encoder, entries: object) -> None:
            raise KeyboardInterrupt

        for _ in range(5):
            counter.increment()
        with mock.patch.object(Encoder, "encode", interrupt):
            self.assertRaises(KeyboardInterrupt, incoming.take)
        self.assertEqual(incoming.counts(), (5, 5, 0))
        counter.increment(7)
        taken = incoming.take()
        self.assertIsNotNone(taken.dropped_since)
        self.assertEqual([event.value for event in events(taken)], [7])


class SeriesTests(IncomingTestCase):
    def test_oneForAKey(self) -> None:
        incoming = self.incoming()
        key = Key(MetricKind.COUNTER, "c", (("a", "b"),))
        same = Key(MetricKind.COUNTER, "c", (("a", "b"),))
        self.assertIs(incoming.series(key), incoming.series(same))

    def test_forgotten(self) -> None:
        """A series that nobody has any more takes no memory."""
        incoming = self.incoming()
        for i in range(100):
            incoming.series(Key(MetricKind.COUNTER, f"c{i}"))
        self.assertEqual(len(incoming._series), 0)

    def test_valueOutlivesHandles(self) -> None:
        """A total is not lost with the last handle."""
        incoming = self.incoming(totals=Totals())
        self.counter(incoming).increment(3)
        incoming.take()
        self.counter(incoming).increment(4)
        self.assertEqual(incoming.snapshot(), {Key(MetricKind.COUNTER, "c"): 7})


class TotalsTests(IncomingTestCase):
    def test_arithmetic(self) -> None:
        incoming = self.incoming(totals=Totals())
        counter, gauge = self.counter(incoming), self.gauge(incoming)
        for streaming in (False, True):
            if streaming:
                incoming.start_streaming()
            else:
                incoming.stop_streaming()
            counter.absolute(2**64 - 1)
            counter.increment(3)
            gauge.set(0.1)
            gauge.increment(0.2)
            gauge.decrement(0.3)
            incoming.take()
            self.assertEqual(
                incoming.snapshot(),
                {
                    Key(MetricKind.COUNTER, "c"): 2,
                    # Not 0: as floats add up, one by one.
                    Key(MetricKind.GAUGE, "g"): 0.1 + 0.2 - 0.3,
                },
            )

    def test_droppedStillCount(self) -> None:
        incoming = self.incoming(buffer_size=1, totals=Totals())
        counter = self.counter(incoming)
        for _ in range(1000):
            counter.increment()
        self.assertGreater(incoming.counts().dropped, 900)
        self.assertEqual(list(incoming.snapshot().values()), [1000])

    def test_snapshotChangesNothing(self) -> None:
        incoming = self.incoming(buffer_size=10, totals=Totals())
        counter = self.counter(incoming)
        for _ in range(5):
            counter.increment()
        before = incoming.counts(), len(incoming.log)
        self.assertEqual(list(incoming.snapshot().values()), [5])
        self.assertEqual((incoming.counts(), len(incoming.log)), before)

    def test_snapshotOfTheLog(self) -> None:
        """What is still in the log counts as it will when it is folded."""
        incoming = self.incoming(totals=Totals())
        counter, gauge = self.counter(incoming), self.gauge(incoming)
        counter.absolute(2**64 - 1)
        counter.increment(3)
        gauge.set(0.1)
        gauge.increment(0.2)
        before = incoming.snapshot()
        self.assertEqual(len(incoming.log), 4)
        self.assertEqual(before[counter.key], 2)
        incoming.take()
        self.assertEqual(incoming.snapshot(), before)

    def test_limit(self) -> None:
        """Series beyond the limit work as before, but are not retained, and counted once."""
        incoming = self.incoming(totals=Totals(max_series=2))
        for _ in range(3):
            for name in "abcd":
                self.counter(incoming, name).increment()
            self.assertEqual(len(events(incoming.take())), 4)
        self.assertEqual(
            {key.name: total for key, total in incoming.snapshot().items()}, {"a": 3, "b": 3}
        )
        self.assertEqual(incoming.retained, 2)

    def test_refusedOnce(self) -> None:
        incoming = self.incoming(totals=Totals(max_series=1))
        handles = [self.counter(incoming, name) for name in "abc"]
        for _ in range(3):
            for handle in handles:
                handle.increment()
            incoming.take()
        self.assertEqual(incoming.refused, 2)

    def test_idle(self) -> None:
        """
        A series that rests is left out of snapshots; when it changes again, its value is said
        first.
        """
        incoming = self.incoming(totals=Totals(idle_after=10))
        resting, busy = self.counter(incoming, "resting"), self.counter(incoming, "busy")
        resting.increment(5)
        for now in range(0, 30, 5):
            busy.increment()
            incoming.take()
            incoming.forget_idle(now)
        self.assertEqual([key.name for key in incoming.snapshot()], ["busy"])
        resting.increment(2)
        resting.increment(2)
        self.assertEqual(
            [entry[1:3] for entry in events(incoming.take())],
            [
                (Operation.SET_COUNTER, 5),
                (Operation.INCREMENT_COUNTER, 2),
                (Operation.INCREMENT_COUNTER, 2),
            ],
        )
        self.assertEqual({key.name: n for key, n in incoming.snapshot().items()}["resting"], 9)

    def test_withoutTotals(self) -> None:
        incoming = self.incoming(streaming=False)
        self.assertFalse(incoming.open)
        self.counter(incoming).increment()
        self.assertEqual((len(incoming.log), incoming.snapshot()), (0, {}))


class MarkTests(IncomingTestCase):
    def test_whereTotalsAreTrue(self) -> None:
        """A mark comes behind what was folded before it, and before what came later."""
        incoming = self.incoming(buffer_size=3, totals=Totals())
        counter = self.counter(incoming)
        for _ in range(4):
            counter.increment()
        self.assertEqual(incoming.counts(), (4, 1, 3))
        incoming.mark(0)
        counter.increment(10)
        first, second = incoming.take(), incoming.take()
        self.assertEqual([event.value for event in events(first)], [1, 1, 1])
        assert first.mark is not None
        self.assertEqual([total for _, total, _ in first.mark.totals], [4])
        self.assertEqual((first.mark.counts, first.mark.timestamp_ns), ((4, 1, 3), 1000))
        self.assertEqual(([event.value for event in events(second)], second.mark), ([10], None))

    def test_onlyWhatChanged(self) -> None:
        incoming = self.incoming(totals=Totals())
        self.counter(incoming, "old").increment()
        incoming.take()
        self.counter(incoming, "new").increment()
        batch = incoming.take().batch
        assert batch is not None
        incoming.mark(batch.since)
        mark = incoming.take().mark
        assert mark is not None
        self.assertEqual([series.key.name for series, _, _ in mark.totals], ["new"])

    def test_droppedSince(self) -> None:
        """Who takes is told once from which fold on something was dropped."""
        incoming = self.incoming(buffer_size=1, totals=Totals())
        counter = self.counter(incoming)
        self.assertIsNone(incoming.take().dropped_since)
        for _ in range(100):
            counter.increment()
        since = incoming.take().dropped_since
        assert since is not None
        incoming.mark(since)
        taken = incoming.take()
        assert taken.mark is not None
        self.assertEqual([total for _, total, _ in taken.mark.totals], [100])
        self.assertIsNone(taken.dropped_since)


class ForkTests(IncomingTestCase):
    def test_lockIsNew(self) -> None:
        """In a child process, a lock that a thread of its parent held does not stay locked."""
        incoming = self.incoming(buffer_size=1)
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with incoming._held():
                held.set()
                release.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(60)
        incoming.after_fork(silence=False)
        self.assertEqual(incoming.counts(), (0, 0, 0))
        self.counter(incoming).increment()
        self.assertEqual(self.take(incoming), [1])
        release.set()
        holder.join(60)

    def test_silenced(self) -> None:
        """Where those who listened are the parent's, nothing is taken any more."""
        incoming = self.incoming(totals=Totals())
        self.counter(incoming).increment()
        incoming.after_fork(silence=True)
        self.assertFalse(incoming.open)
        self.counter(incoming).increment()
        incoming.start_streaming()
        self.assertEqual((len(incoming.log), incoming.more()), (0, False))
