"""
The daemon as a process: in the background, and run by ``twist``.
"""

from __future__ import annotations

import signal

from tests.daemon import IN_USE, PROCESS, TWIST, Daemon, DaemonTestCase, occupied_port


class BackgroundTests(DaemonTestCase):
    def test_port_in_use(self) -> None:
        """The log has the reason once."""
        port = str(occupied_port(self))
        daemon = Daemon(self, "metrics-tcp", "--listen", port)
        self.assertEqual(daemon.end()[0], 1)
        self.assertTrue(daemon.wait_until_gone())
        self.assertFalse(daemon.pid_file.exists())
        [line] = [line for line in daemon.log.splitlines() if IN_USE in line]
        self.assertIn(port, line)
        self.assertNotIn("Traceback", daemon.log)


class TwistTests(DaemonTestCase):
    """``twist metrics-tcp``, which never daemonizes"""

    def test_streams(self) -> None:
        daemon = Daemon(self, "metrics-tcp", "--listen=0", "--interval=0.1", runner=TWIST)
        self.see(daemon.port, PROCESS)
        daemon.process.terminate()
        self.assert_stopped(daemon, signal.SIGTERM)

    def test_port_in_use(self) -> None:
        port = str(occupied_port(self))
        daemon = Daemon(self, "metrics-tcp", "--listen", port, runner=TWIST)
        self.assert_one_line(daemon, port, IN_USE)
