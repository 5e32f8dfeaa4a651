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

from txmetrics_tcp._client.protocol import MetricsClientProtocol
from txmetrics_tcp._net.writers import abort


@implementer(IStreamClientEndpoint)
class TappedEndpoint:
    """
    Wraps the endpoint of a `MetricsClientProtocol`.  A function receives each piece of data after
    the protocol has processed it, without the part that the protocol could not decode.
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
    wrappedProtocol: MetricsClientProtocol

    _closed = False

    @property
    def untapped(self) -> Any:
        """The real transport."""
        return self.transport

    def handshakeCompleted(self) -> None:
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        if not self._closed:
            super().dataReceived(data)
            self.factory.tap(data[: max(0, len(data) - self.wrappedProtocol.refused)])

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
