"""
Check settings passed as Python values, and parse settings written as text.

Errors name the setting, the rule and the value.  This module imports neither Twisted nor any other
module of this package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, TypeVar

_T = TypeVar("_T")

_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<unit>ms|[smhd]?)")

_BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_SIZE = re.compile(r"(?P<number>[0-9]{1,18}(\.[0-9]{0,18})?) ?(?P<unit>B|[KMGT]iB|)")

MAX_SIZE = 2**62
"""The maximum number of bytes of a size."""

MAX_DURATION = 1e9
"""
Durations must be less than this number of seconds.  Reactors, threads and kernels cannot wait for
an arbitrary time.
"""

_TOO_LONG = f"less than {MAX_DURATION:,.0f} seconds"

_MAX_REPR = 120


def short_repr(value: object) -> str:
    """
    Return the C{repr} of any value for an error message, shortened.  Raises no exception.
    """
    try:
        if isinstance(value, str | bytes | bytearray):
            # The repr of a long text could exhaust the memory.
            value = value[: _MAX_REPR + 1]
        text = repr(value)
    except Exception:
        # Raised by the value's own method, or for an int with too many digits.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_REPR else f"{text[: _MAX_REPR - 1]}…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """
    Return a question about the known word that an unknown one abbreviates or resembles, to append
    to an error message; empty if there is none.

        >>> did_you_mean("--jsno", ["--json", "--filter"])
        '; did you mean --json?'
    """
    # Imported late: most commands have no such error.
    from difflib import get_close_matches

    words = list(known)
    longer = [one for one in words if one.startswith(word)]
    nearest = (longer or get_close_matches(word, words, cutoff=0.7))[:1]
    return "".join(f"; did you mean {one}?" for one in nearest)


def at_least(least: int, name: str, value: Any) -> int:
    """
    Check a setting that is a whole number, and return it as an `int`.

    @param least: the minimum.
    @param name: the name of the setting, for error messages.
    @raise TypeError: C{value} is not a whole number.
    @raise ValueError: C{value} is less than the minimum.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {short_repr(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {short_repr(value)}")
    return int(value)


def seconds_from(least: float, name: str, value: Any) -> float:
    """
    Check a setting that is a number of seconds, and return it as a `float`.

    @param least: the minimum.
    @param name: the name of the setting, for error messages.
    @raise TypeError: C{value} is not a real number.
    @raise ValueError: C{value} is less than the minimum, not less than `MAX_DURATION`, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number of seconds (int or float), not {short_repr(value)}"
        )
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {short_repr(value)}")
    if not value < MAX_DURATION:
        raise ValueError(f"{name} must be {_TOO_LONG}, not {short_repr(value)}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """
    Check a setting that is a `bool`, and return it.

    @raise TypeError: C{value} is not a `bool`.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {short_repr(value)}")
    return value


def check_callable(name: str, value: object, optional: bool = True) -> None:
    """
    Check a setting that is called later.

    @param optional: whether the setting may be None.
    @raise TypeError: C{value} is not callable.
    """
    if not (callable(value) or (optional and value is None)):
        raise TypeError(f"{name} must be callable, not {short_repr(value)}")


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


def parse_size(text: str) -> int:
    """
    Parse a number of bytes such as C{"65536"}, C{"64KiB"} or C{"1.5 GiB"}.

    @return: bytes, 1 or more.
    @raise ValueError: C{text} is not such a size.  The message is the expected form.
    """
    match = _SIZE.fullmatch(text)
    size = int(float(match["number"]) * _BYTES[match["unit"]]) if match else 0
    if not 1 <= size <= MAX_SIZE:
        raise ValueError("a number of bytes, 1 or more, such as 65536, 64KiB, 64MiB or 1GiB")
    return size


def parse_duration(text: str, least: float | None = None) -> float:
    """
    Parse a duration such as C{"90"}, C{"50ms"}, C{"1.5s"}, C{"5m"}, C{"1h"} or C{"2d"}.

    @param least: the minimum, in seconds; None for any duration greater than 0.
    @return: seconds.
    @raise ValueError: C{text} is not such a duration.  The message is the expected form.
    """
    match = _DURATION.fullmatch(text)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else -1.0
    if not (seconds > 0 if least is None else seconds >= least) or seconds >= MAX_DURATION:
        bound = "greater than 0" if least is None else f"of {least:g} seconds or more"
        if seconds >= MAX_DURATION:
            bound = _TOO_LONG
        raise ValueError(f"a duration {bound}, such as 90, 50ms, 1.5s, 5m, 1h or 2d")
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


def reporting(
    error_type: Callable[[str], Exception], parse: Callable[[str], _T], prefix: str = ""
) -> Callable[[str], _T]:
    """
    Return a parser that calls another one, and reports an invalid text as another exception.

    @param error_type: makes the exception.
    @param parse: the parser.  The message of its ValueError is the expected form.
    @param prefix: the start of the message.
    """

    def checked(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise error_type(f"{prefix}expected {error}; got {short_repr(text)}") from None

    return checked
