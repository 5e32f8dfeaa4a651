"""
A connection that a server serves, from its arrival to its end: the handshake of TLS, what the peer
may send, backpressure, half-close probes, time limits, and how the connection is closed.

All of it belongs to the reactor thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar
from typing import Protocol as Interface

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._net.deadline import Deadline, cancel
from txmetrics_tcp._net.internals import lose_connection
from txmetrics_tcp._net.keepalive import (
    KEEPALIVE,
    is_over_tcp,
    limit_unacknowledged,
    probe_when_idle,
)
from txmetrics_tcp._net.tls import explain, is_tls
from txmetrics_tcp._net.writers import Outlet, SocketOutlet, abort, outlet

_log = Logger(namespace="txmetrics_tcp")

HANDSHAKE_LIMIT = 10.0
"""How long, in seconds, a handshake of TLS may take."""

PROBE_INTERVAL = 0.5
"""The time, in seconds, between two probes of a client that has ended its sending side."""

MAX_RECEIVED = 64 * 1024
"""How many bytes a client may send before it is disconnected.  What it sends is ignored."""

_HEAD = 16
"""How many bytes show which protocol a client speaks."""

_SIGNATURES = (
    (re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT) "), "an HTTP request"),
    (re.compile(rb"PRI \* HTTP/2"), "an HTTP request"),
    (re.compile(rb"\x16\x03[\x00-\x04]"), "the beginning of TLS, which is not spoken here"),
    (re.compile(rb"SSH-"), "the beginning of SSH"),
    (re.compile(rb"PROXY |\r\n\r\n\0\r\nQUIT\n"), "the header of a proxy"),
)


def looks_like(head: bytes) -> str | None:
    """What a client began to send, if its first bytes show that."""
    for pattern, name in _SIGNATURES:
        if pattern.match(head):
            return name
    return None


class ServerHooks(Interface):
    """
    What a served connection calls of its server: first `client_arrived` and last `client_left`;
    between them, unless the handshake fails, `client_connected` and `client_disconnected`.
    """

    def client_arrived(self, client: Any) -> None: ...

    def client_connected(self, client: Any) -> None: ...

    def client_disconnected(self, client: Any) -> None:
        """Also where `client_connected` raised, or the connection ended before it was called."""

    def client_left(self, client: Any) -> None: ...

    def client_rejected(
        self, client: Any, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """Log why a client is disconnected; `RejectionLog.say` has the parameters."""


_C = TypeVar("_C", bound="ServedProtocol")


@implementer(IHandshakeListener, IHalfCloseableProtocol, IPushProducer)
class ServedProtocol(Protocol):
    """
    A client.  What it is sent is the subclass's: `begin`, `flush`, `probe` and `end`.

    It is the producer of its transport, which pauses it when it has enough, often from within a
    send, and resumes it later.

    An exception that is raised for one client disconnects that client only; see `for_each`.

    @cvar keepalive: when a connection over TCP counts as dead though nothing is sent over it.
    @ivar address: of the client, human-readable.
    @ivar peer: the same, for the server.
    @ivar paused: whether its transport has enough, so that what is to be sent has to wait.
    """

    transport: Any

    keepalive = KEEPALIVE

    peer: IAddress | None = None

    def __init__(
        self,
        server: ServerHooks,
        clock: IReactorTime,
        address: str,
        dead_after: float | None = None,
    ) -> None:
        """
        @param dead_after: for how many seconds a client may take none of its pending data before it
            is disconnected; None for no limit.
        """
        self._server = server
        self._clock = clock
        self.address = address
        self._dead_after = dead_after
        self._outlet: Outlet | SocketOutlet
        # Whether there is a connection; and whether its client is served, after any handshake.
        self._present = False
        self._connected = False
        self.paused = False
        self._finishing = False
        self._received = 0
        self._head = b""
        self._rejected = False
        self._handshake: Deadline | None = None
        self._stall: Deadline | None = None
        self._probing: IDelayedCall | None = None

    # What the subclass does.

    def begin(self) -> None:
        """The client may be sent something."""

    def flush(self) -> None:
        """
        Send what is pending until the transport has enough; `disconnect` if nothing is left and
        C{_finishing} is set.
        """

    def probe(self) -> None:
        """Send something that the client skips."""

    def end(self) -> None:
        """The client is gone; also if `begin` raised.  Not called if nothing had begun."""

    # What it may call, and the server.

    def finish(self) -> None:
        """Close the connection once all that is pending is sent."""
        if not self._finishing:
            self._finishing = True
            self.flush()

    def disconnect(self) -> None:
        """Close the connection once what was written is sent."""
        self._stop_producing()
        lose_connection(self.transport)

    def abort(self) -> None:
        """Close the connection now."""
        if not self._present:
            return
        try:
            if self._connected:
                self._stop_producing()
        finally:
            abort(self.transport)

    def fail(self, failure: Failure) -> None:
        """
        Disconnect this client because of an exception that concerns it alone.

        All of it is released when this returns, whatever its transport does.
        """
        if not self._present:
            return
        text = failure.getErrorMessage()
        # Each of these may be what failed in the first place.
        with suppress(Exception):
            self.abort()
        with suppress(Exception):
            self._server.client_rejected(
                self,
                f"an error ({type(failure.value).__name__})",
                f": {text}" if text else "",
                failure,
            )
        with suppress(Exception):
            self.connectionLost(failure)

    # What the transport calls.

    def connectionMade(self) -> None:
        self._present = True
        self._server.client_arrived(self)
        if is_tls(self.transport):
            # Before its handshake, nothing is kept for a client.
            self._handshake = Deadline(self._clock, HANDSHAKE_LIMIT, self._handshake_too_slow)
        else:
            for_each([self], lambda client: client._begin())

    def handshakeCompleted(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
            for_each([self], lambda client: client._begin())

    def dataReceived(self, data: bytes) -> None:
        if not self._present:
            return
        if len(self._head) < _HEAD:
            self._head = (self._head + data)[:_HEAD]
            if (name := looks_like(self._head)) is not None:
                self._reject(f"it sent {name}")
                return
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            self._reject("it sends data, which no viewer does", f": {self._head!r} and so on")

    def pauseProducing(self) -> None:
        self.paused = True
        if self._connected and self._dead_after is not None and self._stall is None:
            # The kernel knows sooner, but not of every kind of socket on every platform.
            self._stall = Deadline(self._clock, self._dead_after, self._stalled_too_long)

    def resumeProducing(self) -> None:
        if not self._connected:
            return
        if getattr(self.transport, "disconnecting", False):
            # Other code closes it, and while it has a producer it stays open.
            self._stop_producing()
            return
        self.paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        for_each([self], lambda client: client.flush())

    def stopProducing(self) -> None:
        # Called when the connection is lost, just before connectionLost.
        self.paused = True

    def readConnectionLost(self) -> None:
        """
        The client has ended its sending side, or is gone: TCP shows both in the same way.

        So it is probed: a client that is gone answers with a reset.
        """
        if self._connected:
            self._probe_later()

    def writeConnectionLost(self) -> None:
        """Only this end closes its sending side, and then with the connection."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._present:
            return
        connected, handshake = self._connected, self._handshake
        self._present = self._connected = False
        self.paused = True
        for limit in (handshake, self._stall):
            if limit is not None:
                limit.cancel()
        cancel(self._probing)
        self._handshake = self._stall = self._probing = None
        try:
            if handshake is not None and (why := explain(reason.value)) is not None:
                self._server.client_rejected(self, f"its TLS handshake failed: {why}")
            if connected:
                try:
                    self.end()
                finally:
                    self._server.client_disconnected(self)
        finally:
            self._server.client_left(self)

    # Inside.

    def _begin(self) -> None:
        self._connected = True
        if is_over_tcp(self.transport):
            # Writes are as large as they will get; waiting for more is only latency.
            self.transport.setTcpNoDelay(True)
            probe_when_idle(self.transport, self.keepalive)
            if self._dead_after is not None:
                limit_unacknowledged(self.transport, self._dead_after)
        self._outlet = outlet(self.transport, self)
        self.transport.registerProducer(self, self._outlet.streaming)
        self.begin()
        # Unless the transport has just reported the end of the connection.
        if self._connected:
            self._server.client_connected(self)

    def _reject(self, reason: str, detail: str = "") -> None:
        if not self._rejected:
            self._rejected = True
            self._server.client_rejected(self, reason, detail)
            self.abort()

    def _handshake_too_slow(self) -> None:
        self._handshake = None
        self._reject("its TLS handshake takes too long")

    def _stalled_too_long(self) -> None:
        self._stall = None
        _log.warn(
            "Client {address} has taken none of its pending data for {seconds:g} seconds;"
            " disconnecting it",
            address=self.address,
            seconds=self._dead_after,
        )
        self.abort()

    def _probe_later(self) -> None:
        self._probing = self._clock.callLater(PROBE_INTERVAL, self._probe_now)

    def _probe_now(self) -> None:
        self._probe_later()
        if not self.paused:
            # A paused transport has data to send, which does the same.
            for_each([self], lambda client: client.probe())

    def _stop_producing(self) -> None:
        # A registered producer that is paused would keep the connection open indefinitely.
        self.paused = True
        self.transport.unregisterProducer()


def for_each(clients: Iterable[_C], act: Callable[[_C], object]) -> None:
    """
    Call a function for each of some clients; one for which it raises is disconnected.

    @raise BaseException: what is no Exception; a signal handler has raised it, say.
    """
    for client in list(clients):
        try:
            act(client)
        except BaseException as error:
            client.fail(Failure())
            if not isinstance(error, Exception):
                raise


class Refused(Protocol):
    """
    A connection that is closed at once.

    Where there is TLS, Twisted cannot be told so by building no protocol.
    """

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
