"""
Log lines that stand for many: of clients that are rejected, and of losses that come in bursts.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._net.deadline import cancel, is_pending

_log = Logger(namespace="txmetrics_tcp")

INTERVAL = 10.0
"""How many seconds one line about rejected clients may stand for."""

QUIET = 5.0
"""After how many seconds without a loss losses are over."""


@dataclass(slots=True)
class _More:
    """Those that came after one that was logged, for the same reason."""

    clients: int = 0
    last: str = ""


class RejectionLog:
    """
    One line for the first client that is rejected for a reason, at once; then, for as long as
    there are more, one line every `INTERVAL` seconds that says how many.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._more: dict[str, _More] = {}
        self._check: IDelayedCall | None = None

    def say(
        self, address: str, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """
        A client is rejected.

        @param reason: one of a few; completes "Rejected client …: ".
        @param detail: what is to be added to the line, if there is one.
        @param failure: what was raised; its traceback goes with the line, if there is one.
        """
        if not is_pending(self._check):
            self._check = self._clock.callLater(INTERVAL, self._passed)
        more = self._more.get(reason)
        if more is None:
            self._more[reason] = _More()
            _log.warn(
                "Rejected client {address}: {reason}{detail}",
                address=address,
                reason=reason,
                detail=detail,
                **({} if failure is None else {"log_failure": failure}),
            )
        else:
            more.clients += 1
            more.last = address

    def close(self) -> None:
        """Nobody comes any more: say what has not been said."""
        if self._check is not None:
            cancel(self._check)
            self._check = None
            self._say_how_many()
            self._more.clear()

    def _passed(self) -> None:
        self._say_how_many()
        self._check = self._clock.callLater(INTERVAL, self._passed) if self._more else None

    def _say_how_many(self) -> None:
        # Who comes next after a quiet time is logged at once again.
        self._more = {reason: more for reason, more in self._more.items() if more.clients}
        for reason, more in self._more.items():
            _log.warn(
                "Rejected {clients} more {noun}: {reason}; the last was {address}",
                clients=more.clients,
                noun="client" if more.clients == 1 else "clients",
                reason=reason,
                address=more.last,
            )
            more.clients = 0


class LossReport:
    """
    Turns a stream of losses into two log lines: one when they begin, one when they end.

    Losses come in bursts, since whoever is too slow catches up and falls behind again; so
    they count as over only after `QUIET` seconds without one.
    """

    def __init__(self, clock: IReactorTime, where: str) -> None:
        """
        @param where: completes "events are being lost …".
        """
        self._clock = clock
        self._where = where
        self._lost = 0
        self._began = 0.0
        self._last = 0.0
        self._check: IDelayedCall | None = None

    def lost(self, events: int) -> None:
        """Some more are lost."""
        self._last = self._clock.seconds()
        if not is_pending(self._check):
            self._began = self._last
            self._lost = 0
            self._check = self._clock.callLater(QUIET, self._is_it_over)
            _log.warn("Events are being lost {where}", where=self._where)
        self._lost += events

    def close(self) -> None:
        """Nobody is there any more to lose anything: say how it ended, if it had begun."""
        if self._check is not None:
            cancel(self._check)
            self._end()

    def _is_it_over(self) -> None:
        self._check = None
        quiet = self._clock.seconds() - self._last
        if quiet < QUIET:
            self._check = self._clock.callLater(QUIET - quiet, self._is_it_over)
        else:
            self._end()

    def _end(self) -> None:
        self._check = None
        _log.warn(
            "No more events are lost {where}: {lost} were, within {seconds:.1f} seconds",
            where=self._where,
            lost=self._lost,
            seconds=self._last - self._began,
        )
