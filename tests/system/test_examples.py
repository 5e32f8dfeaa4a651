"""
Runs the scripts in examples/ that need other packages.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from unittest import skipIf
from urllib.request import urlopen

from tests import environment, needs
from tests.automatic import AutomaticTestCase
from tests.daemon import LIMIT, Daemon
from tests.programs import EXAMPLES, ExampleTestCase, Stream, total, until
from tests.reader import Reader
from txmetrics_tcp._exporter.environment import VARIABLE


class UvloopTests(ExampleTestCase):
    skip = needs("uvloop")

    def test_asyncioOwnLoop(self) -> None:
        self.check_asyncio("asyncio_own_loop.py", "--uvloop", "0")


class PytestTests(ExampleTestCase):
    skip = needs("pytest")

    def test_pytest(self) -> None:
        example = Daemon(
            self,
            *("-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_instrumented.py")),
            runner=[sys.executable, "-m", "pytest"],
        )
        status, output, errors = example.end()
        self.assertEqual(status, 0, output + errors)
        self.assertIn("3 passed", output)


class WorkersTests(AutomaticTestCase):
    """
    Servers whose workers each have a socket in a directory.
    """

    def serve(self, module: str, *arguments: str, **variables: str) -> Daemon:
        self.streams = self.directory()
        home = self.directory()
        return Daemon(
            self,
            *arguments,
            runner=[
                *("env", f"{VARIABLE}={self.streams}/", f"HOME={home}", f"QUEUE={home}/queue"),
                *(sys.executable, "-m", module),
            ],
        )

    def workers(self, wanted: int) -> list[Stream]:
        """Wait for the sockets of this many processes."""
        found = until(
            lambda: len(self.sockets(self.streams)) == wanted and self.sockets(self.streams)
        )
        return [self.stream(self.streams, process) for process in found]

    def check_django(self, *arguments: str) -> list[Stream]:
        gunicorn = self.serve(
            "gunicorn",
            *("--bind=127.0.0.1:0", "--workers=2", f"--chdir={EXAMPLES}", "--timeout=0"),
            *("--graceful-timeout=600", "--error-logfile=/dev/stdout", *arguments),
            "django_app:app",
        )
        port = int(gunicorn.wait_for(r"Listening at: http://127.0.0.1:(\d+)")[1])
        if "--preload" not in arguments:
            # A worker that has imported the application streams, and has no request yet.
            streams = self.workers(2)
        # A worker handles one request at a time: that of the first does not end before the second
        # has been answered.
        gunicorn.wait_for(r"(?s)(Booting worker.*){2}")
        first, second = (self.client(port) for _ in range(2))
        first.sendall(b"GET /missing HTTP/1.0\r\n")
        second.sendall(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"hello", self.answer(second))
        first.sendall(b"\r\n")
        self.assertIn(b"404", self.answer(first))
        if "--preload" in arguments:
            # gunicorn's master has a socket, too.
            streams = self.workers(3)
            [master] = [
                one
                for one in streams
                if one.read_until(lambda reader: bool(reader.snapshots)).snapshots == [{}]
            ]
            streams.remove(master)
        statuses = []
        for stream in streams:
            reader = stream.read_until(lambda reader: total(reader, "http_requests_total") == 1)
            [key] = [one for one in reader.totals if one.name == "http_requests_total"]
            statuses.append(dict(key.labels))
        self.assertCountEqual(
            statuses, [{"view": "hello", "status": "200"}, {"view": "none", "status": "404"}]
        )
        gunicorn.process.send_signal(signal.SIGTERM)
        for stream in streams:
            stream.read_all()
        status, output, errors = gunicorn.end()
        self.assertEqual((status, errors), (0, ""), output)
        self.assertEqual(os.listdir(self.streams), [])
        return streams

    def client(self, port: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self.addCleanup(client.close)
        return client

    def answer(self, client: socket.socket) -> bytes:
        answer = b""
        while data := client.recv(65536):
            answer += data
        client.close()
        return answer

    @skipIf(needs("django") or needs("gunicorn"), "needs django and gunicorn")
    def test_django(self) -> None:
        self.check_django()

    @skipIf(needs("django") or needs("gunicorn"), "needs django and gunicorn")
    def test_djangoPreloaded(self) -> None:
        self.check_django("--preload")

    @skipIf(needs("celery"), "needs celery")
    def test_celery(self) -> None:
        worker = self.serve(
            "celery",
            *(f"--workdir={EXAMPLES}", "--app=celery_app", "worker", "--concurrency=2"),
            *("--loglevel=INFO", "--logfile=/dev/stdout", "-O", "fair"),
        )
        worker.wait_for(r"celery@\S+ ready")
        queue = worker.process.args[3].partition("=")[2]  # type: ignore[index,union-attr]
        calls = [
            subprocess.run(
                [
                    *(sys.executable, "-m", "celery", f"--workdir={EXAMPLES}", "--app=celery_app"),
                    *("call", "celery_app.add", "--args=[1, 2]"),
                ],
                env=environment() | {"QUEUE": queue},
                capture_output=True,
                timeout=LIMIT,
            )
            for _ in range(2)
        ]
        self.assertEqual([call.returncode for call in calls], [0, 0], calls)
        output = worker.wait_for(r"(?s).*(succeeded in.*){2}")[0]
        # Processes of the pool that have run a task, and the main process.
        streams = self.workers(1 + len(set(re.findall(r"ForkPoolWorker-\d+", output))))
        done = []
        for stream in streams:
            reader = stream.read_until(lambda reader: bool(reader.snapshots))
            done.append(total(reader, "celery_tasks_total", task="celery_app.add", state="SUCCESS"))
            self.assertEqual(total(reader, "celery_tasks_running"), 0)
        self.assertEqual(sum(done), 2)
        worker.process.send_signal(signal.SIGTERM)
        self.assertEqual(worker.end()[0], 0)


class FastAPITests(ExampleTestCase):
    skip = needs("prometheus_fastapi_instrumentator") or needs("uvicorn")

    def test_fastapi(self) -> None:
        """Requests that prometheus-fastapi-instrumentator measures are streamed."""
        example = Daemon(
            self,
            *("fastapi_app:app", "--port=0", "--app-dir", str(EXAMPLES)),
            # uvicorn logs to standard error.
            runner=[
                *("env", "METRICS=0", "sh", "-c", 'exec "$0" "$@" 2>&1'),
                *(sys.executable, "-u", "-m", "uvicorn"),
            ],
        )
        stream = Stream(self, example.port)
        port = int(example.wait_for(r"Uvicorn running on http://127.0.0.1:(\d+)")[1])
        for _ in range(3):
            with urlopen(f"http://127.0.0.1:{port}/hello/you", timeout=LIMIT) as answer:
                self.assertIn(b"Hello", answer.read())
        labels = {"handler": "/hello/{name}", "method": "GET", "status": "2xx"}
        stream.read_until(
            lambda reader: (
                total(reader, "http_requests_total", **labels) == 3
                and len(reader.values("http_request_duration_highr_seconds")) >= 3
            )
        )
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT) as answer:
            self.assertIn(b'http_requests_total{handler="/hello/{name}"', answer.read())
        example.process.send_signal(signal.SIGTERM)
        stream.read_all()
        example.end()


class GunicornTests(ExampleTestCase):
    """
    gunicorn with two synchronous workers.
    """

    skip = needs("gunicorn")

    def setUp(self) -> None:
        # Not in the test's directory, whose path may be too long for a socket.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def serve(self, *arguments: str) -> Daemon:
        self.gunicorn = Daemon(
            self,
            *("-c", str(EXAMPLES / "gunicorn_conf.py"), "--chdir", str(EXAMPLES)),
            # gunicorn does not kill workers that it considers hung.
            *("--timeout=0", "--graceful-timeout=600", "--error-logfile=/dev/stdout"),
            *(*arguments, "gunicorn_app:app"),
            runner=[
                "env",
                "BIND=127.0.0.1:0",
                f"METRICS_DIRECTORY={self.directory}",
                f"HOME={self.directory}",  # where gunicorn creates a socket
                *(sys.executable, "-m", "gunicorn"),
            ],
        )
        self.http = int(self.gunicorn.wait_for(r"Listening at: http://127.0.0.1:(\d+)")[1])
        return self.gunicorn

    def worker(self, number: int, nth: int = 1) -> tuple[int, Stream]:
        """Wait for the nth worker with this number, and return its process id and stream."""
        path = f"{self.directory}/metrics-{number}.sock"
        line = rf"Worker (\d+) streams metrics on unix:{re.escape(path)}:mode=600\n"
        process = self.gunicorn.wait_for(rf"(?s)(?:{line}.*?){{{nth - 1}}}{line}")[2]
        stream = Stream(self, path)
        # The worker has loaded the application, and has set its signal handlers before that.
        stream.read_until(
            lambda reader: "http_request_seconds" in {one.name for one in reader.metadata}
        )
        return int(process), stream

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.http), timeout=LIMIT)
        self.addCleanup(client.close)
        return client

    def answer(self, client: socket.socket) -> bytes:
        answer = b""
        while data := client.recv(65536):
            answer += data
        # The worker waits for the client to close the connection.
        client.close()
        return answer

    def check(self, *arguments: str) -> None:
        gunicorn = self.serve(*arguments)
        streams = [self.worker(number)[1] for number in (0, 1)]
        for stream in streams:
            # The worker has counted this client, which receives every event from now on.
            stream.read_until(lambda reader: total(reader, "txmetrics_clients") == 1)
        # Connections are accepted in order, and a worker handles one at a time. The worker that
        # waits for the rest of the first request cannot answer the second one.
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
        self.assertTrue(gunicorn.wait_until_gone())

    def test_workers(self) -> None:
        self.check()

    def test_preloaded(self) -> None:
        """The application is imported and creates its handles before the fork."""
        self.check("--preload")

    def test_killedWorker(self) -> None:
        """The successor of a killed worker takes over its number and its socket."""
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
