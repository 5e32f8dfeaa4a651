"""
Recordings: reading of written files, truncated files, and hostile files.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from io import FileIO
from itertools import accumulate, product
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.recordings import (
    FRAMES,
    SECOND,
    STREAM,
    THREE,
    Clock,
    FullDisk,
    Unclosed,
    joined,
    read,
    record,
    writer_to,
)
from txmetrics_tcp import (
    Decoder,
    Key,
    Metric,
    MetricKind,
    Operation,
    RecordingError,
    RecordingReader,
    RecordingWriter,
    StreamError,
    encode_metric,
)
from txmetrics_tcp._codec.framing import frame, varint
from txmetrics_tcp._model import PROTOCOL_VERSION
from txmetrics_tcp._net import pipes
from txmetrics_tcp._recording.blocks import (
    BLOCK,
    HEADER_SIZE,
    MAGIC,
    MAX_BLOCK,
    MAX_RECORDED_FRAME,
    encode_block,
)
from txmetrics_tcp._recording.reader import MAX_SESSIONS, Session

ENDS = [0, *accumulate(map(len, FRAMES))]
"""The positions in `STREAM` between frames."""


class RoundTripTests(SynchronousTestCase):
    """Reading returns the data that was written."""

    def test_bytes(self) -> None:
        """Bytes are preserved for any size of writes, compressed or not."""
        for compress, size in product([False, True], [1, 7, 1000, len(STREAM)]):
            pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
            reader, chunks = read(record(*pieces, compress=compress))
            self.assertEqual(joined(chunks), STREAM)
            self.assertEqual(sum(chunk.number for chunk in chunks), len(FRAMES))
            self.assertEqual(reader.frames, len(FRAMES))
            self.assertEqual((reader.damage, reader.cut_off, reader.truncated), ("", False, 0))
            for chunk in chunks:
                self.assertEqual(len(list(Decoder().feed(chunk.frames))) <= chunk.number, True)

    @given(
        st.lists(st.tuples(st.floats(0, 1e6), st.binary(max_size=200)), max_size=20), st.booleans()
    )
    def test_anything(self, moments: list[tuple[float, bytes]], compress: bool) -> None:
        """Any frames with any timing are preserved."""
        clock = Clock()
        file = Unclosed()
        expected = []
        with writer_to(file, clock, compress=compress) as writer:
            for wait, message in moments:
                clock.seconds += wait
                writer.write(frame(message))
                expected.append((round(clock.seconds * SECOND) - 100 * SECOND, frame(message)))
        reader, chunks = read(file.getvalue())
        self.assertEqual(
            [(round(chunk.seconds * SECOND) // 1000, chunk.frames) for chunk in chunks],
            [(round(when / 1e9 * SECOND) // 1000, frames) for when, frames in expected],
        )
        self.assertEqual((reader.cut_off, reader.damage), (not moments, ""))

    def test_time(self) -> None:
        """Each write has its time, and the session ends when it is closed."""
        clock = Clock()
        file = Unclosed()
        with writer_to(file, clock) as writer:
            for seconds in [100.5, 100.75, 103]:
                clock.seconds = seconds
                writer.write(FRAMES[0])
            clock.seconds = 110
        reader, chunks = read(file.getvalue())
        self.assertEqual([chunk.seconds for chunk in chunks], [0.5, 0.75, 3])
        self.assertEqual(reader.seconds, 10)
        self.assertEqual(reader.sessions, [Session(42, "127.0.0.1:5000", 0, PROTOCOL_VERSION)])

    def test_connections(self) -> None:
        """The beginning of a connection is marked; incomplete frames are discarded there."""
        file = Unclosed()
        with writer_to(file) as writer:
            writer.connected()
            writer.write(FRAMES[0])
            writer.write(FRAMES[1] + b"\x7fabc")
            writer.connected()
            writer.connected()
            writer.write(FRAMES[2])
        _, chunks = read(file.getvalue())
        self.assertEqual(
            [(chunk.frames, chunk.begins) for chunk in chunks],
            [(FRAMES[0], True), (FRAMES[1], False), (FRAMES[2], True)],
        )

    def test_buffering(self) -> None:
        """Frames are written when a block is full, or by C{flush}."""
        file = Unclosed()
        writer = writer_to(file)
        size = len(file.getvalue())
        writer.write(FRAMES[0])
        self.assertEqual(len(file.getvalue()), size)
        writer.flush()
        self.assertEqual(joined(read(file.getvalue())[1]), FRAMES[0])
        size = len(file.getvalue())
        writer.flush()
        self.assertEqual(len(file.getvalue()), size)
        large = frame(bytes(1000)) * 100
        writer.write(large)
        self.assertGreater(len(file.getvalue()), len(large) - 2 * BLOCK + size)
        writer.close()
        writer.close()
        self.assertEqual(joined(read(file.getvalue())[1]), FRAMES[0] + large)
        self.assertEqual(writer.bytes_written, len(file.getvalue()))
        self.assertEqual(writer.frames, 101)

    def test_largeFrame(self) -> None:
        """A frame may be larger than `BLOCK`, up to `MAX_RECORDED_FRAME`."""
        large = frame(os.urandom(MAX_RECORDED_FRAME))
        for compress in [False, True]:
            reader, chunks = read(record(STREAM, large, STREAM, compress=compress))
            self.assertEqual(joined(chunks), STREAM + large + STREAM)
            self.assertFalse(reader.damage)
        with self.assertRaises(StreamError):
            writer_to(Unclosed()).write(varint(MAX_RECORDED_FRAME + 1))

    def test_compression(self) -> None:
        metric = encode_metric(
            Metric(Key(MetricKind.COUNTER, "requests_total"), Operation.SET_COUNTER, 1, 1)
        )
        plain, compressed = (record(metric * 1000, compress=compress) for compress in (False, True))
        self.assertLess(len(compressed) * 5, len(plain))

    def test_unknownBlocks(self) -> None:
        """Blocks of an unknown kind are skipped."""
        data = record(STREAM)
        more = encode_block(b"more", b"whatever", offset_ns=SECOND)
        end = len(MAGIC)
        reader, chunks = read(data[:end] + more + data[end:] + more)
        self.assertEqual((joined(chunks), reader.damage), (STREAM, ""))

    def test_documented(self) -> None:
        """The header has the documented layout."""
        block = encode_block(b"zlib", b"frames", 3, 7)
        stored = zlib.compress(b"frames")
        fields = struct.pack("<4sIIIIQ", b"zlib", len(stored), 6, 3, zlib.crc32(stored), 7)
        self.assertEqual(block, fields + struct.pack("<I", zlib.crc32(fields)) + stored)
        self.assertEqual(HEADER_SIZE, 32)


class CutOffTests(SynchronousTestCase):
    """A truncated file is read up to its end."""

    def test_everyByte(self) -> None:
        """
        A file that is truncated at any byte is read up to the last whole frame, is reported as cut
        off, and can be appended to.
        """
        for compress in [False, True]:
            stream = b"".join(FRAMES[:12])
            whole = record(stream[:100], stream[100:], compress=compress)
            path = self.mktemp()
            last = 0
            for cut in range(len(whole)):
                reader, chunks = read(whole[:cut])
                got = joined(chunks)
                self.assertTrue(reader.cut_off)
                self.assertEqual(reader.damage, "")
                self.assertIn(len(got), ENDS)
                self.assertTrue(stream.startswith(got))
                # A longer file never has fewer frames.
                self.assertGreaterEqual(len(got), last)
                last = len(got)
                self.assertEqual(reader.position + reader.truncated, cut)

                Path(path).write_bytes(whole[:cut])
                with RecordingWriter.append(path, "again") as writer:
                    writer.write(stream)
                self.assertEqual(writer.removed, reader.truncated)
                reader, chunks = read(Path(path).read_bytes())
                self.assertEqual(joined(chunks), got + stream)
                self.assertEqual((reader.cut_off, reader.damage), (False, ""))
            self.assertEqual(last, len(stream))

    def test_lastWholeFrame(self) -> None:
        """Without compression, every whole frame in the file is read."""
        whole = record(STREAM)
        start = whole.index(STREAM)
        for cut in range(len(STREAM) + 1):
            _, chunks = read(whole[: start + cut])
            self.assertEqual(len(joined(chunks)), max(end for end in ENDS if end <= cut))

    def test_manyChunks(self) -> None:
        """A file can be truncated within a block of many chunks, and be appended to."""
        clock = Clock()
        file = Unclosed()
        writer = writer_to(file, clock)
        for each in FRAMES:
            clock.seconds += 1
            writer.write(each)
        writer.flush()
        whole = file.getvalue()
        path = self.mktemp()
        for cut in range(len(whole) - 100, len(whole)):
            _, before = read(whole[:cut])
            self.assertLess(len(before), len(FRAMES))
            Path(path).write_bytes(whole[:cut])
            with RecordingWriter.append(path, "again") as writer:
                writer.write(FRAMES[0])
            _, after = read(Path(path).read_bytes())
            self.assertEqual(after[:-1], before)

    def test_salvaged(self) -> None:
        """The salvaged frames are counted, and keep their time."""
        clock = Clock()
        file = Unclosed()
        writer = writer_to(file, clock)
        clock.seconds += 5
        writer.write(STREAM)
        writer.flush()
        path = self.mktemp()
        Path(path).write_bytes(file.getvalue()[:-1])
        appended = RecordingWriter.append(path, "again", compress=True)
        self.assertEqual(appended.salvaged, len(FRAMES) - 1)
        self.assertGreater(appended.removed, ENDS[-2])
        appended.write(FRAMES[0])
        appended.close()
        reader, chunks = read(Path(path).read_bytes())
        self.assertEqual(chunks[0].seconds, 5)
        self.assertEqual(joined(chunks), b"".join(FRAMES[:-1]) + FRAMES[0])
        self.assertEqual(
            [session.source for session in reader.sessions], ["127.0.0.1:5000", "again"]
        )
        self.assertEqual(reader.sessions[1].seconds, 5)


class AppendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def test_sessions(self) -> None:
        """Sessions follow one another as if no time had passed."""
        for number in range(3):
            with RecordingWriter.append(self.path, f"run {number}", compress=number == 1) as writer:
                writer.write(STREAM)
        reader, chunks = read(Path(self.path).read_bytes())
        self.assertEqual(joined(chunks), STREAM * 3)
        self.assertEqual([chunk.begins for chunk in chunks], [True] * 3)
        self.assertEqual(
            [session.source for session in reader.sessions], ["run 0", "run 1", "run 2"]
        )
        times = [chunk.seconds for chunk in chunks]
        self.assertEqual(times, sorted(times))

    def test_time(self) -> None:
        """The times of an appended session continue at the end of the previous session."""
        file = Unclosed()
        for begin in (True, False):
            clock = Clock()
            with writer_to(file, clock, begin=begin) as writer:
                clock.seconds += 2
                writer.write(FRAMES[0])
                clock.seconds += 3
        reader, chunks = read(file.getvalue())
        self.assertEqual([chunk.seconds for chunk in chunks], [2, 7])
        self.assertEqual([session.seconds for session in reader.sessions], [0, 5])
        self.assertEqual(reader.seconds, 10)

    def test_notARecording(self) -> None:
        """A file that is not a recording is not changed."""
        for content in [b"HTTP/1.1", b"txmetrics-tcp recording 2\n", MAGIC[:-1] + b" "]:
            Path(self.path).write_bytes(content)
            with self.assertRaises(RecordingError):
                RecordingWriter.append(self.path, "")
            self.assertEqual(Path(self.path).read_bytes(), content)

    def test_damaged(self) -> None:
        """A damaged recording is not changed."""
        whole = record(STREAM[:200], STREAM[200:])
        for at in range(len(MAGIC), len(whole), 7):
            content = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            Path(self.path).write_bytes(content)
            with self.assertRaisesRegex(RecordingError, "damaged after the first"):
                RecordingWriter.append(self.path, "")
            self.assertEqual(Path(self.path).read_bytes(), content)

    def test_lock(self) -> None:
        """Two recorders cannot write to the same file."""
        with RecordingWriter.create(self.path, "") as writer:
            for other in [
                lambda: RecordingWriter.append(self.path, ""),
                lambda: RecordingWriter.create(self.path, "", overwrite=True),
            ]:
                with self.assertRaisesRegex(RecordingError, "another recorder"):
                    other()
            writer.write(STREAM)
        self.assertEqual(joined(read(Path(self.path).read_bytes())[1]), STREAM)
        RecordingWriter.append(self.path, "").close()

    def test_create(self) -> None:
        """An existing file is replaced only with C{overwrite}, unless it is empty."""
        Path(self.path).write_bytes(b"x" * 10_000)
        with self.assertRaises(FileExistsError):
            RecordingWriter.create(self.path, "")
        self.assertEqual(Path(self.path).read_bytes(), b"x" * 10_000)
        for overwrite in (True, False):
            with RecordingWriter.create(self.path, "", overwrite=overwrite) as writer:
                writer.write(STREAM)
            reader, chunks = read(Path(self.path).read_bytes())
            self.assertEqual((joined(chunks), reader.cut_off), (STREAM, False))
            os.truncate(self.path, 0)

    def test_firstFrame(self) -> None:
        """A file is not changed before the first frame is written."""
        old = record(STREAM) + b"cut off"
        for begin in (
            RecordingWriter.append,
            partial(RecordingWriter.create, overwrite=True),
        ):
            for frames in (b"", STREAM):
                Path(self.path).write_bytes(old)
                with begin(self.path, "") as writer:
                    for _ in range(3):
                        writer.connected()
                        writer.flush()
                    writer.write(frames)
                    self.assertEqual(Path(self.path).read_bytes(), old)
                self.assertEqual(writer.bytes_written > 0, bool(frames))
                self.assertEqual(Path(self.path).read_bytes() == old, not frames)

    def test_createdFile(self) -> None:
        """A new file without frames is removed; a file that existed stays."""
        for begin in RecordingWriter.create, RecordingWriter.append:
            begin(self.path, "").close()
            self.assertFalse(os.path.exists(self.path))
            Path(self.path).touch()
            begin(self.path, "").close()
            self.assertEqual(Path(self.path).read_bytes(), b"")
            os.unlink(self.path)

    def test_link(self) -> None:
        """A link to a file stays when the file is replaced, and so does the file's mode."""
        Path(self.path).write_bytes(record(THREE))
        os.chmod(self.path, 0o640)
        link = Path(f"{self.path}.link")
        link.symlink_to(Path(self.path).resolve())
        with RecordingWriter.create(str(link), "", overwrite=True) as writer:
            writer.write(STREAM)
        self.assertTrue(link.is_symlink())
        self.assertEqual(joined(read(Path(self.path).read_bytes())[1]), STREAM)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)

    def test_removedByOther(self) -> None:
        """A file that another recorder removes before it is locked is not recorded into."""

        def remove(*arguments: object) -> None:
            os.unlink(self.path)

        def replace(*arguments: object) -> None:
            os.rename(self.path, f"{self.path}.gone")
            Path(self.path).touch()

        for lock in remove, replace:
            Path(self.path).touch()
            with (
                mock.patch.object(fcntl, "flock", lock),
                self.assertRaisesRegex(RecordingError, "another recorder has removed this file"),
            ):
                RecordingWriter.create(self.path, "")


class PipeTests(SynchronousTestCase):
    """Recordings that are written to a pipe or a FIFO."""

    def setUp(self) -> None:
        self.reading, writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.writer = writer_to(FileIO(writing, "w"))
        self.addCleanup(self.writer._file.close)
        self.seconds = 0.0

    def wait_with(self, blocked: Callable[[], object]) -> None:
        """
        Measure waits instead of waiting.

        @param blocked: called when a write has to wait for the reader.
        """
        real = pipes.is_writable

        def wait(descriptor: int, seconds: float) -> bool:
            ready = real(descriptor, 0)
            if not ready:
                self.seconds += seconds
                self.assertLess(self.seconds, 60, "the write was not interrupted")
                blocked()
            return ready

        self.patch(pipes, "is_writable", wait)

    def test_interrupted(self) -> None:
        """After C{interrupt}, a write waits a second longer for a reader that does not read."""

        def blocked() -> None:
            if self.seconds >= 5:
                self.writer.interrupt()

        self.wait_with(blocked)
        large = frame(bytes(1_000_000))
        self.writer.write(large)
        error = self.assertRaises(TimeoutError, self.writer.flush)
        self.assertEqual(error.strerror, "the reader does not read")
        self.assertTrue(6 <= self.seconds < 6.3, self.seconds)
        self.writer.close()
        self.assertTrue(self.seconds < 6.3, self.seconds)

    def test_interruptedWhileReading(self) -> None:
        """After C{interrupt}, a reader that reads receives everything, however long it takes."""
        received = bytearray()
        self.wait_with(lambda: received.extend(os.read(self.reading, 5000)))
        self.writer.interrupt()
        large = frame(bytes(1_000_000))
        self.writer.write(large)
        self.writer.close()
        self.assertGreater(self.seconds, 10)
        while data := os.read(self.reading, 100_000):
            received += data
        reader, chunks = read(bytes(received))
        self.assertEqual((joined(chunks), reader.cut_off), (large, False))

    def test_largeDescriptor(self) -> None:
        """A program with thousands of open files can record to a pipe."""
        file = FileIO(fcntl.fcntl(self.writer._file, fcntl.F_DUPFD, 1100), "w")
        recording = writer_to(file)
        recording.write(frame(b"x"))
        recording.close()
        self.assertIn(frame(b"x"), os.read(self.reading, 1000))

    def test_fifo(self) -> None:
        """A FIFO reports that its reader has gone.  It is not removed, and not appended to."""
        path = self.mktemp()
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer = RecordingWriter.create(path, "")
        with self.assertRaisesRegex(RecordingError, "another recorder is writing"):
            RecordingWriter.create(path, "")
        writer.write(STREAM)
        writer.flush()
        self.assertIn(STREAM, os.read(reading, 10_000))
        os.close(reading)
        writer.write(STREAM)
        self.assertRaises(BrokenPipeError, writer.flush)
        writer.close()
        self.assertTrue(os.path.exists(path))
        with self.assertRaisesRegex(RecordingError, "not a regular file"):
            RecordingWriter.append(path, "")


class PowerCutTests(SynchronousTestCase):
    """
    A power cut may replace data at the end of a file by NUL bytes.  Such a file is read up to them,
    is reported as cut off, and can be appended to.
    """

    def setUp(self) -> None:
        self.count = 0
        # Slow on a busy disk, and of no importance here.
        self.patch(os, "fsync", lambda descriptor: None)

    def assert_cut_off(self, data: bytes, stream: bytes = STREAM) -> bytes:
        """
        @param stream: the recorded stream.
        @return: the part of it that can be read.
        """
        reader, chunks = read(data)
        got = joined(chunks)
        self.assertEqual((reader.cut_off, reader.damage), (True, ""))
        self.assertIn(len(got), ENDS)
        self.assertTrue(stream.startswith(got))
        self.assertEqual(reader.position + reader.truncated, len(data))
        self.count += 1
        if self.count % 7 == 0:
            # Not each time, since it is slow.
            self.assert_appended(data, got, reader.truncated)
        return got

    def assert_appended(self, data: bytes, stream: bytes, removed: int) -> None:
        path = self.mktemp()
        Path(path).write_bytes(data)
        with RecordingWriter.append(path, "again") as writer:
            writer.write(STREAM)
        self.assertEqual(writer.removed, removed)
        reader, chunks = read(Path(path).read_bytes())
        self.assertEqual(joined(chunks), stream + STREAM)
        self.assertEqual((reader.cut_off, reader.damage), (False, ""))

    def test_everyByte(self) -> None:
        """The NUL bytes may begin at any byte.  What precedes the last frame is kept."""
        for compress in [False, True]:
            stream = b"".join(FRAMES[:12])
            whole = record(stream[:100], stream[100:], compress=compress)
            for cut in range(len(whole) + 1):
                for length in (32, 100_000):
                    got = self.assert_cut_off(whole[:cut] + bytes(length), stream)
                    # The NUL bytes at the end of a frame may be taken for lost ones.
                    expected = joined(read(whole[:cut])[1])
                    self.assertTrue(expected.startswith(got))
                    self.assertLessEqual(len(expected) - len(got), max(map(len, FRAMES)))

    def test_withinLastBlock(self) -> None:
        """A hole within the last block ends the recording there."""
        whole = record(STREAM)[:-HEADER_SIZE]
        start = whole.index(STREAM)
        for at in range(start, len(whole) - 32):
            data = whole[:at] + bytes(32) + whole[at + 32 :]
            self.assertLessEqual(len(self.assert_cut_off(data)), at - start)
            self.assert_cut_off(data + bytes(1000))
            self.assert_cut_off(data[:-1])

    def test_dataFollows(self) -> None:
        """A hole that is followed by another block is damage: appending would delete that block."""
        data = record(STREAM)
        end = len(data) - HEADER_SIZE
        for at in range(len(MAGIC), end - 32):
            reader, _ = read(data[:at] + bytes(32) + data[at + 32 :])
            self.assertTrue(reader.damage, at)
        self.assertTrue(read(data[:end] + bytes(5000) + data[end:])[0].damage)

    def test_damagedBefore(self) -> None:
        """NUL bytes after a damaged block do not hide the damage."""
        data = record(STREAM)[:-HEADER_SIZE]
        for at in range(len(MAGIC), len(data)):
            damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
            self.assertTrue(read(damaged + bytes(5000))[0].damage, at)

    def test_tooMany(self) -> None:
        """A file of very many NUL bytes is not read to its end."""

        class Zeros(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return super().read(size) or bytes(size or 0)

        with self.assertRaisesRegex(RecordingError, "not a metrics recording"):
            RecordingReader(Zeros())
        reader = RecordingReader(Zeros(record(STREAM)))
        self.assertEqual(joined(reader), STREAM)
        self.assertIn("wrong block header checksum", reader.damage)


class FullDiskTests(SynchronousTestCase):
    def test_partialBlockRemoved(self) -> None:
        """A partial block is removed, and the recording is reported as cut off."""
        file = FullDisk()
        writer = writer_to(file)
        writer.write(STREAM)
        writer.flush()
        size = len(file.getvalue())
        writer.write(frame(bytes(20_000)))
        with self.assertRaises(OSError):
            writer.flush()
        self.assertEqual(len(file.getvalue()), size)
        file.room = 100_000
        writer.close()
        reader, chunks = read(file.getvalue())
        self.assertEqual(joined(chunks), STREAM)
        self.assertEqual((reader.truncated, reader.cut_off), (0, True))

    def test_fromTheStart(self) -> None:
        """A new file into which nothing can be written is removed."""
        path = self.mktemp()
        writer = RecordingWriter.create(path, "")
        writer.write(STREAM)
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(writer, "_write_some", side_effect=full):
            self.assertIs(self.assertRaises(OSError, writer.flush), full)
            writer.close()
        self.assertFalse(os.path.exists(path))

    def test_lostAfterwards(self) -> None:
        """An error that the file system reports at the end is raised; the file is closed."""
        for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            writer = RecordingWriter.create(self.mktemp(), "")
            writer.write(STREAM)
            with (
                mock.patch.object(os, "fsync", side_effect=OSError(number, "lost")),
                self.assertRaisesRegex(OSError, "lost"),
            ):
                writer.close()
            self.assertTrue(writer._file.closed)

    def test_shortWrites(self) -> None:
        """All data is written to a file that accepts a part at a time."""

        class Short(Unclosed):
            def write(self, data: Any) -> int:
                return super().write(data[:100])

        file = Short()
        with writer_to(file) as writer:
            writer.write(STREAM)
        self.assertEqual(joined(read(file.getvalue())[1]), STREAM)


class HostileTests(SynchronousTestCase):
    """No file raises an unexpected exception or consumes unbounded memory."""

    def test_notARecording(self) -> None:
        nul = bytes(1000)
        for content in [b"x", b"HTTP/1.1 200 OK\r\n", b"\0", b"x" + nul, nul + MAGIC, MAGIC[1:]]:
            with self.assertRaisesRegex(RecordingError, "not a metrics recording"):
                read(content)
        with self.assertRaisesRegex(RecordingError, "unsupported recording format"):
            read(b"txmetrics-tcp recording 2\n")

    def test_everyByteWrong(self) -> None:
        """A wrong byte is detected at any position, and reading ends before it."""
        for compress in [False, True]:
            whole = record(STREAM[:200], STREAM[200:], compress=compress)
            for at in range(len(MAGIC), len(whole)):
                for wrong in [whole[at] ^ 0x80, whole[at] ^ 1]:
                    reader, chunks = read(whole[:at] + bytes([wrong]) + whole[at + 1 :])
                    self.assertTrue(reader.damage)
                    self.assertLessEqual(reader.position, at)
                    self.assertTrue(STREAM.startswith(joined(chunks)))
                    self.assertTrue(reader.cut_off)

    @given(st.binary(max_size=2000))
    def test_garbage(self, garbage: bytes) -> None:
        """Garbage after the first line gives no frames, and the position stays before it."""
        reader, chunks = read(MAGIC + garbage)
        self.assertEqual((list(chunks), reader.position), ([], len(MAGIC)))

    @given(st.binary(max_size=2000), st.sampled_from([b"data", b"zlib", b"sess", b"conn", b"end "]))
    def test_garbageInBlocks(self, garbage: bytes, kind: bytes) -> None:
        """Garbage in blocks with valid checksums, whole or truncated, gives only whole frames."""
        block = bytearray(encode_block(kind, garbage))
        whole = MAGIC + block + encode_block(b"data", b"\0\1\0")
        for data in [whole, whole[: len(MAGIC) + len(block) - 1]]:
            _, chunks = read(data)
            for chunk in chunks:
                self.assertEqual(whole_frames(chunk.frames), chunk.number)

    def test_invalidChunks(self) -> None:
        """Invalid chunks are reported with the reason."""
        for chunks, reason in [
            (b"\x80" * 11, "a varint is longer than 10 bytes"),
            (b"\0" + b"\xff" * 10 + b"\1", "a varint is longer than 10 bytes"),
            (b"\0\x80", "a block ends within a chunk"),
            (b"\0\2\2\2", "a chunk does not end with a frame"),
        ]:
            reader, read_chunks = read(MAGIC + encode_block(b"data", chunks))
            self.assertEqual(list(read_chunks), [])
            self.assertTrue(reader.damage.endswith(f": {reason}"), reader.damage)

    @given(st.binary(max_size=300), st.integers(0, 2000))
    def test_garbageCompressed(self, garbage: bytes, cut: int) -> None:
        """Garbage in compressed blocks, whole or truncated, gives only whole frames."""
        data = MAGIC + encode_block(b"zlib", b"\0" + garbage)
        for content in [data, data[:cut]]:
            try:
                _, chunks = read(content)
            except RecordingError:
                continue
            for chunk in chunks:
                self.assertEqual(whole_frames(chunk.frames), chunk.number)

    def test_decompressionBombs(self) -> None:
        """The memory for a block is bounded, for any decompressed or announced size."""
        bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
        for size in [0, 100, MAX_BLOCK, MAX_BLOCK + 1, 2**32 - 1]:
            header = struct.pack("<4sIIIIQ", b"zlib", len(bomb), size, 0, zlib.crc32(bomb), 0)
            self.assert_harmless(header, bomb)
        for size in [2**31, 2**32 - 1]:
            header = struct.pack("<4sIIIIQ", b"data", size, size, 0, 0, 0)
            self.assert_harmless(header, b"abc")

    def assert_harmless(self, header: bytes, stored: bytes) -> None:
        data = MAGIC + header + struct.pack("<I", zlib.crc32(header)) + stored
        tracemalloc.start()
        try:
            reader = RecordingReader(io.BytesIO(data))
            self.assertEqual(list(reader), [])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertRegex(reader.damage, "damaged after the first 26 bytes")
        self.assertLess(peak, 4 * MAX_BLOCK)

    def test_sessions(self) -> None:
        """Session blocks may have any content, and the number of sessions is limited."""
        payloads = [
            b"",
            b"[",
            b"null",
            b"{}",
            b'{"time_ns":"x","source":1}',
            b"[" * 60_000,
            b"\xff",
        ]
        payloads.append(b'{"time_ns":1e999,"source":"x"}')
        payloads.append(b'{"time_ns":1,"source":"x","protocol_version":[]}')
        sessions = [encode_block(b"sess", payload) for payload in payloads]
        reader, _ = read(MAGIC + b"".join(sessions))
        self.assertEqual(reader.sessions, [Session(0, "", 0, 0)] * len(payloads))
        self.assertEqual(reader.damage, "")
        reader, chunks = read(MAGIC + sessions[0] * 5000 + encode_block(b"data", b"\0\1\0"))
        self.assertEqual(len(reader.sessions), MAX_SESSIONS)
        self.assertEqual(joined(chunks), b"\0")

    def test_time(self) -> None:
        """Times never decrease, and are limited."""
        blocks = [
            encode_block(b"data", varint(2**63) + b"\1\0", offset_ns=2**64 - 1),
            encode_block(b"data", b"\0\1\0", offset_ns=5),
        ]
        reader, chunks = read(MAGIC + b"".join(blocks))
        self.assertEqual([chunk.seconds for chunk in chunks], [2**63 / 1e9] * 2)
        self.assertEqual(reader.damage, "")


def whole_frames(data: bytes) -> int:
    """Return the number of frames in the data, which must be whole frames."""
    from txmetrics_tcp._codec.framing import Frames

    frames = Frames(MAX_RECORDED_FRAME)
    whole, number = frames.feed(data)
    assert whole == data
    return number
