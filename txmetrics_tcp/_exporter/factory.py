"""
The exporter: a factory that fans out what is recorded to every client.

All of it belongs to the reactor thread, but for `MetricsFactory.recorder` and
`MetricsFactory.stats`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._exporter.backlog import Name
from txmetrics_tcp._exporter.ingest import Counts, Incoming, Mark, earliest
from txmetrics_tcp._exporter.protocol import MetricsProtocol
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.self_metrics import OwnMetrics
from txmetrics_tcp._exporter.settings import (
    DEFAULT_BUFFER_SIZE,
    DEFAULT_MAX_SERIES,
    FLUSH_TIMEOUT,
    REPAIR_INTERVAL,
)
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._exporter.totals import Totals
from txmetrics_tcp._model import Status, checked_source
from txmetrics_tcp._net.admission import MAX_CLIENTS, Admission, Network, network
from txmetrics_tcp._net.checks import at_least, seconds_from
from txmetrics_tcp._net.connection import Refused, for_each
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.descriptors import listens_with, replace_descriptors
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._net.log_throttle import LossReport, RefusalLog
from txmetrics_tcp._net.writers import within_transport

_log = Logger(namespace="txmetrics_tcp")

CUT_OFF_TIMEOUT = 0.5
"""How long, in seconds, `stop` waits for a transport to report that its connection was aborted."""

FAILURE_INTERVAL = 10.0
"""The least time, in seconds, between two log lines about failures to hand events on."""

TICK = 1.0
"""How often, in seconds, own metrics are published and idle series are looked for."""


class MetricsFactory(ServerFactory):
    """
    Streams every event that is recorded with `recorder` to every client that connects.

    Listen with it on any endpoint, any number of them::

        factory = MetricsFactory(reactor)
        TCP4ServerEndpoint(reactor, 5000, interface="127.0.0.1").listen(factory)
        set_global_recorder(factory.recorder)

    A client receives all descriptions, the totals of all counters and gauges, then events as they
    come.  A slow client loses its oldest events, and slows neither the program nor other
    clients; once it has caught up, it receives the totals that it has wrong.

    @ivar recorder: records from any thread.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        buffer_size: int | None = DEFAULT_BUFFER_SIZE,
        *,
        totals: bool = True,
        max_series: int = DEFAULT_MAX_SERIES,
        idle_after: float | None = None,
        repair_interval: float = REPAIR_INTERVAL,
        dead_after: float | None = None,
        own_metrics: bool = True,
        source: str | None = None,
        allow: Sequence[str | Network] = (),
        max_clients: int | None = MAX_CLIENTS,
        max_clients_per_address: int | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        in_reactor_thread: Callable[[], bool] = isInIOThread,
    ) -> None:
        """
        @param reactor: what the factory will be used with; it provides `IReactorTime` and
            `IReactorFromThreads`.
        @param buffer_size: how many events may wait on the incoming side, and as many for each
            client; None for no limit, which may take all memory.
        @param totals: whether totals are kept, for clients that come late and for those that
            lost events.  Without, recording costs less while nobody listens.
        @param max_series: of how many series totals are kept at most.
        @param idle_after: after how many seconds without a change a series is left out of what
            a new client receives; None for never.
        @param repair_interval: how long, in seconds, totals may be wrong at most for a client
            that does not catch up.
        @param dead_after: for how many seconds a client may take nothing of what waits for it
            before it is cut off, be it dead or only stalled; None for as long as it likes, or
            until the kernel finds out.
        @param own_metrics: whether the exporter's own metrics are in the stream: what it
            records, delivers and loses.
        @param source: what viewers show as the name of this program; its name, process number
            and host unless given.
        @param allow: the networks that clients may come from (C{192.0.2.0/24}); from anywhere
            unless given.  Those of UNIX sockets are not asked.
        @param max_clients: how many clients there may be at once; None for any number.
        @param max_clients_per_address: how many of them from one address, or, of IPv6, from one
            /64; None for any number.
        @param clock: the time of an event, in nanoseconds since the epoch.
        @param monotonic: seconds, on a clock that does not jump.
        @param in_reactor_thread: tells whether it is called on the reactor's thread.
        @raise TypeError: a setting is of the wrong type.
        @raise ValueError: a number is out of range or not finite; or C{source} is empty, takes
            more than 64 KiB, or cannot be encoded as UTF-8.
        """
        self._clock = cast(IReactorTime, reactor)
        self._from_threads = cast(IReactorFromThreads, reactor)
        self._buffer_size = buffer_size
        self._repair_interval = seconds_from("repair_interval", 0.1, repair_interval)
        self._dead_after = (
            None if dead_after is None else seconds_from("dead_after", 0.1, dead_after)
        )
        if idle_after is not None:
            idle_after = seconds_from("idle_after", 0, idle_after)
        self._source = None if source is None else checked_source(source)
        self._started_ns = clock()
        self.incoming = Incoming(
            reactor,
            buffer_size,
            self._drain,
            Totals(at_least("max_series", 0, max_series), idle_after) if totals else None,
            at_once=self._drain_at_once,
            clock=clock,
            monotonic=monotonic,
            in_reactor_thread=in_reactor_thread,
        )
        self.recorder = TcpRecorder(self.incoming, self)
        # In the order in which they came.
        self._clients: dict[MetricsProtocol, None] = {}
        # They and those that are still to begin, with TLS for example.
        self._present: dict[MetricsProtocol, None] = {}
        self._admission = Admission(
            [network(text) for text in allow], max_clients, max_clients_per_address
        )
        self._refusals = RefusalLog(self._clock)
        # Those that want totals, and those that a mark on its way is for.
        self._wanting: dict[MetricsProtocol, None] = {}
        self._asked: list[MetricsProtocol] = []
        self._mark: Mark | None = None
        self._metadata: dict[Name, bytes] = {}
        self._draining = False
        # Whether a drain is under way, or was broken off by an exception; whether what was pending
        # for clients was put off for want of memory; and when either was last logged.
        self._unsettled = False
        self._put_off = False
        self._failed_at: float | None = None
        # Whether clients keep what they are given, and whether some may have kept something.
        self.holding = False
        self._kept = False
        self._again = False
        self._own_metrics = OwnMetrics(self.recorder, self.stats) if own_metrics else None
        self._tick: IDelayedCall | None = None
        self._said_refused = False
        # The accounts of those that have gone, added up.
        self._connected = 0
        self._gone = Counter[str]()
        self._losses = LossReport(
            self._clock, "because the reactor does not keep up with what is recorded"
        )
        self._dropped = 0
        self._stopping = False
        self._waiters: list[Deferred[None]] = []
        self._deadline: Deadline | None = None
        self._started = False
        self._silenced = False
        self._pid = os.getpid()
        _factories.add(self)

    @property
    def silenced(self) -> bool:
        """
        Whether this process was forked from the one in which the factory was listening, so that
        its recorder takes no events any more.
        """
        return self._silenced

    @property
    def clock(self) -> IReactorTime:
        """What it measures time with: the reactor."""
        return self._clock

    @property
    def networks(self) -> tuple[Network, ...]:
        """Where clients may come from; from anywhere if it is empty."""
        return self._admission.networks

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """A factory does not know what listens with it; see `MetricsService.addresses`."""
        return ()

    def stats(self) -> Stats:
        """What happened so far.  May be called from any thread; see `Stats`."""
        counts = self.incoming.counts()
        present = [(client.following, client.stats()) for client in list(self._clients)]
        clients = tuple(account for following, account in present if following)
        gone = self._gone
        return Stats(
            recorded=counts.recorded,
            dropped=counts.dropped,
            waiting=counts.waiting,
            series=self.incoming.retained,
            series_refused=self.incoming.refused,
            clients=clients,
            connected=self._connected,
            written=gone["written"] + sum(client.written for client in clients),
            dropped_by_clients=gone["dropped"] + sum(client.dropped for client in clients),
            repairs=gone["repairs"] + sum(client.repairs for client in clients),
            # Also of those that have been sent descriptions, and nothing else yet.
            bytes_written=gone["bytes"] + sum(account.bytes_written for _, account in present),
        )

    def stop(self, timeout: float = FLUSH_TIMEOUT) -> Deferred[None]:
        """
        Send what was recorded so far, then close every connection.  Records no more, and
        accepts no more clients, unless something listens with this factory anew.

        To be called on the reactor thread.

        @param timeout: how long the clients have to take what waits for them, in seconds.
            After that they are cut off.
        @return: fires when the last is gone, and half a second after they were cut off at the
            latest.
        @raise TypeError: the timeout is no number.
        @raise ValueError: it is negative, or not finite.
        """
        timeout = seconds_from("timeout", 0, timeout)
        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        if not self._stopping:
            self._stopping = True
            self.incoming.stop()
            self._deadline = Deadline(self._clock, timeout, self._cut_off)
            for_each(self._present.keys() - self._clients.keys(), MetricsProtocol.abort)
        self._drain()
        return gone

    def hasten(self) -> None:
        """Where it is stopping: wait for no client any longer.  On the reactor thread."""
        if self._deadline is not None:
            self._deadline.hasten()

    # What Twisted calls.

    def startFactory(self) -> None:
        self._started = True
        self._pid = os.getpid()
        self._stopping = False
        self.incoming.restart()
        self._keep_ticking()

    def stopFactory(self) -> None:
        self._started = False
        self._refusals.close()
        self._keep_ticking()

    def buildProtocol(self, addr: IAddress | None) -> MetricsProtocol | Refused:
        if self._stopping:
            return Refused()
        why = self._admission.refuses(addr)
        if why is not None:
            self._refusals.say(show_address(addr), why)
            return Refused()
        protocol = MetricsProtocol(
            self,
            self._clock,
            self._buffer_size,
            self._repair_interval,
            show_address(addr),
            totals=self.incoming.has_totals,
            dead_after=self._dead_after,
        )
        protocol.factory = self
        protocol.peer = addr
        return protocol

    # What the protocols call.

    def client_arrived(self, client: MetricsProtocol) -> None:
        self._present[client] = None
        self._admission.enter(client.peer)

    def client_left(self, client: MetricsProtocol) -> None:
        del self._present[client]
        self._admission.leave(client.peer)
        if not self._present:
            self._finish()

    def connection_rejected(self, address: str, reason: str) -> None:
        """A client was not even accepted."""
        self._refusals.say(address, reason)

    def client_rejected(
        self,
        client: MetricsProtocol,
        reason: str,
        detail: str = "",
        failure: Failure | None = None,
    ) -> None:
        self._refusals.say(client.address, reason, detail, failure)

    def client_connected(self, client: MetricsProtocol) -> None:
        self.incoming.start_streaming()
        self._clients[client] = None
        self._connected += 1
        self._keep_ticking()
        client.owe(self._metadata)
        if client in self._clients:
            self._wanting[client] = None
        self._drain()

    def client_disconnected(self, client: MetricsProtocol) -> None:
        if client not in self._clients:
            # It failed as it began.
            return
        del self._clients[client]
        self._wanting.pop(client, None)
        stats = client.stats()
        self._gone.update(
            written=stats.written,
            dropped=stats.dropped,
            repairs=stats.repairs,
            bytes=stats.bytes_written,
        )
        if not self._clients:
            self.incoming.stop_streaming()
            self._asked.clear()
            self._again = self._unsettled = self._put_off = False
            self._mark = None
            self._keep_ticking()
            self._losses.close()

    def out_of_memory(self, failure: Failure) -> None:
        # Clients that do not keep up hold most of it, so they are disconnected; the others receive
        # the totals with the next tick.
        self._put_off = True
        for client in self._clients:
            client.put_off()
        for client in [client for client in self._clients if client.stalled]:
            client.fail(failure)
        self._log_failure("Out of memory: clients miss events, or are disconnected", failure)

    def client_wants_truth(self, client: MetricsProtocol) -> None:
        self._wanting[client] = None
        self._drain_later()

    def counts(self) -> Counts:
        return self.incoming.counts()

    def status(self, dropped_incoming: int, dropped_client: int) -> bytes:
        # The name is found out when it is needed: before, the process may have forked.
        source = self._source or _own_name()
        return encode_status(Status(source, self._started_ns, dropped_incoming, dropped_client))

    # Inside.

    def _drain(self) -> bool:
        """
        Hand on what was recorded: one batch, after which the reactor has its turn.

        @return: whether it did; a drain on the stack (a log observer may record while it is
            called from one) is not entered again.
        """
        if self._draining:
            return False
        self._draining = True
        try:
            waiting_since = self._hand_on()
        except MemoryError:
            self.out_of_memory(Failure())
            waiting_since = None
        except Exception:
            self._log_failure("Events could not be handed on; totals will be sent again")
            waiting_since = None
        finally:
            self._draining = False
        if not self._clients or not (self.incoming.more() or self._unsettled or self._put_off):
            self._finish()
        elif not (self._unsettled or self._put_off):
            self._drain_later()
            if waiting_since is not None:
                self.incoming.woken_at = waiting_since
        # Otherwise the next event, or the tick, comes to it.
        return True

    def _hand_on(self) -> float | None:
        """
        Take a batch, and what stands behind it, and hand it on.

        @return: since when what still waits has waited, on the clock of C{incoming.monotonic}; None
            if that is not known, or from now on: behind a batch, it is taken to wait from now on.
        """
        # If the next event is to wake the reactor, none has, and the time is an earlier one's.
        woken_at = self.incoming.woken_at if self.incoming.slack >= 0 else None
        self.incoming.rearm()
        self._keep_ticking()
        if self._unsettled:
            self._resync()
        # Until the end of this: what raises leaves it so.
        self._unsettled = bool(self._clients)
        if self._kept and not self.holding:
            self._kept = False
            for_each(self._clients, MetricsProtocol.flush)
        taken = self.incoming.take()
        # Descriptions are looked at after events have been taken, and sent before them:
        # what was described before it was recorded arrives in that order.
        self._send_descriptions()
        since, batch, mark = taken.dropped_since, taken.batch, taken.mark
        if since is not None:
            self._report_drops()
            for_each(self._clients, lambda client: client.lost(since))
        if batch is not None and self._clients:
            for_each(self._clients, lambda client: client.deliver(batch))
            if self._own_metrics is not None and woken_at is not None:
                self._own_metrics.sample(self.incoming.monotonic() - woken_at)
        if mark is not None and mark is self._mark:
            asked, self._asked = self._asked, []
            self._mark = None
            for_each(asked, lambda client: client.settle(mark))
        if self._clients:
            self._ask_for_truth()
        self._unsettled = False
        if taken.failure is not None:
            self.out_of_memory(Failure(taken.failure))
        return woken_at if batch is None else None

    def _resync(self) -> None:
        """
        Make up for a drain that an exception broke off: what it took may not have reached all
        clients, nor a mark those that it was for.
        """
        self._wanting.update(dict.fromkeys(self._asked))
        # The mark on its way is not asked for any longer, since it may be gone.
        self._asked.clear()
        for_each(self._clients, lambda client: client.resync(self._metadata))

    def _drain_at_once(self) -> bool:
        """
        The same in the middle of a record on the reactor thread.

        Who records may be a finalizer or a signal handler, and so in the middle of anything.  In
        the middle of a transport's method clients keep what they are given until the reactor's
        next turn: what is written there would be lost.

        @return: whether it did.
        """
        if self._draining or any(client.flushing for client in self._clients):
            return False
        if os.getpid() != self._pid:
            # A child process, in which somebody records before `_after_fork`: the sockets are the
            # parent's.
            return False
        # This may be interrupted as well, and the one that interrupts must not end our holding.
        before = self.holding
        self.holding = within_transport()
        try:
            if self.holding:
                self._kept = True
                self._drain_later()
            self._drain()
        finally:
            self.holding = before
        return True

    def _drain_later(self) -> None:
        if self._again or self._draining:
            return
        self._again = True
        try:
            self.incoming.will_come()
            # Not `callLater`, which most reactors measure with the time of day: a clock that is
            # set back by an hour in this very moment would hold the stream up for an hour.
            self._from_threads.callFromThread(self._drain_again)
        except BaseException as error:
            # The reactor is gone, or a signal handler raised, and then the reactor may not know.
            # To be called twice is no harm.
            self._again = False
            self.incoming.rearm()
            with suppress(Exception):
                self._from_threads.callFromThread(self._drain)
            if not isinstance(error, Exception):
                raise

    def _drain_again(self) -> None:
        if self._again:
            self._again = False
            self._drain()

    def _keep_ticking(self) -> None:
        """Tick while there are clients, or, while something listens, series that may expire."""
        wanted = self._clients or (self._started and self.incoming.forgets)
        if self._tick is None and wanted:
            self._tick = self._clock.callLater(TICK, self._each_second)
        elif self._tick is not None and not wanted:
            self._tick.cancel()
            self._tick = None

    def _each_second(self) -> None:
        self._tick = None
        self._keep_ticking()
        if self._put_off:
            self._unsettled, self._put_off = True, False
        if self._unsettled:
            # What was broken off goes on, also where nothing else happens.
            self._drain()
        if self.incoming.forgets and not (self._unsettled or self._put_off):
            needed = earliest(client.needed_since for client in self._clients)
            self.incoming.forget_idle(self.incoming.monotonic(), needed)
        if self.incoming.refused and not self._said_refused:
            self._said_refused = True
            _log.warn(
                "There are more series than totals are kept of ({series}): clients that come late"
                " do not see those that came last",
                series=self.incoming.retained,
            )
        if self._own_metrics is not None and self._clients:
            self._own_metrics.publish()

    def _send_descriptions(self) -> None:
        described: dict[Name, bytes] = {**self.incoming.take_described()}  # type: ignore[dict-item]
        if described:
            self._metadata.update(described)
            for_each(self._clients, lambda client: client.owe(described))

    def _ask_for_truth(self) -> None:
        """Have a mark made, if any client can take the totals that it wants."""
        if self._asked or not self._wanting:
            # One mark at a time: those who come too late for it get the next.
            return
        quiet = not self.incoming.more()
        self._asked = [client for client in self._wanting if client.ready_for_truth(quiet)]
        if self._asked:
            for client in self._asked:
                del self._wanting[client]
            self._mark = self.incoming.mark(min([client.asked() for client in self._asked]))

    def _report_drops(self) -> None:
        dropped = self.incoming.counts().dropped
        self._losses.lost(dropped - self._dropped)
        self._dropped = dropped

    def _finish(self) -> None:
        """When stopping: let clients go once nothing is left to be handed to them."""
        if not self._stopping:
            return
        if self._clients:
            if not self.incoming.more():
                for_each(self._clients, MetricsProtocol.finish)
            return
        if self._present:
            return
        self._refusals.close()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        waiters, self._waiters = self._waiters, []
        for gone in waiters:
            gone.callback(None)

    def _after_fork(self) -> None:
        """
        This is a child process.  Clients and ports, if there are any, are the parent's: let go of
        them here, without the other end noticing, and take no events.
        """
        self._pid = os.getpid()
        self._silenced = self._started or bool(self._present)
        self.incoming.after_fork(self._silenced)
        if self._silenced:
            held: list[Any] = [client.transport for client in self._present]
            if IReactorFDSet.providedBy(self._clock):
                held += [
                    reader for reader in self._clock.getReaders() if listens_with(reader, self)
                ]
            # Not all that a factory is used with is a socket.
            replace_descriptors([one.fileno() for one in held if hasattr(one, "fileno")])
            self._clients.clear()
            self._present.clear()

    def _cut_off(self) -> None:
        self._deadline = Deadline(self._clock, CUT_OFF_TIMEOUT, self._forget_rest)
        for_each(self._present, MetricsProtocol.abort)

    def _forget_rest(self) -> None:
        # Their transports do not report the end of the connection.
        self._deadline = None
        for client in list(self._present):
            with suppress(Exception):
                client.connectionLost(Failure(ConnectionAborted()))
        self._clients.clear()
        self._present.clear()
        self._finish()

    def _log_failure(self, what: str, failure: Failure | None = None) -> None:
        """Say that something was raised; every `FAILURE_INTERVAL` seconds at most."""
        # There may be no memory for this, either.
        with suppress(Exception):
            now = self.incoming.monotonic()
            if self._failed_at is None or now - self._failed_at >= FAILURE_INTERVAL:
                self._failed_at = now
                _log.failure(what, failure or Failure())


_factories: weakref.WeakSet[MetricsFactory] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for factory in list(_factories):
        factory._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _own_name() -> str:
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    name = f"{program[:255] or 'python'}[{os.getpid()}]@{socket.gethostname()}"
    # What the system calls a program or a host need not be UTF-8.
    return name.encode(errors="replace").decode()
