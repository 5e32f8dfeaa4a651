"""
Recordings: a stream, byte for byte and with its timing, written to a file.  No Twisted.

`txmetrics_tcp._recording.reader` reads it, and says more.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from typing import BinaryIO

from txmetrics_tcp._codec.framing import Frames
from txmetrics_tcp._recording.blocks import (
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
    RecordingError,
    encode_block,
    encode_chunk,
    split,
)


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
        with _opened(path, 0 if overwrite else os.O_EXCL) as file:
            with suppress(OSError):  # of a device
                file.truncate(0)
            return cls(file, source, compress=compress)

    @classmethod
    def append(cls, path: str, source: str, *, compress: bool = False) -> RecordingWriter:
        """
        Go on with a recording; begin one if there is none.

        In a file that was cut off, what is left of its last block is replaced by a block that
        has the frames of it that are whole.

        @raise RecordingError: the file is no recording, is damaged, or another recorder writes it.
        @raise OSError: it cannot be read or written.
        """
        with _opened(path, 0) as file:
            blocks, block, salvaged = _find_end(file)
            file.seek(blocks.position)
            file.truncate()
            _write(file, block)
            writer = cls(file, source, compress=compress, begin=not blocks.position)
            writer.removed = blocks.truncated
            writer.salvaged = salvaged
            return writer

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
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
            self._block += encode_chunk(now_ns - self._block_ns, frames)
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


@contextmanager
def _opened(path: str, flags: int) -> Iterator[FileIO]:
    """
    Open a file for writing, for this recorder alone.  It is closed only if an exception is raised.

    @raise RecordingError: another one has it.
    """
    file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o666), "r+")
    with ExitStack() as stack:
        stack.enter_context(file)
        # Some network file systems have no locks.
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordingError("another recorder is writing it") from None
        yield file
        stack.pop_all()


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
                payload += encode_chunk(after_ns, frames)
                saved += count
    except Damaged as error:
        raise RecordingError(blocks.where(error)) from None
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
