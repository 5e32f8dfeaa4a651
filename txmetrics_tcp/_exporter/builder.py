"""
The builder: configures an exporter, and starts it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.service import MetricsService
from txmetrics_tcp._exporter.settings import FLUSH_TIMEOUT, check_buffer_size
from txmetrics_tcp._exporter.thread import ThreadedExporter, install_in_thread, own_reactor
from txmetrics_tcp._instruments.facade import set_global_recorder, unset_global_recorder
from txmetrics_tcp._model import checked_source
from txmetrics_tcp._net.admission import Admission, network
from txmetrics_tcp._net.checks import at_least, seconds_from
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, EndpointError, has_own_tls
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.tls import ServerTLS, StrPath


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
        self._flush_timeout = FLUSH_TIMEOUT
        self._tls: ServerTLS | None = None

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

        @raise TypeError: it is no whole number.
        @raise ValueError: it is negative.
        """
        self._settings["max_series"] = at_least("max_series", 0, max_series)
        return self

    def idle_after(self, seconds: float | None) -> TcpBuilder:
        """
        After how many seconds without a change a series is left out of what a new client
        receives, and makes room for others under `max_series`; never, by default.

        @raise TypeError: it is no number.
        @raise ValueError: it is negative, or not finite.
        """
        if seconds is not None:
            seconds = seconds_from("idle_after", 0, seconds)
        self._settings["idle_after"] = seconds
        return self

    def repair_interval(self, seconds: float) -> TcpBuilder:
        """
        How long, in seconds, totals may be wrong at most for a client that does not catch up; 5
        unless told otherwise.

        @raise TypeError: it is no number.
        @raise ValueError: it is less than a tenth of a second, or not finite.
        """
        self._settings["repair_interval"] = seconds_from("repair_interval", 0.1, seconds)
        return self

    def dead_after(self, seconds: float | None) -> TcpBuilder:
        """
        For how many seconds a client may take nothing of what waits for it before it is cut off;
        for as long as it likes, unless told otherwise, or until the kernel finds that its
        machine is gone, which takes a quarter of an hour as a rule.

        It ends clients that are only stalled, too.  What counts is a piece of about 64 KiB: who
        does not take that much in the time, while more waits, is cut off.

        @raise TypeError: it is no number.
        @raise ValueError: it is less than a tenth of a second, or not finite.
        """
        if seconds is not None:
            seconds = seconds_from("dead_after", 0.1, seconds)
        self._settings["dead_after"] = seconds
        return self

    def flush_timeout(self, seconds: float) -> TcpBuilder:
        """
        How many seconds clients have, when the exporter stops, to take what waits for them; 1
        unless told otherwise.  After that they are cut off.

        @raise TypeError: it is no number.
        @raise ValueError: it is negative, or not finite.
        """
        self._flush_timeout = seconds_from("flush_timeout", 0, seconds)
        return self

    def own_metrics(self, publish: bool = True) -> TcpBuilder:
        """
        Whether the exporter's own metrics are in the stream: what it records, delivers and
        loses.  They are unless told otherwise.
        """
        self._settings["own_metrics"] = publish
        return self

    def source(self, name: str | None) -> TcpBuilder:
        """
        What viewers show as the name of this program; by default, and with None, its name, process
        number and host.

        @raise TypeError: it is no text.
        @raise ValueError: it is empty, takes more than 64 KiB, or cannot be encoded as UTF-8.
        """
        self._settings["source"] = None if name is None else checked_source(name)
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

    def allow(self, *networks: str) -> TcpBuilder:
        """
        Let clients come from these networks only (C{192.0.2.0/24}, C{2001:db8::/32}, or a single
        address); several calls add up.  Those of UNIX sockets are let in as their mode says.

        @raise TypeError: one is no text.
        @raise ValueError: one is no network.
        """
        self._settings.setdefault("allow", []).extend(map(network, networks))
        return self

    def max_clients(self, clients: int | None, per_address: int | None = None) -> TcpBuilder:
        """
        How many clients there may be at once: 1000 unless told otherwise; None for any number.

        @param per_address: how many of them from one address (of IPv6, from one /64); any number
            unless given.
        @raise TypeError: it is no whole number.
        @raise ValueError: it is less than 1.
        """
        Admission((), clients, per_address)
        self._settings.update(max_clients=clients, max_clients_per_address=per_address)
        return self

    def service(self) -> MetricsService:
        """
        Make a service that is not started, for `twisted.application`.

        @raise EndpointError: an address cannot be understood.
        """
        reactor = self._reactor()
        addresses = self._addresses or [DEFAULT_ENDPOINT]
        for address in addresses:
            if self._tls is not None and has_own_tls(address):
                raise EndpointError(f"{address!r} has TLS already; with tls(), leave out ssl:")
        endpoints = [server_endpoint(reactor, address) for address in addresses]
        factory = MetricsFactory(reactor, **self._settings)
        return MetricsService(factory, endpoints, self._flush_timeout, self._tls)

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
            own_reactor(self._given_reactor), self.install, self._flush_timeout
        )

    def _reactor(self) -> Any:
        if self._given_reactor is None:
            # Late, since importing it installs it, and some programs want another one.
            from twisted.internet import reactor

            return reactor
        return self._given_reactor
