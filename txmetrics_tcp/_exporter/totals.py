"""
The totals of all series, which are sent to new clients and in resyncs.

The lock of the owning `Incoming` guards all changes here.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict, deque
from collections.abc import Generator
from itertools import islice
from typing import Any, NamedTuple

from txmetrics_tcp._codec.encoder import GONE, SeriesFrame
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._instruments.sink import Entry, Series, Sink
from txmetrics_tcp._model import (
    APPLY,
    INITIAL_TOTAL,
    U64_MAX,
    Key,
    MetricKind,
    Number,
    Operation,
    Total,
)

OWN_PREFIX = "txmetrics_"
"""
The prefix of the exporter's own metrics.  Their series are never idle: a viewer would lose the
number of clients, for example, and releasing a series is an event, after which own metrics are
published again, so that an idle program would stream indefinitely.
"""

MAX_RELEASED = 50_000
"""
The maximum number of released series whose keys are remembered.  Beyond that, connected clients are
assumed to know a total of every series.
"""

MERGE_HISTOGRAM: Any = object()
"""
In an `Entry`, in place of an operation: adds the samples of a `Distribution` to a histogram.
"""

STEP = 2000
"""The number of totals, or of events in the log, that are copied or applied in one step."""

STEP_OF_SAMPLES = 100
"""The number of histograms whose samples are added in one step."""


class StreamedSeries(Series):
    """
    A series whose events are streamed to clients.

    @ivar frame: the encoded part that all frames of the series share.
    @ivar total: the current total; of a counter, before wrapping (see `wrapped`).
    @ivar samples: only of a histogram: the samples that are not in the total yet.
    @ivar epoch: the last epoch that changed the series; 0 for none.
    @ivar retained: whether the series is in snapshots.
    """

    __slots__ = ("epoch", "frame", "retained", "samples", "total")

    def __init__(self, key: Key, sink: Sink) -> None:
        super().__init__(key, sink)
        self.frame: SeriesFrame = SeriesFrame(key)
        self.retained: bool = False
        self.reset()

    def reset(self) -> None:
        """Begin again without events."""
        kind = self.key.kind
        # Any, because the kind determines the type.
        self.total: Any = _initial_total(kind)
        self.epoch: int = 0
        if kind is MetricKind.HISTOGRAM:
            self.samples: list[float] = []

    def add_samples(self) -> None:
        """Add the samples to the total."""
        # On one line, so that an interrupt cannot separate the two assignments.
        self.total, self.samples = self.total.with_samples(self.samples), []


def _initial_total(kind: MetricKind) -> Total:
    return Distribution.EMPTY if kind is MetricKind.HISTOGRAM else INITIAL_TOTAL[kind]


def wrapped(total: Number) -> Number:
    """Return a total as clients compute it: counters wrap modulo 2**64."""
    return total & U64_MAX if type(total) is int and total > U64_MAX else total


class Totals:
    """
    The retained series, whose totals are in snapshots.

    @ivar refused: the number of series not retained because the maximum was reached.
    @ivar gone_epoch: the last epoch in which a series was released; 0 for none.
    """

    def __init__(self, max_series: int = sys.maxsize, idle_after: float | None = None):
        """
        @param max_series: the maximum number of retained series.
        @param idle_after: the seconds without a change after which a series is released; None for
            never.
        """
        self._max_series = max_series
        self._idle_after = idle_after
        # Strong references: a total must outlive the handles of its series.
        self._retained: dict[StreamedSeries, None] = {}
        self.refused: int = 0
        self.gone_epoch: int = 0
        # The hashes of the keys of released series that connected clients may know; None if they
        # exceed `MAX_RELEASED`.
        self._released: set[int] | None = set()
        # (monotonic time, last epoch at that time), so that series need no monotonic timestamps.
        self._history: deque[tuple[float, int]] = deque()
        # The last epoch that is older than `idle_after`.
        self._idle = 0

    def __len__(self) -> int:
        return len(self._retained)

    @property
    def room(self) -> int:
        """The number of series that can still be retained."""
        return self._max_series - len(self._retained)

    def admit(self, series: StreamedSeries, first: bool) -> None:
        """
        Retain a series that has just changed, if the maximum allows it.

        @param first: whether this is its first change.
        """
        if len(self._retained) < self._max_series:
            self._retained[series] = None
            series.retained = True
        elif first:
            self.refused += 1

    def since(self, epoch: int) -> list[StreamedSeries]:
        """Return the retained series that changed in or after an epoch."""
        return [series for series in self._retained if series.epoch >= epoch]

    def idle(self, now: float, epoch: int) -> list[StreamedSeries]:
        """
        Return the series that have not changed for C{idle_after} seconds, except own metrics.

        @param now: seconds, on a monotonic clock.
        @param epoch: the last epoch.
        """
        if self._idle_after is None:
            return []
        history = self._history
        last, noted = history[-1] if history else (-math.inf, self._idle)
        # Limits the history to about a thousand entries.
        if epoch != noted and now - last >= self._idle_after / 1000:
            history.append((now, epoch))
        while history and history[0][0] <= now - self._idle_after:
            self._idle = history.popleft()[1]
        return [
            series
            for series in self._retained
            if series.epoch <= self._idle and not series.key.name.startswith(OWN_PREFIX)
        ]

    def release(self, series: StreamedSeries, epoch: int) -> None:
        """
        Stop retaining a series, in an epoch.

        Clients may know a series that is not retained, too.
        """
        # Before the series leaves, so that an interrupt between two lines does no harm.
        self.gone_epoch = epoch
        if self._released is not None:
            self._released.add(hash(series.key))
            if len(self._released) > MAX_RELEASED:
                self._released = None
        series.retained = False
        self._retained.pop(series, None)

    def may_be_known(self, series: StreamedSeries) -> bool:
        """
        Return whether connected clients may have received an earlier total of this series' key.
        """
        return self._released is None or hash(series.key) in self._released

    def forget_released(self) -> None:
        """Forget the released series: a first client knows none of them."""
        self._released = set()


class CopiedTotals(NamedTuple):
    """
    A copy of the totals and of the log at one moment.

    @ivar retained: the totals of the retained series.
    @ivar others: the totals of other series in the log.
    @ivar samples: the samples that are not in the totals yet.
    @ivar entries: the log.
    @ivar room: the number of series that can still be retained.
    """

    retained: dict[StreamedSeries, Any]
    others: dict[StreamedSeries, Any]
    samples: dict[StreamedSeries, list[float]]
    entries: deque[Entry]
    room: int

    def applied(self) -> Generator[None, None, dict[Key, Total]]:
        """
        Return the totals of the retained series, once the log has been applied.  The generator
        yields after each step of about a millisecond.
        """
        retained, others, pending, entries, room = self
        samples = defaultdict(list, pending)
        for number, (series, operation, value, _stamp) in enumerate(entries, 1):
            if not number % STEP:
                yield
            if operation is GONE:
                if retained.pop(series, None) is not None:
                    room += 1
                samples.pop(series, None)
                others[series] = _initial_total(series.key.kind)
                continue
            if room > 0 and series not in retained:
                room -= 1
                retained[series] = others[series]
            totals = retained if series in retained else others
            if operation is Operation.RECORD_HISTOGRAM:
                samples[series].append(value)
            elif operation in APPLY:
                totals[series] = APPLY[operation](totals[series], value)
            elif operation is MERGE_HISTOGRAM:
                totals[series] = Distribution.merge((totals[series], value))
            else:
                totals[series] = totals[series].with_repeated(*value)
        for number, (series, added) in enumerate(samples.items(), 1):
            if series in retained:
                retained[series] = retained[series].with_samples(added)
            if not number % STEP_OF_SAMPLES:
                yield
        found: dict[Key, Total] = {}
        items = iter(retained.items())
        while some := list(islice(items, STEP)):
            for series, total in some:
                found[series.key] = wrapped(total)
            yield
        return found
