"""
The sources of a stream as endpoints, so that a client of a server can also be one of a source.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.address import HostnameAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import NatsAddress
from txmetrics_tcp.relay._messages import Following, Message
from txmetrics_tcp.relay._sources import BrokerAvailable, BrokerUnavailable, SourceReader

_log = Logger(namespace="txmetrics_tcp")

MAX_PENDING: Final = 64 * 1024 * 1024
"""
The maximum size, in bytes, of frames that are kept for a client that has not connected yet.  Beyond
it, the stream begins again with the next snapshot.
"""


class SourceEnded(ConnectionDone):
    """The stream of a source has ended.  The text has the reason."""

    def __str__(self) -> str:
        return str(self.args[0])


class NatsFeed:
    """
    Follows the sources of a stream of a broker.  Each is an endpoint.

    Must be used on the reactor thread.

    @ivar available: whether the broker can be read now.
    @ivar interruption: why not; empty before the first attempt.
    """

    def __init__(
        self,
        reactor: Any,
        address: NatsAddress,
        *,
        changed: Callable[[], object],
        observer: Callable[[BrokerUnavailable | BrokerAvailable], object],
        say: Callable[[str], object],
        since: datetime.datetime | None = None,
        access: Access | None = None,
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param changed: called when sources have come, gone, or begun again, or C{interruption} has
            changed.
        @param observer: called with the states of the broker.
        @param say: called with messages about sources of one line.
        @param since: see `txmetrics_tcp.relay.nats.NatsSourceService`.
        """
        self.available: bool = False
        self.interruption: str = ""
        self._reactor = reactor
        self._changed = changed
        self._observer = observer
        self._say = say
        self._max_frame = max_frame
        host, _, port = address.broker.rpartition(":")
        self._peer = HostnameAddress(host.strip("[]").encode(), int(port))
        self.reader: SourceReader[FeedSource] = SourceReader(
            reactor, address, self._make, self._broker_changed, since, access
        )

    @property
    def sources(self) -> list[FeedSource]:
        """The sources whose publishers have not stopped."""
        return [source for source in self.reader.sources.values() if source.live]

    @property
    def behind(self) -> int:
        """The number of messages that the broker had after the last delivered one."""
        return self.reader.behind

    def start(self) -> None:
        self.reader.startService()

    def stop(self) -> Deferred[None]:
        """
        Disconnect from the broker.

        @return: a Deferred that fires when this has been done.
        """
        for source in self.reader.sources.values():
            source.stop()
        return self.reader.stopService()

    def _make(self, name: str) -> FeedSource:
        return FeedSource(
            self._reactor,
            name,
            self._peer,
            Following(self._max_frame),
            self._changed,
            self._say,
            self.reader,
        )

    def _broker_changed(self, state: BrokerUnavailable | BrokerAvailable) -> None:
        reason = state.reason if isinstance(state, BrokerUnavailable) else ""
        self.available = not reason
        if reason != self.interruption:
            self.interruption = reason
            self._changed()
        self._observer(state)


@implementer(IStreamClientEndpoint)
class FeedSource:
    """
    A source, to which one client connects at a time.  An attempt to connect waits for the source.

    A connection ends when the source begins again, or its publisher has stopped, or has lost its
    server, or is silent.  A loss of messages, or of the broker, does not end it.

    @ivar name: the name of the source.
    @ivar live: whether the source has begun, and its publisher has not stopped.
    @ivar connections: how often the source has begun.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        peer: IAddress,
        following: Following,
        changed: Callable[[], object],
        say: Callable[[str], object],
        reader: SourceReader[FeedSource],
    ) -> None:
        self.name = name
        self.live: bool = False
        self.connections: int = 0
        self._reactor = reactor
        self._peer = peer
        self._following = following
        self._changed = changed
        self._say = say
        self._reader = reader
        self._connection: _Connection | None = None
        # Since the source has begun, for the next client.
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._waiting: tuple[Deferred[IProtocol], IProtocolFactory] | None = None
        self._exact = True
        # Why no events can be expected until the source begins again; empty if they can.
        self._absence = ""

    def __repr__(self) -> str:
        return self.name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._connection is None and self._pending:
            return succeed(self._connect(protocolFactory))

        def cancelled(deferred: Deferred[IProtocol]) -> None:
            self._waiting = None

        waiting: Deferred[IProtocol] = Deferred(cancelled)
        self._waiting = waiting, protocolFactory
        return waiting

    def receive(self, message: Message, time_ns: int) -> None:
        """See `txmetrics_tcp.relay._sources.ReadSource`."""
        following = self._following
        frames, begins = following.receive_frames(message, time_ns)
        if begins:
            self._begin()
        if frames and self.live:
            self._add(frames)
        if following.ended and self.live:
            self._end("its publisher has stopped")
        elif following.lost and self.live:
            self._leave("its publisher has lost the connection to its server")
        elif following.exact != self._exact and self._connection is not None:
            self._exact = following.exact
            if self._exact:
                missed = f"; {following.missed:,} events were missed so far"
                self._say(f"{self.name}: totals are exact again{missed}")
            else:
                self._say(
                    f"{self.name}: messages are missing; totals are not exact until the next"
                    " snapshot"
                )

    def check(self, now_ns: int, since_ns: int) -> None:
        """See `txmetrics_tcp.relay._sources.ReadSource`."""
        if self.live and not self._absence and self._following.silent(now_ns, since_ns):
            self._leave("its publisher is silent")
            self._following.begin_again()

    def stop(self) -> None:
        """End the stream."""
        self.live = False
        self._disconnect("its stream is not followed any more")

    def _leave(self, reason: str) -> None:
        if not self._absence:
            self._absence = reason
            self._disconnect(reason)

    def _begin(self) -> None:
        self._disconnect("it begins again: its server or its publisher has connected again")
        self._pending.clear()
        self._pending_bytes = 0
        self.live = True
        self._absence = ""
        # A snapshot of several parts is not complete yet.
        self._exact = True
        self.connections += 1

    def _end(self, reason: str) -> None:
        self.live = False
        self._disconnect(reason)
        self._changed()

    def _add(self, frames: bytes) -> None:
        if self._connection is not None:
            self._connection.deliver(frames)
            return
        first = not self._pending
        self._pending.append(frames)
        self._pending_bytes += len(frames)
        if self._pending_bytes > MAX_PENDING:
            self._pending.clear()
            self._pending_bytes = 0
            self._following.begin_again()
        elif self._waiting is not None:
            waiting, factory = self._waiting
            self._waiting = None
            waiting.callback(self._connect(factory))
        if first:
            self._changed()

    def _connect(self, factory: IProtocolFactory) -> IProtocol:
        protocol = factory.buildProtocol(self._peer)
        assert protocol is not None
        pending = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self._connection = _Connection(self._reactor, self, self._reader, protocol, self._peer)
        protocol.makeConnection(self._connection)
        # Not before the caller has the protocol.
        self._connection.deliver_later(pending)
        if self._absence:
            # The client has the last totals.
            self._reactor.callLater(0, self._disconnect, self._absence)
        return protocol

    def _disconnect(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.lose(Failure(SourceEnded(reason)))

    def left(self, connection: _Connection) -> None:
        """Called when the client has closed the connection."""
        if connection is self._connection:
            self._connection = None
            self._following.begin_again()


@implementer(ITransport)
class _Connection:
    """The transport of a client of a source."""

    disconnecting = False

    def __init__(
        self,
        reactor: Any,
        source: FeedSource,
        reader: SourceReader[FeedSource],
        protocol: IProtocol,
        peer: IAddress,
    ) -> None:
        self._reactor = reactor
        self._source = source
        self._reader = reader
        self._protocol: IProtocol | None = protocol
        self._peer = peer
        # Data that is delivered later: at the beginning, and while the client has paused.
        self._pending: list[bytes] = []
        self._later = False
        self._paused = False
        # Why the connection ends when the client has received what is pending.
        self._end: Failure | None = None

    def deliver(self, data: bytes) -> None:
        """Pass data to the client."""
        if self._later or self._paused:
            self._pending.append(data)
        elif self._protocol is not None:
            try:
                self._protocol.dataReceived(data)
            except Exception:
                failure = without_frames(Failure())
                _log.failure("A client of {source} failed", failure, source=self._source.name)
                self._source.left(self)
                self.lose(failure)

    def deliver_later(self, data: bytes) -> None:
        """Pass data to the client in the next reactor iteration, and all further data after it."""
        self._pending.append(data)
        self._later = True
        self._reactor.callLater(0, self._flush)

    def lose(self, reason: Failure) -> None:
        """End the connection, after the client has received what is pending."""
        self._flush()
        if self._paused and self._pending:
            self._end = reason
            return
        protocol, self._protocol = self._protocol, None
        self._reader.resume(self)
        if protocol is not None:
            protocol.connectionLost(reason)

    def _flush(self) -> None:
        self._later = False
        if self._paused:
            return
        pending, self._pending = b"".join(self._pending), []
        if pending:
            self.deliver(pending)

    # The interface of transports, for the client.

    def write(self, data: bytes) -> None:
        """Do nothing: clients send nothing."""

    def writeSequence(self, data: Any) -> None:
        """Do nothing."""

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._pending.clear()
        self._source.left(self)
        self._reactor.callLater(0, self.lose, Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self.loseConnection()

    def pauseProducing(self) -> None:
        self._paused = True
        self._reader.pause(self)

    def resumeProducing(self) -> None:
        self._paused = False
        self._flush()
        if self._end is not None:
            self.lose(self._end)
        self._reader.resume(self)

    def getPeer(self) -> IAddress:
        return self._peer

    def getHost(self) -> IAddress:
        return self._peer
