"""
Real sockets and real threads, for the tests that need them.

Clients are blocking sockets, each read by a thread of its own, so that they share nothing with
the exporter under test but the kernel.  Nothing sleeps: threads wait for bytes, for a `Pace` or
for an event, and tests for Deferreds.
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

# Twisted declares it as a module; trial has installed whatever it was told to.
reactor: Any = _reactor

SMALL = 4096
"""A size of socket buffers that a test fills soon.  The kernel takes about twice as much."""

NAMES = ("a_counter", "a_gauge", "a_histogram")
"""What `record_numbers` records."""

_TOTAL = (Operation.SET_COUNTER, Operation.SET_GAUGE)


class WatchedFactory(MetricsFactory):
    """
    @ivar protocols: of all clients that ever connected.
    @ivar send_buffer: the size of the kernel's buffer for what is sent to each of them.
    """

    send_buffer: int | None = None

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.protocols: list[MetricsProtocol] = []
        self._awaited: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def present(self) -> list[MetricsProtocol]:
        """The clients that are connected."""
        return list(self._fanout.clients)

    def clients(self, number: int) -> Deferred[None]:
        """Fires when so many clients are connected."""
        return self._when(lambda: len(self._fanout.clients) == number)

    def connections(self, number: int) -> Deferred[None]:
        """Fires when so many clients have ever connected."""
        return self._when(lambda: len(self.protocols) == number)

    def all_gone(self, number: int) -> Deferred[None]:
        """
        Fires when so many clients have ever connected, and none is left.  Without their number,
        those that the kernel has accepted, and the reactor has not yet, would be missed.
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
                # Not from within the factory's own work.
                reactor.callLater(0, fulfilled.callback, None)


class SocketClient:
    """
    A client that is a blocking socket.

    @ivar reader: what it made of the stream.
    @ivar received: how many bytes it has received.
    @ivar tail: the last few of them.
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
        Read in this thread, until something holds; or until the stream ends, and then disconnect.

        @param before: called before each time that it reads.
        @param size: how much to read at once.
        """
        while not until():
            before()
            data = self.socket.recv(size)
            if not data:
                # Over TLS, the other end waits for it.
                self.socket.close()
                return
            self.received += len(data)
            self.tail = (self.tail + data)[-16:]
            self.reader.feed(data)

    def discard(self) -> None:
        """Read in this thread until the stream ends, and make nothing of it."""
        while self.socket.recv(256 * 1024):
            pass
        self.socket.close()

    def read_snapshot(self) -> None:
        """Read what a client receives first of all."""
        self.read(until=lambda: self.reader.statuses)

    def reset(self) -> None:
        """Vanish, as a process that is killed on a host that lives."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    @property
    def events(self) -> int:
        """How many events it received, without the totals that only say where things stand."""
        return sum(metric.operation not in _TOTAL for metric in self.reader.metrics)


class Pace:
    """
    Lets recording threads run ahead of a client by no more than the buffers hold.

    @ivar step: how many events a thread records, or a client receives of one, for one turn.
    """

    def __init__(self, threads: int, buffer_size: int) -> None:
        self.step = buffer_size // threads // 2
        self._turns = [threading.Semaphore(2) for _ in range(threads)]

    def record(self, thread: int, number: int) -> None:
        """Called by a thread before its event of that number."""
        if number % self.step == 0 and not self._turns[thread].acquire(timeout=LIMIT):
            raise AssertionError(f"the events of thread {thread} before {number} do not arrive")

    def received(self, thread: int, number: int) -> None:
        """Called when the event of that number has arrived."""
        if (number + 1) % self.step == 0:
            self._turns[thread].release()


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

    @param before: called with thread and number before each of them.
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
    Receives what `record_numbers` records, and nothing of it may be lost or out of order.

    It keeps none of it: a million events are a lot of memory.
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
        """Read from a socket in this thread until so many events have come."""
        while self.total < total:
            data = connected.recv(256 * 1024)
            if not data:
                raise AssertionError(f"the stream ended after {self.total} events")
            self.feed(data)


def in_order(client: SocketClient) -> bool:
    """Whether the numbers of each thread arrived in order, though some may be missing."""
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
    A test whose exporter, sockets and threads are gone when it ends, however it ends.
    """

    timeout = 2 * LIMIT

    def setUp(self) -> None:
        self._threads: list[Deferred[object]] = []
        self._sockets: list[socket.socket] = []
        self._services: list[MetricsService] = []
        self.addCleanup(self._finish)

    def log_refusals(self) -> list[str]:
        """
        Have lines about refused clients go nowhere else for the rest of a test.

        @return: their text, as they come; each kind of line comes once before the end.
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
        Listen somewhere.  What it streams is what the test records, and nothing else.

        @param more: settings; by default, C{flush_timeout} is longer than a test may take.
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
        """Connect a client over TCP, and wait until the exporter knows it."""
        connected = self.socket(socket.AF_INET)
        if receive_buffer is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # The kernel accepts, so that this does not wait for the reactor.
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
        Call something in a thread of its own.

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
        """Call something in several threads, with the number of the thread."""
        return gatherResults(
            [self.in_thread(function, thread, *args, **more) for thread in range(number)],
            consumeErrors=True,
        )

    def while_blocked(self, function: Callable[[int], object], number: int = 1) -> None:
        """The same, while the reactor does nothing else."""
        threads = [threading.Thread(target=function, args=(n,)) for n in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
            self.assertFalse(thread.is_alive(), "it waits for the reactor")

    def check_account(self, protocol: MetricsProtocol) -> None:
        """Every event since a client connected is somewhere."""
        stats = protocol.stats()
        self.assertEqual(
            stats.recorded,
            stats.dropped_incoming
            + stats.dropped
            + stats.written
            + stats.discarded
            + stats.waiting,
            stats,
        )

    async def _finish(self) -> None:
        for one in self._sockets:
            # Unlike close, this wakes a thread that reads from it.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for service in self._services:
            await service.stop()
        await gatherResults(self._threads)
