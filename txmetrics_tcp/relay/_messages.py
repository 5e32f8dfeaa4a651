"""
The messages by which a publisher passes a stream to consumers through a broker.

A *source* is a stream with a name.  A *publisher* cuts the stream of a source into messages: whole
frames, unchanged and compressed.  From time to time, a message is a *snapshot* instead: the status,
descriptions and totals at its place.  A snapshot of many series has several parts.

The messages of one run of a publisher, an *epoch*, are numbered.  Each has the number of events
before it, including those that the publisher has given up for want of space.  From these numbers, a
consumer detects all losses, and counts the lost events.  Then, and when it begins, it follows from
the next snapshot on.

While nothing changes, a publisher sends *signs of life*, which repeat the number of the message
before them.  From them, and from their absence, a consumer sees whether a source is connected.

No I/O.  Not thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError, frame_content_size

from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import MAX_FRAME, Frames, StreamError, read_varint
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._model import METRIC_EVENTS, Event, Metric, Snapshot, Status
from txmetrics_tcp._recording.stream_state import StreamState

VERSION: Final = 1
"""The version of the format of messages.  Consumers ignore messages of later versions."""

MESSAGE_BYTES: Final = 256 * 1024
"""The size of the frames, in bytes, at which a message is complete.  The last frame may exceed
it."""

MAX_SURPLUS: Final = 4 * MESSAGE_BYTES
"""The maximum size of the content of a message, in bytes, in addition to one frame."""

BUFFER_BYTES: Final = 64 * 1024 * 1024
"""The default limit of messages that a publisher keeps until the broker has them, in bytes."""

SILENCE_NS: Final = 1_500_000_000
"""
The time, in nanoseconds, after which a consumer follows another publisher of the same source.
"""

SILENT_INTERVALS: Final = 3
MIN_SILENCE_NS: Final = 10_000_000_000
"""
A source is silent after three snapshot intervals of its publisher without a message, but not before
this time, in nanoseconds.
"""

IDLE_SNAPSHOTS: Final = 6
"""
While nothing changes, every sixth snapshot is made, so that the source stays in the broker, and
signs of life instead of the others.
"""

_OVERHEAD: Final = 300
"""The approximate size of the headers and the objects of a message, in bytes."""

_HEADER: Final = "Txmetrics"
"""
The header with all fields of a message, separated by spaces.  A header for each field would double
the time that nats-py takes for a small message.
"""

_MESSAGE_ID: Final = "Nats-Msg-Id"
"""The header by which the broker recognizes a message that was published twice."""

_STATUS_TAG: Final = encode_status(Status("", 0))[1:2]
"""What the frame of a status begins with, after its length."""

_INCOMPLETE: Final = "the last frame of a message is incomplete"

_MAX_NUMBER: Final = 2**63 - 1


class MessageError(Exception):
    """A message is not one of a publisher, or its version is unknown.  The text has the reason."""


class Kind(Enum):
    """
    What a message contains.

    @cvar DATA: frames of the stream.
    @cvar SNAPSHOT: the first part of a snapshot.
    @cvar PART: a further part of the snapshot that the message before it has begun or continued.
    @cvar SIGN: a sign of life, which contains nothing.
    """

    DATA = "data"
    SNAPSHOT = "snap"
    PART = "part"
    SIGN = "sign"


@dataclass(frozen=True, slots=True)
class Message:
    """
    A message of a publisher.

    @ivar payload: compressed frames.
    @ivar epoch: identifies the run of the publisher.
    @ivar seq: the position in the epoch, beginning with 0; of a sign of life, that of the message
        before it.
    @ivar connection: the number of the connection to the server from which the frames are.
    @ivar before: the number of metric events of the epoch before this message.
    @ivar events: the number of metric events in this message; 0 for snapshots.
    @ivar given_up: how many of C{before} the publisher has given up.
    @ivar time_ns: when the message was made, in nanoseconds since the Unix epoch.
    @ivar start_ns: when the publisher started, in nanoseconds since the Unix epoch.
    @ivar left: the number of parts of the snapshot that follow.
    @ivar last: whether the publisher has stopped after this message.
    @ivar lost: whether the publisher has lost the connection to its server.
    @ivar interval_ns: the time, in nanoseconds, in which the publisher makes another message, if it
        has not stopped.
    """

    payload: bytes
    epoch: str
    seq: int
    kind: Kind
    connection: int
    before: int
    events: int
    given_up: int
    time_ns: int
    start_ns: int
    left: int = 0
    last: bool = False
    lost: bool = False
    interval_ns: int = 0

    def headers(self) -> dict[str, str]:
        """Return the headers, from which `parse` restores the message."""
        fields = (
            *(VERSION, self.epoch, self.kind.value, self.seq, self.connection, self.before),
            *(self.events, self.given_up, self.time_ns, self.start_ns, self.left, int(self.last)),
            *(int(self.lost), self.interval_ns),
        )
        own = f"-{self.time_ns}" if self.kind is Kind.SIGN else ""
        return {
            _MESSAGE_ID: f"{self.epoch}-{self.seq}{own}",
            _HEADER: " ".join(map(str, fields)),
        }

    @classmethod
    def parse(cls, headers: Mapping[str, str], payload: bytes) -> Message:
        """
        Return the message with these headers.

        @raise MessageError: the headers are not those of a publisher, or the version is unknown.
        """
        version, *fields = headers.get(_HEADER, "").split(" ")
        try:
            if _number(version) != VERSION:
                raise MessageError(f"a message of version {version}; this is {VERSION}")
            epoch, kind, *texts = fields
            if not (0 < len(epoch) <= 64 and epoch.isascii() and epoch.isalnum()):
                raise ValueError
            numbers = map(_number, texts)
            seq, connection, before, events, given_up, time_ns, start_ns, left, *rest = numbers
            last, lost, interval_ns = rest
            return cls(
                *(payload, epoch, seq, Kind(kind), connection, before, events, given_up),
                *(time_ns, start_ns, left),
                last=bool(last),
                lost=bool(lost),
                interval_ns=interval_ns,
            )
        except ValueError:
            raise MessageError("not a message of a publisher of metrics") from None


def _number(text: str) -> int:
    if len(text) > 19 or not (text.isascii() and text.isdigit()):
        raise ValueError
    return min(int(text), _MAX_NUMBER)


class Publishing:
    """
    Cuts the stream of one source into messages, and keeps them until the broker has them.

    `message` returns one message until `acknowledged` or `rejected` is called, so that the broker
    receives messages in order.  If the messages exceed the buffer, the newest events are given up,
    and counted.  The next message after a loss is a snapshot.

    @ivar given_up: the number of events that were given up.
    @ivar events: the number of metric events of the stream outside of snapshots, after the first
        snapshot was made.
    @ivar pending_bytes: the approximate size of the messages that the broker does not have.
    """

    def __init__(
        self,
        epoch: str,
        start_ns: int,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        message_bytes: int = MESSAGE_BYTES,
        interval_ns: int = 5_000_000_000,
    ) -> None:
        """
        @param epoch: differs in each run of a publisher: 1 to 64 letters and digits.
        @param start_ns: the time, in nanoseconds since the Unix epoch.
        @param interval_ns: the interval of `request_snapshot`, in nanoseconds.
        """
        self.given_up: int = 0
        self.events: int = 0
        self.pending_bytes: int = 0
        self._epoch = epoch
        self._start_ns = start_ns
        self._buffer_bytes = buffer_bytes
        self._message_bytes = message_bytes
        self._interval_ns = interval_ns
        self._compressor = ZstdCompressor(level=1)
        self._state = StreamState()
        self._connection = 0
        # Whether the totals are those of one position of the stream: not before the first totals of
        # a connection, and not within a snapshot.
        self._settled = False
        self._reconnected = False
        # Whether there is no connection to the server.
        self._lost = False
        self._queue: deque[Message] = deque()
        self._seq = 0
        # Frames of the next message.
        self._frames: list[bytes] = []
        self._frames_bytes = 0
        self._frames_events = 0
        # The number of events before `_frames`.
        self._before = 0
        self._queued_snapshots = 0
        # Whether nothing but a snapshot may follow; whether one has been requested.
        self._owed = True
        self._requested = False
        self._begun = False
        self._closing = False
        self._unchanged = 0

    @property
    def finished(self) -> bool:
        """Whether the broker has all messages, after `close`."""
        return self._closing and not self._queue

    @property
    def pending(self) -> bool:
        """Whether there are frames that are not yet part of a message."""
        return bool(self._frames)

    def connected(self, now_ns: int) -> None:
        """Handle a new connection to the server."""
        self.cut(now_ns)
        self._connection += 1
        self._settled = False
        self._reconnected = True
        self._lost = False

    def disconnected(self, now_ns: int) -> None:
        """Handle the loss of the connection to the server, and tell consumers."""
        if not self._lost:
            self.cut(now_ns)
            self._lost = True
            self._make_sign(now_ns)

    def add(self, frames: bytes, events: list[Event], now_ns: int) -> None:
        """
        Add the next frames of the stream.

        @param frames: whole frames.
        @param events: the events in C{frames}.
        """
        number = self._follow(events)
        self._unchanged = 0
        if self._owed:
            # The snapshot will have them.  Before the first one, no consumer can miss them.
            if self._begun:
                self.events += number
                self._before += number
                self.given_up += number
            self._make_owed(now_ns)
            return
        self.events += number
        self._frames.append(frames)
        self._frames_bytes += len(frames)
        self._frames_events += number
        if self._frames_bytes >= self._message_bytes:
            self.cut(now_ns)

    def cut(self, now_ns: int) -> None:
        """
        Make a message of the frames so far, and the snapshot that was requested.  To be called
        within the linger time after `add`.
        """
        if self._frames:
            payload = self._compressor.compress(b"".join(self._frames))
            events = self._frames_events
            self._frames.clear()
            self._frames_bytes = self._frames_events = 0
            if self._queue and self.pending_bytes + len(payload) > self._buffer_bytes:
                self.given_up += events
                self._owed = True
            else:
                self._append(payload, Kind.DATA, now_ns, events)
            self._before += events
        if self._owed:
            self._make_owed(now_ns)
        elif self._requested and self._settled:
            self._make_snapshot(now_ns)

    def request_snapshot(self, now_ns: int) -> None:
        """
        Make a snapshot if anything has changed, or else a sign of life.  To be called at regular
        intervals.
        """
        self._unchanged = self._unchanged % IDLE_SNAPSHOTS + 1
        if self._unchanged == 1:
            self.require_snapshot(now_ns)
        elif not self._queue:
            self._make_sign(now_ns)

    def require_snapshot(self, now_ns: int) -> None:
        """Make a snapshot, since the broker has lost those before.  A pending one is enough."""
        if not self._queued_snapshots:
            self._requested = True
        self.cut(now_ns)

    def abandon(self) -> None:
        """Give up all messages that the broker does not have."""
        self.given_up += sum(message.events for message in self._queue)
        self._queue.clear()
        self.pending_bytes = self._queued_snapshots = 0

    def message(self) -> Message | None:
        """Return the message to publish next, which may be the same as before; or None."""
        return self._queue[0] if self._queue else None

    def acknowledged(self, now_ns: int) -> None:
        """Remove the first message, which the broker has."""
        message = self._queue.popleft()
        self.pending_bytes -= len(message.payload) + _OVERHEAD
        self._queued_snapshots -= message.kind is Kind.SNAPSHOT
        if self._owed and not self._closing:
            self._make_owed(now_ns)

    def rejected(self, now_ns: int) -> None:
        """
        Give up the first message, which the broker does not accept.  Consumers miss its number.
        """
        message = self._queue[0]
        if message.kind is Kind.DATA:
            self.given_up += message.events
            self._requested = True
        # Another snapshot at once would also be rejected.
        self.acknowledged(now_ns)

    def close(self, now_ns: int) -> None:
        """
        Add a last snapshot.  Must be called once, and no other method that adds something after it.
        """
        self.cut(now_ns)
        if self._begun:
            self._closing = True
            if self._settled:
                self._make_snapshot(now_ns, last=True)
            else:
                self._append(self._compressor.compress(b""), Kind.DATA, now_ns, last=True)
        self._closing = True

    def _follow(self, events: list[Event]) -> int:
        """Follow the state of the stream; return the number of metrics outside of snapshots."""
        if self._reconnected and events:
            self._reconnected = False
            self._state.begin_connection()
            # Rust servers send neither a status nor snapshots.
            self._settled = not isinstance(events[0], Status | Snapshot)
        settled = self._settled
        number = 0
        for event in events:
            if type(event) is Metric:
                number += settled
            elif isinstance(event, Snapshot):
                settled = event is Snapshot.END
            elif isinstance(event, Status):
                settled = settled or event.protocol_version < 1
            elif isinstance(event, METRIC_EVENTS):
                number += settled
        self._settled = settled
        self._state.follow(events)
        return number

    def _make_owed(self, now_ns: int) -> None:
        # The snapshot may exceed the buffer; half of it is free for what follows.
        if self._settled and self.pending_bytes <= self._buffer_bytes // 2:
            self._make_snapshot(now_ns)

    def _make_sign(self, now_ns: int) -> None:
        if self._begun and self.pending_bytes <= self._buffer_bytes:
            self._seq -= 1
            self._append(b"", Kind.SIGN, now_ns)

    def _make_snapshot(self, now_ns: int, last: bool = False) -> None:
        parts = list(self._parts())
        kind = Kind.SNAPSHOT
        for left in range(len(parts) - 1, -1, -1):
            payload = self._compressor.compress(parts[-1 - left])
            self._append(payload, kind, now_ns, left=left, last=last and not left)
            kind = Kind.PART
        self._begun = True
        self._owed = self._requested = False

    def _parts(self) -> Iterator[bytes]:
        frames: list[bytes] = []
        size = 0
        for frame in self._state.frames():
            if size and size + len(frame) > self._message_bytes:
                yield b"".join(frames)
                frames.clear()
                size = 0
            frames.append(frame)
            size += len(frame)
        yield b"".join(frames)

    def _append(
        self,
        payload: bytes,
        kind: Kind,
        now_ns: int,
        events: int = 0,
        left: int = 0,
        last: bool = False,
    ) -> None:
        message = Message(
            payload,
            self._epoch,
            self._seq,
            kind,
            self._connection,
            self._before,
            events,
            self.given_up,
            now_ns,
            self._start_ns,
            left,
            last,
            self._lost,
            self._interval_ns,
        )
        self._seq += 1
        self._queue.append(message)
        self._queued_snapshots += kind is Kind.SNAPSHOT
        self.pending_bytes += len(payload) + _OVERHEAD


class Delivery(NamedTuple):
    """
    What a message adds to the stream of a source.

    @ivar events: the events, in which each `Status` includes the events that were lost on the way.
    @ivar begins: whether the events are the first ones of a connection to a server.
    """

    events: list[Event]
    begins: bool


class FrameDelivery(NamedTuple):
    """
    The same, not decoded.

    @ivar frames: whole frames.
    """

    frames: bytes
    begins: bool


NOTHING: Final = Delivery([], False)
"""What a message adds that is a duplicate, or out of sync, or of another publisher."""


class Following:
    """
    Restores the stream of one source from its messages.

    Messages may be missing, duplicated and reordered.  Events are delivered once, in order.  After
    a loss, nothing is delivered until the next snapshot, which then has the totals.

    If there are several publishers of a source, one of them is followed, until it stops or is
    silent for `SILENCE_NS`, and another one makes a snapshot.

    @ivar missed: the number of events that were lost after this consumer had joined, of all
        publishers.  Losses between two publishers cannot be counted.
    @ivar given_up: how many events the followed publisher has given up since it started.
    @ivar ended: whether the followed publisher has stopped.
    @ivar lost: whether the followed publisher has lost the connection to its server.
    @ivar heard_ns: the time of the last message of the followed publisher, in nanoseconds since the
        Unix epoch.
    @ivar message_ns: when the publisher made this message.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        """
        @param max_frame: the largest accepted frame, in bytes.
        """
        self.missed: int = 0
        self.given_up: int = 0
        self.ended: bool = False
        self.lost: bool = False
        self.heard_ns: int = 0
        self.message_ns: int = 0
        self._interval_ns = 0
        self._max_frame = max_frame
        self._decoder = Decoder(max_frame)
        self._decompressor = ZstdDecompressor()
        self._epoch: str | None = None
        self._seq = 0
        self._connection = 0
        # The number of events of the epoch that were delivered or counted as missed.
        self._position = 0
        # Of `missed`, those since the connection began.
        self._missed_here = 0
        self._in_sync = False
        # Within a snapshot, the number of parts that are missing.
        self._left = 0
        self._overtaken = False
        # Whether the next delivery is the first one after `begin_again`.
        self._joining = False

    @property
    def exact(self) -> bool:
        """
        Whether the totals of the delivered events are those of a client that is connected to the
        server, when the last message was made.
        """
        return self._in_sync and not self._overtaken

    def receive(self, message: Message, time_ns: int) -> Delivery:
        """
        Handle the next message.

        @param time_ns: when the broker received the message, in nanoseconds since the Unix epoch.
        @raise MessageError: the message has invalid content.  A snapshot is needed.
        """
        begins = self._accept(message, time_ns)
        if begins is None:
            return NOTHING
        try:
            events = self._decode(message.payload)
        except MessageError:
            self._lose_sync()
            raise
        self._deliver(message, begins)
        if self._missed_here:
            events = [
                self._with_missed(event) if type(event) is Status else event for event in events
            ]
        return Delivery(events, begins)

    def receive_frames(self, message: Message, time_ns: int) -> FrameDelivery:
        """The same as `receive`, without decoding the events."""
        begins = self._accept(message, time_ns)
        if begins is None:
            return FrameDelivery(b"", False)
        try:
            data = self._decompress(message.payload)
            frames, _ = Frames(self._max_frame).feed(data)
            if len(frames) < len(data):
                raise MessageError(_INCOMPLETE)
        except (MessageError, StreamError) as error:
            self._lose_sync()
            raise MessageError(str(error)) from None
        self._deliver(message, begins)
        if self._missed_here:
            frames = b"".join(self._frames_with_missed(frames))
        return FrameDelivery(frames, begins)

    def silent(self, now_ns: int, since_ns: int) -> bool:
        """
        Whether the followed publisher has not stopped, and has not been heard for three snapshot
        intervals.

        @param now_ns: the time of the broker, in nanoseconds since the Unix epoch.
        @param since_ns: the time since which its messages would have arrived.
        """
        limit = max(SILENT_INTERVALS * self._interval_ns, MIN_SILENCE_NS)
        silence = now_ns - max(self.heard_ns, since_ns)
        return self._epoch is not None and not self.ended and silence > limit

    def begin_again(self) -> None:
        """Continue with the next snapshot, as if it were the first one."""
        self._lose_sync()
        self._joining = True

    def _accept(self, message: Message, time_ns: int) -> bool | None:
        """
        Find out whether a message is to be delivered.

        @return: whether it begins a connection; None if it is not to be delivered.
        """
        if message.epoch != self._epoch:
            if not self._is_next_epoch(message, time_ns):
                return None
            follows = begins = True
        else:
            sign = message.kind is Kind.SIGN
            if message.seq <= self._seq - sign or (sign and time_ns <= self.heard_ns):
                return None
            follows = message.seq + sign == self._seq + 1
            begins = message.connection != self._connection
        if not follows:
            self._in_sync = False
            self._left = 0
        if message.epoch != self._epoch:
            self._epoch = message.epoch
            self._position = message.before
            self._in_sync = False
            self._left = 0
        self._seq = message.seq
        self.heard_ns = max(time_ns, self.heard_ns)
        self.message_ns = message.time_ns
        self.given_up = message.given_up
        self.ended = message.last
        self.lost = message.lost
        self._interval_ns = message.interval_ns
        self._overtaken = False
        if message.before != self._position:
            self._in_sync = False
        if message.kind is Kind.SIGN:
            return None
        if message.kind is Kind.DATA:
            if not self._in_sync:
                return None
        elif message.kind is Kind.SNAPSHOT:
            if self._in_sync:
                return None
            self._left = message.left + 1
        elif self._in_sync or message.left != self._left - 1:
            return None
        return begins or self._joining

    def _is_next_epoch(self, message: Message, time_ns: int) -> bool:
        if self._epoch is None:
            return message.kind is Kind.SNAPSHOT
        # The time also excludes old messages that are delivered again.
        if time_ns <= self.heard_ns:
            return False
        if self.ended or time_ns - self.heard_ns >= SILENCE_NS:
            self._overtaken = True
            return message.kind is Kind.SNAPSHOT
        return False

    def _lose_sync(self) -> None:
        self._in_sync = False
        self._left = 0

    def _deliver(self, message: Message, begins: bool) -> None:
        if begins:
            self._connection = message.connection
            self._missed_here = 0
        if self._joining:
            self._joining = False
            self._position = message.before
        if message.kind is not Kind.DATA:
            self._left = message.left
            self._in_sync = not message.left
        lost = max(message.before - self._position, 0)
        self.missed += lost
        self._missed_here += lost
        self._position = message.before + message.events

    def _with_missed(self, status: Status) -> Status:
        return replace(status, dropped_client=status.dropped_client + self._missed_here)

    def _frames_with_missed(self, frames: bytes) -> Iterator[bytes]:
        end = 0
        while end < len(frames):
            begin = end
            length, at = read_varint(frames, begin)
            end = at + length
            frame = frames[begin:end]
            if frames[at:end].startswith(_STATUS_TAG):
                # The client reports a status that is not valid.
                with suppress(StreamError):
                    for event in Decoder(self._max_frame).feed(frame):
                        if type(event) is Status:
                            frame = encode_status(self._with_missed(event))
            yield frame

    def _decode(self, payload: bytes) -> list[Event]:
        data = self._decompress(payload)
        try:
            events = list(self._decoder.feed(data))
            if not self._decoder.unfinished:
                return events
            reason = _INCOMPLETE
        except StreamError as error:
            reason = str(error)
        self._decoder = Decoder(self._max_frame)
        raise MessageError(reason)

    def _decompress(self, payload: bytes) -> bytes:
        try:
            if not 0 <= frame_content_size(payload) <= self._max_frame + MAX_SURPLUS:
                raise MessageError("the content of a message is too large")
            return self._decompressor.decompress(payload)
        except ZstdError as error:
            raise MessageError(f"a message cannot be decompressed: {error}") from None
