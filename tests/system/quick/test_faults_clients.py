"""
Slow and stuck clients, and thousands of clients that connect and disconnect.  All clients use real
sockets; some are separate processes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from subprocess import PIPE, Popen
from textwrap import dedent
from unittest import skipIf

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorUNIX
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from tests import DESCRIPTORS, no_descriptors
from tests.daemon import LIMIT
from tests.logs import log_lines
from tests.loopback import (
    SMALL,
    LoopbackTestCase,
    Numbers,
    Pace,
    SocketClient,
    in_order,
    reactor,
    record_numbers,
)
from tests.reader import Reader, exact_totals
from txmetrics_tcp import MetricsProtocol
from txmetrics_tcp._checks import MAX_DURATION
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.keepalive import KEEPALIVE
from txmetrics_tcp._net.writers import CHUNK

CONNECTS = 1000

# Reads a stream to its end, a thousand bytes at a time, and writes it to a file.
READING = dedent("""
    import socket, sys
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[3]))
    connected.connect(("127.0.0.1", int(sys.argv[1])))
    with connected, open(sys.argv[2], "wb", buffering=0) as stream:
        while data := connected.recv(1000):
            stream.write(data)
""")


class StallTests(LoopbackTestCase):
    async def test_stopped_process(self) -> None:
        """
        A client's process is stopped repeatedly (SIGSTOP, Ctrl-Z, a debugger) under full load: its
        frames stay complete, and another client receives every event.
        """
        events = 10_000
        factory = await self.exporter(buffer_size=1000)
        factory.send_buffer = SMALL
        path = Path(self.mktemp())
        port = str(self.address.port)  # type: ignore[attr-defined]
        arguments = [port, str(path), str(SMALL)]
        process = Popen([sys.executable, "-c", READING, *arguments], stderr=PIPE)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        await factory.connections(1)
        [stopping] = factory.protocols
        factory.send_buffer = None
        client = await self.connect()
        pace = Pace(2, 1000)
        numbers = Numbers(2, pace)
        reading = self.in_thread(numbers.read, client.socket, 2 * events)
        for number in range(2):
            dropped = stopping.stats().dropped_client
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            await self.all_in_threads(
                lambda thread, first: record_numbers(
                    factory.recorder, thread, events // 2, pace.record, "x" * 500, first
                ),
                2,
                number * events // 2,
            )
            # It loses many events, and its pending events are bounded.
            self.assertGreater(stopping.stats().dropped_client - dropped, events // 2)
            self.assertLessEqual(stopping.stats().waiting, 1000 + 2 * 1024)
            process.send_signal(signal.SIGCONT)
        await reading
        await self.service.stop()
        _, errors = await self.in_thread(process.communicate)
        self.assertEqual((errors, process.returncode), (b"", 0))
        reader = Reader()
        reader.feed(path.read_bytes())
        self.assertEqual(reader.unfinished, 0)
        self.assertEqual(reader.bits(), exact_totals(factory))
        self.assertGreater(stopping.stats().repairs, 0)
        self.check_account(stopping)

    async def test_drip(self) -> None:
        """
        A client reads single bytes under full load: its stream consists of complete frames, and
        another client receives every event.
        """
        events = 10_000
        factory = await self.exporter(buffer_size=100)
        factory.send_buffer = SMALL
        client = await self.connect(receive_buffer=SMALL)
        [protocol] = factory.protocols
        factory.send_buffer = None
        other = await self.connect()
        pace = Pace(2, 100)
        numbers = Numbers(2, pace)
        reading_all = self.in_thread(numbers.read, other.socket, 2 * events)
        permits = threading.Semaphore(0)
        enough, over = threading.Event(), threading.Event()

        def before(thread: int, number: int) -> None:
            pace.record(thread, number)
            if number % 20 == 0:
                permits.release()

        def is_over() -> bool:
            if client.received > 100:
                enough.set()
            return over.is_set()

        def wait_for_permit() -> None:
            if not over.is_set():
                permits.acquire(timeout=LIMIT)

        self.addCleanup(permits.release)
        self.addCleanup(over.set)
        dripping = self.in_thread(client.read, until=is_over, before=wait_for_permit, size=1)
        await self.all_in_threads(
            lambda thread: record_numbers(factory.recorder, thread, events, before, "x" * 100), 2
        )
        await reading_all
        stats = protocol.stats()
        self.assertGreater(stats.dropped_client, events)
        self.assertLessEqual(stats.bytes_written, client.received + 2 * CHUNK + 8 * SMALL)
        self.assertTrue(await self.in_thread(enough.wait, LIMIT))
        over.set()
        permits.release()
        await dripping
        reading = self.in_thread(client.read)
        await self.service.stop()
        await reading
        self.assertEqual(client.reader.unfinished, 0)
        self.assertTrue(in_order(client))
        self.assertEqual(client.reader.bits(), exact_totals(factory))
        self.assertEqual(client.received, protocol.stats().bytes_written)


class DeadTests(LoopbackTestCase):
    """Clients that do not read.  test_cable.py tests clients that cannot be reached."""

    def setUp(self) -> None:
        super().setUp()
        self.logged = log_lines(self, log_throttle)

    def disconnections(self) -> list[str]:
        """Return the log lines about clients that did not read."""
        return [line for line in self.logged if "has not read" in line]

    def options(self, connected: socket.socket) -> tuple[int, int, int]:
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        return tuple(  # type: ignore[return-value]
            connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
        )

    @skipIf(not hasattr(socket, "TCP_KEEPIDLE"), "needs TCP_KEEPIDLE")
    async def test_keepalive(self) -> None:
        """TCP keepalive is enabled, so that the kernel detects dead clients."""
        factory = await self.exporter()
        await self.connect()
        accepted = factory.protocols[0].transport.getHandle()  # type: ignore[attr-defined]
        self.assertTrue(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertEqual(self.options(accepted), KEEPALIVE)

    async def test_dead_after(self) -> None:
        """A client that does not read pending data is disconnected; an idle client is not."""
        factory = await self.exporter(buffer_size=100, dead_after=0.2)
        idle = await self.connect()
        factory.send_buffer = SMALL
        await self.connect(receive_buffer=SMALL)
        present, stuck = factory.protocols
        recorded, few = 0, 60
        while not stuck.stats().dropped_client and stuck in factory.present:
            await self.in_thread(
                record_numbers, factory.recorder, 0, few, padding="x" * 500, first=recorded
            )
            recorded += few
            # These events fit into the kernel's buffers, even if the client reads them late.
            await self.in_thread(idle.read, until=lambda: idle.events == recorded)  # noqa: B023
        await factory.clients(1)
        self.assertEqual(factory.present, [present])
        self.check_account(stuck)
        # If the kernel disconnects the client first, the exporter does not log it.
        self.assertLessEqual(len(self.disconnections()), 1, self.logged)
        reading = self.in_thread(idle.read)
        await self.service.stop()
        await reading
        self.assertEqual(idle.reader.bits(), exact_totals(factory))

    async def test_dead_after_weeks(self) -> None:
        """The longest C{dead_after} works, although the kernel's limit is about 24 days."""
        for seconds in (30 * 24 * 3600.0, MAX_DURATION - 1):
            factory = await self.exporter(dead_after=seconds)
            client = await self.connect()
            factory.recorder.counter("c").increment()
            await self.in_thread(client.read_snapshot)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                handle = factory.protocols[0].transport.getHandle()  # type: ignore[attr-defined]
                limit = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                self.assertGreater(limit, 24 * 24 * 3600 * 1000)
            await self.service.stop()

    async def test_dead_after_unix(self) -> None:
        """C{dead_after} works for UNIX sockets, for which the kernel has no such limit."""
        await self.connect_stuck(dead_after=0.1)
        await self.factory.clients(0)
        [line] = self.disconnections()
        self.assertRegex(line, r"has not read its pending data for 0\.1 seconds")
        self.check_account(self.factory.protocols[0])

    async def test_busyReactor(self) -> None:
        """A client that reads its data while the reactor is blocked is not disconnected."""
        # The limit does not expire before the test calls `expire`.
        client = await self.connect_stuck(dead_after=1000)
        client.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.read()
        client.socket.settimeout(LIMIT)
        stall = self.factory.protocols[0]._stall
        assert stall is not None
        stall.expire()
        reading = self.in_thread(client.read)
        await self.service.stop()
        await reading
        self.assertEqual(client.reader.bits(), exact_totals(self.factory))
        self.assertEqual(self.disconnections(), [])

    async def connect_stuck(self, dead_after: float) -> SocketClient:
        """Connect a client that does not read, and fill its kernel buffers."""
        if not IReactorUNIX.providedBy(reactor):
            self.skipTest("needs a reactor with UNIX sockets")
        path = os.path.relpath(self.mktemp())
        factory = await self.exporter(100, f"unix:{path}", dead_after=dead_after)
        connected = self.socket(socket.AF_UNIX)
        connected.connect(path)
        await factory.connections(1)
        await self.record_until_stuck()
        return SocketClient(connected)

    async def record_until_stuck(self) -> None:
        """Record until the only client loses events or is disconnected."""
        [protocol] = self.factory.protocols
        while not protocol.stats().dropped_client and self.factory.present:
            await self.in_thread(record_numbers, self.factory.recorder, 0, 500, padding="x" * 500)


class LeakTests(LoopbackTestCase):
    @skipIf(no_descriptors, no_descriptors)
    async def test_come_and_go(self) -> None:
        """A thousand clients leak neither descriptors nor memory."""
        factory = await self.exporter()
        # Without the test's list of protocols, which would keep them alive.
        self.patch(factory, "client_connected", super(type(factory), factory).client_connected)
        counter = factory.recorder.counter("c")
        port = self.address.port  # type: ignore[attr-defined]

        def come_and_go(times: int) -> None:
            for number in range(times):
                client = SocketClient(socket.create_connection(("127.0.0.1", port), LIMIT))
                if number % 3 == 0:
                    client.reset()
                elif number % 3 == 1:
                    # The exporter has accepted the client and has sent data.
                    client.socket.recv(1)
                    client.reset()
                else:
                    client.socket.recv(1)
                    client.socket.close()
                counter.increment()

        async def measure(times: int) -> tuple[int, int, int]:
            before = factory.stats().connected
            await self.all_in_threads(lambda thread: come_and_go(times // 2), 2)
            await factory.all_gone(before + times)
            gc.collect()
            objects = sum(isinstance(one, MetricsProtocol) for one in gc.get_objects())
            return len(os.listdir(DESCRIPTORS)), objects, sys.getallocatedblocks()

        before = await measure(CONNECTS)
        after = await measure(CONNECTS)
        self.assertEqual(after[:2], before[:2])
        # A leaked client would have hundreds of memory blocks.  A few other blocks vary.
        self.assertLess(after[2] - before[2], 4 * CONNECTS)


class FailingTransportTests(LoopbackTestCase):
    """A custom transport between the socket and the client's protocol."""

    async def test_otherClientsReceiveEverything(self) -> None:
        """
        A transport whose C{write} raises under load ends its own connection. Other clients receive
        every event, and all accounts are exact.
        """
        factory = await self.exporter(buffer_size=None)
        failing = reactor.listenTCP(0, FailingFactory(factory), interface="127.0.0.1")
        self.addCleanup(failing.stopListening)
        first = await self.connect()
        bad = self.socket(socket.AF_INET)
        bad.connect(("127.0.0.1", failing.getHost().port))
        await factory.connections(2)
        second = await self.connect()
        numbers = [Numbers(1), Numbers(1)]
        reading = [
            self.in_thread(one.read, client.socket, 20_000)
            for one, client in zip(numbers, (first, second), strict=True)
        ]
        reading_bad = self.in_thread(self.read_to_the_end, bad)
        await self.in_thread(record_numbers, factory.recorder, 0, 20_000)
        await gatherResults(reading)
        await reading_bad
        self.assertEqual(factory.present, [factory.protocols[0], factory.protocols[2]])
        for protocol in factory.protocols:
            self.check_account(protocol)
        self.assertGreater(factory.protocols[1].stats().discarded, 0)
        await self.service.stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def read_to_the_end(self, connected: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            while connected.recv(256 * 1024):
                pass


class FailingWrapper(ProtocolWrapper):
    """Raises in C{write} after some data."""

    given = 0

    def write(self, data: bytes) -> None:
        self.given += len(data)
        if self.given > 100_000:
            raise ZeroDivisionError
        super().write(data)


class FailingFactory(WrappingFactory):
    protocol = FailingWrapper
