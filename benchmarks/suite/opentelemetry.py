"""
The cost of a measurement by OpenTelemetry's instruments.
"""

from __future__ import annotations

import gc
from timeit import Timer
from typing import Any

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.host import nanoseconds, timer
from suite.peers import PeerError
from txmetrics_tcp import MetricsFactory
from txmetrics_tcp.testing import FakeReactor

SDK = "OpenTelemetry SDK"
BOTH = "with the SDK inside"

ATTRIBUTES = {
    "http.request.method": "GET",
    "http.route": "/users",
    "http.response.status_code": 200,
}

CALLS = {
    "counter": "add(1{})",
    "counter with fractions": "add(1.5{})",
    "counter of seconds": "add(1.5{})",
    "up-down counter": "add(1{})",
    "histogram": "record(1.5{})",
    "gauge": "set(1.5{})",
}

TITLE = "Cost of a measurement with OpenTelemetry"

HOW = """\
The least processor time of five times 5,000 calls in a loop, without the loop: of instruments of a
`StreamingMeterProvider`, of the SDK's, and of the former with the latter inside. The exporter keeps
totals and has no clients; the SDK has a reader. Three attributes are two strings and an int."""


def timers(provider: Any) -> dict[tuple[str, int], Timer]:
    """Return timers by instrument and number of attributes."""
    meter = provider.get_meter("benchmark")
    instruments = {
        "counter": meter.create_counter("counter"),
        "counter with fractions": meter.create_counter("fractions"),
        "counter of seconds": meter.create_counter("seconds", "s"),
        "up-down counter": meter.create_up_down_counter("up_down"),
        "histogram": meter.create_histogram("histogram"),
        "gauge": meter.create_gauge("gauge"),
    }
    return {
        (name, len(attributes)): timer(
            f"one.{call.format(', attributes' if attributes else '')}",
            {"one": instruments[name], "attributes": attributes},
        )
        for name, call in CALLS.items()
        for attributes in ({}, ATTRIBUTES)
    }


def run(bench: Bench) -> Section:
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        from txmetrics_tcp.bridges.opentelemetry import StreamingMeterProvider
    except ImportError as error:
        raise PeerError(f"not installed: {error.name}") from None

    def sdk() -> Any:
        return MeterProvider([InMemoryMetricReader()])

    def ours(inner: Any = None) -> Any:
        return StreamingMeterProvider(MetricsFactory(FakeReactor()).recorder, inner)

    subjects = {OURS: timers(ours()), SDK: timers(sdk()), BOTH: timers(ours(sdk()))}
    measured: dict[tuple[str, int], dict[str, list[float]]] = {}
    for _ in bench.rounds(5):
        gc.collect()
        for case in subjects[OURS]:
            for column, timed in subjects.items():
                nanos = nanoseconds(timed[case], 1_000 if bench.quick else 5_000)
                measured.setdefault(case, {}).setdefault(column, []).append(nanos)
    rows = [
        Row.of(
            f"{name}, {'three' if attributes else 'no'} attributes",
            "ns",
            columns,
            SDK,
            Goal(0.2, False),
            call=bench.call_ns,
        )
        for (name, attributes), columns in measured.items()
    ]
    return Section(TITLE, HOW, rows)
