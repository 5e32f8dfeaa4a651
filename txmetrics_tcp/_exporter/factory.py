"""
The exporter: a factory that streams what is recorded to every client.

All of it belongs to the reactor thread, but for `MetricsFactory.recorder` and
`MetricsFactory.stats`.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from txmetrics_tcp._exporter.fanout import Fanout
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.protocol import MetricsProtocol
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.self_metrics import OwnMetrics
from txmetrics_tcp._exporter.settings import ExporterSettings, checked_settings
from txmetrics_tcp._exporter.stats import Stats
from txmetrics_tcp._exporter.totals import Totals
from txmetrics_tcp._net.admission import Admission, network
from txmetrics_tcp._net.checks import seconds_from
from txmetrics_tcp._net.connection import Refused, for_each
from txmetrics_tcp._net.deadline import Deadline, cancel, is_pending
from txmetrics_tcp._net.descriptors import release_sockets
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._net.log_throttle import RejectionLog

_log = Logger(namespace="txmetrics_tcp")

CUT_OFF_TIMEOUT = 0.5
"""How long, in seconds, `stop` waits for a transport to report that its connection was aborted."""

TICK = 1.0
"""
How often, in seconds, own metrics are published, idle series are released, and what an exception
has left undone is done.
"""


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
    @ivar reactor: what it is used with.
    @ivar settings: what it was made with.
    @ivar silenced: whether this process was forked from the one in which the factory was listening,
        so that its recorder takes no events any longer.
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
        @param reactor: what the factory will be used with; it provides `IReactorTime` and
            `IReactorFromThreads`.
        @param settings: by default, the defaults.
        @param clock: the time of an event, in nanoseconds since the epoch.
        @param monotonic: seconds, on a clock that does not jump.
        @param in_reactor_thread: tells whether it is called on the reactor's thread.
        """
        self.settings = settings = checked_settings(settings)
        self.reactor = reactor
        self.incoming = Incoming(
            reactor,
            settings.buffer_size,
            self._drain,
            Totals(settings.max_series, settings.idle_after) if settings.totals else None,
            at_once=self._drain_at_once,
            clock=clock,
            monotonic=monotonic,
            in_reactor_thread=in_reactor_thread,
        )
        self.recorder = TcpRecorder(self.incoming, self)
        self._own_metrics = OwnMetrics(self.recorder, self.stats) if settings.own_metrics else None
        self._fanout = Fanout(
            reactor,
            self.incoming,
            settings.source,
            self._drained,
            None if self._own_metrics is None else self._own_metrics.sample,
        )
        self._admission = Admission(
            [network(text) for text in settings.allow],
            settings.max_clients,
            settings.max_clients_per_address,
        )
        self._rejections = RejectionLog(self.reactor)
        # All that have arrived, also those whose handshake of TLS is not done.
        self._present: dict[MetricsProtocol, None] = {}
        self._tick: IDelayedCall | None = None
        self._said_refused = False
        self._started = False
        self._stopping = False
        self._waiters: list[Deferred[None]] = []
        self._deadline: Deadline | None = None
        self.silenced = False
        self._pid = os.getpid()
        _factories.add(self)

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """A factory does not know what listens with it; see `MetricsService.addresses`."""
        return ()

    def stats(self) -> Stats:
        """What happened so far.  May be called from any thread; see `Stats`."""
        return self._fanout.stats()

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """
        Send what was recorded so far, then close every connection.  Records no more, and
        accepts no more clients, unless something listens with this factory again.

        To be called on the reactor thread.

        @param timeout: how long the clients have to take what is pending for them, in seconds; by
            default, C{flush_timeout} of the settings.  After that they are disconnected.
        @return: fires when the last is gone, and half a second after the timeout at the latest.
        @raise TypeError: the timeout is no number.
        @raise ValueError: it is negative, or not finite.
        """
        if timeout is None:
            timeout = self.settings.flush_timeout
        timeout = seconds_from(0, "timeout", timeout)
        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        if not self._stopping:
            self._stopping = True
            self.incoming.stop()
            self._deadline = Deadline(self.reactor, timeout, self._cut_off)
            for_each(self._present.keys() - self._fanout.clients.keys(), MetricsProtocol.abort)
        self._fanout.drain()
        return gone

    def stop_now(self) -> None:
        """Where it is stopping: wait for no client any longer.  On the reactor thread."""
        if self._deadline is not None:
            self._deadline.expire()

    # What Twisted calls.

    def startFactory(self) -> None:
        self._started = True
        self._pid = os.getpid()
        self._stopping = False
        self.incoming.restart()
        self._keep_ticking()

    def stopFactory(self) -> None:
        self._started = False
        self._rejections.close()
        self._keep_ticking()

    def buildProtocol(self, addr: IAddress | None) -> MetricsProtocol | Refused:
        if self._stopping:
            return Refused()
        why = self._admission.refuses(addr)
        if why is not None:
            self._rejections.say(show_address(addr), why)
            return Refused()
        protocol = MetricsProtocol(
            self, self._fanout, self.reactor, self.settings, show_address(addr)
        )
        protocol.factory = self
        protocol.peer = addr
        return protocol

    # What the protocols call.

    def client_arrived(self, client: MetricsProtocol) -> None:
        self._present[client] = None
        self._admission.enter(client.peer)

    def client_connected(self, client: MetricsProtocol) -> None:
        self._fanout.add(client)
        self._keep_ticking()

    def client_disconnected(self, client: MetricsProtocol) -> None:
        self._fanout.remove(client)
        self._keep_ticking()

    def client_left(self, client: MetricsProtocol) -> None:
        del self._present[client]
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
        self._rejections.say(client.address, reason, detail, failure)

    def connection_rejected(self, address: str, reason: str) -> None:
        """A client was not even accepted."""
        self._rejections.say(address, reason)

    # Inside.

    def _drain(self) -> None:
        self._fanout.drain_from_reactor()

    def _drain_at_once(self) -> bool:
        # In a child process, where something may record before `_after_fork`, the sockets are the
        # parent's.
        return os.getpid() == self._pid and self._fanout.drain_at_once()

    def _drained(self) -> None:
        self._keep_ticking()
        self._finish()

    def _keep_ticking(self) -> None:
        """Tick while there are clients, or, while something listens, series that may expire."""
        expire = self.settings.totals and self.settings.idle_after is not None
        wanted = bool(self._fanout.clients) or (self._started and expire)
        if not wanted:
            cancel(self._tick)
        elif not is_pending(self._tick):
            self._tick = self.reactor.callLater(TICK, self._each_second)

    def _each_second(self) -> None:
        self._keep_ticking()
        self._fanout.tick()
        if self.settings.idle_after is not None and self._fanout.settled:
            self.incoming.forget_idle(self.incoming.monotonic(), self._fanout.needed_since)
        if self.incoming.ledger.refused and not self._said_refused:
            self._said_refused = True
            _log.warn(
                "There are more series than totals are kept of ({series}): new clients do not"
                " receive those that came last",
                series=self.incoming.ledger.retained,
            )
        if self._own_metrics is not None and self._fanout.clients:
            self._own_metrics.publish()

    def _finish(self) -> None:
        """When stopping: let clients go once nothing is left to be handed to them."""
        if not self._stopping:
            return
        if self._fanout.clients:
            if not self.incoming.more():
                for_each(self._fanout.clients, MetricsProtocol.finish)
            return
        if self._present:
            return
        self._rejections.close()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        waiters, self._waiters = self._waiters, []
        for gone in waiters:
            gone.callback(None)

    def _cut_off(self) -> None:
        self._deadline = Deadline(self.reactor, CUT_OFF_TIMEOUT, self._forget_rest)
        for_each(self._present, MetricsProtocol.abort)

    def _forget_rest(self) -> None:
        # Their transports do not report the end of the connection.
        self._deadline = None
        for client in list(self._present):
            with suppress(Exception):
                client.connectionLost(Failure(ConnectionAborted()))
        self._fanout.clients.clear()
        self._present.clear()
        self._finish()

    def _after_fork(self) -> None:
        """
        This is a child process.  Clients and ports, if there are any, are the parent's: release
        them here, without a sign to the peer, and take no events.
        """
        self._pid = os.getpid()
        self.silenced = self._started or bool(self._present)
        self.incoming.after_fork(self.silenced)
        if self.silenced:
            release_sockets(self.reactor, self, [client.transport for client in self._present])
            self._fanout.clients.clear()
            self._present.clear()


_factories: weakref.WeakSet[MetricsFactory] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for factory in list(_factories):
        factory._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
