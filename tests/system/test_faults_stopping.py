"""
The daemon is stopped under load, with clients that do not read, and by several signals.
"""

from __future__ import annotations

import os
import signal
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import LIMIT, Daemon, Viewer, preamble
from tests.programs import Stream

LOAD = ("--interval=0.001", "--buffer-size=100")
"""The load.  A client that does not read is stuck within a second or two."""

MORE = 100_000
"""
How many bytes a second client reads before the first one counts as stuck. It is more than a
transport buffers, so a client that is not stuck would receive data meanwhile.
"""

SOCKET = "s"

LONG_FLUSH_TIMEOUT = """
from txmetrics_tcp import MetricsFactory
stop = MetricsFactory.stop
MetricsFactory.stop = lambda self: stop(self, 1000.0)
"""

INTERRUPTED = """
import os, signal
from threading import get_ident
from twisted.python import threadable
from txmetrics_tcp.tap.signals import StopSignals, _log

armed = []
install = StopSignals._install

class Lock(threadable.XLock):
    # The same behaviour, with a signal while the lock is taken.
    def acquire(self, blocking=True, timeout=-1):
        if self._owner == get_ident():
            return super().acquire(blocking, timeout)
        self._block.acquire()
        if armed:
            os.kill(os.getpid(), armed.pop())
        self._owner, self._count = get_ident(), 1
        return True

def installing(self):
    install(self)
    armed.append(signal.SIGTERM)
    self._reactor.callLater(0, _log.info, "interrupted")

threadable.XLock = Lock
StopSignals._install = installing
"""


class StoppingTests(SynchronousTestCase):
    def daemon(self, *options: str, patient: bool = False) -> Daemon:
        """
        Run a daemon with a client that does not read and is stuck.

        @param patient: whether the flush timeout is far longer than a test takes.
        """
        modules = preamble(self, LONG_FLUSH_TIMEOUT) if patient else None
        daemon = Daemon(
            self,
            "-n",
            "metrics-tcp",
            "--listen=0",
            f"--listen=unix:{SOCKET}",
            *LOAD,
            *options,
            modules=modules,
        )
        # The kernel's buffer of a UNIX socket has a fixed size.
        port = daemon.port
        stuck = Stream(self, str(daemon.directory / SOCKET))
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as reading:
            before = -1
            # Dropped events do not prove that the client is stuck: a short delay also drops events.
            while before != (unread := stuck.unread):
                before = unread
                left = MORE
                while left > 0:
                    left -= len(reading.recv(left))
        return daemon

    def test_while_it_logs(self) -> None:
        """A signal that arrives while the log file's lock is taken does not deadlock."""
        daemon = Daemon(
            self,
            "-n",
            "--logfile=twistd.log",
            "metrics-tcp",
            "--listen=0",
            "--no-host",
            modules=preamble(self, INTERRUPTED),
        )
        self.assert_ends_by(daemon, signal.SIGTERM)
        log = daemon.log
        self.assertLess(log.index("interrupted"), log.index("Received SIGTERM"))

    def assert_ends_by(self, daemon: Daemon, number: int) -> str:
        """Check that a signal ended the daemon, and that it removed its files."""
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (-number, ""), output)
        self.assertNotIn("Traceback", output)
        self.assertNotIn("Unhandled", output)
        self.assertFalse((daemon.directory / SOCKET).exists())
        self.assertFalse(daemon.pid_file.exists())
        return output

    def test_stuck_client(self) -> None:
        """A client that does not read does not prevent the daemon from ending."""
        daemon = self.daemon()
        daemon.process.send_signal(signal.SIGTERM)
        self.assert_ends_by(daemon, signal.SIGTERM)

    def test_twice(self) -> None:
        """
        A client that reads receives complete frames until the end; a second signal ends the wait
        for a client that does not read.
        """
        for first, second in (
            (signal.SIGINT, signal.SIGINT),
            (signal.SIGTERM, signal.SIGINT),
        ):
            daemon = self.daemon(patient=True)
            reading = iter(Viewer(self, daemon.port))
            next(reading)
            daemon.process.send_signal(first)
            daemon.wait_for(f"Received {first.name}, shutting down")
            # Reads to the end, and checks that the last frame is complete.
            for _ in reading:
                pass
            daemon.process.send_signal(second)
            output = self.assert_ends_by(daemon, first)
            self.assertEqual(output.count(f"Received {second.name} while stopping"), 1, output)

    def test_many_signals(self) -> None:
        """Many signals in quick succession stop the daemon cleanly."""
        daemon = self.daemon(patient=True)
        for number in (signal.SIGTERM, signal.SIGINT) * 20:
            os.kill(daemon.process.pid, number)
        status, output, errors = daemon.end()
        self.assertIn(status, (-signal.SIGTERM, -signal.SIGINT))
        self.assertEqual(errors, "")
        self.assertNotIn("Traceback", output)
        self.assertFalse((daemon.directory / SOCKET).exists())
        self.assertFalse(daemon.pid_file.exists())
