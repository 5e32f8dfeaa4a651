"""
What a server costs at paced rates.
"""

from __future__ import annotations

from suite.bench import Bench, Subject, clients_text
from suite.figures import REFERENCE, Row, Section
from suite.peers import PeerError

BUFFER = 65_536
CASES = ((1, 1_000), (1, 20_000), (10, 20_000), (100, 4_000))

TITLE = "Processor time at a paced rate"

HOW = """\
A program records for a second at a steady rate, in ticks of a millisecond; nothing is lost. The
processor time is that of the whole server. That of its load loop alone, which sleeps and wakes a
thousand times a second, is measured in the same process just before: the same loop, with a
counter that does nothing (of the reference, with metrics' own). The last row is the difference,
the cost of recording and delivering an event to all clients."""


def run(bench: Bench) -> Section:
    seconds = 0.3 if bench.quick else 1.0
    rows = []
    for clients, rate in CASES:

        def measure(
            subject: Subject, clients: int = clients, rate: int = rate
        ) -> tuple[float, float, float]:
            how = {"seconds": seconds, "rate": rate, "reactor": subject.reactor}
            with bench.peers.session(subject.ours, clients, BUFFER) as session:
                server = session.server
                before = server.cpu_seconds()
                # As many as are recorded, but for what the clock rounds.
                alone = server.record(null=1, **how)["recorded"]
                between = server.cpu_seconds()
                recorded = session.record(**how)["recorded"]
                session.read_all()
                after = server.cpu_seconds()
                if lost := session.close():
                    raise PeerError(f"{lost} events are lost at a paced rate")
            if not alone or not recorded:
                raise PeerError(f"{server.name}: nothing was recorded in {seconds} seconds")
            loop, whole = (between - before) / alone * 1e6, (after - between) / recorded * 1e6
            return whole, loop, whole - loop

        samples = bench.alternate(3, measure)
        what = f"{rate:,} events/s, {clients_text(clients)}"
        call = bench.call_ns / 1000
        for part, columns in zip(("server", "load loop", "difference"), samples, strict=True):
            base = REFERENCE if part == "difference" else None
            rows.append(Row.of(f"{what}: {part}", "µs an event", columns, base, call=call))
    return Section(TITLE, HOW, rows)
