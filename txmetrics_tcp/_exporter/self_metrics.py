"""
The exporter's metrics about itself: event counts, drops, clients and latency.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._exporter.totals import OWN_PREFIX
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import U64_MAX, Unit

MAX_SAMPLES = 1000
"""
The maximum number of latency samples per publication, with at most `DELIVERIES` clients.  More
clients reduce it proportionally.  The oldest samples are discarded.
"""

MAX_NAME = 1000
"""The maximum length of names in labels, in characters."""

LATE = 0.1
"""
A latency of at least this many seconds is published even if nothing else has changed.  Shorter
latencies are not: publishing causes such latencies itself, and would never end.
"""

DELIVERIES = 100
URGENT_DELIVERIES = 1000
"""
The maximum number of clients, per tick, that own metrics are published to.  With more clients, they
are published in only some of the ticks.  The second limit applies if clients, drops or resyncs have
changed, or a latency is long.
"""

_COUNTERS = {
    "events_recorded_total": "Recorded events.",
    "events_delivered_total": "Events handed to clients, once for each client.",
    "bytes_sent_total": "Bytes handed to clients.",
    "repairs_total": "Times that a client received totals because it had lost events.",
    "clients_connected_total": "Clients that have ever connected.",
    "series_refused_total": "Series without totals because there are too many series.",
}

_GAUGES = {
    "clients": "Connected clients.",
    "client_buffer_high_water": "The most events ever pending for a connected client.",
    "series": "Series whose totals are kept.",
    "metric_series": "Series of each metric with the most series, when their limit was reached.",
    "label_values": "Values of the label with the most values, of each of these metrics.",
}

_DROPPED = "events_dropped_total"
_LATENCY = "record_to_write_seconds"


class OwnMetrics:
    """
    Publishes the exporter's statistics in its own stream.

    It publishes only if something other than publishing has changed the statistics; otherwise,
    publishing would never end.  The cost is limited: see `DELIVERIES`.  Counters are published as
    absolute values.  The reactor thread owns everything here.
    """

    def __init__(
        self,
        recorder: Recorder,
        stats: Callable[[], Stats],
    ) -> None:
        self._recorder = recorder
        self._stats = stats
        self._described = False
        self._published: dict[object, float] = {}
        # The number of events recorded by publishing.
        self._events = 0
        self._seen: object = None
        self._seen_urgent: object = None
        # The number of ticks since the last publication.
        self._ticks = 0
        self._connected = 0
        self._samples: deque[float] = deque(maxlen=MAX_SAMPLES)
        # The longest latency since the last publication, even if its sample was discarded.
        self._longest = 0.0

    def sample(self, seconds: float) -> None:
        """Add the latency of a batch, in seconds: from its first event to its delivery."""
        self._samples.append(seconds)
        self._longest = max(self._longest, seconds)

    def publish(self, clients: int) -> None:
        """
        Record the statistics that have changed, if the limits allow it.  Called once a second.

        @param clients: the number of connected clients.
        """
        self._ticks += 1
        # The statistics, too, cost time for each client.
        if self._ticks % max(1, math.ceil(clients / URGENT_DELIVERIES)):
            return
        stats = self._stats()
        urgent = (
            stats.dropped_incoming,
            stats.dropped_client,
            stats.repairs,
            stats.connected,
            len(stats.clients),
        )
        recorded = stats.recorded - self._events
        may_wait = urgent == self._seen_urgent and self._longest < LATE
        if may_wait and (recorded == self._seen or clients > self._ticks * DELIVERIES):
            return
        self._ticks = 0
        self._seen, self._seen_urgent = recorded, urgent
        self._publish(stats)

    def _publish(self, stats: Stats) -> None:
        self._describe()
        if stats.series_refused and stats.connected != self._connected:
            # These series, too, may have no kept totals, so a new client does not know them.
            self._published.clear()
        self._connected = stats.connected
        counters = {
            "events_recorded_total": stats.recorded,
            "events_delivered_total": stats.written,
            "bytes_sent_total": stats.bytes_written,
            "repairs_total": stats.repairs,
            "clients_connected_total": stats.connected,
            "series_refused_total": stats.series_refused,
        }
        for name, value in counters.items():
            if self._has_changed(name, value):
                self._recorder.counter(f"{OWN_PREFIX}{name}").absolute(min(value, U64_MAX))
        for stage, value in (
            ("incoming", stats.dropped_incoming),
            ("client", stats.dropped_client),
        ):
            if self._has_changed(stage, value):
                counter = self._recorder.counter(f"{OWN_PREFIX}{_DROPPED}", stage=stage)
                counter.absolute(min(value, U64_MAX))
        gauges = {
            "clients": len(stats.clients),
            "client_buffer_high_water": max(
                (client.high_water for client in stats.clients), default=0
            ),
            "series": stats.series,
        }
        for name, value in gauges.items():
            if self._has_changed(name, value):
                self._recorder.gauge(f"{OWN_PREFIX}{name}").set(value)
        for metric in stats.highest_cardinality:
            # Shortened, since name and labels of a series have a maximum length.
            labels = {"kind": metric.kind.value, "metric": metric.name[:MAX_NAME]}
            self._publish_gauge("metric_series", metric.series, labels)
            if metric.label is not None:
                labels["label"] = metric.label[:MAX_NAME]
                self._publish_gauge("label_values", metric.label_values, labels)
        latency = self._recorder.histogram(f"{OWN_PREFIX}{_LATENCY}")
        longest, self._longest = self._longest, 0.0
        # A copy: recording a sample may cause a drain, which adds another.
        samples = list(self._samples)
        self._samples.clear()
        limit = MAX_SAMPLES * DELIVERIES // max(DELIVERIES, len(stats.clients))
        samples = samples[-max(1, limit) :]
        if samples and longest not in samples:
            samples[-1] = longest
        for sample in samples:
            latency.record(sample)
        self._events += len(samples)

    def _publish_gauge(self, name: str, value: float, labels: dict[str, str]) -> None:
        if self._has_changed((name, *labels.values()), value):
            self._recorder.gauge(f"{OWN_PREFIX}{name}", labels).set(value)

    def _has_changed(self, name: object, value: float) -> bool:
        if self._published.get(name) == value:
            return False
        self._published[name] = value
        self._events += 1
        return True

    def _describe(self) -> None:
        if self._described:
            return
        for name, text in _COUNTERS.items():
            unit = Unit.BYTES if name.startswith("bytes") else Unit.COUNT
            self._recorder.describe_counter(f"{OWN_PREFIX}{name}", unit, text)
        self._recorder.describe_counter(
            f"{OWN_PREFIX}{_DROPPED}",
            Unit.COUNT,
            "Dropped events. 'incoming': dropped before they reached any client, because they were"
            " recorded faster than they were handled. 'client': dropped because a client was too"
            " slow, once for each client.",
        )
        for name, text in _GAUGES.items():
            self._recorder.describe_gauge(f"{OWN_PREFIX}{name}", Unit.COUNT, text)
        self._recorder.describe_histogram(
            f"{OWN_PREFIX}{_LATENCY}",
            Unit.SECONDS,
            "Time from the first recorded event of a batch until the batch is handed to clients.",
        )
        self._described = True
