"""
Fakes for connecting: endpoints and name resolution that a test controls.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp.testing import FakeReactor, PausingTransport


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """
    An endpoint whose attempts succeed or fail when a test decides.

    @ivar attempts: all attempts, each with its factory.
    @ivar cancelled: the number of cancelled attempts.
    """

    def __init__(self) -> None:
        self.attempts: list[tuple[IProtocolFactory, Deferred[IProtocol]]] = []
        self.cancelled = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def cancel(attempt: Deferred[IProtocol]) -> None:
            self.cancelled += 1

        attempt: Deferred[IProtocol] = Deferred(cancel)
        self.attempts.append((protocolFactory, attempt))
        return attempt

    def succeed(self) -> PausingTransport:
        """Let the last attempt succeed, and return its transport."""
        factory, attempt = self.attempts[-1]
        transport = PausingTransport()
        protocol = factory.buildProtocol(transport.getPeer())
        transport.connect(protocol)
        attempt.callback(protocol)
        return transport

    def fail(self, error: Exception) -> None:
        """Let the last attempt fail."""
        self.attempts[-1][1].errback(Failure(error))


@implementer(IHostnameResolver)
class FakeResolver:
    """
    @ivar addresses: the addresses to which every name resolves.
    @ivar complete: whether look-ups end.
    @ivar names: the names that were looked up.
    """

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []
        self.complete = True
        self.names: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        *options: object,
        **more: object,
    ) -> IHostResolution:
        self.names.append(hostName)
        resolutionReceiver.resolutionBegan(None)  # type: ignore[arg-type]
        for address in self.addresses:
            resolutionReceiver.addressResolved(address)
        if self.complete:
            resolutionReceiver.resolutionComplete()
        return None  # type: ignore[return-value]


@implementer(IReactorPluggableNameResolver)
class NamesReactor(FakeReactor):
    """
    @ivar connecting: the host, port and factory of each C{connectTCP} call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()
        self.connecting: list[tuple[str, int, IProtocolFactory]] = []

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise AssertionError("the name resolver must not be replaced")

    def connectTCP(
        self, host: str, port: int, factory: IProtocolFactory, **options: object
    ) -> None:
        self.connecting.append((host, port, factory))
        cast(ClientFactory, factory).startedConnecting(cast(Any, _Connector(host, port)))


class _Connector:
    """The connector of an attempt."""

    def __init__(self, host: str, port: int) -> None:
        self._address = IPv4Address("TCP", host, port)

    def getDestination(self) -> IAddress:
        return self._address

    def stopConnecting(self) -> None:
        pass
