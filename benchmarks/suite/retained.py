"""
The process of a server that retains series of which some are histograms:
``python -m suite.retained SERIES HISTOGRAMS``.

It has SERIES series. The first HISTOGRAMS are histograms, and the others counters and gauges. Its
commands are those of `suite.server` and:

  - C{snapshot}: take a snapshot while a thousand events are in the log; answer the time in
    C{seconds} and the time under the lock, C{locked};
  - C{collect}: collect the same series from prometheus_client, and answer the time in seconds;
  - C{memory}: answer the number of bytes for a distribution, for a histogram with its series, key,
    labels and handle, and for a histogram of prometheus_client with the default buckets.

A time is 0 if prometheus_client is not installed, and so is a number of bytes.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import cached_property
from typing import Any

from twisted.internet import reactor

from suite.commands import LABELS, NAME, allow_many_files
from suite.server import Server, serve
from txmetrics_tcp import ExporterSettings, MetricKind, MetricsFactory, Recorder

BUCKETS = 60

SAMPLES = [2 ** (number / 16) for number in range(BUCKETS)]
"""Each of them is in another bucket."""

MEASURED = 10_000
"""The number of histograms whose memory is measured."""

LOGGED = 1000


def labels(number: int) -> dict[str, str]:
    return {**LABELS, "route": f"/{number}"}


def record_all(recorder: Recorder, series: int, histograms: int) -> None:
    for number in range(series):
        if number < histograms:
            histogram = recorder.histogram(f"{NAME}_seconds", labels(number))
            for sample in SAMPLES:
                histogram.record(sample)
        elif number % 2:
            recorder.counter(NAME, labels(number)).increment(number)
        else:
            recorder.gauge(f"{NAME}_now", labels(number)).set(number)


def collector(series: int, histograms: int) -> Callable[[], list[Any]] | None:
    """Return a function that collects the same series from prometheus_client, if installed."""
    try:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    except ImportError:
        return None
    registry = CollectorRegistry()
    where: dict[str, Any] = {"labelnames": list(labels(0)), "registry": registry}
    counters = Counter(NAME, "Requests", **where)
    gauges = Gauge(f"{NAME}_now", "Requests", **where)
    seconds = Histogram(f"{NAME}_seconds", "Requests", **where)
    for number in range(series):
        if number < histograms:
            histogram = seconds.labels(**labels(number))
            for sample in SAMPLES:
                histogram.observe(sample)
        elif number % 2:
            counters.labels(**labels(number)).inc(number)
        else:
            gauges.labels(**labels(number)).set(number)
    return lambda: list(registry.collect())


def size(make: Callable[[], object]) -> float:
    """Return the number of bytes that remain allocated for what a function makes."""
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    held, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return held


class RetainingServer(Server):
    def __init__(self, factory: MetricsFactory, series: int, histograms: int) -> None:
        super().__init__(factory)
        self._series = series
        self._histograms = histograms

    @cached_property
    def _collect(self) -> Callable[[], list[Any]] | None:
        return collector(self._series, self._histograms)

    def snapshot(self) -> dict[str, object]:
        recorder, incoming = self._factory.recorder, self._factory.incoming
        histogram = recorder.histogram(f"{NAME}_seconds", labels(0))
        for number in range(LOGGED):
            histogram.record(SAMPLES[number % BUCKETS])
        start = time.perf_counter()
        found = recorder.snapshot()
        total = time.perf_counter() - start
        # The part of `snapshot` that other threads wait for.
        start = time.perf_counter()
        incoming._call_locked(incoming.ledger.copy_totals)
        locked = time.perf_counter() - start
        return {"series": len(found), "seconds": total, "locked": locked}

    def collect(self) -> dict[str, object]:
        if self._collect is None:
            return {"seconds": 0.0}
        start = time.perf_counter()
        self._collect()
        return {"seconds": time.perf_counter() - start}

    def memory(self) -> dict[str, object]:
        # The first calls fill caches.
        record_all(MetricsFactory(reactor).recorder, 1, 1)
        collector(1, 1)
        factory = MetricsFactory(reactor)
        histogram = size(lambda: retain(factory))
        totals = [
            total
            for key, total in factory.recorder.snapshot().items()
            if key.kind is MetricKind.HISTOGRAM
        ]
        distribution = size(lambda: [total.merge([total, total]) for total in totals])
        others = size(lambda: collector(MEASURED, MEASURED))
        return {
            "distribution": distribution / MEASURED,
            "histogram": histogram / MEASURED,
            "prometheus": others / MEASURED,
        }


def retain(factory: MetricsFactory) -> None:
    record_all(factory.recorder, MEASURED, MEASURED)
    factory.recorder.stats()
    factory.incoming._call_locked(factory.incoming.ledger.apply)


def main() -> None:
    series, histograms = map(int, sys.argv[1:])
    allow_many_files()
    factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False, max_clients=None))
    record_all(factory.recorder, series, histograms)
    serve(factory, RetainingServer(factory, series, histograms).answer)


if __name__ == "__main__":
    main()
