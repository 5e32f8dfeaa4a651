"""
The cost of a snapshot of many series.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, PeerError, Server, python, seconds_from, until

SERIES = 10_000

TITLE = f"A snapshot of {SERIES:,} series"

HOW = """\
A server retains 10,000 counters with three labels. The table shows the times of a `snapshot()` by
the program, of a client from its connection to the last total, and of the longest reactor iteration
meanwhile; the processor time of a client that reads one byte and leaves, and that of ten clients
that connect at once and read everything, as a ratio to one; and the resident memory of each of 100
clients that read nothing, without the kernel's socket buffers. The reference has no snapshots.

"A third histograms" is a server with 3,333 histograms of 60 occupied buckets each, and counters and
gauges, with two labels and a thousand events in the log, beside prometheus_client's `collect` of
the same series with 15 buckets. In the last three rows, all series are such histograms."""

LEAVING = 50
STALLED = 100

PROMETHEUS = "prometheus_client"


def leaving(server: Server) -> float:
    """Measure the processor time of a client that leaves, in milliseconds."""
    before = server.cpu_seconds()
    for _ in range(LEAVING):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.recv(1)
    return (server.cpu_seconds() - before) / LEAVING * 1e3


def reading(bench: Bench, server: Server, clients: int) -> float:
    """Measure the processor time of clients that connect at once and read everything."""
    before = server.cpu_seconds()
    with bench.peers.reader(server.port, clients) as reader:
        reader.wait(SERIES * clients, PATIENCE)
        return server.cpu_seconds() - before


def stalled(server: Server) -> float:
    """Measure the memory of a client that reads nothing, in kilobytes."""
    before = server.resident_bytes()
    with ExitStack() as stack:
        for _ in range(STALLED):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
        until(
            lambda: len(server.ask("stats")["clients"]) == STALLED, PATIENCE, "clients are missing"
        )
        return (server.resident_bytes() - before) / STALLED / 1e3


def received_all(bench: Bench, server: Server) -> tuple[float, float]:
    """
    Measure the time of a client from its connection to the last total, and the longest time between
    two reactor iterations meanwhile, in milliseconds.
    """
    server.ask("lag")
    with bench.peers.reader(server.port, 1) as reader:
        report = reader.wait(SERIES, PATIENCE)
        received = seconds_from(reader.greeting["start_ns"], report)
    read = sum(report["events"])
    if read != SERIES:
        raise PeerError(f"{read} of {SERIES} totals were read")
    return received * 1e3, server.ask("lag")["seconds"] * 1e3


def histograms(bench: Bench) -> list[Row]:
    """Measure snapshots of histograms."""
    totals: dict[str, list[float]] = {OURS: [], PROMETHEUS: []}
    locked, received, lags, cpu = [], [], [], []
    with Server(True, [*python("suite.retained"), str(SERIES), str(SERIES // 3)]) as server:
        for _ in bench.rounds(7):
            snapshot = server.ask("snapshot")
            if snapshot["series"] != SERIES:
                raise PeerError(f"the snapshot has {snapshot['series']} of {SERIES} series")
            totals[OURS].append(snapshot["seconds"] * 1e3)
            locked.append(snapshot["locked"] * 1e3)
            if seconds := server.ask("collect")["seconds"]:
                totals[PROMETHEUS].append(seconds * 1e3)
    with Server(True, [*python("suite.retained"), str(SERIES), str(SERIES)]) as server:
        for _ in bench.rounds(7):
            took, lag = received_all(bench, server)
            received.append(took)
            lags.append(lag)
            cpu.append(reading(bench, server, 1) * 1e3)
    within = [Goal(limit, False, "ms") for limit in (15, 5)]
    return [
        Row.of("snapshot(), a third histograms", "ms", totals, PROMETHEUS, within[0]),
        Row.of("of it under the lock", "ms", {OURS: locked}, None, within[1]),
        Row.of(
            "histograms: connection of a client until it has all totals", "ms", {OURS: received}
        ),
        Row.of("histograms: longest time between two reactor iterations", "ms", {OURS: lags}),
        Row.of("histograms: processor time of a client", "ms", {OURS: cpu}),
    ]


def run(bench: Bench) -> Section:
    samples: list[dict[str, list[float]]] = [{OURS: []} for _ in range(6)]
    with bench.peers.server(True, 1024, SERIES) as server:
        for _ in bench.rounds(7):
            snapshot = server.ask("snapshot")
            if snapshot["series"] != SERIES:
                raise PeerError(f"the snapshot has {snapshot['series']} of {SERIES} series")
            received, lag = received_all(bench, server)
            values = (
                snapshot["seconds"] * 1e3,
                received,
                lag,
                leaving(server),
                reading(bench, server, 10) / reading(bench, server, 1),
                stalled(server),
            )
            for columns, value in zip(samples, values, strict=True):
                columns[OURS].append(value)
    whats = (
        ("snapshot()", "ms"),
        ("connection of a client until it has all totals", "ms"),
        ("longest time between two reactor iterations", "ms"),
        ("processor time of a client that leaves", "ms"),
        ("processor time of ten clients", "x"),
        ("memory of a client that reads nothing", "KB"),
    )
    rows = [
        Row.of(what, unit, columns) for (what, unit), columns in zip(whats, samples, strict=True)
    ]
    return Section(TITLE, HOW, [*rows, *histograms(bench)])
