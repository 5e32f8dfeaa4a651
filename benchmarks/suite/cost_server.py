"""
Measures what one record costs, as a process of its own: ``python -m suite.cost_server PORT``.

C{cost} measures everything once, with C{count} calls each, and answers nanoseconds by name. All of
it happens on the reactor thread.
"""

from __future__ import annotations

import gc
import sys
from statistics import median
from threading import Thread
from timeit import Timer
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread

from suite.commands import LABELS, NAME, commands, say
from suite.host import Empty, nanoseconds, timer
from txmetrics_tcp import MetricsFactory, counter, set_global_recorder

reactor: Any = global_reactor

BURST = 1000
"""
How many events are recorded between two reactor iterations where a client is connected: what the
log holds, so that recording is all that is measured.
"""


def handles(recorder: Any) -> tuple[Any, Any, Any]:
    return (
        recorder.counter(NAME, LABELS),
        recorder.gauge(NAME, LABELS),
        recorder.histogram(NAME, LABELS),
    )


def alone() -> dict[str, Timer]:
    """What is measured without clients."""
    off, _, _ = handles(MetricsFactory(reactor, totals=False).recorder)
    recorder = MetricsFactory(reactor).recorder
    set_global_recorder(recorder)
    one, gauge, histogram = handles(recorder)
    names = {"counter": counter, "labels": LABELS}
    return {
        "empty": timer("one.method()", {"one": Empty()}),
        "increment, totals off": timer("one.increment()", {"one": off}),
        "increment": timer("one.increment()", {"one": one}),
        "set": timer("one.set(1.5)", {"one": gauge}),
        "record": timer("one.record(1.5)", {"one": histogram}),
        "keywords": timer(f"counter({NAME!r}, method='GET', route='/users').increment()", names),
        "mapping": timer(f"counter({NAME!r}, labels).increment()", names),
    }


def prometheus() -> dict[str, Timer]:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    where = {"registry": CollectorRegistry()}
    counters = Counter(NAME, "Requests", list(LABELS), **where)
    gauge = Gauge("gauge", "Gauge", list(LABELS), **where).labels(**LABELS)
    histogram = Histogram("histogram", "Histogram", list(LABELS), **where).labels(**LABELS)
    names = {"counters": counters, "one": counters.labels(**LABELS)}
    return {
        "prometheus increment": timer("one.inc()", names),
        "prometheus set": timer("one.set(1.5)", {"one": gauge}),
        "prometheus record": timer("one.observe(1.5)", {"one": histogram}),
        "prometheus keywords": timer("counters.labels(method='GET', route='/users').inc()", names),
        "prometheus mapping": timer("counters.labels('GET', '/users').inc()", names),
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


class Costs:
    """Knows what to measure, and how."""

    def __init__(self, factory: MetricsFactory) -> None:
        self._alone = alone()
        for others in (prometheus, opentelemetry):
            try:
                self._alone.update(others())
            except ImportError as error:
                print(f"not installed: {error.name}", file=sys.stderr)
        one, gauge, histogram = handles(factory.recorder)
        self._connected = {
            "increment, client": timer("one.increment()", {"one": one}),
            "set, client": timer("one.set(1.5)", {"one": gauge}),
            "record, client": timer("one.record(1.5)", {"one": histogram}),
        }

    def run(self) -> None:
        """Answer commands, on a thread that is not the reactor's."""
        try:
            for _word, options in commands():
                say(blockingCallFromThread(reactor, self._measure, int(options["count"])))
        finally:
            reactor.callFromThread(reactor.stop)

    @inlineCallbacks
    def _measure(self, count: int) -> Any:
        gc.collect()
        measured = {name: nanoseconds(timed, count) for name, timed in self._alone.items()}
        for name, timed in self._connected.items():
            bursts = []
            for _ in range(max(1, count // BURST)):
                bursts.append(nanoseconds(timed, BURST, 1))
                # Time to deliver them.
                yield deferLater(reactor, 0.003)
            measured[name] = median(bursts)
        return measured


def main() -> None:
    factory = MetricsFactory(reactor)
    reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    costs = Costs(factory)
    say({})
    reactor.callWhenRunning(Thread(target=costs.run, daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
