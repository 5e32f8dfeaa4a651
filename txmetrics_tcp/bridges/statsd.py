"""
Receives metrics from clients of StatsD and DogStatsD, over UDP, UNIX datagrams and TCP.

All classes are used on the reactor thread only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._checks import at_least, seconds_from, short_repr
from txmetrics_tcp._instruments.facade import default_recorder
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Key, Metadata, MetricKind, Unit
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.admission import Admission, AnyNetwork, ip_of, network
from txmetrics_tcp._net.connection import Rejected
from txmetrics_tcp._net.datagrams import (
    RECEIVE_BUFFER,
    dropped_datagrams,
    request_receive_buffer,
)
from txmetrics_tcp._net.endpoints import check_reactor
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.internals import limit_datagrams
from txmetrics_tcp._net.keepalive import is_over_tcp, probe_when_idle
from txmetrics_tcp._net.listening import ListenError, ListeningService, listen_error
from txmetrics_tcp._net.log_throttle import INTERVAL, RejectionLog
from txmetrics_tcp._net.unix import remove_stale_socket
from txmetrics_tcp._net.writers import abort
from txmetrics_tcp.bridges._statsd_endpoints import (
    DEFAULT_ENDPOINT,
    AnyStatsDEndpoint,
    DatagramEndpoint,
    statsd_endpoint,
)
from txmetrics_tcp.bridges._statsd_lines import MAX_SIZE, MAX_TAGS, REASONS, StatsDLines

__all__ = [
    "FLUSH",
    "MAX_CONNECTIONS",
    "MAX_LINE",
    "MAX_SERIES",
    "StatsDFactory",
    "StatsDProtocol",
    "StatsDReceiver",
    "StatsDService",
]

_log = Logger(namespace="txmetrics_tcp")

MAX_SERIES = 10_000
"""The default maximum number of series."""

FLUSH = 10.0
"""The default interval in which the distinct values of sets are counted, in seconds."""

MAX_LINE = 64 * 1024
"""The maximum size of a line over TCP, in bytes.  A client that exceeds it is disconnected."""

MAX_CONNECTIONS = 1000
"""The maximum number of TCP connections."""

_READ_SIZE = 8 * 1024
"""
The number of bytes that are read from a connection in a reactor iteration.  With Twisted's 64 KiB,
many connections with waiting data would delay other events for seconds.
"""

_PUBLISH_INTERVAL = 1.0
_MAX_NEGATIVE_NAMES = 100
_MAX_HOSTS = 1000

_REASON_TEXTS = {
    "encoding": "its name or tags are not UTF-8",
    "failed": "recording failed",
    "field": "it has an unknown field",
    "format": "it is not NAME:VALUE|TYPE",
    "name": "its name is empty, contains |, or begins with txmetrics_",
    "rate": "its rate is not greater than 0 and at most 1",
    "series": "there are too many series",
    "set": "sets have too many values",
    "size": "it is too long",
    "tags": f"a tag has no name, or it has more than {MAX_TAGS} tags",
    "type": "its type is unknown",
    "value": "its value is not a number, or out of range",
}

METADATA = (
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_statsd_lines_total",
        Unit.COUNT,
        "Lines received from StatsD clients, including refused ones.",
    ),
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_statsd_refused_total",
        Unit.COUNT,
        "Lines and values of StatsD clients that were refused, by reason.",
    ),
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_statsd_datagrams_total",
        Unit.COUNT,
        "Datagrams received from StatsD clients.",
    ),
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_statsd_dropped_datagrams_total",
        Unit.COUNT,
        "Datagrams of StatsD clients that the kernel dropped, because the receive buffer was full.",
    ),
    Metadata(
        MetricKind.GAUGE,
        "txmetrics_statsd_series",
        Unit.COUNT,
        "Series of StatsD clients.",
    ),
)


class StatsDReceiver:
    """
    Records the lines of StatsD and DogStatsD clients.  Protocols and factories share a receiver.

    Counters, gauges, timers, histograms, distributions and sets become metrics of the same name,
    with tags as labels.  Refused lines are counted by reason, and logged, at most one of each
    reason in 10 seconds.
    """

    def __init__(
        self,
        reactor: Any,
        recorder: Recorder | None = None,
        *,
        prefix: str = "",
        max_series: int = MAX_SERIES,
    ) -> None:
        """
        @param recorder: the recorder; by default, the global one, also if it is installed later.
        @param prefix: precedes each name.
        @param max_series: the maximum number of series, 1 or more.  Lines of further ones are
            refused.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{max_series} is out of range, or the prefix is too long or not text.
        """
        check_reactor(reactor)
        Key.of(MetricKind.COUNTER, prefix + "x" * MAX_SIZE)
        recorder = default_recorder(recorder)
        max_series = at_least(1, "max_series", max_series)
        self._lines = StatsDLines(recorder, prefix, max_series, self._refused)
        self._rejections = RejectionLog(reactor, "StatsD line")
        self._clients = RejectionLog(reactor, "StatsD client")
        self._reactor = reactor
        self._negative: set[bytes] = set()
        self._datagrams = 0
        self._dropped = 0
        self._unlogged_drops = 0
        self._logged_drops = -INTERVAL
        # The sockets of datagrams, with the last reading of their counter.
        self._sockets: dict[socket.socket, int] = {}
        for metadata in METADATA:
            recorder.describe(metadata)
        lines, refused, datagrams, dropped, series = (one.name for one in METADATA)
        self._counters = [
            _Published(recorder.register_counter(Key.of(MetricKind.COUNTER, name, labels)))
            for name, labels in (
                (lines, {}),
                (datagrams, {}),
                (dropped, {}),
                *((refused, {"reason": reason}) for reason in REASONS),
            )
        ]
        self._series = recorder.register_gauge(Key.of(MetricKind.GAUGE, series))
        self._published_series = -1

    def datagram(self, data: bytes) -> None:
        """Record the lines of a datagram.  Raises no exceptions."""
        self._datagrams += 1
        self._lines.feed(data)

    def complete_lines(self, data: bytes) -> None:
        """Record complete lines of a stream of bytes.  Raises no exceptions."""
        self._lines.feed(data)

    def refuse_long_line(self, beginning: bytes) -> None:
        """Count a line whose end has not been received."""
        self._lines.lines += 1
        self._lines.refuse("size", beginning)

    def reject_datagram(self, host: str) -> None:
        """Count a datagram from a network that is not allowed."""
        self._lines.refused["address"] += 1
        self.reject_client(host, "address not allowed")

    def reject_client(self, address: str, reason: str) -> None:
        """Log a rejected client."""
        self._clients.report(address, reason)

    def flush(self) -> None:
        """Record the numbers of distinct values of sets, and begin to count again."""
        self._lines.flush()

    def publish(self) -> None:
        """Record the receiver's own metrics.  Call it about once a second."""
        for opened in list(self._sockets):
            self._read_drops(opened)
        self._log_drops()
        lines = self._lines
        totals = (lines.lines, self._datagrams, self._dropped, *lines.refused.values())
        for counter, total in zip(self._counters, totals, strict=True):
            counter.publish(total)
        if self._published_series != lines.series:
            self._published_series = lines.series
            self._series.set(lines.series)

    def close(self) -> None:
        """Record and log what is pending."""
        self.flush()
        self.publish()
        self._logged_drops = -INTERVAL
        self._log_drops()
        self._rejections.close()
        self._clients.close()

    def add_socket(self, opened: socket.socket) -> None:
        """Count the datagrams that the kernel drops for a socket."""
        self._sockets[opened] = dropped_datagrams(opened)

    def remove_socket(self, opened: socket.socket) -> None:
        """Undo `add_socket`, before the socket is closed."""
        if opened in self._sockets:
            self._read_drops(opened)
            del self._sockets[opened]

    def _read_drops(self, opened: socket.socket) -> None:
        before, now = self._sockets[opened], dropped_datagrams(opened)
        self._sockets[opened] = now
        dropped = (now - before) % 2**32
        self._dropped += dropped
        self._unlogged_drops += dropped

    def _log_drops(self) -> None:
        now = self._reactor.seconds()
        if self._unlogged_drops and now - self._logged_drops >= INTERVAL:
            self._logged_drops = now
            _log.warn(
                "The kernel has dropped {number} StatsD datagrams, because the receive buffer was"
                " full",
                number=self._unlogged_drops,
            )
            self._unlogged_drops = 0

    def _refused(self, reason: str, line: bytes) -> None:
        if reason == "negative":
            self._log_negative(line)
            return
        failure = None if reason != "failed" else Failure()
        self._rejections.report(short_repr(line), _REASON_TEXTS[reason], failure=failure)

    def _log_negative(self, line: bytes) -> None:
        # Clients with a method such as decr() make many of them.
        name = line.partition(b":")[0]
        if name in self._negative or len(self._negative) >= _MAX_NEGATIVE_NAMES:
            return
        self._negative.add(name)
        _log.warn(
            "Rejected StatsD line {line}: a counter cannot fall; use a gauge, with values such as"
            " -1. Further lines of this name are only counted",
            line=short_repr(line),
        )


class _Published:
    """A counter to which increases of a total are added."""

    def __init__(self, counter: Any) -> None:
        self._counter = counter
        self._total = -1

    def publish(self, total: int) -> None:
        if total != self._total:
            self._counter.increment(total - max(self._total, 0))
            self._total = total


class StatsDProtocol(DatagramProtocol):
    """
    Receives StatsD over UDP or UNIX datagrams::

        receiver = StatsDReceiver(reactor)
        reactor.listenUDP(8125, StatsDProtocol(receiver), interface="127.0.0.1")

    When it begins to listen, it asks for a receive buffer of 4 MiB, and logs the size that it has
    obtained if that is smaller.  It reads datagrams of any size.
    """

    noisy = False

    def __init__(self, receiver: StatsDReceiver, allow: Iterable[AnyNetwork] | None = None) -> None:
        """
        @param allow: the networks to accept datagrams from; None for any.  Does not apply to UNIX
            sockets.  Senders can forge addresses of UDP.
        @raise TypeError: a network is of the wrong type.
        @raise ValueError: a network is not valid.
        """
        self._receiver = receiver
        networks = None if allow is None else [network("allow", one) for one in allow]
        self._admission = None if networks is None else Admission(networks, None, None)
        self._hosts: dict[str, bool] = {}
        self._socket: socket.socket | None = None

    def startProtocol(self) -> None:
        port: Any = self.transport
        limit_datagrams(port, self.datagramReceived)
        opened = getattr(port, "socket", None)
        if not isinstance(opened, socket.socket):
            return
        self._socket = opened
        self._receiver.add_socket(opened)
        if opened.family == socket.AF_UNIX:
            # Its queue is limited by the number of datagrams.
            return
        size = request_receive_buffer(opened)
        if size < RECEIVE_BUFFER:
            _log.warn(
                "The receive buffer of {address} has {size} bytes instead of {wanted}: datagrams"
                " that arrive in bursts may be lost. On Linux, raise the limit with"
                " sysctl net.core.rmem_max={wanted}",
                address=_show(port.getHost()),
                size=size,
                wanted=RECEIVE_BUFFER,
            )

    def stopProtocol(self) -> None:
        if self._socket is not None:
            self._receiver.remove_socket(self._socket)
            self._socket = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Record the lines of a datagram.  Raises no exceptions."""
        if self._admission is None or self._admits(addr):
            self._receiver.datagram(datagram)

    def _admits(self, address: Any) -> bool:
        # Senders of UNIX sockets have no host.
        return not isinstance(address, tuple) or self._admits_host(address[0])

    def _admits_host(self, host: str) -> bool:
        admitted = self._hosts.get(host)
        if admitted is None:
            assert self._admission is not None
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts.clear()
            kind = IPv6Address if ":" in host else IPv4Address
            reason = self._admission.rejection_reason(kind("UDP", host, 0))
            admitted = self._hosts[host] = reason is None
        if not admitted:
            self._receiver.reject_datagram(host)
        return admitted


class StatsDFactory(ServerFactory):
    """
    Receives StatsD over TCP, or over any other Twisted endpoint: lines that end with C{"\\n"}.

    A line of more than 64 KiB ends the connection.  There may be 1000 connections.

    @ivar reactor: the reactor.
    @ivar silenced: whether the ports belong to the parent of this process; always C{False}.
    """

    noisy = False
    silenced: bool = False

    def __init__(
        self, reactor: Any, receiver: StatsDReceiver, allow: Iterable[AnyNetwork] | None = None
    ) -> None:
        """
        @param allow: the networks to accept clients from; None for any.  Does not apply to UNIX
            sockets.
        @raise TypeError: a network is of the wrong type.
        @raise ValueError: a network is not valid.
        """
        check_reactor(reactor)
        self.reactor: Any = reactor
        self.receiver: StatsDReceiver = receiver
        networks = None if allow is None else [network("allow", one) for one in allow]
        self._admission = Admission(networks, MAX_CONNECTIONS, None)
        self._connections: set[_LineProtocol] = set()
        self._stopping = False
        self._waiters: list[Deferred[None]] = []

    def stop(self) -> Deferred[None]:
        """
        Close all connections, and reject further ones until a port listens again.

        @return: a Deferred that fires when all connections are closed.
        """
        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        self._stopping = True
        for connection in list(self._connections):
            abort(connection.transport)
        self._finish()
        return gone

    def startFactory(self) -> None:
        self._stopping = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._stopping:
            return Rejected()
        reason = self._admission.rejection_reason(addr)
        if reason is not None:
            self.connection_rejected(show_address(addr), reason)
            return Rejected()
        return _LineProtocol(self, addr)

    def connection_rejected(self, address: str, reason: str) -> None:
        """Log a rejected connection."""
        self.receiver.reject_client(address, reason)

    def arrived(self, connection: _LineProtocol) -> None:
        """Count a connection."""
        self._connections.add(connection)
        self._admission.enter(connection.peer)

    def left(self, connection: _LineProtocol) -> None:
        """Stop counting a connection."""
        self._connections.discard(connection)
        self._admission.leave(connection.peer)
        self._finish()

    def _finish(self) -> None:
        if self._stopping and not self._connections:
            waiters, self._waiters = self._waiters, []
            for gone in waiters:
                gone.callback(None)


class _LineProtocol(Protocol):
    """
    A connection of a client.

    @ivar peer: the client's address.
    """

    def __init__(self, factory: StatsDFactory, peer: IAddress | None) -> None:
        self._factory = factory
        self.peer = peer
        self._rest = b""
        self._too_long = False

    def connectionMade(self) -> None:
        self._factory.arrived(self)
        transport: Any = self.transport
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = _READ_SIZE
        if is_over_tcp(transport):
            probe_when_idle(transport)

    def dataReceived(self, data: bytes) -> None:
        if self._too_long:
            return
        data = self._rest + data
        first = data.find(b"\n")
        if (len(data) if first < 0 else first) > MAX_LINE:
            self._too_long = True
            self._rest = b""
            self._factory.receiver.refuse_long_line(data[:MAX_LINE])
            abort(self.transport)
            return
        end = data.rfind(b"\n") + 1
        if end:
            self._factory.receiver.complete_lines(data[:end])
        self._rest = data[end:]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The last line may have no end, but only if the client has closed the connection.
        if self._rest and reason.check(ConnectionDone):
            self._factory.receiver.complete_lines(self._rest)
        self._rest = b""
        self._factory.left(self)


class StatsDService(MultiService):
    """
    Receives StatsD while it runs::

        StatsDService(reactor, endpoints=["127.0.0.1:8125"]).setServiceParent(application)

    An endpoint is one of:

      - UDP: C{8125} or C{"8125"} (on the loopback interface), C{"HOST:PORT"}, C{"[IPV6]:PORT"}.
      - UNIX datagrams: C{"unixgram:PATH"}, C{"unixgram:PATH:mode=660"}, or a path object.  The
        mode of the socket file is 600 by default.
      - TCP: C{"tcp:HOST:PORT"}, any Twisted endpoint string, or a Twisted server endpoint.

    If listening fails immediately, `privilegedStartService` raises C{ListenError}, or
    `startService` if it is called alone.
    """

    def __init__(
        self,
        reactor: Any,
        recorder: Recorder | None = None,
        endpoints: Sequence[AnyStatsDEndpoint] = (DEFAULT_ENDPOINT,),
        *,
        prefix: str = "",
        max_series: int = MAX_SERIES,
        flush: float = FLUSH,
        allow: Iterable[AnyNetwork] | None = None,
    ) -> None:
        """
        @param recorder: the recorder; by default, the global one, also if it is installed later.
        @param endpoints: the endpoints to listen on.
        @param prefix: precedes each name.
        @param max_series: the maximum number of series, 1 or more.
        @param flush: the interval in which the distinct values of sets are counted, in seconds.
        @param allow: the networks to accept metrics from; None for any.  Required for endpoints
            that other machines can reach.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: an argument is out of range, or an endpoint or network is not valid.
        """
        super().__init__()
        self._receiver = StatsDReceiver(reactor, recorder, prefix=prefix, max_series=max_series)
        flush = seconds_from(0.001, "flush", flush)
        networks = None if allow is None else [network("allow", one) for one in allow]
        if isinstance(endpoints, str) or not isinstance(endpoints, Iterable):
            raise TypeError(
                f"endpoints must be a sequence of endpoints, not {short_repr(endpoints)}"
            )
        self._ports: list[_DatagramService | _StreamService] = []
        streams: list[IStreamServerEndpoint] = []
        for endpoint in endpoints:
            one = statsd_endpoint(reactor, endpoint)
            if isinstance(one, DatagramEndpoint):
                self._ports.append(_DatagramService(reactor, self._receiver, one, networks))
            else:
                streams.append(one)
        if streams:
            factory = StatsDFactory(reactor, self._receiver, networks)
            self._ports.append(_StreamService(factory, streams, None, networks))
        for port in self._ports:
            port.setServiceParent(self)
        for interval, call in (
            (_PUBLISH_INTERVAL, self._receiver.publish),
            (flush, self._receiver.flush),
        ):
            timer = TimerService(interval, call)
            timer.clock = reactor
            timer.setServiceParent(self)

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """The addresses that the service listens on."""
        return tuple(address for port in self._ports for address in port.addresses)

    def privilegedStartService(self) -> None:
        """
        Listen.

        @raise ListenError: listening failed.
        """
        with self._stopping_if_it_fails():
            super().privilegedStartService()

    def startService(self) -> None:
        """
        Listen unless `privilegedStartService` was called.

        @raise ListenError: listening failed.
        """
        with self._stopping_if_it_fails():
            super().startService()

    def stopService(self) -> Deferred[Any]:
        """
        Stop listening, and close all connections.

        @return: a Deferred that fires when that is done.
        """
        stopped: Deferred[Any] = maybeDeferred(super().stopService)
        # At once, so that an exporter that stops at the same time sends what this records.
        self._receiver.close()
        return stopped

    @contextmanager
    def _stopping_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except ListenError:
            self.running = False
            # The timers have not been started.
            for port in self._ports:
                port.stopService()
            raise


def _check_exposure(address: IAddress, networks: Sequence[object] | None, shown: str) -> None:
    host = ip_of(address)
    if host is not None and not host.is_loopback and not networks:
        raise ListenError(
            f"StatsD on {shown} would accept metrics from any client: give the networks to accept"
            " them from (--allow)"
        )


def _show(address: IAddress) -> str:
    """Return the address of a socket of datagrams, in the form of an endpoint."""
    shown = show_address(address)
    if isinstance(address, UNIXAddress):
        return f"unixgram:{shown.removeprefix('unix:')}"
    return f"udp:{shown}"


class _StreamService(ListeningService):
    """Receives StatsD on stream endpoints."""

    announcement = "Receiving StatsD on {address}"
    purpose = "received by StatsD"
    access = "send metrics"

    def _check_ports(self) -> None:
        for port in self._ports:
            address = port.getHost()
            _check_exposure(address, self._networks, show_address(address))


class _DatagramService(Service):
    """Receives StatsD on one socket of datagrams."""

    def __init__(
        self,
        reactor: Any,
        receiver: StatsDReceiver,
        endpoint: DatagramEndpoint,
        networks: Sequence[AnyNetwork] | None,
    ) -> None:
        self._reactor = reactor
        self._receiver = receiver
        self._endpoint = endpoint
        self._networks = networks
        self._port: IListeningPort | None = None
        # Of the socket file, and the process that made it.
        self._status: os.stat_result | None = None
        self._process = 0

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        return () if self._port is None else (self._port.getHost(),)

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        if self._port is None:
            self._listen()
        super().startService()

    def stopService(self) -> Any:
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            return None
        self._remove_file()
        return maybeDeferred(port.stopListening)

    def _listen(self) -> None:
        """
        @raise ListenError: listening failed.
        """
        one = self._endpoint
        protocol = StatsDProtocol(self._receiver, self._networks)
        try:
            if one.host is not None:
                port = self._reactor.listenUDP(one.port, protocol, interface=one.host)
            else:
                remove_stale_socket(one.path, socket.SOCK_DGRAM)
                port = self._reactor.listenUNIXDatagram(one.path, protocol, mode=one.mode)
                self._status = os.stat(one.path)
                self._process = os.getpid()
        except CannotListenError as error:
            raise listen_error(error) from error
        self._port = port
        address = port.getHost()
        shown = _show(address)
        _check_exposure(address, self._networks, shown)
        _log.info("Receiving StatsD on {address}", address=shown)
        if who := audience(address, self._networks or ()):
            _log.warn("{who} can send metrics on {address}", who=who, address=shown)

    def _remove_file(self) -> None:
        made, self._status = self._status, None
        if made is None or os.getpid() != self._process:
            # In a forked child, the file is the parent's.
            return
        with suppress(OSError):
            if os.path.samestat(made, os.stat(self._endpoint.path)):
                os.unlink(self._endpoint.path)
