"""
Line 9: the table of C{metrics-tcp stats} fits the terminal, whatever a server sends.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
import unicodedata
from subprocess import DEVNULL

from tests import environment
from tests.daemon import LIMIT
from tests.faults import Report, exporter, port_of, read_all, run, start
from txmetrics_tcp import (
    Key,
    Metric,
    MetricKind,
    Operation,
    SourceView,
    counter,
    describe_gauge,
    gauge,
)


def stats(port: int, columns: int) -> str:
    """Return the output of the command on a terminal; in a pipe, if it has no columns."""
    reading, writing = pty.openpty() if columns else os.pipe()
    if columns:
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {**environment(), "COLUMNS": ""}
    limit = ("--duration", "0.5")
    process = start("stats", str(port), *limit, stdout=writing, stderr=DEVNULL, env=env)
    os.close(writing)
    output = b"".join(read_all(reading))
    process.wait(LIMIT)
    return output.decode().replace("\r\n", "\n")


def width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def main(report: Report) -> None:
    with exporter() as metrics:
        describe_gauge("never", "seconds")
        gauge("never").set(sys.float_info.max)
        counter("n" * 60_000).increment()
        for label in ("日本語の値", "ascii", "e\u0301\u0301\u0301"):
            counter("labels_total", label=label).increment()
        for columns in (80, 120, 200, 0):
            case = f"{columns} columns" if columns else "pipe"
            output = stats(port_of(metrics), columns)
            lines = [
                one for one in output.split("\n\n")[0].split("\n") if columns or "nn" not in one
            ]
            report.at_most(f"{case}: line", max(map(width, lines)), columns or 100, "cells")
            report.contains(case, " ".join(output.split()), " 1.8e+308 s ")
            values = [line.split("1     ")[0] for line in lines if "labels_" in line]
            report.equal(f"{case}: starts of a column", len({*map(width, values)}), 1)
    view = SourceView()
    key = Key(MetricKind.HISTOGRAM, "big")
    view.ingest(Metric(key, Operation.RECORD_HISTOGRAM, value, 0) for value in (1e308, 1.5e308))
    summary = view.series[key].summary()
    report.equal("mean of finite samples", summary and f"{summary.mean:.3g}", "1.25e+308")


if __name__ == "__main__":
    run(main)
