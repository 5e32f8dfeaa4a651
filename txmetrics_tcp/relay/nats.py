"""
Streams of many hosts through NATS JetStream: publish a server's stream, and follow published ones.

Needs the extra ``nats``.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._checks import check_callable
from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
    MetricsClientService,
)
from txmetrics_tcp._client.tee import TappedEndpoint
from txmetrics_tcp._codec.framing import MAX_FRAME, Frames
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, AnyEndpoint
from txmetrics_tcp._net.endpoints import as_endpoint, check_reactor
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import NatsAddress, check_source_name, source_token
from txmetrics_tcp.relay._broker import (
    Broker,
    RejectedError,
    StreamMissingError,
    StreamSettings,
)
from txmetrics_tcp.relay._messages import (
    BUFFER_BYTES,
    Following,
    Kind,
    Message,
    Publishing,
)
from txmetrics_tcp.relay._sources import (
    Availability,
    BrokerAvailable,
    BrokerUnavailable,
    Retries,
    SourceReader,
)

__all__ = [
    "Access",
    "BrokerAvailable",
    "BrokerUnavailable",
    "NatsAddress",
    "NatsPublisherService",
    "NatsSourceService",
    "SourceBegins",
    "SourceExact",
    "SourceState",
    "StreamSettings",
]

LINGER: Final = 0.05
"""The default time, in seconds, in which a publisher collects events for a message."""

SNAPSHOT_INTERVAL: Final = 5.0
"""The default time, in seconds, between snapshots."""

STOP_TIMEOUT: Final = 5.0
"""The time, in seconds, in which a publisher that stops publishes what is pending."""

_log = Logger(namespace="txmetrics_tcp")


@dataclass(frozen=True, slots=True)
class SourceBegins:
    """
    The next events of the source are the first ones of a connection to its server, as after a
    reconnection.  Call `txmetrics_tcp.SourceView.connected`.
    """


@dataclass(frozen=True, slots=True)
class SourceExact:
    """
    Whether the totals of the received events are those of the source.

    @ivar exact: False after a loss, until the next snapshot.
    @ivar missed: the number of events that were lost since the service has followed the source.
    @ivar ended: whether the publisher has stopped.
    @ivar connected: False if the publisher has lost its server, or has been silent for three
        snapshot intervals and ten seconds.
    """

    exact: bool
    missed: int
    ended: bool
    connected: bool = True


SourceState = SourceBegins | SourceExact


class NatsPublisherService(Service):
    """
    Connects to a metrics server as a client, and publishes its stream through a broker.

    If the broker does not take the messages, they are kept in a buffer of limited size.  Beyond it,
    the newest events are given up and counted; totals of consumers are exact again after that.

    Must be used on the reactor thread.
    """

    def __init__(
        self,
        reactor: Any,
        to: str | NatsAddress,
        source: str,
        endpoint: IStreamClientEndpoint | AnyEndpoint = DEFAULT_ENDPOINT,
        *,
        linger: float = LINGER,
        buffer_bytes: int = BUFFER_BYTES,
        snapshot_interval: float = SNAPSHOT_INTERVAL,
        settings: StreamSettings | None = None,
        access: Access | None = None,
        observer: Callable[[ConnectionState], object] | None = None,
        received: Callable[[], object] | None = None,
        broker_observer: Callable[[BrokerUnavailable | BrokerAvailable], object] | None = None,
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param to: the stream, as C{nats://HOST[:PORT]/STREAM}; it is created if it does not exist.
        @param source: the name of the source in the stream.
        @param endpoint: the server; see `txmetrics_tcp.MetricsClientService`.
        @param linger: how long events are collected for a message, in seconds.
        @param buffer_bytes: the limit of messages that the broker does not have, in bytes.  One
            snapshot may exceed it.
        @param snapshot_interval: the time between snapshots, in seconds.
        @param settings: how the stream is created.
        @param access: credentials.
        @param observer: called with the states of the connection to the server.
        @param received: called when the server has sent something.
        @param broker_observer: called with the states of the broker.
        @raise ValueError: C{to} or C{source} is not valid.
        """
        check_reactor(reactor)
        check_callable("received", received)
        check_callable("broker_observer", broker_observer)
        self._address = to if isinstance(to, NatsAddress) else NatsAddress.parse(to)
        check_source_name(source)
        self._reactor: IReactorTime = reactor
        self._source = source
        self._subject = f"{self._address.stream}.{source_token(source)}"
        self._linger = linger
        self._buffer_bytes = buffer_bytes
        self._snapshot_interval = snapshot_interval
        self._settings = StreamSettings() if settings is None else settings
        self._observer = observer
        self._on_received = received
        self._availability = Availability(broker_observer)
        self._max_frame = max_frame
        self._client = MetricsClientService(
            reactor,
            TappedEndpoint(as_endpoint(reactor, endpoint), self._tap),
            received_many=self._received,
            observer=self._state_changed,
            max_frame=max_frame,
        )
        self._broker = Broker(reactor, self._address.broker, access)
        self._retries = Retries(reactor, self._again)
        self._snapshots = LoopingCall(self._request_snapshot)
        self._snapshots.clock = reactor
        self._publishing = self._begin_epoch()
        self._frames = Frames(max_frame)
        self._events: list[Event] = []
        self._cutting: Deadline | None = None
        # Whether a request or its repetition is pending.
        self._busy = False
        self._closed = False
        self._stream_exists = False
        # The last number of a message in the stream.
        self._seq = 0
        self._stopped: Deferred[None] | None = None
        self._stopping: Deadline | None = None
        # Whether events are being given up; the number of those that were logged.
        self._giving_up = False
        self._reported = 0

    @property
    def given_up(self) -> int:
        """
        The number of events that were given up: the buffer was full, or the broker has rejected
        them, or has not taken them before the service stopped.
        """
        return self._publishing.given_up

    @property
    def events(self) -> int:
        """The number of events of the stream, including those given up."""
        return self._publishing.events

    @property
    def pending_bytes(self) -> int:
        """The approximate size of the messages that the broker does not have."""
        return self._publishing.pending_bytes

    def startService(self) -> None:
        super().startService()
        self._publishing = self._begin_epoch()
        self._busy = self._closed = self._giving_up = False
        self._reported = 0
        self._snapshots.start(self._snapshot_interval, now=False)
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """
        Disconnect from the server, and publish what is pending, for up to five seconds; not at all
        if the broker will never take it.

        @return: a Deferred that fires when this has been done.
        """
        super().stopService()
        self._snapshots.stop()
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None
        stopped: Deferred[None] = Deferred()

        def disconnected(result: object) -> None:
            self._publishing.close(_now_ns())
            self._stopped = stopped
            self._stopping = Deadline(self._reactor, STOP_TIMEOUT, self._end)
            if self._availability.refused:
                self._end()
            else:
                self._publish()

        maybeDeferred(self._client.stopService).addBoth(disconnected)
        return stopped

    def reconnect(self) -> None:
        """Connect to the server now, rather than after the delay of the next attempt."""
        self._client.stopService()
        self._client.startService()

    def _begin_epoch(self) -> Publishing:
        return Publishing(
            uuid4().hex,
            _now_ns(),
            buffer_bytes=self._buffer_bytes,
            interval_ns=int(self._snapshot_interval * 1e9),
        )

    def _state_changed(self, state: ConnectionState) -> None:
        if isinstance(state, Connected):
            self._frames = Frames(self._max_frame)
            self._events = []
            self._publishing.connected(_now_ns())
        elif isinstance(state, Disconnected) and self._stopped is None and self.running:
            self._publishing.disconnected(_now_ns())
            self._publish()
        if self._observer is not None:
            self._observer(state)

    def _received(self, events: list[Event]) -> None:
        self._events += events

    def _tap(self, data: bytes) -> None:
        if self._on_received is not None:
            self._on_received()
        frames, _ = self._frames.feed(data)
        events, self._events = self._events, []
        if frames:
            self._publishing.add(frames, events, _now_ns())
        if self._publishing.pending and self._cutting is None:
            self._cutting = Deadline(self._reactor, self._linger, self._cut)
        self._publish()
        if not self._giving_up and self.given_up > self._reported:
            self._giving_up = True
            _log.warn("The buffer is full: giving up events of {source}", source=self._source)

    def _cut(self) -> None:
        self._cutting = None
        self._publishing.cut(_now_ns())
        self._publish()

    def _request_snapshot(self) -> None:
        self._publishing.request_snapshot(_now_ns())
        self._publish()

    def _publish(self) -> None:
        """Publish the next message, unless a request or its repetition is pending."""
        if self._busy:
            return
        message = self._publishing.message()
        if message is None:
            if self._stopped is not None:
                self._end()
            return
        self._busy = True
        if not self._stream_exists:
            request: Deferred[Any] = self._broker.ensure_stream(
                self._address.stream, self._settings
            )
            request.addCallback(self._stream_ensured)
        else:
            # A consumer that joins gets the last message of each kind.
            kind = "snap" if message.kind is Kind.SNAPSHOT else "data"
            request = self._broker.publish(
                self._address.stream,
                f"{self._subject}.{kind}",
                message.payload,
                message.headers(),
            )
            request.addCallback(self._published)
        request.addErrback(self._failed)

    def _stream_ensured(self, result: None) -> None:
        self._busy = False
        self._stream_exists = True
        self._publish()

    def _published(self, seq: int) -> None:
        self._busy = False
        self._retries.reset()
        self._availability.succeeded()
        again = seq < self._seq
        self._seq = seq
        message = self._publishing.message()
        assert message is not None
        exact = message.kind is Kind.SNAPSHOT and message.given_up == self.given_up
        if self._giving_up and exact:
            self._end_giving_up()
        self._publishing.acknowledged(_now_ns())
        if again and self._stopped is None:
            # The stream has been created again, and has no snapshot of this source.
            self._publishing.require_snapshot(_now_ns())
        self._publish()

    def _failed(self, failure: Failure) -> None:
        if self._closed:
            return
        if failure.check(RejectedError):
            if not self._giving_up:
                self._giving_up = True
                _log.error(
                    "The broker rejects messages of {source}: {reason}",
                    source=self._source,
                    reason=failure.getErrorMessage(),
                )
            self._busy = False
            self._publishing.rejected(_now_ns())
            self._publish()
            return
        if failure.check(StreamMissingError):
            self._stream_exists = False
        self._availability.failed(failure)
        self._retries.again()

    def _end_giving_up(self) -> None:
        self._giving_up = False
        _log.warn(
            "Gave up {number} events of {source}, whose totals are exact again",
            number=self.given_up - self._reported,
            source=self._source,
        )
        self._reported = self.given_up

    def _again(self) -> None:
        self._busy = False
        self._publish()

    def _end(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is None:
            return
        assert self._stopping is not None
        self._closed = True
        before = self.given_up
        self._publishing.abandon()
        if self.given_up > before:
            _log.warn(
                "Gave up {number} events of {source}, which the broker has not taken",
                number=self.given_up - before,
                source=self._source,
            )
        self._stopping.cancel()
        self._retries.cancel()
        self._broker.close().addBoth(lambda result: stopped.callback(None))


class NatsSourceService(Service):
    """
    Follows the sources of a stream of a broker.

    It delivers what clients of the sources' servers receive: a status, descriptions and totals
    first.  Messages are requested when those before have been delivered, so a slow consumer falls
    behind, up to what the broker keeps, and `behind` shows how far.

    Must be used on the reactor thread.
    """

    def __init__(
        self,
        reactor: Any,
        address: str | NatsAddress,
        received_many: Callable[[str, list[Event]], object],
        *,
        observer: Callable[[str, SourceState], object] | None = None,
        broker_observer: Callable[[BrokerUnavailable | BrokerAvailable], object] | None = None,
        since: datetime.datetime | None = None,
        access: Access | None = None,
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param address: the stream and its sources, as C{nats://HOST[:PORT]/STREAM[?source=GLOB]}.
        @param received_many: called with the name of a source and its next events.
        @param observer: called with the name of a source and its `SourceState`, when it changes.
        @param broker_observer: called with the states of the broker.
        @param since: begin with the first snapshots after this time.  By default, begin with the
            last ones.
        @param access: credentials.
        @param max_frame: the largest accepted frame, in bytes.
        @raise ValueError: C{address} is not valid.
        """
        check_callable("received_many", received_many)
        check_callable("observer", observer)
        self._reader: SourceReader[_Source] = SourceReader(
            reactor,
            address if isinstance(address, NatsAddress) else NatsAddress.parse(address),
            lambda name: _Source(name, max_frame, received_many, observer),
            broker_observer,
            since,
            access,
        )

    @property
    def behind(self) -> int:
        """The number of messages that the broker had after the last delivered one."""
        return self._reader.behind

    @property
    def invalid(self) -> int:
        """The number of messages that are not valid."""
        return self._reader.invalid

    @property
    def exact(self) -> dict[str, bool]:
        """For each source, whether the totals of the received events are those of the source."""
        return {one.name: one.following.exact for one in self._reader.sources.values()}

    def startService(self) -> None:
        super().startService()
        self._reader.startService()

    def stopService(self) -> Deferred[None]:
        """
        Disconnect from the broker.

        @return: a Deferred that fires when this has been done.
        """
        super().stopService()
        return self._reader.stopService()


class _Source:
    """A source that a service follows."""

    __slots__ = ("_observer", "_received_many", "_reported", "_silent", "following", "name")

    def __init__(
        self,
        name: str,
        max_frame: int,
        received_many: Callable[[str, list[Event]], object],
        observer: Callable[[str, SourceState], object] | None,
    ) -> None:
        self.name = name
        self.following = Following(max_frame)
        self._received_many = received_many
        self._observer = observer
        # The state that the observer knows.
        self._reported = SourceExact(False, 0, False)
        self._silent = False

    def receive(self, message: Message, time_ns: int) -> None:
        """See `ReadSource`."""
        self._silent = False
        try:
            events, begins = self.following.receive(message, time_ns)
            if begins:
                self._notify(SourceBegins())
            if events:
                self._received_many(self.name, events)
        finally:
            self._report()

    def check(self, now_ns: int, since_ns: int) -> None:
        """See `ReadSource`."""
        if self.following.silent(now_ns, since_ns):
            self._silent = True
            self._report()

    def _report(self) -> None:
        following = self.following
        connected = not (self._silent or following.lost or following.ended)
        state = SourceExact(following.exact, following.missed, following.ended, connected)
        if state != self._reported:
            self._reported = state
            self._notify(state)

    def _notify(self, state: SourceState) -> None:
        if self._observer is not None:
            self._observer(self.name, state)


def _now_ns() -> int:
    return time.time_ns()
