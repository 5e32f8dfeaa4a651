"""
All about one series: what it is, a large chart, percentiles, and what happened last.
"""

from __future__ import annotations

import math
import textwrap

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from txmetrics_tcp._model import MetricKind, Operation
from txmetrics_tcp._view.numbers import show_duration, show_rate, show_seconds, show_value
from txmetrics_tcp._view.sketch import PERCENTILES, Summary
from txmetrics_tcp._view.text import time_of_day
from txmetrics_tcp.observe.charts import chart
from txmetrics_tcp.observe.header import window_text
from txmetrics_tcp.observe.render import label_segments
from txmetrics_tcp.observe.row import HISTORY, Group, Line, Look, Row
from txmetrics_tcp.observe.text import fit, number, right, shown
from txmetrics_tcp.observe.theme import ACCENT, DIM, FAINT, KIND, PANEL, TEXT, WARNING, ink, shade

SIDE_BY_SIDE = 76
"""From how many cells on the numbers stand beside the chart."""

NUMBERS = 34
"""How wide the numbers are, when they do."""

GUTTER = 3
"""How many cells are between them."""

_ACT = {
    Operation.INCREMENT_COUNTER: "+",
    Operation.SET_COUNTER: "=",
    Operation.INCREMENT_GAUGE: "+",
    Operation.DECREMENT_GAUGE: "-",
    Operation.SET_GAUGE: "=",
    Operation.RECORD_HISTOGRAM: "",
}

Lines = list[list[Segment]]


class Detail(Widget):
    """
    Draws one line of the table at length.

    @ivar line: the series, or the group; None when nothing is chosen.
    @ivar window: of which time percentiles are, beside those of all time.
    """

    DEFAULT_CSS = f"""
    Detail {{ background: {PANEL}; padding: 0 1; }}
    """

    def __init__(self) -> None:
        super().__init__(id="detail")
        self.line: Line | None = None
        self.window: float | None = None
        self._lines: list[Strip] = []

    def show(self, line: Line | None, window: float | None) -> None:
        self.line = line
        self.window = window
        lines = self.get_strips()
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def get_strips(self) -> list[Strip]:
        """All that fits, line by line."""
        width, height = self.content_size
        if self.line is None or width < 8:
            return []
        if isinstance(self.line, Group):
            lines = _group(self.line)
        else:
            lines = _series(self.line, self.window, width, height)
        blank = ink(TEXT, PANEL)
        return [Strip(line).adjust_cell_length(width, blank) for line in lines[:height]]

    def render_lines(self, crop):  # type: ignore[no-untyped-def]
        self._lines = self.get_strips()
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        if y < len(self._lines):
            return self._lines[y]
        return Strip.blank(self.content_size.width, ink(TEXT, PANEL))


def _group(group: Group) -> Lines:
    sources = {row.source.label for row in group.rows}
    return [
        [Segment(group.title, ink(ACCENT, PANEL, bold=True))],
        [Segment(f"{len(group.rows):,} series from {len(sources)} source(s)", ink(DIM, PANEL))],
    ]


def _series(row: Row, window: float | None, width: int, height: int) -> Lines:
    look = row.look(window)
    numbers = _numbers(row, look, window)
    happened = _events(row, look)
    if width < SIDE_BY_SIDE:
        title = _title(row, width)
        chart_height = max(4, min(10, height - len(title) - len(numbers) - 4))
        return [*title, *_chart(row, look, width, chart_height), *numbers, [], *happened]
    if width >= SIDE_BY_SIDE + NUMBERS and height < len(numbers) + 5:
        # Low and wide: what happened last gets a column of its own.
        numbers = _beside(numbers, happened, NUMBERS)
        rest = width - 2 * NUMBERS - 2 * GUTTER
    else:
        numbers = [*numbers, [], *happened]
        rest = width - NUMBERS - GUTTER
    title = _title(row, rest)
    left = [*title, *_chart(row, look, rest, min(16, height - len(title)))]
    return _beside([list(Strip(line).crop(0, rest)) for line in left], numbers, rest)


def _title(row: Row, width: int) -> Lines:
    kind = row.key.kind
    metadata = row.source.view.description(row.key)
    lines: Lines = [
        [
            Segment(row.name, ink(TEXT, PANEL, bold=True)),
            Segment(f"  {kind.value}", ink(KIND[kind], PANEL)),
            Segment(f"  {shown(row.unit)}" if row.unit else "", ink(WARNING, PANEL)),
            Segment(f"  {row.source.label}", ink(DIM, PANEL)),
        ]
    ]
    if row.labels:
        length = sum(len(label) + len(value) + 2 for label, value in row.labels)
        if length <= width:
            lines.append(label_segments(row.labels, width, PANEL))
        else:
            for label, value in row.labels[:6]:
                lines.append(label_segments(((label, value),), width, PANEL))
    if metadata is not None and metadata.description:
        text = textwrap.wrap(shown(metadata.description), width)[:3]
        lines += [[Segment(part, ink(DIM, PANEL, italic=True))] for part in text]
    return lines


def _chart(row: Row, look: Look, width: int, height: int) -> Lines:
    """A chart with a scale at its left, and what it is of above it."""
    kind = row.key.kind
    gauge = kind is MetricKind.GAUGE

    def show(value: float) -> str:
        if gauge:
            return show_value(value, row.unit)
        return show_rate(value, row.total_unit)

    scale = 10
    wide = max(1, width - scale - 1)
    body, low, high = chart(look.history, wide, max(1, height - 2), not gauge)
    what = "value" if gauge else "samples a second" if row.is_histogram else "increase a second"
    finite = [value for value in look.history if math.isfinite(value)]
    now = show(look.value if gauge else look.rate)
    foot, top = number(show(low), scale), number(show(high), scale)
    if top == foot and high > low:
        # What differs in digits that are not shown: how much that is, above the foot.
        top = "+" + number(show(high - low), scale - 1).strip()
    dim, faint = ink(DIM, PANEL), ink(FAINT, PANEL)
    lines: Lines = [
        [
            Segment(f"{what}  ", dim),
            Segment(now, ink(WARNING, PANEL, bold=True)),
        ]
    ]
    for position, text in enumerate(body):
        edge = ""
        if finite and position == 0:
            edge = top
        elif finite and position == len(body) - 1:
            edge = foot
        lines.append(
            [
                Segment(number(edge, scale), dim),
                Segment("┤" if edge else "│", faint),
                Segment(text, ink(shade(KIND[kind], 1 - 0.6 * position / len(body), PANEL), PANEL)),
            ]
        )
    ago = f"{show_seconds(HISTORY)} ago"
    lines.append([Segment(" " * (scale + 1) + ago + "now".rjust(max(0, wide - len(ago))), faint)])
    return lines


def _numbers(row: Row, look: Look, window: float | None) -> Lines:
    dim, text = ink(DIM, PANEL), ink(TEXT, PANEL)

    def pair(name: str, value: str) -> list[Segment]:
        return [Segment(fit(name, 12), dim), Segment(value, text)]

    unit = row.unit
    changed = f"{show_duration(look.age)} ago" if look.age >= 1 else "now"
    lines: Lines = []
    if row.is_histogram:
        recent = None if window is None else look.summary
        lines += _percentiles(recent, row.lifetime(), window, unit)
    else:
        what = "total" if row.key.kind is MetricKind.COUNTER else "value"
        lines.append(pair(what, show_value(look.value, unit)))
        exact = f"{look.value:,}" if isinstance(look.value, int) else repr(look.value)
        lines.append(pair("exactly", exact))
        lines.append(pair("rate", show_rate(look.rate, unit)))
    lines.append(pair("events", f"{look.events:,}"))
    lines.append(pair("last event", changed))
    return lines


def _percentiles(
    recent: Summary | None, lifetime: Summary | None, window: float | None, unit: str | None
) -> Lines:
    dim, text, faint = ink(DIM, PANEL), ink(TEXT, PANEL), ink(FAINT, PANEL)
    columns = [("all time", lifetime)]
    if window is not None:
        columns.insert(0, (window_text(window), recent))
    lines: Lines = [
        [Segment(" " * 6, dim), *(Segment(right(title, 12), dim) for title, _ in columns)]
    ]
    for name in (*PERCENTILES, "mean"):
        cells = [Segment(fit(name, 6), dim)]
        for _, summary in columns:
            if summary is None or not summary.count:
                cells.append(Segment(right("·", 12), faint))
            else:
                value = getattr(summary, name)
                # NaN without the library that percentiles need.
                shown_value = "·" if math.isnan(value) else show_value(value, unit)
                cells.append(Segment(number(shown_value, 12), text))
        lines.append(cells)
    counts = [Segment(fit("count", 6), dim)]
    for _, summary in columns:
        counts.append(Segment(right("·" if summary is None else f"{summary.count:,}", 12), text))
    return [*lines, counts]


def _events(row: Row, look: Look) -> Lines:
    unit = row.unit
    lines: Lines = [[Segment("last events", ink(DIM, PANEL))]]
    for timestamp_ns, operation, value in reversed(look.recent):
        lines.append(
            [
                Segment(time_of_day(timestamp_ns), ink(DIM, PANEL)),
                Segment(f" {_ACT[operation]:1}", ink(FAINT, PANEL)),
                Segment(show_value(value, unit), ink(TEXT, PANEL)),
            ]
        )
    return lines


def _beside(left: Lines, right_lines: Lines, width: int) -> Lines:
    blank = ink(TEXT, PANEL)
    lines = []
    for position in range(max(len(left), len(right_lines))):
        line = list(left[position]) if position < len(left) else []
        if position < len(right_lines):
            line.append(Segment(" " * (width - Segment.get_line_length(line) + GUTTER), blank))
            line += right_lines[position]
        lines.append(line)
    return lines
