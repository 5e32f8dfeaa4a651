"""
The exporter's metrics of itself: what it loses and how quick it is, for whoever looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import U64_MAX, Unit

PREFIX = "txmetrics"
"""What all their names begin with."""

MAX_SAMPLES = 1000
"""How many samples of latency are kept for one publication; more than that, and the oldest go."""

LATE = 0.1
"""
From how many seconds on a latency is published although nothing else has happened since the last
time.  What is published causes shorter ones, which would be published for ever.
"""

_COUNTERS = {
    "events_recorded_total": "Events that were recorded.",
    "events_delivered_total": "Events that were handed to clients, one for each client.",
    "bytes_sent_total": "Bytes that were handed to clients.",
    "repairs_total": "Times that a client received totals to make up for what it lost.",
    "clients_connected_total": "Clients that ever connected.",
    "series_refused_total": "Series that are in no snapshot, because there are too many.",
}

_GAUGES = {
    "clients": "Clients that are connected.",
    "client_buffer_high_water": "The most events that ever waited for a client that is connected.",
    "series": "Series whose totals are kept.",
}

_DROPPED = "events_dropped_total"
_LATENCY = "record_to_write_seconds"


class OwnMetrics:
    """
    Publishes what an exporter counts, in its own stream.

    Absolute values, now and then, and only if anything but that has happened: so what it
    publishes never gives it something to publish.  All on the reactor thread.
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
        self._events = 0
        self._seen: object = None
        self._samples: deque[float] = deque(maxlen=MAX_SAMPLES)
        # Of all those since the last time, also of those that have no room among the samples: the
        # one that somebody will look for.
        self._longest = 0.0

    def sample(self, seconds: float) -> None:
        """A batch took so long from its first record to being handed to the clients."""
        self._samples.append(seconds)
        self._longest = max(self._longest, seconds)

    def publish(self) -> None:
        """Record what has changed."""
        stats = self._stats()
        seen = (
            stats.recorded - self._events,
            stats.dropped,
            stats.dropped_by_clients,
            stats.repairs,
            stats.connected,
            len(stats.clients),
        )
        if seen == self._seen and self._longest < LATE:
            return
        self._seen = seen
        self._describe()
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
                self._recorder.counter(f"{PREFIX}_{name}").absolute(min(value, U64_MAX))
        for stage, value in (("incoming", stats.dropped), ("client", stats.dropped_by_clients)):
            if self._has_changed(stage, value):
                counter = self._recorder.counter(f"{PREFIX}_{_DROPPED}", stage=stage)
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
                self._recorder.gauge(f"{PREFIX}_{name}").set(value)
        latency = self._recorder.histogram(f"{PREFIX}_{_LATENCY}")
        longest, self._longest = self._longest, 0.0
        # Those of now: recording one may cause a drain, which adds another.
        samples = list(self._samples)
        self._samples.clear()
        if samples and longest not in samples:
            samples[-1] = longest
        for sample in samples:
            latency.record(sample)
        self._events += len(samples)

    def _has_changed(self, what: object, value: float) -> bool:
        if self._published.get(what) == value:
            return False
        self._published[what] = value
        self._events += 1
        return True

    def _describe(self) -> None:
        if self._described:
            return
        for name, text in _COUNTERS.items():
            unit = Unit.BYTES if name.startswith("bytes") else Unit.COUNT
            self._recorder.describe_counter(f"{PREFIX}_{name}", unit, text)
        self._recorder.describe_counter(
            f"{PREFIX}_{_DROPPED}",
            Unit.COUNT,
            "Events that were lost: 'incoming', before they came to any client, because they were"
            " recorded faster than they were handled; 'client', once for each client that was too"
            " slow for them.",
        )
        for name, text in _GAUGES.items():
            self._recorder.describe_gauge(f"{PREFIX}_{name}", Unit.COUNT, text)
        self._recorder.describe_histogram(
            f"{PREFIX}_{_LATENCY}",
            Unit.SECONDS,
            "Time from the first record of a batch to its being handed to the clients.",
        )
        self._described = True
