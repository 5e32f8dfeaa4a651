"""
``twistd metrics-tcp`` as a process: its stream, its end, and its errors at startup.
"""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec

from tests.daemon import IN_USE, PROCESS, Daemon, DaemonTestCase, Viewer, occupied_port

HOST = {
    "host_cpu_seconds_total",
    "host_cpu_usage_percent",
    "host_memory_available_bytes",
    "host_network_receive_bytes_total",
}


class ForegroundTests(DaemonTestCase):
    """``twistd -n metrics-tcp``"""

    def daemon(self, *options: str) -> Daemon:
        return Daemon(self, "-n", "metrics-tcp", "--interval=0.1", *options)

    def test_streams(self) -> None:
        """The daemon streams metrics of its process and the machine on two ports, until Ctrl-C."""
        host = HOST if find_spec("psutil") else set()
        daemon = self.daemon("--listen=unix:s", "--listen=0")
        seen = self.see(daemon.port, PROCESS | host)
        self.assertGreater(seen["process_resident_memory_bytes"].value, 1_000_000)
        self.assertTrue((daemon.directory / "s").is_socket())
        daemon.process.send_signal(signal.SIGINT)
        self.assert_stopped(daemon, signal.SIGINT)
        self.assertFalse((daemon.directory / "s").exists())

    def test_sigterm(self) -> None:
        """SIGTERM ends the daemon; a client receives complete frames until the end."""
        daemon = self.daemon("--listen=0")
        reading = iter(Viewer(self, daemon.port))
        next(reading)
        daemon.process.terminate()
        # Reads to the end, and checks that the last frame is complete.
        for _ in reading:
            pass
        self.assert_stopped(daemon, signal.SIGTERM)

    def test_port_in_use(self) -> None:
        port = str(occupied_port(self))
        self.assert_one_line(self.daemon("--listen", port), port, IN_USE)

    def test_bad_option(self) -> None:
        self.assert_one_line(self.daemon("--interval=soon"), "--interval", "'soon'")


class BackgroundTests(DaemonTestCase):
    """``twistd metrics-tcp``"""

    def test_streams(self) -> None:
        daemon = Daemon(self, "metrics-tcp", "--listen=0", "--interval=0.1", "--no-host")
        self.assertEqual(daemon.end(), (0, "", ""))
        seen = self.see(daemon.logged_port, PROCESS)
        # Measured in the daemon, not in the process that made the services and then forked.
        self.assertEqual(seen["process_threads"].value, 1)
        self.assertNotIn("Traceback", daemon.log)
        os.kill(daemon.pid, signal.SIGTERM)
        self.assertTrue(daemon.wait_until_gone())
        self.assertFalse(daemon.pid_file.exists())
