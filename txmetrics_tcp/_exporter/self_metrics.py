"""
The exporter's metrics about itself: event counts, drops, clients and latency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import NamedTuple

from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._exporter.totals import OWN_PREFIX
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import U64_MAX, Metadata, MetricKind, Unit

MAX_SAMPLES = 10
"""The maximum number of latency samples per publication."""

LATE = 0.1
"""
The longest latency is always among the samples if it is at least this many seconds.  A batch that
is so late concerns a tenth of a second's events, so one of ten samples does not overstate it.  If
shorter ones were always included, percentiles would be too high.
"""

DELIVERIES = 100
"""
The maximum number of clients, per tick, that own metrics are published to.  With more clients, they
are published in only some of the ticks.
"""

MAX_NAME = 1000
"""The maximum length of names in labels, in characters."""


class OwnMetric(NamedTuple):
    """
    @ivar suffix: the name after `OWN_PREFIX`.
    @ivar figure: returns the current value; if there are labels, one for each combination of their
        values.  A histogram has none.
    @ivar labels: the names of the labels.
    """

    kind: MetricKind
    suffix: str
    text: str
    figure: Callable[[Stats], int | Mapping[tuple[str, ...], int]]
    unit: Unit = Unit.COUNT
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return OWN_PREFIX + self.suffix


_counter = partial(OwnMetric, MetricKind.COUNTER)
_gauge = partial(OwnMetric, MetricKind.GAUGE)
_LATENCY = OwnMetric(
    MetricKind.HISTOGRAM,
    "record_to_write_seconds",
    "Time from the first event of a batch until the batch is sent, for at most ten batches a"
    " second, chosen at random. The longest is always one of them if it is 0.1 seconds or more.",
    lambda s: {},
    Unit.SECONDS,
)

METRICS = (
    _counter("events_recorded_total", "Recorded events.", lambda s: s.recorded),
    _counter("events_delivered_total", "Events sent, once per client.", lambda s: s.written),
    _counter(
        "events_dropped_total",
        "Dropped events. 'incoming': dropped before they reached any client, because they were"
        " recorded faster than they were handled. 'client': dropped because a client was too slow,"
        " once for each client.",
        lambda s: {("incoming",): s.dropped_incoming, ("client",): s.dropped_client},
        labels=("stage",),
    ),
    _counter("bytes_sent_total", "Bytes sent.", lambda s: s.bytes_written, Unit.BYTES),
    _counter("repairs_total", "Resyncs of clients that lost events.", lambda s: s.repairs),
    _counter("clients_connected_total", "Clients that ever connected.", lambda s: s.connected),
    _counter(
        "series_refused_total", "Series whose totals are not kept.", lambda s: s.series_refused
    ),
    _gauge("clients", "Connected clients.", lambda s: len(s.clients)),
    _gauge(
        "client_buffer_high_water",
        "The most events ever pending for a connected client.",
        lambda s: max((client.high_water for client in s.clients), default=0),
    ),
    _gauge("series", "Series whose totals are kept.", lambda s: s.series),
    _gauge(
        "metric_series",
        "Series of each metric with the most series, when their limit was reached.",
        lambda s: {
            (one.kind.value, one.name[:MAX_NAME]): one.series for one in s.highest_cardinality
        },
        labels=("kind", "metric"),
    ),
    _gauge(
        "label_values",
        "Values of the label with the most values, of each of these metrics.",
        lambda s: {
            (one.kind.value, one.name[:MAX_NAME], one.label[:MAX_NAME]): one.label_values
            for one in s.highest_cardinality
            if one.label is not None
        },
        labels=("kind", "metric", "label"),
    ),
    _LATENCY,
)


class OwnMetrics:
    """
    Publishes the exporter's statistics in its own stream.

    It publishes only if something other than publishing has changed the statistics; otherwise,
    publishing would never end.  The cost is limited: see `MAX_SAMPLES` and `DELIVERIES`.  Counters
    are published as absolute values.  The reactor thread owns everything here.
    """

    def __init__(self, recorder: Recorder, stats: Callable[[], Stats]) -> None:
        self._recorder = recorder
        self._stats = stats
        # The last value of each series, by name and values of labels.
        self._published: dict[tuple[str, ...], int] = {}
        # The number of events recorded by publishing.
        self._events = 0
        # The statistics that publishing does not change, at the last publication.
        self._seen: object = None
        # The number of ticks since the statistics were last compared.
        self._ticks = 0
        self._connected = 0
        # The latencies since the last publication: a random choice, the longest, and their number.
        self._samples: list[float] = []
        self._longest = 0.0
        self._batches = 0
        # Not the program's random numbers, which it may want to reproduce.
        self._random = Random().random

    def sample(self, seconds: float) -> None:
        """Add the latency of a batch, in seconds: from its first event to its delivery."""
        # Reservoir sampling: each batch is equally likely to be chosen.
        self._batches += 1
        if len(self._samples) < MAX_SAMPLES:
            self._samples.append(seconds)
        elif (place := int(self._random() * self._batches)) < MAX_SAMPLES:
            self._samples[place] = seconds
        if seconds > self._longest:
            self._longest = seconds

    def publish(self, clients: int, to_totals: bool = False) -> None:
        """
        Record the statistics that have changed, if the limits allow it.  Called once a second while
        clients are connected; and without clients when one connects, so that the totals that it
        receives are current, not those of the last publication to earlier clients.

        @param clients: the number of connected clients.
        @param to_totals: whether the totals will be read, even without clients.
        """
        if not clients and not self._published and not to_totals:
            # The first client of all has no outdated totals to receive.
            return
        self._ticks += 1
        # The statistics, too, cost time for each client.
        if clients > self._ticks * DELIVERIES:
            return
        self._ticks = 0
        stats = self._stats()
        seen = stats.recorded - self._events, stats.repairs, stats.connected, len(stats.clients)
        if seen != self._seen:
            self._publish(stats)
            # The delivery of pending events will change the statistics, too.
            self._seen = None if stats.waiting else seen

    def _publish(self, stats: Stats) -> None:
        if not self._published:
            for one in METRICS:
                self._recorder.describe(Metadata(one.kind, one.name, one.unit, one.text))
        if stats.connected != self._connected and (stats.series_refused or not stats.series):
            # Totals of these series may not be kept (if totals are off, C{series} is 0), so a new
            # client does not know them.
            self._published.clear()
        self._connected = stats.connected
        for one in METRICS:
            figure = one.figure(stats)
            figures = {(): figure} if isinstance(figure, int) else figure
            for values, value in figures.items():
                self._publish_value(one, values, min(value, U64_MAX))
        # In this order: an exception between any two lines must not break `sample`.
        longest, self._longest, self._batches = self._longest, 0.0, 0
        samples, self._samples = self._samples, []
        if longest >= LATE and longest not in samples:
            samples[-1] = longest
        self._events += len(samples)
        latency = self._recorder.histogram(_LATENCY.name)
        for sample in samples:
            latency.record(sample)

    def _publish_value(self, metric: OwnMetric, values: tuple[str, ...], value: int) -> None:
        series = metric.name, *values
        if self._published.get(series) == value:
            return
        self._events += 1
        labels = dict(zip(metric.labels, values, strict=True))
        if metric.kind is MetricKind.COUNTER:
            self._recorder.counter(metric.name, labels).absolute(value)
        else:
            self._recorder.gauge(metric.name, labels).set(value)
        self._published[series] = value
