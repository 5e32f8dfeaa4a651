"""
What share of the events is lost, by the rate at which they are offered.
"""

from __future__ import annotations

from suite.bench import SUBJECTS, Bench, Subject
from suite.figures import Row, Section

BUFFER = 1024
RATES = (25_000, 50_000, 100_000, 200_000, 400_000, 800_000)
QUICK_RATES = (25_000, 400_000)
TICK_US = 500

TITLE = "Loss against the offered rate"

HOW = """\
A program records for half a second at a steady rate, in ticks of half a millisecond, with one
client and the default buffers of 1024 events. What is lost is a share of what was recorded; it is
counted as under overload. Not every rate that is asked for is reached: the one that was stands
below the loss. There is no goal but that of the highest rate without a loss."""


def lost_at(rate: int) -> str:
    """What the row of a loss is called."""
    return f"lost at {rate:,} events/s"


def recorded_at(rate: int) -> str:
    """What the row of the rate that was reached is called."""
    return f"recorded at {rate:,} events/s"


def offer(bench: Bench, subject: Subject, rate: int) -> tuple[float, float]:
    """The share of events that were lost, in percent, and the rate that was reached."""
    with bench.peers.session(subject.ours, 1, BUFFER, "numbered", own_metrics=False) as session:
        how = {"tick_us": TICK_US, "reactor": subject.reactor}
        # The first events find everything cold.
        session.record(seconds=0.1, rate=RATES[0], **how)
        session.close()
        before = session.recorded
        recorded = session.record(seconds=0.1 if bench.quick else 0.5, rate=rate, **how)
        lost = session.close()
        share = lost / (session.recorded - before) * 100
    return share, recorded["recorded"] / recorded["seconds"]


def run(bench: Bench) -> Section:
    rows = []
    for rate in QUICK_RATES if bench.quick else RATES:
        share: dict[str, list[float]] = {}
        reached: dict[str, list[float]] = {}
        for _ in bench.rounds(3):
            for subject in bench.subjects([subject.name for subject in SUBJECTS]):
                one_share, one_reached = offer(bench, subject, rate)
                share.setdefault(subject.name, []).append(one_share)
                reached.setdefault(subject.name, []).append(one_reached)
        rows += [
            Row.of(lost_at(rate), "%", share),
            Row.of(recorded_at(rate), "events/s", reached),
        ]
    return Section(TITLE, HOW, rows)
