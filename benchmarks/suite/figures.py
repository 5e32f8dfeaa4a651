"""
What comes out of a benchmark: figures with their ranges, in Markdown tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "ours"
REACTOR = "ours, recorded on the reactor thread"
REFERENCE = "reference"

HEADROOM = 1.5
"""A figure counts as limited by the reader if the reader alone is not so many times as fast."""


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing, at least one."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def over(self, other: Spread) -> Spread | None:
        """
        The ratio to another, measurement by measurement, since those of a pair were made together;
        None where the other is not above 0.
        """
        if min(other.samples) <= 0:
            return None
        return Spread(tuple(a / b for a, b in zip(self.samples, other.samples, strict=True)))


@dataclass(frozen=True)
class Goal:
    """
    What a ratio should come to.

    @ivar at_least: whether the limit is the least that is wanted, or the most.
    """

    limit: float
    at_least: bool = True

    def met(self, value: Spread) -> bool:
        return value.median >= self.limit if self.at_least else value.median <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} x"


@dataclass(frozen=True)
class ReaderSpeed:
    """What the reader alone takes; or more, where it is the least, as the writer was the limit."""

    value: float
    least: bool = False

    def __str__(self) -> str:
        return f"{'at least ' if self.least else ''}{number(self.value)}"


@dataclass(frozen=True)
class Row:
    """
    One line of a table.

    @ivar what: what was measured.
    @ivar unit: of the cells.
    @ivar cells: by column.
    @ivar base: the column that the others are compared with, if there is one.
    @ivar goal: of the ratio to the base.
    @ivar reader: what the reader alone takes, in the unit of the cells.
    @ivar call: what an empty method call costs, in the unit of the cells.
    """

    what: str
    unit: str
    cells: dict[str, Spread]
    base: str | None = None
    goal: Goal | None = None
    reader: ReaderSpeed | None = None
    call: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        unit: str,
        samples: Mapping[str, Sequence[float]],
        base: str | None = None,
        goal: Goal | None = None,
        **more: Any,
    ) -> Row:
        """Make one of measurements; columns for which there are none are left out."""
        cells = {name: Spread(tuple(values)) for name, values in samples.items() if values}
        return cls(what, unit, cells, base if base in cells else None, goal, **more)

    @property
    def ratios(self) -> dict[str, Spread]:
        """The other columns' ratios to the base, as far as there are any."""
        if self.base is None:
            return {}
        base = self.cells[self.base]
        ratios = {name: cell.over(base) for name, cell in self.cells.items() if name != self.base}
        return {name: ratio for name, ratio in ratios.items() if ratio is not None}


@dataclass(frozen=True)
class Section:
    """
    The outcome of one benchmark.

    @ivar how: what was measured, and how.
    """

    title: str
    how: str
    rows: list[Row]


def to_table(rows: Sequence[Row]) -> str:
    """As Markdown, with a column for each that is in any of the rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    goals = any(row.goal is not None for row in rows)
    readers = any(row.reader is not None for row in rows)
    titles = [*columns, *["reader alone"] * readers, *["goal", "reached"] * goals]
    lines = [["", *titles], ["---", *["---:"] * len(titles)]]
    for row in rows:
        line = [f"{row.what} ({row.unit})", *(_cell(row, name) for name in columns)]
        if readers:
            line.append("" if row.reader is None else str(row.reader))
        if goals:
            line += [str(row.goal) if row.goal and row.base else "", _verdict(row)]
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


def _verdict(row: Row) -> str:
    """For each column of this library."""
    goal = row.goal
    if goal is None:
        return ""
    verdicts = [goal.met(value) for name, value in row.ratios.items() if name.startswith(OURS)]
    return ", ".join("yes" if met else "no" for met in verdicts)


def number(value: float) -> str:
    """With three digits."""
    if abs(value) >= 100:
        return f"{round(value, 3 - len(str(int(abs(value))))):,.0f}"
    return f"{value:.3g}"
