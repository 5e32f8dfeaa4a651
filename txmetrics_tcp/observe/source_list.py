"""
The window that lists all sources.
"""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType

from txmetrics_tcp.observe.header import is_fine, source_parts
from txmetrics_tcp.observe.popup import Popup
from txmetrics_tcp.observe.rows import Rows


def sources_text(rows: Rows) -> Text:
    """Return the state of each source, those with problems first, with uncut names and messages."""
    lines = []
    for source in sorted(rows.sources, key=is_fine):
        dot, label, *parts = source_parts(source, True)
        parts = [dot, label._replace(text=source.label), *parts]
        lines.append(Text.assemble(*((part.text, _on_panel(part.style)) for part in parts)))
    return Text("\n").join(lines)


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
        super().__init__(f"{len(rows.sources)} sources", sources_text(rows))
        self.rows = rows

    def update(self) -> None:
        self.show(sources_text(self.rows))
