"""
UNIX sockets: their mode, stale socket files, and the clients that can connect.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet.endpoints import AdoptedStreamServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorUNIX, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import log_lines
from tests.loopback import LoopbackTestCase, SocketClient, reactor
from txmetrics_tcp import ListenError, MetricsFactory, MetricsService
from txmetrics_tcp._net import exposure, internals, listening
from txmetrics_tcp._net import unix as unix_module
from txmetrics_tcp._net.unix import remove_stale_socket


class RemoveStaleSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Relative, since the path of a socket is limited to about a hundred bytes.
        self.path = os.path.relpath(self.mktemp())

    def bound(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(made.close)
        made.bind(self.path)
        return made

    def error(self) -> str:
        error = self.assertRaises(CannotListenError, remove_stale_socket, self.path)
        self.assertTrue(os.path.lexists(self.path))
        return str(error)

    def test_noFile(self) -> None:
        """A missing file is no error, and is not created."""
        remove_stale_socket(self.path)
        self.assertFalse(os.path.lexists(self.path))
        remove_stale_socket("\0abstract")
        remove_stale_socket("/no/such/directory/x.sock")

    def test_stale(self) -> None:
        self.bound().close()
        remove_stale_socket(self.path)
        self.assertFalse(os.path.exists(self.path))

    def test_staleDatagrams(self) -> None:
        """Whether a socket of datagrams is in use shows only with another one."""
        made = self.bound(socket.SOCK_DGRAM)
        error = self.assertRaises(
            CannotListenError, remove_stale_socket, self.path, socket.SOCK_DGRAM
        )
        self.assertIn(unix_module.IN_USE, str(error))
        made.close()
        remove_stale_socket(self.path, socket.SOCK_DGRAM)
        self.assertFalse(os.path.exists(self.path))

    def test_inUse(self) -> None:
        self.bound().listen()
        self.assertIn("another program is listening on this socket", self.error())

    def test_fullQueue(self) -> None:
        """A socket with a full queue of connections is in use."""
        self.bound().listen(0)
        others = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for other in others:
            self.addCleanup(other.close)
            other.setblocking(False)
            other.connect_ex(self.path)
        self.assertIn("another program is listening on this socket", self.error())

    def test_replacedMeanwhile(self) -> None:
        """A socket that replaces a stale one while it is probed is not removed."""
        self.bound().close()

        class Probe(socket.socket):
            def connect(probe, address: Any) -> None:
                try:
                    super().connect(address)
                finally:
                    # The previous file stays, so that its inode is not used again.
                    os.rename(self.path, f"{self.path}.before")
                    self.bound().listen()

        self.patch(unix_module, "socket", SimpleNamespace(AF_UNIX=socket.AF_UNIX, socket=Probe))
        remove_stale_socket(self.path)
        self.assertTrue(os.path.exists(self.path))

    def test_datagrams(self) -> None:
        """A datagram socket is not removed."""
        self.bound(socket.SOCK_DGRAM)
        self.assertIn("a socket already exists, but connecting to it failed: ", self.error())

    def test_file(self) -> None:
        Path(self.path).write_text("dear")
        self.assertIn("a file that is not a socket already exists", self.error())
        self.assertEqual(Path(self.path).read_text(), "dear")

    def test_directory(self) -> None:
        os.mkdir(self.path)
        self.assertIn("a file that is not a socket already exists", self.error())

    def test_link(self) -> None:
        """A symbolic link is not followed, since it may point to a file of another user."""
        self.bound().close()
        stale, self.path = self.path, os.path.relpath(self.mktemp())
        os.symlink(os.path.abspath(stale), self.path)
        self.assertIn("a file that is not a socket already exists", self.error())
        self.assertTrue(os.path.exists(stale))


class UnixTestCase(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not IReactorUNIX.providedBy(reactor):
            self.skipTest("this reactor has no UNIX sockets")
        self.path = os.path.relpath(self.mktemp())
        # Other users may have no access to the directory that the suite runs in.
        self.patch(exposure, "may_enter", lambda path, bits: True)
        self.logged = log_lines(self, listening)

    async def read(self) -> None:
        """Connect a client, and read the snapshot."""
        clients = len(self.factory.protocols)
        connected = self.socket(socket.AF_UNIX)
        connected.connect(self.path)
        await self.factory.connections(clients + 1)
        await self.in_thread(SocketClient(connected).read_snapshot)


class ListenTests(UnixTestCase):
    async def test_mode(self) -> None:
        await self.exporter(endpoint=f"unix:{self.path}:mode=640")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)
        # Read permission for the group is not enough to connect.
        self.assertEqual(len(self.logged), 1)
        await self.read()

    async def test_group(self) -> None:
        await self.exporter(endpoint=f"unix:{self.path}:mode=660")
        [_, warning] = self.logged
        group = grp.getgrgid(os.stat(self.path).st_gid).gr_name
        self.assertEqual(
            warning, f"Any user in group {group} can read the metrics on unix:{self.path}"
        )

    async def test_allUsers(self) -> None:
        """Twisted's default mode allows all users to connect."""
        await self.exporter(endpoint=f"unix:{self.path}")
        self.assertTrue(self.logged[1].startswith("Any user of this machine can read "))

    async def test_stale(self) -> None:
        made = socket.socket(socket.AF_UNIX)
        made.bind(self.path)
        made.close()
        await self.exporter(endpoint=f"unix:{self.path}")
        await self.read()
        await self.service.stop()
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    async def test_inUse(self) -> None:
        """A second exporter cannot listen on the same path, and the first is not affected."""
        await self.exporter(endpoint=f"unix:{self.path}")
        first = self.factory, self.service
        with self.assertRaisesRegex(ListenError, "another program is listening on this socket"):
            await self.exporter(endpoint=f"unix:{self.path}")
        self.factory, self.service = first
        await self.read()

    async def test_file(self) -> None:
        Path(self.path).write_text("dear")
        reason = "a file that is not a socket already exists"
        with self.assertRaisesRegex(ListenError, f"unix:{self.path}: {reason}$"):
            await self.exporter(endpoint=f"unix:{self.path}")
        self.assertEqual(Path(self.path).read_text(), "dear")


class RemoveTests(UnixTestCase):
    """
    A server that stops removes its socket file, and no other file.
    """

    def setUp(self) -> None:
        super().setUp()
        self.warned = log_lines(self, internals)

    async def test_replacedByNext(self) -> None:
        """The socket of the next instance stays, and serves."""
        await self.exporter(endpoint=f"unix:{self.path}")
        first = self.service
        os.unlink(self.path)
        await self.exporter(endpoint=f"unix:{self.path}")
        await first.stop()
        await self.read()
        await self.service.stop()
        self.assertFalse(os.path.exists(self.path))

    async def test_replacedByFile(self) -> None:
        await self.exporter(endpoint=f"unix:{self.path}")
        os.unlink(self.path)
        Path(self.path).write_text("dear")
        await self.service.stop()
        self.assertEqual(Path(self.path).read_text(), "dear")

    async def test_moved(self) -> None:
        """A port whose file was moved or removed is closed."""
        await self.exporter(endpoint=f"unix:{self.path}")
        moved = f"{self.path}.moved"
        os.rename(self.path, moved)
        await self.service.stop()
        with self.assertRaises(ConnectionRefusedError):
            self.socket(socket.AF_UNIX).connect(moved)
        self.assertEqual(self.warned, [])

    async def test_notPermitted(self) -> None:
        """A port whose file cannot be removed, as after C{twistd --uid}, is closed."""

        def refuse(path: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        await self.exporter(endpoint=f"unix:{self.path}")
        with mock.patch.object(os, "unlink", refuse):
            await self.service.stop()
        with self.assertRaises(ConnectionRefusedError):
            self.socket(socket.AF_UNIX).connect(self.path)
        self.assertEqual(
            self.warned,
            [f"Cannot remove the socket {os.path.abspath(self.path)}: Permission denied"],
        )

    async def test_otherDirectory(self) -> None:
        """A relative path is that of the directory in which the server began to listen."""
        await self.exporter(endpoint=f"unix:{self.path}")
        path, before = os.path.abspath(self.path), os.getcwd()
        other = os.path.abspath(self.mktemp())
        os.makedirs(os.path.dirname(os.path.join(other, self.path)))
        os.chdir(other)
        try:
            Path(self.path).write_text("dear")
            await self.service.stop()
            self.assertEqual(Path(self.path).read_text(), "dear")
        finally:
            os.chdir(before)
        self.assertFalse(os.path.exists(path))

    async def listen(self, endpoint: IStreamServerEndpoint) -> MetricsService:
        service = MetricsService(MetricsFactory(reactor), [endpoint])
        await service.listen()
        return service

    async def test_adopted(self) -> None:
        """A socket that another process made, such as systemd, stays."""
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(self.path)
            made.listen()
            # The endpoint closes its descriptor.
            given = os.dup(made.fileno())
            endpoint = AdoptedStreamServerEndpoint(reactor, given, socket.AF_UNIX)
            await (await self.listen(endpoint)).stop()
            self.socket(socket.AF_UNIX).connect(self.path)

    async def test_endpointOfTwisted(self) -> None:
        """The file and the lock of an endpoint that the program made are removed."""
        endpoint = UNIXServerEndpoint(reactor, self.path, wantPID=True)
        service = await self.listen(endpoint)
        self.assertTrue(os.path.lexists(f"{self.path}.lock"))
        await service.stop()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])

    async def test_replacedWithLock(self) -> None:
        service = await self.listen(UNIXServerEndpoint(reactor, self.path, wantPID=True))
        os.unlink(self.path)
        Path(self.path).write_text("dear")
        await service.stop()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [os.path.basename(self.path)])

    async def test_forkedChild(self) -> None:
        """A child that stops its copy of the port leaves file and lock to its parent."""
        endpoint = UNIXServerEndpoint(reactor, self.path, wantPID=True)
        port = await endpoint.listen(Factory())
        internals.keep_others_file(port, endpoint)
        parent = os.getpid()
        with mock.patch.object(os, "getpid", lambda: parent + 1):
            await port.stopListening()
        self.assertTrue(os.path.exists(self.path))
        self.assertTrue(os.path.lexists(f"{self.path}.lock"))
