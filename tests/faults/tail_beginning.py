"""
Line 14: C{metrics-tcp tail} counts descriptions and totals in one line.  Values are human-readable
on a terminal, and exact elsewhere.
"""

import os
import pty
from subprocess import DEVNULL

from tests.daemon import LIMIT
from tests.faults import Report, exporter, port_of, run, start
from txmetrics_tcp import ThreadedExporter

SERIES = 300


def tail(metrics: ThreadedExporter, reading: int, writing: int) -> list[str]:
    """
    Return the output of a command, which ends after an event that is recorded after the snapshot.

    @param reading: the descriptor to read the output from.
    @param writing: its standard output.
    """
    limits = ["--filter", "kind:histogram", "--filter", "kind:counter", "--duration", str(LIMIT)]
    process = start("tail", str(port_of(metrics)), *limits, stdout=writing, stderr=DEVNULL)
    os.close(writing)
    with open(reading) as output:
        lines = []
        try:
            for line in output:
                lines.append(line.rstrip())
                if line.startswith("snapshot") and "begin" not in line:
                    metrics.recorder.histogram("latency_seconds").record(0.00123456789)
                if "histogram/record" in line:
                    process.terminate()
        except OSError:
            # A terminal whose other side was closed.
            pass
    process.wait(LIMIT)
    return lines


def main(report: Report) -> None:
    with exporter() as metrics:
        metrics.recorder.describe_histogram("latency_seconds", "seconds", "Latency.")
        for number in range(SERIES):
            metrics.recorder.counter("requests_total", number=number).increment()
        lines = tail(metrics, *os.pipe())
        report.at_most("lines before the first event", len(lines) - 1, 3, "lines")
        report.contains("counts", lines[1], f"{SERIES} totals")
        report.contains("in a pipe", lines[-1], "0.00123456789 s")
        report.contains("on a terminal", tail(metrics, *pty.openpty())[-1], "1.23", "ms")


if __name__ == "__main__":
    run(main)
