"""
Tests of distributions: buckets, sums, quantiles, and merging.
"""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import bits
from txmetrics_tcp import Bucket, Distribution
from txmetrics_tcp._distribution import (
    LARGEST,
    MAX_BUCKETS,
    MAX_COUNT,
    MAX_SCALE,
    MIN_SCALE,
)

EMPTY = Distribution.EMPTY
INF, NAN = math.inf, math.nan
LEAST = 5e-324
"""The least positive number."""

floats = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 2.0, LEAST, -LEAST, LARGEST, -LARGEST])
batches = st.lists(st.lists(floats, max_size=8), max_size=6)

_random = random.Random(21)
SHAPES = {
    "uniform": lambda: _random.uniform(0.0, 1.0),
    "lognormal": lambda: _random.lognormvariate(-3.0, 1.5),
    "bimodal": lambda: _random.choice([0.01, 3.0]) * _random.uniform(0.9, 1.1),
    "heavy tail": lambda: _random.paretovariate(0.8),
    "constant": lambda: 0.25,
    "negative": lambda: -_random.expovariate(2.0),
    "mixed": lambda: _random.choice([0.0, _random.gauss(0.0, 1.0)]),
    "tiny": lambda: _random.uniform(1.0, 2.0) * 1e-300,
    "huge": lambda: _random.uniform(0.1, 1.0) * 1e300,
    "wide": lambda: 2.0 ** _random.uniform(-15.0, 15.0),
}
"""Each makes samples of a shape; none of them occupies more than `MAX_BUCKETS` on a side."""


def finite(samples: list[float]) -> list[float]:
    return [sample for sample in samples if math.isfinite(sample)]


class BucketTests(SynchronousTestCase):
    @given(floats.filter(lambda x: math.isfinite(x) and x != 0))
    def test_limits(self, sample: float) -> None:
        """A sample is within the limits of its bucket, apart from rounding, at any scale."""
        distribution = Distribution.of([sample])
        for scale in range(MAX_SCALE, MIN_SCALE - 1, -1):
            [bucket] = distribution.buckets()
            rounding = 1e-12 * abs(sample) + 2 * LEAST
            self.assertLessEqual(bucket.lower - rounding, sample)
            self.assertLessEqual(sample, bucket.upper + rounding)
            self.assertEqual((bucket.count, distribution.scale), (1, scale))
            coarse = Distribution.from_buckets(
                max(scale - 1, MIN_SCALE), [], sum=0, min=NAN, max=NAN
            )
            distribution = Distribution.merge([distribution, coarse])

    def test_powersOfTwo(self) -> None:
        """The limit farther from zero belongs to a bucket."""
        for exponent in range(-1074, 1024):
            sample = 2.0**exponent
            self.assertEqual(Distribution.of([sample]).positive, ((exponent * 32 - 1, 1),))
            self.assertEqual(Distribution.of([-sample]).negative, ((exponent * 32 - 1, 1),))
            self.assertEqual(Distribution.of([sample]).buckets()[0].upper, sample)

    def test_order(self) -> None:
        """Buckets are in ascending order; negative samples, zeros and positive ones have some."""
        buckets = Distribution.of([-4.0, -1.0, -1.0, 0.0, -0.0, 0.0, 1.0, 4.0]).buckets()
        self.assertEqual([bucket.count for bucket in buckets], [1, 2, 3, 1, 1])
        self.assertEqual(buckets[2], Bucket(0.0, 0.0, 3))
        for before, after in pairwise(buckets):
            self.assertLess(before.upper, after.lower or LEAST)

    def test_negativeZero(self) -> None:
        """All zeros are the same, in any order."""
        for samples in ([0.0, -0.0], [-0.0, 0.0], [-0.0]):
            distribution = Distribution.of(samples)
            self.assertEqual((repr(distribution.min), repr(distribution.max)), ("0.0", "0.0"))

    def test_notFinite(self) -> None:
        """Infinite and NaN samples have a count of their own, and affect nothing else."""
        distribution = Distribution.of([1.0, INF, -INF, NAN, 3.0]).with_repeated(NAN, 5)
        self.assertEqual((distribution.not_finite, distribution.count), (8, 2))
        self.assertEqual((distribution.sum, distribution.min, distribution.max), (4.0, 1.0, 3.0))
        only = Distribution.of([NAN])
        self.assertEqual((only.count, only.sum, only.buckets()), (0, 0.0, []))
        self.assertNotEqual(only, EMPTY)

    def test_empty(self) -> None:
        for empty in (EMPTY, Distribution.of([]), Distribution.merge([]), EMPTY.with_samples([])):
            self.assertEqual((empty.count, empty.sum, empty.buckets()), (0, 0.0, []))
            for nothing in (empty.min, empty.max, empty.mean, empty.quantile(0.5)):
                self.assertTrue(math.isnan(nothing))
            self.assertEqual(empty, EMPTY)

    def test_manyBuckets(self) -> None:
        """The resolution is halved when either side has more buckets than the maximum."""
        for sign in (1, -1):
            exact = Distribution.of([sign * 2.0 ** ((i + 0.5) / 32) for i in range(MAX_BUCKETS)])
            self.assertEqual((exact.scale, exact.occupied), (MAX_SCALE, MAX_BUCKETS))
            more = exact.with_samples([sign * 2.0**40])
            self.assertEqual(more.scale, MAX_SCALE - 1)
            self.assertEqual(more.occupied, MAX_BUCKETS // 2 + 1)
            self.assertEqual(more.count, MAX_BUCKETS + 1)
        everything = Distribution.of([2.0**i for i in range(-1074, 1024)])
        self.assertLessEqual(everything.occupied, MAX_BUCKETS)
        self.assertEqual(everything.count, 2098)

    def test_countsStop(self) -> None:
        """Counts stop at the greatest number that a stream can carry."""
        distribution = EMPTY
        for sample in (1.0, -1.0, 0.0, NAN):
            for _ in range(3):
                distribution = distribution.with_repeated(sample, MAX_COUNT)
        self.assertEqual([bucket.count for bucket in distribution.buckets()], [MAX_COUNT] * 3)
        self.assertEqual(distribution.not_finite, MAX_COUNT)
        twice = Distribution.merge([distribution, distribution])
        self.assertEqual(twice.buckets(), distribution.buckets())
        self.assertEqual(distribution.count, 3 * MAX_COUNT)

    def test_frozen(self) -> None:
        """A distribution cannot be changed, and can be hashed and pickled."""
        distribution = Distribution.of([1.0, -2.0])
        with self.assertRaises(AttributeError):
            distribution.sum = 5.0  # type: ignore[misc]
        before = distribution.positive
        distribution.with_samples([1.0, 7.0])
        self.assertEqual(distribution.positive, before)
        self.assertEqual(hash(distribution), hash(Distribution.of([1.0, -2.0])))
        self.assertEqual(pickle.loads(pickle.dumps(distribution)), distribution)
        self.assertIn("2 samples, sum -1.0", repr(distribution))

    def test_negativeNumber(self) -> None:
        """A negative number of samples is rejected; zero samples change nothing."""
        with self.assertRaisesRegex(ValueError, "must not be negative, but is -1"):
            EMPTY.with_repeated(1.5, -1)
        self.assertIs(EMPTY.with_repeated(1.5, 0), EMPTY)

    def test_badParts(self) -> None:
        """Parts that no samples can have are rejected."""
        good = {"scale": 5, "positive": [(0, 1)], "sum": 1.5, "min": 1.5, "max": 1.5}
        Distribution.from_buckets(**good)  # type: ignore[arg-type]
        many = [(index, 1) for index in range(MAX_BUCKETS + 1)]
        for bad, why in (
            ({"scale": MAX_SCALE + 1}, "the scale must be from -10 to 5, not 6"),
            ({"scale": MIN_SCALE - 1}, "the scale must be"),
            ({"zeros": -1}, "a count is out of range"),
            ({"not_finite": MAX_COUNT + 1}, "a count is out of range"),
            ({"positive": [(0, 0)]}, "the count of a bucket"),
            ({"positive": [(0, MAX_COUNT + 1)]}, "the count of a bucket"),
            ({"positive": [(1, 1), (0, 1)]}, "not in ascending order"),
            ({"negative": [(1, 1), (1, 1)]}, "not in ascending order"),
            ({"positive": [(1024 * 32, 1)]}, "the index of a bucket is out of range"),
            ({"positive": [(-1074 * 32 - 2, 1)]}, "the index of a bucket is out of range"),
            ({"positive": many}, "1025 buckets are more than 1024"),
            ({"min": 2.0}, "the minimum 2.0 and the maximum 1.5"),
            ({"min": NAN}, "the minimum nan"),
            ({"max": INF}, "the maximum inf"),
            ({"sum": NAN}, "the sum NaN"),
        ):
            with self.assertRaisesRegex(ValueError, why):
                Distribution.from_buckets(**(good | bad))  # type: ignore[arg-type]


class AnyOrderTests(SynchronousTestCase):
    @given(batches, st.randoms(use_true_random=False))
    def test_sameSamples(self, parts: list[list[float]], shuffle: random.Random) -> None:
        """The result depends neither on the order of the samples nor on how they are merged."""
        samples = [sample for part in parts for sample in part]
        expected = bits(Distribution.of(samples))
        added = EMPTY
        for part in parts:
            added = added.with_samples(part)
        merged = Distribution.merge(map(Distribution.of, parts))
        shuffle.shuffle(samples)
        repeated = EMPTY
        for sample, n in Counter(samples).items():
            repeated = repeated.with_repeated(sample, n)
        parsed = Distribution.from_buckets(
            *(merged.scale, merged.positive, merged.negative),
            sum=merged.sum,
            min=merged.min,
            max=merged.max,
            zeros=merged.zeros,
            not_finite=merged.not_finite,
        )
        for distribution in (added, merged, repeated, parsed):
            self.assertEqual(bits(distribution), expected)
        exact = finite(samples)
        self.assertEqual(added.count, len(exact))
        self.assertEqual(sum(bucket.count for bucket in added.buckets()), len(exact))
        if exact:
            self.assertEqual((added.min, added.max), (min(exact), max(exact)))

    def test_scales(self) -> None:
        """Distributions of different resolutions have the lowest one when merged."""
        wide = Distribution.of([2.0**i for i in range(-1000, 1000)])
        narrow = Distribution.of([1.1, 1.2, 1.3])
        self.assertLess(wide.scale, narrow.scale)
        both = Distribution.merge([narrow, wide])
        self.assertEqual(
            bits(both),
            bits(
                Distribution.of([1.1, 1.2, 1.3]).with_samples([2.0**i for i in range(-1000, 1000)])
            ),
        )
        self.assertEqual(both.count, 2003)


class SumTests(SynchronousTestCase):
    @given(st.lists(st.lists(st.floats(-1e100, 1e100), max_size=5), max_size=20))
    def test_cancellation(self, parts: list[list[float]]) -> None:
        """The sum is exact to 1e-9 of the exact one, unless nearly everything cancels out."""
        added = EMPTY
        for part in parts:
            added = added.with_samples(part)
        exact = sum((Fraction(one) for part in parts for one in part), Fraction(0))
        largest = max((abs(one) for part in parts for one in part), default=0.0)
        error = abs(Fraction(added.sum) - exact)
        self.assertLessEqual(error, abs(exact) * Fraction(1e-9) + Fraction(largest) * 2**-90)

    def test_manySmall(self) -> None:
        """Small samples count, even one by one beside a large sum."""
        distribution = Distribution.of([1e9])
        for _ in range(10_000):
            distribution = distribution.with_samples([1e-8])
        self.assertAlmostEqual(distribution.sum - 1e9, 1e-4, places=6)

    def test_overflow(self) -> None:
        """A sum that overflows stays infinite; the mean is still finite."""
        for samples in ([LARGEST] * 2, [LARGEST, LARGEST, -1.0], [1e308] * 1000):
            distribution = Distribution.of(samples)
            self.assertEqual(distribution.sum, INF)
            mean = math.fsum(one / len(samples) for one in samples)
            self.assertLess(abs(distribution.mean / mean - 1), 0.011)
        opposite = Distribution.of([-LARGEST] * 2).with_repeated(LARGEST, 10)
        self.assertEqual(opposite.sum, -INF)
        self.assertEqual(Distribution.merge([opposite, Distribution.of([1.0])]).sum, -INF)
        self.assertEqual(EMPTY.with_repeated(LARGEST, MAX_COUNT).mean, LARGEST)


class QuantileTests(SynchronousTestCase):
    def test_shapes(self) -> None:
        """A quantile differs by at most 1.1 percent from the sample with its rank."""
        for shape, make in SHAPES.items():
            samples = [make() for _ in range(5000)]
            distribution = Distribution.of(samples)
            self.assertEqual(distribution.scale, MAX_SCALE, shape)
            samples.sort()
            for q in (0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0):
                exact = samples[int(q * (len(samples) - 1))]
                error = abs(distribution.quantile(q) - exact)
                self.assertLessEqual(error, 0.011 * abs(exact), (shape, q))
            self.assertEqual(distribution.quantile(0), samples[0])
            self.assertEqual(distribution.quantile(1), samples[-1])
            exact_sum = math.fsum(samples)
            self.assertLessEqual(abs(distribution.sum - exact_sum), 1e-9 * abs(exact_sum), shape)
            self.assertAlmostEqual(distribution.mean / (exact_sum / 5000), 1.0, places=9)

    def test_fewSamples(self) -> None:
        """A quantile is never outside of the samples."""
        self.assertEqual(Distribution.of([7.3]).quantiles([0, 0.5, 0.99, 1]), [7.3] * 4)
        self.assertEqual(Distribution.of([7.3] * 9).quantiles([0, 0.5, 0.99, 1]), [7.3] * 4)

    def test_outOfRange(self) -> None:
        for q in (-0.1, 1.1, NAN, 99):
            with self.assertRaisesRegex(ValueError, f"a quantile is from 0 to 1, not {q}"):
                Distribution.of([1.0]).quantile(q)


class CumulativeTests(SynchronousTestCase):
    scales = st.integers(MIN_SCALE, MAX_SCALE)
    # Mostly few doublings, so that limits and samples are often in neighboring buckets.
    exponents = st.integers(-2, 2) | st.integers(-1074, 1023)
    near = st.floats(-2.0, 2.0)

    def at_scale(self, samples: list[float], scale: int) -> Distribution:
        """Return the distribution of samples at a scale, or at a lower one if it needs that."""
        coarse = Distribution.from_buckets(scale, [], sum=0, min=NAN, max=NAN)
        return Distribution.merge([Distribution.of(samples), coarse])

    def expected(self, distribution: Distribution, limit: float) -> int:
        """Count the buckets that have numbers up to a limit, one after another."""
        width = 2.0**distribution.scale
        place = math.log2(abs(limit)) if limit and math.isfinite(limit) else abs(limit) and INF
        up, down = distribution.positive, distribution.negative
        if limit < 0.0:
            return sum(count for index, count in down if index + 1 >= place * width)
        found = sum(count for _, count in down) + distribution.zeros
        return found + sum(n for index, n in up if limit > 0.0 and index < place * width)

    @given(
        st.lists(floats | near),
        st.lists(floats.filter(lambda x: x == x) | near, unique=True),
        scales,
    )
    def test_buckets(self, samples: list[float], limits: list[float], scale: int) -> None:
        """The bucket that a limit is in counts as a whole, at any scale; zeros count at zero."""
        distribution = self.at_scale(samples, scale)
        found = distribution.cumulative(tuple(sorted(limits)))
        self.assertEqual(found, [self.expected(distribution, one) for one in sorted(limits)])
        self.assertEqual(found, sorted(found))
        self.assertEqual(distribution.cumulative((-INF, INF)), [0, distribution.count])

    @given(
        st.lists(exponents.map(lambda n: 2.0**n) | st.just(0.0), max_size=32),
        st.lists(exponents, unique=True),
        st.integers(0, MAX_SCALE),
    )
    def test_powersOfTwo(self, sizes: list[float], exponents: list[int], scale: int) -> None:
        """At powers of two, which limit buckets, the counts are those of the samples."""
        samples = [size * (-1) ** number for number, size in enumerate(sizes)]
        distribution = self.at_scale(samples, scale)
        self.assertEqual(distribution.scale, scale)
        powers = [2.0**n for n in exponents]
        limits = tuple(sorted([0.0, *powers, *(-power for power in powers)]))
        exact = [sum(sample <= limit for sample in samples) for limit in limits]
        self.assertEqual(distribution.cumulative(limits), exact)

    def test_samplesNearLimits(self) -> None:
        """All samples up to a limit count, and at most those up to 2.2 percent above it."""
        samples = [_random.lognormvariate(0.0, 2.0) for _ in range(3000)]
        distribution = Distribution.of(samples)
        limits = (0.005, 0.1, 0.25, 1.0, 2.5, 10.0)
        for limit, found in zip(limits, distribution.cumulative(limits), strict=True):
            least = sum(sample <= limit for sample in samples)
            most = sum(sample <= limit * 1.022 for sample in samples)
            self.assertTrue(least <= found <= most, (limit, least, found, most))

    def test_wholeNumbers(self) -> None:
        """Samples that are equal to a limit count."""
        limits = tuple(map(float, range(1, 30)))
        self.assertEqual(Distribution.of(limits).cumulative(limits), list(range(1, 30)))

    def test_nothing(self) -> None:
        self.assertEqual(EMPTY.cumulative((-1.0, 0.0, 1.0, INF)), [0, 0, 0, 0])
        self.assertEqual(Distribution.of([1.0]).cumulative(()), [])


class MinusTests(SynchronousTestCase):
    @given(batches, batches)
    def test_mergedAgain(self, before: list[list[float]], after: list[list[float]]) -> None:
        """
        A difference has the counts of the later samples; merged with the earlier distribution, it
        is the later one.
        """
        earlier = Distribution.merge(map(Distribution.of, before))
        later = Distribution.merge([earlier, *map(Distribution.of, after)])
        added = later.minus(earlier)
        assert added is not None
        expected = Distribution.merge(map(Distribution.of, after))
        self.assertEqual(counts(added), counts(expected))
        merged = Distribution.merge([earlier, added])
        self.assertEqual(counts(merged), counts(later))
        self.assertEqual(bits(merged.min), bits(later.min))
        self.assertEqual(bits(merged.max), bits(later.max))
        if math.isfinite(added.sum):
            self.assertTrue(math.isclose(merged.sum, later.sum, abs_tol=1e-9 * largest(later)))
        if added.count:
            self.assertLessEqual(added.min, expected.min)
            self.assertGreaterEqual(added.max, expected.max)

    def test_scales(self) -> None:
        """The counts are exact at the lower of both scales."""
        fine = Distribution.of([1.0, 3.0, -3.0])
        coarse = Distribution.from_buckets(
            2, [(-1, 2), (6, 4)], [(6, 5)], sum=7.0, min=-3.0, max=3.5, zeros=1
        )
        added = coarse.minus(fine)
        assert added is not None
        self.assertEqual((added.scale, added.positive), (2, ((-1, 1), (6, 3))))
        self.assertEqual((added.negative, added.zeros, added.sum), (((6, 4),), 1, 6.0))
        added = Distribution.of([1.0, 3.0, 3.0]).minus(
            Distribution.from_buckets(2, [(6, 1)], sum=3.0, min=3.0, max=3.0)
        )
        assert added is not None
        self.assertEqual((added.scale, added.positive), (2, ((-1, 1), (6, 1))))

    def test_nothingAdded(self) -> None:
        for samples in [], [1.0, -2.0], [0.0], [NAN]:
            one = Distribution.of(samples)
            self.assertIs(Distribution.of(samples).minus(one), EMPTY)
            self.assertIs(one.minus(EMPTY), one)

    def test_extremes(self) -> None:
        """The least and the greatest sample are known if they have changed."""
        earlier = Distribution.of([1.0, 4.0])
        added = Distribution.of([1.0, 4.0, -5.0, 7.0]).minus(earlier)
        assert added is not None
        self.assertEqual((added.min, added.max), (-5.0, 7.0))
        added = Distribution.of([1.0, 4.0, 2.0, 3.0]).minus(earlier)
        assert added is not None
        self.assertTrue(1.95 < added.min <= 2.0 and 3.0 <= added.max < 3.07)

    def test_notAPart(self) -> None:
        """There is no difference if the earlier distribution is not a part of the later one."""
        for later, earlier in (
            ([1.0], [1.0, 1.0]),
            ([1.0, 2.0], [4.0]),
            ([-1.0], [-1.0, -1.0]),
            ([1.0], [0.0]),
            ([1.0], [1.0, NAN]),
            ([], [1.0]),
            # The same counts, but another minimum or maximum.
            ([1.0], [1.0 - 1e-9]),
            ([1.0 - 1e-9], [1.0]),
        ):
            self.assertIsNone(Distribution.of(later).minus(Distribution.of(earlier)))
        # A sum that has overflowed does not become finite again.
        overflowed = Distribution.from_buckets(5, [(-1, 1)], sum=INF, min=1.0, max=1.0)
        self.assertIsNone(Distribution.of([1.0, 1.0]).minus(overflowed))

    def test_overflow(self) -> None:
        """A sum that has overflowed stays infinite."""
        earlier = Distribution.of([LARGEST, LARGEST])
        added = earlier.with_samples([1.0, 2.0]).minus(earlier)
        assert added is not None
        self.assertEqual((added.count, added.sum), (2, INF))


def counts(distribution: Distribution) -> tuple[object, ...]:
    """Return all that is exact in a distribution."""
    one = distribution
    return one.zeros, one.not_finite, one.scale, one.positive, one.negative


def largest(distribution: Distribution) -> float:
    """Return the largest absolute value that a sum of the samples may have had."""
    if not distribution.count:
        return 0.0
    return max(abs(distribution.min), abs(distribution.max)) * distribution.count
