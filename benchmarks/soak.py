"""
Let an exporter run for an hour among clients that come, go, stall and die, and judge it by the
books: ``python benchmarks/soak.py``, ``--minutes 5`` for five minutes.

Its exit status is 0 if everything holds, 1 if something does not, and 2 if it cannot run here.
See docs/soak.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from soaking.checks import Evidence, Finding, judge  # noqa: E402
from soaking.course import Course  # noqa: E402
from soaking.progress import Progress  # noqa: E402
from suite.commands import allow_many_files  # noqa: E402
from suite.outputs import output_file  # noqa: E402
from suite.peers import PeerError  # noqa: E402

SHOWN = 20
"""How many violations of one kind are printed."""


def print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        wrong = len(finding.violations)
        print(f"{'ok' if not wrong else 'WRONG':5}  {finding.what:11}  {finding.summary}")
        for violation in finding.violations[:SHOWN]:
            print(f"         {violation}")
        if wrong > SHOWN:
            print(f"         and {wrong - SHOWN} more")


def print_load(evidence: Evidence) -> None:
    """What it went through: a soak in which nothing was lost would prove little."""
    final = evidence.samples[-1].stats
    most = max(len(sample.stats["clients"]) for sample in evidence.samples)
    print(
        f"{evidence.samples[-1].at:,.0f} s; {final['recorded']:,} events recorded,"
        f" {final['dropped']:,} of them dropped on the incoming side;"
        f" {final['connected']:,} clients, {most} at a time, {evidence.killed} killed with their"
        f" process; {final['written']:,} events written, {final['dropped_by_clients']:,} dropped"
        f" because a client was too slow, {final['repairs']:,} repairs"
    )


def minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 60 * 24 * 7:
        raise argparse.ArgumentTypeError("more than 0, and at most a week")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Let an exporter run among clients that come, go, stall and die.",
        epilog="Exit status: 0 if everything holds, 1 if something does not, 2 if it cannot run.",
    )
    parser.add_argument("--minutes", type=minutes, default=60.0, help="for how long (60)")
    parser.add_argument("--seed", type=int, help="take the decisions of an earlier run")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all evidence there")
    options = parser.parse_args()
    if sys.platform != "linux":
        # Its /proc, and that all of 127.0.0.0/8 is there.
        print("benchmarks/soak.py: it needs Linux", file=sys.stderr)
        return 2
    allow_many_files()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}: --seed {seed} replays its decisions", flush=True)
    course = Course(seed, options.minutes * 60, Progress(sys.stdout))
    try:
        course.run()
    except PeerError as error:
        course.evidence.troubles.append(str(error))
    findings = judge(course.evidence)
    if course.evidence.samples:
        print_load(course.evidence)
    print_findings(findings)
    if options.json:
        found = {"seed": seed, "evidence": asdict(course.evidence)}
        found["findings"] = [asdict(finding) for finding in findings]
        options.json.write_text(json.dumps(found) + "\n")
    wrong = sum(len(finding.violations) for finding in findings)
    print(f"FAILED: {wrong} violations; seed {seed}" if wrong else f"passed; seed {seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
