"""
The exporter that the environment asks for: values, names, stale sockets, and when it starts.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from shutil import rmtree
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from tests.recorders import ListRecorder
from txmetrics_tcp import EndpointError, ListenError, counter, set_global_recorder
from txmetrics_tcp._exporter import environment
from txmetrics_tcp._exporter.environment import (
    VARIABLE,
    Address,
    on_start,
    remove_stale_sockets,
    socket_name,
    start,
)
from txmetrics_tcp._instruments import facade
from txmetrics_tcp._net.unix import IN_USE
from txmetrics_tcp.testing import FakeReactor

NO_PROCESS = 2**22 + 1
"""A number that no process has: Linux gives numbers up to 2**22."""


class AddressTests(SynchronousTestCase):
    def test_endpoints(self) -> None:
        for value in ("5000", "127.0.0.1:5000", "unix:/run/x.sock", "no-directory"):
            self.assertEqual(Address.parse(value), Address(value, False))

    def test_directories(self) -> None:
        """An existing directory, and a path that ends with a slash; absolute from then on."""
        directory = self.mktemp()
        self.assertEqual(Address.parse(directory + "/").text, os.path.abspath(directory))
        self.assertFalse(Address.parse(directory).is_directory)
        os.mkdir(directory)
        self.assertEqual(Address.parse(directory), Address(os.path.abspath(directory), True))
        # A port, even if a directory has this name.
        self.patch(os.path, "isdir", lambda path: True)
        self.assertFalse(Address.parse("5000").is_directory)

    def test_port(self) -> None:
        """Endpoints are those of listen_address.  No plugins are loaded for ports and addresses."""
        self.patch(environment, "server_endpoint", lambda reactor, endpoint: endpoint)
        for value, endpoint in {
            "5000": ("127.0.0.1", 5000),
            "192.0.2.1:1": ("192.0.2.1", 1),
            "localhost:1": ("localhost", 1),
            "[::1]:1": ("::1", 1),
            "host:1": "host:1",
            "unix:/x": "unix:/x",
        }.items():
            self.assertEqual(Address.parse(value).endpoint(FakeReactor()), endpoint)

    def test_invalid(self) -> None:
        for value in ("no-directory", "70000", "/run/x.sock", "unix:", "::1"):
            with self.assertRaises(EndpointError):
                Address.parse(value).endpoint(FakeReactor())
        endpoint = Address.parse("5000").endpoint(FakeReactor())
        self.assertIsInstance(endpoint, TCP4ServerEndpoint)

    def test_directoryMade(self) -> None:
        """A missing directory is made, for its owner only.  An existing one keeps its mode."""
        directory = self.mktemp()
        address = Address.parse(f"{directory}/inner/")
        # The path of the test's directory may be too long for a socket.
        self.patch(environment, "MAX_PATH", 4096)
        endpoint: Any = address.endpoint(FakeReactor())
        self.assertEqual(os.stat(address.text).st_mode & 0o777, 0o700)
        self.assertEqual(endpoint._address, os.path.join(address.text, socket_name()))
        self.assertEqual(endpoint._mode, 0o600)
        os.chmod(address.text, 0o755)
        address.endpoint(FakeReactor())
        self.assertEqual(os.stat(address.text).st_mode & 0o777, 0o755)

    def test_longPath(self) -> None:
        directory = os.path.join(tempfile.mkdtemp(), "x" * 90)
        self.addCleanup(rmtree, os.path.dirname(directory))
        with self.assertRaisesRegex(EndpointError, "longer than 107 bytes"):
            Address.parse(directory + "/").endpoint(FakeReactor())


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for program, name in {
            "/usr/bin/gunicorn": "gunicorn",
            "app.py": "app",
            "/site-packages/celery/__main__.py": "celery",
            "a b/c d:é.py": "c_d__",
            "x" * 300: "x" * 40,
            "/apps/shop/": "shop",
            "-c": "python",
            "": "python",
            "..": "python",
        }.items():
            self.patch(sys, "argv", [program])
            self.assertEqual(socket_name(), f"{name}-{os.getpid()}.sock")
        self.patch(sys, "argv", [])
        self.assertEqual(socket_name(), f"python-{os.getpid()}.sock")

    def test_module(self) -> None:
        """With C{python -m}, while the interpreter starts."""
        for command, name in {
            ("python", "-X", "dev", "-m", "shop.web", "x"): "shop.web",
            ("python", "-mshop", "x"): "shop",
            ("x",): "python",
        }.items():
            self.patch(sys, "orig_argv", [*command])
            self.patch(sys, "argv", ["-m", "x"])
            self.assertEqual(socket_name(), f"{name}-{os.getpid()}.sock")


class StaleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(rmtree, self.directory)

    def socket(self, name: str, listen: bool = False) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(os.path.join(self.directory, name))
        if listen:
            server.listen()
        return server

    def test_removed(self) -> None:
        self.socket(f"app-{NO_PROCESS}.sock").close()
        self.socket(f"other-app-{NO_PROCESS}.sock").close()
        # Of this process, before it executed another program.
        self.socket(f"app-{os.getpid()}.sock").close()
        remove_stale_sockets(self.directory)
        self.assertEqual(os.listdir(self.directory), [])

    def test_kept(self) -> None:
        """Sockets in use, those of processes that exist, and all other files are kept."""
        self.socket(f"listening-{NO_PROCESS}.sock", listen=True)
        self.socket(f"binding-{os.getppid()}.sock")
        self.socket("app-0.sock").close()
        self.socket(f"app-{NO_PROCESS}").close()
        self.socket(f"{NO_PROCESS}.sock").close()
        Path(self.directory, f"file-{NO_PROCESS}.sock").touch()
        os.mkdir(os.path.join(self.directory, f"directory-{NO_PROCESS}.sock"))
        os.symlink("missing", os.path.join(self.directory, f"link-{NO_PROCESS}.sock"))
        before = sorted(os.listdir(self.directory))
        remove_stale_sockets(self.directory)
        self.assertEqual(sorted(os.listdir(self.directory)), before)

    def test_otherUser(self) -> None:
        """A process of another user exists."""

        def kill(process: int, number: int) -> None:
            raise PermissionError

        self.socket(f"app-{NO_PROCESS}.sock").close()
        self.patch(os, "kill", kill)
        remove_stale_sockets(self.directory)
        self.assertEqual(len(os.listdir(self.directory)), 1)

    def test_unreadable(self) -> None:
        remove_stale_sockets(os.path.join(self.directory, "missing"))


class InUseTests(SynchronousTestCase):
    def test_inUse(self) -> None:
        """The exporter tries again only if the address is in use."""
        for reason, in_use in {
            OSError(98, "Address already in use"): True,
            OSError(13, "Permission denied"): False,
            IN_USE: True,
            "a file that is not a socket already exists": False,
        }.items():
            error = ListenError("x")
            error.__cause__ = CannotListenError(None, b"/x", reason)
            self.assertIs(environment._is_in_use(error), in_use, reason)
        self.assertFalse(environment._is_in_use(ListenError("x")))


class OnStartTests(SynchronousTestCase):
    def test_once(self) -> None:
        """
        A function is called once, also if it is registered while the exporter starts, and by
        another such function.
        """
        reactor = FakeReactor()
        self.patch(environment, "private_reactor", lambda: reactor)
        self.patch(environment, "_state", environment._State())
        exporter = environment._state.exporter = environment._Exporter(Address("5000", False))
        called: list[str] = []

        def nested() -> None:
            called.append("first")
            on_start(lambda *arguments: called.append("nested"))

        on_start(lambda *arguments: nested())
        exporter.call_back()
        on_start(lambda *arguments: called.append("last"))
        exporter.call_back()
        reactor.advance(0)
        self.assertEqual(called, ["first", "nested", "last"])


class FakeExporter:
    """Replaces the exporter that listens."""

    def __init__(self, address: Address) -> None:
        made.append(address.text)

    def start(self) -> None:
        # Its own metrics and callbacks make handles.
        counter("within_total")

    def give_up(self) -> None:
        made.append("given up")


made: list[str] = []


class StartTests(SynchronousTestCase):
    """
    What starts the exporter.
    """

    def setUp(self) -> None:
        made.clear()
        self.patch(facade, "_program", facade._Program())
        self.patch(environment, "_state", environment._State())
        self.patch(environment, "_Exporter", FakeExporter)
        self.warnings: list[str] = []
        self.patch(
            environment._log, "warning", lambda text, *words: self.warnings.append(text % words)
        )
        self.set("5000")
        facade.call_before_handles(start)

    def set(self, value: str) -> None:
        self.patch(os, "environ", {VARIABLE: value})

    def test_firstHandle(self) -> None:
        """The first handle starts it, once."""
        self.assertEqual(made, [])
        counter("c")
        counter("d")
        self.assertEqual(made, ["5000"])
        self.assertIsNone(facade._program.before_handle)

    def test_unset(self) -> None:
        for value in ("", " "):
            self.set(value)
            counter("c", value=value)
        self.assertEqual((made, self.warnings), ([], []))

    def test_installed(self) -> None:
        """The program has installed a recorder before."""
        set_global_recorder(ListRecorder())
        counter("c")
        self.assertEqual(made, [])

    def test_failures(self) -> None:
        """A failure is logged, and the program continues without an exporter."""

        def fail(exporter: FakeExporter) -> None:
            raise EndpointError("no such endpoint")

        self.patch(FakeExporter, "start", fail)
        counter("c").increment()
        self.assertEqual(made, ["5000", "given up"])
        self.assertEqual(self.warnings, [f"{VARIABLE}: no metrics are streamed: no such endpoint"])
        counter("d")
        self.assertEqual(len(made), 2)

    def test_anotherThread(self) -> None:
        """A thread that makes a handle meanwhile does not wait indefinitely."""
        self.patch(environment, "START_TIMEOUT", 0.001)
        lock = environment._state.lock
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        try:
            counter("c")
        finally:
            done.set()
            thread.join()
        self.assertEqual(made, [])
        counter("d")
        self.assertEqual(made, ["5000"])
