"""
Windows with text over the table, which stays live.
"""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from txmetrics_tcp.observe.theme import ACCENT, PANEL, TEXT


class Popup(ModalScreen[None]):
    """The base class of windows: a title and text that can be scrolled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", show=False),
        Binding("up,k", "roll(-1)", show=False),
        Binding("down,j", "roll(1)", show=False),
        Binding("pageup", "roll(-12)", show=False),
        Binding("pagedown,space", "roll(12)", show=False),
    ]

    DEFAULT_CSS: ClassVar[str] = f"""
    Popup {{ align: center middle; }}
    Popup > VerticalScroll {{
        width: 84; max-width: 100%; height: auto; max-height: 92%;
        background: {PANEL}; border: round {ACCENT}; border-title-color: {TEXT};
        padding: 1 1; scrollbar-size: 1 1;
    }}
    Popup Static {{ width: 100%; height: auto; background: {PANEL}; }}
    """

    def __init__(self, title: str, content: Text | Table) -> None:
        super().__init__()
        self._title = title
        self._static = Static(content, markup=False)

    def compose(self) -> ComposeResult:
        box = VerticalScroll(self._static)
        box.border_title = self._title
        # Visible even if the text is longer than the box.
        box.border_subtitle = "↑ ↓ PgDn scroll, Esc closes"
        yield box

    def show(self, content: Text | Table) -> None:
        """Replace the content."""
        self._static.update(content)

    def action_roll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
