"""
Defaults and checks of an exporter's settings.
"""

from __future__ import annotations

import sys

DEFAULT_BUFFER_SIZE = 1024
"""How many events are buffered unless told otherwise, as in the reference."""

DEFAULT_MAX_SERIES = 10_000
"""How many series are retained unless told otherwise."""

FLUSH_TIMEOUT = 1.0
"""How long, in seconds, clients have at the end to take what waits for them."""

REPAIR_INTERVAL = 5.0
"""How long, in seconds, totals may be wrong at most for a client that does not catch up."""


def check_buffer_size(buffer_size: int | None) -> int | None:
    """
    @param buffer_size: a number of events, from 1 to what a container can hold at all
        (C{sys.maxsize}), or None for no limit.
    @raise TypeError: it is no whole number.
    @raise ValueError: it is out of range.
    """
    if buffer_size is None:
        return None
    if isinstance(buffer_size, bool) or not isinstance(buffer_size, int):
        raise TypeError(f"buffer_size must be a whole number or None, not {buffer_size!r}")
    if buffer_size < 1:
        raise ValueError(
            f"buffer_size must be at least 1 (or None for no limit), not {buffer_size}"
        )
    if buffer_size > sys.maxsize:
        raise ValueError(
            f"buffer_size must be at most {sys.maxsize} (or None for no limit), not {buffer_size}"
        )
    return buffer_size
