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
from txmetrics_tcp.observe.charts import sparkline
from txmetrics_tcp.observe.columns import GAP, MARK, Placement
from txmetrics_tcp.observe.row import Group, Row, RowValues
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
                segments.append(_percentile(values, column.id, row.unit, width, on))
    return segments


def _rate_cell(rate: float, unit: str | None, width: int, on: str) -> Segment:
    if not rate or math.isnan(rate):
        return Segment(right("·", width), ink(FAINT, on))
    return Segment(right(show_rate(rate, unit, width), width), ink(WARNING, on))


def _percentile(values: RowValues, name: str, unit: str | None, width: int, on: str) -> Segment:
    summary = values.summary
    if summary is None or not summary.count:
        return Segment(right("" if summary is None else "·", width), ink(FAINT, on))
    value = getattr(summary, name)
    if math.isnan(value):
        return Segment(right("·", width), ink(FAINT, on))
    return Segment(right(show_value(value, unit, width), width), ink(TEXT, on))


def group_cells(group: Group, layout: Placement, width: int, on: str) -> list[Segment]:
    """Render the line of a group: its title, and the sums of value and rate if defined."""
    sums = {}
    for column, start in layout.placed:
        if column.id == "value" and (value := group.value) is not None:
            sums[start, column.width] = show_value(value, group.unit, column.width)
        elif column.id == "rate" and group.rate:
            sums[start, column.width] = show_rate(group.rate, group.unit, column.width)
    end = min([start for start, _ in sums], default=width)
    fold = "▸ " if group.folded else "▾ "
    count = f"  {len(group.rows):,}"
    room = max(1, end - len(count) - len(fold) - MARK - 1)
    title = fit_middle(group.title, min(cell_len(group.title), room))
    segments = [
        Segment(fold + title, ink(ACCENT, on, bold=True)),
        Segment(count, ink(DIM, on)),
    ]
    x = MARK + sum(segment.cell_length for segment in segments)
    for (start, column_width), text in sums.items():
        segments.append(Segment(" " * (start - x), ink(TEXT, on)))
        segments.append(Segment(right(text, column_width), ink(TEXT, on, bold=True)))
        x = start + column_width
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
