"""
Measures what one record costs, as a process of its own: ``python -m suite.cost_peer PORT``.

C{cost} measures everything once, one after the other, and gives nanoseconds by name.  All of it
happens on one thread, on which the reactor is idle meanwhile.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from statistics import median
from threading import Thread
from timeit import Timer
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread

from suite.commands import LABELS, NAME, commands, say
from txmetrics_tcp import MetricsFactory, counter, set_global_recorder

reactor: Any = global_reactor

BURST = 1000
"""
How many events are recorded between two turns of the reactor where it has a client: what the log
holds, so that they are all that is measured.
"""


class Empty:
    """Has the method whose call is the unit."""

    def method(self) -> None:
        pass


def statements() -> dict[str, tuple[str, dict[str, Any]]]:
    """What is measured with nobody listening: a statement, and what its names mean."""
    off = MetricsFactory(reactor, totals=False).recorder
    on = MetricsFactory(reactor).recorder
    set_global_recorder(on)
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "empty": ("one.method()", {"one": Empty()}),
        "increment, totals off": ("one.increment()", {"one": off.counter(NAME, LABELS)}),
        "increment, totals on": ("one.increment()", {"one": on.counter(NAME, LABELS)}),
        "set, totals on": ("one.set(1.5)", {"one": on.gauge(NAME, LABELS)}),
        "record, totals on": ("one.record(1.5)", {"one": on.histogram(NAME, LABELS)}),
        "lookup, keywords": (
            f"counter({NAME!r}, method='GET', route='/users').increment()",
            {"counter": counter},
        ),
        "lookup, mapping": (
            f"counter({NAME!r}, labels).increment()",
            {"counter": counter, "labels": LABELS},
        ),
    }
    for other in (prometheus, opentelemetry):
        try:
            found.update(other())
        except ImportError as error:
            print(f"not installed: {error.name}", file=sys.stderr)
    return found


def prometheus() -> dict[str, tuple[str, dict[str, Any]]]:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry = CollectorRegistry()
    counters = Counter(NAME, "Requests", list(LABELS), registry=registry)
    gauges = Gauge("gauge", "Gauge", list(LABELS), registry=registry)
    histograms = Histogram("histogram", "Histogram", list(LABELS), registry=registry)
    return {
        "prometheus increment": ("one.inc()", {"one": counters.labels(**LABELS)}),
        "prometheus set": ("one.set(1.5)", {"one": gauges.labels(**LABELS)}),
        "prometheus record": ("one.observe(1.5)", {"one": histograms.labels(**LABELS)}),
        "prometheus lookup, keywords": (
            "counters.labels(method='GET', route='/users').inc()",
            {"counters": counters},
        ),
        "prometheus lookup, values": (
            "counters.labels('GET', '/users').inc()",
            {"counters": counters},
        ),
    }


def opentelemetry() -> dict[str, tuple[str, dict[str, Any]]]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    meter = MeterProvider([InMemoryMetricReader()]).get_meter("benchmark")
    return {
        "opentelemetry increment": (
            "one.add(1, labels)",
            {"one": meter.create_counter(NAME), "labels": LABELS},
        ),
        "opentelemetry set": (
            "one.set(1.5, labels)",
            {"one": meter.create_gauge("gauge"), "labels": LABELS},
        ),
        "opentelemetry record": (
            "one.record(1.5, labels)",
            {"one": meter.create_histogram("histogram"), "labels": LABELS},
        ),
    }


def timer(statement: str, names: dict[str, Any]) -> Timer:
    # Of this thread: what else happens on the machine is not what is measured.
    return Timer(statement, timer=time.thread_time, globals=names)


LOOP = timer("pass", {})


def nanoseconds(timer: Timer, count: int, repeat: int = 5) -> float:
    """What a statement costs, without the loop around it: the least of several times."""
    return (min(timer.repeat(repeat, count)) - min(LOOP.repeat(repeat, count))) / count * 1e9


class Costs:
    """Knows what to measure, and how."""

    def __init__(self, factory: MetricsFactory) -> None:
        recorder = factory.recorder
        self._alone = {
            name: timer(statement, names) for name, (statement, names) in statements().items()
        }
        self._heard = {
            "increment, client": timer("one.increment()", {"one": recorder.counter(NAME, LABELS)}),
            "set, client": timer("one.set(1.5)", {"one": recorder.gauge(NAME, LABELS)}),
            "record, client": timer("one.record(1.5)", {"one": recorder.histogram(NAME, LABELS)}),
        }

    @inlineCallbacks
    def measure(self, count: int) -> Any:
        gc.collect()
        measured = {name: nanoseconds(timer, count) for name, timer in self._alone.items()}
        for name, timer in self._heard.items():
            bursts = []
            for _ in range(max(1, count // BURST)):
                bursts.append(nanoseconds(timer, BURST, 1))
                # Time to deliver them.
                yield deferLater(reactor, 0.003)
            measured[name] = median(bursts)
        return measured


def answer(costs: Callable[[int], Any]) -> None:
    for _word, options in commands():
        say(blockingCallFromThread(reactor, costs, int(options["count"])))
    reactor.callFromThread(reactor.stop)


def main() -> None:
    factory = MetricsFactory(reactor)
    port = reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    costs = Costs(factory)
    say({"port": port.getHost().port})
    reactor.callWhenRunning(Thread(target=answer, args=(costs.measure,), daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
