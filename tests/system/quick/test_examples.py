"""
Runs the scripts in examples.
"""

from __future__ import annotations

import signal
import socket
import sys
from textwrap import dedent

from tests.daemon import LIMIT, TWISTD, Daemon
from tests.programs import EXAMPLES, ExampleTestCase, Stream, total


class ScriptTests(ExampleTestCase):
    def test_all(self) -> None:
        """The list of examples is complete: every example has a test."""
        self.assertEqual(
            sorted(path.name for path in EXAMPLES.glob("*.py")),
            [
                "asyncio_measured.py",
                "asyncio_own_loop.py",
                "asyncio_thread.py",
                "celery_app.py",
                "celery_collector_app.py",
                "django_app.py",
                "fastapi_app.py",
                "gunicorn_app.py",
                "gunicorn_collector_conf.py",
                "gunicorn_conf.py",
                "multiprocessing_collector.py",
                "opentelemetry_app.py",
                "prometheus_client_program.py",
                "scrapy_spider.py",
                "test_instrumented.py",
                "threaded.py",
                "twisted_app.py",
                "twisted_web_app.py",
                "uwsgi_collector_app.py",
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
        example.process.send_signal(signal.SIGINT)
        self.ends(example)
        stream.read_all()

    def test_prometheusClient(self) -> None:
        example = self.script("prometheus_client_program.py", "0")
        stream = Stream(self, example.port)
        reader = stream.read_until(
            lambda reader: (
                total(reader, "jobs_total", queue="mail") >= 3
                and len(reader.values("job_seconds")) >= 3
                and total(reader, "python_info") == 1
            )
        )
        self.assertIn("job_seconds", {metadata.name for metadata in reader.metadata})
        example.process.send_signal(signal.SIGINT)
        self.ends(example)
        stream.read_all()

    def test_asyncioThread(self) -> None:
        self.check_asyncio("asyncio_thread.py", "0")

    def test_asyncioThreadInterruptedInRequest(self) -> None:
        """Ctrl-C during a request ends the program without a traceback."""
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

    def test_asyncioMeasured(self) -> None:
        example = self.script("asyncio_measured.py", "0")
        stream = Stream(self, example.port)
        stream.read_until(
            lambda reader: (
                len(reader.values("asyncio_lag_seconds")) >= 3
                # `main`, and three times `work`.
                and total(reader, "asyncio_tasks", thread="MainThread") == 4
                and total(reader, "python_log_records_total", level="info", logger="worker") >= 3
            )
        )
        example.process.send_signal(signal.SIGINT)
        self.ends(example)
        stream.read_all()

    def test_twistedWebApp(self) -> None:
        """Metrics of Twisted itself, in a real reactor with real threads and requests."""
        example = Daemon(
            self,
            "-ny",
            str(EXAMPLES / "twisted_web_app.py"),
            runner=["env", "METRICS=0", "WEB=tcp:0:interface=127.0.0.1", *TWISTD],
        )
        stream = Stream(self, example.port)
        port = int(example.wait_for(r"\] Site starting on (\d+)")[1])
        for method, expected in (("GET", b" 200 "), ("PROPFIND", b" 501 ")):
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
                request = f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                client.sendall(request.encode())
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            self.assertIn(expected, answer.partition(b"\r\n")[0])
        reader = stream.read_until(
            lambda reader: (
                total(reader, "twisted_web_requests_total", method="GET", status="2xx") == 1
                and total(reader, "twisted_web_requests_total", method="other", status="5xx") == 1
                and total(reader, "reactor_threadpool_threads") >= 1
                and len(reader.values("reactor_lag_seconds")) >= 1
                and len(reader.values("twisted_looping_call_lateness_seconds")) >= 2
                and total(reader, "twisted_log_events_total", level="info", namespace="shop") >= 2
                and total(reader, "python_log_records_total", logger="shop.library") == 1
            )
        )
        self.assertEqual(len(reader.values("twisted_web_request_seconds")), 2)
        self.assertEqual(total(reader, "twisted_web_requests_in_progress"), 0)
        example.process.send_signal(signal.SIGTERM)
        stream.read_all()
        self.assertEqual(example.end()[2], "WARNING:shop.library:a library logs\n")

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
