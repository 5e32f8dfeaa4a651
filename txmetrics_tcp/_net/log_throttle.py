"""
Says that clients are turned away, without letting them fill the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

INTERVAL = 10.0
"""How many seconds one line may stand for."""


@dataclass(slots=True)
class _More:
    """Those that came after one that was logged, for the same reason."""

    clients: int = 0
    last: str = ""


class RefusalLog:
    """
    One line for the first client that is turned away for a reason, at once; then, for as long as
    there are more, one line every `INTERVAL` seconds that says how many.
    """

    _log = Logger(namespace="txmetrics_tcp")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._more: dict[str, _More] = {}
        self._check: IDelayedCall | None = None

    def say(
        self, address: str, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """
        A client was turned away.

        @param reason: one of a few; completes "because …".
        @param detail: what is to be added to the line, if there is one.
        @param failure: what was raised; its traceback goes with the line, if there is one.
        """
        if self._check is None:
            self._check = self._clock.callLater(INTERVAL, self._say_how_many)
        more = self._more.get(reason)
        if more is None:
            self._more[reason] = _More()
            self._log.warn(
                "Client {address} was turned away because {reason}{detail}",
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
            self._check.cancel()
            self._say_how_many()
            self._more.clear()
            if self._check is not None:
                self._check.cancel()
                self._check = None

    def _say_how_many(self) -> None:
        self._check = None
        # Who comes next after a quiet time is logged at once again.
        self._more = {reason: more for reason, more in self._more.items() if more.clients}
        for reason, more in self._more.items():
            self._log.warn(
                "{clients} more {were} turned away because {reason}; the last was {address}",
                clients=more.clients,
                were="client was" if more.clients == 1 else "clients were",
                reason=reason,
                address=more.last,
            )
            more.clients = 0
        if self._more:
            self._check = self._clock.callLater(INTERVAL, self._say_how_many)
