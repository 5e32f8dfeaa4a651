"""
Fakes to connect with: endpoints and names of hosts that do what a test says.
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
    An endpoint whose attempts succeed or fail when a test says so.

    @ivar attempts: those that were begun, each with the factory that it is for.
    @ivar cancelled: how many of them were given up.
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
        """The last attempt leads to a connection."""
        factory, attempt = self.attempts[-1]
        transport = PausingTransport()
        protocol = factory.buildProtocol(transport.getPeer())
        transport.connect(protocol)
        attempt.callback(protocol)
        return transport

    def fail(self, error: Exception) -> None:
        """The last attempt fails."""
        self.attempts[-1][1].errback(Failure(error))


@implementer(IHostnameResolver)
class FakeResolver:
    """
    @ivar addresses: what a name resolves to.
    """

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        *options: object,
        **more: object,
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(None)  # type: ignore[arg-type]
        for address in self.addresses:
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return None  # type: ignore[return-value]


@implementer(IReactorPluggableNameResolver)
class NamesReactor(FakeReactor):
    """
    @ivar connecting: where it was asked to connect to, and the factory for that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()
        self.connecting: list[tuple[str, int, IProtocolFactory]] = []

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise AssertionError("not to be replaced")

    def connectTCP(
        self, host: str, port: int, factory: IProtocolFactory, **options: object
    ) -> None:
        self.connecting.append((host, port, factory))
        cast(ClientFactory, factory).startedConnecting(cast(Any, _Connector(host, port)))


class _Connector:
    """An attempt to connect, as it is known to who may give it up."""

    def __init__(self, host: str, port: int) -> None:
        self._address = IPv4Address("TCP", host, port)

    def getDestination(self) -> IAddress:
        return self._address

    def stopConnecting(self) -> None:
        pass
