"""
Every script in examples/, run as its users do; and the code of docs/testing.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import ROOT
from tests.daemon import LIMIT, TWISTD, Daemon
from tests.programs import Stream, total
from tests.reader import Reader

EXAMPLES = ROOT / "examples"


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise SkipTest(f"{module} is not installed")


class ExampleTestCase(SynchronousTestCase):
    timeout = 120

    def script(self, name: str, *arguments: str) -> Daemon:
        return Daemon(self, str(EXAMPLES / name), *arguments, runner=[sys.executable, "-u"])

    def interrupt(self, daemon: Daemon, status: int = 0) -> None:
        """Ctrl-C ends it, with nothing but that."""
        daemon.process.send_signal(signal.SIGINT)
        result, _, errors = daemon.end()
        self.assertEqual((result, errors), (status, ""))


class ScriptTests(ExampleTestCase):
    def test_all(self) -> None:
        """No example is without a test."""
        self.assertEqual(
            sorted(path.name for path in EXAMPLES.glob("*.py")),
            [
                "asyncio_own_loop.py",
                "asyncio_thread.py",
                "gunicorn_app.py",
                "gunicorn_conf.py",
                "test_instrumented.py",
                "threaded.py",
                "twisted_app.py",
            ],
        )

    def test_threaded(self) -> None:
        example = self.script("threaded.py", "0")
        stream = Stream(self, example.port)
        reader = stream.read_until(
            lambda reader: (
                total(reader, "jobs_total", result="finished") >= 3
                and len(reader.values("job_seconds")) >= 3
            )
        )
        self.assertIn("job_seconds", {metadata.name for metadata in reader.metadata})
        self.assertLess(max(reader.values("job_seconds")), LIMIT / 2)
        self.interrupt(example)
        stream.read_all()

    def check_asyncio(self, name: str, *arguments: str) -> None:
        example = self.script(name, *arguments)
        stream = Stream(self, example.port)
        stream.read_until(
            lambda reader: (
                all(
                    total(reader, "requests_total", service="example", route=route) >= 2
                    for route in ("/", "/cart", "/checkout")
                )
                and len(reader.values("request_seconds")) >= 6
            )
        )
        self.interrupt(example)
        reader = stream.read_all()
        self.assertIn("requests_running", {key.name for key in reader.totals})

    def test_asyncioThread(self) -> None:
        self.check_asyncio("asyncio_thread.py", "0")

    def test_asyncioThreadInTheMiddle(self) -> None:
        """Ctrl-C in the middle of a request ends it as quietly as at any other moment."""
        script = """
            import os, random, runpy, signal, sys

            def interrupted(least, most):
                os.kill(os.getpid(), signal.SIGINT)
                return least

            random.uniform = interrupted
            runpy.run_path(sys.argv.pop(1), run_name="__main__")
        """
        arguments = ("-c", dedent(script), str(EXAMPLES / "asyncio_thread.py"), "0")
        status, output, errors = Daemon(self, *arguments, runner=[sys.executable, "-u"]).end()
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("Streaming metrics on", output)

    def test_asyncioOwnLoop(self) -> None:
        self.check_asyncio("asyncio_own_loop.py", "0")

    def test_asyncioOwnLoopWithUvloop(self) -> None:
        needs("uvloop")
        self.check_asyncio("asyncio_own_loop.py", "--uvloop", "0")

    def test_twistedApp(self) -> None:
        example = Daemon(
            self,
            "-ny",
            str(EXAMPLES / "twisted_app.py"),
            runner=["env", "METRICS=0", "ECHO=tcp:0:interface=127.0.0.1", *TWISTD],
        )
        stream = Stream(self, example.port)
        port = int(example.wait_for(r"\] Factory starting on (\d+)")[1])
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"hello")
            reader = stream.read_until(lambda reader: total(reader, "echo_bytes_total") == 5)
            self.assertEqual(total(reader, "echo_connections"), 1)
        stream.read_until(lambda reader: total(reader, "echo_connections") == 0)
        example.process.send_signal(signal.SIGTERM)
        stream.read_all()
        self.assertEqual(example.end()[2], "")

    def test_pytest(self) -> None:
        needs("pytest")
        example = Daemon(
            self,
            *("-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_instrumented.py")),
            runner=[sys.executable, "-m", "pytest"],
        )
        status, output, errors = example.end()
        self.assertEqual(status, 0, output + errors)
        self.assertIn("3 passed", output)


class GunicornTests(ExampleTestCase):
    """
    gunicorn with two workers of the kind that does one request at a time.
    """

    def setUp(self) -> None:
        needs("gunicorn")
        # Not in the directory of the test, whose name may be too long for a socket.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def serve(self, *arguments: str) -> Daemon:
        self.gunicorn = Daemon(
            self,
            *("-c", str(EXAMPLES / "gunicorn_conf.py"), "--chdir", str(EXAMPLES)),
            *("--error-logfile", "/dev/stdout", *arguments, "gunicorn_app:app"),
            runner=[
                "env",
                "BIND=127.0.0.1:0",
                f"METRICS_DIRECTORY={self.directory}",
                f"HOME={self.directory}",  # where it has a socket of its own
                *(sys.executable, "-m", "gunicorn"),
            ],
        )
        self.http = int(self.gunicorn.wait_for(r"Listening at: http://127.0.0.1:(\d+)")[1])
        return self.gunicorn

    def worker(self, number: int, nth: int = 1) -> tuple[int, Stream]:
        """Wait until there is a worker of that number, for the nth time: its process and stream."""
        path = f"{self.directory}/metrics-{number}.sock"
        line = rf"Worker (\d+) streams metrics on unix:{re.escape(path)}\n"
        process = self.gunicorn.wait_for(rf"(?s)(?:{line}.*?){{{nth - 1}}}{line}")[2]
        stream = Stream(self, path)
        # From here on it sees every event, and not only totals: the worker counts it in.
        stream.read_until(lambda reader: total(reader, "txmetrics_clients") == 1)
        return int(process), stream

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.http), timeout=LIMIT)
        self.addCleanup(client.close)
        return client

    def answer(self, client: socket.socket) -> bytes:
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer

    def check(self, *arguments: str) -> None:
        gunicorn = self.serve(*arguments)
        streams = [self.worker(number)[1] for number in (0, 1)]
        # Connections are accepted in their order, and a worker does one at a time: the one that
        # has an answer to the second is not the one that waits for the rest of the first.
        first, second = self.connect(), self.connect()
        first.sendall(b"GET /x HTTP/1.0\r\n")
        second.sendall(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"hello", self.answer(second))
        first.sendall(b"\r\n")
        self.assertIn(b"nothing here", self.answer(first))

        def served(reader: Reader) -> bool:
            return total(reader, "http_requests_total") == 1 and bool(
                reader.values("http_request_seconds")
            )

        readers = [stream.read_until(served) for stream in streams]
        status = [
            [total(reader, "http_requests_total", method="GET", status=code) for reader in readers]
            for code in ("200", "404")
        ]
        self.assertEqual(sorted(status), [[0, 1], [1, 0]])
        gunicorn.process.send_signal(signal.SIGTERM)
        for stream in streams:
            self.assertEqual(total(stream.read_all(), "http_requests_running"), 0)
        code, output, errors = gunicorn.end()
        self.assertEqual((code, errors), (0, ""))
        self.assertNotIn("Traceback", output)
        self.assertEqual([name for name in os.listdir(self.directory) if "metrics" in name], [])
        self.assertTrue(gunicorn.has_gone())

    def test_workers(self) -> None:
        self.check()

    def test_preloaded(self) -> None:
        """The application is imported, and has its handles, before the fork."""
        self.check("--preload")

    def test_workerThatIsKilled(self) -> None:
        """Its successor has its number, and its socket, which was left behind."""
        gunicorn = self.serve()
        process, stream = self.worker(0)
        _, other = self.worker(1)
        os.kill(process, signal.SIGKILL)
        stream.read_all()
        successor, stream = self.worker(0, 2)
        self.assertNotEqual(successor, process)
        gunicorn.process.send_signal(signal.SIGTERM)
        stream.read_all()
        other.read_all()
        self.assertEqual(gunicorn.end()[0], 0)


class DocsTests(ExampleTestCase):
    def test_trial(self) -> None:
        """The module for trial in docs/testing.md is right as it stands there."""
        page = (ROOT / "docs" / "testing.md").read_text()
        [block] = [
            block for block in re.findall(r"(?ms)^```python\n(.*?)^```", page) if "trial" in block
        ]
        module = Path(self.mktemp()).with_suffix(".py")
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(block)
        run = Daemon(self, str(module.resolve()), runner=[sys.executable, "-m", "twisted.trial"])
        status, output, errors = run.end()
        self.assertEqual(status, 0, output + errors)
        self.assertIn("PASSED (successes=2)", output)
