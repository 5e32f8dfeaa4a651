"""
Text for terminals and JSON.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._view.text import cell_width, cut, cut_middle, json_number, utc, visible


class TextTests(SynchronousTestCase):
    def test_utc(self) -> None:
        """The fraction of the second is truncated, not rounded."""
        moment = 1_795_363_464_789_960_613
        self.assertEqual(utc(moment), "2026-11-22T16:04:24.789960613Z")
        self.assertEqual(utc(moment, 3), "2026-11-22T16:04:24.789Z")
        self.assertIsNone(utc(2**90, 3))

    def test_cells(self) -> None:
        """Text is measured and shortened by terminal cells."""
        for text, cells in (
            ("", 0),
            ("abc", 3),
            ("μs", 2),
            ("日本語", 6),
            ("\uff21\uff22", 4),
            ("e\u0301\u0301", 1),
            ("ก\u0e34", 1),
            ("👨", 2),
        ):
            self.assertEqual(cell_width(text), cells, text)
        for text, width, end, middle in (
            ("abc", 3, "abc", "abc"),
            ("abcdefgh", 6, "abcde…", "abc…gh"),
            ("abcdef", 4, "abc…", "ab…f"),
            ("abcdef", 1, "…", "…"),
            ("日本語日本語", 6, "日本…", "日…語"),
            ("e\u0301" * 6, 4, "e\u0301" * 3 + "…", "e\u0301e\u0301…e\u0301"),
        ):
            self.assertEqual((cut(text, width), cut_middle(text, width)), (end, middle))

    @given(st.text(), st.integers(1, 30))
    def test_anyText(self, text: str, width: int) -> None:
        text = visible(text)
        for shorten in (cut, cut_middle):
            shorter = shorten(text, width)
            self.assertLessEqual(cell_width(shorter), width)
            if cell_width(text) <= width:
                self.assertEqual(shorter, text)

    def test_jsonNumber(self) -> None:
        numbers = [0, -0.5, math.inf, -math.inf, math.nan]
        expected = [0, -0.5, "Infinity", "-Infinity", "NaN"]
        self.assertEqual([json_number(number) for number in numbers], expected)
