"""
Bytes to events.  No I/O, no Twisted: the same code serves every consumer.

A consumer of a busy program decodes most of the time, and protobuf's own way takes four
microseconds an event: a parse, and an object for each message and a call for each field of it.  But
most frames are like one that came before, but for a timestamp and a number.  So protobuf parses
what is new, and what it made of it is remembered by the bytes of the frame (`frame_cache.py`); of a
frame that has the same bytes in the same places, only timestamp and number are read, by hand.  All
else, including all that is odd or wrong, goes to protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from txmetrics_tcp._codec import event_pb2 as pb
from txmetrics_tcp._codec.frame_cache import LOW, MAX_REMEMBERED_FRAME, Memory
from txmetrics_tcp._codec.framing import (
    MAX_FRAME,
    NOT_A_STREAM,
    StreamError,
    cut_off,
    read_varint,
    too_long,
)
from txmetrics_tcp._codec.wire import KIND_NUMBER
from txmetrics_tcp._model import Event, Key, Metadata, Metric, MetricKind, Operation, Status

PIECE = 64 * 1024
"""About how many bytes are decoded at a time."""

_PAD = bytes(16)
# Behind what has come, so that what looks at a frame need not look whether there is one.


class Decoder:
    """
    Turns the bytes of a stream into events, however they are cut into pieces.

    It holds at most one unfinished frame, beside the piece that it was given last.  Once it has
    raised `StreamError`, it stays useless: there is no way to find the next frame in a stream that
    went wrong.

        >>> decoder = Decoder()
        >>> list(decoder.feed(encode_metadata(Metadata(MetricKind.COUNTER, "requests"))))
        [Metadata(kind=<MetricKind.COUNTER: 'counter'>, name='requests', unit=None, description='')]

    @ivar refused: once it has raised, how many bytes it has not decoded: the frame that is wrong,
        and what was received after it.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        """
        @param max_frame: the size of a frame, in bytes, past which the stream is refused.
        """
        self._max_frame = max_frame
        # What is being decoded, from the offset on; what came behind it; and how much of that it
        # takes to go on: 0 while the buffer may have a whole frame.
        self._buffer = _PAD
        self._offset = 0
        self._held = bytearray()
        self._wanted = 1
        # Decoded, and not asked for yet.
        self._decoded: Iterator[Event] = iter(())
        self._failure: str | None = None
        self._begun = False
        self._memory = Memory()
        self.refused = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """
        Take the next piece of the stream, and return the events that it completes.

        The piece is taken at once, also if the iterator is not used to its end.  What was not used
        comes out of the next call's, and that iterator is of no use any more then.  Frames that
        say nothing to this version (empty ones, and kinds of event that came later) are skipped.

        @raise StreamError: while iterating, at the first thing that is not a metrics stream.
        """
        if self._failure is None:
            self._held += data
        # In C: a generator that all events pass through would cost as much as reading a number.
        return chain.from_iterable(self._pieces())

    @property
    def unfinished(self) -> int:
        """How many bytes have come of a frame that is not complete."""
        return len(self._buffer) - len(_PAD) - self._offset + len(self._held)

    def _pieces(self) -> Iterator[Iterator[Event]]:
        while True:
            # The rest of it stays here, if it is not used to its end.
            yield self._decoded
            if self._failure is not None:
                raise StreamError(self._failure)
            if self._wanted:
                # Byte by byte at the beginning, to see at once what is no stream of ours; later
                # only when a frame is complete, or one that comes in small pieces would be copied
                # with each.
                long = self._begun or self.unfinished > _MAX_BANNER
                if not self._held or (len(self._held) < self._wanted and long):
                    return
                rest = self._buffer[self._offset : -len(_PAD)]
                self._buffer = b"".join((rest, self._held, _PAD))
                self._held = bytearray()
                self._offset = 0
            self._decoded = iter(self._decode())

    def _decode(self) -> list[Event]:
        """
        Decode the next piece of the buffer, up to what is incomplete or wrong.

        All in one loop, without a call for each event: this is where a consumer spends its time.
        """
        buffer = self._buffer
        at = self._offset
        stop = len(buffer) - len(_PAD)
        piece = min(stop, at + PIECE)
        memory = self._memory
        layouts = memory.layouts
        second_bytes, second_ns = memory.second
        events: list[Event] = []
        add = events.append
        self._wanted = 0
        while at < piece:
            # `read_varint`, for the lengths that remembered frames have.
            size = buffer[at]
            if size < 0x80:
                end = at + 1 + size
                stamp = at + 7 + buffer[at + 4]
            else:
                end = at + 2 + (size & 0x7F | buffer[at + 1] << 7)
                stamp = at + 9 + buffer[at + 6]
            layout = layouts.get(buffer[at:stamp]) if end <= stop else None
            while layout is not None:
                # Behind this head, a frame of this size has room for what is unpacked here.
                unpack, high_worth, top_worth, value_worth, tails, layout = layout
                second, low, high, top, tail, value = unpack(buffer, stamp)
                found = tails.get(tail)
                if found is None:
                    continue
                if second != second_bytes:
                    if not memory.turn(second):
                        continue
                    second_bytes, second_ns = memory.second
                nanos = LOW[low] + high_worth[high] + top_worth[top]
                if nanos < 0:
                    continue
                if value_worth is not None:
                    value = value_worth[value]
                    if value < 0:
                        continue
                key, operation = found
                add(_new(Metric, (key, operation, value, second_ns + nanos)))
                at = end
                break
            else:
                try:
                    end, event = self._any(at, stop)
                except StreamError:
                    # Said once those before it have been.
                    self.refused = stop - at
                    return events
                if end > stop:
                    break
                if event is not None:
                    add(event)
                at = end
        self._offset = at
        if at == stop:
            self._wanted = 1
        return events

    def _any(self, at: int, stop: int) -> tuple[int, Event | None]:
        """
        Decode any frame.

        @return: where it ends, behind C{stop} if it is not complete; and what it says to us.
        """
        buffer = self._buffer
        if not self._begun:
            self._look_at_beginning()
        try:
            length, begin = read_varint(buffer, at)
        except StreamError as error:
            raise self._fail(str(error)) from None
        if begin > stop:
            # It ends in the padding.
            self._wanted = 1
            return begin, None
        if length > self._max_frame:
            raise self._fail(too_long(length, self._max_frame))
        end = begin + length
        if end > stop:
            self._wanted = end - stop
            return end, None
        event = self._parse(buffer[begin:end]) if length else None
        self._begun = True
        if type(event) is Metric and end - at <= MAX_REMEMBERED_FRAME:
            self._memory.remember(buffer[at:end], event)
        return end, event

    def _parse(self, message: bytes) -> Event | None:
        try:
            event = pb.Event.FromString(message)
            which = event.WhichOneof("event")
            if which == "metric":
                return _metric(event.metric)
            if which == "metadata":
                return _metadata(event.metadata)
            if which == "status":
                return _status(event.status)
        except (DecodeError, UnicodeDecodeError) as error:
            # The second where protobuf is the one in pure Python.
            raise self._fail(f"a frame of {len(message)} bytes is no event: {error}") from None
        return None

    def _look_at_beginning(self) -> None:
        # Said at once, without waiting for the rest of what would be a frame: many a server sends
        # one line, and then waits itself.
        for beginning, name in _OTHERS:
            if self._buffer.startswith(beginning):
                raise self._fail(f"it looks like {name}")

    def _fail(self, reason: str) -> StreamError:
        if not self._begun:
            for beginning, name in _PERHAPS:
                if self._buffer.startswith(beginning):
                    reason += f" (it looks like {name})"
        self._failure = f"{NOT_A_STREAM}: {reason}"
        self._buffer = _PAD
        self._offset = 0
        self._held = bytearray()
        self._memory = Memory()
        return StreamError(self._failure)


def decode(data: bytes, max_frame: int = MAX_FRAME) -> list[Event]:
    """
    Decode a whole stream that is in memory.

    @raise StreamError: it is none, or it ends within a frame.
    """
    decoder = Decoder(max_frame)
    events = list(decoder.feed(data))
    if decoder.unfinished:
        raise StreamError(cut_off(decoder.unfinished))
    return events


_MAX_BANNER = 16

_new = tuple.__new__


def _metric(message: pb.Metric) -> Metric | None:
    which = message.WhichOneof("operation")
    if which is None:
        return None
    operation = _OPERATION_OF_FIELD[which]
    return Metric(
        Key(operation.kind, message.name, tuple(sorted(message.labels.items()))),
        operation,
        getattr(message, which),
        _nanoseconds(message.timestamp),
    )


def _metadata(message: pb.Metadata) -> Metadata | None:
    kind = _KIND_OF_NUMBER.get(message.metric_type)
    if kind is None:
        return None
    unit = message.unit_value if message.HasField("unit_value") else None
    return Metadata(kind, message.name, unit, message.description_value)


def _status(message: pb.Status) -> Status:
    return Status(
        message.source,
        _nanoseconds(message.started),
        message.dropped_incoming,
        message.dropped_client,
    )


def _nanoseconds(timestamp: Timestamp) -> int:
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


_KIND_OF_NUMBER: dict[int, MetricKind] = {number: kind for kind, number in KIND_NUMBER.items()}
_OPERATION_OF_FIELD = {operation.name.lower(): operation for operation in Operation}

# What else tends to listen on a port, by the first bytes that it sends.  No stream of ours begins
# like these: taken for a frame, the byte behind the length is no field that any message has.  That
# is not wrong by itself: "220 …" of 51 bytes or more would be an event of a kind that came later.
_OTHERS: Iterable[tuple[bytes, str]] = (
    (b"HTTP/", "an HTTP server"),
    (b"SSH-", "an SSH server"),
    (b"220 ", "an FTP or mail server"),
    (b"220-", "an FTP or mail server"),
    (b"\x15\x03", "TLS"),
    (b"\x16\x03", "TLS"),
    (b"<?", "HTML or XML"),
)

# A stream of ours could begin like these; but one that is wrong has probably not.
_PERHAPS: Iterable[tuple[bytes, str]] = (
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
)
