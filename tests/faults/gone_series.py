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
    with exporter(idle_after=1.0) as metrics:
        recorder = metrics.recorder
        client = Viewer(connect(metrics))

        def compare(case: str) -> None:
            totals = {str(key): value for key, value in recorder.snapshot().items()}
            report.equal(case, client.totals(), totals)

        job = recorder.counter("jobs_total", user="bob")
        job.increment(7)
        client.read_until(lambda: client.totals().get("jobs_total [user = bob]") == 7)
        recorder.forget(job.key)
        client.read_until(lambda: not client.view.series)
        compare("totals after forget()")
        job.increment()
        client.read_until(lambda: client.view.series)
        report.equal(
            "totals after it begins again", client.totals(), {"jobs_total [user = bob]": 1}
        )
        client.read_until(lambda: not client.view.series)
        compare("totals after idle_after")

    with TemporaryDirectory() as directory:
        file = str(Path(directory, "gone.rec"))
        with RecordingWriter.create(file, "a test") as writer:
            writer.connected()
            writer.write(client.data)
        command = [sys.executable, "-m", "txmetrics_tcp", "tail", "--json", file]
        out = run_command(command, capture_output=True, text=True, env=environment()).stdout
        report.equal("series gone in JSON lines of a recording", out.count('"event":"gone"'), 2)


if __name__ == "__main__":
    run(main)
