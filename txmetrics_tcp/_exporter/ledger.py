"""
Applying events: in the order of the log, each changes its series' total, and is encoded or dropped.

Events are encoded here, and not later on the reactor thread: pending events are then a few bytes
objects, not a million tuples for the garbage collector to visit again and again; and a thread that
records faster than the reactor can send does the work itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat, starmap
from operator import length_hint
from typing import Any, NamedTuple

from txmetrics_tcp._codec.encoder import Encoder
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals, overlay
from txmetrics_tcp._instruments.sink import RECORD_MANY, Entry
from txmetrics_tcp._model import APPLY, SET_OPERATION, Key, Number, Operation

BATCH = 1024
"""
The most events that the ledger applies or hands over at once, so that neither the lock nor the
reactor is held for long.
"""

FREE_REPEATS = 100
REPEATS = 50_000
"""
Of each call of `Histogram.record_many`, C{FREE_REPEATS} samples are streamed like any other events;
beyond that, C{REPEATS} for all calls together, until the log has been empty again.  The rest is
dropped and counted: events behind a count of a billion would otherwise wait for an hour.
"""

_REST: Any = object()
"""In an `Entry`, stands for the part of a `RECORD_MANY` that is for later batches."""

_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM


def earliest(epochs: Iterable[int | None]) -> int | None:
    """The smallest epoch of those that are known; None if none is."""
    return min((epoch for epoch in epochs if epoch is not None), default=None)


class Counts(NamedTuple):
    """
    What had happened to events at one moment, on the incoming side.

    @ivar recorded: events taken out of the log.
    @ivar dropped: those of them that found no room in the buffer.
    @ivar waiting: those of them that are pending for the reactor.
    """

    recorded: int
    dropped: int
    waiting: int


class Marker(NamedTuple):
    """
    The exact totals at one position of the stream.

    @ivar counts: what had happened until then.
    @ivar totals: the series that changed since the epoch that was asked for, each with its total
        there and the epoch that changed it last.
    @ivar timestamp_ns: when that was.
    """

    counts: Counts
    totals: list[tuple[StreamedSeries, Number, int]]
    timestamp_ns: int


class Taken(NamedTuple):
    """
    What the reactor takes at once.

    @ivar batch: the next events, if there are any.
    @ivar dropped_since: the epoch in which the first events were dropped since the last call, if
        any were.
    @ivar marker: the marker that stands right behind the batch, if one does.
    @ivar failure: what was raised since the last call for want of memory.  The events that could
        not be handled are among those that were dropped.
    """

    batch: Batch | None
    dropped_since: int | None
    marker: Marker | None
    failure: MemoryError | None = None


class Ledger:
    """
    Applies events, and keeps those that clients are to receive until the reactor takes them.

    Each time that events are applied is an epoch; epochs are numbered from 1.  Not thread-safe:
    `Incoming` calls all methods under its lock.

    @ivar streaming: whether a client is connected, so that events are kept for it.
    @ivar keeps_totals: whether series are retained.
    """

    __slots__ = (
        "_buffer_size",
        "_clock",
        "_dropped",
        "_dropped_since",
        "_encoder",
        "_epoch",
        "_failure",
        "_log",
        "_ready",
        "_recorded",
        "_repeats",
        "_totals",
        "_unfinished",
        "_waiting",
        "keeps_totals",
        "streaming",
    )

    def __init__(
        self,
        log: deque[Entry],
        buffer_size: int | None,
        totals: Totals | None,
        clock: Callable[[], int],
    ) -> None:
        """
        @param log: where events are taken from; other threads append to it at any moment.
        @param totals: which series are retained; None for none.
        @param clock: nanoseconds since the epoch.
        """
        self._log = log
        self._buffer_size = buffer_size
        self._totals = totals
        self._clock = clock
        self._encoder = Encoder(clock)
        self._epoch = 0
        self._ready: deque[Batch | Marker] = deque()
        # How many events are in there.
        self._waiting = 0
        self._recorded = 0
        self._dropped = 0
        self._dropped_since: int | None = None
        # The epoch that is under way, or that an exception broke off: what it has applied may not
        # be pending, so clients need totals.
        self._unfinished: int | None = None
        self._failure: MemoryError | None = None
        # How many of `REPEATS` are left.
        self._repeats = REPEATS
        self.keeps_totals = totals is not None
        self.streaming = False

    @property
    def retained(self) -> int:
        """How many series are retained."""
        return 0 if self._totals is None else len(self._totals)

    @property
    def refused(self) -> int:
        """How many series found no room among the retained ones."""
        return 0 if self._totals is None else self._totals.refused

    def counts(self) -> Counts:
        """How many events went which way, so far."""
        return Counts(self._recorded, self._dropped, self._waiting)

    def snapshot(self) -> dict[Key, Number]:
        """The total of every retained series, with what is still in the log.  Changes nothing."""
        if self._totals is None:
            return {}
        totals = {series: total for series, total, _epoch in self._totals.since(0)}
        # Copying a deque is atomic; iterating over it is not.
        entries = self._log.copy()
        totals = overlay(totals, entries, self._totals.room)
        return {series.key: total for series, total in totals.items()}

    def start_streaming(self) -> None:
        """The first client is connected."""
        # What was recorded without clients belongs to the totals alone.
        self._apply_all_without_clients()
        self._repeats = REPEATS
        if self._totals is not None:
            self._totals.first_client()
        self.streaming = True

    def stop_streaming(self) -> None:
        """The last client has disconnected: what is pending for it is forgotten."""
        self.streaming = False
        self._ready.clear()
        self._waiting = 0
        self._dropped_since = self._unfinished = None
        self._failure = None

    def more(self) -> bool:
        """Whether `take` would give something."""
        return self.streaming and bool(self._ready or self._log)

    def take(self) -> Taken:
        """
        The next events, at most `BATCH` and up to the next marker, in the order of the log.

        Nothing is dropped here: the reactor thread takes from the log as much as it can handle
        now, and leaves the rest there.
        """
        ready = self._ready
        batch: Batch | None = None
        marker: Marker | None = None
        if self.streaming and not ready:
            self._apply()
        if ready and isinstance(first := ready[0], Batch):
            batch = first
            ready.popleft()
            self._waiting -= batch.size
        if ready and isinstance(first := ready[0], Marker):
            marker = first
            ready.popleft()
        if not ready:
            # Also after an exception that came between a batch and its count.
            self._waiting = 0
        dropped_since = earliest([self._dropped_since, self._unfinished])
        self._dropped_since = self._unfinished = None
        failure, self._failure = self._failure, None
        return Taken(batch, dropped_since, marker, failure)

    def mark(self, since: int) -> Marker:
        """
        Copy the totals, to be handed over by `take` where they are exact: behind all pending
        events.

        @param since: of the series that changed in that epoch, or later.
        @return: what `take` will hand over.
        """
        pending = self._first_pending()
        if pending is not None:
            # The client may not come to take what goes before the marker.
            since = min(since, pending)
        totals = [] if self._totals is None else self._totals.since(since)
        marker = Marker(self.counts(), totals, self._clock())
        self._ready.append(marker)
        return marker

    def forget_idle(self, now: float, needed: int | None) -> None:
        """
        Release the series that have not changed for long.

        @param now: in seconds, on a clock that does not jump.
        @param needed: the first epoch of which a client may still need totals.
        """
        if self._totals is not None:
            if not self.streaming:
                # No drain comes to do it.
                self._apply_all_without_clients()
            pending = self._first_pending()
            needed = earliest([needed, pending, self._dropped_since, self._unfinished])
            self._totals.forget_idle(now, self._epoch, needed)

    def apply(self) -> None:
        """Apply a batch of the log; drop and count what exceeds the buffer, the newest."""
        if not self.streaming:
            self._apply_without_clients()
        elif self._buffer_size is None:
            self._apply()
        else:
            self._apply(max(0, self._buffer_size - self._waiting))

    def _apply(self, room: int | None = None) -> None:
        """
        Take at most `BATCH` entries from the log, apply them to the totals, and encode those for
        which there is room.

        @param room: how many events have room; what exceeds it is dropped and counted, and what
            exceeds `BATCH` stays in the log.  None: there is room for all.
        """
        log = self._log
        if self._dropped_since is None:
            self._dropped_since = self._unfinished
        epoch = self._unfinished = self._epoch = self._epoch + 1
        size = min(len(log), BATCH)
        todo = repeat((), size)
        drops = room is not None and room <= BATCH
        left = room if room is not None and drops else BATCH
        kept: list[Entry] = []
        keep = kept.append
        # Entries that are in the totals, and how many events they are more than that.
        applied = more = 0
        try:
            # A loop whose every step counts: see docs/contributing/performance.md.
            for entry in starmap(log.popleft, todo):
                series, operation, value, stamp = entry
                # The very object, since each epoch has its own: quicker than to compare numbers.
                if series.epoch is not epoch:
                    total = self._first_in_epoch(series, epoch, stamp)
                    if total is not None:
                        more += 1
                        if left > 0 or not drops:
                            keep(total)
                            left -= drops
                if operation is _INCREMENT_COUNTER:
                    series.total += value
                elif operation in APPLY:
                    series.total = APPLY[operation](series.total, value)
                elif operation is RECORD_MANY or operation is _REST:
                    value, count = value
                    entry = (series, _RECORD_HISTOGRAM, value, stamp)
                    allowed = count
                    if count > FREE_REPEATS and operation is RECORD_MANY and not drops:
                        allowed = min(count, FREE_REPEATS + self._repeats)
                        self._repeats -= allowed - FREE_REPEATS
                    fitting = min(allowed - 1, max(0, left - 1))
                    rest = 0 if drops else allowed - 1 - fitting
                    if rest:
                        log.appendleft((series, _REST, (value, rest), stamp))
                    more += count - 1 - rest
                    kept.extend(repeat(entry, fitting))
                    left -= fitting
                applied += 1
                if left > 0:
                    keep(entry)
                    left -= 1
                    if left == 0 and not drops:
                        break
            if not log:
                self._repeats = REPEATS
        except MemoryError as error:
            # What is not in the totals yet will be, in the next epoch.  Without the traceback,
            # which holds all that is here.
            self._failure = error.with_traceback(None)
            if size - length_hint(todo) > applied:
                log.appendleft(entry)
        finally:
            if kept:
                self._encode(kept, epoch)
            recorded = applied + more
            self._recorded += recorded
            if recorded > len(kept):
                self._drop(recorded - len(kept), epoch)
        self._unfinished = None

    def _apply_without_clients(self) -> None:
        """
        Apply events while no clients are connected: to the totals alone.

        The same as `_apply` with nothing to keep, apart from it since this is all that recording
        costs in a program that is not watched.
        """
        log = self._log
        epoch = self._epoch = self._epoch + 1
        size = min(len(log), BATCH)
        todo = repeat((), size)
        more = 0
        increment_counter, apply = _INCREMENT_COUNTER, APPLY
        try:
            for series, operation, value, _stamp in starmap(log.popleft, todo):
                if series.epoch is not epoch:
                    self._first_in_epoch(series, epoch, 0)
                if operation is increment_counter:
                    series.total += value
                elif operation in apply:
                    series.total = apply[operation](series.total, value)
                elif operation is RECORD_MANY or operation is _REST:
                    more += value[1] - 1
        except MemoryError as error:
            # As in `_apply`: what raises here has not been applied.
            self._failure = error.with_traceback(None)
            log.appendleft((series, operation, value, _stamp))
            more -= 1
        finally:
            self._recorded += size - length_hint(todo) + more

    def _apply_all_without_clients(self) -> None:
        """Apply what is in the log now, though other threads may go on recording."""
        for _ in range(0, len(self._log), BATCH):
            self._apply_without_clients()

    def _encode(self, entries: list[Entry], epoch: int) -> None:
        try:
            joined, ends = self._encoder.encode(entries)
            self._ready.append(Batch(joined, ends, epoch))
        except MemoryError as error:
            self._failure = error.with_traceback(None)
            self._drop(len(entries), epoch)
        else:
            self._waiting += len(ends)

    def _drop(self, events: int, epoch: int) -> None:
        self._dropped += events
        if self._dropped_since is None:
            self._dropped_since = epoch

    def _first_pending(self) -> int | None:
        """The epoch of the first batch that is pending."""
        return next((one.since for one in self._ready if isinstance(one, Batch)), None)

    def _first_in_epoch(self, series: StreamedSeries, epoch: int, stamp: int) -> Entry | None:
        """
        A series changes for the first time in an epoch.

        @return: an event that sets its total, to be sent before the change: clients that connected
            while the series was not retained do not know it, and earlier ones know another.
        """
        entry = None
        # Sums may grow within an epoch, and are brought back to 64 bits here, in the next.
        series.total = series.value()
        if not series.retained and self._totals is not None:
            self._totals.admit(series)
            if series.retained if series.epoch else self._totals.may_be_known(series):
                entry = (series, SET_OPERATION[series.key.kind], series.total, stamp)
        series.epoch = epoch
        return entry
