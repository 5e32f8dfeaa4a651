"""
What only mutants of the encoder have shown that nobody looked at; see docs/mutation-testing.md.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.reader import counter_key
from txmetrics_tcp import Operation
from txmetrics_tcp._codec.encoder import KEPT, Encoder, SeriesFrame, _Bare


class BufferTests(SynchronousTestCase):
    def test_kept(self) -> None:
        """A buffer of the usual size is kept for the next time, one that had to be huge is not."""
        encoder = Encoder()
        series = _Bare(counter_key("c"))
        entry = (series, Operation.SET_COUNTER, 1, 1_700_000_000_500_000_000)
        encoder.encode([entry] * 100)
        kept = encoder._buffer
        encoder.encode([entry] * 100)
        self.assertIs(encoder._buffer, kept)
        joined, ends = encoder.encode([entry] * KEPT)
        self.assertEqual((len(ends), len(joined)), (KEPT, ends[-1]))
        self.assertGreater(len(joined), KEPT)
        self.assertLess(len(encoder._buffer), KEPT)

    def test_withoutTime(self) -> None:
        """Events that have no time are laid out as quickly as others."""
        encoder = Encoder(lambda: 1_700_000_000_500_000_000)
        series = _Bare(counter_key("c"))
        lay_out = SeriesFrame.lay_out
        laid_out: list[object] = []

        def counted(this: SeriesFrame, *args: Any) -> object:
            laid_out.append(this)
            return lay_out(this, *args)

        self.patch(SeriesFrame, "lay_out", counted)
        encoder.encode([(series, Operation.SET_COUNTER, 1, 0)] * 100)
        self.assertEqual(laid_out, [series.frame])
