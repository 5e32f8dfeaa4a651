"""
Summarize what a server sends to bring a client up to date: descriptions and totals.
"""

from __future__ import annotations

from txmetrics_tcp._model import (
    SET_OPERATION,
    HistogramTotal,
    Metadata,
    Metric,
    Snapshot,
    Status,
)
from txmetrics_tcp._view.lines import Lines, Printable
from txmetrics_tcp._view.text import counted

_SETS = frozenset(SET_OPERATION.values())


class Summary:
    """
    Format the events of one connection as lines.  Counts, instead of a line for each event, stand
    for the descriptions before the first event, and for snapshots.

    A snapshot may lack its end: an event that cannot be part of a snapshot ends it as well.

    @ivar counting: whether descriptions are counted, and metric events may have to be.  Otherwise,
        the caller can format metric events itself.
    """

    counting: bool = True

    def __init__(self, format: Lines) -> None:
        """
        @param format: formats single events.
        """
        self._format = format
        self._in_snapshot = False
        self._descriptions = 0
        self._totals = 0

    def __call__(self, events: list[Printable]) -> list[str]:
        """
        @param events: an event, preceded by the description that it is the first to need, if any.
        @return: the lines to print now.
        """
        last = events[-1]
        if isinstance(last, Metric):
            counts = self._in_snapshot and last.operation in _SETS
        elif isinstance(last, HistogramTotal):
            counts = self._in_snapshot
        elif isinstance(last, Snapshot):
            self._in_snapshot = self.counting = last is not Snapshot.END
            return [] if self.counting else self.end()
        elif isinstance(last, Status):
            return [self._format(last)]
        else:
            counts = self.counting and isinstance(last, Metadata)
        if counts:
            for event in events:
                if isinstance(event, Metadata):
                    # The formatter remembers its unit.
                    self._format(event)
                    self._descriptions += 1
                else:
                    self._totals += 1
            return []
        self._in_snapshot = self.counting = False
        return [*self.end(), *map(self._format, events)]

    def end(self) -> list[str]:
        """Return a line with the numbers that were counted since the last call, if any."""
        if not (self._descriptions or self._totals):
            return []
        counts = [
            counted(number, name)
            for number, name in ((self._descriptions, "description"), (self._totals, "total"))
            if number
        ]
        kind = "snapshot" if self._totals else "metadata"
        self._descriptions = self._totals = 0
        return [f"{kind:12} {', '.join(counts)} (--verbose prints them)"]
