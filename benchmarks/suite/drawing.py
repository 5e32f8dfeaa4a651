"""
Two kinds of charts, as SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from suite.figures import Spread

WIDTH = 760
LEFT, RIGHT, TOP, LEGEND = 72, 24, 44, 22
PLOT_HEIGHT = 260
LEGEND_AT = (24, 214, 514)
"""Where the columns of a legend begin; the second has the longest name."""


@dataclass(frozen=True)
class Line:
    """
    Measurements that are joined.

    @ivar points: by place on the x axis, in units of that axis.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, Spread]]
    dashed: bool = False


class Scale:
    """Where a value stands between two pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        self._of: Callable[[float], float] = math.log10 if log else float
        self._low, self._high = self._of(low), self._of(high)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        part = (self._of(value) - self._low) / (self._high - self._low)
        return self._start + part * (self._end - self._start)


def decades(values: Iterable[float]) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last below all values to the first above them."""
    found = list(values)
    low, high = min(found), max(found)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [step * 10.0**exponent for exponent in exponents for step in (1, 2, 5)]
    first = max(at for at, step in enumerate(steps) if step <= low)
    last = min(at for at, step in enumerate(steps) if step >= high)
    return steps[first : max(last, first + 1) + 1]


def short(value: float) -> str:
    """A number on an axis: 25k, 1M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def lines_chart(
    title: str,
    x_ticks: Sequence[tuple[float, str]],
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    y_ticks: Sequence[float] | None = None,
) -> str | None:
    """Lines over a logarithmic x axis; the y axis is logarithmic unless its ticks are given."""
    lines = [line for line in lines if line.points]
    if len(x_ticks) < 2 or not lines:
        return None
    legend = [(line.label, line.colour, line.dashed) for line in lines]
    top = TOP + LEGEND * _legend_rows(legend)
    bottom = top + PLOT_HEIGHT
    log = y_ticks is None
    if y_ticks is None:
        y_ticks = decades(
            end for line in lines for _, spread in line.points for end in (spread.low, spread.high)
        )
    xs = [x for x, _ in x_ticks] + [x for line in lines for x, _ in line.points]
    x_at = Scale(min(xs), max(xs), LEFT + 24, WIDTH - RIGHT - 24, log=True)
    y_at = Scale(y_ticks[0], y_ticks[-1], bottom, top, log=log)
    parts = _legend(legend)
    for value in y_ticks:
        parts.append(_rule(LEFT, y_at(value), WIDTH - RIGHT, y_at(value)))
        parts.append(_text(LEFT - 8, y_at(value) + 4, short(value), "end"))
    for x, text in x_ticks:
        parts.append(_rule(x_at(x), top, x_at(x), bottom))
        parts.append(_text(x_at(x), bottom + 18, text, "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 38, x_title, "middle"))
    middle = (top + bottom) / 2
    parts.append(_text(16, middle, y_title, "middle", f'transform="rotate(-90 16 {middle:.1f})"'))
    for number, line in enumerate(lines):
        # Ranges at the same place stand side by side.
        aside = (number - (len(lines) - 1) / 2) * 4
        where = [(x_at(x) + aside, spread) for x, spread in line.points]
        path = " ".join(f"{x:.1f},{y_at(spread.median):.1f}" for x, spread in where)
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>'
        )
        for x, spread in where:
            y = y_at(spread.median)
            parts.append(_whisker(x, y_at(spread.low), x, y_at(spread.high), line.colour))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{line.colour}"/>')
    return _picture(title, bottom + 50, parts)


def bars_chart(
    title: str,
    things: Mapping[str, Mapping[str, Spread]],
    colours: Mapping[str, str],
    *,
    x_title: str,
) -> str | None:
    """Groups of horizontal bars on a logarithmic axis, each with its median written beside it."""
    if not any(things.values()):
        return None
    columns = [column for column in colours if any(column in cells for cells in things.values())]
    legend = [(column, colours[column], False) for column in columns]
    y = top = TOP + LEGEND * _legend_rows(legend)
    left, thick = 24, 13
    ticks = decades(
        end
        for cells in things.values()
        for spread in cells.values()
        for end in (spread.low, spread.high)
    )
    x_at = Scale(ticks[0], ticks[-1], left, WIDTH - 64, log=True)
    parts = []
    for what, cells in things.items():
        parts.append(_text(left, y + 16, what))
        y += 22
        for column in columns:
            if column not in cells:
                continue
            spread = cells[column]
            end = x_at(spread.median)
            parts.append(
                f'<rect x="{left}" y="{y}" width="{end - left:.1f}" height="{thick - 2}"'
                f' fill="{colours[column]}"/>'
            )
            middle = y + (thick - 2) / 2
            parts.append(_whisker(x_at(spread.low), middle, x_at(spread.high), middle, "#333"))
            parts.append(_text(x_at(spread.high) + 6, middle + 4, f"{spread.median:,.0f}", size=11))
            y += thick
        y += 4
    grid = [_rule(x_at(value), top, x_at(value), y) for value in ticks]
    labels = [_text(x_at(value), y + 16, short(value), "middle") for value in ticks]
    labels.append(_text(WIDTH / 2, y + 36, x_title, "middle"))
    body = [*_legend(legend), *grid, *parts, *labels]
    return _picture(title, y + 48, body)


def _picture(title: str, height: float, parts: Sequence[str]) -> str:
    # With a background of its own, it can be read on a dark page as well.
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
            f' width="{WIDTH}" height="{height:.0f}" role="img"'
            ' font-family="system-ui, sans-serif" font-size="12" fill="#222">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" rx="6" fill="#fff"/>',
            _text(LEGEND_AT[0], 24, title, size=15),
            *parts,
            "</svg>\n",
        ]
    )


def _legend_rows(legend: Sequence[tuple[str, str, bool]]) -> int:
    return math.ceil(len(legend) / len(LEGEND_AT))


def _legend(legend: Sequence[tuple[str, str, bool]]) -> list[str]:
    """Below the title."""
    parts = []
    for number, (label, colour, dashed) in enumerate(legend):
        row, column = divmod(number, len(LEGEND_AT))
        x, y = LEGEND_AT[column], TOP + row * 18
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 22}" y2="{y}" stroke="{colour}"'
            f' stroke-width="4"{dash}/>'
        )
        parts.append(_text(x + 28, y + 4, label, size=11))
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _whisker(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """A range with its two ends."""
    across = (0, 3) if y1 == y2 else (3, 0)
    ends = "".join(
        f"M{x - across[0]:.1f} {y - across[1]:.1f}L{x + across[0]:.1f} {y + across[1]:.1f}"
        for x, y in ((x1, y1), (x2, y2))
    )
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}{ends}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", more: str = "", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {more}>'
        f"{escape(text)}</text>"
    )
