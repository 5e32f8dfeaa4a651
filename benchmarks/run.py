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
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from suite.bench import Bench  # noqa: E402
from suite.commands import allow_many_files  # noqa: E402
from suite.figures import Section  # noqa: E402
from suite.outputs import output_file  # noqa: E402
from suite.page import Machine, from_json, to_json, to_page, to_table  # noqa: E402
from suite.peers import PeerError, Peers, build  # noqa: E402
from suite.plots import charts  # noqa: E402

BENCHMARKS = (
    "throughput",
    "overload",
    "lossless",
    "loss",
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
    "starting",
)
LATER = "measured in a later run"
"""What of a machine says which sections were, where others were kept."""

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


def kept(file: Path, about: Machine) -> list[Section]:
    """
    What an earlier run has measured.

    @raise ValueError: it is of another machine, or of other versions.
    """
    modules = [importlib.import_module(f"suite.{name}") for name in BENCHMARKS]
    earlier, sections = from_json(file.read_text(), {one.TITLE: one.HOW for one in modules})
    for what in {**about, **earlier}:
        if what not in ("date", LATER) and about.get(what) != earlier.get(what):
            raise ValueError(f"{what}: {earlier.get(what)} there, {about.get(what)} now")
    return sections


def in_order(sections: Iterable[Section]) -> list[Section]:
    """As on the page; of those that are there twice, the last."""
    by_title = {section.title: section for section in sections}
    titles = [importlib.import_module(f"suite.{name}").TITLE for name in BENCHMARKS]
    return [by_title[title] for title in titles if title in by_title]


def write_page(page: Path, about: Machine, sections: list[Section]) -> None:
    """The page, and its charts in a directory beside it."""
    drawn = charts(sections)
    directory = page.with_suffix("")
    directory.mkdir(exist_ok=True)
    for chart in drawn:
        (directory / f"{chart.name}.svg").write_text(chart.svg)
    page.write_text(to_page(about, sections, drawn, directory.name))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure txmetrics_tcp.")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--page",
        type=output_file,
        metavar="FILE",
        help="write the page there, its charts beside it (docs/benchmarks.md if all is there, in"
        " full)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="take what is not measured now from there: the JSON of an earlier run like this one",
    )
    options = parser.parse_args()
    allow_many_files()
    try:
        peers = build(PROGRAMS)
        about = machine(peers, options.quick)
        earlier = kept(options.keep, about) if options.keep else []
        if earlier:
            about[LATER] = ", ".join(options.only)
        sections = in_order([*earlier, *measure(Bench(peers, options.quick), list(options.only))])
    except (PeerError, subprocess.SubprocessError, OSError, ValueError) as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(to_json(about, sections) + "\n")
    complete = not options.quick and len(sections) == len(BENCHMARKS)
    page = options.page or (PAGE if complete and peers.rust else None)
    if page:
        write_page(page, about, sections)
    return 0


if __name__ == "__main__":
    sys.exit(main())
