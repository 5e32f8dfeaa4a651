"""
The builder configures and starts an exporter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from txmetrics_tcp._checks import seconds_from, short_repr
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.reporting import WAIT_AT_EXIT
from txmetrics_tcp._exporter.service import MetricsService
from txmetrics_tcp._exporter.settings import ExporterSettings, checked_settings
from txmetrics_tcp._exporter.thread import ThreadedExporter, install_in_thread, own_reactor
from txmetrics_tcp._instruments.facade import set_global_recorder, unset_global_recorder
from txmetrics_tcp._net.admission import AnyNetwork
from txmetrics_tcp._net.endpoint_syntax import (
    DEFAULT_ENDPOINT,
    AnyEndpoint,
    EndpointError,
    has_own_tls,
)
from txmetrics_tcp._net.endpoints import (
    check_client_endpoint,
    check_reactor,
    check_server_endpoint,
    server_endpoint,
)
from txmetrics_tcp._net.internals import global_reactor
from txmetrics_tcp._net.tls import ServerTLS, StrPath


class TcpBuilder:
    """
    Configures and starts an exporter::

        recorder = await TcpBuilder().listen_address("127.0.0.1:5000").install()

    Each setter returns the builder.  `ExporterSettings` describes the settings and the errors that
    the setters raise.  Call `service`, `build` and `install` on the reactor thread, or before the
    reactor runs; call `install_in_thread` on any other thread.
    """

    def __init__(self, reactor: Any = None, settings: ExporterSettings | None = None) -> None:
        """
        @param reactor: the reactor to use; by default, the global one.
        @param settings: the initial settings; by default, `ExporterSettings` with its defaults.
        @raise TypeError: an argument is of the wrong type.
        """
        if reactor is not None:
            check_reactor(reactor)
        self._given_reactor = reactor
        self._addresses: list[AnyEndpoint] = []
        self._collectors: list[tuple[IStreamClientEndpoint | AnyEndpoint, float]] = []
        self._settings = checked_settings(settings)
        self._tls: ServerTLS | None = None

    def listen_address(self, endpoint: AnyEndpoint) -> TcpBuilder:
        """
        Add an address to listen on.  By default, the exporter listens on 127.0.0.1:5000.

        @param endpoint: a port on the loopback interface; ``HOST:PORT`` or ``[IPV6]:PORT``, or the
            same as a tuple, such as C{("127.0.0.1", 5000)}; a path object for a UNIX socket; or one
            of Twisted's endpoint strings (``unix:/run/metrics.sock:mode=660``).
        @raise EndpointError: the address is invalid, or includes TLS in addition to `tls`.
        @raise TypeError: the address is of the wrong type.
        """
        check_server_endpoint(endpoint)
        if self._tls is not None:
            _check_without_tls(endpoint)
        self._addresses.append(endpoint)
        return self

    def report_to(
        self,
        collector: IStreamClientEndpoint | AnyEndpoint,
        wait_at_exit: float = WAIT_AT_EXIT,
    ) -> TcpBuilder:
        """
        Connect to a collector, and stream to it as to a client; several calls add collectors.  With
        this and without `listen_address`, the exporter does not listen.

        The exporter reconnects when the connection fails or ends.  The collector then receives the
        totals of what was recorded meanwhile, unless the setting C{totals} is off.

        @param collector: a path object or ``unix:PATH`` for a UNIX socket; a port, ``HOST:PORT`` or
            a tuple, as for `listen_address`; ``tls:HOST:PORT``; another of Twisted's client
            endpoint strings; or a client endpoint, for example from `tls_endpoint`.
        @param wait_at_exit: the number of seconds, 0 or more, that stopping waits at most for a
            connection, so that a program that ends at once still reports what it recorded.
        @raise EndpointError: the endpoint is not valid.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{wait_at_exit} is negative, 1,000,000,000 seconds or more, or NaN.
        """
        if not IStreamClientEndpoint.providedBy(collector):
            check_client_endpoint(collector)
        wait_at_exit = seconds_from(0, "wait_at_exit", wait_at_exit)
        self._collectors.append((collector, wait_at_exit))
        return self

    def buffer_size(self, buffer_size: int | None) -> TcpBuilder:
        """Set the maximum number of pending events, on the incoming side and for each client."""
        self._settings = replace(self._settings, buffer_size=buffer_size)
        return self

    def max_delay(self, seconds: float) -> TcpBuilder:
        """Set the longest time for which events are collected while the program keeps recording."""
        self._settings = replace(self._settings, max_delay=seconds)
        return self

    def totals(self, keep: bool = True) -> TcpBuilder:
        """Set whether the totals of all series are kept."""
        self._settings = replace(self._settings, totals=keep)
        return self

    def max_series(self, max_series: int) -> TcpBuilder:
        """Set the maximum number of series whose totals are kept."""
        self._settings = replace(self._settings, max_series=max_series)
        return self

    def idle_after(self, seconds: float | None) -> TcpBuilder:
        """Set the seconds without a change after which the total of a series is released."""
        self._settings = replace(self._settings, idle_after=seconds)
        return self

    def repair_interval(self, seconds: float) -> TcpBuilder:
        """Set the seconds after which a client that lost events is resynced at the latest."""
        self._settings = replace(self._settings, repair_interval=seconds)
        return self

    def dead_after(self, seconds: float | None) -> TcpBuilder:
        """Set the seconds after which a client that reads no pending data is disconnected."""
        self._settings = replace(self._settings, dead_after=seconds)
        return self

    def flush_timeout(self, seconds: float) -> TcpBuilder:
        """Set the seconds that clients have to read pending data when the exporter stops."""
        self._settings = replace(self._settings, flush_timeout=seconds)
        return self

    def own_metrics(self, publish: bool = True) -> TcpBuilder:
        """Set whether the stream contains the exporter's own metrics."""
        self._settings = replace(self._settings, own_metrics=publish)
        return self

    def source(self, name: str | None) -> TcpBuilder:
        """Set the name of this program in viewers."""
        self._settings = replace(self._settings, source=name)
        return self

    def allow(self, *networks: AnyNetwork) -> TcpBuilder:
        """
        Accept clients from these networks only.  Further calls add networks.

        @raise ValueError: a network is invalid, or none is given.
        """
        if not networks:
            raise ValueError("allow() needs at least one network; without it, any is accepted")
        self._settings = replace(self._settings, allow=(*(self._settings.allow or ()), *networks))
        return self

    def max_clients(self, clients: int | None, per_address: int | None = None) -> TcpBuilder:
        """Set the maximum number of connected clients, in total and per address."""
        self._settings = replace(
            self._settings, max_clients=clients, max_clients_per_address=per_address
        )
        return self

    def tls(self, key: StrPath, cert: StrPath, client_ca: StrPath | None = None) -> TcpBuilder:
        """
        Require TLS 1.2 or newer on all connections.

        @param key: a file with the unencrypted private key, in PEM.
        @param cert: a file with the certificate and any intermediate certificates.
        @param client_ca: a file with the authorities that must have issued a client's certificate;
            by default, clients need no certificate.
        @raise TLSError: a file cannot be used, or a package that TLS needs is not installed.
        @raise TypeError: a file is not a path.
        @raise EndpointError: an address already includes TLS.
        """
        for address in self._addresses:
            _check_without_tls(address)
        self._tls = ServerTLS(key, cert, client_ca)
        return self

    def service(self) -> MetricsService:
        """
        Make a service for `twisted.application`.  It is not started.

        @raise EndpointError: an address can no longer be used, for example because a file that it
            names was removed.
        """
        reactor = self._given_reactor or global_reactor()
        addresses = self._addresses or ([] if self._collectors else [DEFAULT_ENDPOINT])
        endpoints = [server_endpoint(reactor, address) for address in addresses]
        service = MetricsService(MetricsFactory(reactor, self._settings), endpoints, self._tls)
        for collector, wait_at_exit in self._collectors:
            service.report_to(collector, wait_at_exit)
        return service

    def build(self) -> Deferred[TcpRecorder]:
        """
        Listen, without making the recorder the global one.

        @return: a Deferred that fires with the recorder once the exporter listens, or fails with
            `ListenError`.
        @raise EndpointError: see `service`.
        """
        service = self.service()
        return service.listen().addCallback(lambda result: service.recorder)

    def install(self) -> Deferred[TcpRecorder]:
        """
        Make the recorder the global one, and listen.

        The recorder is already installed when this method returns.  It is uninstalled if listening
        fails.

        @return: a Deferred that fires with the recorder once the exporter listens, or fails with
            `ListenError`.
        @raise EndpointError: see `service`.
        @raise RecorderInstalledError: a global recorder is already installed.
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
        Start an exporter in a program that runs no reactor, and block until it listens::

            metrics = TcpBuilder().listen_address(5000).install_in_thread()

        Like `install`, this makes the recorder the global one.  The reactor runs in a daemon
        thread, and installs no signal handlers.  If the reactor already runs in another thread,
        that thread is used.  At program exit, pending events are sent for at most `flush_timeout`
        plus one second; by default, two seconds.  Before that, the end waits for connections to
        collectors; see `report_to`.

        Call this on any thread but the reactor's.  A program that forks has to call it in each
        process, after the fork.

        @return: an object with the recorder, the addresses, and a blocking `stop` method.
        @raise ListenError: listening failed.
        @raise EndpointError: see `service`.
        @raise RecorderInstalledError: a global recorder is already installed.
        @raise ReactorThreadError: called on the reactor thread; or the reactor has already stopped,
            or was running when this process was forked.  The message suggests a remedy.
        """
        wait_at_exit = max((seconds for _, seconds in self._collectors), default=0.0)
        return install_in_thread(
            own_reactor(self._given_reactor),
            self.install,
            self._settings.flush_timeout + wait_at_exit,
        )


def _check_without_tls(endpoint: AnyEndpoint) -> None:
    """
    @raise EndpointError: the endpoint includes TLS, in addition to `TcpBuilder.tls`.
    """
    if isinstance(endpoint, str) and has_own_tls(endpoint):
        raise EndpointError(
            f"{short_repr(endpoint)} already includes TLS; with tls(), give the endpoint without"
            " ssl:"
        )
