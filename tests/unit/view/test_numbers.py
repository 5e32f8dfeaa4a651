"""
Human-readable numbers.
"""

from __future__ import annotations

import math
import random
import re
import sys
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Unit
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp._view.numbers import (
    MIN_WIDTH,
    base_scale,
    show_duration,
    show_rate,
    show_seconds,
    show_share,
    show_value,
)


class ScaleTests(SynchronousTestCase):
    def test_compare(self) -> None:
        """Values that are displayed equally are equal when scaled, in any unit."""
        for values in [
            {Unit.SECONDS: 0.0015, Unit.MILLISECONDS: 1.5, Unit.NANOSECONDS: 1500000},
            {Unit.BYTES: 3 * 1024**2, Unit.KIBIBYTES: 3 * 1024, Unit.MEBIBYTES: 3},
            {Unit.BITS_PER_SECOND: 7e6, Unit.MEGABITS_PER_SECOND: 7},
            {Unit.COUNT: 5, None: 5, "": 5},
        ]:
            self.assertEqual(len({show_value(value, unit) for unit, value in values.items()}), 1)
            scaled = [value * base_scale(unit) for unit, value in values.items()]
            for value in scaled:
                self.assertAlmostEqual(value / scaled[0], 1)
        self.assertEqual([base_scale(unit) for unit in ("percent", "widgets")], [1, 1])
        # Large totals keep their digits.
        self.assertEqual(U64_MAX * base_scale("bytes"), U64_MAX)


_LETTERS = ("", *"kMGTPE")

FACTORS: dict[str, float] = {
    **{f"{letter}B": 1024**power for power, letter in enumerate(("", "Ki", "Mi", "Gi", "Ti"))},
    **{"PiB": 1024**5, "EiB": 1024**6},
    **{f"{letter}bps": 1000**power for power, letter in enumerate(_LETTERS)},
    **{"ns": 1e-9, "μs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "y": 31557600},
}
"""The labels of scaled values."""

UNITS = [None, *Unit, "widgets"]

NUMBER = r"(-?[\d,]+(?:\.\d+)?(?:e[+-]\d+)?)"


def parse(text: str, unit: str | None) -> tuple[Fraction, float]:
    """
    Return the value of a text in bytes, bits per second or seconds, or as it is; and the limit of
    its rounding to the smaller of two units.

    @param unit: the unit of the value, which the text may lack.
    """
    if match := re.fullmatch(r"(-?)(\d+)([mhd]) (\d\d)([smh])", text):
        sign, large, larger, small, smaller = match.groups()
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        value = Fraction(int(large) * seconds[larger] + int(small) * seconds[smaller])
        return -value if sign else value, seconds[smaller] / 2
    if (match := re.fullmatch(NUMBER + r" ?(\D+)", text)) and match[2] in FACTORS:
        factor = FACTORS[match[2]]
    else:
        match = re.fullmatch(NUMBER + r"([kMGTPE]?)(%|/s|( .+)?)", text)
        assert match is not None, text
        factor = 1000 ** _LETTERS.index(match[2]) * base_scale(unit)
    return Fraction(match[1].replace(",", "")) * Fraction(factor), 0


def values(number: int) -> list[int | float]:
    """Return values of every magnitude: edges, and this many random ones."""
    chance = random.Random(19)
    edges = [0, 5e-324, sys.float_info.max, sys.float_info.min, 1e-4, 1e15, 1e21, 2**64, 10**400]
    edges += [factor * (1 + near) for factor in FACTORS.values() for near in (-1e-3, -1e-4, 0)]
    edges += [59.95, 59.949, 3599.5, 86369, 86371, 8_638_199, 8_638_201, 8_640_000, 999.5]
    edges += [chance.uniform(1, 10) * 10.0 ** chance.randint(-307, 307) for _ in range(number)]
    edges += [chance.uniform(1, 10) * 10.0 ** chance.randint(-12, 24) for _ in range(number)]
    edges += [chance.getrandbits(chance.randint(1, 70)) for _ in range(number)]
    return [sign * value for value in edges for sign in (1, -1)]


class MagnitudeTests(SynchronousTestCase):
    def check(self, value: float, unit: str | None, text: str, error: float) -> None:
        expected = Fraction(value) * Fraction(base_scale(unit))
        parsed, rounding = parse(text, unit)
        limit = max(abs(expected) * Fraction(error), Fraction(rounding))
        self.assertLessEqual(abs(parsed - expected), limit, (text, unit, str(value)[:30]))

    def test_everyMagnitude(self) -> None:
        """Any value in any unit is shown to three digits."""
        for value in values(100):
            for unit in UNITS:
                self.check(value, unit, show_value(value, unit), 0.00501)

    def test_everyWidth(self) -> None:
        """At any width, the text of any value fits and has its magnitude."""
        for value in values(20):
            for unit in UNITS:
                whole = show_value(value, unit)
                for width in range(MIN_WIDTH, 20):
                    text = show_value(value, unit, width)
                    self.assertLessEqual(len(text), width)
                    self.check(value, unit, text, 0.00501 if width >= 18 else 0.334)
                    if len(whole) <= width:
                        self.assertEqual(text, whole)
                    self.assertLessEqual(len(show_rate(value, unit, width)), width)


class ValueTests(SynchronousTestCase):
    def check(self, unit: str | None, cases: dict[float, str]) -> None:
        for value, text in cases.items():
            self.assertEqual(show_value(value, unit), text)

    def test_bytes(self) -> None:
        """Bytes of any unit are shown in powers of 1024."""
        self.check(
            "bytes",
            {
                0: "0 B",
                1023: "1023 B",
                1024: "1 KiB",
                1536: "1.5 KiB",
                -1536: "-1.5 KiB",
                1010 * 1024: "1010 KiB",
                1024**2 - 1: "1 MiB",
                3 * 1024**3: "3 GiB",
                U64_MAX: "16 EiB",
                2.0**80: "1.21e+24 B",
                12.5: "12.5 B",
                1e-5: "1e-05 B",
            },
        )
        self.assertEqual(show_value(1536, Unit.KIBIBYTES), "1.5 MiB")
        self.assertEqual(show_value(0.5, "tebibytes"), "512 GiB")
        self.assertEqual(show_value(1e300, "tebibytes"), "1e+300 TiB")

    def test_bits(self) -> None:
        """Bit rates are shown in powers of 1000."""
        self.check("bits_per_second", {999: "999 bps", 1500: "1.5 kbps", 2e12: "2 Tbps"})
        self.assertEqual(show_value(1500, "kilobits_per_second"), "1.5 Mbps")

    def test_times(self) -> None:
        self.check(
            "seconds",
            {
                0: "0 s",
                0.0015: "1.5 ms",
                -0.5: "-500 ms",
                0.00099999: "1 ms",
                1e-9: "1 ns",
                0.25e-9: "0.25 ns",
                1e-20: "1e-20 s",
                59.94: "59.9 s",
                59.96: "1m 00s",
                125: "2m 05s",
                3599.7: "1h 00m",
                12345: "3h 26m",
                1e6: "11d 14h",
                1e7: "116 d",
                213_503 * 86400: "585 y",
                1e12: "1e+12 s",
                1e308: "1e+308 s",
            },
        )
        self.assertEqual(show_value(1500000, "nanoseconds"), "1.5 ms")
        self.assertEqual(show_value(U64_MAX, "nanoseconds"), "585 y")
        self.assertEqual(show_value(1500, "milliseconds"), "1.5 s")
        self.assertEqual(show_value(12.34, "microseconds"), "12.3 μs")

    def test_durations(self) -> None:
        """Times that are still running are rounded down to the second."""
        cases = ((0.999, "0 s"), (59.99, "59 s"), (245.9, "4m 05s"), (7500, "2h 05m"))
        for seconds, text in cases:
            self.assertEqual(show_duration(seconds), text)

    def test_shares(self) -> None:
        self.assertEqual([show_share(share) for share in (0, 0.999, 1)], ["0%", "99%", "100%"])

    def test_others(self) -> None:
        self.assertEqual(show_value(12.5, "percent"), "12.5%")
        self.assertEqual(show_value(7, "count_per_second"), "7/s")
        self.assertEqual(show_value(3, "count"), "3")
        self.assertEqual(show_value(3, "widgets"), "3 widgets")
        self.assertEqual(show_value(3, ""), "3")

    def test_numbers(self) -> None:
        """
        Whole numbers keep all digits; others have three significant digits and all integer digits.
        """
        self.check(
            None,
            {
                U64_MAX: "18,446,744,073,709,551,615",
                1234.5678: "1,235",
                1 / 3: "0.333",
                999999.6: "1,000,000",
                -1234567.8: "-1,234,568",
                1.0: "1",
                -0.0: "0",
                2.5e30: "2.5e+30",
                1.23457e-05: "1.23e-05",
            },
        )

    def test_narrow(self) -> None:
        """With a width, numbers get letters, then fewer digits; then the unit is cut."""
        for value, unit, width, text in [
            (1_234_567, None, 9, "1,234,567"),
            (1_234_567, None, 8, "1.23M"),
            (-1_234_567, None, 8, "-1.23M"),
            (U64_MAX, None, 9, "18.4E"),
            (999_999, None, 6, "1M"),
            (-0.00012345, None, 8, "-0.00012"),
            (-1.23457e-05, None, 9, "-1.23e-05"),
            (-1.23457e-05, None, 8, "-1.2e-05"),
            (6.62607e-34, None, 10, "6.63e-34"),
            (-1.23457e-105, None, 8, "-1e-105"),
            (-1234, "bytes", 8, "-1.2 KiB"),
            (-1_047_552, "bytes", 8, "-1023KiB"),
            (12_345_678, "widgets", 10, "12.3M wid…"),
            (12_345_678, "個個個個", 10, "12.3M 個…"),
            (-1e-308, "bits_per_second", 9, "-1e-308"),
            (-1e-308, "kilobits_per_second", 10, "-1e-308 k…"),
            (100_000, None, 3, "…"),
        ]:
            self.assertEqual(show_value(value, unit, width), text)

    def test_notFinite(self) -> None:
        for unit in UNITS:
            self.check(unit, {math.inf: "inf", -math.inf: "-inf"})
            self.assertEqual(show_value(math.nan, unit), "nan")
            self.assertEqual(show_rate(math.nan, unit, MIN_WIDTH), "nan")
        self.assertEqual(show_seconds(math.inf), "inf")

    @given(st.integers() | st.floats(), st.sampled_from(UNITS), st.integers(MIN_WIDTH, 20))
    def test_anyNumber(self, value: float, unit: str | None, width: int) -> None:
        """Any number from a peer has a short text, which fits."""
        for show in (show_value, show_rate):
            self.assertLessEqual(len(show(value, unit)), 40)
            self.assertTrue(0 < len(show(value, unit, width)) <= width)


class RateTests(SynchronousTestCase):
    def test_rates(self) -> None:
        for rate, unit, text in (
            (0.0, None, "0/s"),
            (12.345, None, "12.3/s"),
            (999.7, "count", "1,000/s"),
            (123456.0, None, "123,456/s"),
            (0.0501, None, "0.0501/s"),
            (-3.2, "count_per_second", "-3.2/s"),
            (1048576.0, "bytes", "1 MiB/s"),
            (0.5, "seconds", "500 ms/s"),
            (7200, "seconds", "2 h/s"),
        ):
            self.assertEqual(show_rate(rate, unit), text)
