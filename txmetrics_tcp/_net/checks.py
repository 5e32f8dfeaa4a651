"""
The values of settings: checks of those that a program gives, and parsers of those that a user
writes.  No Twisted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

_T = TypeVar("_T")

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<unit>[smhd]?)")

_MAX_DURATION = 1e9
"""What a reactor can count, in seconds, is less than what a float can."""


def at_least(least: int, name: str, value: Any) -> int:
    """
    A setting that is a whole number.

    @raise TypeError: it is no whole number.
    @raise ValueError: it is below what makes sense.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return int(value)


def seconds_from(least: float, name: str, value: Any) -> float:
    """
    A setting that is a time.

    @raise TypeError: it is no number.
    @raise ValueError: it is below what makes sense, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    if not value <= sys.float_info.max:
        raise ValueError(f"{name} must be finite, not {value!r}")
    return float(value)


def parse_count(text: str) -> int:
    """
    A whole number, 1 or more.

    @raise ValueError: it is none.  The text is the rule.
    """
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError("a whole number, 1 or more")
    return count


def parse_duration(text: str, least: float = 0) -> float:
    """
    Seconds, more than 0: C{"90"}, C{"1.5s"}, C{"5m"}, C{"1h"} or C{"2d"}.

    @param least: how many there have to be.
    @raise ValueError: it is none.  The text is the rule.
    """
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if not (least <= seconds < _MAX_DURATION and seconds):
        raise ValueError(
            f"seconds, {f'{least:g} or more' if least else 'more than 0'}, or as 5m, 1h, 2d"
        )
    return seconds


def parse_unless(word: str, parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    """
    A parser that takes a word for None, such as C{"none"} or C{"never"}.
    """

    def parse_other(text: str) -> _T | None:
        if text.strip().lower() == word:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return parse_other
