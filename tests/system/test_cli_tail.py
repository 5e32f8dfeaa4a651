"""
``metrics-tcp tail`` as a process: what takes longer than a second.
"""

from __future__ import annotations

from tests.commands import CommandTestCase


class ProcessTests(CommandTestCase):
    async def test_reconnects(self) -> None:
        """It connects again when its server is there again."""
        port = self.serve()
        child = self.child("tail", port)
        await child.prints("status ")
        await self.port.stopListening()
        await self.server.stop(0)
        await child.says("next attempt")
        self.serve(port)
        await child.prints("(?s)status .*status ")
        self.counter.increment(7)
        await child.prints(r"requests_total \[route = /\] 7\n")
        self.assertRegex(child.err, r"disconnected from .*; next attempt in \d+\.\d seconds\n")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
