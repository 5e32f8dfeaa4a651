"""
Messages of OTLP: what receivers decode from totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf, isnan, nan
from typing import Any
from unittest import skipIf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from txmetrics_tcp import Distribution, Key, Metadata, MetricKind, Unit
from txmetrics_tcp._model import Total

missing = needs("opentelemetry.proto")
if not missing:
    from tests.otlp import Series, decoded, named, partial, series_in
    from txmetrics_tcp.bridges._otlp_messages import (
        MAX_BUCKETS,
        UNITS,
        Messages,
        Resource,
        partial_success,
    )

STARTED, NOW = 1_700_000_000_000_000_000, 1_700_000_060_000_000_000
CUMULATIVE = 2


def key(kind: MetricKind, name: str, **labels: str) -> Key:
    return Key.of(kind, name, labels)


def counter(name: str, **labels: str) -> Key:
    return key(MetricKind.COUNTER, name, **labels)


def gauge(name: str, **labels: str) -> Key:
    return key(MetricKind.GAUGE, name, **labels)


def histogram(name: str, **labels: str) -> Key:
    return key(MetricKind.HISTOGRAM, name, **labels)


@skipIf(missing, missing)
class MessagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.messages = Messages()
        self.metadata: list[Metadata] = []

    def resource(self, totals: dict[Key, Total], instance: str = "a") -> Resource:
        attributes = (("service.instance.id", instance), ("service.name", "shop"))
        return Resource(attributes, STARTED, totals, self.metadata)

    def pieces(self, resources: Iterable[Resource | None], now: int = NOW) -> list[bytes]:
        self.slices = 0
        work = self.messages.request(resources, now)
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: list[bytes] = done.value
                return result
            self.slices += 1

    def request(self, *resources: Resource) -> Any:
        return decoded(b"".join(self.pieces(resources)))

    def one(self, series: Key, total: Total) -> Series:
        """Return the only series of a request."""
        (found,) = series_in(self.request(self.resource({series: total})))
        return found

    def test_counter(self) -> None:
        """A counter is a monotonic, cumulative sum of integers."""
        found = self.one(counter("requests_total", route="/", method="GET"), 5)
        self.assertEqual(found.resource, {"service.instance.id": "a", "service.name": "shop"})
        self.assertEqual(found.labels, {"route": "/", "method": "GET"})
        self.assertEqual((found.metric.name, found.metric.unit), ("requests_total", ""))
        data = found.metric.sum
        self.assertEqual((data.aggregation_temporality, data.is_monotonic), (CUMULATIVE, True))
        point = found.point
        self.assertEqual((point.WhichOneof("value"), point.as_int), ("as_int", 5))
        self.assertEqual((point.start_time_unix_nano, point.time_unix_nano), (STARTED, NOW))

    def test_largeCounter(self) -> None:
        """A total that is no integer of OTLP is a double."""
        for total, field in (2**63 - 1, "as_int"), (2**63, "as_double"), (2**64 - 1, "as_double"):
            found = self.one(counter("bytes_total"), total)
            self.assertEqual(found.point.WhichOneof("value"), field)
            self.assertEqual(found.value, total if field == "as_int" else float(total))

    def test_gauge(self) -> None:
        for value in 1.5, -2.0, inf:
            found = self.one(gauge("temperature"), value)
            self.assertEqual(found.metric.WhichOneof("data"), "gauge")
            self.assertEqual((found.value, found.point.time_unix_nano), (value, NOW))
        self.assertTrue(isnan(self.one(gauge("temperature"), nan).value))

    def test_fractionalCounter(self) -> None:
        """A gauge named as a counter is one, unless it cannot be."""
        found = self.one(gauge("cpu_seconds_total"), 1.5)
        self.assertTrue(found.metric.sum.is_monotonic)
        self.assertEqual((found.value, found.point.start_time_unix_nano), (1.5, STARTED))
        for value in -1.0, nan:
            found = self.one(gauge("cpu_seconds_total"), value)
            self.assertEqual(found.metric.WhichOneof("data"), "gauge")

    def test_histogram(self) -> None:
        """A histogram is exponential, with the same buckets."""
        total = Distribution.of([0.0, 1.0, 2.0, 2.0, nan])
        found = self.one(histogram("latency"), total)
        data = found.metric.exponential_histogram
        self.assertEqual(data.aggregation_temporality, CUMULATIVE)
        point = found.point
        self.assertEqual((point.count, point.sum, point.min, point.max), (4, 5.0, 0.0, 2.0))
        self.assertEqual((point.scale, point.zero_count), (5, 1))
        self.assertEqual(point.positive.offset, -1)
        counts = list(point.positive.bucket_counts)
        self.assertEqual((counts[0], counts[-1], sum(counts), len(counts)), (1, 2, 3, 33))
        self.assertEqual(list(point.negative.bucket_counts), [])

    def test_negativeSamples(self) -> None:
        """Negative samples have buckets; a sum that can fall is left out."""
        point = self.one(histogram("change"), Distribution.of([-4.0, 1.0])).point
        self.assertFalse(point.HasField("sum"))
        self.assertEqual((point.min, point.max, point.count), (-4.0, 1.0, 2))
        self.assertEqual((point.negative.offset, *point.negative.bucket_counts), (63, 1))

    def test_emptyHistogram(self) -> None:
        point = self.one(histogram("latency"), Distribution.of([nan])).point
        self.assertEqual((point.count, point.sum), (0, 0.0))
        self.assertFalse(point.HasField("min") or point.HasField("max"))

    def test_wideHistogram(self) -> None:
        """Samples of very different sizes lower the resolution, not the counts."""
        total = Distribution.of([1e-300, 1.0, 1e300, -1e-9, -1.0])
        point = self.one(histogram("latency"), total).point
        self.assertLessEqual(len(point.positive.bucket_counts), MAX_BUCKETS)
        self.assertEqual(sum(point.positive.bucket_counts), 3)
        self.assertEqual(sum(point.negative.bucket_counts), 2)
        self.assertGreaterEqual(point.scale, -3)

    @given(st.lists(st.floats(allow_subnormal=False), max_size=60))
    def test_anySamples(self, samples: list[float]) -> None:
        """Each finite sample is in a bucket whose limits contain it."""
        point = self.one(histogram("any"), Distribution.of(samples)).point
        width = 2.0**-point.scale
        for side, sign in (point.positive, 1.0), (point.negative, -1.0):
            expected = [sign * one for one in samples if 0.0 < sign * one < inf]
            self.assertEqual(sum(side.bucket_counts), len(expected))
            for place, count in enumerate(side.bucket_counts, side.offset):
                exponents = place * width, (place + 1) * width
                low, high = (2.0**e if e < 1024 else inf for e in exponents)
                # Rounding moves a sample that is next to a limit.
                low, high = low * (1 - 1e-9), high * (1 + 1e-9)
                found = sum(low < one <= high for one in expected)
                self.assertGreaterEqual(found, count)

    def test_invalidHistogram(self) -> None:
        """A histogram that a receiver would reject with the whole request is left out."""
        low = Distribution.from_buckets(-10, [(0, 1)], sum=2.0, min=2.0, max=2.0)
        many = Distribution.from_buckets(
            5, [(0, 2**64 - 1), (1, 2**64 - 1)], sum=2.0, min=1.0, max=1.1
        )
        request = self.request(
            self.resource({histogram("low"): low, histogram("many"): many, counter("c"): 1})
        )
        self.assertEqual([one.metric.name for one in series_in(request)], ["c"])
        self.assertEqual(self.messages.left_out, 2)

    def test_noName(self) -> None:
        """OTLP has no metrics without a name."""
        nameless = Key(MetricKind.COUNTER, "", ())
        self.assertEqual(self.pieces([self.resource({nameless: 1})]), [])
        self.assertEqual(self.messages.left_out, 1)

    def test_descriptions(self) -> None:
        """Units are those of UCUM."""
        self.metadata = [
            Metadata(MetricKind.COUNTER, "a", Unit.COUNT, "All."),
            Metadata(MetricKind.GAUGE, "b", Unit.BYTES, ""),
            Metadata(MetricKind.GAUGE, "a", Unit.SECONDS, "Another."),
        ]
        request = self.request(self.resource({counter("a"): 1, gauge("b"): 1.0}))
        about = [(one.metric.description, one.metric.unit) for one in series_in(request)]
        self.assertEqual(about, [("All.", ""), ("", "By")])
        self.assertEqual({*UNITS}, {*Unit} - {Unit.COUNT})

    def test_times(self) -> None:
        """No clock, and no time that a peer sends, makes an invalid message."""
        for started, now, expected in (
            (NOW + 1, NOW, (NOW, NOW)),
            (2**70, NOW, (NOW, NOW)),
            (-5, NOW, (0, NOW)),
            (STARTED, -5, (0, 0)),
        ):
            totals: dict[Key, Total] = {counter("c"): 1, gauge("g"): 1.0}
            resource = self.resource(totals)._replace(started_ns=started)
            (found,) = named(decoded(b"".join(self.pieces([resource], now))), "c")
            times = found.point.start_time_unix_nano, found.point.time_unix_nano
            self.assertEqual(times, expected)

    def starts(
        self, seconds: int, complete: bool = True, started: int = STARTED, **totals: Total
    ) -> dict[str, int]:
        """
        Return when the totals of a message begin.

        @param seconds: when it is made.  Times of totals after C{STARTED} are in seconds, too.
        """
        make = {int: counter, float: gauge, Distribution: histogram}
        series = {make[type(total)](name): total for name, total in totals.items()}
        resource = self.resource(series)._replace(complete=complete, started_ns=started)
        request = decoded(b"".join(self.pieces([resource], STARTED + seconds * 10**9)))
        return {
            one.metric.name: (one.point.start_time_unix_nano - STARTED) // 10**9
            for one in series_in(request)
        }

    def test_newSeries(self) -> None:
        """A series began after the last message without it."""
        self.assertEqual(self.starts(10, a=1), {"a": 0})
        self.assertEqual(self.starts(20, a=1, b=5, t_total=0.5), {"a": 0, "b": 10, "t_total": 10})
        self.assertEqual(self.starts(30, a=2, b=6, t_total=0.5), {"a": 0, "b": 10, "t_total": 10})

    def test_forgotten(self) -> None:
        """A series that was forgotten begins again: its start time is after its last value."""
        for total in 3, Distribution.of([1.0, 2.0]), 3.0:
            self.messages = Messages()
            self.assertEqual(self.starts(10, x_total=total), {"x_total": 0})
            self.assertEqual(self.starts(20, a=1), {"a": 10})
            self.assertEqual(self.starts(30, a=1, x_total=total), {"a": 10, "x_total": 20})
            self.assertEqual(self.starts(40, a=1, x_total=total), {"a": 10, "x_total": 20})

    def test_fallen(self) -> None:
        """Between two messages, a series was forgotten, or a gauge was set to a lower value."""
        for complete in True, False:
            for more, less in (
                (3, 2),
                (3.0, 2.5),
                (Distribution.of([1.0, 2.0]), Distribution.of([1.0])),
            ):
                self.messages = Messages()
                self.assertEqual(self.starts(10, complete, x_total=more), {"x_total": 0})
                self.assertEqual(self.starts(20, complete, x_total=less), {"x_total": 10})
                self.assertEqual(self.starts(30, complete, x_total=more), {"x_total": 10})

    def test_incomplete(self) -> None:
        """The totals of a server may be missing for a time, such as during a connection attempt."""
        self.assertEqual(self.starts(10, False, a=1, b=5), {"a": 0, "b": 0})
        self.assertEqual(self.starts(20, False, a=1), {"a": 0})
        self.assertEqual(self.starts(30, False, a=1, b=6, c=7), {"a": 0, "b": 0, "c": 0})

    def test_restarted(self) -> None:
        """A program that starts again has a time of its own."""
        self.starts(10, a=5)
        started = STARTED + 15 * 10**9
        self.assertEqual(self.starts(20, started=started, a=1, b=1), {"a": 15, "b": 15})

    def test_unfinished(self) -> None:
        """A message that is given up does not count."""
        totals: dict[Key, Total] = {counter(f"c{number}"): 1 for number in range(2000)}
        resource = self.resource(totals)._replace(complete=True)
        self.pieces([resource], STARTED + 10)
        work = self.messages.request([resource], STARTED + 20)
        for _ in range(self.slices):
            next(work)
        found = series_in(decoded(b"".join(self.pieces([resource], STARTED + 30))))
        self.assertEqual({one.point.start_time_unix_nano for one in found}, {STARTED})

    def test_nothing(self) -> None:
        self.assertEqual(self.pieces([self.resource({})]), [])

    def test_resources(self) -> None:
        """Each resource has its own series; labels are those of its own series."""
        for value in 1, 2:
            request = self.request(
                self.resource({counter("a", x="1"): value}, "a"),
                self.resource({}, "b"),
                self.resource({histogram("a", x="1"): Distribution.of([value])}, "c"),
            )
            found = [
                (one.resource["service.instance.id"], one.metric.WhichOneof("data"), one.labels)
                for one in series_in(request)
            ]
            labels = {"x": "1"}
            self.assertEqual(found, [("a", "sum", labels), ("c", "exponential_histogram", labels)])

    def test_slices(self) -> None:
        """Many series, and many buckets, are encoded in steps; each metric is there once."""
        wide = Distribution.of([1.02**exponent for exponent in range(900)])
        totals: dict[Key, Total] = {counter("c", i=str(i)): i for i in range(2000)}
        totals |= {counter(f"c{i}"): i for i in range(600)}
        totals |= {histogram("h", i=str(i)): wide for i in range(50)}

        def resources() -> Iterator[Resource | None]:
            yield None
            yield self.resource(totals)

        request = decoded(b"".join(self.pieces(resources())))
        self.assertGreater(self.slices, 30)
        self.assertEqual(
            {one.labels["i"]: one.value for one in named(request, "c")},
            {str(i): i for i in range(2000)},
        )
        self.assertEqual(len(named(request, "h")), 50)
        (scope,) = request.resource_metrics[0].scope_metrics
        self.assertEqual(len(scope.metrics), 602)
        self.assertEqual(scope.scope.name, "txmetrics_tcp")

    def test_memory(self) -> None:
        """The labels of series and resources that have gone are not kept."""
        for i in range(20):
            self.request(self.resource({counter("c", i=f"{i}.{j}"): 1 for j in range(100)}))
        (known,) = self.messages._known.values()
        self.assertLess(len(known), 1000)
        self.request(self.resource({counter("c"): 1}, "other"))
        ((attributes, _),) = self.messages._known.items()
        self.assertIn(("service.instance.id", "other"), attributes)


@skipIf(missing, missing)
class PartialSuccessTests(SynchronousTestCase):
    def test_response(self) -> None:
        self.assertEqual(partial_success(b""), (0, ""))
        self.assertEqual(partial_success(partial(3, "too old")), (3, "too old"))
        self.assertEqual(partial_success(partial(-3, "")), (0, ""))

    def test_invalid(self) -> None:
        self.assertRaises(ValueError, partial_success, b"<html>")
