"""
The first lines of the screen: the display settings, and the state and losses of each source.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from txmetrics_tcp._client.service import SILENCE
from txmetrics_tcp._view.numbers import (
    MIN_WIDTH,
    show_duration,
    show_rate,
    show_seconds,
    show_share,
    show_value,
)
from txmetrics_tcp._view.text import counted, shown
from txmetrics_tcp.observe.rows import Rows
from txmetrics_tcp.observe.sources import Source, State
from txmetrics_tcp.observe.text import fit, fit_middle
from txmetrics_tcp.observe.theme import (
    ACCENT,
    BACKGROUND,
    BAD,
    DIM,
    FAINT,
    GOOD,
    RAISED,
    TEXT,
    WARNING,
    ink,
)

SCREEN_DIVISOR = 4
"""If lines for the sources would take more than a quarter of the screen, one line counts them."""

RESTART_SHOWN = 60.0
"""The number of seconds for which a restart is shown as a warning."""

MAX_LABEL = 36
"""The maximum number of cells for the name of a source."""

_COUNT = 11
"""The maximum number of cells for a number of dropped events: exact below a billion."""

LEAST_NOTE = 22
"""The minimum number of cells for an error reason."""


class Part(NamedTuple):
    """
    A part of a line.

    @ivar rank: parts of the highest rank are omitted first if space is short; rank 0 always stays.
    @ivar least: the number of cells to which the part may be cut; None to never cut it.
    """

    text: str
    style: Style
    rank: int = 0
    least: int | None = None

    @property
    def needs(self) -> int:
        """The minimum number of cells."""
        length = cell_len(self.text)
        return length if self.least is None else min(length, self.least)


def window_text(window: float | None) -> str:
    """Format the window of percentiles."""
    return "all time" if window is None else show_seconds(window)


class Header(Widget):
    """
    Draws the settings of `Rows` and the state of the sources.
    """

    DEFAULT_CSS: ClassVar[str] = """
    Header { height: 2; }
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self._lines: list[Strip] = []

    def fit_height(self, screen: int) -> None:
        """
        Set the height to one line for each source, or to one for all.

        @param screen: the height of the screen.
        """
        count = len(self.rows.sources)
        height = 1 + (count if count <= screen // SCREEN_DIVISOR - 1 else 1)
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def update(self) -> None:
        """Redraw if any line has changed."""
        lines = [self.render_line(y) for y in range(self.size.height)]
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._summary(width)
        sources = self.rows.sources
        if len(sources) < self.size.height:
            if y > len(sources):
                # The height has not changed yet.
                return Strip.blank(width, ink(TEXT))
            return _line(source_parts(sources[y - 1], len(sources) > 1), width)
        return _line(_count_parts(sources), width)

    def _summary(self, width: int) -> Strip:
        rows = self.rows
        base = ink(TEXT, RAISED)
        dim = ink(DIM, RAISED)
        recorded = _all_recorded(rows.sources)
        if rows.paused:
            seconds = show_duration(time.monotonic() - rows.paused_at)
            state = Part(f" ■ PAUSED {seconds} ", ink(BACKGROUND, WARNING, bold=True))
        elif recorded:
            state = Part(" ● RECORDING ", ink(BACKGROUND, ACCENT, bold=True))
        else:
            state = Part(" ▶ LIVE ", ink(BACKGROUND, GOOD, bold=True))
        if recorded:
            number = sum(source.view.events for source in rows.sources)
            events, unit = f"{number:,}", " event" if number == 1 else " events"
        else:
            rate = sum(source.events_per_second for source in rows.sources)
            events, unit = show_value(rate, width=MIN_WIDTH), " events/s"
        total = f"{len(rows.all):,}"
        listed = f"{len(rows.matching):,} of {total}" if rows.filter_text else total
        parts = [
            state,
            Part("  metrics-tcp", ink(ACCENT, RAISED, bold=True), 5),
            Part(f"  {listed}", base),
            Part(" series", dim),
            Part(f"  {events}", base),
            Part(unit, dim),
            Part("  window ", dim, 3),
            Part(window_text(rows.window), base, 2),
        ]
        if rows.grouping is not None:
            parts += [Part("  by ", dim, 4), Part(rows.grouping.title, base, 4)]
        if rows.filter_text:
            parts += [
                Part("  / ", dim, 1),
                Part(shown(rows.filter_text), ink(WARNING, RAISED), 1),
            ]
        return _line(parts, width, RAISED)


def _all_recorded(sources: Sequence[Source]) -> bool:
    return bool(sources) and all(source.state in _RECORDING_STATES for source in sources)


def is_fine(source: Source) -> bool:
    """Whether a source has no problem that the user should look at."""
    view = source.view
    missed = view.missed_incoming + view.missed_client
    fine = source.state in (State.CONNECTED, State.ENDED, State.READING)
    return fine and not missed and not _is_silent(source)


def _is_silent(source: Source) -> bool:
    """
    Whether a connection has received no data for a while.

    This library's exporter sends a status at once.  A silent peer may be a Rust server without
    events, but also a server that waits for a request or for a TLS handshake.
    """
    return source.state is State.CONNECTED and not source.has_received and source.seconds >= SILENCE


def source_parts(source: Source, several: bool) -> list[Part]:
    """
    Return the parts of a source's line; the first are a dot and the name.

    @param several: whether there are other sources.
    """
    view = source.view
    text, dim = ink(TEXT), ink(DIM)
    color, status, details = _state(source)
    style = ink(color if color != GOOD else DIM)
    parts = [
        Part(" ● ", ink(color)),
        Part(fit_middle(source.label, min(cell_len(source.label), MAX_LABEL)), text),
        # The green dot shows the same, so this may be omitted.
        Part(f"  {status}", style, 2 if color == GOOD else 0),
        # An error reason is shown at any width.
        Part(details, style, 3) if color == GOOD else Part(details, style, 0, LEAST_NOTE),
    ]
    if _is_silent(source):
        parts.append(Part("  no data yet: is this a metrics server?", ink(WARNING), 0, LEAST_NOTE))
    if source.behind is not None and (behind := source.behind()):
        parts.append(Part(f"  {counted(behind, 'message')} behind", ink(WARNING), 1))
    losses = loss_parts(source)
    if losses:
        parts += [Part("  ", dim), *losses]
    parts += _left_out(view.refused)
    if view.unknown:
        parts.append(Part(f"  skipped {view.unknown:,} unknown", ink(WARNING), 2))
    if view.restarts:
        times = f" {view.restarts} times, last" if view.restarts > 1 else ""
        ago = 0.0 if view.restarted_at is None else max(0.0, source.view_now() - view.restarted_at)
        style = ink(WARNING if ago < RESTART_SHOWN else DIM)
        parts += [
            Part(f"  ↻ restarted{times}", style),
            Part(f" {show_duration(ago)} ago", style, 3),
        ]
    if several and source.state in (State.CONNECTED, *_RECORDING_STATES):
        events = (
            counted(view.events, "event")
            if source.state in _RECORDING_STATES
            else show_rate(source.events_per_second, width=MIN_WIDTH + 2)
        )
        parts.append(Part(f"  {events}", dim, 4))
    if view.status is not None:
        parts.append(Part(f"  {shown(view.status.source)}", dim, 5))
    return parts


def loss_parts(source: Source) -> list[Part]:
    """Return the number of dropped events by reason; unknown if the server sends no status."""
    view = source.view
    if view.missed_incoming or view.missed_client:
        return _missed(view.missed_incoming, view.missed_client)
    if view.status is None:
        return [Part("losses unknown", ink(DIM), 2)] if view.events else []
    return [Part("no losses", ink(GOOD))]


def _missed(incoming: int, client: int) -> list[Part]:
    return [
        Part(f"missed {show_value(incoming + client, width=_COUNT)}", ink(BAD, bold=True)),
        Part(f" ({incoming:,} incoming, {client:,} client)", ink(BAD), 1),
    ]


def _left_out(refused: int) -> list[Part]:
    if not refused:
        return []
    return [Part(f"  left out {show_value(refused, width=_COUNT)} (too many series)", ink(BAD))]


def _state(source: Source) -> tuple[str, str, str]:
    """Return the colour, the status text, and details to show if there is room."""
    match source.state:
        case State.CONNECTED:
            return GOOD, "connected", f" {show_duration(source.seconds)}"
        case State.CONNECTING:
            return WARNING, "connecting…", ""
        case State.READING:
            return WARNING, f"reading {show_share(source.progress)}", ""
        case State.ENDED:
            span = show_seconds(source.view_now())
            return ACCENT, f"recording, {span}", f" {source.note}"
        case _:
            wait = source.retry_in
            retry = "retrying" if wait is None else f"retry in {show_duration(math.ceil(wait))}"
            return BAD, f"{source.state.value}, {retry}", f": {source.note}"


def _count_parts(sources: Sequence[Source]) -> list[Part]:
    """Return the number of sources in each state, and the losses of all."""
    parts: list[Part] = []
    for state in _STATES:
        same = [source for source in sources if source.state is state]
        if same:
            color = _state(same[0])[0]
            parts += [
                Part(", " if parts else " ", ink(DIM)),
                Part(f"{len(same)} {state.value}", ink(color)),
            ]
            silent = sum(map(_is_silent, same))
            if silent:
                parts.append(Part(f" ({silent} without data)", ink(WARNING), 1))
    incoming = sum(source.view.missed_incoming for source in sources)
    client = sum(source.view.missed_client for source in sources)
    if incoming + client:
        parts += [Part("  ", ink(DIM)), *_missed(incoming, client)]
    else:
        parts.append(Part("  no losses reported", ink(DIM), 3))
    parts += _left_out(sum(source.view.refused for source in sources))
    return [*parts, Part("  o", ink(ACCENT)), Part(" lists them", ink(DIM), 1)]


_STATES = (
    State.CONNECTED,
    State.READING,
    State.ENDED,
    State.CONNECTING,
    State.LOST,
    State.FOREIGN,
)

_RECORDING_STATES = (State.READING, State.ENDED)


def _line(parts: Sequence[Part], width: int, on: str = BACKGROUND) -> Strip:
    """Join the parts that fit: omit parts by rank, then cut parts that may be cut."""
    kept = list(parts)
    for rank in sorted({part.rank for part in parts} - {0}, reverse=True):
        # Cut parts before omitting those of rank 1.
        needed = sum(part.needs if rank == 1 else cell_len(part.text) for part in kept)
        if needed > width:
            kept = [part for part in kept if part.rank != rank]
    spare = width - sum(part.needs for part in kept)
    segments = []
    for part in kept:
        text = part.text
        if part.least is not None:
            text = fit(text, min(cell_len(text), part.needs + max(0, spare)))
            spare -= cell_len(text) - part.needs
        if text:
            segments.append(Segment(text, part.style))
    strip = Strip(segments)
    if strip.cell_length > width:
        text = fit("".join(segment.text for segment in strip.crop(width - 1)), 1)
        strip = Strip.join(
            [strip.crop(0, width - 1), Strip([Segment(text and "…", ink(FAINT, on))])]
        )
    return strip.adjust_cell_length(width, ink(TEXT, on))
