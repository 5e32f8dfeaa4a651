"""
Runs the scripts in examples/ that need other packages.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import tempfile

from tests import needs
from tests.daemon import LIMIT, Daemon
from tests.programs import EXAMPLES, ExampleTestCase, Stream, total
from tests.reader import Reader


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
