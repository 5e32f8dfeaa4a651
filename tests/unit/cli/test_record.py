"""
``metrics-tcp record``: the recorded file, and the end of the command.
"""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, Ended, run, serving
from tests.recordings import STREAM, FullDisk, Unclosed, joined, read, record, writer_to
from txmetrics_tcp import Decoder, Metric
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._model import METRIC_EVENTS, Status
from txmetrics_tcp._recording import writer
from txmetrics_tcp.cli.record import Record, Tally
from txmetrics_tcp.testing import PausingTransport

METRICS = [event for event in Decoder().feed(STREAM) if isinstance(event, METRIC_EVENTS)]


def sending(data: bytes, times: int) -> CommandReactor:
    """Return a reactor with a server that sends data once per second."""

    def send(transport: PausingTransport) -> None:
        for number in range(times):
            reactor.callLater(number + 0.5, transport.receive, data)

    reactor = CommandReactor(send)
    return reactor


def failing(error: OSError, after: int) -> type[FileIO]:
    """
    Return a class of files that cannot be written.

    @param after: the number of writes that succeed.
    """
    writes = 0

    class File(FileIO):
        def write(self, data: Any) -> int:
            nonlocal writes
            writes += 1
            if writes > after:
                raise error
            return super().write(data)

    return File


class RecordTests(SynchronousTestCase):
    """Recording of received events and their bytes."""

    def setUp(self) -> None:
        self.file = Unclosed()
        self.stopped: list[int] = []
        self.errors: list[OSError] = []

    def record(self, file: Any = None, count: int | None = None) -> Record:
        self.file = file or self.file
        return Record(writer_to(self.file), self.stopped.append, self.errors.append, Tally(count))

    def receive(self, record: Record, *pieces: bytes) -> None:
        decoder = Decoder()
        for piece in pieces:
            record.received(list(decoder.feed(piece)))
            record.tap(piece)

    def test_all(self) -> None:
        """The recorded bytes do not depend on the size of reads."""
        for size in (1, 7, len(STREAM)):
            self.file = Unclosed()
            record = self.record()
            record.begin()
            self.receive(record, *[STREAM[at : at + size] for at in range(0, len(STREAM), size)])
            record.close()
            reader, chunks = read(self.file.getvalue())
            self.assertEqual(joined(chunks), STREAM)
            self.assertTrue(chunks[0].begins)
            self.assertFalse(reader.cut_off)
            self.assertEqual(record.metrics, len(METRICS))
        self.assertEqual((self.stopped, self.errors), ([], []))

    def test_count(self) -> None:
        """Recording stops after the last requested event, for any size of reads."""
        for size in (1, 50, len(STREAM)):
            for count in (1, 2, len(METRICS) - 1, len(METRICS)):
                self.file = Unclosed()
                self.stopped.clear()
                record = self.record(count=count)
                record.begin()
                self.receive(
                    record, *[STREAM[at : at + size] for at in range(0, len(STREAM), size)]
                )
                record.close()
                self.assertEqual(self.stopped, [0])
                self.assertEqual(record.metrics if size == len(STREAM) else count, count)
                got = joined(read(self.file.getvalue())[1])
                self.assertTrue(STREAM.startswith(got))
                metrics = [e for e in Decoder().feed(got) if isinstance(e, METRIC_EVENTS)]
                self.assertEqual(list(map(repr, metrics)), list(map(repr, METRICS[:count])))

    def test_missed(self) -> None:
        """Dropped events are counted over all connections; each connection counts from 0."""
        record = self.record()
        record.begin()
        record.received([Status("s", 1, 3, 4), Status("s", 1, 5, 5)])
        record.begin()
        self.assertEqual(record.missed, 10)
        record.received([Status("s", 1, 1, 0)])
        self.assertEqual(record.missed, 11)

    def test_flush(self) -> None:
        """A flush writes received data to the file."""
        record = self.record()
        self.receive(record, STREAM)
        size = len(self.file.getvalue())
        record.flush()
        self.assertGreater(len(self.file.getvalue()), size)
        self.assertEqual(joined(read(self.file.getvalue())[1]), STREAM)

    def test_fullDisk(self) -> None:
        """After a write error, no further data is written, and the file stays readable."""
        record = self.record(FullDisk())
        record.begin()
        self.receive(record, STREAM)
        record.flush()
        self.file.room = len(self.file.getvalue()) + 10
        for _ in range(3):
            self.receive(record, STREAM)
            record.flush()
        self.assertEqual([error.strerror for error in self.errors[:1]], ["No space left on device"])
        record.close()
        reader, chunks = read(self.file.getvalue())
        self.assertEqual(joined(chunks), STREAM)
        self.assertTrue(reader.cut_off)


class CommandTests(SynchronousTestCase):
    """The whole command, on a fake reactor."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def run_command(self, *arguments: str, on: CommandReactor | None = None) -> Ended:
        return run("record", self.path, "5000", *arguments, on=on or serving(STREAM))

    @property
    def recorded(self) -> bytes:
        """The stream in the file, which must be complete."""
        reader, chunks = read(Path(self.path).read_bytes())
        self.assertEqual((reader.cut_off, reader.damage), (False, ""))
        return joined(chunks)

    def test_duration(self) -> None:
        code, out, said = self.run_command("--duration", "1h")
        self.assertEqual((code, out), (0, ""))
        self.assertRegex(said, r"recorded 72 events in 1h 00m: \d\.\d+ KiB\n$")
        self.assertEqual(self.recorded, STREAM)

    def test_countAndAppend(self) -> None:
        """C{--count} stops after exactly N events; C{--append} extends the recording."""
        for arguments in ([], ["--append"]):
            self.assertEqual(self.run_command("--count", "10", *arguments).code, 0)
        events = Decoder().feed(self.recorded)
        self.assertEqual(sum(isinstance(event, Metric) for event in events), 20)
        Path(self.path).write_bytes(Path(self.path).read_bytes()[:-40])
        code, _, said = self.run_command("--count", "1", "--append")
        self.assertEqual(code, 0)
        self.assertRegex(said, "was cut off: keeping .* complete frames of its last .* bytes")
        self.assertTrue(self.recorded)

    def test_standardOutput(self) -> None:
        Path(self.path).touch()
        options = ["--count", "3"]
        self.assertEqual(run("record", "-", *options, on=serving(STREAM), stdout=self.path).code, 0)
        self.assertTrue(STREAM.startswith(self.recorded))

    def test_droppedEvents(self) -> None:
        """The result includes the number of events that the server dropped."""
        lost = encode_status(Status("s", 1, 3, 1000))
        _, _, said = self.run_command("--duration", "1", on=serving(STREAM + lost))
        self.assertIn("; the server dropped 1,003 events\n", said)

    def test_invalidFrame(self) -> None:
        """All events before an invalid frame are recorded, also those of the same read."""
        on = serving(STREAM + b"\x02\xff\xff" + STREAM)
        _, _, said = self.run_command("--duration", "0.5", on=on)
        self.assertIn("a frame of 2 bytes is not a valid event", said)
        self.assertIn(f"recorded {len(METRICS)} events", said)
        self.assertEqual(self.recorded, STREAM)

    def test_unknown(self) -> None:
        """Unknown events are reported once, and recorded."""
        _, _, said = self.run_command("--duration", "1", on=serving(STREAM + STREAM))
        self.assertEqual(said.count("cannot interpret"), 1)
        self.assertIn("interpret a description of an unknown kind of metric; a newer", said)
        self.assertEqual(self.recorded, STREAM + STREAM)

    def test_nothingReceived(self) -> None:
        """A new file is removed, so that the same command can be run again."""
        message = "received nothing from 127.0.0.1:5000; recorded nothing"
        for reactor in (CommandReactor(), CommandReactor(lambda transport: None)):
            ended = self.run_command("--duration", "0.3", on=reactor)
            self.assertEqual(ended.code, 1)
            self.assertIn(message, ended.err)
            self.assertFalse(Path(self.path).exists())
        old = record(STREAM)[:-10]
        for option in "--append", "--force":
            for reactor in (CommandReactor(), CommandReactor(lambda transport: None)):
                Path(self.path).write_bytes(old)
                ended = self.run_command(option, "--duration", "5", on=reactor)
                self.assertEqual(ended.code, 1)
                self.assertIn(message, ended.err)
                self.assertEqual(Path(self.path).read_bytes(), old)

    def test_emptyFile(self) -> None:
        """An empty file needs no option, since no data is lost."""
        Path(self.path).touch()
        self.assertEqual(self.run_command("--count", "1").code, 0)
        self.assertTrue(STREAM.startswith(self.recorded))

    def test_replaced(self) -> None:
        """A file that has replaced the empty recording is not removed."""

        def replace(transport: object) -> None:
            # The recording stays, so that its inode is not used again.
            os.rename(self.path, f"{self.path}.moved")
            Path(self.path).write_text("dear")

        ended = self.run_command("--duration", "0.3", on=CommandReactor(replace))
        self.assertEqual(ended.code, 1)
        self.assertEqual(Path(self.path).read_text(), "dear")

    def test_durationWhileBusy(self) -> None:
        """Data that arrived within C{--duration} is recorded, even if the reactor reads it late."""

        def receive_late(transport: PausingTransport) -> None:
            # After a blocked iteration, the reactor runs delayed calls before it reads.
            on.callLater(5, on.callLater, 0, transport.receive, STREAM)

        on = CommandReactor(receive_late)
        self.assertEqual(self.run_command("--duration", "5", on=on).code, 0)
        self.assertEqual(self.recorded, STREAM)

    def test_writeErrors(self) -> None:
        """After a write error, the recording has all that was written before it."""
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            file = failing(OSError(number, os.strerror(number)), after=2)
            with mock.patch.object(writer, "FileIO", file):
                code, _, said = self.run_command("--force", on=sending(STREAM, 5))
            self.assertEqual(code, 1)
            message = f"cannot record to {self.path}: {os.strerror(number)}\n"
            self.assertTrue(said.endswith(message), said)
            reader, chunks = read(Path(self.path).read_bytes())
            self.assertEqual((joined(chunks), reader.damage), (STREAM * 2, ""))

    def test_cannotWrite(self) -> None:
        Path(self.path).write_text("hello")
        for arguments, message in [
            ([self.path], "already exists: use --append to extend it, or --force to overwrite it"),
            ([self.path, "5000", "--append"], "not a metrics recording"),
            (["/nowhere/file"], "cannot record to /nowhere/file: No such file"),
            (["/dev/full"], "cannot record to /dev/full: No space left on device"),
        ]:
            code, out, said = run("record", *arguments, on=serving(STREAM))
            self.assertEqual((code, out), (1, ""))
            self.assertIn(message, said)
        self.assertEqual(Path(self.path).read_text(), "hello")
        self.assertEqual(self.run_command("--force", "--count", "1").code, 0)
        self.assertTrue(STREAM.startswith(self.recorded))
