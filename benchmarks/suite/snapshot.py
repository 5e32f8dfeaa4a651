"""
The cost of a snapshot of many series.
"""

from __future__ import annotations

from suite.bench import Bench
from suite.figures import OURS, Row, Section
from suite.peers import PATIENCE, PeerError, seconds_from

SERIES = 10_000

TITLE = f"A snapshot of {SERIES:,} series"

HOW = """\
A server retains 10,000 counters with three labels. The table shows the times of a `snapshot()` by
the program, of a client from its connection to the last total, and of the longest reactor iteration
meanwhile. The reference has no snapshots."""


def run(bench: Bench) -> Section:
    samples: list[dict[str, list[float]]] = [{OURS: []} for _ in range(3)]
    with bench.peers.server(True, 1024, SERIES) as server:
        for _ in bench.rounds(7):
            snapshot = server.ask("snapshot")
            server.ask("lag")
            with bench.peers.reader(server.port, 1) as reader:
                report = reader.wait(SERIES, PATIENCE)
                received = seconds_from(reader.greeting["start_ns"], report)
            read = sum(report["events"])
            if not read == snapshot["series"] == SERIES:
                raise PeerError(f"{read} of {SERIES} totals were read; the snapshot: {snapshot}")
            lag = server.ask("lag")["seconds"]
            values = (snapshot["seconds"] * 1e3, received * 1e3, lag * 1e3)
            for columns, value in zip(samples, values, strict=True):
                columns[OURS].append(value)
    whats = (
        "snapshot()",
        "connection of a client until it has all totals",
        "longest time between two reactor iterations",
    )
    rows = [Row.of(what, "ms", columns) for what, columns in zip(whats, samples, strict=True)]
    return Section(TITLE, HOW, rows)
