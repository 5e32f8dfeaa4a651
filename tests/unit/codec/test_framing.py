"""
Splitting a stream at frame boundaries.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire_cases import CASES
from txmetrics_tcp import StreamError
from txmetrics_tcp._codec.framing import Frames, frame

FRAMES = st.lists(st.binary(max_size=300).map(frame), max_size=20)


class FramesTests(SynchronousTestCase):
    def test_wireCases(self) -> None:
        """All handwritten cases are recognized as frames, as a whole and byte by byte."""
        for case in CASES:
            self.assertEqual(Frames().feed(case.frame), (case.frame, 1), case.name)
            frames = Frames()
            pieces = [frames.feed(bytes([byte])) for byte in case.frame]
            self.assertEqual(pieces.pop(), (case.frame, 1), case.name)
            self.assertEqual(set(pieces) | {(b"", 0)}, {(b"", 0)}, case.name)

    @given(FRAMES, st.data())
    def test_anyPieces(self, sent: list[bytes], data: st.DataObject) -> None:
        """For any pieces, the result is all complete frames, with their bytes unchanged."""
        stream = b"".join(sent) + b"\x05ab"
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        ends = {sum(map(len, sent[:number])): number for number in range(len(sent) + 1)}
        frames = Frames()
        got = b""
        count = 0
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            whole, number = frames.feed(stream[start:end])
            got += whole
            count += number
            self.assertEqual(ends[len(got)], count)
            self.assertEqual(len(got) + frames.unfinished, end)
        self.assertEqual((got, count, frames.unfinished), (b"".join(sent), len(sent), 3))

    def test_tooLong(self) -> None:
        """A frame above the limit raises when its length is known, and in all later calls."""
        frames = Frames(max_frame=300)
        self.assertEqual(frames.feed(frame(bytes(300)))[1], 1)
        for _ in range(2):
            with self.assertRaisesRegex(
                StreamError, "frame of 301 bytes exceeds the limit of 300 bytes"
            ):
                frames.feed(b"\xad\x02")
        self.assertEqual(frames.unfinished, 0)

    def test_endlessLength(self) -> None:
        with self.assertRaisesRegex(StreamError, "stream: a varint is longer than 10 bytes$"):
            Frames().feed(b"\xff" * 20)
