"""
Counts what is logged, by level and by the name of the logger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from txmetrics_tcp._instruments.facade import default_recorder
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata

MAX_NAMES = 100
"""The default maximum number of names with series of their own."""

OTHER = "other"
"""The label of further names, and of unusual levels and names."""

_OWN = "txmetrics_tcp"


class LogCounts:
    """
    A counter for each level and name.  Thread-safe, and never raises.

    The messages of this library are not counted, and neither are those that are logged while one is
    counted: a recorder that logs would otherwise call itself.
    """

    def __init__(
        self, recorder: Recorder | None, metadata: Metadata, label: str, max_names: int
    ) -> None:
        """
        @param metadata: describes the counter.
        @param label: the label with the name.
        """
        self._recorder = default_recorder(recorder)
        self._metric = metadata.name
        self._label = label
        self._max_names = max_names
        self._names: set[str] = set()
        self._increments: dict[tuple[str, object], Callable[[], object]] = {}
        self._active = threading.local()
        self._recorder.describe(metadata)

    def count(self, level: str, name: object) -> None:
        """
        Count a message.

        @param level: one of a few levels.
        @param name: the name of the logger.
        """
        active = self._active
        if getattr(active, "counting", False):
            return
        active.counting = True
        try:
            increment = self._increments.get((level, name))
            if increment is None:
                increment = self._find(level, name)
            increment()
        except Exception:
            # Logging it would count it.
            pass
        finally:
            active.counting = False

    def _find(self, level: str, name: object) -> Callable[[], object]:
        label = name if type(name) is str else OTHER
        if label == _OWN or label.startswith(f"{_OWN}."):
            return _nothing
        if label not in self._names:
            if len(self._names) < self._max_names:
                self._names.add(label)
            else:
                label = OTHER
        key = level, label
        if key not in self._increments:
            labels = {"level": level, self._label: label}
            self._increments[key] = self._recorder.counter(self._metric, labels).increment
        return self._increments[key]


def _nothing() -> None:
    pass
