"""
Short, unique names of sources.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SEPARATORS = ":./@"
"""The characters that separate the parts of a name."""

_PARTS = re.compile(f"[{SEPARATORS}]|[^{SEPARATORS}]+")


def brief_names(names: Sequence[str]) -> dict[str, str]:
    """
    Shorten names by removing their common leading and trailing parts.  UNIX sockets are shortened
    apart from other names, with which they have no part in common.

        >>> brief_names(["127.0.0.1:5000", "127.0.0.1:5001"])
        {'127.0.0.1:5000': ':5000', '127.0.0.1:5001': ':5001'}
        >>> brief_names(["web1.example:5000", "web2.example:5000"])
        {'web1.example:5000': 'web1', 'web2.example:5000': 'web2'}
        >>> brief_names(["unix:/run/a.sock", "unix:/run/b.sock", "web:5000"])
        {'unix:/run/a.sock': 'a', 'unix:/run/b.sock': 'b', 'web:5000': 'web:5000'}

    @return: the short name of each name; the full names if short ones would not be unique.
    """
    brief = {}
    for unix in True, False:
        brief.update(_brief([name for name in names if name.startswith("unix:") is unix]))
    if len(set(brief.values())) < len(brief):
        return {name: name for name in names}
    return {name: brief[name] for name in names}


def _brief(names: Sequence[str]) -> dict[str, str]:
    whole = {name: name for name in names}
    if len(whole) < 2:
        return whole
    parts = [_PARTS.findall(name) for name in whole]
    begin = _common(parts)
    # Keep the separator before the first differing part: it marks a port or the end of an address.
    if begin and parts[0][begin - 1] in SEPARATORS.replace("/", ""):
        begin -= 1
    rest = [name[begin:] for name in parts]
    end = _common([name[::-1] for name in rest])
    brief = ["".join(name[: len(name) - end]) for name in rest]
    if not all(brief) or len(set(brief)) < len(brief):
        return whole
    return dict(zip(whole, brief, strict=True))


def _common(lists: Sequence[Sequence[str]]) -> int:
    """Return the number of leading items that all lists share."""
    count = 0
    for items in zip(*lists, strict=False):
        if len(set(items)) > 1:
            break
        count += 1
    return count
