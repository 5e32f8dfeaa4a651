"""
The current state of a stream, which is sent to late clients of a replay.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace

from txmetrics_tcp._codec.encoder import encode_histogram_total, encode_metric
from txmetrics_tcp._codec.wire import encode_metadata, encode_snapshot, encode_status
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._model import (
    APPLY,
    HISTOGRAM_TOTALS,
    INITIAL_TOTAL,
    PROTOCOL_VERSION,
    SET_OPERATION,
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    Number,
    Snapshot,
    Status,
)
from txmetrics_tcp._view.memory import (
    BUCKET_BYTES,
    MAX_BYTES,
    SAMPLE_BYTES,
    Budget,
    Descriptions,
    key_size,
)

MAX_SAMPLES = 64 * 1024
"""
The number of samples that are applied to their distributions together, which costs a tenth of the
time of one after another.
"""

_DISTRIBUTION = 600
"""The approximate size of a distribution in memory without its buckets, in bytes."""


class StreamState:
    """
    Track the state of a stream: the last status, the descriptions, and a snapshot of all totals.

    The total of a histogram is the distribution that the server has sent, with the samples after
    it.  If the server sends none, as before version 3 of the protocol, it has all samples of the
    stream.

    The names and labels of counters and gauges, those of histograms, and descriptions take at most
    `MAX_BYTES` each, and distributions `SAMPLE_BYTES`.  A series for which they do not suffice is
    left out.

    @ivar metrics: the number of metric events so far.
    """

    def __init__(self) -> None:
        self.metrics = 0
        self._status: Status | None = None
        self._descriptions = Descriptions(Budget(MAX_BYTES))
        # Totals, with the time of the last event.
        self._totals: dict[Key, tuple[Number, int | None]] = {}
        self._totals_budget = Budget(MAX_BYTES)
        self._histograms: dict[Key, HistogramTotal] = {}
        self._histograms_budget = Budget(MAX_BYTES)
        self._distributions_budget = Budget(SAMPLE_BYTES)
        # Samples that are not yet in `_histograms`, and the last of their events, by the identity
        # of its key: a hash of the key would cost more than everything else.  The decoder creates
        # few equal keys.
        self._samples: dict[int, tuple[Metric, array[float]]] = {}
        self._pending = 0
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
                    self._clear_histograms()
                self._status = event
            elif isinstance(event, Gone):
                if self._totals.pop(event.key, None) is not None:
                    self._totals_budget.give_back(key_size(event.key))
                self._apply_samples()
                self._remove_histogram(event.key)
            elif isinstance(event, HistogramTotal):
                self.metrics += 1
                self._apply_samples()
                self._put_histogram(event)
            elif isinstance(event, Snapshot):
                self._boundary = event
                if event is Snapshot.BEGIN_COMPLETE:
                    self._clear()
                    version = 0 if self._status is None else self._status.protocol_version
                    if version >= HISTOGRAM_TOTALS:
                        self._clear_histograms()

    def frames(self) -> Iterator[bytes]:
        """Iterate over the current state, as frames of a stream."""
        self._apply_samples()
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
        yield from map(encode_histogram_total, self._histograms.values())
        # Within a snapshot, the stream itself has the end.
        if exact and self._boundary in (None, Snapshot.END):
            yield encode_snapshot(Snapshot.END)

    def _clear(self) -> None:
        self._totals.clear()
        self._totals_budget = Budget(MAX_BYTES)
        self._complete = True

    def _clear_histograms(self) -> None:
        self._samples.clear()
        self._pending = 0
        self._histograms.clear()
        self._histograms_budget = Budget(MAX_BYTES)
        self._distributions_budget = Budget(SAMPLE_BYTES)

    def _add(self, metric: Metric) -> None:
        apply = APPLY.get(metric.operation)
        if apply is None:
            identity = id(metric.key)
            known = self._samples.get(identity)
            values = array("d") if known is None else known[1]
            values.append(metric.value)
            self._samples[identity] = metric, values
            self._pending += 1
            if self._pending >= MAX_SAMPLES:
                self._apply_samples()
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

    def _apply_samples(self) -> None:
        if not self._samples:
            return
        for last, values in self._samples.values():
            total = self._histograms.get(last.key)
            # Without a total, the series is new; or it was left out, and must not begin again.
            if total is not None or self._complete:
                before = Distribution.EMPTY if total is None else total.distribution
                distribution = before.with_samples(values)
                self._put_histogram(HistogramTotal(last.key, distribution, last.timestamp_ns))
        self._samples.clear()
        self._pending = 0

    def _put_histogram(self, total: HistogramTotal) -> None:
        """Add or replace the total of a histogram, or remove it if the budgets do not suffice."""
        self._remove_histogram(total.key)
        size = key_size(total.key)
        if self._histograms_budget.take(size):
            if self._distributions_budget.take(_distribution_size(total)):
                self._histograms[total.key] = total
                return
            self._histograms_budget.give_back(size)
        self._complete = False

    def _remove_histogram(self, key: Key) -> None:
        total = self._histograms.pop(key, None)
        if total is not None:
            self._histograms_budget.give_back(key_size(key))
            self._distributions_budget.give_back(_distribution_size(total))


def _distribution_size(total: HistogramTotal) -> int:
    return _DISTRIBUTION + BUCKET_BYTES * total.distribution.occupied
