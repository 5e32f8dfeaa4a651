"""
A program blocks its reactor for longer than a timeout.
"""

from __future__ import annotations

import socket
import unittest
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Connection
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.recordings import STATUS
from txmetrics_tcp._client.service import Connected
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp.cli import messages
from txmetrics_tcp.cli.messages import SilenceMessage
from txmetrics_tcp.cli.stats import Watch

reactor: Any = global_reactor


class Pair(Connection):
    """A transport over one end of a pair of sockets."""

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(None)

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(None)


@implementer(IStreamClientEndpoint)
class ReadyEndpoint:
    """Connects to a peer that has already sent data."""

    def __init__(self, case: unittest.TestCase, sent: bytes) -> None:
        self._near, self._far = socket.socketpair()
        self._far.sendall(sent)
        case.addCleanup(self._far.close)

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        connected: Deferred[Any] = Deferred()
        protocol: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        self._near.setblocking(False)
        transport = Pair(self._near, protocol, reactor)
        protocol.makeConnection(transport)
        transport.startReading()
        connected.callback(protocol)
        return connected


class BusyTests(TestCase):
    """Data that arrived before a timeout counts, even if the reactor reads it afterwards."""

    def connect(self, received: Callable[[], object]) -> None:
        class Receiver(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received()

            def connectionMade(self) -> None:
                connections.append(self)

        connections: list[Receiver] = []
        ReadyEndpoint(self, b"x").connect(Factory.forProtocol(Receiver))
        [connection] = connections
        self.addCleanup(connection.transport.abortConnection)  # type: ignore[union-attr]

    async def test_deadline(self) -> None:
        happened: list[str] = []
        passed: Deferred[None] = Deferred()
        Deadline(reactor, 0, lambda: (happened.append("passed"), passed.callback(None)))
        self.connect(lambda: happened.append("received"))
        await passed
        self.assertEqual(happened, ["received", "passed"])

    async def test_silence(self) -> None:
        """No message about silence is printed."""
        self.patch(messages, "SILENCE", 0)
        printed: list[str] = []
        silence = SilenceMessage(reactor, printed.append, tls=False)
        silence.state_changed(Connected(UNIXAddress(None)))
        received: Deferred[None] = Deferred()
        self.connect(lambda: (silence.end_silence(), received.callback(None)))
        await received
        self.assertEqual(printed, [])

    async def test_watch(self) -> None:
        over: Deferred[int] = Deferred()
        printed: list[str] = []
        endpoint: Any = ReadyEndpoint(self, STATUS)
        watch = Watch(reactor, endpoint, "there", 0, printed.append, over.callback)
        watch.start()
        self.assertEqual(await over, 0)
        await watch.stop()
        self.assertEqual(printed, [])
