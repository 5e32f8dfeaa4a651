"""
Read the events of a recording, for all commands, and report damage.  Does not import Twisted.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._recording.blocks import MAX_RECORDED_FRAME, NotARecording, RecordingError
from txmetrics_tcp._recording.reader import RecordingReader, Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

TIME_SLICE = 0.02
"""The number of seconds after which `Stepper` lets the reactor iterate."""


class Piece(NamedTuple):
    """
    Part of a recording: a `Chunk`, or nothing, after many blocks without frames.

    @ivar seconds: the time of reception, as `Chunk.seconds`.
    @ivar frames: whole frames, as the bytes that were received.
    @ivar events: the events in C{frames}.
    @ivar begins: whether this is the first piece of a connection, as `Chunk.begins`.
    """

    seconds: float
    frames: bytes
    events: list[Event]
    begins: bool = False


class Outcome(NamedTuple):
    """
    The result of reading a recording.

    @ivar text: the reason, in one line, for reading only a part; empty if the recording was read
        completely.
    @ivar exit_code: the exit code of a command that read the recording: 1 if the recording is
        damaged or unreadable.  A recording that was cut off is reported but is not an error: the
        recorder may have been killed, or may still be running.
    """

    text: str = ""
    exit_code: int = 0


class _Pipe(FileIO):
    """
    A pipe, a FIFO or a device, opened for reading.

    @ivar cancelled: whether reads end, even blocked ones.
    """

    cancelled = False

    def read(self, size: int | None = -1) -> bytes:
        # A blocked read could not be cancelled, since Python resumes it after a signal.
        while not self.cancelled:
            if select.select([self], [], [], 0.1)[0]:
                return super().read(size) or b""
        return b""


class Recording:
    """
    An open recording.  Each iteration reads the file from its beginning.

    Iteration raises no exceptions.  It stops at damage, and `outcome` has the reason.

    @ivar path: the path of the file, as the user wrote it.
    @ivar outcome: the result; final when an iteration has ended.
    """

    def __init__(self, path: str) -> None:
        """
        @raise RecordingError: the file cannot be read, or is not a recording.  The text names
            the file.
        """
        self.path = path
        self.outcome: Outcome = Outcome()
        self._reported = False
        self._iterated = False
        try:
            with ExitStack() as stack:
                self._file: BinaryIO = stack.enter_context(open(path, "rb"))
                status = os.fstat(self._file.fileno())
                self._size = status.st_size
                self._pipe: _Pipe | None = None
                if not stat.S_ISREG(status.st_mode):
                    self._pipe = _Pipe(self._file.fileno(), closefd=False)
                self._reader = RecordingReader(self._pipe or self._file)
                if not (self._reader.position or self._reader.truncated):
                    raise RecordingError("empty file, not a metrics recording")
                stack.pop_all()
        except (OSError, RecordingError) as error:
            reason = _reason(error)
            if isinstance(error, NotARecording):
                reason += "; metrics-tcp tail --raw reads raw captures"
            raise RecordingError(f"{path}: {reason}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def cancel(self) -> None:
        """
        End the reading of a pipe, even if it waits for the writer.  May be called by a signal
        handler.
        """
        if self._pipe is not None:
            self._pipe.cancelled = True

    @property
    def seconds(self) -> float:
        """The duration, in seconds, of the part that has been read."""
        return self._reader.seconds

    @property
    def progress(self) -> float:
        """The share of the file that has been read, from 0 to 1."""
        return min(1.0, self._reader.position / max(1, self._size))

    @property
    def sessions(self) -> list[Session]:
        """The recorder sessions that have been read."""
        return self._reader.sessions

    def report(self, say: Callable[[str], object]) -> int:
        """
        Report the text of the outcome, if any, once.

        @param say: called with a message of one line.
        @return: the exit code of the outcome.
        """
        if self.outcome.text and not self._reported:
            self._reported = True
            say(f"{self.path}: {self.outcome.text}")
        return self.outcome.exit_code

    def __iter__(self) -> Iterator[Piece]:
        self.outcome = Outcome()
        try:
            # Do not rewind for the first iteration: a pipe cannot be rewound.
            if self._iterated:
                self._file.seek(0)
                self._reader = RecordingReader(self._file)
            self._iterated = True
            decoder = Decoder(MAX_RECORDED_FRAME)
            for chunk in self._reader.steps():
                if chunk is None:
                    yield Piece(self._reader.seconds, b"", [])
                    continue
                seconds, frames, _, begins = chunk
                if begins:
                    decoder = Decoder(MAX_RECORDED_FRAME)
                events: list[Event] = []
                try:
                    # The list keeps the events that are yielded before an exception.
                    events.extend(decoder.feed(frames))
                except StreamError as error:
                    self.outcome = Outcome(str(error), 1)
                yield Piece(seconds, frames[: len(frames) - decoder.refused], events, begins)
                if self.outcome.text:
                    return
        except (OSError, RecordingError) as error:
            self.outcome = Outcome(_reason(error), 1)
            return
        if self._pipe is not None and self._pipe.cancelled:
            return
        if self._reader.damage:
            self.outcome = Outcome(self._reader.damage, 1)
        elif self._reader.cut_off:
            self.outcome = Outcome("cut off; read up to the last complete event")


class Stepper:
    """
    Advance an iterator in the reactor thread, without blocking the reactor for long.

    Each reactor iteration takes steps until `TIME_SLICE` seconds have passed.
    """

    def __init__(self, clock: IReactorTime, steps: Iterator[object]) -> None:
        self._clock = clock
        self._steps = steps
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Take the first steps in the next reactor iteration."""
        self._call = self._clock.callLater(0, self._take_steps)

    def stop(self) -> None:
        """Take no further steps."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _take_steps(self) -> None:
        self._call = None
        end = self._clock.seconds() + TIME_SLICE
        for _ in self._steps:
            if self._clock.seconds() >= end:
                self.start()
                return


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot read the file: {error.strerror or error}"
    return str(error)
