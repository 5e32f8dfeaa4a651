"""
Format events as lines: human-readable text, or JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from txmetrics_tcp._model import (
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    Unit,
)
from txmetrics_tcp._view.memory import CACHE_BYTES, name_size
from txmetrics_tcp._view.numbers import show_value
from txmetrics_tcp._view.text import (
    NO_TIME,
    json_number,
    json_value,
    local_time,
    utc,
    visible,
    visible_unit,
)

Printable = Metadata | Metric | Status | Snapshot | Gone | HistogramTotal
"""The events that have a line."""

Lines = Callable[[Printable], str]
"""Formats the events of one connection as lines, without the line terminator."""

_ACTION = {operation: operation.name.lower().partition("_")[0] for operation in Operation}
"""The name of each operation, without the kind of metric: ``increment``, ``set``, …"""

_OPERATION = {
    operation: f"{operation.kind.value}/{_ACTION[operation]}".ljust(len("counter/increment"))
    for operation in Operation
}

_SET_HISTOGRAM = "histogram/set".ljust(len("counter/increment"))

_GONE = {kind: f"{kind.value}/gone".ljust(len("counter/increment")) for kind in MetricKind}

_BOUNDARY: dict[Snapshot, dict[str, object]] = {
    Snapshot.BEGIN: {"boundary": "begin", "complete": False},
    Snapshot.BEGIN_COMPLETE: {"boundary": "begin", "complete": True},
    Snapshot.END: {"boundary": "end"},
}


class TextLines:
    """
    Human-readable lines: time, kind and operation, name and labels, value and unit::

        12:30:05.042 counter/increment requests_total [route = /] 1
        12:30:05.042 histogram/record  latency 0.0015 s
        12:30:05.042 histogram/set     latency count 1, sum 0.0015 s, min 0.0015 s, …

    Times are local.  The unit is shown once the server has sent the metric's description.
    """

    def __init__(
        self,
        localtime: Callable[[float], time.struct_time] = time.localtime,
        exact: bool = True,
    ) -> None:
        """
        @param exact: whether to show exact values, in the units of the metrics, rather than
            human-readable ones (``1.5 ms``).
        """
        self._localtime = localtime
        self._exact = exact
        self._second = -1
        self._clock = ""
        # The text after exact values, or the unit of human-readable ones.  The latest are kept, up
        # to `CACHE_BYTES`.
        self._units: dict[tuple[MetricKind, str], str] = {}
        self._units_bytes = 0

    def __call__(self, event: Printable) -> str:
        if not isinstance(event, Metric):
            return self._other(event)
        key = event.key
        unit = self._units.get((key.kind, key.name), "") if self._units else ""
        value = f"{event.value!r}{unit}" if self._exact else show_value(event.value, unit)
        return (
            f"{self._time(event.timestamp_ns)} {_OPERATION[event.operation]}"
            f" {visible(str(key))} {value}"
        )

    def _other(self, event: Metadata | Status | Snapshot | Gone | HistogramTotal) -> str:
        if isinstance(event, Snapshot):
            return f"snapshot     {event.value}"
        if isinstance(event, Gone):
            key = event.key
            return f"{self._time(event.timestamp_ns)} {_GONE[key.kind]} {visible(str(key))}"
        if isinstance(event, HistogramTotal):
            return self._histogram_total(event)
        return self._metadata(event) if isinstance(event, Metadata) else self._status(event)

    def _histogram_total(self, total: HistogramTotal) -> str:
        key, one = total.key, total.distribution
        values: list[tuple[str, float, str]] = [("count", one.count, "")]
        if one.count:
            unit = self._units.get((key.kind, key.name), "")
            p50, p99 = one.quantiles([0.5, 0.99])
            values += [("sum", one.sum, unit), ("min", one.min, unit), ("p50", p50, unit)]
            values += [("p99", p99, unit), ("max", one.max, unit)]
        if one.not_finite:
            values.append(("not finite", one.not_finite, ""))
        shown = ", ".join(
            f"{name} {value!r}{unit}" if self._exact else f"{name} {show_value(value, unit)}"
            for name, value, unit in values
        )
        return f"{self._time(total.timestamp_ns)} {_SET_HISTOGRAM} {visible(str(key))} {shown}"

    def _metadata(self, metadata: Metadata) -> str:
        self._remember(metadata)
        unit = f" ({visible(metadata.unit)})" if metadata.unit else ""
        description = f": {visible(metadata.description)}" if metadata.description else ""
        return f"metadata     {metadata.kind.value:17} {visible(metadata.name)}{unit}{description}"

    def _status(self, status: Status) -> str:
        started = "at an unknown time"
        if status.started_ns is not None:
            second = status.started_ns // 1_000_000_000
            started = local_time(second, "%Y-%m-%d %H:%M:%S", self._localtime)
        missed = status.dropped_incoming + status.dropped_client
        where = f" (incoming {status.dropped_incoming}, client {status.dropped_client})"
        return (
            f"status       {visible(status.source)}, started {started}"
            f", events missed: {missed}{where if missed else ''}"
        )

    def _remember(self, metadata: Metadata) -> None:
        unit = metadata.unit or ""
        try:
            label = Unit(unit).label
        except ValueError:
            unit = label = visible_unit(unit)
        units = self._units
        name = metadata.kind, metadata.name
        if units.pop(name, None) is not None:
            self._units_bytes -= name_size(metadata.name)
        if label:
            units[name] = f" {label}" if self._exact else unit
            self._units_bytes += name_size(metadata.name)
            while self._units_bytes > CACHE_BYTES:
                oldest = next(iter(units))
                del units[oldest]
                self._units_bytes -= name_size(oldest[1])

    def _time(self, timestamp_ns: int | None) -> str:
        if timestamp_ns is None:
            return NO_TIME
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._clock = local_time(second, "%H:%M:%S", self._localtime)
        return f"{self._clock}.{nanos // 1_000_000:03}"


class JsonLines:
    """
    JSON lines: one ASCII object for each event.  docs/reference/json.md describes the fields.
    """

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

    def __call__(self, event: Printable) -> str:
        if isinstance(event, Metric):
            return self._encode(self._metric(event))
        if isinstance(event, Metadata):
            return self._encode(self._metadata(event))
        if isinstance(event, Snapshot):
            return self._encode({"event": "snapshot", **_BOUNDARY[event]})
        if isinstance(event, Gone):
            return self._encode(_of_series("gone", event.key, event.timestamp_ns))
        if isinstance(event, HistogramTotal):
            return self._encode(self._histogram_total(event))
        return self._encode(self._status(event))

    def _metric(self, metric: Metric) -> dict[str, object]:
        key = metric.key
        return {
            "event": "metric",
            "time": utc(metric.timestamp_ns),
            "timestamp_ns": metric.timestamp_ns,
            "kind": key.kind.value,
            "operation": _ACTION[metric.operation],
            "name": key.name,
            "labels": dict(key.labels),
            **json_value(metric.value),
        }

    def _histogram_total(self, total: HistogramTotal) -> dict[str, object]:
        one = total.distribution
        count = one.count
        return {
            **_of_series("histogram_total", total.key, total.timestamp_ns),
            "count": count,
            "sum": json_number(one.sum),
            "min": one.min if count else None,
            "max": one.max if count else None,
            "zeros": one.zeros,
            "not_finite": one.not_finite,
            "scale": one.scale,
            "positive": one.positive,
            "negative": one.negative,
        }

    def _metadata(self, metadata: Metadata) -> dict[str, object]:
        return {
            "event": "metadata",
            "kind": metadata.kind.value,
            "name": metadata.name,
            "unit": None if metadata.unit is None else str(metadata.unit),
            "description": metadata.description,
        }

    def _status(self, status: Status) -> dict[str, object]:
        return {
            "event": "status",
            "source": status.source,
            "started": utc(status.started_ns),
            "started_ns": status.started_ns,
            "dropped_incoming": status.dropped_incoming,
            "dropped_client": status.dropped_client,
            "protocol_version": status.protocol_version,
        }


def _of_series(event: str, key: Key, timestamp_ns: int | None) -> dict[str, object]:
    return {
        "event": event,
        "time": utc(timestamp_ns),
        "timestamp_ns": timestamp_ns,
        "kind": key.kind.value,
        "name": key.name,
        "labels": dict(key.labels),
    }
