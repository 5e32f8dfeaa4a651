"""
The state of a stream as a human-readable table, or as one JSON object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from textwrap import fill
from typing import Any

from txmetrics_tcp._model import Key, MetricKind
from txmetrics_tcp._view.numbers import base_scale, show_rate, show_seconds, show_value
from txmetrics_tcp._view.series import SeriesView, SourceView
from txmetrics_tcp._view.text import (
    cell_width,
    counted,
    cut_middle,
    json_number,
    json_value,
    utc,
    visible,
    visible_unit,
)
from txmetrics_tcp._view.windows import PARTIAL, PARTIAL_NOTE, Summary

SHORTEST = 0.1
"""The minimum number of seconds for a rate."""

_HEAD = ("KIND", "NAME", "LABELS", "VALUE", "RATE", "COUNT", "MIN", "P50", "P90", "P99", "MAX")
_TEXTS = _HEAD[:3]
"""The columns of text.  All others have numbers, and are right-aligned."""

_NUMBERS = _HEAD.index("COUNT")
"""The first of the columns that only histograms have."""

_OMITTED = ("MIN", "P90", "MAX", "COUNT", "P99", "P50", "KIND", "RATE")
"""The columns that a narrow terminal lacks, the first one first."""

_LEAST_NAME = 35
_LEAST_LABELS = 15
"""
If fewer cells than these remain for names and labels that need them, a column is omitted.  Names
often differ in the middle, such as those of received and sent bytes.
"""

_NUMBER = 12
"""The maximum width of a number on a terminal, in cells."""

_NUMBER_ELSEWHERE = 32
"""The same elsewhere.  Any counter has all its digits."""

_PADDED = 40
"""Elsewhere, the width up to which names and labels are padded: longer ones are rare."""

_GAP = "  "

_KINDS = list(MetricKind)


@dataclass(frozen=True)
class Report:
    """
    The state of a stream after some time.

    @ivar view: the ingested events.
    @ivar endpoint: the server's endpoint, as the user wrote it.
    @ivar seconds: the number of seconds for which the stream was watched.  Rates cover all of them.
    @ivar connections: the number of connections made.
    @ivar wanted: selects the series to report.
    @ivar sort: the sort order, one of `SORTS`.
    @ivar behind: the number of messages that a broker has and this process has not received; None
        for a source that is not one of a broker.
    """

    view: SourceView
    endpoint: str
    seconds: float
    connections: int = 1
    wanted: Callable[[Key], bool] = lambda key: True
    sort: str = "name"
    behind: int | None = None

    @property
    def series(self) -> list[SeriesView]:
        """The selected series, sorted."""
        wanted = [one for key, one in self.view.series.items() if self.wanted(key)]
        wanted.sort(key=lambda one: (one.key.name, one.key.labels, _KINDS.index(one.key.kind)))
        wanted.sort(key=lambda one: SORTS[self.sort](self, one))
        return wanted

    def rate(self, series: SeriesView) -> float:
        """
        Return the change per second of a counter's total, a histogram's sample count or a gauge's
        value; NaN if the stream was watched for less than `SHORTEST` seconds.
        """
        return series.average_rate(self.seconds) if self.seconds >= SHORTEST else math.nan

    def to_table(self, width: int | None = None) -> str:
        """
        Return one line for each series, with values in their units, and one line about the stream.
        The text is safe for a terminal.

        @param width: the number of cells of the terminal, to which names, labels and the number of
            columns are fitted; None to write all columns and complete names.
        """
        number_width = _NUMBER_ELSEWHERE if width is None else _NUMBER
        table = [self._cells(one, number_width) for one in self.series]
        partial = any(cell.startswith(PARTIAL) for line in table for cell in line[_NUMBERS:])
        columns = {head: [head, *(line[at] for line in table)] for at, head in enumerate(_HEAD)}
        if not any(columns["COUNT"][1:]):
            # No histograms: omit their columns.
            columns = {head: columns[head] for head in _HEAD[:_NUMBERS]}
        widths = {head: max(map(cell_width, column)) for head, column in columns.items()}
        if width is None:
            for head in ("NAME", "LABELS"):
                widths[head] = min(widths[head], _PADDED)
        else:
            _fit(widths, width)
            for head in ("NAME", "LABELS"):
                columns[head] = [cut_middle(cell, widths[head]) for cell in columns[head]]
        lines = zip(
            *([_pad(cell, head, widths[head]) for cell in columns[head]] for head in widths),
            strict=True,
        )
        text = "".join(f"{_GAP.join(line).rstrip()}\n" for line in lines)
        return f"{text}\n{self._summary_line(width, partial)}\n"

    def to_json(self) -> Iterator[str]:
        """
        Generate the parts of one line with an ASCII object, as described in
        docs/reference/commands.md.  A part has one series at most: many series may share a long
        description.
        """
        view = self.view
        status = view.status
        document = {
            "report": "stats",
            "endpoint": self.endpoint,
            "source": None if status is None else status.source,
            "started": None if status is None else utc(status.started_ns),
            "started_ns": None if status is None else status.started_ns,
            "seconds": self.seconds,
            "connections": self.connections,
            "restarts": view.restarts,
            "events": view.events,
            "missed": None
            if status is None
            else {"incoming": view.missed_incoming, "client": view.missed_client},
            "left_out": view.refused,
            "unknown": view.unknown,
            **({} if self.behind is None else {"behind": self.behind}),
            "percentiles": True,
        }
        encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
        yield encode(document).removesuffix("}") + ',"series":['
        for number, one in enumerate(self.series):
            yield ("," if number else "") + encode(self._json(one))
        yield "]}\n"

    def _cells(self, series: SeriesView, width: int) -> tuple[str, ...]:
        key = series.key
        unit = self._visible_unit(series)
        summary = series.summary()
        labels = ", ".join(f"{label}={value}" for label, value in key.labels)
        cells = (key.kind.value, visible(key.name), visible(labels))
        if summary is None:
            value = show_value(series.value, unit, width)
            return (*cells, value, self._rate(series, unit, width), *[""] * 6)
        numbers = summary.min, summary.p50, summary.p90, summary.p99, summary.max
        mark = PARTIAL if summary.partial else ""
        return (
            *cells,
            "",
            self._rate(series, None, width),
            show_value(series.value, width=width),
            *(("-" if math.isnan(one) else mark + show_value(one, unit, width)) for one in numbers),
        )

    def _rate(self, series: SeriesView, unit: str | None, width: int) -> str:
        rate = self.rate(series)
        return "-" if math.isnan(rate) else show_rate(rate, unit, width)

    def _summary_line(self, width: int | None, partial: bool) -> str:
        view = self.view
        status = view.status
        source = visible(status.source) if status is not None else ""
        if width is not None:
            source = cut_middle(source, max(10, width // 2))
        name = f" ({source})" if source else ""
        parts = [
            f"{len(self.series):,} of {len(view.series):,} series",
            f"{counted(view.events, 'event')} in {show_seconds(self.seconds)}",
        ]
        if status is None:
            parts.append("losses unknown")
        elif view.missed_incoming or view.missed_client:
            missed = view.missed_incoming + view.missed_client
            parts.append(
                f"missed {missed:,} (incoming {view.missed_incoming:,},"
                f" client {view.missed_client:,})"
            )
        else:
            parts.append("none missed")
        if partial:
            parts.append(PARTIAL_NOTE)
        if self.connections > 1:
            parts.append(f"{self.connections:,} connections")
        if view.restarts:
            times = "once" if view.restarts == 1 else f"{view.restarts:,} times"
            parts.append(f"restarted {times}")
        if self.behind:
            parts.append(f"{counted(self.behind, 'message')} behind")
        if view.refused:
            parts.append(f"{counted(view.refused, 'event')} left out because of too many series")
        if view.unknown:
            parts.append(f"{counted(view.unknown, 'unknown event')} skipped")
        line = f"{visible(self.endpoint)}{name}: {', '.join(parts)}"
        if width is None:
            return line
        return fill(line, width, break_long_words=False, break_on_hyphens=False)

    def scale(self, series: SeriesView) -> float:
        """Return the factor that makes value and rate comparable with those of other series."""
        # A histogram's value and rate count samples, regardless of the unit.
        histogram = series.key.kind is MetricKind.HISTOGRAM
        return 1 if histogram else base_scale(self._visible_unit(series))

    def _visible_unit(self, series: SeriesView) -> str | None:
        unit = self._unit(series)
        return None if unit is None else visible_unit(unit)

    def _unit(self, series: SeriesView) -> str | None:
        description = self.view.description(series.key)
        return None if description is None or not description.unit else str(description.unit)

    def _json(self, series: SeriesView) -> dict[str, object]:
        key = series.key
        description = self.view.description(key)
        summary = series.summary()
        return {
            "kind": key.kind.value,
            "name": key.name,
            "labels": dict(key.labels),
            "unit": self._unit(series),
            "description": "" if description is None else description.description,
            "events": series.events,
            "last": utc(series.timestamp_ns),
            "last_ns": series.timestamp_ns,
            **json_value(series.value),
            "rate": _number_or_null(self.rate(series)),
            "samples": None if summary is None else _summary(summary),
        }


SORTS: dict[str, Callable[[Report, SeriesView], Any]] = {
    "name": lambda report, series: 0,
    "kind": lambda report, series: _KINDS.index(series.key.kind),
    "value": lambda report, series: (
        series.key.kind is MetricKind.HISTOGRAM,
        _descending(series.value * report.scale(series)),
    ),
    "rate": lambda report, series: _descending(report.rate(series) * report.scale(series)),
    "events": lambda report, series: -series.events,
}
"""
The sort keys of a report.  Numbers sort in descending order, ties by name.  Histograms have no
value; they come last, by their number of samples.
"""


def _fit(widths: dict[str, int], width: int) -> None:
    """
    Omit columns and narrow those of names and labels, so that a line fits.

    @param widths: the width of each column.
    @param width: the maximum width of a line.
    """
    name, labels = widths["NAME"], widths["LABELS"]

    def room() -> int:
        """Return the number of cells for names and labels."""
        return width - len(_GAP) * (len(widths) - 1) - sum(widths.values()) + name + labels

    least = min(name, _LEAST_NAME) + min(labels, _LEAST_LABELS)
    for head in _OMITTED:
        if room() < least:
            widths.pop(head, None)
    cells = max(room(), 2)
    # Names of the minimum width are complete.
    share = cells * _LEAST_LABELS // (_LEAST_NAME + _LEAST_LABELS)
    widths["LABELS"] = max(1, min(labels, max(cells - name, share)))
    widths["NAME"] = min(name, cells - widths["LABELS"])


def _pad(cell: str, head: str, width: int) -> str:
    spaces = " " * (width - cell_width(cell))
    return cell + spaces if head in _TEXTS else spaces + cell


def _descending(value: float) -> tuple[bool, float]:
    return math.isnan(value), -value


def _summary(summary: Summary) -> dict[str, object]:
    numbers = [one.name for one in fields(summary) if one.name != "partial"]
    return {
        **{name: _number_or_null(getattr(summary, name)) for name in numbers},
        "partial": summary.partial,
    }


def _number_or_null(value: float) -> object:
    """Convert a number for JSON; NaN means that the number is unknown."""
    return None if math.isnan(value) else json_number(value)
