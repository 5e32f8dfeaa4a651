"""
Issue 19, line 9: the table of C{metrics-tcp stats} fits the terminal, whatever a server sends.
"""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import unicodedata

from tests import environment
from tests.daemon import LIMIT
from tests.faults import Report, exporter, run
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
    command = [sys.executable, "-m", "txmetrics_tcp", "stats", str(port), "--duration", "0.5"]
    variables = {**environment(), "COLUMNS": ""}
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.DEVNULL, env=variables)
    os.close(writing)
    output = b""
    try:
        while data := os.read(reading, 65536):
            output += data
    except OSError:
        # The process has closed the terminal.
        pass
    os.close(reading)
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
            output = stats(metrics.addresses[0].port, columns)  # type: ignore[attr-defined]
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
