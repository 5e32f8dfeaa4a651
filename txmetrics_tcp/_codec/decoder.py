"""
Decodes a stream into events.  No I/O, no Twisted: all consumers share this code.

A client of a busy program spends most of its time decoding, and protobuf alone takes four
microseconds per event: it parses, creates an object per message, and needs a call per field.  Most
frames differ from an earlier frame only in timestamp and value.  Protobuf therefore parses new
frames, and `frame_cache.py` stores the result under the frame's constant bytes.  If a later frame
has the same constant bytes, this module itself reads the timestamp and the value.  Protobuf parses
all other frames, including unusual and invalid ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._checks import at_least
from txmetrics_tcp._codec.frame_cache import LOW, MAX_REMEMBERED_FRAME, Memory
from txmetrics_tcp._codec.framing import (
    MAX_FRAME,
    NOT_A_STREAM,
    StreamError,
    cut_off,
    read_varint,
    too_long,
)
from txmetrics_tcp._codec.wire import BOUNDARY, KIND_NUMBER
from txmetrics_tcp._distribution import MAX_BUCKETS, Distribution
from txmetrics_tcp._model import (
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    Unknown,
)

PIECE = 64 * 1024
"""The approximate number of bytes that are decoded at a time."""

# Appended to the buffer, so that code that inspects the start of a frame needs no bounds checks.
_PAD = bytes(16)


class Decoder:
    """
    Decodes the bytes of a stream into events, incrementally.

    It does no I/O.  It buffers the last piece and at most one incomplete frame.  After a
    `StreamError` the decoder cannot be used any further, because the start of the next frame is
    unknown.  Not thread-safe.

        >>> from txmetrics_tcp import Metadata, MetricKind, encode_metadata
        >>> decoder = Decoder()
        >>> list(decoder.feed(encode_metadata(Metadata(MetricKind.COUNTER, "requests"))))
        [Metadata(kind=<MetricKind.COUNTER: 'counter'>, name='requests', unit=None, description='')]

    @ivar refused: after a `StreamError`, the number of bytes that were received and not decoded,
        from the start of the invalid frame on; otherwise 0.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        """
        @param max_frame: the largest accepted frame, in bytes; 0 or more.
        @raise TypeError: C{max_frame} is not a whole number.
        @raise ValueError: C{max_frame} is negative.
        """
        self._max_frame = at_least(0, "max_frame", max_frame)
        # `_buffer` is decoded from `_offset` on.  Bytes that arrive later are collected in
        # `_received` until their number is `_needed`, which is 0 while `_buffer` may contain a
        # complete frame.
        self._buffer = _PAD
        self._offset = 0
        self._received = bytearray()
        self._needed = 1
        # Decoded events that the caller has not consumed.
        self._decoded: Iterator[Event] = iter(())
        self._failure: str | None = None
        self._begun = False
        self._memory = Memory()
        self.refused: int = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """
        Add the next piece of the stream, and return an iterator over the events that are complete.

        Pieces of any size are accepted.  The decoder keeps the piece even if the iterator is not
        exhausted; the next call's iterator then yields the remaining events, and the earlier
        iterator must not be used again.  Empty frames, and frames whose variant of ``Event`` this
        version does not know, are skipped.

        @raise StreamError: while iterating, after the events before the invalid frame.
        """
        if self._failure is None:
            self._received += data
        # chain is implemented in C.  A generator would cost as much per event as decoding a number.
        return chain.from_iterable(self._batches())

    @property
    def unfinished(self) -> int:
        """
        The number of bytes received of an incomplete frame; 0 between frames.  Includes complete
        frames while the last iterator is not exhausted.
        """
        return len(self._buffer) - len(_PAD) - self._offset + len(self._received)

    def _batches(self) -> Iterator[Iterator[Event]]:
        while True:
            # If the caller stops iterating, the remaining events stay in `_decoded`.
            yield self._decoded
            if self._failure is not None:
                raise StreamError(self._failure)
            if self._needed:
                # The first bytes are examined as they arrive, to recognize other protocols early.
                # After that, bytes are appended only once a frame is complete.  Otherwise, a large
                # frame that arrives in small pieces would be copied for each piece.
                long = self._begun or self.unfinished > _MAX_BANNER
                if not self._received or (len(self._received) < self._needed and long):
                    return
                rest = self._buffer[self._offset : -len(_PAD)]
                self._buffer = b"".join((rest, self._received, _PAD))
                self._received = bytearray()
                self._offset = 0
            self._decoded = iter(self._decode())

    def _decode(self) -> list[Event]:
        """
        Decode about `PIECE` bytes of the buffer, up to an incomplete or invalid frame.

        A single loop without a call per event, because clients spend most of their time here.
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
        self._needed = 0
        while at < piece:
            # Inlined `read_varint`, for lengths of one or two bytes, as cached frames have.
            size = buffer[at]
            if size < 0x80:
                end = at + 1 + size
                stamp = at + 7 + buffer[at + 4]
            else:
                end = at + 2 + (size & 0x7F | buffer[at + 1] << 7)
                stamp = at + 9 + buffer[at + 6]
            layout = layouts.get(buffer[at:stamp]) if end <= stop else None
            while layout is not None:
                # The head determines the size of the frame, so unpack cannot read past its end.
                unpack, high_values, top_values, number_values, tails, layout = layout
                second, low, high, top, tail, value = unpack(buffer, stamp)
                found = tails.get(tail)
                if found is None:
                    continue
                if second != second_bytes:
                    if not memory.set_second(second):
                        continue
                    second_bytes, second_ns = memory.second
                nanos = LOW[low] + high_values[high] + top_values[top]
                if nanos < 0:
                    continue
                if number_values is not None:
                    value = number_values[value]
                    if value < 0:
                        continue
                key, operation = found
                add(_new(Metric, (key, operation, value, second_ns + nanos)))
                at = end
                break
            else:
                try:
                    end, event = self._decode_frame(at, stop)
                except StreamError:
                    # `_batches` raises it after the events before the frame.
                    self.refused = stop - at
                    return events
                if end > stop:
                    break
                if event is not None:
                    add(event)
                at = end
        self._offset = at
        if at == stop:
            self._needed = 1
        return events

    def _decode_frame(self, at: int, stop: int) -> tuple[int, Event | None]:
        """
        Decode the frame at an offset, without the cache.

        @return: the offset after the frame, greater than C{stop} if the frame is incomplete; and
            the event, or None.
        """
        buffer = self._buffer
        if not self._begun:
            self._reject_other_protocols()
        try:
            length, begin = read_varint(buffer, at)
        except StreamError as error:
            raise self._fail(str(error)) from None
        if begin > stop:
            # The length extends into the padding.
            self._needed = 1
            return begin, None
        if length > self._max_frame:
            raise self._fail(too_long(length, self._max_frame))
        end = begin + length
        if end > stop:
            self._needed = end - stop
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
            if which == "snapshot":
                return _snapshot(event.snapshot)
            if which == "gone":
                return _gone(event.gone)
            if which == "histogram_total":
                return _histogram_total(event.histogram_total)
        except (DecodeError, UnicodeDecodeError) as error:
            # UnicodeDecodeError comes from the pure Python implementation of protobuf.
            raise self._fail(
                f"a frame of {len(message)} bytes is not a valid event: {error}"
            ) from None
        return None

    def _reject_other_protocols(self) -> None:
        # Not delayed until a frame is complete: many servers send one line, and then wait.
        for beginning, name in _OTHER_PROTOCOLS:
            if self._buffer.startswith(beginning):
                raise self._fail(f"it looks like {name}")

    def _fail(self, reason: str) -> StreamError:
        if not self._begun:
            for beginning, name in _POSSIBLE_PROTOCOLS:
                if self._buffer.startswith(beginning):
                    reason += f" (it looks like {name})"
        self._failure = f"{NOT_A_STREAM}: {reason}"
        self._buffer = _PAD
        self._offset = 0
        self._received = bytearray()
        self._memory = Memory()
        return StreamError(self._failure)


def decode(data: bytes, max_frame: int = MAX_FRAME) -> list[Event]:
    """
    Decode a complete stream that is in memory.

        >>> from txmetrics_tcp import Metadata, MetricKind, encode_metadata
        >>> decode(encode_metadata(Metadata(MetricKind.GAUGE, "load")))
        [Metadata(kind=<MetricKind.GAUGE: 'gauge'>, name='load', unit=None, description='')]

    @param max_frame: the largest accepted frame, in bytes; 0 or more.
    @raise StreamError: the data is not a valid stream, or ends with an incomplete frame.
    """
    decoder = Decoder(max_frame)
    events = list(decoder.feed(data))
    if decoder.unfinished:
        raise StreamError(cut_off(decoder.unfinished))
    return events


_MAX_BANNER = 16

_new = tuple.__new__


def _metric(message: pb.Metric) -> Metric | Unknown:
    which = message.WhichOneof("operation")
    if which is None:
        return _UNKNOWN_OPERATION
    operation = _OPERATION_OF_FIELD[which]
    return Metric(
        _key(operation.kind, message),
        operation,
        getattr(message, which),
        _nanoseconds(message.timestamp) if message.HasField("timestamp") else None,
    )


def _metadata(message: pb.Metadata) -> Metadata | Unknown:
    kind = _KIND_OF_NUMBER.get(message.metric_type)
    if kind is None:
        return _UNKNOWN_KIND
    unit = message.unit_value if message.HasField("unit_value") else None
    return Metadata(kind, message.name, unit, message.description_value)


def _status(message: pb.Status) -> Status:
    return Status(
        message.source,
        _nanoseconds(message.started) if message.HasField("started") else None,
        message.dropped_incoming,
        message.dropped_client,
        message.protocol_version,
    )


def _snapshot(message: pb.Snapshot) -> Snapshot | None:
    begins = message.boundary == pb.Snapshot.Boundary.BOUNDARY_BEGIN
    return _SNAPSHOT_OF_NUMBER.get((message.boundary, begins and message.complete))


def _gone(message: pb.Gone) -> Gone | Unknown:
    kind = _KIND_OF_NUMBER.get(message.metric_type)
    if kind is None:
        return _UNKNOWN_GONE
    return Gone(
        _key(kind, message),
        _nanoseconds(message.timestamp) if message.HasField("timestamp") else None,
    )


def _histogram_total(message: pb.HistogramTotal) -> HistogramTotal | Unknown:
    try:
        distribution = Distribution.from_buckets(
            message.scale,
            _buckets(message.positive),
            _buckets(message.negative),
            sum=message.sum,
            min=message.min,
            max=message.max,
            zeros=message.zeros,
            not_finite=message.not_finite,
        )
    except ValueError:
        return _UNKNOWN_DISTRIBUTION
    return HistogramTotal(
        _key(MetricKind.HISTOGRAM, message),
        distribution,
        _nanoseconds(message.timestamp) if message.HasField("timestamp") else None,
    )


def _buckets(message: pb.HistogramTotal.Buckets) -> list[tuple[int, int]]:
    """
    @raise ValueError: the numbers of indices and counts differ, or are too large.
    """
    if len(message.indices) > MAX_BUCKETS:
        raise ValueError
    return list(zip(message.indices, message.counts, strict=True))


def _key(kind: MetricKind, message: pb.Metric | pb.Gone | pb.HistogramTotal) -> Key:
    return Key(kind, message.name, tuple(sorted(message.labels.items())))


def _nanoseconds(timestamp: Timestamp) -> int:
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


_KIND_OF_NUMBER: dict[int, MetricKind] = {number: kind for kind, number in KIND_NUMBER.items()}
_SNAPSHOT_OF_NUMBER: dict[tuple[int, bool], Snapshot] = {
    number: boundary for boundary, number in BOUNDARY.items()
}
_UNKNOWN_OPERATION = Unknown("a metric without a known operation")
_UNKNOWN_KIND = Unknown("a description of an unknown kind of metric")
_UNKNOWN_GONE = Unknown("a gone series of an unknown kind of metric")
_UNKNOWN_DISTRIBUTION = Unknown("an invalid total of a histogram")
_OPERATION_OF_FIELD = {operation.name.lower(): operation for operation in Operation}

# Other protocols, by the first bytes that their servers send.  A metrics stream never starts with
# these bytes: the byte after the length is not the tag of a field of Event.  Protobuf alone would
# not reject all of them: it would skip a "220 …" of 51 bytes or more as an unknown kind of event.
_OTHER_PROTOCOLS: Iterable[tuple[bytes, str]] = (
    (b"HTTP/", "an HTTP server"),
    (b"SSH-", "an SSH server"),
    (b"220 ", "an FTP or mail server"),
    (b"220-", "an FTP or mail server"),
    (b"\x15\x03", "TLS"),
    (b"\x16\x03", "TLS"),
    (b"<?", "HTML or XML"),
)

# A metrics stream may start with these bytes.  If it is invalid, this protocol is a likely reason.
_POSSIBLE_PROTOCOLS: Iterable[tuple[bytes, str]] = (
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
)
