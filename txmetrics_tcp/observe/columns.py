"""
The columns of the table: which there are, and which of them fit.  No Textual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from txmetrics_tcp._view.sketch import PERCENTILES
from txmetrics_tcp.observe.rows import Rows

GAP = 2
"""How many cells are between two columns."""

MARK = 1
"""How many cells are before the first: there the chosen row has its mark."""


LEAST_NAME = 22
"""To how many cells names are not cut while trend and rate are shown."""

LEAST_LABELS = 11
"""The same of labels: so much is left for them at 80 columns, beside a scrollbar."""


class Column(NamedTuple):
    """
    @ivar id: also what it is sorted by; one of `txmetrics_tcp.observe.rows.SORTS`.
    @ivar title: what stands above it.
    @ivar width: how many cells wide it is.
    @ivar number: whether it is aligned at the right.
    """

    id: str
    title: str
    width: int
    number: bool = False


NAME = Column("name", "name", 0)
"""The first, which is always there."""


class Placed(NamedTuple):
    """
    @ivar x: where the column begins.
    """

    column: Column
    x: int

    @property
    def end(self) -> int:
        return self.x + self.column.width


class Placement(NamedTuple):
    """
    @ivar placed: the columns that fit, from the left; the first is always there.
    @ivar before: how many are hidden at the left.
    @ivar after: how many do not fit at the right.
    """

    placed: list[Placed]
    before: int
    after: int

    def has(self, column: str) -> bool:
        return any(placed.column.id == column for placed in self.placed)

    def at(self, x: int) -> Column | None:
        """The column whose title is at a cell; the space before a number belongs to it."""
        start = 0
        for placed in self.placed:
            if start <= x < placed.end + 1:
                return placed.column
            start = placed.end + 1
        return None


def columns_for(rows: Rows, width: int) -> list[Column]:
    """All columns, for a table of so many cells."""
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
        Column("kind", "kind", 9 if wide else 5),
        Column("value", "value", 10, True),
        Column("rate", "rate", 10 if wide else 9, True),
        Column("trend", "trend", 12 if wide else 10),
    ]
    if rows.histograms:
        columns += [Column(name, name, 8, True) for name in PERCENTILES]
    return columns


def lay_out(rows: Rows, width: int, hidden: int) -> Placement:
    """
    Place the columns.

    Name and labels share what the others leave, by what they need; what then is left goes to the
    trend.

    @param hidden: how many columns behind the name are hidden at the left.
    """
    columns = columns_for(rows, width)
    hidden = max(0, min(hidden, len(columns) - 1))
    columns = columns[hidden:]
    # The last cell is for the sign that there is more.
    room = width - MARK - 1
    name = max(5, rows.name_length + (2 if rows.grouping is not None else 0))
    labels = max(6, rows.labels_length) if any(c.id == "labels" for c in columns) else 0
    # Up to the trend all is to be seen at once, from 80 columns up; and percentiles, where name and
    # labels have enough.
    least = _least(columns)
    text = room - sum(column.width + GAP for column in columns[:least] if column.id != "labels")
    # But for the trend and the rate, where rows could not be told apart for them.
    wanted = min(name, LEAST_NAME) + (min(labels, LEAST_LABELS) + GAP if labels else 0)
    while least > 1 and text < wanted and columns[least - 1].id in ("trend", "rate"):
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
    """How many columns are shown in any case: those up to the trend, or five numbers."""
    for number, column in enumerate(columns):
        if column.id == "trend":
            return number + 1
    return min(5, len(columns))
