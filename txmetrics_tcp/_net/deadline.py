"""
Timeouts for the peer of a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

from twisted.internet.interfaces import IDelayedCall, IReactorTime


def is_pending(call: IDelayedCall | None) -> TypeGuard[IDelayedCall]:
    """
    Whether a delayed call is pending.

    A stored call is not necessarily pending.  If a KeyboardInterrupt is raised before the first
    line of the called function, the function cannot clear the stored reference.
    """
    return call is not None and bool(call.active())


def cancel(call: IDelayedCall | None) -> None:
    """Cancel a delayed call if it is pending."""
    if is_pending(call):
        call.cancel()


class Deadline:
    """
    A timeout that takes effect only after the reactor has read all data that arrived in time.

    If the program blocks the reactor, the reactor then runs delayed calls before it reads from
    connections.  Therefore this class waits for one more reactor iteration when the time is over.
    """

    def __init__(self, clock: IReactorTime, seconds: float, passed: Callable[[], object]) -> None:
        """
        @param passed: called after the timeout, unless the deadline is cancelled.
        """
        self._clock = clock
        self._passed = passed
        self._call = clock.callLater(seconds, self._iterate_once_more)

    def cancel(self) -> None:
        """Cancel the deadline if it is pending."""
        cancel(self._call)

    def expire(self) -> None:
        """If the deadline is pending, reduce its remaining time to zero."""
        if is_pending(self._call):
            self._call.reset(0)

    def _iterate_once_more(self) -> None:
        self._call = self._clock.callLater(0, self._passed)
