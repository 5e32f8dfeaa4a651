"""
The decoder's cache of frames does not change the result: the same bytes always decode to the same
events, regardless of earlier frames.
"""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire_cases import CASES, SECOND, seen
from txmetrics_tcp import (
    Decoder,
    Event,
    Key,
    Metric,
    MetricKind,
    Operation,
    StreamError,
    encode_metric,
)
from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec import decoder as decoder_module
from txmetrics_tcp._codec import frame_cache
from txmetrics_tcp._codec.frame_cache import HEAD_OVERHEAD, TAIL_OVERHEAD
from txmetrics_tcp._codec.framing import frame, varint

NOW = 1_700_000_000 * SECOND + SECOND // 2
"""A realistic time, of which seconds and nanoseconds take five bytes each."""

TEXT = st.sampled_from(["a", "b", "requests_handled", "\x12\x0b\x08", "\x1a", "é", "n" * 120])
NUMBERS = st.sampled_from([0, 1, 127, 128, 16_384, 2**63 - 1, 2**63, 2**64 - 1])
NANOS = st.sampled_from(
    [0, 1, 127, 128, 1 << 14, 1 << 21, (1 << 28) - 1, 1 << 28, 300_000_000, 999_999_999]
)
SECONDS = st.sampled_from([0, 1, NOW // SECOND, NOW // SECOND + 1, 2**28 - 1, 2**28, 2**35])


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    """Metrics of a few series, which therefore repeat."""
    operation = draw(st.sampled_from(list(Operation)))
    labels = draw(st.dictionaries(TEXT, TEXT, max_size=2))
    key = Key(operation.kind, draw(TEXT), tuple(sorted(labels.items())))
    number = draw(NUMBERS)
    value = number if operation.kind is MetricKind.COUNTER else float(number)
    return Metric(key, operation, value, draw(SECONDS) * SECOND + draw(NANOS))


def decoded(decoder: Decoder, data: bytes) -> list[Event | str]:
    """Return the events decoded from a piece, followed by the error message, if any."""
    events: list[Event | str] = []
    try:
        events.extend(decoder.feed(data))
    except StreamError as error:
        events.append(str(error))
    return events


def increment(name: str, label: str = "") -> bytes:
    """Return the frame of an increment by one."""
    key = Key.of(MetricKind.COUNTER, name, {"label": label})
    return encode_metric(Metric(key, Operation.INCREMENT_COUNTER, 1, NOW))


class MemoryTests(SynchronousTestCase):
    """Frames that resemble earlier frames."""

    @given(st.lists(metrics(), max_size=20))
    def test_repeated(self, events: list[Metric]) -> None:
        """Repeated frames decode to the same events."""
        data = b"".join(map(encode_metric, events))
        decoder = Decoder()
        self.assertEqual(seen(decoder.feed(data)), seen(events))
        self.assertEqual(seen(decoder.feed(data)), seen(events))

    @given(st.lists(metrics(), min_size=1, max_size=5), st.data())
    def test_similar(self, events: list[Metric], data: st.DataObject) -> None:
        """A frame that differs from cached frames in a few bytes decodes as without a cache."""
        frames = [encode_metric(event) for event in events]
        damaged = bytearray(data.draw(st.sampled_from(frames)))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(damaged) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
        warm = Decoder()
        list(warm.feed(b"".join(frames)))
        cold = Decoder()
        # Skip the recognition of other protocols at the start of a stream.
        list(cold.feed(b"\x00"))
        self.assertEqual(seen(decoded(warm, bytes(damaged))), seen(decoded(cold, bytes(damaged))))
        self.assertEqual(warm.unfinished, cold.unfinished)

    def test_allCases(self) -> None:
        """All handwritten cases, including unusual ones, decode to the same events again."""
        stream = b"".join(case.frame for case in CASES)
        decoder = Decoder()
        first = seen(decoder.feed(stream))
        self.assertEqual(seen(decoder.feed(stream)), first)

    def test_notParsedAgain(self) -> None:
        """Protobuf parses only the first of several frames that differ in time and value."""
        for operation in Operation:
            value = 1 if operation.kind is MetricKind.COUNTER else 1.5
            key = Key(operation.kind, "requests", (("route", "/" * 120),))
            decoder = Decoder()
            list(decoder.feed(encode_metric(Metric(key, operation, value, NOW))))
            later = Metric(key, operation, value * 100, NOW + SECOND + 12_345)
            with mock.patch.object(decoder_module, "pb") as protobuf:
                self.assertEqual(list(decoder.feed(encode_metric(later))), [later])
            self.assertEqual(protobuf.mock_calls, [])

    def test_unsortedLabels(self) -> None:
        """Frames with unsorted labels are cached."""
        timestamp = pb.Metric()
        timestamp.timestamp.FromNanoseconds(NOW)
        parts = [
            pb.Metric(name="m").SerializeToString(),
            timestamp.SerializeToString(),
            pb.Metric(labels={"b": "2"}).SerializeToString(),
            pb.Metric(labels={"a": "1"}).SerializeToString(),
            pb.Metric(increment_counter=7).SerializeToString(),
        ]
        metric = b"".join(parts)
        data = frame(b"\x12" + bytes([len(metric)]) + metric)
        key = Key(MetricKind.COUNTER, "m", (("a", "1"), ("b", "2")))
        expected = Metric(key, Operation.INCREMENT_COUNTER, 7, NOW)
        decoder = Decoder()
        self.assertEqual(list(decoder.feed(data)), [expected])
        with mock.patch.object(decoder_module, "pb"):
            self.assertEqual(list(decoder.feed(data)), [expected])

    def test_sameHead(self) -> None:
        """
        Frames with the same head and size, but with the value at different offsets, are all decoded
        from the cache.
        """
        counters = [("a" * (10 - len(varint(value))), value) for value in (1, 300, 20_000, 2**63)]
        events = [
            Metric(Key.of(MetricKind.COUNTER, "m", {"l": label}), operation, value, NOW)
            for label, value in counters
            for operation in (Operation.INCREMENT_COUNTER, Operation.SET_COUNTER)
        ]
        for kind, operation in (
            (MetricKind.GAUGE, Operation.SET_GAUGE),
            (MetricKind.HISTOGRAM, Operation.RECORD_HISTOGRAM),
        ):
            events.append(Metric(Key.of(kind, "m", {"l": "aa"}), operation, -1.5, NOW))
        frames = list(map(encode_metric, events))
        self.assertEqual(len(set(map(len, frames))), 1)
        decoder = Decoder()
        self.assertEqual(list(decoder.feed(b"".join(frames))), events)
        self.assertEqual(len(decoder._memory.layouts), 1)
        with mock.patch.object(decoder_module, "pb"):
            self.assertEqual(list(decoder.feed(b"".join(frames[::-1]))), events[::-1])

    def test_bounded(self) -> None:
        """A peer that keeps sending new series cannot make the cache grow without limit."""
        limit = 10 * (len(increment("m10")) + HEAD_OVERHEAD + TAIL_OVERHEAD)
        self.patch(frame_cache, "MAX_REMEMBERED", limit)
        decoder = Decoder()
        for number in range(100):
            list(decoder.feed(increment(f"m{number}")))
            self.assertLessEqual(len(decoder._memory.layouts), 10)
            self.assertLessEqual(decoder._memory.size, limit)
        self.assertEqual(len(list(decoder.feed(increment("m1") + increment("m99")))), 2)

    def test_largeFrames(self) -> None:
        """Large frames are not cached."""
        decoder = Decoder()
        list(decoder.feed(increment("m", "x" * 1000)))
        self.assertEqual(decoder._memory.layouts, {})

    def test_unknownField(self) -> None:
        """An unknown field before the value is ignored, in the first and in repeated frames."""
        timestamp = pb.Metric()
        timestamp.timestamp.FromNanoseconds(NOW)
        metric = b"".join(
            [
                pb.Metric(name="m").SerializeToString(),
                timestamp.SerializeToString(),
                b"\x78\x01",
                pb.Metric(increment_counter=7).SerializeToString(),
            ]
        )
        expected = Metric(Key(MetricKind.COUNTER, "m"), Operation.INCREMENT_COUNTER, 7, NOW)
        stream = frame(b"\x12" + frame(metric)) * 2
        self.assertEqual(list(Decoder().feed(stream)), [expected] * 2)


class UnfinishedTests(SynchronousTestCase):
    def test_byteByByte(self) -> None:
        """`unfinished` counts every received byte of an incomplete frame."""
        sample = increment("c" * 1000)
        decoder = Decoder()
        self.assertEqual(len(list(decoder.feed(sample))), 1)
        self.assertEqual(decoder.unfinished, 0)
        for number in range(1, len(sample)):
            self.assertEqual(list(decoder.feed(sample[number - 1 : number])), [])
            self.assertEqual(decoder.unfinished, number)
        self.assertEqual(len(list(decoder.feed(sample[-1:]))), 1)
        self.assertEqual(decoder.unfinished, 0)
