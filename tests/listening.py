"""
Fakes for listening: a reactor, and endpoints with a delayed result.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from txmetrics_tcp.testing import FakeReactor


@implementer(IListeningPort)
class FakePort:
    """
    A port that closes in the next reactor iteration, as a real port does.

    @ivar factory: the factory of its protocols.
    @ivar listening: whether the port is open.
    """

    def __init__(self, reactor: FakeReactor, address: IAddress, factory: ServerFactory) -> None:
        self._reactor = reactor
        self._address = address
        self.factory = factory
        self.listening = False

    def startListening(self) -> None:
        self.listening = True
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        closed: Deferred[None] = Deferred()
        self._reactor.callLater(0, self._close, closed)
        return closed

    def getHost(self) -> IAddress:
        return self._address

    def _close(self, closed: Deferred[None]) -> None:
        self.listening = False
        self.factory.doStop()
        closed.callback(None)


class ListeningReactor(FakeReactor):
    """
    @ivar ports: all ports that were ever opened.
    @ivar taken: addresses that are in use, as text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[FakePort] = []
        self.taken: set[str] = set()

    @property
    def listening(self) -> list[FakePort]:
        """The open ports."""
        return [port for port in self.ports if port.listening]

    @property
    def hosts(self) -> list[str]:
        """The addresses of the open ports, as text."""
        hosts = [port.getHost() for port in self.listening]
        return [f"{host.host}:{host.port}" for host in hosts]  # type: ignore[attr-defined]

    def listenTCP(
        self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = ""
    ) -> FakePort:
        if f"{interface}:{port}" in self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        address = IPv6Address if ":" in interface else IPv4Address
        return self.listen(address("TCP", interface or "0.0.0.0", port or 49152), factory)

    def listenUNIX(
        self,
        address: str,
        factory: ServerFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> FakePort:
        if address in self.taken:
            raise CannotListenError(None, address.encode(), OSError(98, "Address already in use"))
        return self.listen(UNIXAddress(address), factory)

    def listen(self, address: IAddress, factory: ServerFactory) -> FakePort:
        port = FakePort(self, address, factory)
        port.startListening()
        self.ports.append(port)
        return port


@implementer(IStreamServerEndpoint)
class LateEndpoint:
    """
    An endpoint that listens when a test decides.

    @ivar cancelled: whether the caller cancelled the attempt.
    """

    def __init__(self, reactor: ListeningReactor, port: int = 1) -> None:
        self._reactor = reactor
        self._address = IPv4Address("TCP", "127.0.0.1", port)
        self.cancelled = False

    def listen(self, factory: ServerFactory) -> Deferred[IListeningPort]:
        self._factory = factory
        self._attempt: Deferred[IListeningPort] = Deferred(self._cancel)
        return self._attempt

    def succeed(self) -> None:
        self._attempt.callback(self._reactor.listen(self._address, self._factory))

    def fail(self, error: Exception) -> None:
        self._attempt.errback(error)

    def _cancel(self, attempt: Deferred[IListeningPort]) -> None:
        self.cancelled = True
