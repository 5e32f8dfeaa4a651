"""
Limits to how long the other end of a connection is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

from twisted.internet.interfaces import IDelayedCall, IReactorTime


def is_pending(call: IDelayedCall | None) -> TypeGuard[IDelayedCall]:
    """
    Whether a call is still to come.

    It may have been called though it is still referred to: an exception, such as a
    KeyboardInterrupt, may come before the first line of what is called.
    """
    return call is not None and bool(call.active())


def cancel(call: IDelayedCall | None) -> None:
    """Cancel a call that is still to come."""
    if is_pending(call):
        call.cancel()


class Deadline:
    """
    A limit that holds the other end to what it has done, and not to what is known of that.

    When a program has kept its reactor busy, what is due comes first, and only then what has
    happened on connections meanwhile.  So once the time is over, the reactor looks at those once
    more.
    """

    def __init__(self, clock: IReactorTime, seconds: float, passed: Callable[[], object]) -> None:
        """
        @param passed: called when the time is over, unless it has been cancelled.
        """
        self._clock = clock
        self._passed = passed
        self._call = clock.callLater(seconds, self._look_once_more)

    def cancel(self) -> None:
        """Nothing happens when the time is over, if it is not."""
        cancel(self._call)

    def expire(self) -> None:
        """Let the time be over now, if it is not."""
        if is_pending(self._call):
            self._call.reset(0)

    def _look_once_more(self) -> None:
        self._call = self._clock.callLater(0, self._passed)
