"""
The client protocol: decodes the stream of one connection, and passes events to callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    ITransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._checks import at_least, check_callable
from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import MAX_FRAME, StreamError, cut_off
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.keepalive import KEEPALIVE, is_over_tcp, probe_when_idle
from txmetrics_tcp._net.tls import check_server
from txmetrics_tcp._net.tls_errors import TLSError
from txmetrics_tcp._net.writers import abort

_log = Logger(namespace="txmetrics_tcp")


@implementer(IHandshakeListener)
class MetricsClientProtocol(Protocol):
    """
    One connection to a metrics server.  It passes events to a callback, either one at a time or, at
    a fraction of the cost, in the batches in which they were read.

    Invalid data closes the connection: the protocol passes on the preceding events, and then calls
    C{lost} with a `StreamError`.  As in any Twisted protocol, an exception raised by C{received} or
    C{received_many} closes the connection.

    Must be used on the reactor thread.

    @ivar events: the number of events passed on.
    @ivar batch_bytes: the size, in bytes, of the frames of the last read from which events were
        passed on.
    @ivar closed_early: whether the server closed the connection before it sent any data.
    @ivar secured: called with this protocol when the TLS handshake is complete; None for no call.
    @ivar answered: called with this protocol when the first data arrives, before its events are
        passed on; None for no call.
    @cvar keepalive: the TCP keepalive settings, which detect a dead connection.
    """

    transport: ITransport

    keepalive = KEEPALIVE

    def __init__(
        self,
        received: Callable[[Event], object] | None = None,
        *,
        received_many: Callable[[list[Event]], object] | None = None,
        connected: Callable[[MetricsClientProtocol], object] | None = None,
        lost: Callable[[MetricsClientProtocol, Failure], object] | None = None,
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param received: called with each event.
        @param received_many: called with the events of each read: a list of one to several thousand
            events, which the callback may keep.
        @param connected: called with this protocol when the connection is established.
        @param lost: called with this protocol and the reason when the connection has ended.  The
            reason is a `StreamError` if the server sent invalid data.  Without this callback, such
            an error is logged.
        @param max_frame: the largest accepted frame, in bytes; 1 or more.
        @raise TypeError: both or neither of C{received} and C{received_many} were given, or an
            argument is of the wrong type.
        @raise ValueError: C{max_frame} is less than 1.
        """
        _check_callbacks(received, received_many, connected, lost)
        self._received = received
        self._received_many = received_many
        self._connected = connected
        self._lost = lost
        self._decoder = Decoder(max_frame)
        self._closed = False
        self._failure: Failure | None = None
        self.events: int = 0
        self.batch_bytes: int = 0
        self.closed_early: bool = False
        self.secured: Callable[[MetricsClientProtocol], object] | None = None
        self.answered: Callable[[MetricsClientProtocol], object] | None = None

    @property
    def refused(self) -> int:
        """After invalid data, the number of bytes received from the invalid frame on."""
        return self._decoder.refused

    def close(self) -> None:
        """
        Close the connection.  Events already received, but not passed on yet, are discarded.

        Must be called on the reactor thread.  Further calls have no effect.
        """
        # Reset the connection: after an end of file, the server could not tell whether the client
        # closed only its sending side.  No outgoing data is lost, since a client sends none.
        if not self._closed:
            self._closed = True
            abort(self.transport)

    def connectionMade(self) -> None:
        if is_over_tcp(self.transport):
            # A client that only reads would otherwise not detect that the server's host is gone.
            probe_when_idle(self.transport, self.keepalive)
        if self._connected is not None:
            self._connected(self)

    def handshakeCompleted(self) -> None:
        """Verify the server's certificate; close the connection if it is not valid."""
        try:
            check_server(self.transport)
        except TLSError:
            self._failure = Failure()
            self.close()
            return
        if self.secured is not None:
            self.secured(self)

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            return
        if self.answered is not None:
            answered, self.answered = self.answered, None
            answered(self)
        events: list[Event] = []
        failure = None
        size = self._decoder.unfinished + len(data)
        try:
            # If this raises, the list contains the events before the invalid frame.
            events.extend(self._decoder.feed(data))
        except StreamError:
            failure = Failure()
        self.batch_bytes = size - self._decoder.unfinished
        self._pass_on(events)
        if failure is not None and not self._closed:
            self._failure = failure
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        closed, self._closed = self._closed, True
        unfinished = self._decoder.unfinished
        if self._failure is not None:
            reason = self._failure
        elif not (closed or unfinished or self.events):
            self.closed_early = isinstance(reason.value, ConnectionDone | ConnectionLost)
        elif unfinished and not closed and isinstance(reason.value, ConnectionDone):
            reason = Failure(ConnectionLost(cut_off(unfinished)))
        if self._lost is not None:
            self._lost(self, reason)
        elif self._failure is not None:
            _log.error(
                "Disconnected from {address}: {reason}",
                address=show_address(self.transport.getPeer()),
                reason=reason.getErrorMessage(),
            )

    def _pass_on(self, events: list[Event]) -> None:
        if self._received_many is not None:
            if events:
                self.events += len(events)
                self._received_many(events)
        elif self._received is not None:
            for event in events:
                self.events += 1
                self._received(event)
                if self._closed:
                    return


def _check_callbacks(
    received: object, received_many: object, connected: object, lost: object
) -> None:
    if (received is None) == (received_many is None):
        raise TypeError("pass exactly one of received and received_many")
    check_callable("received", received)
    check_callable("received_many", received_many)
    check_callable("connected", connected)
    check_callable("lost", lost)


class MetricsClientFactory(ClientFactory):
    """
    Builds `MetricsClientProtocol` instances, for use with any client endpoint::

        endpoint = clientFromString(reactor, "tcp:localhost:5000")
        endpoint.connect(MetricsClientFactory(print))

    It does not reconnect; see `MetricsClientService`.
    """

    noisy = False

    def __init__(
        self,
        received: Callable[[Event], object] | None = None,
        *,
        received_many: Callable[[list[Event]], object] | None = None,
        connected: Callable[[MetricsClientProtocol], object] | None = None,
        lost: Callable[[MetricsClientProtocol, Failure], object] | None = None,
        max_frame: int = MAX_FRAME,
    ) -> None:
        """Parameters are those of `MetricsClientProtocol`."""
        _check_callbacks(received, received_many, connected, lost)
        self._build = partial(
            MetricsClientProtocol,
            received,
            received_many=received_many,
            connected=connected,
            lost=lost,
            max_frame=at_least(1, "max_frame", max_frame),
        )

    def buildProtocol(self, addr: IAddress | None) -> MetricsClientProtocol:
        protocol = self._build()
        protocol.factory = self
        return protocol
