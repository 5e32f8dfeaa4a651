"""
Line 8: options stand anywhere, a mistyped option or command is reported with the nearest one, and
all commands have the same exit codes.
"""

import sys
import tempfile

from tests.faults import Report, finish, run


def main(report: Report) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for line, code, *words in (
            ("txmetrics_tcp record x.rec --compress 1 --duration 0.1", 1, "received nothing"),
            ("txmetrics_tcp tail --count 1 ./missing --json", 1, "no such file"),
            ("txmetrics_tcp tail --jsno", 2, "metrics-tcp tail: ", "did you mean --json?"),
            ("txmetrics_tcp tial", 2, "did you mean tail?"),
            ("txmetrics_tcp replay a b", 2, "metrics-tcp replay: ", "'b'"),
            ("txmetrics_tcp tail --dur 1 1", 2, "--duration"),
            ("txmetrics_tcp stats ./missing", 1, "no such file"),
            ("txmetrics_tcp replay ./missing", 1, "No such file"),
            ("txmetrics_tcp tail /dev/null", 1, "/dev/null"),
            ("txmetrics_tcp stats .", 1, "directory"),
            ("twisted metrics-tcp --lisen", 1, "did you mean --listen?"),
        ):
            module, *arguments = line.split()
            done = finish(*arguments, program=[sys.executable, "-m", module], cwd=directory)
            report.equal(f"exit code of {line}", done.returncode, code)
            report.contains(f"message of {line}", done.stderr.splitlines()[-1], *words)


if __name__ == "__main__":
    run(main)
