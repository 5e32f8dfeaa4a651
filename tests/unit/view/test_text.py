"""
Text for terminals and JSON.
"""

from __future__ import annotations

import math

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._view.text import json_number, utc


class TextTests(SynchronousTestCase):
    def test_utc(self) -> None:
        """The fraction of the second is truncated, not rounded."""
        moment = 1_795_363_464_789_960_613
        self.assertEqual(utc(moment), "2026-11-22T16:04:24.789960613Z")
        self.assertEqual(utc(moment, 3), "2026-11-22T16:04:24.789Z")
        self.assertIsNone(utc(2**90, 3))

    def test_jsonNumber(self) -> None:
        numbers = [0, -0.5, math.inf, -math.inf, math.nan]
        expected = [0, -0.5, "Infinity", "-Infinity", "NaN"]
        self.assertEqual([json_number(number) for number in numbers], expected)
