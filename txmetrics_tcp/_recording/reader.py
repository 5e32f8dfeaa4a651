"""
Recordings: a stream, byte for byte and with its timing, read from a file.  No Twisted.

docs/reference/recording-format.md describes the file.  In short: a line that says what it is, then
blocks of about 64 KiB with the frames of the stream, compressed or not.  A block's header has its
sizes and checksums.  A file that was cut off anywhere can be read up to its last whole frame, and
be appended to; `txmetrics_tcp._recording.writer` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from txmetrics_tcp._recording.blocks import (
    CONNECTION,
    END,
    PLAIN,
    SESSION,
    ZLIB,
    BlockHeader,
    Blocks,
    Damaged,
    split,
)

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
            self.damage = self._blocks.where(error)
        if self.truncated:
            self.cut_off = True

    def _chunks(self, header: BlockHeader, stored: bytes) -> Iterator[Chunk]:
        for after_ns, frames, count in split(header, stored):
            self._advance(self._session_ns + header.offset_ns + after_ns)
            self.frames += count
            begins, self._begins = self._begins, False
            yield Chunk(self.seconds, frames, count, begins)

    def _note(self, header: BlockHeader, stored: bytes) -> None:
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


def _parse_session(payload: bytes, seconds: float) -> Session:
    try:
        said = json.loads(payload[:_MAX_TEXT])
        return Session(int(said["time_ns"]), str(said["source"])[:1000], seconds)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return Session(0, "", seconds)
