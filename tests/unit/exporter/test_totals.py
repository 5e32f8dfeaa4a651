"""
Tests of totals: arithmetic, the limit of series, and idle series.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.exporting import FactoryTestCase, IncomingTestCase, events
from tests.reader import FakeClient, exact_totals
from txmetrics_tcp import (
    Distribution,
    Gone,
    Key,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
)
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.totals import STEP, STEP_OF_SAMPLES, Totals


class IncomingTotalsTests(IncomingTestCase):
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
                    # Not 0, because of rounding.
                    Key(MetricKind.GAUGE, "g"): 0.1 + 0.2 - 0.3,
                },
            )

    def test_includesDropped(self) -> None:
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
        """A snapshot includes events that are still in the log."""
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

    def test_steps(self) -> None:
        """
        A snapshot is taken in steps, with some series and samples in each; its totals are those at
        the first step.
        """
        # The samples of more than three hundred histograms remain in the log.
        incoming = self.incoming(buffer_size=None, totals=Totals())
        counters = [self.counter(incoming, f"c{number}") for number in range(5000)]
        histograms = [self.histogram(incoming, f"h{number}") for number in range(500)]
        for counter in counters:
            counter.increment()
        for histogram in histograms:
            histogram.record(1.0)
        expected = incoming.snapshot()
        steps = incoming.snapshot_steps()
        next(steps)
        number = 1
        while True:
            counters[number].increment()
            histograms[number].record(2.0)
            try:
                next(steps)
            except StopIteration as done:
                self.assertEqual(done.value, expected)
                break
            number += 1
        self.assertEqual(expected[histograms[0].key], Distribution.of([1.0]))
        self.assertGreaterEqual(number, 5500 // STEP + 300 // STEP_OF_SAMPLES)

    def test_limit(self) -> None:
        """Series beyond the limit are streamed but not retained."""
        incoming = self.incoming(totals=Totals(max_series=2))
        for _ in range(3):
            for name in "abcd":
                self.counter(incoming, name).increment()
            self.assertEqual(len(events(incoming.take())), 4)
        self.assertEqual(
            {key.name: total for key, total in incoming.snapshot().items()}, {"a": 3, "b": 3}
        )
        self.assertEqual(incoming.ledger.retained, 2)

    def test_refusedOnce(self) -> None:
        incoming = self.incoming(totals=Totals(max_series=1))
        handles = [self.counter(incoming, name) for name in "abc"]
        for _ in range(3):
            for handle in handles:
                handle.increment()
            incoming.take()
        self.assertEqual(incoming.ledger.refused, 2)

    def test_idle(self) -> None:
        """An idle series is not in snapshots.  When it changes again, its total is sent first."""
        incoming = self.incoming(totals=Totals(idle_after=10))
        resting, busy = self.counter(incoming, "resting"), self.counter(incoming, "busy")
        resting.increment(5)
        for now in range(0, 30, 5):
            busy.increment()
            incoming.take()
            incoming.release_idle(now)
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

    def test_timeOfRelease(self) -> None:
        """A batch of released series has the time of their release, so it has a latency."""
        incoming = self.incoming(totals=Totals(idle_after=0))
        self.counter(incoming).increment()
        incoming.take()
        self.now += 5
        incoming.release_idle(1)
        batch = incoming.take().batch
        assert batch is not None
        self.assertEqual(batch.recorded_ns, self.now)

    def test_withoutTotals(self) -> None:
        incoming = self.incoming(streaming=False)
        self.assertFalse(incoming.open)
        self.counter(incoming).increment()
        self.assertEqual((len(incoming.log), incoming.snapshot()), (0, {}))

    def test_returnWithRoomForOne(self) -> None:
        """The event with the total of a returning series is kept if the buffer has room."""
        for before, kept in ((0, 2), (1, 2), (2, 1), (3, 0)):
            totals = Totals(idle_after=0)
            incoming = self.incoming(buffer_size=3, totals=totals)
            counter = self.counter(incoming)
            counter.increment(5)
            self.take_all(incoming)
            incoming.release_idle(1)
            self.take_all(incoming)
            self.assertEqual(incoming.ledger.retained, 0)
            other = self.counter(incoming, "other")
            for _ in range(before):
                other.increment()
            # The log may hold three entries; the fourth exceeds the threshold.
            counter.increment()
            while incoming.log and len(incoming.log) < 4:
                other.increment()
            found = [
                (event.operation, event.value)
                for event in self.events_of_all(incoming)
                if event.key.name == "c"
            ]
            expected = [(Operation.SET_COUNTER, 5), (Operation.INCREMENT_COUNTER, 1)]
            self.assertEqual(found, expected[:kept], before)

    def test_returnAfterTheWrap(self) -> None:
        """The total of a returning counter has wrapped at 64 bits."""
        incoming = self.incoming(None, Totals(idle_after=0))
        counter = self.counter(incoming)
        counter.increment(2**64 - 1)
        counter.increment(6)
        self.take_all(incoming)
        incoming.release_idle(1)
        counter.increment()
        self.assertEqual(self.take_all(incoming), [5, 1])

    def events_of_all(self, incoming: Incoming) -> list[Metric]:
        found = []
        while incoming.more():
            found += events(incoming.take())
        return found


class FactoryTotalsTests(FactoryTestCase):
    def test_largeGauge(self) -> None:
        """Gauges of any size do not wrap."""
        factory = self.factory()
        client = FakeClient(factory)
        gauge = factory.recorder.gauge("g")
        for value in (1e30, 2e30):
            gauge.set(value)
            client.read_all(self.reactor)
            self.assertEqual(list(factory.recorder.snapshot().values()), [value])

    def test_kindsAreDistinct(self) -> None:
        """Series of different kinds may have the same name."""
        factory = self.factory()
        factory.recorder.counter("x").increment(2)
        factory.recorder.gauge("x").set(3)
        self.assertEqual(
            factory.recorder.snapshot(),
            {Key(MetricKind.COUNTER, "x"): 2, Key(MetricKind.GAUGE, "x"): 3.0},
        )

    def test_refusedLater(self) -> None:
        """A series beyond the limit counts as refused once, even if it is recorded repeatedly."""
        factory = self.factory(max_series=1)
        client = FakeClient(factory)
        for _ in range(5):
            factory.recorder.counter("a").increment()
            client.read_all(self.reactor)
        for _ in range(5):
            factory.recorder.counter("b").increment()
            client.read_all(self.reactor)
        self.assertEqual(factory.stats().series_refused, 1)

    def test_notRefused(self) -> None:
        """Below the limit of series, nothing is logged."""
        factory = self.factory()
        FakeClient(factory)
        factory.recorder.counter("a").increment()
        with capturedLogs() as logged:
            self.reactor.pump([1] * 3)
        self.assertEqual(logged, [])

    def test_idleExactly(self) -> None:
        """A series is released after exactly C{idle_after} seconds."""
        factory = self.factory(idle_after=3)
        client = FakeClient(factory)
        resting, busy = factory.recorder.counter("resting"), factory.recorder.counter("busy")
        resting.increment()
        busy.increment()
        seen = []
        for _ in range(5):
            client.read_all(self.reactor)
            self.reactor.advance(1)
            seen.append(sorted(key.name for key in factory.recorder.snapshot()))
            busy.increment()
        both = ["busy", "resting"]
        # The tick after one second notes the current epoch.
        self.assertEqual(seen, [both, both, both, ["busy"], ["busy"]])

    def test_idleAtOnce(self) -> None:
        """With an C{idle_after} of 0, a series is released at the next tick."""
        factory = self.factory(idle_after=0)
        client = FakeClient(factory)
        for _ in range(2):
            factory.recorder.counter("c").increment()
            client.read_all(self.reactor)
            self.reactor.advance(1)
            self.assertEqual(factory.recorder.snapshot(), {})

    def test_withoutTotals(self) -> None:
        stats = self.factory(totals=False).stats()
        self.assertEqual((stats.series, stats.series_refused), (0, 0))


class ReturnTests(FactoryTestCase):
    """When a released series changes again, an extra event sets its total, and is counted."""

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
        # In the buffer, and in the log.
        self.assertLessEqual(waiting, 10 + 10)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        stats = client.protocol.stats()
        self.assertGreaterEqual(stats.recorded, before.recorded)
        self.assertEqual(stats.recorded, recorded)
        self.assertEqual(
            stats.recorded, stats.dropped_incoming + stats.dropped_client + stats.written
        )

    def test_counts(self) -> None:
        factory, client = self.resting()
        factory.recorder.counter("resting").increment()
        self.check(factory, client, 6 + 2)
        self.assertEqual(client.reader.values("resting"), [5, 5, 1])

    def test_noRoom(self) -> None:
        """Totals and accounts are exact with room for both events, for one, or for none."""
        for ahead in range(25):
            factory, client = self.resting()
            for _ in range(ahead):
                factory.recorder.counter("busy").increment()
            factory.recorder.counter("resting").increment()
            for _ in range(25 - ahead):
                factory.recorder.counter("busy").increment()
            self.check(factory, client, 6 + 26 + 1)


class ForgetTests(FactoryTestCase):
    """`TcpRecorder.forget` releases a series, and sends clients `Gone`."""

    def setUp(self) -> None:
        super().setUp()
        self.exporter = self.factory()
        self.recorder = self.exporter.recorder

    def test_afterEarlierEvents(self) -> None:
        """Clients receive the events before it, then that the series is gone, then a new series."""
        client = FakeClient(self.exporter)
        counter = self.recorder.counter("c")
        counter.increment(5)
        self.recorder.forget(counter.key)
        reader = client.read_all(self.reactor)
        self.assertEqual([type(event) for event in reader.all[-2:]], [Metric, Gone])
        self.assertEqual([gone.key for gone in reader.gone], [counter.key])
        self.assertEqual((reader.totals, self.recorder.snapshot()), ({}, {}))
        counter.increment(2)
        self.assertEqual(client.read_all(self.reactor).totals, {counter.key: 2})
        self.assertEqual(self.recorder.snapshot(), {counter.key: 2})
        # A client that skips `Gone`, as the Rust programs do, has the new total, too.
        self.assertEqual(reader.values("c"), [5, 0, 2])

    def test_snapshotOfTheLog(self) -> None:
        """A snapshot includes what has been forgotten but not applied, in order."""
        FakeClient(self.exporter)
        counter, gauge = self.recorder.counter("c"), self.recorder.gauge("g")
        counter.increment(5)
        gauge.set(1)
        self.reactor.settle()
        counter.increment(5)
        self.recorder.forget(counter.key)
        self.recorder.forget(gauge.key)
        self.assertEqual(self.recorder.snapshot(), {})
        counter.increment(3)
        gauge.increment(0.5)
        gauge.increment(0.5)
        self.assertEqual(self.recorder.snapshot(), {counter.key: 3, gauge.key: 1})
        self.reactor.settle()
        self.assertEqual(self.recorder.snapshot(), {counter.key: 3, gauge.key: 1})

    def test_beyondTheLimit(self) -> None:
        """
        A series that is not retained begins again at zero, too; a total precedes its next event.
        """
        factory = self.factory(max_series=1)
        client = FakeClient(factory)
        retained, other = factory.recorder.counter("retained"), factory.recorder.counter("other")
        retained.increment()
        other.increment(5)
        self.reactor.settle()
        for counter in (retained, other):
            factory.recorder.forget(counter.key)
        other.increment(2)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.bits(), exact_totals(factory))
        self.assertEqual(reader.values("other"), [5, 0, 2])

    def test_roomInTheLog(self) -> None:
        """The total of a series that is retained in place of another includes all its events."""
        factory = self.factory(max_series=1)
        retained, other = factory.recorder.counter("retained"), factory.recorder.counter("other")
        FakeClient(factory)
        retained.increment()
        other.increment(5)
        self.reactor.settle()
        other.increment(2)
        factory.recorder.forget(retained.key)
        other.increment()
        self.assertEqual(factory.recorder.snapshot(), {other.key: 8})

    def test_withoutClients(self) -> None:
        counter = self.recorder.counter("c")
        counter.increment(5)
        self.recorder.forget(counter.key)
        counter.increment(2)
        client = FakeClient(self.exporter)
        self.assertEqual(client.read_all(self.reactor).values("c"), [2])
        self.assertEqual(self.recorder.snapshot(), {counter.key: 2})

    def test_makesRoom(self) -> None:
        self.recorder = self.factory(max_series=1).recorder
        first = self.recorder.counter("a")
        first.increment()
        self.recorder.forget(first.key)
        second = self.recorder.counter("b")
        second.increment()
        self.assertEqual(self.recorder.snapshot(), {second.key: 1})
        stats = self.recorder.stats()
        self.assertEqual((stats.series, stats.series_refused), (1, 0))
        self.reactor.settle()
        stats = self.recorder.stats()
        self.assertEqual((stats.series, stats.series_refused), (1, 0))

    def test_refusedAgain(self) -> None:
        """A series that is refused again after it was forgotten counts again, pending or not."""
        factory = self.factory(max_series=1)
        factory.recorder.counter("a").increment()
        refused = factory.recorder.counter("b")
        for _ in range(2):
            refused.increment()
            factory.recorder.forget(refused.key)
        for _ in range(2):
            stats = factory.stats()
            self.assertEqual((stats.series, stats.series_refused), (1, 2))
            FakeClient(factory).read_all(self.reactor)

    def test_withoutTotals(self) -> None:
        """Clients receive `Gone` for any series, also for those that have no total."""
        for settings in ({"totals": False}, {}):
            factory = self.factory(**settings)
            client = FakeClient(factory)
            client.read_all(self.reactor)
            histogram = factory.recorder.histogram("h", route="/")
            histogram.record(1)
            factory.recorder.forget(histogram.key)
            reader = client.read_all(self.reactor)
            self.assertEqual([gone.key for gone in reader.gone], [histogram.key])

    def test_lost(self) -> None:
        """A client that lost `Gone` receives a complete snapshot."""
        client = FakeClient(self.exporter, limit=1)
        self.recorder.counter("a").increment()
        client.read_all(self.reactor)
        for _ in range(20):
            self.recorder.counter("b").increment()
        self.recorder.forget(Key(MetricKind.COUNTER, "a"))
        for _ in range(20):
            self.recorder.counter("b").increment()
            self.reactor.settle()
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.bits(), exact_totals(self.exporter))
        self.assertEqual((reader.gone, reader.all.count(Snapshot.BEGIN_COMPLETE)), ([], 2))

    def test_lossAfterwards(self) -> None:
        """A loss after a series has gone is repaired without the other totals."""
        client = FakeClient(self.exporter, limit=1)
        for name in "abc":
            self.recorder.counter(name).increment()
        self.recorder.forget(Key(MetricKind.COUNTER, "a"))
        client.read_all(self.reactor)
        for _ in range(40):
            self.recorder.counter("b").increment()
            self.reactor.settle()
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.bits(), exact_totals(self.exporter))
        self.assertEqual(reader.all.count(Snapshot.BEGIN_COMPLETE), 1)
        self.assertEqual([key.name for key in reader.snapshots[-1]], ["b"])

    def test_unknown(self) -> None:
        """A series that was never recorded can be forgotten."""
        client = FakeClient(self.exporter)
        self.recorder.forget(Key(MetricKind.GAUGE, "unknown"))
        client.read_all(self.reactor)
        self.assertEqual(self.recorder.snapshot(), {})
        self.assertEqual(self.recorder.stats().series, 0)

    def test_notAKey(self) -> None:
        with self.assertRaisesRegex(TypeError, "a Key, not a str"):
            self.recorder.forget("c")  # type: ignore[arg-type]
