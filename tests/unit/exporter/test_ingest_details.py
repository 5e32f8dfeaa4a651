"""
What only mutants of the incoming side have shown that nobody looked at; see
docs/mutation-testing.md.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.reader import FakeClient, truth
from tests.unit.exporter.test_factory_details import DetailTestCase
from tests.unit.exporter.test_ingest import IncomingTestCase, events
from txmetrics_tcp import Histogram, Key, Metric, MetricKind, MetricsFactory, Operation
from txmetrics_tcp._exporter import ingest
from txmetrics_tcp._exporter.ingest import BATCH, MAX_SLACK, Incoming, Taken
from txmetrics_tcp._exporter.settings import DEFAULT_BUFFER_SIZE, check_buffer_size
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals
from txmetrics_tcp._instruments.recorder import Counter
from txmetrics_tcp._instruments.sink import Sink


class ReturnTests(DetailTestCase):
    """A series that was left out comes back with an event that says its value: that counts, too."""

    def resting(self) -> tuple[MetricsFactory, FakeClient]:
        factory = self.factory(idle_after=2)
        client = FakeClient(factory)
        factory.recorder.counter("resting").increment(5)
        for _ in range(4):
            factory.recorder.counter("busy").increment()
            client.read_all(self.reactor)
            self.reactor.advance(1)
        self.assertEqual([key.name for key in factory.recorder.snapshot()], ["busy"])
        return factory, client

    def check(self, factory: MetricsFactory, client: FakeClient, recorded: int) -> None:
        before = client.protocol.stats()
        waiting = factory.stats().waiting
        self.assertLessEqual(waiting, 10)
        self.assertEqual(client.read_all(self.reactor).bits(), truth(factory))
        stats = client.protocol.stats()
        self.assertGreaterEqual(stats.recorded, before.recorded)
        self.assertEqual(stats.recorded, recorded)
        self.assertEqual(stats.recorded, stats.dropped_incoming + stats.dropped + stats.written)

    def test_counts(self) -> None:
        factory, client = self.resting()
        factory.recorder.counter("resting").increment()
        self.check(factory, client, 5 + 2)
        self.assertEqual(client.reader.values("resting"), [5, 5, 1])

    def test_noRoom(self) -> None:
        """Where there is room for all, for some, and for none of it."""
        for ahead in range(25):
            factory, client = self.resting()
            for _ in range(ahead):
                factory.recorder.counter("busy").increment()
            factory.recorder.counter("resting").increment()
            for _ in range(25 - ahead):
                factory.recorder.counter("busy").increment()
            self.check(factory, client, 5 + 26 + 1)

    def test_withoutTotals(self) -> None:
        stats = self.factory(totals=False).stats()
        self.assertEqual((stats.series, stats.series_refused), (0, 0))


class FoldTests(IncomingTestCase):
    def test_recordWhileTheReactorFolds(self) -> None:
        """A finalizer that records in the middle of a fold: what it records comes behind it."""
        incoming = self.incoming(buffer_size=10)
        key = Key(MetricKind.HISTOGRAM, "h")
        histogram = Histogram(key, incoming.series(key))
        first_in_fold = Incoming._first_in_fold

        def interrupted(this: Incoming, *args: object) -> object:
            self.patch(Incoming, "_first_in_fold", first_in_fold)
            for number in range(5, 50):
                histogram.record(number)
            return first_in_fold(this, *args)

        for number in range(5):
            histogram.record(number)
        self.patch(Incoming, "_first_in_fold", interrupted)
        self.assertEqual(self.take_all(incoming), [float(number) for number in range(50)])

    def test_actsInTheMiddle(self) -> None:
        """
        Whoever folds, and whatever a finalizer does in the middle of it: takes, or records so much
        that it is for it to fold.  All comes, once, and in order.
        """
        for folding in ("take", "relieve", "start"):
            totals = Totals()
            incoming = self.incoming(None, totals, streaming=folding != "start")
            counter = self.counter(incoming)
            for _ in range(MAX_SLACK if folding == "relieve" else 5):
                counter.increment()

            def act(incoming: Incoming = incoming, counter: Counter = counter) -> None:
                self.assertIsNone(incoming.take().batch)
                for _ in range(3 * MAX_SLACK):
                    counter.increment()

            self.interrupt(act)
            if folding == "start":
                incoming.start_streaming()
            elif folding == "relieve":
                counter.increment()
            taken = self.take_all(incoming)
            expected = {"take": 5, "relieve": MAX_SLACK + 1, "start": 5}[folding] + 3 * MAX_SLACK
            self.assertEqual(list(incoming.snapshot().values()), [expected])
            self.assertEqual(incoming.counts(), (expected, 0, 0))
            # Before it starts, nothing is for the stream; what comes meanwhile is.
            self.assertEqual(len(taken), expected - 5 if folding == "start" else expected)

    def test_orderInTheMiddle(self) -> None:
        """What a finalizer records in the middle of a fold for nobody comes behind it, too."""
        incoming = self.incoming(streaming=False, totals=Totals())
        gauge = self.gauge(incoming)
        for value in range(5):
            gauge.set(value)
        # As many as make it fold itself, if it may, and leave less than was to be folded.
        more = range(5, 5 + MAX_SLACK - 3)
        self.interrupt(lambda: [gauge.set(value) for value in more])
        incoming.start_streaming()
        self.assertEqual(list(incoming.snapshot().values()), [more[-1]])
        self.assertEqual(self.take_all(incoming), list(more))
        self.assertEqual(incoming.counts().recorded, 5 + len(more))

    def test_raisesInTheMiddle(self) -> None:
        """A signal handler that raises in a fold for nobody: what was taken from the log counts."""
        incoming = self.incoming(streaming=False, totals=Totals())
        for name in "abcde":
            self.counter(incoming, name).increment()
        first_in_fold = Incoming._first_in_fold

        def interrupted(this: Incoming, series: StreamedSeries, *args: Any) -> object:
            if series.key.name == "c":
                raise KeyboardInterrupt
            return first_in_fold(this, series, *args)

        self.patch(Incoming, "_first_in_fold", interrupted)
        with self.assertRaises(KeyboardInterrupt):
            incoming.start_streaming()
        self.assertEqual(incoming.counts().recorded, 3)
        self.assertEqual(len(incoming.log), 2)

    def interrupt(self, act: Callable[[], object]) -> None:
        """Have something happen in the middle of the next fold."""
        first_in_fold = Incoming._first_in_fold

        def interrupted(this: Incoming, *args: Any) -> object:
            self.patch(Incoming, "_first_in_fold", first_in_fold)
            act()
            return first_in_fold(this, *args)

        self.patch(Incoming, "_first_in_fold", interrupted)

    def test_forkInTheMiddle(self) -> None:
        """A child that was forked while another thread folded, which it has not, folds itself."""
        incoming = self.incoming(totals=Totals())
        counter = self.counter(incoming)
        counter.increment()
        middle, forked = threading.Event(), threading.Event()

        def wait() -> None:
            middle.set()
            forked.wait(60)

        self.interrupt(wait)
        parent = threading.Thread(target=incoming.take)
        parent.start()
        middle.wait(60)
        try:
            incoming.after_fork(silence=False)
            counter.increment()
            taken: list[object] = []
            child = threading.Thread(target=lambda: taken.extend(self.take(incoming)), daemon=True)
            child.start()
            child.join(20)
            self.assertEqual(taken, [1])
        finally:
            forked.set()
            parent.join()

    def test_silentChild(self) -> None:
        """A child of a fork has nothing of what waited for its parent's clients."""
        incoming = self.incoming(buffer_size=1)
        counter = self.counter(incoming)
        for _ in range(5):
            counter.increment()
        self.assertTrue(incoming.more())
        incoming.after_fork(silence=True)
        self.assertFalse(incoming.more())
        self.assertEqual(incoming.counts().waiting, 0)
        counter.increment()
        self.assertEqual(len(incoming.log), 0)

    def test_repeated(self) -> None:
        """A sample that counts several times is so many events, however it falls into folds."""
        for ahead, count in ((0, 2), (1, BATCH), (BATCH - 1, 2), (3, 2 * BATCH), (0, BATCH)):
            incoming = self.incoming(buffer_size=None)
            key = Key(MetricKind.HISTOGRAM, "h")
            histogram = Histogram(key, incoming.series(key))
            for _ in range(ahead):
                histogram.record(1)
            histogram.record_many(2, count)
            for _ in range(5):
                histogram.record(3)
            self.assertEqual(self.take_all(incoming), [1] * ahead + [2] * count + [3] * 5)
            self.assertEqual(incoming.counts(), (ahead + count + 5, 0, 0))

    def test_returnWithRoomForOne(self) -> None:
        """What says the value of a series that returns takes the room that there is, if any."""
        for before, kept in ((0, 2), (1, 2), (2, 1), (3, 0)):
            totals = Totals(idle_after=0)
            incoming = self.incoming(buffer_size=3, totals=totals)
            counter = self.counter(incoming)
            counter.increment(5)
            self.take_all(incoming)
            incoming.forget_idle(1)
            self.assertEqual(incoming.retained, 0)
            other = self.counter(incoming, "other")
            for _ in range(before):
                other.increment()
            # Three in the log is the slack, which the fourth exceeds.
            counter.increment()
            while incoming.log and len(incoming.log) < 4:
                other.increment()
            found = [
                (event.operation, event.value)
                for event in self.events_of_all(incoming)
                if event.key.name == "c"
            ]
            said = [(Operation.SET_COUNTER, 5), (Operation.INCREMENT_COUNTER, 1)]
            self.assertEqual(found, said[:kept], before)

    def test_returnAfterTheWrap(self) -> None:
        """A counter that returns says its value in 64 bits."""
        incoming = self.incoming(None, Totals(idle_after=0))
        counter = self.counter(incoming)
        counter.increment(2**64 - 1)
        counter.increment(6)
        self.take_all(incoming)
        incoming.forget_idle(1)
        counter.increment()
        self.assertEqual(self.take_all(incoming), [5, 1])

    def events_of_all(self, incoming: Incoming) -> list[Metric]:
        found = []
        while incoming.more():
            found += events(incoming.take())
        return found


class StreamingTests(IncomingTestCase):
    """What is left, and what is not, when the last client goes, and when the next one comes."""

    def test_forgotten(self) -> None:
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
        self.assertIsNotNone(taken.mark)
        self.assertIsNone(taken.batch)
        self.assertEqual(self.take_all(incoming), [7])

    def test_more(self) -> None:
        """There is more as long as something waits, though the log is empty."""
        incoming = self.incoming(buffer_size=1)
        counter = self.counter(incoming)
        counter.increment()
        counter.increment()
        self.assertEqual(len(incoming.log), 0)
        self.assertTrue(incoming.more())

    def test_takesNoMoreThanItGives(self) -> None:
        """As long as something has been folded, or a mark is to come, the log is let be."""
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
        self.assertIsNotNone(incoming.take().mark)
        self.assertEqual(len(incoming.log), 1)

    def test_takenWhileNobodyListens(self) -> None:
        incoming = self.incoming(totals=Totals(), streaming=False)
        self.counter(incoming).increment()
        self.assertEqual(incoming.take(), Taken(None, None, None))
        self.assertEqual(incoming.counts().waiting, 0)
        self.assertEqual(len(incoming.log), 1)

    def test_startAfterStop(self) -> None:
        """A sink that was stopped is not opened by a client that comes."""
        incoming = self.incoming(streaming=False)
        incoming.stop()
        incoming.start_streaming()
        self.assertFalse(incoming.open)

    def test_restart(self) -> None:
        """Stopped and restarted while clients listen, it takes events again, totals or none."""
        incoming = self.incoming()
        incoming.stop()
        incoming.restart()
        self.counter(incoming).increment()
        self.assertEqual(self.take_all(incoming), [1])

    def test_reactorIsLeftAlone(self) -> None:
        """While nobody listens, a program that counts on the reactor thread asks it for nothing."""
        incoming = self.incoming(totals=Totals(), in_reactor_thread=True, streaming=False)
        counter = self.counter(incoming)
        for _ in range(100):
            counter.increment()
        self.assertEqual(self.wanted, 0)

    def test_sameSeriesMeanwhile(self) -> None:
        """A finalizer that asks for a series while it is being made: both have the same."""
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


class LimitTests(IncomingTestCase):
    def test_bufferSize(self) -> None:
        """As in the reference, if nothing is said; at most what a container can hold."""
        self.assertEqual(DEFAULT_BUFFER_SIZE, 1024)
        self.assertEqual(check_buffer_size(sys.maxsize), sys.maxsize)
        with self.assertRaises(ValueError):
            self.incoming(buffer_size=0)
