"""
``metrics-tcp observe``: errors before the viewer starts.
"""

from __future__ import annotations

import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import run


class CommandTests(SynchronousTestCase):
    def assert_fails(self, endpoint: str, message: str) -> None:
        code, out, said = run("observe", endpoint)
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(said, rf"\Ametrics-tcp: {message}\n\Z")

    def test_noTextual(self) -> None:
        """Without the extra, the message shows how to install it."""
        with mock.patch.dict(sys.modules, textual=None):
            self.assert_fails(
                "5000", r"observe requires Textual: pip install 'txmetrics-tcp\[observe\]'"
            )
