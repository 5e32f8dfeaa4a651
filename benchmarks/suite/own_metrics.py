"""
The cost of the exporter's own metrics with many clients.
"""

from __future__ import annotations

from suite.bench import Bench, clients_text
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PATIENCE, until

WITHOUT = "without own metrics"
CASES = (
    (1000, 1, None),
    (1000, 10, Goal(1.25, False)),
    (4000, 10, Goal(1.25, False)),
)

TITLE = "Own metrics"

HOW = """\
A program records a few events a second, for 20 seconds, with and without `own_metrics`. Each event
is sent to every client at once. The figure is the processor time of the server's process."""


def run(bench: Bench) -> Section:
    rows = []
    for clients, rate, goal in CASES:
        number = 100 if bench.quick else clients
        samples: dict[str, list[float]] = {OURS: [], WITHOUT: []}
        for _ in bench.rounds(2):
            for name, values in samples.items():
                values.append(cpu_share(bench, number, rate, own_metrics=name == OURS))
        what = f"{clients_text(number)}, {rate} events/s"
        rows.append(Row.of(what, "ms a second", samples, WITHOUT, goal))
    return Section(TITLE, HOW, rows)


def cpu_share(bench: Bench, clients: int, rate: int, own_metrics: bool) -> float:
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
        how = {"rate": rate, "tick_us": 1e6 / rate}
        # The first publication has all metrics.
        server.record(seconds=2, **how)
        before = server.cpu_seconds()
        server.record(seconds=seconds, **how)
        return (server.cpu_seconds() - before) / seconds * 1e3
