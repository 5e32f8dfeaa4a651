"""
Raw captures, which ``metrics-tcp tail --raw`` prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.commands import CommandReactor, Ended, run
from tests.recordings import (
    FOREIGN,
    FOREIGN_FRAME,
    HTTP,
    MANY,
    MEMORY,
    SET,
    THREE,
    increment,
    metrics,
    record,
)
from txmetrics_tcp import Event, decode, encode_metadata, encode_metric
from txmetrics_tcp._codec.framing import EMPTY_FRAME, MAX_FRAME
from txmetrics_tcp._recording.blocks import PIECE, PREFIX
from txmetrics_tcp.cli import tail
from txmetrics_tcp.cli.raw import STANDARD_INPUT, RawCapture

CUT_OFF = "the stream ends within a frame, after 9 bytes of it"


class InterruptedReactor(CommandReactor):
    """A reactor whose process receives SIGINT after its third read."""

    reads = 0

    def read(self) -> int:
        read = super().read()
        self.reads += read
        if self.reads == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return read


class CaptureTests(SynchronousTestCase):
    """The reactor calls C{doRead} when the descriptor is readable."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.events: list[Event] = []
        self.ends: list[tuple[str, int]] = []

    def capture(self, path: str = "") -> RawCapture:
        capture = RawCapture(
            CommandReactor(),
            path or self.path,
            MAX_FRAME,
            self.events.extend,
            lambda message, code: self.ends.append((message, code)),
        )
        self.addCleanup(capture.stop)
        return capture

    def fifo(self) -> tuple[RawCapture, int]:
        """
        @return: a capture that reads a FIFO, and the writing end.
        """
        os.mkfifo(self.path)
        capture = self.capture()
        writing = os.open(self.path, os.O_WRONLY)
        self.addCleanup(os.close, writing)
        return capture, writing

    def test_pieces(self) -> None:
        """Each event is passed on with the read that completes it."""
        capture, writing = self.fifo()
        events = decode(THREE)
        first = len(increment(0))
        for begin, end, complete in [
            (0, first, 1),
            (first, first + 1, 1),
            (first + 1, 2 * first - 1, 1),
            (2 * first - 1, len(THREE), 3),
        ]:
            os.write(writing, THREE[begin:end])
            self.assertIsNone(capture.doRead())
            self.assertEqual(self.events, events[:complete])

    def test_boundedReads(self) -> None:
        """One read decodes a limited number of bytes, however many are available."""
        Path(self.path).write_bytes(MANY)
        capture = self.capture()
        reads = 1
        while capture.doRead() is None:
            self.assertEqual(
                os.lseek(capture.fileno(), 0, os.SEEK_CUR), min(reads * PIECE, len(MANY))
            )
            reads += 1
        self.assertEqual(len(self.events), metrics(MANY))

    def test_notReady(self) -> None:
        """Nothing happens if there is no data after all."""
        capture, _ = self.fifo()
        self.assertIsNone(capture.doRead())
        self.assertEqual((self.events, self.ends), ([], []))

    def test_hangUp(self) -> None:
        """The reactor reports the end of a pipe, with or without a read."""
        capture, writing = self.fifo()
        os.write(writing, THREE)
        capture.doRead()
        capture.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.ends, [("", 0)])

    def test_failed(self) -> None:
        """An unexpected error of a read is an error of the command."""
        capture, writing = self.fifo()
        os.write(writing, THREE)
        capture.doRead()
        capture.connectionLost(Failure(ValueError("unexpected")))
        self.assertEqual(self.ends, [(f"{self.path}: unexpected", 1)])

    def test_stop(self) -> None:
        """C{stop} closes a file, but not standard input."""
        Path(self.path).write_bytes(b"")
        for path, closed in [(self.path, True), (STANDARD_INPUT, False)]:
            with mock.patch.object(os, "close") as close:
                self.capture(path).stop()
            self.assertEqual(close.called, closed)


class ReactorTests(TestCase):
    """The reactor of the test run reads all kinds of files."""

    timeout = 120

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.events: list[Event] = []
        self.arrived: Deferred[None] = Deferred()
        self.ended: Deferred[tuple[str, int]] = Deferred()

    def start(self) -> None:
        def received(events: list[Event]) -> None:
            self.events += events
            arrived, self.arrived = self.arrived, Deferred()
            arrived.callback(None)

        def ended(message: str, code: int) -> None:
            self.ended.callback((message, code))

        capture = RawCapture(reactor, self.path, MAX_FRAME, received, ended)
        self.addCleanup(capture.stop)
        capture.start()

    async def test_file(self) -> None:
        """A regular file is read to its end."""
        Path(self.path).write_bytes(MANY)
        self.start()
        self.assertEqual(await self.ended, ("", 0))
        self.assertEqual(len(self.events), metrics(MANY))

    async def test_invalid(self) -> None:
        """Reading ends at an invalid frame."""
        Path(self.path).write_bytes(THREE + FOREIGN + MANY)
        self.start()
        message, code = await self.ended
        self.assertEqual(code, 1)
        self.assertIn(FOREIGN_FRAME, message)
        self.assertEqual(self.events, decode(THREE))

    async def test_fifo(self) -> None:
        """
        A FIFO can be opened before a program writes to it.  It is read as data arrives, and ends
        when the writer closes it.
        """
        os.mkfifo(self.path)
        self.start()
        with open(self.path, "wb", buffering=0) as writer:
            for number in range(3):
                arrived = self.arrived
                writer.write(increment(number))
                await arrived
                self.assertEqual(len(self.events), number + 1)
            self.assertFalse(self.ended.called)
        self.assertEqual(await self.ended, ("", 0))

    async def test_unused(self) -> None:
        """A FIFO whose writer wrote nothing is empty."""
        os.mkfifo(self.path)
        self.start()
        os.close(os.open(self.path, os.O_WRONLY))
        self.assertEqual(await self.ended, (f"received nothing from {self.path}", 1))

    async def test_directory(self) -> None:
        """A directory is reported when it is read."""
        os.mkdir(self.path)
        self.start()
        self.assertEqual(await self.ended, (f"cannot read {self.path}: Is a directory", 1))


class CommandTests(SynchronousTestCase):
    """The whole command, on a fake reactor."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def tail(self, data: bytes, *arguments: str) -> Ended:
        Path(self.path).write_bytes(data)
        return run("tail", "--raw", self.path, *arguments)

    def test_ends(self) -> None:
        """
        The events before the end are printed.  The end is reported in one line with the name of
        the file or of standard input, except the regular one.
        """
        foreign = f"{{name}}: {FOREIGN_FRAME}"
        for data, stream, says, code in [
            (THREE, THREE, "", 0),
            (MANY, MANY, "", 0),
            (THREE + EMPTY_FRAME, THREE, "", 0),
            (b"", b"", "received nothing from {name}\n", 1),
            (EMPTY_FRAME * 3, b"", "received nothing from {name}\n", 1),
            (THREE + THREE[:9], THREE, f"{{name}}: {CUT_OFF}\n", 0),
            (THREE[:9], b"", f"{{name}}: {CUT_OFF}\n", 1),
            (THREE + FOREIGN + THREE, THREE, foreign, 1),
            (MANY + FOREIGN + MANY, MANY, foreign, 1),
            (HTTP, b"", "{name}: not a metrics stream: it looks like an HTTP server\n", 1),
            (record(THREE), b"", "{name} is a recording: omit --raw", 1),
            (PREFIX, b"", "{name} is a recording: omit --raw", 1),
        ]:
            ended = self.tail(data, "--json")
            from_input = run("tail", "--raw", "-", "--json", stdin=self.path)
            for name, (got, out, said) in [(self.path, ended), ("standard input", from_input)]:
                self.assertEqual((got, out.count("\n")), (code, metrics(stream)), said)
                expected = says and f"metrics-tcp: {says.format(name=name)}"
                self.assertTrue(said.startswith(expected), said)
                self.assertEqual(said.count("\n"), bool(says))

    def test_unreadable(self) -> None:
        """A file that cannot be read is reported with the reason."""
        folder = self.mktemp()
        os.mkdir(folder)
        for path, says in [
            (self.path, f"cannot read {self.path}: No such file or directory"),
            (folder, f"cannot read {folder}: Is a directory"),
            (f"{__file__}/x", f"cannot read {__file__}/x: Not a directory"),
        ]:
            self.assertEqual(run("tail", "--raw", path), (1, "", f"metrics-tcp: {says}\n"))

    def test_closedInput(self) -> None:
        """A closed standard input is reported."""
        with mock.patch.object(sys, "stdin", None):
            ended = run("tail", "--raw", "-")
        self.assertEqual(ended, (1, "", "metrics-tcp: cannot read: standard input is closed\n"))

    def test_hint(self) -> None:
        """Without C{--raw}, a message names the option."""
        Path(self.path).write_bytes(THREE)
        code, out, said = run("tail", self.path)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("metrics-tcp tail --raw", said)

    def test_fileNamedAsPort(self) -> None:
        """The argument is a file, even if it looks like an endpoint."""
        Path("1").write_bytes(THREE)
        self.addCleanup(os.unlink, "1")
        self.assertEqual(run("tail", "--raw", "1").out.count("\n"), 3)

    def test_order(self) -> None:
        """A message follows the lines of earlier events."""
        printed: list[int] = []
        with mock.patch.object(tail, "say", lambda text: printed.append(os.fstat(1).st_size)):
            _, out, _ = self.tail(THREE + FOREIGN)
        self.assertEqual(printed, [len(out)])
        self.assertTrue(out)

    def test_options(self) -> None:
        """C{--filter}, C{--count} and C{--json} work as with a server."""
        memory = encode_metadata(MEMORY) + encode_metric(SET)
        options = ["--json", "--filter", "name:mem", "--count", "1"]
        code, out, said = self.tail(THREE + memory + memory, *options)
        self.assertEqual((code, said), (0, ""))
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [(event["event"], event["name"]) for event in events],
            [("metadata", "memory"), ("metric", "memory")],
        )

    def test_count(self) -> None:
        """With C{--count}, data after the last printed event is not reported."""
        for rest in FOREIGN, MANY + FOREIGN, b"\x09":
            code, out, said = self.tail(THREE + rest, "--count", "3")
            self.assertEqual((code, out.count("\n"), said), (0, 3, ""))

    def test_maxFrame(self) -> None:
        """C{--max-frame} limits the frames."""
        code, out, said = self.tail(THREE, "--max-frame", "5")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("the limit of 5 bytes", said)

    def test_duration(self) -> None:
        """C{--duration} ends the command, even if no program opens a FIFO for writing."""
        os.mkfifo(self.path)
        code, out, said = run("tail", "--raw", self.path, "--duration", "2.5")
        self.assertEqual((code, out), (1, ""))
        self.assertEqual(said, f"metrics-tcp: received nothing from {self.path} within 2.5 s\n")

    def test_interrupted(self) -> None:
        """Ctrl-C stops the command before the capture is read completely."""
        Path(self.path).write_bytes(MANY + FOREIGN)
        code, out, said = run("tail", "--raw", self.path, on=InterruptedReactor())
        self.assertEqual((code, said), (130, ""))
        self.assertTrue(0 < out.count("\n") < metrics(MANY))
