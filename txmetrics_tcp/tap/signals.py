"""
What the daemon does at signals: at SIGHUP, which by default would kill it, and at a second
SIGTERM or SIGINT.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from txmetrics_tcp._net.internals import SignalHandler, stop_handler
from txmetrics_tcp._net.tls_errors import TLSError

_log = Logger(namespace="txmetrics_tcp")


class HangUpService(Service):
    """
    Reads certificates again at SIGHUP, or, where there are none, has the daemon stop as at
    SIGTERM.

    It is for the process's own main thread, where signals are heeded.
    """

    def __init__(self, reactor: Any, reload: Callable[[], None] | None) -> None:
        """
        @param reload: reads them, or raises `TLSError`; None where there are none.
        """
        self._reactor = reactor
        self._reload = reload

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._install()

    def startService(self) -> None:
        super().startService()
        # twist calls this one alone.
        self._install()

    def _install(self) -> None:
        # With nohup it is ignored, so that the end of a terminal is not the daemon's.
        if self._reload is not None or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # It stays when the service stops, and does nothing then: that is under way already.
            signal.signal(signal.SIGHUP, self._hung_up)

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        # A signal handler may interrupt anything.
        self._reactor.callFromThread(self._act)

    def _act(self) -> None:
        if not self.running:
            return
        if self._reload is None:
            _log.info("Received SIGHUP, which is as SIGTERM where there is no TLS")
            signal.raise_signal(signal.SIGTERM)
            return
        try:
            self._reload()
        except TLSError as error:
            _log.error("Going on with the certificates of before: {reason}", reason=str(error))
        else:
            _log.info("Read key and certificates again")


class StopSignals(Service):
    """
    Lets the first signal to stop be what it is to Twisted, and takes every further one for
    impatience.  Twisted itself would log an error for it, and go on waiting.

    Both are handled on the reactor thread, when the reactor iterates; see `stop_handler`.
    """

    def __init__(self, reactor: Any, stop_now: Callable[[], object]) -> None:
        """
        @param stop_now: called on the reactor thread when the process is told to stop again.
        """
        self._reactor = reactor
        self._stop_now = stop_now
        self._told = False
        self._hurried = False

    def startService(self) -> None:
        super().startService()
        # Twisted installs its handlers when the reactor begins to run.
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> Any:
        if self._hurried:
            # The further signal interrupted the handling of the first, and was heeded before
            # anything had begun to stop.  By then all will have.
            self._reactor.callFromThread(self._stop_now)
        return super().stopService()

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Where Twisted has none (`run(installSignalHandlers=False)`, say, or a SIGINT that
            # is ignored, in the background of a shell), none is wanted.
            if (first := stop_handler(self._reactor, number)) is not None:
                signal.signal(number, self._handler(first))

    def _handler(self, first: SignalHandler) -> SignalHandler:
        def handle(number: int, frame: FrameType | None) -> None:
            # It may have begun to stop for another reason.
            if self.running and not self._told:
                self._told = True
                self._reactor.callFromThread(first, number, None)
            else:
                self._reactor.callFromThread(self._again, number)

        return handle

    def _again(self, number: int) -> None:
        _log.info(
            "Received {signal} as well: not waiting for viewers any longer",
            signal=signal.Signals(number).name,
        )
        self._hurried = True
        self._stop_now()
