"""
The results of a benchmark: figures with their ranges, in Markdown tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "ours"
REACTOR = "ours, recorded on the reactor thread"
AT_ONCE = "max_delay=0"
REFERENCE = "reference"

RATIO = "x"

HEADROOM = 1.5
"""A figure is marked if the reader alone is less than this many times as fast."""


@dataclass(frozen=True)
class Spread:
    """One or more measurements of one quantity."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def over(self, other: Spread) -> Spread | None:
        """
        Return the ratios to another spread, pair by pair, since the measurements of a pair were
        made together. Return None if the other has a value of 0 or less.
        """
        if min(other.samples) <= 0:
            return None
        return Spread(tuple(a / b for a, b in zip(self.samples, other.samples, strict=True)))


@dataclass(frozen=True)
class Goal:
    """
    A goal for a ratio or, with another unit, for the figure itself.

    @ivar at_least: whether the limit is a minimum, not a maximum.
    @ivar unit: the unit of the limit; C{x} for a ratio.
    """

    limit: float
    at_least: bool = True
    unit: str = RATIO

    def met(self, value: Spread) -> bool:
        return value.median >= self.limit if self.at_least else value.median <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"


@dataclass(frozen=True)
class ReaderSpeed:
    """
    The speed of the reader alone.

    @ivar least: whether it is a lower bound, since the writer was the limit.
    """

    value: float
    least: bool = False

    def __str__(self) -> str:
        return f"{'at least ' if self.least else ''}{number(self.value)}"


@dataclass(frozen=True)
class Row:
    """
    One line of a table.

    @ivar what: the name of the measured quantity.
    @ivar unit: the unit of the cells.
    @ivar cells: the figures by column.
    @ivar base: the column with which the others are compared, if any.
    @ivar goals: the goals for the ratio to the base, or for the figure.
    @ivar reader: the speed of the reader alone, in the unit of the cells.
    @ivar call: the cost of an empty method call, in the unit of the cells.
    """

    what: str
    unit: str
    cells: dict[str, Spread]
    base: str | None = None
    goals: tuple[Goal, ...] = ()
    reader: ReaderSpeed | None = None
    call: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        unit: str,
        samples: Mapping[str, Sequence[float]],
        base: str | None = None,
        *goals: Goal | None,
        **more: Any,
    ) -> Row:
        """
        Make a row from measurements, without the columns that have none, and without goals for a
        ratio if there is no base.
        """
        cells = {name: Spread(tuple(values)) for name, values in samples.items() if values}
        base = base if base in cells else None
        able = tuple(goal for goal in goals if goal and (base or goal.unit != RATIO))
        return cls(what, unit, cells, base, able, **more)

    @property
    def ratios(self) -> dict[str, Spread]:
        """The ratios of the other columns to the base, where they exist."""
        if self.base is None:
            return {}
        base = self.cells[self.base]
        ratios = {name: cell.over(base) for name, cell in self.cells.items() if name != self.base}
        return {name: ratio for name, ratio in ratios.items() if ratio is not None}


@dataclass(frozen=True)
class Section:
    """
    The results of one benchmark.

    @ivar how: the description of the measurement.
    """

    title: str
    how: str
    rows: list[Row]


def to_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table, with each column that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    goals = any(row.goals for row in rows)
    readers = any(row.reader is not None for row in rows)
    titles = [*columns, *["reader alone"] * readers, *["goal", "reached"] * goals]
    lines = [["", *titles], ["---", *["---:"] * len(titles)]]
    for row in rows:
        line = [f"{row.what} ({row.unit})", *(_cell(row, name) for name in columns)]
        if readers:
            line.append("" if row.reader is None else str(row.reader))
        if goals:
            line += ["; ".join(map(str, row.goals)), "; ".join(_verdicts(row))]
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(row: Row, name: str) -> str:
    if name not in row.cells:
        return ""
    value = row.cells[name]
    text = number(value.median)
    if len(set(value.samples)) > 1:
        text += f" [{number(min(value.samples))} to {number(max(value.samples))}]"
    if row.reader and value.median * HEADROOM > row.reader.value:
        text += " †"
    if row.call:
        text += f" = {number(value.median / row.call)} calls"
    if name in row.ratios:
        text += f", **{number(row.ratios[name].median)} x**"
    return text


def _verdicts(row: Row) -> Iterator[str]:
    """Yield the outcomes of each goal, for each column of this library."""
    for goal in row.goals:
        values = row.ratios if goal.unit == RATIO else row.cells
        ours = [value for name, value in values.items() if name.startswith(OURS)]
        yield ", ".join("yes" if goal.met(value) else "no" for value in ours)


def number(value: float) -> str:
    """Format a number with three significant digits."""
    if abs(value) >= 100:
        return f"{round(value, 3 - len(str(int(abs(value))))):,.0f}"
    return f"{value:.3g}"
