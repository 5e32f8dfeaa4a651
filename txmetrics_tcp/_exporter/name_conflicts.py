"""
Log lines about metric names that are used for several kinds, or described with several units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.logger import Logger

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._model import Key, Metadata, MetricKind

_log = Logger(namespace="txmetrics_tcp")

MAX_NAMES = 1000
"""
The maximum number of names, and of descriptions, that are remembered.  Further ones are not
checked.
"""

_K = TypeVar("_K")
_V = TypeVar("_V")


class NameConflicts:
    """
    Finds conflicting uses of a name, and logs the first one of each name.

    Its methods may be called from any thread, re-entrantly, and under any lock, so they do not log
    themselves.
    """

    def __init__(self, call_later: Callable[..., object]) -> None:
        """
        @param call_later: calls a function with arguments on the reactor thread, later.
        """
        self._call_later = call_later
        self._kinds: dict[str, MetricKind] = {}
        self._units: dict[tuple[MetricKind, str], str | None] = {}
        self._logged: set[object] = set()

    def used(self, key: Key) -> None:
        """Check the kind of a series that is created."""
        self._check_kind(key.kind, key.name)

    def described(self, metadata: Metadata) -> None:
        """Check the kind and the unit of a description."""
        kind, name, unit = metadata.kind, metadata.name, metadata.unit
        self._check_kind(kind, name)
        before = _first(self._units, (kind, name), unit)
        if before == unit:
            return
        self._units[kind, name] = unit
        if before is not None and (kind, name) not in self._logged:
            self._logged.add((kind, name))
            self._call_later(
                _log.warn,
                "The {kind} {name} is described with the unit {unit}, and before with {before}:"
                " viewers use the last one",
                kind=kind.value,
                name=short_repr(name),
                unit=unit or "none",
                before=before,
            )

    def _check_kind(self, kind: MetricKind, name: str) -> None:
        first = _first(self._kinds, name, kind)
        if first is not kind and name not in self._logged:
            self._logged.add(name)
            self._call_later(
                _log.warn,
                "The name {name} is used for a {first} and a {kind}: use each name for one kind"
                " only",
                name=short_repr(name),
                first=first.value,
                kind=kind.value,
            )


def _first(values: dict[_K, _V], key: _K, value: _V) -> _V:
    """Return the first value that was given for a key."""
    if len(values) < MAX_NAMES:
        return values.setdefault(key, value)
    return values.get(key, value)
