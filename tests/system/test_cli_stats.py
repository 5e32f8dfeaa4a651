"""
``metrics-tcp stats`` as a process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.system.test_cli_tail import Child, Greeting, patiently
from tests.unit.cli.test_stats import STATUS, increment
from txmetrics_tcp import (
    MetricsFactory,
)
from txmetrics_tcp._recording.writer import RecordingWriter

reactor: Any = global_reactor


def nothing_came(child: Child) -> bool:
    return "nothing came from" in child.err


class ProcessTests(TestCase):
    """The command itself, with a real server."""

    timeout = 60

    def serve(self) -> str:
        self.server = MetricsFactory(reactor, own_metrics=False)
        self.addCleanup(self.server.stop, 0)
        self.server.recorder.counter("requests_total", route="/").increment(3)
        return self.listen(self.server)

    def listen(self, factory: Factory) -> str:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return str(port.getHost().port)

    def child(self, *arguments: str) -> Child:
        child = Child(sys.executable, "-m", "txmetrics_tcp", "stats", *arguments)
        self.addCleanup(child.kill)
        return child

    async def watched(self, *arguments: str) -> Child:
        return await patiently(
            lambda seconds: self.child(*arguments, "--duration", seconds), 0.3, nothing_came
        )

    async def test_table(self) -> None:
        port = self.serve()
        child = await self.watched(port, "--filter", "route=/", "--filter", "name:x")
        self.assertEqual(child.code, 0)
        self.assertEqual(child.err, "")
        head, series, empty, last = child.out.splitlines()
        self.assertEqual(head.split(), ["KIND", "NAME", "LABELS", "VALUE", "RATE"])
        self.assertEqual(series.split(), ["counter", "requests_total", "route=/", "3", "0/s"])
        self.assertEqual(empty, "")
        self.assertRegex(last, rf"^127\.0\.0\.1:{port} \(.*\): 1 of 1 series, .* none missed$")

    async def test_json(self) -> None:
        child = await self.watched(self.serve(), "--json")
        self.assertEqual(child.code, 0)
        self.assertEqual(child.err, "")
        document = json.loads(child.out)
        self.assertEqual(document["missed"], {"incoming": 0, "client": 0})
        self.assertEqual([one["value"] for one in document["series"]], [3])

    async def test_recording(self) -> None:
        path = str(Path(self.mktemp()).resolve())
        with RecordingWriter.create(path, "there") as writer:
            writer.connected()
            writer.write(STATUS + increment(1234))
        child = self.child(path)
        self.assertEqual(await child.ended, 0)
        # The rate of a moment is none.
        self.assertRegex(child.out, r"\ncounter  requests +1,234     -\n")
        self.assertEqual(child.err, "")

    async def test_emptyFile(self) -> None:
        path = self.mktemp()
        Path(path).touch()
        child = self.child(f"./{path}")
        self.assertEqual(await child.ended, 1)
        self.assertIn("it is empty, and no recording\n", child.err)

    async def test_noRecording(self) -> None:
        path = self.mktemp()
        Path(path).write_text("something else")
        child = self.child(path)
        self.assertEqual(await child.ended, 1)
        self.assertEqual(child.out, "")
        self.assertRegex(child.err, r"^metrics-tcp: cannot read .*: it is not a recording.*\n$")

    async def test_anotherKindOfServer(self) -> None:
        child = self.child(self.listen(Factory.forProtocol(Greeting)))
        self.assertEqual(await child.ended, 1)
        self.assertEqual(child.out, "")
        self.assertIn("not a metrics stream", child.err)

    async def test_interrupted(self) -> None:
        """A terminal is shown how far it is; Ctrl-C prints what was seen so far."""
        command = f'"{sys.executable}" -m txmetrics_tcp stats {self.serve()} --duration 1h'
        child = Child("/bin/sh", "-c", f"stty cols 120; exec {command}", usePTY=True)
        self.addCleanup(child.kill)
        await child.until(lambda: "of 3600 seconds, 1 series, " in child.out)
        self.assertNotIn("VALUE", child.out)
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        # The line before is taken away.
        self.assertIn("\r\x1b[KKIND ", child.out)
        self.assertIn("requests_total", child.out)

    async def test_cannotWrite(self) -> None:
        command = f'"{sys.executable}" -m txmetrics_tcp stats {self.serve()} > /dev/full'

        def start(seconds: str) -> Child:
            child = Child("/bin/sh", "-c", f"{command} --duration {seconds}")
            self.addCleanup(child.kill)
            return child

        child = await patiently(start, 0.1, nothing_came)
        self.assertEqual(child.code, 1)
        self.assertEqual(child.err, "metrics-tcp: cannot write: No space left on device\n")
