"""
A recorder to look at, and a global recorder of a test's own.
"""

from __future__ import annotations

import collections

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Key, Metadata, Operation, Recorder, Series
from txmetrics_tcp._instruments import facade
from txmetrics_tcp._instruments.sink import Entry, Sink


class ListRecorder(Recorder):
    """A recorder as a user of the library would write it: keeps everything, in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: collections.deque[Entry] = collections.deque()
        self.sink = Sink(self.entries, wake_threshold=1_000_000, clock=lambda: 42)
        self.described: list[Metadata] = []
        self.series: dict[Key, Series] = {}

    def attach(self, key: Key) -> Series:
        return self.series.setdefault(key, Series(key, self.sink))

    def describe(self, metadata: Metadata) -> None:
        self.described.append(metadata)

    def take(self) -> list[tuple[str, Operation | None, object]]:
        """What was recorded since the last call: series, operation and value."""
        taken = [(str(entry[0].key), entry[1], entry[2]) for entry in self.entries]
        self.entries.clear()
        return taken


class GlobalRecorderTestCase(SynchronousTestCase):
    """
    A program has one global recorder for its whole life; each of these tests has its own.

    @ivar recorder: one that a test may make the global recorder.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(facade, "_program", facade._Program())
        self.recorder = ListRecorder()
