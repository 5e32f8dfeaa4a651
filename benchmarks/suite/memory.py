"""
How much memory the exporter takes.
"""

from __future__ import annotations

import socket
import time

from suite.bench import Bench, Subject
from suite.figures import OURS, REFERENCE, Row, Section
from suite.peers import Server, python

STUCK = 100

TITLE = "Memory"

HOW = """\
Resident memory of the server's process; that of the reference is all its own, ours includes the
interpreter. Idle is with nobody connected; the bare Twisted server is
`benchmarks/suite/bare_server.py`. Per client is what 500 clients that read add, each. Stuck clients
never read: 100 of them are connected while ten million events are recorded on the reactor thread,
with the default buffers. Each then holds its buffer of 1024 events, which all of them share, and
about one chunk of 64 KiB in its transport; beside that, its socket holds what the kernel allows."""

BARE = "bare Twisted server"


def idle(server: Server) -> float:
    time.sleep(0.3)
    return server.resident_bytes() / 1e6


def per_client(bench: Bench, server: Server) -> float:
    """In kilobytes."""
    clients = 50 if bench.quick else 500
    before = server.resident_bytes()
    with bench.peers.attach(server, clients) as session:
        session.record(count=100)
        session.read_all()
        return (server.resident_bytes() - before) / clients / 1e3


def stuck(bench: Bench, server: Server) -> float:
    """What they add, in megabytes."""
    events = 200_000 if bench.quick else 10_000_000
    clients = []
    try:
        before = server.resident_bytes()
        for _ in range(STUCK):
            client = socket.socket()
            clients.append(client)
            # What the sockets hold is not what is measured.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
        time.sleep(0.3)
        server.record(count=events, reactor=server.ours)
        return (server.resident_bytes() - before) / 1e6
    finally:
        for client in clients:
            client.close()


def run(bench: Bench) -> Section:
    idles: dict[str, list[float]] = {}
    clients: dict[str, list[float]] = {}
    stucks: dict[str, list[float]] = {}

    def start(subject: Subject) -> Server:
        return bench.peers.server(subject.ours, 1024)

    for _ in bench.rounds(2):
        for subject in bench.subjects():
            with start(subject) as server:
                idles.setdefault(subject.name, []).append(idle(server))
                clients.setdefault(subject.name, []).append(per_client(bench, server))
        with Server(python("suite.bare_server"), ["PORT"]) as bare:
            idles.setdefault(BARE, []).append(idle(bare))
    for subject in bench.subjects():
        with start(subject) as server:
            stucks.setdefault(subject.name, []).append(stuck(bench, server))
    return Section(
        TITLE,
        HOW,
        [
            Row.of("idle", "MB", {name: idles.get(name, []) for name in (OURS, REFERENCE, BARE)}),
            Row.of("per client", "KB", clients),
            Row.of("100 stuck clients, together", "MB", stucks),
        ],
    )
