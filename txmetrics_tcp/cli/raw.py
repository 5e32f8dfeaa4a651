"""
Raw captures: the bytes of a stream exactly as a server sent them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import StreamError, cut_off
from txmetrics_tcp._model import Event
from txmetrics_tcp._recording.blocks import PIECE, PREFIX
from txmetrics_tcp.cli.output import CommandError

STANDARD_INPUT = "-"
"""The path that stands for standard input."""


@implementer(IReadDescriptor)
class RawCapture:
    """
    Decode a capture while the reactor runs: a regular file to its end; a pipe, a socket or a
    terminal as data arrives, until the writer closes it.

    Each read takes about `PIECE` bytes at most, so that the reactor iterates between two reads.

    @ivar name: the name of the capture in messages.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        max_frame: int,
        received: Callable[[list[Event]], object],
        ended: Callable[[str, int], object],
    ) -> None:
        """
        @param path: the path of a file, or `STANDARD_INPUT`.
        @param max_frame: the largest accepted frame, in bytes.
        @param received: called with the events of each read.
        @param ended: called once, when no more events follow, with a message of one line, which may
            be empty, and the exit code.  Not called after `stop`.
        @raise CommandError: the file cannot be opened, or standard input is closed.
        """
        self._reactor = reactor
        self._is_input = path == STANDARD_INPUT
        self.name: str = "standard input" if self._is_input else path
        self._received = received
        self._ended = ended
        self._decoder = Decoder(max_frame)
        self._beginning = b""
        self._received_any = False
        self._descriptor = self._open()

    def _open(self) -> int:
        if self._is_input:
            # Descriptor 0 may be open for another purpose, for example in the reactor.
            if sys.stdin is None:
                raise CommandError("cannot read: standard input is closed")
            return 0
        try:
            # Otherwise, opening a FIFO would block until a program opens it for writing.
            return os.open(self.name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise CommandError(self._cannot_read(error)) from None

    def start(self) -> None:
        """Begin to read."""
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Stop reading, and close the file."""
        self._reactor.removeReader(self)
        if not self._is_input:
            os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "raw"

    def doRead(self) -> Any:
        events: list[Event] = []
        reason: Exception | None = None
        try:
            # Does not block: the descriptor is ready.  The flags of standard input are not changed,
            # since other processes share them.
            data = os.read(self._descriptor, PIECE)
            self._beginning = (self._beginning + data)[: len(PREFIX)]
            # If this raises, the list contains the events before the invalid frame.
            events.extend(self._decoder.feed(data))
            reason = None if data else CONNECTION_DONE
        except BlockingIOError:
            return None
        except (OSError, StreamError) as error:
            reason = error
        if events:
            self._received_any = True
            self._received(events)
        return reason

    def connectionLost(self, reason: Failure) -> None:
        """Report the end; called by the reactor, with the result of `doRead` or at a hang-up."""
        error, unfinished = reason.value, self._decoder.unfinished
        if self._beginning == PREFIX:
            advice = "omit --raw, and give its FILE" if self._is_input else "omit --raw"
            self._ended(f"{self.name} is a recording: {advice}", 1)
        elif isinstance(error, OSError):
            self._ended(self._cannot_read(error), 1)
        elif not isinstance(error, ConnectionDone):
            self._ended(f"{self.name}: {error}", 1)
        elif unfinished:
            self._ended(f"{self.name}: {cut_off(unfinished)}", 0 if self._received_any else 1)
        elif not self._received_any:
            self._ended(f"received nothing from {self.name}", 1)
        else:
            self._ended("", 0)

    def _cannot_read(self, error: OSError) -> str:
        return f"cannot read {self.name}: {error.strerror}"
