"""
The fanout delivers recorded events to all clients, one batch at a time.

The reactor thread owns everything here; only `Fanout.stats` is thread-safe.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.descriptions import Descriptions
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.ledger import Counts, Marker
from txmetrics_tcp._exporter.program_name import program_name
from txmetrics_tcp._exporter.protocol import MetricsProtocol
from txmetrics_tcp._exporter.snapshot import TotalsSnapshot
from txmetrics_tcp._exporter.stats import Accounts, Stats
from txmetrics_tcp._model import Status
from txmetrics_tcp._net.connection import for_each
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp._net.log_throttle import LossReport

_log = Logger(namespace="txmetrics_tcp")

FAILURE_INTERVAL = 10.0
"""The minimum time, in seconds, between two log lines about failed deliveries."""


MAX_SNAPSHOTS = 4
"""
The maximum number of complete snapshots held by clients that have not read all of them.  All
clients that needed totals at the same time share one, which takes about 150 bytes per series.
"""

SMALL_SNAPSHOT = 1000
"""The number of series up to which the size of a complete snapshot does not matter."""

SNAPSHOT_INTERVAL = 1.0
"""The minimum time, in seconds, between two releases of snapshots because there are too many."""

STALLED = 10.0
"""The time, in seconds, after which the oldest snapshot may be released if no client reads it."""


class Fanout:
    """
    Sends the events and descriptions of an `Incoming`, totals, and stream status to all clients.

    @ivar clients: the connected clients, in order of connection.
    @ivar descriptions: all descriptions.
    @ivar interrupting: whether a recording call on the reactor thread is draining, and may have
        interrupted a method of a transport; see `drain_at_once`.
    @ivar client_losses: see `StreamHooks`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        incoming: Incoming,
        source: str | None,
        drained: Callable[[], object],
        sample: Callable[[float], object] | None,
    ) -> None:
        """
        @param source: the name of this program in viewers; by default, the program's name, process
            number and host.
        @param drained: called after a drain that leaves no events pending.
        @param sample: called with the latency of each batch, in seconds.
        """
        self._incoming = incoming
        self._scheduler = incoming.scheduler
        self._source = source
        self._drained = drained
        self._sample = sample
        self._started_ns = incoming.clock()
        self.clients: dict[MetricsProtocol, None] = {}
        self._accounts = Accounts()
        self.descriptions: Descriptions = Descriptions()
        # The clients that need totals, but for which no marker is pending.
        self._need_totals: dict[MetricsProtocol, None] = {}
        # The pending marker, and the clients that it is for.
        self._marker: Marker | None = None
        self._awaiting_marker: list[MetricsProtocol] = []
        # The unfinished snapshots, oldest first.
        self._snapshots: WeakKeyDictionary[TotalsSnapshot, None] = WeakKeyDictionary()
        self._released_at = -math.inf
        # `TotalsSnapshot.read` of the oldest snapshot, and when it was first seen.
        self._oldest_read = (-1, -math.inf)
        self._draining = False
        self.interrupting = False
        # Whether clients may have queued data because of `interrupting`.
        self._deferred = False
        # Whether a drain is in progress or was aborted by an exception.
        self._unfinished = False
        # Whether pending data of clients was discarded because memory was exhausted.
        self._memory_exhausted = False
        # When a failure was last logged.
        self._failed_at: float | None = None
        self._losses = LossReport(clock, "because the reactor cannot keep up with recording")
        self.client_losses = LossReport(clock)
        self._dropped = 0

    @property
    def settled(self) -> bool:
        """Whether the last drain has completed, without an exception or exhausted memory."""
        return not (self._unfinished or self._memory_exhausted)

    def stats(self) -> Stats:
        """Return current statistics.  Thread-safe."""
        figures = self._incoming.figures()
        present = [
            (client.following, client.stats(figures.counts)) for client in list(self.clients)
        ]
        cardinality = self._incoming.cardinality() if figures.refused else ()
        return self._accounts.stats(figures, cardinality, present)

    def add(self, client: MetricsProtocol) -> None:
        """Add a connected client: send it descriptions and totals, then events."""
        self._incoming.start_streaming()
        self.clients[client] = None
        self._accounts.connected += 1
        self._need_totals[client] = None
        self.drain()

    def remove(self, client: MetricsProtocol) -> None:
        """Remove a client that has disconnected, possibly before it was added."""
        if client not in self.clients:
            return
        del self.clients[client]
        self._need_totals.pop(client, None)
        self._accounts.add(client.stats())
        if not self.clients:
            self._incoming.stop_streaming()
            self._awaiting_marker.clear()
            self._unfinished = self._memory_exhausted = False
            self._marker = None

    def close_logs(self) -> None:
        """Log the losses counted so far, and stop the timers for that."""
        self._losses.close()
        self.client_losses.close()

    # Called by clients.

    def counts(self) -> Counts:
        return self._incoming.figures().counts

    def status(self, dropped_incoming: int, dropped_client: int) -> bytes:
        # Determined here, because the process may fork after `__init__`.
        source = self._source or _own_name()
        return encode_status(Status(source, self._started_ns, dropped_incoming, dropped_client))

    def client_wants_totals(self, client: MetricsProtocol) -> None:
        self._need_totals[client] = None
        self._drain_later()

    def out_of_memory(self, failure: Failure) -> None:
        # Slow clients hold most of the memory, so they are disconnected.  The other clients receive
        # totals at the next tick.
        self._memory_exhausted = True
        for client in self.clients:
            client.release_pending()
        for client in [client for client in self.clients if client.paused]:
            client.fail(failure)
        self._log_failure(
            "Out of memory: pending events were dropped, and slow clients were disconnected",
            failure,
        )

    # Draining.

    def drain_from_reactor(self) -> None:
        """
        Call `drain` from the reactor.

        No drain is on the stack then, so this resets what an exception may have left set.
        """
        self._draining = self.interrupting = False
        self._scheduler.cancel_request()
        self.drain()

    def tick(self) -> None:
        """
        Finish an aborted drain, and send totals after memory was exhausted.  Called once a second.
        """
        if self._memory_exhausted:
            self._unfinished, self._memory_exhausted = True, False
        if self.clients:
            self.drain_from_reactor()

    def drain(self) -> None:
        """
        Deliver one batch.  If more events are pending, the next reactor iteration continues.

        Do nothing if a drain is already on the stack: a log observer that is called by a drain may
        record events.
        """
        if self._draining:
            return
        try:
            self._draining = True
            self._deliver_next()
        except MemoryError:
            self.out_of_memory(Failure())
        except Exception:
            self._log_failure("Events could not be delivered; clients will receive totals again")
        finally:
            self._draining = False
            self._scheduler.rearm()
        if self.settled:
            self._scheduler.schedule()
        # Otherwise, the next event or the tick drains again.
        if not (self.clients and (self._incoming.more() or not self.settled)):
            self._drained()

    def drain_at_once(self) -> bool:
        """
        Call `drain` from a recording call on the reactor thread.

        The recording call may come from a finalizer or a signal handler that interrupts a method of
        a transport.  Data written to that transport would be lost.  Therefore this sends events
        only to clients that can bypass their transport.  For other clients, events are queued until
        the next reactor iteration.

        @return: whether it drained.
        """
        if self._draining or any(client.flushing for client in self.clients):
            return False
        # This may be called re-entrantly, so the previous value is restored.
        before = self.interrupting
        try:
            self.interrupting = self._deferred = True
            self._drain_later()
            self.drain()
        finally:
            self.interrupting = before
        return True

    def _drain_later(self) -> None:
        if not self._draining:
            # Not a timer: most reactors use the system clock for `callLater`, so setting the clock
            # back by an hour would delay this by an hour.
            self._scheduler.wake()

    def _deliver_next(self) -> None:
        """Take a batch and the marker after it, and deliver both."""
        incoming = self._incoming
        self._scheduler.disarm()
        if self._unfinished:
            self._resync()
        # An exception below leaves this set.
        self._unfinished = bool(self.clients)
        if self._deferred and not self.interrupting:
            self._deferred = False
            for_each(self.clients, MetricsProtocol.flush)
        taken = incoming.take()
        # Descriptions are collected after events are taken, and sent before them.  So a client
        # receives a description before any event that was recorded after it.
        self._send_descriptions()
        since, batch, marker = taken.dropped_since, taken.batch, taken.marker
        if since is not None:
            self._report_drops()
            for_each(self.clients, lambda client: client.lost(since))
        if batch is not None and self.clients:
            for_each(self.clients, lambda client: client.deliver(batch))
            if self._sample is not None:
                self._sample(self._latency(batch))
        if marker is not None and marker is self._marker:
            marked, self._awaiting_marker = self._awaiting_marker, []
            self._marker = None
            for_each(marked, lambda client: client.reach_marker(marker))
        if self.clients:
            self._request_marker()
        self._unfinished = False
        if taken.failure is not None:
            self.out_of_memory(Failure(taken.failure))

    def _latency(self, batch: Batch) -> float:
        """Return the seconds since the first event of a batch was recorded."""
        seconds = (self._incoming.clock() - batch.recorded_ns) / 1e9
        # The system clock may have been set since.  The event is not older than the last drain that
        # left none pending.
        longest = self._incoming.monotonic() - self._scheduler.drained_at
        return max(0.0, min(seconds, longest))

    def _resync(self) -> None:
        """
        Resync all clients after an exception aborted a drain: some clients may not have received
        the batch or the marker that it took.
        """
        self._need_totals.update(self.clients)
        # The pending marker may be lost, so a new one has to be requested.
        self._awaiting_marker.clear()
        for_each(self.clients, MetricsProtocol.resync)

    def _send_descriptions(self) -> None:
        described = self._incoming.take_described()
        if described:
            self.descriptions.update(described)
            for_each(self.clients, MetricsProtocol.flush)

    def _request_marker(self) -> None:
        """Request a marker if any client needs totals and can take them."""
        if self._awaiting_marker or not self._need_totals:
            # Only one marker is pending at a time.  Other clients get the next one.
            return
        quiet = not self._incoming.more()
        ready = [client for client in self._need_totals if client.ready_for_totals(quiet)]
        if not ready or not self._may_make_snapshot():
            return
        # A client that needs few totals does not wait for all of them.
        ready = [client for client in ready if client.needs_all == ready[0].needs_all]
        self._awaiting_marker = ready
        for client in ready:
            del self._need_totals[client]
        self._marker = self._incoming.mark(min([client.prepare_marker() for client in ready]))
        self._snapshots[self._marker.snapshot] = None

    def _may_make_snapshot(self) -> bool:
        """
        Limit the size of unfinished snapshots: if they have as many series as `MAX_SNAPSHOTS`
        complete ones, release the least recently read ones, at most every `SNAPSHOT_INTERVAL`
        seconds.

        The oldest one is not released while a client reads it.  Otherwise, clients that take longer
        for a snapshot than others take to connect would never have a whole one.
        """
        unfinished = list(self._snapshots)
        complete = max(SMALL_SNAPSHOT, self._incoming.ledger.retained)
        excess = sum(map(len, unfinished)) - (MAX_SNAPSHOTS - 1) * complete
        if excess <= 0:
            return True
        now = self._incoming.monotonic()
        if now - self._released_at < SNAPSHOT_INTERVAL:
            # The tick tries again.
            return False
        self._released_at = now
        if self._oldest_read[0] != unfinished[0].read:
            self._oldest_read = unfinished[0].read, now
        if now - self._oldest_read[1] < STALLED:
            del unfinished[0]
        released = set()
        for snapshot in sorted(unfinished, key=lambda one: one.read):
            if excess > 0:
                released.add(snapshot)
                excess -= len(snapshot)
        for_each(self.clients, lambda client: client.release_snapshot(released))
        return True

    def _report_drops(self) -> None:
        dropped = self._incoming.counts().dropped
        # The number is unchanged if `Taken.dropped_since` is due to an aborted epoch.
        if dropped > self._dropped:
            self._losses.lost(dropped - self._dropped)
            self._dropped = dropped

    def _log_failure(self, message: str, failure: Failure | None = None) -> None:
        """Log an exception, at most every `FAILURE_INTERVAL` seconds."""
        # Logging may run out of memory too.
        with suppress(Exception):
            now = self._incoming.monotonic()
            if self._failed_at is None or now - self._failed_at >= FAILURE_INTERVAL:
                self._failed_at = now
                _log.failure(message, without_frames(failure or Failure()))


def _own_name() -> str:
    name = f"{program_name()[:255] or 'python'}[{os.getpid()}]@{socket.gethostname()}"
    # Names of programs and hosts may not be valid UTF-8.
    return name.encode(errors="replace").decode()
