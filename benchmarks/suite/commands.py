"""
The language that the benchmarks' processes are spoken to in: a command is a line, ``WORD
NAME=NUMBER ...`` on standard input, and is answered by a line of JSON on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Mapping

SEQUENCE = 1 << 14
"""
How many values the numbers go through that events carry, so that a reader sees gaps.  On the wire
each takes one or two bytes.
"""

MODES = ("plain", "numbered", "timed")
"""What events carry as their value: 1, their number, or the time at which they are recorded."""

NAME = "requests_handled"
LABELS = {"method": "GET", "route": "/users"}
"""The event that everything is measured with: a name of 16 characters, two labels."""


def commands() -> Iterator[tuple[str, dict[str, float]]]:
    """The commands that this process is given, until there are no more."""
    for line in sys.stdin:
        word, *pairs = line.split()
        yield word, {name: float(number) for name, number in (pair.split("=") for pair in pairs)}


def say(answer: Mapping[str, object]) -> None:
    """Answer a command."""
    print(json.dumps(answer), flush=True)


def cpu_seconds() -> float:
    """The processor time of this process so far, of all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def allow_many_files() -> None:
    """Let this process, and those that it starts, have as many connections as is possible."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
