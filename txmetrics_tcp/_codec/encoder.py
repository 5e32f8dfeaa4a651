"""
Events to bytes.  No I/O, no Twisted.

Encoding is what a busy exporter does most, so it is done by hand.  A frame of a metric looks like
this, with what varies in brackets::

    length 12 length 0a name 12 length 08 second 10 [nanos] 1a label 1a label tag [value]
    '------------------- the head ----------------'         '------ the tail ----'

Head and tail are the same for all events of a series in which the same happens, within a part of a
second and as long as the value takes as many bytes.  So both are made once, with what protobuf
serialized when the series was made, and one `struct.Struct` packs all of it at once.

The result is byte for byte what protobuf's own ``SerializeToString(deterministic=True)`` gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, Protocol

from txmetrics_tcp._codec import event_pb2 as pb
from txmetrics_tcp._codec.framing import frame, varint
from txmetrics_tcp._model import Key, Metric, MetricKind, Operation

KEPT = 256 * 1024
"""How many bytes of the buffer that it encodes into an encoder keeps at most for the next time."""

_SET_COUNTER = Operation.SET_COUNTER

# The tag byte of each operation: its field number, and how its value is written (0: a varint,
# 1: eight bytes).
_TAG = {
    operation: bytes([operation << 3 | (0 if operation.kind is MetricKind.COUNTER else 1)])
    for operation in Operation
}

# Bytes of a varint that are not its last, two by two and one by one: a timestamp's nanoseconds are
# up to 30 bits that are new with every event, and looking them up is quicker than any loop.
_TWO = [(bits & 0x7F | 0x80) | (bits >> 7 | 0x80) << 8 for bits in range(1 << 14)]
_ONE = [bits | 0x80 for bits in range(1 << 7)]


class Period(NamedTuple):
    """
    A part of a second in which the nanoseconds take the same number of bytes; what is the same of
    its timestamps, and how nanoseconds are packed: from C{low}, C{middle}, and the bits above.

    @ivar second_ns: when its second began, in nanoseconds since the epoch.
    @ivar since: its first nanosecond, in that second.
    @ivar until: the first one that is not in it.
    @ivar stamp: the beginning of its timestamps, with their tag and size.
    @ivar nanos: how many bytes the nanoseconds take.
    @ivar layout: the same for `struct`.
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
        The period that a moment is in; `_NEVER` for the first 16 microseconds of a second, in which
        nanoseconds take other numbers of bytes, none among them: that is not worth it.
        """
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        second_ns = timestamp_ns - nanos
        for since, until, taken, layout, *how in _PERIODS:
            if since <= nanos < until:
                # As protobuf has it, a number less than 0 is one of 64 bits in two's complement.
                seconds = b"\x08" + varint(second % 2**64) if second else b""
                size = len(seconds) + 1 + taken
                stamp = b"\x12" + bytes([size]) + seconds + b"\x10"
                return cls(second_ns, since, until, stamp, taken, layout, *how)
        return _NEVER


_PERIODS: list[tuple[Any, ...]] = [
    (1 << 28, 1_000_000_000, 5, "HHB", _TWO, 0x3FFF, 14, _TWO, 0x3FFF, 28),
    (1 << 21, 1 << 28, 4, "HBB", _TWO, 0x3FFF, 14, _ONE, 0x7F, 21),
    (1 << 14, 1 << 21, 3, "BBB", _ONE, 0x7F, 7, _ONE, 0x7F, 14),
]
_NEVER = Period(0, 1, 0, b"", 0, "", [], 0, 0, [], 0, 0)

Layout = tuple[Period, Callable[..., None], bytes, bytes, int]
"""How a frame is packed: in which period, the method of a `Struct`, head, tail, and the size."""


class SeriesFrame:
    """
    What is the same in the frames of one series.

    @ivar layouts: by operation and, in the bits above it, how many bytes its number takes, where
        that is more than one and varies.
    """

    __slots__ = ("_key", "_labels", "_name", "layouts")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._name = pb.Metric(name=key.name).SerializeToString(deterministic=True)
        self._labels = pb.Metric(labels=dict(key.labels)).SerializeToString(deterministic=True)
        self.layouts: dict[int, Layout] = {}

    def lay_out(self, period: Period, operation: Operation, value: float | bytes) -> Layout:
        """
        Make the layout of a frame, and keep it.

        @param value: of a counter, its varint, or itself if that is a single byte.
        """
        if isinstance(value, bytes):
            which, number, taken = operation | len(value) << 4, f"{len(value)}s", len(value)
        elif operation <= _SET_COUNTER:
            which, number, taken = int(operation), "B", 1
        else:
            which, number, taken = int(operation), "d", 8
        tail = self._labels + _TAG[operation]
        size = len(self._name) + len(period.stamp) + period.nanos + len(tail) + taken
        metric = b"\x12" + varint(size) + self._name + period.stamp
        rest = period.nanos + len(tail) + taken
        head = varint(len(metric) + rest) + metric
        pack = _packer(f"<{len(head)}s{period.layout}{len(tail)}s{number}")
        layout = self.layouts[which] = (period, pack, head, tail, len(head) + rest)
        return layout

    def encode(self, operation: Operation, value: float, timestamp_ns: int) -> bytes:
        """Encode one event by protobuf."""
        seconds, nanos = divmod(timestamp_ns, 1_000_000_000)
        metric = pb.Metric(name=self._key.name, labels=dict(self._key.labels))
        metric.timestamp.seconds = seconds
        metric.timestamp.nanos = nanos
        setattr(metric, operation.name.lower(), value)
        return frame(pb.Event(metric=metric).SerializeToString(deterministic=True))


@lru_cache(maxsize=1024)
def _packer(layout: str) -> Callable[..., None]:
    return Struct(layout).pack_into


_varint = lru_cache(maxsize=1024)(varint)


class Framed(Protocol):
    """Anything that knows what is the same in all frames of a series."""

    @property
    def frame(self) -> SeriesFrame: ...


class Encoder:
    """
    Encodes events, many at once.

    It remembers the last period, since nearly every event shares it with the one before.  Not
    thread-safe.
    """

    __slots__ = ("_buffer", "_clock", "_period")

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """
        @param clock: the time of events that have none, in nanoseconds since the epoch.
        """
        self._clock = clock
        self._period = _NEVER
        self._buffer = bytearray(256)

    def encode(self, entries: Iterable[tuple[Framed, Any, Any, int]]) -> tuple[bytes, list[int]]:
        """
        Encode events as whole frames.

        All in one loop, without a call for each part: this is where an exporter spends its time,
        and the calls would take as long again as the work.

        @param entries: series, operation, value, and nanoseconds since the epoch, less than 0 on
            a clock that is set to before it; 0 for an event that has no time.
        @return: the frames, joined, and where each of them ends.
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
            # Compared as the small numbers that they are within a second, which is quicker.
            nanos = timestamp_ns - second_ns
            if not since <= nanos < until:
                timestamp_ns = timestamp_ns or self._clock()
                nanos = timestamp_ns - second_ns
                if not since <= nanos < until:
                    period = self._period = Period.of(timestamp_ns)
                    second_ns, since, until, *_ = period
                    low, low_bits, middle_from, middle, middle_bits, top_from = period[6:]
                    nanos = timestamp_ns - second_ns
                if period.nanos == 0:
                    whole = frame.encode(operation, value, timestamp_ns)
                    buffer[at:] = whole
                    room = len(buffer)
                    at += len(whole)
                    add(at)
                    continue
            if value >= 0x80 and operation <= _SET_COUNTER:
                value = _varint(value)
                layout = frame.layouts.get(operation | len(value) << 4)
            else:
                layout = frame.layouts.get(operation)
            if layout is None or layout[0] is not period:
                layout = frame.lay_out(period, operation, value)
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
                value,
            )
            add(end)
            at = end
        joined = bytes(memoryview(buffer)[:at])
        if room > KEPT:
            self._buffer = bytearray(256)
        return joined, ends


class _Bare:
    """The frame of a series that is known by its key alone."""

    __slots__ = ("frame",)

    def __init__(self, key: Key) -> None:
        self.frame = SeriesFrame(key)


def encode_metric(metric: Metric) -> bytes:
    """Encode one event of a series, as a whole frame."""
    # The clock is never asked: an event of the epoch itself has its time.
    entry = (_Bare(metric.key), metric.operation, metric.value, metric.timestamp_ns)
    return Encoder(lambda: 0).encode([entry])[0]
