"""
Encodes descriptions, stream status, snapshot boundaries and gone series.  `encoder` encodes metric
events and totals of histograms.

No I/O, no Twisted.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec.framing import frame, varint
from txmetrics_tcp._model import U64_MAX, Gone, Metadata, MetricKind, Snapshot, Status

KIND_NUMBER = {
    MetricKind.COUNTER: pb.Metadata.MetricType.COUNTER,
    MetricKind.GAUGE: pb.Metadata.MetricType.GAUGE,
    MetricKind.HISTOGRAM: pb.Metadata.MetricType.HISTOGRAM,
}

BOUNDARY = {
    Snapshot.BEGIN: (pb.Snapshot.Boundary.BOUNDARY_BEGIN, False),
    Snapshot.BEGIN_COMPLETE: (pb.Snapshot.Boundary.BOUNDARY_BEGIN, True),
    Snapshot.END: (pb.Snapshot.Boundary.BOUNDARY_END, False),
}
"""The number of each boundary, and whether the snapshot is complete."""


_Buckets = pb.HistogramTotal.Buckets


def pack_signed(values: list[int]) -> bytes:
    """
    Encode a packed field of the type C{sint64} without its tag: its size and the integers.
    """
    try:
        # The indices of buckets are a packed field of the type C{sint32}, whose encoding is the
        # same; protobuf encodes it in C.
        message = _Buckets(indices=values).SerializeToString()
    except ValueError:
        return frame(
            b"".join([varint(one << 1 if one >= 0 else (~one << 1) | 1) for one in values])
        )
    return message[1:]


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
    message = pb.Status(
        source=status.source,
        dropped_incoming=min(status.dropped_incoming, U64_MAX),
        dropped_client=min(status.dropped_client, U64_MAX),
        protocol_version=status.protocol_version,
        started=timestamp_of(status.started_ns),
    )
    return frame(pb.Event(status=message).SerializeToString(deterministic=True))


def encode_snapshot(boundary: Snapshot) -> bytes:
    """Encode the beginning or the end of a snapshot, as a complete frame."""
    number, complete = BOUNDARY[boundary]
    snapshot = pb.Snapshot(boundary=number, complete=complete)
    return frame(pb.Event(snapshot=snapshot).SerializeToString(deterministic=True))


def encode_gone(gone: Gone) -> bytes:
    """
    Encode that a series has left the totals, as a complete frame.

    The key must be valid; see `Key.of`.
    """
    key = gone.key
    message = pb.Gone(
        metric_type=KIND_NUMBER[key.kind],
        name=key.name,
        labels=dict(key.labels),
        timestamp=timestamp_of(gone.timestamp_ns),
    )
    return frame(pb.Event(gone=message).SerializeToString(deterministic=True))


def timestamp_of(nanoseconds: int | None) -> Timestamp | None:
    """
    Return a time as protobuf's constructors take it; None if it is not set.

    @param nanoseconds: since the epoch.  A time beyond 64 bits of seconds, which a peer's invalid
        nanoseconds can give, becomes the nearest one.
    """
    if nanoseconds is None:
        return None
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=max(-(2**63), min(seconds, 2**63 - 1)), nanos=nanos)
