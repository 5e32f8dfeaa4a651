"""
Encodes metric events.  No I/O, no Twisted.

A busy exporter spends most of its time encoding, so this module encodes without protobuf.  A metric
frame has the following layout, with optional parts and the value in brackets::

    length 12 length 0a name 12 length 08 second 10 [nanos] 1a label 1a label tag [value]
    '------------------- the head ----------------'         '------ the tail ----'

Head and tail are the same for all events of a series with the same operation, the same size of the
value, and a timestamp in the same `Period`.  They are therefore built once per period, from the
name and labels that protobuf serialized when the series was created.  One `struct.Struct` packs the
frame.

The result is identical to that of protobuf's ``SerializeToString(deterministic=True)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, Protocol

from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec.framing import frame, varint
from txmetrics_tcp._codec.wire import encode_gone, timestamp_of
from txmetrics_tcp._model import Gone, Key, Metric, MetricKind, Operation

KEPT = 256 * 1024
"""The size of an encoder's buffer, in bytes, above which the encoder does not keep it."""

GONE: Any = 0
"""In place of an operation, with the value 0: the series is gone; see `Gone`."""

_SET_COUNTER = Operation.SET_COUNTER

# The tag byte of each operation: its field number and wire type (0: varint, 1: eight bytes).
_TAG = {
    operation: bytes([operation << 3 | (0 if operation.kind is MetricKind.COUNTER else 1)])
    for operation in Operation
}

# Tables of varint bytes other than the last: two bytes for 14 bits of a number, and one byte for 7.
# A timestamp's nanoseconds have up to 30 bits that differ in every event, and a table look-up is
# faster than a loop.
_TWO = [(bits & 0x7F | 0x80) | (bits >> 7 | 0x80) << 8 for bits in range(1 << 14)]
_ONE = [bits | 0x80 for bits in range(1 << 7)]


class Period(NamedTuple):
    """
    A part of a second in which the nanoseconds are encoded in the same number of bytes.

    The nanoseconds are packed in three parts: with the tables C{low} and C{middle}, and the
    remaining high bits.

    @ivar second_ns: the start of the second, in nanoseconds since the epoch.
    @ivar since: the first nanosecond of the period, within the second.
    @ivar until: the first nanosecond after the period.
    @ivar stamp: the constant start of its timestamps, with their tag and size.
    @ivar nanos: the number of bytes of the nanoseconds.
    @ivar layout: the `struct` format of the nanoseconds.
    """

    second_ns: int
    since: int
    until: int
    stamp: bytes
    nanos: int
    layout: str
    low: list[int]
    low_bits: int
    middle_from: int
    middle: list[int]
    middle_bits: int
    top_from: int

    @classmethod
    def of(cls, timestamp_ns: int) -> Period:
        """
        Return the period of a timestamp; `_UNCACHED` for the first 16 microseconds of a second,
        which are too rare to be worth a layout.
        """
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        second_ns = timestamp_ns - nanos
        for since, until, width, layout, *tables in _PERIODS:
            if since <= nanos < until:
                # Protobuf encodes a negative number as 64 bits in two's complement.
                seconds = b"\x08" + varint(second % 2**64) if second else b""
                size = len(seconds) + 1 + width
                stamp = b"\x12" + bytes([size]) + seconds + b"\x10"
                return cls(second_ns, since, until, stamp, width, layout, *tables)
        return _UNCACHED


_PERIODS: list[tuple[Any, ...]] = [
    (1 << 28, 1_000_000_000, 5, "HHB", _TWO, 0x3FFF, 14, _TWO, 0x3FFF, 28),
    (1 << 21, 1 << 28, 4, "HBB", _TWO, 0x3FFF, 14, _ONE, 0x7F, 21),
    (1 << 14, 1 << 21, 3, "BBB", _ONE, 0x7F, 7, _ONE, 0x7F, 14),
]
_UNCACHED = Period(0, 1, 0, b"", 0, "", [], 0, 0, [], 0, 0)

Layout = tuple[Period, Callable[..., None], bytes, bytes, int]
"""How to pack a frame: its period, a `Struct.pack_into`, head, tail, and the frame's size."""


class SeriesFrame:
    """
    The constant parts of the frames of one series.

    @ivar layouts: layouts by operation.  If the value is a varint of more than one byte, the key is
        C{operation | size << 4}.
    """

    __slots__ = ("_key", "_labels", "_name", "layouts")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._name = pb.Metric(name=key.name).SerializeToString(deterministic=True)
        self._labels = pb.Metric(labels=dict(key.labels)).SerializeToString(deterministic=True)
        self.layouts: dict[int, Layout] = {}

    def lay_out(self, period: Period, operation: Operation, value: float | bytes) -> Layout:
        """
        Create the layout of a frame, and store it.

        @param value: for a counter, the encoded varint, or the value itself if it fits in one byte.
        """
        if isinstance(value, bytes):
            which, number, width = operation | len(value) << 4, f"{len(value)}s", len(value)
        elif operation <= _SET_COUNTER:
            which, number, width = int(operation), "B", 1
        else:
            which, number, width = int(operation), "d", 8
        tail = self._labels + _TAG[operation]
        size = len(self._name) + len(period.stamp) + period.nanos + len(tail) + width
        metric = b"\x12" + varint(size) + self._name + period.stamp
        rest = period.nanos + len(tail) + width
        head = varint(len(metric) + rest) + metric
        pack = _packer(f"<{len(head)}s{period.layout}{len(tail)}s{number}")
        layout = self.layouts[which] = (period, pack, head, tail, len(head) + rest)
        return layout

    def encode_total(self, operation: Operation, total: float, stamp: bytes) -> bytes:
        """
        Encode a total.  Unlike an `Encoder`, it stores no layout, which would take ten times the
        memory of the total.

        @param operation: sets a counter or a gauge.
        @param stamp: the result of `encode_stamp`.
        """
        value = _varint(total) if operation is _SET_COUNTER else _pack_double(total)
        metric = b"".join((self._name, stamp, self._labels, _TAG[operation], value))
        head = b"\x12" + _varint(len(metric))
        return b"".join((_varint(len(head) + len(metric)), head, metric))

    def encode(self, operation: Operation, value: float, timestamp_ns: int | None) -> bytes:
        """Encode one event with protobuf."""
        if operation is GONE:
            return encode_gone(Gone(self._key, timestamp_ns))
        metric = pb.Metric(
            name=self._key.name,
            labels=dict(self._key.labels),
            timestamp=timestamp_of(timestamp_ns),
        )
        setattr(metric, operation.name.lower(), value)
        return frame(pb.Event(metric=metric).SerializeToString(deterministic=True))


@lru_cache(maxsize=1024)
def _packer(layout: str) -> Callable[..., None]:
    return Struct(layout).pack_into


_varint = lru_cache(maxsize=1024)(varint)
_pack_double = Struct("<d").pack


def encode_stamp(timestamp_ns: int) -> bytes:
    """Encode the timestamp field of a metric."""
    return pb.Metric(timestamp=timestamp_of(timestamp_ns)).SerializeToString()


class Framed(Protocol):
    """A series with the constant parts of its frames."""

    @property
    def frame(self) -> SeriesFrame: ...


class Encoder:
    """
    Encodes events in batches.  Not thread-safe.

    It caches the last period, which consecutive events nearly always share.
    """

    __slots__ = ("_buffer", "_clock", "_period")

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """
        @param clock: returns the time for events without one, in nanoseconds since the epoch.
        """
        self._clock = clock
        self._period = _UNCACHED
        self._buffer = bytearray(256)

    def encode(self, entries: Iterable[tuple[Framed, Any, Any, int]]) -> tuple[bytes, list[int]]:
        """
        Encode events as complete frames.

        A single loop without a call for each part of a frame: an exporter spends most of its time
        here, and calls would double it.

        @param entries: series, operation, value, and nanoseconds since the epoch.  The time is
            negative if the clock is set to a time before the epoch.  An event with a time of 0 gets
            the current time of C{clock}.
        @return: the concatenated frames, and the end offset of each.
        """
        buffer = self._buffer
        room = len(buffer)
        at = 0
        ends: list[int] = []
        add = ends.append
        period = self._period
        second_ns, since, until, *_ = period
        low, low_bits, middle_from, middle, middle_bits, top_from = period[6:]
        for series, operation, value, timestamp_ns in entries:
            frame = series.frame
            # Relative to the second, because small integers are compared faster.
            nanos = timestamp_ns - second_ns
            if not since <= nanos < until:
                timestamp_ns = timestamp_ns or self._clock()
                nanos = timestamp_ns - second_ns
                if not since <= nanos < until:
                    period = self._period = Period.of(timestamp_ns)
                    second_ns, since, until, *_ = period
                    low, low_bits, middle_from, middle, middle_bits, top_from = period[6:]
                    nanos = timestamp_ns - second_ns
            if value >= 0x80 and operation <= _SET_COUNTER:
                number = _varint(value)
                layout = frame.layouts.get(operation | len(number) << 4)
            else:
                number = value
                layout = frame.layouts.get(operation)
            if layout is None or layout[0] is not period:
                if period.nanos == 0 or operation is GONE:
                    whole = frame.encode(operation, value, timestamp_ns)
                    buffer[at:] = whole
                    room = len(buffer)
                    at += len(whole)
                    add(at)
                    continue
                layout = frame.lay_out(period, operation, number)
            _, pack, head, tail, size = layout
            end = at + size
            if end > room:
                buffer += bytes(end)
                room = len(buffer)
            pack(
                buffer,
                at,
                head,
                low[nanos & low_bits],
                middle[nanos >> middle_from & middle_bits],
                nanos >> top_from,
                tail,
                number,
            )
            add(end)
            at = end
        joined = bytes(memoryview(buffer)[:at])
        if room > KEPT:
            self._buffer = bytearray(256)
        return joined, ends


class _SingleSeries:
    """A series for a single event."""

    __slots__ = ("frame",)

    def __init__(self, key: Key) -> None:
        self.frame = SeriesFrame(key)


def encode_metric(metric: Metric) -> bytes:
    """
    Encode one metric event, as a complete frame.

        >>> from txmetrics_tcp import Key, Metric, MetricKind, Operation, decode
        >>> key = Key.of(MetricKind.COUNTER, "requests_total")
        >>> metric = Metric(key, Operation.INCREMENT_COUNTER, 1, 1_700_000_000_000_000_000)
        >>> decode(encode_metric(metric)) == [metric]
        True

    The event must be valid: see `Key.of`, and `Metric` for the type of the value.
    """
    series = _SingleSeries(metric.key)
    if metric.timestamp_ns is None:
        return series.frame.encode(metric.operation, metric.value, None)
    # The encoder replaces a timestamp of 0 by the clock's time, which is 0 here.
    entry = (series, metric.operation, metric.value, metric.timestamp_ns)
    return Encoder(lambda: 0).encode([entry])[0]
