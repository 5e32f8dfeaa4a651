"""
Text for terminals and JSON: escaped control characters, infinities and NaN, times.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from functools import lru_cache
from unicodedata import category, east_asian_width

# Default_Ignorable_Code_Point in DerivedCoreProperties.txt of Unicode 16.
_IGNORABLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)

# Braille pattern blank, Khitan small script filler, musical symbol null notehead.
_BLANK = "\u2800\U00016fe4\U0001d159"

_HIDDEN = re.compile(f"[{_IGNORABLE}{_BLANK}]")

MAX_MARKS = 4
"""
The maximum number of marks on one character, as in section 5.4 of Unicode Technical Standard 39.
More are drawn over the lines above and below.
"""

_MARKS = ("Mn", "Me")
"""The categories of marks: characters that are drawn on the one before them."""

# Marks are neither letters nor digits.
_MAYBE_MARK = re.compile(r"[^\w\x00-\x7f]")


def visible(text: str) -> str:
    """
    Escape every character that a terminal would act on or not show.

    Letters, marks, numbers, punctuation, symbols and the plain space are unchanged.  Control
    characters (C0 and C1, and with them escape sequences), characters that change the text
    direction, line and paragraph separators, and characters without width or ink (fillers,
    variation selectors) are escaped, and so are marks without a character before them and those
    beyond C{MAX_MARKS} on one character.

        >>> print(visible("a\\x1b[2Jb\\u202e\\n"))
        a\\x1b[2Jb\\u202e\\n
    """
    if text.isprintable() and (
        text.isascii() or not (_HIDDEN.search(text) or _MAYBE_MARK.search(text))
    ):
        return text
    letters = []
    # A mark at the start has no character before it.
    marks = MAX_MARKS
    for letter in text:
        marks = marks + 1 if category(letter) in _MARKS else 0
        if marks > MAX_MARKS or not letter.isprintable() or _HIDDEN.match(letter):
            letter = letter.encode("unicode_escape").decode()
        letters.append(letter)
    return "".join(letters)


MAX_UNIT = 40
"""The maximum number of cells of a unit after a value: each value repeats the unit."""


def natural_key(text: str) -> str:
    """
    Return a key for sorting that ignores case and compares numbers by size.

        >>> sorted(["shard 10", "shard 2", "Shard 1"], key=natural_key)
        ['Shard 1', 'shard 2', 'shard 10']
    """
    return _DIGITS.sub(_counted_digits, text.casefold())


_DIGITS = re.compile("[0-9]+")


def _counted_digits(run: re.Match[str]) -> str:
    # The number of digits comes first, as a character.
    digits = run[0].lstrip("0") or "0"
    return chr(min(48 + len(digits), 0xD7FF)) + digits


def visible_unit(unit: str) -> str:
    """Escape a unit, and cut a long one."""
    return cut(visible(unit[: MAX_UNIT + 1]), MAX_UNIT)


def json_number(value: float) -> float | str:
    """
    Convert a number for JSON.  Infinities and NaN, which JSON lacks, become strings as in the JSON
    format of Protocol Buffers.
    """
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def json_value(value: float) -> dict[str, float | str]:
    """
    Return the JSON field of a value.  A counter above 2**53, which readers with doubles as numbers
    round, also gets a field with its digits as text.
    """
    fields = {"value": json_number(value)}
    if type(value) is int and value > _EXACT:
        fields["value_text"] = str(value)
    return fields


_EXACT = 1 << 53


def local_time(
    second: int,
    form: str,
    localtime: Callable[[float], time.struct_time] = time.localtime,
) -> str:
    """
    Format a local time.  A time outside the calendar, which a peer may send, becomes C{@} and the
    number.

    @param second: seconds since the epoch.
    @param form: the format, as for `time.strftime`.
    """
    try:
        return time.strftime(form, localtime(second))
    except (OverflowError, ValueError, OSError):
        return f"@{second}"


NO_TIME = "--:--:--.---"
"""The time of day of an event whose time is unknown."""


def time_of_day(timestamp_ns: int | None) -> str:
    """Format the local time of day with milliseconds."""
    if timestamp_ns is None:
        return NO_TIME
    second, nanos = divmod(timestamp_ns, 1_000_000_000)
    return f"{local_time(second, '%H:%M:%S')}.{nanos // 1_000_000:03}"


def utc(timestamp_ns: int | None, digits: int = 9) -> str | None:
    """
    Format a UTC date and time; return None if the time is unknown, or outside the years that RFC
    3339 allows.

    @param timestamp_ns: nanoseconds since the epoch.
    @param digits: the number of digits after the decimal point of the second.
    """
    if timestamp_ns is None:
        return None
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


def counted(number: int, noun: str) -> str:
    """
    Return a number with its noun, in the plural if needed.

        >>> counted(1, "event"), counted(1200, "event")
        ('1 event', '1,200 events')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cell_width(text: str) -> int:
    """
    Return the number of terminal cells of printable text: two for a wide character, none for
    a combining mark.
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """Shorten text at its end, with an ellipsis, to at most this many cells."""
    return text if cell_width(text) <= width else f"{_start(text, width - 1)}…"


def cut_middle(text: str, width: int) -> str:
    """
    Shorten text in the middle, with an ellipsis, to at most this many cells.

        >>> cut_middle("http_requests_total", 11)
        'http_…total'
    """
    if cell_width(text) <= width:
        return text
    end = _start(text[::-1], (width - 1) // 2)[::-1]
    while end and not _cells(end[0]):
        # A mark of a character that is omitted.
        end = end[1:]
    return f"{_start(text, width - 1 - cell_width(end))}…{end}"


def _start(text: str, width: int) -> str:
    """Return the first characters that fit."""
    cells = 0
    for at, letter in enumerate(text):
        cells += _cells(letter)
        if cells > width:
            return text[:at]
    return text


def _cells(letter: str) -> int:
    if category(letter) in _MARKS:
        return 0
    return 2 if east_asian_width(letter) in "WF" else 1


MAX_SHOWN = 400
"""The maximum number of characters processed of a text; no screen is wider."""


def shown(text: str) -> str:
    """
    Make text from a server safe for the screen: one line, without characters that a terminal or
    Textual would act on.
    """
    # The cache holds no long text.
    return _shown(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")


_shown = lru_cache(maxsize=16 * 1024)(visible)
