"""
The processor time of a server at paced rates.
"""

from __future__ import annotations

from suite.bench import ATTEMPTS, SUBJECTS, Bench, Subject, clients_text, left_out
from suite.figures import AT_ONCE, REFERENCE, Goal, Row, Section
from suite.peers import NoFigure

BUFFER = 65_536
UNIT = "µs an event"
CASES: dict[tuple[int, int], tuple[Goal, ...]] = {
    (1, 1_000): (Goal(20, False, "µs"), Goal(0.5, False)),
    (1, 20_000): (Goal(2.5, False, "µs"), Goal(0.6, False)),
    (10, 20_000): (),
    (100, 4_000): (Goal(0.35, False),),
}
"""The goals by the number of clients and the events per second."""

SUBJECTS_AND_AT_ONCE = (*SUBJECTS[:-1], Subject(AT_ONCE, True, max_delay=0), SUBJECTS[-1])

TITLE = "Processor time at a paced rate"

HOW = """\
A program records for a second at a steady rate, in ticks of a millisecond, without losses. "Server"
is the processor time of the process; "load loop and idle clients" is that of the same loop just
before, with a counter that does nothing. If the numbers of events differ by more than 5 %, both are
measured again, up to four times. The difference is the cost of recording and delivering an event
to all clients. With `max_delay=0`, events are recorded on a separate thread."""


def run(bench: Bench) -> Section:
    seconds = 0.3 if bench.quick else 1.0
    difference = 1 if bench.quick else 0.05
    rows = []
    for (clients, rate), goals in CASES.items():

        def measure(
            subject: Subject, clients: int = clients, rate: int = rate
        ) -> tuple[float, float, float]:
            how = {"rate": rate, "reactor": subject.reactor}
            with bench.peers.session(
                subject.ours, clients, BUFFER, max_delay=subject.max_delay
            ) as session:
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
        with left_out(what):
            rounds = 5 if clients == 1 else 3
            server, loop, cost = bench.alternate(rounds, measure, SUBJECTS_AND_AT_ONCE)
            rows += [
                Row.of(f"{what}: server", UNIT, server),
                Row.of(f"{what}: load loop and idle clients", UNIT, loop),
                Row.of(f"{what}: difference", UNIT, cost, REFERENCE, *goals, call=call),
            ]
    return Section(TITLE, HOW, rows)
