"""
Encoding and decoding, compared with handwritten frames, protobuf, and a stream of the Rust server.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.wire_cases import CASES, SECOND, WHEN, increment, seen, wire
from txmetrics_tcp import (
    MAX_FRAME,
    Decoder,
    Distribution,
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    StreamError,
    Unit,
    decode,
    encode_metadata,
    encode_metric,
)
from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec.encoder import encode_histogram_total
from txmetrics_tcp._codec.framing import EMPTY_FRAME, frame, read_varint, varint
from txmetrics_tcp._codec.wire import encode_gone, encode_snapshot, encode_status, pack_signed
from txmetrics_tcp._model import U64_MAX

ENCODER_CASES = [(case.name, case.frame, case.event) for case in CASES if case.ours and case.event]

STREAM = b"".join(case.frame for case in CASES)
"""All cases, concatenated."""

EVENTS = [case.event for case in CASES if case.event is not None]
"""The events of `STREAM`."""

DATA = ROOT / "tests" / "data"

ONE = wire("0d 12 0b 0a 01 6d 12 04 08 01 10 02 20 01")
"""The frame of `increment(1)`, for tests that need any frame."""


def encode(event: Event) -> bytes:
    """Encode an event with this package."""
    if isinstance(event, Metric):
        return encode_metric(event)
    if isinstance(event, Metadata):
        return encode_metadata(event)
    if isinstance(event, Snapshot):
        return encode_snapshot(event)
    if isinstance(event, Gone):
        return encode_gone(event)
    if isinstance(event, HistogramTotal):
        return encode_histogram_total(event)
    assert isinstance(event, Status), event
    return encode_status(event)


def by_protobuf(event: Event) -> bytes:
    """Encode an event with protobuf, and prefix its length."""
    if isinstance(event, Status):
        status = pb.Status(
            **_stamp("started", event.started_ns),
            source=event.source,
            dropped_incoming=event.dropped_incoming,
            dropped_client=event.dropped_client,
            protocol_version=event.protocol_version,
        )
        data = pb.Event(status=status).SerializeToString(deterministic=True)
    elif isinstance(event, Metadata):
        message = pb.Metadata(name=event.name, metric_type=event.kind.name)
        if event.unit is not None:
            message.unit_value = str(event.unit)
        if event.description:
            message.description_value = event.description
        data = pb.Event(metadata=message).SerializeToString(deterministic=True)
    elif isinstance(event, Snapshot):
        boundary, _, complete = event.name.partition("_")
        snapshot = pb.Snapshot(boundary=f"BOUNDARY_{boundary}", complete=bool(complete))
        data = pb.Event(snapshot=snapshot).SerializeToString(deterministic=True)
    elif isinstance(event, Gone):
        gone = pb.Gone(
            metric_type=event.key.kind.name,
            name=event.key.name,
            labels=dict(event.key.labels),
            **_stamp("timestamp", event.timestamp_ns),
        )
        data = pb.Event(gone=gone).SerializeToString(deterministic=True)
    elif isinstance(event, HistogramTotal):
        one = event.distribution
        total = pb.HistogramTotal(
            name=event.key.name,
            labels=dict(event.key.labels),
            **_stamp("timestamp", event.timestamp_ns),
            scale=one.scale,
            sum=one.sum,
            zeros=one.zeros,
            not_finite=one.not_finite,
        )
        if one.count:
            total.min, total.max = one.min, one.max
        for side, buckets in (total.positive, one.positive), (total.negative, one.negative):
            for index, count in buckets:
                side.indices.append(index)
                side.counts.append(count)
        data = pb.Event(histogram_total=total).SerializeToString(deterministic=True)
    else:
        assert isinstance(event, Metric), event
        fields: dict[str, Any] = {
            "name": event.key.name,
            **_stamp("timestamp", event.timestamp_ns),
            "labels": dict(event.key.labels),
            event.operation.name.lower(): event.value,
        }
        data = pb.Event(metric=pb.Metric(**fields)).SerializeToString(deterministic=True)
    return leb128(len(data)) + data


def _stamp(field: str, when: int | None) -> dict[str, Any]:
    if when is None:
        return {}
    second, nanos = divmod(when, SECOND)
    return {field: {"seconds": second, "nanos": nanos}}


def leb128(number: int) -> bytes:
    """Encode a varint, with a different algorithm than the tested one."""
    digits = []
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit)
        if not number:
            return bytes([*(digit + 128 for digit in digits[:-1]), digits[-1]])


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def fed(pieces: Iterable[bytes]) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


TEXTS = st.text(max_size=40)
NAMES = st.text(min_size=1, max_size=40) | st.text(min_size=100, max_size=300)
LABELS = st.dictionaries(NAMES, TEXTS, max_size=5)
# Timestamps around which the size of the encoded nanoseconds changes.
EDGES = st.builds(
    lambda second, edge, off: max(0, second * SECOND + edge + off),
    st.sampled_from([0, 1, 1_700_000_000, 1_700_000_001]),
    st.sampled_from([0, 1 << 7, 1 << 14, 1 << 21, 1 << 28, SECOND]),
    st.integers(-1, 1),
)
WHENS = st.one_of(
    st.integers(0, 253_402_300_799 * SECOND + 999_999_999), st.integers(0, 2 * SECOND), EDGES
)
METRICS = st.one_of(
    [
        st.builds(
            lambda name, labels, value, when, operation=operation: Metric(
                Key.of(operation.kind, name, labels), operation, value, when
            ),
            NAMES,
            LABELS,
            st.integers(0, U64_MAX) if operation.kind is MetricKind.COUNTER else st.floats(),
            WHENS,
        )
        for operation in Operation
    ]
)
METADATA = st.builds(
    Metadata, st.sampled_from(MetricKind), NAMES, st.none() | st.sampled_from(Unit), TEXTS
)
COUNTS = st.integers(0, U64_MAX) | st.just(0)
STATUSES = st.builds(Status, TEXTS, WHENS, COUNTS, COUNTS)
GONE = st.builds(
    Gone, st.builds(Key.of, st.sampled_from(MetricKind), NAMES, LABELS), st.none() | WHENS
)

SAMPLES = st.lists(st.floats() | st.sampled_from([0.0, 1.0, -1.0]), max_size=20)
HISTOGRAM_TOTALS = st.builds(
    lambda name, labels, samples, n, when: HistogramTotal(
        Key.of(MetricKind.HISTOGRAM, name, labels),
        Distribution.of(samples).with_repeated(1.5, n),
        when,
    ),
    NAMES,
    LABELS,
    SAMPLES,
    COUNTS,
    st.none() | WHENS,
)


class VarintTests(SynchronousTestCase):
    def test_knownValues(self) -> None:
        for number, encoded in [
            (0, "00"),
            (1, "01"),
            (127, "7f"),
            (128, "80 01"),
            (300, "ac 02"),
            (16383, "ff 7f"),
            (16384, "80 80 01"),
            (U64_MAX, "ff ff ff ff ff ff ff ff ff 01"),
        ]:
            data = bytes.fromhex(encoded)
            self.assertEqual(varint(number), data)
            self.assertEqual(read_varint(b"\xff" + data + b"\xff", 1), (number, 1 + len(data)))

    def test_invalidVarint(self) -> None:
        """Truncated varints and overlong varints raise different errors."""
        for size in range(10):
            self.assertRaises(IndexError, read_varint, b"\xff" * size, 0)
        for tail in (b"", b"\x01"):
            with self.assertRaisesRegex(StreamError, "^a varint is longer than 10 bytes$"):
                read_varint(b"\x80" * 10 + tail, 0)

    def test_frame(self) -> None:
        """A frame is a length, followed by that many bytes."""
        self.assertEqual(frame(b"abc"), b"\x03abc")
        self.assertEqual(frame(b"x" * 300), b"\xac\x02" + b"x" * 300)
        self.assertEqual(frame(b""), EMPTY_FRAME)


class DecoderTests(SynchronousTestCase):
    """Handwritten frames are decoded, however the stream is split."""

    def test_byHand(self) -> None:
        for case in CASES:
            expected = [] if case.event is None else [case.event]
            self.assertEqual(seen(decode(case.frame)), seen(expected), case.name)

    def test_onePiece(self) -> None:
        self.assertEqual(seen(fed([STREAM])), seen(EVENTS))

    def test_byteByByte(self) -> None:
        self.assertEqual(seen(fed(in_pieces(STREAM, 1))), seen(EVENTS))

    def test_everySplit(self) -> None:
        """Each frame can be split at any byte, including its boundaries."""
        around = [CASES[-1], *CASES, CASES[0]]
        for before, case, after in zip(around, CASES, around[2:], strict=False):
            three = (before, case, after)
            stream = b"".join(one.frame for one in three)
            expected = seen(one.event for one in three if one.event is not None)
            for cut in range(len(before.frame), len(stream) - len(after.frame) + 1):
                events = fed([stream[:cut], stream[cut:]])
                self.assertEqual(seen(events), expected, f"{case.name}, cut at {cut}")

    @given(st.lists(st.integers(0, len(STREAM)), max_size=50))
    def test_anySplit(self, cuts: list[int]) -> None:
        ends = [0, *sorted(cuts), len(STREAM)]
        pieces = [STREAM[start:end] for start, end in pairwise(ends)]
        self.assertEqual(seen(fed(pieces)), seen(EVENTS))

    @given(
        st.lists(METRICS | METADATA | STATUSES | GONE | HISTOGRAM_TOTALS, max_size=20),
        st.integers(1, 100),
    )
    def test_anyEvents(self, events: list[Event], size: int) -> None:
        """Encoded events decode to the same events."""
        stream = b"".join(map(encode, events))
        self.assertEqual(seen(fed(in_pieces(stream, size))), seen(events))

    def test_immediate(self) -> None:
        """An event is available as soon as its last byte has arrived."""
        decoder = Decoder()
        self.assertEqual(list(decoder.feed(ONE[:-1])), [])
        self.assertEqual(decoder.unfinished, len(ONE) - 1)
        self.assertEqual(list(decoder.feed(ONE[-1:] + ONE[:3])), [increment(1)])
        self.assertEqual(decoder.unfinished, 3)

    def test_notIterated(self) -> None:
        """Events that were not consumed are yielded by the next call."""
        decoder = Decoder()
        decoder.feed(ONE)
        self.assertEqual(next(decoder.feed(ONE)), increment(1))
        self.assertEqual(list(decoder.feed(ONE)), [increment(1)] * 2)

    def test_labelsAreSorted(self) -> None:
        """The key does not depend on the order in which a peer sends labels."""
        swapped = wire("""
            1d 12 1b 0a 01 6d 12 04 08 01 10 02
            1a 06 0a 01 62 12 01 32  1a 06 0a 01 61 12 01 31  20 01
        """)
        (event,) = decode(swapped)
        assert isinstance(event, Metric)
        self.assertEqual(event.key, Key.of(MetricKind.COUNTER, "m", {"a": "1", "b": "2"}))

    def test_idle(self) -> None:
        """A stream of empty frames leaves no data in the decoder."""
        decoder = Decoder()
        self.assertEqual(list(decoder.feed(EMPTY_FRAME * 1000)), [])
        self.assertEqual(decoder.unfinished, 0)


HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)

HTML = (
    b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n"
    b"<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n"
)


class BadStreamTests(SynchronousTestCase):
    """Invalid data raises an error with a reason, and is not kept."""

    def test_reasons(self) -> None:
        for data, reason in [
            (
                leb128(MAX_FRAME + 1),
                "a frame of 1048577 bytes exceeds the limit of 1048576 bytes",
            ),
            (b"\xff" * 9 + b"\1", "a frame of 18446744073709551615 bytes exceeds the limit"),
            (b"\xff" * 20, "a varint is longer than 10 bytes"),
            (b"\x80" * 20, "a varint is longer than 10 bytes"),
            (HTML, r"not a valid event.*\(it looks like HTML or XML\)"),
            (b"\x05hello", "a frame of 5 bytes is not a valid event"),
            # Not UTF-8.
            (wire("05 12 03 0a 01 ff"), "a frame of 5 bytes is not a valid event"),
            (wire("05 0a 03 0a 01 ff"), "a frame of 5 bytes is not a valid event"),
            (wire("0a 12 08 1a 06 0a 01 ff 12 01 76"), "a frame of 10 bytes is not a valid event"),
            # A length beyond the end of the frame, and a truncated varint.
            (wire("04 12 02 0a 05"), "a frame of 4 bytes is not a valid event"),
            (wire("02 12 81"), "a frame of 2 bytes is not a valid event"),
        ]:
            for pieces in [data], in_pieces(data, 1):
                with self.assertRaisesRegex(StreamError, f"^not a metrics stream: .*{reason}"):
                    fed(pieces)

    def test_shortBanner(self) -> None:
        """Other protocols are recognized by one line that is too short for a complete frame."""
        for banner, name in (
            (b"HTTP/", "an HTTP server"),
            (b"HTTP/1.1 400 Bad Request", "an HTTP server"),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", "an SSH server"),
            (b"220 mail.example.org ESMTP", "an FTP or mail server"),
            (b"220-ftp.example.org", "an FTP or mail server"),
            (b"\x15\x03\x01\x00\x02\x02F", "TLS"),
            (b"\x16\x03", "TLS"),
            (b"<?xml", "HTML or XML"),
        ):
            with self.assertRaisesRegex(StreamError, rf"it looks like {name}\)?$"):
                list(Decoder().feed(banner))

    def test_otherProtocolOnlyAtStart(self) -> None:
        """After the first frame, invalid data is not attributed to other protocols."""
        for wrong in (HTTP, HTML):
            with self.assertRaises(StreamError) as raised:
                list(Decoder().feed(ONE + wrong))
            self.assertNotIn("looks like", str(raised.exception))

    def test_eventsBefore(self) -> None:
        """Events before the invalid frame are yielded."""
        events = []
        with self.assertRaises(StreamError):
            for event in Decoder().feed(ONE + ONE + b"\x05hello" + ONE):
                events.append(event)
        self.assertEqual(events, [increment(1)] * 2)

    def test_staysFailed(self) -> None:
        """After an error no events are decoded, and each call raises the same error."""
        decoder = Decoder()
        with self.assertRaises(StreamError) as first:
            list(decoder.feed(b"\x05hello" + ONE))
        for _ in range(2):
            with self.assertRaises(StreamError) as again:
                list(decoder.feed(ONE))
            self.assertEqual(str(again.exception), str(first.exception))

    def test_refused(self) -> None:
        """`refused` locates the start of the invalid frame, however the stream is split."""
        stream = ONE * 3 + b"\x05hello" + ONE * 3
        for size in 1, 5, len(stream):
            decoder = Decoder()
            received = 0
            with self.assertRaises(StreamError):
                for piece in in_pieces(stream, size):
                    self.assertEqual(decoder.refused, 0)
                    received += len(piece)
                    list(decoder.feed(piece))
            self.assertEqual(received - decoder.refused, len(ONE * 3))

    def test_failedHoldsNothing(self) -> None:
        """A failed decoder does not keep the data that it is fed."""
        decoder = Decoder()
        with self.assertRaises(StreamError):
            list(decoder.feed(b"\x05hello"))
        for _ in range(100):
            decoder.feed(bytes(1000))
        self.assertEqual(decoder.unfinished, 0)

    def test_limit(self) -> None:
        """A frame can be as long as the limit; a longer one is rejected when its length arrives."""
        self.assertEqual(list(Decoder(max_frame=len(ONE) - 1).feed(ONE)), [increment(1)])
        with self.assertRaisesRegex(StreamError, "frame of 13 bytes exceeds the limit of 12 bytes"):
            list(Decoder(max_frame=len(ONE) - 2).feed(ONE[:1]))

    def test_defaultLimit(self) -> None:
        name = "x" * (MAX_FRAME - 100)
        longest = Metric(Key(MetricKind.COUNTER, name), Operation.SET_COUNTER, 1, WHEN)
        self.assertEqual(fed(in_pieces(encode_metric(longest), 65536)), [longest])

    def test_memory(self) -> None:
        """A decoder buffers at most one frame of the largest size."""
        limit = 10_000
        decoder = Decoder(max_frame=limit)
        list(decoder.feed(ONE * 10))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        unfinished = leb128(limit) + bytes(limit - 1)
        for piece in in_pieces(unfinished, 100):
            list(decoder.feed(piece))
        for piece in in_pieces(ONE * 10_000, 100):
            with self.assertRaises(StreamError):
                list(decoder.feed(piece))
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 10 * limit)

    def test_endsWithinAFrame(self) -> None:
        self.assertEqual(decode(ONE), [increment(1)])
        for cut in range(1, len(ONE)):
            reason = f"the stream ends within a frame, after {cut} bytes of it"
            with self.assertRaisesRegex(StreamError, reason):
                decode(ONE + ONE[:cut])

    @given(st.binary(max_size=300), st.integers(1, 50))
    def test_garbage(self, data: bytes, size: int) -> None:
        """Any data gives events or a `StreamError`, the same for any split."""

        def read(pieces: list[bytes]) -> tuple[list[str], str, int]:
            decoder = Decoder(max_frame=100)
            events = []
            error = ""
            try:
                for piece in pieces:
                    for event in decoder.feed(piece):
                        events.append(event)
                    self.assertLess(decoder.unfinished, 100 + 10)
            except StreamError as failed:
                error = str(failed)
            return seen(events), error.partition(" (it looks like")[0], decoder.unfinished

        self.assertEqual(read(in_pieces(data, size)), read([data]))

    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """A stream with a few damaged bytes gives events or a `StreamError`."""
        damaged = bytearray(STREAM)
        for place in data.draw(st.lists(st.integers(0, len(STREAM) - 1), max_size=5)):
            damaged[place] = data.draw(st.integers(0, 255))
        try:
            events = fed(in_pieces(bytes(damaged), 1000))
        except StreamError:
            return
        self.assertTrue(all(isinstance(event, Event) for event in events))


class ReferenceTests(SynchronousTestCase):
    """
    A recorded stream of the Rust server (metrics-exporter-tcp).

    C{data/reference-stream.json} lists its events, frame by frame.
    """

    stream = (DATA / "reference-stream.bin").read_bytes()
    listed = json.loads((DATA / "reference-stream.json").read_text(encoding="utf-8"))

    def expected(self) -> list[Event]:
        return [self.event(**one) for one in self.listed]

    def event(self, what: str, name: str, **fields: Any) -> Event:
        if what == "metadata":
            kind = MetricKind(fields["kind"])
            return Metadata(kind, name, fields["unit"], fields["description"] or "")
        operation = Operation[fields["op"].upper()]
        second, nanos = fields["timestamp"]
        value = fields["value"]
        if operation.kind is not MetricKind.COUNTER:
            value = float(value)
        key = Key(operation.kind, name, tuple(sorted(fields["labels"].items())))
        return Metric(key, operation, value, second * SECOND + nanos)

    def test_coverage(self) -> None:
        """The stream contains all operations and units."""
        expected = self.expected()
        metrics = [event for event in expected if isinstance(event, Metric)]
        described = [event for event in expected if isinstance(event, Metadata)]
        self.assertEqual({event.operation for event in metrics}, set(Operation))
        self.assertEqual(
            {(event.kind, event.unit) for event in described if event.unit is not None},
            {(kind, unit.value) for kind in MetricKind for unit in Unit},
        )
        self.assertIn(U64_MAX, [event.value for event in metrics])
        self.assertTrue(any(len(event.key.labels) > 1 for event in metrics))

    def test_decodes(self) -> None:
        expected = seen(self.expected())
        for size in (1, 2, 3, 7, 64, 1000, len(self.stream)):
            self.assertEqual(seen(fed(in_pieces(self.stream, size))), expected, f"pieces of {size}")

    def test_everySplit(self) -> None:
        expected = seen(self.expected())
        # Splits at every byte would take a minute.  This covers all positions within a frame.
        for cut in range(0, len(self.stream), 17):
            pieces = [self.stream[:cut], self.stream[cut:]]
            self.assertEqual(seen(fed(pieces)), expected, f"cut at {cut}")

    def test_encodesAlike(self) -> None:
        """
        The encoder produces the same bytes as the Rust server, except for an empty label value,
        which the Rust server omits and protobuf writes.
        """
        frames = self.frames()
        expected = self.expected()
        self.assertEqual(len(frames), len(expected))
        different = []
        for rust, event in zip(frames, expected, strict=True):
            if encode(event) != rust:
                different.append(event)
        (exception,) = different
        assert isinstance(exception, Metric)
        self.assertIn("", dict(exception.key.labels).values())

    def frames(self) -> list[bytes]:
        """Split the stream into frames, with a different algorithm than the decoder's."""
        frames = []
        start = 0
        while start < len(self.stream):
            end = start
            while self.stream[end] >= 0x80:
                end += 1
            digits = self.stream[start : end + 1]
            length = sum((digit % 128) * 128**place for place, digit in enumerate(digits))
            frames.append(self.stream[start : end + 1 + length])
            start = end + 1 + length
        return frames


class PackSignedTests(SynchronousTestCase):
    @given(st.lists(st.integers(-(2**40), 2**40) | st.integers(-(2**63), 2**63 - 1), min_size=1))
    def test_decodes(self, values: list[int]) -> None:
        """Integers of any size have the encoding of protobuf's zigzag numbers."""
        data = pack_signed(values)
        size, at = read_varint(data, 0)
        self.assertEqual(size, len(data) - at)
        found = []
        while at < len(data):
            number, at = read_varint(data, at)
            found.append(number >> 1 ^ -(number & 1))
        self.assertEqual(found, values)

    def test_knownBytes(self) -> None:
        self.assertEqual(pack_signed([0, -1, 1, -64, 64]), b"\6\0\1\2\x7f\x80\1")
        self.assertEqual(pack_signed([2**31]), b"\5\x80\x80\x80\x80\x10")
