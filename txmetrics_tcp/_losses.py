"""
Says once that events are being lost, and once that it is over.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

QUIET = 5.0
"""After how many seconds without a loss it is over."""


class LossReport:
    """
    Turns a stream of losses into two log lines: one when they begin, one when they end.

    Losses come in bursts, since whoever is too slow catches up and falls behind again; so
    they count as over only after `QUIET` seconds without one.
    """

    _log = Logger(namespace="txmetrics_tcp")

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
        if self._check is None:
            self._began = self._last
            self._lost = 0
            self._check = self._clock.callLater(QUIET, self._is_it_over)
            self._log.warn("Events are being lost {where}", where=self._where)
        self._lost += events

    def close(self) -> None:
        """Nobody is there any more to lose anything: say how it ended, if it had begun."""
        if self._check is not None:
            self._check.cancel()
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
        self._log.warn(
            "No more events are lost {where}: {lost} were, within {seconds:.1f} seconds",
            where=self._where,
            lost=self._lost,
            seconds=self._last - self._began,
        )
