"""
Measure txmetrics_tcp and the Rust crate that it derives from: ``python benchmarks/run.py``.

Builds the Rust programs if cargo is installed, and otherwise skips the measurements that need them.
Needs the packages of ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from suite.bench import Bench  # noqa: E402
from suite.commands import allow_many_files, output_file  # noqa: E402
from suite.figures import HEADROOM, Section, to_table  # noqa: E402
from suite.host import empty_call_ns, facts  # noqa: E402
from suite.peers import PeerError, build  # noqa: E402

from tests.nats import missing as missing_nats  # noqa: E402

BENCHMARKS = (
    *("throughput", "cost", "opentelemetry", "paced", "latency", "lossless"),
    *("website", "decoding", "observing", "web", "snapshot", "exposition", "memory", "own_metrics"),
    *("prometheus_bridge", "twisted_bridge", "collecting", "nats", "statsd"),
)

NEED_RUST = ("latency", "lossless")
"""The benchmarks whose reader decodes values, which the Python reader does not do."""

PAGE = HERE.parent / "docs" / "contributing" / "benchmarks.md"

BEGINNING = f"""\
# Benchmarks

Figures of one run of `python benchmarks/run.py --page` on the host below, for this library (ours)
and the Rust crate metrics-exporter-tcp (reference). Only ratios carry over to other hosts. Subjects
are measured in turns (A B A B). A cell shows the median and [the range]; a ratio (x) is the median
of the pairs' ratios. A goal applies to the ratio or, with another unit, to the median, in each
column that begins with "ours".

Most events increment a counter with a name of 16 characters and two labels. All clients are in one
process, the reader, for both sides. Recorded, read and dropped events must agree, or the figure is
left out. "Reader alone" is the reader's speed on a prepared stream, "at least" if the writer may be
the limit. † marks a figure within {HEADROOM} times of that speed: the reader may be the limit.

"""


def to_page(about: dict[str, str], sections: list[Section]) -> str:
    """
    @param about: facts about the host, by their names.
    """
    parts = [BEGINNING, *(f"- {what}: {value}\n" for what, value in about.items())]
    for section in sections:
        parts.append(f"\n## {section.title}\n\n{section.how}\n\n{to_table(section.rows)}")
    return "".join(parts)


def measure(bench: Bench, names: list[str]) -> list[Section]:
    sections = []
    for name in names:
        if name in NEED_RUST and not bench.peers.rust:
            print(f"{name}: not measured, since it needs the Rust reader\n", file=sys.stderr)
            continue
        if name == "nats" and missing_nats:
            print(f"{name}: not measured, since it {missing_nats}\n", file=sys.stderr)
            continue
        start = time.monotonic()
        section = importlib.import_module(f"suite.{name}").run(bench)
        sections.append(section)
        print(f"## {section.title} ({name}, {time.monotonic() - start:.0f} s)\n")
        print(to_table(section.rows), flush=True)
    return sections


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure txmetrics_tcp.")
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write all figures to FILE"
    )
    parser.add_argument(
        "--page",
        type=output_file,
        nargs="?",
        const=str(PAGE),
        metavar="FILE",
        help="write a page to FILE (default: docs/contributing/benchmarks.md)",
    )
    options = parser.parse_args()
    partial = options.quick or len(options.only) < len(BENCHMARKS)
    if partial and options.page and options.page.resolve() == PAGE:
        parser.error("with --quick or --only, --page needs another FILE")
    allow_many_files()
    try:
        peers = build()
        call_ns = empty_call_ns()
        lock = HERE / "rust" / "Cargo.lock" if peers.rust else None
        about = facts(lock, peers.reader_name, call_ns)
        if options.quick:
            about["quick"] = "only checks that it works, with smaller numbers than described below"
        for what, value in about.items():
            print(f"{what}: {value}", flush=True)
        sections = measure(Bench(peers, options.quick, call_ns, about), list(options.only))
    except (PeerError, subprocess.SubprocessError, OSError, ValueError) as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1
    if options.json:
        found = {"about": about, "sections": [asdict(section) for section in sections]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.page:
        options.page.write_text(to_page(about, sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
