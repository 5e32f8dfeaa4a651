"""
The export with OTLP from the daemon, a program, the command and a Rust server, to a receiver that
decodes it.
"""

from __future__ import annotations

import re
import signal
import sys
from typing import Any
from unittest import skipIf

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests import needs
from tests.authority import Authority, no_tls
from tests.commands import Child, CommandTestCase
from tests.rust_peers import PeersTestCase, Printer
from txmetrics_tcp import ExporterSettings, MetricsFactory

missing = needs("opentelemetry.proto")
if not missing:
    from tests.otlp import OtlpReceiver, named
    from txmetrics_tcp.bridges.otlp import OtlpService, OtlpSettings

reactor: Any = global_reactor

RUN = "from twisted.scripts.twistd import run; run()"
INSTANCE = re.compile(r".+/127\.0\.0\.1:\d+")


@skipIf(missing, missing)
class CommandTests(CommandTestCase):
    async def end(self, child: Child) -> None:
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)

    async def test_servers(self) -> None:
        """Each server is a resource; the last export has everything that was received."""
        receiver = OtlpReceiver(self)
        port = self.serve()
        self.counter.increment(3)
        self.recorder.histogram("latency_seconds").record(0.5)
        self.recorder.describe_histogram("latency_seconds", "seconds", "Latency.")
        child = self.child(
            "otlp", port, "1", "--to", f"{receiver.url}/api/otlp", "--interval", "50ms"
        )
        requests = await receiver.has("requests_total", lambda one: one.value == 3)
        self.assertEqual(receiver.received[-1].path, "/api/otlp")
        self.assertEqual(requests.labels, {"route": "/"})
        self.assertEqual(requests.resource["service.name"], "metrics-tcp")
        self.assertRegex(requests.resource["service.instance.id"], INSTANCE)
        latency = await receiver.has("latency_seconds", lambda one: one.point.count == 1)
        self.assertEqual((latency.metric.unit, latency.metric.description), ("s", "Latency."))
        self.assertEqual(latency.point.sum, 0.5)
        self.assertLessEqual(requests.point.start_time_unix_nano, requests.point.time_unix_nano)
        await receiver.has("txmetrics_source_connected", lambda one: one.value == 1)
        unreachable = await receiver.has("txmetrics_source_connected", lambda one: one.value == 0)
        self.assertEqual(unreachable.labels, {"source": "127.0.0.1:1"})
        connections = await receiver.has("txmetrics_source_connections_total")
        self.assertEqual(connections.metric.description, "Connections to the server.")
        await receiver.has("txmetrics_otlp_exports_total", lambda one: one.value > 0)
        await self.end(child)
        self.assertIn(f"exporting metrics to {receiver.url}/api/otlp\n", child.err)

    async def test_lastExport(self) -> None:
        """At the end, totals are exported although the interval has not passed."""
        receiver = OtlpReceiver(self)
        port = self.serve()
        self.counter.increment(3)
        child = self.child("otlp", port, "--to", receiver.url, "--interval", "1h")
        await child.says("receiving metrics from")
        await self.end(child)
        (request,) = receiver.received
        self.assertEqual(request.path, "/v1/metrics")
        (series,) = named(request.message, "requests_total")
        self.assertEqual(series.value, 3)

    async def test_environment(self) -> None:
        """URL, interval, headers and resource come from the environment; the log has no secret."""
        receiver = OtlpReceiver(self)
        receiver.statuses = [401, 503]
        port = self.serve()
        self.counter.increment(3)
        script = (
            f"OTEL_EXPORTER_OTLP_ENDPOINT={receiver.url} OTEL_METRIC_EXPORT_INTERVAL=50"
            ' OTEL_EXPORTER_OTLP_HEADERS=api-key=hunter2 OTEL_SERVICE_NAME=shop exec "$@"'
        )
        child = self.shell(script, "otlp", port)
        series = await receiver.has("requests_total", lambda one: one.value == 3)
        self.assertEqual(series.resource["service.name"], "shop")
        await child.says("exporting metrics to")
        self.assertEqual(receiver.received[0].headers.getRawHeaders("api-key"), ["hunter2"])
        await self.end(child)
        self.assertIn("401 Unauthorized", child.err)
        self.assertIn("503 Service Unavailable; retrying", child.err)
        self.assertNotIn("hunter2", child.err)

    async def test_interrupted(self) -> None:
        """SIGINT ends the command, even while no receiver can be reached."""
        child = self.child("otlp", "1", "--to", "http://127.0.0.1:1", "--interval", "50ms")
        await child.says("cannot export metrics to http://127.0.0.1:1/v1/metrics: Connection was")
        child.signal("INT")
        self.assertEqual(await child.ended, 0)

    async def test_daemon(self) -> None:
        """The daemon exports the metrics that it streams, and once more at its end."""
        receiver = OtlpReceiver(self)
        child = self.spawn(
            *(sys.executable, "-c", RUN, "--pidfile=", "-n", "metrics-tcp", "--listen=0"),
            *("--no-host", "--interval=0.1", f"--otlp={receiver.url}", "--otlp-interval=0.1"),
        )
        cpu = await receiver.has("process_cpu_seconds_total", lambda one: one.value > 0)
        self.assertTrue(cpu.metric.sum.is_monotonic)
        self.assertEqual(cpu.resource["service.name"], "metrics-tcp")
        await receiver.has("txmetrics_otlp_exports_total", lambda one: one.value > 0)
        number = len(receiver.received)
        child.signal("TERM")
        await child.ended
        self.assertGreater(len(receiver.received), number)
        self.assertEqual(len(re.findall("Exporting metrics to", child.out)), 1)
        self.assertNotIn("HTTP11ClientFactory", child.out)

    async def test_daemonStoppedNow(self) -> None:
        """The last export to a receiver that never answers ends with the second signal."""
        connected: Deferred[None] = Deferred()

        class Silent(Protocol):
            def dataReceived(self, data: bytes) -> None:
                if not connected.called:
                    connected.callback(None)

        silent = reactor.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        child = self.spawn(
            *(sys.executable, "-c", RUN, "--pidfile=", "-n", "metrics-tcp", "--listen=0"),
            *("--no-host", f"--otlp=http://127.0.0.1:{silent.getHost().port}"),
            "--otlp-interval=0.1",
        )
        await connected
        child.signal("TERM")
        await child.prints("Received SIGTERM, shutting down")
        child.signal("TERM")
        await child.ended
        self.assertIn("no longer waiting", child.out)
        self.assertNotIn("took too long", child.out)


@skipIf(missing, missing)
class ProgramTests(TestCase):
    timeout = 120

    def serve(self, settings: OtlpSettings) -> OtlpService:
        factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
        self.addCleanup(factory.stop, 0)
        self.recorder = factory.recorder
        self.counter = factory.recorder.counter("jobs_total")
        service = OtlpService(reactor, factory.recorder, settings)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def test_program(self) -> None:
        """A program exports through the real agent, and retries."""
        receiver = OtlpReceiver(self)
        receiver.statuses = [503]
        service = self.serve(OtlpSettings(f"{receiver.url}/v1/metrics", interval=0.05))
        self.counter.increment(2**64 - 1)
        series = await receiver.has("jobs_total")
        self.assertEqual(series.value, float(2**64))
        await receiver.has("txmetrics_otlp_failed_attempts_total", lambda one: one.value == 1)
        self.counter.increment(6)
        await service.stopService()
        (last,) = named(receiver.received[-1].message, "jobs_total")
        self.assertEqual(last.value, 5)

    async def test_manySeries(self) -> None:
        """A large request arrives whole."""
        receiver = OtlpReceiver(self)
        for gzip in True, False:
            settings = OtlpSettings(f"{receiver.url}/v1/metrics", interval=3600, gzip=gzip)
            service = self.serve(settings)
            for number in range(5000):
                self.recorder.counter("many_total", number=str(number)).increment(number)
            await service.stopService()
            found = named(receiver.received[-1].message, "many_total")
            self.assertEqual(
                {one.labels["number"]: one.value for one in found},
                {str(number): number for number in range(5000)},
            )

    @skipIf(no_tls, no_tls)
    async def test_tls(self) -> None:
        """Server and client are verified; a certificate of another authority is not accepted."""
        authority, other = Authority(self), Authority(self)
        own, client = authority.issue(), authority.issue()
        receiver = OtlpReceiver(self, lambda site: self.listen_tls(site, authority, own))
        url = f"https://127.0.0.1:{receiver.port}/v1/metrics"
        files = {"key": str(client.key), "certificate": str(client.cert)}
        trusting = OtlpSettings(url, interval=3600, ca=str(authority.file), **files)
        service = self.serve(trusting)
        self.counter.increment()
        await service.stopService()
        self.assertEqual(service.stats().delivered, 1)
        for settings in (
            OtlpSettings(url, interval=3600, ca=str(other.file), **files),
            OtlpSettings(url, interval=3600, ca=str(authority.file)),
        ):
            service = self.serve(settings)
            self.counter.increment()
            await service.stopService()
            self.assertEqual(service.stats().delivered, 0)
        self.assertEqual(len(receiver.received), 1)

    def listen_tls(self, site: Any, authority: Authority, own: Any) -> Any:
        from txmetrics_tcp import ServerTLS

        tls = ServerTLS(own.key, own.cert, authority.file)
        return reactor.listenTCP(0, tls.wrap(site, reactor), interface="127.0.0.1")


@skipIf(missing, missing)
class RustTests(PeersTestCase):
    async def test_rust(self) -> None:
        """Series of the Rust server are exported."""
        receiver = OtlpReceiver(self)
        port, _ = await self.serve()
        command = ["-m", "txmetrics_tcp", "otlp", str(port), "--to", receiver.url]
        bridge = self.spawn(Printer("otlp"), sys.executable, *command, "--interval", "0.1")
        requests = await receiver.has("rust_requests", lambda one: one.value >= 3)
        self.assertEqual(requests.metric.description, "requests served")
        largest = await receiver.has("rust_largest")
        self.assertEqual(largest.value, float(2**64))
        latency = await receiver.has("rust_latency", lambda one: one.point.count > 0)
        self.assertGreater(len(latency.point.positive.bucket_counts), 0)
        bridge.signal(signal.SIGTERM)
