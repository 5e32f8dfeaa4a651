"""
The metrics with the most series, when the limit of series is reached.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.exporting import FactoryTestCase
from tests.logs import log_lines
from tests.reader import FakeClient
from txmetrics_tcp import Key, MetricCardinality, MetricKind, MetricsFactory
from txmetrics_tcp._exporter import factory as factory_module
from txmetrics_tcp._exporter.cardinality import highest_cardinality
from txmetrics_tcp._exporter.ingest import LOG_LIMIT

COUNTER, GAUGE = MetricKind.COUNTER, MetricKind.GAUGE


class HighestCardinalityTests(SynchronousTestCase):
    def test_none(self) -> None:
        self.assertEqual(highest_cardinality([]), ())

    def test_order(self) -> None:
        """Three metrics are reported, those with most series first."""
        keys = [Key.of(COUNTER, f"c{n}", {"i": i}) for n in range(1, 5) for i in range(n)]
        self.assertEqual(
            highest_cardinality(keys),
            tuple(MetricCardinality(COUNTER, f"c{n}", n, "i", n) for n in (4, 3, 2)),
        )

    def test_labels(self) -> None:
        """The label with the most distinct values is reported, also if some series lack it."""
        keys = [
            Key.of(GAUGE, "g", {"route": user % 7, "user": user, "method": "GET"})
            for user in range(100)
        ]
        keys += [Key.of(GAUGE, "g", {"route": str(route)}) for route in range(50)]
        self.assertEqual(
            highest_cardinality(keys), (MetricCardinality(GAUGE, "g", 150, "user", 100),)
        )

    def test_kinds(self) -> None:
        """Metrics of one name and different kinds are separate; a metric may have no labels."""
        keys = [Key.of(GAUGE, "x"), *(Key.of(COUNTER, "x", {"i": i}) for i in range(2))]
        self.assertEqual(
            highest_cardinality(keys),
            (
                MetricCardinality(COUNTER, "x", 2, "i", 2),
                MetricCardinality(GAUGE, "x", 1, None, 0),
            ),
        )


class LimitTests(FactoryTestCase):
    LINE = (
        "Reached the limit of series with totals (10): new clients receive no totals of further"
        " series.  Metrics with the most series: counter 'requests_total': 9 series, label 'user':"
        " 9 values; gauge 'g': 1 series.  Use fewer label values, or raise max_series"
    )

    FOUND = (
        MetricCardinality(COUNTER, "requests_total", 9, "user", 9),
        MetricCardinality(GAUGE, "g", 1, None, 0),
    )

    def setUp(self) -> None:
        super().setUp()
        self.logged = log_lines(self, factory_module)

    def reach(self, factory: MetricsFactory, users: int = 20) -> None:
        factory.recorder.gauge("g").set(1)
        for user in range(users):
            factory.recorder.counter("requests_total", method="GET", user=user).increment()

    def test_withClients(self) -> None:
        """The log and the statistics name the metrics, once."""
        factory = self.factory(buffer_size=1000, max_series=10)
        client = FakeClient(factory)
        self.assertEqual(factory.stats().highest_cardinality, ())
        for _ in range(3):
            self.reach(factory)
            client.read_all(self.reactor)
            self.reactor.advance(1)
        self.assertEqual(self.logged, [self.LINE])
        self.assertEqual(factory.stats().highest_cardinality, self.FOUND)

    def test_withoutClients(self) -> None:
        """The same without clients and ports, on the reactor thread."""
        factory = self.factory(buffer_size=1000, max_series=10)
        for _ in range(3):
            self.reach(factory, 2 * LOG_LIMIT)
        self.assertEqual(self.logged, [])
        self.reactor.settle()
        self.assertEqual(self.logged, [self.LINE])
        self.assertEqual(factory.stats().highest_cardinality, self.FOUND)
        FakeClient(factory).read_all(self.reactor)
        self.reactor.pump([1] * 3)
        self.assertEqual(self.logged, [self.LINE])

    def test_pending(self) -> None:
        """The statistics name the metrics while the events are still in the log."""
        factory = self.factory(buffer_size=1000, max_series=10)
        self.reach(factory)
        stats = factory.stats()
        self.assertEqual((stats.series, stats.series_refused), (10, 11))
        self.assertEqual(stats.highest_cardinality, self.FOUND)

    def test_noSeries(self) -> None:
        """With a limit of 0, no metrics are named."""
        factory = self.factory(max_series=0)
        client = FakeClient(factory)
        self.reach(factory)
        client.read_all(self.reactor)
        self.reactor.advance(1)
        self.assertIn("Metrics with the most series: none.", self.logged[0])
        self.assertEqual(factory.stats().highest_cardinality, ())

    def test_ownMetrics(self) -> None:
        """
        Own metrics name the metrics; a client that connects later receives all own metrics, too,
        although their totals may not be kept.
        """
        factory = self.factory(buffer_size=1000, max_series=10, own_metrics=True)
        self.reach(factory)
        for _ in range(2):
            client = FakeClient(factory)
            client.read_all(self.reactor)
            self.reactor.advance(1)
            totals = client.read_all(self.reactor).totals
            metric = {"kind": "counter", "metric": "requests_total"}
            self.assertEqual(totals[Key.of(GAUGE, "txmetrics_metric_series", metric)], 9)
            metric["label"] = "user"
            self.assertEqual(totals[Key.of(GAUGE, "txmetrics_label_values", metric)], 9)
            self.assertGreaterEqual(totals[Key.of(COUNTER, "txmetrics_series_refused_total")], 11)
            self.assertEqual(totals[Key.of(GAUGE, "txmetrics_series")], 10)

    def test_longNames(self) -> None:
        """Names that would be too long for a label or a log line are shortened."""
        factory = self.factory(max_series=1, own_metrics=True)
        client = FakeClient(factory)
        for _ in range(2):
            factory.recorder.counter("n" * 32_000, {"l" * 32_000: _}).increment()
        client.read_all(self.reactor)
        self.reactor.advance(1)
        names = [key.name for key in client.read_all(self.reactor).totals]
        self.assertIn("txmetrics_label_values", names)
        self.assertLess(len(self.logged[0]), 1000)
