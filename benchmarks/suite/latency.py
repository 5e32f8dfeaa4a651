"""
How long an event takes from the call that records it to the client.
"""

from __future__ import annotations

from suite.bench import SUBJECTS, Bench
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import PeerError

RATES = (1_000, 20_000)
GOAL = Goal(2, False)

HOW = """\
A program records at a steady rate, in ticks of a millisecond, with one client and the default
buffers. The value of an event is the time just before the call that records it (the timestamp
would not do: the reference takes it when it encodes); the latency is that until the client's read
returned that brought it."""


def run(bench: Bench) -> Section:
    rows = []
    for rate in RATES:
        median: dict[str, list[float]] = {}
        high: dict[str, list[float]] = {}
        for _ in bench.rounds(4):
            for subject in bench.subjects([subject.name for subject in SUBJECTS]):
                with bench.peers.session(subject.ours, 1, 1024, "timed") as session:
                    how = {"rate": rate, "reactor": subject.reactor}
                    # The first events find everything cold.
                    session.record(seconds=0.2, **how)
                    session.read_all()
                    session.reader.ask("latency")
                    recorded = session.record(seconds=0.3 if bench.quick else 2.0, **how)
                    session.read_all()
                    latency = session.reader.ask("latency")
                if latency["count"] != recorded["recorded"]:
                    raise PeerError(f"{latency['count']} events were read, not all of {recorded}")
                median.setdefault(subject.name, []).append(latency["p50_ns"] / 1000)
                high.setdefault(subject.name, []).append(latency["p99_ns"] / 1000)
        rows += [
            Row.of(f"median, {rate:,} events/s", "µs", median, REFERENCE, GOAL),
            Row.of(f"99th percentile, {rate:,} events/s", "µs", high, REFERENCE, GOAL),
        ]
    return Section("Latency", HOW, rows)
