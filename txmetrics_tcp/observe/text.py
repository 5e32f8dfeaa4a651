"""
Fit text into a number of terminal cells, including text from untrusted servers.
"""

from __future__ import annotations

from functools import lru_cache

from rich.cells import cell_len, set_cell_size

from txmetrics_tcp._view.text import cut_middle


@lru_cache(maxsize=16 * 1024)
def fit(text: str, width: int) -> str:
    """Pad text with spaces, or cut it with an ellipsis, to exactly this many cells."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    if width < 1:
        return ""
    return set_cell_size(text, width - 1) + "…"


@lru_cache(maxsize=16 * 1024)
def fit_middle(text: str, width: int) -> str:
    """Like `fit`, but shortened as by `cut_middle`: many names differ only at the end."""
    return fit(cut_middle(text, width), width)


def right(text: str, width: int) -> str:
    """Right-align text in a column, or cut it."""
    spaces = width - cell_len(text)
    return " " * spaces + text if spaces >= 0 else fit(text, width)
