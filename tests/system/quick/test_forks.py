"""
What becomes of an exporter in a process that is forked from its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from unittest import skipIf

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.daemon import LIMIT
from tests.forking import in_child, warnings_of_forking_off
from tests.loopback import LoopbackTestCase
from tests.reader import FakeClient, Reader
from txmetrics_tcp import MetricsFactory
from txmetrics_tcp.testing import FakeReactor


class Listener(Protocol):
    """
    A client: keeps what it receives.
    """

    def __init__(self) -> None:
        self.reader = Reader()
        self.lost = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.reader.feed(data)
        self._look()

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True
        self._look()

    def when(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when a condition holds, which may change whenever something comes."""
        fired: Deferred[None] = Deferred()
        self._waiting.append((condition, fired))
        self._look()
        return fired

    def _look(self) -> None:
        for pair in list(self._waiting):
            if pair[0]():
                self._waiting.remove(pair)
                pair[1].callback(None)


class ForkTests(TestCase):
    timeout = 2 * LIMIT

    def setUp(self) -> None:
        self.factory = MetricsFactory(reactor, own_metrics=False)  # type: ignore[arg-type]

    @inlineCallbacks
    def listen(self, endpoint: object) -> object:
        port: IListeningPort = yield endpoint.listen(self.factory)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.addCleanup(self.factory.stop)
        return port

    @inlineCallbacks
    def connect(self, address: object) -> object:
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        client = TCP4ClientEndpoint(reactor, "127.0.0.1", address.port)  # type: ignore[attr-defined]
        listener = yield connectProtocol(client, Listener())
        yield listener.when(lambda: bool(listener.reader.statuses))
        return listener

    def test_merelyBuilt(self) -> None:
        """
        One that does not listen yet works on in a child, as twistd needs it that makes the service
        before it daemonizes.
        """

        def work() -> object:
            self.factory.recorder.counter("c").increment()
            return self.factory.silenced, list(self.factory.recorder.snapshot().values())

        self.assertEqual(in_child(work), "(False, [1])")

    @inlineCallbacks
    def test_silenced(self) -> object:
        """One that listens is silent in a child, and works on in the parent."""
        port = yield self.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        listener = yield self.connect(port.getHost())
        counter = self.factory.recorder.counter("c")
        counter.increment()

        def work() -> object:
            for _ in range(5000):
                counter.increment(1000)
            recorder = self.factory.recorder
            return recorder.silenced, recorder.snapshot(), self.factory.stats().clients

        answer = yield deferToThread(in_child, work)
        self.assertEqual(answer[:6], "(True,")
        self.assertTrue(answer.endswith(", ())"), answer)
        counter.increment(2)
        yield listener.when(lambda: sum(listener.reader.values("c")) == 3)
        self.assertFalse(listener.lost)

    @inlineCallbacks
    def test_connectionsAreTheParents(self) -> object:
        """
        A child that lives on keeps no connection and no port open, and ends none: when the
        parent closes them they are closed.
        """
        port = yield self.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        address = port.getHost()
        listener = yield self.connect(address)
        done, told = socket.socketpair()
        with warnings_of_forking_off():
            child = os.fork()
        if child == 0:
            try:
                done.close()
                told.recv(1)
            finally:
                os._exit(0)
        try:
            self.factory.recorder.counter("c").increment()
            yield listener.when(lambda: listener.reader.values("c") == [1])
            yield port.stopListening()
            yield self.factory.stop()
            yield listener.when(lambda: listener.lost)
            refused = socket.socket()
            self.addCleanup(refused.close)
            self.assertNotEqual(refused.connect_ex((address.host, address.port)), 0)
        finally:
            done.close()
            told.close()
            yield deferToThread(os.waitpid, child, 0)

    @inlineCallbacks
    def test_socketFileStays(self) -> object:
        """A child that ends does not take the parent's socket file with it."""
        path = self.mktemp()[-80:]
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        yield self.listen(UNIXServerEndpoint(reactor, path))
        in_child(lambda: None)
        self.assertTrue(os.path.exists(path))


DESCRIPTORS = Path("/proc/self/fd")


class SilenceTests(LoopbackTestCase):
    async def test_neither(self) -> None:
        """A factory is silenced if it listens or has clients, and not otherwise."""
        reactor = FakeReactor()
        idle, stopped, listening, connected = (MetricsFactory(reactor) for _ in range(4))
        self.assertFalse(idle.silenced)
        stopped.doStart()
        stopped.doStop()
        listening.doStart()
        FakeClient(connected)
        factories = (idle, stopped, listening, connected)
        self.assertEqual(
            in_child(lambda: [one.silenced for one in factories]), "[False, False, True, True]"
        )
        listening.doStop()

    async def test_takesNothing(self) -> None:
        factory = await self.exporter()
        counter = factory.recorder.counter("c")

        def record() -> object:
            counter.increment()
            return factory.recorder.snapshot()

        self.assertEqual(in_child(record), "{}")

    @skipIf(not DESCRIPTORS.exists(), f"needs {DESCRIPTORS}")
    async def test_letsGo(self) -> None:
        """Port and connections are another file in a child, which its children do not inherit."""
        factory = await self.exporter()
        await self.connect()
        [protocol] = factory.present
        numbers = [protocol.transport.fileno(), self.service._ports[0].fileno()]

        def open_files() -> list[str]:
            # That of the listing itself is gone again.
            present = [DESCRIPTORS / number for number in os.listdir(DESCRIPTORS)]
            return [os.readlink(one) for one in present if os.path.lexists(one)]

        def look() -> object:
            return (
                [os.readlink(DESCRIPTORS / str(number)) for number in numbers],
                [os.get_inheritable(number) for number in numbers],
                open_files().count(os.devnull) - before,
            )

        before = open_files().count(os.devnull)
        self.assertEqual(in_child(look), repr(([os.devnull] * 2, [False] * 2, 2)))
