"""
Runs the daemon as a process, which is killed at the latest when its test ends.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

from twisted.trial.unittest import SynchronousTestCase

from tests import environment
from txmetrics_tcp import Decoder, Event, Metadata, Metric, MetricKind

LIMIT = 60.0
"""The timeout of a test's waits, in seconds. Only a hang takes this long."""

IN_USE = os.strerror(errno.EADDRINUSE)

PROCESS = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_threads",
    "python_gc_collections_total",
    "reactor_lag_seconds",
}
"""Metrics of the daemon's own process."""

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
TWIST = [sys.executable, "-m", "twisted", "--log-format=text"]
METRICS_TCP = [
    sys.executable,
    "-c",
    # Redirects messages from standard error to standard output, on which `Daemon` waits.
    "import os, sys; os.dup2(1, 2); from txmetrics_tcp.cli import main; sys.exit(main())",
]

STUCK_METRICS_TCP = [
    sys.executable,
    "-c",
    """
import os, signal, socket, sys, threading

def getaddrinfo(*arguments):
    os.write(2, b"looking up\\n")
    threading.Event().wait()

socket.getaddrinfo = getaddrinfo
from txmetrics_tcp.cli import main
sys.exit(main())
""",
]
"""The commands with look-ups of host names that never end."""

LEFT_TO_THE_SYSTEM = {
    "PYTHONWARNINGS": "ignore::ResourceWarning:sys,ignore::ResourceWarning:asyncio.base_events"
}
"""
Used in the environment of a process whose standard error is checked. In Python's development mode,
it suppresses warnings about a reactor's sockets that are open when the process ends.
"""

_BUSY = re.compile(r"(?m)^Executing <.*> took [\d.]+ seconds\n")
"""
A message of asyncio's debug mode on a busy machine. Python's development mode enables that mode.
"""

_LISTENING = re.compile(r"Streaming metrics on .*?(?:port=|:)(\d+)")


class Daemon:
    """
    A run of twistd in a new directory, including the processes that it forks.

    Waits do not poll: pipes signal the end of the output and of the run.

    @ivar directory: the working directory, which has the pid file and the log.
    @ivar process: the process that was started; if it daemonizes, it exits early.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        *arguments: str,
        runner: list[str] = TWISTD,
        modules: Path | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        """
        @param case: the test; when it ends, the daemon is killed.
        @param arguments: the arguments of the runner.
        @param modules: a directory of modules that take precedence over all others.
        @param inherit: descriptors that the daemon inherits.
        """
        self.directory = Path(case.mktemp()).resolve()
        self.directory.mkdir()
        # Every process of the run inherits the writing end, so the reading end reports the end of
        # the last process, even if it is not a child of this one.
        self._leash, leash = os.pipe()
        try:
            self.process = Popen(
                [*runner, *arguments],
                cwd=self.directory,
                env=environment(modules) | LEFT_TO_THE_SYSTEM,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=[leash, *inherit],
            )
        finally:
            os.close(leash)
        self._output = b""
        case.addCleanup(self._clean_up)

    @property
    def pid_file(self) -> Path:
        return self.directory / "twistd.pid"

    @property
    def pid(self) -> int:
        """The daemon's process id, from the pid file."""
        return int(self.pid_file.read_text())

    @property
    def log(self) -> str:
        """The log file of a run that daemonizes."""
        return (self.directory / "twistd.log").read_text()

    @property
    def port(self) -> int:
        """The port on which the daemon listens. Waits until it listens."""
        return int(self.wait_for(_LISTENING.pattern)[1])

    @property
    def logged_port(self) -> int:
        """The port on which the daemon listens, from the log of a run that has daemonized."""
        found = _LISTENING.search(self.log)
        assert found is not None, self.log
        return int(found[1])

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a pattern is in standard output (with -n, the log)."""
        assert self.process.stdout is not None
        stdout = self.process.stdout.fileno()
        deadline = time.monotonic() + LIMIT
        while (found := re.search(pattern, self._output.decode())) is None:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([stdout], [], [], max(0.0, left))
            data = os.read(stdout, 65536) if ready else b""
            if not data:
                self.process.kill()
                _, output, errors = self.end()
                raise AssertionError(f"{pattern!r} was not found in the output: {output}{errors}")
            self._output += data
        return found

    def end(self) -> tuple[int, str, str]:
        """Wait until `process` ends, and return its status, output and errors."""
        output, errors = self.process.communicate(timeout=LIMIT)
        messages = _BUSY.sub("", errors.decode())
        return self.process.returncode, (self._output + output).decode(), messages

    def wait_until_gone(self, timeout: float = LIMIT) -> bool:
        """Wait until every process of the run has ended, and return whether they have."""
        ready, _, _ = select.select([self._leash], [], [], timeout)
        return bool(ready)

    def _clean_up(self) -> None:
        with self.process:
            self.process.kill()
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            # Closed explicitly, since a daemon that is still daemonizing may hold them open.
            self.process.stdout.close()
            self.process.stderr.close()
        deadline = time.monotonic() + LIMIT
        while not self.wait_until_gone(0.1):
            # Retries, since a daemon that is still daemonizing has no pid file yet.
            with suppress(OSError, ValueError):
                os.kill(self.pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"a process is still running: {self.directory}"
        os.close(self._leash)


def preamble(case: SynchronousTestCase, script: str) -> Path:
    """Return C{modules} for a `Daemon` that runs a script when Python starts."""
    modules = Path(case.mktemp()).resolve()
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(script)
    return modules


class Viewer:
    """A client. Iteration yields each event until the end of the stream."""

    def __init__(self, case: SynchronousTestCase, port: int) -> None:
        self._socket = connect(case, port)

    def __iter__(self) -> Iterator[Event]:
        decoder = Decoder()
        deadline = time.monotonic() + LIMIT
        while data := self._socket.recv(65536):
            yield from decoder.feed(data)
            assert time.monotonic() < deadline, "the expected event was not received"
        assert decoder.unfinished == 0, "the stream ended within a frame"


def connect(case: SynchronousTestCase, port: int) -> socket.socket:
    """Connect to a port of this machine. The connection is closed when the test ends."""
    connected = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    case.addCleanup(connected.close)
    return connected


def occupied_port(case: SynchronousTestCase) -> int:
    """Return a port of the loopback interface that is in use until the test ends."""
    occupier = socket.create_server(("127.0.0.1", 0))
    case.addCleanup(occupier.close)
    port: int = occupier.getsockname()[1]
    return port


class DaemonTestCase(SynchronousTestCase):
    def see(self, port: int, names: set[str]) -> dict[str, Metric]:
        """
        Read a stream until it has had an event of each of these metrics. Check that each metric is
        described before its first event.

        @return: the last event of each metric, by name.
        """
        described: set[tuple[MetricKind, str]] = set()
        seen: dict[str, Metric] = {}
        for event in Viewer(self, port):
            if isinstance(event, Metadata):
                self.assertTrue(event.unit, event)
                self.assertTrue(event.description, event)
                described.add((event.kind, event.name))
            elif isinstance(event, Metric):
                self.assertIn((event.key.kind, event.key.name), described)
                seen[event.key.name] = event
                if names <= seen.keys():
                    return seen
        self.fail(f"the stream ended without events of {names - seen.keys()}")

    def assert_stopped(self, daemon: Daemon, number: int) -> None:
        """Check that a signal ended the daemon, without a traceback or a pid file."""
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (-number, ""))
        self.assertNotIn("Traceback", output)
        self.assertFalse(daemon.pid_file.exists())

    def assert_one_line(self, daemon: Daemon, *words: str) -> None:
        """Check that the daemon ended with status 1, and one line of errors with these words."""
        status, output, errors = daemon.end()
        self.assertEqual(status, 1)
        self.assertEqual(errors.count("\n"), 1, errors)
        for word in words:
            self.assertIn(word, errors)
            self.assertNotIn(word, output)
        self.assertNotIn("Traceback", output)
        self.assertTrue(daemon.wait_until_gone())
        self.assertFalse(daemon.pid_file.exists())
