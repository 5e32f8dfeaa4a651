"""
Names of sources, as brief as they can be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SEPARATORS = ":./@"
"""Between these are the parts of a name that stay whole."""

_PARTS = re.compile(f"[{SEPARATORS}]|[^{SEPARATORS}]+")


def brief_names(names: Sequence[str]) -> dict[str, str]:
    """
    Each name without the parts that all of them begin with, and end with.

        >>> brief_names(["127.0.0.1:5000", "127.0.0.1:5001"])
        {'127.0.0.1:5000': ':5000', '127.0.0.1:5001': ':5001'}
        >>> brief_names(["web1.example:5000", "web2.example:5000"])
        {'web1.example:5000': 'web1', 'web2.example:5000': 'web2'}

    @return: by name, something that no other has; the name itself, where that cannot be.
    """
    whole = {name: name for name in names}
    if len(whole) < 2:
        return whole
    parts = [_PARTS.findall(name) for name in whole]
    begin = _common(parts)
    # What comes first is said to be a port, or the end of an address, by what is before it.
    if begin and parts[0][begin - 1] in SEPARATORS:
        begin -= 1
    rest = [name[begin:] for name in parts]
    end = _common([name[::-1] for name in rest])
    brief = ["".join(name[: len(name) - end]) for name in rest]
    if not all(brief) or len(set(brief)) < len(brief):
        return whole
    return dict(zip(whole, brief, strict=True))


def _common(lists: Sequence[Sequence[str]]) -> int:
    """How many items are the same at the beginning of all."""
    count = 0
    for items in zip(*lists, strict=False):
        if len(set(items)) > 1:
            break
        count += 1
    return count
