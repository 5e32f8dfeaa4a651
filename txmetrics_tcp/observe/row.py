"""
A line of the table: a series or a group of series.  Does not use Textual.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len

from txmetrics_tcp._model import Key, MetricKind
from txmetrics_tcp._view.series import RecentEvent, SeriesView, samples_of
from txmetrics_tcp._view.text import natural_key, shown
from txmetrics_tcp._view.windows import Samples, Summary
from txmetrics_tcp.observe.sources import Source

HISTORY = 60
"""The number of seconds that sparklines and charts cover."""


def by_text(text: str) -> tuple[str, str]:
    """
    Return a key for the natural order, in which "shard 2" comes before "shard 10".  The case is
    ignored, unless two texts differ only in case.
    """
    return natural_key(text), text


class RowValues(NamedTuple):
    """
    The displayed values of a series at one moment.

    @ivar lifetime: see `Row.lifetime`; set only while the display is paused.
    @ivar samples: see `Row.samples`; set only while the display is paused.
    @ivar age: the number of seconds since the last event.
    """

    value: int | float
    rate: float
    history: list[float]
    summary: Summary | None
    lifetime: Summary | None
    samples: Samples | None
    events: int
    age: float
    timestamp_ns: int | None
    recent: tuple[RecentEvent, ...]


class Row:
    """
    One series of one source.

    @ivar name: the name, safe for the screen.
    @ivar labels: the labels, safe for the screen.
    @ivar by_name: the key for sorting by name.
    @ivar name_length: the width of the name in cells.
    @ivar labels_length: the width of the labels in cells.
    @ivar frozen: the displayed values while the display is paused; otherwise None.
    """

    __slots__ = (
        "by_name",
        "frozen",
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
        self.source: Source = source
        self.series: SeriesView = series
        self.key: Key = key
        self.name: str = shown(key.name)
        self.labels: tuple[tuple[str, str], ...] = tuple(
            (shown(label), shown(value)) for label, value in key.labels
        )
        self.name_length: int = cell_len(self.name)
        # Includes the equals signs and the spaces between labels.
        lengths = (cell_len(label) + cell_len(value) + 2 for label, value in self.labels)
        self.labels_length: int = max(0, sum(lengths) - 1)
        self.by_name: tuple[str, str, tuple[tuple[str, str], ...], str]
        labels = tuple((natural_key(label), natural_key(value)) for label, value in self.labels)
        self.by_name = (*by_text(self.name), labels, natural_key(source.label))
        self.frozen: RowValues | None = None

    @property
    def unit(self) -> str | None:
        """The unit, safe for the screen."""
        metadata = self.source.view.description(self.key)
        return None if metadata is None or not metadata.unit else shown(str(metadata.unit))

    @property
    def is_histogram(self) -> bool:
        return self.key.kind is MetricKind.HISTOGRAM

    @property
    def total_unit(self) -> str | None:
        """The unit of value and rate; None for a histogram, which counts samples."""
        return None if self.is_histogram else self.unit

    def rate(self) -> float:
        return self.series.rate(self.source.now) if self.frozen is None else self.frozen.rate

    def value(self) -> int | float:
        return self.series.value if self.frozen is None else self.frozen.value

    def summary(self, window: float | None) -> Summary | None:
        if not self.is_histogram:
            return None
        if self.frozen is not None:
            return self.frozen.summary
        return self.series.summary(window, self.source.now)

    def samples(self, window: float | None) -> Samples | None:
        """Return the samples of a histogram in the window."""
        if self.frozen is not None:
            return self.frozen.samples
        return samples_of(self.series, window, self.source.now)

    def freeze(self, window: float | None) -> None:
        """
        Keep the displayed values.

        @param window: the window of the summary in seconds.
        """
        self.frozen = self.values(window)._replace(
            lifetime=self.lifetime(), samples=self.samples(window)
        )

    def lifetime(self) -> Summary | None:
        """Return the statistics of all time; while paused, those at the time of the pause."""
        if self.frozen is not None:
            return self.frozen.lifetime
        return self.series.summary() if self.is_histogram else None

    def age(self) -> float:
        """Return the number of seconds since the last event."""
        if self.frozen is not None:
            return self.frozen.age
        return max(0.0, self.source.now - self.series.updated)

    def values(self, window: float | None) -> RowValues:
        """
        Return the values to display.

        @param window: the window of the summary in seconds.
        """
        if self.frozen is not None:
            return self.frozen
        series = self.series
        now = self.source.now
        return RowValues(
            series.value,
            self.rate(),
            series.history(now, HISTORY),
            self.summary(window),
            None,
            None,
            series.events,
            self.age(),
            series.timestamp_ns,
            tuple(series.recent),
        )


class Group:
    """
    The line above a group of series.

    @ivar title: the name or label value that the series share, safe for the screen.
    @ivar rate: the sum of the rates; None unless all series have the same name and unit, and are
        counters or histograms.
    @ivar unit: the unit of both sums.
    @ivar sample_unit: the unit of the percentiles.
    @ivar summary: the statistics of all samples of the series; None before `summarize`, and unless
        all series are histograms and have a C{rate}.
    @ivar folded: whether the series are hidden.
    """

    __slots__ = ("folded", "rate", "rows", "sample_unit", "summary", "title", "unit")

    def __init__(self, title: str, rows: list[Row], folded: bool) -> None:
        self.title: str = title
        self.rows: list[Row] = rows
        self.folded: bool = folded
        # Different metrics, such as packets and errors, have no meaningful sum.
        metrics = {(row.key.kind, row.key.name) for row in rows}
        summable = len(metrics) == 1 and rows[0].key.kind is not MetricKind.GAUGE
        self.unit: str | None = None
        self.sample_unit: str | None = None
        self.summary: Summary | None = None
        if summable:
            # Sources may describe the same metric with different units.
            units = {row.unit for row in {row.source: row for row in rows}.values()}
            summable = len(units) == 1
            self.sample_unit = units.pop()
            self.unit = None if rows[0].is_histogram else self.sample_unit
        self.rate = sum(row.rate() for row in rows) if summable else None

    def summarize(self, window: float | None) -> None:
        """Compute `summary`, once."""
        if self.summary is None and self.rate is not None and self.rows[0].is_histogram:
            parts = (row.samples(window) for row in self.rows)
            self.summary = Samples.of(part for part in parts if part is not None).summary()

    @property
    def value(self) -> int | float | None:
        """The sum of the current values, or None as for C{rate}."""
        return None if self.rate is None else sum(row.value() for row in self.rows)


Line = Row | Group


class Grouping(NamedTuple):
    """
    A way to group series.

    @ivar label: the label to group by; None to group by name.
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
