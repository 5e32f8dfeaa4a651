"""
``metrics-tcp tail`` as a process, with a real server.
"""

from __future__ import annotations

import json
import os
import select

from twisted.internet.task import deferLater

from tests.commands import Child, CommandTestCase, reactor

CONNECTED = "^status "
"""The first output, printed after the server has accepted the client."""


class ProcessTests(CommandTestCase):
    def assert_quiet(self, child: Child) -> None:
        """Check that all messages are about the connection."""
        lines = child.err.splitlines()
        # Printed if a busy machine delays the first data.
        silence = "metrics-tcp: no data received yet; does the server require TLS (--tls-ca)?"
        if silence in lines:
            lines.remove(silence)
        for line in lines:
            self.assertRegex(line, r"^metrics-tcp: (connecting to|connected to) 127\.0\.0\.1:\d+$")

    async def test_text(self) -> None:
        """Events are printed as text when they arrive; Ctrl-C ends the command."""
        child = self.child("tail", self.serve())
        await child.prints(CONNECTED)
        self.recorder.describe_counter("requests_total", "count", "how many\x1b[2J")
        self.counter.increment(3)
        await child.prints(r" counter/increment requests_total \[route = /\] 3\n")
        self.assertIn("requests_total (count): how many\\x1b[2J\n", child.out)
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        self.assert_quiet(child)

    async def test_json(self) -> None:
        """Events are printed as JSON; SIGTERM ends the command."""
        child = self.child("tail", self.serve(), "--json")
        await child.prints(r'"end"')
        self.counter.increment(3)
        await child.prints(r'"metric"')
        child.signal("TERM")
        self.assertEqual(await child.ended, 143)
        self.assert_quiet(child)
        *first, event = map(json.loads, child.out.splitlines())
        self.assertEqual([one["event"] for one in first], ["status", "snapshot", "snapshot"])
        self.assertEqual(
            (event["kind"], event["operation"], event["name"], event["labels"], event["value"]),
            ("counter", "increment", "requests_total", {"route": "/"}, 3),
        )

    async def test_head(self) -> None:
        """``| head -1`` receives a line and ends the command at once, without more events."""
        child = self.shell('{ "$@"; echo "code $?" >&2; } | head -1', "tail", self.serve())
        self.assertEqual(await child.ended, 0)
        self.assertEqual(child.out.count("\n"), 1)
        child.err, _, last = child.err.rpartition("code ")
        self.assertEqual(last, "0\n")
        self.assert_quiet(child)

    async def test_interruptedWhileBlocked(self) -> None:
        """Ctrl-C ends the command while its output is blocked."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        child = self.child("tail", self.serve(), childFDs={0: "w", 1: writing, 2: "r"})
        # First output: the server has accepted the client.  Then wait until the pipe is full.
        while not select.select([reading], [], [], 0)[0]:
            await deferLater(reactor, 0.01)
        for _ in range(20_000):
            self.counter.increment()
        while select.select([], [writing], [], 0)[1]:
            await deferLater(reactor, 0.01)
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        self.assert_quiet(child)

    async def test_usageError(self) -> None:
        """A usage error ends the command with status 2 and a message, without a traceback."""
        child = self.child("tail", "--count", "0")
        self.assertEqual(await child.ended, 2)
        self.assertEqual(child.out, "")
        message = "metrics-tcp tail: error: argument --count: .*"
        self.assertRegex(child.err, rf"(?s)\Ausage: .*\n{message}\n\Z")
        self.assertNotIn("Traceback", child.err)
