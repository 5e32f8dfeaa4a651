"""
Rate-limited logging of rejected clients and lost events.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._net.deadline import cancel, is_pending
from txmetrics_tcp._net.failures import without_frames

_log = Logger(namespace="txmetrics_tcp")

INTERVAL = 10.0
"""Seconds between two log lines about clients rejected for the same reason."""

QUIET = 5.0
"""Seconds without a loss after which a series of losses is considered over."""


@dataclass(slots=True)
class _Repeats:
    """
    Rejections that have not been logged yet, for one reason.

    @ivar clients: their number.
    @ivar last: the address of the last rejected client.
    """

    clients: int = 0
    last: str = ""


class RejectionLog:
    """
    Logs rejected clients.

    The first rejection for a reason is logged immediately.  Further rejections for the same reason
    are counted, and logged as one line every `INTERVAL` seconds.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._repeats: dict[str, _Repeats] = {}
        self._check: IDelayedCall | None = None

    def report(
        self, address: str, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """
        Log or count a rejected client.

        @param reason: completes "Rejected client X: …" and "Rejected 5 more clients: …".  Reasons
            are kept in memory, so they must form a small set.
        @param detail: appended to the reason if the client is logged in a separate line.
        @param failure: its traceback is logged if the client is logged in a separate line.
        """
        if not is_pending(self._check):
            self._check = self._clock.callLater(INTERVAL, self._interval_passed)
        repeats = self._repeats.get(reason)
        if repeats is None:
            self._repeats[reason] = _Repeats()
            _log.warn(
                "Rejected client {address}: {reason}{detail}",
                address=address,
                reason=reason,
                detail=detail,
                **({} if failure is None else {"log_failure": without_frames(failure)}),
            )
        else:
            repeats.clients += 1
            repeats.last = address

    def close(self) -> None:
        """Log the rejections counted so far, and stop the timer."""
        if self._check is not None:
            cancel(self._check)
            self._check = None
            self._log_repeats()
            self._repeats.clear()

    def _interval_passed(self) -> None:
        self._log_repeats()
        if self._repeats:
            self._check = self._clock.callLater(INTERVAL, self._interval_passed)
        else:
            self._check = None

    def _log_repeats(self) -> None:
        # After an interval without a rejection, the next one is logged immediately again.
        self._repeats = {reason: one for reason, one in self._repeats.items() if one.clients}
        for reason, repeats in self._repeats.items():
            _log.warn(
                "Rejected {clients} more {noun}: {reason}; the last was {address}",
                clients=repeats.clients,
                noun="client" if repeats.clients == 1 else "clients",
                reason=reason,
                address=repeats.last,
            )
            repeats.clients = 0


class LossReport:
    """
    Logs a series of losses as two lines: one when the losses begin, and one when they end.

    A slow client repeatedly catches up and falls behind again.  Therefore, losses are considered
    over only after `QUIET` seconds without a loss.
    """

    def __init__(self, clock: IReactorTime, where: str) -> None:
        """
        @param where: completes "Events are being dropped …": the place or the cause.
        """
        self._clock = clock
        self._where = where
        self._lost = 0
        self._began = 0.0
        self._last = 0.0
        self._check: IDelayedCall | None = None

    def lost(self, events: int) -> None:
        """Count lost events."""
        self._last = self._clock.seconds()
        if not is_pending(self._check):
            self._began = self._last
            self._lost = 0
            self._check = self._clock.callLater(QUIET, self._end_if_quiet)
            _log.warn("Events are being dropped {where}", where=self._where)
        self._lost += events

    def close(self) -> None:
        """Log the end of the losses if their beginning was logged, and stop the timer."""
        if self._check is not None:
            cancel(self._check)
            self._end()

    def _end_if_quiet(self) -> None:
        self._check = None
        quiet = self._clock.seconds() - self._last
        if quiet < QUIET:
            self._check = self._clock.callLater(QUIET - quiet, self._end_if_quiet)
        else:
            self._end()

    def _end(self) -> None:
        self._check = None
        _log.warn(
            "Events were dropped {where}: {lost} events within {seconds:.1f} seconds",
            where=self._where,
            lost=self._lost,
            seconds=self._last - self._began,
        )
