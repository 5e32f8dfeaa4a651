"""
The daemon and ``metrics-tcp tail`` with a full disk, a read-only directory, and closed standard
input, output and error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment
from tests.daemon import LEFT_TO_THE_SYSTEM, LIMIT, TWISTD, Daemon, occupied_port
from tests.programs import Stream, until

FULL = "/dev/full"
NO_SPACE = os.strerror(errno.ENOSPC)
SOCKET = "s"
OPTIONS = ("metrics-tcp", f"--listen=unix:{SOCKET}", "--interval=0.01", "--no-host")

no_full_disk = "" if os.path.exists(FULL) else f"needs {FULL}"


def redirected(redirections: str, *runner: str) -> list[str]:
    return ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *runner]


class SurroundingsTestCase(SynchronousTestCase):
    def run_daemon(
        self, *options: str, redirections: str = "", runner: list[str] | None = None
    ) -> Daemon:
        return Daemon(
            self, *options, *OPTIONS, runner=redirected(redirections, *(runner or TWISTD))
        )

    def assert_streams(self, daemon: Daemon) -> None:
        # Polls, since the output may be unavailable.
        stream = until(lambda: self.connect(daemon))
        stream.read_until(lambda reader: len(reader.metrics) > 100)
        stream.close()

    def connect(self, daemon: Daemon) -> Stream | None:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return Stream(self, str(daemon.directory / SOCKET))
        return None


@skipIf(no_full_disk, no_full_disk)
class FullDiskTests(SurroundingsTestCase):
    def test_log(self) -> None:
        """The daemon streams and ends normally if its log is on a full disk."""
        for option, redirections in (
            (f"--logfile={FULL}", ""),
            ("-n", f">{FULL}"),
            ("-n", f">{FULL} 2>{FULL}"),
        ):
            daemon = self.run_daemon("-n", option, redirections=redirections)
            self.assert_streams(daemon)
            daemon.process.terminate()
            self.assertEqual(daemon.end(), (-signal.SIGTERM, "", ""))
            self.assertFalse((daemon.directory / SOCKET).exists())
            self.assertFalse(daemon.pid_file.exists())

    def test_log_in_the_background(self) -> None:
        daemon = self.run_daemon(f"--logfile={FULL}")
        self.assertEqual(daemon.end(), (0, "", ""))
        self.assert_streams(daemon)
        os.kill(daemon.pid, signal.SIGTERM)
        self.assertTrue(daemon.wait_until_gone())

    def test_cannot_start(self) -> None:
        """The daemon exits with status 1 even if it cannot write the reason."""
        port = str(occupied_port(self))
        daemon = self.run_daemon("-n", runner=TWISTD, redirections=f'--listen={port} 2>"{FULL}"')
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (1, ""))
        self.assertNotIn("Traceback", output)
        self.assertTrue(daemon.wait_until_gone())
        self.assertFalse(daemon.pid_file.exists())

    def test_tail(self) -> None:
        daemon = self.run_daemon("-n")
        daemon.wait_for("Streaming metrics on")
        self.assertEqual(
            self.tail(daemon, f">{FULL}"), (1, f"cannot write to standard output: {NO_SPACE}")
        )
        # Messages that cannot be written are dropped; events are still printed.
        status, output = self.tail(daemon, f"2>{FULL} | head -n 3 | wc -l")
        self.assertEqual((status, int(output)), (0, 3))

    def test_tail_closed(self) -> None:
        daemon = self.run_daemon("-n")
        daemon.wait_for("Streaming metrics on")
        closed = "cannot write: standard output is closed"
        self.assertEqual(self.tail(daemon, ">&-"), (1, closed))
        self.assertEqual(self.tail(daemon, "<&- >&- 2>&-"), (1, ""))
        status, output = self.tail(daemon, "<&- 2>&- | head -n 3 | wc -l")
        self.assertEqual((status, int(output)), (0, 3))

    def tail(self, daemon: Daemon, redirections: str) -> tuple[int, str]:
        """Run the command, and return its status and the last line of output or errors."""
        command = [sys.executable, "-m", "txmetrics_tcp", "tail", f"unix:{SOCKET}"]
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$@" {redirections}', "sh", *command],
            cwd=daemon.directory,
            env=environment() | LEFT_TO_THE_SYSTEM,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        self.assertNotIn("Traceback", done.stderr)
        lines = (done.stderr + done.stdout).splitlines() or [""]
        return done.returncode, lines[-1].removeprefix("metrics-tcp: ").strip()


class ClosedTests(SurroundingsTestCase):
    def test_foreground(self) -> None:
        for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
            daemon = self.run_daemon("-n", redirections=closed)
            self.assert_streams(daemon)
            daemon.process.terminate()
            self.assertEqual(daemon.end(), (-signal.SIGTERM, "", ""), closed)
            self.assertFalse((daemon.directory / SOCKET).exists())

    def test_background(self) -> None:
        """Daemonizing does not close the daemon's own descriptors if standard ones are closed."""
        for closed in ("<&-", ">&-", "<&- >&- 2>&-"):
            daemon = self.run_daemon(redirections=closed)
            self.assertEqual(daemon.end(), (0, "", ""), closed)
            self.assert_streams(daemon)
            os.kill(daemon.pid, signal.SIGTERM)
            self.assertTrue(daemon.wait_until_gone())
            self.assertNotIn("Traceback", daemon.log)


class ReadOnlyTests(SurroundingsTestCase):
    def test_plugin_directory(self) -> None:
        """If Twisted cannot write its plugin cache, it logs one line and continues."""
        installed = Path(self.mktemp()).resolve()
        plugins = installed / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        shutil.copy(ROOT / "twisted" / "plugins" / "txmetrics_tcp_plugin.py", plugins)
        plugins.chmod(0o555)
        self.addCleanup(plugins.chmod, 0o755)
        if os.access(plugins, os.W_OK):
            # Root ignores permissions. Directories in place of the files also prevent writing.
            plugins.chmod(0o755)
            (plugins / "dropin.cache").mkdir()
            (plugins / "dropin.cache.new").mkdir()
        daemon = Daemon(self, "-n", *OPTIONS, modules=installed)
        self.assert_streams(daemon)
        daemon.process.terminate()
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (-signal.SIGTERM, ""))
        self.assertNotIn("Traceback", output)
        self.assertEqual(output.count("plugin cache"), 1, output)
