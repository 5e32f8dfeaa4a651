"""
What a number did in the last minute, second by second: the base of rates and of small charts.
"""

from __future__ import annotations

import math
from array import array

SECONDS = 64
"""How many seconds are remembered: a minute, and some for what is asked late."""

RATE_WINDOW = 10
"""Over how many seconds a rate is taken."""

MIN_WATCHED = 1.0
"""
The least number of seconds that a rate is taken over.  A single event, seen a millisecond after
watching began, is not a thousand a second.
"""

_ZEROS = array("d", bytes(8 * SECONDS))
_UNKNOWN = array("d", [math.nan]) * SECONDS


class Increases:
    """
    By how much a total that only grows has grown in each second.

    It is told when a second ends that had events, not of each event.
    """

    __slots__ = ("_ring", "second")

    def __init__(self, second: int) -> None:
        """
        @param second: the second that is going on.
        """
        self.second = second
        # By the second modulo its length; those behind `second` are zero.
        self._ring = _ZEROS[:]

    def turn(self, second: int, risen: float) -> None:
        """
        Another second begins.

        @param second: which one.  An earlier one than the last forgets all.
        @param risen: the increase in the one that was going on.
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
        Add an increase that happened at some time from the second C{since} up to this one, evenly.
        """
        since = min(self.second, max(since, self.second - SECONDS + 1))
        share = amount / (self.second - since + 1)
        for second in range(since, self.second + 1):
            self._ring[second % SECONDS] += share

    def between(self, first: int, behind: int) -> list[float]:
        """
        The increases of seconds that have passed, and what was spread on the one that goes on.

        @param first: the first second.
        @param behind: the second behind the last.
        """
        oldest = self.second - SECONDS
        return [
            self._ring[second % SECONDS] if oldest < second <= self.second else 0.0
            for second in range(first, behind)
        ]


class Values:
    """What a value was at the end of each second; NaN for when it was not known yet."""

    __slots__ = ("_ring", "second")

    def __init__(self, second: int) -> None:
        """
        @param second: the second that is going on.
        """
        self.second = second
        self._ring = _UNKNOWN[:]

    def turn(self, second: int, value: float) -> None:
        """
        Another second begins.

        @param second: which one.  An earlier one than the last forgets all.
        @param value: the value until now.
        """
        ring = self._ring
        passed = second - self.second
        if passed < 0:
            ring[:] = _UNKNOWN
        else:
            for gone in range(max(self.second, second - SECONDS), second):
                ring[gone % SECONDS] = value
        self.second = second

    def between(self, first: int, behind: int, value: float) -> list[float]:
        """
        The values of seconds.

        @param value: the value now, which is that of all seconds from this one on.
        """
        oldest = self.second - SECONDS
        return [
            value
            if second >= self.second
            else self._ring[second % SECONDS]
            if second >= oldest
            else math.nan
            for second in range(first, behind)
        ]
