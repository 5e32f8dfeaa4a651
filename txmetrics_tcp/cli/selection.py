"""
Select the events of a stream to print, by filters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txmetrics_tcp._model import Gone, Key, Metadata, Metric, MetricKind
from txmetrics_tcp._view.filters import Filter
from txmetrics_tcp._view.lines import Printable

MAX_REMEMBERED = 10_000
"""The maximum number of series, and of descriptions, to keep in memory."""


class Selection:
    """
    Select the metric events and gone series that match at least one filter.

    A description is selected just before the first selected event of its metric.  After that event,
    new descriptions of the metric are selected at once.  Stream status, which reports dropped
    events, and the boundaries of snapshots are always selected.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        """
        @param filters: if empty, all events are selected.
        """
        self._filters = filters
        self._match = matcher(filters)
        self._matches: dict[Key, bool] = {}
        # Pending descriptions, and the metrics with selected events.
        self._descriptions: dict[tuple[MetricKind, str], Metadata] = {}
        self._shown: set[tuple[MetricKind, str]] = set()

    def __call__(self, event: Printable) -> list[Printable]:
        """
        @param event: the next event of the stream.
        @return: the events to print now.
        """
        if not self._filters:
            return [event]
        if isinstance(event, Metric | Gone):
            return self._select(event)
        if isinstance(event, Metadata):
            name = event.kind, event.name
            if name not in self._shown:
                if len(self._descriptions) < MAX_REMEMBERED:
                    self._descriptions[name] = event
                return []
        return [event]

    def _select(self, event: Metric | Gone) -> list[Printable]:
        key = event.key
        if key not in self._matches:
            if len(self._matches) >= MAX_REMEMBERED:
                self._matches.clear()
            self._matches[key] = self._match(key)
        if not self._matches[key]:
            return []
        name = key.kind, key.name
        if len(self._shown) < MAX_REMEMBERED:
            self._shown.add(name)
        description = self._descriptions.pop(name, None)
        return [event] if description is None else [description, event]


def matcher(filters: Sequence[Filter]) -> Callable[[Key], bool]:
    """Return a predicate: whether a series matches any filter.  Without filters, all match."""
    return lambda key: not filters or any(one.matches(key) for one in filters)
