"""
How long an event takes from the call that records it to the client.
"""

from __future__ import annotations

from typing import NamedTuple

from suite.bench import SUBJECTS, Bench, Subject
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import PeerError


class Percentile(NamedTuple):
    """
    One row of the table.

    @ivar part: of the events that were as quick or quicker.
    @ivar key: in the reader's answer.
    """

    name: str
    part: float
    key: str
    goal: Goal | None = None


RATES = (1_000, 20_000)
ATTEMPTS = 5
"""
How often it is tried to have every event come: the machine has pauses of its own, and at the higher
rate the buffers are full after a twentieth of a second.
"""

GOAL = Goal(2, False)
PERCENTILES = (
    Percentile("median", 0.5, "p50_ns", GOAL),
    Percentile("90th percentile", 0.9, "p90_ns"),
    Percentile("99th percentile", 0.99, "p99_ns", GOAL),
    Percentile("99.9th percentile", 0.999, "p999_ns"),
)

TITLE = "Latency"

HOW = """\
A program records at a steady rate, in ticks of a millisecond, with one client and the default
buffers. The value of an event is the time just before the call that records it (the timestamp
would not do: the reference takes it when it encodes); the latency is that until the client's read
returned that brought it. A run in which an event was lost is made anew, a few times at the most:
the machine has pauses of its own."""


def what(percentile: str, rate: int) -> str:
    """What a row is called."""
    return f"{percentile}, {rate:,} events/s"


def run(bench: Bench) -> Section:
    rows = []
    for rate in RATES:
        samples: dict[str, dict[str, list[float]]] = {one.key: {} for one in PERCENTILES}
        for _ in bench.rounds(4):
            for subject in bench.subjects([subject.name for subject in SUBJECTS]):
                latency = _measure(bench, subject, rate)
                for key, columns in samples.items():
                    columns.setdefault(subject.name, []).append(latency[key] / 1000)
        rows += [
            Row.of(what(one.name, rate), "µs", samples[one.key], REFERENCE, one.goal)
            for one in PERCENTILES
        ]
    return Section(TITLE, HOW, rows)


def _measure(bench: Bench, subject: Subject, rate: int) -> dict[str, float]:
    """
    What the reader says of one run in which every event came.

    @raise PeerError: there was none.
    """
    for _ in range(ATTEMPTS):
        with bench.peers.session(subject.ours, 1, 1024, "timed") as session:
            how = {"rate": rate, "reactor": subject.reactor}
            # The first events find everything cold.
            session.record(seconds=0.2, **how)
            session.read_all()
            session.reader.ask("latency")
            recorded = session.record(seconds=0.3 if bench.quick else 2.0, **how)
            session.read_all()
            latency = session.reader.ask("latency")
        if latency["count"] == recorded["recorded"]:
            return latency
    raise PeerError(f"{latency['count']} events were read, not all of {recorded}")
