"""
What comes out of a benchmark: figures with their ranges, in tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OURS = "ours"
REACTOR = "ours, recorded on the reactor thread"
REFERENCE = "reference"


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if not samples:
            raise ValueError("nothing was measured")
        return cls(tuple(samples))

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)

    def over(self, other: Spread) -> Spread:
        """The ratio to another, measurement by measurement: those of a pair were made together."""
        return Spread.of([a / b for a, b in zip(self.samples, other.samples, strict=True)])


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
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """
    One line of a table.

    @ivar what: what was measured.
    @ivar unit: of the cells.
    @ivar cells: by column.
    @ivar base: the column that the others are compared with, if there is one.
    @ivar goal: of the ratio to the base.
    """

    what: str
    unit: str
    cells: dict[str, Spread]
    base: str | None = None
    goal: Goal | None = None

    @classmethod
    def of(
        cls,
        what: str,
        unit: str,
        samples: Mapping[str, Sequence[float]],
        base: str | None = None,
        goal: Goal | None = None,
    ) -> Row:
        """Make one of measurements; columns for which there are none are left out."""
        columns = {name: Spread.of(values) for name, values in samples.items() if values}
        return cls(what, unit, columns, base if base in columns else None, goal)

    @property
    def ratios(self) -> dict[str, Spread]:
        """The other columns' ratios to the base."""
        if self.base is None:
            return {}
        base = self.cells[self.base]
        return {name: cell.over(base) for name, cell in self.cells.items() if name != self.base}


@dataclass(frozen=True)
class Section:
    """
    The outcome of one benchmark.

    @ivar how: what was measured, and how, for the reader of the table.
    """

    title: str
    how: str
    rows: list[Row]
