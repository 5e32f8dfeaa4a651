"""
Read recordings: files with the bytes of a stream and their timing.  Does not import Twisted.

docs/reference/recording-format.md describes the format.  A recording begins with a line that
identifies it.  Blocks of about 64 KiB follow, with the frames of the stream, compressed or not.
The header of a block has its sizes and checksums.  A truncated file can be read up to its last
whole frame, and can be appended to.  `txmetrics_tcp._recording.writer` writes recordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOBase
from typing import BinaryIO, NamedTuple

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._recording.blocks import (
    BLOCK,
    CONNECTION,
    END,
    HEADER_SIZE,
    PLAIN,
    SESSION,
    ZLIB,
    BlockHeader,
    Blocks,
    Damaged,
    split,
)
from txmetrics_tcp._recording.upgrade import upgrade

MAX_SESSIONS = 1000
"""The maximum length of `RecordingReader.sessions`.  Events of later sessions are still read."""

_MAX_TEXT = 64 * 1024
_MAX_NS = 1 << 63


class Chunk(NamedTuple):
    """
    Frames that were received at one moment, or about 16 KiB of them.

    @ivar seconds: the time of reception, in seconds since the beginning of the recording.  The time
        between two sessions does not count.
    @ivar frames: whole frames, as the bytes that were received.  A stream status that was recorded
        before version 1 of the protocol has its present number.
    @ivar number: the number of frames.
    @ivar begins: whether this is the first chunk of a connection.  Each connection describes its
        metrics again.
    """

    seconds: float
    frames: bytes
    number: int
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """
    One run of a recorder.

    @ivar time_ns: the start time, in nanoseconds since the epoch.
    @ivar source: the origin of the stream, as the recorder named it.
    @ivar seconds: the start time, as `Chunk.seconds`.
    @ivar protocol_version: the version of the protocol that the recorder knew; 0 before version 1.
    """

    time_ns: int
    source: str
    seconds: float
    protocol_version: int


class RecordingReader:
    """
    Read a recording once, from its beginning to its end::

        with open("yesterday.rec", "rb") as file:
            for chunk in RecordingReader(file):
                ...

    The reader holds one block at a time in memory.  Damage after the first line ends the iteration
    early and raises no exception.  The attributes are final when the iteration has ended.

    @ivar sessions: the recorder sessions that have been read, `MAX_SESSIONS` at most.
    @ivar truncated: the number of bytes of an incomplete block at the end of the file.  Its whole
        frames are read.
    @ivar cut_off: whether the recorder did not end its last session, so that events may be missing
        at the end.  Also true while the recorder is still running.
    @ivar damage: the place and the reason of damage; empty if the file is intact or only cut off.
        Data after this place is not read.
    @ivar position: the number of bytes of the file that have been read as whole blocks.
    @ivar frames: the number of frames that have been read.
    @ivar seconds: the duration, in seconds, of the part that has been read.
    """

    def __init__(self, file: BinaryIO) -> None:
        """
        @param file: a binary file, opened for reading.  It need not be seekable.
        @raise TypeError: C{file} is not a binary file.
        @raise RecordingError: the file is not a recording, or its format is not supported.
        @raise OSError: the file cannot be read.
        """
        if isinstance(file, TextIOBase) or not hasattr(file, "read"):
            raise TypeError(
                f"file must be a binary file, opened for reading, not {short_repr(file)}"
            )
        self._blocks = Blocks(file)
        self.sessions: list[Session] = []
        self.cut_off: bool = True
        self.damage: str = ""
        self.frames: int = 0
        self.seconds: float = 0.0
        # The beginning of the session and the current time, in nanoseconds of the recording.
        self._session_ns = 0
        self._now_ns = 0
        self._begins = False
        self._protocol_version = 0

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
        return (chunk for chunk in self.steps() if chunk is not None)

    def steps(self) -> Iterator[Chunk | None]:
        """
        Iterate over the chunks, in short steps: None stands for many blocks without frames.

        @raise OSError: the file cannot be read.
        """
        idle = 0
        try:
            for header, stored in self._blocks:
                self.cut_off = True
                idle += HEADER_SIZE + len(stored)
                if header.kind in (PLAIN, ZLIB):
                    for chunk in self._chunks(header, stored):
                        idle = 0
                        yield chunk
                elif len(stored) == header.stored:
                    self._control(header, stored)
                if idle > BLOCK:
                    idle = 0
                    yield None
        except Damaged as error:
            self.damage = self._blocks.damage_message(error)
        if self.truncated:
            self.cut_off = True

    def _chunks(self, header: BlockHeader, stored: bytes) -> Iterator[Chunk]:
        for after_ns, frames, count in split(header, stored):
            self._advance(self._session_ns + header.offset_ns + after_ns)
            if not self._protocol_version:
                frames = upgrade(frames)
            self.frames += count
            begins, self._begins = self._begins, False
            yield Chunk(self.seconds, frames, count, begins)

    def _control(self, header: BlockHeader, stored: bytes) -> None:
        """Handle a block without frames.  Unknown kinds, of later versions, are skipped."""
        if header.kind == SESSION:
            self._session_ns = self._now_ns
            self._begins = True
            session = _parse_session(stored, self.seconds)
            self._protocol_version = session.protocol_version
            if len(self.sessions) < MAX_SESSIONS:
                self.sessions.append(session)
        elif header.kind == CONNECTION:
            self._begins = True
        elif header.kind == END:
            self.cut_off = False
        self._advance(self._session_ns + header.offset_ns)

    def _advance(self, now_ns: int) -> None:
        # Times in block headers may be wrong.  The current time never decreases.
        self._now_ns = max(self._now_ns, min(now_ns, _MAX_NS))
        self.seconds = self._now_ns / 1e9


def _parse_session(payload: bytes, seconds: float) -> Session:
    try:
        fields = json.loads(payload[:_MAX_TEXT])
        version = int(fields.get("protocol_version", 0))
        return Session(int(fields["time_ns"]), str(fields["source"])[:1000], seconds, version)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        return Session(0, "", seconds, 0)
