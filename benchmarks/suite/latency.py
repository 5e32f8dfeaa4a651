"""
The latency of an event from the recording call to the client.
"""

from __future__ import annotations

from suite.bench import ATTEMPTS, Bench, Subject, left_out
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import NoFigure

RATES = (1_000, 20_000)
GOAL = Goal(2, False)
PERCENTILES = {"p50": "median", "p99": "99th percentile"}

TITLE = "Latency"

HOW = """\
A program records at a steady rate, in ticks of a millisecond, with one client and the default
buffers. An event's value is the time just before the recording call (the reference's timestamps are
later); its latency ends when the client's recv returns. A run that loses an event is repeated, up
to four times: at the higher rate, a pause of a twentieth of a second fills the buffers."""


def run(bench: Bench) -> Section:
    rows = []
    for rate in RATES:

        def measure(subject: Subject, rate: int = rate) -> tuple[float, ...]:
            # A quick run may share the machine with other work, and must not lose events.
            buffer_size = 65_536 if bench.quick else 1024
            how = {"rate": rate, "reactor": subject.reactor}
            for _ in range(ATTEMPTS):
                with bench.peers.session(subject.ours, 1, buffer_size, "timed") as session:
                    # Warms up: the first events take longer.
                    session.record(seconds=0.2, **how)
                    session.drain()
                    session.reader.ask("latency")
                    recorded = session.record(seconds=0.3 if bench.quick else 2.0, **how)
                    session.drain()
                    latency = session.reader.ask("latency")
                if latency["count"] == recorded["recorded"] > 0:
                    return tuple(latency[key] / 1000 for key in PERCENTILES)
            raise NoFigure(f"the client read {latency['count']} of the events {recorded}")

        with left_out(f"{rate:,} events/s"):
            samples = bench.alternate(3, measure)
            for what, columns in zip(PERCENTILES.values(), samples, strict=True):
                rows.append(Row.of(f"{what}, {rate:,} events/s", "µs", columns, REFERENCE, GOAL))
    return Section(TITLE, HOW, rows)
