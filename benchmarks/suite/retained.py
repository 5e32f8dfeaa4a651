"""
The process of a server that retains series of which some are histograms:
``python -m suite.retained SERIES HISTOGRAMS [STEPS]``.

It has SERIES series. The first HISTOGRAMS are histograms, and the others counters and gauges. The
samples of a histogram double in STEPS steps: with 32, they are in neighboring buckets; with 16, the
default, every second bucket is empty. Its commands are those of `suite.server` and:

  - C{snapshot}: take a snapshot while a thousand events are in the log; answer the time in
    C{seconds} and the time under the lock, C{locked};
  - C{collect}: collect the same series from prometheus_client, and answer the time in seconds;
  - C{expose_text}, C{expose_protobuf}: render all series for Prometheus, in slices; answer the
    processor time in C{seconds}, and the time of the longest slice, C{longest}. If C{log} was the
    command before, each histogram has a sample that is not in its total yet;
  - C{export}: make a request of OTLP with all series, in slices; answer as for C{expose_text};
  - C{generate}: render the same series with C{generate_latest} of prometheus_client, and answer the
    processor time in seconds;
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
from txmetrics_tcp.bridges._formats import PROTOBUF, TEXT, Format
from txmetrics_tcp.bridges.exposition import MetricsResource

BUCKETS = 60

STEPS = 16

LIMITS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The default buckets of prometheus_client, without the last one."""

MEASURED = 10_000
"""The number of histograms whose memory is measured."""

LOGGED = 1000


def labels(number: int) -> dict[str, str]:
    return {**LABELS, "route": f"/{number}"}


def samples(steps: int) -> list[float]:
    """Return samples, each of them in another bucket."""
    return [2 ** (number / steps) for number in range(BUCKETS)]


def record_all(recorder: Recorder, series: int, histograms: int, steps: int = STEPS) -> None:
    for number in range(series):
        if number < histograms:
            histogram = recorder.histogram(f"{NAME}_seconds", labels(number))
            for sample in samples(steps):
                histogram.record(sample)
        elif number % 2:
            recorder.counter(NAME, labels(number)).increment(number)
        else:
            recorder.gauge(f"{NAME}_now", labels(number)).set(number)


def registry(series: int, histograms: int, steps: int = STEPS) -> Any:
    """Return a registry of prometheus_client with the same series; None if not installed."""
    try:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    except ImportError:
        return None
    made = CollectorRegistry()
    where: dict[str, Any] = {"labelnames": list(labels(0)), "registry": made}
    counters = Counter(NAME, "Requests", **where)
    gauges = Gauge(f"{NAME}_now", "Requests", **where)
    seconds = Histogram(f"{NAME}_seconds", "Requests", **where)
    for number in range(series):
        if number < histograms:
            histogram = seconds.labels(**labels(number))
            for sample in samples(steps):
                histogram.observe(sample)
        elif number % 2:
            counters.labels(**labels(number)).inc(number)
        else:
            gauges.labels(**labels(number)).set(number)
    return made


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
    def __init__(
        self, factory: MetricsFactory, series: int, histograms: int, steps: int = STEPS
    ) -> None:
        super().__init__(factory)
        self._parts = series, histograms, steps
        self._samples = samples(steps)
        self._exporter: Any = None
        self._exposition = MetricsResource(factory.recorder, buckets=LIMITS).original

    @cached_property
    def _registry(self) -> Any:
        return registry(*self._parts)

    def snapshot(self) -> dict[str, object]:
        recorder, incoming = self._factory.recorder, self._factory.incoming
        histogram = recorder.histogram(f"{NAME}_seconds", labels(0))
        for number in range(LOGGED):
            histogram.record(self._samples[number % BUCKETS])
        start = time.perf_counter()
        found = recorder.snapshot()
        total = time.perf_counter() - start
        # The part of `snapshot` that other threads wait for.
        start = time.perf_counter()
        incoming._call_locked(incoming.ledger.copy_totals)
        locked = time.perf_counter() - start
        return {"series": len(found), "seconds": total, "locked": locked}

    def collect(self) -> dict[str, object]:
        if self._registry is None:
            return {"seconds": 0.0}
        start = time.perf_counter()
        list(self._registry.collect())
        return {"seconds": time.perf_counter() - start}

    def log(self) -> dict[str, object]:
        for number in range(self._parts[1]):
            self._factory.recorder.histogram(f"{NAME}_seconds", labels(number)).record(1.0)
        return {}

    def expose_text(self) -> dict[str, object]:
        return self._expose(TEXT)

    def expose_protobuf(self) -> dict[str, object]:
        return self._expose(PROTOBUF)

    def _expose(self, form: Format) -> dict[str, object]:
        size = 0
        longest = 0.0
        begun = time.thread_time()
        start = time.perf_counter()
        for piece in self._exposition._pieces(form):
            size += len(piece)
            now = time.perf_counter()
            longest = max(longest, now - start)
            start = now
        seconds = time.thread_time() - begun
        return {"seconds": seconds, "longest": longest, "bytes": size}

    def export(self) -> dict[str, object]:
        if self._exporter is None:
            from txmetrics_tcp.bridges.otlp import OtlpService, OtlpSettings

            service = OtlpService(reactor, self._factory.recorder, OtlpSettings())
            self._exporter = service._exporter
        body: list[bytes] = []
        longest = 0.0
        begun = time.thread_time()
        start = time.perf_counter()
        for _ in self._exporter._steps(body):
            now = time.perf_counter()
            longest = max(longest, now - start)
            start = now
        longest = max(longest, time.perf_counter() - start)
        seconds = time.thread_time() - begun
        return {"seconds": seconds, "longest": longest, "bytes": sum(map(len, body))}

    def generate(self) -> dict[str, object]:
        if self._registry is None:
            return {"seconds": 0.0}
        from prometheus_client import generate_latest

        begun = time.thread_time()
        generate_latest(self._registry)
        return {"seconds": time.thread_time() - begun}

    def memory(self) -> dict[str, object]:
        # The first calls fill caches.
        record_all(MetricsFactory(reactor).recorder, 1, 1)
        registry(1, 1)
        factory = MetricsFactory(reactor)
        histogram = size(lambda: retain(factory))
        totals = [
            total
            for key, total in factory.recorder.snapshot().items()
            if key.kind is MetricKind.HISTOGRAM
        ]
        distribution = size(lambda: [total.merge([total, total]) for total in totals])
        others = size(lambda: registry(MEASURED, MEASURED))
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
    parts = list(map(int, sys.argv[1:]))
    allow_many_files()
    factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False, max_clients=None))
    record_all(factory.recorder, *parts)
    serve(factory, RetainingServer(factory, *parts).answer)


if __name__ == "__main__":
    main()
