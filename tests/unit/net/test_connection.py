"""
Served connections: behavior shared by the clients of an exporter and those of a replay.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.exporting import FactoryTestCase
from tests.recordings import increment
from txmetrics_tcp import MetricsFactory, MetricsProtocol, decode
from txmetrics_tcp._codec.framing import EMPTY_FRAME
from txmetrics_tcp._net import connection
from txmetrics_tcp._net.connection import (
    HANDSHAKE_LIMIT,
    MAX_RECEIVED,
    PROBE_INTERVAL,
    ServedProtocol,
    looks_like,
)
from txmetrics_tcp._net.keepalive import KEEPALIVE
from txmetrics_tcp._net.log_throttle import RejectionLog
from txmetrics_tcp._recording.events import Piece
from txmetrics_tcp._recording.replay import ReplayFactory, ReplayProtocol
from txmetrics_tcp.testing import PausingTransport


class LooksTests(SynchronousTestCase):
    def test_known(self) -> None:
        for head, name in (
            (b"GET / HTTP/1.1\r\n", "HTTP"),
            (b"OPTIONS * HTTP/1.", "HTTP"),
            (b"PRI * HTTP/2.0\r\n", "HTTP"),
            (bytes.fromhex("16030100c8010000c40303"), "TLS"),
            (b"SSH-2.0-OpenSSH_9", "SSH"),
            (b"PROXY TCP4 192.0", "PROXY"),
            (b"\r\n\r\n\0\r\nQUIT\n!\x11", "PROXY"),
        ):
            self.assertIn(name, looks_like(head) or "")
            # Two bytes are not enough.
            self.assertIsNone(looks_like(head[:2]))

    def test_unknown(self) -> None:
        for head in (b"", b"\n", b"GETTING", b"hello", b"\x16\x04\x00", b"\0" * 16):
            self.assertIsNone(looks_like(head), head)


class TlsTransport(PausingTransport):
    """A transport that counts as TLS, over another transport."""

    def __init__(self) -> None:
        super().__init__()
        self.transport = PausingTransport()


class ServedCases(FactoryTestCase):
    """
    Tests of the clients of any server.

    @ivar rejected: the text of each rejection reported by the server.
    @ivar calls: the calls of the server's hooks.
    """

    server: Any
    protocol_class: type[ServedProtocol]

    def setUp(self) -> None:
        super().setUp()
        self.rejected: list[str] = []
        self.calls: list[str] = []
        self.server = self.serve()
        for name in ("arrived", "connected", "disconnected", "left"):
            self.watch(f"client_{name}")

    def watch(self, name: str) -> None:
        method = getattr(self.server, name)

        def call(client: ServedProtocol) -> None:
            self.calls.append(name.removeprefix("client_"))
            method(client)

        self.patch(self.server, name, call)

    def serve(self) -> Any:
        """Make a server."""
        raise NotImplementedError

    def send(self) -> None:
        """Make the server send data to all clients."""
        raise NotImplementedError

    def connect(self, transport: PausingTransport) -> ServedProtocol:
        protocol = self.server.buildProtocol(transport.getPeer())
        assert isinstance(protocol, self.protocol_class)
        transport.connect(protocol)
        self.reactor.settle()
        transport.drain()
        self.reactor.settle()
        transport.drain()
        return protocol

    def connected(self, limit: int = 64 * 1024) -> tuple[ServedProtocol, PausingTransport]:
        """Connect a client that has read all data."""
        transport = PausingTransport(limit)
        protocol = self.connect(transport)
        self.assertEqual(transport.written, b"")
        self.assertIs(transport.producer, protocol)
        return protocol, transport

    def stuck(self) -> tuple[ServedProtocol, PausingTransport]:
        """Connect a client that does not read pending data."""
        protocol, transport = self.connected(0)
        self.send()
        self.assertTrue(transport.producer_paused)
        return protocol, transport

    def with_tls(self) -> tuple[ServedProtocol, TlsTransport]:
        """Connect a client that has not begun its TLS handshake."""
        self.patch(connection, "is_tls", lambda transport: isinstance(transport, TlsTransport))
        transport = TlsTransport()
        return self.connect(transport), transport

    def assert_released(self) -> None:
        """All hooks have been called once, and no delayed calls are pending."""
        self.assertEqual(self.calls, ["arrived", "connected", "disconnected", "left"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_handshakeLimit(self) -> None:
        """A client receives no data before its handshake.  The handshake has a timeout."""
        protocol, transport = self.with_tls()
        self.send()
        self.reactor.advance(HANDSHAKE_LIMIT - self.reactor.seconds() - 0.01)
        self.assertEqual((transport.written, transport.producer, transport.aborted), (b"", None, 0))
        self.reactor.pump([0.02, 0])
        self.assertTrue(transport.aborted)
        [line] = self.rejected
        self.assertIn("TLS handshake timed out", line)
        protocol.handshakeCompleted()
        self.assertIsNone(transport.producer)
        transport.drain()
        protocol.connectionLost()
        self.assertEqual(self.calls, ["arrived", "left"])

    def test_handshakeFails(self) -> None:
        """A failed handshake is reported if it has a reason."""
        for reason, lines in (("unsupported protocol", 1), (None, 0)):
            self.rejected.clear()
            _, transport = self.with_tls()
            self.patch(connection, "explain", lambda error, reason=reason: reason)
            transport.lose()
            self.assertEqual(len(self.rejected), lines)
            if reason is not None:
                self.assertIn(f"TLS handshake failed: {reason}", self.rejected[0])
        self.assertEqual(self.calls, ["arrived", "left"] * 2)

    def test_handshakeInTime(self) -> None:
        """After the handshake, a client is served without a time limit."""
        protocol, transport = self.with_tls()
        protocol.handshakeCompleted()
        self.reactor.settle()
        self.assertIs(transport.producer, protocol)
        self.reactor.pump([HANDSHAKE_LIMIT, 0])
        self.assertFalse(transport.aborted)
        transport.drain()
        self.send()
        self.assertNotEqual(transport.written, b"")
        transport.lose()
        self.assert_released()

    def test_overTcp(self) -> None:
        """Over TCP, Nagle's algorithm is disabled and keepalive is enabled."""
        options: list[object] = []
        self.patch(connection, "is_over_tcp", lambda transport: True)
        self.patch(connection, "probe_when_idle", lambda *args: options.append(args[1:]))
        self.patch(connection, "limit_unacknowledged", lambda *args: None)

        class TcpTransport(PausingTransport):
            setTcpNoDelay = staticmethod(options.append)

        self.connect(TcpTransport())
        self.assertEqual(options, [True, (KEEPALIVE,)])

    def test_halfClosed(self) -> None:
        """A client that has closed its sending side is probed, and still receives all data."""
        _, transport = self.connected()
        transport.end_of_file()
        for probes in (b"", EMPTY_FRAME, b"", EMPTY_FRAME):
            self.reactor.advance(PROBE_INTERVAL / 2)
            self.assertEqual(transport.drain(), probes)
        self.send()
        self.assertNotEqual(transport.drain().strip(EMPTY_FRAME), b"")

    def test_halfClosedThenLost(self) -> None:
        """Probes end with the connection."""
        protocol, transport = self.connected()
        transport.end_of_file()
        self.reactor.advance(PROBE_INTERVAL)
        transport.lose()
        self.assert_released()
        protocol.readConnectionLost()
        self.assert_released()

    def test_halfClosedAndPaused(self) -> None:
        """A client with pending data is not probed until it has read the data."""
        _, transport = self.stuck()
        transport.end_of_file()
        pending = transport.written
        self.reactor.pump([PROBE_INTERVAL] * 3)
        self.assertEqual(transport.written, pending)
        while transport.written.strip(EMPTY_FRAME):
            transport.drain()
        self.reactor.advance(PROBE_INTERVAL)
        self.assertIn(EMPTY_FRAME, transport.written)

    def test_probeFails(self) -> None:
        """If a probe raises, the client is disconnected."""
        protocol, transport = self.connected()
        transport.end_of_file()

        def write(data: bytes) -> None:
            raise RuntimeError("write fails")

        self.patch(transport, "write", write)
        self.reactor.advance(PROBE_INTERVAL)
        self.assertTrue(transport.aborted)
        [line] = self.rejected
        self.assertIn("unexpected RuntimeError: write fails", line)
        protocol.connectionLost()
        self.assertEqual(self.calls, ["arrived", "connected", "disconnected", "left"])

    def test_resumeFails(self) -> None:
        """If sending pending data raises, the client is disconnected."""
        protocol, transport = self.stuck()

        def flush() -> None:
            raise RuntimeError("flush fails")

        self.patch(protocol, "flush", flush)
        transport.drain()
        self.assertTrue(transport.aborted)
        [line] = self.rejected
        self.assertIn("unexpected RuntimeError: flush fails", line)
        self.assertEqual(self.calls, ["arrived", "connected", "disconnected", "left"])

    def test_closedByOthers(self) -> None:
        """If other code closes the connection, it closes after sending the written data."""
        _, transport = self.stuck()
        transport.loseConnection()
        self.assertNotEqual(transport.drain(), b"")
        self.assertIsNone(transport.producer)
        transport.drain()
        self.assertFalse(transport.connected)
        self.assert_released()

    def test_finish(self) -> None:
        """`finish` disconnects the client after it has received all pending data."""
        protocol, transport = self.stuck()
        protocol.finish()
        self.assertNotEqual(transport.drain(), b"")
        while transport.connected:
            transport.drain()
        self.assertIsNone(transport.producer)
        self.assert_released()

    def test_abort(self) -> None:
        """An aborted client has no producer, and receives no further data."""
        protocol, transport = self.stuck()
        protocol.abort()
        self.assertTrue(transport.aborted)
        self.assertIsNone(transport.producer)
        self.send()
        self.assertEqual(transport.written, b"")
        transport.drain()
        self.assert_released()
        self.patch(transport, "abortConnection", lambda: self.fail("already disconnected"))
        protocol.abort()

    def test_lost(self) -> None:
        """When the connection is lost, calls have no effect."""
        for connect, stops in ((self.stuck, True), (self.connected, True), (self.connected, False)):
            self.calls.clear()
            protocol, transport = connect()
            if not stops:
                # Some transports do not call stopProducing.
                transport.producer = None
            transport.lose()
            self.patch(transport, "loseConnection", lambda: self.fail("already disconnected"))
            for call in (
                protocol.finish,
                protocol.pauseProducing,
                protocol.resumeProducing,
                protocol.stopProducing,
                protocol.readConnectionLost,
                protocol.writeConnectionLost,
                protocol.handshakeCompleted,
                lambda protocol=protocol: protocol.dataReceived(b"GET / HTTP/1.1\r\n"),
                protocol.connectionLost,
            ):
                call()
            self.assert_released()
        self.assertEqual(self.rejected, [])

    def test_lostInRegisterProducer(self) -> None:
        """A transport may lose its connection during registerProducer."""

        class Ending(PausingTransport):
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                super().registerProducer(producer, streaming)
                self.lose()

        self.connect(Ending())
        self.assertEqual(self.calls, ["arrived", "disconnected", "left"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_received(self) -> None:
        """Data from a client is ignored up to a limit, unless it is another protocol."""
        _, transport = self.connected()
        for _ in range(MAX_RECEIVED // 1024):
            transport.receive(b"x" * 1024)
        self.assertFalse(transport.aborted)
        self.assertEqual(self.rejected, [])
        transport.receive(b"x")
        self.assertTrue(transport.aborted)
        [line] = self.rejected
        self.assertIn("sent unexpected data (more than 64 KiB)", line)

    def test_receivedBytewise(self) -> None:
        """Another protocol is recognized even if its first bytes arrive one by one."""
        protocol, transport = self.connected()
        for number in b"GET / HTTP/1.1\r\n":
            protocol.dataReceived(bytes([number]))
        self.assertTrue(transport.aborted)
        [line] = self.rejected
        self.assertIn("sent an HTTP request", line)


class ExporterTests(ServedCases):
    """The clients of an exporter."""

    server: MetricsFactory
    protocol_class = MetricsProtocol

    def serve(self) -> MetricsFactory:
        self.patch(RejectionLog, "report", self._say)
        return self.factory(dead_after=60)

    def _say(self, address: str, reason: str, detail: str = "", failure: object = None) -> None:
        self.rejected.append(f"{reason}{detail}")

    def send(self) -> None:
        self.server.recorder.counter("c").increment()
        self.reactor.settle()


class ReplayTests(ServedCases):
    """The clients of a replay."""

    server: ReplayFactory
    protocol_class = ReplayProtocol

    def serve(self) -> ReplayFactory:
        pieces = [
            Piece(5 * number, increment(number), decode(increment(number)))
            for number in range(1, 100)
        ]

        def say(text: str) -> None:
            if text.startswith("rejected"):
                self.rejected.append(text)

        return ReplayFactory(self.reactor, lambda: pieces, lambda: None, say=say)

    def send(self) -> None:
        self.reactor.pump([5, 0])


# Run only the subclasses.
del ServedCases
