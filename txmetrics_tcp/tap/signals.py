"""
What a daemon does at SIGHUP, which by itself would kill it in the middle of what it does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from txmetrics_tcp._net.tls import TLSError


class HangUpService(Service):
    """
    Reads certificates again at SIGHUP, or, where there are none, has the daemon stop as at
    SIGTERM.

    It is for the process's own main thread, where signals are heeded.
    """

    _log = Logger(namespace="txmetrics_tcp")

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
        # Signal handlers run in the middle of anything.
        self._reactor.callFromThread(self._act, number)

    def _act(self, number: int) -> None:
        if not self.running:
            return
        if self._reload is None:
            self._log.info("Received SIGHUP, which is as SIGTERM where there is no TLS")
            self._reactor.sigTerm(number)
            return
        try:
            self._reload()
        except TLSError as error:
            self._log.error("Going on with the certificates of before: {reason}", reason=str(error))
        else:
            self._log.info("Read key and certificates again")
