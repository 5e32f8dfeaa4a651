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

    A stored call is not necessarily pending: if a KeyboardInterrupt is raised before the first line
    of the called function, that function cannot clear the reference to the call.
    """
    return call is not None and bool(call.active())


def cancel(call: IDelayedCall | None) -> None:
    """Cancel a delayed call if it is pending."""
    if is_pending(call):
        call.cancel()


class Deadline:
    """
    A timeout that takes into account all data that the peer sent in time.

    After the program has blocked its reactor, the reactor makes delayed calls before it reads from
    connections.  Therefore, when the time is over, the reactor iterates once more before the
    timeout takes effect.
    """

    def __init__(self, clock: IReactorTime, seconds: float, passed: Callable[[], object]) -> None:
        """
        @param passed: called when the time is over, unless the deadline was cancelled.
        """
        self._clock = clock
        self._passed = passed
        self._call = clock.callLater(seconds, self._iterate_once_more)

    def cancel(self) -> None:
        """Cancel the deadline if it is pending."""
        cancel(self._call)

    def expire(self) -> None:
        """End the time now, if the deadline is pending."""
        if is_pending(self._call):
            self._call.reset(0)

    def _iterate_once_more(self) -> None:
        self._call = self._clock.callLater(0, self._passed)
