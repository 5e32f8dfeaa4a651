"""
Sending directly to a socket and through a transport, with a real pair of sockets and a fake
reactor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import count
from typing import Any, cast
from unittest import mock

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.unix import Server
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.logs import log_lines
from tests.reader import Reader, exact_totals
from tests.tracing import lines_of, tracing
from txmetrics_tcp import ExporterSettings, MetricsFactory, MetricsProtocol
from txmetrics_tcp._codec.framing import EMPTY_FRAME
from txmetrics_tcp._exporter.ingest import LOG_LIMIT
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.connection import PROBE_INTERVAL
from txmetrics_tcp._net.writers import CHUNK, Outlet, SocketOutlet, outlet
from txmetrics_tcp.testing import FakeReactor, PausingTransport

ENDLESS = 16 * 1024 * 1024
"""More bytes than any socket buffer holds."""


class HookedSocket(socket.socket):
    """A socket that calls hooks before and after each send."""

    before_send: Callable[[], object] | None = None
    after_send: Callable[[], object] | None = None
    sent = 0

    def send(self, data: Any, flags: int = 0) -> int:
        if self.before_send is not None:
            self.before_send()
        self.sent += 1
        sent = super().send(data, flags)
        if self.after_send is not None:
            self.after_send()
        return sent


@implementer(IPushProducer)
class Flag(Protocol):
    """A producer that only stores whether it is paused."""

    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.paused = True


class SocketTestCase(SynchronousTestCase):
    """
    @ivar ours: the server's socket.
    @ivar theirs: the client's socket.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        # In a socket pair, sent data is immediately available to the peer.
        ours, self.theirs = socket.socketpair()
        self.ours = HookedSocket(fileno=ours.detach())
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def server(self, protocol: Protocol) -> Server:
        """Return a transport over the server's socket."""
        return Server(
            self.ours,
            cast(Any, protocol),
            "",
            cast(Any, None),
            0,
            cast(Any, self.reactor),
        )

    def write_wanted(self, transport: Server) -> bool:
        """Whether the transport has data to send when the reactor iterates."""
        return transport in self.reactor.getWriters()

    def read(self) -> bytes:
        """Return all data available to the client."""
        pieces = []
        while True:
            try:
                data = self.theirs.recv(1024 * 1024)
            except BlockingIOError:
                return b"".join(pieces)
            if not data:
                return b"".join(pieces)
            pieces.append(data)

    def read_all(self, transport: Server) -> bytes:
        """Return all data available to the client, including the transport's buffer."""
        pieces = [self.read()]
        while self.write_wanted(transport):
            transport.doWrite()
            pieces.append(self.read())
        return b"".join(pieces)


class OutletTests(SocketTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.producer = Flag()
        self.transport = self.server(self.producer)
        self.outlet = outlet(cast(ITransport, self.transport), self.producer)
        self.transport.registerProducer(self.producer, self.outlet.streaming)

    def test_sendsImmediately(self) -> None:
        """Data that the socket accepts is sent without a reactor iteration."""
        self.outlet.send(b"first")
        self.outlet.send(b"second")
        self.assertFalse(self.write_wanted(self.transport))
        self.assertFalse(self.producer.paused)
        self.assertEqual(self.read(), b"firstsecond")

    def test_rest(self) -> None:
        """The transport sends remaining data in order, and the producer is paused until then."""
        first, second = b"1" * ENDLESS, b"2" * 100
        self.outlet.send(first)
        self.assertTrue(self.producer.paused)
        self.assertTrue(self.write_wanted(self.transport))
        received = self.read_all(self.transport)
        self.assertFalse(self.producer.paused)
        self.outlet.send(second)
        self.assertFalse(self.write_wanted(self.transport))
        self.assertEqual(received + self.read(), first + second)

    def test_full(self) -> None:
        """A full socket pauses the producer without an error."""
        sent = 0
        try:
            while True:
                sent += self.ours.send(b"x" * CHUNK)
        except BlockingIOError:
            self.outlet.send(b"all of this")
        self.assertTrue(self.producer.paused)
        self.assertEqual(self.read_all(self.transport), b"x" * sent + b"all of this")

    def test_later(self) -> None:
        """`send_later` leaves sending to the transport, even if the socket is not full."""
        self.outlet.send_later(b"later")
        self.assertTrue(self.producer.paused)
        self.assertEqual(self.read(), b"")
        self.transport.doWrite()
        self.assertFalse(self.producer.paused)
        self.assertEqual(self.read(), b"later")

    def test_lost(self) -> None:
        """A send to a lost connection raises no exception; the transport reports the loss."""
        self.theirs.close()
        self.outlet.send(b"x")
        self.assertTrue(self.producer.paused)
        self.assertIsInstance(self.transport.doWrite(), ConnectionLost)

    def test_receives(self) -> None:
        """The transport still delivers received data."""
        self.theirs.sendall(b"x" * 1000)
        received: list[bytes] = []
        self.producer.dataReceived = received.append  # type: ignore[method-assign]
        self.transport.doRead()
        self.assertEqual(received, [b"x" * 1000])

    def test_layers(self) -> None:
        """Layers over the socket, such as TLS, are not bypassed."""
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(cast(Any, self.transport))
        self.assertIsInstance(outlet(cast(ITransport, wrapper), self.producer), Outlet)
        self.assertIsInstance(outlet(PausingTransport(), self.producer), Outlet)
        self.assertIsInstance(outlet(cast(ITransport, self.transport), self.producer), SocketOutlet)
        self.transport.TLS = True  # As `startTLS` does.
        self.assertIsInstance(outlet(cast(ITransport, self.transport), self.producer), Outlet)


class MemoryTests(SynchronousTestCase):
    def test_pauses(self) -> None:
        """
        A MemoryError in a transport pauses the producer, since the number of sent bytes is unknown.
        """

        def fails(data: bytes) -> None:
            raise MemoryError

        for send in (Outlet.send, Outlet.send_later):
            transport = PausingTransport()
            self.patch(transport, "write", fails)
            producer = mock.Mock()
            self.assertRaises(MemoryError, send, Outlet(transport, producer), b"x")
            producer.stopProducing.assert_called_once_with()


class ClientTests(SocketTestCase):
    """A client of an exporter, over a socket."""

    def client(self, buffer_size: int | None = None) -> None:
        self.clock = FakeReactor()
        self.factory = MetricsFactory(
            self.clock,
            ExporterSettings(buffer_size=buffer_size, max_delay=0, own_metrics=False),
            in_reactor_thread=lambda: True,
        )
        protocol = self.factory.buildProtocol(None)
        assert isinstance(protocol, MetricsProtocol)
        self.protocol = protocol
        self.transport = self.server(protocol)
        protocol.makeConnection(cast(Any, self.transport))
        self.addCleanup(protocol.connectionLost)
        self.clock.settle()
        self.reader = Reader()
        self.reader.feed(self.read())

    def finish(self) -> None:
        """Let the client read all pending data."""
        while True:
            self.clock.settle()
            data = self.read_all(self.transport)
            if not data:
                return
            self.reader.feed(data)

    def test_oneIteration(self) -> None:
        """A recorded event is sent in the next reactor iteration."""
        self.client()
        self.factory.recorder.counter("c").increment()
        self.clock.drain()
        self.reader.feed(self.read())
        self.assertEqual(self.reader.values("c"), [1])

    def test_sendsInChunks(self) -> None:
        """Many pending events are sent in chunks, between which the reactor iterates."""
        self.client()
        histogram = self.factory.recorder.histogram("h")
        events = 5 * CHUNK // 20
        self.protocol.pauseProducing()
        for number in range(events):
            histogram.record(number)
        self.clock.settle()
        self.assertEqual(self.protocol.stats().waiting, events)
        self.assertEqual(self.read(), b"")
        before = self.ours.sent
        self.protocol.resumeProducing()
        self.assertEqual(self.ours.sent - before, 1)
        self.assertTrue(self.write_wanted(self.transport))
        self.reader.feed(self.read())
        self.assertGreater(self.protocol.stats().waiting, events // 2)
        self.finish()
        self.assertEqual(self.reader.values("h"), list(range(events)))

    def test_closedByOthers(self) -> None:
        """If other code closes the transport, it closes after sending the written data."""
        self.client()
        counter = self.factory.recorder.counter("c", label="x" * 60_000)
        while not self.write_wanted(self.transport):
            counter.increment()
            self.clock.drain()
        counter.increment()
        self.transport.loseConnection()
        why = None
        while why is None:
            self.reader.feed(self.read())
            self.assertTrue(self.write_wanted(self.transport))
            why = self.transport.doWrite()
        self.assertIsInstance(why, ConnectionDone)
        self.reader.feed(self.read())
        self.assertEqual(self.reader.unfinished, 0)

    def test_countsAfterInterrupt(self) -> None:
        """Data sent before a signal handler raises is counted as written."""
        log_lines(self, log_throttle)
        self.client()
        histogram = self.factory.recorder.histogram("h", label="x" * 1000)
        for number in range(200):
            histogram.record(number)

        def interrupt() -> None:
            if self.ours.sent == before + 2:
                raise KeyboardInterrupt

        before = self.ours.sent
        self.ours.after_send = interrupt
        self.assertRaises(KeyboardInterrupt, self.clock.drain)
        stats = self.protocol.stats()
        self.reader.feed(self.read())
        self.assertGreater(stats.written, 0)
        self.assertLess(stats.written, len(self.reader.values("h")))

    def test_forkedChild(self) -> None:
        """
        Events recorded in a forked child are not written to the parent's connections, even before
        the factory has detected the fork.
        """
        self.client(buffer_size=1)
        sent = self.ours.sent
        with mock.patch("os.getpid", lambda: -1):
            for _ in range(5):
                self.factory.recorder.counter("c").increment()
        self.assertEqual(self.ours.sent, sent)
        self.finish()
        self.assertEqual(self.reader.bits(), exact_totals(self.factory))

    def test_interruptedDelivery(self) -> None:
        """Events recorded during the send of a delivery follow the delivered events."""
        self.client()
        self.interrupt()
        self.factory.recorder.counter("c").increment()
        self.clock.drain()
        self.check_interrupted()

    def test_interruptedResumption(self) -> None:
        """Events recorded during the send of pending events follow the pending events."""
        self.client()
        self.protocol.pauseProducing()
        self.factory.recorder.counter("c").increment()
        self.clock.drain()
        self.interrupt()
        self.protocol.resumeProducing()
        self.check_interrupted()

    def test_interruptedProbe(self) -> None:
        """Events recorded during the send of a probe follow the probe."""
        self.client()
        self.protocol.readConnectionLost()
        self.interrupt()
        self.clock.advance(PROBE_INTERVAL)
        self.check_interrupted()

    def interrupt(self) -> None:
        """
        During the next send, record events as a signal handler may.  There are enough events for an
        immediate send, which would split the frame that is being sent.
        """
        histogram = self.factory.recorder.histogram("h")

        def record() -> None:
            self.ours.before_send = None
            sent = self.ours.sent
            for number in range(2 * LOG_LIMIT):
                histogram.record(number)
            self.assertEqual(self.ours.sent, sent)

        self.ours.before_send = record

    def check_interrupted(self) -> None:
        self.assertIsNone(self.ours.before_send)
        self.finish()
        self.assertEqual(self.reader.values("h"), list(range(2 * LOG_LIMIT)))
        self.assertEqual(self.reader.bits(), exact_totals(self.factory))

    def test_probesBetweenFrames(self) -> None:
        """A probe that is due while a frame is partially sent is sent after the frame."""
        self.client()
        self.protocol.readConnectionLost()
        long = self.factory.recorder.counter("c", label="x" * 60_000)
        while not self.write_wanted(self.transport):
            long.increment()
            self.clock.drain()
        self.reader.feed(self.read())
        self.assertGreater(self.reader.unfinished, 0)
        self.clock.advance(PROBE_INTERVAL)
        self.assertEqual(self.read(), b"")
        self.finish()
        self.assertEqual(self.reader.unfinished, 0)
        self.assertEqual(self.reader.bits(), exact_totals(self.factory))
        self.clock.advance(PROBE_INTERVAL)
        self.assertEqual(self.read(), EMPTY_FRAME)


class InterruptedTransportTests(SocketTestCase):
    """
    On the reactor thread, a finalizer records events while it interrupts the transport or the
    protocol of a client.
    """

    def test_anyLine(self) -> None:
        """At any interrupted line, no event is lost, and the order is kept."""
        lines = lines_of(is_transport, self.streamed().happen)
        self.assertGreater(len(lines), 30)
        for line in lines:
            streamed = self.streamed()
            with tracing(is_transport, lambda this: this == line and streamed.record()):  # noqa: B023
                streamed.happen()
            self.assertTrue(streamed.recorded)
            streamed.finish()
            values = streamed.reader.values("h")
            self.assertEqual(values, list(range(2 * LOG_LIMIT + 1)), line)
            self.assertEqual(streamed.reader.bits(), exact_totals(streamed.factory), line)

    def streamed(self) -> Streamed:
        SocketTestCase.setUp(self)
        return Streamed(self)


def is_transport(file: str) -> bool:
    """Whether a file contains methods of a socket transport or of a client's protocol."""
    return file.endswith(
        (
            "twisted/internet/abstract.py",
            "twisted/internet/tcp.py",
            "_net/connection.py",
            "_net/writers.py",
            "_exporter/backlog.py",
            "_exporter/outbox.py",
            "_exporter/protocol.py",
        )
    )


class Streamed:
    """A client that is connected over a socket, and stalls sometimes."""

    def __init__(self, case: SocketTestCase) -> None:
        self.case = case
        self.clock = FakeReactor()
        self.factory = MetricsFactory(
            self.clock,
            ExporterSettings(buffer_size=None, max_delay=0, own_metrics=False),
            in_reactor_thread=lambda: True,
        )
        self.long = self.factory.recorder.counter("c", label="x" * 60_000)
        self.histogram = self.factory.recorder.histogram("h")
        self.numbers = count()
        self.recorded = False
        protocol = self.factory.buildProtocol(None)
        self.transport = case.server(cast(Any, protocol))
        protocol.makeConnection(cast(Any, self.transport))
        self.clock.settle()
        self.reader = Reader()
        self.reader.feed(case.read())

    def happen(self) -> None:
        """Fill the socket, and let the transport send the rest while the client reads."""
        while not self.case.write_wanted(self.transport):
            self.long.increment()
            self.clock.drain()
        self.histogram.record(next(self.numbers))
        self.clock.drain()
        self.finish()

    def record(self) -> None:
        """Record, once, enough events for an immediate send."""
        if not self.recorded:
            self.recorded = True
            for _ in range(2 * LOG_LIMIT):
                self.histogram.record(next(self.numbers))

    def finish(self) -> None:
        """Let the client read all pending data."""
        while True:
            self.clock.settle()
            data = self.case.read_all(self.transport)
            if not data:
                return
            self.reader.feed(data)
