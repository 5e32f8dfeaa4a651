"""
The exporter on real sockets, with real threads, on the reactor that trial was started with.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
from unittest import skipIf

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorUNIX
from twisted.internet.utils import getProcessOutputAndValue

from tests import DESCRIPTORS, environment, no_descriptors
from tests.authority import Authority, no_tls
from tests.daemon import LEFT_TO_THE_SYSTEM, LIMIT
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
from tests.reader import exact_totals
from txmetrics_tcp import Key, MetricKind
from txmetrics_tcp._net import connection
from txmetrics_tcp._net.connection import MAX_RECEIVED
from txmetrics_tcp._net.writers import CHUNK

THREADS = 8

ROUND = 100
"""The number of events that each thread records in a round."""


class PaceTests(LoopbackTestCase):
    async def test_oneClient(self) -> None:
        """
        Eight threads record at a pace that the default buffers allow: no event is lost, and each
        thread's events stay in order.
        """
        events = 40_000
        factory = await self.exporter()
        client = await self.connect()
        pace = Pace(THREADS, 1024)
        numbers = Numbers(THREADS, pace)
        reading = self.in_thread(numbers.read, client.socket, events)
        await self.all_in_threads(
            lambda thread: record_numbers(factory.recorder, thread, events // THREADS, pace.record),
            THREADS,
        )
        await reading
        stats = factory.stats()
        self.assertEqual(
            (numbers.total, stats.recorded, stats.dropped_incoming), (events, events, 0)
        )
        [account] = stats.clients
        self.assertEqual((account.written, account.dropped_client, account.waiting), (events, 0, 0))

    async def test_severalClients(self) -> None:
        """Each client receives all events, at the pace of the slowest client."""
        events = 20_000
        factory = await self.exporter()
        clients = [await self.connect() for _ in range(4)]
        paces = [Pace(4, 1024) for _ in clients]

        def record(thread: int) -> None:
            def before(thread: int, number: int) -> None:
                for pace in paces:
                    pace.record(thread, number)

            record_numbers(factory.recorder, thread, events // 4, before)

        readings = [
            self.in_thread(Numbers(4, pace).read, client.socket, events)
            for client, pace in zip(clients, paces, strict=True)
        ]
        await self.all_in_threads(record, 4)
        await gatherResults(readings)
        self.assertEqual(factory.stats().dropped_client, 0)


class LossTests(LoopbackTestCase):
    async def test_accounts(self) -> None:
        """
        Under load that no client can keep up with, each client's account balances and agrees with
        the client's own counts. At the end, all clients have exact totals.
        """
        events, burst, padding = 5_000, 1_000, "x" * 200
        factory = await self.exporter(buffer_size=100)
        recorder = factory.recorder
        quick, leaving = await self.connect(), await self.connect()
        factory.send_buffer = SMALL
        slow = await self.connect(receive_buffer=SMALL)
        recorded_some, late_connected = threading.Event(), threading.Event()
        permits = threading.Semaphore(0)
        over = threading.Event()
        self.addCleanup(late_connected.set)
        self.addCleanup(permits.release)
        self.addCleanup(over.set)

        def before(thread: int, number: int) -> None:
            if number % 1000 == 0:
                permits.release()
            if number == events // 2:
                recorded_some.set()

        def record(thread: int) -> None:
            record_numbers(recorder, thread, events, before, padding)
            late_connected.wait(LIMIT)
            record_numbers(recorder, thread, events, before, padding, first=events)
            recorder.histogram("many", thread=thread, padding=padding).record_many(1, 500)

        def leave() -> None:
            leaving.read(until=recorded_some.is_set)
            leaving.reset()

        def wait_for_permit() -> None:
            if not over.is_set():
                permits.acquire(timeout=LIMIT)

        def is_resynced() -> bool:
            return bool(slow.reader.statuses) and slow.reader.statuses[-1].dropped_client > 0

        readings = [self.in_thread(quick.read)]
        repaired = self.in_thread(slow.read, until=is_resynced, before=wait_for_permit, size=SMALL)
        left = self.in_thread(leave)
        recording = self.all_in_threads(record, THREADS)
        await left
        late = await self.connect()
        await self.in_thread(late.read_snapshot)
        self.while_blocked(lambda thread: record_numbers(recorder, THREADS, burst))
        late_connected.set()
        readings.append(self.in_thread(late.read))
        await recording
        rounds = 0

        def record_round(thread: int) -> None:
            first = 2 * events + rounds * ROUND
            record_numbers(recorder, thread, ROUND, padding=padding, first=first)

        # Without a permit, the slow client drops events.  When it reads again, it is resynced.  The
        # accounts below include both.
        while not factory.protocols[2].stats().dropped_client:
            await self.all_in_threads(record_round, THREADS)
            rounds += 1
        over.set()
        permits.release()
        await repaired
        readings.append(self.in_thread(slow.read))
        await self.service.stop()
        await gatherResults(readings)

        accounts = [protocol.stats() for protocol in factory.protocols]
        for protocol in factory.protocols:
            self.check_account(protocol)
        self.assertEqual(
            [account.recorded for account in (accounts[0], accounts[2])],
            [THREADS * (2 * events + 500 + rounds * ROUND) + burst] * 2,
        )
        for client, account in zip(
            (quick, slow, late), (*accounts[:1], *accounts[2:]), strict=True
        ):
            self.assertEqual(client.events, account.written)
            self.assertEqual(client.received, account.bytes_written)
            self.assertEqual(client.reader.unfinished, 0)
            self.assertTrue(in_order(client))
            self.assertEqual(client.reader.bits(), exact_totals(factory))
            self.assertGreater(account.dropped_incoming, 0)
            self.assertEqual((account.discarded, account.waiting), (0, 0))
            status = client.reader.statuses[-1]
            self.assertEqual(
                (status.dropped_incoming, status.dropped_client),
                (account.dropped_incoming, account.dropped_client),
            )
        self.assertLessEqual(leaving.events, accounts[1].written)

    async def test_stalls(self) -> None:
        """
        A client that stalls under load and then reads again receives complete frames. (The
        reference's stream stays corrupt.)
        """
        padding = "x" * 1000
        factory = await self.exporter(buffer_size=100)
        client = await self.connect(receive_buffer=SMALL)
        [protocol] = factory.protocols

        def record(thread: int, mark: str) -> None:
            record_numbers(factory.recorder, thread, 2000, padding=f"{mark} {padding}")

        for number in range(3):
            # While the client does not read at all …
            while protocol.stats().dropped_client <= 1000 * number:
                await self.all_in_threads(record, 2, f"{number} stalled")
            # … and while it does.
            read_on = threading.Event()
            reading = self.in_thread(client.read, until=read_on.is_set, size=1001)
            await self.all_in_threads(record, 2, f"{number} reading")
            read_on.set()
            factory.recorder.counter("end", round=number).increment()
            await reading
        reading = self.in_thread(client.read)
        await self.service.stop()
        await reading
        self.check_account(protocol)
        self.assertEqual(client.events, protocol.stats().written)
        self.assertEqual(client.received, protocol.stats().bytes_written)
        self.assertEqual(client.reader.unfinished, 0)
        self.assertEqual(client.reader.bits(), exact_totals(factory))

    async def test_hundredStuckClients(self) -> None:
        """
        Each client that never reads uses its buffer and one or two chunks, and does not affect a
        client that reads.
        """
        events, stuck, buffer_size = 8_000, 100, 200
        # No resync before the end of the test.
        factory = await self.exporter(buffer_size, repair_interval=1000)
        factory.send_buffer = SMALL
        for _ in range(stuck):
            await self.connect(receive_buffer=SMALL)
        factory.send_buffer = None
        client = await self.connect()
        pace = Pace(4, buffer_size)
        numbers = Numbers(4, pace)
        reading = self.in_thread(numbers.read, client.socket, events)
        await self.all_in_threads(
            lambda thread: record_numbers(
                factory.recorder, thread, events // 4, pace.record, "x" * 500
            ),
            4,
        )
        await reading
        account = factory.protocols[-1].stats()
        self.assertEqual((account.recorded, account.written), (events, events))
        self.assertEqual(factory.stats().waiting, 0)
        for protocol in factory.protocols[:stuck]:
            self.check_account(protocol)
            stats = protocol.stats()
            self.assertEqual((stats.recorded, stats.dropped_incoming), (events, 0))
            self.assertEqual((stats.waiting, stats.high_water), (buffer_size, buffer_size))
            # The buffers of Twisted and of the kernel.
            self.assertLessEqual(stats.bytes_written, 2 * CHUNK + 8 * SMALL)


class DepartureTests(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(connection, "PROBE_INTERVAL", 0.01)

    async def test_killed(self) -> None:
        """If one of two clients is killed under load, the other still receives every event."""
        events = 40_000
        factory = await self.exporter()
        dying, staying = await self.connect(), await self.connect()
        pace = Pace(THREADS, 1024)
        numbers = Numbers(THREADS, pace)
        half, gone = threading.Event(), threading.Event()
        self.addCleanup(gone.set)

        def before(thread: int, number: int) -> None:
            pace.record(thread, number)
            if number == events // THREADS // 2:
                half.set()
            elif number == events // THREADS - 1:
                gone.wait(LIMIT)

        def die() -> None:
            dying.read(until=half.is_set)
            dying.reset()

        death = self.in_thread(die)
        reading = self.in_thread(numbers.read, staying.socket, events)
        recording = self.all_in_threads(
            lambda thread: record_numbers(factory.recorder, thread, events // THREADS, before),
            THREADS,
        )
        await death
        await factory.clients(1)
        gone.set()
        await recording
        await reading
        self.assertEqual(numbers.total, events)
        dead, alive = factory.protocols
        self.assertEqual(factory.present, [alive])
        self.assertEqual(alive.stats().written, events)
        self.check_account(dead)
        self.assertLess(dead.stats().recorded, events)

    async def test_killedWhileStuck(self) -> None:
        """The exporter detects that a client that does not read was killed."""
        factory = await self.exporter(buffer_size=100, repair_interval=1000)
        factory.send_buffer = SMALL
        client = await self.connect(receive_buffer=SMALL)
        [protocol] = factory.protocols
        while protocol.stats().high_water < 100:
            await self.in_thread(record_numbers, factory.recorder, 0, 3000, padding="x" * 1000)
        client.reset()
        await factory.clients(0)
        self.check_account(protocol)
        # Those in its buffer, and those that were in the log.
        self.assertGreaterEqual(protocol.stats().discarded, 100)

    async def test_closed(self) -> None:
        """A client that closes its connection is detected, even if no event is recorded."""
        factory = await self.exporter()
        client = await self.connect()
        await self.in_thread(client.read_snapshot)
        client.socket.close()
        await factory.clients(0)

    async def test_halfClosed(self) -> None:
        """A client that half-closes its connection still receives events."""
        factory = await self.exporter()
        client = await self.connect()
        await self.in_thread(client.read_snapshot)
        client.socket.shutdown(socket.SHUT_WR)
        probes = b"\0" * 3
        await self.in_thread(client.read, until=lambda: client.tail.endswith(probes))
        factory.recorder.counter("c").increment(5)
        await self.in_thread(client.read, until=lambda: client.reader.values("c") == [5])
        self.assertEqual(len(factory.present), 1)
        client.socket.close()
        await factory.clients(0)

    async def test_sends(self) -> None:
        """A client that sends more than the limit is disconnected, with one log line."""
        logged = self.log_rejections()
        factory = await self.exporter()
        little, client = await self.connect(), await self.connect()

        def send_a_little() -> None:
            little.socket.sendall(b"x" * MAX_RECEIVED)
            little.socket.shutdown(socket.SHUT_WR)
            # After the half-close probe, the exporter has received all data.
            little.read(until=lambda: little.tail.endswith(b"\0"))

        def send() -> None:
            try:
                for _ in range(1000):
                    client.socket.sendall(b"x" * 100_000)
            except ConnectionError:
                return
            raise AssertionError("the exporter accepted all data")

        await self.in_thread(send_a_little)
        self.assertEqual(len(factory.present), 2)
        await self.in_thread(send)
        await factory.clients(1)
        self.assertEqual(len(logged), 1)
        self.assertRegex(logged[0], r"^Rejected client 127.0.0.1:\d+: sent unexpected data ")
        factory.recorder.counter("c").increment()
        await self.in_thread(little.read, until=lambda: little.reader.values("c"))

    @skipIf(no_descriptors, no_descriptors)
    async def test_descriptors(self) -> None:
        """No descriptors leak, for any way in which clients disconnect."""
        factory = await self.exporter()
        counter = factory.recorder.counter("c")
        departures = [
            SocketClient.reset,
            lambda client: client.socket.close(),
            lambda client: client.socket.shutdown(socket.SHUT_RDWR),
        ]
        before: set[str] | None = None
        # The first round does not count, since it may open permanent descriptors.
        for rounds in (3, 30, 30):
            clients = [await self.connect() for _ in range(rounds)]
            counter.increment()
            for number, client in enumerate(clients):
                departures[number % 3](client)
            await factory.clients(0)
            for client in clients:
                client.socket.close()
            now = set(os.listdir(DESCRIPTORS))
            before = before or now
        self.assertEqual(len(now), len(before))
        self.assertEqual(factory.stats().connected, 63)


class TransportTests(LoopbackTestCase):
    """Other transports than IPv4 also stream, pause under load, and resume."""

    async def stream(self, client: SocketClient) -> None:
        factory = self.factory
        [protocol] = factory.protocols
        events, each = 0, 3000
        while protocol.stats().high_water < each // 2:
            await self.in_thread(record_numbers, factory.recorder, events, each, padding="x" * 1000)
            events += each
        reading = self.in_thread(client.read)
        await self.in_thread(record_numbers, factory.recorder, events, each)
        await self.service.stop()
        await reading
        self.assertEqual(client.events, events + each)
        self.assertEqual(client.events, protocol.stats().written)
        self.assertTrue(in_order(client))
        self.assertEqual(client.reader.unfinished, 0)
        self.assertEqual(client.reader.bits(), exact_totals(factory))

    async def test_tcp6(self) -> None:
        if not socket.has_ipv6:
            self.skipTest("needs IPv6")
        try:
            await self.exporter(None, "[::1]:0")
        except Exception as error:
            self.skipTest(f"needs IPv6: {error}")
        connected = self.socket(socket.AF_INET6)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        connected.connect(("::1", self.address.port))  # type: ignore[attr-defined]
        await self.factory.clients(1)
        await self.stream(SocketClient(connected))
        self.assertRegex(self.factory.protocols[0].address, r"^\[::1\]:\d+$")

    async def test_unix(self) -> None:
        if not IReactorUNIX.providedBy(reactor):
            self.skipTest("needs a reactor with UNIX sockets")
        # A relative path, since the limit is about a hundred bytes.
        path = os.path.relpath(self.mktemp())
        await self.exporter(None, f"unix:{path}")
        connected = self.socket(socket.AF_UNIX)
        connected.connect(path)
        await self.factory.clients(1)
        await self.stream(SocketClient(connected))
        self.assertFalse(os.path.exists(path))

    @skipIf(no_tls, no_tls)
    async def test_tls(self) -> None:
        await self.stream(await self.connect_tls(SMALL))

    @skipIf(no_tls, no_tls)
    async def test_tlsClosed(self) -> None:
        """Over TLS, a client that closes its sending side is disconnected."""
        client = await self.connect_tls()
        client.socket.close()
        await self.factory.clients(0)

    async def connect_tls(self, receive_buffer: int | None = None) -> SocketClient:
        """Start a TLS exporter, and connect a client."""
        self.patch(connection, "HANDSHAKE_LIMIT", 1000)
        files = Authority(self).issue_self_signed()
        await self.exporter(
            None, f"ssl:0:interface=127.0.0.1:certKey={files.cert}:privateKey={files.key}"
        )
        context = ssl.create_default_context(cafile=files.cert)
        connected = self.socket(socket.AF_INET)
        if receive_buffer is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connected.connect(("127.0.0.1", self.address.port))  # type: ignore[attr-defined]
        wrapped = await self.in_thread(context.wrap_socket, connected, server_hostname="127.0.0.1")
        self.addCleanup(wrapped.close)
        await self.factory.clients(1)
        return SocketClient(wrapped)


class StopTests(LoopbackTestCase):
    async def test_flushes(self) -> None:
        """Clients that read receive all events, and C{stop} does not wait for its time limit."""
        factory = await self.exporter(buffer_size=None)
        port = self.address.port  # type: ignore[attr-defined]
        clients = [await self.connect() for _ in range(3)]
        await self.in_thread(record_numbers, factory.recorder, 0, 10_000)
        reading = gatherResults([self.in_thread(client.read) for client in clients])
        await self.service.stop()
        await reading
        for client in clients:
            self.assertEqual(client.events, 10_000)
        self.assertEqual(factory.present, [])
        with self.assertRaises(ConnectionError):
            socket.create_connection(("127.0.0.1", port))

    async def test_stuckClient(self) -> None:
        """A client that does not read does not delay others, and is aborted at the time limit."""
        factory = await self.exporter(buffer_size=None)
        port = self.address.port  # type: ignore[attr-defined]
        factory.send_buffer = SMALL
        stuck = await self.connect(receive_buffer=SMALL)
        factory.send_buffer = None
        client = await self.connect()
        done = Key(MetricKind.COUNTER, "done")
        reading = self.in_thread(client.read, until=lambda: done in client.reader.totals)
        events = 0
        while factory.protocols[0].stats().high_water < 500:
            await self.in_thread(record_numbers, factory.recorder, events, 5000, padding="x" * 1000)
            events += 5000
        factory.recorder.counter("done").increment()
        events += 1
        await reading
        reading = self.in_thread(client.read)
        stopping = self.service.stop()
        await reading
        await factory.clients(1)
        self.assertEqual(factory.present, factory.protocols[:1])
        # Simulates that the time limit expires.
        factory.stop_now()
        await stopping
        self.assertEqual(client.events, events)
        for protocol in factory.protocols:
            self.check_account(protocol)
        self.assertGreater(factory.protocols[0].stats().discarded, 0)
        self.assertRaises(ConnectionError, stuck.read)
        with self.assertRaises(ConnectionError):
            socket.create_connection(("127.0.0.1", port))

    async def test_busyReactor(self) -> None:
        """
        If the reactor is blocked until the time limit expires, a client that has read everything is
        not aborted.
        """
        factory = await self.exporter()
        factory.recorder.counter("c").increment(5)
        client = await self.connect()
        await self.in_thread(client.read_snapshot)
        stopped = factory.stop()
        # The time limit expires in the next iteration, before the reactor polls its sockets.
        factory.stop_now()
        await stopped
        await self.in_thread(client.read)
        self.assertEqual(client.reader.bits(), exact_totals(factory))


class LoadTests(LoopbackTestCase):
    async def test_accepts(self) -> None:
        """
        While threads record at full speed and a client reads, the reactor still accepts another
        client, which receives the totals.
        """
        factory = await self.exporter()
        factory.recorder.counter("known").increment(42)
        reading = self.in_thread((await self.connect()).discard)
        over = threading.Event()

        def record(thread: int) -> None:
            counter = factory.recorder.counter("c", thread=thread)
            while not over.is_set():
                counter.increment()

        recording = self.all_in_threads(record, THREADS)
        try:
            client = await self.connect()
            await self.in_thread(client.read, until=lambda: client.reader.values("known") == [42])
            client.reset()
            await factory.clients(1)
        finally:
            over.set()
        await recording
        await self.service.stop()
        await reading


OUTSIDE = """
import asyncio, importlib, json, socket, sys, threading
how, loop = sys.argv[2], asyncio.new_event_loop()
importlib.import_module(sys.argv[1]).install(*[loop] if how == "close" else [])
from twisted.internet import reactor
from txmetrics_tcp import ExporterSettings, MetricsFactory

factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
counter = factory.recorder.counter("c")

def record(events):
    for _ in range(events):
        counter.increment()

def record_everywhere():
    threads = [threading.Thread(target=record, args=(5_000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    record(5_000)
    for thread in threads:
        thread.join()

def state():
    stats = factory.stats()
    [total] = factory.recorder.snapshot().values()
    return [total, len(factory.incoming.log), stats.waiting, len(stats.clients)]

record_everywhere()
states = [state()]
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
client = socket.socket()

def connect():
    client.connect(("127.0.0.1", port.getHost().port))
    client.recv(1)
    reactor.callFromThread(reactor.stop if how == "stop" else reactor.crash)

reactor.callWhenRunning(threading.Thread(target=connect).start)
reactor.run()
states.append(state())
record_everywhere()
states.append(state())
if how == "crash":
    # A reactor can run again after a crash.
    reactor.callLater(0, reactor.stop)
    reactor.run()
elif how == "close":
    loop.close()
record_everywhere()
states.append(state())
print(json.dumps(states))
"""


class OutsideTests(LoopbackTestCase):
    async def outside(self, how: str, module: str = type(reactor).__module__) -> list[list[int]]:
        output, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", OUTSIDE, module, how],
            environment() | LEFT_TO_THE_SYSTEM,
        )
        self.assertEqual((errors.decode(), status), ("", 0))
        states: list[list[int]] = json.loads(output)
        for number, (total, log, waiting, _clients) in enumerate(states):
            self.assertEqual(total, 25_000 * max(1, number))
            self.assertLessEqual(log, 4 * 1024)
            # The log counts as waiting while a client is connected.
            self.assertLessEqual(waiting - log, 1024)
        return states

    async def test_beforeAndAfter(self) -> None:
        """
        Before the reactor runs and after it has stopped, recording raises no error, and the number
        of pending events is bounded.
        """
        states = await self.outside("stop")
        self.assertEqual([state[3] for state in states], [0, 0, 0, 0])

    async def test_crashed(self) -> None:
        """Recording works after the reactor has crashed while a client was connected."""
        states = await self.outside("crash")
        self.assertEqual([state[3] for state in states], [0, 1, 1, 0])

    async def test_closedLoop(self) -> None:
        """Recording works after the asyncio loop was closed, when C{callFromThread} raises."""
        states = await self.outside("close", "twisted.internet.asyncioreactor")
        self.assertEqual([state[3] for state in states], [0, 1, 1, 1])
