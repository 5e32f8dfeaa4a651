"""
Limits of what a source may send.
"""

from __future__ import annotations

from dataclasses import dataclass

from txmetrics_tcp._checks import at_least
from txmetrics_tcp.relay._merge import MAX_SERIES

OVERLOAD = 10.0
"""
The number of seconds over which a source may exceed a limit before it is disconnected.  Until then,
the collector reads from it at the rate of the limit, and the source drops and counts what it cannot
send.
"""


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """
    What a collector accepts from each source.  Immutable.

    A source that exceeds a rate is read at that rate: it drops the other events, and the totals are
    right again once it has sent them.  After ten seconds without a pause, it is disconnected.

    @ivar series: the maximum number of series; 0 or more.  Further series are ignored and counted.
    @ivar events: the maximum number of events a second; 1 or more, or None for no limit.
    @ivar bytes: the maximum number of bytes a second; 1 or more, or None for no limit.
    @raise TypeError: a limit is not a whole number.
    @raise ValueError: a limit is out of range.
    """

    series: int = MAX_SERIES
    events: int | None = 50_000
    bytes: int | None = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        at_least(0, "series", self.series)
        for name, value in (("events", self.events), ("bytes", self.bytes)):
            if value is not None:
                at_least(1, name, value)


class Rate:
    """A rate, up to which one second may be saved."""

    __slots__ = ("_last", "_left", "_limit")

    def __init__(self, limit: int, now: float) -> None:
        """
        @param limit: the amount in a second.
        @param now: the current time, in seconds.
        """
        self._limit = limit
        self._left: float = limit
        self._last = now

    def charge(self, amount: int, now: float) -> tuple[float, bool]:
        """
        Count an amount.

        @return: the number of seconds until the next amount may be taken, and whether less than
            half of the limit was used before.
        """
        left = min(self._limit, self._left + (now - self._last) * self._limit)
        self._last = now
        self._left = left - amount
        return max(0.0, -self._left / self._limit), left * 2 >= self._limit


class Meter:
    """The rates of one connection."""

    def __init__(self, limits: SourceLimits, now: float) -> None:
        self._rates = {
            reason: Rate(limit, now)
            for reason, limit in (("events", limits.events), ("bytes", limits.bytes))
            if limit is not None
        }
        self._exceeded: float | None = None

    def charge(self, events: int, size: int, now: float) -> tuple[float, str]:
        """
        Count what was read.

        @return: the number of seconds to wait before the next read, and, if the source is to be
            disconnected, the limit that it exceeds: C{"events"} or C{"bytes"}.
        """
        wait, exceeded, calm = 0.0, "", True
        for reason, rate in self._rates.items():
            needed, was_calm = rate.charge(events if reason == "events" else size, now)
            calm = calm and was_calm
            if needed > wait:
                wait, exceeded = needed, reason
        if calm:
            self._exceeded = None
        if not wait:
            return 0.0, ""
        if self._exceeded is None:
            self._exceeded = now
        return wait, exceeded if now - self._exceeded >= OVERLOAD else ""
