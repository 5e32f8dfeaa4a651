"""
What only mutants of the encoder have shown that nobody looked at; see docs/mutation-testing.md.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.reader import counter_key
from txmetrics_tcp import Operation
from txmetrics_tcp._encoder import KEPT, Encoder, _Bare


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
