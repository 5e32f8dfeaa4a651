"""
Line 10: clients that lose events and leave do not flood the log.  Argument: clients.
"""

import time

from tests.faults import Report, connect, exporter, log_lines, run
from tests.programs import until


def main(report: Report, clients: int = 40) -> None:
    lines = log_lines()
    began = time.monotonic()
    with exporter(buffer_size=16, flush_timeout=0) as metrics:
        recorder = metrics.recorder
        padded = recorder.counter("padded_total", padding="x" * 20_000)

        def has_lost() -> bool:
            for _ in range(100):
                padded.increment()
            return recorder.stats().dropped_client > lost

        for _ in range(clients):
            lost = recorder.stats().dropped_client
            with connect(metrics):
                until(has_lost)
    number = sum("dropped" in line and "client" in line for line in lines)
    # Two lines, and at most two for each ten seconds.
    limit = 2 + (time.monotonic() - began) / 5
    report.at_most(f"log lines about {clients} clients", number, limit, "lines")


if __name__ == "__main__":
    run(main)
