"""
Measure txmetrics_tcp, beside the Rust crate that it comes from: ``python benchmarks/run.py``.

It builds its Rust programs if cargo is there; without them, it measures what can be measured. It
needs what ``pip install -e '.[bench]'`` installs.
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

BENCHMARKS = (
    *("throughput", "cost", "paced", "latency", "lossless"),
    *("decoding", "observing", "snapshot", "memory"),
)

NEED_RUST = ("latency", "lossless")
"""Those whose reader looks at values, which the one in Python does not."""

PAGE = HERE.parent / "docs" / "contributing" / "benchmarks.md"

BEGINNING = f"""\
# Benchmarks

What this library costs, and how it compares with the Rust crate that it comes from
(metrics-exporter-tcp): figures of one run of `python benchmarks/run.py --page` on the host below,
with servers, readers and everything else on it. Only ratios mean something elsewhere. What is
compared takes turns (A B A B); a cell has the median and, in brackets, the whole range. A ratio (x)
is the median of those of the pairs. Goals are about ratios.

Most events are of one counter, with a name of 16 characters and two labels. Clients are in one
process, the reader, which is the same for both sides. What they have not read must agree with what
was recorded and with what this library's server counted as dropped, or there is no figure. The
reader alone is measured with a stream that is ready-made; a figure with † is within {HEADROOM}
times of that, so the reader may be what limits it. The reader takes "at least" so many where the
stream's writer hardly waited for it.

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
            print(f"{name}: not measured, the reader in Python cannot do it\n", file=sys.stderr)
            continue
        start = time.monotonic()
        section = importlib.import_module(f"suite.{name}").run(bench)
        sections.append(section)
        print(f"## {section.title} ({name}, {time.monotonic() - start:.0f} s)\n")
        print(to_table(section.rows), flush=True)
    return sections


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure txmetrics_tcp.")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--page",
        type=output_file,
        nargs="?",
        const=str(PAGE),
        metavar="FILE",
        help="write a page there (docs/contributing/benchmarks.md)",
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
            about["quick"] = "only shows that it works, with less of everything than stands below"
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
