"""
The exporter's connection to one client.

The reactor thread owns everything here.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol as Interface

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.descriptions import Descriptions
from txmetrics_tcp._exporter.ledger import Counts, Marker
from txmetrics_tcp._exporter.outbox import Outbox
from txmetrics_tcp._exporter.settings import ExporterSettings
from txmetrics_tcp._exporter.snapshot import TotalsSnapshot
from txmetrics_tcp._exporter.stats import ClientStats
from txmetrics_tcp._net.connection import ServedProtocol, ServerHooks
from txmetrics_tcp._net.deadline import cancel, is_pending
from txmetrics_tcp._net.log_throttle import LossReport


class StreamHooks(Interface):
    """
    The methods of `Fanout` that a client calls.

    @ivar descriptions: all descriptions.
    @ivar interrupting: see `Fanout`.
    @ivar client_losses: logs the events that clients lose because they are too slow.
    """

    descriptions: Descriptions
    interrupting: bool
    client_losses: LossReport

    def out_of_memory(self, failure: Failure) -> None:
        """Called if sending to a client exhausts memory; see `MetricsProtocol.release_pending`."""

    def client_wants_totals(self, client: MetricsProtocol) -> None:
        """
        Request totals for a client that lost events.  It receives them once
        `MetricsProtocol.ready_for_totals` returns True.
        """

    def counts(self) -> Counts: ...

    def status(self, dropped_incoming: int, dropped_client: int) -> bytes:
        """Return the encoded stream status for a client."""


class MetricsProtocol(ServedProtocol):
    """
    Streams to one client, as fast as the client reads.  `MetricsFactory` builds it.

    @cvar admitted: whether it counts towards the limits for clients.
    """

    admitted = True

    # While the transport is full, data is queued in an `Outbox`.  While no method of this class is
    # on the stack:
    #
    # - if the transport is not full, the outbox is empty, except for data that was queued while the
    #   fanout was interrupting;
    # - the transport has received whole frames only.
    #
    # The stream of a client begins at a `Marker`, which holds the totals at one position of the
    # stream.  A client that lost events resyncs at a later marker.  At each marker, the client
    # receives the totals, followed by all later events.

    def __init__(
        self,
        server: ServerHooks,
        stream: StreamHooks,
        clock: IReactorTime,
        settings: ExporterSettings,
        address: str,
    ) -> None:
        super().__init__(server, clock, address, settings.dead_after)
        self._stream = stream
        self._settings = settings
        self._outbox = Outbox(settings.buffer_size, stream.descriptions)
        self._losses = stream.client_losses.client(address)
        self.flushing: bool = False
        # The event counts at the beginning and the end of this client's stream.
        self._joined: Counts | None = None
        self._left: Counts | None = None
        # The epoch of the oldest lost event that needs a marker, and has none yet.
        self._lost_since: int | None = None
        # The epoch of the oldest lost event that the pending marker is for.
        self._marker_since: int | None = None
        # The epoch of the oldest change that the pending snapshot is for.
        self._snapshot_since = 0
        self._repair_timer: IDelayedCall | None = None
        # Whether to resync at the next marker even if the client has not caught up.
        self._force = False
        # Whether the client has read anything since its first loss.  A client that reads nothing
        # is not resynced: it would hold a snapshot.
        self._has_read = False
        self._dropped = 0
        self._written = 0
        self._discarded = 0
        self._repairs = 0
        self._bytes_written = 0

    # Called by the fanout.

    def deliver(self, batch: Batch) -> None:
        """Send events, or queue them while the transport is full."""
        if self._joined is None or not self._connected:
            return
        if self.paused or self.flushing or self._outbox or self._must_wait():
            self._queue(batch)
            return
        sent = 0
        send = self._outlet.send
        try:
            for chunk, end in batch.chunks():
                send(chunk)
                sent = end
                if self.paused:
                    break
        finally:
            self._written += sent
            self._bytes_written += batch.end(sent)
        if sent < batch.size:
            self._queue(batch, sent)

    def lost(self, since: int) -> None:
        """
        Record that events of this client were lost, and request totals.

        @param since: the epoch of the first lost event.
        """
        if not self._connected:
            return
        if self._lost_since is None or since < self._lost_since:
            self._lost_since = since
        if not (is_pending(self._repair_timer) or self._force):
            self._has_read = False
            self._repair_timer = self._clock.callLater(
                self._settings.repair_interval, self._repair_overdue
            )
        self._stream.client_wants_totals(self)

    def ready_for_totals(self, quiet: bool) -> bool:
        """
        Return whether this client can take totals now.

        @param quiet: whether no events are pending on the incoming side.
        """
        if self._joined is None:
            return True
        if self._outbox.snapshot is not None:
            # Every snapshot is sent completely, so that a slow client makes progress.
            return False
        if self._force and (self._has_read or not self.paused):
            return True
        return quiet and not (self.paused or self.flushing or self._outbox.events)

    @property
    def needs_all(self) -> bool:
        """Whether this client needs the totals of all series."""
        return self._joined is None or self._lost_since in (0, None)

    def prepare_marker(self) -> int:
        """
        Prepare for a marker that is about to be made for this client.

        @return: the first epoch whose changes the marker must include.
        """
        since = self._lost_since
        if self._joined is None or since is None:
            since = 0
        elif self._outbox.events:
            # `reach_marker` may drop these events.
            since = min(since, self._outbox.events.since)
        self._marker_since, self._lost_since = since, None
        return since

    def reach_marker(self, marker: Marker) -> None:
        """Begin the stream, or resync, at a marker.  Called after all events before the marker."""
        since, self._marker_since = self._marker_since or 0, None
        if not self._connected:
            return
        if self._joined is None:
            self._joined = marker.counts
        else:
            events = self._outbox.events
            if (self.paused or self.flushing or events) and not self._force:
                # The client has fallen behind again.  The totals would be sent before pending
                # events that they already include.
                self.lost(since)
                return
            if self._settings.totals:
                if events:
                    # Events queued since `prepare_marker` may be of earlier epochs.
                    since = min(since, events.since)
                self._count_dropped(len(events))
                events.clear()
                self._repairs += 1
            dropped_incoming = marker.counts.dropped - self._joined.dropped
            self._outbox.status = self._stream.status(dropped_incoming, self._dropped)
        self._force = False
        cancel(self._repair_timer)
        if self._lost_since is not None:
            # Events after the marker were lost.
            self.lost(self._lost_since)
        if self._settings.totals:
            self._outbox.add_snapshot(marker.snapshot)
            self._snapshot_since = since
        self.flush()

    def release_snapshot(self, snapshots: Container[TotalsSnapshot]) -> None:
        """If one of these snapshots is pending, discard the rest of it, and resync later."""
        snapshot = self._outbox.snapshot
        if snapshot is not None and snapshot in snapshots:
            self._outbox.snapshot = None
            # At the beginning of a complete snapshot, clients may have removed all totals.
            self.lost(0 if snapshot.complete else self._snapshot_since)
            # Another snapshot as soon as the client reads: it has waited for this one.
            self._force = True
            self._has_read = False

    def release_pending(self) -> None:
        """
        Discard pending data to free memory.  The fanout later calls `resync`, which counts the
        discarded events as dropped.
        """
        if self._joined is not None:
            self._lost_since = 0
            self._outbox.clear()

    def resync(self) -> None:
        """Count events that the account lacks as dropped, and request totals."""
        if not self._connected:
            return
        account = self.stats()
        handled = (
            account.dropped_incoming + account.dropped_client + account.written + account.waiting
        )
        self._count_dropped(account.recorded - handled)
        if self._joined is not None:
            self.lost(0)
        self.flush()

    def fail(self, failure: Failure) -> None:
        """
        See `ServedProtocol.fail`.  If memory is exhausted, a client that keeps up stays connected.
        """
        if isinstance(failure.value, MemoryError) and self._joined is not None and not self.paused:
            self._stream.out_of_memory(failure)
        else:
            super().fail(failure)

    @property
    def following(self) -> bool:
        """Whether the stream has begun, so that the client receives all later events."""
        return self._joined is not None

    def stats(self, now: Counts | None = None) -> ClientStats:
        """
        Return this client's account.  After the client has disconnected, it is final.

        @param now: the current event counts, if the caller knows them.
        """
        now = self._left or now or self._stream.counts()
        joined = self._joined or now
        return ClientStats(
            address=self.address,
            recorded=now.recorded - joined.recorded,
            dropped_incoming=now.dropped - joined.dropped,
            dropped_client=self._dropped,
            written=self._written,
            discarded=self._discarded,
            waiting=0 if self._left or not self._joined else len(self._outbox.events) + now.waiting,
            repairs=self._repairs,
            high_water=self._outbox.events.high_water,
            bytes_written=self._bytes_written,
        )

    # Called by the transport, directly or through `ServedProtocol`.

    def begin(self) -> None:
        self._outbox.begin(self._stream.status(0, 0))
        self.flush()

    def probe(self) -> None:
        self._outbox.probe = True
        self.flush()

    def end(self) -> None:
        cancel(self._repair_timer)
        # Read only once, because other threads continue to record.
        self._left = self._stream.counts()
        account = self.stats()
        # All events that were neither written nor dropped, including events that were not queued
        # because of an exception.
        self._discarded = account.recorded - (
            account.dropped_incoming + account.dropped_client + account.written
        )
        self._outbox.clear()

    def resumeProducing(self) -> None:
        self._has_read = True
        super().resumeProducing()
        if self._lost_since is not None and (self._force or not self.paused):
            self._stream.client_wants_totals(self)

    def flush(self) -> None:
        """Send pending data until the transport is full."""
        if self.flushing or self._must_wait():
            # If `flushing`, this is a call from a write of the loop below, which continues.
            # Otherwise, the fanout flushes later.
            return
        try:
            self.flushing = True
            send = self._outlet.send
            while not self.paused:
                chunk, events = self._outbox.next_chunk()
                if not chunk:
                    break
                self._bytes_written += len(chunk)
                self._written += events
                send(chunk)
                # Even if the socket takes more, the reactor iterates before the next chunk.
                send = self._outlet.send_later
        finally:
            self.flushing = False
        if self._finishing and self._connected and not self._outbox and not self._wants_totals():
            self.disconnect()

    # Private.

    def _must_wait(self) -> bool:
        """Return whether this call may have interrupted the transport, so that data must wait."""
        return self._stream.interrupting and not self._outlet.bypasses

    def _wants_totals(self) -> bool:
        return self._lost_since is not None or self._marker_since is not None

    def _queue(self, batch: Batch, first: int = 0) -> None:
        events = self._outbox.events
        since = events.since if events else batch.since
        dropped = events.add(batch, first)
        if dropped:
            self._count_dropped(dropped)
            self.lost(since)

    def _count_dropped(self, events: int) -> None:
        if events > 0:
            self._dropped += events
            self._losses.lost(events)

    def _repair_overdue(self) -> None:
        self._force = True
        self._stream.client_wants_totals(self)
