"""
Which series are listed, and in what order: filtered, sorted, grouped, held still.  No Textual.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import attrgetter

from txmetrics_tcp._view.filters import Filter, parse_filter
from txmetrics_tcp._view.numbers import base_scale
from txmetrics_tcp._view.series import SeriesView
from txmetrics_tcp._view.sketch import PERCENTILES
from txmetrics_tcp._view.sketch import WINDOWS as _WINDOWS
from txmetrics_tcp.observe.row import Group, Grouping, Line, Row, by_text
from txmetrics_tcp.observe.source_names import brief_names
from txmetrics_tcp.observe.sources import Source

WINDOWS: tuple[float | None, ...] = (*_WINDOWS, None)
"""The times that percentiles can be of, in seconds; None for all time."""

REARRANGE = 1.0
"""
After how many seconds what is sorted by a number is sorted again, at the earliest: rows that change
places ten times a second cannot be read.
"""

REARRANGE_SHARE = 0.1
"""The share of time that sorting may take."""

MAX_GROUPINGS = 12
"""By how many labels one can group; those that most series have."""


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
By column, what to sort by; None, and what is not a number, comes last in any case.  Numbers are in
one unit for all times, for all sizes and for all bit rates, whatever they came in.
"""

STEADY = frozenset({"source", "name", "labels", "kind"})
"""The columns whose values never change: in their order, only what is new has to be put."""


class Rows:
    """
    What the table shows, of all sources.

    @ivar brief: the sources' names, and what tells them apart.
    @ivar lines: what is listed, from the top.
    @ivar matching: the series that pass the filter, in their order, with those of folded groups.
    @ivar all: all series.
    @ivar filter_text: the filter, as it was written; always one that can be understood.
    @ivar histograms: how many of all series are histograms.
    @ivar name_length: how many cells the longest name takes, of those that pass the filter.
    @ivar labels_length: the same of labels.
    @ivar sort: the column that orders, one of `SORTS`.
    @ivar descending: whether that order is turned around.
    @ivar window: of which time percentiles are.
    @ivar paused: whether the picture is held still.
    """

    def __init__(
        self, sources: Sequence[Source], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sources = sources
        self.brief = brief_names([source.label for source in sources])
        self._clock = clock
        self.lines: list[Line] = []
        self.matching: list[Row] = []
        self.all: list[Row] = []
        self.filter_text = ""
        self._filter: Filter = parse_filter("")
        self.sort = "name"
        self.descending = False
        self.grouping: Grouping | None = None
        self._folded: set[str] = set()
        self.window: float | None = WINDOWS[1]
        self.paused = False
        self.paused_at = 0.0
        # Of each source, how many series are in `all`, and which run of its server they are of.
        self._known = [0] * len(sources)
        self._runs = [(source.view.restarts, source.view.since) for source in sources]
        self._arranged = -math.inf
        self._took = 0.0
        self._dirty = True
        self.histograms = 0
        self._label_counts: Counter[str] = Counter()
        self.name_length = 0
        self.labels_length = 0

    # What there is

    def update(self) -> bool:
        """
        Take in what is new, and sort again if it is time for that.

        @return: whether `lines` is another list than before.
        """
        if not self.paused:
            self._learn()
        if not self._dirty:
            wait = max(REARRANGE, self._took / REARRANGE_SHARE)
            moves = self.sort not in STEADY or self.grouping is not None
            if self.paused or not moves or self._clock() < self._arranged + wait:
                return False
        self._arrange()
        return True

    def _learn(self) -> None:
        for number, source in enumerate(self.sources):
            view = source.view
            series = view.series
            # Another one after a restart of the server, and after clearing.
            run = view.restarts, view.since
            known = self._known[number]
            if run != self._runs[number] or len(series) < known:
                self._runs[number] = run
                self._forget(source)
                known = self._known[number] = 0
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
        """Name and labels get room for what is listed, and for that only."""
        for row in rows:
            self.name_length = max(self.name_length, row.name_length)
            self.labels_length = max(self.labels_length, row.labels_length)

    def _fit_anew(self) -> None:
        self.name_length = self.labels_length = 0
        self._fit(self.matching)

    def _forget(self, source: Source) -> None:
        self.all = [row for row in self.all if row.source is not source]
        self.matching = [row for row in self.matching if row.source is not source]
        self.histograms = 0
        self._label_counts.clear()
        for row in self.all:
            self._count(row)
        self._fit_anew()
        self._dirty = True

    # What people do

    def clear(self) -> None:
        """Forget what was seen; series come back with their next event, totals go on."""
        for source in self.sources:
            source.view.clear()
        self.resume()
        self._learn()

    def set_filter(self, text: str) -> None:
        """
        @raise FilterError: it cannot be understood; the one before stays.
        """
        self._filter = parse_filter(text)
        self.filter_text = text.strip()
        self.matching = [row for row in self.all if self._filter.matches(row.key)]
        self._fit_anew()
        self._dirty = True

    def sort_by(self, column: str) -> None:
        """Sort by another column, numbers from the largest down; or turn the order around."""
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
        """All ways to group."""
        labels = sorted(label for label, _ in self._label_counts.most_common(MAX_GROUPINGS))
        return [None, Grouping(None), *map(Grouping, labels)]

    def group_by(self, grouping: Grouping | None) -> None:
        self.grouping = grouping
        self._folded.clear()
        self._dirty = True

    def fold(self, group: Group) -> None:
        """Leave out the series of a group, or list them again."""
        if group.title in self._folded:
            self._folded.remove(group.title)
        else:
            self._folded.add(group.title)
        self._dirty = True

    def fold_all(self) -> None:
        """Leave out the series of all groups; if those are left out already, list them again."""
        titles = {line.title for line in self.lines if isinstance(line, Group)}
        self._folded = set() if titles <= self._folded else titles | self._folded
        self._dirty = True

    def set_window(self, window: float | None) -> None:
        self.window = window
        self._dirty = True

    def pause(self) -> None:
        """Hold the picture still.  What comes meanwhile is counted in, and seen afterwards."""
        if not self.paused:
            self.paused = True
            self.paused_at = self._clock()
            for row in self.all:
                row.held = row.look(self.window)._replace(lifetime=row.lifetime())

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            for row in self.all:
                row.held = None
            self._dirty = True

    # In what order

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
        # Ties are in the order of names, whichever way the column is sorted.
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
            # Those without a sum come last, as series without a value do.
            with_sum = [group for group in groups if group.value is not None]
            by = attrgetter(self.sort)
            with_sum.sort(
                key=lambda group: by(group) * base_scale(group.unit), reverse=self.descending
            )
            groups = with_sum + [group for group in groups if group.value is None]
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
