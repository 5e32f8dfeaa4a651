"""
What a stream is made of, and how events become bytes; `txmetrics_tcp._decoder` has the way back.
No I/O, no Twisted: the same code serves every producer and consumer.

A stream is a sequence of frames: an unsigned LEB128 varint, then that many bytes of one
serialized ``Event`` of ``proto/event.proto``.  An ``Event`` without content is allowed and
means nothing; its frame is one zero byte.

Encoding is what a busy exporter does most, so it is done by hand: what never changes of a
series was serialized by protobuf when the series was made (`SeriesFrame`), and an event adds a
timestamp and one number.  The result is byte for byte what protobuf's own
``SerializeToString(deterministic=True)`` gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, Protocol

from txmetrics_tcp import _event_pb2 as pb
from txmetrics_tcp._model import Key, Metadata, Metric, MetricKind, Operation, Status

MAX_FRAME = 1024 * 1024
"""The default bound on the size of a frame that is received, in bytes."""

EMPTY_FRAME = b"\x00"
"""An ``Event`` without content.  Every reader skips it."""

KIND_NUMBER = {
    MetricKind.COUNTER: pb.Metadata.MetricType.COUNTER,
    MetricKind.GAUGE: pb.Metadata.MetricType.GAUGE,
    MetricKind.HISTOGRAM: pb.Metadata.MetricType.HISTOGRAM,
}


class StreamError(Exception):
    """What was received is not a stream of metrics.  The text says why."""


def varint(value: int) -> bytes:
    """Encode an unsigned integer as LEB128: seven bits a byte, lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def frame(message: bytes) -> bytes:
    """Put the length of a serialized ``Event`` before it."""
    return varint(len(message)) + message


def encode_metadata(metadata: Metadata) -> bytes:
    """Encode one description, as a whole frame."""
    message = pb.Metadata(name=metadata.name, metric_type=KIND_NUMBER[metadata.kind])
    if metadata.unit is not None:
        # The plain string, because protobuf accepts no subclass of str in all its versions.
        message.unit_value = str(metadata.unit)
    if metadata.description:
        message.description_value = metadata.description
    return frame(pb.Event(metadata=message).SerializeToString(deterministic=True))


def encode_status(status: Status) -> bytes:
    """Encode how the stream fares, as a whole frame."""
    seconds, nanos = divmod(status.started_ns, 1_000_000_000)
    message = pb.Status(
        source=status.source,
        dropped_incoming=status.dropped_incoming,
        dropped_client=status.dropped_client,
    )
    message.started.seconds = seconds
    message.started.nanos = nanos
    return frame(pb.Event(status=message).SerializeToString(deterministic=True))


# Varints of fourteen bits, from tables: a timestamp's nanoseconds are up to 30 bits that are new
# with every event, and three look-ups cost a quarter of five turns of a loop.
_FINAL = [varint(value) for value in range(1 << 14)]
_CONTINUED = [bytes((value & 0x7F | 0x80, value >> 7 | 0x80)) for value in range(1 << 14)]

_double = Struct("<d").pack
_SET_COUNTER = Operation.SET_COUNTER

# The tag byte of each operation: its field number, and how its value is written (0: a varint,
# 1: eight bytes).
_TAG = {
    operation: bytes([operation << 3 | (0 if operation.kind is MetricKind.COUNTER else 1)])
    for operation in Operation
}


class SeriesFrame:
    """
    What is the same in every frame of one series.

    A frame of a metric, with the part that varies in brackets::

        length 12 length  0a name  [12 length timestamp]  1a label 1a label  [operation value]

    Its lengths depend only on how many bytes the varying part has, of which there are a few
    dozen cases: each head is made once, when it first occurs.

    @ivar heads: what comes before the timestamp, by the size of what varies.
    @ivar labels: what comes between timestamp and operation.
    """

    __slots__ = ("_name", "heads", "labels")

    def __init__(self, key: Key) -> None:
        self._name = pb.Metric(name=key.name).SerializeToString(deterministic=True)
        self.labels = pb.Metric(labels=dict(key.labels)).SerializeToString(deterministic=True)
        self.heads: dict[int, bytes] = {}

    def make_head(self, varying: int) -> bytes:
        """
        @param varying: the size of timestamp and value, without the tag of the operation.
        """
        size = len(self._name) + varying + len(self.labels) + 1
        metric = b"\x12" + varint(size) + self._name
        head = self.heads[varying] = varint(len(metric) + size - len(self._name)) + metric
        return head


class Framed(Protocol):
    """Anything that knows what is the same in all frames of a series."""

    @property
    def frame(self) -> SeriesFrame: ...


class Encoder:
    """
    Encodes events, many at once.

    It remembers the last second, since nearly every event shares it with the one before.  Not
    thread-safe.
    """

    __slots__ = ("_clock", "_second_ns", "_stamps")

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """
        @param clock: the time of events that have none, in nanoseconds since the epoch.
        """
        self._clock = clock
        # A second that never was, since stamps are for the second that there was last.
        self._second_ns = 1 << 80
        self._stamps: list[bytes] = []

    def encode(self, entries: Iterable[tuple[Framed, Any, Any, int]]) -> list[bytes]:
        """
        Encode events as whole frames.

        All in one loop, without a call for each part: this is where an exporter spends its time,
        and the calls would take as long again as the work.

        @param entries: series, operation, value, and nanoseconds since the epoch, less than 0 on
            a clock that is set to before it; 0 for an event that has no time.
        """
        frames: list[bytes] = []
        add = frames.append
        second_ns = self._second_ns
        stamps = self._stamps
        last: object = None
        for entry in entries:
            if entry is last:
                # A sample that is recorded many times is the same entry many times.
                add(frames[-1])
                continue
            series, operation, value, timestamp_ns = last = entry

            nanos = timestamp_ns - second_ns
            if not 0 <= nanos < 1_000_000_000 or not timestamp_ns:
                nanos = self._turn(timestamp_ns or self._clock())
                second_ns = self._second_ns
                stamps = self._stamps
            if nanos >= 1 << 28:
                stamp = (
                    stamps[5]
                    + _CONTINUED[nanos & 0x3FFF]
                    + _CONTINUED[nanos >> 14 & 0x3FFF]
                    + _FINAL[nanos >> 28]
                )
            elif nanos >= 1 << 14:
                low = _CONTINUED[nanos & 0x3FFF] + _FINAL[nanos >> 14]
                stamp = stamps[len(low)] + low
            elif nanos:
                low = _FINAL[nanos]
                stamp = stamps[len(low)] + low
            else:
                stamp = stamps[0]

            if operation > _SET_COUNTER:
                number = _double(value)
            elif value < 0x4000:
                number = _FINAL[value]
            else:
                number = varint(value)

            frame = series.frame
            varying = len(stamp) + len(number)
            head = frame.heads.get(varying) or frame.make_head(varying)
            add(head + stamp + frame.labels + _TAG[operation] + number)
        return frames

    def _turn(self, timestamp_ns: int) -> int:
        """Another second begins; what of its timestamps is the same is made once."""
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        # As protobuf has it, a number less than 0 is one of 64 bits in two's complement.
        seconds = b"\x08" + varint(second % 2**64) if second else b""
        # One beginning for each length that the varint of the nanoseconds may have.
        self._stamps = [b"\x12" + bytes([len(seconds)]) + seconds] + [
            b"\x12" + bytes([len(seconds) + 1 + length]) + seconds + b"\x10"
            for length in range(1, 6)
        ]
        self._second_ns = timestamp_ns - nanos
        return nanos


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
