"""
A thousand clients.
"""

from __future__ import annotations

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PeerError, Server, python

CLIENTS = 1000
RATE = 1000
BARE = "bare transport.write"

TITLE = "A thousand clients, a thousand events per second"

HOW = """\
A program records 1000 events per second for 1000 clients, with the default buffers; beside it, a
Twisted server that does nothing but write the same bytes, ready-made, to 1000 transports. In ticks
of 50 ms there are 20 batches of 50 events each second, and both have time to spare: the work is the
same. In ticks of a millisecond it is more than a reactor can do, which then sends larger and fewer
batches. Nothing may be lost in either case."""


def measure(bench: Bench, ours: bool, tick_us: int) -> float:
    """Processor time, in seconds for each second."""
    seconds = 0.5 if bench.quick else 3.0
    server = (
        bench.peers.server(True, 1024) if ours else Server(python("suite.bare_server"), ["PORT"])
    )
    with server, bench.peers.attach(server, CLIENTS) as session:
        if not ours:
            server.ask("prepare")
        before = session.server.cpu_seconds()
        session.record(seconds=seconds, rate=RATE, tick_us=tick_us)
        session.read_all()
        cpu = session.server.cpu_seconds() - before
        if session.close():
            raise PeerError(f"{session.server.name}: {session.lost} events are lost")
    return cpu / seconds


def run(bench: Bench) -> Section:
    rows = []
    for tick_us, goal in ((50_000, Goal(2, False)), (1_000, None)):
        samples: dict[str, list[float]] = {OURS: [], BARE: []}
        for _ in bench.rounds(3):
            samples[OURS].append(measure(bench, True, tick_us))
            samples[BARE].append(measure(bench, False, tick_us))
        what = f"in ticks of {tick_us // 1000} ms"
        rows.append(Row.of(what, "s of processor time per s", samples, BARE, goal))
    return Section(TITLE, HOW, rows)
