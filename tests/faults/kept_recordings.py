"""
Line 5: `record --force` and `record --append` keep a file until they receive an event.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults import Report, exporter, finish, run
from tests.recordings import STREAM, record
from txmetrics_tcp import RecordingReader, counter


def command(path: Path, *arguments: str) -> int:
    """Run a recorder, and return its exit status."""
    return finish("record", str(path), *arguments).returncode


def main(report: Report) -> None:
    old = record(STREAM) + b"cut off"
    with TemporaryDirectory() as directory:
        path = Path(directory, "old.rec")
        for option in "--force", "--append":
            path.write_bytes(old)
            # No server has this socket.
            status = command(path, f"unix:{directory}/none", option, "--duration", "0.5")
            report.equal(f"exit status, {option}", status, 1)
            report.equal(f"the file is the same, {option}", path.read_bytes() == old, True)
        new = Path(directory, "new.rec")
        status = command(new, f"unix:{directory}/none", "--duration", "0.5")
        report.equal("exit status, new file", status, 1)
        report.equal("new file exists", new.exists(), False)
        new.touch()
        with exporter(f"unix:{directory}/one"):
            counter("requests_total").increment()
            for target, options in (path, ("--force",)), (new, ()):
                status = command(target, f"unix:{directory}/one", *options, "--count", "1")
                report.equal(f"exit status, {target.name}", status, 0)
                with open(target, "rb") as file:
                    reader = RecordingReader(file)
                    list(reader)
                report.equal(f"sessions in {target.name}", len(reader.sessions), 1)


if __name__ == "__main__":
    run(main)
