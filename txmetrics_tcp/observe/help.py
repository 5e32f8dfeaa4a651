"""
The help on the screen.
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
    ("rate", "a second, over the last ten; of a gauge, how its value changes"),
    ("trend", "one character a second, newest right; sorts by what changed last"),
    ("losses", "incoming: recorded faster than the server could handle"),
    ("", "client: this viewer, or the way to it, was too slow"),
)


def help_text() -> Text:
    """All keys, the mouse, and the language of filters."""
    text = Text(style=TEXT)

    def section(title: str, lines: tuple[tuple[str, str], ...]) -> None:
        text.append(f"{title}\n", f"bold {ACCENT}")
        width = max(len(what) for what, _ in lines) + 2
        for what, does in lines:
            text.append(f"  {what:<{width}}", WARNING)
            text.append(f"{does}\n", TEXT)
        text.append("\n")

    for title, keys in SECTIONS:
        section(title, tuple((key.shown, key.does) for key in keys))
    section("Mouse", MOUSE)
    text.append("Filters\n", f"bold {ACCENT}")
    for line in SYNTAX.splitlines():
        text.append(f"{line}\n", WARNING if line.startswith("  ") else DIM)
    text.append("\n")
    section("What is what", _NOTES)
    text.rstrip()
    return text


class Help(ModalScreen[None]):
    """Lies over the table, which goes on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,enter", "dismiss", show=False),
        Binding("up,k", "roll(-1)", show=False),
        Binding("down,j", "roll(1)", show=False),
        Binding("pageup", "roll(-12)", show=False),
        Binding("pagedown,space", "roll(12)", show=False),
    ]

    DEFAULT_CSS = f"""
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
        # Where it is seen also when there is more than fits.
        box.border_subtitle = "↑ ↓ PgDn scroll, Esc closes"
        yield box

    def action_roll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
