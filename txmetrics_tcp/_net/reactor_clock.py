"""
Timers that a clock cannot hold up.

Most of Twisted's reactors measure time with the time of day: when that is set back by an hour, all
that is due in a moment is due in an hour and a moment.  Nothing can be done about it in somebody
else's program, but a process of our own measures with a clock that nobody sets.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python.runtime import seconds as time_of_day


def measure_steadily(reactor: Any) -> None:
    """
    Have a reactor measure time with a clock that only goes forward, and evenly.

    Nothing happens to a reactor that does already, as that of asyncio.  To be called before
    it runs, in a process that nobody else's code runs in.
    """
    if getattr(reactor, "seconds", None) is not time_of_day:
        return
    waiting = [(call, call.getTime() - time_of_day()) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, left in waiting:
        call.seconds = time.monotonic
        call.reset(max(0.0, left))
