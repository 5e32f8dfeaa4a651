"""
Tests of a client's protocol without its factory: writes, totals, and disconnection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.exporting import FactoryTestCase
from tests.reader import FakeClient, Reader, counter_key
from txmetrics_tcp import (
    Decoder,
    ExporterSettings,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    decode,
)
from txmetrics_tcp._codec.encoder import encode_metric
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.descriptions import Descriptions
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._exporter.ledger import Counts, Marker
from txmetrics_tcp._exporter.protocol import MetricsProtocol
from txmetrics_tcp._exporter.snapshot import ENCODED, GROUP, TotalsSnapshot
from txmetrics_tcp._net import connection
from txmetrics_tcp._net.log_throttle import LossReport
from txmetrics_tcp._net.writers import CHUNK
from txmetrics_tcp.testing import FakeReactor, PausingTransport

LONG = "n" * 150
"""A name so long that a few hundred events exceed one chunk."""


class RecordingExporter:
    """A substitute for the factory and the fanout of a protocol; records their calls."""

    interrupting = False

    def __init__(self, clock: FakeReactor) -> None:
        self.descriptions = Descriptions()
        self.client_losses = LossReport(clock)
        self.now = Counts(0, 0, 0)
        self.calls: list[str] = []

    def counts(self) -> Counts:
        return self.now

    def status(self, dropped_incoming: int, dropped_client: int) -> bytes:
        return encode_status(Status("test", 0, dropped_incoming, dropped_client))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("client_"):
            raise AttributeError(name)
        return lambda *args: self.calls.append(name)


class SizingTransport(PausingTransport):
    """A transport that notes the size of each write."""

    def __init__(self, limit: int = 64 * 1024) -> None:
        super().__init__(limit)
        self.sizes: list[int] = []

    def write(self, data: bytes) -> None:
        self.sizes.append(len(data))
        super().write(data)


class EagerTransport(PausingTransport):
    """A transport that resumes its producer within `write`, before it takes the data."""

    eager = False

    def write(self, data: bytes) -> None:
        if self.eager and isinstance(self.producer, MetricsProtocol):
            self.producer.pauseProducing()
            self.producer.resumeProducing()
        super().write(data)


class PullingTransport(PausingTransport):
    """A transport that resumes its producer at once, as Twisted's do with a pull producer."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        producer.resumeProducing()


class ProtocolTestCase(SynchronousTestCase):
    """A test case for a protocol without its factory."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.exporter = RecordingExporter(self.reactor)

    def protocol(
        self, transport: PausingTransport, buffer_size: int | None = 10, **more: Any
    ) -> MetricsProtocol:
        settings = ExporterSettings(buffer_size=buffer_size, **more)
        exporter = self.exporter
        protocol = MetricsProtocol(exporter, exporter, self.reactor, settings, "the client")
        transport.connect(protocol)
        return protocol

    def joined(self, transport: PausingTransport, **more: int | None) -> MetricsProtocol:
        """Return a client that has received its first totals and has read everything."""
        protocol = self.protocol(transport, **more)
        self.assertEqual(protocol.prepare_marker(), 0)
        protocol.reach_marker(self.marker())
        transport.drain()
        transport.drain()
        self.assertEqual(transport.written, b"")
        self.exporter.calls.clear()
        return protocol

    def stuck(self, **more: int | None) -> tuple[MetricsProtocol, PausingTransport]:
        """Return a client that no longer reads; event 0 fills its transport."""
        transport = PausingTransport(1)
        protocol = self.joined(transport, **more)
        protocol.deliver(self.batch([0], 1))
        self.assertTrue(transport.producer_paused)
        return protocol, transport

    def batch(self, values: list[int], since: int, name: str = "a") -> Batch:
        """Return a batch of events that set a counter."""
        key = counter_key(name)
        frames = [encode_metric(Metric(key, Operation.SET_COUNTER, one, 1)) for one in values]
        return Batch(frames, since)

    def marker(self, *totals: tuple[str, int], dropped: int = 0, complete: bool = False) -> Marker:
        """Return a marker with totals, each given as the series' name and the value."""
        incoming = Incoming(self.reactor, None, lambda: None, at_once=lambda: False)
        series = [incoming.series(counter_key(name)) for name, _ in totals]
        snapshot = TotalsSnapshot(series, [value for _, value in totals], {}, 77, complete)
        return Marker(Counts(0, dropped, 0), snapshot)

    def describe(self, protocol: MetricsProtocol, frames: dict[str, bytes]) -> None:
        """Add descriptions, and have them sent."""
        named = {(MetricKind.COUNTER, name): frame for name, frame in frames.items()}
        self.exporter.descriptions.update(named)
        protocol.flush()

    def values(self, transport: PausingTransport) -> list[tuple[str, float]]:
        """Read everything; return the names and values of the events."""
        reader = Reader()
        while data := transport.drain():
            reader.feed(data)
        return [(metric.key.name, metric.value) for metric in reader.metrics]


class DisconnectedTests(ProtocolTestCase):
    """A client that has disconnected."""

    def test_calls(self) -> None:
        """Calls of `lost` and `reach_marker` after the disconnection do nothing."""
        transport = PausingTransport()
        protocol = self.joined(transport)
        protocol.lost(3)
        protocol.prepare_marker()
        transport.lose()
        self.exporter.calls.clear()
        before = protocol.stats()
        protocol.lost(5)
        protocol.reach_marker(self.marker(("a", 1)))
        self.assertEqual(self.exporter.calls, [])
        self.assertEqual(protocol.stats(), before)

    def test_finish(self) -> None:
        """`finish` and `abort` after the disconnection do nothing."""
        transport = PausingTransport()
        protocol = self.joined(transport)
        transport.lose()
        self.patch(transport, "loseConnection", lambda: self.fail("it was closed again"))
        protocol.finish()
        self.patch(transport, "unregisterProducer", lambda: self.fail("unregistered again"))
        protocol.abort()

    def test_account(self) -> None:
        """The account of a disconnected client does not change."""
        protocol = self.joined(transport := PausingTransport())
        self.exporter.now = Counts(5, 1, 0)
        transport.lose()
        before = protocol.stats()
        self.exporter.now = Counts(50, 10, 3)
        self.assertEqual((before.recorded, before.dropped_incoming), (5, 1))
        self.assertEqual(protocol.stats(), before)

    def test_discarded(self) -> None:
        """Events pending for the client, and on the incoming side, are discarded."""
        protocol, transport = self.stuck()
        protocol.deliver(self.batch([1, 2, 3], 2))
        self.exporter.now = Counts(6, 0, 2)
        transport.lose()
        self.assertEqual(protocol.stats().discarded, 3 + 2)

    def test_released(self) -> None:
        """A disconnected client does not hold pending data."""
        transport = PausingTransport(1)
        protocol = self.protocol(transport)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(("a", 1)))
        protocol.deliver(self.batch([1], 2))
        outbox = protocol._outbox
        assert outbox.snapshot is not None
        self.assertEqual((len(outbox.snapshot), len(outbox.events)), (1, 1))
        transport.lose()
        self.assertEqual((outbox.snapshot, len(outbox.events)), (None, 0))

    def test_abortDuringHandshake(self) -> None:
        """`abort` works during the TLS handshake, when no producer is registered."""
        self.patch(MetricsProtocol, "_begin", lambda this: None)
        protocol = self.protocol(transport := PausingTransport())
        self.patch(transport, "unregisterProducer", lambda: self.fail("no producer"))
        protocol.abort()
        self.assertTrue(transport.aborted)


class WriteTests(ProtocolTestCase):
    """The content and the order of writes."""

    def test_controlInOrder(self) -> None:
        """Descriptions are sent in the order of the calls."""
        transport = PausingTransport(1)
        protocol = self.joined(transport)
        protocol.pauseProducing()
        for name in "cab":
            self.describe(protocol, {name: name.encode()})
        protocol.resumeProducing()
        self.assertEqual(transport.written, b"cab")

    def test_waiting(self) -> None:
        """C{waiting} counts events pending for the client and on the incoming side."""
        protocol, transport = self.stuck()
        protocol.deliver(self.batch([1, 2, 3], 2))
        self.exporter.now = Counts(6, 0, 2)
        self.assertEqual(protocol.stats().waiting, 3 + 2)
        transport.lose()
        self.assertEqual(protocol.stats().waiting, 0)
        self.assertEqual(self.protocol(PausingTransport()).stats().waiting, 0)

    def test_statusFirst(self) -> None:
        """The status precedes descriptions, even if the transport resumes the client early."""
        self.exporter.descriptions.update({(MetricKind.COUNTER, "a"): b"\0"})
        self.protocol(transport := PullingTransport())
        self.assertEqual(transport.written[-1:], b"\0")
        self.assertGreater(len(transport.written), 1)

    def test_firstStatus(self) -> None:
        """The first status of a new client reports no losses."""
        self.protocol(transport := PausingTransport())
        reader = Reader()
        reader.feed(transport.drain())
        [status] = reader.statuses
        self.assertEqual((status.dropped_incoming, status.dropped_client), (0, 0))

    def test_nothingAfterAbort(self) -> None:
        protocol = self.joined(transport := PausingTransport())
        protocol.abort()
        protocol.deliver(self.batch([1], 1))
        self.assertEqual(transport.written, b"")
        self.assertEqual(protocol.stats().written, 0)
        self.assertIsNone(transport.producer)

    def test_nothingAfterFinish(self) -> None:
        protocol = self.joined(transport := PausingTransport())
        protocol.finish()
        protocol.deliver(self.batch([1], 1))
        self.assertEqual(transport.written, b"")

    def test_writtenInChunks(self) -> None:
        """A batch of several chunks is counted once."""
        protocol = self.joined(transport := PausingTransport(10 * CHUNK))
        batch = self.batch(list(range(1200)), 1, LONG)
        self.assertGreater(len(batch.joined), 2 * CHUNK)
        protocol.deliver(batch)
        self.assertEqual(protocol.stats().written, 1200)
        self.assertEqual(len(self.values(transport)), 1200)

    def test_sizes(self) -> None:
        """
        One write has at most the size of a chunk and a frame, whether descriptions, totals or
        events are pending, or all of them.
        """
        frame = 200
        for control, totals, events, full in (
            (700, 0, 0, CHUNK),
            # Totals that no client has reached yet are encoded in groups, so fewer are sent.
            (0, 5000, 0, ENCODED),
            (0, 0, 900, CHUNK),
            (300, 1000, 900, CHUNK),
        ):
            self.exporter.descriptions = Descriptions()
            transport = SizingTransport(1)
            protocol = self.joined(transport, buffer_size=None)
            protocol.deliver(self.batch([0], 1))
            self.describe(protocol, {str(one): b"o" * frame for one in range(control)})
            series = [(f"{one:05}" * 3, 1) for one in range(totals)]
            protocol._force = True
            protocol.reach_marker(self.marker(*series))
            protocol.deliver(self.batch(list(range(events)), 2, LONG))
            transport.sizes.clear()
            while transport.drain():
                pass
            self.assertGreater(sum(transport.sizes), CHUNK)
            self.assertLessEqual(max(transport.sizes), CHUNK + frame)
            self.assertGreater(transport.sizes[0], full - frame)
            self.assertLess(transport.sizes[0], full + GROUP * 40)

    def test_longEvent(self) -> None:
        """An event longer than a chunk is queued and sent like any other."""
        protocol, transport = self.stuck()
        name = "n" * (CHUNK + 1)
        protocol.deliver(self.batch([1], 2))
        protocol.deliver(self.batch([2], 3, name))
        protocol.deliver(self.batch([3], 4))
        self.assertEqual(self.values(transport), [("a", 0), ("a", 1), (name, 2), ("a", 3)])
        self.assertEqual(protocol.stats().written, 4)

    def test_resumedFromWithinWrite(self) -> None:
        """A transport that resumes its producer within `write` receives everything in order."""
        protocol = self.joined(transport := EagerTransport(10 * CHUNK), buffer_size=None)
        protocol.pauseProducing()
        protocol.deliver(self.batch(list(range(900)), 2, LONG))
        transport.eager = True
        protocol.resumeProducing()
        self.assertEqual(self.values(transport), [(LONG, value) for value in range(900)])

    def test_deliveredFromWithinWrite(self) -> None:
        """A batch delivered within a write follows the pending events."""
        protocol = self.joined(transport := PausingTransport(10 * CHUNK), buffer_size=None)
        protocol.pauseProducing()
        protocol.deliver(self.batch(list(range(900)), 2, LONG))
        more = [self.batch([900], 3, LONG)]
        write = transport.write

        def interrupted(data: bytes) -> None:
            write(data)
            if more:
                self.assertFalse(protocol.ready_for_totals(True))
                protocol.deliver(more.pop())

        self.patch(transport, "write", interrupted)
        protocol.resumeProducing()
        self.assertEqual(self.values(transport), [(LONG, value) for value in range(901)])

    def test_settledFromWithinWrite(self) -> None:
        """Totals that arrive within a write do not replace pending events."""
        protocol = self.joined(transport := PausingTransport(10 * CHUNK), buffer_size=None)
        protocol.lost(1)
        protocol.prepare_marker()
        protocol.pauseProducing()
        protocol.deliver(self.batch(list(range(900)), 2, LONG))
        markers = [self.marker(("b", 1))]
        write = transport.write

        def interrupted(data: bytes) -> None:
            write(data)
            if markers:
                protocol.reach_marker(markers.pop())

        self.patch(transport, "write", interrupted)
        protocol.resumeProducing()
        self.assertEqual(self.values(transport), [(LONG, value) for value in range(900)])
        self.assertEqual(protocol.stats().dropped_client, 0)
        self.assertEqual(protocol.prepare_marker(), 1)


class ResyncTests(ProtocolTestCase):
    """Totals for a client that lost events."""

    def test_readyForTotals(self) -> None:
        """Totals are sent when no events are pending, or after C{repair_interval} seconds."""
        protocol = self.joined(PausingTransport())
        protocol.lost(3)
        self.assertFalse(protocol.ready_for_totals(False))
        self.assertTrue(protocol.ready_for_totals(True))
        self.reactor.advance(5)
        self.assertTrue(protocol.ready_for_totals(False))

    def test_neededEpoch(self) -> None:
        """Totals are requested from the epoch of the oldest loss or the oldest pending event."""
        protocol, _ = self.stuck()
        self.assertEqual(protocol.prepare_marker(), 0)
        protocol.deliver(self.batch([1], 4))
        protocol.lost(7)
        self.assertEqual(protocol.prepare_marker(), 4)
        protocol = self.joined(PausingTransport())
        protocol.lost(7)
        protocol.lost(6)
        protocol.lost(8)
        self.assertEqual(protocol.prepare_marker(), 6)

    def test_lostBeforeBegin(self) -> None:
        """A client without totals receives all totals, even if it has already lost events."""
        protocol = self.protocol(PausingTransport())
        protocol.lost(7)
        self.assertEqual(protocol.prepare_marker(), 0)
        protocol.reach_marker(self.marker())
        protocol.transport.lose()

    def test_status(self) -> None:
        """With its totals, a client receives a status with its dropped events of each side."""
        transport = PausingTransport(1)
        protocol = self.protocol(transport, buffer_size=2)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(dropped=2))
        protocol.deliver(self.batch([1, 2, 3], 1))
        transport.drain()
        self.reactor.advance(5)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(dropped=5))
        reader = Reader()
        while data := transport.drain():
            reader.feed(data)
        [status] = reader.statuses
        self.assertEqual((status.dropped_incoming, status.dropped_client), (3, 1))
        self.reactor.advance(10)
        self.assertFalse(protocol.ready_for_totals(False))

    def test_nothingLost(self) -> None:
        """A client that has lost nothing can request all totals."""
        self.assertEqual(self.joined(PausingTransport()).prepare_marker(), 0)

    def test_totals(self) -> None:
        """A client receives the totals of a marker, with the marker's time."""
        protocol = self.joined(transport := PausingTransport())
        protocol.lost(5)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(("b", 2), ("c", 3)))
        reader = Reader()
        reader.feed(transport.drain())
        got = [(one.key.name, one.value, one.timestamp_ns) for one in reader.metrics]
        self.assertEqual(got, [("b", 2, 77), ("c", 3, 77)])
        self.assertEqual(protocol.stats().repairs, 1)
        self.reactor.advance(10)
        protocol.lost(7)
        self.assertFalse(protocol.ready_for_totals(False))

    def test_pendingSinceRequest(self) -> None:
        """A client with new pending events since its request receives the next totals instead."""
        protocol, transport = self.stuck()
        protocol.lost(5)
        protocol.prepare_marker()
        protocol.deliver(self.batch([1], 6))
        self.exporter.calls.clear()
        protocol.reach_marker(self.marker(("b", 2)))
        self.assertEqual(self.exporter.calls, ["client_wants_totals"])
        self.assertEqual(self.values(transport), [("a", 0), ("a", 1)])
        self.assertEqual(protocol.prepare_marker(), 5)

    def test_forced(self) -> None:
        """
        After C{repair_interval}, totals replace pending events, which are dropped and logged.
        """
        protocol, transport = self.stuck()
        protocol.lost(5)
        protocol.deliver(self.batch([1, 2, 3], 6))
        with capturedLogs() as logged:
            self.reactor.advance(5)
            protocol.prepare_marker()
            protocol.reach_marker(self.marker(("a", 9)))
            protocol.deliver(self.batch([10], 7))
            self.assertEqual(self.values(transport), [("a", 0), ("a", 9), ("a", 10)])
            transport.lose()
            self.exporter.client_losses.close()
        stats = protocol.stats()
        self.assertEqual((stats.dropped_client, stats.repairs), (3, 1))
        lines = " ".join(event["log_format"].format(**event) for event in logged)
        self.assertIn("3", lines)
        self.assertIn("because client the client is too slow", lines)

    def test_forcedWithinSnapshot(self) -> None:
        """A client that loses events receives the whole pending snapshot before it is resynced."""
        transport = PausingTransport(1)
        protocol = self.protocol(transport)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(*self.many, complete=True))
        reader = Reader()
        reader.feed(transport.drain() + transport.drain())
        self.assertTrue(reader.in_snapshot)
        protocol.lost(2)
        self.reactor.advance(5)
        while protocol._outbox.snapshot is not None:
            self.assertFalse(protocol.ready_for_totals(True))
            self.exporter.calls.clear()
            reader.feed(transport.drain())
        self.assertEqual(self.exporter.calls, ["client_wants_totals"])
        self.assertTrue(protocol.ready_for_totals(False))
        self.assertEqual(protocol.prepare_marker(), 2)
        reader.feed(transport.drain())
        [snapshot] = reader.snapshots
        self.assertEqual(list(snapshot.values()), [*range(1000)])

    def test_forcedOnceRead(self) -> None:
        """A client that has read nothing since its loss receives no totals, which it would hold."""
        protocol, transport = self.stuck()
        protocol.lost(5)
        self.reactor.advance(10)
        self.assertFalse(protocol.ready_for_totals(False))
        protocol.deliver(self.batch([1], 6))
        self.exporter.calls.clear()
        transport.drain()
        self.assertTrue(transport.producer_paused)
        self.assertEqual(self.exporter.calls, ["client_wants_totals"])
        self.assertTrue(protocol.ready_for_totals(False))

    def test_releaseSnapshot(self) -> None:
        """A client whose pending snapshot is released receives another one once it reads."""
        transport = PausingTransport(1)
        protocol = self.protocol(transport)
        protocol.prepare_marker()
        marker = self.marker(*self.many, complete=True)
        protocol.release_snapshot({marker.snapshot})
        protocol.reach_marker(marker)
        protocol.release_snapshot({self.marker().snapshot})
        protocol.lost(5)
        self.assertEqual(protocol.prepare_marker(), 5)
        protocol.release_snapshot({marker.snapshot})
        self.reactor.advance(10)
        self.assertFalse(protocol.ready_for_totals(True))
        while transport.drain():
            pass
        self.assertTrue(protocol.ready_for_totals(True))
        self.assertEqual(protocol.prepare_marker(), 0)

    def test_releaseForcedSnapshot(self) -> None:
        """The next snapshot includes the events that were dropped for the released one."""
        protocol, _ = self.stuck()
        protocol.lost(8)
        self.reactor.advance(5)
        self.assertEqual(protocol.prepare_marker(), 8)
        # Pending on the incoming side while later events were dropped.
        protocol.deliver(self.batch([1], 6))
        marker = self.marker(*self.many)
        protocol.reach_marker(marker)
        protocol.release_snapshot({marker.snapshot})
        self.assertEqual(protocol.prepare_marker(), 6)

    def test_releaseCompleteSnapshot(self) -> None:
        """
        The snapshot after a complete one is complete, since the client may have removed all totals,
        even if it needed fewer.
        """
        protocol, _ = self.stuck()
        protocol.lost(8)
        self.reactor.advance(5)
        self.assertEqual(protocol.prepare_marker(), 8)
        marker = self.marker(*self.many, complete=True)
        protocol.reach_marker(marker)
        protocol.release_snapshot({marker.snapshot})
        self.assertEqual(protocol.prepare_marker(), 0)

    @property
    def many(self) -> list[tuple[str, int]]:
        """Totals that exceed a chunk."""
        return [(f"{LONG}{n}", n) for n in range(1000)]

    def test_releasedWithinSnapshot(self) -> None:
        """After a snapshot was released to free memory, the next one begins again."""
        transport = PausingTransport(CHUNK)
        protocol = self.protocol(transport)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(*self.many))
        begun = list(Decoder().feed(transport.drain()))
        self.assertEqual((begun.count(Snapshot.BEGIN), begun.count(Snapshot.END)), (1, 0))
        protocol.release_pending()
        while transport.drain():
            pass
        protocol.deliver(self.batch([1], 2))
        self.assertEqual(self.values(transport), [("a", 1)])
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(("a", 1)))
        _, *events = decode(transport.drain())
        self.assertEqual((events[0], events[-1], len(events)), (Snapshot.BEGIN, Snapshot.END, 3))

    def test_lostAfterMarker(self) -> None:
        """After a loss that follows a marker, the next one resyncs, within C{repair_interval}."""
        protocol, transport = self.stuck()
        protocol.lost(5)
        self.reactor.advance(5)
        protocol.prepare_marker()
        protocol.lost(8)
        self.exporter.calls.clear()
        protocol.reach_marker(self.marker(("a", 9)))
        self.assertEqual(self.exporter.calls, ["client_wants_totals"])
        self.assertFalse(protocol.ready_for_totals(True))
        transport.drain()
        self.reactor.advance(5)
        self.assertTrue(protocol.ready_for_totals(False))
        self.assertEqual(protocol.prepare_marker(), 8)


class FinishTests(ProtocolTestCase):
    """A finished client is disconnected once it has received everything."""

    def test_finishWaits(self) -> None:
        """A finished client stays connected until it has received descriptions and totals."""
        for totals in ((), (("a", 1),)):
            transport = PausingTransport(1)
            protocol = self.joined(transport)
            protocol.deliver(self.batch([0], 1))
            self.describe(protocol, {"a": b"\x00"})
            protocol._force = True
            protocol.reach_marker(self.marker(*totals))
            protocol.finish()
            self.assertFalse(transport.disconnecting)
            self.assertEqual(self.values(transport)[1:], [*totals])
            self.assertFalse(transport.connected)

    def test_finishWithPendingTotals(self) -> None:
        """A finished client stays connected until it has received pending totals."""
        transport = PausingTransport(1)
        protocol = self.protocol(transport)
        protocol.prepare_marker()
        protocol.reach_marker(self.marker(("a", 1)))
        protocol.finish()
        self.assertFalse(transport.disconnecting)
        self.assertEqual(self.values(transport), [("a", 1)])
        self.assertFalse(transport.connected)

    def test_finishWaitsForTotals(self) -> None:
        """A finished client stays connected while it needs totals."""
        protocol = self.joined(transport := PausingTransport())
        protocol.lost(5)
        protocol.finish()
        self.assertFalse(transport.disconnecting)
        protocol.prepare_marker()
        protocol.finish()
        self.assertFalse(transport.disconnecting)
        protocol.reach_marker(self.marker(("a", 1)))
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.values(transport), [("a", 1)])


class TransportTests(ProtocolTestCase):
    """Calls between a protocol and its transport."""

    def test_overTcp(self) -> None:
        """Over TCP, small segments are sent at once, and probes and limits are set."""
        calls: list[object] = []
        self.patch(connection, "is_over_tcp", lambda transport: True)
        self.patch(connection, "probe_when_idle", lambda *args: calls.append(args[1:]))
        self.patch(connection, "limit_unacknowledged", lambda *args: calls.append(args[1:]))

        class TcpTransport(PausingTransport):
            setTcpNoDelay = staticmethod(calls.append)

        transport = TcpTransport()
        self.protocol(transport, dead_after=3)
        self.assertEqual(calls, [True, (MetricsProtocol.keepalive,), (3,)])

    def test_pausedTwice(self) -> None:
        """A transport may pause its producer twice, and resume it once."""
        protocol = self.joined(transport := PausingTransport(), dead_after=3)
        protocol.pauseProducing()
        protocol.pauseProducing()
        protocol.resumeProducing()
        self.reactor.advance(10)
        self.assertFalse(transport.aborted)


class DeadAfterTests(FactoryTestCase):
    """A client that does not read, with C{dead_after} set."""

    def stuck(self, **more: object) -> FakeClient:
        """A client that does not read its pending data."""
        factory = self.factory(**more)
        client = FakeClient(factory, limit=1)
        client.read_all(self.reactor)
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.assertTrue(client.transport.producer_paused)
        return client

    def test_aborted(self) -> None:
        """A client that takes no data for C{dead_after} seconds is aborted and logged."""
        client = self.stuck(dead_after=3)
        with capturedLogs() as logged:
            self.reactor.advance(2.99)
            self.assertFalse(client.transport.aborted)
            self.reactor.advance(0.01)
            self.assertTrue(client.transport.aborted)
        [line] = [event["log_format"].format(**event) for event in logged]
        self.assertIn(
            f"{client.protocol.address}: has not read its pending data for 3 seconds", line
        )
        client.transport.lose()
        self.reactor.advance(10)

    def test_many(self) -> None:
        """Clients that are aborted at the same time cause two lines together."""
        factory = self.factory(dead_after=3)
        clients = [FakeClient(factory, limit=1) for _ in range(140)]
        self.reactor.settle()
        with capturedLogs() as logged:
            self.reactor.advance(3)
            self.assertTrue(all(client.transport.aborted for client in clients))
            factory.stopFactory()
        lines = [event["log_format"].format(**event) for event in logged]
        self.assertEqual(len(lines), 2)
        self.assertIn("139 more clients: has not read its pending data for 3 seconds", lines[1])
        for client in clients:
            client.transport.lose()

    def test_resumed(self) -> None:
        """A client that takes data in time gets the full time again."""
        client = self.stuck(dead_after=3)
        for _ in range(5):
            self.reactor.advance(2.9)
            client.read_all(self.reactor)
            client.protocol.factory.recorder.counter("c").increment()
            self.reactor.settle()
        self.assertFalse(client.transport.aborted)
        client.transport.lose()
        self.reactor.advance(10)


class InterruptedTimerTests(FactoryTestCase):
    def test_released(self) -> None:
        """A client is released even if an exception has interrupted its timer."""

        def interrupted(this: MetricsProtocol) -> None:
            raise KeyboardInterrupt

        for timer in ("_probe_now", "_repair_overdue"):
            factory = self.factory(4)
            client = FakeClient(factory, limit=0)
            client.read_all(self.reactor)
            patch = self.patch(MetricsProtocol, timer, interrupted)
            client.transport.end_of_file()
            for _ in range(3):
                for _ in range(4):
                    factory.recorder.counter("c").increment()
                self.reactor.settle()
            patch.restore()
            with self.assertRaises(KeyboardInterrupt):
                self.reactor.pump([0.5] * 20)
            client.transport.lose()
            self.assertEqual(factory.stats().clients, ())
            self.assertEqual(factory._present, {})
            self.reactor = FakeReactor()
