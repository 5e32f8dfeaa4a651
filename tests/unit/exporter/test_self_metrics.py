"""
Tests of the exporter's metrics about itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tests.exporting import FactoryTestCase
from tests.reader import FakeClient
from tests.recorders import ListRecorder
from txmetrics_tcp import Histogram, Key, MetricKind, MetricsFactory, Operation
from txmetrics_tcp._exporter.factory import TICK
from txmetrics_tcp._exporter.ledger import BATCH
from txmetrics_tcp._exporter.self_metrics import MAX_SAMPLES, OwnMetrics
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._model import U64_MAX


class OwnMetricsTests(FactoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.exporter = self.factory()

    def factory(self, buffer_size: int | None = 10, **settings: Any) -> MetricsFactory:
        """Return a factory; by default, with own metrics."""
        return super().factory(buffer_size, **{"own_metrics": True, **settings})

    def latest(self, client: FakeClient) -> dict[str, float]:
        """Return the exporter's own counters and gauges, as received by a client."""
        reader = client.read_all(self.reactor)
        return {
            str(key).removeprefix("txmetrics_"): total
            for key, total in reader.totals.items()
            if key.name.startswith("txmetrics_")
        }

    def test_longest(self) -> None:
        """The longest latency is published, for any number of samples."""
        recorded: list[float] = []
        own = OwnMetrics(self.exporter.recorder, self.exporter.stats)
        self.patch(Histogram, "record", lambda self, value: recorded.append(value))
        own.sample(2.0)
        for _ in range(2 * MAX_SAMPLES):
            own.sample(0.001)
        own.publish(1)
        self.assertEqual((max(recorded), len(recorded)), (2.0, MAX_SAMPLES))

    def test_blocked(self) -> None:
        """
        The latency of events recorded while the reactor is blocked is published, even if a new
        client had already requested a wake-up.
        """
        now = 100.0
        self.exporter = self.factory(monotonic=lambda: now, clock=lambda: round(now * 1e9))
        handle = self.exporter.recorder.counter("c")
        client = FakeClient(self.exporter)
        self.assertEqual(self.reactor.waiting, 1)
        handle.increment()
        now += 2
        self.reactor.settle()
        self.reactor.advance(TICK)
        name = "txmetrics_record_to_write_seconds"
        self.assertEqual(client.read_all(self.reactor).values(name), [2.0])

    def test_noLatencyWithoutClients(self) -> None:
        """Time without clients does not count towards the latency of later events."""
        now = 100.0
        self.exporter = self.factory(monotonic=lambda: now, clock=lambda: round(now * 1e9))
        handle = self.exporter.recorder.counter("c")
        first = FakeClient(self.exporter)
        first.read_all(self.reactor)
        handle.increment()
        first.read_all(self.reactor)
        first.transport.lose()
        now += 3600
        client = FakeClient(self.exporter)
        handle.increment()
        now += 0.5
        self.reactor.settle()
        self.reactor.advance(TICK)
        name = "txmetrics_record_to_write_seconds"
        self.assertEqual(max(client.read_all(self.reactor).values(name)), 0.5)

    def test_late(self) -> None:
        """A long latency is published even if the counts were published before."""
        recorded: list[float] = []
        own = OwnMetrics(self.exporter.recorder, self.exporter.stats)
        self.patch(Histogram, "record", lambda self, value: recorded.append(value))
        own.publish(1)
        own.sample(0.001)
        own.publish(1)
        self.assertEqual(recorded, [])
        own.sample(2.0)
        own.publish(1)
        own.publish(1)
        self.assertEqual(recorded, [0.001, 2.0])

    def test_refilledMeanwhile(self) -> None:
        """Samples added by drains during a publication are published next time."""
        recorded: list[float] = []
        own = OwnMetrics(self.exporter.recorder, self.exporter.stats)

        def record(histogram: Histogram, value: float) -> None:
            recorded.append(value)
            own.sample(value + 1)

        self.patch(Histogram, "record", record)
        for value in range(3):
            own.sample(value)
        own.publish(1)
        self.assertEqual(recorded, [0, 1, 2])
        own.publish(1)
        self.assertEqual(recorded, [0, 1, 2, 1, 2, 3])

    def test_countBeyond64Bits(self) -> None:
        """A count that exceeds a counter is published as the maximum."""
        client = FakeClient(self.exporter)
        for _ in range(3):
            self.exporter.recorder.histogram("h").record_many(1.0, U64_MAX)
            self.reactor.settle()
            self.reactor.advance(1)
            latest = self.latest(client)
        self.assertEqual(latest["events_recorded_total"], U64_MAX)
        self.assertEqual(latest["events_dropped_total [stage = incoming]"], U64_MAX)
        self.assertEqual(latest["clients"], 1)
        self.assertGreater(self.exporter.stats().dropped_incoming, 2 * U64_MAX)

    def test_values(self) -> None:
        """The published values equal those of `stats`."""
        slow = FakeClient(self.exporter, limit=100)
        client = FakeClient(self.exporter)
        for i in range(500):
            self.exporter.recorder.counter("c").increment()
            if i > 250:
                self.reactor.settle()
        slow.read_all(self.reactor)
        client.read_all(self.reactor)
        stats = self.exporter.stats()
        self.reactor.advance(1)
        self.assertEqual(
            self.latest(client),
            {
                "events_recorded_total": 500,
                "events_delivered_total": stats.written,
                "events_dropped_total [stage = incoming]": stats.dropped_incoming,
                "events_dropped_total [stage = client]": stats.dropped_client,
                "bytes_sent_total": stats.bytes_written,
                "repairs_total": 2,
                "clients_connected_total": 2,
                "clients": 2,
                "client_buffer_high_water": 10,
                "series": 1,
                "series_refused_total": 0,
            },
        )
        self.assertGreater(stats.dropped_incoming, 0)
        self.assertGreater(stats.dropped_client, 0)

    def test_described(self) -> None:
        """Each own metric has a unit and a description, which precedes its first value."""
        client = FakeClient(self.exporter)
        self.exporter.recorder.counter("c").increment()
        self.reactor.settle()
        self.reactor.advance(1)
        reader = client.read_all(self.reactor)
        described = {
            (metadata.kind, metadata.name)
            for metadata in reader.metadata
            if metadata.unit and metadata.description
        }
        seen = {(metric.key.kind, metric.key.name) for metric in reader.metrics}
        self.assertEqual({name for _, name in seen - described}, {"c"})
        self.assertGreater(len(seen), 10)

    def test_noFeedback(self) -> None:
        """While the program records nothing, nothing is published."""
        client = FakeClient(self.exporter)
        self.exporter.recorder.counter("c").increment()
        self.reactor.settle()
        for _ in range(3):
            self.reactor.advance(1)
            client.read_all(self.reactor)
        before = self.exporter.stats().recorded
        self.reactor.pump([1] * 100)
        client.read_all(self.reactor)
        self.assertEqual(self.exporter.stats().recorded, before)

    def test_changedValuesOnly(self) -> None:
        client = FakeClient(self.exporter)
        self.exporter.recorder.counter("c").increment()
        self.reactor.settle()
        self.reactor.advance(1)
        before = len(client.read_all(self.reactor).metrics)
        self.exporter.recorder.counter("c").increment()
        self.reactor.settle()
        self.reactor.advance(1)
        later = client.read_all(self.reactor).metrics[before:]
        names = {metric.key.name.removeprefix("txmetrics_") for metric in later}
        self.assertNotIn("clients", names)
        self.assertIn("events_recorded_total", names)
        self.assertEqual(
            {metric.operation for metric in later if metric.key.name.startswith("txmetrics_e")},
            {Operation.SET_COUNTER},
        )

    def test_latency(self) -> None:
        """Each batch has one sample: the latency of its first event."""
        self.exporter = self.factory(clock=self.now_ns)
        client = FakeClient(self.exporter)
        client.read_all(self.reactor)
        for _ in range(5):
            self.exporter.recorder.counter("c").increment()
        self.reactor.advance(0.25)
        self.reactor.drain()
        self.reactor.advance(1)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.values("txmetrics_record_to_write_seconds"), [0.25])

    def test_disabled(self) -> None:
        """Without own metrics, a client receives only the program's events."""
        factory = self.factory(own_metrics=False)
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.reactor.pump([1] * 5)
        self.assertEqual(len(client.read_all(self.reactor).metrics), 1)

    def test_disconnectedClients(self) -> None:
        """Events delivered to disconnected clients still count."""
        client = FakeClient(self.exporter)
        self.exporter.recorder.counter("c").increment()
        client.read_all(self.reactor)
        written = client.protocol.stats().bytes_written
        client.transport.lose()
        stats = self.exporter.stats()
        self.assertEqual((stats.connected, stats.written, stats.clients), (1, 1, ()))
        self.assertEqual(stats.bytes_written, written)

    def test_latencyOfLaterBatches(self) -> None:
        """Each batch of a long log has the latency of its own first event."""
        factory = self.factory(buffer_size=None, clock=self.now_ns)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(2 * BATCH):
            counter.increment()
        self.reactor.rightNow += 0.25
        self.reactor.drain()
        self.reactor.rightNow += 0.5
        self.reactor.drain()
        self.reactor.advance(1)
        latencies = client.read_all(self.reactor).values("txmetrics_record_to_write_seconds")
        self.assertEqual(latencies, [0.25, 0.75])

    def test_latencyOfEvents(self) -> None:
        """A description alone is not a batch and has no latency."""
        factory = self.factory()
        client = FakeClient(factory)
        client.read_all(self.reactor)
        factory.recorder.describe_counter("c")
        for _ in range(3):
            client.read_all(self.reactor)
            self.reactor.advance(1)
        # The own metrics are one batch.
        latencies = client.read_all(self.reactor).values("txmetrics_record_to_write_seconds")
        self.assertEqual(latencies, [0.0] * len(latencies))
        self.assertLessEqual(len(latencies), 2)

    def intervals(self, clients: int, figures: Callable[[int], dict[str, int]]) -> set[int]:
        """
        Return the numbers of ticks between publications.

        @param figures: returns figures of the statistics at a tick.
        """
        account = FakeClient(self.exporter).protocol.stats()
        same = replace(self.exporter.stats(), clients=(account,) * clients)
        asked, published = [0], []
        now = 0

        def stats() -> Stats:
            asked.append(now)
            return replace(same, **figures(now))

        recorder = ListRecorder()
        own = OwnMetrics(recorder, stats)
        for now in range(1, 200):
            own.publish(clients)
            if recorder.take():
                published.append(now)
        # Asking for the statistics, too, costs time for each client.
        self.assertLessEqual(len(asked), 1 + 200 * 1000 / clients)
        return {later - now for now, later in pairwise(published)}

    def test_manyClients(self) -> None:
        """
        The more clients, the less often own metrics are published, so that they reach no more
        clients in a second than with few.
        """
        for clients, ticks in ((1, 1), (100, 1), (101, 2), (1000, 10), (4600, 50)):
            intervals = self.intervals(clients, lambda now: {"recorded": 1000 * now})
            self.assertEqual(intervals, {ticks}, clients)

    def test_urgent(self) -> None:
        """Changes of drops, clients and resyncs are published sooner."""
        urgent = ("dropped_incoming", "dropped_client", "repairs", "connected")
        for name in urgent:
            for clients, ticks in ((1000, 1), (4600, 5)):
                intervals = self.intervals(clients, lambda now, name=name: {name: now})
                self.assertEqual(intervals, {ticks}, name)

    def test_fewSamplesWithManyClients(self) -> None:
        """The more clients, the fewer latency samples are published; always the longest."""
        recorded: list[float] = []
        self.patch(Histogram, "record", lambda self, value: recorded.append(value))
        account = FakeClient(self.exporter).protocol.stats()
        for clients, samples in ((100, 1000), (1000, 100), (4000, 25), (10**6, 1)):
            recorded.clear()
            stats = replace(self.exporter.stats(), clients=(account,) * clients)
            own = OwnMetrics(self.exporter.recorder, lambda: stats)  # noqa: B023
            own.sample(2.0)
            for _ in range(MAX_SAMPLES):
                own.sample(0.001)
            for _ in range(clients // 1000 + 1):
                own.publish(clients)
            self.assertEqual((max(recorded), len(recorded)), (2.0, samples))

    def test_idle(self) -> None:
        """
        With C{idle_after}, own metrics stay, and an idle program sends nothing after the release of
        its series.
        """
        factory = self.factory(buffer_size=1000, own_metrics=True, idle_after=3)
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        for _ in range(10):
            self.reactor.advance(1)
            reader = client.read_all(self.reactor)
        self.assertNotIn(Key.of(MetricKind.COUNTER, "c"), reader.totals)
        self.assertEqual(reader.totals[Key.of(MetricKind.GAUGE, "txmetrics_clients")], 1)
        before = factory.stats().recorded
        for _ in range(10):
            self.reactor.advance(1)
            client.read_all(self.reactor)
        self.assertEqual(factory.stats().recorded, before)

    def test_default(self) -> None:
        """By default, a factory publishes own metrics."""
        factory = MetricsFactory(self.reactor, in_reactor_thread=lambda: False)  # type: ignore[arg-type]
        client = FakeClient(factory)
        client.read_all(self.reactor)
        self.reactor.advance(1)
        self.assertEqual(client.read_all(self.reactor).values("txmetrics_clients"), [1])
