"""
The descriptions of an exporter, encoded once for all clients.

The reactor thread owns everything here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

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
        # In ascending order of the numbers.  The frame of a replaced description is empty.
        self._numbers: list[int] = []
        self._frames: list[bytes] = []

    def update(self, frames: Mapping[Subject, bytes]) -> None:
        """Add descriptions, which replace earlier ones of the same subjects."""
        for subject, frame in frames.items():
            replaced = self._number_of.get(subject)
            if replaced is not None:
                self._frames[bisect_left(self._numbers, replaced)] = b""
            self.last += 1
            self._number_of[subject] = self.last
            self._numbers.append(self.last)
            self._frames.append(frame)
        if len(self._frames) > 2 * len(self._number_of):
            kept = [pair for pair in zip(self._numbers, self._frames, strict=True) if pair[1]]
            self._numbers, self._frames = [one for one, _ in kept], [frame for _, frame in kept]

    def after(self, number: int, room: int) -> tuple[bytes, int]:
        """
        Return the descriptions after a number, up to about C{room} bytes, and at least one if there
        is any.

        @return: the concatenated frames, and the number of the last of them.
        """
        first = end = bisect_right(self._numbers, number)
        frames = self._frames
        while room > 0 and end < len(frames):
            room -= len(frames[end])
            end += 1
        return b"".join(frames[first:end]), self._numbers[end - 1] if end > first else number
