"""
Access control of ``twistd metrics-tcp`` as a process: TLS, networks, limits, SIGHUP, UNIX sockets.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import sys
from pathlib import Path
from unittest import skipIf

from tests.authority import Authority, no_tls
from tests.daemon import TWIST, TWISTD, Daemon, DaemonTestCase, Viewer, connect, preamble
from txmetrics_tcp import Status

LONG_HANDSHAKE_LIMIT = """
from txmetrics_tcp._net import connection
connection.HANDSHAKE_LIMIT = 1000.0
"""
"""Makes the handshake timeout far longer than a test."""


class AccessTestCase(DaemonTestCase):
    def daemon(self, *arguments: str, modules: Path | None = None) -> Daemon:
        common = ("-n", "metrics-tcp", "--no-host", "--interval=0.1")
        return Daemon(self, *common, *arguments, modules=modules)

    def assert_streams(self, port: int) -> None:
        self.assertIsInstance(next(iter(Viewer(self, port))), Status)

    def assert_rejected(self, port: int) -> None:
        """Check that a client is disconnected, perhaps so soon that connecting fails."""
        self.assertRaises((ConnectionError, StopIteration), lambda: next(iter(Viewer(self, port))))


class HangUpTests(AccessTestCase):
    def test_goes_on(self) -> None:
        """Without certificates, the daemon goes on after SIGHUP, and clients stay connected."""
        for runner in ("twistd", "twist"):
            if runner == "twistd":
                daemon = self.daemon("--listen=0")
            else:
                daemon = Daemon(self, "metrics-tcp", "--no-host", "--listen=0", runner=TWIST)
            viewer = iter(Viewer(self, daemon.port))
            next(viewer)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for("Received SIGHUP: nothing to reload")
            self.assert_streams(daemon.port)
            daemon.process.terminate()
            for _ in viewer:
                pass
            self.assert_stopped(daemon, signal.SIGTERM)

    def test_socket_file(self) -> None:
        """The daemon removes its socket file."""
        daemon = self.daemon("--listen=unix:x.sock")
        daemon.wait_for("Streaming metrics on")
        with socket.socket(socket.AF_UNIX) as client:
            # Relative, since paths of sockets are short.
            client.connect(os.path.relpath(daemon.directory / "x.sock"))
            # The reactor runs, and has installed its signal handlers.
            self.assertTrue(client.recv(1))
        daemon.process.terminate()
        self.assert_stopped(daemon, signal.SIGTERM)
        self.assertEqual(os.listdir(daemon.directory), [])

    @skipIf(no_tls, no_tls)
    def test_reloads(self) -> None:
        """With certificates, SIGHUP reloads them; connected clients stay connected."""
        authority = Authority(self)
        own, new = authority.issue(), authority.issue()
        daemon = self.daemon(
            "--listen=0",
            f"--tls-key={own.key}",
            f"--tls-cert={own.cert}",
            modules=preamble(self, LONG_HANDSHAKE_LIMIT),
        )
        context = ssl.create_default_context(cafile=authority.file)

        def handshake() -> ssl.SSLSocket:
            plain = connect(self, daemon.port)
            wrapped = context.wrap_socket(plain, server_hostname="127.0.0.1")
            self.addCleanup(wrapped.close)
            return wrapped

        before = handshake()
        shutil.copy(new.key, own.key)
        shutil.copy(new.cert, own.cert)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("Reloaded key and certificates")
        after = handshake()
        self.assertNotEqual(before.getpeercert(True), after.getpeercert(True))
        Path(own.key).write_text("nonsense")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(r"keeping the previous ones: no private key in PEM format in \S+")
        later = handshake()
        self.assertEqual(later.getpeercert(True), after.getpeercert(True))
        for wrapped in (before, after, later):
            self.assertTrue(wrapped.recv(1000))
        daemon.process.terminate()
        self.assert_stopped(daemon, signal.SIGTERM)

    @skipIf(no_tls, no_tls)
    def test_reloads_in_background(self) -> None:
        """Relative paths are reloaded, although a daemon changes its directory."""
        own = Authority(self).issue()
        # Starts in the directory of the files, and changes the directory after reading them.
        start = (
            "import os, sys; here = os.getcwd();"
            " sys.argv[1:1] = ['--rundir=' + here, '--pidfile=' + here + '/twistd.pid',"
            f" '--logfile=' + here + '/twistd.log']; os.chdir({os.path.dirname(own.key)!r})"
        )
        daemon = Daemon(
            self,
            "metrics-tcp",
            "--listen=0",
            f"--tls-key={os.path.basename(own.key)}",
            f"--tls-cert={os.path.basename(own.cert)}",
            runner=[sys.executable, "-c", f"{start}; {TWISTD[-1]}"],
            modules=preamble(self, LONG_HANDSHAKE_LIMIT),
        )
        self.assertEqual(daemon.end(), (0, "", ""))
        # An answer shows that the reactor runs.
        plain = connect(self, daemon.logged_port)
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        plain.recv(1)
        pid = daemon.pid
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)
        self.assertTrue(daemon.wait_until_gone())
        self.assertIn("Reloaded key and certificates", daemon.log)
        self.assertNotIn("Traceback", daemon.log)


class StartTests(AccessTestCase):
    def test_without_extra(self) -> None:
        modules = Path(self.mktemp()).resolve()
        modules.mkdir()
        (modules / "OpenSSL").mkdir()
        (modules / "OpenSSL" / "__init__.py").write_text("raise ImportError('as if not there')\n")
        arguments = ("-n", "metrics-tcp", "--listen=0", "--tls-key=x", "--tls-cert=x")
        status, output, errors = Daemon(self, *arguments, modules=modules).end()
        self.assertEqual((status, output, errors.count("\n")), (1, "", 1), errors)
        self.assertIn("pip install 'txmetrics-tcp[tls]'", errors)

    def test_limits(self) -> None:
        daemon = self.daemon("--listen=0", "--max-clients=1", "--allow=127.0.0.0/8")
        viewer = iter(Viewer(self, daemon.port))
        next(viewer)
        self.assert_rejected(daemon.port)
        daemon.wait_for(r": client limit reached \(1\)")

    def test_not_allowed(self) -> None:
        """The log names the allowed networks and the rejected client."""
        daemon = self.daemon("--listen=0.0.0.0:0", "--allow=192.0.2.0/24")
        daemon.wait_for(
            r"Any client in 192\.0\.2\.0/24 with network access to this machine can read"
        )
        self.assert_rejected(daemon.port)
        daemon.wait_for(": address not allowed")

    def test_killed(self) -> None:
        """The socket of a killed daemon can be replaced; the socket of a running one cannot."""
        path = Path(self.mktemp()).name
        directory = f"unix:/tmp/{path}-{os.getpid()}.sock"
        self.addCleanup(lambda: Path(directory[5:]).unlink(missing_ok=True))
        first = self.daemon(f"--listen={directory}")
        first.wait_for("Streaming metrics on")
        status, _, errors = self.daemon(f"--listen={directory}").end()
        self.assertEqual(status, 1)
        self.assertIn("another program is listening on this socket", errors)
        first.process.kill()
        first.end()
        self.assertTrue(Path(directory[5:]).is_socket())
        self.daemon(f"--listen={directory}").wait_for("Streaming metrics on")
