"""
The cost of one record.

``python -m suite.cost`` is the server process that measures it. Its command C{cost} measures every
call once, on the reactor thread, with C{count} repetitions each, and answers nanoseconds by name.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
from itertools import repeat
from timeit import Timer
from typing import Any

from suite.bench import Bench
from suite.commands import LABELS, NAME
from suite.figures import OURS, REFERENCE, Goal, Row, Section
from suite.host import Empty, nanoseconds, timer
from suite.peers import Server, python
from txmetrics_tcp import (
    ExporterSettings,
    MetricsFactory,
    NoopRecorder,
    counter,
    set_global_recorder,
)

EMPTY = "empty method call"
FLOAT = "of a float"
PROMETHEUS = "prometheus_client"
OPENTELEMETRY = "OpenTelemetry"

BURST = 1000
"""
The number of events between two reactor iterations if a client is connected. The log has room for
all of them, so the measured time is that of recording alone.
"""

SAMPLES = list(map(random.Random(1).lognormvariate, repeat(0.0, BURST), repeat(1.0)))

TITLE = "Cost of one record"

HOW = """\
The least processor time of five times 20,000 calls in a loop, without the loop. Without a client,
it includes applying the log to the totals, if they are on. With a client, it is the median of
bursts of a thousand calls, between which the events are delivered. Samples are 1.5, or a thousand
different ones of a lognormal distribution. Handles are resolved beforehand, except in "looked up";
all have two labels. Discarded events have no exporter, so that the check of the value is most of
the cost. "Calls" are empty method calls."""


def beside(name: str) -> dict[str, str]:
    """Return the measurements of this library and the others for the same operation."""
    return {OURS: name, PROMETHEUS: f"prometheus {name}", OPENTELEMETRY: f"opentelemetry {name}"}


def of_int(name: str) -> dict[str, str]:
    """Return the measurements of an operation with an int and with a float."""
    return {OURS: f"{name} int", FLOAT: f"{name} float"}


TOTALS_OFF = {OURS: "increment, no totals", EMPTY: "empty"}
CLIENT = {OURS: "increment, client", EMPTY: "empty"}
CLIENTS = {OURS: "increment, client", REFERENCE: "reference"}

LINES: list[tuple[str, dict[str, str], str | None, Goal | None]] = [
    ("counter, no client, no totals", TOTALS_OFF, EMPTY, Goal(3, False)),
    ("counter, no client", beside("increment"), PROMETHEUS, Goal(0.5, False)),
    ("counter, client", CLIENT, EMPTY, Goal(7, False)),
    ("counter, client", CLIENTS, REFERENCE, Goal(0.5, False)),
    ("counter looked up", beside("lookup"), PROMETHEUS, Goal(1, False)),
    ("gauge, no client", beside("set"), PROMETHEUS, None),
    ("histogram, no client", beside("record"), PROMETHEUS, Goal(0.45, False)),
    ("histogram, lognormal, no client", beside("samples"), PROMETHEUS, Goal(0.45, False)),
    ("gauge, an int, discarded", of_int("set"), FLOAT, Goal(2, False)),
    ("histogram, an int, discarded", of_int("record"), FLOAT, Goal(2, False)),
]


def run(bench: Bench) -> Section:
    rounds = bench.rounds(5)
    measured: dict[str, list[float]] = {}
    server = Server(True, python("suite.cost"))
    with server, bench.peers.reader(server.port, 1):
        for _ in rounds:
            answer = server.ask("cost", count=5_000 if bench.quick else 20_000)
            if bench.peers.rust:
                with bench.peers.session(False, 1, 1024) as session:
                    how = {"count": 1000, "rounds": 20 if bench.quick else 100}
                    answer["reference"] = session.server.ask("cost", **how)["ns"]
            for name, nanos in answer.items():
                measured.setdefault(name, []).append(nanos)
    rows = []
    call = statistics.median(measured["empty"])
    for what, columns, base, goal in LINES:
        samples = {column: measured.get(name, []) for column, name in columns.items()}
        rows.append(Row.of(what, "ns", samples, base, goal, call=call))
    return Section(TITLE, HOW, rows)


def ours(recorder: Any) -> dict[str, Timer]:
    """Return timers for a counter, a gauge and a histogram of a recorder."""
    return {
        "increment": timer("one.increment()", {"one": recorder.counter(NAME, LABELS)}),
        "set": timer("one.set(1.5)", {"one": recorder.gauge(NAME, LABELS)}),
        "record": timer("one.record(1.5)", {"one": recorder.histogram(NAME, LABELS)}),
    }


def of_samples(record: Any) -> Timer:
    """Return a timer for recording all of `SAMPLES`."""
    return timer("for one in samples: record(one)", {"samples": SAMPLES, "record": record})


def discarded() -> dict[str, Timer]:
    """Return timers for a gauge and a histogram, with a float and with an int."""
    recorder = NoopRecorder()
    handles = {"set": recorder.gauge(NAME, LABELS), "record": recorder.histogram(NAME, LABELS)}
    return {
        f"{name} {kind}": timer(f"one.{name}({value})", {"one": one})
        for name, one in handles.items()
        for kind, value in (("float", 1.5), ("int", 7))
    }


def prometheus() -> dict[str, Timer]:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    where: dict[str, Any] = {"labelnames": list(LABELS), "registry": CollectorRegistry()}
    counters = Counter(NAME, "Requests", **where)
    gauge = Gauge("gauge", "Gauge", **where).labels(**LABELS)
    histogram = Histogram("histogram", "Histogram", **where).labels(**LABELS)
    lookup = "counters.labels(method='GET', route='/users').inc()"
    return {
        "prometheus increment": timer("one.inc()", {"one": counters.labels(**LABELS)}),
        "prometheus set": timer("one.set(1.5)", {"one": gauge}),
        "prometheus record": timer("one.observe(1.5)", {"one": histogram}),
        "prometheus samples": of_samples(histogram.observe),
        "prometheus lookup": timer(lookup, {"counters": counters}),
    }


def opentelemetry() -> dict[str, Timer]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    meter = MeterProvider([InMemoryMetricReader()]).get_meter("benchmark")
    calls = {
        "increment": ("add(1, labels)", meter.create_counter(NAME)),
        "set": ("set(1.5, labels)", meter.create_gauge("gauge")),
        "record": ("record(1.5, labels)", meter.create_histogram("histogram")),
    }
    return {
        f"opentelemetry {name}": timer(f"one.{call}", {"one": one, "labels": LABELS})
        for name, (call, one) in calls.items()
    }


def main() -> None:
    from twisted.internet.defer import inlineCallbacks
    from twisted.internet.task import deferLater
    from twisted.internet.threads import blockingCallFromThread

    from suite.server import reactor, serve

    factory = MetricsFactory(reactor)
    connected = ours(factory.recorder)["increment"]
    recorder = MetricsFactory(reactor).recorder
    set_global_recorder(recorder)
    lookup = f"counter({NAME!r}, method='GET', route='/users').increment()"
    alone = {
        "increment, no totals": ours(
            MetricsFactory(reactor, ExporterSettings(totals=False)).recorder
        )["increment"],
        "empty": timer("one.method()", {"one": Empty()}),
        **ours(recorder),
        "samples": of_samples(recorder.histogram("samples", LABELS).record),
        **discarded(),
        "lookup": timer(lookup, {"counter": counter}),
    }
    for others in (prometheus, opentelemetry):
        try:
            alone.update(others())
        except ImportError as error:
            print(f"not installed: {error.name}", file=sys.stderr)

    @inlineCallbacks
    def measure(count: int) -> Any:
        while not factory.stats().clients:
            yield deferLater(reactor, 0.003)
        gc.collect()
        measured = {
            name: nanoseconds(timed, count // len(SAMPLES)) / len(SAMPLES)
            if name.endswith("samples")
            else nanoseconds(timed, count)
            for name, timed in alone.items()
        }
        bursts = []
        for _ in range(max(1, count // BURST)):
            bursts.append(nanoseconds(connected, BURST, 1))
            # Leaves time to deliver the events.
            yield deferLater(reactor, 0.003)
        return {**measured, "increment, client": statistics.median(bursts)}

    def answer(_word: str, options: dict[str, float]) -> Any:
        return blockingCallFromThread(reactor, measure, int(options["count"]))

    serve(factory, answer)


if __name__ == "__main__":
    main()
