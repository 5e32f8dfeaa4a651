"""
Runs the daemon as its users do: as a process, which ends with its test at the latest.
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
"""How many seconds a test waits for something; only a hang takes as long."""

IN_USE = os.strerror(errno.EADDRINUSE)

PROCESS = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_threads",
    "python_gc_collections_total",
    "reactor_lag_seconds",
}
"""What the daemon streams about its own process."""

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
TWIST = [sys.executable, "-m", "twisted", "--log-format=text"]
METRICS_TCP = [
    sys.executable,
    "-c",
    # Messages are on standard error; what can be waited for is standard output.
    "import os, sys; os.dup2(1, 2); from txmetrics_tcp.cli import main; sys.exit(main())",
]

LEFT_TO_THE_SYSTEM = {
    "PYTHONWARNINGS": "ignore::ResourceWarning:sys,ignore::ResourceWarning:asyncio.base_events"
}
"""
For the environment of a process whose standard error is asserted, where Python is to warn
(C{PYTHONDEVMODE=1}): that a reactor's sockets are open when a process ends is no leak.
"""

_BUSY = re.compile(r"(?m)^Executing <.*> took [\d.]+ seconds\n")
"""
What asyncio logs on a busy machine in debug mode, which Python's development mode switches on.
"""

_LISTENING = re.compile(r"Streaming metrics on .*?(?:port=|:)(\d+)")


class Daemon:
    """
    A run of twistd in a new directory, and of what it forks into.

    Nothing here polls: the end of output, and of the run, are the ends of pipes.

    @ivar directory: where it runs; its pid file and log are there.
    @ivar process: what was started; with a run that daemonizes, the one that returns to the
        shell.
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
        @param case: the test that it is for, at the end of which it is killed.
        @param arguments: those of the runner.
        @param modules: a directory of modules that it finds before all others.
        @param inherit: descriptors that it gets.
        """
        self.directory = Path(case.mktemp()).resolve()
        self.directory.mkdir()
        # Every process of the run inherits the writing end, so the reading end shows when the
        # last has ended, whatever its parent is.
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
        """The process that runs the daemon, as the pid file has it."""
        return int(self.pid_file.read_text())

    @property
    def log(self) -> str:
        """The log file, of a run that daemonizes."""
        return (self.directory / "twistd.log").read_text()

    @property
    def port(self) -> int:
        """Where it listens, for which this waits."""
        return int(self.wait_for(_LISTENING.pattern)[1])

    @property
    def logged_port(self) -> int:
        """The same, of a run that daemonizes and has done so."""
        found = _LISTENING.search(self.log)
        assert found is not None, self.log
        return int(found[1])

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a pattern is in standard output, where the log goes with -n."""
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
                raise AssertionError(f"waited for {pattern!r} in vain: {output}{errors}")
            self._output += data
        return found

    def end(self) -> tuple[int, str, str]:
        """Wait for the end of `process`: its status, and what is left of output and errors."""
        output, errors = self.process.communicate(timeout=LIMIT)
        said = _BUSY.sub("", errors.decode())
        return self.process.returncode, (self._output + output).decode(), said

    def has_gone(self, timeout: float = LIMIT) -> bool:
        """Wait until no process of the run is left."""
        ready, _, _ = select.select([self._leash], [], [], timeout)
        return bool(ready)

    def _clean_up(self) -> None:
        with self.process:
            self.process.kill()
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            # A daemon on its way into the background may hold them open still.
            self.process.stdout.close()
            self.process.stderr.close()
        deadline = time.monotonic() + LIMIT
        while not self.has_gone(0.1):
            # One on its way into the background has no pid file yet: that is why in a loop.
            with suppress(OSError, ValueError):
                os.kill(self.pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"a process is left behind: {self.directory}"
        os.close(self._leash)


def preamble(case: SynchronousTestCase, script: str) -> Path:
    """C{modules} for a `Daemon` that runs this script before all else."""
    modules = Path(case.mktemp()).resolve()
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(script)
    return modules


class Viewer:
    """A client: iterating over it gives each event, to the end of the stream."""

    def __init__(self, case: SynchronousTestCase, port: int) -> None:
        self._socket = connect(case, port)

    def __iter__(self) -> Iterator[Event]:
        decoder = Decoder()
        deadline = time.monotonic() + LIMIT
        while data := self._socket.recv(65536):
            yield from decoder.feed(data)
            assert time.monotonic() < deadline, "the expected event was not received"
        assert decoder.unfinished == 0, "the stream ends within a frame"


def connect(case: SynchronousTestCase, port: int) -> socket.socket:
    """A connection to a port of this machine, which is closed when the test ends."""
    connected = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    case.addCleanup(connected.close)
    return connected


def occupied_port(case: SynchronousTestCase) -> int:
    """A port of the loopback interface that is in use while the test runs."""
    occupier = socket.create_server(("127.0.0.1", 0))
    case.addCleanup(occupier.close)
    port: int = occupier.getsockname()[1]
    return port


class DaemonTestCase(SynchronousTestCase):
    def see(self, port: int, names: set[str]) -> dict[str, Metric]:
        """
        Read a stream until there was an event of each of these metrics, and a description of each
        before it.
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
        self.fail(f"the stream ended before there was any of {names - seen.keys()}")

    def assert_stopped(self, daemon: Daemon, number: int) -> None:
        """The daemon has ended by a signal, and has left nothing behind."""
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (-number, ""))
        self.assertNotIn("Traceback", output)
        self.assertFalse(daemon.pid_file.exists())

    def assert_one_line(self, daemon: Daemon, *words: str) -> None:
        """The daemon has ended with status 1, and a line on standard error with these words."""
        status, output, errors = daemon.end()
        self.assertEqual(status, 1)
        self.assertEqual(errors.count("\n"), 1, errors)
        for word in words:
            self.assertIn(word, errors)
            self.assertNotIn(word, output)
        self.assertNotIn("Traceback", output)
        self.assertTrue(daemon.has_gone())
        self.assertFalse(daemon.pid_file.exists())
