"""
The incoming side of an exporter: all that recording threads share with the reactor thread.

The way of an event through it::

    a handle appends it to `log`       any thread; deque.append is atomic, and nothing waits
    folding takes it from the log,     under the lock: by the reactor thread, or by a
      applies it to its series' total  recording thread that notices that the log is long
      and encodes it                   or drops and counts it, when too many wait already
    it waits in `_ready`, in a batch
    `take` hands the batch on          reactor thread

Order in the log is the order of truth.  Only folding counts, so no count is lost to a race; and
a total is right whether or not its events found room.

Events are encoded where they are folded, and not later on the reactor thread: what waits is then a
few bytes objects, and not a million tuples for the garbage collector to go through again and
again; and who records faster than can be sent does the work himself.

Who may touch what:

- any thread, at any moment, in the middle of anything (a signal handler or a finalizer may
  record while the same thread records, or folds): appends to `log`, reads the flags, calls
  `nudge` and `describe`;
- who holds the lock: everything else.  It is held for one fold of at most `BATCH` events or one
  copy of the totals, and nothing foreign is called under it: entries hold plain ints and floats.

When the interpreter ends, its other threads are no more, whatever lock they held.  Finalizers that
record or look at totals even then do not wait for them, and fold nothing: nobody would take it.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import repeat, starmap
from operator import length_hint
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadable import isInIOThread

from txmetrics_tcp._codec.encoder import Encoder
from txmetrics_tcp._codec.wire import encode_metadata
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.settings import check_buffer_size
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals, overlay
from txmetrics_tcp._instruments.sink import RECORD_MANY, Entry, Sink
from txmetrics_tcp._model import APPLY, SET_OPERATION, Key, Metadata, MetricKind, Number, Operation

BATCH = 1024
"""
The most events that one fold or one `take` handles, so that neither the lock nor the reactor is
held for long.
"""

MAX_SLACK = 1024
"""The length that the log may reach before recording threads fold it themselves."""

FREE_REPEATS = 100
REPEATS = 50_000
"""
Of each call of `Histogram.record_many`, C{FREE_REPEATS} samples are streamed like any other events;
beyond that, C{REPEATS} for all calls together, until the log has been empty again.  The rest is
dropped and counted: events behind a count of a billion would otherwise wait for an hour.
"""

_REST: Any = object()
"""In an `Entry`, stands for the part of a `RECORD_MANY` that is for later batches."""

WAIT = 0.000_5
WAITS = 100
"""
How often, and for how many seconds each time, a recording thread waits for the fold of another
when the log is four times too long.  A fold takes less than one of them.
"""

_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM


def earliest(folds: Iterable[int | None]) -> int | None:
    """The smallest number of a fold, of those that are known; None if none is."""
    return min((fold for fold in folds if fold is not None), default=None)


class Counts(NamedTuple):
    """
    What had happened to events at one moment, on the incoming side.

    @ivar recorded: events taken out of the log.
    @ivar dropped: those of them that found no room to wait.
    @ivar waiting: those of them that wait for the reactor.
    """

    recorded: int
    dropped: int
    waiting: int


class Mark(NamedTuple):
    """
    The truth at one position of the stream.

    @ivar counts: what had happened until then.
    @ivar totals: the series that changed since what was asked for, each with its total there and
        the number of the fold that changed it last.
    @ivar timestamp_ns: when that was.
    """

    counts: Counts
    totals: list[tuple[StreamedSeries, Number, int]]
    timestamp_ns: int


class Taken(NamedTuple):
    """
    What the reactor takes at once.

    @ivar batch: the next events, if there are any.
    @ivar dropped_since: the number of the fold in which the first events were dropped since the
        last call, if any were.
    @ivar mark: the mark that stands right behind the batch, if one does.
    @ivar failure: what was raised since the last call for want of memory.  The events that could
        not be handled are among those that were dropped.
    """

    batch: Batch | None
    dropped_since: int | None
    mark: Mark | None
    failure: MemoryError | None = None


class Incoming(Sink):
    """
    Takes events from any thread, and keeps them until the reactor thread takes them.

    With a bounded buffer, at most C{buffer_size} events wait, and beside them what is in the
    log: the buffer size, at most `MAX_SLACK`, as a rule; four times that while
    another thread holds the lock.

    @ivar woken_at: since when the reactor is to come, or was when it last came, on the clock
        `monotonic`.
    """

    __slots__ = (
        "_at_once",
        "_buffer_size",
        "_described",
        "_dropped",
        "_dropped_since",
        "_encoder",
        "_epoch",
        "_failure",
        "_folder",
        "_in_reactor_thread",
        "_limit",
        "_lock",
        "_reactor",
        "_ready",
        "_recorded",
        "_relieving",
        "_repeats",
        "_series",
        "_series_lock",
        "_stopped",
        "_streaming",
        "_totals",
        "_waiting",
        "_wanted",
        "monotonic",
        "woken_at",
    )

    log: deque[Entry]

    def __init__(
        self,
        reactor: IReactorFromThreads,
        buffer_size: int | None,
        wanted: Callable[[], object],
        totals: Totals | None = None,
        *,
        at_once: Callable[[], bool] | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        in_reactor_thread: Callable[[], bool] = isInIOThread,
    ) -> None:
        """
        @param wanted: called on the reactor thread when there is something to take.
        @param at_once: called in the middle of a record on the reactor thread, when it has to be
            taken now or be dropped; tells whether it was.
        @param totals: which series are retained; None for none, and then nothing is recorded
            while nobody listens.
        @param clock: nanoseconds since the epoch.
        @param monotonic: seconds, on a clock that does not jump.
        """
        check_buffer_size(buffer_size)
        # How long the log may become. `slack` is the same while a wake-up is pending or none is
        # wanted, and -1 while the next event is to wake the reactor: so a handle looks at
        # one thing for both.
        self._limit = MAX_SLACK if buffer_size is None else min(buffer_size, MAX_SLACK)
        super().__init__(deque(), self._limit, clock)
        self._reactor = reactor
        self._buffer_size = buffer_size
        self._wanted = wanted
        self._at_once = at_once
        self.monotonic = monotonic
        self.woken_at: float | None = None
        self._in_reactor_thread = in_reactor_thread
        self._lock = threading.RLock()
        # The thread that folds, or does something else that nobody may fold in the middle of.
        self._folder: int | None = None
        # The threads that fold because they record, or wait for their turn to.
        self._relieving: set[int] = set()
        self._epoch = 0
        self._encoder = Encoder(clock)
        self._ready: deque[Batch | Mark] = deque()
        # How many events are in there.
        self._waiting = 0
        self._recorded = 0
        self._dropped = 0
        self._dropped_since: int | None = None
        self._failure: MemoryError | None = None
        # How many of `REPEATS` are left.
        self._repeats = REPEATS
        self._totals = totals
        self._described: dict[tuple[MetricKind, str], bytes] = {}
        # A lock of its own: who asks for a series must not wait for a fold, in the middle of which
        # the garbage collector may have called a finalizer that waits for who asks.
        self._series_lock = threading.RLock()
        self._series: dict[Key, weakref.ref[StreamedSeries]] = {}
        self._streaming = False
        self._stopped = False
        self.stop_streaming()

    # Any thread.

    def series(self, key: Key) -> StreamedSeries:
        """The one series of a key, for as long as anybody has it or it is retained."""
        found = self._find(key)
        if found is not None:
            return found
        made = StreamedSeries(key, self)
        with _unless_over(self._series_lock):
            # Another thread, or a finalizer in this one, may have been here meanwhile.
            found = self._find(key)
            if found is None:
                self._series[key] = weakref.ref(made, self._forget(key))
                found = made
        return found

    def describe(self, metadata: Metadata) -> None:
        """Keep a description until the reactor thread takes it; none is ever dropped."""
        # Encoded here, so that one that cannot be is refused at the call.
        self._described[metadata.kind, metadata.name] = encode_metadata(metadata)
        if self.slack < 0:
            self._wake()

    def nudge(self) -> None:
        """Wake the reactor if nobody has, and fold if the log is long.  See `Sink.nudge`."""
        if self.slack < 0:
            self._wake()
        if len(self.log) <= self._limit:
            return
        at_once = self._at_once
        if self._streaming and at_once is not None and self._in_reactor_thread() and at_once():
            # The reactor could not come round to it, busy as it is with who records right now;
            # and what can be delivered is not dropped.
            return
        self._relieve()

    def counts(self) -> Counts:
        """How many events went which way, so far."""
        with _unless_over(self._lock):
            return Counts(self._recorded, self._dropped, self._waiting)

    def snapshot(self) -> dict[Key, Number]:
        """The total of every retained series, with all that has been recorded.  Changes nothing."""
        if self._totals is None:
            return {}
        with self._held():
            totals = {series: total for series, total, _epoch in self._totals.since(0)}
            # Copying a deque is atomic; iterating over it is not.
            entries = self.log.copy()
            room = self._totals.room
        return {series.key: total for series, total in overlay(totals, entries, room).items()}

    # Reactor thread.

    def start_streaming(self) -> None:
        """Somebody listens: from now on events are stamped, kept, and the reactor is woken."""
        if self._streaming or self._stopped:
            return
        with self._held():
            # What was recorded while nobody listened belongs to the totals alone.
            self._fold_all_unheard()
            self._repeats = REPEATS
            if self._totals is not None:
                self._totals.first_client()
            self._streaming = True
            self.stamped = True
            self.open = True
            self.rearm()

    def stop_streaming(self) -> None:
        """Nobody listens any more: what waits is forgotten, but for what it means to totals."""
        with self._held():
            self.open = self._totals is not None and not self._stopped
            self._streaming = False
            self.stamped = False
            self.do_not_wake()
            self._ready.clear()
            self._waiting = 0
            self._dropped_since = None
            self._failure = None

    def stop(self) -> None:
        """Take no more events; those that are in already can still be taken."""
        self._stopped = True
        self.open = False

    def after_fork(self, silence: bool) -> None:
        """
        This is a child process now.

        @param silence: take no events for ever, since those who listened are the parent's.
        """
        # The lock may have been held by a thread that does not exist here.
        self._lock = threading.RLock()
        self._series_lock = threading.RLock()
        self._folder = None
        self._relieving.clear()
        if silence:
            self.stop()
            self.stop_streaming()
            self.log.clear()

    def restart(self) -> None:
        """Take events again."""
        self._stopped = False
        self.open = self._streaming or self._totals is not None

    def take_described(self) -> dict[tuple[MetricKind, str], bytes]:
        """The descriptions that came since the last call, encoded."""
        # Those of now: another thread may go on describing.  To copy the keys is atomic.
        return {name: self._described.pop(name) for name in list(self._described)}

    def take(self) -> Taken:
        """
        The next events, at most `BATCH` and up to the next mark, in the order of the log.

        Nothing is dropped here: the reactor thread takes from the log as much as it can handle
        now, and leaves the rest there.
        """
        batch: Batch | None = None
        mark: Mark | None = None
        with self._held() as free:
            ready = self._ready
            if free and not ready and self._streaming:
                self._fold()
            if ready and isinstance(first := ready[0], Batch):
                batch = first
                ready.popleft()
                self._waiting -= batch.size
            if ready and isinstance(first := ready[0], Mark):
                mark = first
                ready.popleft()
            if not ready:
                # So it is; it may have been off by what a signal handler that raised kept from
                # being done.
                self._waiting = 0
            dropped_since, self._dropped_since = self._dropped_since, None
            failure, self._failure = self._failure, None
        return Taken(batch, dropped_since, mark, failure)

    def mark(self, since: int) -> Mark:
        """
        Copy the totals, to be handed over by `take` where they are true: behind all that waits.

        @param since: of the series that changed in the fold of that number, or later.
        @return: what `take` will hand over.
        """
        with self._held():
            pending = self._first_pending()
            if pending is not None:
                # The client may not come to take what goes before the mark.
                since = min(since, pending)
            totals = [] if self._totals is None else self._totals.since(since)
            mark = Mark(self.counts(), totals, self.clock())
            self._ready.append(mark)
        return mark

    def forget_idle(self, now: float, needed: int | None = None) -> None:
        """
        Let go of the series that have not changed for long.

        @param now: in seconds, on a clock that does not jump.
        @param needed: the number of the first fold of which a client may still need totals.
        """
        if self._totals is not None:
            with self._held():
                if not self._streaming:
                    # No drain comes to do it.
                    self._fold_all_unheard()
                needed = earliest([needed, self._dropped_since, self._first_pending()])
                self._totals.forget_idle(now, self._epoch, needed)

    @property
    def has_totals(self) -> bool:
        """Whether totals are retained."""
        return self._totals is not None

    @property
    def forgets(self) -> bool:
        """Whether series that do not change are forgotten: `forget_idle` is to be called then."""
        return self._totals is not None and self._totals.idle_after is not None

    @property
    def retained(self) -> int:
        """How many series are retained."""
        return 0 if self._totals is None else len(self._totals)

    @property
    def refused(self) -> int:
        """How many series found no room among the retained ones."""
        return 0 if self._totals is None else self._totals.refused

    def more(self) -> bool:
        """Whether `take` would give something."""
        return self._streaming and bool(self._ready or self.log)

    def rearm(self) -> None:
        """
        Let the next event wake the reactor.  To be called before taking, so that none is missed.
        """
        self.slack = -1 if self._streaming else self._limit

    def do_not_wake(self) -> None:
        """The reactor need not come: no event is to wake it."""
        self.slack = self._limit

    def will_come(self) -> None:
        """The reactor comes by itself: no event is to wake it, and it is as if one just had."""
        if self.slack < 0:
            self.do_not_wake()
            self.woken_at = self.monotonic()

    # Inside.

    def _wake(self) -> None:
        # Two threads that see the flag down at once wake the reactor twice: no harm.
        try:
            self.will_come()
            try:
                self._reactor.callFromThread(self._wanted)
            except Exception:
                # A reactor that is gone (a closed asyncio loop raises) must not become an error
                # of whoever counts something.  The bound on what waits holds all the same.
                self.rearm()
        except BaseException:
            # A signal handler that raises, say: the reactor may not know.
            self.rearm()
            raise

    def _relieve(self) -> None:
        """Fold on a recording thread: what finds no room is dropped, the newest first."""
        this = threading.get_ident()
        folder = self._folder
        # Who is only a little over the slack need not wait for a thread that folds already; and
        # what a finalizer or a signal handler records in the middle of this very thread's fold,
        # or of its waiting for one, need not wait for another: signals that come faster than the
        # lock is free would stand on one another until there is no stack left.
        if folder is not None and (folder == this or len(self.log) <= 4 * self._limit):
            return
        if this in self._relieving or sys.is_finalizing():
            return
        try:
            self._relieving.add(this)
            if folder is not None and not self._comes_free():
                return
            with self._held():
                if not self._streaming:
                    self._fold_unheard()
                elif self._buffer_size is None:
                    self._fold()
                else:
                    self._fold(max(0, self._buffer_size - self._waiting))
        finally:
            self._relieving.discard(this)

    def _comes_free(self) -> bool:
        """
        Wait for the fold of another thread; but not for ever: in the middle of it, a finalizer
        may wait for something that this thread holds.
        """
        for _ in range(WAITS):
            if self._folder is None:
                return True
            time.sleep(WAIT)
        return False

    @contextmanager
    def _held(self) -> Iterator[bool]:
        """
        See to it that nobody folds meanwhile: not even who records in the middle of this.

        @return: whether this thread did not hold it so already.
        """
        with _unless_over(self._lock):
            before = self._folder
            self._folder = threading.get_ident()
            try:
                yield before is None
            finally:
                self._folder = before

    def _fold(self, room: int | None = None) -> None:
        """
        Take at most `BATCH` entries from the log, apply them to the totals, and encode those for
        which there is room.

        The caller holds the lock.

        @param room: how many events have room; what exceeds it is dropped and counted, and what
            exceeds `BATCH` stays in the log.  None: there is room for all.
        """
        log = self.log
        epoch = self._epoch = self._epoch + 1
        size = min(len(log), BATCH)
        todo = repeat((), size)
        drops = room is not None and room <= BATCH
        left = room if room is not None and drops else BATCH
        kept: list[Entry] = []
        keep = kept.append
        # Entries that are in the totals, and how many events they are more than that.
        applied = more = 0
        try:
            # A loop whose every step counts: see docs/performance.md.
            for entry in starmap(log.popleft, todo):
                series, operation, value, stamp = entry
                # The very object, since each fold makes its own: quicker than to compare numbers.
                if series.epoch is not epoch:
                    said = self._first_in_fold(series, epoch, stamp)
                    if said is not None:
                        more += 1
                        if left > 0 or not drops:
                            keep(said)
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
            # What is not in the totals yet will be, with the next fold.  Without the traceback,
            # which holds all that is here.
            self._failure = error.with_traceback(None)
            if size - length_hint(todo) > applied:
                log.appendleft(entry)
        finally:
            recorded = applied + more
            self._recorded += recorded
            if recorded > len(kept):
                self._drop(recorded - len(kept), epoch)
            if kept:
                self._encode(kept, epoch)

    def _encode(self, entries: list[Entry], epoch: int) -> None:
        try:
            joined, ends = self._encoder.encode(entries)
            self._ready.append(Batch(joined, ends, epoch))
        except BaseException as error:
            # No memory, or a signal handler that raises, say.
            self._drop(len(entries), epoch)
            if not isinstance(error, MemoryError):
                raise
            self._failure = error.with_traceback(None)
        else:
            self._waiting += len(ends)

    def _drop(self, events: int, epoch: int) -> None:
        self._dropped += events
        if self._dropped_since is None:
            self._dropped_since = epoch

    def _fold_unheard(self) -> None:
        """
        Fold while nobody listens: for the totals alone.

        The same as `_fold` with nothing to keep, apart from it since this is all that recording
        costs in a program that nobody looks at.  The caller holds the lock.
        """
        log = self.log
        epoch = self._epoch = self._epoch + 1
        size = min(len(log), BATCH)
        todo = repeat((), size)
        more = 0
        increment_counter, apply = _INCREMENT_COUNTER, APPLY
        try:
            for series, operation, value, _stamp in starmap(log.popleft, todo):
                if series.epoch is not epoch:
                    self._first_in_fold(series, epoch, 0)
                if operation is increment_counter:
                    series.total += value
                elif operation in apply:
                    series.total = apply[operation](series.total, value)
                elif operation is RECORD_MANY or operation is _REST:
                    more += value[1] - 1
        except MemoryError as error:
            # As in `_fold`: what raises here has not been applied.
            self._failure = error.with_traceback(None)
            log.appendleft((series, operation, value, _stamp))
            more -= 1
        finally:
            # What is not to be done any more has been done.
            self._recorded += size - length_hint(todo) + more

    def _first_pending(self) -> int | None:
        """The number of the fold of the first batch that waits for the reactor."""
        return next((one.since for one in self._ready if isinstance(one, Batch)), None)

    def _fold_all_unheard(self) -> None:
        """Fold what is in the log now, though other threads may go on recording."""
        for _ in range(0, len(self.log), BATCH):
            self._fold_unheard()

    def _first_in_fold(self, series: StreamedSeries, epoch: int, stamp: int) -> Entry | None:
        """
        Something happens to a series for the first time in a fold.

        @return: an event to be said before it: who connected while the series was not retained
            does not know its value, and clients from before it expired know another.
        """
        said = None
        # Sums are let grow within a fold, and brought back to 64 bits here, in the next.
        series.total = series.value()
        if not series.retained and self._totals is not None:
            self._totals.admit(series)
            if series.retained if series.epoch else self._totals.may_be_known(series):
                said = (series, SET_OPERATION[series.key.kind], series.total, stamp)
        series.epoch = epoch
        return said

    def _find(self, key: Key) -> StreamedSeries | None:
        reference = self._series.get(key)
        return None if reference is None else reference()

    def _forget(self, key: Key) -> Callable[[weakref.ref[StreamedSeries]], None]:
        def forget(reference: weakref.ref[StreamedSeries]) -> None:
            with _unless_over(self._series_lock):
                if self._series.get(key) is reference:
                    del self._series[key]

        return forget


def _unless_over(lock: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """The lock, for as long as there may be somebody to wait for."""
    return nullcontext() if sys.is_finalizing() else lock
