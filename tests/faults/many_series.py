"""
Line 2: with many series, a client that connects and leaves costs little processor time, ten that
connect at once share one snapshot, and a client that reads nothing costs little memory, also with
many descriptions.  Arguments: clients, series.
"""

import subprocess
import sys
import threading
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

READERS = """
import selectors, socket, sys

for line in sys.stdin:
    port, number = map(int, line.split())
    with selectors.DefaultSelector() as selector:
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_READ)
        print("connected", flush=True)
        ends = {}
        while number:
            for key, _ in selector.select():
                data = key.fileobj.recv(1 << 20)
                assert data, "the stream ended"
                if b"last_total" in ends.get(key.fd, b"") + data:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    number -= 1
                ends[key.fd] = data[-20:]
    print("read", flush=True)
"""
"""
A process that connects clients and reads until the last series.  It is another process, so that the
exporter alone has its interpreter, and decodes nothing.
"""


def main(report: Report, clients: int = 100, series: int = 10_000) -> None:
    readers = subprocess.Popen(
        [sys.executable, "-c", READERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert readers.stdin is not None and readers.stdout is not None
    with readers, readers.stdin as orders, exporter(flush_timeout=0) as metrics:
        recorder = metrics.recorder
        port = metrics.addresses[0].port  # type: ignore[attr-defined]

        def read(number: int) -> float:
            """Return the processor time for clients that connect in one reactor iteration."""
            before = reactor_seconds()
            connected = threading.Event()
            reactor.callFromThread(connected.wait, 60)
            orders.write(f"{port} {number}\n")
            orders.flush()
            assert readers.stdout is not None
            readers.stdout.readline()
            connected.set()
            readers.stdout.readline()
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
        # In pairs, because the speed of the machine changes.
        ratio = median(read(10) / read(1) for _ in range(9))
        report.at_most("processor time of ten that read, to that of one", ratio, 1.5, "x")

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
