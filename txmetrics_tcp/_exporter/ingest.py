"""
The incoming side of an exporter: everything that recording threads share with the reactor thread.

An event passes through it in three steps:

1. A handle appends it to `log`, on any thread.  ``deque.append`` is atomic and takes no lock.
2. The ledger applies it to its total, and encodes or drops it.  This happens under the lock, on
   the reactor thread or on a recording thread that finds the log too long.
3. `take` returns it in a batch, on the reactor thread.

The log defines the order of events.  Only the ledger counts events, under the lock, so threads
cannot lose counts.  Totals are exact even if events are dropped.

Any thread may append to `log`, read the attributes of `Sink`, and call `notify` and `describe` at
any time.  These calls are re-entrant: a signal handler or a finalizer may record while the same
thread records or applies events.  The ledger's methods require the lock, except `Ledger.more`.  The
ledger's attributes and properties may be read without the lock.  A thread holds the lock for one
epoch of at most `BATCH` events, or for one pass over the log or the totals.  Under the lock, no
methods of the program's values are called, because entries hold plain ints and floats.

An exception at any line (Ctrl-C in a notebook, a signal handler that raises) must not stop the
stream.  Afterwards, a wake-up or a timer may be missing.  The exporter's tick then drains within a
second.

During interpreter shutdown, other threads no longer run, and may never release a lock.  Therefore,
finalizers that record or read totals then take no lock and apply no events.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar, cast

from twisted.python.threadable import isInIOThread

from txmetrics_tcp._codec.encoder import GONE
from txmetrics_tcp._codec.wire import encode_metadata
from txmetrics_tcp._exporter.cardinality import MetricCardinality, highest_cardinality
from txmetrics_tcp._exporter.entries import IngestEntry, checked_entries
from txmetrics_tcp._exporter.ledger import Counts, Figures, Ledger, Marker, Taken
from txmetrics_tcp._exporter.name_conflicts import NameConflicts
from txmetrics_tcp._exporter.scheduler import DrainScheduler
from txmetrics_tcp._exporter.totals import StreamedSeries, Totals
from txmetrics_tcp._instruments.sink import Entry, Sink
from txmetrics_tcp._model import Key, Metadata, MetricKind, Total

LOG_LIMIT = 1024
"""The maximum length of the log before recording threads apply events themselves."""

WAIT = 0.000_5
WAITS = 100
"""
When the log exceeds four times its limit, a recording thread waits for the thread that applies
events: up to C{WAITS} times, for C{WAIT} seconds each.  One epoch takes less than C{WAIT}, or up to
3 ms with samples of thousands of histograms.
"""

_T = TypeVar("_T")


class Incoming(Sink):
    """
    Takes events from any thread, and holds them until the reactor thread takes them.

    With a bounded buffer, at most C{buffer_size} events are pending, in addition to the log.  The
    limit of the log is C{buffer_size} or `LOG_LIMIT`, whichever is less.  While another thread
    holds the lock, the log may grow to about four times its limit.

    @ivar ledger: applies events; see the module about the lock.
    @ivar scheduler: determines when the reactor thread drains.
    """

    __slots__ = (
        "_applying",
        "_at_once",
        "_buffer_size",
        "_cardinality",
        "_described",
        "_descriptions",
        "_drain",
        "_holder",
        "_in_reactor_thread",
        "_limit",
        "_limit_reached",
        "_limit_reported",
        "_lock",
        "_max_delay",
        "_names",
        "_reactor",
        "_registry",
        "_stopped",
        "ledger",
        "monotonic",
        "scheduler",
    )

    log: deque[Entry] | _FirstEventLog
    open: bool
    stamped: bool
    wake_threshold: int

    def __init__(
        self,
        reactor: Any,
        buffer_size: int | None,
        drain: Callable[[], object],
        totals: Totals | None = None,
        *,
        at_once: Callable[[], bool],
        max_delay: float = 0.0,
        limit_reached: Callable[[], object] = lambda: None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        in_reactor_thread: Callable[[], bool] = isInIOThread,
    ) -> None:
        """
        @param reactor: provides C{IReactorTime} and C{IReactorFromThreads}.
        @param buffer_size: the maximum number of pending events; None for no limit.
        @param drain: called on the reactor thread when events are pending.
        @param at_once: called during a recording call on the reactor thread, when events must be
            taken immediately or dropped; returns whether they were taken.
        @param max_delay: see `DrainScheduler`.
        @param limit_reached: called on the reactor thread if, without clients, series were not
            retained because their maximum was reached.
        @param totals: the retained series.  If None, no series are retained, and nothing is
            recorded while no clients are connected.
        @param clock: returns nanoseconds since the epoch.
        @param monotonic: returns seconds, on a monotonic clock.
        @param in_reactor_thread: returns whether the calling thread is the reactor thread.
        """
        # The maximum length of the log.  `wake_threshold` never exceeds it, so that a handle needs
        # only one comparison.
        self._limit = LOG_LIMIT if buffer_size is None else min(buffer_size, LOG_LIMIT)
        log: deque[Entry] = deque()
        super().__init__(log, self._limit, clock)
        self._reactor = reactor
        self._at_once = at_once
        self._in_reactor_thread = in_reactor_thread
        self.monotonic: Callable[[], float] = monotonic
        self._drain = drain
        self._buffer_size = buffer_size
        self._max_delay = max_delay
        self.ledger: Ledger
        self.scheduler: DrainScheduler
        self._begin(log, totals)
        self._lock = threading.RLock()
        # The id of the thread that holds the lock.
        self._holder: int | None = None
        # The ids of the recording threads that apply events or wait for the lock.
        self._applying: set[int] = set()
        # Pending, encoded.
        self._described: dict[tuple[MetricKind, str], bytes] = {}
        self._descriptions: dict[tuple[MetricKind, str], Metadata] = {}
        self._registry = SeriesRegistry(self)
        self._names = NameConflicts(self._call_later)
        self._limit_reached: Callable[[], object] | None = limit_reached
        self._limit_reported = False
        self._cardinality: tuple[MetricCardinality, ...] = ()
        self._stopped = False
        self.stop_streaming()

    # Any thread.

    def series(self, key: Key) -> StreamedSeries:
        """Return the one series of a key, which exists while it is referenced or retained."""
        self._names.used(key)
        return self._registry.find_or_make(key)

    def describe(self, metadata: Metadata) -> None:
        """Queue a description for the reactor thread.  Descriptions are never dropped."""
        # Encoded here, so that an invalid description raises in the caller.
        self._described[metadata.kind, metadata.name] = encode_metadata(metadata)
        self._descriptions[metadata.kind, metadata.name] = metadata
        self._names.described(metadata)
        self.scheduler.wake()

    def forget(self, key: Key) -> None:
        """Release the series of a key after all events that this thread has recorded."""
        if self.open:
            # Recorded in the order of the log, like an event.
            stamp = self.clock() if self.stamped else 0
            self.log.append((self.series(key), GONE, 0, stamp))
            if len(self.log) > self.wake_threshold:
                self.notify()

    def ingest(self, entries: Iterable[IngestEntry]) -> None:
        """See `TcpRecorder.ingest`."""
        checked = checked_entries(entries, self, self.ledger.keeps_totals)
        if not self.open:
            return
        for first in range(0, len(checked), self._limit):
            # Extending a deque by a list is atomic.
            self.log.extend(checked[first : first + self._limit])
            if len(self.log) > self.wake_threshold:
                self.notify()

    def notify(self) -> None:
        """Wake the reactor if necessary, and apply events if the log is too long."""
        self.scheduler.notify()
        if len(self.log) <= self._limit or self._holder == threading.get_ident():
            # If this thread holds the lock, this call interrupts an epoch, which has to end first.
            return
        if self.ledger.streaming and self._in_reactor_thread() and self._at_once():
            # The caller blocks the reactor, which therefore could not drain the log.
            return
        self._apply_in_this_thread()

    def counts(self) -> Counts:
        """Return the current event counts, without the log."""
        return self._call_locked(self.ledger.counts)

    def figures(self) -> Figures:
        """Return the event counts and numbers of series, including events still in the log."""
        return self._call_locked(self.ledger.figures)

    def snapshot(self) -> dict[Key, Total]:
        """Return the total of every retained series, including events that are still in the log."""
        steps = self.snapshot_steps()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return cast(dict[Key, Total], done.value)

    def snapshot_steps(self) -> Generator[None, None, dict[Key, Total]]:
        """Return a snapshot of the first step; see `CopiedTotals.applied`."""
        return (yield from self._call_locked(self.ledger.copy_totals).applied())

    def descriptions(self) -> list[Metadata]:
        """Return the last description of each kind and name."""
        # list() copies the values atomically.
        return list(self._descriptions.values())

    def cardinality(self) -> tuple[MetricCardinality, ...]:
        """
        Return the metrics with the most series at the first call.  Call this once the maximum of
        series is reached.
        """
        # Takes as long as a snapshot.  Of several threads that call this at the same time, each may
        # compute it.
        self._cardinality = self._cardinality or highest_cardinality(self.snapshot())
        return self._cardinality

    # Reactor thread.

    def start_streaming(self) -> None:
        """Begin to stamp and buffer events, and to wake the reactor; a client has connected."""
        if self._stopped:
            return
        if not self.ledger.streaming:
            self._call_locked(self.ledger.start_streaming)
        self.stamped = True
        self.open = True
        self.scheduler.rearm()

    def stop_streaming(self) -> None:
        """Stop buffering, and discard pending events but not their totals; no clients are left."""
        self._call_locked(self.ledger.stop_streaming)
        self.open = self.ledger.keeps_totals and not self._stopped
        self.stamped = False
        self.scheduler.stop()

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
            if isinstance(self.log, deque):
                self.log.clear()

    def begin_again(self, totals: Totals | None, on_event: Callable[[], object]) -> None:
        """
        In a child process, begin again without events, clients and reactor.  Call this after
        `after_fork`, and `use_reactor` later.

        @param totals: the retained series, of which there are none yet.
        @param on_event: called once, when the first event is recorded.  It must not wait.
        """
        self.open = False
        self._reactor = None
        self._described = {
            name: encode_metadata(one) for name, one in list(self._descriptions.items())
        }
        self._registry.reset_all()
        self._limit_reported = False
        self._cardinality = ()
        log: deque[Entry] = deque()
        self._begin(log, totals)
        self._stopped = False
        self.stop_streaming()
        self.log = _FirstEventLog(self, log, on_event)

    def use_reactor(self, reactor: Any, in_reactor_thread: Callable[[], bool]) -> None:
        """Use a reactor after `begin_again`.  May be called while other threads record."""
        self._reactor = reactor
        self._in_reactor_thread = in_reactor_thread
        self.scheduler.use_reactor(reactor)

    def _begin(self, log: deque[Entry], totals: Totals | None) -> None:
        self.ledger = Ledger(log, self._buffer_size, totals, self.clock)
        self.scheduler = DrainScheduler(
            self,
            self.ledger,
            self._reactor,
            self._drain,
            limit=self._limit,
            buffer_size=self._buffer_size,
            max_delay=self._max_delay,
            monotonic=self.monotonic,
        )

    def take_described(self) -> dict[tuple[MetricKind, str], bytes]:
        """Return the descriptions queued since the last call, encoded."""
        if not self._described:
            return {}
        # list() copies the keys atomically: other threads may add descriptions meanwhile.
        return {name: self._described.pop(name) for name in list(self._described)}

    def take(self) -> Taken:
        """See `Ledger.take`."""
        return self._call_locked(self.ledger.take)

    def mark(self, since: int) -> Marker:
        """See `Ledger.mark`."""
        return self._call_locked(self.ledger.mark, since)

    def release_idle(self, now: float) -> bool:
        """See `Ledger.release_idle`."""
        more = self._call_locked(self.ledger.release_idle, now)
        if self.more():
            self.scheduler.wake()
        return more

    def more(self) -> bool:
        """Return whether `take` would return a batch or a marker."""
        return self.ledger.more()

    # Private.

    def _apply_in_this_thread(self) -> None:
        this = threading.get_ident()
        holder = self._holder
        # Another thread is applying events, which suffices unless the log is much too long.
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
        if (
            self.ledger.refused
            and self._limit_reached is not None
            and not self._limit_reported
            and self._reactor is not None
        ):
            # Without clients, no tick notices it.
            self._limit_reported = True
            self._call_later(self._limit_reached)

    def _call_later(self, function: Callable[..., object], *args: object, **more: object) -> None:
        """Call a function on the reactor thread, later, if the reactor still exists."""
        with suppress(Exception):
            self._reactor.callFromThread(function, *args, **more)

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


class _FirstEventLog:
    """
    The log of an `Incoming` until the first event in a child process.
    """

    def __init__(
        self, incoming: Incoming, log: deque[Entry], on_event: Callable[[], object]
    ) -> None:
        self._incoming = incoming
        self._log = log
        self._on_event = on_event

    def __len__(self) -> int:
        # The next event calls `notify` if there are too many.
        return 0

    def append(self, entry: Entry, /) -> None:
        self.extend((entry,))

    def extend(self, entries: Sequence[Entry], /) -> None:
        self._log.extend(entries)
        if self._incoming.log is self:
            self._incoming.log = self._log
            self._on_event()


class SeriesRegistry:
    """
    Maps each key to its only series, with weak references.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._series: dict[Key, weakref.ref[StreamedSeries]] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        """Replace the lock.  After a fork, the thread that holds it may not exist in the child."""
        # Not the lock of `Incoming`: a finalizer that runs under the latter may wait for the thread
        # that calls `find_or_make`.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._series)

    def reset_all(self) -> None:
        """Let all series begin again without events, not retained."""
        for reference in list(self._series.values()):
            series = reference()
            if series is not None:
                series.retained = False
                series.reset()

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
    """Return the lock, or a no-op during shutdown, when the lock may never be released."""
    return nullcontext() if sys.is_finalizing() else lock
