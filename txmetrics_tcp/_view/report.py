"""
The state of a stream as a human-readable table, or as one JSON object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from txmetrics_tcp._model import Key, MetricKind
from txmetrics_tcp._view.numbers import base_scale, show_number, show_rate, show_seconds, show_value
from txmetrics_tcp._view.series import SeriesView, SourceView
from txmetrics_tcp._view.sketch import Summary, has_percentiles
from txmetrics_tcp._view.text import json_number, json_value, utc, visible

SHORTEST = 0.1
"""The minimum number of seconds for a rate."""

_HEAD = ("KIND", "NAME", "LABELS", "VALUE", "RATE", "MIN", "P50", "P90", "P99", "MAX")
_RIGHT = 3
"""The index of the first column of numbers.  This and all later columns are right-aligned."""

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
    """

    view: SourceView
    endpoint: str
    seconds: float
    connections: int = 1
    wanted: Callable[[Key], bool] = lambda key: True
    sort: str = "name"

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
        return series.change / self.seconds if self.seconds >= SHORTEST else math.nan

    def to_table(self) -> str:
        """
        Return one line for each series, with values in their units, and one line about the stream.
        The text is safe for a terminal.
        """
        lines = [_HEAD, *map(self._cells, self.series)]
        if not any(line[-1] for line in lines[1:]):
            # No histograms: omit their columns.
            lines = [line[: _HEAD.index("MIN")] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "".join(
            "  ".join(
                cell.ljust(width) if column < _RIGHT else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            + "\n"
            for line in lines
        )
        return f"{text}\n{self._summary_line()}\n"

    def to_json(self) -> str:
        """Return one line with an ASCII object, as described in docs/reference/commands.md."""
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
            "percentiles": has_percentiles(),
            "series": [self._json(one) for one in self.series],
        }
        return json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n"

    def _cells(self, series: SeriesView) -> tuple[str, ...]:
        key = series.key
        unit = self._unit(series)
        shown = None if unit is None else visible(unit)
        summary = series.summary()
        labels = ", ".join(f"{label}={value}" for label, value in key.labels)
        cells = (key.kind.value, visible(key.name), visible(labels))
        if summary is None:
            rate = self._rate(series, shown)
            return (*cells, show_value(series.value, shown), rate, "", "", "", "", "")
        numbers = summary.min, summary.p50, summary.p90, summary.p99, summary.max
        return (
            *cells,
            show_number(series.value),
            self._rate(series, None),
            *(("-" if math.isnan(one) else show_value(one, shown)) for one in numbers),
        )

    def _rate(self, series: SeriesView, unit: str | None) -> str:
        rate = self.rate(series)
        return "-" if math.isnan(rate) else show_rate(rate, unit)

    def _summary_line(self) -> str:
        view = self.view
        status = view.status
        name = f" ({status.source})" if status is not None and status.source else ""
        parts = [
            f"{len(self.series):,} of {len(view.series):,} series",
            f"{view.events:,} events in {show_seconds(self.seconds)}",
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
        if self.connections > 1:
            parts.append(f"{self.connections:,} connections")
        if view.restarts:
            times = "once" if view.restarts == 1 else f"{view.restarts:,} times"
            parts.append(f"restarted {times}")
        if view.refused:
            parts.append(f"{view.refused:,} events left out because of too many series")
        if view.unknown:
            parts.append(f"{view.unknown:,} unknown events skipped")
        return visible(f"{self.endpoint}{name}: {', '.join(parts)}")

    def scale(self, series: SeriesView) -> float:
        """Return the factor that makes value and rate comparable with those of other series."""
        # A histogram's value and rate count samples, regardless of the unit.
        histogram = series.key.kind is MetricKind.HISTOGRAM
        return 1 if histogram else base_scale(self._unit(series))

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
    "value": lambda report, series: _descending(series.value * report.scale(series)),
    "rate": lambda report, series: _descending(report.rate(series) * report.scale(series)),
    "events": lambda report, series: -series.events,
}
"""The sort keys of a report.  Numbers sort in descending order, ties by name."""


def _descending(value: float) -> tuple[bool, float]:
    return math.isnan(value), -value


def _summary(summary: Summary) -> dict[str, object]:
    numbers = {one.name: _number_or_null(getattr(summary, one.name)) for one in fields(summary)}
    return {**numbers, "mean": _number_or_null(summary.mean)}


def _number_or_null(value: float) -> object:
    """Convert a number for JSON; NaN means that the number is unknown."""
    return None if math.isnan(value) else json_number(value)
