"""
Tests of totals: clients have exact totals when they connect and after losses.
"""

from __future__ import annotations

import os
import socket
import sys
from itertools import repeat

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.exporting import FactoryTestCase
from tests.reader import Bits, FakeClient, bits, counter_key, exact_totals, histogram_key
from txmetrics_tcp import (
    Distribution,
    Event,
    ExporterSettings,
    Key,
    Metadata,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
    Status,
    TcpBuilder,
    Unit,
    decode,
)
from txmetrics_tcp._exporter import ledger as ledger_module
from txmetrics_tcp._exporter import totals as totals_module
from txmetrics_tcp._exporter.factory import TICK
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.ledger import BATCH, EPOCHS, Taken
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals
from txmetrics_tcp._model import MAX_TEXT, U64_MAX
from txmetrics_tcp._net.writers import CHUNK
from txmetrics_tcp.testing import FakeReactor, PausingTransport


class SnapshotTests(FactoryTestCase):
    def test_lateClient(self) -> None:
        """A late client receives descriptions, then totals, then events."""
        factory = self.factory()
        recorder = factory.recorder
        recorder.describe_counter("c", "count")
        for _ in range(5000):
            recorder.counter("c", route="/").increment()
        recorder.gauge("g").set(1.5)
        recorder.gauge("g").decrement(0.25)
        recorder.histogram("h").record(1)
        client = FakeClient(factory)
        reader = client.read_all(self.reactor)
        self.assertEqual(len(reader.metadata), 1)
        self.assertEqual(
            [(str(metric.key), metric.operation, metric.value) for metric in reader.metrics],
            [
                ("c [route = /]", Operation.SET_COUNTER, 5000),
                ("g", Operation.SET_GAUGE, 1.25),
            ],
        )
        total = Distribution.of([1.0])
        self.assertEqual(reader.totals[histogram_key("h")], total)
        recorder.counter("c", route="/").increment()
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.totals[counter_key("c", ("route", "/"))], 5001)

    def test_boundaries(self) -> None:
        """
        The totals of a new client are between the boundaries of a snapshot, even without series.
        """
        factory = self.factory()
        early = FakeClient(factory)
        self.reactor.settle()
        recorder = factory.recorder
        recorder.describe_counter("c", "count")
        counter = recorder.counter("c")
        counter.increment(2)
        recorder.gauge("g").set(1.5)
        self.reactor.settle()
        late = FakeClient(factory)
        self.assertEqual(
            [_kind(event) for event in late.read_all(self.reactor).all],
            ["Status", "Metadata", "BEGIN_COMPLETE", "SET_COUNTER", "SET_GAUGE", "END"],
        )
        counter.increment()
        self.assertEqual(_kind(late.read_all(self.reactor).all[-1]), "INCREMENT_COUNTER")
        self.assertEqual(
            [_kind(event) for event in early.read_all(self.reactor).all],
            [
                *("Status", "BEGIN_COMPLETE", "END", "Metadata"),
                *("INCREMENT_COUNTER", "SET_GAUGE", "INCREMENT_COUNTER"),
            ],
        )

    def test_noGapNoDoubleCount(self) -> None:
        """Events pending for others when a client connects are only in that client's totals."""
        factory = self.factory(buffer_size=None)
        old = FakeClient(factory)
        counter = factory.recorder.counter("c")
        for _ in range(3000):
            counter.increment()
        new = FakeClient(factory)
        counter.increment()
        self.assertEqual(new.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual(old.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual(old.protocol.stats().written, 3001)

    def test_sentAsTheClientReads(self) -> None:
        """Totals do not take space in the client's bounded buffer, and are sent in chunks."""
        factory = self.factory(buffer_size=1, max_series=10_000)
        for i in range(3000):
            factory.recorder.counter("c", i=i).increment(i)
        client = FakeClient(factory)
        self.reactor.settle()
        self.assertLess(len(client.transport.written), 2 * CHUNK)
        for i in range(3000):
            factory.recorder.counter("c", i=i).increment()
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual(len(client.reader.totals), 3000)

    def test_beyondTheLimit(self) -> None:
        """Series beyond the limit are streamed, but are not in snapshots; this is reported."""
        factory = self.factory(max_series=2)
        for name in "abc":
            factory.recorder.counter(name).increment()
        client = FakeClient(factory)
        self.assertEqual({key.name for key in client.read_all(self.reactor).totals}, {"a", "b"})
        factory.recorder.counter("c").increment()
        self.assertEqual(client.read_all(self.reactor).values("c"), [1])
        stats = factory.stats()
        self.assertEqual((stats.series, stats.series_refused), (2, 1))
        with capturedLogs() as logged:
            self.reactor.pump([1] * 5)
        self.assertEqual(
            [event["series"] for event in logged if "limit of series" in event["log_format"]], [2]
        )

    def test_oneMarkerAtATime(self) -> None:
        """Clients that connect while a marker is pending begin at the next one."""
        factory = self.factory(buffer_size=None)
        first = FakeClient(factory)
        first.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(8 * BATCH):
            counter.increment()
        second, third = FakeClient(factory), FakeClient(factory)
        counter.increment()
        fourth = FakeClient(factory)
        for client in (first, second, third, fourth):
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
            self.assertEqual(client.reader.totals[counter_key("c")], 8 * BATCH + 1)

    def test_recordedWhileConnecting(self) -> None:
        """
        Events recorded while a client connects are only in its totals.  Events recorded after the
        client is listed are streamed.
        """
        factory = self.factory()
        counter = factory.recorder.counter("c")
        take = factory.incoming.take
        asked = []

        def taken() -> Taken:
            if not asked:
                # Another thread might record while the client connects.
                asked.append(factory.stats().clients)
                counter.increment(100)
            return take()

        self.patch(Incoming, "take", lambda incoming: taken())
        factory.recorder.describe_counter("c", None, "described before")
        client = FakeClient(factory)
        self.assertEqual(asked, [()])
        self.assertGreater(factory.stats().bytes_written, 0)
        client.read_all(self.reactor)
        self.assertEqual(len(factory.stats().clients), 1)
        counter.increment(1)
        client.read_all(self.reactor)
        self.assertEqual(
            [(event.operation, event.value) for event in client.reader.metrics],
            [(Operation.SET_COUNTER, 100), (Operation.INCREMENT_COUNTER, 1)],
        )


class HistogramTests(FactoryTestCase):
    """Totals of histograms, which clients receive like those of counters."""

    def test_withoutClients(self) -> None:
        """Samples recorded without clients are in the total of the first client."""
        factory = self.factory(max_series=10)
        histogram = factory.recorder.histogram("h", route="/")
        samples = [number / 7 for number in range(3000)]
        for sample in samples:
            histogram.record(sample)
        histogram.record_many(2.5, 1000)
        expected = bits(Distribution.of(samples + [2.5] * 1000))
        self.assertEqual(exact_totals(factory), {histogram.key: expected})
        reader = FakeClient(factory).read_all(self.reactor)
        self.assertEqual(reader.bits(), {histogram.key: expected})
        self.assertEqual([_kind(event) for event in reader.all[2:]], ["HistogramTotal", "END"])

    def test_dropped(self) -> None:
        """Dropped samples are in the total that follows; others are streamed one by one."""
        factory = self.factory(buffer_size=10)
        client = FakeClient(factory)
        histogram = factory.recorder.histogram("h")
        for number in range(500):
            histogram.record(number)
        histogram.record_many(0.5, 10_000)
        reader = client.read_all(self.reactor)
        self.assertGreater(client.protocol.stats().dropped_incoming, 400)
        samples = [*map(float, range(500)), *[0.5] * 10_000]
        self.assertEqual(reader.bits(), {histogram.key: bits(Distribution.of(samples))})
        histogram.record(7)
        reader = client.read_all(self.reactor)
        self.assertEqual((reader.all[-1].value, reader.bits()), (7.0, exact_totals(factory)))

    def test_repeatedOverSeveralBatches(self) -> None:
        """Each batch of repeated samples changes the total once."""
        factory = self.factory(buffer_size=None)
        client = FakeClient(factory)
        histogram = factory.recorder.histogram("h")
        histogram.record_many(0.5, 5 * BATCH)
        late = []
        while factory.incoming.more():
            late.append(FakeClient(factory))
            self.assertEqual(factory.recorder.snapshot()[histogram.key].count, 5 * BATCH)
            self.reactor.drain()
        self.assertGreater(len(late), 3)
        for reader in [one.read_all(self.reactor) for one in (client, *late)]:
            self.assertEqual(reader.bits(), exact_totals(factory))

    def test_forgotten(self) -> None:
        """A forgotten histogram begins again, and its new total precedes its next sample."""
        factory = self.factory()
        client = FakeClient(factory)
        histogram = factory.recorder.histogram("h")
        for sample in (1.0, 2.0):
            histogram.record(sample)
            factory.recorder.forget(histogram.key)
            histogram.record(sample)
        reader = client.read_all(self.reactor)
        self.assertEqual(
            [_kind(event) for event in reader.all[3:]],
            [
                *("RECORD_HISTOGRAM", "Gone", "HistogramTotal", "RECORD_HISTOGRAM"),
                *("RECORD_HISTOGRAM", "Gone", "HistogramTotal", "RECORD_HISTOGRAM"),
            ],
        )
        self.assertEqual(reader.totals, {histogram.key: Distribution.of([2.0])})
        self.assertEqual(reader.bits(), exact_totals(factory))

    def test_idle(self) -> None:
        """An idle histogram leaves the totals, and returns with all samples of its handle."""
        factory = self.factory(idle_after=1)
        client = FakeClient(factory)
        histogram = factory.recorder.histogram("h")
        histogram.record(1.0)
        for _ in range(3):
            client.read_all(self.reactor)
            self.reactor.advance(1)
        self.assertEqual((client.reader.totals, factory.recorder.snapshot()), ({}, {}))
        histogram.record(2.0)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.totals, {histogram.key: Distribution.of([1.0, 2.0])})
        self.assertEqual(reader.bits(), exact_totals(factory))

    def test_idleWithoutHandle(self) -> None:
        """An idle histogram whose handles have been discarded begins again."""
        for connected in (False, True):
            factory = self.factory(idle_after=1)
            factory.doStart()
            if connected:
                FakeClient(factory)
            recorder = factory.recorder
            for sample in (1.0, 2.0):
                recorder.histogram("h").record(sample)
                self.assertEqual(
                    recorder.snapshot(), {histogram_key("h"): Distribution.of([sample])}
                )
                recorder._handle.cache_clear()
                self.reactor.pump([1] * 3)
                self.assertEqual(recorder.snapshot(), {})

    def test_limit(self) -> None:
        """Histograms count towards the limit of series."""
        factory = self.factory(max_series=1)
        for name in "ab":
            factory.recorder.histogram(name).record(1.0)
        self.assertEqual(list(factory.recorder.snapshot()), [histogram_key("a")])
        self.assertEqual(factory.stats().series_refused, 1)

    def test_sharedSnapshot(self) -> None:
        """Samples that are recorded later do not change the totals of a pending snapshot."""
        factory = self.factory(buffer_size=None)
        for number in range(2000):
            factory.recorder.histogram("h", number=number).record(1.0)
        client = FakeClient(factory, limit=1)
        self.reactor.settle()
        for number in range(2000):
            factory.recorder.histogram("h", number=number).record(2.0)
        reader = client.read_all(self.reactor)
        [totals] = reader.snapshots
        self.assertEqual({one.count for one in totals.values()}, {1})
        self.assertEqual(reader.bits(), exact_totals(factory))

    def test_withoutTotals(self) -> None:
        """Without totals, no distribution is kept."""
        factory = self.factory(totals=False)
        client = FakeClient(factory)
        histogram = factory.recorder.histogram("h")
        histogram.record(1.0)
        histogram.record_many(1.0, 5)
        self.assertEqual(client.read_all(self.reactor).values("h"), [1.0] * 6)
        self.assertEqual(factory.recorder.snapshot(), {})
        self.assertIs(histogram._series.total, Distribution.EMPTY)

    def test_addedTogether(self) -> None:
        """Samples of several epochs are added to the total together; a snapshot has all."""
        factory = self.factory(buffer_size=None)
        histogram = factory.recorder.histogram("h")
        added = []
        with_samples = Distribution.with_samples

        def counted(distribution: Distribution, samples: list[float]) -> Distribution:
            added.append(len(samples))
            return with_samples(distribution, samples)

        self.patch(Distribution, "with_samples", counted)
        for sample in range(2 * EPOCHS * BATCH):
            histogram.record(sample)
        self.assertEqual(max(added), (EPOCHS + 1) * BATCH)
        expected = bits(Distribution.of(range(2 * EPOCHS * BATCH)))
        self.assertEqual(exact_totals(factory), {histogram.key: expected})

    def test_addedInTurn(self) -> None:
        """An epoch adds samples to a part of the totals only, and each of them has its turn."""
        factory = self.factory(buffer_size=None)
        FakeClient(factory)
        histograms = [factory.recorder.histogram("h", number=number) for number in range(80)]
        added: list[StreamedSeries] = []
        add_samples = StreamedSeries.add_samples

        def counted(series: StreamedSeries) -> None:
            if series.samples:
                added.append(series)
            add_samples(series)

        self.patch(StreamedSeries, "add_samples", counted)
        for sample in range(5 * EPOCHS):
            before = len(added)
            for histogram in histograms:
                histogram.record(sample)
            self.reactor.settle()
            self.assertLessEqual(len(added) - before, 80 / EPOCHS)
        self.assertEqual(len(set(added)), 80)
        expected = bits(Distribution.of(range(5 * EPOCHS)))
        for total in exact_totals(factory).values():
            self.assertEqual(total, expected)

    def test_retainedLater(self) -> None:
        """The total of a histogram that is retained later has the samples of earlier epochs."""
        factory = self.factory(max_series=1)
        other = factory.recorder.counter("a")
        other.increment()
        histogram = factory.recorder.histogram("h")
        client = FakeClient(factory)
        for sample in (1, 2):
            histogram.record(sample)
            self.reactor.settle()
        factory.recorder.forget(other.key)
        histogram.record(3)
        expected = {histogram.key: bits(Distribution.of([1, 2, 3]))}
        self.assertEqual(client.read_all(self.reactor).bits(), expected)
        self.assertEqual(exact_totals(factory), expected)

    def test_memoryExhausted(self) -> None:
        """If memory is exhausted while samples are added to a total, they are added later."""
        for streaming in (False, True):
            factory = self.factory(buffer_size=None)
            client = FakeClient(factory)
            if not streaming:
                client.transport.lose()
            histogram = factory.recorder.histogram("h")
            with_samples = Distribution.with_samples

            def fail(distribution: Distribution, samples: list[float]) -> Distribution:
                raise MemoryError

            self.patch(Distribution, "with_samples", fail)
            samples = range((EPOCHS + 2) * BATCH)
            for sample in samples:
                histogram.record(sample)
            self.reactor.settle()
            self.patch(Distribution, "with_samples", with_samples)
            if streaming:
                self.assertTrue(self.flushLoggedErrors(MemoryError))
            histogram.record(-1)
            expected = bits(Distribution.of([*samples, -1]))
            self.assertEqual(exact_totals(factory), {histogram.key: expected})
            late = FakeClient(factory)
            self.reactor.advance(TICK)
            self.assertEqual(late.read_all(self.reactor).bits(), {histogram.key: expected})

    def test_memoryExhaustedByRepeats(self) -> None:
        """If memory is exhausted by the events of repeated samples, each sample counts once."""
        factory = self.factory(buffer_size=None)
        client = FakeClient(factory)
        failures = [MemoryError()]

        def fail_once(entry: object, times: int) -> repeat[object]:
            if entry and failures:
                raise failures.pop()
            return repeat(entry, times)

        self.patch(ledger_module, "repeat", fail_once)
        histogram = factory.recorder.histogram("h")
        histogram.record_many(0.5, 2 * BATCH)
        self.reactor.settle()
        self.assertTrue(self.flushLoggedErrors(MemoryError))
        self.reactor.advance(TICK)
        self.assertEqual(factory.recorder.snapshot()[histogram.key].count, 2 * BATCH)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))


class DescriptionsTests(FactoryTestCase):
    def test_last(self) -> None:
        """The recorder has the last description of each metric, with or without series."""
        recorder = self.factory(totals=False).recorder
        self.assertEqual(recorder.descriptions(), [])
        recorder.describe_counter("a", "bytes", "first")
        recorder.describe_histogram("a", "seconds", "samples")
        recorder.describe_counter("a", "count", "last")
        self.assertEqual(
            recorder.descriptions(),
            [
                Metadata(MetricKind.COUNTER, "a", Unit.COUNT, "last"),
                Metadata(MetricKind.HISTOGRAM, "a", Unit.SECONDS, "samples"),
            ],
        )


class ResyncTests(FactoryTestCase):
    def test_afterOverflow(self) -> None:
        """A client that lost events receives exact totals as soon as it has caught up."""
        factory = self.factory()
        client = FakeClient(factory, limit=100)
        for i in range(500):
            factory.recorder.counter("c").increment()
            factory.recorder.gauge("g").set(i)
            self.reactor.settle()
        self.assertGreater(client.protocol.stats().dropped_client, 900)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.bits(), exact_totals(factory))
        self.assertEqual(reader.totals[counter_key("c")], 500)
        self.assertEqual(client.protocol.stats().repairs, 1)

    def test_statusBeforeSnapshot(self) -> None:
        """A resync is a status with the new counts, and then a snapshot."""
        factory = self.factory()
        client = FakeClient(factory, limit=100)
        for _ in range(500):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        reader = client.read_all(self.reactor)
        self.assertEqual(
            [_kind(event) for event in reader.all[-4:]],
            ["Status", "BEGIN", "SET_COUNTER", "END"],
        )
        dropped = client.protocol.stats().dropped_client
        self.assertEqual(reader.statuses[-1].dropped_client, dropped)
        self.assertEqual(reader.snapshots[-1], {counter_key("c"): 500})

    def test_afterIncomingDrops(self) -> None:
        factory = self.factory()
        client = FakeClient(factory)
        for _ in range(500):
            factory.recorder.counter("c").increment()
        self.assertGreater(factory.stats().dropped_incoming, 400)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))

    def test_changedSeriesOnly(self) -> None:
        """Series that did not change since the loss are not sent again."""
        factory = self.factory(max_series=1000)
        client = FakeClient(factory, limit=100)
        for i in range(500):
            factory.recorder.counter("quiet", i=i).increment()
            client.read_all(self.reactor)
        for _ in range(100):
            factory.recorder.counter("busy").increment()
            self.reactor.settle()
        before = len(client.reader.metrics)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.bits(), exact_totals(factory))
        sets = [m for m in reader.metrics[before:] if m.operation is Operation.SET_COUNTER]
        self.assertLessEqual(len(sets), 2)

    def test_neverCatchesUp(self) -> None:
        """
        A client that is always too slow receives totals every C{repair_interval} seconds; pending
        events are dropped and counted.
        """
        factory = self.factory(buffer_size=50)
        client = FakeClient(factory, limit=100)
        counter = factory.recorder.counter("c")
        lags = []
        for _ in range(100):
            for _ in range(20):
                counter.increment()
            self.reactor.settle()
            self.reactor.advance(0.5)
            reader = client.read(100)
            lags.append(counter_total(factory) - reader.totals.get(counter_key("c"), 0))
        # Up to 200 events are recorded within `repair_interval`.  The transport and the network
        # hold further events.
        self.assertLess(max(lags), 450)
        stats = client.protocol.stats()
        self.assertGreater(stats.repairs, 5)
        self.assertEqual(
            stats.recorded,
            stats.written + stats.dropped_client + stats.dropped_incoming + stats.waiting,
        )

    def test_moreThanFits(self) -> None:
        """A resync works if more events were dropped than a status can hold."""
        factory = self.factory()
        client = FakeClient(factory)
        counter = factory.recorder.counter("c")
        for _ in range(30):
            factory.recorder.histogram("h").record_many(1.0, U64_MAX)
            counter.increment()
        reader = client.read_all(self.reactor)
        self.assertGreater(client.protocol.stats().dropped_incoming, 10 * U64_MAX)
        self.assertEqual(reader.statuses[-1].dropped_incoming, U64_MAX)
        self.assertEqual(reader.bits(), exact_totals(factory))
        counter.increment()
        self.assertEqual(client.read_all(self.reactor).totals[counter_key("c")], 31)

    def test_resyncWhileStopping(self) -> None:
        """When the factory stops, a client that lost events receives totals before the end."""
        factory = self.factory()
        client = FakeClient(factory, limit=100)
        for _ in range(500):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        stopped = factory.stop()
        reader = client.read_all(self.reactor)
        self.successResultOf(stopped)
        self.assertEqual(reader.totals[counter_key("c")], 500)

    def test_withoutTotals(self) -> None:
        """Without totals, no totals are sent, and no pending events are dropped for them."""
        factory = MetricsFactory(
            self.reactor, ExporterSettings(buffer_size=10, totals=False, own_metrics=False)
        )  # type: ignore[arg-type]
        client = FakeClient(factory, limit=100)
        for i in range(500):
            factory.recorder.counter("c").increment(i)
            self.reactor.settle()
            self.reactor.advance(1)
        self.assertEqual(client.protocol.stats().waiting, 10)
        values = client.read_all(self.reactor).values("c")
        self.assertEqual(values[-10:], list(range(490, 500)))
        self.assertEqual(client.protocol.stats().repairs, 0)
        dropped = client.protocol.stats().dropped_client
        self.assertEqual(client.reader.statuses[-1].dropped_client, dropped)
        self.assertEqual(client.reader.snapshots, [])
        self.assertFalse(client.reader.in_snapshot)

    def test_defaultInterval(self) -> None:
        """By default, a client that never catches up receives totals after five seconds."""
        factory = self.factory()
        client = FakeClient(factory, limit=1)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        self.reactor.advance(4.99)
        client.read()
        self.reactor.settle()
        self.assertTrue(client.transport.producer_paused)
        self.assertEqual(client.protocol.stats().repairs, 0)
        self.reactor.advance(0.01)
        self.reactor.settle()
        self.assertEqual(client.protocol.stats().repairs, 1)


class IdleTests(FactoryTestCase):
    """Series that have not changed for C{idle_after} seconds."""

    def let_expire(self, factory: MetricsFactory, *clients: FakeClient) -> None:
        """Advance time without events until all series are released, and delete the handles."""
        for _ in range(3):
            self.reactor.settle()
            for client in clients:
                client.read_all(self.reactor)
            self.reactor.advance(1)
        factory.recorder._handle.cache_clear()
        self.assertEqual(factory.recorder.snapshot(), {})

    def test_returnWithNewHandle(self) -> None:
        """An expired series without handles begins at 0, and earlier clients receive this total."""
        factory = self.factory(idle_after=1)
        early = FakeClient(factory)
        factory.recorder.counter("c").increment(7)
        factory.recorder.gauge("g").set(7)
        self.let_expire(factory, early)
        self.assertEqual(early.reader.totals, {})
        self.assertEqual([gone.key.name for gone in early.reader.gone], ["c", "g"])
        factory.recorder.counter("c").increment()
        factory.recorder.gauge("g").increment()
        late = FakeClient(factory)
        for client in (early, late):
            reader = client.read_all(self.reactor)
            self.assertEqual(reader.bits(), exact_totals(factory))
            self.assertEqual(sorted(reader.totals.values()), [1, 1])

    def test_newSeries(self) -> None:
        """A series that no connected client has received is streamed without an extra event."""
        factory = self.factory(idle_after=1)
        client = FakeClient(factory)
        for name in "ab":
            factory.recorder.counter(name).increment(5)
            [*_, metric] = client.read_all(self.reactor).metrics
            self.assertEqual((metric.operation, metric.value), (Operation.INCREMENT_COUNTER, 5))
            self.let_expire(factory, client)
        self.assertEqual(len(client.reader.metrics), 2)
        # The only client that has received the series disconnects, and another series expires.
        client.transport.lose()
        factory.recorder.counter("c").increment()
        factory.doStart()
        self.reactor.pump([1] * 4)
        factory.recorder._handle.cache_clear()
        client = FakeClient(factory)
        factory.recorder.counter("c").increment(3)
        self.assertEqual(client.read_all(self.reactor).values("c"), [3])
        factory.recorder.counter("a").increment(5)
        self.assertEqual(client.read_all(self.reactor).values("a"), [5])

    def test_stalledClient(self) -> None:
        """A client that does not read delays no release; its resync shows what is gone."""
        factory = self.factory(idle_after=1)
        client = FakeClient(factory, limit=1)
        factory.recorder.counter("a").increment()
        client.read_all(self.reactor)
        for _ in range(20):
            factory.recorder.counter("a").increment()
            factory.recorder.counter("b").increment()
            self.reactor.settle()
        for _ in range(30):
            self.reactor.advance(0.1)
            factory.recorder.counter("b").increment()
            self.reactor.settle()
        self.assertEqual([key.name for key in factory.recorder.snapshot()], ["b"])
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.bits(), exact_totals(factory))
        self.assertEqual((reader.gone, len(reader.snapshots)), ([], 2))

    def test_manyAtOnce(self) -> None:
        """Many series are released over a few seconds, so that no client loses events."""
        factory = self.factory(buffer_size=20, idle_after=1)
        client = FakeClient(factory)
        for i in range(100):
            factory.recorder.counter("a", i=i).increment()
            client.read_all(self.reactor)
        seen = []
        for _ in range(200):
            self.reactor.advance(0.05)
            client.read_all(self.reactor)
            seen.append(len(factory.recorder.snapshot()))
        self.assertEqual(sorted(set(seen)), [0, 20, 40, 60, 80, 100])
        self.assertEqual((len(client.reader.gone), client.reader.totals), (100, {}))
        self.assertEqual(client.protocol.stats().dropped_client, 0)

    def test_returnWithoutRoom(self) -> None:
        """Beyond the limit of series, a returning series is also preceded by its total."""
        factory = self.factory(idle_after=1, max_series=1)
        client = FakeClient(factory)
        factory.recorder.counter("a").increment(5)
        self.let_expire(factory, client)
        factory.recorder.counter("b").increment()
        factory.recorder.counter("a").increment()
        self.assertEqual(client.read_all(self.reactor).values("a"), [5, 0, 1])

    def test_boundedHistory(self) -> None:
        """The history of epochs does not grow with time."""
        totals = Totals(idle_after=100_000.0)
        for second in range(20_000):
            totals.idle(second, second)
        self.assertLess(len(totals._history), 1001)

    def test_tooManyReleased(self) -> None:
        """After too many series were released, every new series begins with its total."""
        self.patch(totals_module, "MAX_RELEASED", 2)
        factory = self.factory(idle_after=1)
        client = FakeClient(factory)
        for name in "abc":
            factory.recorder.counter(name).increment(7)
        self.let_expire(factory, client)
        for name in "ad":
            factory.recorder.counter(name).increment()
        reader = client.read_all(self.reactor)
        self.assertEqual((reader.values("a"), reader.values("d")), ([7, 0, 1], [0, 1]))
        self.assertEqual(
            {key: value for key, value in reader.bits().items() if key.name in "ad"},
            exact_totals(factory),
        )

    def test_withoutClients(self) -> None:
        """Without clients, idle series leave the snapshot and make room for others."""
        factory = self.factory(idle_after=1, max_series=5)
        factory.doStart()
        for i in range(5):
            factory.recorder.counter("old", i=i).increment()
        self.reactor.pump([1] * 4)
        self.assertEqual(factory.stats().series, 0)
        self.assertEqual(factory.recorder.snapshot(), {})
        for i in range(5):
            factory.recorder.counter("new", i=i).increment()
        self.assertEqual({key.name for key in factory.recorder.snapshot()}, {"new"})
        client = FakeClient(factory)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual((len(client.reader.totals), factory.stats().series_refused), (5, 0))
        client.transport.lose()
        factory.doStop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noTick(self) -> None:
        """Without clients and C{idle_after}, no timer runs."""
        factory = self.factory()
        factory.doStart()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


def _kind(event: Event) -> str:
    """Return the type of an event, the operation of a metric, or the boundary of a snapshot."""
    if isinstance(event, Metric):
        return event.operation.name
    return event.name if isinstance(event, Snapshot) else type(event).__name__


class StatusTests(FactoryTestCase):
    def test_first(self) -> None:
        """The first frame is a status, with the source and the time when the server started."""
        factory = MetricsFactory(
            self.reactor, ExporterSettings(source="shop"), clock=lambda: 5_000_000_007
        )
        factory.recorder.describe_counter("c")
        transport = PausingTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        self.assertEqual(decode(transport.written)[0], Status("shop", 5_000_000_007))

    def test_ownName(self) -> None:
        """By default, the source consists of program, process number and host."""
        # An embedded interpreter may have no arguments.
        for arguments, program in ((["/opt/program.py"], "program.py"), ([], "python")):
            self.patch(sys, "argv", arguments)
            [status] = FakeClient(self.factory()).reader.statuses
            self.assertEqual(status.source, f"{program}[{os.getpid()}]@{socket.gethostname()}")

    def test_ownNameThatIsNotUTF8(self) -> None:
        """Characters of program and host names that cannot be encoded are replaced."""
        self.patch(sys, "argv", ["/opt/caf\udce9.py"])
        self.patch(socket, "gethostname", lambda: "h\udcf6st")
        [status] = FakeClient(self.factory()).reader.statuses
        self.assertEqual(status.source, f"caf?.py[{os.getpid()}]@h?st")

    def test_longName(self) -> None:
        self.patch(sys, "argv", ["x" * 100_000])
        [status] = FakeClient(self.factory()).reader.statuses
        self.assertLess(len(status.source), 400)

    def test_badSource(self) -> None:
        """An invalid source is rejected by the builder and the settings."""
        for bad, error, why in (
            (5, TypeError, "must be a str, not int"),
            (b"x", TypeError, "must be a str, not bytes"),
            ("", ValueError, "must not be empty"),
            ("a\udcff", ValueError, "cannot be encoded as UTF-8"),
            ("x" * (MAX_TEXT + 1), ValueError, f"must not exceed {MAX_TEXT} bytes"),
        ):
            for take in (
                TcpBuilder(self.reactor).source,
                lambda source: MetricsFactory(self.reactor, ExporterSettings(source=source)),
            ):
                with self.assertRaisesRegex(error, f"^source {why}"):
                    take(bad)  # type: ignore[arg-type]
        TcpBuilder(self.reactor).source("x" * MAX_TEXT).source(None)

    def test_losses(self) -> None:
        """After a client has caught up, a status reports the dropped events of each side."""
        for totals in (True, False):
            factory = MetricsFactory(
                self.reactor,
                ExporterSettings(buffer_size=10, totals=totals, own_metrics=False),
                in_reactor_thread=lambda: False,
            )
            client = FakeClient(factory, limit=100)
            for i in range(300):
                factory.recorder.counter("c").increment()
                if i > 150:
                    self.reactor.settle()
            [_, *later] = client.read_all(self.reactor).statuses
            stats = client.protocol.stats()
            self.assertGreater(stats.dropped_incoming, 0)
            self.assertGreater(stats.dropped_client, 0)
            self.assertEqual(
                (later[-1].dropped_incoming, later[-1].dropped_client),
                (stats.dropped_incoming, stats.dropped_client),
            )

    def test_sinceItConnected(self) -> None:
        """A status counts only events dropped since the client connected."""
        factory = self.factory()
        FakeClient(factory)
        for _ in range(300):
            factory.recorder.counter("c").increment()
        self.reactor.settle()
        client = FakeClient(factory)
        for _ in range(300):
            factory.recorder.counter("c").increment()
        status = client.read_all(self.reactor).statuses[-1]
        self.assertEqual(status.dropped_incoming, client.protocol.stats().dropped_incoming)
        self.assertLess(status.dropped_incoming, factory.stats().dropped_incoming)

    def test_continuousLosses(self) -> None:
        """Under continuous losses, a client receives a status every few seconds."""
        factory = self.factory(buffer_size=50)
        client = FakeClient(factory, limit=100)
        for _ in range(100):
            for _ in range(20):
                factory.recorder.counter("c").increment()
            self.reactor.settle()
            self.reactor.advance(0.5)
            client.read(100)
        lost = [status.dropped_client for status in client.reader.statuses]
        self.assertGreater(len(lost), 5)
        self.assertEqual(lost, sorted(set(lost)))


def counter_total(factory: MetricsFactory) -> float:
    return factory.recorder.snapshot()[counter_key("c")]


class FloatTests(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(st.sampled_from(["increment", "decrement", "set"]), st.floats()), max_size=50
        )
    )
    def test_exactFloats(self, acts: list[tuple[str, float]]) -> None:
        """A client that received all events has exactly the same floats."""
        reactor = FakeReactor()
        factory = MetricsFactory(reactor, ExporterSettings(buffer_size=None))  # type: ignore[arg-type]
        client = FakeClient(factory)
        gauge = factory.recorder.gauge("g")
        for act, value in acts:
            getattr(gauge, act)(value)
        self.assertEqual(client.read_all(reactor).bits(), exact_totals(factory))


class Machine(RuleBasedStateMachine):
    """
    Performs actions in any order: bursts of records of any size, on the reactor thread and on
    others; drains and delayed calls; clients that connect, disconnect, and read any amount; delays.
    """

    clients = Bundle("clients")

    limits = ExporterSettings(buffer_size=7, max_series=8, idle_after=5)

    def __init__(self) -> None:
        super().__init__()
        self.reactor = FakeReactor()
        self.on_reactor_thread = False
        self.factory = MetricsFactory(
            self.reactor,
            self.limits,
            monotonic=self.reactor.seconds,
            in_reactor_thread=lambda: self.on_reactor_thread,
        )
        # The factory is started so that series expire while no clients are connected.
        self.factory.doStart()
        self.alive: list[FakeClient] = []

    @rule(target=clients, limit=st.sampled_from([1, 60, 300, 100_000]))
    def connect(self, limit: int) -> FakeClient:
        client = FakeClient(self.factory, limit)
        self.alive.append(client)
        return client

    @rule(client=clients)
    def disconnect(self, client: FakeClient) -> None:
        if client in self.alive:
            self.alive.remove(client)
            client.transport.lose()

    @rule(client=clients, size=st.one_of(st.none(), st.integers(0, 200)))
    def read(self, client: FakeClient, size: int | None) -> None:
        client.read(size)

    @rule(
        name=st.sampled_from("ab"),
        label=st.integers(0, 2),
        acts=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
        repeat=st.sampled_from([1, 2, 3, 20]),
        absolute=st.booleans(),
        on_reactor_thread=st.booleans(),
    )
    def count(
        self,
        name: str,
        label: int,
        acts: list[int],
        repeat: int,
        absolute: bool,
        on_reactor_thread: bool,
    ) -> None:
        self.on_reactor_thread = on_reactor_thread
        counter = self.factory.recorder.counter(name, label=label)
        for value in acts * repeat:
            if absolute:
                counter.absolute(value)
            else:
                counter.increment(value)
        self.on_reactor_thread = False

    @rule(
        act=st.sampled_from(["increment", "decrement", "set"]),
        values=st.lists(st.floats(), min_size=1, max_size=5),
        repeat=st.sampled_from([1, 3, 10]),
    )
    def measure(self, act: str, values: list[float], repeat: int) -> None:
        for value in values * repeat:
            getattr(self.factory.recorder.gauge("g"), act)(value)

    @rule()
    def forget_handles(self) -> None:
        """Delete all handles.  Later handles may belong to series that have expired."""
        self.factory.recorder._handle.cache_clear()

    @rule(name=st.sampled_from("ab"), label=st.integers(0, 2))
    def forget(self, name: str, label: int) -> None:
        self.factory.recorder.forget(counter_key(name, ("label", str(label))))

    @rule()
    def forget_gauge(self) -> None:
        self.factory.recorder.forget(Key(MetricKind.GAUGE, "g"))

    @rule()
    def forget_histogram(self) -> None:
        self.factory.recorder.forget(Key(MetricKind.HISTOGRAM, "h"))

    @rule(n=st.one_of(st.integers(0, 5000), st.just(2**64 - 1)))
    def sample(self, n: int) -> None:
        self.factory.recorder.histogram("h").record_many(0.5, n)

    @rule(
        samples=st.lists(st.floats(), min_size=1, max_size=5),
        repeat=st.sampled_from([1, 2, 10]),
        on_reactor_thread=st.booleans(),
    )
    def samples(self, samples: list[float], repeat: int, on_reactor_thread: bool) -> None:
        self.on_reactor_thread = on_reactor_thread
        for sample in samples * repeat:
            self.factory.recorder.histogram("h").record(sample)
        self.on_reactor_thread = False

    @rule()
    def describe(self) -> None:
        self.factory.recorder.describe_counter("a", "count", str(self.reactor.seconds()))

    @rule()
    def drain(self) -> None:
        self.reactor.drain()

    @rule(seconds=st.sampled_from([0, 0.1, 6, 20]))
    def wait(self, seconds: float) -> None:
        self.reactor.advance(seconds)

    @rule()
    def read_everything(self) -> None:
        """A client that has read all data has exact totals."""
        for client in self.alive:
            client.read_all(self.reactor)
        for client in self.alive:
            client.read_all(self.reactor)
            self.check_totals(client.reader.bits())
            stats = client.protocol.stats()
            assert stats.waiting == 0
            assert client.reader.unfinished == 0
            assert not client.reader.in_snapshot
            assert 1 <= len(client.reader.snapshots) <= 1 + stats.repairs

    def check_totals(self, got: dict[Key, Bits]) -> None:
        """A client has the totals of all retained series.  It may know others, too."""
        expected = exact_totals(self.factory)
        assert {key: got.get(key) for key in expected} == expected

    @invariant()
    def balanced(self) -> None:
        for client in self.alive:
            stats = client.protocol.stats()
            assert stats.recorded == (
                stats.dropped_incoming + stats.dropped_client + stats.written + stats.waiting
            ), stats
            queueing = client.transport.producer_paused or self.factory._fanout._deferred
            assert queueing or not client.protocol._outbox

    def teardown(self) -> None:
        self.read_everything()
        stopped = self.factory.stop()
        for client in self.alive:
            client.read_all(self.reactor)
        self.factory.doStop()
        assert stopped.called
        assert self.reactor.getDelayedCalls() == []


class RetainingMachine(Machine):
    """Retains all series."""

    limits = ExporterSettings(buffer_size=7, idle_after=5)

    def check_totals(self, got: dict[Key, Bits]) -> None:
        """A client has the totals of the recorder: no others, and none that are gone."""
        assert got == exact_totals(self.factory)


class AnyOrderTests(SynchronousTestCase):
    def test_anyOrder(self) -> None:
        """See L{Machine}."""
        for machine in (Machine, RetainingMachine):
            case = machine.TestCase
            case.settings = settings(max_examples=40, stateful_step_count=40)
            case("runTest").debug()


class BitsTests(SynchronousTestCase):
    def test_compares(self) -> None:
        """C{bits} distinguishes 0.0 and -0.0, and maps all NaNs to the same value."""
        self.assertNotEqual(bits(0.0), bits(-0.0))
        self.assertEqual(bits(float("nan")), bits(-float("nan")))
        self.assertNotEqual(bits(1), bits(2))
        self.assertEqual(Key(MetricKind.GAUGE, "g"), Key(MetricKind.GAUGE, "g"))
