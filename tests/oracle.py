"""
A reference decoder: decodes one frame after another with protobuf.

It shares no code with the package's decoder, and keeps no state between frames.
"""

from __future__ import annotations

import math
import struct

from google.protobuf.message import DecodeError

from txmetrics_tcp import (
    Event,
    Gone,
    HistogramTotal,
    Metadata,
    Metric,
    MetricKind,
    Snapshot,
    Status,
    Unknown,
)
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
    if isinstance(event, HistogramTotal):
        key, one = event.key, event.distribution
        assert key.kind is MetricKind.HISTOGRAM
        return (
            *("histogram total", key.name, key.labels, one.scale, one.zeros, one.not_finite),
            *(*_value(one.sum), *_value(one.min), *_value(one.max)),
            *(one.positive, one.negative, event.timestamp_ns),
        )
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
    if event.HasField("histogram_total"):
        return _histogram_total(event.histogram_total)
    match event.snapshot.boundary:
        case 1:
            return ("snapshot", "begin complete" if event.snapshot.complete else "begin")
        case 2:
            return ("snapshot", "end")
    return None


def _histogram_total(total: pb.HistogramTotal) -> Plain:
    name, labels = total.name, tuple(sorted(total.labels.items()))
    # The decoder rejects other scales, whatever the buckets.
    width = 2.0 ** min(max(total.scale, -10), 5)
    valid = -10 <= total.scale <= 5
    for side in total.positive, total.negative:
        indices = list(side.indices)
        valid = valid and len(indices) == len(side.counts) <= 1024 and 0 not in side.counts
        valid = valid and indices == sorted(set(indices))
        # The bucket has the smallest number above zero, the largest number, or one between them.
        valid = valid and all((at + 1) / width >= -1074 and at / width < 1024 for at in indices)
    least, greatest, amount = total.min, total.max, total.sum
    if not (total.zeros or total.positive.counts or total.negative.counts):
        amount, least, greatest = 0.0, math.nan, math.nan
    else:
        valid = valid and math.isfinite(least) and math.isfinite(greatest) and least <= greatest
        valid = valid and not math.isnan(amount)
    if not valid:
        return ("unknown",)
    sides = total.positive, total.negative
    return (
        *("histogram total", name, labels, total.scale, total.zeros, total.not_finite),
        *(*_value(amount), *_value(least), *_value(greatest)),
        *(tuple(zip(side.indices, side.counts, strict=True)) for side in sides),
        _time(total, "timestamp"),
    )


def _value(value: float) -> Plain:
    if isinstance(value, int):
        return (int, value)
    return (float, b"NaN" if value != value else struct.pack("<d", value))


def _time(message: pb.Metric | pb.Status | pb.Gone | pb.HistogramTotal, field: str) -> int | None:
    if not message.HasField(field):
        return None
    time = getattr(message, field)
    return int(time.seconds) * 10**9 + int(time.nanos)
