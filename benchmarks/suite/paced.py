"""
The processor time of a server at paced rates.
"""

from __future__ import annotations

from suite.bench import ATTEMPTS, Bench, Subject, clients_text, left_out
from suite.figures import REFERENCE, Row, Section
from suite.peers import NoFigure

BUFFER = 65_536
CASES = ((1, 1_000), (1, 20_000), (10, 20_000), (100, 4_000))

TITLE = "Processor time at a paced rate"

HOW = """\
A program records for a second at a steady rate, in ticks of a millisecond, without losses. "Server"
is the processor time of the process; "load loop and idle clients" is that of the same loop just
before, with a counter that does nothing. If the numbers of events differ by more than 5 %, both are
measured again, up to four times. The difference is the cost of recording and delivering an event
to all clients."""


def run(bench: Bench) -> Section:
    seconds = 0.3 if bench.quick else 1.0
    difference = 1 if bench.quick else 0.05
    rows = []
    for clients, rate in CASES:

        def measure(
            subject: Subject, clients: int = clients, rate: int = rate
        ) -> tuple[float, float, float]:
            how = {"rate": rate, "reactor": subject.reactor}
            with bench.peers.session(subject.ours, clients, BUFFER) as session:
                server = session.server
                # Warms up: the first events take longer.
                session.record(seconds=0.2, **how)
                session.wait_for_all()
                for _ in range(ATTEMPTS):
                    before = server.cpu_seconds()
                    alone = server.record(null=1, seconds=seconds, **how)["recorded"]
                    between = server.cpu_seconds()
                    recorded = session.record(seconds=seconds, **how)["recorded"]
                    session.wait_for_all()
                    after = server.cpu_seconds()
                    # The loop has a cost per tick: compare only runs with equally many ticks.
                    if abs(recorded - alone) < difference * max(recorded, alone):
                        session.losses()
                        loop = (between - before) / alone * 1e6
                        whole = (after - between) / recorded * 1e6
                        return whole, loop, whole - loop
            raise NoFigure(f"{server.name}: {recorded} events, but {alone} in the loop alone")

        what = f"{rate:,} events/s, {clients_text(clients)}"
        call = bench.call_ns / 1000
        parts = ("server", "load loop and idle clients", "difference")
        with left_out(what):
            samples = bench.alternate(3, measure)
            for part, columns in zip(parts, samples, strict=True):
                base = REFERENCE if part == "difference" else None
                rows.append(Row.of(f"{what}: {part}", "µs an event", columns, base, call=call))
    return Section(TITLE, HOW, rows)
