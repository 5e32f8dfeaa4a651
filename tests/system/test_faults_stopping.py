"""
The daemon is stopped: under load, with clients that take nothing, and more than once.
"""

from __future__ import annotations

import os
import signal
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import LIMIT, Daemon, Viewer, preamble
from tests.programs import Stream

LOAD = ("--interval=0.001", "--buffer-size=100")
"""So many events that a client which takes nothing is stuck within a second or two."""

MORE = 100_000
"""
How many bytes another client reads while one that is not stuck would be sent some: there is less
room for the latter in its transport.
"""

SOCKET = "s"

PATIENT = """
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
    # As it is, but for the signal.
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
        Run one with a client that takes nothing and is stuck, and another that reads.

        @param patient: whether it gives clients far longer at the end than a test takes.
        """
        modules = preamble(self, PATIENT) if patient else None
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
        # What the kernel keeps for a UNIX socket has a bound that does not grow.
        port = daemon.port
        stuck = Stream(self, str(daemon.directory / SOCKET))
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as reading:
            before = -1
            # That events are lost is not enough: so they are too when it is late for once.
            while before != (unread := stuck.unread):
                before = unread
                left = MORE
                while left > 0:
                    left -= len(reading.recv(left))
        return daemon

    def test_while_it_logs(self) -> None:
        """A signal while it takes the log file's lock: none waits for itself."""
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
        said = daemon.log
        self.assertLess(said.index("interrupted"), said.index("Received SIGTERM"))

    def assert_ends_by(self, daemon: Daemon, number: int) -> str:
        """It ends as the signal's victim, and nothing of it is left behind."""
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (-number, ""), output)
        self.assertNotIn("Traceback", output)
        self.assertNotIn("Unhandled", output)
        self.assertFalse((daemon.directory / SOCKET).exists())
        self.assertFalse(daemon.pid_file.exists())
        return output

    def test_stuck_client(self) -> None:
        """A client that takes nothing does not keep the daemon from ending."""
        daemon = self.daemon()
        daemon.process.send_signal(signal.SIGTERM)
        self.assert_ends_by(daemon, signal.SIGTERM)

    def test_twice(self) -> None:
        """
        A client that reads gets whole frames to the end; a second signal ends the waiting for one
        that takes nothing.
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
            # To the end of the stream, which is that of a whole frame.
            for _ in reading:
                pass
            daemon.process.send_signal(second)
            output = self.assert_ends_by(daemon, first)
            self.assertEqual(output.count(f"Received {second.name} as well"), 1, output)

    def test_at_once_and_many(self) -> None:
        """However many come, and however fast."""
        daemon = self.daemon(patient=True)
        for number in (signal.SIGTERM, signal.SIGINT) * 20:
            os.kill(daemon.process.pid, number)
        status, output, errors = daemon.end()
        self.assertIn(status, (-signal.SIGTERM, -signal.SIGINT))
        self.assertEqual(errors, "")
        self.assertNotIn("Traceback", output)
        self.assertFalse((daemon.directory / SOCKET).exists())
        self.assertFalse(daemon.pid_file.exists())
