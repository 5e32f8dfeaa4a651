"""
Encoded events: batches that all clients share, and the events pending for one client.

All clients share the bytes of a batch, including while its events are pending.  Any thread may make
a batch; after that, the reactor thread owns it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate

from txmetrics_tcp._net.writers import CHUNK


class Batch:
    """
    The events of one epoch, encoded once for all clients.

    @ivar joined: the concatenated frames.
    @ivar size: the number of frames.
    @ivar since: the epoch; see `Ledger`.
    @ivar recorded_ns: when the first event was recorded, in nanoseconds since the epoch; 0 if
        unknown.
    """

    __slots__ = ("_chunks", "_ends", "_sizes", "joined", "recorded_ns", "since", "size")

    def __init__(self, frames: list[bytes], since: int, recorded_ns: int = 0) -> None:
        """
        @param frames: the frames of one or more events.
        """
        self.since: int = since
        self.recorded_ns: int = recorded_ns
        self.size: int = len(frames)
        self.joined: bytes = b"".join(frames)
        # The size of each frame, until `ends` is called.  CPython has one object for each small
        # integer.
        self._sizes = list(map(len, frames))
        # The result of `ends`.
        self._ends: list[int] | None = None
        self._chunks: list[tuple[bytes, int]] | None = None

    def chunks(self) -> list[tuple[bytes, int]]:
        """
        Return all frames in chunks of at most `CHUNK` bytes, each with the index of the frame after
        it.  A frame larger than that is one chunk.
        """
        if self._chunks is None:
            chunks: list[tuple[bytes, int]] = []
            end = 0
            while end < self.size:
                chunks.append(self.chunk(end, CHUNK))
                end = chunks[-1][1]
            self._chunks = chunks
        return self._chunks

    def end(self, index: int) -> int:
        """Return the number of bytes in the frames before an index."""
        if index == self.size:
            return len(self.joined)
        return self.ends()[index - 1] if index else 0

    def ends(self) -> list[int]:
        """Return the end offset of each frame in C{joined}."""
        if self._ends is None:
            self._ends = list(accumulate(self._sizes))
            self._sizes = []
        return self._ends

    def chunk(self, first: int, room: int) -> tuple[bytes, int]:
        """
        Return as many whole frames as fit into C{room} bytes, and at least one.

        @param first: the index of the first frame.
        @return: the concatenated frames, and the index of the frame after them.
        """
        joined = self.joined
        if first == 0 and len(joined) <= room:
            return joined, self.size
        ends = self.ends()
        start = self.end(first)
        after = max(bisect_right(ends, start + room), first + 1)
        return joined[start : ends[after - 1]], after


class Backlog:
    """
    The pending events of one client.  When the limit is exceeded, the oldest are dropped.

    It refers to whole batches, and to the first pending event in the first batch.  Queueing a batch
    is therefore a single append, and many stalled clients do not slow down the others.

    @ivar high_water: the largest number of events that have been pending at once.
    """

    __slots__ = ("_batches", "_first", "_limit", "_size", "high_water")

    def __init__(self, limit: int | None) -> None:
        """
        @param limit: the maximum number of pending events; None for no limit.
        """
        self._limit = limit
        self._batches: deque[Batch] = deque()
        # The index in the first batch.
        self._first = 0
        self._size = 0
        self.high_water = 0

    def __len__(self) -> int:
        """Return the number of pending events."""
        return self._size

    @property
    def since(self) -> int:
        """The epoch of the oldest pending event.  Raises IndexError if no events are pending."""
        return self._batches[0].since

    def add(self, batch: Batch, first: int = 0) -> int:
        """
        Append events.

        @param first: the index of the first event to append; must be 0 unless the backlog is empty.
        @return: the number of events dropped to make room.
        """
        if not self._batches:
            self._first = first
        self._batches.append(batch)
        self._size += batch.size - first
        excess = 0 if self._limit is None else max(0, self._size - self._limit)
        if excess:
            self._drop(excess)
        self.high_water = max(self.high_water, self._size)
        return excess

    def take(self, room: int, at_least_one: bool = False) -> tuple[bytes, int]:
        """
        Remove and return the oldest events.

        @param room: the maximum number of bytes.
        @param at_least_one: whether to take the first event even if it exceeds C{room}.
        @return: the concatenated frames, and their number.
        """
        pieces: list[bytes] = []
        taken = 0
        batches = self._batches
        while batches:
            batch = batches[0]
            piece, end = batch.chunk(self._first, room)
            if len(piece) > room and (pieces or not at_least_one):
                break
            room -= len(piece)
            pieces.append(piece)
            taken += end - self._first
            self._first = end
            if end < batch.size:
                break
            batches.popleft()
            self._first = 0
        self._size -= taken
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), taken

    def clear(self) -> None:
        """Discard all events."""
        self._batches.clear()
        self._size = 0

    def _drop(self, events: int) -> None:
        self._size -= events
        self._first += events
        batches = self._batches
        while batches and self._first >= batches[0].size:
            self._first -= batches.popleft().size
