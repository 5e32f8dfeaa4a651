"""
``metrics-tcp record`` as a process, with a real server.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import deferLater

from tests.commands import CommandTestCase, reactor
from tests.recordings import STREAM, read, record
from txmetrics_tcp import Decoder, Metric, RecordingReader
from txmetrics_tcp._recording.blocks import BLOCK


class ProcessTests(CommandTestCase):
    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())

    def read(self) -> tuple[RecordingReader, int]:
        """Check that the recording is complete, and return its reader and its number of events."""
        reader, chunks = read(Path(self.path).read_bytes())
        self.assertEqual((reader.cut_off, reader.damage), (False, ""))
        decoder = Decoder()
        events = [event for chunk in chunks for event in decoder.feed(chunk.frames)]
        return reader, sum(isinstance(event, Metric) for event in events)

    async def test_interrupted(self) -> None:
        """
        Ctrl-C ends the recording: the file is complete, and the exit code is 0.  On a terminal, the
        command shows its progress in one line, which it erases at the end.
        """
        port = self.serve()
        self.counter.increment()
        child = self.child("record", self.path, port, "--compress", usePTY=True)
        await child.prints(r"recording: \d+ s, 1 event, [\d.]+ (Ki)?B")
        child.signal("INT")
        self.assertEqual(await child.ended, 0, child.out)
        self.assertRegex(child.out, r"\r\x1b\[Kmetrics-tcp: recorded 1 event in ")
        reader, events = self.read()
        self.assertEqual(events, 1)
        self.assertEqual([session.source for session in reader.sessions], [f"127.0.0.1:{port}"])

    async def test_terminated(self) -> None:
        """SIGTERM ends an appended recording; full blocks are written before that."""
        Path(self.path).write_bytes(record(STREAM))
        begun = os.path.getsize(self.path)
        child = self.child("record", self.path, self.serve(), "--append")
        await child.says("connected to")
        while os.path.getsize(self.path) < begun + BLOCK:
            for _ in range(1000):
                self.counter.increment()
            await deferLater(reactor, 0.01)
        child.signal("TERM")
        self.assertEqual(await child.ended, 0, child.err)
        self.assertRegex(child.err, r"recorded [\d,]+ events in ")
        self.assertEqual(len(self.read()[0].sessions), 2)

    async def test_output(self) -> None:
        """With C{-}, the recording goes to standard output, for a pipe."""
        port = self.serve()
        self.counter.increment()
        script = f'"$@" | cat > "{self.path}"'
        child = self.shell(script, "record", "-", port, "--count", "1")
        self.assertEqual(await child.ended, 0, child.err)
        self.assertEqual(self.read()[1], 1)
