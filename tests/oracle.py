"""
A reference decoder: decodes one frame after another with protobuf.

It shares no code with the package's decoder, and keeps no state between frames.
"""

from __future__ import annotations

import struct

from google.protobuf.message import DecodeError

from txmetrics_tcp import Event, Gone, Metadata, Metric, MetricKind, Snapshot, Status, Unknown
from txmetrics_tcp import event_pb2 as pb

Plain = tuple[object, ...]
"""An event in a form for exact comparison, in which NaN equals itself."""

BANNERS = (b"HTTP/", b"SSH-", b"220 ", b"220-", b"\x15\x03", b"\x16\x03", b"<?")
"""Beginnings of other protocols, for which a stream is rejected."""

_KINDS = (MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM)


def plain(event: Event) -> Plain:
    """Convert a decoded event."""
    if isinstance(event, Metric):
        key = event.key
        assert key.kind is event.operation.kind
        return (
            *("metric", key.name, key.labels, event.operation.name.lower()),
            *_value(event.value),
            event.timestamp_ns,
        )
    if isinstance(event, Metadata):
        return ("metadata", event.kind, event.name, event.unit, event.description)
    if isinstance(event, Snapshot):
        return ("snapshot", event.value)
    if isinstance(event, Gone):
        return ("gone", event.key.kind, event.key.name, event.key.labels, event.timestamp_ns)
    if isinstance(event, Unknown):
        return ("unknown",)
    assert isinstance(event, Status), event
    return (
        *("status", event.source, event.started_ns),
        *(event.dropped_incoming, event.dropped_client, event.protocol_version),
    )


def meaning(stream: bytes, max_frame: int) -> tuple[list[Plain], bool, int]:
    """
    Decode a whole stream.

    @return: its events; whether an error follows them; and, without an error, the number of bytes
        of an unfinished frame at the end.
    """
    events: list[Plain] = []
    at = 0
    if stream.startswith(BANNERS):
        return events, True, 0
    while at < len(stream):
        begin = at
        size = 0
        for place in range(10):
            if begin == len(stream):
                return events, False, len(stream) - at
            byte = stream[begin]
            begin += 1
            size += (byte % 128) * 128**place
            if byte < 128:
                break
        else:
            return events, True, 0
        if size > max_frame:
            return events, True, 0
        end = begin + size
        if end > len(stream):
            return events, False, len(stream) - at
        try:
            event = _event(stream[begin:end])
        except (DecodeError, UnicodeDecodeError):
            return events, True, 0
        if event is not None:
            events.append(event)
        at = end
    return events, False, 0


def _event(message: bytes) -> Plain | None:
    event = pb.Event()
    event.ParseFromString(message)
    if event.HasField("metric"):
        metric = event.metric
        operation = metric.WhichOneof("operation")
        # Decoded even without an operation, since invalid text is always an error.
        name, labels = metric.name, tuple(sorted(metric.labels.items()))
        if operation is None:
            return ("unknown",)
        value = getattr(metric, operation)
        return ("metric", name, labels, operation, *_value(value), _time(metric, "timestamp"))
    if event.HasField("metadata"):
        metadata = event.metadata
        unit = metadata.unit_value if metadata.HasField("unit_value") else None
        if metadata.metric_type not in (0, 1, 2):
            return ("unknown",)
        kind = _KINDS[metadata.metric_type]
        return ("metadata", kind, metadata.name, unit, metadata.description_value)
    if event.HasField("status"):
        status = event.status
        return (
            *("status", status.source, _time(status, "started")),
            *(status.dropped_incoming, status.dropped_client, status.protocol_version),
        )
    if event.HasField("gone"):
        gone = event.gone
        if gone.metric_type not in (0, 1, 2):
            return ("unknown",)
        labels = tuple(sorted(gone.labels.items()))
        return ("gone", _KINDS[gone.metric_type], gone.name, labels, _time(gone, "timestamp"))
    match event.snapshot.boundary:
        case 1:
            return ("snapshot", "begin complete" if event.snapshot.complete else "begin")
        case 2:
            return ("snapshot", "end")
    return None


def _value(value: float) -> Plain:
    if isinstance(value, int):
        return (int, value)
    return (float, b"NaN" if value != value else struct.pack("<d", value))


def _time(message: pb.Metric | pb.Status | pb.Gone, field: str) -> int | None:
    if not message.HasField(field):
        return None
    time = getattr(message, field)
    return int(time.seconds) * 10**9 + int(time.nanos)
