"""
The exporter as a Twisted factory.

The reactor thread owns everything here; only `MetricsFactory.recorder` and `MetricsFactory.stats`
are thread-safe.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from txmetrics_tcp._checks import check_callable, seconds_from
from txmetrics_tcp._exporter.fanout import Fanout
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.protocol import MetricsProtocol, StreamHooks
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.self_metrics import OwnMetrics
from txmetrics_tcp._exporter.settings import ExporterSettings, checked_settings
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._exporter.totals import Totals
from txmetrics_tcp._instruments.sink import Entry
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.admission import Admission, Network
from txmetrics_tcp._net.connection import Rejected, for_each
from txmetrics_tcp._net.deadline import Deadline, cancel, is_pending
from txmetrics_tcp._net.descriptors import release_sockets
from txmetrics_tcp._net.endpoints import check_reactor
from txmetrics_tcp._net.log_throttle import RejectionLog

_log = Logger(namespace="txmetrics_tcp")

ABORT_TIMEOUT = 0.5
"""How long, in seconds, `stop` waits for a transport to report that its connection was aborted."""

WARNING_TIMEOUT = 1.0
"""
The maximum time, in seconds, that the first event in a silenced child waits for its warning to be
logged.
"""

TICK = 1.0
"""
The interval, in seconds, at which own metrics are published, idle series are released, and drains
that an exception aborted are finished.
"""

RELEASE_INTERVAL = 0.05
"""
The interval, in seconds, at which idle series are released if there are many: 5,000 series a
second, a rate that clients can follow.
"""


class MetricsFactory(ServerFactory):
    """
    Streams every event that is recorded with `recorder` to all connected clients.

    Listen with it on any number of endpoints::

        factory = MetricsFactory(reactor)
        TCP4ServerEndpoint(reactor, 5000, interface="127.0.0.1").listen(factory)
        set_global_recorder(factory.recorder)

    A client receives all descriptions, then the totals of all series, then events.  A slow client
    loses its oldest pending events, but slows down neither the program nor other clients.  Once it
    has caught up, it is resynced: it receives the totals of all series that changed since its first
    lost event.

    @ivar recorder: records from any thread.
    @ivar reactor: see `__init__`.
    @ivar settings: the settings of the exporter.
    @ivar silenced: whether this process is a fork of the process in which the factory listened.
        The recorder of a silenced factory takes no events; the first one is logged.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        settings: ExporterSettings | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        in_reactor_thread: Callable[[], bool] = isInIOThread,
    ) -> None:
        """
        @param reactor: the reactor that the factory is used with; provides `IReactorTime` and
            `IReactorFromThreads`.
        @param settings: by default, `ExporterSettings` with its defaults.
        @param clock: returns the time of an event, in nanoseconds since the epoch.
        @param monotonic: returns seconds, on a monotonic clock.
        @param in_reactor_thread: returns whether the calling thread is the reactor thread.
        @raise TypeError: an argument is of the wrong type.
        """
        check_reactor(reactor)
        check_callable("clock", clock, optional=False)
        check_callable("monotonic", monotonic, optional=False)
        check_callable("in_reactor_thread", in_reactor_thread, optional=False)
        settings = checked_settings(settings)
        self.settings: ExporterSettings = settings
        self.reactor: Any = reactor
        self.incoming: Incoming = Incoming(
            reactor,
            settings.buffer_size,
            self._drain,
            self._new_totals(),
            at_once=self._drain_at_once,
            max_delay=settings.max_delay,
            limit_reached=self._log_limit_reached,
            clock=clock,
            monotonic=monotonic,
            in_reactor_thread=in_reactor_thread,
        )
        self.recorder: TcpRecorder = TcpRecorder(self.incoming, self)
        self._on_child_event: Callable[[], object] | None = None
        self._begin()
        _factories.add(self)

    def _begin(self) -> None:
        """Begin without clients and ports."""
        settings = self.settings
        self.numPorts = 0
        self._own_metrics = OwnMetrics(self.recorder, self.stats) if settings.own_metrics else None
        self._fanout = Fanout(
            self.reactor,
            self.incoming,
            settings.source,
            self._drained,
            None if self._own_metrics is None else self._own_metrics.sample,
        )
        self._admission = Admission(
            cast("tuple[Network, ...] | None", settings.allow),
            settings.max_clients,
            settings.max_clients_per_address,
        )
        self._rejections = RejectionLog(self.reactor)
        # All accepted connections, including those whose TLS handshake is in progress.
        self._present: dict[MetricsProtocol, None] = {}
        self._tick: IDelayedCall | None = None
        # Since the last tick, to clients.
        self._published_on_request = False
        self._releasing: IDelayedCall | None = None
        self._logged_refused = False
        self._started = False
        self._stopping = False
        self._waiters: list[Deferred[None]] = []
        self._deadline: Deadline | None = None
        self.silenced: bool = False
        self._pid = os.getpid()

    @property
    def stream(self) -> StreamHooks:
        """What the connections of this factory stream."""
        return self._fanout

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """Always empty: a factory does not know its ports.  See `MetricsService.addresses`."""
        return ()

    def stats(self) -> Stats:
        """Return current statistics.  Thread-safe; see `Stats`."""
        return self._fanout.stats()

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """
        Send pending events, then close all connections.  Until a port listens with the factory
        again, events are discarded and clients are rejected.  Ports that listen already stay open.

        Call this on the reactor thread.  While the factory is stopping, further calls wait for the
        first one, and their timeout is ignored.

        @param timeout: the number of seconds that clients have to read their pending data; by
            default, C{flush_timeout} of the settings.  After that, they are disconnected.
        @return: a Deferred that fires when all clients are disconnected, at most half a second
            after the timeout.
        @raise TypeError: the timeout is not a number.
        @raise ValueError: the timeout is negative, 1,000,000,000 seconds or more, or NaN.
        """
        if timeout is None:
            timeout = self.settings.flush_timeout
        timeout = seconds_from(0, "timeout", timeout)
        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        if not self._stopping:
            self._stopping = True
            self.incoming.stop()
            self._deadline = Deadline(self.reactor, timeout, self._abort_clients)
            for_each(self._present.keys() - self._fanout.clients.keys(), MetricsProtocol.abort)
        self._fanout.drain()
        return gone

    def stop_now(self) -> None:
        """If `stop` is waiting, disconnect all clients now.  Call this on the reactor thread."""
        if self._deadline is not None:
            self._deadline.expire()

    # Called by Twisted.

    def startFactory(self) -> None:
        self._started = True
        self._pid = os.getpid()
        self._stopping = False
        self.incoming.restart()
        self._keep_ticking()

    def stopFactory(self) -> None:
        self._started = False
        self._close_logs()
        self._keep_ticking()

    def buildProtocol(self, addr: IAddress | None) -> MetricsProtocol | Rejected:
        if self._stopping:
            return Rejected()
        reason = self._admission.rejection_reason(addr)
        if reason is not None:
            self._rejections.report(show_address(addr), reason)
            return Rejected()
        protocol = MetricsProtocol(
            self, self._fanout, self.reactor, self.settings, show_address(addr)
        )
        protocol.factory = self
        protocol.peer = addr
        return protocol

    def publish_own_metrics(self) -> None:
        """See `TcpRecorder.publish_own_metrics`."""
        # Each publication is sent to all clients, and anybody may scrape the program.
        if self._fanout.clients:
            if self._published_on_request:
                return
            self._published_on_request = True
        self._publish_own_metrics(to_totals=True)

    # Called by protocols.

    def client_arrived(self, client: MetricsProtocol) -> None:
        self._present[client] = None
        if client.admitted:
            self._admission.enter(client.peer)

    def client_connected(self, client: MetricsProtocol) -> None:
        if not self._fanout.clients:
            # They were not published while no clients were connected.
            self._publish_own_metrics()
        self._fanout.add(client)
        self._keep_ticking()

    def client_disconnected(self, client: MetricsProtocol) -> None:
        self._fanout.remove(client)
        self._keep_ticking()

    def client_left(self, client: MetricsProtocol) -> None:
        del self._present[client]
        if client.admitted:
            self._admission.leave(client.peer)
        if not self._present:
            self._finish()

    def client_rejected(
        self,
        client: MetricsProtocol,
        reason: str,
        detail: str = "",
        failure: Failure | None = None,
    ) -> None:
        self._rejections.report(client.address, reason, detail, failure)

    def connection_rejected(self, address: str, reason: str) -> None:
        """Log a connection that was closed before it reached `buildProtocol`."""
        self._rejections.report(address, reason)

    # In a forked child.

    def restart_in_children(self, on_event: Callable[[], object]) -> None:
        """
        In forked children, begin again without events, instead of silencing the recorder.

        Recorded events change the totals.  Before it listens in the child, the factory needs a
        reactor: see `use_reactor`.

        @param on_event: called in each child when the first event is recorded, in the thread that
            records, which may be in a signal handler or a finalizer.  It must neither wait nor
            raise.
        """
        self._on_child_event = on_event

    def use_reactor(self, reactor: Any, in_reactor_thread: Callable[[], bool]) -> None:
        """
        In a child, use a reactor of this process.  May be called in any thread, before the reactor
        runs.
        """
        self.reactor = reactor
        self.incoming.use_reactor(reactor, in_reactor_thread)
        self._begin()

    # Private.

    def _new_totals(self) -> Totals | None:
        settings = self.settings
        return Totals(settings.max_series, settings.idle_after) if settings.totals else None

    def _drain(self) -> None:
        self._fanout.drain_from_reactor()

    def _drain_at_once(self) -> bool:
        # In a child process, code may record before `_after_fork` runs.  It must not write to the
        # sockets, which belong to the parent.
        return os.getpid() == self._pid and self._fanout.drain_at_once()

    def _drained(self) -> None:
        self._keep_ticking()
        self._finish()

    def _keep_ticking(self) -> None:
        """
        Run the tick while clients are connected, or while a port listens and idle series have to be
        released.
        """
        expire = self.settings.totals and self.settings.idle_after is not None
        wanted = bool(self._fanout.clients) or (self._started and expire)
        if not wanted:
            cancel(self._tick)
            cancel(self._releasing)
        elif not is_pending(self._tick):
            self._tick = self.reactor.callLater(TICK, self._on_tick)

    def _on_tick(self) -> None:
        self._keep_ticking()
        self._published_on_request = False
        self._fanout.tick()
        self._release_idle()
        if self.incoming.ledger.refused:
            self._log_limit_reached()
        if self._fanout.clients:
            self._publish_own_metrics()

    def _publish_own_metrics(self, to_totals: bool = False) -> None:
        # While the recorder takes no events, they would be lost.
        if self._own_metrics is not None and self.incoming.open:
            self._own_metrics.publish(len(self._fanout.clients), to_totals)

    def _release_idle(self) -> None:
        now = self.incoming.monotonic()
        if self.incoming.release_idle(now) and not is_pending(self._releasing):
            self._releasing = self.reactor.callLater(RELEASE_INTERVAL, self._release_idle)

    def _log_limit_reached(self) -> None:
        if not self._logged_refused:
            self._logged_refused = True
            _log.warn(
                "Reached the limit of series with totals ({series:,}): new clients receive no"
                " totals of further series.  Metrics with the most series: {metrics}.  Use fewer"
                " label values, or raise max_series",
                series=self.incoming.ledger.retained,
                metrics="; ".join(map(str, self.incoming.cardinality())) or "none",
            )

    def _finish(self) -> None:
        """
        If stopping, disconnect each client once all of its pending data is sent.  After the last
        one, fire the Deferreds of `stop`.
        """
        if not self._stopping:
            return
        if self._fanout.clients:
            if not self.incoming.more():
                for_each(self._fanout.clients, MetricsProtocol.finish)
            return
        if self._present:
            return
        self._close_logs()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        waiters, self._waiters = self._waiters, []
        for gone in waiters:
            gone.callback(None)

    def _close_logs(self) -> None:
        self._rejections.close()
        self._fanout.close_logs()

    def _abort_clients(self) -> None:
        self._deadline = Deadline(self.reactor, ABORT_TIMEOUT, self._release_clients)
        for_each(self._present, MetricsProtocol.abort)

    def _release_clients(self) -> None:
        # The transports of these clients have not reported the end of the connection.
        self._deadline = None
        for client in list(self._present):
            with suppress(Exception):
                client.connectionLost(Failure(ConnectionAborted()))
        self._fanout.clients.clear()
        self._present.clear()
        self._finish()

    def _after_fork(self) -> None:
        """
        In a child process of the process that used the factory, take no further events, and release
        connections and ports.  These belong to the parent, so the peers must not notice.
        """
        self._pid = os.getpid()
        used = self.silenced or self._started or bool(self._present)
        self.silenced = used and self._on_child_event is None
        self.incoming.after_fork(self.silenced)
        if self.silenced:
            self.incoming.log = _silenced_log
            self.incoming.open = True
        if used:
            transports = [client.transport for client in self._present]
            self._fanout.clients.clear()
            self._present.clear()
            release_sockets(self.reactor, self, transports)
        if self._on_child_event is not None:
            self.incoming.begin_again(self._new_totals(), self._on_child_event)


class _SilencedLog(deque[Entry]):
    """
    The log of all silenced factories.  It discards the first event with a warning, and closes the
    factories' sinks, so that handles ignore further events.

    A child that records nothing, because it soon executes another program for example, logs
    nothing.
    """

    def extend(self, entries: Iterable[Entry], /) -> None:
        for entry in islice(entries, 1):
            self.append(entry)

    def append(self, entry: Entry, /) -> None:
        for factory in list(_factories):
            if factory.silenced:
                factory.incoming.open = False
        if sys.is_finalizing():
            # No thread can be started.
            return
        # Logging may deadlock in a child: another thread of the parent may have held the lock of a
        # log file during the fork.
        thread = threading.Thread(target=_warn_silenced, daemon=True)
        # The process may not be allowed to start another thread.
        with suppress(RuntimeError):
            thread.start()
            thread.join(WARNING_TIMEOUT)


def _warn_silenced() -> None:
    _log.warn(
        "Process {pid} records no metrics: it was forked from a process that was already streaming."
        "  Install after forking, in each process",
        pid=os.getpid(),
    )


_silenced_log = _SilencedLog()
_factories: weakref.WeakSet[MetricsFactory] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for factory in list(_factories):
        factory._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
