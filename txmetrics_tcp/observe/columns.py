"""
The columns of the table and their layout.  Does not use Textual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from txmetrics_tcp._view.windows import PERCENTILES
from txmetrics_tcp.observe.rows import Rows

GAP = 2
"""The number of cells between two columns."""

MARK = 1
"""The number of cells before the first column, for the mark of the chosen row."""

LEAST_NAME = 22
"""If fewer cells than this remain for names, trend and rate are hidden."""

LEAST_LABELS = 11
"""The same for labels.  This is the space for labels on a screen of 80 cells with a scrollbar."""


class Column(NamedTuple):
    """
    A column of the table.

    @ivar id: the name of its sort order, one of `txmetrics_tcp.observe.rows.SORTS`.
    @ivar title: the text in the header.
    @ivar width: the width in cells.
    @ivar number: whether the column is right-aligned.
    """

    id: str
    title: str
    width: int
    number: bool = False


NAME = Column("name", "name", 0)
"""The first column, which is always shown."""


class Placed(NamedTuple):
    """
    A column at its position.

    @ivar x: the first cell of the column.
    """

    column: Column
    x: int

    @property
    def end(self) -> int:
        return self.x + self.column.width


class Placement(NamedTuple):
    """
    The layout of the columns.

    @ivar placed: the columns that fit, from left to right; the name is always first.
    @ivar before: the number of columns hidden at the left.
    @ivar after: the number of columns hidden at the right.
    """

    placed: list[Placed]
    before: int
    after: int

    def has(self, column: str) -> bool:
        return any(placed.column.id == column for placed in self.placed)

    def at(self, x: int) -> Column | None:
        """Return the column whose title covers a cell, including the gap before it."""
        start = 0
        for placed in self.placed:
            if start <= x < placed.end + 1:
                return placed.column
            start = placed.end + 1
        return None


def columns_for(rows: Rows, width: int) -> list[Column]:
    """Return all columns except the name, for a table of this width in cells."""
    wide = width >= 110
    sources = len(rows.sources) > 1
    columns = []
    if sources:
        most = 24 if wide else 14
        length = max(map(cell_len, rows.brief))
        if not wide or length > most:
            length = max(map(cell_len, rows.brief.values()))
        columns.append(Column("source", "source", min(max(length, 6), most)))
    columns += [
        Column("labels", "labels", 0),
        Column("kind", "kind", 9 if rows.histograms else 7),
        Column("value", "value", 10 if wide else 9, True),
        Column("rate", "rate", 10, True),
        Column("trend", "trend", 12 if wide else 6),
    ]
    if rows.histograms:
        columns += [Column(name, name, 9, True) for name in PERCENTILES]
    return columns


def lay_out(rows: Rows, width: int, hidden: int) -> Placement:
    """
    Lay out the columns.

    Name and labels share the space that the other columns leave.  The trend gets the space that
    they do not need.

    @param hidden: the number of columns after the name to hide at the left.
    """
    columns = columns_for(rows, width)
    hidden = max(0, min(hidden, len(columns) - 1))
    columns = columns[hidden:]
    # The last cell is reserved for the mark of hidden columns.
    room = width - MARK - 1
    name = max(5, rows.name_length + (2 if rows.grouping is not None else 0))
    labels = max(6, rows.labels_length) if any(c.id == "labels" for c in columns) else 0
    # From 80 cells up, show all columns up to the trend, and percentiles if name and labels have
    # enough space.
    least = _least(columns)
    text = room - sum(column.width + GAP for column in columns[:least] if column.id != "labels")
    # Hide trend and rate if name and labels would be too short to distinguish rows, and any column
    # that would be cut.
    wanted = min(name, LEAST_NAME) + (min(labels, LEAST_LABELS) + GAP if labels else 0)
    while least > 1 and (
        text < 1 + GAP or (text < wanted and columns[least - 1].id in ("trend", "rate"))
    ):
        least -= 1
        text += columns[least].width + GAP
    enough = min(name, 40) + (min(labels, 40) + GAP if labels else 0)
    while least < len(columns) and text - columns[least].width - GAP >= enough:
        text -= columns[least].width + GAP
        least += 1
    shown = columns[:least]
    if labels:
        text -= GAP
        labels_width = max(0, min(labels, max(text - name, text * 2 // 5)))
        name_width = min(name, text - labels_width)
        labels_width = min(labels, text - name_width)
        text += GAP
        used = name_width + GAP + labels_width
    else:
        name_width = labels_width = min(name, text)
        used = name_width
    left = max(0, text - used)
    placed = [Placed(NAME._replace(width=max(1, name_width)), MARK)]
    for column in shown:
        if column.id == "labels":
            column = column._replace(width=labels_width)
        elif column.id == "trend":
            column = column._replace(width=min(60, column.width + left))
        placed.append(Placed(column, placed[-1].end + GAP))
    return Placement(placed, hidden, len(columns) - least)


def _least(columns: Sequence[Column]) -> int:
    """Return the number of columns to show by default: up to the trend or, without it, five."""
    for number, column in enumerate(columns):
        if column.id == "trend":
            return number + 1
    return min(5, len(columns))
