"""
The help screen.
"""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from txmetrics_tcp._view.filter_syntax import SYNTAX
from txmetrics_tcp.observe.bindings import MOUSE, SECTIONS
from txmetrics_tcp.observe.theme import ACCENT, DIM, PANEL, TEXT, WARNING

_NOTES = (
    ("rate", "change per second, averaged over the last ten seconds"),
    ("trend", "one character per second, newest right; sorts by last event"),
    ("incoming", "events missed because the program recorded too fast"),
    ("client", "events missed because the viewer or the network was too slow"),
)


def help_text() -> Text:
    """Return the text of the help: keys, mouse, filter syntax and notes."""
    text = Text(style=TEXT)

    def section(title: str, lines: tuple[tuple[str, str], ...]) -> None:
        text.append(f"{title}\n", f"bold {ACCENT}")
        width = max(len(term) for term, _ in lines) + 2
        for term, description in lines:
            text.append(f"  {term:<{width}}", WARNING)
            text.append(f"{description}\n", TEXT)
        text.append("\n")

    for title, keys in SECTIONS:
        section(title, tuple((key.shown, key.does) for key in keys))
    section("Mouse", MOUSE)
    text.append("Filters\n", f"bold {ACCENT}")
    for line in SYNTAX.splitlines():
        text.append(f"{line}\n", WARNING if line.startswith("  ") else DIM)
    text.append("\n")
    section("Columns and losses", _NOTES)
    text.rstrip()
    return text


class Help(ModalScreen[None]):
    """The help, shown over the table, which stays live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,enter", "dismiss", show=False),
        Binding("up,k", "roll(-1)", show=False),
        Binding("down,j", "roll(1)", show=False),
        Binding("pageup", "roll(-12)", show=False),
        Binding("pagedown,space", "roll(12)", show=False),
    ]

    DEFAULT_CSS: ClassVar[str] = f"""
    Help {{ align: center middle; background: #00000080; }}
    Help > VerticalScroll {{
        width: 84; max-width: 100%; height: auto; max-height: 92%;
        background: {PANEL}; border: round {ACCENT}; border-title-color: {TEXT};
        padding: 1 1; scrollbar-size: 1 1;
    }}
    Help Static {{ width: 100%; height: auto; background: {PANEL}; }}
    """

    def compose(self) -> ComposeResult:
        box = VerticalScroll(Static(help_text(), markup=False))
        box.border_title = "metrics-tcp observe"
        # Visible even if the text is longer than the box.
        box.border_subtitle = "↑ ↓ PgDn scroll, Esc closes"
        yield box

    def action_roll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
