"""
Ports of datagrams: how much they read in one reactor iteration, their buffer and their losses.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any
from unittest import mock, skipIf

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.logs import log_lines
from txmetrics_tcp._net import datagrams, internals
from txmetrics_tcp._net.datagrams import (
    RECEIVE_BUFFER,
    dropped_datagrams,
    request_receive_buffer,
)
from txmetrics_tcp._net.internals import MAX_DATAGRAMS, limit_datagrams

reactor: Any = _reactor

no_counter = "" if sys.platform == "linux" else "needs Linux"


class Collector(DatagramProtocol):
    """Keeps datagrams, without reading them in the reactor's iterations."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def startProtocol(self) -> None:
        limit_datagrams(self.transport, self.datagramReceived)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append(datagram)


class LimitTests(TestCase):
    """`limit_datagrams` with real sockets.  The test makes the port read."""

    def listen(self) -> tuple[Any, Collector, socket.socket]:
        protocol = Collector()
        port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        port.stopReading()
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.connect(("127.0.0.1", port.getHost().port))
        return port, protocol, sender

    def test_number(self) -> None:
        """At most so many are read at once, also if they are empty."""
        self.patch(internals, "MAX_DATAGRAMS", 5)
        port, protocol, sender = self.listen()
        for _ in range(12):
            sender.send(b"")
        for expected in (5, 10, 12, 12):
            port.doRead()
            self.assertEqual(len(protocol.received), expected)

    def test_bytes(self) -> None:
        """Nothing of a long datagram is lost, and no further one is read at once."""
        port, protocol, sender = self.listen()
        long = os.urandom(65_000)
        for data in (long, long, b"x"):
            sender.send(data)
        port.doRead()
        self.assertEqual(protocol.received, [long, long])
        port.doRead()
        self.assertEqual(protocol.received[2:], [b"x"])

    def test_stopped(self) -> None:
        """Nothing is read after the protocol has stopped the port."""
        port, protocol, sender = self.listen()
        sender.send(b"1")
        sender.send(b"2")
        received = protocol.received.append

        def stop(datagram: bytes, address: object) -> None:
            received(datagram)
            port.connected = False

        limit_datagrams(port, stop)
        port.doRead()
        port.connected = True
        self.assertEqual(protocol.received, [b"1"])

    def test_unix(self) -> None:
        """UNIX datagrams may be longer than those of UDP."""
        path = os.path.relpath(self.mktemp())
        protocol = Collector()
        port = reactor.listenUNIXDatagram(path, protocol)
        self.addCleanup(port.stopListening)
        port.stopReading()
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.connect(path)
        long = os.urandom(100_000)
        sender.send(long)
        port.doRead()
        self.assertEqual(protocol.received, [long])

    def test_error(self) -> None:
        """Twisted handles errors of the socket."""
        closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        closed.close()
        port: Any = Port(0, Collector(), reactor=reactor)
        port.socket, port.doRead = closed, mock.Mock()
        own = port.doRead
        limit_datagrams(port, lambda data, address: None)
        port.doRead()
        self.assertEqual(len(own.mock_calls), 1)

    def test_exception(self) -> None:
        """An exception is logged, and later datagrams are read."""
        port, _, sender = self.listen()
        lines = log_lines(self, internals)
        seen: list[bytes] = []

        def fail(datagram: bytes, address: object) -> None:
            seen.append(datagram)
            raise RuntimeError("no datagrams today")

        limit_datagrams(port, fail)
        sender.send(b"1")
        sender.send(b"2")
        port.doRead()
        self.assertEqual(seen, [b"1", b"2"])
        self.assertEqual(lines, ["Failed to handle a datagram"] * 2)

    def test_reactor(self) -> Deferred[None]:
        """The reactor calls it."""
        port, _, sender = self.listen()
        done: Deferred[None] = Deferred()
        limit_datagrams(port, lambda data, address: done.callback(None))
        port.startReading()
        sender.send(b"x")
        return done

    def test_otherObjects(self) -> None:
        """Other objects stay as they are."""
        other = mock.Mock(spec=["doRead"])
        before = other.doRead
        limit_datagrams(other, print)
        limit_datagrams(None, print)
        self.assertIs(other.doRead, before)

    def test_default(self) -> None:
        self.assertGreater(MAX_DATAGRAMS, 100)


class SocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.opened.close)
        self.opened.bind(("127.0.0.1", 0))

    @skipIf(no_counter, no_counter)
    def test_dropped(self) -> None:
        """The kernel counts datagrams for which the receive buffer has no room."""
        self.opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.opened.setblocking(False)
        self.assertEqual(dropped_datagrams(self.opened), 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(b"x" * 1000, self.opened.getsockname())
        received = 0
        try:
            while self.opened.recv(2000):
                received += 1
        except BlockingIOError:
            pass
        self.assertLess(received, 100)
        self.assertEqual(dropped_datagrams(self.opened), 100 - received)

    def test_unknown(self) -> None:
        """Without the kernel's counter, no drops are reported."""
        closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        closed.close()
        self.assertEqual(dropped_datagrams(closed), 0)
        self.patch(datagrams, "sys", mock.Mock(platform="other"))
        self.assertEqual(dropped_datagrams(self.opened), 0)

    def test_receiveBuffer(self) -> None:
        """The obtained size is returned in the unit of the requested one."""
        default = self.opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.patch(datagrams, "RECEIVE_BUFFER", 1)
        request_receive_buffer(self.opened)
        after = self.opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.assertEqual(after, default, "made smaller")
        self.patch(datagrams, "RECEIVE_BUFFER", RECEIVE_BUFFER)
        size = request_receive_buffer(self.opened)
        self.assertGreater(size, 0)
        self.assertLessEqual(size, RECEIVE_BUFFER)

    def test_bufferRefused(self) -> None:
        """Systems other than Linux refuse a size that is too large."""
        opened = mock.Mock()
        opened.getsockopt.return_value = 1000
        opened.setsockopt.side_effect = OSError("No buffer space available")
        self.assertLessEqual(request_receive_buffer(opened), 1000)
