"""
The history of a number over the last minute, second by second, for rates and charts.
"""

from __future__ import annotations

import math
from array import array

SECONDS = 64
"""The number of seconds kept: a minute, and a margin for late requests."""

RATE_WINDOW = 10
"""The number of seconds that a rate covers."""

MIN_WATCHED = 1.0
"""
The minimum number of seconds that a rate covers.  Otherwise a single event, one millisecond after
the start, would count as a thousand per second.
"""

_ZEROS = array("d", bytes(8 * SECONDS))
_UNKNOWN = array("d", [math.nan]) * SECONDS


def per_second(value: float, before: float, seconds: float) -> float:
    """
    Return the change per second of a value.  Finite values have a finite rate, unless the rate
    itself overflows.
    """
    change = value - before
    return value / seconds - before / seconds if math.isinf(change) else change / seconds


class Increases:
    """
    The increase of a growing total in each second.

    The caller reports the sum of a second when the next event occurs in a later second, not the
    increase of each event.
    """

    __slots__ = ("_ring", "second")

    def __init__(self, second: int) -> None:
        """
        @param second: the current second.
        """
        self.second = second
        # Indexed by the second modulo the length; entries after `second` are zero.
        self._ring = _ZEROS[:]

    def advance(self, second: int, risen: float) -> None:
        """
        Start another second.

        @param second: the new current second.  An earlier second than the last one clears the
            history.
        @param risen: the increase in the last current second, without amounts from `spread`.
        """
        ring = self._ring
        passed = second - self.second
        if passed >= SECONDS or passed < 0:
            ring[:] = _ZEROS
        else:
            ring[self.second % SECONDS] += risen
            for gone in range(self.second + 1, second + 1):
                ring[gone % SECONDS] = 0.0
        self.second = second

    def spread(self, amount: float, since: int) -> None:
        """
        Distribute an increase evenly over the seconds from C{since} to the current one.
        """
        since = min(self.second, max(since, self.second - SECONDS + 1))
        share = amount / (self.second - since + 1)
        for second in range(since, self.second + 1):
            self._ring[second % SECONDS] += share

    def between(self, first: int, end: int) -> list[float]:
        """
        Return the increase in each second.  For the current second, this is incomplete: it includes
        only amounts from `spread`.

        @param first: the first second.
        @param end: the second after the last one.
        """
        oldest = self.second - SECONDS
        return [
            self._ring[second % SECONDS] if oldest < second <= self.second else 0.0
            for second in range(first, end)
        ]


class Values:
    """The value at the end of each second; NaN for seconds before the first value."""

    __slots__ = ("_ring", "second")

    def __init__(self, second: int) -> None:
        """
        @param second: the current second.
        """
        self.second = second
        self._ring = _UNKNOWN[:]

    def advance(self, second: int, value: float) -> None:
        """
        Start another second.

        @param second: the new current second.  An earlier second than the last one clears the
            history.
        @param value: the value at the end of the last current second.
        """
        ring = self._ring
        passed = second - self.second
        if passed < 0:
            ring[:] = _UNKNOWN
        else:
            for gone in range(max(self.second, second - SECONDS), second):
                ring[gone % SECONDS] = value
        self.second = second

    def between(self, first: int, end: int, value: float) -> list[float]:
        """
        Return the value at the end of each second from C{first} up to, but excluding, C{end}.

        @param value: the current value, also used for the current and all later seconds.
        """
        oldest = self.second - SECONDS
        return [
            value
            if second >= self.second
            else self._ring[second % SECONDS]
            if second >= oldest
            else math.nan
            for second in range(first, end)
        ]
