"""
The pending frames of one client, in sending order.

The reactor thread owns everything here.
"""

from __future__ import annotations

import sys

from txmetrics_tcp._codec.framing import EMPTY_FRAME
from txmetrics_tcp._codec.wire import encode_snapshot
from txmetrics_tcp._exporter.backlog import Backlog
from txmetrics_tcp._exporter.descriptions import Descriptions
from txmetrics_tcp._exporter.snapshot import TotalsSnapshot
from txmetrics_tcp._model import Snapshot
from txmetrics_tcp._net.writers import CHUNK

_BEGIN, _BEGIN_COMPLETE, _END = map(encode_snapshot, Snapshot)


class Outbox:
    """
    Holds four kinds of pending frames, sent in this order:

    - the stream status, and a half-close probe;
    - descriptions;
    - a snapshot: the totals of a marker, between two boundaries;
    - events, of which the oldest are dropped when the limit is exceeded.

    All clients share descriptions, snapshots and the bytes of events.

    @ivar status: the pending stream status; empty for none.
    @ivar probe: whether a probe is pending.
    @ivar snapshot: the pending snapshot, or None.
    @ivar events: the pending events.
    """

    __slots__ = ("_described", "_descriptions", "_next", "events", "probe", "snapshot", "status")

    def __init__(self, buffer_size: int | None, descriptions: Descriptions) -> None:
        """
        @param buffer_size: the maximum number of pending events; None for no limit.
        """
        self.status = b""
        self.probe = False
        self._descriptions = descriptions
        # The number of the last description taken.  Before `begin`, none are pending: a transport
        # may resume its producer earlier.
        self._described = sys.maxsize
        self.snapshot: TotalsSnapshot | None = None
        # The index of the next total of the snapshot; -1 before its beginning.
        self._next = -1
        self.events = Backlog(buffer_size)

    def __bool__(self) -> bool:
        return bool(
            self.status
            or self.probe
            or self._described < self._descriptions.last
            or self.snapshot is not None
            or self.events
        )

    def begin(self, status: bytes) -> None:
        """Add the first status, and all descriptions."""
        self.status = status
        self._described = 0

    def add_snapshot(self, snapshot: TotalsSnapshot) -> None:
        """Add a snapshot, which replaces an unfinished one."""
        self.snapshot = snapshot
        self._next = -1

    def clear(self) -> None:
        """Discard all pending frames except descriptions, all of which become pending again."""
        self.status = b""
        self.probe = False
        self._described = 0
        self.snapshot = None
        self.events.clear()

    def next_chunk(self) -> tuple[bytes, int]:
        """
        Remove and return up to about `CHUNK` bytes, and at least one frame if any is pending.

        @return: whole frames, and how many of them are events.
        """
        frames: list[bytes] = []
        room = CHUNK - len(self.status)
        if self.status:
            frames.append(self.status)
        if self.probe:
            frames.append(EMPTY_FRAME)
        self.status, self.probe = b"", False
        if self._described < self._descriptions.last and room > 0:
            chunk, self._described = self._descriptions.after(self._described, room)
            frames.append(chunk)
            room -= len(chunk)
        snapshot = self.snapshot
        if snapshot is not None and self._next < 0 and room > 0:
            frames.append(_BEGIN_COMPLETE if snapshot.complete else _BEGIN)
            self._next = 0
        if snapshot is not None and self._next >= 0 and room > 0:
            if self._next < len(snapshot):
                chunk, self._next = snapshot.chunk(self._next, room)
                frames.append(chunk)
                room -= len(chunk)
            if self._next == len(snapshot):
                frames.append(_END)
                self.snapshot = None
        taken = 0
        if self.events and self.snapshot is None and room > 0:
            chunk, taken = self.events.take(room, at_least_one=not frames)
            frames.append(chunk)
        return frames[0] if len(frames) == 1 else b"".join(frames), taken
