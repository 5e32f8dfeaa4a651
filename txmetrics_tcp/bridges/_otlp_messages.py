"""
The messages of OTLP, made of totals.  No I/O, no Twisted.

A message is assembled from serialized parts, so that making it can be interrupted, and so that
labels are encoded once per series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from txmetrics_tcp._codec.framing import varint
from txmetrics_tcp._distribution import MAX_COUNT, Distribution, Side
from txmetrics_tcp._model import Key, Labels, Metadata, MetricKind, Total, Unit
from txmetrics_tcp.bridges._families import SLICE, Sliced, slices

MAX_BUCKETS: Final = 320
"""
The maximum number of buckets of each side of a histogram.  OTLP also transmits empty ones between
others.  At the full resolution, they are 10 doublings.
"""

MIN_SCALE: Final = -4
"""The lowest scale that is sent; Prometheus rejects lower ones, which only a peer can send."""

LARGEST_INTEGER: Final = 2**63 - 1
"""The largest integer of OTLP."""

UNITS: Final[dict[str, str]] = {
    Unit.PERCENT: "%",
    Unit.SECONDS: "s",
    Unit.MILLISECONDS: "ms",
    Unit.MICROSECONDS: "us",
    Unit.NANOSECONDS: "ns",
    Unit.TEBIBYTES: "TiBy",
    Unit.GIBIBYTES: "GiBy",
    Unit.MEBIBYTES: "MiBy",
    Unit.KIBIBYTES: "KiBy",
    Unit.BYTES: "By",
    Unit.TERABITS_PER_SECOND: "Tbit/s",
    Unit.GIGABITS_PER_SECOND: "Gbit/s",
    Unit.MEGABITS_PER_SECOND: "Mbit/s",
    Unit.KILOBITS_PER_SECOND: "kbit/s",
    Unit.BITS_PER_SECOND: "bit/s",
    Unit.COUNT_PER_SECOND: "1/s",
}
"""
The units in UCUM.  `Unit.COUNT` has none: with "1", Prometheus would append "_ratio" to the name of
a gauge.
"""

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

_BUCKETS_PER_STEP = 16
"""The number of buckets that take about as long as a series without buckets."""


class Resource(NamedTuple):
    """
    What series are about, such as a program.

    @ivar attributes: the attributes that identify it.
    @ivar started_ns: when its totals began, in nanoseconds since the epoch.
    @ivar totals: its series and their totals; not changed while they are encoded.
    @ivar descriptions: the descriptions of its metrics.
    @ivar complete: whether a series that is missing has no total yet.  It began, or begins again
        after it was forgotten, when it was last missing.
    """

    attributes: Labels
    started_ns: int
    totals: Mapping[Key, Total]
    descriptions: Iterable[Metadata]
    complete: bool = False


class PartialSuccess(NamedTuple):
    """
    What a receiver says about a request that it has accepted.

    @ivar rejected: the number of points that it has rejected.
    @ivar message: why, or a warning; may be empty.
    """

    rejected: int
    message: str


def partial_success(body: bytes) -> PartialSuccess:
    """
    Decode the body of a response.

    @raise ValueError: it is not the response of a receiver.
    """
    try:
        found = ExportMetricsServiceResponse.FromString(body).partial_success
    except Exception as error:
        # The exception of protobuf has no base class in common with others.
        raise ValueError("not a response of OTLP") from error
    return PartialSuccess(max(found.rejected_data_points, 0), found.error_message)


class _Series:
    """
    What is known of a series.

    @ivar labels: its encoded labels.
    @ivar started_ns: when its total began, if later than that of others; otherwise, 0.
    @ivar number: the number of the last message that had it.
    @ivar value: its total, or its number of samples, in that message.
    """

    __slots__ = ("labels", "number", "started_ns", "value")

    def __init__(self, labels: bytes) -> None:
        self.labels = labels
        self.started_ns = 0
        self.number = 0
        self.value: int | float = 0


class _Known:
    """
    The series of a resource, in all its messages.

    A total that falls has begun again.  Its new start time is one at which it was known not to have
    begun, or to be greater.
    """

    def __init__(self, started_ns: int) -> None:
        """
        @param started_ns: when most totals began.
        """
        self.started_ns = started_ns
        self._complete = False
        self._series: dict[Key, _Series] = {}
        self._now_ns = 0
        # Of this message, and of the last one that was finished, and its time.
        self._number = 0
        self._finished = 0
        self._finished_ns = 0

    def begin(self, started_ns: int, now_ns: int, complete: bool) -> None:
        """Begin a message."""
        if started_ns != self.started_ns:
            # Another run of the program.
            self._series.clear()
            self.started_ns = started_ns
            self._finished = self._finished_ns = 0
        self._complete = complete
        self._now_ns = now_ns
        self._number += 1

    def finish(self) -> None:
        """End a message with all series."""
        self._finished, self._finished_ns = self._number, self._now_ns

    def keep(self, number: int) -> None:
        """Forget the series that the last message did not have, if there are many."""
        if len(self._series) > 2 * number + SLICE:
            self._series = {
                key: one for key, one in self._series.items() if one.number == self._number
            }

    def __len__(self) -> int:
        return len(self._series)

    def series(
        self, key: Key, value: int | float, encode: Callable[[Labels], bytes]
    ) -> tuple[bytes, int]:
        """
        Return the encoded labels of a series, and when its total began.

        @param value: the total, or the number of samples.
        @param encode: encodes labels.
        """
        one = self._series.get(key)
        if one is None:
            one = self._series[key] = _Series(encode(key.labels))
        missing = self._complete and one.number < self._finished
        if missing or value < one.value:
            one.started_ns = self._finished_ns
        one.number, one.value = self._number, value
        return one.labels, min(max(one.started_ns, self.started_ns), self._now_ns)


class Messages:
    """
    Encodes totals as messages of the type C{ExportMetricsServiceRequest}.

    @ivar left_out: the number of series that the last message left out: they have no name, or a
        histogram that OTLP or Prometheus cannot represent.
    """

    def __init__(self) -> None:
        self.left_out: int = 0
        # By the attributes of the resource.
        self._known: dict[Labels, _Known] = {}

    def request(self, resources: Iterable[Resource | None], now_ns: int) -> Sliced[list[bytes]]:
        """
        Return the parts of a message with all series; none without series.

        @param resources: may be a generator that works in slices, and yields None after each.
        @param now_ns: the time of the totals, in nanoseconds since the epoch.
        """
        pieces: list[bytes] = []
        seen = set()
        left_out = 0
        for resource in resources:
            if resource is None:
                yield
                continue
            seen.add(resource.attributes)
            metrics, invalid = yield from self._metrics(resource, now_ns)
            left_out += invalid
            if metrics:
                scope = [_SCOPE, *metrics]
                head = ResourceMessage(attributes=_attributes(resource.attributes))
                pieces += _field(1, [_whole(1, head.SerializeToString()), *_field(2, scope)])
        for attributes in self._known.keys() - seen:
            del self._known[attributes]
        self.left_out = left_out
        return pieces

    def _metrics(self, resource: Resource, now_ns: int) -> Sliced[tuple[list[bytes], int]]:
        """Return the encoded metrics of a resource, and the number of series left out."""
        # Clocks may be set, and peers may send any time.
        now_ns = max(now_ns, 0)
        started_ns = min(max(resource.started_ns, 0), now_ns)
        about: dict[tuple[MetricKind, str], Metadata] = {}
        for number, metadata in enumerate(resource.descriptions, 1):
            if not number % (4 * SLICE):
                yield
            about.setdefault((metadata.kind, metadata.name), metadata)
        groups: dict[tuple[MetricKind, str], list[tuple[Key, Any]]] = {}
        for items in slices(resource.totals):
            for row in items:
                key = row[0]
                groups.setdefault((key.kind, key.name), []).append(row)
            yield
        known = self._known.setdefault(resource.attributes, _Known(started_ns))
        known.begin(started_ns, now_ns, resource.complete)
        pieces: list[bytes] = []
        left_out = work = 0
        for (kind, name), rows in groups.items():
            if not name:
                left_out += len(rows)
                continue
            encode, tag = _encoding(kind, name, rows)
            data: list[bytes] = []
            first = 0
            while first < len(rows):
                last = first
                while last < len(rows) and work < SLICE:
                    work += _effort(rows[last][1])
                    last += 1
                message, invalid = encode(rows[first:last], known, now_ns)
                left_out += invalid
                data.append(message)
                if work >= SLICE:
                    yield
                    work = 0
                first = last
            if any(data):
                described = about.get((kind, name))
                unit = "" if described is None else UNITS.get(described.unit or "", "")
                text = "" if described is None else described.description
                data.append(_TEMPORALITY.get(tag, b""))
                pieces += _field(2, [_head(name, text, unit), *_field(tag, data)])
        known.finish()
        known.keep(len(resource.totals))
        return pieces, left_out


def _effort(total: Any) -> int:
    """Return how many slots of a slice a total takes."""
    if isinstance(total, Distribution):
        return 1 + total.occupied // _BUCKETS_PER_STEP
    return 1


_GAUGE, _SUM, _EXPONENTIAL = 5, 7, 10
"""The field numbers of data in a metric."""


def _encoding(kind: MetricKind, name: str, rows: list[tuple[Key, Any]]) -> tuple[Any, int]:
    """Return the function that encodes the data of a metric, and its field number."""
    if kind is MetricKind.COUNTER:
        return _counters, _SUM
    if kind is MetricKind.HISTOGRAM:
        return _histograms, _EXPONENTIAL
    # Counters with fractions are gauges here.
    if name.endswith("_total") and all(value >= 0 for _, value in rows):
        return _sums, _SUM
    return _gauges, _GAUGE


_Rows = list[tuple[Key, Any]]


def _counters(rows: _Rows, known: _Known, now_ns: int) -> tuple[bytes, int]:
    data = Sum()
    add = data.data_points.add
    for key, total in rows:
        labels, started_ns = known.series(key, total, _number_labels)
        point = add(start_time_unix_nano=started_ns, time_unix_nano=now_ns)
        if total <= LARGEST_INTEGER:
            point.as_int = total
        else:
            point.as_double = total
        point.MergeFromString(labels)
    return data.SerializeToString(), 0


def _sums(rows: _Rows, known: _Known, now_ns: int) -> tuple[bytes, int]:
    data = Sum()
    add = data.data_points.add
    for key, total in rows:
        labels, started_ns = known.series(key, total, _number_labels)
        point = add(start_time_unix_nano=started_ns, time_unix_nano=now_ns, as_double=total)
        point.MergeFromString(labels)
    return data.SerializeToString(), 0


def _gauges(rows: _Rows, known: _Known, now_ns: int) -> tuple[bytes, int]:
    data = Gauge()
    add = data.data_points.add
    for key, total in rows:
        labels, _ = known.series(key, total, _number_labels)
        point = add(time_unix_nano=now_ns, as_double=total)
        point.MergeFromString(labels)
    return data.SerializeToString(), 0


def _histograms(rows: _Rows, known: _Known, now_ns: int) -> tuple[bytes, int]:
    data = ExponentialHistogram()
    left_out = 0
    for key, total in rows:
        positive, negative = total.sides()
        steps = max(_steps(positive), _steps(negative))
        scale, count = total.scale - steps, total.count
        if scale < MIN_SCALE or count > MAX_COUNT:
            left_out += 1
            continue
        labels, started_ns = known.series(key, count, _histogram_labels)
        point = data.data_points.add(
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            count=count,
            scale=scale,
            zero_count=total.zeros,
        )
        if count:
            point.min, point.max = total.min, total.max
        # A sum that can fall is none for OTLP.
        if not total.min < 0.0:
            point.sum = total.sum
        for side, buckets in (positive, point.positive), (negative, point.negative):
            if side.indices:
                buckets.offset, counts = _dense(side, steps)
                buckets.bucket_counts.extend(counts)
        point.MergeFromString(labels)
    return data.SerializeToString(), left_out


def _steps(side: Side) -> int:
    """Return by how much the scale must be lowered."""
    if not side.indices:
        return 0
    first, last = side.indices[0], side.indices[-1]
    steps = 0
    while (last >> steps) - (first >> steps) >= MAX_BUCKETS:
        steps += 1
    return steps


def _dense(side: Side, steps: int) -> tuple[int, list[int]]:
    """Return the index of the first bucket at a lower scale, and all counts from there."""
    first = side.indices[0] >> steps
    counts = [0] * ((side.indices[-1] >> steps) - first + 1)
    for index, count in zip(side.indices.tolist(), side.counts.tolist(), strict=True):
        counts[(index >> steps) - first] += count
    return first, counts


def _number_labels(labels: Labels) -> bytes:
    return bytes(NumberDataPoint(attributes=_attributes(labels)).SerializeToString())


def _histogram_labels(labels: Labels) -> bytes:
    point = ExponentialHistogramDataPoint(attributes=_attributes(labels))
    return bytes(point.SerializeToString())


def _attributes(labels: Labels) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in labels]


@lru_cache(maxsize=4096)
def _head(name: str, description: str, unit: str) -> bytes:
    return bytes(Metric(name=name, description=description, unit=unit).SerializeToString())


def _whole(number: int, data: bytes) -> bytes:
    """Return a field with serialized data."""
    return b"".join(_field(number, [data]))


def _field(number: int, pieces: list[bytes]) -> list[bytes]:
    """Return a field whose data is in pieces."""
    return [b"%c%b" % (number << 3 | 2, varint(sum(map(len, pieces)))), *pieces]


_SCOPE = ScopeMetrics(scope=InstrumentationScope(name="txmetrics_tcp")).SerializeToString()

_TEMPORALITY = {
    _SUM: Sum(aggregation_temporality=_CUMULATIVE, is_monotonic=True).SerializeToString(),
    _EXPONENTIAL: ExponentialHistogram(aggregation_temporality=_CUMULATIVE).SerializeToString(),
}
"""What follows the points of a metric."""
