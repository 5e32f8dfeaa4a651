"""
A connection that is served, from its first moment to its last.  Before it is accepted, a client has
to do little: keep still, and, where there is TLS, complete its handshake in time.

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
    IHandshakeListener,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.tls import explain, is_tls
from txmetrics_tcp._net.writers import abort

HANDSHAKE_LIMIT = 10.0
"""How long, in seconds, a handshake of TLS may take."""

KNOCK_INTERVAL = 0.5
"""How often, in seconds, a client that ended its sending side is asked whether it still reads."""

MAX_RECEIVED = 64 * 1024
"""How many bytes a client may send before it is cut off.  What it sends is ignored."""

_HEAD = 16
"""How many bytes tell what a client takes us for."""

_SIGNATURES = (
    (re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT) "), "an HTTP request"),
    (re.compile(rb"PRI \* HTTP/2"), "an HTTP request"),
    (re.compile(rb"\x16\x03[\x00-\x04]"), "the beginning of TLS, which is not spoken here"),
    (re.compile(rb"SSH-"), "the beginning of SSH"),
    (re.compile(rb"PROXY |\r\n\r\n\0\r\nQUIT\n"), "the header of a proxy"),
)


def looks_like(head: bytes) -> str | None:
    """What it is that a client began to send, if that can be told."""
    for pattern, name in _SIGNATURES:
        if pattern.match(head):
            return name
    return None


class Door(Interface):
    """What a client that arrives needs of its factory."""

    def client_arrived(self, client: Any) -> None: ...

    def client_left(self, client: Any) -> None: ...

    def turn_away(
        self, client: Any, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """Say in the log why a client is disconnected; `RefusalLog.say` has the parameters."""


_C = TypeVar("_C", bound="ArrivingProtocol")


@implementer(IHandshakeListener)
class ArrivingProtocol(Protocol):
    """
    A connection from its first moment to its last; what is between is the subclass's, from
    `begin` to `end`.

    An exception that is raised for one client ends that client only; see `for_each`.

    @ivar address: of the client, for people.
    @ivar peer: the same, for the factory.
    """

    transport: ITransport

    peer: IAddress | None = None

    def __init__(self, door: Door, clock: IReactorTime, address: str) -> None:
        self._door = door
        self._arrival_clock = clock
        self.address = address
        self._here = False
        self._begun = False
        self._handshake: Deadline | None = None
        self._received = 0
        self._head = b""
        self._sent_away = False

    # What the subclass does.

    def begin(self) -> None:
        """The client may be streamed to."""

    def end(self) -> None:
        """The client is gone; also if `begin` raised.  Not called if nothing had begun."""

    # What it may call, and the factory.

    def abort(self) -> None:
        """Close the connection now."""
        if self._here:
            abort(self.transport)

    def fail(self, failure: Failure) -> None:
        """
        Disconnect this client because of an exception that concerns it alone.

        All of it is released when this returns, whatever its transport does.
        """
        if not self._here:
            return
        said = failure.getErrorMessage()
        # Each of these may be what failed in the first place.
        with suppress(Exception):
            self.abort()
        with suppress(Exception):
            self._door.turn_away(
                self,
                f"of an error ({type(failure.value).__name__})",
                f": {said}" if said else "",
                failure,
            )
        with suppress(Exception):
            self.connectionLost(failure)

    def hang_up(self) -> None:
        """Close the connection once what was written is sent."""
        self.transport.loseConnection()
        if is_tls(self.transport):
            # It has said that this is the end, and would wait for the client to say so too.
            self.transport.transport.loseConnection()  # type: ignore[attr-defined]

    # What the transport calls.

    def connectionMade(self) -> None:
        self._here = True
        self._door.client_arrived(self)
        if is_tls(self.transport):
            # Before it is known who it is, nothing is kept for it.
            self._handshake = Deadline(self._arrival_clock, HANDSHAKE_LIMIT, self._too_slow)
        else:
            self._begin()

    def handshakeCompleted(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
            self._begin()

    def dataReceived(self, data: bytes) -> None:
        if not self._here:
            return
        if len(self._head) < _HEAD:
            self._head = (self._head + data)[:_HEAD]
            if (name := looks_like(self._head)) is not None:
                self._send_away(f"it sent {name}")
                return
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            self._send_away("it sends data, which no viewer does", f": {self._head!r} and so on")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._here:
            return
        self._here = False
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
            why = explain(reason.value)
            if why is not None:
                self._door.turn_away(self, f"there is no TLS with it: {why}")
        try:
            if self._begun:
                self.end()
        finally:
            self._door.client_left(self)

    def _begin(self) -> None:
        self._begun = True
        try:
            self.begin()
        except Exception:
            self.fail(Failure())

    def _send_away(self, reason: str, detail: str = "") -> None:
        if not self._sent_away:
            self._sent_away = True
            self._door.turn_away(self, reason, detail)
            self.abort()

    def _too_slow(self) -> None:
        self._handshake = None
        self._door.turn_away(self, "it is too slow with the handshake of TLS")
        self.abort()


def for_each(clients: Iterable[_C], act: Callable[[_C], object]) -> None:
    """Call a function for each of some clients; one for which it raises is disconnected."""
    for client in list(clients):
        try:
            act(client)
        except Exception:
            client.fail(Failure())


class Refused(Protocol):
    """
    A connection that is closed at once.

    Where there is TLS, Twisted cannot be told so by building no protocol.
    """

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
