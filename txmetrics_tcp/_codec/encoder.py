"""
Encodes metric events and totals of histograms.  No I/O, no Twisted.

A busy exporter spends most of its time encoding, so this module encodes without protobuf.  A metric
frame has the following layout, with optional parts and the value in brackets::

    length 12 length 0a name 12 length 08 second 10 nanos 1a label 1a label tag [value]
    '--------- the head ----' '---- the stamp ----'       '------ the tail ----'

Head and tail are the same for all events of a series with the same operation and the same sizes of
value and nanoseconds.  They are therefore built once, from the name and labels that protobuf
serialized when the series was created.  The stamp is the same for all series in a `Period`, and the
high bits of the nanoseconds are the same for events that are recorded within a few microseconds.
One `struct.Struct` packs the frame.

The result is identical to that of protobuf's ``SerializeToString(deterministic=True)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, Protocol

from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec.framing import frame, varint
from txmetrics_tcp._codec.wire import encode_gone, timestamp_of
from txmetrics_tcp._distribution import Distribution, Side
from txmetrics_tcp._model import Gone, HistogramTotal, Key, Metric, MetricKind, Operation

GONE: Any = 0
"""
In place of an operation, with the value 0: the series is gone; see `Gone` and `TotalFrame`.
"""

_SET_COUNTER = Operation.SET_COUNTER

# The tag of `HistogramTotal` in an event.
_HISTOGRAM_TOTAL = varint(pb.Event.HISTOGRAM_TOTAL_FIELD_NUMBER << 3 | 2)

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
    @ivar width: the number of bytes of the nanoseconds.
    @ivar key: differs for each size of a timestamp; see `SeriesFrame.layouts`.
    @ivar parts: the `struct` format of the nanoseconds.
    """

    second_ns: int
    since: int
    until: int
    stamp: bytes
    width: int
    key: int
    parts: str
    low: list[int]
    low_width: int
    middle: list[int]
    middle_width: int

    @classmethod
    def of(cls, timestamp_ns: int) -> Period:
        """
        Return the period of a timestamp; `_NO_PERIOD` for the first 16 and the last 3 microseconds
        of a second, which are too rare to be worth a layout.
        """
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        for since, until, width, *packing in _PERIODS:
            if since <= nanos < until:
                # Protobuf encodes a negative number as 64 bits in two's complement.
                seconds = b"\x08" + varint(second % 2**64) if second else b""
                stamp = bytes([0x12, len(seconds) + 1 + width]) + seconds + b"\x10"
                # 0 for most timestamps of this century: small integers are faster.
                key = (9 - len(stamp) << 2 | 5 - width) << 8
                return cls(timestamp_ns - nanos, since, until, stamp, width, key, *packing)
        return _NO_PERIOD


# The limits are multiples of 1 << 14, so that nanoseconds with the same high bits are in the same
# period.
_PERIODS: list[tuple[Any, ...]] = [
    (1 << 28, 1_000_000_000 >> 14 << 14, 5, "HHB", _TWO, 14, _TWO, 14),
    (1 << 21, 1 << 28, 4, "HBB", _TWO, 14, _ONE, 7),
    (1 << 14, 1 << 21, 3, "BBB", _ONE, 7, _ONE, 7),
]
_NO_PERIOD = Period(0, 1, 0, b"", 0, 0, "", [], 0, [], 0)

Layout = tuple[bytes, bytes, Callable[..., bytes]]
"""How to pack a frame: its head, its tail, and a `Struct.pack`."""


class SeriesFrame:
    """
    The constant parts of the frames of one series.

    @ivar layouts: the key is C{operation | Period.key}.  If the value is a varint of more than one
        byte, the key is C{operation | size << 4 | Period.key}.
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
            which, number, size = operation | len(value) << 4, f"{len(value)}s", len(value)
        elif operation <= _SET_COUNTER:
            which, number, size = operation, "B", 1
        else:
            which, number, size = operation, "d", 8
        tail = self._labels + _TAG[operation]
        rest = len(period.stamp) + period.width + len(tail) + size
        metric = b"\x12" + _varint(len(self._name) + rest) + self._name
        head = _varint(len(metric) + rest) + metric
        pack = _packer(f"<{len(head)}s{len(period.stamp)}s{period.parts}{len(tail)}s{number}")
        layout = self.layouts[which | period.key] = head, tail, pack
        return layout

    def encode_total(self, operation: Operation, total: float, stamp: bytes) -> bytes:
        """
        Encode a total.  Unlike an `Encoder`, it stores no layout, which would take ten times the
        memory of the total.

        @param operation: sets a counter or a gauge.
        @param stamp: the result of `encode_stamp`.
        """
        value = _varint(total) if operation is _SET_COUNTER else _pack_double(total)
        return _frame_of(b"\x12", self._name, stamp, self._labels, _TAG[operation], value)

    def encode_distribution(self, distribution: Distribution, stamp: bytes) -> bytes:
        """
        Encode the total of a histogram.

        @param stamp: the result of `encode_stamp`.
        """
        # Name, timestamp and labels have the same field numbers as in a metric.
        rest = _distribution_message(distribution).SerializeToString(deterministic=True)
        return _frame_of(_HISTOGRAM_TOTAL, self._name, stamp, self._labels, rest)

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
def _packer(layout: str) -> Callable[..., bytes]:
    return Struct(layout).pack


def _frame_of(tag: bytes, *parts: bytes) -> bytes:
    """
    Return the frame of an event.

    @param tag: the tag of its variant.
    @param parts: the fields of the variant.
    """
    message = b"".join(parts)
    head = tag + _varint(len(message))
    return b"".join((_varint(len(head) + len(message)), head, message))


_varint = lru_cache(maxsize=1024)(varint)
_pack_double = Struct("<d").pack


def encode_stamp(timestamp_ns: int | None) -> bytes:
    """Encode the timestamp field of a metric, or of the total of a histogram."""
    return pb.Metric(timestamp=timestamp_of(timestamp_ns)).SerializeToString()


def _distribution_message(distribution: Distribution) -> pb.HistogramTotal:
    """Return the message of a total without its series and time."""
    positive, negative = distribution.sides()
    empty = not distribution.zeros and not positive.indices and not negative.indices
    return pb.HistogramTotal(
        scale=distribution.scale,
        sum=distribution.sum,
        min=0.0 if empty else distribution.min,
        max=0.0 if empty else distribution.max,
        zeros=distribution.zeros,
        not_finite=distribution.not_finite,
        positive=_buckets(positive),
        negative=_buckets(negative),
    )


def _buckets(side: Side) -> pb.HistogramTotal.Buckets | None:
    if not side.indices:
        return None
    return pb.HistogramTotal.Buckets(indices=side.indices, counts=side.counts)


class Framed(Protocol):
    """A series with the constant parts of its frames."""

    @property
    def frame(self) -> SeriesFrame: ...


class TotalFrame:
    """
    Takes the place of a series in an entry with the operation `GONE`, which is then encoded as the
    total of a histogram.
    """

    __slots__ = ("_distribution", "_series")

    layouts: Mapping[int, Layout] = {}

    def __init__(self, series: SeriesFrame, distribution: Distribution) -> None:
        self._series = series
        self._distribution = distribution

    @property
    def frame(self) -> TotalFrame:
        return self

    def encode(self, operation: object, value: object, timestamp_ns: int) -> bytes:
        return self._series.encode_distribution(self._distribution, encode_stamp(timestamp_ns))


class Encoder:
    """
    Encodes events.  Not thread-safe.

    It caches the last period, which consecutive events nearly always share.
    """

    __slots__ = ("_clock", "_period")

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """
        @param clock: returns the time for events without one, in nanoseconds since the epoch.
        """
        self._clock = clock
        self._period = _NO_PERIOD

    def encode(self, entries: Iterable[tuple[Framed, Any, Any, int]]) -> list[bytes]:
        """
        Encode events as complete frames.

        A single loop without a call for each part of a frame: an exporter spends most of its time
        here, and calls would double it.

        @param entries: series, operation, value, and nanoseconds since the epoch.  The time is
            negative if the clock is set to a time before the epoch.  An event with a time of 0 gets
            the current time of C{clock}.
        """
        frames: list[bytes] = []
        add = frames.append
        period = self._period
        second_ns, since, until, stamp = period[:4]
        key = period.key
        low, low_width, middle, middle_width = period[7:]
        low_bits = (1 << low_width) - 1
        # The high bits of the last nanoseconds, or None, and the two parts of their encoding.
        high: int | None = None
        high_low = high_high = 0
        # Consecutive events often have the same series and operation, hence the same layout.
        last = last_which = None
        for series, operation, value, timestamp_ns in entries:
            # Relative to the second, because small integers are compared faster.
            nanos = timestamp_ns - second_ns
            if nanos >> low_width != high:
                if not timestamp_ns:
                    timestamp_ns = self._clock()
                    nanos = timestamp_ns - second_ns
                if not since <= nanos < until:
                    period = self._period = Period.of(timestamp_ns)
                    second_ns, since, until, stamp = period[:4]
                    key = period.key
                    low, low_width, middle, middle_width = period[7:]
                    low_bits = (1 << low_width) - 1
                    high = last = None
                    if not stamp:
                        add(series.frame.encode(operation, value, timestamp_ns))
                        continue
                    nanos = timestamp_ns - second_ns
                high = nanos >> low_width
                high_low = middle[high & (1 << middle_width) - 1]
                high_high = high >> middle_width
            if value >= 0x80 and operation <= _SET_COUNTER:
                number = _varint(value)
                which = operation | len(number) << 4
            else:
                number = value
                which = operation
            if series is not last or which is not last_which:
                try:
                    layout = series.frame.layouts[which | key]
                except KeyError:
                    if operation is GONE:
                        add(series.frame.encode(operation, value, timestamp_ns))
                        continue
                    layout = series.frame.lay_out(period, operation, number)
                last, last_which = series, which
                head, tail, pack = layout
            add(pack(head, stamp, low[nanos & low_bits], high_low, high_high, tail, number))
        return frames


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


def encode_histogram_total(total: HistogramTotal) -> bytes:
    """
    Encode the total of a histogram, as a complete frame.

    The key must be valid; see `Key.of`.
    """
    stamp = encode_stamp(total.timestamp_ns)
    return SeriesFrame(total.key).encode_distribution(total.distribution, stamp)
