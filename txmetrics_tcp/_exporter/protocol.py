"""
One client of the exporter.

All of it belongs to the reactor thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol as Interface

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmetrics_tcp._codec.framing import EMPTY_FRAME
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.ledger import Counts, Marker, earliest
from txmetrics_tcp._exporter.outbox import PROBE, Name, Outbox
from txmetrics_tcp._exporter.settings import ExporterSettings
from txmetrics_tcp._exporter.stats import ClientStats
from txmetrics_tcp._net.connection import ServedProtocol, ServerHooks
from txmetrics_tcp._net.deadline import cancel, is_pending
from txmetrics_tcp._net.log_throttle import LossReport


class StreamHooks(Interface):
    """
    What a client calls of its `Fanout`.

    @ivar interrupting: see `Fanout`.
    """

    interrupting: bool

    def out_of_memory(self, failure: Failure) -> None:
        """There was no memory to send something to a client; see `MetricsProtocol.put_off`."""

    def client_wants_totals(self, client: MetricsProtocol) -> None:
        """The client lost events; `MetricsProtocol.ready_for_totals` says from when on it can take
        the totals that make up for them."""

    def counts(self) -> Counts: ...

    def status(self, dropped_incoming: int, dropped_client: int) -> bytes:
        """The frame that has the status of the stream for a client."""


class MetricsProtocol(ServedProtocol):
    """
    One client: streams to it what its `Fanout` hands out, as fast as it reads.

    While its transport has enough, what is to be sent is pending in an `Outbox`.  Two things hold
    whenever no method of this class is on the stack:

    - while the transport does not have enough, nothing is pending, but for what came while the
      fanout was interrupting;
    - what is pending is complete frames: a frame is handed to the transport whole or not at all.

    A client begins, and makes up for what it lost, with a `Marker`: the totals at a position of the
    stream.  It receives them there, and all events behind it.
    """

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
        self._outbox = Outbox(settings.buffer_size)
        self._losses = LossReport(clock, f"because client {address} is too slow")
        self.flushing = False
        # Where the stream begins for this client, and where it ended.
        self._joined: Counts | None = None
        self._left: Counts | None = None
        # The epoch of the oldest event that was lost and has not been made up for; and of the same
        # once a marker is pending.
        self._lost_since: int | None = None
        self._asked_since: int | None = None
        self._overdue: IDelayedCall | None = None
        self._force = False
        self._dropped = 0
        self._written = 0
        self._discarded = 0
        self._repairs = 0
        self._bytes_written = 0

    # What the fanout calls.

    def owe(self, frames: Mapping[Name, bytes]) -> None:
        """
        Send frames that must not be lost, before any event that comes after this call.

        @param frames: by what they are about; a later frame about the same replaces an earlier
            one that has not been sent.
        """
        if self._connected:
            self._outbox.owe(frames)
            self.flush()

    def deliver(self, batch: Batch) -> None:
        """Send events, or keep them for when the transport takes more."""
        if self._joined is None or not self._connected:
            return
        if self.paused or self.flushing or self._outbox or self._must_wait():
            self._keep(batch)
            return
        sent = 0
        send = self._outlet.send
        try:
            for chunk, behind in batch.chunks():
                send(chunk)
                sent = behind
                if self.paused:
                    break
        finally:
            self._written += sent
            self._bytes_written += batch.end(sent)
        if sent < batch.size:
            self._keep(batch, sent)

    def lost(self, since: int) -> None:
        """
        Events were lost on their way to this client, so that totals are wrong for it.

        @param since: the epoch that the first of them is from.
        """
        if not self._connected:
            return
        if self._lost_since is None or since < self._lost_since:
            self._lost_since = since
        if not (is_pending(self._overdue) or self._force):
            self._overdue = self._clock.callLater(self._settings.repair_interval, self._is_overdue)
        self._stream.client_wants_totals(self)

    def ready_for_totals(self, quiet: bool) -> bool:
        """
        Whether the totals should come now.

        @param quiet: nothing is pending on the incoming side.
        """
        if self._joined is None or self._force:
            return True
        return quiet and not (self.paused or self.flushing or self._outbox.events)

    def asked(self) -> int:
        """
        A marker is being made for this client.

        @return: the epoch from which on changes matter to it.
        """
        since = self._lost_since
        if self._joined is None or since is None:
            since = 0
        elif self._outbox.events:
            # They may have to be given up.
            since = min(since, self._outbox.events.since)
        self._asked_since, self._lost_since = since, None
        return since

    def settle(self, marker: Marker) -> None:
        """The stream has come to the marker: begin there, or make up there for what was lost."""
        since, self._asked_since = self._asked_since or 0, None
        if not self._connected:
            return
        if self._joined is None:
            self._joined = marker.counts
        else:
            events = self._outbox.events
            if (self.paused or self.flushing or events) and not self._force:
                # It fell behind again since it was asked, and these totals would overtake events
                # that come before them.
                self.lost(since)
                return
            if self._settings.totals:
                if events:
                    # The marker does not stand behind what they are of only.
                    since = min(since, events.since)
                self._count_dropped(len(events))
                events.clear()
                self._repairs += 1
            dropped_incoming = marker.counts.dropped - self._joined.dropped
            self._outbox.owe({None: self._stream.status(dropped_incoming, self._dropped)})
        self._force = False
        cancel(self._overdue)
        if self._lost_since is not None:
            # Something was lost behind the marker.
            self.lost(self._lost_since)
        self._outbox.add_totals(marker, since)
        self.flush()

    def put_off(self) -> None:
        """
        Release what is pending, for its memory.  `resync` makes up for it, once there may be
        memory again.
        """
        if self._joined is not None:
            self._lost_since = 0
            self._outbox.clear()

    def resync(self, frames: Mapping[Name, bytes]) -> None:
        """
        Count as dropped what was recorded and is in no account, and have it repaired.

        @param frames: the descriptions, of which some may not have been sent.
        """
        if not self._connected:
            return
        account = self.stats()
        handled = account.dropped_incoming + account.dropped + account.written + account.waiting
        self._count_dropped(account.recorded - handled)
        if self._joined is not None:
            self.lost(0)
        self.owe(frames)

    @property
    def needed_since(self) -> int | None:
        """The first epoch of which it may still need totals; None for none."""
        events = self._outbox.events
        pending = events.since if events else None
        return earliest([self._lost_since, self._asked_since, pending])

    def fail(self, failure: Failure) -> None:
        """
        See `ServedProtocol.fail`; but a client that keeps up stays connected when there was no
        memory.
        """
        if isinstance(failure.value, MemoryError) and self._joined is not None and not self.paused:
            self._stream.out_of_memory(failure)
        else:
            super().fail(failure)

    @property
    def following(self) -> bool:
        """Whether the stream has begun for it, so that all that is recorded from now on comes."""
        return self._joined is not None

    def stats(self) -> ClientStats:
        """This client's account; also after it has gone."""
        now = self._left or self._stream.counts()
        joined = self._joined or now
        return ClientStats(
            address=self.address,
            recorded=now.recorded - joined.recorded,
            dropped_incoming=now.dropped - joined.dropped,
            dropped=self._dropped,
            written=self._written,
            discarded=self._discarded,
            waiting=0 if self._left or not self._joined else len(self._outbox.events) + now.waiting,
            repairs=self._repairs,
            high_water=self._outbox.events.high_water,
            bytes_written=self._bytes_written,
        )

    # What the transport calls, also by way of `ServedProtocol`.

    def begin(self) -> None:
        self.owe({None: self._stream.status(0, 0)})

    def probe(self) -> None:
        self.owe({PROBE: EMPTY_FRAME})

    def end(self) -> None:
        cancel(self._overdue)
        # First of all: other threads go on recording.
        self._left = self._stream.counts()
        account = self.stats()
        # All that was neither written nor dropped, also what an exception kept from being
        # pending.
        self._discarded = account.recorded - (
            account.dropped_incoming + account.dropped + account.written
        )
        self._outbox.clear()
        self._losses.close()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if not self.paused and self._lost_since is not None:
            self._stream.client_wants_totals(self)

    def flush(self) -> None:
        """Send what is pending until the transport has enough."""
        if self.flushing or self._must_wait():
            # Called back from within a write, and the loop below goes on; or there will be another
            # call.
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
                # However much the socket takes: from here on the reactor iterates first.
                send = self._outlet.send_later
        finally:
            self.flushing = False
        if self._finishing and self._connected and not self._outbox and not self._wants_totals():
            self.disconnect()

    # Inside.

    def _must_wait(self) -> bool:
        """Whether a method of the transport may be interrupted; see `Fanout.drain_at_once`."""
        return self._stream.interrupting and not self._outlet.bypasses

    def _wants_totals(self) -> bool:
        return self._lost_since is not None or self._asked_since is not None

    def _keep(self, batch: Batch, first: int = 0) -> None:
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

    def _is_overdue(self) -> None:
        self._force = True
        self._stream.client_wants_totals(self)
