"""
The descriptions of an exporter, encoded once for all clients.

The reactor thread owns everything here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import itemgetter

from txmetrics_tcp._model import MetricKind

Subject = tuple[MetricKind, str]
"""What a description is about: all metrics of one kind and name."""


class Descriptions:
    """
    The last description of each subject, as frames, in the order in which they were set.

    Descriptions are numbered from 1.  A client that remembers the number of the last one that it
    was sent needs no queue.

    @ivar last: the number of the last description; 0 for none.
    """

    def __init__(self) -> None:
        self.last: int = 0
        self._number_of: dict[Subject, int] = {}
        # Numbers and frames, in order.  The frame of a replaced description is empty.
        self._frames: list[tuple[int, bytes]] = []

    def update(self, frames: Mapping[Subject, bytes]) -> None:
        """Add descriptions, which replace earlier ones of the same subjects."""
        for subject, frame in frames.items():
            replaced = self._number_of.get(subject)
            # A single append, so that a KeyboardInterrupt does no harm.
            self._frames.append((self.last + 1, frame))
            self.last += 1
            self._number_of[subject] = self.last
            if replaced is not None:
                self._frames[self._index(replaced) - 1] = replaced, b""
        if len(self._frames) > 2 * len(self._number_of):
            self._frames = [one for one in self._frames if one[1]]

    def after(self, number: int, room: int) -> tuple[bytes, int]:
        """
        Return the descriptions after a number, up to about C{room} bytes, and at least one if there
        is any.

        @return: the concatenated frames, and the number of the last of them.
        """
        chosen: list[bytes] = []
        for index in range(self._index(number), len(self._frames)):
            if room <= 0:
                break
            number, frame = self._frames[index]
            chosen.append(frame)
            room -= len(frame)
        return b"".join(chosen), number

    def _index(self, number: int) -> int:
        """Return the index of the first description after a number."""
        return bisect_right(self._frames, number, key=itemgetter(0))
