"""
The running values of counters and gauges, which make every view true.

All of it is guarded by the lock of the `Incoming` that it belongs to.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable

from txmetrics_tcp._codec.encoder import SeriesFrame
from txmetrics_tcp._instruments.sink import Entry, Series, Sink
from txmetrics_tcp._model import APPLY, INITIAL_TOTAL, U64_MAX, Key, MetricKind, Number

MAX_FORGOTTEN = 50_000
"""
How many series that are no longer retained are known by their keys.  Beyond that, every new series
counts as one that clients may know.
"""


class StreamedSeries(Series):
    """
    A series whose events go to clients.

    @ivar frame: what is the same in all its frames.
    @ivar total: its running value, but for the wrapping of a counter; see `value`.  That of a
        histogram means nothing.
    @ivar epoch: the number of the last fold in which something happened to it; 0 for none.
    @ivar retained: whether it is in snapshots.
    """

    __slots__ = ("epoch", "frame", "retained", "total")

    def __init__(self, key: Key, sink: Sink) -> None:
        super().__init__(key, sink)
        self.frame = SeriesFrame(key)
        self.total: Number = INITIAL_TOTAL[key.kind]
        self.epoch = 0
        self.retained = False

    def value(self) -> Number:
        """The total as a view has it: counters wrap modulo 2**64."""
        total = self.total
        return total & U64_MAX if type(total) is int and total > U64_MAX else total


class Totals:
    """
    Which series are retained, so that their values are in snapshots.

    @ivar refused: how many series found no room.
    @ivar idle_after: after how many seconds without a change a series is no longer retained.
    """

    def __init__(self, max_series: int = sys.maxsize, idle_after: float | None = None):
        """
        @param max_series: how many series are retained at most.
        @param idle_after: after how many seconds without a change a series is no longer
            retained; None for never.
        """
        self._max_series = max_series
        self.idle_after = idle_after
        # Strongly: a value must outlive the handle that made it.
        self._retained: dict[StreamedSeries, None] = {}
        self.refused = 0
        # The hashes of the keys of series that connected clients may know and that are no longer
        # retained; None if they are too many.
        self._forgotten: set[int] | None = set()
        # (time, epoch): what had changed by when, so that no event needs a second clock.
        self._history: deque[tuple[float, int]] = deque()
        # The last fold that is older than `idle_after`.
        self._idle = 0

    def __len__(self) -> int:
        return len(self._retained)

    @property
    def room(self) -> int:
        """How many more series can be retained."""
        return self._max_series - len(self._retained)

    def admit(self, series: StreamedSeries) -> None:
        """Retain a series that something happens to, if it has a total and there is room."""
        if series.key.kind is MetricKind.HISTOGRAM:
            return
        if len(self._retained) < self._max_series:
            self._retained[series] = None
            series.retained = True
        elif series.epoch == 0:
            self.refused += 1

    def since(self, epoch: int) -> list[tuple[StreamedSeries, Number, int]]:
        """The retained series that changed in that fold or later; with total and epoch."""
        return [
            (series, series.value(), series.epoch)
            for series in self._retained
            if series.epoch >= epoch
        ]

    def forget_idle(self, now: float, epoch: int, needed: int | None = None) -> None:
        """
        Let go of the series that have not changed for long.

        @param now: in seconds, on a clock that does not jump.
        @param epoch: the number of the last fold.
        @param needed: the number of the first fold of which totals may still be asked for.
        """
        if self.idle_after is None:
            return
        history = self._history
        last, noted = history[-1] if history else (-math.inf, self._idle)
        # Often enough, and not once a second for a week.
        if epoch != noted and now - last >= self.idle_after / 1000:
            history.append((now, epoch))
        while history and history[0][0] <= now - self.idle_after:
            self._idle = history.popleft()[1]
        idle = self._idle if needed is None else min(self._idle, needed - 1)
        for series in [one for one in self._retained if one.epoch <= idle]:
            del self._retained[series]
            series.retained = False
            if self._forgotten is not None:
                self._forgotten.add(hash(series.key))
        if self._forgotten is not None and len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten = None

    def may_be_known(self, series: StreamedSeries) -> bool:
        """Whether a client that is connected may have another value of a series than its own."""
        if series.key.kind is MetricKind.HISTOGRAM:
            return False
        return self._forgotten is None or hash(series.key) in self._forgotten

    def first_client(self) -> None:
        """A client connects, and no other is connected: it knows no series that has expired."""
        self._forgotten = set()


def overlay(
    totals: dict[StreamedSeries, Number], entries: Iterable[Entry], room: int
) -> dict[StreamedSeries, Number]:
    """
    Apply entries that have not been folded yet to a copy of totals.

    @param room: how many series may be added.
    """
    for series, operation, value, _stamp in entries:
        if operation in APPLY:
            assert isinstance(series, StreamedSeries)
            if series not in totals:
                if room <= 0:
                    continue
                room -= 1
            totals[series] = APPLY[operation](totals.get(series, series.total), value)
    return totals
