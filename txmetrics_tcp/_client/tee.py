"""
The bytes of a connection beside the events that are made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from txmetrics_tcp._net.writers import abort


@implementer(IStreamClientEndpoint)
class TappedEndpoint:
    """
    An endpoint, with a function that is given each piece of data behind the protocol.

    A piece with which the protocol gives the connection up, because it is no stream of metrics, is
    not handed on.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, tap: Callable[[bytes], object]) -> None:
        """
        @param tap: called with each piece, when the protocol has made of it what it can.
        """
        self._endpoint = endpoint
        self._tap = tap

    def __repr__(self) -> str:
        return repr(self._endpoint)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(
            _TappedFactory(protocolFactory, self._tap)
        )
        # Who connects is to see the protocol that it made.
        connecting.addCallback(lambda tapped: tapped.wrappedProtocol)
        return connecting


@implementer(IHandshakeListener)
class _Tapped(ProtocolWrapper):
    """A transport to the protocol, which the protocol may close, and a protocol to a transport."""

    factory: _TappedFactory
    transport: Any

    _closed = False

    @property
    def untapped(self) -> Any:
        """The transport below."""
        return self.transport

    def handshakeCompleted(self) -> None:
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self._closed:
            self.factory.tap(data)

    def loseConnection(self) -> None:
        self._closed = True
        super().loseConnection()

    def abortConnection(self) -> None:
        self._closed = True
        abort(self.transport)


class _TappedFactory(WrappingFactory):
    protocol = _Tapped
    noisy = False

    def __init__(self, factory: IProtocolFactory, tap: Callable[[bytes], object]) -> None:
        super().__init__(factory)
        self.tap = tap
