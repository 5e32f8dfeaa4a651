"""
Encodes descriptions and stream status.  `encoder` encodes metric events.  No I/O, no Twisted.
"""

from __future__ import annotations

from txmetrics_tcp._codec import event_pb2 as pb
from txmetrics_tcp._codec.framing import frame
from txmetrics_tcp._model import U64_MAX, Metadata, MetricKind, Status

KIND_NUMBER = {
    MetricKind.COUNTER: pb.Metadata.MetricType.COUNTER,
    MetricKind.GAUGE: pb.Metadata.MetricType.GAUGE,
    MetricKind.HISTOGRAM: pb.Metadata.MetricType.HISTOGRAM,
}


def encode_metadata(metadata: Metadata) -> bytes:
    """
    Encode one description, as a complete frame.

    The description must be valid; see `Metadata.of`.
    """
    message = pb.Metadata(name=metadata.name, metric_type=KIND_NUMBER[metadata.kind])
    if metadata.unit is not None:
        # Converted to a plain str, because some versions of protobuf reject subclasses.
        message.unit_value = str(metadata.unit)
    if metadata.description:
        message.description_value = metadata.description
    return frame(pb.Event(metadata=message).SerializeToString(deterministic=True))


def encode_status(status: Status) -> bytes:
    """
    Encode a stream status, as a complete frame.  Counts above 2**64-1 are sent as 2**64-1.
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
