"""
``metrics-tcp record`` as a process, with a real server.
"""

from __future__ import annotations

import os
import select
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
        """With C{-} or the name of a pipe, the recording goes to standard output."""
        port = self.serve()
        self.counter.increment()
        for output in "-", "/dev/stdout":
            script = f'{{ "$@"; echo "code $?" >&2; }} | cat > "{self.path}"'
            child = self.shell(script, "record", output, port, "--count", "1")
            self.assertEqual(await child.ended, 0, child.err)
            self.assertIn("\ncode 0\n", child.err)
            self.assertNotIn("reader", child.err)
            self.assertNotIn("waiting", child.err)
            self.assertEqual(self.read()[1], 1)

    async def test_interruptedWhileBlocked(self) -> None:
        """A signal ends the command while its output is blocked; the recording is cut off."""
        for signal in "INT", "TERM":
            reading, writing = os.pipe()
            self.addCleanup(os.close, reading)
            self.addCleanup(os.close, writing)
            child = self.child("record", "-", self.serve(), childFDs={0: "w", 1: writing, 2: "r"})
            while select.select([], [writing], [], 0)[1]:
                for _ in range(1000):
                    self.counter.increment()
                await deferLater(reactor, 0.01)
            child.signal(signal)
            self.assertEqual(await child.ended, 1)
            self.assertIn("cannot record to -: the reader does not read\n", child.err)

    async def test_outputClosed(self) -> None:
        """The command ends when the reader of its output exits, without received events."""
        child = self.shell('{ "$@"; echo "code $?" >&2; } | true', "record", "-", "unix:nowhere")
        self.assertEqual(await child.ended, 0)
        self.assertIn("the reader of the recording has closed the pipe\ncode 1\n", child.err)

    async def test_fifo(self) -> None:
        """A recording to a FIFO begins when a program reads it."""
        os.mkfifo(self.path)
        self.path, fifo = f"{self.path}.copy", self.path
        port = self.serve()
        self.counter.increment()
        child = self.child("record", fifo, port, "--count", "1")
        await child.says(f"waiting for a program that reads {fifo}")
        reader = self.spawn("/bin/sh", "-c", f'cat "{fifo}" > "{self.path}"')
        self.assertEqual(await child.ended, 0, child.err)
        self.assertEqual(await reader.ended, 0)
        self.assertEqual(self.read()[1], 1)

    async def test_fifoWithoutReader(self) -> None:
        """A signal ends the command while no program reads the FIFO."""
        os.mkfifo(self.path)
        child = self.child("record", self.path, "unix:nowhere")
        await child.says("waiting for a program that reads")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        child = self.child("record", self.path, "unix:nowhere")
        await child.says("waiting for a program that reads")
        child.signal("TERM")
        # The process has no exit code, since the signal has ended it.
        self.assertEqual(await child.ended, None)
