"""
A service that keeps a connection to a metrics server, and the states of the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._checks import check_callable
from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
from txmetrics_tcp._codec.framing import MAX_FRAME, StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, AnyEndpoint
from txmetrics_tcp._net.endpoints import ObservedEndpoint, as_endpoint, check_reactor
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp._net.internals import text_logger
from txmetrics_tcp._net.tls import explain, is_tls

_log = Logger(namespace="txmetrics_tcp")

INITIAL_DELAY = 0.5
"""The base of the delay between attempts, in seconds.  Each failure increases the delay by half."""

SILENCE = 2.0
"""The number of seconds without events after which viewers report that a connection is silent."""

ACCEPTANCE = 1.0
"""
The number of seconds after a TLS handshake in which the server may still reject the client.

With TLS 1.3, the client's handshake ends before the server has verified the client's certificate.
A server that accepts the client does not have to answer: the Rust exporter sends nothing before its
first event.
"""

MAX_DELAY = 15.0
"""
The largest delay, in seconds.  A random time of up to one second is added, so that the clients of a
restarted server do not all reconnect at the same moment.
"""


@dataclass(frozen=True, slots=True)
class Connecting:
    """An attempt to connect has started."""


@dataclass(frozen=True, slots=True)
class Connected:
    """
    The connection is established.  With TLS, the handshake is complete, and the server has sent
    data, or has not rejected the client's certificate within a second.

    Only the first event shows that the peer is a metrics server.

    @ivar address: the address of the server.
    """

    address: IAddress


@dataclass(frozen=True, slots=True)
class Disconnected:
    """
    An attempt to connect has failed, or a connection has ended.

    @ivar reason: the cause.  A `StreamError` means that the peer is not a metrics server.
    @ivar closed_early: whether the server closed the connection before it sent any data.
    """

    reason: Failure
    closed_early: bool = False

    def __str__(self) -> str:
        """The reason as human-readable text, without a full stop."""
        tls = explain(self.reason.value)
        if tls is not None:
            return f"TLS failed: {tls}"
        if self.closed_early:
            return (
                "the server closed the connection before it sent data: it may reject this address,"
                " have too many clients, or require TLS"
            )
        text = self.reason.getErrorMessage().rstrip(".")
        return text or type(self.reason.value).__name__


@dataclass(frozen=True, slots=True)
class Waiting:
    """
    The service is waiting before the next attempt.

    @ivar seconds: the delay until the next attempt, in seconds from now.
    """

    seconds: float


ConnectionState = Connecting | Connected | Disconnected | Waiting
"""A state that `MetricsClientService` reports to its observer.  The states repeat in this order.  A
failed attempt skips `Connected`."""


class MetricsClientService(ClientService):
    """
    A Twisted service that connects to a metrics server, and reconnects when the connection fails or
    ends.

    The delay before each attempt grows with consecutive failures.  It is reset by a connection that
    delivered events.  Connections to other kinds of servers, and connections that the server closes
    before it sends events, count as failures.

    A host name is resolved again for each attempt, and a failed look-up is retried like a failed
    connection.  With C{"HOST:PORT"}, all IPv4 and IPv6 addresses of the name are tried, as
    `twisted.internet.endpoints.HostnameEndpoint` does.

    Must be used on the reactor thread::

        service = MetricsClientService(reactor, "localhost:5000", print)
        service.startService()
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint | AnyEndpoint = DEFAULT_ENDPOINT,
        received: Callable[[Event], object] | None = None,
        *,
        received_many: Callable[[list[Event]], object] | None = None,
        observer: Callable[[ConnectionState], object] | None = None,
        max_frame: int = MAX_FRAME,
        retry_policy: Callable[[int], float] | None = None,
    ) -> None:
        """
        @param reactor: the reactor to connect with.
        @param endpoint: the server: a port on the loopback interface, C{"HOST:PORT"},
            C{"[IPV6]:PORT"}, a tuple of host and port, a path object for a UNIX socket, a Twisted
            client endpoint string, or an endpoint.  By default, C{"127.0.0.1:5000"}.
        @param received: called with each event.
        @param received_many: called with the events of each read; see `MetricsClientProtocol`.
        @param observer: called with each `ConnectionState`.  Its exceptions are logged.
        @param max_frame: the largest accepted frame, in bytes; 1 or more.
        @param retry_policy: returns the delay before the next attempt, in seconds, for a number of
            consecutive failures, starting from 1; see
            `twisted.application.internet.backoffPolicy`.  By default, from 0.75 to 15 seconds, plus
            up to one random second.
        @raise EndpointError: the endpoint is not valid.
        @raise TypeError: both or neither of C{received} and C{received_many} were given, or an
            argument is of the wrong type.
        @raise ValueError: C{max_frame} is less than 1.
        """
        check_reactor(reactor)
        check_callable("observer", observer)
        check_callable("retry_policy", retry_policy)
        factory = MetricsClientFactory(
            received,
            received_many=received_many,
            connected=self._connection_made,
            lost=self._connection_lost,
            max_frame=max_frame,
        )
        # Twisted's logger would add this service to its events.
        self._log = self._logger()
        super().__init__(
            ObservedEndpoint(as_endpoint(reactor, endpoint), self._attempt_started, self._failed),
            factory,
            # ClientService counts only failed attempts.  This class also counts connections that
            # ended without events.
            retryPolicy=lambda attempt: self._next_delay(),
            clock=reactor,
        )
        self._reactor: IReactorTime = reactor
        self._observer = observer
        self._policy = retry_policy or backoffPolicy(INITIAL_DELAY, MAX_DELAY)
        self._failures = 0
        self._protocol: MetricsClientProtocol | None = None
        self._acceptance: Deadline | None = None

    def _logger(self) -> Logger:
        """Return what logs attempts to connect."""
        return text_logger(f"{ClientService.__module__}.{ClientService.__name__}")

    @property
    def protocol(self) -> MetricsClientProtocol | None:
        """The current connection; None while there is none."""
        return self._protocol

    def stopService(self) -> Deferred[None]:
        """
        Close the connection, and stop reconnecting.

        @return: a Deferred that fires when the connection is closed.
        """
        protocol = self._protocol
        stopped = super().stopService()
        if protocol is not None:
            # Without this, the service would wait for the peer's TLS shutdown.
            protocol.close()
        return stopped

    def _attempt_started(self) -> None:
        self._notify(Connecting())

    def _failed(self, reason: Failure) -> Failure:
        self._notify(Disconnected(reason))
        return reason

    def _connection_made(self, protocol: MetricsClientProtocol) -> None:
        self._protocol = protocol
        if is_tls(protocol.transport):
            # Before the handshake, the peer is unverified, and may not support TLS.
            protocol.secured = self._secured
        else:
            self._established(protocol)

    def _secured(self, protocol: MetricsClientProtocol) -> None:
        protocol.answered = self._established
        self._acceptance = Deadline(self._reactor, ACCEPTANCE, lambda: self._established(protocol))

    def _established(self, protocol: MetricsClientProtocol) -> None:
        protocol.answered = None
        self._end_acceptance()
        self._notify(Connected(protocol.transport.getPeer()))

    def _connection_lost(self, protocol: MetricsClientProtocol, reason: Failure) -> None:
        self._protocol = None
        self._end_acceptance()
        if protocol.events and not isinstance(reason.value, StreamError):
            self._failures = 0
        self._notify(Disconnected(reason, protocol.closed_early))

    def _end_acceptance(self) -> None:
        if self._acceptance is not None:
            self._acceptance.cancel()
            self._acceptance = None

    def _next_delay(self) -> float:
        self._failures += 1
        delay = self._policy(self._failures)
        self._notify(Waiting(delay))
        return delay

    def _notify(self, state: ConnectionState) -> None:
        if self._observer is None:
            return
        try:
            self._observer(state)
        except Exception:
            # An exception from the observer must not prevent the next attempt.
            _log.failure(
                "An observer of {service} failed", without_frames(Failure()), service=repr(self)
            )
