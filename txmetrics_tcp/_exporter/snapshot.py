"""
The totals at one position of the stream, encoded once for all clients that need them.
"""

from __future__ import annotations

from itertools import count

from txmetrics_tcp._codec.encoder import encode_stamp
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.totals import StreamedSeries, wrapped
from txmetrics_tcp._model import SET_OPERATION, Total
from txmetrics_tcp._net.writers import CHUNK

GROUP = 32
"""
The number of totals that are encoded together.  With 1,000 buckets, encoding them takes 6 ms.
"""

ENCODED = CHUNK // 2
"""
The size of a chunk, in bytes, beyond which no totals are encoded for it.  Encoding takes ten times
as long as sending, and delays other clients.
"""

_reads = count()


class TotalsSnapshot:
    """
    The totals of a `Marker`.  Clients share it, and each of them holds the index of the next total
    to send, so a pending snapshot costs a client nothing.

    Totals are encoded when the first client reaches them: encoding all of them takes a few
    milliseconds, and delays other clients.

    Any thread may make a snapshot; after that, the reactor thread owns it.

    @ivar complete: whether the snapshot has all retained series.
    @ivar read: increases with each call of `chunk` of any snapshot; the snapshot with the lowest
        value is the least recently read one.
    """

    __slots__ = (
        "__weakref__",
        "_groups",
        "_pending",
        "_samples",
        "_size",
        "_stamp",
        "complete",
        "read",
    )

    def __init__(
        self,
        series: list[StreamedSeries],
        totals: list[Total],
        samples: dict[StreamedSeries, list[float]],
        timestamp_ns: int,
        complete: bool,
    ) -> None:
        """
        @param totals: the total of each of C{series}; of counters, possibly before wrapping.
        @param samples: samples that are not in the totals yet.
        @param timestamp_ns: when the totals were copied.
        """
        self._groups: list[Batch] = []
        self._size = len(series)
        # What is not encoded yet, reversed: a list is cheap to shorten at its end.
        self._pending = series[::-1], totals[::-1]
        self._samples = samples
        self._stamp = encode_stamp(timestamp_ns)
        self.complete: bool = complete
        self.read: int = next(_reads)

    def __len__(self) -> int:
        return self._size

    def chunk(self, first: int, room: int) -> tuple[bytes, int]:
        """
        Return totals from an index on: up to C{room} bytes, or fewer if they have to be encoded,
        and at least one.

        @param first: the index, less than the number of totals.
        @return: the concatenated frames, and the index of the next total.
        """
        self.read = next(_reads)
        pieces: list[bytes] = []
        least = room - ENCODED
        while first < self._size:
            group, offset = divmod(first, GROUP)
            if group == len(self._groups):
                if pieces and room <= least:
                    break
                self._encode_group()
            piece, end = self._groups[group].chunk(offset, room)
            if pieces and len(piece) > room:
                break
            pieces.append(piece)
            room -= len(piece)
            first += end - offset
            if room <= 0:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), first

    def _encode_group(self) -> None:
        series, totals = self._pending
        # Not the length of the lists: an interrupt may occur before they are shortened.
        left = self._size - GROUP * len(self._groups)
        rest = max(0, left - GROUP)
        frames = [
            self._encode(one, total)
            for one, total in zip(series[rest:left], totals[rest:left], strict=True)
        ]
        frames.reverse()
        self._groups.append(Batch(frames, 0))
        # Not before: encoding may fail for one client, and the next one tries again.
        del series[rest:], totals[rest:]

    def _encode(self, series: StreamedSeries, total: Total) -> bytes:
        if isinstance(total, Distribution):
            total = total.with_samples(self._samples.get(series, ()))
            return series.frame.encode_distribution(total, self._stamp)
        return series.frame.encode_total(
            SET_OPERATION[series.key.kind], wrapped(total), self._stamp
        )
