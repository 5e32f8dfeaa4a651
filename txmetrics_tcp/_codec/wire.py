"""
What a stream is made of; `encoder` and `decoder` beside it turn events into it
and back.  No I/O, no Twisted: the same code serves every producer and consumer.

A stream is a sequence of frames: an unsigned LEB128 varint, then that many bytes of one
serialized ``Event`` of ``proto/event.proto``.  An ``Event`` without content is allowed and
means nothing; its frame is one zero byte.
"""

from __future__ import annotations

from txmetrics_tcp._codec import event_pb2 as pb
from txmetrics_tcp._model import U64_MAX, Metadata, MetricKind, Status

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
    """
    Encode how the stream fares, as a whole frame.  A count past the largest number that there is
    room for stays there.
    """
    seconds, nanos = divmod(status.started_ns, 1_000_000_000)
    message = pb.Status(
        source=status.source,
        dropped_incoming=min(status.dropped_incoming, U64_MAX),
        dropped_client=min(status.dropped_client, U64_MAX),
    )
    message.started.seconds = seconds
    message.started.nanos = nanos
    return frame(pb.Event(status=message).SerializeToString(deterministic=True))
