"""
The detail pane of one series: description, chart, percentiles and last events.
"""

from __future__ import annotations

import math
import textwrap
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from txmetrics_tcp._model import MetricKind, Operation
from txmetrics_tcp._view.numbers import (
    MIN_WIDTH,
    show_duration,
    show_rate,
    show_seconds,
    show_value,
)
from txmetrics_tcp._view.text import NO_TIME, counted, shown, time_of_day
from txmetrics_tcp._view.windows import PARTIAL_NOTE, PERCENTILES, Summary
from txmetrics_tcp.observe.charts import chart
from txmetrics_tcp.observe.header import window_text
from txmetrics_tcp.observe.render import (
    UNKNOWN,
    cut_segments,
    label_segments,
    percentile_text,
)
from txmetrics_tcp.observe.row import HISTORY, Group, Line, Row, RowValues
from txmetrics_tcp.observe.text import fit, fit_middle, right
from txmetrics_tcp.observe.theme import ACCENT, DIM, FAINT, KIND, PANEL, TEXT, WARNING, ink, shade

SIDE_BY_SIDE = 76
"""The minimum width in cells for showing the numbers beside the chart."""

NUMBERS = 40
"""The width of the numbers beside the chart: the latest events with the largest total."""

MAX_NAME_LINES = 3
"""The maximum number of lines of a name that does not fit in one with kind, unit and source."""

GUTTER = 3
"""The number of cells between chart and numbers."""

_OPERATION = {
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
    Draws the details of one line of the table.

    @ivar line: the series or group; None if no line is chosen.
    @ivar window: the window in seconds for percentiles, shown beside those of all time.
    """

    DEFAULT_CSS: ClassVar[str] = f"""
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
        """Return the lines that fit."""
        width, height = self.content_size
        if self.line is None or width < 8:
            return []
        if isinstance(self.line, Group):
            lines = _group(self.line, width)
        else:
            lines = _series(self.line, self.window, width, height)
        blank = ink(TEXT, PANEL)
        return [Strip(line).adjust_cell_length(width, blank) for line in lines[:height]]

    def render_lines(self, crop: Region) -> list[Strip]:
        self._lines = self.get_strips()
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        if y < len(self._lines):
            return self._lines[y]
        return Strip.blank(self.content_size.width, ink(TEXT, PANEL))


def _group(group: Group, width: int) -> Lines:
    sources = {row.source.label for row in group.rows}
    title = ink(ACCENT, PANEL, bold=True)
    return [
        *([Segment(part, title)] for part in chop_cells(group.title, width)),
        [
            Segment(
                f"{len(group.rows):,} series from {counted(len(sources), 'source')}",
                ink(DIM, PANEL),
            )
        ],
    ]


def _series(row: Row, window: float | None, width: int, height: int) -> Lines:
    values = row.values(window)
    number_width = width if width < SIDE_BY_SIDE else NUMBERS
    numbers = _numbers(row, values, window, number_width)
    recent_events = _events(row, values, number_width)
    if width < SIDE_BY_SIDE:
        title = _title(row, width)
        chart_height = max(4, min(10, height - len(title) - len(numbers) - 4))
        return [*title, *_chart(row, values, width, chart_height), *numbers, [], *recent_events]
    if width >= SIDE_BY_SIDE + NUMBERS and height < len(numbers) + 5:
        # Low and wide: show the last events in a separate column.
        numbers = _beside(numbers, recent_events, NUMBERS)
        rest = width - 2 * NUMBERS - 2 * GUTTER
    else:
        numbers = [*numbers, [], *recent_events]
        rest = width - NUMBERS - GUTTER
    title = _title(row, rest)
    left = [*title, *_chart(row, values, rest, min(16, height - len(title)))]
    return _beside([list(Strip(line).crop(0, rest)) for line in left], numbers, rest)


def _title(row: Row, width: int) -> Lines:
    metadata = row.source.view.description(row.key)
    lines = _heading(row, width)
    if row.labels:
        if row.labels_length <= width:
            lines.append(label_segments(row.labels, width, PANEL))
        else:
            for label, value in row.labels[:6]:
                lines.append(label_segments(((label, value),), width, PANEL))
    if metadata is not None and metadata.description:
        description = shown(metadata.description)
        # textwrap counts characters; scripts with wide ones break lines anywhere.
        wide = cell_len(description) > len(description)
        text = (chop_cells if wide else textwrap.wrap)(description, width)[:3]
        lines += [[Segment(part, ink(DIM, PANEL, italic=True))] for part in text]
    return lines


def _heading(row: Row, width: int) -> Lines:
    """Return name, kind, unit and source: in one line, or the name in lines of its own."""
    kind = row.key.kind
    bold = ink(TEXT, PANEL, bold=True)
    facts = [
        Segment(kind.value, ink(KIND[kind], PANEL)),
        Segment(f"  {row.unit}" if row.unit else "", ink(WARNING, PANEL)),
        Segment(f"  {row.source.label}", ink(DIM, PANEL)),
    ]
    line = [Segment(f"{row.name}  ", bold), *facts]
    if Segment.get_line_length(line) <= width:
        return [line]
    # A wide letter may leave the last cell of a line empty.
    room = MAX_NAME_LINES * (width - 1)
    name = fit_middle(row.name, min(cell_len(row.name), room))
    return [
        *([Segment(part, bold)] for part in chop_cells(name, width)),
        cut_segments(facts, width, ink(FAINT, PANEL)),
    ]


def _chart(row: Row, values: RowValues, width: int, height: int) -> Lines:
    """Draw a chart with a scale at the left and a caption above."""
    kind = row.key.kind
    gauge = kind is MetricKind.GAUGE

    def show(value: float, width: int) -> str:
        if gauge:
            return show_value(value, row.unit, width)
        return show_rate(value, row.total_unit, width)

    scale = 10
    wide = max(1, width - scale - 1)
    body, low, high = chart(values.history, wide, max(1, height - 2), not gauge)
    caption = (
        "value" if gauge else "samples per second" if row.is_histogram else "increase per second"
    )
    finite = [value for value in values.history if math.isfinite(value)]
    now = show(values.value if gauge else values.rate, max(MIN_WIDTH, width - len(caption) - 2))
    foot, top = show(low, scale), show(high, scale)
    if top == foot and high > low:
        # Both ends round to the same text: show the difference at the top.
        top = "+" + show(high - low, scale - 1)
    dim, faint = ink(DIM, PANEL), ink(FAINT, PANEL)
    lines: Lines = [
        [
            Segment(f"{caption}  ", dim),
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
                Segment(right(edge, scale), dim),
                Segment("┤" if edge else "│", faint),
                Segment(text, ink(shade(KIND[kind], 1 - 0.6 * position / len(body), PANEL), PANEL)),
            ]
        )
    ago = f"{show_seconds(HISTORY)} ago"
    lines.append([Segment(" " * (scale + 1) + ago + "now".rjust(max(0, wide - len(ago))), faint)])
    return lines


def _numbers(row: Row, values: RowValues, window: float | None, width: int) -> Lines:
    dim, text = ink(DIM, PANEL), ink(TEXT, PANEL)
    room = max(MIN_WIDTH, width - 12)

    def pair(name: str, value: str) -> list[Segment]:
        return [Segment(fit(name, 12), dim), Segment(value, text)]

    unit = row.unit
    changed = f"{show_duration(values.age)} ago" if values.age >= 1 else "now"
    lines: Lines = []
    if row.is_histogram:
        recent = None if window is None else values.summary
        lines += _percentiles(recent, row.lifetime(), window, unit)
    else:
        caption = "total" if row.key.kind is MetricKind.COUNTER else "value"
        lines.append(pair(caption, show_value(values.value, unit, room)))
        exact = f"{values.value:,}" if isinstance(values.value, int) else repr(values.value)
        if len(exact) <= room:
            lines.append(pair("exact", exact))
        lines.append(pair("rate", show_rate(values.rate, unit, room)))
    lines.append(pair("events", show_value(values.events, width=room)))
    lines.append(pair("last event", changed))
    return lines


def _percentiles(
    recent: Summary | None, lifetime: Summary | None, window: float | None, unit: str | None
) -> Lines:
    dim, text, faint = ink(DIM, PANEL), ink(TEXT, PANEL), ink(FAINT, PANEL)
    columns = [("all time", lifetime)]
    if window is not None:
        columns.insert(0, (window_text(window), recent))
    # Numbers have one cell less than their columns, so that there is a space between them.
    lines: Lines = [
        [Segment(" " * 6, dim), *(Segment(right(title, 12), dim) for title, _ in columns)]
    ]
    for name in (*PERCENTILES, "mean"):
        cells = [Segment(fit(name, 6), dim)]
        for _, summary in columns:
            number = percentile_text(summary, name, unit, 11)
            style = faint if number == UNKNOWN else text
            cells.append(Segment(right(number, 12), style))
        lines.append(cells)
    counts = [Segment(fit("count", 6), dim)]
    for _, summary in columns:
        count = UNKNOWN if summary is None else show_value(summary.count, width=11)
        counts.append(Segment(right(count, 12), text))
    lines.append(counts)
    if any(summary is not None and summary.partial for _, summary in columns):
        lines.append([Segment(PARTIAL_NOTE, ink(WARNING, PANEL))])
    return lines


def _events(row: Row, values: RowValues, width: int) -> Lines:
    unit = row.unit
    room = max(MIN_WIDTH, width - len(NO_TIME) - 2)
    lines: Lines = [[Segment("last events", ink(DIM, PANEL))]]
    for timestamp_ns, operation, value in reversed(values.recent):
        lines.append(
            [
                Segment(time_of_day(timestamp_ns), ink(DIM, PANEL)),
                Segment(f" {_OPERATION[operation]:1}", ink(FAINT, PANEL)),
                Segment(show_value(value, unit, room), ink(TEXT, PANEL)),
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
