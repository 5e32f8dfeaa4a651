"""
``metrics-tcp observe``, where it ends before it shows anything.
"""

from __future__ import annotations

import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import run


class CommandTests(SynchronousTestCase):
    def assert_ends(self, endpoint: str, says: str) -> None:
        """With one line."""
        code, out, said = run("observe", endpoint)
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(said, rf"\Ametrics-tcp: {says}\n\Z")

    def test_noTextual(self) -> None:
        """Without the extra, one line says how to get it."""
        with mock.patch.dict(sys.modules, textual=None):
            self.assert_ends("5000", r"this needs Textual: pip install 'txmetrics-tcp\[observe\]'")
