"""
A recorder that keeps events, and isolation of the global recorder.
"""

from __future__ import annotations

import collections

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Key, Metadata, Operation, Recorder, Series
from txmetrics_tcp._instruments import facade
from txmetrics_tcp._instruments.sink import Entry, Sink


class ListRecorder(Recorder):
    """A recorder that keeps everything in lists, as a user of the library might write it."""

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
        """Return the series, operation and value of each event since the last call."""
        taken = [(str(entry[0].key), entry[1], entry[2]) for entry in self.entries]
        self.entries.clear()
        return taken


class GlobalRecorderTestCase(SynchronousTestCase):
    """
    Gives each test its own global recorder, of which a program has only one.

    @ivar recorder: a recorder that a test may install as the global recorder.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(facade, "_program", facade._Program())
        self.recorder = ListRecorder()
