"""
Checks of the values of settings.
"""

from __future__ import annotations

import math
import sys

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp._net.checks import at_least, seconds_from


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
