"""
One run of a command on a reactor, up to its exit code.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure


class Running:
    """
    Runs the reactor until something says that it is over, or a signal comes.

    SIGINT (Ctrl-C) and SIGTERM end it in an orderly way; a second one of the same kind ends it at
    once, for who does not want to wait.
    """

    def __init__(
        self,
        reactor: Any,
        finish: Callable[[], object],
        interrupted: Callable[[], object] = lambda: None,
        interrupted_code: Callable[[int], int] = lambda number: 128 + number,
    ) -> None:
        """
        @param finish: called once when it is over, with the reactor still running.  It may return
            a Deferred.
        @param interrupted: called by the signal handler, in the middle of whatever runs.
        @param interrupted_code: the exit code, for the number of a signal.
        """
        self._reactor = reactor
        self._finish = finish
        self._interrupted = interrupted
        self._interrupted_code = interrupted_code
        self._exit_code: int | None = None
        self._failure: Failure | None = None

    def run(self, start: Callable[[], object]) -> int:
        """
        @param start: called first, with the reactor running.  What it raises ends the run.
        @return: the exit code.
        """
        # Twisted's own handlers would only be heeded when the reactor has its turn.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        self._reactor.callWhenRunning(lambda: maybeDeferred(start).addErrback(self._failed))
        self._reactor.run(installSignalHandlers=False)
        if self._failure is not None:
            self._failure.raiseException()
        return self._exit_code or 0

    @property
    def stopping(self) -> bool:
        """Whether it is over."""
        return self._exit_code is not None

    def stop(self, exit_code: int) -> None:
        """It is over.  Only the first call matters."""
        if self._exit_code is None:
            self._exit_code = exit_code
            # Not from within what calls this: it may be in the middle of connecting.
            self._reactor.callLater(0, self._end)

    def _end(self) -> None:
        finished = maybeDeferred(self._finish).addErrback(self._failed)
        finished.addBoth(lambda result: self._reactor.stop())

    def _failed(self, reason: Failure) -> None:
        self._failure = self._failure or reason
        self.stop(1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._interrupted()
        self._reactor.callFromThread(self.stop, self._interrupted_code(number))
