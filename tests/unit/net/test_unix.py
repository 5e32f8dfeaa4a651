"""
UNIX sockets: their mode, what a program that was killed left behind, and who can connect.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorUNIX
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import log_lines
from tests.loopback import LoopbackTestCase, SocketClient, reactor
from txmetrics_tcp import ListenError
from txmetrics_tcp._exporter import service as service_module
from txmetrics_tcp._net import exposure
from txmetrics_tcp._net.unix import make_way


class MakeWayTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Such a path is bounded to about a hundred bytes; trial's own are longer at times.
        self.path = os.path.relpath(self.mktemp())

    def bound(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(made.close)
        made.bind(self.path)
        return made

    def refused(self) -> str:
        error = self.assertRaises(CannotListenError, make_way, self.path)
        self.assertTrue(os.path.lexists(self.path))
        return str(error)

    def test_nothing(self) -> None:
        """Where there is no file, none is made or missed."""
        make_way(self.path)
        self.assertFalse(os.path.lexists(self.path))
        make_way("\0abstract")
        make_way("/no/such/directory/x.sock")

    def test_stale(self) -> None:
        self.bound().close()
        make_way(self.path)
        self.assertFalse(os.path.exists(self.path))

    def test_live(self) -> None:
        self.bound().listen()
        self.assertIn("A program listens there already", self.refused())

    def test_busy(self) -> None:
        """One whose queue is full listens as well."""
        self.bound().listen(0)
        others = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for other in others:
            self.addCleanup(other.close)
            other.setblocking(False)
            other.connect_ex(self.path)
        self.assertIn("A program listens there already", self.refused())

    def test_datagrams(self) -> None:
        """It is somebody's, though not of our kind."""
        self.bound(socket.SOCK_DGRAM)
        self.assertIn("There is a socket, and ", self.refused())

    def test_file(self) -> None:
        Path(self.path).write_text("dear")
        self.assertIn("There is a file that is no socket", self.refused())
        self.assertEqual(Path(self.path).read_text(), "dear")

    def test_directory(self) -> None:
        os.mkdir(self.path)
        self.assertIn("There is a file that is no socket", self.refused())

    def test_link(self) -> None:
        """Where it points to is not looked at: who makes it may mean somebody else's file."""
        self.bound().close()
        stale, self.path = self.path, os.path.relpath(self.mktemp())
        os.symlink(os.path.abspath(stale), self.path)
        self.assertIn("There is a file that is no socket", self.refused())
        self.assertTrue(os.path.exists(stale))


class ListenTests(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not IReactorUNIX.providedBy(reactor):
            self.skipTest("this reactor has no UNIX sockets")
        self.path = os.path.relpath(self.mktemp())
        # Where the suite runs may be a directory that nobody else enters.
        self.patch(exposure, "may_enter", lambda path, bits: True)
        self.logged = log_lines(self, service_module)

    async def read(self) -> None:
        """Be a client that reads what is there to be read at first."""
        clients = len(self.factory.protocols)
        connected = self.socket(socket.AF_UNIX)
        connected.connect(self.path)
        await self.factory.connections(clients + 1)
        await self.in_thread(SocketClient(connected).read_snapshot)

    async def test_mode(self) -> None:
        await self.exporter(endpoint=f"unix:{self.path}:mode=640")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)
        # Who may only read a socket file cannot connect.
        self.assertEqual(len(self.logged), 1)
        await self.read()

    async def test_group(self) -> None:
        await self.exporter(endpoint=f"unix:{self.path}:mode=660")
        [_, warning] = self.logged
        group = grp.getgrgid(os.stat(self.path).st_gid).gr_name
        self.assertEqual(
            warning, f"Every user of group {group} can read the metrics on unix:{self.path}"
        )

    async def test_everybody(self) -> None:
        """Twisted's own mode lets everybody in."""
        await self.exporter(endpoint=f"unix:{self.path}")
        self.assertTrue(self.logged[1].startswith("Every user of this machine can read "))

    async def test_stale(self) -> None:
        made = socket.socket(socket.AF_UNIX)
        made.bind(self.path)
        made.close()
        await self.exporter(endpoint=f"unix:{self.path}")
        await self.read()
        await self.service.stop()
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    async def test_live(self) -> None:
        """It is refused, and goes on as if nothing had been."""
        await self.exporter(endpoint=f"unix:{self.path}")
        first = self.factory, self.service
        with self.assertRaisesRegex(ListenError, "A program listens there already"):
            await self.exporter(endpoint=f"unix:{self.path}")
        self.factory, self.service = first
        await self.read()

    async def test_file(self) -> None:
        Path(self.path).write_text("dear")
        reason = f"^Couldn't listen on unix:{self.path}: There is a file that is no socket$"
        with self.assertRaisesRegex(ListenError, reason):
            await self.exporter(endpoint=f"unix:{self.path}")
        self.assertEqual(Path(self.path).read_text(), "dear")
