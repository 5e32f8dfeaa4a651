"""
Select the events of a stream to print, by filters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txmetrics_tcp._model import Gone, HistogramTotal, Key, Metadata, Metric, MetricKind
from txmetrics_tcp._view.filters import Filter
from txmetrics_tcp._view.lines import Printable
from txmetrics_tcp._view.memory import CACHE_BYTES, Budget, Descriptions, key_size, name_size


class Selection:
    """
    Select the metric events, totals of histograms and gone series that match at least one filter.

    A description is selected just before the first selected event of its metric.  After that event,
    new descriptions of the metric are selected at once.  Stream status, which reports dropped
    events, and the boundaries of snapshots are always selected.

    Pending descriptions of more than `CACHE_BYTES` are not selected.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        """
        @param filters: if empty, all events are selected.
        """
        self._filters = filters
        self._match = matcher(filters)
        self._matches: dict[Key, bool] = {}
        self._matches_budget = Budget(CACHE_BYTES)
        # Pending descriptions, and the metrics with selected events.
        self._descriptions = Descriptions(Budget(CACHE_BYTES))
        self._shown: set[tuple[MetricKind, str]] = set()
        self._shown_budget = Budget(CACHE_BYTES)

    def __call__(self, event: Printable) -> list[Printable]:
        """
        @param event: the next event of the stream.
        @return: the events to print now.
        """
        if not self._filters:
            return [event]
        if isinstance(event, Metric | Gone | HistogramTotal):
            return self._select(event)
        if isinstance(event, Metadata) and (event.kind, event.name) not in self._shown:
            self._descriptions.put(event)
            return []
        return [event]

    def _select(self, event: Metric | Gone | HistogramTotal) -> list[Printable]:
        key = event.key
        matches = self._matches.get(key)
        if matches is None:
            matches = self._match(key)
            if not self._matches_budget.take(key_size(key)):
                self._matches.clear()
                self._matches_budget = Budget(CACHE_BYTES)
            else:
                self._matches[key] = matches
        if not matches:
            return []
        name = key.kind, key.name
        if name in self._shown:
            return [event]
        if self._shown_budget.take(name_size(key.name)):
            self._shown.add(name)
        description = self._descriptions.remove(name)
        return [event] if description is None else [description, event]


def matcher(filters: Sequence[Filter]) -> Callable[[Key], bool]:
    """Return a predicate: whether a series matches any filter.  Without filters, all match."""
    return lambda key: not filters or any(one.matches(key) for one in filters)
