"""
Encoded events on their way: what goes to all clients, and what waits for one of them.

Clients share the bytes of an event, also while it waits for many of them.  Any thread may make a
batch; from then on all of it belongs to the reactor thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from txmetrics_tcp._net.writers import CHUNK


class Batch:
    """
    The events of one fold, encoded and joined, once for all clients.

    @ivar joined: their frames.
    @ivar size: how many there are.
    @ivar since: the number of the fold.
    """

    __slots__ = ("_chunks", "_ends", "joined", "since", "size")

    def __init__(self, joined: bytes, ends: list[int], since: int) -> None:
        """
        @param joined: the frames of the events; at least one.
        @param ends: where each of them ends.
        """
        self.since = since
        self.size = len(ends)
        self.joined = joined
        self._ends = ends
        self._chunks: list[tuple[bytes, int]] | None = None

    def chunks(self) -> list[tuple[bytes, int]]:
        """
        All of it, in pieces as `chunk` makes them; with each, the index of the first frame behind.
        """
        if self._chunks is None:
            chunks: list[tuple[bytes, int]] = []
            behind = 0
            while behind < self.size:
                chunks.append(self.chunk(behind, CHUNK))
                behind = chunks[-1][1]
            self._chunks = chunks
        return self._chunks

    def end(self, behind: int) -> int:
        """How many bytes the frames before the one of that index have together."""
        return self._ends[behind - 1] if behind else 0

    def chunk(self, first: int, room: int) -> tuple[bytes, int]:
        """
        Whole frames of at most so many bytes together; or one, if it alone is longer.

        @param first: the index of the first.
        @return: the frames, and the index of the first one behind them.
        """
        joined = self.joined
        if first == 0 and len(joined) <= room:
            return joined, self.size
        ends = self._ends
        start = self.end(first)
        behind = max(bisect_right(ends, start + room), first + 1)
        return joined[start : ends[behind - 1]], behind


class Backlog:
    """
    The events that wait for one client, from which the oldest are dropped when they are too many.

    A deque of batches, of the first of which some may be gone: so it costs a client next to nothing
    that an event waits for it, and a hundred stuck clients do not slow the others down.

    @ivar high_water: the most events that were ever pending.
    """

    __slots__ = ("_batches", "_first", "_limit", "_size", "high_water")

    def __init__(self, limit: int | None) -> None:
        """
        @param limit: how many events may wait; None for any number.
        """
        self._limit = limit
        self._batches: deque[Batch] = deque()
        # Of the first batch, the index of its first event that still waits.
        self._first = 0
        self._size = 0
        self.high_water = 0

    def __len__(self) -> int:
        """How many events wait."""
        return self._size

    @property
    def since(self) -> int:
        """The number of the fold that the oldest event that waits may be from."""
        return self._batches[0].since

    def add(self, batch: Batch, first: int = 0) -> int:
        """
        Let events wait.

        @param first: the index of the first of the batch; not 0 only if none waits yet.
        @return: how many were dropped to make room.
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
        Take the oldest.

        @param room: how many bytes they may have.
        @param at_least_one: whether to take one also if it does not fit.
        @return: whole frames, and how many.
        """
        pieces: list[bytes] = []
        taken = 0
        batches = self._batches
        while batches:
            batch = batches[0]
            piece, behind = batch.chunk(self._first, room)
            if len(piece) > room and (pieces or not at_least_one):
                break
            room -= len(piece)
            pieces.append(piece)
            taken += behind - self._first
            self._first = behind
            if behind < batch.size:
                break
            batches.popleft()
            self._first = 0
        self._size -= taken
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), taken

    def clear(self) -> None:
        """Forget them all."""
        self._batches.clear()
        self._size = 0

    def _drop(self, events: int) -> None:
        self._size -= events
        self._first += events
        batches = self._batches
        while batches and self._first >= batches[0].size:
            self._first -= batches.popleft().size
