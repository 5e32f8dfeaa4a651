"""
Access to the raw bytes of a client connection, next to its decoded events.
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
    Wraps an endpoint.  A function receives each piece of data after the protocol has processed it.

    If the protocol closes the connection while it processes a piece, for example because of invalid
    data, the function does not receive that piece.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, tap: Callable[[bytes], object]) -> None:
        """
        @param tap: called with each piece, after the protocol has processed it.
        """
        self._endpoint = endpoint
        self._tap = tap

    def __repr__(self) -> str:
        return repr(self._endpoint)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(
            _TappedFactory(protocolFactory, self._tap)
        )
        # The caller expects the protocol that its factory built.
        connecting.addCallback(lambda tapped: tapped.wrappedProtocol)
        return connecting


@implementer(IHandshakeListener)
class _Tapped(ProtocolWrapper):
    """Connects the real transport and the wrapped protocol, and copies received data to the tap."""

    factory: _TappedFactory
    transport: Any

    _closed = False

    @property
    def untapped(self) -> Any:
        """The real transport."""
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
