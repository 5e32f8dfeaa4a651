"""
The samples of a histogram in bounded memory: the distribution of all, and recent ones by interval.

Up to `MAX_EXACT` samples are kept as they are.  More samples are counted in a `Distribution`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from txmetrics_tcp._distribution import MIN_SCALE, Distribution
from txmetrics_tcp._view.memory import BUCKET_BYTES, Budget

MAX_EXACT = 512
"""The maximum number of samples that are kept as they are."""

WINDOWS = (10, 60, 300)
"""The available windows, in seconds."""

# For each window, the length of an interval in seconds and the number of intervals kept.  A
# summary covers the window and up to one interval more.
_LEVELS = tuple((window // 5, 6) for window in WINDOWS)

FINEST = _LEVELS[0][0]
"""The length in seconds of the shortest interval."""

_EMPTY = Distribution.EMPTY

_COARSEST = Distribution.from_buckets(MIN_SCALE, (), sum=0.0, min=0.0, max=0.0)
"""No samples.  Merged with others, it leaves their count, sum and extremes in a few buckets."""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    Statistics of samples.

    A percentile is one of the samples, or differs by at most 1.1 percent from one, if all samples
    are within 30 doublings.  Percentiles are NaN if the memory for samples did not suffice.

    @ivar count: the number of finite samples.
    @ivar sum: the sum of the finite samples; infinite if it overflows.
    @ivar not_finite: the number of infinite and NaN samples.  All other fields ignore them.
    @ivar mean: the average; NaN without samples.  It is finite, even if the sum overflows.
    @ivar partial: whether samples of the window are missing: dropped, or recorded between two
        connections.  Percentiles and other fields are those of the received samples.
    """

    count: int
    sum: float
    min: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    not_finite: int = 0
    mean: float = math.nan
    partial: bool = False


PERCENTILES = ("min", "p50", "p90", "p99", "p999", "max")
"""The fields of a `Summary` that are shown as columns, in display order."""

PARTIAL = "*"
"""Shown before a percentile of a partial summary."""

PARTIAL_NOTE = f"{PARTIAL} some samples missing"
"""Shown where a percentile is marked."""

QUANTILES = (0.5, 0.9, 0.99, 0.999)
"""Those of p50, p90, p99 and p999."""


class Samples:
    """
    Some samples of one or more series.

    @ivar exact: finite samples as they are; None if there are too many, or after `forget`.
    @ivar distribution: all other samples.
    @ivar known: whether percentiles are known; False after `forget`.
    @ivar partial: whether further samples are missing.
    """

    __slots__ = ("distribution", "exact", "known", "partial")

    def __init__(self, distribution: Distribution | None = None) -> None:
        """
        @param distribution: the distribution of the samples; by default there are none.
        """
        self.exact: array[float] | None = array("d") if distribution is None else None
        self.distribution: Distribution = distribution or _EMPTY
        self.known: bool = True
        self.partial: bool = False

    @classmethod
    def of(cls, parts: Iterable[Samples]) -> Samples:
        """Return the samples of several parts, which are left unchanged."""
        whole = cls()
        exact = array("d")
        distributions = []
        few = True
        for part in parts:
            if part.exact is None:
                few = False
            else:
                exact.extend(part.exact)
            if part.distribution is not _EMPTY:
                distributions.append(part.distribution)
            whole.known = whole.known and part.known
            whole.partial = whole.partial or part.partial
        if distributions:
            whole.distribution = Distribution.merge(distributions)
        if few and len(exact) <= MAX_EXACT:
            whole.exact = exact
        else:
            whole.exact = None
            if exact:
                whole.distribution = whole.distribution.with_samples(exact)
        return whole

    @property
    def whole(self) -> Distribution:
        """The distribution of all samples."""
        return self.distribution.with_samples(self.exact) if self.exact else self.distribution

    @property
    def empty(self) -> bool:
        distribution = self.distribution
        return not (self.exact or distribution.count or distribution.not_finite)

    @property
    def size(self) -> int:
        """The approximate size in memory that a budget has to provide, in bytes."""
        if self.exact is not None:
            return 8 * len(self.exact)
        return BUCKET_BYTES * self.distribution.occupied if self.known else 0

    def add(self, samples: Sequence[float]) -> int:
        """
        Add samples of any value, including infinities and NaN.

        @return: the increase of `size`.
        """
        exact = self.exact
        if exact is None or len(exact) + len(samples) > MAX_EXACT:
            before = self.size
            self.count()
            self.distribution = self.distribution.with_samples(samples)
            return self.size - before
        if not math.isfinite(sum(samples)):
            finite = [one for one in samples if math.isfinite(one)]
            odd = len(samples) - len(finite)
            self.distribution = self.distribution.with_repeated(math.nan, odd)
            samples = finite
        exact.extend(samples)
        return 8 * len(samples)

    def count(self) -> None:
        """Count exact samples in the distribution."""
        self.distribution, self.exact = self.whole, None

    def merge(self, other: Samples) -> int:
        """
        Add the samples of another part, which is left unchanged.

        @return: the increase of `size`.
        """
        exact, more = self.exact, other.exact
        if exact is None or more is None or len(exact) + len(more) > MAX_EXACT:
            before = self.size
            if not other.known:
                self.forget()
            self.count()
            self.distribution = Distribution.merge([self.distribution, other.whole])
            return self.size - before
        exact.extend(more)
        if other.distribution is not _EMPTY:
            self.distribution = Distribution.merge([self.distribution, other.distribution])
        return 8 * len(more)

    def forget(self) -> None:
        """Discard the samples.  Their count, sum and extremes stay."""
        if self.known:
            self.count()
            self.distribution = Distribution.merge([self.distribution, _COARSEST])
            self.known = False

    def summary(self) -> Summary:
        """Return the statistics; unknown ones are NaN."""
        distribution = self.distribution
        odd, partial = distribution.not_finite, self.partial
        if self.exact:
            ordered = sorted(self.exact)
            count = len(ordered)
            low, high, total = ordered[0], ordered[-1], sum(ordered)
            p50, p90, p99, p999 = (ordered[int(one * (count - 1))] for one in QUANTILES)
            mean = total / count
            if not math.isfinite(mean):
                mean = sum(one / count for one in ordered)
        else:
            count = distribution.count
            low, high, total = distribution.min, distribution.max, distribution.sum
            p50 = p90 = p99 = p999 = math.nan
            if count and self.known:
                p50, p90, p99, p999 = distribution.quantiles(QUANTILES)
            mean = distribution.mean
        mean = min(max(mean, low), high)
        return Summary(count, total, low, p50, p90, p99, p999, high, odd, mean, partial)


def _level(window: float) -> int:
    """Return the index of the level for a window."""
    return next((at for at, one in enumerate(WINDOWS) if one >= window), -1)


def covers(window: float, now: float, second: float) -> bool:
    """Whether the samples of a window include those of an earlier second."""
    length = _LEVELS[_level(window)][0]
    return second // length * length + length > now - window


class Windows:
    """
    The samples of a series: recent ones by interval, and all of them.

    Times are whole seconds on any clock.  If the budget does not suffice, all samples so far are
    discarded, and percentiles that include them are NaN.

    @ivar since: the second of the first sample or total.
    @ivar lost_at: the second in which a total last showed that samples were lost.
    """

    __slots__ = (
        "_all",
        "_begin",
        "_budget",
        "_levels",
        "_open",
        "_recent",
        "_size",
        "lost_at",
        "since",
    )

    def __init__(self, budget: Budget, second: int = 0) -> None:
        """
        @param budget: the memory for the samples of several series.
        @param second: the current second.
        """
        self.since: int = second
        self.lost_at: float = -math.inf
        self._budget = budget
        self._size = 0
        # All samples, without those of `_recent` and of the open interval.
        self._all = Samples()
        self._open = Samples()
        # The samples of a begun interval of the second level, without those of the open interval.
        # They are added together to the intervals of all levels but the first, and to all samples,
        # which takes a fraction of the time.  `_begin` is its first second.
        self._recent = Samples()
        self._begin = 0
        # For each level, (start, samples) of its intervals, oldest first.  A deque would be ten
        # times as large as such a short list.
        self._levels: tuple[list[tuple[int, Samples]], ...] = tuple([] for _ in _LEVELS)

    def __del__(self) -> None:
        self._budget.give_back(self._size)

    def add(self, samples: Sequence[float]) -> None:
        """Add samples to the open interval."""
        self._account(self._open.add(samples))

    def close(self, start: int) -> None:
        """
        Close the open interval and start another one.

        @param start: the first second of the closed interval, a multiple of `FINEST`.  If the
            interval has been closed before, further samples are added to it.
        """
        done, self._open = self._open, Samples()
        if done.empty:
            return
        grown = -done.size
        begin = start - start % _LEVELS[1][0]
        if begin != self._begin:
            grown += self._close_recent()
            self._begin = begin
        for intervals in self._levels:
            if intervals and intervals[-1][0] > start:
                # The clock went back.
                grown -= sum(part.size for _, part in intervals)
                intervals.clear()
        grown += self._add_to(0, start, done)
        grown += self._recent.merge(done)
        self._account(grown)

    def _close_recent(self) -> int:
        """
        Add the recent samples to the intervals of all levels but the first, and to all samples.

        @return: the increase of the size of the samples.
        """
        done, self._recent = self._recent, Samples()
        if done.empty:
            return 0
        grown = self._all.merge(done) - done.size
        for level in range(1, len(_LEVELS)):
            grown += self._add_to(level, self._begin, done)
        return grown

    def _add_to(self, level: int, second: int, done: Samples) -> int:
        """
        Add samples to the interval of a level that has a second.

        @return: the increase of the size of the samples.
        """
        length, keep = _LEVELS[level]
        intervals = self._levels[level]
        begin = second - second % length
        grown = 0
        if not intervals or intervals[-1][0] != begin:
            intervals.append((begin, Samples()))
            grown -= sum(part.size for _, part in intervals[:-keep])
            del intervals[:-keep]
        return grown + intervals[-1][1].merge(done)

    def set_total(self, total: Distribution, start: int) -> None:
        """
        Replace the distribution of all samples so far.  Recent samples stay in their intervals.

        @param start: the first second of the open interval, which is closed.
        """
        self.close(start)
        grown = self._close_recent() - self._all.size
        self._all = Samples(total)
        self._account(grown + self._all.size)

    def clear(self) -> None:
        """Discard recent samples; the distribution of all samples stays."""
        self._all.merge(self._recent)
        self._all.merge(self._open)
        self._recent = Samples()
        self._open = Samples()
        for level in self._levels:
            level.clear()
        self.lost_at = -math.inf
        self._account(self._all.size - self._size)

    def _account(self, grown: int) -> None:
        """
        Use or return bytes of the budget; discard all samples if it does not suffice.

        @param grown: the change of the size of the samples, in bytes.
        """
        if self._budget.take(grown):
            self._size += grown
            return
        intervals = (part for level in self._levels for _, part in level)
        for part in (self._all, self._recent, self._open, *intervals):
            part.forget()
        self._budget.give_back(self._size)
        self._size = 0

    def closed(self, after: int) -> list[tuple[int, Samples]]:
        """
        Return the intervals of `FINEST` seconds that have been closed, of the last twelve seconds.

        @param after: return those that start later than this second.
        """
        return [(begin, part) for begin, part in self._levels[0] if begin > after]

    def samples(self, window: float | None, now: float, start: int) -> Samples:
        """
        Return the samples of a window.

        @param window: the length in seconds; None for all time.
        @param now: the end of the window.
        @param start: the first second of the open interval.
        """
        if window is None:
            return Samples.of([self._all, self._recent, self._open])
        number = _level(window)
        length = _LEVELS[number][0]
        since = now - window
        parts = [part for begin, part in self._levels[number] if begin + length > since]
        if number and self._begin - self._begin % length + length > since:
            parts.append(self._recent)
        if start + FINEST > since:
            parts.append(self._open)
        return Samples.of(parts)
