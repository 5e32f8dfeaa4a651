"""
Checks and parsers of settings.
"""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from fractions import Fraction
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from txmetrics_tcp._checks import (
    MAX_DURATION,
    at_least,
    check_callable,
    flag,
    parse_count,
    parse_duration,
    parse_unless,
    reporting,
    seconds_from,
    short_repr,
)

with contextlib.suppress(ImportError):  # trial uses the name `suppress` itself
    import numpy

EXAMPLES = "such as 90, 50ms, 1.5s, 5m, 1h or 2d"


class SettingTests(SynchronousTestCase):
    def test_wholeNumbers(self) -> None:
        self.assertEqual(at_least(2, "x", 2), 2)
        for bad, error in ((1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)):
            with self.assertRaisesRegex(error, r"^x must be .*, not "):
                at_least(2, "x", bad)

    def test_seconds(self) -> None:
        for good in (1, 1.5, Fraction(3, 2), MAX_DURATION - 1):
            self.assertEqual(seconds_from(1, "x", good), good)
        for bad, error in (
            (MAX_DURATION, ValueError),
            (1e300, ValueError),
            (0.9, ValueError),
            (math.nan, ValueError),
            (math.inf, ValueError),
            (10**400, ValueError),
            ("1", TypeError),
            (None, TypeError),
            (True, TypeError),
            (timedelta(seconds=1), TypeError),
        ):
            with self.assertRaisesRegex(error, r"^x must be .*, not "):
                seconds_from(1, "x", bad)

    @skipIf(needs("numpy"), needs("numpy"))
    def test_numpy(self) -> None:
        """Numbers of numpy become numbers of Python; its arrays and bools are rejected."""
        self.assertIs(type(at_least(2, "x", numpy.int64(2))), int)
        self.assertIs(type(seconds_from(1, "x", numpy.float32(1.5))), float)
        for bad in (numpy.array([2]), numpy.array(2), numpy.bool_(True)):
            self.assertRaises(TypeError, at_least, 2, "x", bad)
            self.assertRaises(TypeError, seconds_from, 1, "x", bad)

    def test_flags(self) -> None:
        self.assertIs(flag("x", False), False)
        for bad in (0, None, "no"):
            with self.assertRaisesRegex(TypeError, "^x must be a bool, not "):
                flag("x", bad)

    def test_callables(self) -> None:
        check_callable("x", print, optional=False)
        check_callable("x", None)
        for bad, optional in ((None, False), (5, True)):
            with self.assertRaisesRegex(TypeError, f"^x must be callable, not {bad}$"):
                check_callable("x", bad, optional)


class ShortReprTests(SynchronousTestCase):
    def test_short(self) -> None:
        for value in (5, "text", b"bytes", None, ["a", 1], "\x1b"):
            self.assertEqual(short_repr(value), repr(value))

    def test_long(self) -> None:
        for value in ("x" * 10**7, b"x" * 10**7, ["x"] * 10**5, 10**1000):
            self.assertLessEqual(len(short_repr(value)), 120)
            self.assertEqual(short_repr(value)[:5], repr(value)[:5])

    def test_unprintable(self) -> None:
        """A C{repr} that raises an exception does not replace the error that shows the value."""

        class Unprintable:
            def __repr__(self) -> str:
                raise RuntimeError

        self.assertEqual(short_repr(Unprintable()), "<Unprintable>")
        # Python converts only integers of up to 4300 digits.
        self.assertEqual(short_repr(10**5000), "<int>")
        with self.assertRaisesRegex(TypeError, "^x must be a whole number, not <Unprintable>$"):
            at_least(1, "x", Unprintable())


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
            ("50ms", 0.05),
            ("1.5s", 1.5),
            ("5m", 300.0),
            ("1h", 3600.0),
            ("2d", 172_800.0),
        ):
            self.assertEqual(parse_duration(text), seconds)
        for bad in ("0", "-1", "nan", "inf", "1e3", "", "1w", "5 m", "5sm", "0ms"):
            with self.assertRaisesRegex(ValueError, f"^a duration greater than 0, {EXAMPLES}$"):
                parse_duration(bad)

    def test_longDuration(self) -> None:
        """The limit of a text is that of a number."""
        self.assertEqual(parse_duration("999999999"), MAX_DURATION - 1)
        for bad in ("1000000000", "999999999999", "99999d", "9" * 400):
            message = f"^a duration less than 1,000,000,000 seconds, {EXAMPLES}$"
            with self.assertRaisesRegex(ValueError, message):
                parse_duration(bad)

    def test_leastDuration(self) -> None:
        self.assertEqual(parse_duration("0.1", least=0.1), 0.1)
        self.assertEqual(parse_duration("0", least=0), 0.0)
        message = f"^a duration of 0.1 seconds or more, {EXAMPLES}$"
        with self.assertRaisesRegex(ValueError, message):
            parse_duration("0.09", least=0.1)

    def test_wordForNone(self) -> None:
        """The word is parsed as None, and error messages mention it."""
        parse = parse_unless("none", parse_count)
        self.assertEqual([parse(text) for text in ("none", " None", "3")], [None, None, 3])
        with self.assertRaisesRegex(ValueError, "^a whole number, 1 or more, or none$"):
            parse("never")

    def test_reporting(self) -> None:
        """An invalid text is reported as another exception, with the expected form, shortened."""
        parse = reporting(KeyError, parse_count, "--x: ")
        self.assertEqual(parse("3"), 3)
        error = self.assertRaises(KeyError, parse, "three")
        self.assertEqual(error.args, ("--x: expected a whole number, 1 or more; got 'three'",))
        error = self.assertRaises(KeyError, parse, "x" * 10**6)
        self.assertLess(len(str(error)), 1000)
