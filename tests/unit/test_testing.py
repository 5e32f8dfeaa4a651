"""
The public fakes behave as what they stand in for, and their examples are true.
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

from txmetrics_tcp import ExporterSettings, Metric, MetricsFactory, decode, testing
from txmetrics_tcp.testing import FakeReactor, PausingTransport


class ExampleTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """What the docstrings show happens."""
        failed, attempted = doctest.testmod(testing)
        self.assertEqual(failed, 0)
        self.assertGreater(attempted, 10)


class FakeReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.happened: list[str] = []

    def happens(self, what: str) -> None:
        self.happened.append(what)

    def test_interfaces(self) -> None:
        verifyObject(IReactorTime, self.reactor)
        verifyObject(IReactorFromThreads, self.reactor)

    def test_waits(self) -> None:
        """Calls from threads happen when a test says so, in their order, once."""
        self.reactor.callFromThread(self.happens, what="a")
        self.reactor.callFromThread(self.happens, "b")
        self.reactor.advance(1)
        self.assertEqual(self.happened, [])
        self.assertEqual(self.reactor.waiting, 2)
        self.assertEqual(self.reactor.drain(), 2)
        self.assertEqual(self.happened, ["a", "b"])
        self.assertEqual(self.reactor.drain(), 0)
        self.assertEqual(self.happened, ["a", "b"])

    def test_fromAThread(self) -> None:
        """A call from another thread happens in the one of the test."""
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
        """What a call from a thread calls from a thread has its turn the next time."""
        self.reactor.callFromThread(self.reactor.callFromThread, self.happens, "later")
        self.assertEqual(self.reactor.drain(), 1)
        self.assertEqual(self.happened, [])
        self.assertEqual(self.reactor.drain(), 1)
        self.assertEqual(self.happened, ["later"])

    def test_aCallThatRaises(self) -> None:
        """It comes out, and does not take those behind it along."""
        self.reactor.callFromThread(lambda: 1 // 0)
        self.reactor.callFromThread(self.happens, "b")
        self.assertRaises(ZeroDivisionError, self.reactor.drain)
        self.assertEqual(self.reactor.waiting, 1)
        self.assertEqual(self.reactor.drain(), 1)
        self.assertEqual(self.happened, ["b"])

    def test_settle(self) -> None:
        """All that is due now happens, whatever leads to what; time does not pass."""

        def first() -> None:
            self.reactor.callLater(0, second)

        def second() -> None:
            self.reactor.callFromThread(self.happens, "third")

        self.reactor.callFromThread(first)
        self.reactor.callLater(0.1, self.happens, "too early")
        self.reactor.settle()
        self.assertEqual(self.happened, ["third"])
        self.assertEqual(self.reactor.seconds(), 0)
        self.reactor.advance(0.1)
        self.assertEqual(self.happened, ["third", "too early"])


@implementer(IPushProducer)
class Producer:
    """
    Writes down what it is told.

    @ivar when_resumed: called when it is.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.when_resumed: Callable[[], object] = lambda: None

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.when_resumed()

    def stopProducing(self) -> None:
        self.told.append("stop")


class Told(Protocol):
    """Writes down what it is told."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def connectionMade(self) -> None:
        self.told.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append(type(reason.value).__name__)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Told):
    def readConnectionLost(self) -> None:
        self.told.append("end of file")

    def writeConnectionLost(self) -> None:
        raise AssertionError("nobody closed this side")


class PausingTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = PausingTransport(limit=10)
        self.producer = Producer()
        self.told = self.producer.told

    def connect(self, protocol: type[Told] = Told) -> None:
        self.transport.connect(protocol(self.told))
        self.assertEqual(self.told, ["made"])
        del self.told[:]

    def test_interfaces(self) -> None:
        for interface in ITransport, IConsumer, IPushProducer:
            verifyObject(interface, self.transport)

    def test_refused(self) -> None:
        """A factory that builds no protocol is an error of the test that expected one."""
        self.assertRaises(AssertionError, self.transport.connect, None)

    def test_written(self) -> None:
        """What was written waits until it is drained, piece by piece."""
        self.transport.write(b"abc")
        self.transport.writeSequence([b"de", b"f"])
        self.assertEqual(self.transport.written, b"abcdef")
        self.assertEqual(self.transport.drain(4), b"abcd")
        self.assertEqual(self.transport.written, b"ef")
        self.assertEqual(self.transport.drain(), b"ef")
        self.assertEqual(self.transport.drain(), b"")

    def test_bytesOnly(self) -> None:
        """As with a real transport, what is not bytes is refused."""
        self.assertRaises(TypeError, self.transport.write, "text")
        self.assertRaises(TypeError, self.transport.write, bytearray(b"bytes"))

    def test_pausesWithinWrite(self) -> None:
        """As soon as more than the limit waits, and again with each write after that."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 10)
        self.assertEqual(self.told, [])
        self.assertFalse(self.transport.producer_paused)
        self.transport.write(b"x")
        self.assertEqual(self.told, ["pause"])
        self.assertTrue(self.transport.producer_paused)
        self.transport.write(b"x")
        self.assertEqual(self.told, ["pause", "pause"])

    def test_resumesWhenAllIsSent(self) -> None:
        """Not when there is room again: Twisted's own transports send all first."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 20)
        self.transport.drain(19)
        self.assertEqual(self.told, ["pause"])
        self.transport.drain(1)
        self.assertEqual(self.told, ["pause", "resume"])
        self.assertFalse(self.transport.producer_paused)
        self.transport.drain()
        self.assertEqual(self.told, ["pause", "resume"])

    def test_writesWhenResumed(self) -> None:
        """What a resumed producer writes waits for the next time, and may pause it again."""
        self.producer.when_resumed = lambda: self.transport.write(b"y" * 11)
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 11)
        self.assertEqual(self.transport.drain(), b"x" * 11)
        self.assertEqual(self.told, ["pause", "resume", "pause"])
        self.assertEqual(self.transport.written, b"y" * 11)

    def test_pullProducer(self) -> None:
        """One that does not stream is never paused, and asked for each piece."""
        self.producer.when_resumed = lambda: self.transport.write(b"y" * 11)
        self.transport.registerProducer(self.producer, False)
        self.assertEqual(self.told, ["resume"])
        self.assertEqual(self.transport.drain(), b"y" * 11)
        self.assertEqual(self.transport.drain(), b"y" * 11)
        self.assertEqual(self.told, ["resume"] * 3)

    def test_oneProducer(self) -> None:
        self.transport.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, Producer(), True)
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.producer, True)

    def test_tooLateForAProducer(self) -> None:
        """Who registers with a connection that is gone is told to stop."""
        self.transport.lose()
        self.transport.registerProducer(self.producer, True)
        self.assertEqual(self.told, ["stop"])
        self.assertIsNone(self.transport.producer)

    def test_loseConnection(self) -> None:
        """The connection closes when all has been sent, and never from within the call."""
        self.connect()
        self.transport.write(b"abc")
        self.transport.loseConnection()
        self.transport.drain(2)
        self.assertEqual(self.told, [])
        self.assertEqual(self.transport.drain(), b"c")
        self.assertEqual(self.told, ["ConnectionDone"])
        self.assertFalse(self.transport.connected)

    def test_loseConnectionWithNothingToSend(self) -> None:
        self.connect()
        self.transport.loseConnection()
        self.assertEqual(self.told, [])
        self.transport.drain()
        self.assertEqual(self.told, ["ConnectionDone"])

    def test_aProducerKeepsItOpen(self) -> None:
        """A registered producer, paused or not, keeps the connection from closing."""
        self.connect()
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * 11)
        self.transport.loseConnection()
        for _ in range(3):
            self.transport.drain()
        self.assertEqual(self.told, ["pause", "resume"])
        self.transport.unregisterProducer()
        self.assertEqual(self.told, ["pause", "resume"])
        self.transport.drain()
        self.assertEqual(self.told, ["pause", "resume", "ConnectionDone"])

    def test_stopProducing(self) -> None:
        """As a producer, it stops by closing."""
        self.connect()
        self.transport.stopProducing()
        self.transport.drain()
        self.assertEqual(self.told, ["ConnectionDone"])

    def test_abortConnection(self) -> None:
        """What waits is forgotten; the producer hears of the end before the protocol does."""
        self.connect()
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"abc")
        self.transport.abortConnection()
        self.transport.write(b"def")
        self.assertEqual(self.transport.written, b"")
        self.assertEqual(self.told, [])
        self.assertEqual(self.transport.drain(), b"")
        self.assertEqual(self.told, ["stop", "ConnectionAborted"])
        self.transport.drain()
        self.transport.lose()
        self.assertEqual(self.told, ["stop", "ConnectionAborted"])

    def test_lose(self) -> None:
        """The connection may break at any time, for any reason."""
        self.connect()
        self.transport.write(b"abc")
        self.transport.lose()
        self.assertEqual(self.told, ["ConnectionLost"])
        self.transport.write(b"def")
        self.assertEqual(self.transport.drain(), b"")
        for method in self.transport.loseConnection, self.transport.abortConnection:
            method()
            self.transport.drain()
        self.assertEqual(self.told, ["ConnectionLost"])

        other = PausingTransport()
        other.connect(Told(self.told))
        other.lose(ConnectionDone())
        self.assertEqual(self.told, ["ConnectionLost", "made", "ConnectionDone"])

    def test_receive(self) -> None:
        """What comes is read until the connection is closed from either side, or paused."""
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
        self.assertEqual(self.told, ["a", "b", "ConnectionDone"])

    def test_receiveAfterAbort(self) -> None:
        self.connect()
        self.transport.abortConnection()
        self.transport.receive(b"a")
        self.transport.resumeProducing()
        self.transport.receive(b"b")
        self.transport.end_of_file()
        self.assertEqual(self.told, [])

    def test_endOfFile(self) -> None:
        """To most protocols, the end of what comes is the end of the connection."""
        self.connect()
        self.transport.end_of_file()
        self.transport.end_of_file()
        self.assertEqual(self.told, ["ConnectionDone"])
        self.assertFalse(self.transport.connected)

    def test_endOfFileHalfCloseable(self) -> None:
        """Those who know half a connection keep it."""
        self.connect(HalfCloseable)
        self.transport.end_of_file()
        self.transport.end_of_file()
        self.transport.write(b"abc")
        self.assertEqual(self.transport.drain(), b"abc")
        self.assertEqual(self.told, ["end of file"])
        self.assertTrue(self.transport.connected)

    def test_addresses(self) -> None:
        self.assertNotEqual(self.transport.getHost(), self.transport.getPeer())
        swapped = PausingTransport(host=self.transport.getPeer(), peer=self.transport.getHost())
        self.assertEqual(swapped.getHost(), self.transport.getPeer())
        self.assertEqual(swapped.getPeer(), self.transport.getHost())


class ExporterTests(SynchronousTestCase):
    """The fakes do what they are for: what a slow client of an exporter gets can be tested."""

    def test_slowClient(self) -> None:
        reactor = FakeReactor()
        factory = MetricsFactory(reactor, ExporterSettings(buffer_size=3))
        client = PausingTransport(limit=1)
        client.connect(factory.buildProtocol(client.getPeer()))
        client.drain()
        histogram = factory.recorder.histogram("size")
        for n in range(6):
            histogram.record(n)
            reactor.settle()
        received = client.drain() + client.drain()
        values = [event.value for event in decode(received) if isinstance(event, Metric)]
        # The first was written and filled the transport; the oldest of the rest found no room.
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
