"""
The window that lists all sources.
"""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.binding import Binding, BindingType

from txmetrics_tcp._view.text import counted
from txmetrics_tcp.observe.header import MAX_LABEL, is_fine, source_parts
from txmetrics_tcp.observe.popup import Popup
from txmetrics_tcp.observe.rows import Rows

Cells = list[tuple[Text, Text, Text]]


def source_cells(rows: Rows) -> Cells:
    """
    Return a dot, the name and the state of each source, those with problems first, with uncut
    names and messages.
    """
    cells = []
    for source in sorted(rows.sources, key=is_fine):
        dot, label, *parts = source_parts(source, True)
        state = Text.assemble(*((part.text, _on_panel(part.style)) for part in parts))
        state = state[len(state.plain) - len(state.plain.lstrip()) :]
        cells.append(
            (
                Text(dot.text, _on_panel(dot.style)),
                Text(source.label, _on_panel(label.style), overflow="fold"),
                state,
            )
        )
    return cells


def _table(cells: Cells) -> Table:
    table = Table.grid()
    table.add_column()
    table.add_column(max_width=MAX_LABEL)
    table.add_column(width=2)
    table.add_column()
    for dot, label, state in cells:
        table.add_row(dot, label, "", state)
    return table


def _on_panel(style: Style) -> Style:
    """Return a style without its background."""
    return Style(color=style.color, bold=style.bold)


class SourceList(Popup):
    """All sources with their states and messages."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("o", "dismiss", show=False)]

    DEFAULT_CSS: ClassVar[str] = """
    SourceList > VerticalScroll { width: 96%; }
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._cells = source_cells(rows)
        super().__init__(counted(len(rows.sources), "source"), _table(self._cells))

    def update(self) -> None:
        cells = source_cells(self.rows)
        if cells != self._cells:
            self._cells = cells
            self.show(_table(cells))
