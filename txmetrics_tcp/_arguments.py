"""
Values that a user gives to a command, for the C{type} of an `argparse` argument.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<unit>[smhd]?)")


def at_least_one(what: str) -> Callable[[str], int]:
    """
    A whole number, 1 or more.

    @param what: what it is called in an error.
    """

    def parse(text: str) -> int:
        number = int(text)
        if number < 1:
            raise ValueError
        return number

    parse.__name__ = what  # argparse calls it so
    return parse


def duration(text: str) -> float:
    """Seconds, more than 0: C{"90"}, C{"1.5s"}, C{"5m"}, C{"1h"} or C{"2d"}."""
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _UNITS[match["unit"]] if match else 0.0
    # What a reactor can count is less than what a float can.
    if not 0 < seconds < 1e9:
        raise ValueError
    return seconds


def speed(text: str) -> float:
    """A factor, more than 0; C{"max"} is infinity."""
    factor = math.inf if text == "max" else float(text)
    if not factor > 0:
        raise ValueError
    return factor


class HelpFormatter(argparse.HelpFormatter):
    """Leaves a text alone that begins with an empty line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("\n"):
            return text.strip("\n")
        return super()._fill_text(text, width, indent)
