"""
``metrics-tcp observe`` as a process without a terminal.  `tests.system.test_observe_terminal` tests
it in a terminal.
"""

from __future__ import annotations

from tests.commands import CommandTestCase


class ProcessTests(CommandTestCase):
    async def test_noTerminal(self) -> None:
        child = self.child("observe", "5000")
        self.assertEqual(await child.ended, 1)
        self.assertRegex(child.err, r"\Ametrics-tcp: observe requires a terminal, .*input.*\n\Z")
