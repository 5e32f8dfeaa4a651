"""
Line 1: a series that leaves the totals also leaves viewers.  A client that has read everything has
the recorder's series, and no others; recordings and JSON lines say what has gone.
"""

import sys
from pathlib import Path
from subprocess import run as run_command
from tempfile import TemporaryDirectory

from tests import environment
from tests.faults import Report, Viewer, connect, exporter, run
from txmetrics_tcp import RecordingWriter


def main(report: Report) -> None:
    def compare(case: str) -> None:
        totals = {str(key): value for key, value in metrics.recorder.snapshot().items()}
        report.equal(case, viewer.totals(), totals)

    with exporter() as metrics:
        viewer = Viewer(connect(metrics))
        job = metrics.recorder.counter("jobs_total", user="bob")
        job.increment(7)
        viewer.read_until(lambda: viewer.view.series)
        metrics.recorder.forget(job.key)
        viewer.read_until(lambda: viewer.view.gone)
        compare("totals after forget()")
        job.increment()
        viewer.read_until(lambda: viewer.view.series)
        compare("totals when it begins again")
    data = viewer.data
    with exporter(idle_after=1.0) as metrics:
        viewer = Viewer(connect(metrics))
        viewer.read_until(lambda: viewer.events)
        metrics.recorder.counter("jobs_total", user="bob").increment()
        viewer.read_until(lambda: viewer.view.gone)
        compare("totals after idle_after")

    with TemporaryDirectory() as directory:
        file = str(Path(directory, "gone.rec"))
        with RecordingWriter.create(file, "a test") as writer:
            writer.connected()
            writer.write(data)
            writer.connected()
            writer.write(viewer.data)
        command = [sys.executable, "-m", "txmetrics_tcp", "tail", "--json", file]
        out = run_command(command, capture_output=True, text=True, env=environment()).stdout
        report.equal("series gone in JSON lines of a recording", out.count('"event":"gone"'), 2)


if __name__ == "__main__":
    run(main)
