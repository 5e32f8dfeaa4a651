"""
What a snapshot of many series costs.
"""

from __future__ import annotations

import time

from suite.bench import Bench
from suite.figures import OURS, Row, Section
from suite.peers import TIMEOUT, PeerError, Reader, Server, python

SERIES = 10_000

TITLE = f"A snapshot of {SERIES:,} series"

HOW = """\
A server retains 10,000 counters with three labels. Measured are: a `snapshot()` by the program
itself, and the memory that it takes; how long it takes from the start of a client's process until
it has the totals of all; and the longest time for which the reactor had no turn meanwhile. The
reference has nothing like it."""


def until_read(reader: Reader, sets: int) -> None:
    """Wait until a client has so many totals."""
    end = time.monotonic() + TIMEOUT
    while (read := reader.report()[0]["sets"]) < sets:
        if time.monotonic() > end:
            raise PeerError(f"{reader.name}: {read} of {sets} totals came")
        time.sleep(0.001)


def run(bench: Bench) -> Section:
    taken: list[float] = []
    size: list[float] = []
    received: list[float] = []
    away: list[float] = []
    with Server(python("suite.snapshot_peer"), ["PORT", str(SERIES)]) as server:
        for _ in bench.rounds(7):
            snapshot = server.ask("snapshot")
            if snapshot["series"] != SERIES:
                raise PeerError(f"{snapshot['series']} of {SERIES} series are in the snapshot")
            taken.append(snapshot["seconds"] * 1e3)
            size.append(snapshot["bytes"] / 1e6)
            server.ask("lag")
            start = time.perf_counter()
            with bench.peers.reader(server.port, 1, "plain") as reader:
                until_read(reader, SERIES)
                received.append((time.perf_counter() - start) * 1e3)
            away.append(server.ask("lag")["seconds"] * 1e3)
    return Section(
        TITLE,
        HOW,
        [
            Row.of("snapshot()", "ms", {OURS: taken}),
            Row.of("memory of the same", "MB", {OURS: size}),
            Row.of("start of a client until it has all totals", "ms", {OURS: received}),
            Row.of("longest time without a turn of the reactor", "ms", {OURS: away}),
        ],
    )
