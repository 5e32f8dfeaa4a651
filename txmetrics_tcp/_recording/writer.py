"""
Write recordings: files with the bytes of a stream and their timing.  Does not import Twisted.

`txmetrics_tcp._recording.reader` reads them, and outlines the format.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from typing import BinaryIO

from txmetrics_tcp._checks import flag, short_repr
from txmetrics_tcp._codec.framing import Frames
from txmetrics_tcp._model import PROTOCOL_VERSION
from txmetrics_tcp._net.pipes import write_some
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

_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
"""The errors by which a file system reports that data is lost."""


class RecordingWriter:
    """
    Write one session of a recording::

        with RecordingWriter.create("today.rec", "127.0.0.1:5000") as writer:
            writer.connected()
            writer.write(data)

    Frames are buffered until they fill a block, or until `flush`.  The file is not changed before
    the first frame is written.  If a write fails, a partially written block is removed from the
    file where that is possible.

    @ivar frames: the number of frames passed to `write`.
    @ivar bytes_written: the size, in bytes, of the session in the file.
    @ivar removed: the size, in bytes, of the incomplete block that `append` removes from the end
        of the file.
    @ivar salvaged: the number of frames that `append` keeps from this block.
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
        """
        _check_source(source)
        self._file = file
        self._regular = _is_regular(file)
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
        # The beginnings of the session and of the connection, until the next frames are written.
        self._session = (MAGIC if begin else b"") + encode_block(
            SESSION, json.dumps(session).encode()
        )
        self._connection = b""
        # The old end of the file: its position, and the block to replace the data after it.
        self._old_end: tuple[int, bytes] | None = None
        # The path of the file, if this writer has created it.
        self._created: str | None = None
        self._interrupted = False

    @classmethod
    def create(
        cls, path: str, source: str, *, overwrite: bool = False, compress: bool = False
    ) -> RecordingWriter:
        """
        Begin a recording in a new file, in an empty file, or in a FIFO or a device.

        A FIFO is opened when a process opens it for reading.  A new file is removed again if it is
        closed before a frame is written.

        @param overwrite: whether to replace the content of an existing file, when the first frame
            is written.
        @raise FileExistsError: the file exists and is not empty, and C{overwrite} is false.
        @raise TypeError: an argument is of the wrong type.  The file is not changed.
        @raise RecordingError: another recorder is writing to the file.
        @raise OSError: the file cannot be written.
        """
        _check_source(source)
        flag("overwrite", overwrite)
        flag("compress", compress)
        # Opened for reading too, a FIFO would never report that its reader has gone.
        with _open_locked(path, os.O_WRONLY) as (file, created):
            size = os.fstat(file.fileno()).st_size
            if size and not overwrite:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            writer = cls(file, source, compress=compress)
            writer._created = created
            writer._old_end = (0, b"") if size else None
            return writer

    @classmethod
    def append(cls, path: str, source: str, *, compress: bool = False) -> RecordingWriter:
        """
        Append a session to a recording, or create the file.

        An incomplete block at the end is replaced by a block with its whole frames.  A new file is
        removed again if it is closed before a frame is written.

        @raise RecordingError: the file is not a regular file or not a recording, is damaged, or is
            being written by another recorder.
        @raise TypeError: an argument is of the wrong type.  The file is not changed.
        @raise OSError: the file cannot be read or written.
        """
        _check_source(source)
        flag("compress", compress)
        with _open_locked(path, os.O_RDWR) as (file, created):
            if not _is_regular(file):
                raise RecordingError("not a regular file")
            blocks, block, salvaged = _find_end(file)
            writer = cls(file, source, compress=compress, begin=not blocks.position)
            writer._created = created
            writer._old_end = blocks.position, block
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
        offset_ns = self._monotonic() - self._started_ns
        self._connection = encode_block(CONNECTION, b"{}", offset_ns=offset_ns)

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
            block = encode_block(kind, payload, count, self._block_ns)
            self._put(self._session + self._connection + block)
            self._session = self._connection = b""

    def interrupt(self) -> None:
        """
        Limit the time that a write waits until the reader of a pipe continues to read: to a second.
        Then it raises `TimeoutError`.  May be called by a signal handler.
        """
        self._interrupted = True

    def close(self) -> None:
        """
        End the session, if it has frames, and close the file.

        @raise OSError: data cannot be written, or was lost.  The file is closed nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            if not (self._failed or self._session):
                # After a failed write, readers must report the recording as cut off.
                self._put(encode_block(END, b"", offset_ns=self._monotonic() - self._started_ns))
            self._synchronize()
        finally:
            if self._created is not None and not self.bytes_written:
                self._remove(self._created)
            self._file.close()

    def _synchronize(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            # Other errors mean that a pipe, a device or a file in memory cannot be synchronized.
            if error.errno in _LOST:
                raise

    def _remove(self, path: str) -> None:
        """Remove the file, unless another file has replaced it at this path."""
        # Before the file is closed: until then, the number of its inode is not used again.
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._file.fileno()), os.lstat(path)):
                os.unlink(path)

    def _put(self, blocks: bytes) -> None:
        try:
            if self._old_end is not None:
                position, block = self._old_end
                self._file.seek(position)
                self._write(block)
                self._file.truncate()
                self._old_end = None
            self._write(blocks)
        except OSError:
            self._failed = True
            raise
        self.bytes_written += len(blocks)

    def _write(self, data: bytes) -> None:
        """
        Write all data.  After an error, remove the part that was written, where that is possible.

        @raise OSError: the file cannot be written.
        """
        pending = memoryview(data)
        try:
            while pending:
                pending = pending[self._write_some(pending) :]
        except OSError:
            with suppress(OSError):  # a pipe or a device
                if written := len(data) - len(pending):
                    self._file.truncate(self._file.seek(-written, os.SEEK_CUR))
            raise

    def _write_some(self, data: memoryview) -> int:
        """
        Write the beginning of the data.

        @return: the number of bytes that were written.
        """
        if self._regular:
            return self._file.write(data)
        return write_some(self._file.fileno(), data, self._interrupted)


def _check_source(source: object) -> None:
    if not isinstance(source, str):
        raise TypeError(f"source must be a str, not {short_repr(source)}")


def _is_regular(file: BinaryIO) -> bool:
    """Whether writes to a file do not wait for a reader."""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # a file in memory
        return True


@contextmanager
def _open_locked(path: str, mode: int) -> Iterator[tuple[FileIO, str | None]]:
    """
    Open or create a file, and lock it.  If the block raises an exception, the file is closed.

    @param mode: C{os.O_WRONLY} or C{os.O_RDWR}.
    @return: the file, and the path if the file was created.
    @raise RecordingError: another recorder holds the lock.
    """
    flags = mode | os.O_CREAT | os.O_CLOEXEC
    created: str | None = path
    try:
        descriptor = os.open(path, flags | os.O_EXCL, 0o666)
    except FileExistsError:
        descriptor, created = os.open(path, flags, 0o666), None
    with ExitStack() as stack:
        file = stack.enter_context(FileIO(descriptor, "r+" if mode == os.O_RDWR else "w"))
        # Some network file systems do not support locks.
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordingError("another recorder is writing to this file") from None
        kept = os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path))
        if not kept:
            # That recorder has received nothing.
            raise RecordingError("another recorder has removed this file")
        yield file, created
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
        payload = bytearray()
        salvaged = 0
        if header.kind in (PLAIN, ZLIB):
            for after_ns, frames, count in split(header, stored):
                payload += encode_chunk(after_ns, frames)
                salvaged += count
    except Damaged as error:
        raise RecordingError(blocks.damage_message(error)) from None
    if not salvaged:
        return blocks, b"", 0
    return blocks, encode_block(header.kind, bytes(payload), salvaged, header.offset_ns), salvaged
