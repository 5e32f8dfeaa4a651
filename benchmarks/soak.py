"""
Run an exporter for an hour with clients that connect, leave, stall and die; then check the accounts
of events: ``python benchmarks/soak.py [--minutes N]``; see docs/contributing/soak.md.
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
from suite.commands import allow_many_files, output_file  # noqa: E402
from suite.peers import PeerError  # noqa: E402

SHOWN = 20
"""The maximum number of violations of one kind that are printed."""


def print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        wrong = len(finding.violations)
        print(f"{'WRONG' if wrong else 'ok':5}  {finding.what:11}  {finding.summary}")
        for violation in finding.violations[:SHOWN]:
            print(f"         {violation}")
        if wrong > SHOWN:
            print(f"         and {wrong - SHOWN} more")


def print_load(evidence: Evidence) -> None:
    """Print the load: a soak without dropped events would prove little."""
    last = evidence.samples[-1]
    figures = {name: f"{value:,}" for name, value in last.stats.items() if isinstance(value, int)}
    load = (
        "{at:,.0f} s; {recorded} events recorded, {dropped_incoming} of them dropped on the"
        " incoming side; {connected} clients, {killed} killed with their process; {written}"
        " events written, {dropped_client} dropped because a client was slow, {repairs} repairs"
    )
    print(load.format(at=last.at, killed=evidence.killed, **figures))


def minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 60 * 24 * 7:
        raise argparse.ArgumentTypeError("must be more than 0 and at most a week")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run an exporter with clients that connect, leave, stall and die.",
        epilog="Exit status: 0 if every check passes, 1 if one fails, 2 if the soak cannot run.",
    )
    parser.add_argument("--minutes", type=minutes, default=60.0, help="duration (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the decisions of an earlier run")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write the evidence to FILE"
    )
    options = parser.parse_args()
    if sys.platform != "linux":  # for /proc and all of 127.0.0.0/8
        print("benchmarks/soak.py: needs Linux", file=sys.stderr)
        return 2
    allow_many_files()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}: --seed {seed} repeats the same decisions", flush=True)
    course = Course(seed, options.minutes * 60)
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
