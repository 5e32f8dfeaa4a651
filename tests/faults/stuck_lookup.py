"""
Line 6: a name server that does not answer does not delay the end of a command.
"""

import signal
from pathlib import Path
from subprocess import PIPE, TimeoutExpired
from tempfile import TemporaryDirectory

from tests.daemon import LIMIT, STUCK_METRICS_TCP
from tests.faults import Report, run, start


def code(*arguments: str, interrupt: bool = False) -> object:
    """Return the exit code of a command whose look-ups never end."""
    process = start(*arguments, "metrics.example:5000", program=STUCK_METRICS_TCP, stderr=PIPE)
    assert process.stderr is not None
    with process, process.stderr:
        while interrupt and b"looking up" not in process.stderr.readline():
            pass
        if interrupt:
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(LIMIT)
        except TimeoutExpired:
            process.kill()
            return "still waits for the look-up"


def main(report: Report) -> None:
    report.equal("tail, Ctrl-C", code("tail", interrupt=True), 130)
    report.equal("stats --duration 0.1", code("stats", "--duration", "0.1"), 1)
    with TemporaryDirectory() as directory:
        file = str(Path(directory, "x.rec"))
        report.equal("record, Ctrl-C", code("record", file, interrupt=True), 1)


if __name__ == "__main__":
    run(main)
