"""
Streaming what Synapse, a Matrix server, measures of its requests.

``tox run -e synapse`` runs it.  It is not part of the other environments, since Synapse has many
requirements.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from txmetrics_tcp import Distribution, Key, MetricKind, MetricsFactory
from txmetrics_tcp.bridges.prometheus import stream
from txmetrics_tcp.testing import FakeReactor

PREFIX = "synapse_http_server_"


class RequestTests(SynchronousTestCase):
    skip = needs("synapse")

    def test_requests(self) -> None:
        """Synapse's metrics of requests are streamed, and those of its collectors are polled."""
        from synapse.http.request_metrics import (  # type: ignore[import-not-found]
            RequestMetrics,
        )
        from synapse.logging.context import LoggingContext  # type: ignore[import-not-found]

        recorder = MetricsFactory(FakeReactor()).recorder
        streaming = stream(recorder, poll=1e6)
        self.addCleanup(streaming.stop)
        request = {"method": "GET", "servlet": "sync", "server_name": "example.org"}
        response = {**request, "tag": ""}

        def total(kind: MetricKind, name: str, labels: dict[str, str]) -> object:
            return recorder.snapshot().get(Key.of(kind, PREFIX + name, labels))

        with LoggingContext(name="test", server_name="example.org"):
            metrics = RequestMetrics("example.org")
            metrics.start(1.0, "sync", "GET")
            streaming._synchronize()
            self.assertEqual(total(MetricKind.GAUGE, "in_flight_requests_count", request), 1)
            metrics.stop(3.5, 200, 100)
        self.assertEqual(total(MetricKind.COUNTER, "response_count_total", response), 1)
        self.assertEqual(total(MetricKind.COUNTER, "response_size_total", response), 100)
        time = total(MetricKind.HISTOGRAM, "response_time_seconds", {**response, "code": "200"})
        assert isinstance(time, Distribution)
        self.assertEqual((time.count, time.sum), (1, 2.5))
        # Counters of seconds are gauges.
        self.assertIsNotNone(total(MetricKind.GAUGE, "response_ru_utime_seconds_total", response))
        self.assertEqual(streaming.stats().not_carried, {})
