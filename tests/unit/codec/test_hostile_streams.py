"""
For any data that a server sends, a client gets events or an error with a reason, and its memory is
bounded.  `tests.fuzz` runs the same checks for longer.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests import mutations
from tests.fuzz import check_decoder, ingest, pieces
from tests.wire_cases import CASES, INVALID_TOTAL, increment, seen
from txmetrics_tcp import (
    Event,
    Key,
    Metric,
    MetricKind,
    MetricsClientFactory,
    Operation,
    StreamError,
    decode,
    encode_metric,
)
from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec import frame_cache
from txmetrics_tcp._codec.framing import frame, varint
from txmetrics_tcp.testing import PausingTransport

ONE = encode_metric(increment(1))
MESSAGES = [mutations.frames(case.frame)[0] for case in CASES]
FRAMES = st.sampled_from([case.frame for case in CASES])
CUTS = st.lists(st.integers(1, 50), max_size=4)


def mutated(seed: int) -> bytes:
    """Return a stream with modified messages, whose lengths are correct."""
    random = Random(seed)
    messages = [
        *random.choices(MESSAGES, k=3),
        *mutations.series(random, 3),
        *random.choices(MESSAGES, k=2),
    ]
    at = random.randrange(len(messages))
    messages[at] = mutations.changed_message(random, messages[at], MESSAGES)
    return b"".join(mutations.framed(random, message) for message in messages)


def message(name: bytes, *fields: bytes) -> bytes:
    """Return a frame that increments a counter with this name by one, and has other fields."""
    metric = b"\x0a" + frame(name) + b"".join(fields) + b"\x20\x01"
    return frame(b"\x12" + frame(metric))


def label(name: bytes, value: bytes) -> bytes:
    return b"\x1a" + frame(b"\x0a" + frame(name) + b"\x12" + frame(value))


class DecoderTests(SynchronousTestCase):
    """The decoder agrees with protobuf on every frame, however the stream is split."""

    @given(st.binary(max_size=300), CUTS)
    def test_anyBytes(self, data: bytes, cuts: list[int]) -> None:
        check_decoder(data, cuts)

    @given(FRAMES, st.binary(max_size=100), FRAMES, CUTS)
    def test_anyBytesWithinStream(
        self, first: bytes, data: bytes, last: bytes, cuts: list[int]
    ) -> None:
        check_decoder(first + data + last, cuts)

    @given(st.integers(), CUTS)
    def test_mutated(self, seed: int, cuts: list[int]) -> None:
        check_decoder(mutated(seed), cuts)

    @given(st.lists(FRAMES, max_size=5), st.integers(0, 2**31), CUTS)
    def test_damaged(self, frames: list[bytes], seed: int, cuts: list[int]) -> None:
        check_decoder(mutations.damaged(Random(seed), b"".join(frames)), cuts)

    @given(FRAMES, FRAMES, st.data())
    def test_truncatedAndExtended(self, first: bytes, second: bytes, data: st.DataObject) -> None:
        """The decoder agrees on truncated and extended frames, with and without correct lengths."""
        cut = data.draw(st.integers(0, len(first)))
        more = data.draw(st.binary(max_size=20))
        check_decoder(first[:cut] + second, [7])
        check_decoder(first + more + second, [7])
        inner = mutations.frames(first)[0]
        check_decoder(frame(inner[:cut]) + second, [7])
        check_decoder(frame(inner + more) + second, [7])
        check_decoder(first * 3 + second * 2 + first, [7])


class HostileTests(SynchronousTestCase):
    """Streams that pass through the client protocol into a view."""

    def serve(self, stream: Iterator[bytes]) -> tuple[list[Event], Failure | None]:
        """
        Send a stream to a client, until the client disconnects or the stream ends.

        @return: the last events that the client passed on, and the reason for the disconnection;
            None if the stream ended.
        """
        last: list[Event] = []
        lost: list[Failure] = []
        transport = PausingTransport()

        def received(events: list[Event]) -> None:
            last[:] = events[-5:]
            ingest(events)

        factory = MetricsClientFactory(
            received_many=received, lost=lambda protocol, reason: lost.append(reason)
        )
        transport.connect(factory.buildProtocol(transport.getPeer()))
        for piece in stream:
            transport.receive(piece)
            if transport.aborted:
                transport.drain()
                (reason,) = lost
                return last, reason
        self.assertEqual(lost, [])
        transport.lose()
        self.assertEqual(len(lost), 1)
        return last, None

    def rejected(self, stream: Iterator[bytes]) -> str:
        """Return the client's reason for rejecting a stream."""
        _, reason = self.serve(stream)
        assert reason is not None, "the stream was not rejected"
        self.assertIsInstance(reason.value, StreamError)
        self.assertNotIn("\n", reason.getErrorMessage())
        return reason.getErrorMessage()

    @given(st.integers(), CUTS)
    def test_mutated(self, seed: int, cuts: list[int]) -> None:
        _, reason = self.serve(pieces(mutated(seed), cuts))
        if reason is not None:
            self.assertIsInstance(reason.value, StreamError)

    def test_otherServers(self) -> None:
        """Known protocols are named after the first line that the server sends."""
        for data, name in [
            (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "an HTTP server"),
            (b"<html><head><title>400</title></head>" + b" " * 40, "HTML or XML"),
            (b'<?xml version="1.0"?><stream>', "HTML or XML"),
            (b'{"version": 1, "capabilities": ["tls"], "x": "' + b"x" * 100, "JSON"),
            (b"\x15\x03\x01\x00\x02\x02\x16", "TLS"),
            (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(range(100)), "TLS"),
            (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "an SSH server"),
            (b"220 mail.example ESMTP Postfix (Debian/GNU) ready at your service\r\n", "an FTP"),
            (b"220-Welcome to our archive\r\n220 ready\r\n", "an FTP or mail server"),
        ]:
            for sizes in ([], [1]):
                self.assertIn(f"it looks like {name}", self.rejected(pieces(data, sizes)))

    def test_banners(self) -> None:
        """
        An unknown protocol is rejected when the data has the length that its first byte announces.
        """
        for data in [
            b"+OK POP3 server ready <1896.697170952@pop.example>\r\n",
            b"* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS] ready\r\n",
            b"RFB 003.008\n" + bytes(80),
            b"J\x00\x00\x00\x0a8.0.36\x00" + bytes(range(64)),
            b"-ERR unknown command\r\n" + b"-ERR unknown command\r\n" * 2,
            b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00",
        ]:
            for sizes in ([], [1]):
                self.assertIn("not a metrics stream", self.rejected(pieces(data, sizes)), data)

    def test_lengths(self) -> None:
        """An endless length, or one above the limit, is rejected before the frame arrives."""
        self.assertIn("longer than 10 bytes", self.rejected(repeat(b"\x80")))
        self.assertIn("longer than 10 bytes", self.rejected(chain([ONE], repeat(b"\x80"))))
        self.assertIn("exceeds the limit", self.rejected(iter([varint(2**64 - 1)])))
        self.assertIn("exceeds the limit", self.rejected(iter([ONE, varint(1024 * 1024 + 1)])))

    def test_invalidText(self) -> None:
        for stream in [
            message(b"\xff"),
            message(b"\xed\xa0\x80"),  # half of a pair of surrogates
            message(b"\xc0\x80"),  # not the shortest encoding
            message(b"m", label(b"\x80", b"")),
            message(b"m", label(b"k", b"\xf5")),
            frame(b"\x0a" + frame(b"\x0a" + frame(b"\xff"))),
            frame(b"\xc2\x3e" + frame(b"\x12" + frame(b"\xff"))),
        ]:
            # After a valid frame of the same kind.
            reason = self.rejected(iter([message(b"m"), ONE, stream]))
            self.assertIn("is not a valid event", reason)

    def test_deep(self) -> None:
        """Nested groups of any depth do not cause an overflow."""
        for depth in (10, 99, 100, 1000, 100_000):
            opened, closed = b"\x7b" * depth, b"\x7c" * depth
            for inner in (opened + closed, opened):
                try:
                    fine = pb.Event.FromString(inner) is not None
                except Exception:
                    fine = False
                events, reason = self.serve(iter([ONE, frame(inner), ONE]))
                self.assertEqual(reason is None, fine, depth)
                self.assertEqual(seen(events), seen([increment(1)]))

    def test_large(self) -> None:
        """Very large frames below the limit are decoded."""
        name = b"n" * 1_000_000
        many = [label(b"%d" % number, b"") for number in range(50_000)]
        (event,), reason = self.serve(pieces(message(name), [65536]))
        self.assertIsNone(reason)
        self.assertEqual(len(event.key.name), 1_000_000)  # type: ignore[union-attr]
        (event,), reason = self.serve(pieces(message(b"m", *many), [65536]))
        self.assertIsNone(reason)
        self.assertEqual(len(event.key.labels), 50_000)  # type: ignore[union-attr]
        (event,), _ = self.serve(iter([message(b"m", label(b"k", b"v" * 900_000))]))
        self.assertEqual(event.key.labels, (("k", "v" * 900_000),))  # type: ignore[union-attr]


class MemoryTests(SynchronousTestCase):
    """The memory of a client is bounded, for any length of the stream."""

    def peak(self, stream: Iterator[bytes]) -> int:
        """Return the peak of memory, in bytes, while a client reads a stream."""
        transport = PausingTransport()
        protocol = MetricsClientFactory(
            received_many=lambda events: None, lost=lambda protocol, reason: None
        ).buildProtocol(None)
        transport.connect(protocol)
        tracemalloc.start()
        try:
            for piece in stream:
                transport.receive(piece)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            transport.lose()

    def test_unfinished(self) -> None:
        """A frame that arrives in small pieces takes a constant multiple of its size."""
        stream = chain([varint(1_000_000)], repeat(b"x" * 100, 9_999))
        self.assertLess(self.peak(stream), 8_000_000)

    def test_idle(self) -> None:
        self.assertLess(self.peak(repeat(bytes(1000), 20)), 8_000)

    def test_unknown(self) -> None:
        self.assertLess(self.peak(repeat(frame(b"\x7a" + frame(bytes(1000))), 2000)), 1_000_000)

    def test_newSeries(self) -> None:
        """The cache is bounded for endless new series with many labels, its worst case."""
        most = frame_cache.MAX_REMEMBERED
        # A smaller cache makes the test faster.
        self.patch(frame_cache, "MAX_REMEMBERED", most // 8)
        labels = tuple((str(number), "") for number in range(40))
        nanos = 999_999_999  # five bytes, as in nearly all timestamps

        def stream(of: Iterable[int]) -> Iterator[bytes]:
            for number in of:
                key = Key(MetricKind.COUNTER, str(number), labels)
                yield encode_metric(Metric(key, Operation.INCREMENT_COUNTER, 1, nanos + 10**18))

        self.assertGreater(self.peak(stream(range(500))), most // 8)
        self.assertLess(self.peak(stream(range(1500))), most)

    def test_manyBuckets(self) -> None:
        """
        A total of a histogram with too many buckets is skipped.  Only protobuf's own copy of them
        takes memory.
        """
        for indices, counts in [
            (bytes(500_000), b"\x01" * 500_000),
            (bytes(1025), b"\x01" * 900_000),
            (b"", b"\x01" * 1_000_000),
        ]:
            side = b"\x0a" + frame(indices) + b"\x12" + frame(counts)
            total = frame(b"\xda\x3e" + frame(b"\x52" + frame(side)))
            self.assertEqual(decode(total), [INVALID_TOTAL])
            self.assertLess(self.peak(iter([total, ONE])), 8_000_000)

    def test_endlessGarbage(self) -> None:
        """Data that arrives after the rejection is discarded."""
        self.assertLess(self.peak(repeat(b"HTTP/1.1 200 OK\r\n" * 100, 1000)), 1_000_000)
