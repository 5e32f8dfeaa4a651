"""
Distributions of samples in bounded memory, over all time and over recent windows.

Up to `MAX_EXACT` samples are stored exactly.  More samples go into a DDSketch, whose percentiles
have a relative error of at most one percent.  DDSketch comes with the extra ``sketch``; without it,
percentiles are NaN.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from txmetrics_tcp._view.memory import Budget

if TYPE_CHECKING:
    from ddsketch.ddsketch import BaseDDSketch
    from ddsketch.mapping import LogarithmicMapping

ACCURACY = 0.01
"""The maximum relative error of a percentile."""

MAX_BINS = 1024
"""
The maximum number of bins of a sketch for positive samples, and also for negative samples.  This
suffices for samples that differ by a factor of 10**8; beyond that, low percentiles lose accuracy.
"""

MAX_EXACT = 512
"""The maximum number of samples that are stored exactly, without a sketch."""

_BIN = 24
"""The approximate size of a bin in memory, in bytes."""

WINDOWS = (10, 60, 300)
"""The available windows, in seconds."""

# For each window, the length of an interval in seconds and the number of intervals kept.  A
# summary covers the window and up to one interval more.
_LEVELS = tuple((window // 5, 6) for window in WINDOWS)

FINEST = _LEVELS[0][0]
"""The length in seconds of the shortest interval."""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    Statistics of samples.

    A percentile is one of the samples, or within one percent of it.  Percentiles are NaN without
    the extra ``sketch``.

    @ivar count: the number of finite samples.
    @ivar sum: the sum of the finite samples; infinite if it overflows.
    @ivar not_finite: the number of infinite and NaN samples.  All other fields ignore them.
    @ivar mean: the average; NaN without samples.  It is finite, even if the sum overflows.
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


PERCENTILES = ("min", "p50", "p90", "p99", "p999", "max")
"""The fields of a `Summary` that are shown as columns, in display order."""

QUANTILES = (0.5, 0.9, 0.99, 0.999)


_TINY = 2.0**-100
"""Multiplied by this, the sum of any number of samples is finite."""


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any, Any] | None:
    try:
        from ddsketch.ddsketch import BaseDDSketch
        from ddsketch.mapping import LogarithmicMapping
        from ddsketch.store import CollapsingLowestDenseStore
    except ImportError:
        return None
    return BaseDDSketch, LogarithmicMapping(ACCURACY), CollapsingLowestDenseStore


def has_percentiles() -> bool:
    """Whether the library for percentiles is installed."""
    return _library() is not None


class Distribution:
    """
    The exact count, sum and extremes of samples, and their approximate distribution.

    @ivar exact: the samples, until the sketch replaces them.  Both are None if percentiles are
        unknown: without the library, or after `forget`.
    """

    __slots__ = ("_max", "_min", "_sketch", "_sum", "_tiny_sum", "count", "exact", "not_finite")

    def __init__(self) -> None:
        self.count = 0
        self.not_finite = 0
        self._sum = 0.0
        # The sum multiplied by `_TINY`, for the mean of samples whose sum overflows.
        self._tiny_sum = 0.0
        self._min = math.inf
        self._max = -math.inf
        self.exact: array[float] | None = array("d") if has_percentiles() else None
        self._sketch: BaseDDSketch | None = None

    def add(self, samples: Sequence[float]) -> None:
        """Add samples of any value, including infinities and NaN."""
        finite = [sample for sample in samples if -math.inf < sample < math.inf]
        self.not_finite += len(samples) - len(finite)
        if not finite:
            return
        self.count += len(finite)
        total = sum(finite)
        self._sum += total
        if math.isfinite(total):
            self._tiny_sum += total * _TINY
        else:
            self._tiny_sum += sum(sample * _TINY for sample in finite)
        self._min = min(self._min, min(finite))
        self._max = max(self._max, max(finite))
        if self.exact is not None:
            self.exact.extend(finite)
            if len(self.exact) > MAX_EXACT:
                self._sketch = _sketch_of(self.exact)
                self.exact = None
        elif self._sketch is not None:
            _add(self._sketch, finite)

    def merge(self, other: Distribution) -> None:
        """Add the samples of another distribution, which is left unchanged."""
        self.not_finite += other.not_finite
        if not other.count:
            return
        self.count += other.count
        self._sum += other._sum
        self._tiny_sum += other._tiny_sum
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)
        if other.exact is None and other._sketch is None:
            self.forget()
        elif self.exact is not None:
            if other.exact is not None and len(self.exact) + len(other.exact) <= MAX_EXACT:
                self.exact.extend(other.exact)
                return
            self._sketch = _sketch_of(self.exact)
            self.exact = None
        if self._sketch is not None:
            if other.exact is not None:
                _add(self._sketch, other.exact)
            elif other._sketch is not None:
                self._sketch.merge(other._sketch)

    def forget(self) -> None:
        """Discard the samples.  Their count, sum and extremes stay."""
        self.exact = self._sketch = None

    @property
    def size(self) -> int:
        """The approximate size of the samples, in bytes."""
        if self._sketch is None:
            return 8 * len(self.exact or ())
        sketch: Any = self._sketch
        return _BIN * (len(sketch._store.bins) + len(sketch._negative_store.bins))

    def summary(self) -> Summary:
        """Return the statistics; unknown ones are NaN."""
        if not self.count:
            nan = math.nan
            return Summary(0, 0.0, nan, nan, nan, nan, nan, nan, self.not_finite)
        low, high = self._min, self._max
        p50, p90, p99, p999 = (min(max(value, low), high) for value in self._quantiles())
        total = self._sum
        mean = total / self.count
        if not math.isfinite(total):
            total = self._tiny_sum / _TINY
            mean = min(max(self._tiny_sum / self.count / _TINY, low), high)
        return Summary(self.count, total, low, p50, p90, p99, p999, high, self.not_finite, mean)

    def _quantiles(self) -> Iterable[float]:
        if self.exact is not None:
            ordered = sorted(self.exact)
            return [ordered[int(quantile * (len(ordered) - 1))] for quantile in QUANTILES]
        if self._sketch is not None:
            # The sketch is not empty, so it never returns None.
            return [float(self._sketch.get_quantile_value(one) or 0) for one in QUANTILES]
        return [math.nan] * len(QUANTILES)


def _sketch_of(samples: Iterable[float]) -> BaseDDSketch:
    library = _library()
    assert library is not None
    sketch, mapping, store = library
    made: BaseDDSketch = sketch(mapping, store(MAX_BINS), store(MAX_BINS), 0.0)
    _add(made, samples)
    return made


def _add(sketch: BaseDDSketch, samples: Iterable[float]) -> None:
    # Adding all samples of a bin at once takes half the time of adding each.
    library = _library()
    assert library is not None
    mapping: LogarithmicMapping = library[1]
    least, most = mapping.min_possible, mapping.max_possible
    key_of, value_of = mapping.key, mapping.value
    zeros = 0
    positive: list[int] = []
    negative: list[int] = []
    for sample in samples:
        if sample > least:
            positive.append(key_of(sample if sample < most else most))
        elif sample < -least:
            negative.append(key_of(-sample if sample > -most else most))
        else:
            zeros += 1
    for key, number in Counter(positive).items():
        sketch.add(value_of(key), number)
    for key, number in Counter(negative).items():
        sketch.add(-value_of(key), number)
    if zeros:
        sketch.add(0.0, zeros)


def _merge(part: Distribution, other: Distribution) -> int:
    """Add all samples of another distribution; return by how many bytes the first one grows."""
    before = part.size
    part.merge(other)
    return part.size - before


class Windows:
    """
    The samples of a series: recent ones by interval, and all of them.

    Times are whole seconds on any clock.  If the budget does not suffice, all samples so far are
    discarded, and percentiles that include them are NaN.
    """

    __slots__ = ("_all", "_budget", "_levels", "_open", "_size")

    def __init__(self, budget: Budget) -> None:
        """
        @param budget: the memory for the samples of several series.
        """
        self._budget = budget
        self._size = 0
        self._all = Distribution()
        self._open = Distribution()
        # For each level, (start, samples) of its intervals, oldest first.  A deque would be ten
        # times as large as such a short list.
        self._levels: tuple[list[tuple[int, Distribution]], ...] = tuple([] for _ in _LEVELS)

    def __del__(self) -> None:
        self._budget.give_back(self._size)

    def add(self, samples: Sequence[float]) -> None:
        """Add samples to the open interval."""
        before = self._open.size
        self._open.add(samples)
        self._account(self._open.size - before)

    def close(self, start: int) -> None:
        """
        Close the open interval and start another one.

        @param start: the first second of the closed interval, a multiple of `FINEST`.
        """
        done, self._open = self._open, Distribution()
        if not (done.count or done.not_finite):
            return
        grown = _merge(self._all, done) - done.size
        for (length, keep), level in zip(_LEVELS, self._levels, strict=True):
            begin = start - start % length
            if level and level[-1][0] > begin:
                # The clock went back.
                grown -= sum(part.size for _, part in level)
                level.clear()
            if not level or level[-1][0] != begin:
                level.append((begin, Distribution()))
                grown -= sum(part.size for _, part in level[:-keep])
                del level[:-keep]
            grown += _merge(level[-1][1], done)
        self._account(grown)

    def _account(self, grown: int) -> None:
        """
        Use or return bytes of the budget; discard all samples if it does not suffice.

        @param grown: the change of the size of the samples, in bytes.
        """
        if self._budget.take(grown):
            self._size += grown
            return
        for part in (self._all, self._open, *(part for level in self._levels for _, part in level)):
            part.forget()
        self._budget.give_back(self._size)
        self._size = 0

    def summary(self, window: float | None, now: float, start: int) -> Summary:
        """
        Return the statistics of a window.

        @param window: the length in seconds; None for all time.
        @param now: the end of the window.
        @param start: the first second of the open interval.
        """
        whole = Distribution()
        if window is None:
            whole.merge(self._all)
            whole.merge(self._open)
            return whole.summary()
        number = next((at for at, one in enumerate(WINDOWS) if one >= window), -1)
        length = _LEVELS[number][0]
        for begin, part in self._levels[number]:
            if begin + length > now - window:
                whole.merge(part)
        if start + FINEST > now - window:
            whole.merge(self._open)
        return whole.summary()
