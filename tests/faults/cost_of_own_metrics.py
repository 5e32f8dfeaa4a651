"""
Line 15: own metrics with many idle clients cost little, compared to one event a second.  Arguments:
clients, seconds.
"""

import time

from tests.faults import Report, connect, exporter, reactor_seconds, run
from tests.programs import until


def main(report: Report, clients: int = 1000, seconds: int = 20) -> None:
    def cost(own_metrics: bool) -> tuple[float, int]:
        """Return the processor time and the bytes of the program's events."""
        with exporter(own_metrics=own_metrics, max_clients=None, flush_timeout=0) as metrics:
            events = metrics.recorder.counter("events_total")

            def record(number: int) -> tuple[float, int]:
                before, written = reactor_seconds(), metrics.recorder.stats().bytes_written
                for _ in range(number):
                    events.increment()
                    time.sleep(1)
                written = metrics.recorder.stats().bytes_written - written
                return reactor_seconds() - before, written

            # Their buffers are larger than the stream.
            connections = [connect(metrics) for _ in range(clients)]
            until(lambda: len(metrics.recorder.stats().clients) == len(connections))
            # All own metrics are published first.
            record(2)
            return record(seconds)

    with_own, without = cost(True), cost(False)
    report.at_most("processor time, to that without", with_own[0] / without[0], 2, "x")
    report.at_most("bytes sent, to those without", with_own[1] / without[1], 5, "x")


if __name__ == "__main__":
    run(main)
