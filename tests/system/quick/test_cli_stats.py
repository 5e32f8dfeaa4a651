"""
``metrics-tcp stats`` as a process, with a real server.
"""

from __future__ import annotations

from tests.commands import CommandTestCase


class ProcessTests(CommandTestCase):
    async def test_interrupted(self) -> None:
        """A terminal shows the progress; Ctrl-C prints the statistics so far."""
        port = self.serve()
        self.counter.increment(3)
        script = 'stty cols 120; exec "$@"'
        child = self.shell(script, "stats", port, "--duration", "1h", usePTY=True)
        await child.prints("of 1h 00m, 1 series, ")
        self.assertNotIn("VALUE", child.out)
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        # The progress line is erased.
        self.assertRegex(child.out, r"\r\x1b\[KKIND  +NAME  +LABELS  +VALUE  +RATE\r\n")
        self.assertRegex(child.out, r"\ncounter  +requests_total  +route=/  +3  ")
        self.assertRegex(child.out, rf"\n127\.0\.0\.1:{port} \(.*\): 1 of 1 series, .* none missed")
