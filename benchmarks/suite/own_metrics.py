"""
The cost of the exporter's own metrics, and their share of the stream.
"""

from __future__ import annotations

from suite.bench import Bench, clients_text
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, PeerError, until

WITHOUT = "without own metrics"
CLIENTS = (1000, 4000)
RATE = 10
COST = Goal(1.25, False)
SHARE = Goal(5, False, "%")

TITLE = "Own metrics"

HOW = """\
A program records 10 events a second, for 20 seconds, with and without `own_metrics`. Each event
is sent to every client at once. The figure is the processor time of the server's process. "Share of
the stream" is the share of own metrics in the events sent to one client, while a program records
1,000 events a second for 10 seconds, in ticks of a millisecond."""


def run(bench: Bench) -> Section:
    rows = []
    for clients in CLIENTS:
        number = 100 if bench.quick else clients
        samples: dict[str, list[float]] = {OURS: [], WITHOUT: []}
        for _ in bench.rounds(2):
            for name, values in samples.items():
                values.append(cpu_share(bench, number, own_metrics=name == OURS))
        what = f"{clients_text(number)}, {RATE} events/s"
        rows.append(Row.of(what, "ms a second", samples, WITHOUT, COST))
    shares = {OURS: [share(bench) for _ in bench.rounds(2)]}
    rows.append(Row.of("share of the stream, 1,000 events/s", "%", shares, None, SHARE))
    return Section(TITLE, HOW, rows)


def share(bench: Bench) -> float:
    """Return the share of own metrics in the events sent to a client, in percent."""
    with (
        bench.peers.server(True, 1024, own_metrics=True) as server,
        bench.peers.reader(server.port, 1),
    ):
        until(lambda: len(server.ask("stats")["clients"]) == 1, PATIENCE, "the client is missing")

        def sent() -> int:
            (client,) = server.ask("stats")["clients"]
            if client["dropped_incoming"] or client["dropped_client"]:
                raise PeerError(f"events were dropped: {client}")
            return int(client["written"] + client["waiting"])

        # The first publication has all metrics.
        server.record(seconds=2, rate=1000)
        before = sent()
        recorded = server.record(seconds=1 if bench.quick else 10, rate=1000)["recorded"]
        return (1 - recorded / (sent() - before)) * 100


def cpu_share(bench: Bench, clients: int, own_metrics: bool) -> float:
    """Return the processor time of a server, in milliseconds for a second."""
    seconds = 2 if bench.quick else 20
    with (
        bench.peers.server(True, 1024, own_metrics=own_metrics) as server,
        bench.peers.reader(server.port, clients),
    ):
        until(
            lambda: len(server.ask("stats")["clients"]) == clients,
            PATIENCE,
            "clients are still missing",
        )
        how = {"rate": RATE, "tick_us": 1e6 / RATE}
        # The first publication has all metrics.
        server.record(seconds=2, **how)
        before = server.cpu_seconds()
        server.record(seconds=seconds, **how)
        return (server.cpu_seconds() - before) / seconds * 1e3
