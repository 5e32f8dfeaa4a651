"""
Reading the events of recordings.  `tests.unit.cli.test_recordings` tests the commands.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.recordings import (
    LONG,
    MANY,
    NO_RECORDINGS,
    RECORDINGS,
    STREAM,
    THREE,
    BadDisk,
    Clock,
    Unclosed,
    chunk,
    record,
    with_payload,
    writer_to,
)
from txmetrics_tcp import Decoder, RecordingError, RecordingReader
from txmetrics_tcp._recording import events
from txmetrics_tcp._recording.blocks import (
    CONNECTION,
    HEADER_SIZE,
    MAGIC,
    PIECE,
    PLAIN,
    encode_block,
)
from txmetrics_tcp._recording.events import TIME_SLICE, Outcome, Recording, Stepper
from txmetrics_tcp.testing import FakeReactor


class RecordingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def recording(self, data: bytes) -> Recording:
        Path(self.path).write_bytes(data)
        recording = Recording(self.path)
        self.addCleanup(recording.close)
        return recording

    def test_pieces(self) -> None:
        """Each piece has whole frames and their events, up to any damage."""
        for name, case in RECORDINGS.items():
            recording = self.recording(case.data)
            decoder = Decoder(2 * len(LONG))
            stream = b""
            for piece in recording:
                stream += piece.frames
                # Compared as text, since NaN does not equal itself.
                self.assertEqual(str(list(decoder.feed(piece.frames))), str(piece.events), name)
                self.assertEqual(decoder.unfinished, 0)
            self.assertEqual(stream, case.stream, name)
            text, code = recording.outcome
            self.assertEqual((text[: len(case.says) or None], code), (case.says, case.code), name)

    def test_largeChunk(self) -> None:
        """A large chunk is read in pieces; only the first begins the connection."""
        pieces = list(self.recording(RECORDINGS["one large chunk"].data))
        self.assertEqual(len(pieces), -(-len(MANY) // PIECE))
        self.assertLess(max(len(piece.frames) for piece in pieces), PIECE + 2000)
        self.assertEqual([piece.begins for piece in pieces], [True] + [False] * (len(pieces) - 1))

    def test_cancelled(self) -> None:
        """A signal handler can cancel a read that waits for the writer of a pipe."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        os.write(writing, record(THREE, THREE)[:-HEADER_SIZE])
        recording = Recording(f"/dev/fd/{reading}")
        self.addCleanup(recording.close)
        wait = select.select
        waits: list[None] = []

        def interrupted(*arguments: Any) -> tuple[list[int], list[int], list[int]]:
            ready = wait(*arguments[:3], 0)
            if not ready[0]:
                waits.append(None)
                self.assertEqual(len(waits), 1, "the read was not cancelled")
                recording.cancel()
            return ready

        self.patch(select, "select", interrupted)
        self.assertEqual([piece.frames for piece in recording], [THREE, THREE])
        self.assertEqual((len(waits), recording.outcome), (1, Outcome()))

    def test_steps(self) -> None:
        """
        A step has few frames and few blocks, however many there are: they take little space in a
        file.
        """
        recording = self.recording(with_payload(chunk(bytes(1_000_000)) + chunk(THREE)))
        pieces = list(recording)
        self.assertLessEqual(max(len(piece.frames) for piece in pieces), PIECE)
        self.assertEqual(sum(len(piece.frames) for piece in pieces), 1_000_000 + len(THREE))
        for block in (encode_block(CONNECTION, b""), encode_block(PLAIN, b"")):
            blocks = block * 10_000
            recording = self.recording(MAGIC + blocks + record(THREE)[len(MAGIC) :])
            pieces = list(recording)
            self.assertEqual([piece.frames for piece in pieces], [b""] * 4 + [THREE])
            self.assertEqual([piece.begins for piece in pieces], [False] * 4 + [True])
            file = BytesIO(MAGIC + blocks + record(THREE)[len(MAGIC) :])
            self.assertEqual([chunk.frames for chunk in RecordingReader(file)], [THREE])

    def test_time(self) -> None:
        """Times, sessions and the progress are those of the part that has been read."""
        clock = Clock()
        with writer_to(file := Unclosed(), clock) as writer:
            for _ in range(3):
                clock.seconds += 1
                writer.write(THREE)
                writer.flush()
        recording = self.recording(file.getvalue())
        seen = [(piece.seconds, recording.seconds, recording.progress) for piece in recording]
        self.assertEqual([times[:2] for times in seen], [(1, 1), (2, 2), (3, 3)])
        self.assertTrue(0 < seen[0][2] < seen[1][2] < seen[2][2] < 1)
        self.assertEqual(recording.progress, 1)
        (session,) = recording.sessions
        self.assertEqual(session.source, "127.0.0.1:5000")

    def test_repeated(self) -> None:
        """Each iteration reads from the beginning; a outcome is reported once."""
        recording = self.recording(record(THREE)[:-1])
        said: list[str] = []
        self.assertEqual(recording.report(said.append), 0)
        self.assertEqual(said, [])
        for _ in range(3):
            (piece,) = recording
            self.assertEqual((piece.frames, len(recording.sessions)), (THREE, 1))
            self.assertEqual(recording.report(said.append), 0)
        self.assertEqual(said, [f"{self.path}: {recording.outcome.text}"])

    def test_replaced(self) -> None:
        """A file that was replaced since the last iteration is reported."""
        recording = self.recording(record(THREE))
        list(recording)
        Path(self.path).write_text("hello")
        self.assertEqual(list(recording), [])
        self.assertEqual(recording.outcome, Outcome("not a metrics recording", 1))

    def test_completed(self) -> None:
        """A recording that was completed since the last iteration has no outcome."""
        whole = record(THREE)
        recording = self.recording(whole[:-HEADER_SIZE])
        list(recording)
        self.assertIn("cut off", recording.outcome.text)
        Path(self.path).write_bytes(whole)
        list(recording)
        self.assertEqual(recording.outcome, Outcome())

    def test_growing(self) -> None:
        """The progress of a file that grows while it is read is at most 1."""
        recording = self.recording(record(THREE))
        with open(self.path, "ab") as file:
            file.write(record(THREE)[len(MAGIC) :])
        self.assertEqual(len(list(recording)), 2)
        self.assertEqual(recording.progress, 1)

    def test_refused(self) -> None:
        """If the file is not a recording, the message names it, and it is closed."""
        opened: list[FileIO] = []

        def remembered(path: str, mode: str) -> FileIO:
            opened.append(FileIO(path, mode))
            return opened[-1]

        with mock.patch.object(events, "open", remembered, create=True):
            for case in NO_RECORDINGS.values():
                with self.assertRaises(RecordingError) as raised:
                    self.recording(case.data)
                self.assertEqual(str(raised.exception), f"{self.path}: {case.says}")
                self.assertTrue(opened.pop().closed)
        with self.assertRaisesRegex(RecordingError, "^/: cannot read the file: Is a directory$"):
            Recording("/")

    def test_pipe(self) -> None:
        """A pipe can be read once."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with open(writing, "wb") as file:
            file.write(record(STREAM))
        with closing(Recording(f"/dev/fd/{reading}")) as recording:
            self.assertEqual(b"".join(piece.frames for piece in recording), STREAM)
            self.assertEqual((recording.outcome, recording.progress), (Outcome(), 1))
            self.assertEqual(list(recording), [])
        text, code = recording.outcome
        self.assertRegex(text, "^cannot read the file: .*seek")
        self.assertEqual(code, 1)

    def test_badDisk(self) -> None:
        with mock.patch.object(events, "open", BadDisk, create=True):
            recording = self.recording(record(*[THREE] * 10))
            self.assertEqual(len(list(recording)), 3)
        self.assertEqual(recording.outcome, Outcome("cannot read the file: Input/output error", 1))


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.log: list[str] = []

    def steps(self) -> Iterator[None]:
        for _ in range(4):
            self.log.append("step")
            self.reactor.rightNow += TIME_SLICE / 2
            yield
        self.log.append("end")

    def test_elapsedTime(self) -> None:
        """Steps continue in one reactor iteration until C{TIME_SLICE} has passed."""
        stepper = Stepper(self.reactor, self.steps())
        stepper.start()
        self.reactor.callLater(0, self.log.append, "iteration")
        self.assertEqual(self.log, [])
        self.reactor.settle()
        self.assertEqual(self.log, ["step", "step", "iteration", "step", "step", "end"])
        stepper.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self) -> None:
        stepper = Stepper(self.reactor, self.steps())
        stepper.start()
        self.reactor.callLater(0, stepper.stop)
        self.reactor.settle()
        self.assertEqual(self.log, ["step", "step"])
        stepper.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
