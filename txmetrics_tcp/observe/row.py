"""
One line of the table: a series, or a group of them, and what there is to see of it.  No Textual.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len

from txmetrics_tcp._model import Key, MetricKind
from txmetrics_tcp._view.series import Happened, SeriesView
from txmetrics_tcp._view.sketch import Summary
from txmetrics_tcp.observe.sources import Source
from txmetrics_tcp.observe.text import shown

HISTORY = 60
"""How many seconds a sparkline, and the chart, go back."""


def by_text(text: str) -> tuple[str, str]:
    """What orders texts, without regard to case."""
    return text.casefold(), text


class Look(NamedTuple):
    """What there is to see of a series at one moment."""

    value: int | float
    rate: float
    history: list[float]
    summary: Summary | None
    lifetime: Summary | None
    events: int
    age: float
    timestamp_ns: int
    recent: tuple[Happened, ...]


class Row:
    """
    One series of one source.

    @ivar name: and C{labels}, as they may be put on the screen.
    @ivar by_name: what orders it among the others.
    @ivar name_length: how many cells the name takes.
    @ivar labels_length: how many cells the labels take.
    @ivar held: what is shown while the picture is held still.
    """

    __slots__ = (
        "by_name",
        "held",
        "key",
        "labels",
        "labels_length",
        "name",
        "name_length",
        "series",
        "source",
    )

    def __init__(self, source: Source, series: SeriesView) -> None:
        key = series.key
        self.source = source
        self.series = series
        self.key: Key = key
        self.name = shown(key.name)
        self.labels = tuple((shown(label), shown(value)) for label, value in key.labels)
        self.name_length = cell_len(self.name)
        # Each with its equals sign, and a space between two.
        lengths = (cell_len(label) + cell_len(value) + 2 for label, value in self.labels)
        self.labels_length = max(0, sum(lengths) - 1)
        self.by_name = (*by_text(self.name), self.labels, source.label)
        self.held: Look | None = None

    @property
    def unit(self) -> str | None:
        """As it may be put on the screen."""
        metadata = self.source.view.description(self.key)
        return None if metadata is None or not metadata.unit else shown(str(metadata.unit))

    @property
    def is_histogram(self) -> bool:
        return self.key.kind is MetricKind.HISTOGRAM

    @property
    def total_unit(self) -> str | None:
        """The unit of value and rate: those of a histogram are numbers of samples."""
        return None if self.is_histogram else self.unit

    def rate(self) -> float:
        return self.series.rate(self.source.now) if self.held is None else self.held.rate

    def value(self) -> int | float:
        return self.series.value if self.held is None else self.held.value

    def summary(self, window: float | None) -> Summary | None:
        if not self.is_histogram:
            return None
        if self.held is not None:
            return self.held.summary
        return self.series.summary(window, self.source.now)

    def lifetime(self) -> Summary | None:
        """The summary of all time, as it was when the picture was held still."""
        if self.held is not None:
            return self.held.lifetime
        return self.series.summary() if self.is_histogram else None

    def age(self) -> float:
        """How many seconds ago it changed."""
        if self.held is not None:
            return self.held.age
        return max(0.0, self.source.now - self.series.updated)

    def look(self, window: float | None) -> Look:
        """
        @param window: that of the summary.
        """
        if self.held is not None:
            return self.held
        series = self.series
        now = self.source.now
        return Look(
            series.value,
            self.rate(),
            series.history(now, HISTORY),
            self.summary(window),
            None,
            series.events,
            self.age(),
            series.timestamp_ns,
            tuple(series.recent),
        )


class Group:
    """
    The line above the series that have something in common.

    @ivar title: what that is, as it may be put on the screen.
    @ivar rate: the sum of their rates, None where that means nothing: there is one of the series of
        one counter or histogram, in one unit.
    @ivar value: the same of their values.
    @ivar unit: the unit of both.
    @ivar folded: whether the series are left out.
    """

    __slots__ = ("folded", "rate", "rows", "title", "unit", "value")

    def __init__(self, title: str, rows: list[Row], folded: bool) -> None:
        self.title = title
        self.rows = rows
        self.folded = folded
        # Bytes and packets make no sum, neither do packets and errors.
        metrics = {(row.key.kind, row.key.name) for row in rows}
        summable = len(metrics) == 1 and rows[0].key.kind is not MetricKind.GAUGE
        self.unit: str | None = None
        if summable:
            # Each source describes its metrics itself.
            units = {row.unit for row in {row.source: row for row in rows}.values()}
            summable = len(units) == 1
            self.unit = None if rows[0].is_histogram else units.pop()
        self.rate = sum(row.rate() for row in rows) if summable else None
        self.value = sum(row.value() for row in rows) if summable else None


Line = Row | Group


class Grouping(NamedTuple):
    """
    @ivar label: by which label; None for by name.
    """

    label: str | None

    @property
    def title(self) -> str:
        return "name" if self.label is None else shown(self.label)

    def of(self, row: Row) -> str:
        if self.label is None:
            return row.name
        for label, value in row.key.labels:
            if label == self.label:
                return shown(f"{label}={value}")
        return f"without {shown(self.label)}"
