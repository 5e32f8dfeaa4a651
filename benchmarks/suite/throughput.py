"""
Delivered events per second at full speed, and what they cost.
"""

from __future__ import annotations

from suite.bench import SUBJECTS, Bench, Subject, clients_text
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import PeerError

BUFFER = 1_000_000
COUNTS = {1: 600_000, 10: 300_000, 100: 40_000}
QUICK_COUNTS = {1: 40_000, 10: 20_000, 100: 4_000}
SPEED = {1: Goal(1.5), 10: Goal(6), 100: Goal(10)}
CPU = {1: Goal(0.8, False), 10: Goal(0.25, False), 100: Goal(0.1, False)}

TITLE = "Full speed, with room for all"

HOW = """\
A program records as fast as it can, with buffers of a million events: 600,000 events with one
client, 300,000 with 10, 40,000 with 100, so that all can wait and none may be lost. The time is
that from the first record to the moment at which the last client has the last event. What counts is
what the clients have read. It is recorded on a thread of its own, as with the reference; beside
that, on the reactor thread, a thousand events in each of its turns, as a Twisted application may do
it. The processor time is that of the whole server, recording included."""


def deliver(bench: Bench, subject: Subject, clients: int) -> tuple[float, float]:
    """Events per second, and seconds of processor time per million."""
    count = (QUICK_COUNTS if bench.quick else COUNTS)[clients]
    with bench.peers.session(subject.ours, clients, BUFFER) as session:
        before = session.server.cpu_seconds()
        start_ns = session.record(count=count, reactor=subject.reactor)["start_ns"]
        read = session.read_all()
        cpu = session.server.cpu_seconds() - before
        if session.close() or session.corrupt:
            raise PeerError(f"{session.lost} events are lost, although all have room")
    delivered = sum(client["events"] for client in read)
    seconds = (max(client["last_ns"] for client in read) - start_ns) / 1e9
    return delivered / seconds, cpu / delivered * 1e6


def run(bench: Bench) -> Section:
    speeds: list[Row] = []
    costs: list[Row] = []
    for clients in COUNTS:
        speed: dict[str, list[float]] = {}
        cost: dict[str, list[float]] = {}
        for _ in bench.rounds(5):
            for subject in bench.subjects([subject.name for subject in SUBJECTS]):
                one_speed, one_cost = deliver(bench, subject, clients)
                speed.setdefault(subject.name, []).append(one_speed)
                cost.setdefault(subject.name, []).append(one_cost)
        who = clients_text(clients)
        speeds.append(Row.of(f"delivered to {who}", "events/s", speed, REFERENCE, SPEED[clients]))
        costs.append(
            Row.of(f"processor time, {who}", "s per million", cost, REFERENCE, CPU[clients])
        )
    return Section(TITLE, HOW, speeds + costs)
