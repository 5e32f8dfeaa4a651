"""
The distribution of a histogram's samples: exact counts in exponential buckets.

The buckets are those of OpenTelemetry's exponential histograms and Prometheus' native histograms.
With a scale ``s``, bucket ``i`` holds the samples in ``(2**(i / 2**s), 2**((i + 1) / 2**s)]``:
``2**s`` buckets for each doubling.  Only occupied buckets take memory.  Negative samples have the
same buckets by their absolute value.

A distribution begins with `MAX_SCALE`.  If either side has more than `MAX_BUCKETS` occupied
buckets, pairs of neighbors are merged, which halves the resolution.  The result depends on the
samples only, neither on their order nor on how they were merged.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from math import ceil, inf, isfinite, isinf, log2, nan
from typing import ClassVar, NamedTuple

MAX_SCALE = 5
"""
The scale of a new distribution: 32 buckets for each doubling.  The middle of a bucket differs by at
most 1.1 percent from each sample in it.
"""

MIN_SCALE = -10
"""The scale at which all positive numbers are in three buckets."""

MAX_BUCKETS = 1024
"""
The maximum number of occupied buckets for positive samples, and for negative samples.  Samples that
fill 32 doublings have the full resolution.
"""

MAX_COUNT = 2**64 - 1
"""The maximum count of one bucket.  Further samples in it are not counted."""

LARGEST = sys.float_info.max
"""The largest finite number."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """
    A number of samples between two limits.

    The limit farther from zero belongs to the bucket, the other one to its neighbor.  For samples
    that are zero, both limits are zero.
    """

    lower: float
    upper: float
    count: int


class Side(NamedTuple):
    """
    The occupied buckets of the positive or of the negative samples.  Never changed.

    @ivar indices: in ascending order.
    @ivar counts: the count of each of them, at least one; of 32 bits if all fit.
    """

    indices: array[int]
    counts: array[int]

    def with_counts(self, found: Mapping[int, int]) -> Side:
        """Add counts by index."""
        indices = self.indices
        if len(found) > len(indices):
            return self._with_many(found)
        counts = self.counts[:]
        try:
            for index, count in found.items():
                at = bisect_left(indices, index)
                if at < len(indices) and indices[at] == index:
                    counts[at] += count
                    continue
                if indices is self.indices:
                    indices = indices[:]
                indices.insert(at, index)
                counts.insert(at, count)
        except OverflowError:
            return self._with_many(found)
        return Side(indices, counts)

    def _with_many(self, found: Mapping[int, int]) -> Side:
        """Like `with_counts`; faster for many indices, and for counts of any size."""
        if self.indices:
            together = self.by_index()
            _add(together, found.items())
            found = together
        indices = sorted(found)
        return _packed(indices, list(map(found.__getitem__, indices)))

    def by_index(self) -> dict[int, int]:
        """Return the counts by index."""
        return dict(zip(self.indices.tolist(), self.counts.tolist(), strict=True))

    def cumulative(self, places: Sequence[int], before: int) -> list[int]:
        """
        Return C{before} and the sum of the counts up to each index, in ascending order.
        """
        indices = self.indices
        if not indices:
            return [before] * len(places)
        sums = list(accumulate(self.counts, initial=before))
        # Many places are usually outside of the occupied buckets.
        first, last = bisect_left(places, indices[0]), bisect_left(places, indices[-1])
        found = [before] * first
        found += [sums[bisect_right(indices, place)] for place in places[first:last]]
        return found + [sums[-1]] * (len(places) - last)

    def minus(self, earlier: Side, steps: int, earlier_steps: int) -> Side | None:
        """
        Subtract counts.

        @param steps: how much lower the scale of the result is.
        @param earlier_steps: the same for C{earlier}.
        @return: None if C{earlier} has more samples in a bucket.
        """
        found = _with_side({}, self, steps)
        for index, count in _with_side({}, earlier, earlier_steps).items():
            left = found.pop(index, 0) - count
            if left < 0:
                return None
            if left:
                found[index] = left
        return _EMPTY_SIDE.with_counts(found)

    def at_lower_scale(self, steps: int) -> Side:
        """Merge groups of ``2**steps`` neighbors."""
        return _EMPTY_SIDE.with_counts(_with_side({}, self, steps))


def _packed(indices: list[int], counts: list[int]) -> Side:
    """Return a side in as little memory as possible."""
    try:
        return Side(array("i", indices), array("I", counts))
    except OverflowError:
        return Side(array("i", indices), array("Q", [min(one, MAX_COUNT) for one in counts]))


_EMPTY_SIDE = _packed([], [])


class Distribution:
    """
    The distribution of samples.  Immutable: methods that add samples return another distribution.

    Infinite and NaN samples are counted as `not_finite`; everything else ignores them.

        >>> distribution = Distribution.of([1.0, 2.0, 3.0, 0.0])
        >>> distribution.count, distribution.sum, distribution.min, distribution.max
        (4, 6.0, 0.0, 3.0)
        >>> distribution.quantile(0.5)
        0.989...
        >>> distribution.buckets()[1]
        Bucket(lower=0.978..., upper=1.0, count=1)
    """

    # Not a frozen dataclass, which takes four times as long to make.
    __slots__ = (
        "_max",
        "_min",
        "_negative",
        "_not_finite",
        "_positive",
        "_rest",
        "_scale",
        "_sum",
        "_zeros",
    )

    EMPTY: ClassVar[Distribution]

    def __init__(
        self,
        sum: float,
        min: float,
        max: float,
        zeros: int,
        not_finite: int,
        scale: int,
        positive: Side,
        negative: Side,
        rest: float,
    ) -> None:
        """
        Private: see `EMPTY`, `of`, `merge` and `from_buckets`.

        @param rest: the part of the exact sum that is too small for C{sum}.
        """
        self._sum: float = sum
        self._min: float = min
        self._max: float = max
        self._zeros: int = zeros
        self._not_finite: int = not_finite
        self._scale: int = scale
        self._positive: Side = positive
        self._negative: Side = negative
        self._rest: float = rest

    @classmethod
    def of(cls, samples: Iterable[float]) -> Distribution:
        """Return the distribution of samples."""
        return cls.EMPTY.with_samples(list(map(float, samples)))

    @classmethod
    def from_buckets(
        cls,
        scale: int,
        positive: Sequence[tuple[int, int]],
        negative: Sequence[tuple[int, int]] = (),
        *,
        sum: float,
        min: float,
        max: float,
        zeros: int = 0,
        not_finite: int = 0,
    ) -> Distribution:
        """
        Return a distribution from its parts, which may be those that a peer has sent.

        @param scale: from -10 to 5; see `scale`.
        @param positive: the index and the count of each occupied bucket of positive samples, in
            ascending order of the indices.
        @param negative: the same for negative samples, by their absolute value.
        @raise ValueError: no samples could have this distribution.
        """
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise ValueError(f"the scale must be from {MIN_SCALE} to {MAX_SCALE}, not {scale}")
        if not (0 <= zeros <= MAX_COUNT and 0 <= not_finite <= MAX_COUNT):
            raise ValueError("a count is out of range")
        up, down = _checked_side(scale, positive), _checked_side(scale, negative)
        if not (zeros or positive or negative):
            sum, min, max = 0.0, nan, nan
        elif not -inf < min <= max < inf:
            raise ValueError(f"no samples have the minimum {min} and the maximum {max}")
        elif sum != sum:
            raise ValueError("no samples have the sum NaN")
        return cls(sum, min, max, zeros, not_finite, scale, up, down, 0.0)

    @classmethod
    def merge(cls, distributions: Iterable[Distribution]) -> Distribution:
        """Return the distribution of the samples of several distributions."""
        parts = [one for one in distributions if one is not cls.EMPTY]
        if len(parts) == 1:
            return parts[0]
        positive: dict[int, int] = {}
        negative: dict[int, int] = {}
        scale = min([one.scale for one in parts], default=MAX_SCALE)
        for one in parts:
            positive = _with_side(positive, one._positive, one.scale - scale)
            negative = _with_side(negative, one._negative, one.scale - scale)
        sums = [one.sum for one in parts]
        overflowed = [one for one in sums if not isfinite(one)]
        return cls.EMPTY._plus(
            overflowed[0] if overflowed else _sum([*sums, *(one._rest for one in parts)]),
            # NaN is not equal to itself.
            min([one.min for one in parts if one.min == one.min], default=nan),
            max([one.max for one in parts if one.max == one.max], default=nan),
            zeros=sum(one.zeros for one in parts),
            not_finite=sum(one.not_finite for one in parts),
            scale=scale,
            positive=positive,
            negative=negative,
        )

    @property
    def sum(self) -> float:
        """The sum of the finite samples; infinite if it overflows."""
        return self._sum

    @property
    def min(self) -> float:
        """The least finite sample; NaN without samples."""
        return self._min

    @property
    def max(self) -> float:
        """The greatest finite sample; NaN without samples."""
        return self._max

    @property
    def zeros(self) -> int:
        """The number of samples that are zero."""
        return self._zeros

    @property
    def not_finite(self) -> int:
        """The number of infinite and NaN samples."""
        return self._not_finite

    @property
    def scale(self) -> int:
        """
        There are ``2**scale`` buckets for each doubling of the samples: 32 at the scale 5, with
        which a distribution begins, and half as many at each lower one.  Bucket ``i`` has the
        samples in ``(2**(i / 2**scale), 2**((i + 1) / 2**scale)]``.
        """
        return self._scale

    @property
    def count(self) -> int:
        """The number of finite samples."""
        return self._zeros + sum(self._positive.counts) + sum(self._negative.counts)

    @property
    def mean(self) -> float:
        """
        The average of the finite samples; NaN without samples.  If the sum overflows, it is
        computed from the buckets.
        """
        count = self.count
        if not count:
            return nan
        mean = self._sum / count
        if not isfinite(mean):
            shares = ((one.lower / 2 + one.upper / 2, one.count / count) for one in self.buckets())
            mean = sum(middle * share for middle, share in shares)
        return min(max(mean, self._min), self._max)

    @property
    def positive(self) -> tuple[tuple[int, int], ...]:
        """The index and count of each occupied bucket of positive samples, in ascending order."""
        return tuple(zip(*self._positive, strict=True))

    @property
    def negative(self) -> tuple[tuple[int, int], ...]:
        """The same for negative samples, by their absolute value."""
        return tuple(zip(*self._negative, strict=True))

    def sides(self) -> tuple[Side, Side]:
        """
        Private: return the occupied buckets of positive and of negative samples.  Encoders use it,
        since `positive` and `negative` make an object for each bucket.
        """
        return self._positive, self._negative

    @property
    def occupied(self) -> int:
        """The number of occupied buckets, without that of zeros."""
        return len(self._positive.indices) + len(self._negative.indices)

    def buckets(self) -> list[Bucket]:
        """Return the occupied buckets, in ascending order."""
        limit = self._limit
        return [
            *(Bucket(-limit(i + 1), -limit(i), n) for i, n in reversed(self.negative)),
            *([Bucket(0.0, 0.0, self._zeros)] if self._zeros else ()),
            *(Bucket(limit(i), limit(i + 1), n) for i, n in self.positive),
        ]

    def quantile(self, q: float) -> float:
        """
        Return an approximate quantile: the middle of the bucket of the sample with the rank
        ``int(q * (count - 1))``, between `min` and `max`.

        At the `scale` 5, it differs by at most 1.1 percent from that sample; at each lower one, by
        twice as much.

        @param q: from 0 to 1.
        @return: the quantile; NaN without samples.
        @raise ValueError: C{q} is out of range.
        """
        return self.quantiles([q])[0]

    def quantiles(self, qs: Sequence[float]) -> list[float]:
        """Return several quantiles; see `quantile`."""
        for q in qs:
            if not 0 <= q <= 1:
                raise ValueError(f"a quantile is from 0 to 1, not {q}")
        up, down = self._positive, self._negative
        ranks = list(accumulate(chain(reversed(down.counts), (self._zeros,), up.counts)))
        last = ranks[-1] - 1
        found = []
        for q in qs:
            rank = int(q * last)
            if rank <= 0:
                value = self._min
            elif rank >= last:
                value = self._max
            else:
                at = bisect_right(ranks, rank) - len(down.counts)
                if at < 0:
                    value = -self._middle(down.indices[-at - 1])
                else:
                    value = self._middle(up.indices[at - 1]) if at else 0.0
                value = min(max(value, self._min), self._max)
            found.append(value)
        return found

    def cumulative(self, limits: tuple[float, ...]) -> list[int]:
        """
        Return the number of finite samples up to each limit, approximately: the bucket that a limit
        is in counts as a whole, so that samples that are equal to a limit are counted.

        @param limits: in ascending order.
        """
        down, up = self._negative, self._positive
        below, zeros, above = _places(self._scale, limits)
        negative = sum(down.counts) if down.indices else 0
        found = [negative - nearer for nearer in reversed(down.cumulative(below, 0))]
        found += [negative + self._zeros] * zeros
        return found + up.cumulative(above, negative + self._zeros)

    def with_samples(self, samples: Sequence[float]) -> Distribution:
        """
        Return the distribution with more samples, of any value.  Many at once cost much less than
        one after another.
        """
        if len(samples) == 1:
            return self.with_repeated(samples[0], 1)
        if not samples:
            return self
        total = sum(samples)
        # If the total is finite, so are all samples.
        if isfinite(total) and (least := min(samples)) > 0.0:
            return self._plus(total, least, max(samples), positive=self._by_index(samples))
        finite = [one for one in samples if isfinite(one)]
        return self._plus(
            _sum(finite),
            # Adding zero makes -0.0 positive, so that the order of zeros does not matter.
            min(finite, default=nan) + 0.0,
            max(finite, default=nan) + 0.0,
            zeros=finite.count(0.0),
            not_finite=len(samples) - len(finite),
            positive=self._by_index([one for one in finite if one > 0.0]),
            negative=self._by_index([-one for one in finite if one < 0.0]),
        )

    def with_repeated(self, sample: float, n: int) -> Distribution:
        """
        Return the distribution with the same sample C{n} more times, in one step.

        @raise ValueError: C{n} is negative.
        """
        if n < 1:
            if n < 0:
                raise ValueError(f"the number of samples must not be negative, but is {n}")
            return self
        if not isfinite(sample):
            return self._plus(0.0, nan, nan, not_finite=n)
        if sample == 0.0:
            return self._plus(0.0, 0.0, 0.0, zeros=n)
        found = {ceil(log2(abs(sample)) * 2.0**self._scale) - 1: n}
        if sample > 0.0:
            return self._plus(sample * n, sample, sample, positive=found)
        return self._plus(sample * n, sample, sample, negative=found)

    def minus(self, earlier: Distribution) -> Distribution | None:
        """
        Return the distribution of the samples that were added to an earlier distribution::

            >>> earlier = Distribution.of([1.0, 5.0])
            >>> Distribution.of([1.0, 2.0, 5.0, 8.0]).minus(earlier).positive
            ((31, 1), (95, 1))

        Its counts are exact, at the lower of both scales.  Merged with the earlier distribution, it
        has the minimum and the maximum of this one.  If these have not changed, its own are limits
        of its outermost buckets.

        @return: `EMPTY` if no samples were added; None if the earlier distribution is not a part of
            this one, because it has more samples in a bucket for example.
        """
        if earlier is self.EMPTY:
            return self
        scale = min(self._scale, earlier._scale)
        steps, earlier_steps = self._scale - scale, earlier._scale - scale
        up = self._positive.minus(earlier._positive, steps, earlier_steps)
        down = self._negative.minus(earlier._negative, steps, earlier_steps)
        zeros = self._zeros - earlier._zeros
        not_finite = self._not_finite - earlier._not_finite
        if up is None or down is None or zeros < 0 or not_finite < 0:
            return None
        # Comparisons with NaN are false.
        if self._min > earlier._min or self._max < earlier._max:
            return None
        if not (up.indices or down.indices or zeros):
            return self.EMPTY.with_repeated(nan, not_finite)
        total = self._sum
        if isfinite(total):
            if not isfinite(earlier._sum):
                return None
            total = _sum([total, self._rest, -earlier._sum, -earlier._rest])
        found = Distribution(total, nan, nan, zeros, not_finite, scale, up, down, 0.0)
        buckets = found.buckets()
        least, greatest = buckets[0].lower, buckets[-1].upper
        found._min = self._min if self._min != earlier._min else max(self._min, least)
        found._max = self._max if self._max != earlier._max else min(self._max, greatest)
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Distribution):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self._sum, self._zeros, self._not_finite, self._scale))

    def _compared(self) -> tuple[object, ...]:
        limits = (self._min, self._max) if self._min == self._min else None
        rest = self._zeros, self._not_finite, self._scale, self._positive, self._negative
        return self._sum, limits, *rest

    def __repr__(self) -> str:
        return (
            f"<Distribution of {self.count} samples, sum {self._sum!r}, min {self._min!r},"
            f" max {self._max!r}, not finite {self._not_finite}, scale {self._scale},"
            f" {self.occupied} buckets>"
        )

    def _by_index(self, samples: Sequence[float]) -> dict[int, int]:
        """Count positive samples by the index of their bucket."""
        factor = 2.0**self._scale
        indices = [ceil(log2(one) * factor) - 1 for one in samples]
        if len(indices) > 24:
            return Counter(indices)
        # Faster for a few.
        found: dict[int, int] = {}
        for index in indices:
            found[index] = found.get(index, 0) + 1
        return found

    def _plus(
        self,
        total: float,
        least: float,
        greatest: float,
        *,
        rest: float = 0.0,
        zeros: int = 0,
        not_finite: int = 0,
        scale: int | None = None,
        positive: Mapping[int, int] | None = None,
        negative: Mapping[int, int] | None = None,
    ) -> Distribution:
        """
        Add samples.

        @param total: the sum of the finite samples, together with C{rest}.
        @param least: the least finite sample; NaN for none.
        @param greatest: the greatest finite sample; NaN for none.
        @param scale: the scale of the result and of the indices, at most that of this distribution.
        @param positive: the counts of positive samples by the index of their bucket.
        @param negative: the counts of negative samples.
        """
        # Kahan's and Neumaier's summation: `_rest` keeps what `sum` loses by rounding.
        before = self._sum
        sum = before + total
        if isfinite(sum):
            lost = (before - sum) + total if abs(before) >= abs(total) else (total - sum) + before
            rest += self._rest + lost
            rounded = sum + rest
            sum, rest = rounded, (sum - rounded) + rest if isfinite(rounded) else 0.0
        else:
            # The opposite infinity does not change a sum that has overflowed.
            sum, rest = (before if sum != sum else sum), 0.0
        up, down = self._positive, self._negative
        if scale is None:
            scale = self._scale
        elif steps := self._scale - scale:
            up, down = up.at_lower_scale(steps), down.at_lower_scale(steps)
        if positive:
            up = up.with_counts(positive)
        if negative:
            down = down.with_counts(negative)
        while len(up.indices) > MAX_BUCKETS or len(down.indices) > MAX_BUCKETS:
            up, down = up.at_lower_scale(1), down.at_lower_scale(1)
            scale -= 1
        return Distribution(
            sum,
            # NaN is not less than anything.
            self._min if self._min <= least or least != least else least,
            self._max if self._max >= greatest or greatest != greatest else greatest,
            _added(self._zeros, zeros),
            _added(self._not_finite, not_finite),
            scale,
            up,
            down,
            rest,
        )

    def _limit(self, index: int) -> float:
        """Return the lower limit of a bucket."""
        exponent = index / 2.0**self._scale
        return LARGEST if exponent >= 1024 else float(2.0**exponent)

    def _middle(self, index: int) -> float:
        """Return the geometric middle of a bucket."""
        return float(2.0 ** ((index + 0.5) / 2.0**self._scale))


Distribution.EMPTY = Distribution(0.0, nan, nan, 0, 0, MAX_SCALE, _EMPTY_SIDE, _EMPTY_SIDE, 0.0)


_BEYOND = 2**31
"""A number that is greater than all indices."""


@lru_cache(maxsize=128)
def _places(scale: int, limits: tuple[float, ...]) -> tuple[list[int], int, list[int]]:
    """
    Return where limits are among buckets: for each negative limit, in descending order, the index
    of the bucket before the one that it is in, nearer to zero; the number of limits that are zero;
    for each positive limit, the index of the bucket that it is in.
    """
    width = 2.0**scale
    below, above = [], []
    for limit in limits:
        if limit == 0.0:
            continue
        place = _BEYOND if isinf(limit) else ceil(log2(abs(limit)) * width) - 1
        if limit < 0.0:
            below.append(place - 1)
        else:
            above.append(place)
    return below[::-1], len(limits) - len(below) - len(above), above


def _added(count: int, more: int) -> int:
    count += more
    return count if count <= MAX_COUNT else MAX_COUNT


def _add(found: dict[int, int], counts: Iterable[tuple[int, int]]) -> None:
    """Add counts to counts by index.  They may exceed `MAX_COUNT`."""
    get = found.get
    for index, count in counts:
        found[index] = get(index, 0) + count


def _with_side(found: dict[int, int], side: Side, steps: int) -> dict[int, int]:
    """Add the counts of a side to counts by index, at a scale that is lower by C{steps}."""
    if not steps:
        if not found:
            return side.by_index()
        _add(found, zip(*side, strict=True))
    else:
        _add(found, zip([index >> steps for index in side.indices], side.counts, strict=True))
    return found


def _sum(samples: list[float]) -> float:
    """Return the sum of finite samples, rounded once."""
    try:
        return math.fsum(samples)
    except OverflowError:
        return sum(samples)


def _checked_side(scale: int, buckets: Sequence[tuple[int, int]]) -> Side:
    indices = [index for index, _ in buckets]
    counts = [count for _, count in buckets]
    if len(buckets) > MAX_BUCKETS:
        raise ValueError(f"{len(buckets)} buckets are more than {MAX_BUCKETS}")
    if any(index >= after for index, after in pairwise(indices)):
        raise ValueError("the indices of buckets are not in ascending order")
    width = 2.0**scale
    if indices and not ceil(-1074 * width) - 1 <= indices[0] <= indices[-1] < 1024 * width:
        raise ValueError("the index of a bucket is out of range")
    if not all(0 < count <= MAX_COUNT for count in counts):
        raise ValueError("the count of a bucket is out of range")
    return _packed(indices, counts) if indices else _EMPTY_SIDE
