"""
What the commands print, and where: lines to standard output, remarks to standard error.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._view.text import visible


class CommandError(Exception):
    """A command cannot go on.  The text, one line, is its last message."""


class Output:
    """
    Standard output, written to without a buffer of ours: what was written is out.

    Writing waits while the reader is slow; meanwhile the reactor stands still, and the server
    drops and counts what it cannot send.

    @ivar cancelled: whether it writes no more; ends a write that waits, too.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self.cancelled = False

    def cancel(self) -> None:
        """Write no more.  May be called by a signal handler."""
        self.cancelled = True

    def write(self, text: str) -> None:
        """
        @raise BrokenPipeError: nobody reads any more.
        @raise OSError: it cannot be written, to a full disk for example.
        """
        waiting = memoryview(text.encode(self._encoding, "backslashreplace"))
        while waiting and not self.cancelled:
            # So much never waits, and so a signal is heeded whenever it comes; a write that waits
            # is resumed by Python after a signal, for ever.
            if select.select([], [self._descriptor], [], 0.1)[1]:
                written = os.write(self._descriptor, waiting[: select.PIPE_BUF])
                waiting = waiting[written:]


def check_standard_output() -> None:
    """
    @raise CommandError: standard output is closed.
    """
    # What is descriptor 1 by now is something else, the reactor's for example.
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
    Notices at once, and not only at the next write, that nobody reads a pipe any more.

    To a reactor, the writing end of such a pipe is ready to be read.
    """

    def __init__(self, descriptor: int, gone: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._gone = gone

    @staticmethod
    def watches(descriptor: int) -> bool:
        """Whether a descriptor is of the kind that this works for."""
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
    """Make a remark of one line, for people."""
    if sys.stderr is not None:
        # It may be that nobody is there any more to be told.
        with suppress(OSError):
            os.write(2, f"metrics-tcp: {visible(text)}\n".encode())
