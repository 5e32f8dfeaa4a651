"""
Line 15: what a power cut or a full disk leaves can be read and recorded into.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults import COMMAND, Report, exporter, finish, run
from tests.recordings import STREAM, record
from txmetrics_tcp import counter

WITHOUT_ROOM = [
    sys.executable,
    "-c",
    """
import resource, sys
from txmetrics_tcp.cli import main

most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
code = main()
# What measures coverage writes its file at exit.
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
sys.exit(code)
""",
]
"""The commands, if they cannot write to files."""


def command(*arguments: str, program: Sequence[str] = COMMAND) -> tuple[int, str]:
    """Run a command, and return its exit status and its last message."""
    done = finish(*arguments, program=program)
    return done.returncode, done.stderr.rstrip().rpartition("\n")[2]


def main(report: Report) -> None:
    with TemporaryDirectory() as directory, exporter(f"unix:{directory}/socket"):
        server = f"unix:{directory}/socket"
        counter("requests_total").increment()
        path = Path(directory, "cut.rec")
        for name, data in [
            ("NUL bytes after the end", record(STREAM) + bytes(5000)),
            ("NUL bytes within the last block", record(STREAM)[:-100] + bytes(5000)),
            ("only NUL bytes", bytes(5000)),
        ]:
            path.write_bytes(data)
            status, said = command("stats", str(path))
            report.equal(f"exit status of stats, {name}", status, 0)
            report.contains("message", said, "cut off; read up to the last complete event")
            status, _ = command("record", str(path), server, "--append", "--count", "1")
            report.equal(f"exit status of record --append, {name}", status, 0)
            report.equal("exit status of stats afterwards", command("stats", str(path))[0], 0)
        new = str(Path(directory, "new.rec"))
        status, said = command("record", new, server, "--duration", "30", program=WITHOUT_ROOM)
        report.equal("exit status, no room", status, 1)
        report.contains("message", said, "cannot record to", "File too large")
        status, _ = command("record", new, server, "--count", "1")
        report.equal("exit status of the next attempt", status, 0)


if __name__ == "__main__":
    run(main)
