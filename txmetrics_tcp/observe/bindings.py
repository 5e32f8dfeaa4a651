"""
What each key does: one table for the bindings and the help screen.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shortcut:
    """
    @ivar keys: in Textual's words, separated by commas.
    @ivar shown: in people's words.
    @ivar action: the name of the app's action.
    @ivar does: what it does, a line for the help.
    @ivar hint: a word for the last line of the screen; empty when it is not to be there.
    @ivar first: whether it is heeded before what has the focus gets the key.
    """

    keys: str
    shown: str
    action: str
    does: str
    hint: str = ""
    first: bool = False


SECTIONS: tuple[tuple[str, tuple[Shortcut, ...]], ...] = (
    (
        "Look around",
        (
            Shortcut("up,k", "↑ k", "move(-1)", "the series above"),
            Shortcut("down,j", "↓ j", "move(1)", "the series below"),
            Shortcut("pageup", "PgUp", "page(-1)", "one screen up"),
            Shortcut("pagedown", "PgDn", "page(1)", "one screen down"),
            Shortcut("home", "Home", "edge(-1)", "the first series"),
            Shortcut("end,G", "End G", "edge(1)", "the last series"),
            Shortcut("left,h", "← h", "columns(-1)", "columns further left"),
            Shortcut("right,l", "→ l", "columns(1)", "columns further right"),
            Shortcut(
                "enter",
                "Enter",
                "detail",
                "all about the series, and close that; fold a group",
                "detail",
                True,
            ),
        ),
    ),
    (
        "Find",
        (
            Shortcut("slash", "/", "filter", "filter as you type; Enter keeps it", "filter", True),
            Shortcut(
                "escape",
                "Esc",
                "step_back",
                "one step back: close what is open, forget the filter",
                "",
                True,
            ),
            Shortcut("s", "s", "sort(1)", "sort by the next column", "sort"),
            Shortcut("S", "S", "sort(-1)", "sort by the column before"),
            Shortcut("r", "r", "reverse", "turn the order around"),
            Shortcut("g", "g", "group(1)", "group by name, then by each label, then not", "group"),
            Shortcut("b", "b", "group(-1)", "group by what was before"),
            Shortcut("f", "f", "fold_all", "fold all groups; once more unfolds them"),
        ),
    ),
    (
        "Time",
        (
            Shortcut(
                "w", "w", "window(1)", "percentiles of the next longer time, or of all", "window"
            ),
            Shortcut("W", "W", "window(-1)", "percentiles of the next shorter time"),
            Shortcut("space,p", "Space p", "pause", "hold the picture still, or go on", "pause"),
            Shortcut(
                "c",
                "c",
                "clear",
                "forget what was seen, but for totals; go on if held still",
                "clear",
            ),
        ),
    ),
    (
        "Keep",
        (
            Shortcut("e", "e", "export('json')", "write what is shown to a file, as JSON"),
            Shortcut("v", "v", "export('csv')", "write what is shown to a file, as CSV"),
            Shortcut("x", "x", "picture", "write the screen to a file, as SVG"),
        ),
    ),
    (
        "And",
        (
            Shortcut("question_mark,f1", "? F1", "help", "this help", "help"),
            Shortcut("q", "q", "leave", "leave", "quit"),
            Shortcut("ctrl+c,ctrl+q", "Ctrl-C", "leave", "leave, whatever has the focus", "", True),
        ),
    ),
)

KEYS = tuple(key for _, keys in SECTIONS for key in keys)

MOUSE = (
    ("click on a column's title", "sort by it; once more turns the order around"),
    ("click on a series", "choose it; once more for all about it"),
    ("click on a group", "fold or unfold it"),
    ("wheel", "scroll"),
    ("click on the last line", "what the key there does"),
)
