"""
The first lines of the screen: what is shown, how it is with each source, and what was missed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from txmetrics_tcp._client.service import SILENCE
from txmetrics_tcp._view.numbers import show_brief, show_duration, show_seconds, show_share
from txmetrics_tcp.observe.rows import Rows
from txmetrics_tcp.observe.sources import Source, State
from txmetrics_tcp.observe.text import fit, fit_end, shown
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

MAX_SHARE = 4
"""A quarter of the screen is the most that sources get; the others are summed up in a line."""

RESTART_SHOWN = 60.0
"""For how many seconds a restart is a warning."""


MAX_LABEL = 36
"""How many cells the name of a source takes at most."""

MAX_NOTE = 80
"""How many characters are said of what is wrong."""

LEAST_NOTE = 22
"""How many cells are left for that, however little room there is."""


class Part(NamedTuple):
    """
    A part of a line.

    @ivar rank: when there is not enough room, those of the highest rank are left out; what has
        the rank 0 stays in any case.
    @ivar least: to how many cells it can be cut; None when it is not to be.
    """

    text: str
    style: Style
    rank: int = 0
    least: int | None = None

    @property
    def needs(self) -> int:
        """How many cells it takes at least."""
        length = cell_len(self.text)
        return length if self.least is None else min(length, self.least)


def window_text(window: float | None) -> str:
    """The time that percentiles are of."""
    return "all time" if window is None else show_seconds(window)


class Header(Widget):
    """
    Draws `Rows`' settings and the sources.
    """

    DEFAULT_CSS = """
    Header { height: 2; }
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self._lines: list[Strip] = []

    def fit_height(self, screen: int) -> None:
        """
        Take as many lines as there are sources, within a share of the screen.

        @param screen: the screen's height.
        """
        height = 1 + min(len(self.rows.sources), max(1, screen // MAX_SHARE - 1))
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def update(self) -> None:
        """Draw what looks different from before."""
        lines = [self.render_line(y) for y in range(self.size.height)]
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._summary(width)
        lines = self.size.height - 1
        sources = list(self.rows.sources)
        if len(sources) <= lines:
            return _line(_source_parts(sources[y - 1], len(sources) > 1), width)
        # Those with which something is wrong are to be seen.
        sources.sort(key=_is_fine)
        if y < lines:
            return _line(_source_parts(sources[y - 1], True), width)
        return _line(_rest_parts(sources[lines - 1 :]), width)

    def _summary(self, width: int) -> Strip:
        rows = self.rows
        base = ink(TEXT, RAISED)
        dim = ink(DIM, RAISED)
        recorded = all(source.state in _RECORDED for source in rows.sources)
        if rows.paused:
            seconds = show_duration(time.monotonic() - rows.paused_at)
            state = Part(f" ■ PAUSED {seconds} ", ink(BACKGROUND, WARNING, bold=True))
        elif recorded:
            state = Part(" ● RECORDING ", ink(BACKGROUND, ACCENT, bold=True))
        else:
            state = Part(" ▶ LIVE ", ink(BACKGROUND, GOOD, bold=True))
        if recorded:
            # All that it has: nothing comes any more.
            events = f"{sum(source.view.events for source in rows.sources):,}"
        else:
            events = show_brief(sum(source.events_per_second for source in rows.sources))
        total = f"{len(rows.all):,}"
        listed = f"{len(rows.matching):,} of {total}" if rows.filter_text else total
        parts = [
            state,
            Part("  metrics-tcp", ink(ACCENT, RAISED, bold=True), 5),
            Part(f"  {listed}", base),
            Part(" series", dim),
            Part(f"  {events}", base),
            Part(" events" if recorded else " events/s", dim),
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


def _is_fine(source: Source) -> bool:
    view = source.view
    missed = view.missed_incoming + view.missed_client
    fine = source.state in (State.CONNECTED, State.ENDED, State.READING)
    return fine and not missed and not _is_silent(source)


def _is_silent(source: Source) -> bool:
    """
    Whether a connection has not brought anything for a while.

    Servers of ours say at once who they are; one of the Rust family may have nothing to say, but so
    has whatever waits for a request, or for TLS.
    """
    return source.state is State.CONNECTED and not source.heard and source.seconds >= SILENCE


def _source_parts(source: Source, several: bool) -> list[Part]:
    view = source.view
    text, dim = ink(TEXT), ink(DIM)
    color, what, more = _state(source)
    style = ink(color if color != GOOD else DIM)
    parts = [
        Part(" ● ", ink(color)),
        Part(fit_end(source.label, min(cell_len(source.label), MAX_LABEL)), text),
        # That all is well, the dot says as well.
        Part(f"  {what}", style, 2 if color == GOOD else 0),
        # Why, is to be seen at any width.
        Part(more, style, 3) if color == GOOD else Part(more, style, 0, LEAST_NOTE),
    ]
    if _is_silent(source):
        parts.append(
            Part("  nothing has come yet: is it a server of metrics?", ink(WARNING), 0, LEAST_NOTE)
        )
    parts += [Part("  ", dim), *loss_parts(source)]
    if view.refused:
        parts.append(Part(f"  {view.refused:,} left out: too many series", ink(BAD)))
    if view.restarts:
        times = f" {view.restarts} times, last" if view.restarts > 1 else ""
        ago = 0.0 if view.restarted_at is None else max(0.0, source.view_now() - view.restarted_at)
        style = ink(WARNING if ago < RESTART_SHOWN else DIM)
        parts += [
            Part(f"  ↻ restarted{times}", style),
            Part(f" {show_duration(ago)} ago", style, 3),
        ]
    if several:
        events = (
            f"{view.events:,} events"
            if source.state in _RECORDED
            else f"{show_brief(source.events_per_second)}/s"
        )
        parts.append(Part(f"  {events}", dim, 4))
    if view.status is not None:
        parts.append(Part(f"  {shown(view.status.source)}", dim, 5))
    return parts


def loss_parts(source: Source) -> list[Part]:
    """What was missed, by reason.  A server that never says so is not taken for one without."""
    view = source.view
    if view.missed_incoming or view.missed_client:
        return _missed(view.missed_incoming, view.missed_client)
    if view.status is None:
        return [Part("losses unknown" if view.events else "", ink(DIM), 2)]
    return [Part("no losses", ink(GOOD))]


def _missed(incoming: int, client: int) -> list[Part]:
    return [
        Part(f"missed {incoming + client:,}", ink(BAD, bold=True)),
        Part(f" ({incoming:,} incoming, {client:,} client)", ink(BAD), 1),
    ]


def _state(source: Source) -> tuple[str, str, str]:
    """A colour, words, and more of them where there is room."""
    match source.state:
        case State.CONNECTED:
            return GOOD, "connected", f" {show_duration(source.seconds)}"
        case State.CONNECTING:
            return WARNING, "connecting…", ""
        case State.READING:
            return WARNING, f"reading {show_share(source.progress)}", ""
        case State.ENDED:
            span = show_duration(source.view_now())
            return ACCENT, f"recording, {span}", f" {source.note[:MAX_NOTE]}"
        case _:
            wait = source.retry_in
            again = "trying again" if wait is None else f"again in {show_duration(wait)}"
            return BAD, f"{source.state.value}, {again}", f": {source.note[:MAX_NOTE]}"


def _rest_parts(sources: Sequence[Source]) -> list[Part]:
    incoming = sum(source.view.missed_incoming for source in sources)
    client = sum(source.view.missed_client for source in sources)
    broken = sum(source.state in _BROKEN for source in sources)
    parts = [Part(f" … and {len(sources)} more", ink(DIM))]
    if broken:
        parts.append(Part(f"  {broken} not connected", ink(BAD)))
    if incoming + client:
        parts += [Part("  ", ink(DIM)), *_missed(incoming, client)]
    else:
        parts.append(Part("  no losses told", ink(DIM)))
    return parts


_BROKEN = (State.CONNECTING, State.LOST, State.FOREIGN)

_RECORDED = (State.READING, State.ENDED)


def _line(parts: Sequence[Part], width: int, on: str = BACKGROUND) -> Strip:
    """As many parts as fit; those that matter least are left out first, then some are cut."""
    kept = list(parts)
    for rank in sorted({part.rank for part in parts} - {0}, reverse=True):
        # What has the rank 1 goes only after what can be cut has been.
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
