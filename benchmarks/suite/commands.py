"""
The commands between a benchmark and its processes. A command is a line ``WORD NAME=NUMBER ...`` on
standard input; the answer is a line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

NAME = "requests_handled"
LABELS = {"method": "GET", "route": "/users"}
"""The counter of most measurements: a name of 16 characters, two labels."""


def commands() -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the commands that this process receives, until its standard input ends."""
    for line in sys.stdin:
        word, *pairs = line.split()
        yield word, {name: float(number) for name, number in (pair.split("=") for pair in pairs)}


def say(answer: Mapping[str, object]) -> None:
    """Answer a command."""
    print(json.dumps(answer), flush=True)


def allow_many_files() -> None:
    """Raise the limit of open files for this process and its children to the maximum."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def output_file(text: str) -> Path:
    """
    Parse an option that names an output file.

    This opens the file, so that an error is reported now instead of at the end of the run.
    """
    path = Path(text)
    new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    if new:
        path.unlink()
    return path
