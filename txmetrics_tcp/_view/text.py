"""
Text for terminals and for JSON: without control characters; infinities and NaN; times in UTC.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache


def visible(text: str) -> str:
    """
    Show what a terminal would act on, or not show at all, instead of sending it there.

    That is all but letters, marks, numbers, punctuation, symbols and the plain space: control
    characters (C0 and C1, escape sequences with them), characters that change the direction of
    text, separators of lines and paragraphs, characters without width.

        >>> print(visible("a\\x1b[2Jb\\u202e\\n"))
        a\\x1b[2Jb\\u202e\\n
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def json_number(value: float) -> float | str:
    """A number for JSON, which has no infinities and NaN: those as Protocol Buffers write them."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def local_time(
    second: int,
    form: str,
    localtime: Callable[[float], time.struct_time] = time.localtime,
) -> str:
    """
    A local time; C{@} and the number for one that no calendar has: a peer may send any.

    @param second: since the epoch.
    @param form: as for `time.strftime`.
    """
    try:
        return time.strftime(form, localtime(second))
    except (OverflowError, ValueError, OSError):
        return f"@{second}"


def time_of_day(timestamp_ns: int) -> str:
    """The local time of day, to the millisecond."""
    second, nanos = divmod(timestamp_ns, 1_000_000_000)
    return f"{local_time(second, '%H:%M:%S')}.{nanos // 1_000_000:03}"


def utc(timestamp_ns: int, digits: int = 9) -> str | None:
    """
    Date and time; None outside of the years that RFC 3339 knows.

    @param timestamp_ns: nanoseconds since the epoch.
    @param digits: how many digits of the fraction of the second are shown.
    """
    second, nanos = divmod(timestamp_ns, 1_000_000_000)
    moment = _utc_to_the_second(second)
    return None if moment is None else f"{moment}.{nanos:09}"[: 20 + digits] + "Z"


@lru_cache(maxsize=16)
def _utc_to_the_second(second: int) -> str | None:
    try:
        moment = time.gmtime(second)
    except (OverflowError, ValueError, OSError):
        return None
    if not 1 <= moment.tm_year <= 9999:
        return None
    return f"{moment.tm_year:04}{time.strftime('-%m-%dT%H:%M:%S', moment)}"
