"""
The cost of streaming what prometheus_client measures.

``python -m suite.prometheus_bridge COUNT`` measures each call without and with the stream, and
prints nanoseconds by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from timeit import Timer

from suite.bench import Bench
from suite.commands import LABELS
from suite.cost import PROMETHEUS
from suite.figures import OURS, Goal, Row, Section
from suite.host import nanoseconds, timer
from suite.peers import environment, python

TITLE = "Streaming what prometheus_client measures"

CALLS = {"counter.inc": "inc()", "gauge.set": "set(1.5)"}
CALLS |= dict.fromkeys(("histogram.observe", "summary.observe"), "observe(1.5)")

HOW = """\
The least processor time of 25 times 10,000 calls in a loop, without the loop, on children with two
labels: of prometheus_client alone, and then with `stream()`, in the same process. Without a client,
so it includes applying the log to the totals."""


def run(bench: Bench) -> Section:
    measured: dict[str, list[float]] = {}
    for _ in bench.rounds(5):
        command = [*python("suite.prometheus_bridge"), "1000" if bench.quick else "10000"]
        done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=True)
        for name, value in json.loads(done.stdout).items():
            measured.setdefault(name, []).append(value)
    rows = []
    for name in CALLS:
        alone, streamed = measured[f"alone {name}"], measured[f"streamed {name}"]
        on_top = [b - a for a, b in zip(alone, streamed, strict=True)]
        rows.append(Row.of(name, "ns", {OURS: streamed, PROMETHEUS: alone}, PROMETHEUS))
        rows.append(Row.of(f"{name}, on top", "ns", {OURS: on_top}, None, Goal(400, False, "ns")))
    return Section(TITLE, HOW, rows)


def main() -> None:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

    from txmetrics_tcp import MetricsFactory
    from txmetrics_tcp.bridges.prometheus import stream
    from txmetrics_tcp.testing import FakeReactor

    count = int(sys.argv[1])
    registry = CollectorRegistry()
    timers: dict[str, Timer] = {}
    for (name, call), kind in zip(CALLS.items(), (Counter, Gauge, Histogram, Summary), strict=True):
        one = kind(name.replace(".", "_"), "Help.", list(LABELS), registry=registry)
        timers[name] = timer(f"one.{call}", {"one": one.labels(**LABELS)})
    found = {f"alone {name}": nanoseconds(one, count, 25) for name, one in timers.items()}
    streaming = stream(MetricsFactory(FakeReactor()).recorder, registry, poll=1e6)
    found |= {f"streamed {name}": nanoseconds(one, count, 25) for name, one in timers.items()}
    streaming.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
