"""
Checks of the values that a caller gives to settings.
"""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any


def at_least(name: str, least: int, value: Any) -> int:
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


def seconds_from(name: str, least: float, value: Any) -> float:
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
