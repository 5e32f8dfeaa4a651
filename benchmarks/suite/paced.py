"""
What delivery costs the server at rates that nobody has trouble with.
"""

from __future__ import annotations

from suite.bench import Bench, Subject, clients_text
from suite.figures import OURS, REACTOR, REFERENCE, Row, Section
from suite.peers import PeerError

BUFFER = 65_536
RATES = {1: 20_000, 10: 20_000, 100: 4_000}

TITLE = "Processor time at a moderate rate"

HOW = """\
A program records for two seconds at a steady rate, in ticks of a millisecond, which is less than
either server can deliver: the work is the same, and nothing is lost. The processor time is that of
the whole server, recording and idling included. It is nearly all wake-ups, a thousand a second; the
goals are about full speed."""


def run(bench: Bench) -> Section:
    rows = []
    for clients, rate in RATES.items():

        def measure(subject: Subject, clients: int = clients, rate: int = rate) -> float:
            with bench.peers.session(subject.ours, clients, BUFFER) as session:
                before = session.server.cpu_seconds()
                session.record(
                    seconds=0.3 if bench.quick else 2.0, rate=rate, reactor=subject.reactor
                )
                session.read_all()
                cpu = session.server.cpu_seconds() - before
                delivered = session.recorded * clients
                if session.close():
                    raise PeerError(f"{session.lost} events are lost at a moderate rate")
            return cpu / delivered * 1e6

        samples = bench.alternate(3, measure, OURS, REACTOR, REFERENCE)
        what = f"{rate:,} events/s, {clients_text(clients)}"
        rows.append(Row.of(what, "s per million", samples, REFERENCE))
    return Section(TITLE, HOW, rows)
