"""
Tests with real sockets and real threads.

Clients are blocking sockets, each read by its own thread, so they share only the kernel with the
exporter under test.  No code sleeps: threads wait for data, for a `Pace` or for an event, and tests
for Deferreds.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.daemon import LIMIT
from tests.logs import log_lines
from tests.reader import Reader
from txmetrics_tcp import (
    Decoder,
    ExporterSettings,
    Metric,
    MetricsFactory,
    MetricsProtocol,
    MetricsService,
    Operation,
    TcpRecorder,
)
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.tls import ServerTLS

# Twisted declares the reactor as a module; trial has installed the chosen one.
reactor: Any = _reactor

SMALL = 4096
"""A size of socket buffers that a test fills quickly.  The kernel uses about twice as much."""

NAMES = ("a_counter", "a_gauge", "a_histogram")
"""The metrics that `record_numbers` records."""

_TOTAL = (Operation.SET_COUNTER, Operation.SET_GAUGE)


class WatchedFactory(MetricsFactory):
    """
    @ivar protocols: the protocols of all clients that ever connected, in order.
    @ivar send_buffer: the size of the kernel's send buffer for each new client; None for the
        default.
    """

    send_buffer: int | None = None

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.protocols: list[MetricsProtocol] = []
        self._awaited: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def present(self) -> list[MetricsProtocol]:
        """The connected clients."""
        return list(self._fanout.clients)

    def clients(self, number: int) -> Deferred[None]:
        """Fires when this number of clients is connected."""
        return self._when(lambda: len(self._fanout.clients) == number)

    def connections(self, number: int) -> Deferred[None]:
        """Fires when this number of clients has ever connected."""
        return self._when(lambda: len(self.protocols) == number)

    def all_gone(self, number: int) -> Deferred[None]:
        """
        Fires when this number of clients has ever connected, and all have disconnected.  The number
        covers clients that the kernel has accepted and the reactor has not.
        """
        return self._when(lambda: self.stats().connected == number and not self._fanout.clients)

    def client_connected(self, client: MetricsProtocol) -> None:
        self.protocols.append(client)
        if self.send_buffer is not None:
            handle = client.transport.getHandle()  # type: ignore[attr-defined]
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
        super().client_connected(client)
        self._look()

    def client_disconnected(self, client: MetricsProtocol) -> None:
        super().client_disconnected(client)
        self._look()

    def _when(self, condition: Callable[[], bool]) -> Deferred[None]:
        fulfilled: Deferred[None] = Deferred()
        self._awaited.append((condition, fulfilled))
        self._look()
        return fulfilled

    def _look(self) -> None:
        for awaited in list(self._awaited):
            condition, fulfilled = awaited
            if condition():
                self._awaited.remove(awaited)
                # Not re-entrantly from the factory's methods.
                reactor.callLater(0, fulfilled.callback, None)


class SocketClient:
    """
    A client with a blocking socket.

    @ivar reader: decodes the stream.
    @ivar received: the number of bytes received.
    @ivar tail: the last few bytes received.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(LIMIT)
        self.reader = Reader()
        self.received = 0
        self.tail = b""

    def read(
        self,
        until: Callable[[], object] = lambda: False,
        before: Callable[[], object] = lambda: None,
        size: int = 256 * 1024,
    ) -> None:
        """
        Read in this thread until a condition holds, or until the stream ends; then disconnect.

        @param before: called before each read.
        @param size: the maximum number of bytes of one read.
        """
        while not until():
            before()
            data = self.socket.recv(size)
            if not data:
                # Over TLS, the server waits for the client to close the connection.
                self.socket.close()
                return
            self.received += len(data)
            self.tail = (self.tail + data)[-16:]
            self.reader.feed(data)

    def discard(self) -> None:
        """Read in this thread until the stream ends, without decoding it."""
        while self.socket.recv(256 * 1024):
            pass
        self.socket.close()

    def read_snapshot(self) -> None:
        """Read until the first `Status`."""
        self.read(until=lambda: self.reader.statuses)

    def reset(self) -> None:
        """Reset the connection, as the kernel does for a killed process."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    @property
    def events(self) -> int:
        """The number of events received, without totals."""
        return sum(metric.operation not in _TOTAL for metric in self.reader.metrics)


class Pace:
    """
    Slows down recording threads, so that pending events fit into the buffers.

    @ivar step: the number of events that a thread records with one permit. A client releases a
        permit whenever it has received that number of events of the thread.
    """

    def __init__(self, threads: int, buffer_size: int) -> None:
        self.step = buffer_size // threads // 2
        self._permits = [threading.Semaphore(2) for _ in range(threads)]

    def record(self, thread: int, number: int) -> None:
        """Called by a thread before it records the event with this number."""
        if number % self.step == 0 and not self._permits[thread].acquire(timeout=LIMIT):
            raise AssertionError(f"events of thread {thread} before {number} have not arrived")

    def received(self, thread: int, number: int) -> None:
        """Called when a client has received the event with this number."""
        if (number + 1) % self.step == 0:
            self._permits[thread].release()


def record_numbers(
    recorder: TcpRecorder,
    thread: int,
    events: int,
    before: Callable[[int, int], object] = lambda thread, number: None,
    padding: str = "",
    first: int = 0,
) -> None:
    """
    Record events whose values are consecutive numbers, of each kind in turn.

    @param before: called with thread and number before each event.
    """
    labels = {"thread": str(thread), "padding": padding}
    counter = recorder.counter(NAMES[0], labels)
    gauge = recorder.gauge(NAMES[1], labels)
    histogram = recorder.histogram(NAMES[2], labels)
    for number in range(first, first + events):
        before(thread, number)
        kind = number % 3
        if kind == 0:
            counter.increment(number)
        elif kind == 1:
            gauge.increment(float(number))
        else:
            histogram.record(float(number))


class Numbers:
    """
    Checks that no event of `record_numbers` is lost or out of order.

    It stores no events, since a million events use much memory.
    """

    def __init__(self, threads: int, pace: Pace | None = None) -> None:
        self._decoder = Decoder()
        self._next = [0] * threads
        self._pace = pace
        self.total = 0

    def feed(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Metric):
                thread = int(dict(event.key.labels)["thread"])
                number = self._next[thread]
                if event.value != number:
                    raise AssertionError(f"thread {thread}: {event.value} instead of {number}")
                self._next[thread] = number + 1
                self.total += 1
                if self._pace is not None:
                    self._pace.received(thread, number)

    def read(self, connected: socket.socket, total: int) -> None:
        """Read from a socket in this thread until this number of events was received."""
        while self.total < total:
            data = connected.recv(256 * 1024)
            if not data:
                raise AssertionError(f"the stream ended after {self.total} events")
            self.feed(data)


def in_order(client: SocketClient) -> bool:
    """Whether the numbers of each thread arrived in order; some may be missing."""
    last: dict[object, float] = {}
    for metric in client.reader.metrics:
        if metric.key.name in NAMES and metric.operation not in _TOTAL:
            thread = dict(metric.key.labels)["thread"]
            if metric.value <= last.get(thread, -1):
                return False
            last[thread] = metric.value
    return True


class LoopbackTestCase(TestCase):
    """
    A test with an exporter, sockets and threads, which are always cleaned up.
    """

    timeout = 2 * LIMIT

    def setUp(self) -> None:
        self._threads: list[Deferred[object]] = []
        self._sockets: list[socket.socket] = []
        self._services: list[MetricsService] = []
        self.addCleanup(self._finish)

    def log_rejections(self) -> list[str]:
        """
        Capture log lines about rejected clients for the rest of a test. Each kind of line is logged
        only once before the end of the test.

        @return: a list to which the text of each line is appended.
        """
        self.patch(log_throttle, "INTERVAL", 1000)
        return log_lines(self, log_throttle)

    async def exporter(
        self,
        buffer_size: int | None = 1024,
        endpoint: str | int = 0,
        tls: ServerTLS | None = None,
        **more: Any,
    ) -> WatchedFactory:
        """
        Start an exporter that streams only the events of the test.

        @param more: settings; by default, C{flush_timeout} is longer than a test's timeout.
        """
        settings = {"own_metrics": False, "flush_timeout": 10 * LIMIT, **more}
        self.factory = WatchedFactory(
            reactor, ExporterSettings(buffer_size=buffer_size, **settings)
        )
        self.service = MetricsService(self.factory, [server_endpoint(reactor, endpoint)], tls)
        self._services.append(self.service)
        await self.service.listen()
        return self.factory

    @property
    def address(self) -> IAddress:
        return self.service.addresses[0]

    async def connect(self, receive_buffer: int | None = None) -> SocketClient:
        """Connect a client over TCP, and wait until the exporter has accepted it."""
        connected = self.socket(socket.AF_INET)
        if receive_buffer is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Does not block the reactor, since the kernel accepts the connection.
        connected.connect(("127.0.0.1", self.address.port))  # type: ignore[attr-defined]
        await self.factory.connections(len(self.factory.protocols) + 1)
        return SocketClient(connected)

    def socket(self, family: int) -> socket.socket:
        made = socket.socket(family)
        made.settimeout(LIMIT)
        self._sockets.append(made)
        return made

    def in_thread(self, function: Callable[..., object], *args: Any, **more: Any) -> Deferred[Any]:
        """
        Call a function in a new thread.

        @return: fires with the result.
        """
        done: Deferred[Any] = Deferred()
        ended: Deferred[object] = Deferred()

        def run() -> None:
            try:
                result = function(*args, **more)
            except BaseException:
                result = Failure()
            reactor.callFromThread(finish, result)

        def finish(result: object) -> None:
            thread.join()
            done.callback(result)
            ended.callback(None)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(ended)
        return done

    def all_in_threads(
        self, function: Callable[..., object], number: int, *args: Any, **more: Any
    ) -> Deferred[Any]:
        """Call a function in several threads, with the number of the thread."""
        return gatherResults(
            [self.in_thread(function, thread, *args, **more) for thread in range(number)],
            consumeErrors=True,
        )

    def while_blocked(self, function: Callable[[int], object], number: int = 1) -> None:
        """Call a function in several threads.  This call blocks the reactor until they end."""
        threads = [threading.Thread(target=function, args=(n,)) for n in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
            self.assertFalse(thread.is_alive(), "the function waits for the reactor")

    def check_account(self, protocol: MetricsProtocol) -> None:
        """Check that a client's account balances."""
        stats = protocol.stats()
        self.assertEqual(
            stats.recorded,
            stats.dropped_incoming
            + stats.dropped_client
            + stats.written
            + stats.discarded
            + stats.waiting,
            stats,
        )

    async def _finish(self) -> None:
        for one in self._sockets:
            # Unlike close, this wakes a thread that reads from the socket.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for service in self._services:
            await service.stop()
        await gatherResults(self._threads)
