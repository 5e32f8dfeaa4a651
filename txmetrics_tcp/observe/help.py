"""
The help screen.
"""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from txmetrics_tcp._view.filter_syntax import SYNTAX
from txmetrics_tcp._view.windows import PARTIAL
from txmetrics_tcp.observe.bindings import MOUSE, SECTIONS
from txmetrics_tcp.observe.popup import Popup
from txmetrics_tcp.observe.theme import ACCENT, DIM, TEXT, WARNING

_NOTES = (
    ("rate", "change per second, averaged over the last ten seconds"),
    ("trend", "one character per second, newest right; sorts by last event"),
    (PARTIAL, "some samples of the window were dropped or not received"),
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


class Help(Popup):
    """The help."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,f1", "dismiss", show=False)]

    def __init__(self) -> None:
        super().__init__("metrics-tcp observe", help_text())
