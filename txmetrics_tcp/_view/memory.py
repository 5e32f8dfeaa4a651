"""
Limits, in bytes, on what consumers keep of a stream, so that a peer cannot exhaust their memory.
"""

from __future__ import annotations

from txmetrics_tcp._model import Key, Metadata, MetricKind

MAX_BYTES = 128 * 1024 * 1024
"""The default limit of names, labels and descriptions in a view, in bytes."""

SAMPLE_BYTES = 512 * 1024 * 1024
"""The limit of the samples of all histograms in a view, in bytes."""

BUCKET_BYTES = 12
"""The approximate size of a bucket of a `Distribution` in memory, in bytes."""

CACHE_BYTES = 16 * 1024 * 1024
"""The limit of what one store of a command keeps in memory, in bytes."""

# The approximate size, in bytes, of the objects of an entry, of a label and of a text, without the
# characters.
_ENTRY = 250
_LABEL = 64
_TEXT = 76


class Budget:
    """
    A number of bytes for one or more stores.

    @ivar used: the bytes that are in use.
    """

    __slots__ = ("_limit", "used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Use bytes, if that many are left; return whether they are."""
        used = self.used + size
        if used > self._limit:
            return False
        self.used = used
        return True

    def give_back(self, size: int) -> None:
        """Return bytes that are no longer used."""
        self.used -= size


def text_size(text: str) -> int:
    """Return the size of a text in memory, or more, in bytes.  It depends on the text only."""
    return _TEXT + (len(text) if text.isascii() else 4 * len(text))


def name_size(name: str) -> int:
    """Return the approximate size of an entry for a metric, in bytes."""
    return _ENTRY + text_size(name)


def key_size(key: Key) -> int:
    """Return the approximate size of an entry for a series, in bytes."""
    size = name_size(key.name)
    for label, value in key.labels:
        size += _LABEL + text_size(label) + text_size(value)
    return size


class Descriptions(dict[tuple[MetricKind, str], Metadata]):
    """
    Descriptions by kind and name, within a budget.  Changed only by its own methods.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    def put(self, metadata: Metadata) -> bool:
        """Add or replace a description, if the budget suffices; return whether it does."""
        name = metadata.kind, metadata.name
        before = self.get(name)
        size = _size(metadata) - (0 if before is None else _size(before))
        if not self._budget.take(size):
            return False
        self[name] = metadata
        return True

    def remove(self, name: tuple[MetricKind, str]) -> Metadata | None:
        """Remove and return a description; return None if there is none."""
        metadata = self.pop(name, None)
        if metadata is not None:
            self._budget.give_back(_size(metadata))
        return metadata


def _size(metadata: Metadata) -> int:
    unit = metadata.unit or ""
    return name_size(metadata.name) + text_size(unit) + text_size(metadata.description)
