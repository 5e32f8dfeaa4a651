"""
What one record costs.
"""

from __future__ import annotations

import statistics

from suite.bench import Bench
from suite.figures import OURS, REFERENCE, Goal, Row, Section
from suite.peers import Server, python

EMPTY = "empty method call"
PROMETHEUS = "prometheus_client"
OPENTELEMETRY = "OpenTelemetry"

TITLE = "What one record costs"

HOW = """\
One thread calls in a loop, whose own cost is subtracted; the time is the processor's for this
thread, and the least of five times 20,000 calls. With totals, applying the log to the totals is
included. With a client, the cost is that of filling the log while the reactor does nothing, as
it does between two iterations (the median of bursts of a thousand). The reference records in
such bursts, too, with pauses in which its own thread takes what it recorded. Handles, children
and instruments are resolved beforehand, but where a lookup is what is measured; all have two
labels. Calls are empty method calls."""

# What is measured, by column; the base; the goal.
Line = tuple[str, dict[str, str], str | None, Goal | None]


def beside(name: str) -> dict[str, str]:
    """This library and the others, where they do the same."""
    return {OURS: name, PROMETHEUS: f"prometheus {name}", OPENTELEMETRY: f"opentelemetry {name}"}


LINES: list[Line] = [
    (
        "counter, no client, no totals",
        {OURS: "increment, totals off", EMPTY: "empty"},
        EMPTY,
        Goal(3, False),
    ),
    ("counter, no client", beside("increment"), PROMETHEUS, Goal(0.5, False)),
    ("counter, client", {OURS: "increment, client", EMPTY: "empty"}, EMPTY, Goal(8, False)),
    (
        "counter, client",
        {OURS: "increment, client", REFERENCE: "reference"},
        REFERENCE,
        Goal(0.5, False),
    ),
    ("counter looked up by keywords", beside("keywords"), PROMETHEUS, Goal(1, False)),
    (
        "counter looked up by a mapping (theirs: by values)",
        beside("mapping"),
        PROMETHEUS,
        Goal(1, False),
    ),
    ("gauge, no client", beside("set"), PROMETHEUS, None),
    ("gauge, client", {OURS: "set, client"}, None, None),
    ("histogram, no client", beside("record"), PROMETHEUS, None),
    ("histogram, client", {OURS: "record, client"}, None, None),
]


def run(bench: Bench) -> Section:
    measured: dict[str, list[float]] = {}
    server = Server(True, python("suite.cost_server"), ["PORT"])
    with server, bench.peers.reader(server.port, 1):
        for _ in bench.rounds(7):
            answer = server.ask("cost", count=5_000 if bench.quick else 20_000)
            if bench.peers.rust:
                with bench.peers.session(False, 1, 1024) as session:
                    how = {"count": 1000, "rounds": 20 if bench.quick else 100}
                    answer["reference"] = session.server.ask("cost", **how)["ns"]
            for name, nanos in answer.items():
                measured.setdefault(name, []).append(nanos)
    call = statistics.median(measured["empty"])
    rows = []
    for what, columns, base, goal in LINES:
        samples = {column: measured.get(name, []) for column, name in columns.items()}
        rows.append(Row.of(what, "ns", samples, base, goal, call=call))
    return Section(TITLE, HOW, rows)
