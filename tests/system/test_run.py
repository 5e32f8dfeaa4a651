"""
C{metrics-tcp run} with servers that have several processes, and with OpenTelemetry's command.
"""

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import skipIf

from tests import environment, needs
from tests.daemon import Daemon
from tests.programs import Stream, total, until
from tests.system.quick.test_run import PORT, RUN, RunTestCase

APP = """
from txmetrics_tcp import counter

counter("loaded_total").increment()

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

async def asgi(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": message["type"] + ".complete"})
"""


class ServerTests(RunTestCase):
    def check_server(self, module: str, *arguments: str, workers: int) -> None:
        """Run a server whose workers load C{APP}, and read the streams of all processes."""
        modules = Path(self.file("app.py", APP)).parent
        server = self.run_program(sys.executable, "-m", module, *arguments, modules=modules)

        def sockets() -> list[Path] | None:
            found = list(self.sockets.glob("*.sock"))
            return found if len(found) == workers + 1 else None

        for path in until(sockets, lambda: str(list(self.sockets.iterdir()))):
            names = {"python_threads"}
            if f"-{server.process.pid}." not in path.name:
                # The server itself does not load the application.
                names |= {"loaded_total"}
            Stream(self, str(path)).read_until(
                lambda one, names=names: names <= {key.name for key in one.totals}
            )
        server.process.send_signal(signal.SIGTERM)
        self.assertTrue(server.wait_until_gone())

    @skipIf(needs("gunicorn"), needs("gunicorn"))
    def test_gunicorn(self) -> None:
        """Workers that are forked."""
        arguments = ["--bind", "127.0.0.1:0", "--workers", "2", "--no-control-socket", "app:wsgi"]
        self.check_server("gunicorn", *arguments, workers=2)

    @skipIf(needs("uvicorn"), needs("uvicorn"))
    def test_uvicorn(self) -> None:
        """Workers that are spawned."""
        arguments = ["--port", "0", "--workers", "2", "app:asgi"]
        self.check_server("uvicorn", *arguments, workers=2)


INSTRUMENT = [
    *("env", "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none"),
    *(sys.executable, "-c"),
    "from opentelemetry.instrumentation.auto_instrumentation import run; run()",
]
"""The command opentelemetry-instrument."""

PROMETHEUS = """
from prometheus_client import Counter
orders = Counter("orders", "Orders.", ["kind"])
orders.labels("book").inc(3)
sys.stdin.read()
"""

METER = """
import sys
from opentelemetry import metrics

orders = metrics.get_meter_provider().get_meter("shop").create_counter("orders", "{order}")
orders.add(3)
"""

PROVIDER = """
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
orders.add(4)
[resource] = reader.get_metrics_data().resource_metrics
[metric] = [one for one in resource.scope_metrics[0].metrics if one.name == "orders"]
print(f"exported={metric.data.data_points[0].value}", flush=True)
"""

READ = "sys.stdin.read()"


class BridgeTests(RunTestCase):
    def check(
        self,
        option: str,
        script: str,
        expected: float,
        name: str = "orders",
        before: Sequence[str] = (),
    ) -> str:
        """Read a total of a program that is not changed, and return what the program writes."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        command = f'exec "$@" <&{reading}'
        program = Daemon(
            self,
            *("--listen", str(self.sockets), option, "--", "sh", "-c", command, "sh"),
            *(*before, sys.executable, self.file("app.py", script)),
            runner=RUN,
            inherit=[reading],
        )
        reader = self.stream("app-*").read_until(lambda one: total(one, name) >= expected)
        self.assertEqual(total(reader, name), expected)
        os.close(writing)
        return self.ends(program)

    @skipIf(needs("prometheus_client"), needs("prometheus_client"))
    def test_prometheus(self) -> None:
        self.check("--prometheus", "import sys" + PROMETHEUS, 3, "orders_total")

    @skipIf(needs("opentelemetry.metrics"), needs("opentelemetry.metrics"))
    def test_openTelemetry(self) -> None:
        """A program without a provider."""
        self.check("--opentelemetry", METER + READ, 3)

    @skipIf(needs("opentelemetry.sdk"), needs("opentelemetry.sdk"))
    def test_laterProvider(self) -> None:
        """A program that sets a provider after it has made instruments."""
        output = self.check("--opentelemetry", METER + PROVIDER + READ, 7)
        self.assertEqual(output, "exported=4\n")

    @skipIf(needs("opentelemetry.distro"), needs("opentelemetry.distro"))
    def test_distro(self) -> None:
        """C{opentelemetry-instrument}, which sets a provider of the SDK before the program."""
        script = """
import gc
from opentelemetry.sdk.metrics import MeterProvider
[provider] = [one for one in gc.get_objects() if type(one) is MeterProvider]
print("sdk", flush=True)
"""
        output = self.check("--opentelemetry", METER + script + READ, 3, before=INSTRUMENT)
        self.assertEqual(output, "sdk\n")

    @skipIf(needs("opentelemetry.metrics"), needs("opentelemetry.metrics"))
    def test_chosenProvider(self) -> None:
        """The program's own choice of a provider has precedence."""
        program = Daemon(
            self,
            *("run", "--listen", "0", "--opentelemetry", "--", sys.executable, "-c", "print(5)"),
            runner=["env", "OTEL_PYTHON_METER_PROVIDER=default_meter_provider", *RUN[:-1]],
        )
        status, output, errors = program.end()
        self.assertEqual((status, output), (0, "5\n"))
        self.assertIn("--opentelemetry has no effect: OTEL_PYTHON_METER_PROVIDER=", errors)


class InstrumentTests(RunTestCase):
    skip = needs("opentelemetry.instrumentation.auto_instrumentation")

    def test_instrument(self) -> None:
        """A command that executes the program, and has a module sitecustomize of its own."""
        run = self.run_program(*INSTRUMENT, sys.executable, self.file("app.py", PORT), listen="0")
        status, output, _ = run.end()
        self.assertEqual(status, 0)
        self.assertRegex(output, "port=[1-9]")


class ToolTests(RunTestCase):
    """Tools that run a program."""

    @skipIf(needs("pytest"), needs("pytest"))
    def test_pytest(self) -> None:
        script = """
            from txmetrics_tcp import current_recorder

            def test_listens():
                assert current_recorder().addresses
        """
        path = self.file("test_app.py", script)
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", path]
        self.assertIn("1 passed", self.ends(self.run_program(sys.executable, *arguments)))

    @skipIf(needs("coverage"), needs("coverage"))
    def test_coverage(self) -> None:
        path = self.file("app.py", PORT)
        measured = Path(path).with_name("measured")
        arguments = ["-m", "coverage", "run", f"--data-file={measured}", path]
        self.assertIn("port=", self.ends(self.run_program(sys.executable, *arguments, listen="0")))
        self.assertTrue(measured.exists())


class TerminalTests(RunTestCase):
    def test_interrupt(self) -> None:
        """Ctrl-C in the program's terminal interrupts the program."""
        script = """
            import signal
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                print("ready", flush=True)
                signal.pause()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                raise SystemExit(3)
        """
        path = self.file("app.py", script)
        command = [*RUN, "--listen", str(self.sockets), "--", sys.executable, path]
        process, terminal = pty.fork()
        if not process:
            os.execve(command[0], command, environment())
        self.addCleanup(os.close, terminal)
        output = b""
        while b"ready" not in output:
            output += os.read(terminal, 1024)
        os.write(terminal, b"\x03")
        while b"interrupted" not in output:
            output += os.read(terminal, 1024)
        _, status = os.waitpid(process, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 3)
