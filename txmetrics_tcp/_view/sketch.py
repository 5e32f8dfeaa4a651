"""
How samples are distributed, in little memory: all of them, and those of the last while.

A few samples are kept as they are.  When they become many, they go into a DDSketch: what it says of
a percentile is at most one percent off.  It comes with the extra ``sketch``; without it, count, sum
and extremes are known, and percentiles are NaN.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddsketch.ddsketch import BaseDDSketch
    from ddsketch.mapping import LogarithmicMapping

ACCURACY = 0.01
"""How far off a percentile may be, relative to itself."""

MAX_BINS = 1024
"""
How many bins a sketch has at most, for positive and for negative samples each.  So many are enough
for samples that differ by a factor of 10**8; past that, the percentiles of the smallest suffer.
"""

MAX_EXACT = 512
"""How many samples are kept as they are before they go into a sketch."""

WINDOWS = (10, 60, 300)
"""The windows that are offered, in seconds."""

# For each window the length of an interval, in seconds, and how many are kept: what is told
# of a window is of it and of up to one interval more.
_LEVELS = tuple((window // 5, 6) for window in WINDOWS)

FINEST = _LEVELS[0][0]
"""How many seconds the samples of one interval are from."""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What samples were like.

    Percentiles are one of the samples, or at most one percent away from it.  They are NaN without
    the extra ``sketch``.

    @ivar count: how many samples, those that are infinite or NaN left out.
    @ivar sum: of these.
    @ivar not_finite: how many were infinite or NaN.  They count in nothing else here.
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

    @property
    def mean(self) -> float:
        """The average; NaN without samples."""
        return self.sum / self.count if self.count else math.nan


PERCENTILES = ("min", "p50", "p90", "p99", "p999", "max")
"""The fields of a `Summary` that stand beside one another, in their order."""

QUANTILES = (0.5, 0.9, 0.99, 0.999)


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
    """Whether the library is there that percentiles need."""
    return _library() is not None


class Distribution:
    """Samples: how many, their sum and extremes exactly, and how they are distributed."""

    __slots__ = ("_max", "_min", "_sketch", "_sum", "count", "exact", "not_finite")

    def __init__(self) -> None:
        self.count = 0
        self.not_finite = 0
        self._sum = 0.0
        self._min = math.inf
        self._max = -math.inf
        # The samples, or a sketch of them.
        self.exact: array[float] | None = array("d") if has_percentiles() else None
        self._sketch: BaseDDSketch | None = None

    def add(self, samples: Sequence[float]) -> None:
        """Take samples of any value."""
        finite = [sample for sample in samples if -math.inf < sample < math.inf]
        self.not_finite += len(samples) - len(finite)
        if not finite:
            return
        self.count += len(finite)
        self._sum += sum(finite)
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
        """Take what another has; that one stays as it is."""
        self.not_finite += other.not_finite
        if not other.count:
            return
        self.count += other.count
        self._sum += other._sum
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)
        if self.exact is not None:
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

    def summary(self) -> Summary:
        """What they are like; NaN where nothing can be said."""
        if not self.count:
            nan = math.nan
            return Summary(0, 0.0, nan, nan, nan, nan, nan, nan, self.not_finite)
        low, high = self._min, self._max
        p50, p90, p99, p999 = (min(max(value, low), high) for value in self._quantiles())
        return Summary(self.count, self._sum, low, p50, p90, p99, p999, high, self.not_finite)

    def _quantiles(self) -> Iterable[float]:
        if self.exact is not None:
            ordered = sorted(self.exact)
            return [ordered[int(quantile * (len(ordered) - 1))] for quantile in QUANTILES]
        if self._sketch is not None:
            # Not None, since it is not empty.
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
    # Those of one bin at once, by the value that stands for it: half the time of one by one.
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


class Windows:
    """
    The samples of a series: those of the last while, by intervals, and all.

    Time is counted in whole seconds, on any clock.
    """

    __slots__ = ("_all", "_levels", "_open")

    def __init__(self) -> None:
        self._all = Distribution()
        self._open = Distribution()
        # For each level (start of an interval, its samples), oldest first.  No deques, which are
        # ten times as large as a list as short as this.
        self._levels: tuple[list[tuple[int, Distribution]], ...] = tuple([] for _ in _LEVELS)

    def add(self, samples: Sequence[float]) -> None:
        """Samples of the interval that is open."""
        self._open.add(samples)

    def close(self, start: int) -> None:
        """
        The open interval is over.

        @param start: the second that it began at: a multiple of `FINEST`.
        """
        done, self._open = self._open, Distribution()
        if not (done.count or done.not_finite):
            return
        self._all.merge(done)
        for (length, keep), level in zip(_LEVELS, self._levels, strict=True):
            begin = start - start % length
            if level and level[-1][0] > begin:
                # The clock went back.
                level.clear()
            if not level or level[-1][0] != begin:
                level.append((begin, Distribution()))
                del level[:-keep]
            level[-1][1].merge(done)

    def summary(self, window: float | None, now: float, start: int) -> Summary:
        """
        @param window: how many seconds; None for all.
        @param start: when the open interval began.
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
