"""
Checks and parsers of settings.
"""

from __future__ import annotations

import math
import sys

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.checks import (
    at_least,
    parse_count,
    parse_duration,
    parse_unless,
    seconds_from,
)

EXAMPLES = "such as 90, 1.5s, 5m, 1h or 2d"


class SettingTests(SynchronousTestCase):
    def test_wholeNumbers(self) -> None:
        self.assertEqual(at_least(2, "x", 2), 2)
        for bad, error in ((1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)):
            with self.assertRaisesRegex(error, r"^x must be .*, not "):
                at_least(2, "x", bad)

    def test_seconds(self) -> None:
        for good in (1, 1.5, 10**9, sys.float_info.max):
            self.assertEqual(seconds_from(1, "x", good), good)
        for bad, error in (
            (0.9, ValueError),
            (math.nan, ValueError),
            (math.inf, ValueError),
            (10**400, ValueError),
            ("1", TypeError),
            (None, TypeError),
            (True, TypeError),
        ):
            with self.assertRaisesRegex(error, r"^x must be .*, not "):
                seconds_from(1, "x", bad)


class ParserTests(SynchronousTestCase):
    def test_counts(self) -> None:
        for text, count in (("1", 1), ("007", 7), (" 65536 ", 65536)):
            self.assertEqual(parse_count(text), count)
        for bad in ("0", "-1", "1.5", "many", "", "1e3", "none"):
            with self.assertRaisesRegex(ValueError, "^a whole number, 1 or more$"):
                parse_count(bad)

    def test_durations(self) -> None:
        for text, seconds in (
            ("90", 90.0),
            (".5", 0.5),
            ("1.5s", 1.5),
            ("5m", 300.0),
            ("1h", 3600.0),
            ("2d", 172_800.0),
        ):
            self.assertEqual(parse_duration(text), seconds)
        for bad in ("0", "-1", "nan", "inf", "1e3", "", "1w", "999999999999", "5 m"):
            with self.assertRaisesRegex(ValueError, f"^a duration greater than 0, {EXAMPLES}$"):
                parse_duration(bad)

    def test_leastDuration(self) -> None:
        self.assertEqual(parse_duration("0.1", least=0.1), 0.1)
        message = f"^a duration of 0.1 seconds or more, {EXAMPLES}$"
        with self.assertRaisesRegex(ValueError, message):
            parse_duration("0.09", least=0.1)

    def test_wordForNone(self) -> None:
        """The word is parsed as None, and error messages mention it."""
        parse = parse_unless("none", parse_count)
        self.assertEqual([parse(text) for text in ("none", " None", "3")], [None, None, 3])
        with self.assertRaisesRegex(ValueError, "^a whole number, 1 or more, or none$"):
            parse("never")
