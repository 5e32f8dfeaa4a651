"""
Tests of an exporter while the system clock is set back, forward, or to before 1970.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.reader import FakeClient, exact_totals
from txmetrics_tcp import ExporterSettings, MetricsFactory
from txmetrics_tcp.testing import FakeReactor

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NOW = 1_700_000_000 * SECOND


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.monotonic = 0.0
        self.reactor = FakeReactor()
        self.factory = MetricsFactory(
            self.reactor,  # type: ignore[arg-type]
            clock=lambda: self.now,
            monotonic=lambda: self.monotonic,
        )

    def test_timestamps(self) -> None:
        """Events have the times of the clock and arrive in order; totals are exact."""
        client = FakeClient(self.factory)
        counter = self.factory.recorder.counter("c")
        times = [NOW, NOW - HOUR, NOW + HOUR, -HOUR, -1, 1, SECOND, NOW]
        for self.now in times:
            counter.increment()
        client.read_all(self.reactor)
        seen = [metric for metric in client.reader.metrics if metric.key.name == "c"]
        self.assertEqual([metric.timestamp_ns for metric in seen], times)
        self.assertEqual(client.reader.bits(), exact_totals(self.factory))

    def test_started(self) -> None:
        """The recorder keeps the time at which it was made."""
        self.now += HOUR
        self.assertEqual(self.factory.recorder.started_ns, NOW)

    def test_totalsBefore1970(self) -> None:
        self.factory.recorder.counter("c").increment(3)
        self.now = -HOUR - 1
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        [metric] = [metric for metric in client.reader.metrics if metric.key.name == "c"]
        self.assertEqual((metric.value, metric.timestamp_ns), (3, -HOUR - 1))

    def test_latency(self) -> None:
        """
        A clock that is set makes no latency negative, or longer than the time since the last drain.
        """
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        for hours in (0, -1, 1, -100):
            self.factory.recorder.counter("c").increment()
            self.monotonic += 0.25
            self.now += SECOND // 4 + hours * HOUR
            self.reactor.settle()
            self.reactor.advance(1)
            client.read_all(self.reactor)
        samples = client.reader.values("txmetrics_record_to_write_seconds")
        self.assertEqual(samples[:1], [0.25])
        self.assertTrue(all(0 <= sample <= 0.25 for sample in samples), samples)

    def test_idle(self) -> None:
        """Setting the clock does not make a series idle."""
        factory = MetricsFactory(
            self.reactor,
            ExporterSettings(idle_after=60, own_metrics=False),
            clock=lambda: self.now,
            monotonic=lambda: self.monotonic,
        )
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        client.read_all(self.reactor)
        self.now += 1000 * HOUR
        self.reactor.advance(1)
        self.assertEqual(len(factory.recorder.snapshot()), 1)
