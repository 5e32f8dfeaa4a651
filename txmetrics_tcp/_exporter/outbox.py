"""
The pending frames of one client, in sending order.

The reactor thread owns everything here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal

from txmetrics_tcp._codec.encoder import Encoder
from txmetrics_tcp._codec.wire import encode_snapshot
from txmetrics_tcp._exporter.backlog import Backlog
from txmetrics_tcp._exporter.ledger import Marker
from txmetrics_tcp._exporter.totals import StreamedSeries
from txmetrics_tcp._model import SET_OPERATION, MetricKind, Number, Snapshot
from txmetrics_tcp._net.writers import CHUNK

TOTALS = CHUNK // 2
"""
The size of a chunk, in bytes, beyond which no totals are added to it.  Encoding totals takes ten
times as long as sending them, and delays other clients.
"""

PROBE: Final = "probe"

Subject = tuple[MetricKind, str] | Literal["probe"] | None
"""
The subject of a control frame: a description's kind and name, a half-close probe, or None for the
stream status.
"""

_BEGIN, _END = map(encode_snapshot, (Snapshot.BEGIN, Snapshot.END))


class Outbox:
    """
    Holds three kinds of pending frames, sent in this order:

    - control frames (descriptions, stream status, probes), which are never dropped;
    - a snapshot: the totals of a marker, between two boundaries;
    - events, of which the oldest are dropped when the limit is exceeded.

    @ivar control: frames by subject; a later frame replaces an earlier one with the same subject.
    @ivar events: the pending events.
    """

    __slots__ = ("_boundary", "_encoder", "_totals", "_totals_at", "control", "events")

    def __init__(self, buffer_size: int | None) -> None:
        """
        @param buffer_size: the maximum number of pending events; None for no limit.
        """
        self.control: OrderedDict[Subject, bytes] = OrderedDict()
        self.events = Backlog(buffer_size)
        self._totals: OrderedDict[StreamedSeries, Number] = OrderedDict()
        self._totals_at = 0
        # The next boundary to send; None if no snapshot is pending.
        self._boundary: Snapshot | None = None
        self._encoder = Encoder()

    def __bool__(self) -> bool:
        return bool(self.control or self._boundary or self.events)

    def add_control(self, frames: Mapping[Subject, bytes]) -> None:
        self.control.update(frames)

    def add_totals(self, marker: Marker, since: int) -> None:
        """
        Add a snapshot with the totals of a marker, or add these totals to the pending snapshot.

        @param since: include only series that changed in this epoch or later.
        """
        self._boundary = self._boundary or Snapshot.BEGIN
        self._totals_at = marker.timestamp_ns
        for series, total, epoch in marker.totals:
            if epoch >= since:
                self._totals[series] = total

    def clear(self) -> None:
        """Discard all pending frames."""
        self.control.clear()
        self._totals.clear()
        self._boundary = None
        self.events.clear()

    def next_chunk(self) -> tuple[bytes, int]:
        """
        Remove and return up to about `CHUNK` bytes, and at least one frame if any is pending.

        @return: whole frames, and how many of them are events.
        """
        frames: list[bytes] = []
        taken = 0
        room = CHUNK
        while room > 0 and self.control:
            frames.append(self.control.popitem(last=False)[1])
            room -= len(frames[-1])
        if room > 0 and self._boundary is Snapshot.BEGIN:
            self._boundary = Snapshot.END
            frames.append(_BEGIN)
        while room > CHUNK - TOTALS and self._totals:
            series, total = self._totals.popitem(last=False)
            operation = SET_OPERATION[series.key.kind]
            frames.append(self._encoder.encode([(series, operation, total, self._totals_at)])[0])
            room -= len(frames[-1])
        if room > 0 and self._boundary is Snapshot.END and not self._totals:
            self._boundary = None
            frames.append(_END)
        if room > 0 and self.events and self._boundary is None:
            chunk, taken = self.events.take(room, at_least_one=not frames)
            frames.append(chunk)
        return frames[0] if len(frames) == 1 else b"".join(frames), taken
