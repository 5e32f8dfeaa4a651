"""
The public fakes, and the examples in docstrings.
"""

from __future__ import annotations

import doctest
import threading
from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorFromThreads,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txmetrics_tcp import ExporterSettings, Metric, MetricsFactory, _model, decode, testing
from txmetrics_tcp._codec import decoder, encoder, framing
from txmetrics_tcp._instruments import layers, recorder
from txmetrics_tcp.testing import FakeReactor, PausingTransport


class ExampleTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """The examples in the docstrings of recording, codec and testing work."""
        for module in (_model, decoder, encoder, framing, layers, recorder, testing):
            failed, attempted = doctest.testmod(module)
            self.assertEqual(failed, 0, module)
            self.assertGreater(attempted, 0, module)


class FakeReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.calls: list[str] = []

    def call(self, name: str) -> None:
        self.calls.append(name)

    def test_interfaces(self) -> None:
        verifyObject(IReactorTime, self.reactor)
        verifyObject(IReactorFromThreads, self.reactor)

    def test_drain(self) -> None:
        """`drain` runs calls from threads in order, once."""
        self.reactor.callFromThread(self.call, name="a")
        self.reactor.callFromThread(self.call, "b")
        self.reactor.advance(1)
        self.assertEqual(self.calls, [])
        self.assertEqual(self.reactor.waiting, 2)
        self.assertEqual(self.reactor.drain(), 2)
        self.assertEqual(self.calls, ["a", "b"])
        self.assertEqual(self.reactor.drain(), 0)
        self.assertEqual(self.calls, ["a", "b"])

    def test_fromAThread(self) -> None:
        """A call from another thread runs in the thread of the test."""
        threads: list[threading.Thread] = []
        thread = threading.Thread(
            target=self.reactor.callFromThread,
            args=(lambda: threads.append(threading.current_thread()),),
        )
        thread.start()
        thread.join()
        self.reactor.drain()
        self.assertEqual(threads, [threading.current_thread()])

    def test_callsWithinACall(self) -> None:
        """A call that is queued during `drain` runs in the next `drain`."""
        self.reactor.callFromThread(self.reactor.callFromThread, self.call, "later")
        self.assertEqual(self.reactor.drain(), 1)
        self.assertEqual(self.calls, [])
        self.assertEqual(self.reactor.drain(), 1)
        self.assertEqual(self.calls, ["later"])

    def test_callRaises(self) -> None:
        """The exception of a call propagates, and later calls stay queued."""
        self.reactor.callFromThread(lambda: 1 // 0)
        self.reactor.callFromThread(self.call, "b")
        self.assertRaises(ZeroDivisionError, self.reactor.drain)
        self.assertEqual(self.reactor.waiting, 1)
        self.assertEqual(self.reactor.drain(), 1)
        self.assertEqual(self.calls, ["b"])

    def test_settle(self) -> None:
        """`settle` runs all due calls, including calls that they add; time does not advance."""

        def first() -> None:
            self.reactor.callLater(0, second)

        def second() -> None:
            self.reactor.callFromThread(self.call, "third")

        self.reactor.callFromThread(first)
        self.reactor.callLater(0.1, self.call, "too early")
        self.reactor.settle()
        self.assertEqual(self.calls, ["third"])
        self.assertEqual(self.reactor.seconds(), 0)
        self.reactor.advance(0.1)
        self.assertEqual(self.calls, ["third", "too early"])


@implementer(IPushProducer)
class Producer:
    """
    Records the calls of its methods.

    @ivar when_resumed: called by `resumeProducing`.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.when_resumed: Callable[[], object] = lambda: None

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.when_resumed()

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Recording(Protocol):
    """Records the calls of its methods."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def connectionMade(self) -> None:
        self.calls.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.calls.append(data.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.calls.append(type(reason.value).__name__)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recording):
    def readConnectionLost(self) -> None:
        self.calls.append("end of file")

    def writeConnectionLost(self) -> None:
        raise AssertionError("this side was not closed")


class PausingTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = PausingTransport(limit=10)
        self.producer = Producer()
        self.calls = self.producer.calls

    def connect(self, protocol: type[Recording] = Recording) -> None:
        self.transport.connect(protocol(self.calls))
        self.assertEqual(self.calls, ["made"])
        del self.calls[:]

    def test_interfaces(self) -> None:
        for interface in ITransport, IConsumer, IPushProducer:
            verifyObject(interface, self.transport)

    def test_rejected(self) -> None:
        """`connect` raises if the factory built no protocol."""
        self.assertRaises(AssertionError, self.transport.connect, None)

    def test_written(self) -> None:
        """Written bytes are pending until they are drained."""
        self.transport.write(b"abc")
        self.transport.writeSequence([b"de", b"f"])
        self.assertEqual(self.transport.written, b"abcdef")
        self.assertEqual(self.transport.drain(4), b"abcd")
        self.assertEqual(self.transport.written, b"ef")
        self.assertEqual(self.transport.drain(), b"ef")
        self.assertEqual(self.transport.drain(), b"")

    def test_bytesOnly(self) -> None:
        """`write` rejects data other than bytes, as real transports do."""
        self.assertRaises(TypeError, self.transport.write, "text")
        self.assertRaises(TypeError, self.transport.write, bytearray(b"bytes"))

    def test_pausesWithinWrite(self) -> None:
        """Every write pauses the producer while the pending bytes exceed the limit."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 10)
        self.assertEqual(self.calls, [])
        self.assertFalse(self.transport.producer_paused)
        self.transport.write(b"x")
        self.assertEqual(self.calls, ["pause"])
        self.assertTrue(self.transport.producer_paused)
        self.transport.write(b"x")
        self.assertEqual(self.calls, ["pause", "pause"])

    def test_resumesWhenAllIsSent(self) -> None:
        """The producer is resumed when no bytes are pending, as in Twisted's transports."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 20)
        self.transport.drain(19)
        self.assertEqual(self.calls, ["pause"])
        self.transport.drain(1)
        self.assertEqual(self.calls, ["pause", "resume"])
        self.assertFalse(self.transport.producer_paused)
        self.transport.drain()
        self.assertEqual(self.calls, ["pause", "resume"])

    def test_writesWhenResumed(self) -> None:
        """Bytes that a resumed producer writes stay pending, and may pause it again."""
        self.producer.when_resumed = lambda: self.transport.write(b"y" * 11)
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 11)
        self.assertEqual(self.transport.drain(), b"x" * 11)
        self.assertEqual(self.calls, ["pause", "resume", "pause"])
        self.assertEqual(self.transport.written, b"y" * 11)

    def test_pullProducer(self) -> None:
        """A pull producer is never paused, and is resumed for each piece."""
        self.producer.when_resumed = lambda: self.transport.write(b"y" * 11)
        self.transport.registerProducer(self.producer, False)
        self.assertEqual(self.calls, ["resume"])
        self.assertEqual(self.transport.drain(), b"y" * 11)
        self.assertEqual(self.transport.drain(), b"y" * 11)
        self.assertEqual(self.calls, ["resume"] * 3)

    def test_oneProducer(self) -> None:
        self.transport.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, Producer(), True)
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.producer, True)

    def test_registerAfterClose(self) -> None:
        """A producer registered after the connection was lost is stopped."""
        self.transport.lose()
        self.transport.registerProducer(self.producer, True)
        self.assertEqual(self.calls, ["stop"])
        self.assertIsNone(self.transport.producer)

    def test_loseConnection(self) -> None:
        """The connection closes when all bytes are drained, and never within the call."""
        self.connect()
        self.transport.write(b"abc")
        self.transport.loseConnection()
        self.transport.drain(2)
        self.assertEqual(self.calls, [])
        self.assertEqual(self.transport.drain(), b"c")
        self.assertEqual(self.calls, ["ConnectionDone"])
        self.assertFalse(self.transport.connected)

    def test_loseConnectionWithNothingToSend(self) -> None:
        self.connect()
        self.transport.loseConnection()
        self.assertEqual(self.calls, [])
        self.transport.drain()
        self.assertEqual(self.calls, ["ConnectionDone"])

    def test_producerPreventsClose(self) -> None:
        """The connection does not close while a producer is registered, paused or not."""
        self.connect()
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 11)
        self.transport.loseConnection()
        for _ in range(3):
            self.transport.drain()
        self.assertEqual(self.calls, ["pause", "resume"])
        self.transport.unregisterProducer()
        self.assertEqual(self.calls, ["pause", "resume"])
        self.transport.drain()
        self.assertEqual(self.calls, ["pause", "resume", "ConnectionDone"])

    def test_stopProducing(self) -> None:
        """`stopProducing` closes the connection."""
        self.connect()
        self.transport.stopProducing()
        self.transport.drain()
        self.assertEqual(self.calls, ["ConnectionDone"])

    def test_abortConnection(self) -> None:
        """Pending bytes are discarded; the producer is stopped before the protocol is notified."""
        self.connect()
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"abc")
        self.transport.abortConnection()
        self.transport.write(b"def")
        self.assertEqual(self.transport.written, b"")
        self.assertEqual(self.calls, [])
        self.assertEqual(self.transport.drain(), b"")
        self.assertEqual(self.calls, ["stop", "ConnectionAborted"])
        self.transport.drain()
        self.transport.lose()
        self.assertEqual(self.calls, ["stop", "ConnectionAborted"])

    def test_lose(self) -> None:
        """`lose` ends the connection, with any reason."""
        self.connect()
        self.transport.write(b"abc")
        self.transport.lose()
        self.assertEqual(self.calls, ["ConnectionLost"])
        self.transport.write(b"def")
        self.assertEqual(self.transport.drain(), b"")
        for method in self.transport.loseConnection, self.transport.abortConnection:
            method()
            self.transport.drain()
        self.assertEqual(self.calls, ["ConnectionLost"])

        other = PausingTransport()
        other.connect(Recording(self.calls))
        other.lose(ConnectionDone())
        self.assertEqual(self.calls, ["ConnectionLost", "made", "ConnectionDone"])

    def test_receive(self) -> None:
        """Data is delivered unless reading is paused or the connection is closing or closed."""
        self.connect()
        self.transport.receive(b"a")
        self.transport.pauseProducing()
        self.transport.receive(b"paused")
        self.transport.resumeProducing()
        self.transport.receive(b"b")
        self.transport.loseConnection()
        self.transport.receive(b"closing")
        self.transport.resumeProducing()
        self.transport.receive(b"still closing")
        self.transport.drain()
        self.transport.receive(b"closed")
        self.assertEqual(self.calls, ["a", "b", "ConnectionDone"])

    def test_receiveAfterAbort(self) -> None:
        self.connect()
        self.transport.abortConnection()
        self.transport.receive(b"a")
        self.transport.resumeProducing()
        self.transport.receive(b"b")
        self.transport.end_of_file()
        self.assertEqual(self.calls, [])

    def test_endOfFile(self) -> None:
        """An end of file closes the connection of most protocols."""
        self.connect()
        self.transport.end_of_file()
        self.transport.end_of_file()
        self.assertEqual(self.calls, ["ConnectionDone"])
        self.assertFalse(self.transport.connected)

    def test_endOfFileHalfCloseable(self) -> None:
        """A half-closeable protocol keeps its connection after an end of file."""
        self.connect(HalfCloseable)
        self.transport.end_of_file()
        self.transport.end_of_file()
        self.transport.write(b"abc")
        self.assertEqual(self.transport.drain(), b"abc")
        self.assertEqual(self.calls, ["end of file"])
        self.assertTrue(self.transport.connected)

    def test_addresses(self) -> None:
        self.assertNotEqual(self.transport.getHost(), self.transport.getPeer())
        swapped = PausingTransport(host=self.transport.getPeer(), peer=self.transport.getHost())
        self.assertEqual(swapped.getHost(), self.transport.getPeer())
        self.assertEqual(swapped.getPeer(), self.transport.getHost())


class ExporterTests(SynchronousTestCase):
    """The fakes, with an exporter and a slow client."""

    def test_slowClient(self) -> None:
        reactor = FakeReactor()
        factory = MetricsFactory(reactor, ExporterSettings(buffer_size=3, max_delay=0))
        client = PausingTransport(limit=1)
        client.connect(factory.buildProtocol(client.getPeer()))
        while client.drain():
            reactor.settle()
        histogram = factory.recorder.histogram("size")
        for n in range(6):
            histogram.record(n)
            reactor.settle()
        received = client.drain() + client.drain()
        values = [event.value for event in decode(received) if isinstance(event, Metric)]
        # The first event filled the transport.  The oldest of the others were dropped.
        self.assertEqual(values, [0, 3, 4, 5])

    def test_stop(self) -> None:
        reactor = FakeReactor()
        factory = MetricsFactory(reactor)
        client = PausingTransport()
        client.connect(factory.buildProtocol(client.getPeer()))
        stopped = factory.stop()
        self.assertNoResult(stopped)
        reactor.settle()
        client.drain()
        self.assertFalse(client.connected)
        self.successResultOf(stopped)
