"""
Charts of numbers over time, drawn with block characters: sparklines of one line for the table, and
larger charts for the detail pane.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

_BARS = " ▁▂▃▄▅▆▇█"
_LEVELS = len(_BARS) - 1

_SPARK_LEVELS = _LEVELS - 1
"""Excludes the full block, so that sparklines of adjacent rows do not touch."""


def sparkline(values: Sequence[float], width: int, from_zero: bool) -> str:
    """
    Draw the last values, one character each, the newest at the right.

    A value that is not finite is drawn as a space.  A constant value is a flat line.

    @param from_zero: whether the scale starts at zero, as for rates, rather than at the smallest
        value.
    """
    values = values[-width:]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * width
    low = min(0.0, min(finite)) if from_zero else min(finite)
    high = max(finite)
    span = high - low
    if span == math.inf:
        return sparkline([value / 4 for value in values], width, from_zero)
    if span <= 0:
        flat = "▁" if from_zero else "▄"
        line = "".join(flat if math.isfinite(value) else " " for value in values)
        return line.rjust(width)
    # The smallest value gets one level, so that it is visible.
    top = _SPARK_LEVELS - 1
    line = "".join(
        _BARS[1 + round((value - low) / span * top)] if math.isfinite(value) else " "
        for value in values
    )
    return line.rjust(width)


def chart(
    values: Sequence[float], width: int, height: int, from_zero: bool
) -> tuple[list[str], float, float]:
    """
    Draw an area chart, the newest value at the right.

    If the chart has more columns than values, a value takes several columns.

    @return: the lines from top to bottom, and the values at the bottom and at the top.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1 or height < 1:
        return [" " * width] * height, 0.0, 0.0
    low = min(0.0, min(finite)) if from_zero else min(finite)
    high = max(finite)
    if high == low:
        # Draw a constant value as a line in the middle, or at the bottom.
        margin = abs(low) or 1.0
        high = min(low + margin, sys.float_info.max)
        if not from_zero:
            low = max(low - margin, -sys.float_info.max)
    if high - low == math.inf:
        lines, _, _ = chart([value / 4 for value in values], width, height, from_zero)
        return lines, low, high
    span = high - low
    number = len(values)
    if number < width:
        values = [values[column * number // width] for column in range(width)]
    else:
        values = values[-width:]
    steps = height * _LEVELS
    levels = [
        max(1, round((value - low) / span * steps)) if math.isfinite(value) else 0
        for value in values
    ]
    lines = []
    for row in reversed(range(height)):
        foot = row * _LEVELS
        line = "".join(_BARS[min(_LEVELS, max(0, level - foot))] for level in levels)
        lines.append(line)
    return lines, low, high
