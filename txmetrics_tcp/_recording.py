"""
Recordings: a stream, byte for byte and with its timing, in a file.  No Twisted.

docs/recording-format.md describes the file.  In short: a line that says what it is, then blocks,
each with a header that has its sizes and checksums; the frames of the stream are in blocks of
about 64 KiB, compressed or not.  A file that was cut off anywhere can be read up to the last frame
that is whole, and can be appended to.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from types import TracebackType
from typing import BinaryIO, NamedTuple

from txmetrics_tcp._blocks import (
    BLOCK,
    CONNECTION,
    END,
    MAGIC,
    MAX_RECORDED_FRAME,
    PLAIN,
    SESSION,
    ZLIB,
    Blocks,
    Damaged,
    Header,
    RecordingError,
    encode_block,
    split,
)
from txmetrics_tcp._frames import Frames
from txmetrics_tcp._wire import varint

MAX_SESSIONS = 1000
"""How many sessions a reader tells of; of those that come later, the events are read as well."""

_MAX_TEXT = 64 * 1024
_NEVER_NS = 1 << 63


class Chunk(NamedTuple):
    """
    What came at one moment.

    @ivar seconds: when, since the beginning of the recording.  What was appended later follows at
        once, as if there had been no time in between.
    @ivar frames: whole frames, as the bytes that came.
    @ivar number: how many frames they are.
    @ivar begins: whether it is the first of a connection: from there on, the stream describes
        its metrics anew.
    """

    seconds: float
    frames: bytes
    number: int
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """
    One run of a recorder.

    @ivar time_ns: when it began, in nanoseconds since the epoch.
    @ivar source: where the stream came from, in the words of who recorded it.
    @ivar seconds: when it began, as `Chunk.seconds`.
    """

    time_ns: int
    source: str
    seconds: float


class RecordingReader:
    """
    Reads a recording, once, from its beginning to its end::

        with open("yesterday.rec", "rb") as file:
            for chunk in RecordingReader(file):
                ...

    It holds one block at a time, whatever the file says.  All that is wrong with a file behind
    its beginning ends the reading early, and the attributes say so; they are final when the
    iteration has come to its end.

    @ivar sessions: the runs of a recorder that were met so far.
    @ivar truncated: how many bytes at the end of the file belong to a block that is not whole.
        The frames in them that are whole are read as all others.
    @ivar cut_off: whether the recorder had no chance to end its last session, so that something
        may be missing at the end; also while it still runs.
    @ivar damage: what is wrong with the file, if it was not only cut off; else an empty text.
        What comes behind that place is not read.
    @ivar position: how many bytes of the file have been read as whole blocks.
    @ivar frames: how many frames have been read.
    @ivar seconds: how long the recording is, as far as it has been read.
    """

    def __init__(self, file: BinaryIO) -> None:
        """
        @param file: a file opened for reading bytes.  It need not be seekable.
        @raise RecordingError: it is no recording, or one in a format that came later.
        @raise OSError: it cannot be read.
        """
        self._blocks = Blocks(file)
        self.sessions: list[Session] = []
        self.cut_off = True
        self.damage = ""
        self.frames = 0
        self.seconds = 0.0
        # Where the session begins, and how far time has come, in nanoseconds of the recording.
        self._session_ns = 0
        self._now_ns = 0
        self._begins = False

    @property
    def position(self) -> int:
        return self._blocks.position

    @property
    def truncated(self) -> int:
        return self._blocks.truncated

    def __iter__(self) -> Iterator[Chunk]:
        """
        @raise OSError: the file cannot be read.
        """
        try:
            for header, stored in self._blocks:
                self.cut_off = True
                if header.kind in (PLAIN, ZLIB):
                    yield from self._chunks(header, stored)
                elif len(stored) == header.stored:
                    self._note(header, stored)
        except Damaged as error:
            self.damage = f"it is damaged behind its first {self.position} bytes: {error}"
        if self.truncated:
            self.cut_off = True

    def _chunks(self, header: Header, stored: bytes) -> Iterator[Chunk]:
        for after_ns, frames, count in split(header, stored):
            self._advance(self._session_ns + header.offset_ns + after_ns)
            self.frames += count
            begins, self._begins = self._begins, False
            yield Chunk(self.seconds, frames, count, begins)

    def _note(self, header: Header, stored: bytes) -> None:
        """Blocks of any other kind; there may be some that came later, and can be left out."""
        if header.kind == SESSION:
            self._session_ns = self._now_ns
            self._begins = True
            if len(self.sessions) < MAX_SESSIONS:
                self.sessions.append(_parse_session(stored, self.seconds))
        elif header.kind == CONNECTION:
            self._begins = True
        elif header.kind == END:
            self.cut_off = False
        self._advance(self._session_ns + header.offset_ns)

    def _advance(self, now_ns: int) -> None:
        # Forward only, whatever a file says.
        self._now_ns = max(self._now_ns, min(now_ns, _NEVER_NS))
        self.seconds = self._now_ns / 1e9


class RecordingWriter:
    """
    Writes one session of a recording::

        with RecordingWriter.create("today.rec", "127.0.0.1:5000") as writer:
            writer.connected()
            writer.write(data)

    Frames are kept back until they are a block's worth, or until `flush`.  When a write fails,
    what came out of it is taken back where that is possible, so that the file stays whole.

    @ivar frames: how many frames have been written.
    @ivar bytes_written: how many bytes the session takes in the file, so far.
    @ivar removed: of a file that was cut off and is appended to, how many bytes at its end were in
        a block that is not whole.
    @ivar salvaged: how many frames were found in them, and have been kept.
    """

    def __init__(
        self,
        file: BinaryIO,
        source: str,
        *,
        compress: bool = False,
        begin: bool = True,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """
        @param file: opened for writing bytes, without a buffer, at its end.
        @param source: where the stream comes from; for people.
        @param compress: whether frames are compressed, by zlib.
        @param begin: whether the file is empty so far.
        @param clock: nanoseconds since the epoch.
        @param monotonic: nanoseconds, on a clock that does not jump.
        @raise OSError: it cannot be written.
        """
        self._file = file
        self._compress = compress
        self._monotonic = monotonic
        self._started_ns = monotonic()
        self._splitter = Frames(MAX_RECORDED_FRAME)
        self._closed = False
        self.frames = 0
        self.bytes_written = 0
        self.removed = 0
        self.salvaged = 0
        # A block in the making, how many frames it has, and when it began.
        self._block = bytearray()
        self._count = 0
        self._block_ns = 0
        session = json.dumps({"time_ns": clock(), "source": source[:1000]}).encode()
        self._failed = False
        self._put((MAGIC if begin else b"") + encode_block(SESSION, session))

    @classmethod
    def create(
        cls, path: str, source: str, *, overwrite: bool = False, compress: bool = False
    ) -> RecordingWriter:
        """
        Begin a recording.

        @param overwrite: whether a file that is there is emptied.
        @raise FileExistsError: there is one, and it is not to be overwritten.
        @raise RecordingError: another recorder writes it.
        @raise OSError: it cannot be written.
        """
        file = _open(path, 0 if overwrite else os.O_EXCL)
        try:
            with suppress(OSError):  # of a device
                file.truncate(0)
            return cls(file, source, compress=compress)
        except BaseException:
            file.close()
            raise

    @classmethod
    def append(cls, path: str, source: str, *, compress: bool = False) -> RecordingWriter:
        """
        Go on with a recording; begin one if there is none.

        In a file that was cut off, what is left of its last block is replaced by a block that
        has the frames of it that are whole.

        @raise RecordingError: the file is no recording, is damaged, or another recorder writes it.
        @raise OSError: it cannot be read or written.
        """
        file = _open(path, 0)
        try:
            blocks, block, salvaged = _find_end(file)
            file.seek(blocks.position)
            file.truncate()
            _write(file, block)
            writer = cls(file, source, compress=compress, begin=not blocks.position)
        except BaseException:
            file.close()
            raise
        writer.removed = blocks.truncated
        writer.salvaged = salvaged
        return writer

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def connected(self) -> None:
        """
        A connection begins.  What an earlier one left unfinished is dropped.

        @raise OSError: it cannot be written.
        """
        self.flush()
        self._splitter = Frames(MAX_RECORDED_FRAME)
        self._put(encode_block(CONNECTION, b"{}", offset_ns=self._monotonic() - self._started_ns))

    def write(self, data: bytes) -> None:
        """
        Take the next piece of the stream, however it is cut, as of now.  What is no whole frame
        yet waits for the rest of it.

        @raise StreamError: a frame is longer than `MAX_RECORDED_FRAME`.
        @raise OSError: it cannot be written.
        """
        now_ns = self._monotonic() - self._started_ns
        for start in range(0, len(data), BLOCK):
            frames, count = self._splitter.feed(data[start : start + BLOCK])
            if not count:
                continue
            if len(self._block) + len(frames) > BLOCK:
                self.flush()
            if not self._block:
                self._block_ns = now_ns
            self._block += varint(now_ns - self._block_ns) + varint(len(frames)) + frames
            self._count += count
            self.frames += count

    def flush(self) -> None:
        """
        Write what was kept back: what is in the file then is not lost when this process dies.

        @raise OSError: it cannot be written.
        """
        if self._block:
            kind, payload = (ZLIB if self._compress else PLAIN), bytes(self._block)
            count, self._count = self._count, 0
            self._block.clear()
            self._put(encode_block(kind, payload, count, self._block_ns))

    def close(self) -> None:
        """
        End the session, and close the file.

        @raise OSError: it cannot be written.  It is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            if not self._failed:
                # Else something is missing, which readers are to say.
                self._put(encode_block(END, b"", offset_ns=self._monotonic() - self._started_ns))
            with suppress(OSError):  # of a pipe or a device
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _put(self, block: bytes) -> None:
        try:
            _write(self._file, block)
        except OSError:
            self._failed = True
            raise
        self.bytes_written += len(block)


# Blocks


def _parse_session(payload: bytes, seconds: float) -> Session:
    try:
        said = json.loads(payload[:_MAX_TEXT])
        return Session(int(said["time_ns"]), str(said["source"])[:1000], seconds)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return Session(0, "", seconds)


# Files


def _open(path: str, flags: int) -> FileIO:
    """
    Open a file for writing, for this recorder alone.

    @raise RecordingError: another one has it.
    """
    file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o666), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RecordingError("another recorder is writing it") from None
    except OSError:
        # Some network file systems have no locks.
        pass
    return file


def _find_end(file: BinaryIO) -> tuple[Blocks, bytes, int]:
    """
    Find out where one can go on with a recording.

    @return: its blocks, all read; a block to begin with; and how many frames that saves.
    @raise RecordingError: nowhere.
    """
    blocks = Blocks(file)
    try:
        last = None
        for last in blocks:  # noqa: B007
            pass
        if last is None or len(last[1]) == last[0].stored:
            return blocks, b"", 0
        header, stored = last
        payload = b""
        saved = 0
        if header.kind in (PLAIN, ZLIB):
            for after_ns, frames, count in split(header, stored):
                payload += varint(after_ns) + varint(len(frames)) + frames
                saved += count
    except Damaged as error:
        raise RecordingError(
            f"it is damaged behind its first {blocks.position} bytes: {error}"
        ) from None
    if not saved:
        return blocks, b"", 0
    return blocks, encode_block(header.kind, payload, saved, header.offset_ns), saved


def _write(file: BinaryIO, data: bytes) -> None:
    """
    Write all of it; or, as far as possible, nothing.

    @raise OSError: it cannot be written.
    """
    written = 0
    try:
        while written < len(data):
            count = file.write(data[written:])
            if count is None:
                # Somebody else made it one that does not wait.
                select.select([], [file], [])
            else:
                written += count
    except OSError:
        with suppress(OSError):  # of a pipe or a device
            if written:
                file.truncate(file.seek(-written, os.SEEK_CUR))
        raise
