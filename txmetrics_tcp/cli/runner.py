"""
Run a command on the reactor and return its exit code.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from txmetrics_tcp._net.internals import wake_on_signals


class Running:
    """
    Run the reactor until `stop` is called or a signal is received.

    The first SIGINT (Ctrl-C) or SIGTERM stops the command cleanly.  A second signal of the same
    kind kills the process.
    """

    def __init__(
        self,
        reactor: Any,
        finish: Callable[[], object],
        interrupted: Callable[[], object] = lambda: None,
        interrupted_code: Callable[[int], int] = lambda number: 128 + number,
    ) -> None:
        """
        @param finish: called once at the end, with the reactor still running.  It may return a
            Deferred.
        @param interrupted: called by the signal handler, even while other code runs.
        @param interrupted_code: returns the exit code for the number of a signal.
        """
        self._reactor = reactor
        self._finish = finish
        self._interrupted = interrupted
        self._interrupted_code = interrupted_code
        self._exit_code: int | None = None
        # The exit code for a signal, which precedes that of an end by other reasons.
        self._signal_code: int | None = None
        self._failure: Failure | None = None

    def run(self, start: Callable[[], object]) -> int:
        """
        Run until the command ends.

        @param start: called first, with the reactor running.  An exception ends the run and is
            raised again.
        @return: the exit code.
        """
        # Twisted's handlers would take effect only when the reactor iterates.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        wake_on_signals(self._reactor)
        self._reactor.callWhenRunning(lambda: maybeDeferred(start).addErrback(self._failed))
        self._reactor.run(installSignalHandlers=False)
        if self._failure is not None:
            self._failure.raiseException()
        return self._exit_code or 0

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._exit_code is not None

    def stop(self, exit_code: int) -> None:
        """End the run with an exit code.  Later calls have no effect."""
        if self._exit_code is None:
            self._exit_code = exit_code if self._signal_code is None else self._signal_code
            # Called later, since the caller may be inside a connection attempt.
            self._reactor.callLater(0, self._end)

    def _end(self) -> None:
        finished = maybeDeferred(self._finish).addErrback(self._failed)
        finished.addBoth(lambda result: self._reactor.stop())

    def _failed(self, reason: Failure) -> None:
        self._failure = self._failure or reason
        self.stop(1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._signal_code = self._interrupted_code(number)
        self._interrupted()
        self._reactor.callFromThread(self.stop, self._signal_code)
