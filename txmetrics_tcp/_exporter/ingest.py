"""
The incoming side of an exporter: all that recording threads share with the reactor thread.

The way of an event through it::

    a handle appends it to `log`         any thread; deque.append is atomic, and nothing waits
    the ledger applies it to its total,  under the lock: the reactor thread, or a recording
      and encodes it, or drops it         thread that finds the log too long
    `take` hands it on, in a batch       reactor thread

The order in the log decides.  Only the ledger counts, so no count is lost to a race; and a total is
right whether or not its events found room.

Any thread, at any moment, may append to `log`, read the flags, and call `notify`, `wake` and
`describe`; also re-entrantly, since a signal handler or a finalizer may record while the same
thread records or applies events.  All else of the ledger is for the thread that holds the lock.  It
holds it for one epoch of at most `BATCH` events or one copy of the totals, and calls nothing else
meanwhile: entries hold plain ints and floats.

An exception at any line (Ctrl-C in a notebook, a signal handler that raises) must not stop the
stream.  So no latch alone decides whether the reactor drains: if `wake_threshold` says that a
wake-up is pending and none is, the exporter's tick drains a second later.

When the interpreter ends, its other threads no longer run, whatever lock they held.  Finalizers
that record or look at totals even then wait for no lock, and apply nothing.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadable import isInIOThread

from txmetrics_tcp._codec.wire import encode_metadata
from txmetrics_tcp._exporter.ledger import Counts, Ledger, Marker, Taken
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals
from txmetrics_tcp._instruments.sink import Entry, Sink
from txmetrics_tcp._model import Key, Metadata, MetricKind, Number

LOG_LIMIT = 1024
"""The length that the log may reach before recording threads apply events themselves."""

WAIT = 0.000_5
WAITS = 100
"""
How often, and for how many seconds each time, a recording thread waits for the one that applies
events, when the log is four times too long.  An epoch takes less than one of them.
"""

_T = TypeVar("_T")


class Incoming(Sink):
    """
    Takes events from any thread, and keeps them until the reactor thread takes them.

    With a bounded buffer, at most C{buffer_size} events are pending, and beside them what is in the
    log: the buffer size, at most `LOG_LIMIT`, as a rule; four times that while another thread holds
    the lock.

    @ivar ledger: what applies events; to be called under the lock.
    @ivar wake_requested_at: when the pending wake-up of the reactor was requested, or the last
        one if none is pending, on the clock `monotonic`.
    """

    __slots__ = (
        "_at_once",
        "_described",
        "_holder",
        "_in_reactor_thread",
        "_limit",
        "_lock",
        "_reactor",
        "_registry",
        "_relieving",
        "_stopped",
        "_wake_up",
        "_wanted",
        "ledger",
        "monotonic",
        "wake_requested_at",
    )

    log: deque[Entry]

    def __init__(
        self,
        reactor: IReactorFromThreads,
        buffer_size: int | None,
        wanted: Callable[[], object],
        totals: Totals | None = None,
        *,
        at_once: Callable[[], bool],
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        in_reactor_thread: Callable[[], bool] = isInIOThread,
    ) -> None:
        """
        @param buffer_size: how many events may be pending; None for no limit.
        @param wanted: called on the reactor thread when there is something to take.
        @param at_once: called within a record on the reactor thread, when events have to be taken
            now or be dropped; tells whether they were.
        @param totals: which series are retained; None for none, and then nothing is recorded
            while no clients are connected.
        @param clock: nanoseconds since the epoch.
        @param monotonic: seconds, on a clock that does not jump.
        """
        # How long the log may become.  `wake_threshold` equals it while a wake-up is pending or
        # none is needed, and is -1 while the next event must wake the reactor: a handle compares
        # once for both.
        self._limit = LOG_LIMIT if buffer_size is None else min(buffer_size, LOG_LIMIT)
        super().__init__(deque(), self._limit, clock)
        self._reactor = reactor
        self._wanted = wanted
        self._at_once = at_once
        self._in_reactor_thread = in_reactor_thread
        self.monotonic = monotonic
        self.wake_requested_at: float | None = None
        self.ledger = Ledger(self.log, buffer_size, totals, clock)
        self._lock = threading.RLock()
        # The thread that holds the lock.
        self._holder: int | None = None
        # The threads that apply events because they record, or wait for their turn to.
        self._relieving: set[int] = set()
        self._described: dict[tuple[MetricKind, str], bytes] = {}
        self._registry = SeriesRegistry(self)
        self._stopped = False
        self._wake_up: object = None
        self.stop_streaming()

    # Any thread.

    def series(self, key: Key) -> StreamedSeries:
        """The one series of a key, for as long as anything refers to it or it is retained."""
        return self._registry.find_or_make(key)

    def describe(self, metadata: Metadata) -> None:
        """Keep a description until the reactor thread takes it; none is ever dropped."""
        # Encoded here, so that one that cannot be is rejected at the call.
        self._described[metadata.kind, metadata.name] = encode_metadata(metadata)
        self.wake()

    def notify(self) -> None:
        """Wake the reactor if that is not pending, and apply events if the log is long."""
        self.wake()
        if len(self.log) <= self._limit or self._holder == threading.get_ident():
            # Or whatever this thread does under the lock goes on first.
            return
        if self.ledger.streaming and self._in_reactor_thread() and self._at_once():
            # The reactor, busy with the caller, could not have come; and events that can be
            # delivered are not dropped.
            return
        self._relieve()

    def wake(self) -> None:
        """
        Have the reactor thread take what there is, unless that is pending or no client wants it.
        """
        if self.wake_threshold >= 0:
            return
        try:
            self.wake_threshold = self._limit
            self.wake_requested_at = self.monotonic()
            # Of several wake-ups that are pending, the last counts.
            self._wake_up = wake_up = object()
            try:
                self._reactor.callFromThread(self._woken, wake_up)
            except Exception:
                # A reactor that is gone (a closed asyncio loop raises) must not become an error
                # of the caller.  The buffer is bounded all the same.
                self.rearm()
        except BaseException:
            # The reactor may not know.
            self.rearm()
            raise

    def counts(self) -> Counts:
        """How many events went which way, so far."""
        return self._held(self.ledger.counts)

    def snapshot(self) -> dict[Key, Number]:
        """The total of every retained series, with all that has been recorded.  Changes nothing."""
        return self._held(self.ledger.snapshot)

    # Reactor thread.

    def start_streaming(self) -> None:
        """A client connects: from now on events are stamped and kept, and wake the reactor."""
        if self._stopped:
            return
        if not self.ledger.streaming:
            self._held(self.ledger.start_streaming)
        self.stamped = True
        self.open = True
        self.rearm()

    def stop_streaming(self) -> None:
        """No client is there any longer: pending events are forgotten, but not in the totals."""
        self._held(self.ledger.stop_streaming)
        self.open = self.ledger.keeps_totals and not self._stopped
        self.stamped = False
        self.rearm()

    def stop(self) -> None:
        """Take no more events; those that are in already can still be taken."""
        self._stopped = True
        self.open = False

    def restart(self) -> None:
        """Take events again."""
        self._stopped = False
        self.open = self.ledger.streaming or self.ledger.keeps_totals

    def after_fork(self, silence: bool) -> None:
        """
        This is a child process now.

        @param silence: take no events from now on, since the clients are the parent's.
        """
        # The lock may have been held by a thread that does not exist here.
        self._lock = threading.RLock()
        self._registry.renew_lock()
        self._holder = None
        self._relieving.clear()
        if silence:
            self.stop()
            self.stop_streaming()
            self.log.clear()

    def take_described(self) -> dict[tuple[MetricKind, str], bytes]:
        """The descriptions that came since the last call, encoded."""
        # Those of now: another thread may go on describing.  To copy the keys is atomic.
        return {name: self._described.pop(name) for name in list(self._described)}

    def take(self) -> Taken:
        """See `Ledger.take`."""
        return self._held(self.ledger.take)

    def mark(self, since: int) -> Marker:
        """See `Ledger.mark`."""
        return self._held(self.ledger.mark, since)

    def forget_idle(self, now: float, needed: int | None = None) -> None:
        """See `Ledger.forget_idle`."""
        self._held(self.ledger.forget_idle, now, needed)

    def more(self) -> bool:
        """Whether `take` would give something."""
        return self.ledger.more()

    def rearm(self) -> None:
        """
        Let the next event wake the reactor.  To be called before taking, so that none is missed.
        """
        self.wake_threshold = -1 if self.ledger.streaming else self._limit

    # Inside.

    def _woken(self, wake_up: object) -> None:
        if wake_up is self._wake_up:
            self._wanted()

    def _relieve(self) -> None:
        """Apply events on a recording thread."""
        this = threading.get_ident()
        holder = self._holder
        # A thread that is only a little over the threshold need not wait for another that applies
        # events already.  And one that waits for its turn does not wait once more for what a
        # signal handler records meanwhile: handlers that come faster than the lock is free would
        # stand on one another until there is no stack left.
        if holder is not None and len(self.log) <= 4 * self._limit:
            return
        if this in self._relieving or sys.is_finalizing():
            return
        try:
            self._relieving.add(this)
            if holder is None or self._comes_free():
                self._held(self.ledger.apply)
        finally:
            self._relieving.discard(this)

    def _comes_free(self) -> bool:
        """
        Wait for another thread that holds the lock; but not indefinitely: under the lock, a
        finalizer may wait for something that this thread holds.
        """
        for _ in range(WAITS):
            if self._holder is None:
                return True
            time.sleep(WAIT)
        return False

    def _held(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function while no other thread, nor this one re-entrantly, applies events."""
        with unless_finalizing(self._lock):
            holder = self._holder
            try:
                self._holder = threading.get_ident()
                return function(*args)
            finally:
                self._holder = holder


class SeriesRegistry:
    """
    The one series of each key, for as long as anything refers to it or it is retained.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._series: dict[Key, weakref.ref[StreamedSeries]] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        """In a child after a fork: the thread that held the lock may not exist here."""
        # A lock of its own: a thread that asks for a series must not wait for one that applies
        # events, in which a finalizer may wait for the thread that asks.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._series)

    def find_or_make(self, key: Key) -> StreamedSeries:
        """The series of a key.  May be called from any thread."""
        found = self._find(key)
        if found is not None:
            return found
        made = StreamedSeries(key, self._sink)
        with unless_finalizing(self._lock):
            # Another thread, or a finalizer in this one, may have been here meanwhile.
            found = self._find(key)
            if found is None:
                self._series[key] = weakref.ref(made, self._remover(key))
                found = made
        return found

    def _find(self, key: Key) -> StreamedSeries | None:
        reference = self._series.get(key)
        return None if reference is None else reference()

    def _remover(self, key: Key) -> Callable[[weakref.ref[StreamedSeries]], None]:
        def remove(reference: weakref.ref[StreamedSeries]) -> None:
            with unless_finalizing(self._lock):
                if self._series.get(key) is reference:
                    del self._series[key]

        return remove


def unless_finalizing(lock: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """A lock; once the interpreter ends, nothing, since a thread may be gone that held it."""
    return nullcontext() if sys.is_finalizing() else lock
