"""
The output of commands: lines on standard output, messages on standard error.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
)
from twisted.python.failure import Failure
from zope.interface import implementer, provider

from txmetrics_tcp._net.endpoint_syntax import without_credentials
from txmetrics_tcp._net.pipes import PATIENCE, is_writable, write_some
from txmetrics_tcp._view.text import visible


class CommandError(Exception):
    """A command cannot continue.  The text is one line, the last message of the command."""


class Output:
    """
    Unbuffered standard output.

    A write blocks the reactor while the reader is slow.  The server then drops the events that it
    cannot send, and counts them.

    @ivar cancelled: whether `cancel` was called.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self.cancelled: bool = False
        self._interrupted = False

    def interrupt(self) -> None:
        """
        Limit the time that a write waits until the reader continues to read: to `PATIENCE` seconds.
        May be called by a signal handler.
        """
        self._interrupted = True

    def cancel(self) -> None:
        """
        End the current write, even if it is blocked, and ignore later ones.  May be called by a
        signal handler.
        """
        self.cancelled = True

    def write(self, text: str) -> None:
        """
        Write text, blocking until all of it is written.

        @raise BrokenPipeError: the reader has closed the pipe.
        @raise TimeoutError: the reader does not read, after `interrupt`.
        @raise OSError: the text cannot be written, for example to a full disk.
        """
        pending = memoryview(text.encode(self._encoding, "backslashreplace"))
        while pending and not self.cancelled:
            pending = pending[write_some(self._descriptor, pending, self._interrupted) :]


def check_standard_output() -> None:
    """
    @raise CommandError: standard output is closed.
    """
    # Descriptor 1 may be open for another purpose, for example in the reactor.
    if sys.stdout is None:
        raise CommandError("cannot write: standard output is closed")


def standard_output() -> Output:
    """
    @raise CommandError: standard output is closed.
    """
    check_standard_output()
    return Output(1, sys.stdout.encoding or "utf-8")


@implementer(IReadDescriptor)
class ReaderGone:
    """
    Detect that the reader of a pipe has closed it, without having to write.

    When the reader closes the pipe, the reactor reports the writing end as readable.
    """

    def __init__(self, descriptor: int, gone: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._gone = gone

    @staticmethod
    def watches(descriptor: int) -> bool:
        """Whether a descriptor is the writing end of a pipe, as this class requires."""
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "stdout"

    def doRead(self) -> Any:
        return CONNECTION_LOST

    def connectionLost(self, reason: Failure) -> None:
        self._gone()


def say(text: str) -> None:
    """Print a message of one line on standard error."""
    write_message(f"metrics-tcp: {visible(without_credentials(text))}\n", PATIENCE)


def write_message(text: str, patience: float) -> None:
    """
    Write text to standard error.  It is dropped if it cannot be written, for example to a closed
    pipe, or if the reader of a full pipe does not read.

    @param patience: how long to wait for that reader, in seconds.
    """
    if sys.stderr is not None:
        with suppress(OSError):
            if is_writable(2, patience):
                os.write(2, text.encode())


@provider(ILogObserver)
def _say_event(event: LogEvent) -> None:
    for line in eventAsText(event, includeTimestamp=False, includeSystem=False).splitlines():
        say(line)


log_observer: ILogObserver = FilteringLogObserver(
    _say_event, [LogLevelFilterPredicate(LogLevel.warn)]
)
"""Prints log events, such as metrics that cannot be exposed, as messages."""
