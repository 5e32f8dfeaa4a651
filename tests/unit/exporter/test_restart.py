"""
Factories that begin again in forked children, which the tests simulate.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.exporting import FactoryTestCase
from tests.reader import FakeClient
from txmetrics_tcp import Key, MetricKind, MetricsFactory
from txmetrics_tcp._exporter.ingest import LOG_LIMIT
from txmetrics_tcp.testing import FakeReactor


class RestartTests(FactoryTestCase):
    """
    @ivar started: an entry for each call of the function that the first event calls.
    """

    def restarting(self, **settings: Any) -> MetricsFactory:
        self.started: list[object] = []
        factory = self.factory(**{"buffer_size": 10_000, **settings})
        factory.restart_in_children(lambda: self.started.append(None))
        factory.doStart()
        return factory

    def fork(self, factory: MetricsFactory) -> None:
        factory._after_fork()

    def begin(self, factory: MetricsFactory, reactor: FakeReactor | None = None) -> FakeReactor:
        reactor = reactor or FakeReactor()
        factory.use_reactor(reactor, lambda: False)
        factory.doStart()
        return reactor

    def totals(self, factory: MetricsFactory) -> dict[str, object]:
        return {key.name: total for key, total in factory.recorder.snapshot().items()}

    def test_totals(self) -> None:
        """A child begins without totals; the handles and the recorder are the same."""
        factory = self.restarting()
        jobs, level = factory.recorder.counter("jobs"), factory.recorder.gauge("level")
        sizes = factory.recorder.histogram("sizes")
        for _ in range(3):
            jobs.increment(100)
            level.set(5)
            sizes.record(1)
        self.fork(factory)
        self.assertEqual(self.totals(factory), {})
        self.assertFalse(factory.silenced)
        jobs.increment(2)
        sizes.record(7)
        factory.recorder.counter("new").increment()
        # Before the reactor exists, and afterwards.
        for _ in range(2):
            totals = self.totals(factory)
            samples: Any = totals.pop("sizes")
            self.assertEqual(totals, {"jobs": 2, "new": 1})
            self.assertEqual((samples.count, samples.max), (1, 7.0))
            self.begin(factory)
        level.increment()
        self.assertEqual(self.totals(factory)["level"], 1.0)

    def test_firstEvent(self) -> None:
        """The first event of each child calls the function, once."""
        factory = self.restarting()
        jobs = factory.recorder.counter("jobs")
        jobs.increment()
        for children in (1, 2):
            self.fork(factory)
            self.assertEqual(len(self.started), children - 1)
            jobs.increment()
            jobs.increment()
            self.assertEqual(len(self.started), children)
            self.assertEqual(self.totals(factory), {"jobs": 2})

    def test_eventsOfTheFunction(self) -> None:
        """Events recorded re-entrantly, while the function runs, are kept in order."""
        factory = self.restarting()
        level = factory.recorder.gauge("level")
        factory.restart_in_children(lambda: level.set(2))
        self.fork(factory)
        level.set(1)
        self.assertEqual(self.totals(factory), {"level": 2.0})

    def test_manyEvents(self) -> None:
        """Before the reactor exists, recording threads apply events: memory is bounded."""
        factory = self.restarting()
        jobs = factory.recorder.counter("jobs")
        self.fork(factory)
        for _ in range(10 * LOG_LIMIT):
            jobs.increment()
        self.assertLessEqual(len(factory.incoming.log), LOG_LIMIT)
        self.assertEqual(self.totals(factory), {"jobs": 10 * LOG_LIMIT})

    def test_clients(self) -> None:
        """A child has none of the parent's clients, and serves its own with all descriptions."""
        factory = self.restarting()
        factory.recorder.describe_counter("jobs", "count", "Jobs.")
        jobs = factory.recorder.counter("jobs")
        parents = FakeClient(factory)
        jobs.increment(5)
        parents.read_all(self.reactor)
        self.fork(factory)
        jobs.increment()
        factory.recorder.describe_gauge("level")
        reactor = self.begin(factory)
        self.assertEqual(factory.stats().clients, ())
        client = FakeClient(factory)
        jobs.increment()
        reader = client.read_all(reactor)
        self.assertEqual(reader.totals, {Key(MetricKind.COUNTER, "jobs"): 2})
        self.assertEqual({one.name for one in reader.metadata}, {"jobs", "level"})
        stats = factory.stats()
        self.assertEqual((stats.recorded, stats.connected), (2, 1))
        self.assertEqual(parents.read().totals, {Key(MetricKind.COUNTER, "jobs"): 5})

    def test_series(self) -> None:
        """A handle made in the child, and one of the parent's, have the same series."""
        factory = self.restarting(max_series=1)
        jobs = factory.recorder.counter("jobs")
        jobs.increment()
        factory.recorder.counter("refused").increment()
        self.assertEqual(factory.stats().series_refused, 1)
        self.fork(factory)
        factory.recorder.register_counter(jobs.key).increment()
        jobs.increment()
        self.assertEqual(self.totals(factory), {"jobs": 2})
        self.assertEqual(factory.stats().series_refused, 0)

    def test_seriesLimit(self) -> None:
        """A child reports the limit of its series, and the metrics with most of them, itself."""
        factory = self.restarting(max_series=1)
        logged: list[str] = []
        for name in ("parent", "child"):
            reactor = self.reactor if name == "parent" else FakeReactor()
            with capturedLogs() as events:
                factory.recorder.counter(name).increment()
                refused = factory.recorder.counter("refused")
                for _ in range(2 * LOG_LIMIT):
                    refused.increment()
                if name == "child":
                    self.begin(factory, reactor)
                    for _ in range(2 * LOG_LIMIT):
                        refused.increment()
                reactor.drain()
            logged += filter(None, map(formatEvent, events))
            self.assertEqual([one.name for one in factory.stats().highest_cardinality], [name])
            self.fork(factory)
        self.assertEqual(["limit of series" in one for one in logged], [True, True], logged)

    def test_ownMetrics(self) -> None:
        """A child publishes its own metrics from the beginning."""
        factory = self.restarting(own_metrics=True)
        factory.recorder.counter("jobs").increment(5)
        factory.publish_own_metrics()
        self.fork(factory)
        factory.recorder.counter("jobs").increment()
        self.begin(factory)
        factory.publish_own_metrics()
        self.assertEqual(self.totals(factory)["txmetrics_events_recorded_total"], 1)

    def test_stopped(self) -> None:
        """A factory that stops in the parent begins again in a child."""
        factory = self.restarting()
        FakeClient(factory)
        factory.stop()
        factory.doStop()
        self.fork(factory)
        factory.recorder.counter("jobs").increment()
        self.assertEqual(self.totals(factory), {"jobs": 1})
        client = FakeClient(factory) if self.begin(factory) else None
        assert client is not None
        self.assertTrue(client.is_connected)

    def test_stop(self) -> None:
        """In the child, it stops as it does in the parent."""
        factory = self.restarting()
        self.fork(factory)
        factory.recorder.counter("jobs").increment()
        reactor = self.begin(factory)
        client = FakeClient(factory)
        stopped = factory.stop()
        client.read_all(reactor)
        self.assertTrue(stopped.called)
        factory.doStop()
        self.assertEqual(reactor.getDelayedCalls(), [])
