"""
Tests of ``metrics-tcp tail`` as a process that take longer than a second.
"""

from __future__ import annotations

import shutil
import tempfile

from tests.commands import CommandTestCase


class ProcessTests(CommandTestCase):
    async def test_reconnects(self) -> None:
        """The command reconnects when its server is back."""
        # A UNIX socket, since another program might take a port meanwhile.  Its path must be short.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = f"{directory}/s"
        child = self.child("tail", self.serve(path))
        await child.prints("status ")
        await self.port.stopListening()
        await self.server.stop(0)
        await child.says("next attempt")
        self.serve(path)
        await child.prints("(?s)status .*status ")
        self.counter.increment(7)
        await child.prints(r"requests_total \[route = /\] 7\n")
        self.assertRegex(child.err, r"disconnected from .*; next attempt in [\d.]+ m?s\n")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
