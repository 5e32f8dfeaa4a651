"""
Prometheus' own receiver of OTLP; part of C{.ci/run long}.

C{tests/prometheus.sh} builds the server; the environment variable C{TXMETRICS_PROMETHEUS} has its
path.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor as global_reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests import needs
from tests.daemon import Daemon
from tests.system.test_prometheus import fetch
from txmetrics_tcp import ExporterSettings, MetricsFactory

VARIABLE = "TXMETRICS_PROMETHEUS"

missing = needs("opentelemetry.proto")
if not missing:
    from txmetrics_tcp.bridges.otlp import OtlpService, OtlpSettings

reactor: Any = global_reactor

SAMPLES = [0.001 * 1.01**step for step in range(1000)]
"""The samples of a histogram, from 1 ms to 21 s; the middle one is 0.145 s."""


class PrometheusTests(TestCase):
    timeout = 120
    skip = missing or (None if os.environ.get(VARIABLE) else f"needs {VARIABLE}")

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        (directory / "prometheus.yml").write_text("{}")
        self.server = Daemon(
            self,  # type: ignore[arg-type]
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--web.enable-otlp-receiver",
            runner=["sh", "-c", f'exec "${VARIABLE}" "$@" 2>&1', "prometheus"],
        )
        self.port = int(self.server.wait_for(r'msg="Listening on".* address=\S+:(\d+)')[1])
        self.server.wait_for("Server is ready to receive web requests")
        self.url = f"http://127.0.0.1:{self.port}/api/v1/otlp/v1/metrics"

    async def query(self, expression: str) -> list[dict[str, Any]]:
        path = f"api/v1/query?{urlencode({'query': expression})}"
        answer = json.loads(await deferToThread(fetch, self.port, path))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def value(self, expression: str) -> float:
        (series,) = await self.query(expression)
        return float(series["value"][1])

    async def test_export(self) -> None:
        """Prometheus has the exported names, labels, totals and quantiles, and rejects nothing."""
        factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
        self.addCleanup(factory.stop, 0)
        recorder = factory.recorder
        recorder.describe_counter("sent_bytes_total", "bytes", "Sent.")
        recorder.describe_gauge("load", "count", "Load.")
        recorder.describe_gauge("busy_percent", "percent", "")
        recorder.describe_histogram("job_seconds", "seconds", "Time of a job.")
        recorder.counter("sent_bytes_total", peer="é\n").increment(5)
        recorder.counter("largest_total").absolute(2**64 - 1)
        recorder.gauge("cpu_seconds_total").set(1.5)
        recorder.gauge("load", {"a.b": "x"}).set(-2)
        recorder.gauge("busy_percent").set(float("nan"))
        for sample in SAMPLES:
            recorder.histogram("job_seconds").record(sample)
            recorder.histogram("change").record(-sample)
        # From 1e-300 to 1e300.
        for power in range(-300, 301, 50):
            recorder.histogram("wide").record(10.0**power)
        settings = OtlpSettings(
            self.url,
            interval=3600,
            attributes={"service.name": "shop", "service.instance.id": "one"},
        )
        service = OtlpService(reactor, recorder, settings)
        service.startService()
        await service.stopService()
        stats = service.stats()
        self.assertEqual((stats.delivered, stats.rejected_points, stats.left_out_series), (1, 0, 0))
        (sent,) = await self.query("sent_bytes_total")
        about = {"__name__": "sent_bytes_total", "job": "shop", "instance": "one", "peer": "é\n"}
        self.assertEqual(sent["metric"], about)
        self.assertEqual(sent["value"][1], "5")
        self.assertEqual(await self.value("largest_total"), float(2**64))
        self.assertEqual(await self.value("cpu_seconds_total"), 1.5)
        self.assertEqual(await self.value('load{a_b="x"}'), -2.0)
        self.assertEqual(len(await self.query("busy_percent")), 1)
        self.assertEqual(await self.value("histogram_count(job_seconds)"), 1000)
        median = await self.value("histogram_quantile(0.5, job_seconds)")
        self.assertLess(abs(median / SAMPLES[500] - 1), 0.03)
        median = await self.value("histogram_quantile(0.5, change)")
        self.assertLess(abs(median / -SAMPLES[500] - 1), 0.03)
        self.assertEqual(await self.value("histogram_count(wide)"), 13)

    async def test_refused(self) -> None:
        """A wrong path is reported, not retried."""
        factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
        self.addCleanup(factory.stop, 0)
        factory.recorder.counter("jobs_total").increment()
        url = f"http://127.0.0.1:{self.port}/v1/metrics"
        service = OtlpService(reactor, factory.recorder, OtlpSettings(url, interval=3600))
        service.startService()
        await service.stopService()
        self.assertEqual(service.stats().delivered, 0)
