"""
Human-readable numbers.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Unit
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp._view.numbers import (
    base_scale,
    show_brief,
    show_duration,
    show_number,
    show_rate,
    show_seconds,
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
                1023: "1,023 B",
                1024: "1.00 KiB",
                1536: "1.50 KiB",
                -1536: "-1.50 KiB",
                1024**2 - 1: "1.00 MiB",
                3 * 1024**3: "3.00 GiB",
                U64_MAX: "16.00 EiB",
                2.0**80: "1,048,576.00 EiB",
                12.5: "12.5 B",
            },
        )
        self.assertEqual(show_value(1536, Unit.KIBIBYTES), "1.50 MiB")
        self.assertEqual(show_value(0.5, "tebibytes"), "512.00 GiB")

    def test_bits(self) -> None:
        """Bit rates are shown in powers of 1000."""
        self.check("bits_per_second", {999: "999 bps", 1500: "1.50 kbps", 2e12: "2.00 Tbps"})
        self.assertEqual(show_value(1500, "kilobits_per_second"), "1.50 Mbps")

    def test_times(self) -> None:
        self.check(
            "seconds",
            {
                0: "0s",
                0.0015: "1.5ms",
                -0.5: "-500ms",
                0.00099999: "1ms",
                1e-9: "1ns",
                0.25e-9: "0.25ns",
                59.94: "59.9s",
                59.96: "1m 00s",
                125: "2m 05s",
                3599.7: "1h 00m",
                12345: "3h 26m",
                1e6: "11d 14h",
            },
        )
        self.assertEqual(show_value(1500000, "nanoseconds"), "1.5ms")
        self.assertEqual(show_value(1500, "milliseconds"), "1.5s")
        self.assertEqual(show_value(12.34, "microseconds"), "12.3μs")

    def test_durations(self) -> None:
        """Elapsed times are rounded down to the second."""
        for seconds, text in ((0.999, "0s"), (59.99, "59s"), (245.9, "4m 05s"), (7500, "2h 05m")):
            self.assertEqual(show_duration(seconds), text)

    def test_brief(self) -> None:
        """Brief numbers have three significant digits."""
        for value, text in [
            (0, "0"),
            (1 / 3, "0.333"),
            (-12.34, "-12.3"),
            (999.4, "999"),
            (999.6, "1k"),
            (12_345, "12.3k"),
            (-1_234_567, "-1.23M"),
            (U64_MAX, "18.4E"),
            (2e22, "20,000E"),
        ]:
            self.assertEqual(show_brief(value), text)

    def test_others(self) -> None:
        self.assertEqual(show_value(12.5, "percent"), "12.5%")
        self.assertEqual(show_value(7, "count_per_second"), "7/s")
        self.assertEqual(show_value(3, "count"), "3")
        self.assertEqual(show_value(3, "widgets"), "3 widgets")
        self.assertEqual(show_value(3, ""), "3")

    def test_numbers(self) -> None:
        """Integers keep all digits; floats have six significant digits and all integer digits."""
        self.check(
            None,
            {
                U64_MAX: "18,446,744,073,709,551,615",
                1234.5678: "1,234.57",
                1 / 3: "0.333333",
                999999.6: "1,000,000",
                -1234567.8: "-1,234,568",
                1.0: "1",
                -0.0: "0",
                2.5e30: "2.5e+30",
                1e-9: "1e-09",
            },
        )
        self.assertEqual(show_number(True + 0.5), "1.5")

    def test_notFinite(self) -> None:
        for unit in (None, *Unit, "widgets"):
            self.check(unit, {math.inf: "inf", -math.inf: "-inf"})
            self.assertEqual(show_value(math.nan, unit), "nan")
        self.assertEqual(show_seconds(math.inf), "inf")

    @given(st.integers(0, U64_MAX) | st.floats(), st.sampled_from([None, *Unit]))
    def test_anyNumber(self, value: float, unit: str | None) -> None:
        """Any number from a peer has a short text."""
        for text in (show_value(value, unit), show_rate(float(value), unit)):
            self.assertTrue(text.strip())
            # A float beyond the largest scale may have 300 integer digits.
            if abs(value) < 1e20:
                self.assertLess(len(text), 40)


class RateTests(SynchronousTestCase):
    def test_rates(self) -> None:
        for rate, unit, text in (
            (0.0, None, "0/s"),
            (12.345, None, "12.3/s"),
            (999.7, "count", "1,000/s"),
            (123456.0, None, "123,456/s"),
            (0.0501, None, "0.0501/s"),
            (-3.2, "count_per_second", "-3.2/s"),
            (1048576.0, "bytes", "1.00 MiB/s"),
            (0.5, "seconds", "500ms/s"),
            (math.nan, None, "nan/s"),
        ):
            self.assertEqual(show_rate(rate, unit), text)
