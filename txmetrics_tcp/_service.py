"""
Listening and stopping: the exporter as a Twisted service, and the builder that starts one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    gatherResults,
    inlineCallbacks,
    maybeDeferred,
)
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._endpoints import DEFAULT_ENDPOINT, is_exposed, server_endpoint
from txmetrics_tcp._facade import set_global_recorder, unset_global_recorder
from txmetrics_tcp._incoming import DEFAULT_BUFFER_SIZE, check_buffer_size
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
        self._listening = False
        self.recorder = TcpRecorder(factory.incoming, self)
        self.name = "metrics-tcp"

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """Where it listens; empty while it does not."""
        return tuple(port.getHost() for port in self._ports)

    def stats(self) -> Stats:
        """What happened to events so far.  May be called from any thread; see `Stats`."""
        return self._factory.stats()

    @inlineCallbacks
    def listen(self) -> Any:
        """
        Begin to listen on every endpoint.

        @return: a Deferred that fires when it listens on all, or fails with `ListenError` and
            listens on none.
        """
        self._listening = True
        attempts = [maybeDeferred(endpoint.listen, self._factory) for endpoint in self._endpoints]
        results = yield DeferredList(attempts, consumeErrors=True)
        self._ports = [port for success, port in results if success]
        failures = [result for success, result in results if not success]
        if failures:
            yield self._stop_listening()
            reason = failures[0]
            raise ListenError(reason.getErrorMessage()) from reason.value
        for port in self._ports:
            address = port.getHost()
            self._log.info("Streaming metrics on {address}", address=address)
            if is_exposed(address):
                self._log.warn(
                    "Everybody who can reach this machine can read the metrics on {address}",
                    address=address,
                )

    def stop(self) -> Deferred[None]:
        """
        Stop listening, send what was recorded, and close every connection.

        To be called on the reactor thread; a second call waits for the first.

        @return: fires when all are gone.
        """
        # Both at once: new clients are refused from now on.
        gone = self._factory.stop(self._flush_timeout)
        return gatherResults([self._stop_listening(), gone]).addCallback(lambda results: None)

    # IService

    def privilegedStartService(self) -> None:
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._start()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if not self._listening:
            self._start()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return self.stop()

    def _start(self) -> None:
        started = self.listen()
        failures: list[Failure] = []
        started.addErrback(failures.append)
        if failures:
            failures[0].raiseException()

    def _stop_listening(self) -> Deferred[None]:
        ports, self._ports = self._ports, []
        self._listening = False
        stopped = [maybeDeferred(port.stopListening) for port in ports]
        return DeferredList(stopped, consumeErrors=True).addCallback(lambda results: None)


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
        self._buffer_size: int | None = DEFAULT_BUFFER_SIZE

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
        self._buffer_size = check_buffer_size(buffer_size)
        return self

    def service(self) -> MetricsService:
        """
        Make a service that is not started, for `twisted.application`.

        @raise EndpointError: an address cannot be understood.
        """
        reactor = self._reactor()
        addresses = self._addresses or [DEFAULT_ENDPOINT]
        endpoints = [server_endpoint(reactor, address) for address in addresses]
        return MetricsService(MetricsFactory(reactor, self._buffer_size), endpoints)

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

    def _reactor(self) -> Any:
        if self._given_reactor is None:
            # Late, since importing it installs it, and some programs want another one.
            from twisted.internet import reactor

            return reactor
        return self._given_reactor
