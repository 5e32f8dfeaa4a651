"""
The incoming side of an exporter: everything that recording threads share with the reactor thread.

An event passes through it in three steps::

    a handle appends it to `log`        any thread; deque.append is atomic and takes no lock
    the ledger applies it to its total  under the lock; on the reactor thread, or on a recording
      and encodes or drops it             thread that finds the log too long
    `take` returns it in a batch        reactor thread

The log defines the order of events.  Only the ledger counts events, under the lock, so threads
cannot lose counts.  Totals are exact even if events are dropped.

Any thread may append to `log`, read the flags, and call `notify`, `wake` and `describe` at any
time.  These calls are re-entrant: a signal handler or a finalizer may record while the same thread
records or applies events.  All other ledger methods require the lock.  A thread holds it for one
epoch of at most `BATCH` events, or for one copy of the totals, and runs no foreign code meanwhile:
entries hold plain ints and floats.

An exception at any line (Ctrl-C in a notebook, a signal handler that raises) must not stop the
stream.  So no latch alone decides whether the reactor drains: if `wake_threshold` indicates a
pending wake-up and there is none, the exporter's tick drains a second later.

During interpreter shutdown, other threads no longer run, and may never release a lock.  So
finalizers that record or read totals then take no lock and apply no events.
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
"""The maximum length of the log before recording threads apply events themselves."""

WAIT = 0.000_5
WAITS = 100
"""
When the log exceeds four times its limit, a recording thread waits for the thread that applies
events: up to C{WAITS} times, for C{WAIT} seconds each.  One epoch takes less than C{WAIT}.
"""

_T = TypeVar("_T")


class Incoming(Sink):
    """
    Takes events from any thread, and holds them until the reactor thread takes them.

    With a bounded buffer, at most C{buffer_size} events are pending, in addition to the log.  The
    log normally holds up to C{buffer_size} events, at most `LOG_LIMIT`; up to four times as many
    while another thread holds the lock.

    @ivar ledger: applies events; requires the lock.
    @ivar wake_requested_at: the time of the last request to wake the reactor, on the clock
        C{monotonic}.
    """

    __slots__ = (
        "_applying",
        "_at_once",
        "_described",
        "_holder",
        "_in_reactor_thread",
        "_limit",
        "_lock",
        "_reactor",
        "_registry",
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
        @param buffer_size: the maximum number of pending events; None for no limit.
        @param wanted: called on the reactor thread when events are pending.
        @param at_once: called within a record on the reactor thread, when events must be taken now
            or dropped; returns whether they were taken.
        @param totals: the retained series.  If None, no series are retained, and nothing is
            recorded while no clients are connected.
        @param clock: nanoseconds since the epoch.
        @param monotonic: seconds, on a monotonic clock.
        """
        # The maximum length of the log.  `wake_threshold` has this value while a wake-up is pending
        # or none is needed, and -1 while the next event must wake the reactor.  So a handle makes
        # one comparison for both.
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
        # The id of the thread that holds the lock.
        self._holder: int | None = None
        # The ids of the recording threads that apply events or wait for the lock.
        self._applying: set[int] = set()
        self._described: dict[tuple[MetricKind, str], bytes] = {}
        self._registry = SeriesRegistry(self)
        self._stopped = False
        self._wake_up: object = None
        self.stop_streaming()

    # Any thread.

    def series(self, key: Key) -> StreamedSeries:
        """Return the only series of a key.  It lives while it is referenced or retained."""
        return self._registry.find_or_make(key)

    def describe(self, metadata: Metadata) -> None:
        """Queue a description for the reactor thread.  Descriptions are never dropped."""
        # Encoded here, so that an invalid description raises in the caller.
        self._described[metadata.kind, metadata.name] = encode_metadata(metadata)
        self.wake()

    def notify(self) -> None:
        """Wake the reactor if no wake-up is pending, and apply events if the log is too long."""
        self.wake()
        if len(self.log) <= self._limit or self._holder == threading.get_ident():
            # If this thread holds the lock, the epoch that this call interrupts continues first.
            return
        if self.ledger.streaming and self._in_reactor_thread() and self._at_once():
            # The caller keeps the reactor busy, so it could not have drained the log.
            return
        self._apply_in_this_thread()

    def wake(self) -> None:
        """
        Have the reactor thread take events, unless a wake-up is pending or no client is connected.
        """
        if self.wake_threshold >= 0:
            return
        try:
            self.wake_threshold = self._limit
            self.wake_requested_at = self.monotonic()
            # Of several pending wake-ups, only the last one counts.
            self._wake_up = wake_up = object()
            try:
                self._reactor.callFromThread(self._on_wake_up, wake_up)
            except Exception:
                # The caller must see no error if the reactor is gone: a closed asyncio loop raises.
                # The buffer remains bounded.
                self.rearm()
        except BaseException:
            # The wake-up may not have been scheduled.
            self.rearm()
            raise

    def counts(self) -> Counts:
        """Return the event counts of this moment."""
        return self._call_locked(self.ledger.counts)

    def snapshot(self) -> dict[Key, Number]:
        """Return the total of every retained series, including events that are still in the log."""
        return self._call_locked(self.ledger.snapshot)

    # Reactor thread.

    def start_streaming(self) -> None:
        """Stamp and buffer events, and let them wake the reactor: a client has connected."""
        if self._stopped:
            return
        if not self.ledger.streaming:
            self._call_locked(self.ledger.start_streaming)
        self.stamped = True
        self.open = True
        self.rearm()

    def stop_streaming(self) -> None:
        """Discard pending events, which remain in the totals: no clients are connected."""
        self._call_locked(self.ledger.stop_streaming)
        self.open = self.ledger.keeps_totals and not self._stopped
        self.stamped = False
        self.rearm()

    def stop(self) -> None:
        """Take no further events.  Events already in the log can still be taken."""
        self._stopped = True
        self.open = False

    def restart(self) -> None:
        """Take events again after `stop`."""
        self._stopped = False
        self.open = self.ledger.streaming or self.ledger.keeps_totals

    def after_fork(self, silence: bool) -> None:
        """
        Reset locks in a child process.

        @param silence: whether to take no further events, because the clients are the parent's.
        """
        # A thread that held the lock does not exist in this process.
        self._lock = threading.RLock()
        self._registry.renew_lock()
        self._holder = None
        self._applying.clear()
        if silence:
            self.stop()
            self.stop_streaming()
            self.log.clear()

    def take_described(self) -> dict[tuple[MetricKind, str], bytes]:
        """Return the descriptions queued since the last call, encoded."""
        # list() copies the keys atomically: other threads may add descriptions meanwhile.
        return {name: self._described.pop(name) for name in list(self._described)}

    def take(self) -> Taken:
        """See `Ledger.take`."""
        return self._call_locked(self.ledger.take)

    def mark(self, since: int) -> Marker:
        """See `Ledger.mark`."""
        return self._call_locked(self.ledger.mark, since)

    def forget_idle(self, now: float, needed: int | None = None) -> None:
        """See `Ledger.forget_idle`."""
        self._call_locked(self.ledger.forget_idle, now, needed)

    def more(self) -> bool:
        """Return whether `take` would return a batch or a marker."""
        return self.ledger.more()

    def rearm(self) -> None:
        """Let the next event wake the reactor.  Call this before `take`, so that none is missed."""
        self.wake_threshold = -1 if self.ledger.streaming else self._limit

    # Private.

    def _on_wake_up(self, wake_up: object) -> None:
        if wake_up is self._wake_up:
            self._wanted()

    def _apply_in_this_thread(self) -> None:
        this = threading.get_ident()
        holder = self._holder
        # If the log is only slightly too long, another thread that applies events suffices.
        if holder is not None and len(self.log) <= 4 * self._limit:
            return
        # A signal handler that records while its thread waits here must not wait again: frequent
        # signals would exhaust the stack.
        if this in self._applying or sys.is_finalizing():
            return
        try:
            self._applying.add(this)
            if holder is None or self._wait_for_lock():
                self._call_locked(self.ledger.apply)
        finally:
            self._applying.discard(this)

    def _wait_for_lock(self) -> bool:
        """
        Wait until no thread holds the lock, and return whether that happened within a time limit.

        Without a limit, this could deadlock: a finalizer that runs under the lock may wait for
        something that this thread holds.
        """
        for _ in range(WAITS):
            if self._holder is None:
                return True
            time.sleep(WAIT)
        return False

    def _call_locked(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function under the lock, and prevent this thread from applying re-entrantly."""
        with unless_finalizing(self._lock):
            holder = self._holder
            try:
                self._holder = threading.get_ident()
                return function(*args)
            finally:
                self._holder = holder


class SeriesRegistry:
    """
    The only series of each key, held weakly.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._series: dict[Key, weakref.ref[StreamedSeries]] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        """Replace the lock; in a child process, no thread may exist that could release it."""
        # Not the lock of `Incoming`: a finalizer that runs under that one may wait for the thread
        # that asks for a series.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._series)

    def find_or_make(self, key: Key) -> StreamedSeries:
        """Return the series of a key.  Thread-safe."""
        found = self._find(key)
        if found is not None:
            return found
        made = StreamedSeries(key, self._sink)
        with unless_finalizing(self._lock):
            # Another thread, or a finalizer in this one, may have made it meanwhile.
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
    """Return the lock, or a no-op during interpreter shutdown, when no thread may release it."""
    return nullcontext() if sys.is_finalizing() else lock
