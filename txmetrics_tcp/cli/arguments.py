"""
Arguments that several commands have, and the values that a user gives to them: what is the C{type}
of an `argparse` argument.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from contextlib import suppress

from txmetrics_tcp._codec.framing import MAX_FRAME

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<unit>[smhd]?)")


def at_least_one(what: str) -> Callable[[str], int]:
    """
    A whole number, 1 or more.

    @param what: what it is called in an error.
    """

    def parse(text: str) -> int:
        with suppress(ValueError):
            number = int(text)
            if number >= 1:
                return number
        raise _invalid(what, text, "it is a whole number, 1 or more")

    return parse


def duration(text: str) -> float:
    """Seconds, more than 0: C{"90"}, C{"1.5s"}, C{"5m"}, C{"1h"} or C{"2d"}."""
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _UNITS[match["unit"]] if match else 0.0
    # What a reactor can count is less than what a float can.
    if not 0 < seconds < 1e9:
        raise _invalid("duration", text, "it is seconds, more than 0, or as 5m, 1h, 2d")
    return seconds


def speed(text: str) -> float:
    """A factor, more than 0; C{"max"} is infinity."""
    with suppress(ValueError):
        factor = math.inf if text == "max" else float(text)
        if factor > 0:
            return factor
    raise _invalid("speed", text, 'it is a number more than 0, or "max"')


def _invalid(what: str, text: str, rule: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"invalid {what} value: {text!r}: {rule}")


def add_end_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a command ends after that would go on for ever."""
    parser.add_argument(
        "--count",
        type=at_least_one("number of events"),
        metavar="N",
        help="end after N events of metrics",
    )
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="end after so many seconds, or 5m, 1h, 2d",
    )


def add_max_frame_argument(parser: argparse.ArgumentParser) -> None:
    """Add the size past which a frame is refused, C{options.max_frame}."""
    parser.add_argument(
        "--max-frame",
        type=at_least_one("number of bytes"),
        default=MAX_FRAME,
        metavar="BYTES",
        help="""give a stream up when it announces a frame of more bytes than this (default:
        %(default)s)""",
    )


class HelpFormatter(argparse.HelpFormatter):
    """Leaves a text alone that begins with an empty line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("\n"):
            return text.strip("\n")
        return super()._fill_text(text, width, indent)
