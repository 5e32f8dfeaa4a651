"""
Check settings passed as Python values, and parse settings written as text.

This module does not import Twisted.
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
"""The limit of durations, in seconds.  Reactors cannot schedule calls arbitrarily far ahead."""


def at_least(least: int, name: str, value: Any) -> int:
    """
    Check a setting that is a whole number, and return it as an `int`.

    @param least: the minimum.
    @param name: the name of the setting, for error messages.
    @raise TypeError: C{value} is not a whole number.
    @raise ValueError: C{value} is less than the minimum.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return int(value)


def seconds_from(least: float, name: str, value: Any) -> float:
    """
    Check a setting that is a number of seconds, and return it as a `float`.

    @param least: the minimum.
    @param name: the name of the setting, for error messages.
    @raise TypeError: C{value} is not a real number.
    @raise ValueError: C{value} is less than the minimum, or not finite.
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
    Parse a whole number, 1 or more.

    @raise ValueError: C{text} is not such a number.  The message is the expected form.
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
    Parse a duration greater than 0, such as C{"90"}, C{"1.5s"}, C{"5m"}, C{"1h"} or C{"2d"}.

    @param least: the minimum, in seconds.
    @return: seconds.
    @raise ValueError: C{text} is not such a duration.  The message is the expected form.
    """
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if not (least <= seconds < _MAX_DURATION and seconds):
        bound = f"of {least:g} seconds or more" if least else "greater than 0"
        raise ValueError(f"a duration {bound}, such as 90, 1.5s, 5m, 1h or 2d")
    return seconds


def parse_unless(word: str, parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    """
    Return a parser that returns None for C{word}, ignoring case, and otherwise calls C{parse}.

    @param word: a lower-case word such as C{"none"} or C{"never"}.
    """

    def parse_or_none(text: str) -> _T | None:
        if text.strip().lower() == word:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return parse_or_none
