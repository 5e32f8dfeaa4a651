"""
Programs that opentelemetry-instrument runs, with instrumentations of OpenTelemetry.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from urllib.request import urlopen

from tests import needs
from tests.daemon import LIMIT, Daemon
from tests.programs import PREAMBLE, Program, ProgramTestCase, Stream, total
from txmetrics_tcp import Distribution

WSGI = """
from wsgiref.simple_server import WSGIRequestHandler, make_server
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

def app(environ, start_response):
    start_response("200 OK" if environ["PATH_INFO"] == "/" else "404 Not Found", [])
    return [b"hello"]

class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass

start()
with make_server("127.0.0.1", 0, OpenTelemetryMiddleware(app), handler_class=Quiet) as server:
    say("http", server.server_port)
    try:
        server.serve_forever(0.01)
    except KeyboardInterrupt:
        pass
"""

ASGI = """
import asyncio, socket
import uvicorn
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

async def app(scope, receive, send):
    if scope["type"] == "http":
        status = 200 if scope["path"] == "/" else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

start()
listening = socket.create_server(("127.0.0.1", 0))
say("http", listening.getsockname()[1])
server = uvicorn.Server(uvicorn.Config(OpenTelemetryMiddleware(app), log_level="critical"))
try:
    server.run([listening])
except KeyboardInterrupt:
    pass
"""

INNER = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from txmetrics_tcp.bridges.opentelemetry import StreamingMeterProvider
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor

reader = InMemoryMetricReader()
provider = StreamingMeterProvider(inner=MeterProvider([reader]), interval=3600)
metrics.set_meter_provider(provider)
SystemMetricsInstrumentor().instrument()
exporter = start()
provider.force_flush()
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name == "system.memory.usage":
                for point in metric.data.data_points:
                    say(point.attributes["state"], point.value)
say("done", 1)
signal.sigwait([signal.SIGTERM])
"""

no_wsgi = needs("opentelemetry.instrumentation.wsgi")
no_asgi = needs("opentelemetry.instrumentation.asgi") or needs("uvicorn")
no_system_metrics = needs("opentelemetry.instrumentation.system_metrics")


class InstrumentTests(ProgramTestCase):
    """
    The programs have no code for this library's provider.
    """

    def run_app(self, script: str) -> Daemon:
        path = Path(self.mktemp()).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path.with_suffix(".py")
        path.write_text(PREAMBLE + script)
        return Daemon(
            self,
            *(sys.executable, "-u", str(path)),
            runner=[
                "env",
                "OTEL_PYTHON_METER_PROVIDER=txmetrics",
                # opentelemetry-distro, if it is installed, would set a provider of the SDK.
                "OTEL_PYTHON_CONFIGURATOR=none",
                "OTEL_SEMCONV_STABILITY_OPT_IN=http",
                *(sys.executable, "-c"),
                "from opentelemetry.instrumentation.auto_instrumentation import run; run()",
            ],
        )

    def check(self, script: str) -> None:
        program = self.run_app(script)
        http = int(program.wait_for(r"(?m)^http=(\d+)$")[1])
        stream = Stream(self, int(program.wait_for(r"(?m)^port=(\d+)$")[1]))
        stream.read_until(lambda reader: total(reader, "txmetrics_clients") == 1)
        for _ in range(3):
            with urlopen(f"http://127.0.0.1:{http}/", timeout=LIMIT) as answer:
                self.assertEqual(answer.read(), b"hello")
        name = "http.server.request.duration"
        reader = stream.read_until(lambda reader: len(reader.values(name)) >= 3)
        self.assertEqual(len(reader.values(name)), 3)
        (key,) = [key for key in reader.totals if key.name == name]
        labels = dict(key.labels)
        self.assertEqual(labels["http.request.method"], "GET")
        # Early versions of the instrumentation for WSGI leave it out.
        self.assertEqual(labels.get("http.response.status_code", "200"), "200")
        (described,) = [one for one in reader.metadata if one.name == name]
        self.assertEqual(described.unit, "seconds")
        reader = stream.read_until(lambda reader: total(reader, "http.server.active_requests") == 0)
        # The instrumentation of the system is polled.
        if not no_system_metrics:
            stream.read_until(lambda reader: total(reader, "system.memory.usage") > 0)
        os.kill(program.process.pid, signal.SIGINT)
        _status, _output, errors = program.end()
        self.assertNotIn("Traceback", errors)
        stream.read_all()

    def test_wsgi(self) -> None:
        self.check(WSGI)

    test_wsgi.skip = no_wsgi  # type: ignore[attr-defined]

    def test_asgi(self) -> None:
        self.check(ASGI)

    test_asgi.skip = no_asgi  # type: ignore[attr-defined]


class InnerTests(ProgramTestCase):
    """
    A provider of the SDK gets what is streamed.
    """

    skip = no_system_metrics or needs("opentelemetry.sdk")

    def test_systemMetrics(self) -> None:
        """The callbacks of the instrumentation run once for both."""
        program = Program(
            self,
            INNER,
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])" + PREAMBLE,
        )
        program.said("done")
        stream = Stream(self, program.port)
        reader = stream.read_until(
            lambda reader: "system.memory.usage" in {key.name for key in reader.totals}
        )
        program.process.send_signal(signal.SIGTERM)
        output = self.ends(program)
        stream.read_all()
        inner = dict(re.findall(r"(?m)^(\w+)=(\d+)$", output))
        streamed = {
            dict(key.labels)["state"]: str(int(total))
            for key, total in reader.totals.items()
            if key.name == "system.memory.usage" and not isinstance(total, Distribution)
        }
        self.assertTrue(streamed)
        self.assertEqual({state: inner[state] for state in streamed}, streamed)
