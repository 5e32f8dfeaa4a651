"""
What happens when more is recorded than can be delivered.
"""

from __future__ import annotations

from suite.bench import SUBJECTS, Bench, Subject, clients_text
from suite.figures import REFERENCE, Row, Section

BUFFER = 1024
CLIENTS = (1, 10, 100)

TITLE = "Overload"

HOW = """\
A program records as fast as it can for two seconds, with the default buffers of 1024 events, so
that most is lost. Each client's account is compared: what it is short of, the gaps that it saw in
the sequence, and what our server counted must be the same to the last event. The reference does not
count; and it throws the rest of a frame away that a socket took only in part, if the socket takes
nothing the next time either, which makes the rest of the stream unreadable. There is no goal."""


def overload(bench: Bench, subject: Subject, clients: int) -> tuple[float, float, float, float]:
    """
    Delivered and recorded events per second, the share of those that were lost, and that of
    clients whose stream can be read no more.
    """
    with bench.peers.session(
        subject.ours, clients, BUFFER, "numbered", own_metrics=False
    ) as session:
        seconds = 0.3 if bench.quick else 2.0
        recorded = session.record(seconds=seconds, reactor=subject.reactor)
        read = session.read_all()
        lost = session.close()
    delivered = sum(client["events"] for client in read)
    return (
        delivered / recorded["seconds"],
        recorded["recorded"] / recorded["seconds"],
        lost / (delivered + lost) * 100,
        session.corrupt / clients * 100,
    )


def run(bench: Bench) -> Section:
    rows = []
    for clients in CLIENTS:
        speed: dict[str, list[float]] = {}
        offered: dict[str, list[float]] = {}
        share: dict[str, list[float]] = {}
        corrupt: dict[str, list[float]] = {}
        for _ in bench.rounds(3):
            for subject in bench.subjects([subject.name for subject in SUBJECTS]):
                figures = overload(bench, subject, clients)
                for into, figure in zip((speed, offered, share, corrupt), figures, strict=True):
                    into.setdefault(subject.name, []).append(figure)
        who = clients_text(clients)
        rows += [
            Row.of(f"delivered to {who}", "events/s", speed, REFERENCE),
            Row.of(f"recorded, {who}", "events/s", offered),
            Row.of(f"lost, {who}", "%", share),
            Row.of(f"streams destroyed, {who}", "%", corrupt),
        ]
    return Section(TITLE, HOW, rows)
