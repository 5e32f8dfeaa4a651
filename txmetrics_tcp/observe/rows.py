"""
The listed series: filtering, sorting, grouping and pausing.  Does not use Textual.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter, itemgetter

from txmetrics_tcp._model import Key
from txmetrics_tcp._view.filters import Filter, parse_filter
from txmetrics_tcp._view.numbers import base_scale
from txmetrics_tcp._view.series import SeriesView
from txmetrics_tcp._view.source_names import brief_names
from txmetrics_tcp._view.windows import PERCENTILES, Summary
from txmetrics_tcp._view.windows import WINDOWS as _WINDOWS
from txmetrics_tcp.observe.row import Group, Grouping, Line, Row, by_text
from txmetrics_tcp.observe.sources import Source

WINDOWS: tuple[float | None, ...] = (*_WINDOWS, None)
"""The available windows for percentiles, in seconds; None for all time."""

REARRANGE = 1.0
"""
The minimum number of seconds between sorts by a changing number: rows that move ten times per
second are unreadable.
"""

REARRANGE_SHARE = 0.1
"""The share of time that sorting may take."""

MAX_GROUPINGS = 12
"""The maximum number of labels to group by; the most common ones are offered."""


def _quantile(name: str) -> Callable[[Row, float | None], object]:
    def key(row: Row, window: float | None) -> object:
        summary = row.summary(window)
        if summary is None or not summary.count:
            return None
        return getattr(summary, name) * base_scale(row.unit)

    return key


SORTS: dict[str, Callable[[Row, float | None], object]] = {
    "source": lambda row, window: row.source.label,
    "name": lambda row, window: row.by_name,
    "labels": lambda row, window: row.labels,
    "kind": lambda row, window: row.key.kind.value,
    "value": lambda row, window: row.value() * base_scale(row.total_unit),
    "rate": lambda row, window: row.rate() * base_scale(row.total_unit),
    "trend": lambda row, window: -row.age(),
    **{name: _quantile(name) for name in PERCENTILES},
}
"""
The sort key of each column.  None and NaN always sort last.  Times, sizes and bit rates are
converted to one unit each.
"""

STEADY = frozenset({"source", "name", "labels", "kind"})
"""The columns whose values never change: sort again only for new series."""


class Rows:
    """
    The contents of the table, from all sources.

    @ivar sources: the sources; changed by `add` and `remove` only.
    @ivar brief: the short name of each source, by its full name.
    @ivar lines: the listed lines, from the top.
    @ivar matching: the series that match the filter, sorted, including those of folded groups.
    @ivar all: all series.
    @ivar filter_text: the current filter as the user wrote it; always valid.
    @ivar histograms: the number of histograms among all series.
    @ivar name_length: the width in cells of the longest name among the matching series.
    @ivar labels_length: the width in cells of the longest labels among the matching series.
    @ivar sort: the column to sort by, one of `SORTS`.
    @ivar descending: whether the order is descending.
    @ivar window: the window of percentiles in seconds; None for all time.
    @ivar paused: whether the display is paused.
    """

    def __init__(
        self, sources: Sequence[Source], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sources: list[Source] = []
        self.brief: dict[str, str] = {}
        # Removed sources whose series are still listed.
        self._left: list[Source] = []
        self._clock = clock
        self.lines: list[Line] = []
        self.matching: list[Row] = []
        self.all: list[Row] = []
        self.filter_text: str = ""
        self._filter: Filter = parse_filter("")
        self.sort: str = "name"
        self.descending: bool = False
        self.grouping: Grouping | None = None
        self._folded: set[str] = set()
        self.window: float | None = WINDOWS[1]
        self.paused: bool = False
        self.paused_at: float = 0.0
        # For each source, the number of its series in `all`, how many have gone, and the run of its
        # server.
        self._known: list[int] = []
        self._gone: list[int] = []
        self._runs: list[tuple[int, float]] = []
        self._arranged = -math.inf
        self._took = 0.0
        self._dirty = True
        self.histograms: int = 0
        self._label_counts: Counter[str] = Counter()
        self.name_length: int = 0
        self.labels_length: int = 0
        for source in sources:
            self.add(source)

    # Updating

    def add(self, source: Source) -> None:
        """Add a source."""
        self.sources.append(source)
        self._known.append(0)
        self._gone.append(0)
        self._runs.append((source.view.restarts, source.view.since))
        self._shorten_names()

    def remove(self, source: Source) -> None:
        """Remove a source.  While the display is paused, its series stay."""
        number = self.sources.index(source)
        for items in (self.sources, self._known, self._gone, self._runs):
            del items[number]
        self._left.append(source)

    def _shorten_names(self) -> None:
        self.brief = brief_names([source.label for source in (*self.sources, *self._left)])

    def update(self) -> bool:
        """
        Add new series, and sort again if needed.

        @return: whether `lines` was replaced.
        """
        if not self.paused:
            self._follow()
        if not self._dirty:
            wait = max(REARRANGE, self._took / REARRANGE_SHARE)
            moves = self.sort not in STEADY or self.grouping is not None
            if self.paused or not moves or self._clock() < self._arranged + wait:
                return False
        self._arrange()
        return True

    def _follow(self) -> None:
        """Add new series, and remove those that have gone."""
        if self._left:
            for source in self._left:
                self._keep(source, {})
            self._left.clear()
            self._shorten_names()
        for number, source in enumerate(self.sources):
            view = source.view
            series = view.series
            # Changes when the server restarts and when the view is cleared.
            run = view.restarts, view.since
            if run != self._runs[number]:
                self._runs[number] = run
                self._keep(source, {})
                self._known[number] = 0
            elif view.gone != self._gone[number] or len(series) < self._known[number]:
                # A series that begins again is another object, after all known ones.
                self._known[number] -= self._keep(source, series)
            self._gone[number] = view.gone
            known = self._known[number]
            if len(series) > known:
                self._add(source, islice(series.values(), known, None))
                self._known[number] = len(series)

    def _add(self, source: Source, new: Iterable[SeriesView]) -> None:
        for series in new:
            row = Row(source, series)
            self.all.append(row)
            self._count(row)
            if self._filter.matches(row.key):
                self.matching.append(row)
                self._fit([row])
                self._dirty = True

    def _count(self, row: Row) -> None:
        self.histograms += row.is_histogram
        self._label_counts.update(label for label, _ in row.key.labels)

    def _fit(self, rows: Iterable[Row]) -> None:
        """Widen the columns for name and labels to fit these rows."""
        for row in rows:
            self.name_length = max(self.name_length, row.name_length)
            self.labels_length = max(self.labels_length, row.labels_length)

    def _refit(self) -> None:
        self.name_length = self.labels_length = 0
        self._fit(self.matching)

    def _keep(self, source: Source, series: Mapping[Key, SeriesView]) -> int:
        """Keep the rows of these series of a source, and return the number of removed rows."""

        def stays(row: Row) -> bool:
            return row.source is not source or series.get(row.key) is row.series

        before = len(self.all)
        self.all = list(filter(stays, self.all))
        self.matching = list(filter(stays, self.matching))
        self.histograms = 0
        self._label_counts.clear()
        for row in self.all:
            self._count(row)
        self._refit()
        self._dirty = True
        return before - len(self.all)

    def summary(self, group: Group) -> Summary | None:
        """Return the statistics of a group's samples; computed once for each sort."""
        started = self._clock()
        group.summarize(self.window)
        self._took += self._clock() - started
        return group.summary

    # User actions

    def clear(self) -> None:
        """Remove all series and resume.  Its next event shows a series again, with its total."""
        for source in self.sources:
            source.view.clear()
        self.resume()
        self._follow()

    def set_filter(self, text: str) -> None:
        """
        Show the series that match a filter.

        @raise FilterError: the filter is invalid; the previous filter stays.
        """
        self._filter = parse_filter(text)
        self.filter_text = text.strip()
        self.matching = [row for row in self.all if self._filter.matches(row.key)]
        self._refit()
        self._dirty = True

    def sort_by(self, column: str) -> None:
        """Sort by a column, numbers in descending order; if it is current, reverse the order."""
        if column == self.sort:
            self.descending = not self.descending
        else:
            self.sort = column
            self.descending = column not in STEADY
        self._dirty = True

    def reverse(self) -> None:
        self.descending = not self.descending
        self._dirty = True

    @property
    def groupings(self) -> list[Grouping | None]:
        """All available groupings; None for no grouping."""
        labels = sorted(label for label, _ in self._label_counts.most_common(MAX_GROUPINGS))
        return [None, Grouping(None), *map(Grouping, labels)]

    def group_by(self, grouping: Grouping | None) -> None:
        self.grouping = grouping
        self._folded.clear()
        self._dirty = True

    def fold(self, group: Group) -> None:
        """Hide or show the series of a group."""
        if group.title in self._folded:
            self._folded.remove(group.title)
        else:
            self._folded.add(group.title)
        self._dirty = True

    def fold_all(self) -> None:
        """Hide the series of all groups, or show them if all are hidden."""
        titles = {line.title for line in self.lines if isinstance(line, Group)}
        self._folded = set() if titles <= self._folded else titles | self._folded
        self._dirty = True

    def set_window(self, window: float | None) -> None:
        self.window = window
        self._dirty = True

    def pause(self) -> None:
        """Freeze the displayed values.  Events are still ingested, and shown after `resume`."""
        if not self.paused:
            self.paused = True
            self.paused_at = self._clock()
            for row in self.all:
                row.freeze(self.window)

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            for row in self.all:
                row.frozen = None
            self._dirty = True

    # Sorting

    def _arrange(self) -> None:
        started = self._clock()
        self._sort(self.matching)
        if self.grouping is None:
            self.lines = list(self.matching)
        else:
            self.lines = self._grouped(self.grouping)
        self._dirty = False
        self._arranged = self._clock()
        self._took = self._arranged - started

    def _sort(self, rows: list[Row]) -> None:
        # Ties are sorted by name, in ascending order.
        rows.sort(key=attrgetter("by_name"))
        if self.sort == "name":
            if self.descending:
                rows.reverse()
            return
        key = SORTS[self.sort]
        window = self.window
        keys = {id(row): key(row, window) for row in rows}
        missing = [row for row in rows if _is_missing(keys[id(row)])]
        if missing:
            rows[:] = [row for row in rows if not _is_missing(keys[id(row)])]
        rows.sort(key=lambda row: keys[id(row)], reverse=self.descending)  # type: ignore[arg-type, return-value]
        rows += missing

    def _grouped(self, grouping: Grouping) -> list[Line]:
        members: dict[str, list[Row]] = {}
        for row in self.matching:
            members.setdefault(grouping.of(row), []).append(row)
        groups = [
            Group(title, rows, title in self._folded)
            for title, rows in sorted(members.items(), key=lambda item: by_text(item[0]))
        ]
        if self.sort in ("rate", "value"):
            # Groups without a sum come last, like series without a value.
            with_sum = [group for group in groups if group.rate is not None]
            by = attrgetter(self.sort)
            with_sum.sort(
                key=lambda group: by(group) * base_scale(group.unit), reverse=self.descending
            )
            groups = with_sum + [group for group in groups if group.rate is None]
        elif self.sort in PERCENTILES:
            with_number: list[tuple[float, Group]] = []
            without: list[tuple[float, Group]] = []
            for group in groups:
                group.summarize(self.window)
                number = getattr(group.summary, self.sort, math.nan)
                scaled = number * base_scale(group.sample_unit), group
                (without if math.isnan(number) else with_number).append(scaled)
            with_number.sort(key=itemgetter(0), reverse=self.descending)
            groups = [group for _, group in with_number + without]
        elif self.descending and self.sort == "name":
            groups.reverse()
        lines: list[Line] = []
        for group in groups:
            lines.append(group)
            if not group.folded:
                lines += group.rows
        return lines


def _is_missing(key: object) -> bool:
    return key is None or (isinstance(key, float) and math.isnan(key))
