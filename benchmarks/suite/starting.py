"""
What it costs to start.
"""

from __future__ import annotations

import os
import subprocess
import sys

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section

ARGPARSE = "import argparse"

TITLE = "Starting"

HOW = """\
The processor time of a whole process, its interpreter included, beside one that imports argparse
and nothing else."""

LINES: list[tuple[str, list[str], Goal | None]] = [
    ("import txmetrics_tcp", ["-c", "import txmetrics_tcp"], None),
    ("metrics-tcp --help", ["-m", "txmetrics_tcp", "--help"], Goal(3, False)),
]


def cpu_milliseconds(arguments: list[str]) -> float:
    """The processor time of one run of the interpreter."""
    null = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *arguments], stdout=null, stderr=null)
    usage = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return (usage.ru_utime + usage.ru_stime) * 1e3


def run(bench: Bench) -> Section:
    rows = []
    for what, arguments, goal in LINES:
        samples: dict[str, list[float]] = {OURS: [], ARGPARSE: []}
        for _ in bench.rounds(15):
            samples[OURS].append(cpu_milliseconds(arguments))
            samples[ARGPARSE].append(cpu_milliseconds(["-c", ARGPARSE]))
        rows.append(Row.of(what, "ms", samples, ARGPARSE, goal))
    return Section(TITLE, HOW, rows)
