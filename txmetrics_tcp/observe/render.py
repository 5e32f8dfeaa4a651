"""
Render lines of the table as coloured segments.
"""

from __future__ import annotations

import math

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from txmetrics_tcp._model import MetricKind
from txmetrics_tcp._view.numbers import show_rate, show_value
from txmetrics_tcp._view.windows import PARTIAL, PERCENTILES, Summary
from txmetrics_tcp.observe.charts import sparkline
from txmetrics_tcp.observe.columns import GAP, MARK, Placement
from txmetrics_tcp.observe.row import Group, Row
from txmetrics_tcp.observe.rows import Rows
from txmetrics_tcp.observe.text import fit, fit_middle, right
from txmetrics_tcp.observe.theme import (
    ACCENT,
    CHOSEN,
    DIM,
    FAINT,
    KIND,
    TEXT,
    WARNING,
    ink,
)

UNKNOWN = "·"
"""Shown instead of an unknown number."""

QUIET = 30.0
"""The number of seconds without events after which a series is drawn dim."""


def row_cells(row: Row, rows: Rows, layout: Placement, on: str) -> list[Segment]:
    """Render one series, without the first cell of the line."""
    values = row.values(rows.window)
    kind = row.key.kind
    quiet = values.age > QUIET
    value_style = ink(DIM if quiet else TEXT, on)
    gap = Segment(" " * GAP, ink(TEXT, on))
    segments: list[Segment] = []
    for column, _ in layout.placed:
        if segments:
            segments.append(gap)
        width = column.width
        match column.id:
            case "name":
                grouping = rows.grouping
                dim_name = quiet or (grouping is not None and grouping.label is None)
                indent = "  " if grouping is not None else ""
                text = indent + fit_middle(row.name, width - len(indent))
                segments.append(Segment(text, ink(DIM if dim_name else TEXT, on)))
            case "labels":
                segments += label_segments(row.labels, width, on)
            case "source":
                # Show either full names for all sources or short names for all.
                brief = width < max(map(cell_len, rows.brief))
                label = row.source.label
                text = fit(rows.brief[label] if brief else label, width)
                segments.append(Segment(text, ink(DIM, on)))
            case "kind":
                segments.append(Segment(fit(kind.value, width), ink(KIND[kind], on)))
            case "value":
                text = show_value(values.value, row.total_unit, width)
                segments.append(Segment(right(text, width), value_style))
            case "rate":
                segments.append(_rate_cell(values.rate, row.total_unit, width, on))
            case "trend":
                color = FAINT if quiet else KIND[kind]
                line = sparkline(values.history, width, kind is not MetricKind.GAUGE)
                segments.append(Segment(line, ink(color, on)))
            case _:
                summary = values.summary
                text = percentile_text(summary, column.id, row.unit, width) if summary else ""
                segments.append(_percentile(text, width, on))
    return segments


def _rate_cell(rate: float, unit: str | None, width: int, on: str) -> Segment:
    if not rate or math.isnan(rate):
        return Segment(right(UNKNOWN, width), ink(FAINT, on))
    return Segment(right(show_rate(rate, unit, width), width), ink(WARNING, on))


def percentile_text(summary: Summary | None, name: str, unit: str | None, width: int) -> str:
    """
    Return a number of a summary, marked if the summary is partial; a dot if it is unknown.

    @param name: a field of `Summary`.
    @param width: the maximum number of cells.
    """
    if summary is None:
        return UNKNOWN
    value = getattr(summary, name)
    unknown = math.isnan(value) or not summary.count
    mark = PARTIAL if summary.partial else ""
    return mark + (UNKNOWN if unknown else show_value(value, unit, width - len(mark)))


def _percentile(text: str, width: int, on: str, bold: bool = False) -> Segment:
    color = FAINT if text == UNKNOWN else WARNING if text.startswith(PARTIAL) else TEXT
    return Segment(right(text, width), ink(color, on, bold=bold))


def group_cells(group: Group, rows: Rows, layout: Placement, width: int, on: str) -> list[Segment]:
    """Render the line of a group: its title, and sums and percentiles if defined."""
    numbers: dict[int, Segment] = {}
    for column, start in layout.placed:
        if column.id == "value" and (value := group.value) is not None:
            text = show_value(value, group.unit, column.width)
            numbers[start] = Segment(right(text, column.width), ink(TEXT, on, bold=True))
        elif column.id == "rate" and group.rate:
            text = show_rate(group.rate, group.unit, column.width)
            numbers[start] = Segment(right(text, column.width), ink(TEXT, on, bold=True))
        elif column.id in PERCENTILES and (summary := rows.summary(group)) is not None:
            text = percentile_text(summary, column.id, group.sample_unit, column.width)
            numbers[start] = _percentile(text, column.width, on, bold=True)
    end = min(numbers, default=width)
    fold = "▸ " if group.folded else "▾ "
    count = f"  {len(group.rows):,}"
    room = max(1, end - len(count) - len(fold) - MARK - 1)
    title = fit_middle(group.title, min(cell_len(group.title), room))
    segments = [
        Segment(fold + title, ink(ACCENT, on, bold=True)),
        Segment(count, ink(DIM, on)),
    ]
    x = MARK + sum(segment.cell_length for segment in segments)
    for start, number in numbers.items():
        segments += [Segment(" " * (start - x), ink(TEXT, on)), number]
        x = start + number.cell_length
    return segments


def label_segments(labels: tuple[tuple[str, str], ...], width: int, on: str) -> list[Segment]:
    """Render labels in this many cells, with dim names."""
    dim, plain = ink(DIM, on), ink(TEXT, on)
    faint = dim if on == CHOSEN else ink(FAINT, on)
    segments: list[Segment] = []
    total = 0
    for label, value in labels:
        if total > width:
            # A server may send thousands.
            break
        added = [Segment(" ", plain)] if segments else []
        added += [Segment(label, dim), Segment("=", faint), Segment(value, plain)]
        segments += added
        total += sum(segment.cell_length for segment in added)
    if total <= width:
        return [*segments, Segment(" " * (width - total), plain)]
    return cut_segments(segments, width, faint)


def cut_segments(segments: list[Segment], width: int, faint: Style) -> list[Segment]:
    """Cut segments with an ellipsis to at most this many cells."""
    if Segment.get_line_length(segments) <= width:
        return segments
    return [*Strip(segments).crop(0, max(0, width - 1)), Segment("…"[:width], faint)]
