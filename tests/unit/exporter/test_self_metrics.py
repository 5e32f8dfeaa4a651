"""
Tests of the exporter's metrics about itself.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

from tests.exporting import FactoryTestCase
from tests.reader import FakeClient
from tests.recorders import ListRecorder
from tests.tracing import Line, tracing
from txmetrics_tcp import Histogram, Key, MetricKind, MetricsFactory, Operation, SourceView
from txmetrics_tcp._exporter import self_metrics
from txmetrics_tcp._exporter.factory import TICK
from txmetrics_tcp._exporter.ledger import BATCH, RELEASED_AT_ONCE
from txmetrics_tcp._exporter.self_metrics import LATE, MAX_SAMPLES, OwnMetrics
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp.testing import FakeReactor


class OwnMetricsTestCase(FactoryTestCase):
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
            if key.name.startswith("txmetrics_") and key.kind is not MetricKind.HISTOGRAM
        }


class OwnMetricsTests(OwnMetricsTestCase):
    def own(self) -> tuple[OwnMetrics, list[float]]:
        """Return own metrics, and the list of the samples that they publish."""
        recorded: list[float] = []
        self.patch(Histogram, "record", lambda self, value: recorded.append(value))
        return OwnMetrics(self.exporter.recorder, self.exporter.stats), recorded

    def test_longest(self) -> None:
        """A long latency is published once, for any number of samples."""
        own, recorded = self.own()
        for latency in (LATE, 0.001, 2.0, 0.001):
            for before in (0, 1000):
                recorded.clear()
                for sample in (*[0.001] * before, latency, *[0.001] * 1000):
                    own.sample(sample)
                self.exporter.recorder.counter("c").increment()
                own.publish(1)
                self.assertEqual((max(recorded), len(recorded)), (latency, MAX_SAMPLES))

    def test_random(self) -> None:
        """Each batch is equally likely to be a sample, also the one with the longest latency."""
        own, recorded = self.own()
        for _ in range(2000):
            for i in range(40):
                own.sample(i / 1000)
            self.exporter.recorder.counter("c").increment()
            own.publish(1)
        self.assertEqual(len(recorded), 2000 * MAX_SAMPLES)
        for i in range(40):
            # 500 are expected, with a standard deviation of less than 20.
            self.assertLess(abs(recorded.count(i / 1000) - 500), 150)

    def test_share(self) -> None:
        """With 1,024 events a second, each in a batch, less than 5% are the exporter's own."""
        factory = self.factory(buffer_size=1000)
        client = FakeClient(factory)
        counter = factory.recorder.counter("c")
        self.reactor.advance(TICK)
        before = len(client.read_all(self.reactor).metrics)
        for _ in range(1024):
            counter.increment()
            self.reactor.settle()
            self.reactor.advance(TICK / 1024)
        sent = [metric.key.name for metric in client.read_all(self.reactor).metrics[before:]]
        self.assertEqual(sent.count("c"), 1024)
        self.assertEqual(sent.count("txmetrics_record_to_write_seconds"), MAX_SAMPLES)
        self.assertLess(len(sent) - 1024, 50)

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

    def test_latencyOfReleases(self) -> None:
        """The latency of a batch of released series is the time since their release."""
        self.exporter = self.factory(buffer_size=1000, idle_after=2, clock=self.now_ns)
        client = FakeClient(self.exporter)
        for number in range(3 * RELEASED_AT_ONCE):
            self.exporter.recorder.counter("c", number=number).increment()
        client.read_all(self.reactor)
        latencies: list[float] = []
        self.exporter._fanout._sample = latencies.append
        for _ in range(100):
            self.reactor.advance(0.05)
            self.reactor.settle()
        self.assertEqual(len([key for key in client.read().totals if key.name == "c"]), 0)
        self.assertEqual(max(latencies), 0)

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

    def test_pending(self) -> None:
        """Events that a publication finds pending count as delivered in the next one."""
        factory = self.factory(buffer_size=None)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        for _ in range(2 * BATCH):
            factory.recorder.counter("c").increment()
        # The tick delivers one batch.
        self.reactor.advance(TICK)
        client.read_all(self.reactor)
        self.reactor.advance(TICK)
        latest = self.latest(client)
        self.assertGreaterEqual(latest["events_delivered_total"], 2 * BATCH)
        self.assertGreaterEqual(latest["events_recorded_total"], latest["events_delivered_total"])

    def test_resynced(self) -> None:
        """A resync is published even if the program records nothing."""
        factory = self.factory(buffer_size=30)
        client, slow = FakeClient(factory), FakeClient(factory, limit=100)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        for _ in range(3):
            self.reactor.advance(TICK)
            self.assertEqual(self.latest(client)["repairs_total"], 0)
        slow.read_all(self.reactor)
        self.reactor.advance(TICK)
        self.assertEqual(self.latest(client)["repairs_total"], 1)

    def test_publicationPending(self) -> None:
        """Own metrics are not published because earlier ones are still pending."""
        factory = self.factory(buffer_size=1000)
        FakeClient(factory).read_all(self.reactor)
        self.reactor.advance(TICK)
        before = factory.stats()
        self.assertGreater(before.waiting, 0)
        self.reactor.pump([TICK] * 3)
        self.assertEqual(factory.stats().recorded, before.recorded)

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
        self.exporter.recorder.counter("c").increment()
        own.publish(1)
        self.assertEqual(recorded, [0, 1, 2, 1, 2, 3])

    def test_interrupted(self) -> None:
        """
        After an interrupt at any line, values that have not been published are, even if the program
        records nothing more, and later samples are.
        """

        def is_traced(file: str) -> bool:
            return file == self_metrics.__file__

        def follow() -> FakeClient:
            # A new reactor has no timers of earlier exporters.
            self.reactor = FakeReactor()
            self.exporter = self.factory(buffer_size=1000)
            client = FakeClient(self.exporter)
            client.read_all(self.reactor)
            return client

        def act() -> None:
            for _ in range(2 * MAX_SAMPLES):
                self.exporter.recorder.counter("c").increment()
                self.reactor.settle()
            self.reactor.advance(TICK)

        def interrupt(line: Line, time: int) -> Callable[[Line], None]:
            times = count(1)

            def reach(this: Line) -> None:
                if this == line and next(times) == time:
                    raise KeyboardInterrupt

            return reach

        follow()
        reached: list[Line] = []
        with tracing(is_traced, reached.append):
            act()
        for line, times in Counter(reached).items():
            for time in {1, (times + 1) // 2, times}:
                client = follow()
                interrupted = tracing(is_traced, interrupt(line, time))
                with contextlib.suppress(KeyboardInterrupt), interrupted:
                    act()
                for _ in range(2):
                    self.reactor.advance(TICK)
                    latest = self.latest(client)
                self.assertEqual((len(latest), latest["clients"]), (11, 1), line)
                name = "txmetrics_record_to_write_seconds"
                before = len(client.reader.values(name))
                act()
                later = client.read_all(self.reactor).values(name)[before:]
                self.assertEqual(len(later), MAX_SAMPLES, line)

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
        counts = client.reader.values("txmetrics_events_recorded_total")
        self.assertEqual(len(counts), len(set(counts)))

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
        """
        While the program records nothing, nothing is published, even if own metrics are dropped for
        a client that reads nothing.
        """
        client = FakeClient(self.exporter)
        stalled = FakeClient(self.exporter, limit=1)
        for _ in range(20):
            self.exporter.recorder.counter("c").increment()
            self.reactor.settle()
        for _ in range(3):
            self.reactor.advance(1)
            client.read_all(self.reactor)
        before = self.exporter.stats().recorded
        self.reactor.pump([1] * 100)
        client.read_all(self.reactor)
        self.assertEqual(self.exporter.stats().recorded, before)
        self.assertGreater(stalled.protocol.stats().dropped_client, 20)

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

    def intervals(self, clients: int) -> set[int]:
        """Return the numbers of ticks between publications while the program records."""
        account = FakeClient(self.exporter).protocol.stats()
        same = replace(self.exporter.stats(), clients=(account,) * clients)
        asked, published = [0], []
        now = 0

        def stats() -> Stats:
            asked.append(now)
            return replace(same, recorded=1000 * now)

        recorder = ListRecorder()
        own = OwnMetrics(recorder, stats)
        for now in range(1, 200):
            own.publish(clients)
            if recorder.take():
                published.append(now)
        # Asking for the statistics, too, costs time for each client.
        self.assertLessEqual(len(asked), 1 + 200 * 100 / clients)
        return {later - now for now, later in pairwise(published)}

    def test_manyClients(self) -> None:
        """
        The more clients, the less often own metrics are published, so that they reach no more
        clients in a second than with few.
        """
        for clients, ticks in ((1, 1), (100, 1), (101, 2), (1000, 10), (4600, 46)):
            self.assertEqual(self.intervals(clients), {ticks}, clients)

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

    def test_withoutClients(self) -> None:
        """On request, own metrics are current in a snapshot, with and without clients."""
        recorder = self.exporter.recorder
        clients = Key.of(MetricKind.GAUGE, "txmetrics_clients")
        self.assertEqual(recorder.snapshot(), {})
        recorder.publish_own_metrics()
        self.assertEqual(recorder.snapshot()[clients], 0)
        self.assertIn("txmetrics_clients", [one.name for one in recorder.descriptions()])
        client = FakeClient(self.exporter)
        client.read_all(self.reactor)
        recorder.publish_own_metrics()
        self.assertEqual(recorder.snapshot()[clients], 1)
        client.transport.lose()
        recorder.publish_own_metrics()
        self.assertEqual(recorder.snapshot()[clients], 0)

    def test_withoutClientsIdle(self) -> None:
        """Requests record nothing while nothing else happens."""
        self.exporter.recorder.publish_own_metrics()
        before = self.exporter.stats().recorded
        for _ in range(3):
            self.exporter.recorder.publish_own_metrics()
        self.assertEqual(self.exporter.stats().recorded, before)

    def test_manyRequests(self) -> None:
        """While clients are connected, only the first request in a second records anything."""
        FakeClient(self.exporter).read_all(self.reactor)
        recorder = self.exporter.recorder
        requests = recorder.counter("requests")
        for _ in range(2):
            requests.increment()
            recorder.publish_own_metrics()
            before = self.exporter.stats().recorded
            requests.increment()
            recorder.publish_own_metrics()
            self.assertEqual(self.exporter.stats().recorded, before + 1)
            self.reactor.advance(1)
            before = self.exporter.stats().recorded
            recorder.publish_own_metrics()
            self.assertGreater(self.exporter.stats().recorded, before)
            self.reactor.advance(1)

    def test_withoutClientsOff(self) -> None:
        """A request records nothing if own metrics are off."""
        recorder = self.factory(own_metrics=False).recorder
        recorder.publish_own_metrics()
        self.assertEqual(recorder.snapshot(), {})


class FirstTotalsTests(OwnMetricsTestCase):
    """A client that connects while no clients are connected receives current totals."""

    def rates(self, factory: MetricsFactory) -> dict[str, float]:
        """
        Connect a client to an idle program, and return the rates of the exporter's own counters
        three seconds later.
        """
        view = SourceView(clock=self.reactor.seconds)
        client = FakeClient(factory)
        seen = 1
        view.ingest(client.reader.all)
        for _ in range(3):
            client.read_all(self.reactor)
            view.ingest(client.reader.all[seen:])
            seen = len(client.reader.all)
            self.reactor.advance(TICK)
        client.transport.lose()
        return {
            key.name.removeprefix("txmetrics_"): series.rate(self.reactor.seconds())
            for key, series in view.series.items()
            if key.kind is MetricKind.COUNTER and key.name.startswith("txmetrics_")
        }

    def test_rates(self) -> None:
        """What happened without clients is no change, whether or not own metrics have totals."""
        cases: list[dict[str, Any]] = [{}, {"max_series": 1}, {"max_series": 3}, {"totals": False}]
        for settings in cases:
            factory = self.factory(buffer_size=1000, **settings)
            for _ in range(3):
                rates = self.rates(factory)
                self.assertEqual(len(rates), 7)
                self.assertLess(rates.pop("bytes_sent_total"), 2000)
                for name, rate in rates.items():
                    self.assertLess(rate, 50, (settings, name))
                for number in range(10):
                    factory.recorder.counter("c", number=number).increment()
                for _ in range(100_000):
                    factory.recorder.histogram("h").record(1.0)
            self.assertEqual(factory.stats().recorded > 200_000, factory.settings.totals)

    def test_all(self) -> None:
        """Without kept totals, each client still receives all own metrics within a tick."""
        for settings in ({"max_series": 0}, {"totals": False}):
            factory = self.factory(buffer_size=1000, **settings)
            for clients in range(1, 4):
                client = FakeClient(factory)
                client.read_all(self.reactor)
                self.reactor.advance(TICK)
                latest = self.latest(client)
                self.assertEqual(len(latest), 11)
                self.assertEqual(latest["clients"], clients)

    def test_idleAfter(self) -> None:
        """The number of series is current after idle ones were released without clients."""
        factory = self.factory(buffer_size=1000, idle_after=3)
        factory.doStart()
        for number in range(100):
            factory.recorder.counter("c", number=number).increment()
        client = FakeClient(factory)
        self.reactor.advance(TICK)
        self.assertEqual(self.latest(client)["series"], 100)
        own = len(self.latest(client))
        client.transport.lose()
        self.reactor.pump([TICK] * 10)
        self.assertEqual(self.latest(FakeClient(factory))["series"], own)
        factory.doStop()

    def test_restart(self) -> None:
        """Figures that change while the factory stops are current after it listens again."""
        self.exporter.doStart()
        clients = [FakeClient(self.exporter, limit=1) for _ in range(3)]
        self.reactor.settle()
        self.reactor.advance(TICK)
        self.assertEqual(self.latest(clients[0])["clients"], 3)
        self.exporter.stop(timeout=3)
        clients[0].transport.lose()
        self.exporter.doStop()
        self.reactor.pump([TICK] * 5)
        stats = self.exporter.stats()
        self.assertEqual(stats.clients, ())
        self.exporter.doStart()
        client = FakeClient(self.exporter)
        latest = self.latest(client)
        self.assertEqual(latest["clients"], 0)
        self.assertEqual(latest["bytes_sent_total"], stats.bytes_written)
        self.assertEqual(latest["events_dropped_total [stage = client]"], stats.dropped_client)
        FakeClient(self.exporter)
        self.reactor.advance(TICK)
        self.assertEqual(self.latest(client)["clients"], 2)
        self.exporter.doStop()
