"""
A service that stays connected to where a stream comes from, and the states of its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
from txmetrics_tcp._codec.framing import MAX_FRAME, StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp._net.tls import explain, is_tls

_log = Logger(namespace="txmetrics_tcp")

INITIAL_DELAY = 0.5
"""How many seconds to wait before the next attempt, but for a growth by half with each failure."""

SILENCE = 2.0
"""After how many seconds of a connection without a single event viewers report that."""

MAX_DELAY = 15.0
"""
How many seconds it may grow to.  Up to one second comes on top by chance, so that many clients
of one server do not all come back at the same moment.
"""


@dataclass(frozen=True, slots=True)
class Connecting:
    """An attempt to connect has begun."""


@dataclass(frozen=True, slots=True)
class Connected:
    """
    There is a connection; with TLS, its handshake is done.  Whether it is to a server of metrics,
    the first event will tell.

    @ivar address: of the server.
    """

    address: IAddress


@dataclass(frozen=True, slots=True)
class Disconnected:
    """
    An attempt to connect has failed, or a connection has ended.

    @ivar reason: why.  `StreamError` means that the server is of another kind.
    @ivar closed_early: whether the other end closed a connection before anything came over it.
    """

    reason: Failure
    closed_early: bool = False

    def __str__(self) -> str:
        """The reason, as one says it, without a full stop."""
        tls = explain(self.reason.value)
        if tls is not None:
            return f"no TLS with it: {tls}"
        if self.closed_early:
            return (
                "it hung up before anything came: perhaps it does not allow this address, is full,"
                " or wants TLS"
            )
        text = self.reason.getErrorMessage().rstrip(".")
        return text or type(self.reason.value).__name__


@dataclass(frozen=True, slots=True)
class Waiting:
    """
    Time passes before the next attempt.

    @ivar seconds: how much, from now.
    """

    seconds: float


ConnectionState = Connecting | Connected | Disconnected | Waiting
"""What an observer of `MetricsClientService` is told, in this order and over again."""


class MetricsClientService(ClientService):
    """
    Stays connected to a server of metrics: whenever a connection ends, or none comes about, be it
    because the server's name does not resolve, it tries again after a while.

    That while grows with each failure in a row, and begins anew only after a connection on which
    events came.  A server of another kind, and one that closes connections at once, are failures.

    A name is looked up anew for each attempt.  If it has several addresses, all are tried, of IPv4
    and IPv6, the next one as soon as one has failed or a moment has passed; that is what
    `twisted.internet.endpoints.HostnameEndpoint` does, which C{"HOST:PORT"} stands for.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint | str | int = DEFAULT_ENDPOINT,
        received: Callable[[Event], object] | None = None,
        *,
        received_many: Callable[[list[Event]], object] | None = None,
        observer: Callable[[ConnectionState], object] | None = None,
        max_frame: int = MAX_FRAME,
        retry_policy: Callable[[int], float] | None = None,
    ) -> None:
        """
        @param endpoint: where the server is: a port on the loopback interface, C{"HOST:PORT"},
            C{"[IPV6]:PORT"}, a string of Twisted's, or an endpoint.
        @param received: called with each event, on the reactor thread.
        @param received_many: instead of it, called with the events of each read; see
            `MetricsClientProtocol`.
        @param observer: called with each `ConnectionState`, on the reactor thread.
        @param max_frame: the size of a frame, in bytes, past which the stream is refused.
        @param retry_policy: for a number of failures in a row, from 1 up, how many seconds to wait
            before the next attempt; see `twisted.application.internet.backoffPolicy`.
        @raise EndpointError: the endpoint cannot be understood.
        @raise TypeError: there is not exactly one of C{received} and C{received_many}.
        """
        factory = MetricsClientFactory(
            received,
            received_many=received_many,
            connected=self._made,
            lost=self._ended,
            max_frame=max_frame,
        )
        super().__init__(
            _ObservedEndpoint(as_endpoint(reactor, endpoint), self._begin, self._failed),
            factory,
            # ClientService counts failures to connect; ours are also those that come later.
            retryPolicy=lambda attempt: self._next_delay(),
            clock=reactor,
        )
        self._observer = observer
        self._policy = retry_policy or backoffPolicy(INITIAL_DELAY, MAX_DELAY)
        self._failures = 0
        self._protocol: MetricsClientProtocol | None = None

    def stopService(self) -> Deferred[None]:
        """
        Close the connection and connect no more.

        @return: fires when that is done.
        """
        protocol = self._protocol
        stopped = super().stopService()
        if protocol is not None:
            # It would otherwise wait for TLS to be closed in both directions.
            protocol.close()
        return stopped

    def _begin(self) -> None:
        self._tell(Connecting())

    def _failed(self, reason: Failure) -> Failure:
        self._tell(Disconnected(reason))
        return reason

    def _made(self, protocol: MetricsClientProtocol) -> None:
        self._protocol = protocol
        if is_tls(protocol.transport):
            # Until then it may turn out to be another server, or none that knows TLS.
            protocol.secured = self._there
        else:
            self._there(protocol)

    def _there(self, protocol: MetricsClientProtocol) -> None:
        self._tell(Connected(protocol.transport.getPeer()))

    def _ended(self, protocol: MetricsClientProtocol, reason: Failure) -> None:
        self._protocol = None
        if protocol.events and not isinstance(reason.value, StreamError):
            self._failures = 0
        self._tell(Disconnected(reason, protocol.closed_early))

    def _next_delay(self) -> float:
        self._failures += 1
        delay = self._policy(self._failures)
        self._tell(Waiting(delay))
        return delay

    def _tell(self, state: ConnectionState) -> None:
        if self._observer is None:
            return
        try:
            self._observer(state)
        except Exception:
            # An observer that fails must not be what keeps us from trying again.
            _log.failure("An observer of {service} failed", service=self)


def as_endpoint(
    reactor: object, endpoint: IStreamClientEndpoint | str | int
) -> IStreamClientEndpoint:
    """
    An endpoint as it is, or what is written for one.

    @raise EndpointError: it cannot be understood.
    """
    if isinstance(endpoint, str | int):
        return client_endpoint(reactor, endpoint)
    return endpoint


@implementer(IStreamClientEndpoint)
class _ObservedEndpoint:
    """An endpoint, with two functions that learn of each attempt and each failure."""

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        begin: Callable[[], None],
        failed: Callable[[Failure], Failure],
    ) -> None:
        self._endpoint = endpoint
        self._begin = begin
        self._failed = failed

    def __repr__(self) -> str:
        return repr(self._endpoint)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self._begin()
        return maybeDeferred(self._endpoint.connect, protocolFactory).addErrback(self._failed)
