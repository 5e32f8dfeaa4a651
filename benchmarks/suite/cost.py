"""
What one record costs.
"""

from __future__ import annotations

from suite.bench import Bench
from suite.figures import OURS, REFERENCE, Goal, Row, Section
from suite.peers import Server, python

EMPTY = "empty method call"
PROMETHEUS = "prometheus_client"
OPENTELEMETRY = "OpenTelemetry"

TITLE = "What one record costs"

HOW = """\
One thread calls in a loop, of which the cost of the loop itself is taken off; the time is the
processor's for this thread, and the least of five times 20,000 calls. With totals on, the cost
includes folding the log into the totals; with a client, it is that of filling the log while the
reactor does nothing, as it does between two of its turns (the median of bursts of a thousand). The
reference records in such bursts, too, with pauses in which its own thread takes what it recorded.
Handles, children and instruments are resolved beforehand, but where a lookup is what is measured;
all have two labels."""

# What is measured, by column; the base; the goal.
Line = tuple[str, dict[str, str], str, Goal | None]

LINES: list[Line] = [
    (
        "counter, no client, totals off",
        {OURS: "increment, totals off", EMPTY: "empty"},
        EMPTY,
        Goal(3, False),
    ),
    (
        "counter, no client, totals on",
        {
            OURS: "increment, totals on",
            PROMETHEUS: "prometheus increment",
            OPENTELEMETRY: "opentelemetry increment",
            EMPTY: "empty",
        },
        PROMETHEUS,
        Goal(0.5, False),
    ),
    (
        "counter, client connected",
        {OURS: "increment, client", EMPTY: "empty"},
        EMPTY,
        Goal(8, False),
    ),
    (
        "counter, client connected",
        {OURS: "increment, client", REFERENCE: "reference"},
        REFERENCE,
        Goal(0.5, False),
    ),
    (
        "counter looked up by keywords, then incremented",
        {OURS: "lookup, keywords", PROMETHEUS: "prometheus lookup, keywords"},
        PROMETHEUS,
        Goal(1, False),
    ),
    (
        "counter looked up by a mapping (theirs: by values), then incremented",
        {OURS: "lookup, mapping", PROMETHEUS: "prometheus lookup, values"},
        PROMETHEUS,
        Goal(1, False),
    ),
    (
        "gauge set, no client, totals on",
        {OURS: "set, totals on", PROMETHEUS: "prometheus set", OPENTELEMETRY: "opentelemetry set"},
        PROMETHEUS,
        None,
    ),
    ("gauge set, client connected", {OURS: "set, client", EMPTY: "empty"}, EMPTY, None),
    (
        "histogram record, no client, totals on",
        {
            OURS: "record, totals on",
            PROMETHEUS: "prometheus record",
            OPENTELEMETRY: "opentelemetry record",
        },
        PROMETHEUS,
        None,
    ),
    ("histogram record, client connected", {OURS: "record, client", EMPTY: "empty"}, EMPTY, None),
]


def run(bench: Bench) -> Section:
    measured: dict[str, list[float]] = {}
    peer = Server(python("suite.cost_peer"), ["PORT"])
    with peer, bench.peers.reader(peer.port, 1, "plain"):
        for _ in bench.rounds(9):
            one_round = peer.ask("cost", count=5_000 if bench.quick else 20_000)
            if bench.peers.rust:
                with bench.peers.session(False, 1, 1024, "plain") as session:
                    rounds = 20 if bench.quick else 100
                    one_round["reference"] = session.server.ask("cost", count=1000, rounds=rounds)[
                        "ns"
                    ]
            for name, nanos in one_round.items():
                measured.setdefault(name, []).append(nanos)
    rows = []
    for what, columns, base, goal in LINES:
        samples = {column: measured.get(name, []) for column, name in columns.items()}
        rows.append(Row.of(what, "ns", samples, base, goal))
    return Section(TITLE, HOW, rows)
