"""
The key table, shared by the bindings and the help screen.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shortcut:
    """
    One action and its keys.

    @ivar keys: Textual's names of the keys, separated by commas.
    @ivar shown: human-readable names of the keys.
    @ivar action: the name of the app's action.
    @ivar does: a one-line description for the help.
    @ivar hint: a word for the last line of the screen; empty to omit it there.
    @ivar priority: whether the app handles the key before the focused widget.
    """

    keys: str
    shown: str
    action: str
    does: str
    hint: str = ""
    priority: bool = False


SECTIONS: tuple[tuple[str, tuple[Shortcut, ...]], ...] = (
    (
        "Navigation",
        (
            Shortcut("up,k", "↑ k", "move(-1)", "previous series"),
            Shortcut("down,j", "↓ j", "move(1)", "next series"),
            Shortcut("pageup", "PgUp", "page(-1)", "page up"),
            Shortcut("pagedown", "PgDn", "page(1)", "page down"),
            Shortcut("home", "Home", "edge(-1)", "first series"),
            Shortcut("end,G", "End G", "edge(1)", "last series"),
            Shortcut("left,h", "← h", "columns(-1)", "scroll the columns left"),
            Shortcut("right,l", "→ l", "columns(1)", "scroll the columns right"),
            Shortcut(
                "enter",
                "Enter",
                "detail",
                "show or hide details; fold or unfold a group",
                "detail",
                True,
            ),
        ),
    ),
    (
        "Filter, sort, group",
        (
            Shortcut("slash", "/", "filter", "filter as you type; Enter keeps it", "filter", True),
            Shortcut(
                "escape",
                "Esc",
                "step_back",
                "go back one step: window, details, filter, groups",
                "",
                True,
            ),
            Shortcut("s", "s", "sort(1)", "sort by the next column", "sort"),
            Shortcut("S", "S", "sort(-1)", "sort by the previous column"),
            Shortcut("r", "r", "reverse", "reverse the order"),
            Shortcut(
                "g", "g", "group(1)", "group by name, then by each label, then not at all", "group"
            ),
            Shortcut("b", "b", "group(-1)", "previous grouping"),
            Shortcut("f", "f", "fold_all", "fold all groups; press again to unfold them"),
        ),
    ),
    (
        "Time",
        (
            Shortcut(
                "w", "w", "window(1)", "next longer window for percentiles, or all time", "window"
            ),
            Shortcut("W", "W", "window(-1)", "next shorter window for percentiles"),
            Shortcut("space,p", "Space p", "pause", "pause or resume the display", "pause"),
            Shortcut("c", "c", "clear", "clear the table, keep totals; resume if paused", "clear"),
        ),
    ),
    (
        "Export",
        (
            Shortcut("e", "e", "export('json')", "save the listed series as JSON"),
            Shortcut("v", "v", "export('csv')", "save the listed series as CSV"),
            Shortcut("x", "x", "picture", "save the screen as SVG"),
        ),
    ),
    (
        "Other",
        (
            Shortcut("o", "o", "sources", "list all sources with their states and messages"),
            Shortcut("question_mark,f1", "? F1", "help", "show this help", "help"),
            # The first of these that is possible.
            Shortcut("q", "q", "close_detail", "close a window or the details", "back"),
            Shortcut("q", "q", "leave", "quit, if none is open", "quit"),
            Shortcut("ctrl+c,ctrl+q", "Ctrl-C", "stop", "quit, even while typing", "", True),
        ),
    ),
)

KEYS = tuple(key for _, keys in SECTIONS for key in keys)

MOUSE = (
    ("click a column title", "sort by it; click again to reverse the order"),
    ("click a series", "select it; click again for details"),
    ("click a group", "fold or unfold it"),
    ("wheel", "scroll"),
    ("click a key hint", "same as pressing the key"),
)
