"""
The colours: muted, so that important parts stand out.
"""

from __future__ import annotations

from functools import cache

from rich.style import Style
from textual.theme import Theme

from txmetrics_tcp._model import MetricKind

BACKGROUND = "#12141c"
PANEL = "#1b1e2b"
RAISED = "#252a3d"
CHOSEN = "#2c3a5e"
TEXT = "#d7dbec"
DIM = "#767d9a"
FAINT = "#3d4359"
ACCENT = "#82aaff"
GOOD = "#a6da95"
WARNING = "#eed49f"
BAD = "#ff7a90"

KIND = {
    MetricKind.COUNTER: "#7dcfff",
    MetricKind.GAUGE: "#b9e37c",
    MetricKind.HISTOGRAM: "#c9a5ff",
}

THEME = Theme(
    name="metrics",
    primary=ACCENT,
    secondary=KIND[MetricKind.HISTOGRAM],
    accent=ACCENT,
    foreground=TEXT,
    background=BACKGROUND,
    surface=BACKGROUND,
    panel=PANEL,
    success=GOOD,
    warning=WARNING,
    error=BAD,
    variables={
        "footer-background": PANEL,
        "footer-key-foreground": ACCENT,
        "footer-description-foreground": DIM,
        "scrollbar": FAINT,
        "scrollbar-background": BACKGROUND,
        "scrollbar-corner-color": BACKGROUND,
        "scrollbar-hover": DIM,
        "scrollbar-active": ACCENT,
        "scrollbar-background-hover": BACKGROUND,
        "scrollbar-background-active": BACKGROUND,
        "block-cursor-foreground": TEXT,
    },
)


def shade(color: str, share: float, on: str) -> str:
    """Mix a colour into a background; C{share} is 0 for the background, 1 for the colour."""
    mixed = (
        round(int(on[at : at + 2], 16) * (1 - share) + int(color[at : at + 2], 16) * share)
        for at in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


@cache
def ink(color: str, on: str = BACKGROUND, bold: bool = False, italic: bool = False) -> Style:
    """Return a cached style."""
    return Style(color=color, bgcolor=on, bold=bold or None, italic=italic or None)
