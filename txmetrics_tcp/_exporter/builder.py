"""
The builder: configures an exporter, and starts it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.service import MetricsService
from txmetrics_tcp._exporter.settings import ExporterSettings, checked_settings
from txmetrics_tcp._exporter.thread import ThreadedExporter, install_in_thread, own_reactor
from txmetrics_tcp._instruments.facade import set_global_recorder, unset_global_recorder
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, EndpointError, has_own_tls
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.internals import global_reactor
from txmetrics_tcp._net.tls import ServerTLS, StrPath


class TcpBuilder:
    """
    Configures and starts an exporter::

        recorder = await TcpBuilder().listen_address("127.0.0.1:5000").install()

    Every setting returns the builder, and raises the errors of `ExporterSettings`, which describes
    them all.  Used on the reactor thread, or before the reactor runs.
    """

    def __init__(self, reactor: Any = None, settings: ExporterSettings | None = None) -> None:
        """
        @param reactor: what to run in; by default, the global one.
        @param settings: what to begin with; by default, the defaults.
        """
        self._given_reactor = reactor
        self._addresses: list[str] = []
        self._settings = checked_settings(settings)
        self._tls: ServerTLS | None = None

    def listen_address(self, endpoint: str | int) -> TcpBuilder:
        """
        Where to listen; several calls mean several places.  By default, 127.0.0.1:5000.

        @param endpoint: a port on the loopback interface, ``HOST:PORT``, ``[IPV6]:PORT``, or
            one of Twisted's endpoint strings (``unix:/run/metrics.sock``).
        """
        self._addresses.append(str(endpoint))
        return self

    def buffer_size(self, buffer_size: int | None) -> TcpBuilder:
        """How many events may be pending: on the incoming side, and as many for each client."""
        self._settings = replace(self._settings, buffer_size=buffer_size)
        return self

    def totals(self, keep: bool = True) -> TcpBuilder:
        """Whether the totals of counters and gauges are kept."""
        self._settings = replace(self._settings, totals=keep)
        return self

    def max_series(self, max_series: int) -> TcpBuilder:
        """Of how many series totals are kept at most."""
        self._settings = replace(self._settings, max_series=max_series)
        return self

    def idle_after(self, seconds: float | None) -> TcpBuilder:
        """After how many seconds without a change a series is left out of snapshots."""
        self._settings = replace(self._settings, idle_after=seconds)
        return self

    def repair_interval(self, seconds: float) -> TcpBuilder:
        """How long totals may be wrong at most for a client that does not catch up."""
        self._settings = replace(self._settings, repair_interval=seconds)
        return self

    def dead_after(self, seconds: float | None) -> TcpBuilder:
        """For how long a client may take nothing of what is pending before it is disconnected."""
        self._settings = replace(self._settings, dead_after=seconds)
        return self

    def flush_timeout(self, seconds: float) -> TcpBuilder:
        """How long clients have, when the exporter stops, to take what is pending for them."""
        self._settings = replace(self._settings, flush_timeout=seconds)
        return self

    def own_metrics(self, publish: bool = True) -> TcpBuilder:
        """Whether the exporter's own metrics are in the stream."""
        self._settings = replace(self._settings, own_metrics=publish)
        return self

    def source(self, name: str | None) -> TcpBuilder:
        """What viewers show as the name of this program."""
        self._settings = replace(self._settings, source=name)
        return self

    def allow(self, *networks: str) -> TcpBuilder:
        """Accept clients from these networks only; several calls add up."""
        self._settings = replace(self._settings, allow=(*self._settings.allow, *networks))
        return self

    def max_clients(self, clients: int | None, per_address: int | None = None) -> TcpBuilder:
        """How many clients may be connected at once, and how many of them from one address."""
        self._settings = replace(
            self._settings, max_clients=clients, max_clients_per_address=per_address
        )
        return self

    def tls(self, key: StrPath, cert: StrPath, client_ca: StrPath | None = None) -> TcpBuilder:
        """
        Have every connection begin with TLS, 1.2 or newer.

        @param key: a file with the private key, in PEM, not encrypted.
        @param cert: a file with the certificate and those that lead to its authority.
        @param client_ca: a file with the authorities that a client's certificate has to be from;
            without it, clients need none.
        @raise TLSError: a file cannot be used, or what TLS needs is not installed.
        """
        self._tls = ServerTLS(key, cert, client_ca)
        return self

    def service(self) -> MetricsService:
        """
        Make a service that is not started, for `twisted.application`.

        @raise EndpointError: an address cannot be understood.
        """
        reactor = self._given_reactor or global_reactor()
        addresses = self._addresses or [DEFAULT_ENDPOINT]
        for address in addresses:
            if self._tls is not None and has_own_tls(address):
                raise EndpointError(f"{address!r} has TLS already; with tls(), leave out ssl:")
        endpoints = [server_endpoint(reactor, address) for address in addresses]
        return MetricsService(MetricsFactory(reactor, self._settings), endpoints, self._tls)

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
        sent, for two seconds at most (a second more than `flush_timeout`).

        Called from any thread but the reactor's.  In a program that forks, to be called in each
        process, after the fork.

        @return: has the recorder, the addresses, and a `stop` that waits.
        @raise ListenError: it was not possible to listen.
        @raise EndpointError: an address cannot be understood.
        @raise RecorderInstalledError: there is a global recorder already.
        @raise ReactorThreadError: this is the reactor's thread; or the reactor has run and
            stopped; or it ran when this process was forked.  It says what to do instead.
        """
        return install_in_thread(
            own_reactor(self._given_reactor), self.install, self._settings.flush_timeout
        )
