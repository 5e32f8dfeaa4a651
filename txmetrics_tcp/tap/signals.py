"""
Signal handling of the daemon: SIGHUP, which would kill the process by default, and repeated SIGTERM
or SIGINT.
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
    Reloads certificates at SIGHUP.  Without TLS, logs that there is nothing to reload.

    It must be started on the main thread, where signal handlers can be installed.
    """

    def __init__(self, reactor: Any, reload: Callable[[], None] | None) -> None:
        """
        @param reload: reloads the certificates, or raises `TLSError`; None without TLS.
        """
        self._reactor = reactor
        self._reload = reload

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._install()

    def startService(self) -> None:
        super().startService()
        # twist does not call privilegedStartService.
        self._install()

    def _install(self) -> None:
        # Without TLS, SIGHUP stays ignored, as with nohup, or handled by the program that made the
        # service.
        if self._reload is not None or signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            # The handler remains installed after the service has stopped, and then does nothing.
            signal.signal(signal.SIGHUP, self._received_sighup)

    def _received_sighup(self, number: int, frame: FrameType | None) -> None:
        # Deferred to the reactor thread, since a signal handler may interrupt any code.
        self._reactor.callFromThread(self._hung_up)

    def _hung_up(self) -> None:
        if not self.running:
            return
        if self._reload is None:
            _log.info("Received SIGHUP: nothing to reload, since TLS is not configured")
            return
        try:
            self._reload()
        except TLSError as error:
            _log.error(
                "Cannot reload key and certificates; keeping the previous ones: {reason}",
                reason=str(error),
            )
        else:
            _log.info("Reloaded key and certificates")


class StopSignals(Service):
    """
    Passes the first SIGTERM or SIGINT to Twisted, which stops the reactor.  After a further signal,
    the daemon no longer waits for clients.  Without this service, Twisted would log an error for a
    further signal, and the daemon would keep waiting.

    All of these signals are handled on the reactor thread, when the reactor iterates; see
    `stop_handler`.
    """

    def __init__(self, reactor: Any, stop_now: Callable[[], object]) -> None:
        """
        @param stop_now: called on the reactor thread for each further signal.
        """
        self._reactor = reactor
        self._stop_now = stop_now
        # Whether a first signal has been received, and whether a further one has been handled.
        self._signaled = False
        self._signaled_again = False

    def startService(self) -> None:
        super().startService()
        # Twisted installs its handlers when the reactor begins to run.
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> Any:
        if self._signaled_again:
            # When the further signal was handled, `_stop_now` had no effect, because no service was
            # stopping.  In the next reactor iteration, all services are stopping.
            self._reactor.callFromThread(self._stop_now)
        return super().stopService()

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # If Twisted has installed no handler, this service installs none either: for example,
            # with `run(installSignalHandlers=False)`, or if a shell ignores SIGINT in a background
            # job.
            if (first := stop_handler(self._reactor, number)) is not None:
                signal.signal(number, self._handler(first))

    def _handler(self, first: SignalHandler) -> SignalHandler:
        def handle(number: int, frame: FrameType | None) -> None:
            # If the service is not running, the daemon is already stopping for another reason.
            if self.running and not self._signaled:
                self._signaled = True
                self._reactor.callFromThread(first, number, None)
            else:
                self._reactor.callFromThread(self._again, number)

        return handle

    def _again(self, number: int) -> None:
        _log.info(
            "Received {signal} while stopping: no longer waiting for clients",
            signal=signal.Signals(number).name,
        )
        self._signaled_again = True
        self._stop_now()
