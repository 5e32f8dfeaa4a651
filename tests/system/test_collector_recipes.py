"""
Servers whose workers report to a collector: in each, a worker is killed and replaced while a viewer
watches.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from unittest import skipIf
from urllib.request import urlopen

from tests import environment, needs
from tests.daemon import LIMIT, Daemon
from tests.programs import EXAMPLES, Stream
from tests.reader import Reader
from tests.system.test_collector import CollectorTestCase


class RecipeTests(CollectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.daemon = self.collecting("--merge=both", "--grace=0")
        self.viewer = Stream(self, self.daemon.port)

    def serve(self, *runner: str) -> Daemon:
        home = str(self.directory)
        variables = (
            *("env", f"COLLECTOR=unix:{self.path}", f"HOME={home}", f"QUEUE={home}/queue"),
            f"PYTHONPATH={EXAMPLES}:{environment()['PYTHONPATH']}",
        )
        return Daemon(self, runner=["sh", "-c", 'exec "$0" "$@" 2>&1', *variables, *runner])

    def sees_sum(self, name: str, value: float) -> None:
        """Wait until the sum over all processes has a value, which it must not exceed."""

        def is_there(reader: Reader) -> bool:
            found = sum(
                total
                for key, total in reader.totals.items()
                if key.name == name and "instance" not in dict(key.labels)
            )
            self.assertLessEqual(found, value)
            return found == value

        self.viewer.read_until(is_there)

    def connected(self, before: Sequence[int] = ()) -> list[int]:
        """
        Wait until two processes are connected, and return their numbers.

        @param before: two processes of which one was killed, and is to be replaced.
        """

        def both_there(reader: Reader) -> bool:
            found = self.processes(reader)
            return len(found) == 2 and found != before

        return self.processes(self.viewer.read_until(both_there))

    def processes(self, reader: Reader) -> list[int]:
        """Return the numbers of the connected processes, in ascending order."""
        return sorted(
            int(match[1])
            for key, value in reader.totals.items()
            if key.name == "txmetrics_collector_source_connected"
            and value
            and (match := re.search(r"\[(\d+)\]", dict(key.labels)["instance"]))
        )

    def check_http(self, port: int) -> None:
        """Send requests to two workers, and kill one."""

        def request() -> None:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT) as answer:
                self.assertEqual(answer.read(), b"hello\n")

        before = self.connected()
        for _ in range(20):
            request()
        # Nothing is lost by killing a worker that has sent everything.
        self.sees_sum("http_requests_total", 20)
        os.kill(before[0], signal.SIGKILL)
        self.connected(before)
        for _ in range(20):
            request()
        self.sees_sum("http_requests_total", 40)

    @skipIf(needs("gunicorn"), "needs gunicorn")
    def test_gunicorn(self) -> None:
        server = self.serve(
            *(sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", "--workers=2"),
            *("-c", str(EXAMPLES / "gunicorn_collector_conf.py"), "--timeout=0"),
            "gunicorn_app:app",
        )
        port = int(server.wait_for(r"Listening at: http://127.0.0.1:(\d+)")[1])
        self.check_http(port)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.end()[0], 0)
        self.sees_sum("http_requests_total", 40)

    @skipIf(needs("uwsgi"), "needs uwsgi")
    def test_uwsgi(self) -> None:
        server = self.serve(
            *("uwsgi", "--master", "--enable-threads", "--processes=2", "--die-on-term"),
            *("--http-socket=127.0.0.1:0", "--module=uwsgi_collector_app"),
        )
        port = int(server.wait_for(r"bound to TCP address 127.0.0.1:(\d+)")[1])
        self.check_http(port)
        server.process.send_signal(signal.SIGTERM)
        server.end()
        self.sees_sum("http_requests_total", 40)

    @skipIf(needs("celery"), "needs celery")
    def test_celery(self) -> None:
        (self.directory / "killed_app.py").write_text(
            """
import os, signal
from celery_collector_app import app

@app.task(name="kill")
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
"""
        )
        server = self.serve(
            *(sys.executable, "-m", "celery", f"--workdir={self.directory}", "--app=killed_app"),
            *("worker", "--concurrency=2", "--loglevel=INFO", "-O", "fair"),
        )
        server.wait_for(r"celery@\S+ ready")
        script = f"""
import os
os.environ["QUEUE"] = {str(self.directory / "queue")!r}
from celery_collector_app import app
def call(name, *arguments):
    app.send_task(name, arguments)
"""

        def call(calls: str) -> None:
            subprocess.run(
                [sys.executable, "-c", script + calls],
                env=environment(EXAMPLES),
                check=True,
                timeout=LIMIT,
            )

        before = self.connected()
        call("for n in range(10): call('celery_app.add', n, 2)")
        self.sees_sum("celery_tasks_total", 10)
        # Within a task: a process that waits for one may hold the lock of the others.
        call("call('kill')")
        self.connected(before)
        call("for n in range(10): call('celery_app.add', n, 2)")
        self.sees_sum("celery_tasks_total", 20)
        server.process.send_signal(signal.SIGTERM)
        server.end()
        self.sees_sum("celery_tasks_total", 20)

    def test_multiprocessing(self) -> None:
        """Processes of the pool end and are replaced."""
        pool = self.serve(
            sys.executable, str(EXAMPLES / "multiprocessing_collector.py"), f"unix:{self.path}"
        )
        status, output, _ = pool.end()
        self.assertEqual((status, output), (0, f"{sum(n * n for n in range(1000))}\n"))
        self.sees_sum("jobs_total", 1000)

    def test_multiprocessingKilled(self) -> None:
        """A process of the pool that is killed is replaced, and its jobs stay counted."""
        script = f"""
import signal
from multiprocessing import get_context
from multiprocessing_collector import report, work

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
pool = get_context("spawn").Pool(2, report, ("unix:{self.path}",))
pool.map(work, range(100), 1)
signal.sigwait([signal.SIGUSR1])
# Within a job: a process that waits for one may hold the lock of the others.
pool.apply_async(signal.raise_signal, (signal.SIGKILL,))
signal.sigwait([signal.SIGUSR1])
pool.map(work, range(100), 1)
# The pool would wait for the job that was killed: the test ends it.
signal.sigwait([signal.SIGUSR1])
"""
        pool = self.serve(sys.executable, "-c", script)
        before = self.connected()
        self.sees_sum("jobs_total", 100)
        pool.process.send_signal(signal.SIGUSR1)
        self.connected(before)
        pool.process.send_signal(signal.SIGUSR1)
        self.sees_sum("jobs_total", 200)
