"""
Tests of the factory, without sockets: fan-out, backpressure, losses and disconnections.
"""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.exporting import FactoryTestCase
from tests.logs import log_lines
from tests.reader import FakeClient, Reader, counter_key, exact_totals
from txmetrics_tcp import (
    Metadata,
    MetricKind,
    MetricsFactory,
    MetricsProtocol,
    Operation,
    Unit,
    decode,
)
from txmetrics_tcp._codec.encoder import Encoder
from txmetrics_tcp._exporter.ledger import BATCH
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.connection import MAX_RECEIVED
from txmetrics_tcp._net.log_throttle import INTERVAL
from txmetrics_tcp._net.writers import CHUNK, Outlet
from txmetrics_tcp.testing import PausingTransport


class ServerTestCase(FactoryTestCase):
    """
    @ivar logged: the text of each log line.
    """

    def setUp(self) -> None:
        super().setUp()
        self.logged = log_lines(self, log_throttle)

    def factory(self, buffer_size: int | None = 10, **settings: Any) -> MetricsFactory:
        """Return a factory; by default, without own metrics and totals."""
        defaults = {"totals": False, "clock": lambda: 1_000_000_000}
        return super().factory(buffer_size, **{**defaults, **settings})


class FanOutTests(ServerTestCase):
    def test_everyClient(self) -> None:
        factory = self.factory()
        clients = [FakeClient(factory) for _ in range(3)]
        factory.recorder.counter("c", a="b").increment(5)
        self.reactor.settle()
        for client in clients:
            [metric] = client.read().metrics
            self.assertEqual(str(metric.key), "c [a = b]")
            self.assertEqual(metric.operation, Operation.INCREMENT_COUNTER)
            self.assertEqual((metric.value, metric.timestamp_ns), (5, 1_000_000_000))

    def test_beforeTheFirstClient(self) -> None:
        """Events recorded before the first client connects are not kept for it."""
        factory = self.factory()
        factory.recorder.counter("c").increment()
        self.assertEqual(self.reactor.waiting, 0)
        client = FakeClient(factory)
        factory.recorder.counter("c").increment(2)
        self.assertEqual(client.read_all(self.reactor).values("c"), [2])

    def test_lastClientLeaves(self) -> None:
        """Without clients, no events are buffered."""
        factory = self.factory()
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        client.transport.lose()
        factory.recorder.counter("c").increment()
        self.assertEqual(factory.stats().waiting, 0)
        self.assertEqual(factory.stats().connected, 1)
        self.reactor.settle()
        another = FakeClient(factory)
        self.assertEqual(another.read_all(self.reactor).events, [])

    def test_oneOfTwoClientsLeaves(self) -> None:
        """
        After a client disconnects, others still receive events.  (The reference counts a dead
        client twice, and sends nothing to the others.)
        """
        factory = self.factory()
        dying, staying = FakeClient(factory), FakeClient(factory)
        dying.transport.lose()
        factory.recorder.counter("c").increment()
        self.assertEqual(staying.read_all(self.reactor).values("c"), [1])

    def test_batched(self) -> None:
        """Events recorded together are written together."""
        factory = self.factory(buffer_size=1000)
        client = FakeClient(factory)
        writes: list[bytes] = []
        self.patch(client.transport, "write", writes.append)
        for i in range(100):
            factory.recorder.counter("c").increment(i)
        self.reactor.settle()
        self.assertEqual(len(writes), 1)

    def test_unbounded(self) -> None:
        """C{buffer_size} may be None.  (The reference panics.)"""
        factory = self.factory(buffer_size=None)
        client = FakeClient(factory)
        counter = factory.recorder.counter("c")
        for i in range(20_000):
            counter.increment(i)
        self.reactor.settle()
        self.assertEqual(client.read_all(self.reactor).values("c"), list(range(20_000)))

    def test_reactorThread(self) -> None:
        """
        A burst on the reactor thread is delivered to clients that can bypass their transport, even
        if it exceeds the buffer.
        """
        self.patch(Outlet, "bypasses", True)
        self.reactor_thread = True
        factory = self.factory(buffer_size=10)
        client = FakeClient(factory, limit=10**9)
        counter = factory.recorder.counter("c")
        for i in range(5000):
            counter.increment(i)
        self.assertEqual(client.read_all(self.reactor).values("c"), list(range(5000)))

    def test_reactorThreadSlowClient(self) -> None:
        """In such a burst, a client that does not keep up loses its oldest events."""
        self.reactor_thread = True
        factory = self.factory(buffer_size=10)
        client = FakeClient(factory, limit=100)
        counter = factory.recorder.counter("c")
        for i in range(5000):
            counter.increment(i)
        values = client.read_all(self.reactor).values("c")
        self.assertEqual(values[-10:], list(range(4990, 5000)))
        stats = client.protocol.stats()
        self.assertEqual((stats.dropped_incoming, stats.dropped_client), (0, 5000 - len(values)))

    def test_oneWakeUp(self) -> None:
        """An iteration delivers one batch.  If more is pending, it schedules one wake-up."""
        factory = self.factory(buffer_size=None, totals=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(3 * BATCH):
            counter.increment()
        for _ in range(2):
            self.assertEqual(self.reactor.waiting, 1)
            before = len(client.read().values("c"))
            self.reactor.drain()
            self.assertEqual(len(client.read().values("c")), before + BATCH)
            counter.increment()
        self.assertEqual(self.reactor.waiting, 1)
        self.assertEqual(client.read_all(self.reactor).totals[counter_key("c")], 3 * BATCH + 2)

    def test_withoutClients(self) -> None:
        """Without clients, no wake-up is requested, no events are pending, no clock is read."""
        readings = []

        def clock() -> int:
            readings.append(1)
            return 10**18

        factory = self.factory(totals=True, clock=clock)
        client = FakeClient(factory)
        counter = factory.recorder.counter("c")
        counter.increment()
        client.read_all(self.reactor)
        client.transport.lose()
        self.reactor.settle()
        readings.clear()
        for _ in range(5000):
            counter.increment()
        self.assertEqual(self.reactor.waiting, 0)
        self.assertEqual((factory.stats().waiting, factory.stats().dropped_incoming), (0, 0))
        self.assertEqual(readings, [])
        self.assertEqual(list(factory.recorder.snapshot().values()), [5001])


class MetadataTests(ServerTestCase):
    def test_first(self) -> None:
        """A client receives all descriptions before its first event."""
        factory = self.factory()
        recorder = factory.recorder
        recorder.describe_counter("c", Unit.BYTES, "first")
        recorder.describe_gauge("c", Unit.COUNT, "same name, another kind")
        recorder.describe_counter("c", Unit.BYTES, "second")
        client = FakeClient(factory)
        recorder.counter("c").increment()
        reader = client.read_all(self.reactor)
        self.assertEqual(
            reader.events[:-1],
            [
                Metadata(MetricKind.COUNTER, "c", "bytes", "second"),
                Metadata(MetricKind.GAUGE, "c", "count", "same name, another kind"),
            ],
        )

    def test_whileConnected(self) -> None:
        """Connected clients receive a new description before the first event."""
        factory = self.factory()
        client = FakeClient(factory)
        factory.recorder.describe_counter("c", None, "x")
        factory.recorder.counter("c").increment()
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.events[0], Metadata(MetricKind.COUNTER, "c", None, "x"))
        self.assertEqual(len(reader.events), 2)

    def test_neverDropped(self) -> None:
        """A client that loses nearly all events receives all descriptions."""
        factory = self.factory(buffer_size=1)
        client = FakeClient(factory, limit=10)
        described = []
        for i in range(3000):
            described.append(Metadata(MetricKind.COUNTER, f"c{i}", "count", "x" * 50))
            factory.recorder.describe(described[-1])
            factory.recorder.counter("c").increment()
            if i % 100 == 0:
                self.reactor.settle()
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.metadata, described)
        self.assertLess(len(reader.metrics), 200)

    def test_whileStuck(self) -> None:
        """While a client does not read, only the latest description of each metric is kept."""
        factory = self.factory()
        client = FakeClient(factory, limit=10)
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        for i in range(100):
            factory.recorder.describe_counter("c", None, str(i))
            self.reactor.settle()
        reader = client.read_all(self.reactor)
        self.assertEqual([metadata.description for metadata in reader.metadata], ["99"])

    def test_laterClients(self) -> None:
        """A client that connects later receives all earlier descriptions."""
        factory = self.factory()
        FakeClient(factory)
        factory.recorder.describe_counter("c", "count", "What it counts.")
        self.reactor.settle()
        late = FakeClient(factory)
        self.assertEqual([one.name for one in late.read_all(self.reactor).metadata], ["c"])


class BackpressureTests(ServerTestCase):
    def test_oldestDropped(self) -> None:
        factory = self.factory(buffer_size=10)
        client = FakeClient(factory, limit=1)
        counter = factory.recorder.counter("c")
        for i in range(100):
            counter.increment(i)
            self.reactor.settle()
        stats = client.protocol.stats()
        self.assertEqual((stats.written, stats.waiting, stats.dropped_client), (1, 10, 89))
        self.assertEqual(client.read_all(self.reactor).values("c"), [0, *range(90, 100)])
        self.assertEqual(client.protocol.stats().high_water, 10)

    def test_othersLoseNothing(self) -> None:
        """A stuck client holds its buffer and about one chunk, and other clients lose no events."""
        factory = self.factory(buffer_size=10)
        stuck = [FakeClient(factory) for _ in range(5)]
        reading = FakeClient(factory)
        counter = factory.recorder.counter("c", padding="x" * 1000)
        for i in range(1000):
            counter.increment(i)
            self.reactor.settle()
            reading.read()
        self.assertEqual(reading.read_all(self.reactor).values("c"), list(range(1000)))
        for client in stuck:
            self.assertLessEqual(len(client.transport.written), 2 * CHUNK)
            self.assertEqual(client.protocol.stats().waiting, 10)

    def test_pausedBetweenChunks(self) -> None:
        """Events that a paused transport did not take are sent when it resumes."""
        factory = self.factory(buffer_size=1000)
        client = FakeClient(factory)
        counter = factory.recorder.counter("c", padding="x" * 1000)
        for i in range(300):
            counter.increment(i)
        self.reactor.settle()
        self.assertTrue(client.transport.producer_paused)
        self.assertLessEqual(len(client.transport.written), 2 * CHUNK)
        self.assertEqual(client.read_all(self.reactor).values("c"), list(range(300)))

    def test_resumedFromWithinWrite(self) -> None:
        """Events stay in order if a transport resumes its producer within a write."""
        factory = self.factory(buffer_size=None)
        client = FakeClient(factory)
        written: list[bytes] = []

        def write(data: bytes) -> None:
            written.append(data)
            client.protocol.pauseProducing()
            client.protocol.resumeProducing()

        self.patch(client.transport, "write", write)
        for i in range(3000):
            factory.recorder.counter("c").increment(i)
        self.reactor.settle()
        reader = Reader()
        reader.feed(b"".join(written))
        self.assertEqual(reader.values("c"), list(range(3000)))

    def test_wholeFrames(self) -> None:
        """
        A client receives whole frames, however it reads.  (The reference corrupts the stream of a
        client that stalls.)
        """
        factory = self.factory(buffer_size=20)
        client = FakeClient(factory, limit=300)
        for i in range(2000):
            factory.recorder.counter("c", i=str(i % 7) * (i % 50)).increment(i)
            if i % 5 == 0:
                self.reactor.settle()
                client.read(i % 97)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.unfinished, 0)
        values = reader.values("c")
        self.assertEqual(values, sorted(values))
        self.assertEqual(values[-1], 1999)


class AccountTests(ServerTestCase):
    def check(self, client: FakeClient) -> None:
        stats = client.protocol.stats()
        self.assertEqual(
            stats.recorded,
            stats.dropped_incoming
            + stats.dropped_client
            + stats.written
            + stats.discarded
            + stats.waiting,
            stats,
        )

    def test_balances(self) -> None:
        """The account of a client includes every event since it connected."""
        factory = self.factory(buffer_size=10)
        slow = FakeClient(factory, limit=100)
        counter = factory.recorder.counter("c")
        late: list[FakeClient] = []
        for i in range(2000):
            counter.increment(i)
            if i % 37 == 0:
                self.reactor.settle()
            if i % 211 == 0:
                slow.read(50)
            if i % 700 == 0:
                late.append(FakeClient(factory))
            for client in (slow, *late):
                self.check(client)
        self.assertGreater(slow.protocol.stats().dropped_incoming, 0)
        self.assertGreater(slow.protocol.stats().dropped_client, 0)
        slow.transport.lose()
        self.check(slow)
        self.assertGreater(slow.protocol.stats().discarded, 0)
        for client in late:
            reader = client.read_all(self.reactor)
            self.check(client)
            self.assertEqual(len(reader.metrics), client.protocol.stats().written)
        everything = factory.stats()
        self.assertEqual(everything.recorded, 2000)
        self.assertEqual(len(everything.clients), 3)

    def test_bytes(self) -> None:
        factory = self.factory()
        client = FakeClient(factory)
        before = client.protocol.stats().bytes_written
        factory.recorder.describe_counter("c", None, "x")
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        written = client.transport.written
        self.assertEqual(len(decode(written)), 2)
        self.assertEqual(client.protocol.stats().bytes_written - before, len(written))

    def test_clientLeaves(self) -> None:
        """The events, drops and repairs of a client still count after it has disconnected."""
        factory = self.factory(totals=True)
        client = FakeClient(factory, limit=1)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        client.read_all(self.reactor)
        before = factory.stats()
        self.assertGreater(min(before.dropped_client, before.repairs, before.written), 0)
        client.transport.lose()
        after = factory.stats()
        for figure in ("dropped_client", "repairs", "written", "bytes_written", "connected"):
            self.assertEqual(getattr(after, figure), getattr(before, figure), figure)

    def record_all(self, factory: MetricsFactory) -> None:
        """Record 13 events of 6 series."""
        for number in range(5):
            factory.recorder.counter("c", number=number).increment(number)
        factory.recorder.counter("c", number=0).increment(2**63)
        factory.recorder.histogram("h").record_many(0.5, 7)

    def test_pendingWithoutClients(self) -> None:
        """Without clients, the statistics include what no thread has processed yet."""
        for limit, series in ((10, 6), (3, 3), (0, 0)):
            factory = self.factory(buffer_size=1000, totals=True, max_series=limit)
            for times in (1, 2):
                self.record_all(factory)
                stats = factory.stats()
                self.assertEqual((stats.recorded, stats.waiting), (13 * times, 0))
                self.assertEqual((stats.series, stats.series_refused), (series, 6 - series))
                self.assertEqual(len(factory.recorder.snapshot()), series)
            FakeClient(factory).read_all(self.reactor)
            after = factory.stats()
            self.assertEqual(
                (after.recorded, after.series, after.series_refused),
                (stats.recorded, stats.series, stats.series_refused),
            )

    def test_pending(self) -> None:
        """The statistics of exporter and clients include events that are pending in the log."""
        factory = self.factory(buffer_size=1000, totals=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        self.record_all(factory)
        before = factory.stats()
        self.assertEqual((before.recorded, before.waiting, before.series), (13, 13, 6))
        [account] = before.clients
        self.assertEqual((account.recorded, account.waiting, account.written), (13, 13, 0))
        self.assertEqual(client.protocol.stats(), account)
        client.read_all(self.reactor)
        after = factory.stats()
        self.assertEqual((after.recorded, after.waiting, after.written), (13, 0, 13))
        self.assertEqual((after.series, after.series_refused), (6, 0))

    def test_pendingWhenClientLeaves(self) -> None:
        """Events in the log when a client disconnects are in its account, as discarded."""
        factory = self.factory(buffer_size=1000, totals=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        self.record_all(factory)
        client.transport.lose()
        account = client.protocol.stats()
        self.assertEqual((account.recorded, account.discarded, account.waiting), (13, 13, 0))
        self.assertEqual(factory.stats().recorded, 13)

    def test_withoutTotals(self) -> None:
        """Without totals, no series are counted, pending or not."""
        factory = self.factory(buffer_size=1000)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        self.record_all(factory)
        stats = factory.stats()
        self.assertEqual((stats.recorded, stats.series, stats.series_refused), (13, 0, 0))

    def test_newClient(self) -> None:
        """The account of a new client counts the bytes of its snapshot, and no events."""
        factory = self.factory(totals=True)
        transport = PausingTransport()
        protocol = factory.buildProtocol(transport.getPeer())
        transport.connect(protocol)
        self.reactor.settle()
        stats = protocol.stats()
        self.assertEqual(stats.bytes_written, len(transport.drain()))
        self.assertEqual((stats.high_water, stats.waiting, stats.written), (0, 0, 0))


class LossLogTests(ServerTestCase):
    def test_twoLines(self) -> None:
        """One line is logged when losses begin and one when they end."""
        factory = self.factory(buffer_size=10)
        client = FakeClient(factory, limit=1)
        counter = factory.recorder.counter("c")
        for _ in range(100):
            counter.increment()
            self.reactor.settle()
            self.reactor.advance(0.01)
        self.assertEqual(
            self.logged,
            ["Events are being dropped because client 127.0.0.1:54321 is too slow"],
        )
        client.read_all(self.reactor)
        self.reactor.pump([1] * 20)
        client.transport.lose()
        self.assertEqual(len(self.logged), 2)
        self.assertRegex(
            self.logged[1],
            r"Events were dropped because client 127.0.0.1:54321 is too slow:"
            r" 89 events within 0\.\d seconds",
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_incoming(self) -> None:
        factory = self.factory(buffer_size=10)
        FakeClient(factory)
        for _ in range(100):
            factory.recorder.counter("c").increment()
        self.assertEqual(self.logged, [])
        self.reactor.settle()
        self.assertEqual(
            self.logged,
            ["Events are being dropped because the reactor cannot keep up with recording"],
        )
        dropped = factory.stats().dropped_incoming
        self.reactor.pump([1] * 20)
        self.assertIn(f": {dropped} events within 0.0 seconds", self.logged[1])

    def losing(self, factory: MetricsFactory, events: int) -> FakeClient:
        """Return a client that has lost events."""
        client = FakeClient(factory, limit=1)
        dropped = factory.stats().dropped_client
        while factory.stats().dropped_client < dropped + events:
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        return client

    def test_clientLeaves(self) -> None:
        """The losses of a client that disconnects are logged after the interval."""
        factory = self.factory(buffer_size=10)
        self.losing(factory, 5).transport.lose()
        self.assertEqual(len(self.logged), 1)
        self.reactor.pump([INTERVAL] * 2)
        self.assertEqual(len(self.logged), 2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_manyClients(self) -> None:
        """
        Clients that lose events and disconnect, one after the other, cause two lines together, and
        one line in each interval.
        """
        factory = self.factory(buffer_size=10)
        for number in range(140):
            self.losing(factory, 7 if number == 20 else 5).transport.lose()
        self.assertEqual(len(self.logged), 1)
        self.reactor.advance(INTERVAL)
        self.losing(factory, 5).transport.lose()
        self.reactor.pump([INTERVAL] * 5)
        address = "127.0.0.1:54321"
        self.assertEqual(
            self.logged,
            [
                f"Events are being dropped because client {address} is too slow",
                "Events are being dropped because 139 more clients are too slow; the last is"
                f" {address}",
                "Events are being dropped because 1 more client is too slow; the last is"
                f" {address}",
                "Events were dropped because 141 clients are too slow: 707 events within 10.0"
                f" seconds; client {address} lost the most (7)",
            ],
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_incomingWithClientsThatLeave(self) -> None:
        """Clients that come and go do not cause further lines about the incoming side."""
        factory = self.factory(buffer_size=10)
        for _ in range(140):
            client = FakeClient(factory)
            for _ in range(30):
                factory.recorder.counter("c").increment()
            self.reactor.settle()
            client.transport.lose()
        self.assertEqual(len(self.logged), 1)
        self.reactor.pump([INTERVAL] * 2)
        self.assertEqual(len(self.logged), 2)

    def test_stop(self) -> None:
        """When the exporter stops, or its ports close, losses are logged, and no timer is left."""
        for end in (MetricsFactory.stop, MetricsFactory.stopFactory):
            factory = self.factory(buffer_size=10)
            self.logged.clear()
            self.losing(factory, 5).transport.lose()
            end(factory)
            self.assertEqual(len(self.logged), 2)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lossesAddUp(self) -> None:
        """The log line at the end of losses has the sum of all bursts."""
        factory = self.factory()
        client = FakeClient(factory)
        for _ in range(3):
            for _ in range(100):
                factory.recorder.counter("c").increment()
            client.read_all(self.reactor)
            self.reactor.advance(1)
        self.reactor.pump([1] * 20)
        dropped = factory.stats().dropped_incoming
        self.assertGreater(dropped, 200)
        self.assertEqual(re.findall(r": (\d+) events within", self.logged[-1]), [str(dropped)])


class DisconnectionTests(ServerTestCase):
    def test_receivedData(self) -> None:
        """Received data is ignored; a client that exceeds the limit is aborted."""
        factory = self.factory()
        client = FakeClient(factory)
        for _ in range(MAX_RECEIVED // 1024):
            client.transport.receive(b"x" * 1024)
        self.assertFalse(client.transport.aborted)
        client.transport.receive(b"x")
        self.assertTrue(client.transport.aborted)
        client.transport.receive(b"x" * 10**6)
        self.assertEqual(
            self.logged,
            [
                "Rejected client 127.0.0.1:54321: sent unexpected data (more than 64 KiB),"
                f" beginning with {b'x' * 16!r}"
            ],
        )
        client.transport.drain()
        self.assertEqual(factory.stats().clients, ())

    def test_lostWhileStuck(self) -> None:
        """A client that disconnects while it needs totals can be garbage-collected."""
        factory = self.factory(totals=True)
        other = FakeClient(factory)
        client = FakeClient(factory, limit=1)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            other.read_all(self.reactor)
        self.assertGreater(client.protocol.stats().dropped_client, 0)
        client.transport.lose()
        left = weakref.ref(client.protocol)
        del client
        gc.collect()
        self.assertIsNone(left())

    def test_lostWithinWrite(self) -> None:
        """If connections are lost within a write, other clients still receive events."""
        factory = self.factory(totals=True)
        for cause, stays in (
            (lambda: factory.recorder.counter("c").increment(), True),
            (lambda: factory.recorder.describe_counter("c", None, "again"), True),
            (factory.stop, False),
        ):
            factory.startFactory()
            clients = [FakeClient(factory) for _ in range(3)]
            for client in clients:
                client.read_all(self.reactor)
            for client in clients[:2]:
                lose = client.transport.lose
                self.patch(client.transport, "write", lambda data, lose=lose: lose())
                self.patch(client.transport, "loseConnection", lose)
            cause()
            before = len(clients[2].reader.events)
            clients[2].read_all(self.reactor)
            self.assertEqual(len(clients[2].reader.events), before + stays)
            self.assertEqual(len(factory.stats().clients), stays)
            clients[2].transport.lose()

    def test_stopProducing(self) -> None:
        """After `stopProducing`, nothing is written to the transport."""
        factory = self.factory(totals=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        client.protocol.stopProducing()
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.assertEqual(client.transport.drain(), b"")


class StopTests(ServerTestCase):
    def test_noClients(self) -> None:
        factory = self.factory()
        self.successResultOf(factory.stop())
        self.successResultOf(factory.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_flushes(self) -> None:
        """Events recorded before `stop` are delivered; later ones are not."""
        factory = self.factory(buffer_size=None)
        quick, slow = FakeClient(factory), FakeClient(factory, limit=100)
        for i in range(3000):
            factory.recorder.counter("c").increment(i)
        stopped = factory.stop()
        factory.recorder.counter("c").increment(3000)
        self.assertEqual(quick.read_all(self.reactor).values("c"), list(range(3000)))
        self.assertFalse(quick.transport.connected)
        self.assertNoResult(stopped)
        self.assertEqual(slow.read_all(self.reactor).values("c"), list(range(3000)))
        self.assertFalse(slow.transport.connected)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_finishedOnce(self) -> None:
        """`stop` finishes each client once."""
        factory = self.factory()
        clients = [FakeClient(factory) for _ in range(20)]
        self.reactor.settle()
        finish = MetricsProtocol.finish
        finished: list[MetricsProtocol] = []

        def counted(client: MetricsProtocol) -> None:
            finished.append(client)
            finish(client)

        self.patch(MetricsProtocol, "finish", counted)
        stopped = factory.stop()
        for client in clients:
            self.assertNoResult(stopped)
            client.read_all(self.reactor)
        self.successResultOf(stopped)
        self.assertEqual(finished, [client.protocol for client in clients])

    def test_stuckClient(self) -> None:
        """A client that does not read is aborted after the timeout, by default one second."""
        for options, seconds in (({"timeout": 3}, 3), ({}, 1)):
            factory = self.factory()
            client = FakeClient(factory, limit=1)
            for _ in range(5):
                factory.recorder.counter("c").increment()
                self.reactor.settle()
            stopped, again = factory.stop(**options), factory.stop()
            self.reactor.settle()
            self.reactor.advance(seconds - 0.01)
            self.assertFalse(client.transport.aborted)
            self.reactor.advance(0.01)
            self.assertTrue(client.transport.aborted)
            self.assertNoResult(stopped)
            client.transport.drain()
            self.successResultOf(stopped)
            self.successResultOf(again)
            self.assertEqual(client.protocol.stats().discarded, 4)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_rejectsClients(self) -> None:
        """A client that connects while the factory stops is aborted without data."""
        factory = self.factory()
        FakeClient(factory)
        factory.stop()
        transport = PausingTransport()
        transport.connect(factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        self.assertTrue(transport.aborted)
        self.assertEqual(transport.drain(), b"")

    def test_startsAgain(self) -> None:
        factory = self.factory()
        factory.doStart()
        self.successResultOf(factory.stop())
        factory.doStop()
        factory.doStart()
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        self.assertEqual(client.read_all(self.reactor).values("c"), [1])

    def test_stopNow(self) -> None:
        """
        While stopping, `stop_now` aborts a client that does not read.  Otherwise it does nothing.
        """
        factory = self.factory(totals=True)
        client = FakeClient(factory, limit=1)
        factory.stop_now()
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.assertTrue(client.transport.connected)
        gone = factory.stop(timeout=1000)
        self.reactor.settle()
        self.assertNoResult(gone)
        factory.stop_now()
        self.reactor.settle()
        self.assertTrue(client.transport.aborted)
        client.transport.lose()
        self.successResultOf(gone)
        factory.stop_now()

    def test_duringTheHandshake(self) -> None:
        """A client whose TLS handshake is in progress is aborted at once."""
        factory = self.factory(totals=True)
        self.patch(MetricsProtocol, "_begin", lambda this: None)
        transport = PausingTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        gone = factory.stop(5)
        self.assertTrue(transport.aborted)
        transport.drain()
        self.successResultOf(gone)

    def test_startsAgainWithoutClients(self) -> None:
        """A restarted factory records events, even before a client connects."""
        factory = self.factory(totals=True)
        counter = factory.recorder.counter("c")
        counter.increment()
        self.successResultOf(factory.stop())
        counter.increment()
        self.assertEqual(list(factory.recorder.snapshot().values()), [1])
        factory.startFactory()
        counter.increment()
        self.assertEqual(list(factory.recorder.snapshot().values()), [2])


class ReentrancyTests(ServerTestCase):
    def test_recordedWhileDraining(self) -> None:
        """
        Events that a drain records, for example in a log observer, are delivered, without recursion
        or deadlock.
        """
        self.reactor_thread = True
        factory = self.factory(buffer_size=10)
        client = FakeClient(factory)
        write = client.transport.write
        echo = factory.recorder.counter("echo")

        def recording(data: bytes) -> None:
            if data and echoes:
                echoes.pop()
                for _ in range(30):
                    echo.increment()
            write(data)

        echoes = [1, 2, 3]
        self.patch(client.transport, "write", recording)
        factory.recorder.counter("c").increment()
        reader = client.read_all(self.reactor)
        stats = client.protocol.stats()
        self.assertEqual(reader.values("c"), [1])
        self.assertEqual(stats.recorded, 91)
        self.assertEqual(len(reader.values("echo")), 90 - stats.dropped_incoming)

    def test_orderWhileDelivering(self) -> None:
        """Events recorded on the reactor thread during a delivery follow the delivered batch."""
        self.reactor_thread = True
        factory = self.factory(totals=True)
        first, second = FakeClient(factory), FakeClient(factory)
        for client in (first, second):
            client.read_all(self.reactor)
        histogram = factory.recorder.histogram("h")
        write = first.transport.write
        numbers = iter(range(10, 100))

        def recording(data: bytes) -> None:
            write(data)
            for _, number in zip(range(30), numbers, strict=False):
                histogram.record(number)

        for number in range(10):
            histogram.record(number)
        self.patch(first.transport, "write", recording)
        seen = second.read_all(self.reactor).values("h")
        self.assertEqual(seen, sorted(seen))
        self.assertGreater(len(seen), 10)

    def test_boundedWhileDelivering(self) -> None:
        """The log is bounded while events are recorded on the reactor thread within a write."""
        self.reactor_thread = True
        factory = self.factory(totals=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        write = client.transport.write
        lengths = []

        def recording(data: bytes) -> None:
            write(data)
            if not lengths:
                for _ in range(1000):
                    counter.increment()
                    lengths.append(len(factory.incoming.log))

        self.patch(client.transport, "write", recording)
        counter.increment()
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertLess(max(lengths), 50)

    def test_interrupted(self) -> None:
        """
        If a signal handler raises while the next iteration is scheduled, the next tick continues
        the stream, even while stopping.
        """
        for stopping in (False, True):
            self.interrupt(stopping)

    def interrupt(self, stopping: bool) -> None:
        factory = self.factory(buffer_size=None, totals=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        call_from_thread = self.reactor.callFromThread

        def interrupted(*args: object) -> None:
            self.patch(self.reactor, "callFromThread", call_from_thread)
            raise KeyboardInterrupt

        counter = factory.recorder.counter("c")
        for _ in range(4 * BATCH):
            counter.increment()
        if stopping:
            # No later event wakes the reactor.
            factory.stop(1000)
        # One batch is taken, and a wake-up is requested for the next one.
        self.patch(self.reactor, "callFromThread", interrupted)
        self.assertRaises(KeyboardInterrupt, self.reactor.settle)
        self.reactor.advance(1)
        client.read_all(self.reactor)
        self.assertEqual(client.reader.values("c"), [1] * 4 * BATCH)

    def test_interruptedEpochLogsNoLoss(self) -> None:
        """An aborted epoch is not logged as a loss."""
        logged = log_lines(self, log_throttle)
        factory = self.factory(totals=True)
        client = FakeClient(factory)
        counter = factory.recorder.counter("c")
        encode = Encoder.encode

        def interrupted(this: Encoder, entries: list[Any]) -> object:
            self.patch(Encoder, "encode", encode)
            raise KeyboardInterrupt

        client.read_all(self.reactor)
        counter.increment(5)
        self.patch(Encoder, "encode", interrupted)
        self.assertRaises(KeyboardInterrupt, self.reactor.settle)
        counter.increment(2)
        self.assertEqual(client.read_all(self.reactor).totals[counter.key], 7)
        self.assertEqual(logged, [])


class SettingsTests(ServerTestCase):
    def test_noAddresses(self) -> None:
        """A factory does not know the addresses of its ports."""
        self.assertEqual(self.factory().recorder.addresses, ())

    def test_factoryOfProtocol(self) -> None:
        """A protocol refers to its factory, as Twisted documents."""
        factory = self.factory()
        self.assertIs(FakeClient(factory).protocol.factory, factory)

    def test_quiet(self) -> None:
        """Twisted logs nothing when the factory starts or stops."""
        factory = self.factory()
        with capturedLogs() as logged:
            factory.doStart()
            factory.doStop()
        self.assertEqual(logged, [])


class TransportTests(SynchronousTestCase):
    def test_everyByteOnce(self) -> None:
        """The fake transport of these tests pauses its producer within `write`."""
        transport = PausingTransport(limit=1)
        paused: list[bool] = []

        class Producer:
            def pauseProducing(self) -> None:
                paused.append(True)

            def resumeProducing(self) -> None:
                paused.append(False)

        transport.registerProducer(Producer(), True)  # type: ignore[arg-type]
        transport.write(b"abc")
        self.assertEqual(paused, [True])
        self.assertEqual(transport.drain(), b"abc")
        self.assertEqual(paused, [True, False])
