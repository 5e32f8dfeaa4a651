"""
The table of series.  Only the rows on the screen are computed.
"""

from __future__ import annotations

import math
import textwrap
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from txmetrics_tcp.observe.columns import MARK, NAME, Column, Placement, columns_for, lay_out
from txmetrics_tcp.observe.render import group_cells, row_cells
from txmetrics_tcp.observe.row import Group, Line, Row
from txmetrics_tcp.observe.rows import Rows
from txmetrics_tcp.observe.text import fit, right
from txmetrics_tcp.observe.theme import (
    ACCENT,
    BACKGROUND,
    CHOSEN,
    DIM,
    PANEL,
    TEXT,
    WARNING,
    ink,
)


class SeriesTable(ScrollView, can_focus=True, inherit_bindings=False):
    """
    Draws `Rows`.

    A line that the user chose is stored as an object, not as a position, so that sorting moves it
    along.

    @ivar chosen: the chosen line; None if the table is empty.
    """

    DEFAULT_CSS: ClassVar[str] = """
    SeriesTable { height: 1fr; scrollbar-size: 1 1; overflow-x: hidden; overflow-y: auto; }
    """

    class SortClicked(Message):
        """A column title was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    class LineClicked(Message):
        """A line was clicked.

        @ivar again: whether the line was already chosen.
        """

        def __init__(self, line: Line, again: bool) -> None:
            super().__init__()
            self.line = line
            self.again = again

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self.chosen: Line | None = None
        self.empty_text = ""
        # The last index of the chosen line.
        self._at = 0
        # Whether the first line is the chosen one, whichever it is.
        self._first = True
        self._hidden = 0
        self._layout: Placement | None = None
        # The state that the last frame was drawn from: common to all lines, and for each line.
        self._frame: object = None
        self._drawn_states: list[object] = []

    # Layout

    @property
    def placement(self) -> Placement:
        """The layout of the columns at the current width."""
        width = self.scrollable_content_region.width
        layout = lay_out(self.rows, width, self._hidden)
        self._hidden = layout.before
        return layout

    @property
    def body_height(self) -> int:
        """The number of visible lines below the titles."""
        return max(1, self.scrollable_content_region.height - 1)

    @property
    def position(self) -> int | None:
        """The index of the chosen line; None if it is not listed."""
        return self._index(self.chosen)

    def _index(self, line: Line | None) -> int | None:
        if line is None:
            return None
        try:
            return self.rows.lines.index(line)
        except ValueError:
            return None

    def lines_changed(self) -> None:
        """Find the chosen line again after `Rows.lines` was replaced."""
        lines = self.rows.lines
        if self._first:
            self.chosen = None
        before = self.chosen
        if isinstance(self.chosen, Group):
            # Each update creates new groups.
            title = self.chosen.title
            self.chosen = next(
                (line for line in lines if isinstance(line, Group) and line.title == title), None
            )
        elif self.chosen is not None and self._index(self.chosen) is None:
            # A restart of the server creates new rows.
            key, source = self.chosen.key, self.chosen.source
            self.chosen = next(
                (row for row in self.rows.matching if row.key == key and row.source is source), None
            )
            if self.chosen is not None and self._index(self.chosen) is None:
                # The row is in a folded group.
                self.chosen = self._group_of(self.chosen)
        position = self.position
        if position is None:
            # If the series has gone, the next line takes its place.
            gone = isinstance(before, Row) and before.key not in before.source.view.series
            position = max(0, min(self._at, len(lines) - 1)) if gone else 0
            self.chosen = lines[position] if lines else None
        self._at = position
        size = Size(self.scrollable_content_region.width, len(lines) + 1)
        if size != self.virtual_size:
            self.virtual_size = size
        self.refresh()

    def _group_of(self, row: Row) -> Group | None:
        """Return the group that contains a row."""
        groups = (line for line in self.rows.lines if isinstance(line, Group))
        return next((group for group in groups if row in group.rows), None)

    def update(self) -> None:
        """Redraw the lines that have changed."""
        top = round(self.scroll_y)
        lines = self.rows.lines[top : top + self.body_height]
        seen = [self._line_state(line) for line in lines]
        frame = (self.placement, self.rows.window, self.rows.sort, self.rows.descending)
        frame += (self.rows.grouping, self.empty_text, len(seen), top)  # type: ignore[assignment]
        before, self._drawn_states = self._drawn_states, seen
        if frame != self._frame:
            self._frame = frame
            self.refresh()
            return
        width = self.size.width
        changed = [
            Region(0, y + 1, width, 1)
            for y, (now, then) in enumerate(zip(seen, before, strict=True))
            if now != then
        ]
        if changed:
            self.refresh(*changed)

    def _line_state(self, line: Line) -> object:
        """Return a value that changes when the appearance of the line changes."""
        chosen = line is self.chosen
        if isinstance(line, Group):
            return line.title, line.folded, line.rate, line.value, len(line.rows), chosen
        # Trends and rates change every second, even without events.
        second = 0 if line.frozen is not None else math.floor(line.source.now)
        events = line.series.events if line.frozen is None else 0
        return id(line), events, second, line.unit, chosen

    # User actions

    def move(self, by: int) -> None:
        """Choose the line C{by} places further down; a negative number moves up."""
        lines = self.rows.lines
        if lines:
            position = self.position
            at = 0 if position is None else min(len(lines) - 1, max(0, position + by))
            self.choose(at)

    def choose(self, position: int) -> None:
        """Choose a line by its index and scroll to it."""
        self.chosen = self.rows.lines[position]
        self._at = position
        self._first = False
        self.show_chosen()
        self.refresh()

    def show_chosen(self) -> None:
        """Scroll to the chosen line if it is off the screen."""
        position = self.position
        top = round(self.scroll_y)
        if position is None:
            return
        if position < top:
            self.scroll_to(y=position, animate=False, immediate=True)
        elif position >= top + self.body_height:
            self.scroll_to(y=position - self.body_height + 1, animate=False, immediate=True)

    def to_top(self, keep: bool) -> None:
        """
        Scroll to the first line.

        @param keep: whether the chosen line stays chosen.  Otherwise the first line is chosen until
            the user chooses another, also if other lines come first.
        """
        self._first = not keep
        self.scroll_to(y=0, animate=False, immediate=True)

    def shift(self, by: int) -> None:
        """Hide C{by} more columns at the left; a negative number shows columns again."""
        if by < 0 or self.placement.after:
            self._hidden = max(0, self._hidden + by)
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        # Scrollbars handle their clicks themselves.
        if event.y == 0:
            column = self.placement.at(event.x)
            if column is not None:
                self.post_message(self.SortClicked(column.id))
            return
        position = round(self.scroll_y) + event.y - 1
        if position < len(self.rows.lines):
            line = self.rows.lines[position]
            again = line is self.chosen
            self.choose(position)
            self.post_message(self.LineClicked(line, again))

    @property
    def all_columns(self) -> list[Column]:
        """All sortable columns, from left to right."""
        columns = columns_for(self.rows, self.scrollable_content_region.width)
        return [NAME, *columns]

    def reveal(self, column: str) -> None:
        """Scroll the columns until this one is visible."""
        while (layout := self.placement).before and not layout.has(column):
            self._hidden -= 1
        while (layout := self.placement).after and not layout.has(column):
            self._hidden += 1
        self.refresh()

    # Drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        self._layout = self.placement
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        layout = self._layout or self.placement
        width = self.scrollable_content_region.width
        if y == 0:
            return self._titles(layout, width)
        position = round(self.scroll_y) + y - 1
        lines = self.rows.lines
        if position >= len(lines):
            return self._empty_line(y, width)
        line = lines[position]
        on = CHOSEN if line is self.chosen else BACKGROUND
        mark = Segment("▌" if line is self.chosen else " ", ink(ACCENT, on))
        if isinstance(line, Group):
            segments = group_cells(line, self.rows, layout, width, on)
        else:
            segments = row_cells(line, self.rows, layout, on)
        strip = Strip([mark, *segments])
        return strip.adjust_cell_length(width, ink(TEXT, on))

    def _titles(self, layout: Placement, width: int) -> Strip:
        rows = self.rows
        plain, sorted_by = ink(DIM, PANEL), ink(ACCENT, PANEL, bold=True)
        segments = [Segment("◂" if layout.before else " ", ink(WARNING, PANEL))]
        x = MARK
        for column, start in layout.placed:
            segments.append(Segment(" " * (start - x), plain))
            title = column.title
            if column.id == rows.sort:
                arrow = "▼" if rows.descending else "▲"
                title = f"{arrow}{title}" if column.number else f"{title}{arrow}"
            text = right(title, column.width) if column.number else fit(title, column.width)
            segments.append(Segment(text, sorted_by if column.id == rows.sort else plain))
            x = start + column.width
        strip = Strip(segments).adjust_cell_length(width - 1, plain)
        more = Strip([Segment("▸" if layout.after else " ", ink(WARNING, PANEL))], 1)
        return Strip.join([strip, more])

    def _empty_line(self, y: int, width: int) -> Strip:
        if not self.rows.lines and y >= 2:
            lines = textwrap.wrap(self.empty_text, max(1, width - 4), break_on_hyphens=False)
            text = lines[y - 2] if y - 2 < len(lines) else ""
            return Strip([Segment(fit(f"  {text}", width), ink(DIM))], width)
        return Strip.blank(width, ink(TEXT))
