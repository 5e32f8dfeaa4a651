"""
The memory use of the exporter.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from select import select

from suite.bench import SUBJECTS, Bench, Subject
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, Server, Session, python, until

STUCK = 100

TITLE = "Memory"

HOW = """\
Resident memory of the server's process, for this library with the interpreter. "Idle" is without
clients; "per client" is the average for 500 clients that read. "Stuck" clients never read: 100 are
connected while two million events are recorded (by this library on the reactor thread), with the
default buffers. They share one buffer of 1024 events; each holds about one chunk of 64 KiB in its
transport. The kernel's socket buffers are not included.

"A distribution" is the total of a histogram with 60 occupied buckets, and the last row has 10,000
of these histograms with series, key, two labels and handle, beside prometheus_client's with the 15
default buckets. Both are what Python's allocator counts for 10,000."""


def per_client(bench: Bench, server: Server) -> float:
    """Measure the memory of one client, in kilobytes."""
    clients = 50 if bench.quick else 500
    before = server.resident_bytes()
    with bench.peers.reader(server.port, clients) as reader:
        session = Session(server, reader)
        session.record(count=100)
        session.wait_for_all()
        return (server.resident_bytes() - before) / clients / 1e3


def stuck(bench: Bench, server: Server) -> float:
    """Measure the memory of all stuck clients together, in megabytes."""
    with ExitStack() as stack:
        before = server.resident_bytes()
        clients = [stack.enter_context(socket.socket()) for _ in range(STUCK)]
        for client in clients:
            # Small socket buffers, since they are not measured.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))

        def connected() -> bool:
            """Whether each client receives an event: the reference does not list its clients."""
            server.record(count=1)
            return len(select(clients, [], [], 0)[0]) == STUCK

        until(connected, PATIENCE, "clients are still missing")
        server.record(count=100_000 if bench.quick else 2_000_000, reactor=server.ours)
        return (server.resident_bytes() - before) / 1e6


def histograms(bench: Bench) -> list[Row]:
    """Measure the memory of histograms."""
    with Server(True, [*python("suite.retained"), "0", "0"]) as server:
        found = [server.ask("memory") for _ in bench.rounds(2)]
    distribution = [one["distribution"] / 1e3 for one in found]
    totals = {
        column: [one[name] * 10_000 / 1e6 for one in found if one[name]]
        for column, name in ((OURS, "histogram"), ("prometheus_client", "prometheus"))
    }
    return [
        Row.of("a distribution", "KB", {OURS: distribution}, None, Goal(1.5, False, "KB")),
        Row.of("10,000 histograms", "MB", totals, None, Goal(25, False, "MB")),
    ]


def run(bench: Bench) -> Section:
    def measure(subject: Subject) -> tuple[float, float, float]:
        with bench.peers.server(subject.ours, 1024) as server:
            server.cpu_seconds()  # an answer shows that it has started
            idle = server.resident_bytes() / 1e6
            each = per_client(bench, server)
        with bench.peers.server(subject.ours, 1024) as server:
            return idle, each, stuck(bench, server)

    idle, each, together = bench.alternate(2, measure, [one for one in SUBJECTS if not one.reactor])
    rows = [
        Row.of("idle", "MB", idle),
        Row.of("per client", "KB", each),
        Row.of(f"{STUCK} stuck clients, together", "MB", together),
        *histograms(bench),
    ]
    return Section(TITLE, HOW, rows)
