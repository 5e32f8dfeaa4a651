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
    Number,
    Snapshot,
    Status,
)
from txmetrics_tcp._view.memory import MAX_BYTES, Budget, Descriptions, key_size


class StreamState:
    """
    Track the state of a stream: the last status, the descriptions, and a snapshot of counters and
    gauges.  Histogram samples are not part of the state, as with a live server.

    The state has at most `MAX_BYTES` of series, and as much of descriptions.

    @ivar metrics: the number of metric events so far.
    """

    def __init__(self) -> None:
        self.metrics = 0
        self._status: Status | None = None
        self._descriptions = Descriptions(Budget(MAX_BYTES))
        # Totals, with the time of the last event.
        self._totals: dict[Key, tuple[Number, int | None]] = {}
        self._totals_budget = Budget(MAX_BYTES)
        self._complete = True
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
                self._descriptions.put(event)
            elif isinstance(event, Status):
                if self._status is not None and self._status.started_ns != event.started_ns:
                    self._clear()
                self._status = event
            elif isinstance(event, Gone):
                if self._totals.pop(event.key, None) is not None:
                    self._totals_budget.give_back(key_size(event.key))
            elif isinstance(event, Snapshot):
                self._boundary = event
                if event is Snapshot.BEGIN_COMPLETE:
                    self._clear()

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
            begin = Snapshot.BEGIN_COMPLETE if self._complete else Snapshot.BEGIN
            yield encode_snapshot(begin)
        for key, (total, timestamp_ns) in self._totals.items():
            yield encode_metric(Metric(key, SET_OPERATION[key.kind], total, timestamp_ns))
        # Within a snapshot, the stream itself has the end.
        if exact and self._boundary in (None, Snapshot.END):
            yield encode_snapshot(Snapshot.END)

    def _clear(self) -> None:
        self._totals.clear()
        self._totals_budget = Budget(MAX_BYTES)
        self._complete = True

    def _add(self, metric: Metric) -> None:
        apply = APPLY.get(metric.operation)
        if apply is None:
            return
        totals = self._totals
        key = metric.key
        total = totals.get(key)
        if total is not None:
            totals[key] = apply(total[0], metric.value), metric.timestamp_ns
        elif self._totals_budget.take(key_size(key)):
            totals[key] = apply(INITIAL_TOTAL[key.kind], metric.value), metric.timestamp_ns
        else:
            self._complete = False
