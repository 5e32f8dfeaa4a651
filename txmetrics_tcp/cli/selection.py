"""
What of a stream is printed, for who wants to see only some of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txmetrics_tcp._model import Event, Key, Metadata, Metric, MetricKind
from txmetrics_tcp._view.filters import Filter

MAX_REMEMBERED = 10_000
"""Of how many series, and how many descriptions, something is remembered, whatever is sent."""


class Selection:
    """
    Lets the events pass of which at least one filter wants the series.

    A description passes just before the first event about what it describes; what is said of the
    stream itself, above all of losses, always passes.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        """
        @param filters: without any, all passes.
        """
        self._filters = filters
        self._is_wanted = wanted(filters)
        self._wanted: dict[Key, bool] = {}
        # Held back; and of what something was shown.
        self._descriptions: dict[tuple[MetricKind, str], Metadata] = {}
        self._shown: set[tuple[MetricKind, str]] = set()

    def __call__(self, event: Event) -> list[Event]:
        """
        @param event: the next of a stream.
        @return: what is to be shown now.
        """
        if not self._filters:
            return [event]
        if isinstance(event, Metric):
            return self._select(event)
        if isinstance(event, Metadata):
            name = event.kind, event.name
            if name not in self._shown:
                if len(self._descriptions) < MAX_REMEMBERED:
                    self._descriptions[name] = event
                return []
        return [event]

    def _select(self, event: Metric) -> list[Event]:
        key = event.key
        if key not in self._wanted:
            if len(self._wanted) >= MAX_REMEMBERED:
                self._wanted.clear()
            self._wanted[key] = self._is_wanted(key)
        if not self._wanted[key]:
            return []
        name = key.kind, key.name
        if len(self._shown) < MAX_REMEMBERED:
            self._shown.add(name)
        description = self._descriptions.pop(name, None)
        return [event] if description is None else [description, event]


def wanted(filters: Sequence[Filter]) -> Callable[[Key], bool]:
    """
    Whether one of some filters holds for a series; if there are none, all are wanted.
    """
    return lambda key: not filters or any(one.matches(key) for one in filters)
