"""
The collector: one stream of the metrics of many processes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.application.internet import TimerService, backoffPolicy
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._checks import at_least, seconds_from, short_repr
from txmetrics_tcp._client.protocol import MetricsClientProtocol
from txmetrics_tcp._client.service import (
    INITIAL_DELAY,
    MAX_DELAY,
    Connected,
    ConnectionState,
    Disconnected,
    MetricsClientService,
    Waiting,
)
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._model import Event, Key, MetricKind
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.admission import Admission, AnyNetwork, Network, ip_of, network
from txmetrics_tcp._net.connection import Rejected
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoint_syntax import (
    AnyEndpoint,
    EndpointError,
    plain_endpoint,
    show_endpoint,
)
from txmetrics_tcp._net.endpoints import check_client_endpoint, check_reactor, server_endpoint
from txmetrics_tcp._net.internals import silent_logger
from txmetrics_tcp._net.listening import ListenError, ListeningService
from txmetrics_tcp._net.log_throttle import RejectionLog
from txmetrics_tcp._net.tls import ServerTLS, explain
from txmetrics_tcp.relay._address import NatsAddress
from txmetrics_tcp.relay._extra import (
    BrokerReport,
    access_from,
    capitalized,
    is_nats,
    parse_address,
)
from txmetrics_tcp.relay._intake import OWN_LABELS, Endpoint, Intake, Stream
from txmetrics_tcp.relay._limits import SourceLimits
from txmetrics_tcp.relay._merge import Gauges, Merge, Merger

__all__ = ["CollectorService", "SourceLimits"]

_log = Logger(namespace="txmetrics_tcp")

GRACE = 10.0
"""By default, the number of seconds after which a disconnected source is declared dead."""

MAX_SOURCES = 1000
"""By default, the maximum number of connected sources, and of sockets in a directory."""

SCAN_INTERVAL = 1.0
"""The seconds between two looks at directories, and between two updates of own metrics."""

_MODE = re.compile(r":mode=")


class CollectorService(MultiService):
    """
    Receives the streams of many processes while it runs, merges them, and records the result.

    It adds no port for viewers: the recorder's exporter has that::

        metrics = TcpBuilder().max_delay(0).listen_address(5000).service()
        collector = CollectorService(reactor, metrics.recorder, collect=["unix:/run/metrics.sock"])
        for service in metrics, collector:
            service.setServiceParent(application)

    Processes connect to C{collect} (see `txmetrics_tcp.TcpBuilder.report_to`), and the collector
    connects to C{sources}.

    Sums are exact once each process has sent its totals, whatever was dropped before.  What a
    process that was killed had not sent is missing.  Counters and histograms of processes that have
    ended stay in the sums, their gauges do not.

    The recorder must keep totals, and should have C{max_delay} 0.  With C{idle_after}, a sum that
    was released begins again at zero.

    If listening fails immediately, `privilegedStartService` raises `txmetrics_tcp.ListenError`, or
    `startService` if it is called alone.  Must be used on the reactor thread.

    @ivar collector_id: the identity of this collector, which its stream contains.
    """

    def __init__(
        self,
        reactor: Any,
        recorder: TcpRecorder,
        *,
        collect: Sequence[IStreamServerEndpoint | AnyEndpoint] = (),
        sources: Sequence[IStreamClientEndpoint | AnyEndpoint] = (),
        merge: Merge = "sum",
        instance_label: str = "instance",
        gauges: Gauges = "sum",
        grace: float = GRACE,
        limits: SourceLimits | None = None,
        tls: ServerTLS | None = None,
        allow: Sequence[AnyNetwork] | None = None,
        max_sources: int | None = MAX_SOURCES,
    ) -> None:
        """
        @param reactor: the reactor to use.
        @param recorder: records the merged metrics.
        @param collect: the endpoints to listen on for processes that report.  UNIX sockets get the
            mode 600 unless an endpoint string has another.  Others than UNIX sockets and loopback
            addresses require C{allow}, or C{tls} with an authority for client certificates.
        @param sources: servers to connect to, and directories of UNIX sockets.  A directory is a
            path that ends with a slash, or at which a directory exists; its C{*.sock} files are
            looked for once a second.  At an endpoint, one process is expected at a time.  Or
            C{nats://HOST[:PORT]/STREAM[?source=GLOB]}: the sources of a stream of a broker, with
            credentials from the environment, which needs the extra C{nats}.
        @param merge: C{"sum"}: one series of all processes; C{"each"}: one for each process, with
            its name as a label; C{"both"}.
        @param instance_label: the name of that label.
        @param gauges: how the value of a gauge in a sum is computed from those of the living
            processes: C{"sum"}, C{"max"}, C{"min"}, or C{"last"} for the one that changed last.
        @param grace: the number of seconds, 0 or more, after which a process without a connection
            is declared dead.
        @param limits: what a source may send; by default, `SourceLimits` with its defaults.
        @param tls: wraps the connections of C{collect} in TLS, except UNIX sockets.
        @param allow: the networks from which processes may connect; None for any.  For UNIX
            sockets, set the mode of the socket file instead.
        @param max_sources: the maximum number of processes that are connected to C{collect}; None
            for no limit.
        @raise EndpointError: an endpoint is not valid.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: an argument is out of range.
        """
        super().__init__()
        check_reactor(reactor)
        check_instance_label(instance_label)
        if not (limits is None or isinstance(limits, SourceLimits)):
            raise TypeError(f"limits must be SourceLimits, not {short_repr(limits)}")
        limits = limits or SourceLimits()
        grace = seconds_from(0, "grace", grace)
        if max_sources is not None:
            at_least(1, "max_sources", max_sources)
        networks = None if allow is None else tuple(network("allow", one) for one in allow)
        self.collector_id: str = uuid4().hex
        merger = Merger(
            recorder,
            merge,
            instance_label=instance_label,
            gauges=gauges,
            max_series=limits.series,
            collector_id=self.collector_id,
            gathers=True,
        )
        self._intake = Intake(
            reactor,
            recorder,
            merger,
            self.collector_id,
            instance_label,
            limits,
            grace,
            max_sources,
        )
        self._reactor = reactor
        self._listening: list[_Listening] = []
        self._workers = _Workers(reactor, self._intake, networks, max_sources)
        self._listen(reactor, collect, tls, networks)
        self._directories: list[_Directory] = []
        self._found: dict[str, _Server] = {}
        self._unusable: set[str] = set()
        # The first scan adds servers to it while this service starts its parts.
        self._servers = MultiService()
        self._servers.setServiceParent(self)
        for source in sources:
            if is_nats(source):
                address = parse_address(str(source))
                _Stream(reactor, self._intake, address).setServiceParent(self)
            elif (path := socket_directory(source)) is not None:
                self._directories.append(_Directory(path))
            else:
                _Server(self._intake, reactor, source).setServiceParent(self)
        timer = TimerService(SCAN_INTERVAL, self._tick)
        timer.clock = reactor
        timer.setServiceParent(self)

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """The addresses on which processes can report; empty while the service does not listen."""
        return tuple(address for one in self._listening for address in one.addresses)

    def startService(self) -> None:
        self._intake.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, and close all connections.

        @return: a Deferred that fires when that is done.
        """
        # Before the exporter stops.
        self._intake.flush()
        stopped: Deferred[Any] = super().stopService()
        return stopped.addCallback(lambda results: self._intake.stop())

    def _listen(
        self,
        reactor: Any,
        collect: Sequence[IStreamServerEndpoint | AnyEndpoint],
        tls: ServerTLS | None,
        networks: tuple[Network, ...] | None,
    ) -> None:
        if isinstance(collect, str):
            raise TypeError(f"collect must be a sequence of endpoints, not {short_repr(collect)}")
        with_tls, without_tls = [], []
        for endpoint in collect:
            if IStreamServerEndpoint.providedBy(endpoint):
                with_tls.append(endpoint)
                continue
            text = plain_endpoint(endpoint)
            if isinstance(text, str) and text.startswith("unix:"):
                private = text if _MODE.search(text) else f"{text}:mode=600"
                without_tls.append(server_endpoint(reactor, private))
            else:
                with_tls.append(server_endpoint(reactor, text))
        for endpoints, its_tls in ((without_tls, None), (with_tls, tls)):
            if endpoints:
                service = _Listening(self._workers, endpoints, its_tls, networks)
                service.setServiceParent(self)
                self._listening.append(service)

    def _tick(self) -> None:
        self._scan()
        self._intake.publish()

    def _scan(self) -> None:
        """Follow the sockets in directories."""
        found: dict[str, object] = {}
        for directory in self._directories:
            found |= directory.find(self._intake.say)
        self._unusable &= found.keys()
        for path, identity in found.items():
            server = self._found.get(path)
            if server is None:
                if path not in self._unusable:
                    self._add(path, identity)
            elif server.identity != identity:
                server.identity = identity
                server.retry()
        gone = [
            path
            for path, server in self._found.items()
            if path not in found and not server.connected
        ]
        for path in gone:
            self._found.pop(path).disownServiceParent()

    def _add(self, path: str, identity: object) -> None:
        try:
            server = _Server(self._intake, self._reactor, Path(path))
        except EndpointError as error:
            self._unusable.add(path)
            self._intake.say(f"Cannot use {path}: {error}")
            return
        server.identity = identity
        self._found[path] = server
        server.setServiceParent(self._servers)


class _Workers(ServerFactory):
    """
    Accepts connections of processes that report.

    @ivar reactor: see `txmetrics_tcp._net.listening.Server`.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        intake: Intake,
        networks: tuple[Network, ...] | None,
        max_sources: int | None,
    ) -> None:
        self.reactor: Any = reactor
        self._intake = intake
        self._admission = Admission(networks, max_sources, None)
        self._rejections = RejectionLog(reactor, "source")
        self._protocols: set[_WorkerProtocol] = set()
        self._stopping = False
        self._waiters: list[Deferred[None]] = []
        self._process = os.getpid()

    @property
    def silenced(self) -> bool:
        """See `txmetrics_tcp._net.listening.Server`."""
        return os.getpid() != self._process

    def stop(self) -> Deferred[None]:
        """See `txmetrics_tcp._net.listening.Server`."""
        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        self._stopping = True
        if self.silenced:
            # The connections are the parent's.
            self._protocols.clear()
        for protocol in list(self._protocols):
            protocol.close()
        self._finish()
        return gone

    def connection_rejected(self, address: str, reason: str) -> None:
        self._rejections.report(address, reason)

    # Called by Twisted.

    def startFactory(self) -> None:
        self._process = os.getpid()
        self._stopping = False

    def stopFactory(self) -> None:
        self._rejections.close()

    def buildProtocol(self, addr: IAddress | None) -> MetricsClientProtocol | Rejected:
        if self._stopping or self.silenced:
            return Rejected()
        reason = self._admission.rejection_reason(addr)
        if reason is not None:
            self._rejections.report(show_address(addr), reason)
            return Rejected()
        return _WorkerProtocol(self, addr)

    # Called by protocols.

    def arrived(self, protocol: _WorkerProtocol) -> Stream:
        self._protocols.add(protocol)
        self._admission.enter(protocol.peer)
        return Stream(self._intake, protocol, show_address(protocol.peer))

    def left(self, protocol: _WorkerProtocol) -> None:
        self._protocols.discard(protocol)
        self._admission.leave(protocol.peer)
        self._finish()

    def _finish(self) -> None:
        if self._stopping and not self._protocols:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)


class _WorkerProtocol(MetricsClientProtocol):
    """
    The connection of a process that reports.  The process is the client of the connection, but the
    server of the stream.

    @ivar peer: the address of the process.
    """

    def __init__(self, workers: _Workers, peer: IAddress | None) -> None:
        super().__init__(received_many=self._events, connected=self._begin, lost=self._end)
        self.peer: IAddress | None = peer
        self._workers = workers

    def handshakeCompleted(self) -> None:
        """Do nothing: the transport has verified the client's certificate."""

    def _begin(self, protocol: object) -> None:
        self._stream = self._workers.arrived(self)

    def _events(self, events: list[Event]) -> None:
        self._stream.received(events)

    def _end(self, protocol: object, reason: Failure) -> None:
        self._stream.lost(reason.value)
        self._workers.left(self)


class _Listening(ListeningService):
    """Listens for processes that report."""

    announcement = "Collecting metrics on {address}"
    purpose = "collected"
    access = "report metrics"

    def _check_ports(self) -> None:
        certified = self._tls is not None and self._tls.wants_certificate
        for port in self._ports:
            address = port.getHost()
            host = ip_of(address)
            if host is None or host.is_loopback or certified or self._networks:
                continue
            raise ListenError(
                f"collecting on {show_address(address)} would accept metrics from any client: give"
                " --allow, or require client certificates with --tls-client-ca"
            )


class _Server(MetricsClientService):
    """
    A source that the collector connects to.

    @ivar connected: whether there is a connection.
    @ivar identity: changes when another process may listen there.
    """

    def __init__(
        self, intake: Intake, reactor: Any, endpoint: IStreamClientEndpoint | AnyEndpoint
    ) -> None:
        super().__init__(
            reactor,
            endpoint,
            received_many=self._received,
            observer=self._changed,
            retry_policy=self._retry_delay,
        )
        self._logged = False
        self.connected: bool = False
        self.identity: object = None
        self._address = show_endpoint(endpoint)
        self._intake = intake
        self._place = Endpoint(intake.dead)
        self._stream: Stream | None = None
        self._refused = False
        self._waiting = False
        self._delay_after = backoffPolicy(INITIAL_DELAY, MAX_DELAY)

    def _logger(self) -> Logger:
        # Twisted logs each attempt.
        return silent_logger()

    def retry(self) -> None:
        """Connect now, if it waits before the next attempt."""
        if self._waiting:
            self.stopService()
            self.startService()

    def _received(self, events: list[Event]) -> None:
        if self._stream is not None:
            self._stream.received(events)

    def _changed(self, state: ConnectionState) -> None:
        self.connected = isinstance(state, Connected)
        self._waiting = isinstance(state, Waiting)
        if isinstance(state, Connected):
            protocol = self.protocol
            assert protocol is not None
            self._stream = Stream(self._intake, protocol, self._address, self._place)
            self._logged = False
        elif isinstance(state, Disconnected) and self._stream is not None:
            stream, self._stream = self._stream, None
            stream.lost(state.reason.value)
            self._refused = bool(stream.cut)
        elif isinstance(state, Disconnected) and not self._logged:
            self._logged = True
            error = state.reason.value
            problem = explain(error) or state.reason.getErrorMessage().rstrip(".")
            self._intake.say(f"No connection to {self._address}: {problem}; trying again")

    def _retry_delay(self, failures: int) -> float:
        # A connection that this side has closed counts as a success to the base class.
        return self._delay_after(100 if self._refused else failures)


class _Stream(MultiService):
    """The sources of a stream of a broker."""

    def __init__(self, reactor: Any, intake: Intake, address: NatsAddress) -> None:
        # Imported only here: this needs the extra.
        from txmetrics_tcp.relay._feed import NatsFeed

        super().__init__()
        self._reactor = reactor
        self._intake = intake
        self._soon: Deadline | None = None
        self._servers: dict[str, _Server] = {}
        self._feed = NatsFeed(
            reactor,
            address,
            changed=self._changed,
            observer=BrokerReport(
                address,
                ("follow", "following"),
                lambda text: intake.say(capitalized(text)),
                succeeded=lambda text: _log.info("{text}", text=capitalized(text)),
            ),
            say=intake.say,
            access=access_from(),
        )

    def startService(self) -> None:
        super().startService()
        self._feed.start()

    def stopService(self) -> Deferred[Any]:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        return gatherResults([maybeDeferred(super().stopService), self._feed.stop()])

    def _changed(self) -> None:
        # One update for all sources of a batch of messages.
        if self.running and self._soon is None:
            self._soon = Deadline(self._reactor, 0, self._update)

    def _update(self) -> None:
        self._soon = None
        found = {source.name: source for source in self._feed.sources}
        for name, source in found.items():
            server = self._servers.get(name)
            if server is None:
                server = self._servers[name] = _Server(self._intake, self._reactor, source)
                server.identity = source.connections
                server.setServiceParent(self)
            elif server.identity != source.connections:
                server.identity = source.connections
                server.retry()
        gone = [name for name, one in self._servers.items() if name not in found]
        for name in gone:
            if not self._servers[name].connected:
                self._servers.pop(name).disownServiceParent()


class _Directory:
    """A directory in which each process has a UNIX socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._problem = ""

    def find(self, say: Callable[[str], object]) -> dict[str, object]:
        """
        Return the identities of the sockets by their paths.

        @param say: called with a message if the directory cannot be read; once until it can.
        """
        found: dict[str, object] = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if entry.name.endswith(".sock") and (identity := _socket(entry)):
                        found[entry.path] = identity
        except OSError as error:
            problem = f"Cannot look for sources in {self._path}: {error.strerror}"
        else:
            problem = ""
            if len(found) > MAX_SOURCES:
                problem = f"More than {MAX_SOURCES} sockets in {self._path}: using the first"
                found = {path: found[path] for path in sorted(found)[:MAX_SOURCES]}
        if problem and problem != self._problem:
            say(problem)
        self._problem = problem
        return found


def _socket(entry: os.DirEntry[str]) -> object:
    """Return the identity of a socket, or None if the entry is no socket."""
    try:
        status = entry.stat()
    except OSError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def check_source(source: str) -> str:
    """
    Check a source of a collector, and return it; of a directory, its absolute path.

    @raise EndpointError: it is not valid, or needs an extra that is not installed.
    """
    if is_nats(source):
        parse_address(source)
        access_from()
        return source
    if (path := socket_directory(source)) is not None:
        return path
    check_client_endpoint(source)
    return source


def socket_directory(source: object) -> str | None:
    """
    Return the absolute path of a directory of sockets, or None for an endpoint.  A daemon changes
    its working directory.
    """
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        if path.endswith("/") or os.path.isdir(path):
            return os.path.join(os.path.abspath(path), "")
    return None


def check_instance_label(name: str) -> None:
    """
    @raise ValueError: the label of instances cannot have this name.
    """
    Key.of(MetricKind.COUNTER, "m", {name: ""})
    if name in OWN_LABELS:
        raise ValueError(f"{name!r} is a label of the collector's own metrics")
