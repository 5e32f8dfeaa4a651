"""
The encoder, compared with handwritten frames and with protobuf.
"""

from __future__ import annotations

from itertools import islice, product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import counter_key
from tests.unit.codec.test_wire import (
    ENCODER_CASES,
    HISTOGRAM_TOTALS,
    LABELS,
    METADATA,
    METRICS,
    NAMES,
    STATUSES,
    WHENS,
    by_protobuf,
    encode,
)
from tests.wire_cases import SECOND
from txmetrics_tcp import (
    Distribution,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    decode,
    encode_metric,
)
from txmetrics_tcp._codec.encoder import Encoder, SeriesFrame
from txmetrics_tcp._distribution import MAX_BUCKETS
from txmetrics_tcp._model import MAX_TEXT, U64_MAX, Status

ASCII = [chr(code) for code in range(128)]

BEFORE_1970 = (
    -1,
    -SECOND + 1,
    -SECOND,
    -SECOND - 1,
    -(1 << 14),
    -(1 << 28),
    -86_400 * SECOND - 5,
    -62_135_596_800 * SECOND,
)
"""Timestamps, in nanoseconds."""


NOW = 1_700_000_000_500_000_000
"""A timestamp, in nanoseconds, that is encoded without protobuf."""


class Series:
    """A series for the encoder."""

    def __init__(self, key: Key) -> None:
        self.frame = SeriesFrame(key)


class EncoderTests(SynchronousTestCase):
    def test_byHand(self) -> None:
        for name, expected, event in ENCODER_CASES:
            self.assertEqual(encode(event).hex(" "), expected.hex(" "), name)

    def test_byProtobuf(self) -> None:
        """The handwritten frames are those of protobuf's deterministic serialization."""
        for name, expected, event in ENCODER_CASES:
            self.assertEqual(by_protobuf(event).hex(" "), expected.hex(" "), name)

    def test_cachedParts(self) -> None:
        """
        The cached parts of a series and of a period are correct for later events, even when the
        time jumps.
        """
        encoder = Encoder()
        series: dict[Key, Series] = {}
        metrics = [
            (name, data, event) for name, data, event in ENCODER_CASES if isinstance(event, Metric)
        ]
        for name, expected, event in metrics + metrics[::-1]:
            if not event.timestamp_ns:
                # To an encoder, 0 means that the event has no time.
                continue
            parts = series.setdefault(event.key, Series(event.key))
            entry = (parts, event.operation, event.value, event.timestamp_ns)
            [encoded] = encoder.encode([entry])
            self.assertEqual(encoded.hex(" "), expected.hex(" "), name)
        self.assertLess(len(series), len(metrics), "no series occurs twice")

    def test_largest(self) -> None:
        """The largest frames of the exporter have less than 256 KiB, as documented."""
        # Each label adds six bytes to a frame, so the worst case has as many as possible.
        names = ["".join(letters) for n in (1, 2) for letters in product(ASCII, repeat=n)]
        left = MAX_TEXT - 1 - sum(map(len, names))
        names += ["".join(letters) for letters in islice(product(ASCII, repeat=3), left // 3)]
        key = Key.of(MetricKind.COUNTER, "m", dict.fromkeys(names, ""))
        metric = Metric(key, Operation.SET_COUNTER, U64_MAX, SECOND - 1)
        text = "x" * MAX_TEXT
        metadata = Metadata.of(MetricKind.COUNTER, text, "count", text)
        buckets = [(index, U64_MAX) for index in range(32768 - MAX_BUCKETS, 32768)]
        distribution = Distribution.from_buckets(
            5, buckets, buckets, sum=1.0, min=-1.0, max=1.0, zeros=U64_MAX, not_finite=U64_MAX
        )
        total = HistogramTotal(key, distribution, SECOND - 1)
        for event in (metric, metadata, total, Status(text, SECOND, U64_MAX, U64_MAX)):
            self.assertLess(len(encode(event)), 256 * 1024)

    @given(METRICS)
    def test_anyMetric(self, event: Metric) -> None:
        self.assertEqual(encode_metric(event), by_protobuf(event))

    @given(METADATA | STATUSES | HISTOGRAM_TOTALS)
    def test_anyOther(self, event: Metadata | Status | HistogramTotal) -> None:
        self.assertEqual(encode(event), by_protobuf(event))

    @given(
        NAMES,
        LABELS,
        st.lists(st.tuples(st.integers(0, U64_MAX) | st.integers(0, 20_000), WHENS), max_size=20),
    )
    def test_anySeries(
        self, name: str, labels: dict[str, str], events: list[tuple[int, int]]
    ) -> None:
        """The cached parts of a series are correct for all values and times."""
        key = Key.of(MetricKind.COUNTER, name, labels)
        series, encoder = Series(key), Encoder(lambda: 0)
        entries = [(series, Operation.SET_COUNTER, value, when) for value, when in events]
        expected = [
            by_protobuf(Metric(key, Operation.SET_COUNTER, value, when)) for value, when in events
        ]
        self.assertEqual(encoder.encode(entries), expected)
        self.assertEqual([encoder.encode([entry])[0] for entry in entries], expected)

    def test_periods(self) -> None:
        """
        Timestamps are correct around the limits of periods, where the size of the nanoseconds
        changes, and where a second ends.
        """
        key = Key.of(MetricKind.GAUGE, "g")
        moments = (0, 1 << 7, 1 << 14, 1 << 21, 1 << 28, 10**9 - (1 << 14))
        seconds = (-1, 0, (1 << 28) - 1, 1_700_000_000, (1 << 35) - 1)
        for second, moment, reverse in product(seconds, moments, (False, True)):
            start = second * 10**9 + moment
            whens = [start + delta for delta in range(-20_000, 20_001, 1000)]
            whens += [start - 1, start, start + 1]
            whens.sort(reverse=reverse)
            # The same period of the next second, after the start of that second.
            whens += [start, (second + 1) * 10**9 + 1, start + 10**9]
            series = Series(key)
            entries = [(series, Operation.SET_GAUGE, 0.5, when) for when in whens]
            expected = [by_protobuf(Metric(key, Operation.SET_GAUGE, 0.5, when)) for when in whens]
            self.assertEqual(Encoder(lambda: 0).encode(entries), expected)

    def test_earlierSecond(self) -> None:
        """A timestamp is correct just before the second of an earlier call."""
        key = Key.of(MetricKind.GAUGE, "g")
        series, encoder = Series(key), Encoder()
        for when in (NOW, NOW // SECOND * SECOND - 10_000, NOW, NOW // SECOND * SECOND - 1):
            entry = (series, Operation.SET_GAUGE, 0.5, when)
            expected = by_protobuf(Metric(key, Operation.SET_GAUGE, 0.5, when))
            self.assertEqual(encoder.encode([entry]), [expected])

    def test_runs(self) -> None:
        """Frames are correct whether or not an event follows one of the same series."""
        metrics = [
            Metric(Key.of(operation.kind, name), operation, value, NOW + later)
            for name in "aabab"
            for operation in Operation
            for value in ((1, 1, 0x7F, 0x80, 0x4000, 2) if operation <= 5 else (0.5, 0.5, -1.0))
            for later in (0, 1, SECOND // 2, SECOND // 4 - 1)
        ]
        series: dict[Key, Series] = {}
        for step in (1, 5, 7):
            for ordered in (metrics, metrics[::-1]):
                chosen = ordered[::step]
                entries = [
                    (
                        series.setdefault(one.key, Series(one.key)),
                        one.operation,
                        one.value,
                        one.timestamp_ns or 0,
                    )
                    for one in chosen
                ]
                self.assertEqual(Encoder().encode(entries), list(map(by_protobuf, chosen)))

    def test_repeatedEntry(self) -> None:
        """An entry that occurs several times gives several frames."""
        key = Key.of(MetricKind.HISTOGRAM, "h")
        entry = (Series(key), Operation.RECORD_HISTOGRAM, 0.5, NOW)
        expected = by_protobuf(Metric(key, Operation.RECORD_HISTOGRAM, 0.5, NOW))
        self.assertEqual(Encoder().encode([entry] * 3), [expected] * 3)

    def test_noTime(self) -> None:
        """An event without a time gets the time of its encoding."""
        key = Key.of(MetricKind.COUNTER, "c")
        times = iter([1_000_000_005, 3_000_000_007])
        entry = (Series(key), Operation.SET_COUNTER, 1, 0)
        other = (Series(key), Operation.SET_COUNTER, 1, 0)
        self.assertEqual(
            Encoder(lambda: next(times)).encode([entry, other]),
            [
                by_protobuf(Metric(key, Operation.SET_COUNTER, 1, when))
                for when in (1_000_000_005, 3_000_000_007)
            ],
        )


class LayoutTests(SynchronousTestCase):
    def test_once(self) -> None:
        """
        The first event of a series with a size of the nanoseconds makes a layout, which later
        events of any second share.
        """
        encoder = Encoder(lambda: NOW)
        series = Series(counter_key("c"))
        lay_out = SeriesFrame.lay_out
        laid_out: list[object] = []

        def counted(this: SeriesFrame, *args: Any) -> object:
            laid_out.append(this)
            return lay_out(this, *args)

        self.patch(SeriesFrame, "lay_out", counted)
        early = NOW // SECOND * SECOND + 10**6
        for when, expected in (
            (0, 1),
            (NOW, 1),
            (NOW + SECOND // 4, 1),
            (NOW + 99 * SECOND, 1),
            (early, 2),
            (early + 99 * SECOND, 2),
            (NOW, 2),
        ):
            encoder.encode([(series, Operation.SET_COUNTER, 1, when)] * 100)
            self.assertEqual(laid_out, [series.frame] * expected)

    def test_anySecond(self) -> None:
        """Layouts serve a clock that is set to any second: protobuf would take 20 times as long."""
        self.patch(SeriesFrame, "encode", None)
        key = Key.of(MetricKind.GAUGE, "g")
        series, encoder = Series(key), Encoder()
        for second in (-1, 0, 1, 1 << 14, (1 << 28) - 1, 1 << 28, 1 << 35, 1 << 37):
            for nanos in (1 << 14, 1 << 21, 1 << 28):
                when = second * SECOND + nanos
                entry = (series, Operation.SET_GAUGE, 0.5, when)
                expected = by_protobuf(Metric(key, Operation.SET_GAUGE, 0.5, when))
                self.assertEqual(encoder.encode([entry]), [expected], when)


class Before1970Tests(SynchronousTestCase):
    def test_metric(self) -> None:
        """Negative timestamps are encoded as by protobuf, and decoded correctly."""
        key = Key.of(MetricKind.COUNTER, "c", {"a": "b"})
        for when in BEFORE_1970:
            metric = Metric(key, Operation.INCREMENT_COUNTER, 1, when)
            self.assertEqual(encode_metric(metric), by_protobuf(metric), when)
            self.assertEqual(decode(encode_metric(metric)), [metric])

    def test_firstEvent(self) -> None:
        """A negative timestamp is encoded correctly if it is the encoder's first one."""
        for when in BEFORE_1970:
            metric = Metric(Key.of(MetricKind.GAUGE, "g"), Operation.SET_GAUGE, 1.5, when)
            entry = (Series(metric.key), metric.operation, metric.value, when)
            self.assertEqual(Encoder().encode([entry])[0], by_protobuf(metric), when)
