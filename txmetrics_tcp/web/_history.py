"""
What one source showed earlier: a column of all values for each second, and the samples of
histograms.  No I/O.

All times are whole seconds since the epoch of UNIX.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from txmetrics_tcp._view.memory import Budget
from txmetrics_tcp._view.windows import FINEST, Samples, Summary

HISTORY_BYTES = 256 * 1024 * 1024
"""The limit of the history of all sources of a page, in bytes."""

MAX_GAP = 5
"""The number of seconds without a column after which a chart has a gap."""

MAX_BOUNDS = 40
"""The maximum number of buckets of a heatmap."""

MAX_SPREAD = 3600
"""The longest time over which an increase is spread, in seconds."""

_COLUMN = 300
_ENTRY = 150
_INTERVAL = 250


_first = itemgetter(0)
_second = itemgetter(1)


class Column(NamedTuple):
    """
    The values at one time.

    @ivar ids: the numbers of the series, ascending.
    @ivar connected: whether the source was connected.
    """

    time: int
    ids: array[int]
    values: array[float]
    connected: bool

    def value(self, id: int) -> float | None:
        """Return the value of a series; None if it did not exist."""
        at = bisect_left(self.ids, id)
        return self.values[at] if at < len(self.ids) and self.ids[at] == id else None


def _shown(column: Column, id: int) -> float | None:
    """Return the value of a series in a chart; None for a gap."""
    value = column.value(id) if column.connected else None
    return value if value is not None and math.isfinite(value) else None


class _Interval(NamedTuple):
    start: int
    samples: Samples


class History:
    """
    The history of one source.

    @ivar now: the time of the next column.
    """

    def __init__(self, seconds: int, budget: Budget, max_gap: float = MAX_GAP) -> None:
        """
        @param seconds: the time that is kept.
        @param budget: the memory for several histories.  If it does not suffice, less is kept.
        @param max_gap: see `MAX_GAP`.
        """
        self._seconds = seconds
        self._budget = budget
        self._max_gap = max_gap
        self._columns: list[Column] = []
        self.now = 0
        # Changes of bases: their times, and how much each was.
        self._rebased: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        # Increases that a total has shown later: since when, until when, how much.
        self._resynced: defaultdict[int, list[tuple[int, int, float]]] = defaultdict(list)
        self._intervals: dict[int, list[_Interval]] = {}
        self._summaries: dict[tuple[int, int, int], Summary | None] = {}
        self._used = 0

    @property
    def begin(self) -> int | None:
        """The time of the first column."""
        return self._columns[0].time if self._columns else None

    @property
    def end(self) -> int | None:
        """The time of the last column."""
        return self._columns[-1].time if self._columns else None

    def clear(self) -> None:
        """Forget everything, and return the memory."""
        self._columns.clear()
        self._rebased.clear()
        self._resynced.clear()
        self._intervals.clear()
        self._summaries.clear()
        self._budget.give_back(self._used)
        self._used = 0

    # Recording

    def add(self, time: int, ids: array[int], values: array[float], connected: bool) -> None:
        """
        Add a column.

        @param ids: the numbers of the series, ascending.
        """
        if self._columns and time <= self._columns[-1].time:
            return
        if self._columns:
            last = self._columns[-1]
            if ids is last.ids or ids == last.ids:
                ids = last.ids
                # NaN is not equal to itself, but its bytes are.
                if values.tobytes() == last.values.tobytes():
                    values = last.values
        column = Column(time, ids, values, connected)
        self._take(self._cost(column, self._columns[-1] if self._columns else None))
        self._columns.append(column)
        self._drop_before(time - self._seconds)

    def rebase(self, id: int, amount: float) -> None:
        """Handle a change of the base of a series, before the next column."""
        self._rebased[id].append((self.now, amount))
        self._take(_ENTRY)

    def resync(self, id: int, amount: float, since: int) -> None:
        """Handle an increase since an earlier time, which the next column shows."""
        if self.now - MAX_SPREAD <= since < self.now - 1:
            self._resynced[id].append((since, self.now, amount))
            self._take(_ENTRY)

    def add_samples(self, id: int, start: int, samples: Samples) -> None:
        """Add the samples of `FINEST` seconds of a histogram.  Empty ones are ignored."""
        if samples.empty:
            return
        intervals = self._intervals.setdefault(id, [])
        if intervals and intervals[-1].start >= start:
            return
        intervals.append(_Interval(start, samples))
        self._take(samples.size + _INTERVAL)

    def last_interval(self, id: int) -> int:
        """Return the start of the last interval of a histogram; -1 without one."""
        intervals = self._intervals.get(id)
        return intervals[-1].start if intervals else -1

    def _cost(self, column: Column, before: Column | None) -> int:
        size = _COLUMN
        if before is None or column.ids is not before.ids:
            size += 4 * len(column.ids)
        if before is None or column.values is not before.values:
            size += 8 * len(column.values)
        return size

    def _take(self, size: int) -> None:
        while not self._budget.take(size):
            if len(self._columns) < 2:
                # Other histories use the memory: exceed it by one column.
                self._budget.used += size
                break
            # A tenth at a time, since the removal of samples looks at all series.
            self._drop_before(self._columns[max(1, len(self._columns) // 10)].time)
        self._used += size

    def _drop_before(self, time: int) -> None:
        columns = self._columns
        if not columns or columns[0].time >= time:
            return
        at = bisect_left(columns, time, key=lambda column: column.time)
        freed = 0
        for before, after in pairwise(columns[: at + 1]):
            # What the next column shares stays.
            freed += _COLUMN
            freed += 4 * len(before.ids) if before.ids is not after.ids else 0
            freed += 8 * len(before.values) if before.values is not after.values else 0
        del columns[:at]
        # Looking at all series for each second would take longer than the columns.
        if time % 10 == 0 or at > 10:
            freed += self._forget(time)
        self._used -= freed
        self._budget.give_back(freed)

    def _forget(self, time: int) -> int:
        freed = 0
        for id, changes in list(self._rebased.items()):
            at = bisect_right(changes, time, key=_first)
            freed += _ENTRY * at
            del changes[:at]
            if not changes:
                del self._rebased[id]
        for id, spread in list(self._resynced.items()):
            at = bisect_right(spread, time, key=_second)
            freed += _ENTRY * at
            del spread[:at]
            if not spread:
                del self._resynced[id]
        for id, intervals in list(self._intervals.items()):
            at = bisect_left(intervals, time, key=lambda one: one.start)
            freed += sum(one.samples.size + _INTERVAL for one in intervals[:at])
            del intervals[:at]
            if not intervals:
                del self._intervals[id]
        if len(self._summaries) > 50_000:
            self._summaries.clear()
        return freed

    # Looking back

    def column(self, time: float) -> Column | None:
        """Return the last column up to a time, or else the first one; None without any."""
        if not self._columns:
            return None
        at = bisect_right(self._columns, time, key=lambda column: column.time)
        return self._columns[max(0, at - 1)]

    def increases(self, id: int, first: int, last: int) -> Iterator[tuple[int, int, float | None]]:
        """
        Return the increases of a counter's total, or of a histogram's count, as
        `txmetrics_tcp._view.series.SeriesView.rate` counts them.

        @return: for each column after C{first}, up to the first one not before C{last}, its time,
            the seconds since the one before, and the increase; None if it is unknown.
        """
        columns = self._columns
        at = bisect_right(columns, first, key=lambda column: column.time)
        corrections = self._corrections(id)
        times = sorted(corrections)
        next_one = 0
        for number in range(max(at, 1), len(columns)):
            before, after = columns[number - 1], columns[number]
            if before.time >= last:
                return
            seconds = after.time - before.time
            value = after.value(id)
            if value is None or not after.connected or seconds > self._max_gap:
                yield after.time, seconds, None
                continue
            risen = value - (before.value(id) or 0.0)
            while next_one < len(times) and times[next_one] <= after.time:
                if times[next_one] > before.time:
                    risen += corrections[times[next_one]]
                next_one += 1
            yield after.time, seconds, max(risen, 0.0)

    def _corrections(self, id: int) -> dict[int, float]:
        """Return the difference between the changes of the value and the increases, by second."""
        found: defaultdict[int, float] = defaultdict(float)
        for time, amount in self._rebased.get(id, ()):
            found[time] -= amount
        for since, until, amount in self._resynced.get(id, ()):
            found[until] -= amount
            for second in range(since + 1, until + 1):
                found[second] += amount / (until - since)
        return found

    def rates(self, id: int, ends: range) -> list[float | None]:
        """
        Return the rate of increase in each step.  If there is no column each second, because of a
        busy process or a recording without events, the increase is spread over the time between.

        @param ends: the ends of the steps.
        """
        risen = [0.0] * len(ends)
        known = [0] * len(ends)
        step = ends.step
        first = ends.start - step
        for time, seconds, increase in self.increases(id, first, ends[-1]):
            if increase is None:
                continue
            begin = time - seconds
            end = min((time - first - 1) // step + 1, len(ends))
            for at in range(max(0, begin - first) // step, end):
                start = first + at * step
                shared = min(time, start + step) - max(begin, start)
                risen[at] += increase * shared / seconds
                known[at] += shared
        return [
            amount / seconds if seconds else None
            for amount, seconds in zip(risen, known, strict=True)
        ]

    def values(self, id: int, ends: range) -> list[float | None]:
        """Return the last value in each step, also in one between two columns."""
        found: list[float | None] = [None] * len(ends)
        first = ends.start - ends.step
        at = bisect_right(self._columns, first, key=lambda column: column.time)
        before = self._columns[at - 1] if at else None
        last = None if before is None else _shown(before, id)
        for column in islice(self._columns, at, None):
            if before is not None and before.time >= ends[-1]:
                break
            step = min((column.time - first - 1) // ends.step, len(ends))
            if before is not None and column.time - before.time <= self._max_gap:
                after = max(0, (before.time - first - 1) // ends.step + 1)
                found[after:step] = [last] * (step - after)
            last = _shown(column, id)
            if last is not None and step < len(ends):
                found[step] = last
            before = column
        return found

    def samples(self, id: int, first: float, last: float) -> Samples | None:
        """Return the samples of a histogram that have ended after C{first} up to C{last}."""
        found = self._between(id, first, last)
        if len(found) == 1:
            return found[0].samples
        return Samples.of(one.samples for one in found) if found else None

    def _between(self, id: int, first: float, last: float) -> list[_Interval]:
        intervals = self._intervals.get(id, [])
        low = bisect_right(intervals, first - FINEST, key=lambda one: one.start)
        high = bisect_right(intervals, last - FINEST, key=lambda one: one.start)
        return intervals[low:high]

    def in_step(self, id: int, end: int, step: int) -> Samples | None:
        """Return the samples of a histogram in a step; in a short one, those that are around it."""
        if step < FINEST:
            first = end - (end - 1) % FINEST - 1
            return self.samples(id, first, first + FINEST)
        return self.samples(id, end - step, end)

    def summary(self, id: int, end: int, step: int) -> Summary | None:
        """Return statistics of a histogram in a step; None without samples."""
        key = id, end, step
        if key in self._summaries:
            return self._summaries[key]
        samples = self.in_step(id, end, step)
        found = None if samples is None else samples.summary()
        if self._columns and end < self._columns[-1].time - 2 * FINEST:
            self._summaries[key] = found
        return found

    def before(
        self, time: float, seconds: int, is_gauge: Callable[[int], bool] = lambda id: False
    ) -> tuple[array[int], array[float], int] | None:
        """
        Return the values some time before a time, corrected so that the difference from those then
        is the change that rates show.

        @param is_gauge: whether a series is a gauge, which had no value before its first one.
        @return: the numbers of series, their values, and the time of these; None if unknown.
        """
        now, then = self.column(time), self.column(time - seconds)
        if now is None or then is None or then.time >= now.time:
            return None
        corrections: dict[int, float] = {}
        # Both kinds are ordered by time; only the recent ones matter.
        for id, changes in self._rebased.items():
            low = bisect_right(changes, then.time, key=_first)
            high = bisect_right(changes, time, low, key=_first)
            amount = sum(amount for _, amount in changes[low:high])
            if amount:
                corrections[id] = amount
        for id, spread in self._resynced.items():
            for since, until, amount in spread[bisect_right(spread, then.time, key=_second) :]:
                before = amount if then.time < until <= time else 0.0
                overlap = max(0.0, min(until, time) - max(since, then.time))
                moved = before - amount * overlap / (until - since)
                corrections[id] = corrections.get(id, 0.0) + moved
        values = dict(zip(then.ids, then.values, strict=True))
        for id, correction in corrections.items():
            values[id] = values.get(id, 0.0) + correction
        found = array("I"), array("d")
        for id, value in zip(now.ids, now.values, strict=True):
            former = values.get(id)
            if former is None:
                if is_gauge(id):
                    continue
                former = 0.0
            if former != value and math.isfinite(former):
                found[0].append(id)
                found[1].append(former)
        return *found, then.time


def ends_of(first: float, last: float, points: int) -> range:
    """
    Return the ends of equal steps of whole seconds, on multiples of their length.

    @param points: about how many.
    """
    step = max(1, math.ceil((last - first) / max(1, points)))
    if step > 1:
        step += step % FINEST
    begin = math.floor(first / step) * step + step
    return range(begin, max(math.floor(last / step) * step, begin) + 1, step)


def heat(parts: list[Samples | None]) -> dict[str, Any]:
    """
    Return the counts of samples in common buckets.

    @return: C{bounds}, one more than there are buckets, and C{counts}, a list for each part.
    """
    known = [None if one is None or one.empty else one.whole for one in parts]
    lows = [one.min for one in known if one is not None and one.count]
    highs = [one.max for one in known if one is not None and one.count]
    if not lows:
        return {"bounds": [], "counts": [[] for _ in parts]}
    bounds = _bounds(min(lows), max(highs))
    counts = []
    for one in known:
        if one is None:
            counts.append([0] * (len(bounds) - 1))
            continue
        sums = one.cumulative(tuple(bounds[1:]))
        sums[-1] = one.count
        counts.append([sums[0], *(after - before for before, after in pairwise(sums))])
    return {"bounds": bounds, "counts": counts}


def _bounds(low: float, high: float) -> list[float]:
    if low > 0 and high > low:
        doublings = math.log2(high / low) if high / low < math.inf else 2048
        # A whole number of buckets for each doubling, or of doublings for each bucket.
        size = 1 / max(1, math.floor((MAX_BOUNDS - 2) / max(doublings, 1)))
        size = max(size, math.ceil(doublings / (MAX_BOUNDS - 2)) if doublings > 38 else size)
        first, last = math.floor(math.log2(low) / size), math.ceil(math.log2(high) / size)
        exponents = [at * size for at in range(first, max(last, first + 1) + 1)]
        return [2.0 ** max(-1074.0, min(one, 1023.999)) for one in exponents]
    if low == high:
        return [low, math.nextafter(high, math.inf)] if hasattr(math, "nextafter") else [low, high]
    width = high / (MAX_BOUNDS / 2) - low / (MAX_BOUNDS / 2)
    return [low + at * width for at in range(MAX_BOUNDS // 2)] + [high]
