"""
What only mutants of the incoming side have shown that nobody looked at; see
docs/mutation-testing.md.
"""

from __future__ import annotations

from tests.reader import FakeClient, truth
from tests.test_incoming import IncomingTestCase
from tests.test_server_details import DetailTestCase
from txmetrics_tcp import Histogram, Key, MetricKind, MetricsFactory
from txmetrics_tcp._incoming import Incoming


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
