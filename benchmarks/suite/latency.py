"""
How long an event takes from the call that records it to the client.
"""

from __future__ import annotations

from suite.bench import Bench, Subject
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import PeerError

RATES = (1_000, 20_000)
ATTEMPTS = 5
"""
How often a run is repeated in which an event was lost: at the higher rate, a pause of the machine
fills the buffers within a twentieth of a second.
"""

GOAL = Goal(2, False)
PERCENTILES = {
    "p50": ("median", GOAL),
    "p90": ("90th percentile", None),
    "p99": ("99th percentile", GOAL),
    "p999": ("99.9th percentile", None),
}

TITLE = "Latency"

HOW = """\
A program records at a steady rate, in ticks of a millisecond, with one client and the default
buffers. The value of an event is the time just before the call that records it (the timestamp
would not do: the reference takes it when it encodes); the latency ends when the client's recv
has returned. A run in which an event was lost is repeated, up to four times."""


def run(bench: Bench) -> Section:
    rows = []
    for rate in RATES:

        def measure(subject: Subject, rate: int = rate) -> tuple[float, ...]:
            how = {"rate": rate, "reactor": subject.reactor}
            for _ in range(ATTEMPTS):
                with bench.peers.session(subject.ours, 1, 1024, "timed") as session:
                    # The first events find everything cold.
                    session.record(seconds=0.2, **how)
                    session.settle()
                    session.reader.ask("latency")
                    recorded = session.record(seconds=0.3 if bench.quick else 2.0, **how)
                    session.settle()
                    latency = session.reader.ask("latency")
                if latency["count"] == recorded["recorded"] > 0:
                    return tuple(latency[key] / 1000 for key in PERCENTILES)
            raise PeerError(f"{latency['count']} events were read, not all of {recorded}")

        samples = bench.alternate(3, measure)
        for (what, goal), columns in zip(PERCENTILES.values(), samples, strict=True):
            rows.append(Row.of(f"{what}, {rate:,} events/s", "µs", columns, REFERENCE, goal))
    return Section(TITLE, HOW, rows)
