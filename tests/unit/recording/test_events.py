"""
The one reader of recordings.  `tests.unit.cli.test_recordings` shows what commands make of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path
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
    record,
    writer_to,
)
from txmetrics_tcp import Decoder, RecordingError
from txmetrics_tcp._recording import events
from txmetrics_tcp._recording.blocks import HEADER_SIZE, MAGIC
from txmetrics_tcp._recording.events import PIECE, TURN, Recording, Turns, Verdict
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
        """Each has whole frames, and the events in them, up to what is wrong."""
        for name, case in RECORDINGS.items():
            recording = self.recording(case.data)
            decoder = Decoder(2 * len(LONG))
            stream = b""
            for piece in recording:
                stream += piece.frames
                # As text, since NaN does not equal itself.
                self.assertEqual(str(list(decoder.feed(piece.frames))), str(piece.events), name)
                self.assertEqual(decoder.unfinished, 0)
            self.assertEqual(stream, case.stream, name)
            text, code = recording.verdict
            self.assertEqual((text[: len(case.says) or None], code), (case.says, case.code), name)

    def test_large(self) -> None:
        """A chunk that is large is read in pieces; only the first begins the connection."""
        pieces = list(self.recording(RECORDINGS["one large chunk"].data))
        self.assertEqual(len(pieces), -(-len(MANY) // PIECE))
        self.assertLess(max(len(piece.frames) for piece in pieces), PIECE + 2000)
        self.assertEqual([piece.begins for piece in pieces], [True] + [False] * (len(pieces) - 1))

    def test_time(self) -> None:
        """With the times and sessions of the recording, and how much of the file has been read."""
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

    def test_again(self) -> None:
        """It can be read again, from its beginning, and what is wrong is reported once."""
        recording = self.recording(record(THREE)[:-1])
        said: list[str] = []
        self.assertEqual(recording.report(said.append), 0)
        self.assertEqual(said, [])
        for _ in range(3):
            (piece,) = recording
            self.assertEqual((piece.frames, len(recording.sessions)), (THREE, 1))
            self.assertEqual(recording.report(said.append), 0)
        self.assertEqual(said, [f"{self.path}: {recording.verdict.text}"])

    def test_changed(self) -> None:
        """A file that is no recording any longer when it is read again."""
        recording = self.recording(record(THREE))
        list(recording)
        Path(self.path).write_text("hello")
        self.assertEqual(list(recording), [])
        self.assertEqual(recording.verdict, Verdict("it is not a recording of metrics", 1))

    def test_ended(self) -> None:
        """A recording that was still being written, and is whole when it is read again."""
        whole = record(THREE)
        recording = self.recording(whole[:-HEADER_SIZE])
        list(recording)
        self.assertIn("cut off", recording.verdict.text)
        Path(self.path).write_bytes(whole)
        list(recording)
        self.assertEqual(recording.verdict, Verdict())

    def test_growing(self) -> None:
        """A file that is written to while it is read is not read by more than all."""
        recording = self.recording(record(THREE))
        with open(self.path, "ab") as file:
            file.write(record(THREE)[len(MAGIC) :])
        self.assertEqual(len(list(recording)), 2)
        self.assertEqual(recording.progress, 1)

    def test_refused(self) -> None:
        """The message names the file, which is closed."""
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
        with self.assertRaisesRegex(RecordingError, "^/: it cannot be read: Is a directory$"):
            Recording("/")

    def test_pipe(self) -> None:
        """A pipe is read once."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with open(writing, "wb") as file:
            file.write(record(STREAM))
        with closing(Recording(f"/dev/fd/{reading}")) as recording:
            self.assertEqual(b"".join(piece.frames for piece in recording), STREAM)
            self.assertEqual((recording.verdict, recording.progress), (Verdict(), 1))
            self.assertEqual(list(recording), [])
        text, code = recording.verdict
        self.assertRegex(text, "^it cannot be read: .*seek")
        self.assertEqual(code, 1)

    def test_badDisk(self) -> None:
        with mock.patch.object(events, "open", BadDisk, create=True):
            recording = self.recording(record(*[THREE] * 10))
            self.assertEqual(len(list(recording)), 3)
        self.assertEqual(recording.verdict, Verdict("it cannot be read: Input/output error", 1))


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.log: list[str] = []

    def steps(self) -> Iterator[None]:
        for _ in range(4):
            self.log.append("step")
            self.reactor.rightNow += TURN / 2
            yield
        self.log.append("end")

    def test_elapsedTime(self) -> None:
        """As many steps as fit are taken in one reactor iteration."""
        turns = Turns(self.reactor, self.steps())
        turns.start()
        self.reactor.callLater(0, self.log.append, "iteration")
        self.assertEqual(self.log, [])
        self.reactor.settle()
        self.assertEqual(self.log, ["step", "step", "iteration", "step", "step", "end"])
        turns.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self) -> None:
        turns = Turns(self.reactor, self.steps())
        turns.start()
        self.reactor.callLater(0, turns.stop)
        self.reactor.settle()
        self.assertEqual(self.log, ["step", "step"])
        turns.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
