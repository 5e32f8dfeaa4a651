"""
The current state of a stream, which is sent to late clients of a replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from txmetrics_tcp._codec.encoder import encode_metric
from txmetrics_tcp._codec.wire import encode_metadata, encode_snapshot, encode_status
from txmetrics_tcp._model import (
    APPLY,
    INITIAL_TOTAL,
    PROTOCOL_VERSION,
    SET_OPERATION,
    Event,
    Gone,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Number,
    Snapshot,
    Status,
)
from txmetrics_tcp._view.series import MAX_SERIES


class StreamState:
    """
    Track the state of a stream: the last status, the descriptions, and a snapshot of counters and
    gauges.  Histogram samples are not part of the state, as with a live server.

    The state has at most `MAX_SERIES` series, and as many descriptions.

    @ivar metrics: the number of metric events so far.
    """

    def __init__(self) -> None:
        self.metrics = 0
        self._status: Status | None = None
        self._descriptions: dict[tuple[MetricKind, str], Metadata] = {}
        # Totals, with the time of the last event.
        self._totals: dict[Key, tuple[Number, int | None]] = {}
        self._boundary: Snapshot | None = None

    def begin_connection(self) -> None:
        """Begin the next recorded connection, whose server sends its totals again."""
        self._boundary = None

    def follow(self, events: Iterable[Event]) -> None:
        """Apply the next events of the stream."""
        for event in events:
            if isinstance(event, Metric):
                self.metrics += 1
                self._add(event)
            elif isinstance(event, Metadata):
                name = event.kind, event.name
                if name in self._descriptions or len(self._descriptions) < MAX_SERIES:
                    self._descriptions[name] = event
            elif isinstance(event, Status):
                if self._status is not None and self._status.started_ns != event.started_ns:
                    self._totals.clear()
                self._status = event
            elif isinstance(event, Gone):
                self._totals.pop(event.key, None)
            elif isinstance(event, Snapshot):
                self._boundary = event
                if event is Snapshot.BEGIN_COMPLETE:
                    self._totals.clear()

    def frames(self) -> Iterator[bytes]:
        """Iterate over the current state, as frames of a stream."""
        # Totals of streams without snapshots, such as those of Rust servers, count from the first
        # event on.
        exact = self._boundary is not None
        status = self._status
        if status is not None:
            # Before version 1, streams had exact totals, but no boundaries.
            exact = exact or (status.protocol_version < 1 and self.metrics > 0)
            version = max(status.protocol_version, PROTOCOL_VERSION)
            yield encode_status(replace(status, protocol_version=version))
        for metadata in self._descriptions.values():
            yield encode_metadata(metadata)
        if exact:
            complete = len(self._totals) < MAX_SERIES
            yield encode_snapshot(Snapshot.BEGIN_COMPLETE if complete else Snapshot.BEGIN)
        for key, (total, timestamp_ns) in self._totals.items():
            yield encode_metric(Metric(key, SET_OPERATION[key.kind], total, timestamp_ns))
        # Within a snapshot, the stream itself has the end.
        if exact and self._boundary in (None, Snapshot.END):
            yield encode_snapshot(Snapshot.END)

    def _add(self, metric: Metric) -> None:
        apply = APPLY.get(metric.operation)
        if apply is None:
            return
        totals = self._totals
        key = metric.key
        if key in totals or len(totals) < MAX_SERIES:
            total, _ = totals.get(key) or (INITIAL_TOTAL[key.kind], None)
            totals[key] = apply(total, metric.value), metric.timestamp_ns
