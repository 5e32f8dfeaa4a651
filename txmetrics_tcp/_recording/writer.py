"""
Write recordings: files with the bytes of a stream and their timing.  Does not import Twisted.

`txmetrics_tcp._recording.reader` reads them, and outlines the format.
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

from txmetrics_tcp._checks import flag, short_repr
from txmetrics_tcp._codec.framing import Frames
from txmetrics_tcp._model import PROTOCOL_VERSION
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
    Write one session of a recording::

        with RecordingWriter.create("today.rec", "127.0.0.1:5000") as writer:
            writer.connected()
            writer.write(data)

    Frames are buffered until they fill a block, or until `flush`.  If a write fails, a partially
    written block is removed from the file where that is possible.

    @ivar frames: the number of frames passed to `write`.
    @ivar bytes_written: the size, in bytes, of the session in the file.
    @ivar removed: the size, in bytes, of the incomplete block that `append` removed from the end
        of the file.
    @ivar salvaged: the number of frames that `append` kept from this block.
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
        @param file: an unbuffered binary file, opened for writing and positioned at its end.
        @param source: the origin of the stream, human-readable; up to 1000 characters are stored.
        @param compress: whether to compress frames with zlib.
        @param begin: whether the file is empty.
        @param clock: returns nanoseconds since the epoch.
        @param monotonic: returns nanoseconds of a monotonic clock.
        @raise TypeError: C{source} is not a `str`.
        @raise OSError: the file cannot be written.
        """
        _check_source(source)
        self._file = file
        self._compress = compress
        self._monotonic = monotonic
        self._started_ns = monotonic()
        self._splitter = Frames(MAX_RECORDED_FRAME)
        self._closed = False
        self.frames: int = 0
        self.bytes_written: int = 0
        self.removed = 0
        self.salvaged = 0
        # The pending block, its number of frames, and its time.
        self._block = bytearray()
        self._count = 0
        self._block_ns = 0
        session = {
            "time_ns": clock(),
            "source": source[:1000],
            "protocol_version": PROTOCOL_VERSION,
        }
        self._failed = False
        self._put((MAGIC if begin else b"") + encode_block(SESSION, json.dumps(session).encode()))

    @classmethod
    def create(
        cls, path: str, source: str, *, overwrite: bool = False, compress: bool = False
    ) -> RecordingWriter:
        """
        Begin a recording in a new file.

        @param overwrite: whether to replace an existing file.
        @raise FileExistsError: the file exists, and C{overwrite} is false.
        @raise TypeError: an argument is of the wrong type.  The file is not changed.
        @raise RecordingError: another recorder is writing to the file.
        @raise OSError: the file cannot be written.
        """
        _check_source(source)
        flag("overwrite", overwrite)
        flag("compress", compress)
        with _open_locked(path, 0 if overwrite else os.O_EXCL) as file:
            with suppress(OSError):  # a device
                file.truncate(0)
            return cls(file, source, compress=compress)

    @classmethod
    def append(cls, path: str, source: str, *, compress: bool = False) -> RecordingWriter:
        """
        Append a session to a recording, or create the file.

        An incomplete block at the end is replaced by a block with its whole frames.

        @raise RecordingError: the file is not a recording, is damaged, or is being written by
            another recorder.
        @raise TypeError: an argument is of the wrong type.  The file is not changed.
        @raise OSError: the file cannot be read or written.
        """
        _check_source(source)
        flag("compress", compress)
        with _open_locked(path, 0) as file:
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
        Begin a connection.  An incomplete frame of the previous connection is discarded.

        @raise OSError: the file cannot be written.
        """
        self.flush()
        self._splitter = Frames(MAX_RECORDED_FRAME)
        self._put(encode_block(CONNECTION, b"{}", offset_ns=self._monotonic() - self._started_ns))

    def write(self, data: bytes) -> None:
        """
        Record the next bytes of the stream, with the current time.  The bytes may end anywhere;
        an incomplete frame is kept until its rest is written.

        @raise StreamError: a frame is longer than `MAX_RECORDED_FRAME`.
        @raise OSError: the file cannot be written.
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
        Write buffered frames to the file, so that they survive the end of this process.

        @raise OSError: the file cannot be written.
        """
        if self._block:
            kind, payload = (ZLIB if self._compress else PLAIN), bytes(self._block)
            count, self._count = self._count, 0
            self._block.clear()
            self._put(encode_block(kind, payload, count, self._block_ns))

    def remove(self, path: str) -> None:
        """Remove the recording, unless another file has replaced it at this path."""
        # Before the file is closed: until then, the number of its inode is not used again.
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._file.fileno()), os.lstat(path)):
                os.unlink(path)

    def close(self) -> None:
        """
        End the session and close the file.

        @raise OSError: the file cannot be written.  It is closed nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            if not self._failed:
                # After a failed write, readers must report the recording as cut off.
                self._put(encode_block(END, b"", offset_ns=self._monotonic() - self._started_ns))
            with suppress(OSError):  # a pipe or a device
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


def _check_source(source: object) -> None:
    if not isinstance(source, str):
        raise TypeError(f"source must be a str, not {short_repr(source)}")


@contextmanager
def _open_locked(path: str, flags: int) -> Iterator[FileIO]:
    """
    Open a file for writing and lock it.  If the block raises an exception, the file is closed.

    @raise RecordingError: another recorder holds the lock.
    """
    file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o666), "r+")
    with ExitStack() as stack:
        stack.enter_context(file)
        # Some network file systems do not support locks.
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordingError("another recorder is writing to this file") from None
        yield file
        stack.pop_all()


def _find_end(file: BinaryIO) -> tuple[Blocks, bytes, int]:
    """
    Find the position for appending to a recording.

    @return: the blocks, read to the end; a new block with the whole frames of an incomplete last
        block, or no bytes; and the number of these frames.
    @raise RecordingError: the file is not a recording, or is damaged.
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
        salvaged = 0
        if header.kind in (PLAIN, ZLIB):
            for after_ns, frames, count in split(header, stored):
                payload += encode_chunk(after_ns, frames)
                salvaged += count
    except Damaged as error:
        raise RecordingError(blocks.damage_message(error)) from None
    if not salvaged:
        return blocks, b"", 0
    return blocks, encode_block(header.kind, payload, salvaged, header.offset_ns), salvaged


def _write(file: BinaryIO, data: bytes) -> None:
    """
    Write all data.  After an error, remove the part that was written, where that is possible.

    @raise OSError: the file cannot be written.
    """
    written = 0
    try:
        while written < len(data):
            count = file.write(data[written:])
            if count is None:
                # Another process made the file non-blocking.
                select.select([], [file], [])
            else:
                written += count
    except OSError:
        with suppress(OSError):  # a pipe or a device
            if written:
                file.truncate(file.seek(-written, os.SEEK_CUR))
        raise
