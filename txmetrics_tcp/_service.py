"""
Listening and stopping: the exporter as a Twisted service, and the builder that starts one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    fail,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._endpoints import DEFAULT_ENDPOINT, is_exposed, server_endpoint, show_address
from txmetrics_tcp._facade import set_global_recorder, unset_global_recorder
from txmetrics_tcp._in_thread import ThreadedExporter, install_in_thread, own_reactor
from txmetrics_tcp._incoming import at_least, check_buffer_size
from txmetrics_tcp._server import FLUSH_TIMEOUT, MetricsFactory
from txmetrics_tcp._stats import Stats
from txmetrics_tcp._tcp_recorder import TcpRecorder


class ListenError(Exception):
    """It was not possible to listen.  The text says where, and why."""


class MetricsService(Service):
    """
    Streams metrics for as long as it runs.

    Add it to an application's services like any other.  A failure to listen leaves
    `privilegedStartService`, or `startService` where that is called alone, as `ListenError`: a
    program that was to be watched and cannot be should say so, and not only in its log.

    @ivar recorder: records from any thread, also before the service starts.
    """

    _log = Logger(namespace="txmetrics_tcp")

    def __init__(
        self,
        factory: MetricsFactory,
        endpoints: Sequence[IStreamServerEndpoint],
        flush_timeout: float = FLUSH_TIMEOUT,
    ) -> None:
        """
        @param endpoints: where to listen.
        @param flush_timeout: how long, in seconds, clients have at the end to take what waits
            for them.
        """
        self._factory = factory
        self._endpoints = list(endpoints)
        self._flush_timeout = flush_timeout
        self._ports: list[IListeningPort] = []
        self._attempts: list[Deferred[None]] = []
        self._listening = False
        # How many calls of stop have not come to their end.
        self._stopping = 0
        self.recorder = TcpRecorder(factory.incoming, self)
        self.name = "metrics-tcp"

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """Where it listens; empty while it does not."""
        return tuple(port.getHost() for port in self._ports)

    @property
    def silenced(self) -> bool:
        """See `MetricsFactory.silenced`."""
        return self._factory.silenced

    def stats(self) -> Stats:
        """What happened to events so far.  May be called from any thread; see `Stats`."""
        return self._factory.stats()

    def listen(self) -> Deferred[None]:
        """
        Begin to listen on every endpoint.

        @return: a Deferred that fires when it listens on all, or fails with `ListenError` and
            listens on none.
        """

        def failed(reason: Failure) -> Deferred[None]:
            return self.stop().addCallback(lambda result: reason.raiseException())

        return self._listen().addErrback(failed)

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send what was recorded, and close every connection.

        To be called on the reactor thread; a second call waits for the first.

        @return: fires when all are gone.
        """
        self._stopping += 1
        # Both at once: new clients are refused from now on.
        gone = self._factory.stop(self._flush_timeout)
        return gatherResults([self._stop_listening(), gone]).addCallback(self._stopped)

    # IService

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._start()

    def startService(self) -> None:
        if not self._listening:
            self._start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.stop()

    def _start(self) -> None:
        raising = True

        def failed(reason: Failure) -> Failure | None:
            stopped_meanwhile = bool(self._stopping)
            # Not to be waited for: the caller is to know now, and a port is closed in the next
            # turn of the reactor only.
            self.stop()
            if raising:
                return reason
            if not stopped_meanwhile:
                self._log.failure("No metrics are streamed", reason)
            return None

        errors: list[Failure] = []
        self._listen().addErrback(failed).addErrback(errors.append)
        raising = False
        if errors:
            errors[0].raiseException()

    def _listen(self) -> Deferred[None]:
        """As `listen`, but after a failure it may still listen somewhere."""
        if self._stopping:
            return fail(ListenError("Couldn't listen: it has not stopped yet"))
        self._listening = True
        self._attempts = [
            maybeDeferred(endpoint.listen, self._factory).addCallback(self._listens)
            for endpoint in self._endpoints
        ]
        return DeferredList(self._attempts, consumeErrors=True).addCallback(self._listened)

    def _listens(self, port: IListeningPort) -> None:
        self._ports.append(port)

    def _listened(self, results: list[tuple[bool, Any]]) -> None:
        self._attempts = []
        for success, reason in results:
            if not success:
                raise ListenError(_explain(reason.value)) from reason.value
        for port in self._ports:
            address = port.getHost()
            shown = show_address(address)
            self._log.info("Streaming metrics on {address}", address=shown)
            if is_exposed(address):
                self._log.warn(
                    "Everybody who can reach this machine can read the metrics on {address}",
                    address=shown,
                )

    def _stop_listening(self) -> Deferred[None]:
        self._listening = False
        ports, self._ports = self._ports, []
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.cancel()
        stopped = [maybeDeferred(port.stopListening) for port in ports]
        return DeferredList(stopped, consumeErrors=True).addCallback(lambda results: None)

    def _stopped(self, results: object) -> None:
        self._stopping -= 1


def _explain(error: BaseException) -> str:
    """Where it was not possible to listen, and why."""
    match error:
        case CannotListenError(interface=None, port=bytes() | str() as path):
            return f"Couldn't listen on unix:{os.fsdecode(path)}: {error.socketError}"
        case CannotListenError(interface=str() as host, port=port):
            host = f"[{host}]" if ":" in host else host or "any interface"
            return f"Couldn't listen on {host}:{port}: {error.socketError}"
        case CancelledError():
            return "Couldn't listen: it was stopped before it could"
    return f"Couldn't listen: {error}"


class TcpBuilder:
    """
    Configures and starts an exporter::

        recorder = await TcpBuilder().listen_address("127.0.0.1:5000").install()

    Every setting returns the builder.  Used on the reactor thread, or before the reactor runs.
    """

    def __init__(self, reactor: Any = None) -> None:
        """
        @param reactor: what to run in; the global one unless given.
        """
        self._given_reactor = reactor
        self._addresses: list[str] = []
        # What `MetricsFactory` is to be made with.
        self._settings: dict[str, Any] = {}

    def listen_address(self, endpoint: str | int) -> TcpBuilder:
        """
        Where to listen; several calls mean several places.  127.0.0.1:5000 unless given.

        @param endpoint: a port on the loopback interface, ``HOST:PORT``, ``[IPV6]:PORT``, or
            one of Twisted's endpoint strings (``unix:/run/metrics.sock``).
        """
        self._addresses.append(str(endpoint))
        return self

    def buffer_size(self, buffer_size: int | None) -> TcpBuilder:
        """
        How many events may wait: on the incoming side, and as many for each client.

        @param buffer_size: 1 or more; None for no limit, which may take all memory.
        @raise TypeError: it is no whole number.
        @raise ValueError: it is less than 1.
        """
        self._settings["buffer_size"] = check_buffer_size(buffer_size)
        return self

    def totals(self, keep: bool = True) -> TcpBuilder:
        """
        Whether the totals of counters and gauges are kept, for clients that come late and for
        those that lost events.  They are unless told otherwise; without, recording costs less
        while nobody listens.
        """
        self._settings["totals"] = keep
        return self

    def max_series(self, max_series: int) -> TcpBuilder:
        """
        Of how many series totals are kept at most; 10,000 unless told otherwise.

        @raise ValueError: it is negative.
        """
        self._settings["max_series"] = at_least("max_series", 0, max_series)
        return self

    def idle_after(self, seconds: float | None) -> TcpBuilder:
        """
        After how many seconds without a change a series is left out of what a new client
        receives; never, unless told otherwise.

        @raise ValueError: it is negative.
        """
        if seconds is not None:
            at_least("idle_after", 0, seconds)
        self._settings["idle_after"] = seconds
        return self

    def repair_interval(self, seconds: float) -> TcpBuilder:
        """
        How long, in seconds, totals may be wrong at most for a client that does not catch up; 5
        unless told otherwise.

        @raise ValueError: it is less than a tenth of a second.
        """
        self._settings["repair_interval"] = at_least("repair_interval", 0.1, seconds)
        return self

    def own_metrics(self, publish: bool = True) -> TcpBuilder:
        """
        Whether the exporter's own metrics are in the stream: what it records, delivers and
        loses.  They are unless told otherwise.
        """
        self._settings["own_metrics"] = publish
        return self

    def source(self, name: str) -> TcpBuilder:
        """
        What viewers show as the name of this program; its name, process number and host unless
        told otherwise.
        """
        self._settings["source"] = name
        return self

    def service(self) -> MetricsService:
        """
        Make a service that is not started, for `twisted.application`.

        @raise EndpointError: an address cannot be understood.
        """
        reactor = self._reactor()
        addresses = self._addresses or [DEFAULT_ENDPOINT]
        endpoints = [server_endpoint(reactor, address) for address in addresses]
        return MetricsService(MetricsFactory(reactor, **self._settings), endpoints)

    def build(self) -> Deferred[TcpRecorder]:
        """
        Listen, and return the recorder without making it the global one.

        @return: fires with the recorder when it listens, or fails with `ListenError`.
        @raise EndpointError: an address cannot be understood.
        """
        service = self.service()
        return service.listen().addCallback(lambda result: service.recorder)

    def install(self) -> Deferred[TcpRecorder]:
        """
        Make the recorder the global one, and listen.

        The recorder is the global one when this returns; if listening fails, that is taken
        back.

        @return: fires with the recorder when it listens, or fails with `ListenError`.
        @raise EndpointError: an address cannot be understood.
        @raise RecorderInstalledError: there is a global recorder already.
        """
        service = self.service()
        recorder = service.recorder
        set_global_recorder(recorder)

        def listening(result: None) -> TcpRecorder:
            return recorder

        def failed(reason: Failure) -> Failure:
            unset_global_recorder(recorder)
            return reason

        return service.listen().addCallbacks(listening, failed)

    def install_in_thread(self) -> ThreadedExporter:
        """
        Do what `install` does from a program that has no reactor, and wait until it listens::

            metrics = TcpBuilder().listen_address(5000).install_in_thread()

        The reactor runs in a daemon thread, and leaves the program's signal handlers alone.  If it
        runs in another thread already, it is used.  When the program ends, what was recorded is
        sent, for two seconds at most.

        Called from any thread but the reactor's.  In a program that forks, to be called in each
        process, after the fork.

        @return: has the recorder, the addresses, and a `stop` that waits.
        @raise ListenError: it was not possible to listen.
        @raise EndpointError: an address cannot be understood.
        @raise RecorderInstalledError: there is a global recorder already.
        @raise ReactorThreadError: this is the reactor's thread; or the reactor has run and
            stopped; or it ran when this process was forked.  It says what to do instead.
        """
        return install_in_thread(own_reactor(self._given_reactor), self.install)

    def _reactor(self) -> Any:
        if self._given_reactor is None:
            # Late, since importing it installs it, and some programs want another one.
            from twisted.internet import reactor

            return reactor
        return self._given_reactor
