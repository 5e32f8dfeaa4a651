"""
The ledger applies events to the totals in the order of the log, and encodes or drops each event.

Events are encoded here rather than later on the reactor thread, for two reasons.  Pending events
are then a few bytes objects instead of many tuples that the garbage collector visits repeatedly.
And a thread that records faster than the reactor sends does the work itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice, repeat, starmap
from math import ceil
from operator import length_hint
from typing import Any, NamedTuple
from weakref import ref

from txmetrics_tcp._codec.encoder import GONE, Encoder, TotalFrame
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.snapshot import TotalsSnapshot
from txmetrics_tcp._exporter.totals import (
    MERGE_HISTOGRAM,
    CopiedTotals,
    StreamedSeries,
    Totals,
    wrapped,
)
from txmetrics_tcp._instruments.sink import RECORD_MANY, Entry
from txmetrics_tcp._model import APPLY, SET_OPERATION, U64_MAX, Operation

BATCH = 1024
"""
The maximum number of events that the ledger applies or returns at once, so that threads hold the
lock only briefly, and drains block the reactor only briefly.
"""

EPOCHS = 8
"""
The least number of epochs after which samples of a histogram are added to its total.  Each addition
costs the series about two microseconds, and each sample a tenth of that.  An epoch therefore adds
those of this share of the histograms only.
"""

MERGES = 32
"""
The maximum number of distributions that a drain merges into totals and encodes at once.  With 1,000
buckets each, this takes some 10 ms.
"""

RELEASED_AT_ONCE = 256
"""The maximum number of idle series released at once while clients are connected."""

FREE_REPEATS = 100
REPEATS = 50_000
"""
The limits for `Histogram.record_many`.  Of each call, C{FREE_REPEATS} samples are streamed like
other events.  All calls together may stream C{REPEATS} further samples until the log is next empty.
The remaining samples are dropped and counted: otherwise a call with a count of a billion would
delay the events after it by an hour.
"""

_REMAINDER: Any = object()
"""The operation of an `Entry` with the samples of a `RECORD_MANY` left for later epochs."""

_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM


class Counts(NamedTuple):
    """
    Event counts of the incoming side at one moment.

    @ivar recorded: events taken out of the log; in `Figures`, also those in the log.
    @ivar dropped: events dropped because the buffer was full.
    @ivar waiting: events pending for the reactor.
    """

    recorded: int
    dropped: int
    waiting: int


class Figures(NamedTuple):
    """
    Event counts and numbers of series that include the events in the log.

    @ivar counts: the event counts.
    @ivar series: the number of retained series.
    @ivar refused: the number of series not retained because the maximum was reached.
    """

    counts: Counts
    series: int
    refused: int


class Marker(NamedTuple):
    """
    The exact totals at one position of the stream.

    @ivar counts: the event counts at that position.
    @ivar snapshot: the totals at that position of the series that changed in or after the requested
        epoch; of all retained series if one was released since.
    """

    counts: Counts
    snapshot: TotalsSnapshot


class Taken(NamedTuple):
    """
    The result of `Ledger.take`.

    @ivar batch: the next events, or None.
    @ivar dropped_since: the first epoch since the last call in which events were dropped, or may
        have been lost because of an exception; or None.
    @ivar marker: the marker directly after the batch, or None.
    @ivar failure: the error raised since the last call because memory was exhausted, or None.
        Events that could not be encoded count as dropped.
    """

    batch: Batch | None
    dropped_since: int | None
    marker: Marker | None
    failure: MemoryError | None = None


class Ledger:
    """
    Applies events, and buffers encoded events until the reactor takes them.

    An epoch is one call that applies a part of the log.  Epochs are numbered from 1.  Not
    thread-safe: `Incoming` calls all methods except `more` under its lock.

    @ivar streaming: whether any client is connected, so that events are buffered.
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
        "_last_complete",
        "_log",
        "_ready",
        "_recorded",
        "_repeats",
        "_sampled",
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
        @param log: the source of events; other threads append to it at any time.
        @param totals: the retained series; None for none.
        @param clock: returns nanoseconds since the epoch.
        """
        self._log = log
        self._buffer_size = buffer_size
        self._totals = totals
        self._clock = clock
        self._encoder = Encoder(clock)
        self._epoch = 0
        self._ready: deque[Batch | Marker] = deque()
        # The number of events in `_ready`.
        self._waiting = 0
        self._recorded = 0
        self._dropped = 0
        self._dropped_since: int | None = None
        # The current epoch, or one that an exception aborted.  Events that it applied may not be
        # in `_ready`, so clients need totals.
        self._unfinished: int | None = None
        self._failure: MemoryError | None = None
        # The last complete snapshot and its epoch.  Clients that connect one after the other share
        # it if no totals have changed.
        self._last_complete: tuple[int, Callable[[], TotalsSnapshot | None]] = (0, lambda: None)
        # The unused part of `REPEATS`.
        self._repeats = REPEATS
        # The histograms with samples that are not in their totals yet, each with the epoch of the
        # first of them, in ascending order.
        self._sampled: deque[tuple[int, StreamedSeries]] = deque()
        self.keeps_totals: bool = totals is not None
        self.streaming: bool = False

    @property
    def recorded(self) -> int:
        """The number of events taken out of the log."""
        return self._recorded

    @property
    def waiting(self) -> int:
        """The number of encoded events that are pending."""
        return self._waiting

    @property
    def retained(self) -> int:
        """The number of retained series."""
        return 0 if self._totals is None else len(self._totals)

    @property
    def refused(self) -> int:
        """The number of series not retained because the maximum was reached."""
        return 0 if self._totals is None else self._totals.refused

    def counts(self) -> Counts:
        """Return the current event counts, without the log."""
        return Counts(self._recorded, self._dropped, self._waiting)

    def figures(self) -> Figures:
        """Return the current figures, with the events in the log as if they had been applied."""
        events = refused = 0
        room_now = room = 0 if self._totals is None else self._totals.room
        # Whether series are retained, once the log has been applied; None for those without events.
        retained: dict[StreamedSeries, bool | None] = {}
        # Copying a deque is atomic; iterating over it is not.
        for one, operation, value, _stamp in self._log.copy():
            events += value[1] if operation is RECORD_MANY or operation is _REMAINDER else 1
            if self._totals is None:
                continue
            before = retained.get(one, one.retained if one.epoch else None)
            if operation is GONE:
                room += before is True
                retained[one] = None
            elif before is not True:
                # As in `Totals.admit`.
                admitted = room > 0
                retained[one] = admitted
                room -= admitted
                refused += before is None and not admitted
        waiting = self._waiting + (events if self.streaming else 0)
        counts = Counts(self._recorded + events, self._dropped, waiting)
        return Figures(counts, self.retained + room_now - room, self.refused + refused)

    def copy_totals(self) -> CopiedTotals:
        """
        Copy the totals and the log.  `CopiedTotals.applied` combines the copies without the lock.
        """
        if self._totals is None:
            return CopiedTotals({}, {}, {}, deque(), 0)
        retained = {series: series.total for series in self._totals.since(0)}
        # Copying a deque is atomic; iterating over it is not.
        entries = self._log.copy()
        others = {series: series.total for series, *_ in entries if not series.retained}
        return CopiedTotals(retained, others, self._copy_samples(0), entries, self._totals.room)

    def start_streaming(self) -> None:
        """Begin to buffer events; the first client has connected."""
        # Events recorded without clients change only the totals.
        self._apply_all_without_clients()
        self._repeats = REPEATS
        if self._totals is not None:
            self._totals.forget_released()
        self.streaming = True

    def stop_streaming(self) -> None:
        """Stop buffering, and discard pending events; no clients are left."""
        self.streaming = False
        self._ready.clear()
        self._waiting = 0
        self._dropped_since = self._unfinished = None
        self._failure = None

    def more(self) -> bool:
        """Return whether `take` would return a batch or a marker.  Needs no lock."""
        return self.streaming and bool(self._ready or self._log)

    def take(self) -> Taken:
        """
        Return the next events: at most `BATCH`, up to the next marker, in the order of the log.

        Drops nothing: events beyond one batch remain in the log.
        """
        ready = self._ready
        batch: Batch | None = None
        marker: Marker | None = None
        if self.streaming and self._log and not ready:
            self._apply()
        if ready and isinstance(first := ready[0], Batch):
            batch = first
            ready.popleft()
            self._waiting -= batch.size
        if ready and isinstance(first := ready[0], Marker):
            marker = first
            ready.popleft()
        if not ready:
            # Corrects the count if an exception occurred between adding a batch and counting it.
            self._waiting = 0
        epochs = [one for one in (self._dropped_since, self._unfinished) if one is not None]
        dropped_since = min(epochs, default=None)
        self._dropped_since = self._unfinished = None
        failure, self._failure = self._failure, None
        return Taken(batch, dropped_since, marker, failure)

    def mark(self, since: int) -> Marker:
        """
        Copy the totals, and queue them as a marker after all pending events.  `take` returns the
        marker at the position where these totals are exact.

        @param since: copy only series that changed in this epoch or later.
        @return: the marker that `take` will return.
        """
        pending = self._first_pending()
        if pending is not None:
            # A client may drop pending events before it reaches the marker.
            since = min(since, pending)
        if self._totals is not None and since <= self._totals.gone_epoch:
            # The client may have missed that a series is gone.  A complete snapshot shows it.
            since = 0
        epoch, made = self._last_complete
        snapshot = made() if since == 0 and epoch == self._epoch else None
        if snapshot is None:
            series = [] if self._totals is None else self._totals.since(since)
            totals = [one.total for one in series]
            samples = self._copy_samples(since)
            snapshot = TotalsSnapshot(series, totals, samples, self._clock(), complete=since == 0)
            if since == 0:
                self._last_complete = self._epoch, ref(snapshot)
        marker = Marker(self.counts(), snapshot)
        self._ready.append(marker)
        return marker

    def release_idle(self, now: float) -> bool:
        """
        Release series that have not changed for a time, and stream that they are gone.  While
        clients are connected, release at most `RELEASED_AT_ONCE` series, so that the events of all
        of them fit into a buffer.

        @param now: seconds, on a monotonic clock.
        @return: whether more series are left to release.
        """
        if self._totals is None:
            return False
        if not self.streaming:
            # Without clients, no drain applies the log.
            self._apply_all_without_clients()
        idle = self._totals.idle(now, self._epoch)
        limit = len(idle)
        if self.streaming:
            limit = RELEASED_AT_ONCE
            if self._buffer_size is not None:
                limit = min(limit, max(0, self._buffer_size - self._waiting))
        gone = idle[:limit]
        if gone:
            # So that nothing keeps a series whose handles have been discarded.
            self._add_samples(max(series.epoch for series in gone), len(self._sampled))
            stamp = self._clock()
            epoch = self._begin_epoch()
            for series in gone:
                self._totals.release(series, epoch)
            if self.streaming:
                self._recorded += len(gone)
                self._encode([(series, GONE, 0, stamp) for series in gone], len(gone), epoch)
            self._unfinished = None
        return len(idle) > limit

    def apply(self) -> None:
        """Apply a part of the log.  Drop and count the newest events if the buffer is full."""
        if not self.streaming:
            self._apply_without_clients()
        elif self._buffer_size is None:
            self._apply()
        else:
            self._apply(max(0, self._buffer_size - self._waiting))

    def _apply(self, room: int | None = None) -> None:
        """
        Take at most `BATCH` entries from the log, apply them to the totals, and encode those that
        fit into the buffer.

        @param room: the number of events that fit into the buffer; None for no limit.  Events that
            are taken and do not fit are dropped and counted.
        """
        log = self._log
        epoch = self._begin_epoch()
        size = min(len(log), BATCH)
        todo = repeat((), size)
        drops = room is not None and room <= BATCH
        limit = room if room is not None and drops else BATCH
        kept: list[Entry] = []
        keep = kept.append
        # `applied` counts entries.  An entry may hold several events: `more` counts all but one.
        applied = more = merges = 0
        keeps_totals = self.keeps_totals
        try:
            # Every step of this loop is performance-critical: see
            # docs/contributing/performance.md.
            for entry in starmap(log.popleft, todo):
                series, operation, value, stamp = entry
                # `_first_in_epoch` stores this int object, so the faster identity test suffices.
                if series.epoch is not epoch and operation is not GONE:
                    total = self._first_in_epoch(series, epoch, stamp)
                    if total is not None:
                        more += 1
                        keep(total)
                if operation is _INCREMENT_COUNTER:
                    series.total += value
                elif operation in APPLY:
                    series.total = APPLY[operation](series.total, value)
                elif operation is _RECORD_HISTOGRAM:
                    if keeps_totals:
                        series.samples.append(value)
                elif operation is GONE:
                    self._forget(series, epoch)
                elif operation is MERGE_HISTOGRAM:
                    merges += 1
                    if merges == MERGES and not drops:
                        # Further entries stay in the log.
                        excess = length_hint(todo)
                        size -= excess
                        next(islice(todo, excess, excess), None)
                    # The total at this position of the stream.
                    series.add_samples()
                    merged = Distribution.merge((series.total, value))
                    entry = TotalFrame(series.frame, merged), GONE, 0, stamp
                    series.total = merged
                else:
                    sample, count = value
                    allowed = count
                    if count > FREE_REPEATS and operation is RECORD_MANY and not drops:
                        allowed = min(count, FREE_REPEATS + self._repeats)
                        self._repeats -= allowed - FREE_REPEATS
                    left = limit - len(kept)
                    fitting = min(allowed - 1, max(0, left - 1))
                    rest = 0 if drops else allowed - 1 - fitting
                    if not drops:
                        # Entries that would exceed the limit stay in the log.
                        excess = max(0, length_hint(todo) - max(0, left - 1 - fitting))
                        size -= excess
                        next(islice(todo, excess, excess), None)
                    # Before anything changes: these lines may exhaust memory.
                    sent = series, _RECORD_HISTOGRAM, sample, stamp
                    remainder = series, _REMAINDER, (sample, rest), stamp
                    events = more + count - 1 - rest
                    total = series.total
                    if keeps_totals:
                        total = total.with_repeated(sample, count - rest)
                    kept.extend(repeat(sent, fitting))
                    if rest:
                        log.appendleft(remainder)
                    series.total, entry, more = total, sent, events
                applied += 1
                keep(entry)
            if not log:
                self._repeats = REPEATS
        except MemoryError as error:
            # The entry that failed is applied in the next epoch.  A traceback would keep all local
            # variables alive.
            self._failure = error.with_traceback(None)
            if size - length_hint(todo) > applied:
                log.appendleft(entry)
        finally:
            # Only `_encode` may exhaust memory here, or events would not be counted.
            encoded = limit if drops and len(kept) > limit else len(kept)
            if encoded:
                self._encode(kept, encoded, epoch)
            recorded = applied + more
            self._recorded += recorded
            if recorded > encoded:
                self._drop(recorded - encoded, epoch)
        self._add_samples(epoch - EPOCHS, ceil(len(self._sampled) / EPOCHS))
        self._unfinished = None

    def _begin_epoch(self) -> int:
        if self._dropped_since is None:
            self._dropped_since = self._unfinished
        self._unfinished = self._epoch = self._epoch + 1
        return self._epoch

    def _apply_without_clients(self) -> None:
        """
        Apply events to the totals only, while no clients are connected.

        Separate from `_apply` for speed: without clients, recording costs little else.
        """
        log = self._log
        epoch = self._epoch = self._epoch + 1
        size = min(len(log), BATCH)
        todo = repeat((), size)
        more = 0
        increment_counter, apply = _INCREMENT_COUNTER, APPLY
        keeps_totals = self.keeps_totals
        try:
            for series, operation, value, _stamp in starmap(log.popleft, todo):
                if series.epoch is not epoch and operation is not GONE:
                    self._first_in_epoch(series, epoch, 0)
                if operation is increment_counter:
                    series.total += value
                elif operation in apply:
                    series.total = apply[operation](series.total, value)
                elif operation is _RECORD_HISTOGRAM:
                    if keeps_totals:
                        series.samples.append(value)
                elif operation is GONE:
                    self._forget(series, epoch)
                elif operation is MERGE_HISTOGRAM:
                    series.total = Distribution.merge((series.total, value))
                else:
                    events = more + value[1] - 1
                    if keeps_totals:
                        series.total = series.total.with_repeated(*value)
                    more = events
        except MemoryError as error:
            # As in `_apply`, the entry that failed has not been applied.
            self._failure = error.with_traceback(None)
            log.appendleft((series, operation, value, _stamp))
            more -= 1
        finally:
            self._recorded += size - length_hint(todo) + more
        self._add_samples(epoch - EPOCHS, ceil(len(self._sampled) / EPOCHS))

    def _apply_all_without_clients(self) -> None:
        """Apply all entries that are in the log now; other threads may continue to append."""
        for _ in range(0, len(self._log), BATCH):
            self._apply_without_clients()

    def _encode(self, entries: list[Entry], size: int, epoch: int) -> None:
        """Encode the first C{size} entries.  Drop and count them if memory is exhausted."""
        try:
            frames = self._encoder.encode(entries[:size])
            self._ready.append(Batch(frames, epoch, entries[0][3]))
        except MemoryError as error:
            self._failure = error.with_traceback(None)
            self._drop(size, epoch)
        else:
            self._waiting += len(frames)

    def _drop(self, events: int, epoch: int) -> None:
        self._dropped += events
        if self._dropped_since is None:
            self._dropped_since = epoch

    def _forget(self, series: StreamedSeries, epoch: int) -> None:
        """Release a series, so that it begins again at zero."""
        if self._totals is not None:
            self._totals.release(series, epoch)
        series.reset()

    def _add_samples(self, until: int, most: int) -> None:
        """
        Add samples of epochs up to C{until} to the totals of at most C{most} histograms; later if
        memory is exhausted.
        """
        sampled = self._sampled
        try:
            for _ in range(most):
                if sampled[0][0] > until:
                    break
                sampled[0][1].add_samples()
                sampled.popleft()
        except MemoryError as error:
            self._failure = error.with_traceback(None)

    def _copy_samples(self, since: int) -> dict[StreamedSeries, list[float]]:
        """Copy the samples that are not in the totals of series that changed since an epoch."""
        return {one: one.samples.copy() for _, one in self._sampled if one.epoch >= since}

    def _first_pending(self) -> int | None:
        """Return the epoch of the first pending batch, or None."""
        return next((one.since for one in self._ready if isinstance(one, Batch)), None)

    def _first_in_epoch(self, series: StreamedSeries, epoch: int, stamp: int) -> Entry | None:
        """
        Prepare a series for its first change in an epoch, and retain it if possible.

        @return: an event that sets the total of the series, if it has to be sent before the change.
            Clients that connected while the series was not retained do not know its total; other
            clients may know an outdated one.
        """
        # Within an epoch, totals of counters may exceed 64 bits; this wraps them.
        total = series.total
        if type(total) is int and total > U64_MAX:
            series.total = wrapped(total)
        elif type(total) is Distribution and self._totals is not None:
            if not series.retained and self._totals.room > 0:
                # The total may be sent below.
                series.add_samples()
            if not series.samples:
                self._sampled.append((epoch, series))
        # First, so that a resync after an interrupt includes the series.
        before, series.epoch = series.epoch, epoch
        if not series.retained and self._totals is not None:
            self._totals.admit(series, first=before == 0)
            if series.retained if before else self._totals.may_be_known(series):
                if type(total) is Distribution:
                    return TotalFrame(series.frame, series.total), GONE, 0, stamp
                return series, SET_OPERATION[series.key.kind], series.total, stamp
        return None
