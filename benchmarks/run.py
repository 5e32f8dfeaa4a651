"""
Measure txmetrics_tcp, beside the Rust crate that it comes from: ``python benchmarks/run.py``.

It builds its Rust programs, if cargo is there, and measures without them what can be measured, if
it is not. It needs what ``pip install -e '.[bench]'`` installs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from suite.bench import Bench  # noqa: E402
from suite.commands import allow_many_files  # noqa: E402
from suite.figures import Section  # noqa: E402
from suite.page import Machine, to_json, to_page, to_table  # noqa: E402
from suite.peers import PeerError, Peers, build  # noqa: E402

BENCHMARKS = (
    "throughput",
    "overload",
    "lossless",
    "cost",
    "paced",
    "latency",
    "fanout",
    "many",
    "memory",
    "decoding",
    "viewing",
    "observing",
    "snapshot",
)
PAGE = HERE.parent / "docs" / "benchmarks.md"
PROGRAMS = HERE / "rust" / "target" / "programs"


def machine(peers: Peers, quick: bool) -> Machine:
    """What it runs on."""
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} x {_processor()}, {platform.system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in ("twisted", "protobuf", "prometheus_client", "opentelemetry-sdk"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if peers.rust:
        # Cargo writes down what it took.
        lock = (HERE / "rust" / "Cargo.lock").read_text()
        for package in ("metrics-exporter-tcp", "prost"):
            found[package] = lock.split(f'name = "{package}"\nversion = "')[1].split('"')[0]
    else:
        found["metrics-exporter-tcp"] = "not built; the reader is in Python"
    if quick:
        found["quick"] = "only shows that it works"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def measure(bench: Bench, names: list[str]) -> list[Section]:
    sections = []
    for name in names:
        start = time.monotonic()
        section = importlib.import_module(f"suite.{name}").run(bench)
        sections.append(section)
        print(f"## {section.title} ({name}, {time.monotonic() - start:.0f} s)\n")
        print(to_table(section.rows), flush=True)
    return sections


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure txmetrics_tcp.")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write the page there (docs/benchmarks.md if everything is measured in full)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHMARKS, default=BENCHMARKS)
    options = parser.parse_args()
    allow_many_files()
    complete = not options.quick and tuple(options.only) == BENCHMARKS
    try:
        peers = build(PROGRAMS)
        bench = Bench(peers, options.quick)
        sections = measure(bench, list(options.only))
    except (PeerError, subprocess.SubprocessError) as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1
    about = machine(peers, options.quick)
    if options.json:
        options.json.write_text(to_json(about, sections) + "\n")
    page = options.page or (PAGE if complete and peers.rust else None)
    if page:
        page.write_text(to_page(about, sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
