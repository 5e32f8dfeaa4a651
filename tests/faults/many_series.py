"""
Line 2: with many series, a client that connects and leaves costs little processor time, ten that
connect at once share one snapshot, and a client that reads nothing costs little memory, also with
many descriptions.  Arguments: clients, series.
"""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from tests.faults import (
    Report,
    connect,
    exporter,
    reactor,
    reactor_seconds,
    resident_bytes,
    run,
)
from tests.programs import until


def read_totals(connection: socket.socket) -> None:
    """Read until the last series.  The processor is left to the exporter, so nothing is decoded."""
    data = b""
    while b"last_total" not in data:
        received = connection.recv(1 << 20)
        assert received, "the stream ended"
        data = data[-20:] + received


def main(report: Report, clients: int = 100, series: int = 10_000) -> None:
    with exporter(flush_timeout=0) as metrics:
        recorder = metrics.recorder

        def read(number: int) -> float:
            """Return the processor time for clients that connect in one reactor iteration."""
            before = reactor_seconds()
            connected = threading.Event()
            reactor.callFromThread(connected.wait, 60)
            connections = [connect(metrics, buffer=1 << 20) for _ in range(number)]
            connected.set()
            with ThreadPoolExecutor(number) as pool:
                list(pool.map(read_totals, connections))
            return reactor_seconds() - before

        for number in range(series - 1):
            recorder.counter("requests_total", route=f"/{number}", status="200").increment()
        recorder.counter("last_total").increment()
        before = reactor_seconds()
        for _ in range(clients):
            with connect(metrics) as leaving:
                leaving.recv(1)
        each = (reactor_seconds() - before) / clients * 1e3
        report.at_most("processor time of each that leaves", each, 3, "ms")
        one, ten = (median(read(number) for _ in range(5)) for number in (1, 10))
        report.at_most("processor time of ten that read, to that of one", ten / one, 1.5, "x")

        for number in range(series):
            recorder.describe_counter(f"requests_{number}_total", "count", "Served requests.")
        until(lambda: not recorder.stats().clients)
        # All clients share the memory of the first.
        stalled = [connect(metrics)]
        until(lambda: recorder.stats().clients)
        memory = resident_bytes()
        stalled += [connect(metrics) for _ in range(clients)]
        until(lambda: len(recorder.stats().clients) > clients)
        each = (resident_bytes() - memory) / clients / 1e3
        report.at_most("memory of each that reads nothing", each, 100, "KB")


if __name__ == "__main__":
    run(main)
