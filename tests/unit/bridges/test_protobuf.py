"""
The protobuf format: protobuf's own decoder finds the series in it, and in native histograms exactly
the buckets of the distribution.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Distribution, Key, Metadata, MetricKind
from txmetrics_tcp._codec.framing import Frames, read_varint
from txmetrics_tcp._distribution import MAX_BUCKETS, MAX_COUNT, MAX_SCALE
from txmetrics_tcp._model import Total
from txmetrics_tcp.bridges._families import Families, Source
from txmetrics_tcp.bridges._formats import MIN_NATIVE_SCALE, PROTOBUF

SCHEMA = {
    "LabelPair": "1 string name, 2 string value",
    "Gauge": "1 double value",
    "Counter": "1 double value",
    "BucketSpan": "1 sint32 offset, 2 uint32 length",
    "Bucket": "1 uint64 cumulative_count, 2 double upper_bound",
    "Histogram": (
        "1 uint64 sample_count, 2 double sample_sum, 3 *Bucket bucket, 5 sint32 schema,"
        " 6 double zero_threshold, 7 uint64 zero_count, 9 *BucketSpan negative_span,"
        " 10 *sint64 negative_delta, 12 *BucketSpan positive_span, 13 *sint64 positive_delta"
    ),
    "Metric": "1 *LabelPair label, 2 Gauge gauge, 3 Counter counter, 7 Histogram histogram",
    "MetricFamily": "1 string name, 2 string help, 3 int32 type, 4 *Metric metric, 5 string unit",
}
"""
The part of C{io.prometheus.client} that is in use: the number, type and name of each field.  An
asterisk means repeated.
"""


def message_class() -> Any:
    """Return the class of C{MetricFamily}."""
    file = FileDescriptorProto(name="metrics.proto", package="io.prometheus.client")
    # Without the option, proto2 does not pack repeated numbers.
    file.syntax = "proto2"
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            number, type, called = field.split()
            kind = type.removeprefix("*")
            added = message.field.add(name=called, number=int(number))
            added.label = (
                FieldDescriptorProto.LABEL_REPEATED
                if kind != type
                else FieldDescriptorProto.LABEL_OPTIONAL
            )
            if kind in SCHEMA:
                added.type = FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".io.prometheus.client.{kind}"
            else:
                added.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("io.prometheus.client.MetricFamily"))


MetricFamily = message_class()

LIMITS = (-2.5, -1.0, 0.0, 0.25, 1.0, 1e6)


def decoded(
    totals: dict[Key, Total],
    descriptions: list[Metadata] = [],  # noqa: B006
    limits: tuple[float, ...] = LIMITS,
) -> list[Any]:
    """Encode series, and return the families that protobuf decodes."""
    made = Families(lambda metric, family: None)
    collecting = made.collect([Source((), totals, descriptions)])
    while True:
        try:
            next(collecting)
        except StopIteration as done:
            found = done.value
            break
    data, _ = Frames(2**30).feed(b"".join(PROTOBUF.encode(found, lambda family: limits)))
    families = []
    while data:
        size, begin = read_varint(data, 0)
        families.append(MetricFamily.FromString(data[begin : begin + size]))
        data = data[begin + size :]
    return families


def histogram_of(total: Distribution, limits: tuple[float, ...] = LIMITS) -> Any:
    """Encode a histogram, and return the message that protobuf decodes."""
    [family] = decoded({Key(MetricKind.HISTOGRAM, "h"): total}, limits=limits)
    [metric] = family.metric
    return metric.histogram


def buckets(spans: Any, deltas: Any) -> tuple[tuple[int, int], ...]:
    """Return the index and the count of each bucket that is not empty, as Prometheus reads them."""
    found = []
    remaining = iter(deltas)
    index = count = 0
    for span in spans:
        index += span.offset
        for _ in range(span.length):
            count += next(remaining)
            if count:
                # Prometheus' index is that of the upper limit.
                found.append((index - 1, count))
            index += 1
    assert not list(remaining)
    return tuple(found)


COUNTS = st.sampled_from([1, 63, 64, 2**31, 2**32, 2**56]) | st.integers(1, 2**56)
"""Such that the sum of a hundred is at most 2**63."""


@st.composite
def sides(draw: st.DrawFn, scale: int) -> list[tuple[int, int]]:
    """Return buckets with gaps of all sizes, of positive or negative samples."""
    lowest, highest = int(-1074 * 2.0**scale), int(1023 * 2.0**scale)
    index = draw(st.integers(lowest, highest))
    found = []
    for gap in draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 200]), max_size=40)):
        index += gap
        if index > highest:
            break
        found.append((index, draw(COUNTS)))
        index += 1
    return found


@st.composite
def distributions(draw: st.DrawFn) -> Distribution:
    scale = draw(st.integers(MIN_NATIVE_SCALE, MAX_SCALE))
    return Distribution.from_buckets(
        *(scale, draw(sides(scale)), draw(sides(scale))),
        sum=draw(st.floats(allow_nan=False)),
        min=-1.0,
        max=1.0,
        zeros=draw(st.integers(0, 3) | COUNTS),
    )


class NativeHistogramTests(SynchronousTestCase):
    def check(self, total: Distribution) -> None:
        found = histogram_of(total)
        self.assertEqual(found.sample_count, total.count)
        self.assertEqual(found.sample_sum, total.sum)
        self.assertEqual((found.schema, found.zero_threshold), (total.scale, 0.0))
        self.assertEqual(found.zero_count, total.zeros)
        self.assertEqual(buckets(found.positive_span, found.positive_delta), total.positive)
        self.assertEqual(buckets(found.negative_span, found.negative_delta), total.negative)

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(Distribution.of))
    def test_samples(self, total: Distribution) -> None:
        """A native histogram has exactly the buckets, counts, sum and scale of a distribution."""
        self.check(total)

    @given(st.lists(st.integers(0, 200), max_size=100))
    def test_neighbors(self, indices: list[int]) -> None:
        """Samples in neighboring buckets, too."""
        self.check(Distribution.of([2 ** (index / 32) for index in indices]))

    def test_fullSide(self) -> None:
        """A distribution with the maximum number of buckets, and a gap after each, is exact."""
        found = [(5 * index, 2**52 - index) for index in range(MAX_BUCKETS)]
        total = Distribution.from_buckets(5, found, found, sum=1.0, min=1.0, max=2.0)
        self.check(total)

    def test_countsTooLarge(self) -> None:
        """
        Counts that native histograms cannot have are only in classic buckets, limited to 64 bits.
        """
        for counts in (2**63 - 2, 1, True), (2**63 - 1, 1, False), (MAX_COUNT, MAX_COUNT, False):
            first, second, native = counts
            found = [(-1, first), (40, second)]
            total = Distribution.from_buckets(5, found, sum=1.0, min=1.0, max=2.0)
            encoded = histogram_of(total, (1.0, 8.0))
            self.assertEqual(bool(encoded.positive_span), native)
            self.assertEqual(encoded.sample_count, min(first + second, MAX_COUNT))
            self.assertEqual(
                [one.cumulative_count for one in encoded.bucket], [first, encoded.sample_count]
            )

    def test_scaleTooLow(self) -> None:
        """A scale that native histograms cannot have is only in classic buckets."""
        for scale, native in (-4, True), (-5, False):
            total = Distribution.from_buckets(scale, [(0, 1)], sum=1.5, min=1.5, max=1.5)
            self.assertEqual(bool(histogram_of(total).positive_span), native)

    def test_shortGaps(self) -> None:
        """Up to two empty buckets do not end a span; three do."""
        for gap, spans in (0, 1), (1, 1), (2, 1), (3, 2):
            total = Distribution.from_buckets(5, [(7, 3), (8 + gap, 2)], sum=1, min=1, max=2)
            encoded = histogram_of(total)
            self.assertEqual(len(encoded.positive_span), spans)
            self.assertEqual(buckets(encoded.positive_span, encoded.positive_delta), total.positive)

    def test_empty(self) -> None:
        """A histogram without samples has a span, which marks it as native."""
        for total in Distribution.EMPTY, Distribution.of([float("nan")]):
            encoded = histogram_of(total)
            self.assertEqual([one.length for one in encoded.positive_span], [0])
            self.check(total)

    @given(distributions())
    def test_classicBuckets(self, total: Distribution) -> None:
        """Classic buckets are cumulative and those of the distribution, in order."""
        encoded = histogram_of(total)
        self.assertEqual([one.upper_bound for one in encoded.bucket], list(LIMITS))
        counts = [one.cumulative_count for one in encoded.bucket]
        self.assertEqual(counts, total.cumulative(LIMITS))
        self.assertEqual(counts, sorted(counts))
        self.check(total)


class MetricTests(SynchronousTestCase):
    @given(
        st.dictionaries(st.text("abc", min_size=1), st.text(min_size=1), max_size=3), st.floats()
    )
    def test_labels(self, labels: dict[str, str], value: float) -> None:
        """Labels, gauges and counters are decoded as they are."""
        pairs = tuple(sorted(labels.items()))
        gauge, counter = decoded(
            {
                Key(MetricKind.GAUGE, "g", pairs): value,
                Key(MetricKind.COUNTER, "c", pairs): 2**64 - 1,
            }
        )
        self.assertEqual((gauge.name, gauge.type), ("g", 1))
        self.assertEqual((counter.name, counter.type), ("c_total", 0))
        for family in gauge, counter:
            [metric] = family.metric
            self.assertEqual(tuple((one.name, one.value) for one in metric.label), pairs)
        self.assertEqual(repr(gauge.metric[0].gauge.value), repr(value))
        self.assertEqual(counter.metric[0].counter.value, 2.0**64)

    def test_aboutFamily(self) -> None:
        """A family has its help, its type, and the unit that its name ends with."""
        about = Metadata(MetricKind.HISTOGRAM, "h_seconds", "seconds", "Time: é")
        [family] = decoded({Key(MetricKind.HISTOGRAM, "h_seconds"): Distribution.EMPTY}, [about])
        self.assertEqual(
            (family.name, family.help, family.type, family.unit),
            ("h_seconds", "Time: é", 4, "seconds"),
        )

    def test_slices(self) -> None:
        """A family of more series than a slice is one message, with each series once."""
        keys = [Key(MetricKind.GAUGE, "g", (("n", str(n)),)) for n in range(1000)]
        [family] = decoded({key: float(n) for n, key in enumerate(keys)})
        self.assertEqual([one.gauge.value for one in family.metric], list(range(1000)))
