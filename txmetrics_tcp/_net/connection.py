"""
The server side of one connection: the TLS handshake, received data, backpressure, half-close
probes, timeouts, and closing.

Everything in this module runs on the reactor thread.
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

HANDSHAKE_LIMIT = 10.0
"""The timeout of a TLS handshake, in seconds."""

PROBE_INTERVAL = 0.5
"""Seconds between two probes of a client that has closed its sending side."""

MAX_RECEIVED = 64 * 1024
"""Number of received bytes above which a client is disconnected.  Received bytes are ignored."""

_HEAD = 16
"""Number of initial bytes that are enough to recognize a protocol."""

_SIGNATURES = (
    (re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT) "), "an HTTP request"),
    (re.compile(rb"PRI \* HTTP/2"), "an HTTP request"),
    (re.compile(rb"\x16\x03[\x00-\x04]"), "a TLS handshake, but TLS is not enabled"),
    (re.compile(rb"SSH-"), "an SSH greeting"),
    (re.compile(rb"PROXY |\r\n\r\n\0\r\nQUIT\n"), "a PROXY protocol header"),
)


def looks_like(head: bytes) -> str | None:
    """
    Return a description of the first bytes from a client, or None if no protocol is recognized.
    """
    for pattern, name in _SIGNATURES:
        if pattern.match(head):
            return name
    return None


class ServerHooks(Interface):
    """
    The methods of a server that its connections call.

    Each connection calls `client_arrived` first and `client_left` last.  Unless the handshake
    fails, it calls `client_connected` and `client_disconnected` in between.
    """

    def client_arrived(self, client: Any) -> None: ...

    def client_connected(self, client: Any) -> None: ...

    def client_disconnected(self, client: Any) -> None:
        """
        Called even if `client_connected` raised, or the connection ended before that call.
        """

    def client_left(self, client: Any) -> None: ...

    def client_rejected(
        self, client: Any, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """Log the reason for disconnecting a client; see `RejectionLog.report`."""


_C = TypeVar("_C", bound="ServedProtocol")


@implementer(IHandshakeListener, IHalfCloseableProtocol, IPushProducer)
class ServedProtocol(Protocol):
    """
    The server's connection to a client.  Subclasses implement `begin`, `flush`, `probe` and `end`.

    This protocol is the producer of its transport.  The transport pauses it when its buffer is
    full, often re-entrantly during a send, and resumes it later.

    An exception raised for one client disconnects only that client; see `for_each`.

    @cvar keepalive: the times after which an idle TCP connection counts as dead.
    @ivar address: the client's address, human-readable.
    @ivar peer: the client's address as Twisted's transport reports it; set by the server.
    @ivar paused: whether the transport has paused this producer, usually because its buffer is
        full; also True once sending has ended.
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
        @param dead_after: seconds without progress on pending data after which the client is
            disconnected; None for no limit.
        """
        self._server = server
        self._clock = clock
        self.address = address
        self._dead_after = dead_after
        self._outlet: Outlet | SocketOutlet
        # True from connectionMade to connectionLost.
        self._present = False
        # True from the end of the TLS handshake, if any, to connectionLost.
        self._connected = False
        self.paused: bool = False
        self._finishing = False
        self._received = 0
        self._head = b""
        self._rejected = False
        self._handshake: Deadline | None = None
        self._stall: Deadline | None = None
        self._probing: IDelayedCall | None = None

    # Implemented by subclasses.

    def begin(self) -> None:
        """Called when the connection is ready for sending."""

    def flush(self) -> None:
        """
        Send pending data until the transport pauses this producer.  Call `disconnect` if no data is
        pending and C{_finishing} is set.
        """

    def probe(self) -> None:
        """Send bytes that the client skips."""

    def end(self) -> None:
        """Called when the client has disconnected after `begin`, even if `begin` raised."""

    # Called by subclasses and by the server.

    def finish(self) -> None:
        """Close the connection after sending all pending data."""
        if not self._finishing:
            self._finishing = True
            self.flush()

    def disconnect(self) -> None:
        """Close the connection after the transport has sent its buffer."""
        self._stop_producing()
        lose_connection(self.transport)

    def abort(self) -> None:
        """Close the connection immediately."""
        if not self._present:
            return
        try:
            if self._connected:
                self._stop_producing()
        finally:
            abort(self.transport)

    def fail(self, failure: Failure) -> None:
        """
        Disconnect this client because of an exception that concerns only this client.

        All of its resources are released when this method returns, even if its transport raises.
        """
        if not self._present:
            return
        text = failure.getErrorMessage()
        # Any of these calls may have caused the failure and may raise again.
        with suppress(Exception):
            self.abort()
        with suppress(Exception):
            self._server.client_rejected(
                self,
                f"unexpected {type(failure.value).__name__}",
                f": {text}" if text else "",
                failure,
            )
        with suppress(Exception):
            self.connectionLost(failure)

    # Called by the transport.

    def connectionMade(self) -> None:
        self._present = True
        self._server.client_arrived(self)
        if is_tls(self.transport):
            # `_begin` waits for the handshake, so that no data is queued before it is complete.
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
                self._reject(f"sent {name}")
                return
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            limit = MAX_RECEIVED // 1024
            self._reject(
                f"sent unexpected data (more than {limit} KiB)", f", beginning with {self._head!r}"
            )

    def pauseProducing(self) -> None:
        self.paused = True
        if self._connected and self._dead_after is not None and self._stall is None:
            # `limit_unacknowledged` may end the connection first, but only for TCP on Linux.
            self._stall = Deadline(self._clock, self._dead_after, self._stalled_too_long)

    def resumeProducing(self) -> None:
        if not self._connected:
            return
        if getattr(self.transport, "disconnecting", False):
            # Other code has called loseConnection, which waits while a producer is registered.
            self._stop_producing()
            return
        self.paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        for_each([self], lambda client: client.flush())

    def stopProducing(self) -> None:
        # The transport calls this just before connectionLost.
        self.paused = True

    def readConnectionLost(self) -> None:
        """
        Begin to probe the client.  It has closed either its sending side or the whole connection,
        which look the same in TCP.  In the latter case, it answers a probe with a reset.
        """
        if self._connected:
            self._probe_later()

    def writeConnectionLost(self) -> None:
        """Do nothing: this class closes its sending side only together with the connection."""

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
                self._server.client_rejected(self, f"TLS handshake failed: {why}")
            if connected:
                try:
                    self.end()
                finally:
                    self._server.client_disconnected(self)
        finally:
            self._server.client_left(self)

    def _begin(self) -> None:
        self._connected = True
        if is_over_tcp(self.transport):
            # Writes are already batched, so Nagle's algorithm would only add latency.
            self.transport.setTcpNoDelay(True)
            probe_when_idle(self.transport, self.keepalive)
            if self._dead_after is not None:
                limit_unacknowledged(self.transport, self._dead_after)
        self._outlet = outlet(self.transport, self)
        self.transport.registerProducer(self, self._outlet.streaming)
        self.begin()
        # The transport may have reported the end of the connection meanwhile.
        if self._connected:
            self._server.client_connected(self)

    def _reject(self, reason: str, detail: str = "") -> None:
        if not self._rejected:
            self._rejected = True
            self._server.client_rejected(self, reason, detail)
            self.abort()

    def _handshake_too_slow(self) -> None:
        self._handshake = None
        self._reject("TLS handshake timed out")

    def _stalled_too_long(self) -> None:
        self._stall = None
        self._reject(f"has not read its pending data for {self._dead_after:g} seconds")

    def _probe_later(self) -> None:
        self._probing = self._clock.callLater(PROBE_INTERVAL, self._probe_now)

    def _probe_now(self) -> None:
        self._probe_later()
        if not self.paused:
            # A paused transport has data to send, which serves as a probe.
            for_each([self], lambda client: client.probe())

    def _stop_producing(self) -> None:
        # While a paused producer is registered, the transport does not close the connection.
        self.paused = True
        self.transport.unregisterProducer()


def for_each(clients: Iterable[_C], act: Callable[[_C], object]) -> None:
    """
    Call a function for each client, and disconnect each client for which it raises.

    @raise BaseException: re-raised if it is not an C{Exception}, such as a KeyboardInterrupt.
    """
    for client in list(clients):
        try:
            act(client)
        except BaseException as error:
            client.fail(Failure())
            if not isinstance(error, Exception):
                raise


class Rejected(Protocol):
    """
    A connection that is closed immediately.

    With TLS, a factory cannot reject a connection by returning None from C{buildProtocol}.
    """

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
