"""
The one reader of recordings for all commands: events, and a verdict on what is wrong.  No Twisted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._recording.blocks import MAX_RECORDED_FRAME, RecordingError
from txmetrics_tcp._recording.reader import Chunk, RecordingReader, Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

PIECE = 16 * 1024
"""About how many bytes of a recording are decoded in one step."""

TURN = 0.02
"""For how many seconds a recording is read in one reactor iteration."""


class Piece(NamedTuple):
    """
    Part of a recording: a `Chunk`, or of one that is larger than `PIECE` bytes, about so much.

    @ivar seconds: when it was received, as `Chunk.seconds`.
    @ivar frames: whole frames, as the bytes that were received.
    @ivar events: the events in them.
    @ivar begins: whether it is the first of a connection, as `Chunk.begins`.
    """

    seconds: float
    frames: bytes
    events: list[Event]
    begins: bool = False


class Verdict(NamedTuple):
    """
    What is wrong with a recording that has been read.

    @ivar text: the reason, one line; empty if all of it was read.
    @ivar exit_code: of a command that has read it: 1 if the recording is damaged or cannot be read.
        That it was cut off is reported and is no error: the recorder may have been killed, or may
        still be running.
    """

    text: str = ""
    exit_code: int = 0


class Recording:
    """
    An open recording.  Iterating over it reads it from its beginning, each time.

    Iteration ends early where something is wrong, and raises nothing; `verdict` has the reason.

    @ivar path: where it is, as the user wrote it.
    @ivar verdict: final when an iteration has ended.
    """

    def __init__(self, path: str) -> None:
        """
        @raise RecordingError: the file cannot be read, or is no recording.  The text names the
            file.
        """
        self.path = path
        self.verdict = Verdict()
        self._reported = False
        self._iterated = False
        try:
            with ExitStack() as stack:
                self._file: BinaryIO = stack.enter_context(open(path, "rb"))
                self._size = os.fstat(self._file.fileno()).st_size
                self._reader = RecordingReader(self._file)
                if not (self._reader.position or self._reader.truncated):
                    raise RecordingError("it is empty, and no recording")
                stack.pop_all()
        except (OSError, RecordingError) as error:
            raise RecordingError(f"{path}: {_reason(error)}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def seconds(self) -> float:
        """How long the recording is, as far as it has been read."""
        return self._reader.seconds

    @property
    def progress(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        return min(1.0, self._reader.position / max(1, self._size))

    @property
    def sessions(self) -> list[Session]:
        """The runs of a recorder that were met so far."""
        return self._reader.sessions

    def report(self, say: Callable[[str], object]) -> int:
        """
        Report what is wrong, once.

        @param say: takes a message of one line.
        @return: the exit code of a command that has read the recording.
        """
        if self.verdict.text and not self._reported:
            self._reported = True
            say(f"{self.path}: {self.verdict.text}")
        return self.verdict.exit_code

    def __iter__(self) -> Iterator[Piece]:
        self.verdict = Verdict()
        try:
            # Not the first time: a pipe cannot be rewound.
            if self._iterated:
                self._file.seek(0)
                self._reader = RecordingReader(self._file)
            self._iterated = True
            decoder = Decoder(MAX_RECORDED_FRAME)
            for chunk in self._reader:
                if chunk.begins:
                    decoder = Decoder(MAX_RECORDED_FRAME)
                yield from self._decode(decoder, chunk)
                if self.verdict.text:
                    return
        except (OSError, RecordingError) as error:
            self.verdict = Verdict(_reason(error), 1)
            return
        if self._reader.damage:
            self.verdict = Verdict(self._reader.damage, 1)
        elif self._reader.cut_off:
            self.verdict = Verdict("it was cut off, and was read up to its last whole event")

    def _decode(self, decoder: Decoder, chunk: Chunk) -> Iterator[Piece]:
        begin, begins = 0, chunk.begins
        for at in range(0, len(chunk.frames), PIECE):
            data = chunk.frames[at : at + PIECE]
            events: list[Event] = []
            try:
                # What it yields before it raises is in the list.
                events.extend(decoder.feed(data))
            except StreamError as error:
                self.verdict = Verdict(str(error), 1)
            end = at + len(data) - decoder.unfinished - decoder.refused
            yield Piece(chunk.seconds, chunk.frames[begin:end], events, begins)
            if self.verdict.text:
                return
            begin, begins = end, False


class Turns:
    """
    Takes the steps of an iterator one after the other, and lets the reactor iterate after the first
    that ends more than `TURN` seconds after its iteration began.
    """

    def __init__(self, clock: IReactorTime, steps: Iterator[object]) -> None:
        self._clock = clock
        self._steps = steps
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin, in the next reactor iteration."""
        self._call = self._clock.callLater(0, self._go_on)

    def stop(self) -> None:
        """Take no further steps."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _go_on(self) -> None:
        self._call = None
        end = self._clock.seconds() + TURN
        for _ in self._steps:
            if self._clock.seconds() >= end:
                self.start()
                return


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror or error}"
    return str(error)
