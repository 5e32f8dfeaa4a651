"""
``twistd metrics-tcp``, as a process: what it streams, how it ends, and what it says when it cannot
start.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import TWIST, Daemon, Viewer, occupied_port
from tests.programs import Stream
from txmetrics_tcp import Metadata, Metric, MetricKind

IN_USE = os.strerror(errno.EADDRINUSE)

STOP_LIMIT = 15.0
"""
How long the daemon may take to end, in seconds, on a machine that is busy with other things.  What
it would wait for in vain would keep it for ever.
"""

PROCESS = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_threads",
    "python_gc_collections_total",
    "reactor_lag_seconds",
}

HOST = {
    "host_cpu_seconds_total",
    "host_cpu_usage_percent",
    "host_memory_available_bytes",
    "host_network_receive_bytes_total",
}


class DaemonTestCase(SynchronousTestCase):
    def see(self, port: int, names: set[str]) -> dict[str, Metric]:
        """
        Be a viewer until an event of each of these metrics has come, every one of them
        described before.
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

    def assert_stops(self, daemon: Daemon, pid: int) -> None:
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        self.assertTrue(daemon.has_gone())
        self.assertLess(time.monotonic() - began, STOP_LIMIT)
        self.assertFalse(daemon.pid_file.exists())

    def assert_one_line(self, daemon: Daemon, *words: str) -> None:
        """It has ended with an error, and one line on standard error that has these words."""
        status, output, errors = daemon.end()
        self.assertEqual(status, 1)
        self.assertEqual(errors.count("\n"), 1, errors)
        for word in words:
            self.assertIn(word, errors)
            self.assertNotIn(word, output)
        self.assertNotIn("Traceback", output)
        self.assertTrue(daemon.has_gone())
        self.assertFalse(daemon.pid_file.exists())


class ForegroundTests(DaemonTestCase):
    """``twistd -n metrics-tcp``"""

    def test_process(self) -> None:
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--interval=0.1", "--no-host")
        seen = self.see(daemon.port, PROCESS)
        self.assertGreater(seen["process_resident_memory_bytes"].value, 1_000_000)
        self.assertFalse([name for name in seen if name.startswith("host_")])

    def test_host(self) -> None:
        if find_spec("psutil") is None:
            self.skipTest("psutil is not installed")
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--interval=0.1", "--no-process")
        seen = self.see(daemon.port, HOST)
        self.assertGreater(seen["host_memory_available_bytes"].value, 1_000_000)
        self.assertFalse(PROCESS & seen.keys())

    def test_without_psutil(self) -> None:
        """One line says how to get metrics of the machine; all else is there."""
        modules = Path(self.mktemp()).resolve()
        modules.mkdir()
        (modules / "psutil.py").write_text("raise ImportError('as if it were not there')\n")
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--interval=0.1", modules=modules)
        seen = self.see(daemon.port, {"process_cpu_seconds_total", "reactor_lag_seconds"})
        self.assertFalse([name for name in seen if name.startswith("host_")])
        daemon.process.terminate()
        _, output, errors = daemon.end()
        self.assertEqual(output.count("pip install 'txmetrics-tcp[host]'"), 1, output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(errors, "")

    def test_sigterm(self) -> None:
        """
        It ends soon and as twistd does, also if a client reads nothing; a client that does has
        received whole frames to the end.
        """
        options = ("--listen=0", "--listen=unix:s", "--interval=0.001", "--buffer-size=100")
        daemon = Daemon(self, "-n", "metrics-tcp", *options)
        daemon.wait_for("Streaming metrics on")
        # The kernel takes less for it than over TCP.
        Stream(self, str(daemon.directory / "s"))
        reading = Viewer(self, daemon.port)
        read: list[int] = []
        reader = Thread(target=lambda: read.append(sum(1 for _ in reading)))
        reader.start()
        self.addCleanup(reader.join)
        # That of the other; this one reads on.
        daemon.wait_for("Events are being lost")
        self.assert_stops(daemon, daemon.process.pid)
        self.assertEqual(daemon.end()[0], -signal.SIGTERM)
        reader.join()
        self.assertGreater(sum(read), 1000)

    def test_sigint(self) -> None:
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--interval=0.1")
        self.see(daemon.port, {"reactor_lag_seconds"})
        daemon.process.send_signal(signal.SIGINT)
        status, output, errors = daemon.end()
        self.assertEqual((status, errors), (-signal.SIGINT, ""))
        self.assertNotIn("Traceback", output)

    def test_several_places(self) -> None:
        socket = Path(self.mktemp()).name
        daemon = Daemon(
            self, "-n", "metrics-tcp", "--listen=0", f"--listen=unix:{socket}", "--interval=0.1"
        )
        self.see(daemon.port, {"reactor_lag_seconds"})
        self.assertTrue((daemon.directory / socket).is_socket())

    def test_port_in_use(self) -> None:
        port = str(occupied_port(self))
        self.assert_one_line(Daemon(self, "-n", "metrics-tcp", "--listen", port), port, IN_USE)

    def test_one_port_in_use(self) -> None:
        """One of two places is not enough."""
        port = str(occupied_port(self))
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--listen", port)
        self.assert_one_line(daemon, IN_USE)

    def test_port_in_use_with_log_file(self) -> None:
        """Who reads the log later must find the reason there, too."""
        port = str(occupied_port(self))
        daemon = Daemon(self, "-n", "-l", "twistd.log", "metrics-tcp", "--listen", port)
        self.assert_one_line(daemon, port, IN_USE)
        self.assertEqual(daemon.log.count(IN_USE), 1, daemon.log)

    def test_bad_options(self) -> None:
        for option, value in (
            ("--listen", "no:such:endpoint"),
            ("--listen", "127.0.0.1:65536"),
            ("--buffer-size", "0"),
            ("--interval", "soon"),
            ("--interval", "-1"),
        ):
            daemon = Daemon(self, "-n", "metrics-tcp", f"{option}={value}")
            self.assert_one_line(daemon, option, repr(value))
            self.assertEqual(daemon.end()[1], "")

    def test_help(self) -> None:
        status, output, errors = Daemon(self, "metrics-tcp", "--help").end()
        self.assertEqual((status, errors), (0, ""))
        for option in ("--listen=", "--buffer-size=", "--interval=", "--no-process", "--no-host"):
            self.assertIn(option, output)


class BackgroundTests(DaemonTestCase):
    """``twistd metrics-tcp``"""

    def test_streams(self) -> None:
        daemon = Daemon(self, "metrics-tcp", "--listen=0", "--interval=0.1", "--no-host")
        self.assertEqual(daemon.end(), (0, "", ""))
        seen = self.see(daemon.logged_port, PROCESS)
        # Of the daemon, and not of the process that made the services and then forked.
        self.assertEqual(seen["process_threads"].value, 1)
        self.assertNotIn("Traceback", daemon.log)
        self.assert_stops(daemon, daemon.pid)

    def test_port_in_use(self) -> None:
        port = str(occupied_port(self))
        daemon = Daemon(self, "metrics-tcp", "--listen", port)
        self.assertEqual(daemon.end()[0], 1)
        self.assertTrue(daemon.has_gone())
        self.assertFalse(daemon.pid_file.exists())
        [line] = [line for line in daemon.log.splitlines() if IN_USE in line]
        self.assertIn(port, line)
        self.assertNotIn("Traceback", daemon.log)

    def test_bad_option(self) -> None:
        daemon = Daemon(self, "metrics-tcp", "--interval=0")
        self.assert_one_line(daemon, "--interval", "'0'")


class TwistTests(DaemonTestCase):
    """``twist metrics-tcp``, the younger runner that never daemonizes"""

    def test_streams(self) -> None:
        daemon = Daemon(self, "metrics-tcp", "--listen=0", "--interval=0.1", runner=TWIST)
        self.see(daemon.port, PROCESS)
        self.assert_stops(daemon, daemon.process.pid)

    def test_port_in_use(self) -> None:
        port = str(occupied_port(self))
        daemon = Daemon(self, "metrics-tcp", "--listen", port, runner=TWIST)
        self.assert_one_line(daemon, port, IN_USE)
