"""
One connection to a server of metrics: a protocol that hands on the events of its stream.
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

from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import MAX_FRAME, StreamError, cut_off
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._net.keepalive import KEEPALIVE, is_over_tcp, probe_when_idle
from txmetrics_tcp._net.tls import check_server
from txmetrics_tcp._net.tls_errors import TLSError
from txmetrics_tcp._net.writers import abort

_log = Logger(namespace="txmetrics_tcp")


@implementer(IHandshakeListener)
class MetricsClientProtocol(Protocol):
    """
    One connection to a server: hands on its events as they come, one by one or, at a fraction of
    the cost, together as they were read.

    What is not a stream of metrics ends the connection, and is the reason that C{lost} is
    given; the events that came before it are handed on.  An exception from C{received} or
    C{received_many} ends it, too, as with any Twisted protocol.

    All of it belongs to the reactor thread.

    @ivar events: how many events have come.
    @ivar closed_early: whether the other end has closed the connection before anything came.
    @ivar secured: called with this protocol when the handshake of TLS is done, if there is one.
    @cvar keepalive: when a connection over TCP counts as dead though nothing comes over it.
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
        @param received_many: instead of it, called with the events of each read: a list, never
            empty, of up to some thousands, that it may keep.
        @param connected: called with this protocol when there is a connection.
        @param lost: called with this protocol, and the reason, when there is none any more:
            a `StreamError` when what came was not a stream of metrics.  Without it, that is
            logged.
        @param max_frame: the size of a frame, in bytes, past which the stream is refused.
        @raise TypeError: there is not exactly one of C{received} and C{received_many}.
        """
        _check_callbacks(received, received_many)
        self._received = received
        self._received_many = received_many
        self._made = connected
        self._lost = lost
        self._decoder = Decoder(max_frame)
        self._closed = False
        self._failure: Failure | None = None
        self.events = 0
        self.closed_early = False
        self.secured: Callable[[MetricsClientProtocol], object] | None = None

    def close(self) -> None:
        """
        Close the connection.  No more events are handed on, not even those that have come.

        To be called on the reactor thread.
        """
        # A reset rather than an end of file, which would leave the server to find out whether
        # only our sending side was closed.  There is nothing of ours to be sent.
        if not self._closed:
            self._closed = True
            abort(self.transport)

    def connectionMade(self) -> None:
        if is_over_tcp(self.transport):
            # Who only reads would otherwise never notice that the other machine is gone.
            probe_when_idle(self.transport, self.keepalive)
        if self._made is not None:
            self._made(self)

    def handshakeCompleted(self) -> None:
        """TLS is established: the server is the one that was asked for."""
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
        events: list[Event] = []
        failure = None
        try:
            # What comes out before it raises is in the list.
            events.extend(self._decoder.feed(data))
        except StreamError:
            failure = Failure()
        self._hand_on(events)
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

    def _hand_on(self, events: list[Event]) -> None:
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


def _check_callbacks(received: object, received_many: object) -> None:
    if (received is None) == (received_many is None):
        raise TypeError("give either received or received_many")


class MetricsClientFactory(ClientFactory):
    """
    Connects to a server of metrics, with any endpoint::

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
        _check_callbacks(received, received_many)
        self._build = partial(
            MetricsClientProtocol,
            received,
            received_many=received_many,
            connected=connected,
            lost=lost,
            max_frame=max_frame,
        )

    def buildProtocol(self, addr: IAddress | None) -> MetricsClientProtocol:
        protocol = self._build()
        protocol.factory = self
        return protocol
