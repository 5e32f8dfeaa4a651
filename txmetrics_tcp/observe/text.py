"""
Text of a certain width: what a terminal shows in so many cells, whatever a server sends.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rich.cells import cell_len, set_cell_size

from txmetrics_tcp._view.numbers import show_brief
from txmetrics_tcp._view.text import visible

MAX_SHOWN = 400
"""Of a longer text, no more characters are looked at; no screen is so wide."""


@lru_cache(maxsize=16 * 1024)
def shown(text: str) -> str:
    """
    A text from a server as it may be put on the screen: one line, with nothing in it that a
    terminal, or Textual, would act on.
    """
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    return visible(text)


@lru_cache(maxsize=16 * 1024)
def fit(text: str, width: int) -> str:
    """A text in exactly so many cells: filled up with spaces, or cut with an ellipsis."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    if width < 1:
        return ""
    return set_cell_size(text, width - 1) + "…"


@lru_cache(maxsize=16 * 1024)
def fit_end(text: str, width: int) -> str:
    """The same with its end kept, where names differ more often than at their beginning."""
    length = cell_len(text)
    if length <= width:
        return set_cell_size(text, width)
    if width < 1:
        return ""
    # From the right, one character at a time: some are two cells wide, some none.
    cells = 0
    start = len(text)
    while start and cells + cell_len(text[start - 1]) <= width - 1:
        start -= 1
        cells += cell_len(text[start])
    return "…" + set_cell_size(text[start:], width - 1)


def right(text: str, width: int) -> str:
    """Text at the right of its column."""
    return text.rjust(width) if len(text) <= width else fit(text, width)


_NUMBER = re.compile(r"(-?)([0-9,]+)(\.[0-9]+)?( ?)([^0-9 e].*)?")


def number(text: str, width: int) -> str:
    """
    A number with its unit, at the right of its column; one that is too long in fewer digits.

        >>> number("1,234,567/s", 9), number("123.45 MiB/s", 10)
        ('  1.23M/s', '123.4MiB/s')
    """
    if len(text) <= width:
        return text.rjust(width)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return fit(text, width)
    sign, whole, fraction, _, unit = match.groups("")
    digits = f"{sign}{whole}{fraction}"
    room = width - len(unit)
    if len(sign + whole) <= room:
        return (digits[:room].rstrip(".") + unit).rjust(width)
    plain = (sign + whole).replace(",", "")
    if len(plain) <= min(room, 4):
        return (plain + unit).rjust(width)
    return right(show_brief(float(digits.replace(",", ""))) + unit, width)
