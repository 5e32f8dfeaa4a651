"""
Fanning out: what was recorded is handed to every client, a batch at a time.

All of it belongs to the reactor thread, but for `Fanout.stats`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.ledger import Counts, Marker, earliest
from txmetrics_tcp._exporter.outbox import Name
from txmetrics_tcp._exporter.protocol import MetricsProtocol
from txmetrics_tcp._exporter.stats import Accounts, Stats
from txmetrics_tcp._model import Status
from txmetrics_tcp._net.connection import for_each
from txmetrics_tcp._net.log_throttle import LossReport

_log = Logger(namespace="txmetrics_tcp")

FAILURE_INTERVAL = 10.0
"""The least time, in seconds, between two log lines about failures to hand events on."""


class Fanout:
    """
    Delivers to clients what an `Incoming` has, and all that a client needs beside events:
    descriptions, totals, and the status of the stream.

    @ivar clients: those that are connected, in the order in which they came.
    @ivar interrupting: whether this runs within a record on the reactor thread, which may have
        interrupted a method of a transport; see `drain_at_once`.
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
        @param source: the name of this program, for viewers; None for its name, process number and
            host.
        @param drained: called when there is nothing left to hand on.
        @param sample: called with the latency of each batch, in seconds.
        """
        self._incoming = incoming
        self._source = source
        self._drained = drained
        self._sample = sample
        self._started_ns = incoming.clock()
        self.clients: dict[MetricsProtocol, None] = {}
        self._accounts = Accounts()
        self._metadata: dict[Name, bytes] = {}
        # Those that need totals, those that the pending marker is for, and that marker.
        self._wanting: dict[MetricsProtocol, None] = {}
        self._asked: list[MetricsProtocol] = []
        self._marker: Marker | None = None
        self._draining = False
        self.interrupting = False
        # Whether clients may have kept something for that.
        self._kept = False
        # Whether a drain is under way, or an exception broke it off; whether what was pending for
        # clients was released for want of memory; and when either was last logged.
        self._unsettled = False
        self._put_off = False
        self._failed_at: float | None = None
        self._losses = LossReport(
            clock, "because the reactor does not keep up with what is recorded"
        )
        self._dropped = 0

    @property
    def settled(self) -> bool:
        """Whether nothing is left undone by an exception, or for want of memory."""
        return not (self._unsettled or self._put_off)

    def stats(self) -> Stats:
        """What happened so far.  May be called from any thread."""
        counts, ledger = self._incoming.counts(), self._incoming.ledger
        present = [(client.following, client.stats()) for client in list(self.clients)]
        return self._accounts.stats(counts, ledger.retained, ledger.refused, present)

    def add(self, client: MetricsProtocol) -> None:
        """A client is connected: it receives descriptions and totals, then events."""
        self._incoming.start_streaming()
        self.clients[client] = None
        self._accounts.connected += 1
        client.owe(self._metadata)
        if client in self.clients:
            self._wanting[client] = None
        self.drain()

    def remove(self, client: MetricsProtocol) -> None:
        """A client has disconnected; maybe as it began."""
        if client not in self.clients:
            return
        del self.clients[client]
        self._wanting.pop(client, None)
        self._accounts.add(client.stats())
        if not self.clients:
            self._incoming.stop_streaming()
            self._asked.clear()
            self._unsettled = self._put_off = False
            self._marker = None
            self._losses.close()

    @property
    def needed_since(self) -> int | None:
        """The first epoch of which a client may still need totals; None for none."""
        return earliest(client.needed_since for client in self.clients)

    # What the clients call.

    def counts(self) -> Counts:
        return self._incoming.counts()

    def status(self, dropped_incoming: int, dropped_client: int) -> bytes:
        # The name is looked up when it is needed: before, the process may have forked.
        source = self._source or _own_name()
        return encode_status(Status(source, self._started_ns, dropped_incoming, dropped_client))

    def client_wants_totals(self, client: MetricsProtocol) -> None:
        self._wanting[client] = None
        self._drain_later()

    def out_of_memory(self, failure: Failure) -> None:
        # Clients that do not keep up hold most of it, so they are disconnected; the others receive
        # the totals with the next tick.
        self._put_off = True
        for client in self.clients:
            client.put_off()
        for client in [client for client in self.clients if client.paused]:
            client.fail(failure)
        self._log_failure("Out of memory: clients miss events, or are disconnected", failure)

    # Draining.

    def drain_from_reactor(self) -> None:
        """
        `drain`, as the reactor calls it.

        No drain is on the stack then, so one that an exception broke off at its last line, even
        where it ends, is over.
        """
        self._draining = self.interrupting = False
        self.drain()

    def tick(self) -> None:
        """
        Hand on, a second later at the latest, what an exception has left, or what was put off.
        """
        if self._put_off:
            self._unsettled, self._put_off = True, False
        if self.clients:
            self.drain_from_reactor()

    def drain(self) -> None:
        """
        Hand on what was recorded: one batch, after which the reactor iterates.

        A drain that is on the stack (a log observer may record while it is called from one) is not
        entered again.
        """
        if self._draining:
            return
        try:
            self._draining = True
            waiting_since = self._hand_on()
        except MemoryError:
            self.out_of_memory(Failure())
            waiting_since = None
        except Exception:
            self._log_failure("Events could not be handed on; totals will be sent again")
            waiting_since = None
        finally:
            self._draining = False
        if not (self.clients and (self._incoming.more() or not self.settled)):
            self._drained()
        elif self.settled:
            self._drain_later()
            if waiting_since is not None:
                self._incoming.wake_requested_at = waiting_since
        # Otherwise the next event, or the tick, comes to it.

    def drain_at_once(self) -> bool:
        """
        `drain` within a record on the reactor thread.

        The caller may be a finalizer or a signal handler, which interrupts anything.  Where it
        interrupts a method of a transport, what is written there would be lost.  So only clients
        that can bypass their transport are sent something, and the others keep it until the next
        iteration of the reactor.

        @return: whether it did.
        """
        if self._draining or any(client.flushing for client in self.clients):
            return False
        # A record may interrupt this, too, and must not end it.
        before = self.interrupting
        try:
            self.interrupting = self._kept = True
            self._drain_later()
            self.drain()
        finally:
            self.interrupting = before
        return True

    def _drain_later(self) -> None:
        if not self._draining:
            # Not `callLater`, which most reactors measure with the time of day: a clock that is
            # set back by an hour in this very moment would hold the stream up for an hour.
            self._incoming.wake()

    def _hand_on(self) -> float | None:
        """
        Take a batch, and what stands behind it, and hand it on.

        @return: since when pending events have been pending, on the clock of
            C{incoming.monotonic}; None if that is not known, or from now on: behind a batch, they
            are taken to be pending from now on.
        """
        incoming = self._incoming
        # If the next event is to wake the reactor, none has, and the time is an earlier one's.
        wake_requested_at = incoming.wake_requested_at if incoming.wake_threshold >= 0 else None
        incoming.rearm()
        if self._unsettled:
            self._resync()
        # Until the end of this: what raises leaves it so.
        self._unsettled = bool(self.clients)
        if self._kept and not self.interrupting:
            self._kept = False
            for_each(self.clients, MetricsProtocol.flush)
        taken = incoming.take()
        # Descriptions are looked at after events have been taken, and sent before them:
        # what was described before it was recorded arrives in that order.
        self._send_descriptions()
        since, batch, marker = taken.dropped_since, taken.batch, taken.marker
        if since is not None:
            self._report_drops()
            for_each(self.clients, lambda client: client.lost(since))
        if batch is not None and self.clients:
            for_each(self.clients, lambda client: client.deliver(batch))
            if self._sample is not None and wake_requested_at is not None:
                self._sample(incoming.monotonic() - wake_requested_at)
        if marker is not None and marker is self._marker:
            asked, self._asked = self._asked, []
            self._marker = None
            for_each(asked, lambda client: client.settle(marker))
        if self.clients:
            self._ask_for_totals()
        self._unsettled = False
        if taken.failure is not None:
            self.out_of_memory(Failure(taken.failure))
        return wake_requested_at if batch is None else None

    def _resync(self) -> None:
        """
        Make up for a drain that an exception broke off: what it took may not have reached all
        clients, nor a marker those that it was for.
        """
        self._wanting.update(self.clients)
        # The pending marker is not asked for any longer, since it may be gone.
        self._asked.clear()
        for_each(self.clients, lambda client: client.resync(self._metadata))

    def _send_descriptions(self) -> None:
        described: dict[Name, bytes] = {**self._incoming.take_described()}  # type: ignore[dict-item]
        if described:
            self._metadata.update(described)
            for_each(self.clients, lambda client: client.owe(described))

    def _ask_for_totals(self) -> None:
        """Have a marker made, if any client can take the totals that it needs."""
        if self._asked or not self._wanting:
            # One marker at a time: clients that come too late for it get the next.
            return
        quiet = not self._incoming.more()
        self._asked = [client for client in self._wanting if client.ready_for_totals(quiet)]
        if self._asked:
            for client in self._asked:
                del self._wanting[client]
            self._marker = self._incoming.mark(min([client.asked() for client in self._asked]))

    def _report_drops(self) -> None:
        dropped = self._incoming.counts().dropped
        # None are if an exception broke the epoch off.
        if dropped > self._dropped:
            self._losses.lost(dropped - self._dropped)
            self._dropped = dropped

    def _log_failure(self, what: str, failure: Failure | None = None) -> None:
        """Log an exception; every `FAILURE_INTERVAL` seconds at most."""
        # There may be no memory for this, either.
        with suppress(Exception):
            now = self._incoming.monotonic()
            if self._failed_at is None or now - self._failed_at >= FAILURE_INTERVAL:
                self._failed_at = now
                _log.failure(what, failure or Failure())


def _own_name() -> str:
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    name = f"{program[:255] or 'python'}[{os.getpid()}]@{socket.gethostname()}"
    # What the system calls a program or a host need not be UTF-8.
    return name.encode(errors="replace").decode()
