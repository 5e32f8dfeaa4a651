"""
Tests of the totals that clients share.
"""

from __future__ import annotations

import random
from typing import cast

from tests.exporting import FactoryTestCase, IncomingTestCase
from tests.reader import FakeClient, Reader, counter_key, exact_totals, histogram_key
from txmetrics_tcp import (
    Decoder,
    Distribution,
    Key,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
    decode,
)
from txmetrics_tcp._distribution import MAX_BUCKETS
from txmetrics_tcp._exporter import snapshot as snapshot_module
from txmetrics_tcp._exporter.backlog import Batch
from txmetrics_tcp._exporter.fanout import MAX_SNAPSHOTS
from txmetrics_tcp._exporter.snapshot import GROUP, TotalsSnapshot
from txmetrics_tcp._net.writers import CHUNK

SERIES = 3 * GROUP + 1

NAME = "c" * 200
"""A name so long that 2,000 totals exceed several transports' buffers."""


class TotalsSnapshotTests(IncomingTestCase):
    def snapshot(self, size: int = SERIES) -> TotalsSnapshot:
        incoming = self.incoming()
        series = [incoming.series(counter_key("c", ("i", str(i)))) for i in range(size)]
        return TotalsSnapshot(series, list(range(size)), {}, 77, complete=True)

    def test_chunks(self) -> None:
        """Readers with room for any number of bytes receive the same totals, in order."""
        snapshot = self.snapshot()
        expected = [
            Metric(counter_key("c", ("i", str(i))), Operation.SET_COUNTER, i, 77)
            for i in range(SERIES)
        ]
        for room in (1, 100, 1000, CHUNK):
            frames, index = b"", 0
            while index < len(snapshot):
                chunk, index = snapshot.chunk(index, room)
                self.assertTrue(len(chunk) <= room or len(decode(chunk)) == 1)
                frames += chunk
            self.assertEqual(decode(frames), expected)

    def test_lateReader(self) -> None:
        """A client that has lagged behind the first one receives the same bytes."""
        snapshot = self.snapshot()
        first = snapshot.chunk(0, 1_000_000)
        self.assertEqual(first[1], SERIES)
        self.assertEqual(snapshot.chunk(0, 1_000_000), first)

    def test_encodedOnce(self) -> None:
        """Totals are encoded when the first client reaches them, and once."""
        encoded = []
        batch = snapshot_module.Batch

        def counted(frames: list[bytes], since: int) -> object:
            encoded.append(len(frames))
            return batch(frames, since)

        self.patch(snapshot_module, "Batch", counted)
        snapshot = self.snapshot()
        for _ in range(2):
            snapshot.chunk(0, 10)
        self.assertEqual(encoded, [GROUP])
        for _ in range(2):
            snapshot.chunk(0, 1_000_000)
        self.assertEqual(encoded, [GROUP, GROUP, GROUP, 1])

    def test_largeDistributions(self) -> None:
        """The totals encoded for one chunk exceed it by less than another chunk."""
        sizes = []
        batch = snapshot_module.Batch

        def counted(frames: list[bytes], since: int) -> object:
            sizes.extend(map(len, frames))
            return batch(frames, since)

        self.patch(snapshot_module, "Batch", counted)
        incoming = self.incoming()
        series = [incoming.series(histogram_key("h", ("i", str(i)))) for i in range(SERIES)]
        large = Distribution.of([2.0 ** (i / 32) for i in range(MAX_BUCKETS)])
        snapshot = TotalsSnapshot(series, [large] * SERIES, {}, 77, complete=True)
        snapshot.chunk(0, CHUNK)
        self.assertLess(sum(sizes), 2 * CHUNK)

    def test_failedEncoding(self) -> None:
        """If encoding fails for one client, the next one receives all totals."""
        snapshot = self.snapshot()
        patch = self.patch(snapshot_module, "wrapped", fail)
        self.assertRaises(MemoryError, snapshot.chunk, 0, 1000)
        patch.restore()
        self.assertEqual(len(decode(snapshot.chunk(0, 1_000_000)[0])), SERIES)

    def test_interruptedEncoding(self) -> None:
        """An interrupt while totals are encoded for one client does not change them for others."""

        class Interrupted(list[Batch]):
            def append(self, batch: Batch) -> None:
                super().append(batch)
                raise KeyboardInterrupt

        snapshot = self.snapshot()
        snapshot._groups = Interrupted()
        self.assertRaises(KeyboardInterrupt, snapshot.chunk, 0, 1000)
        snapshot._groups = list(snapshot._groups)
        totals = cast("list[Metric]", decode(snapshot.chunk(0, 1_000_000)[0]))
        self.assertEqual([total.value for total in totals], list(range(SERIES)))

    def test_kinds(self) -> None:
        """The frames are those that protobuf would make: names, labels, and values of any size."""
        incoming = self.incoming()
        keys = [
            counter_key("c"),
            counter_key("é" * 100, ("label", "ü" * 200), ("m", "")),
            Key(MetricKind.GAUGE, "g", (("label", "value"),)),
        ]
        series = [incoming.series(key) for key in keys]
        stamp = 1_700_000_000_000_000_001
        snapshot = TotalsSnapshot(series, [2**64 + 5, 0, -0.5], {}, stamp, False)
        totals = [
            Metric(keys[0], Operation.SET_COUNTER, 5, 1_700_000_000_000_000_001),
            Metric(keys[1], Operation.SET_COUNTER, 0, 1_700_000_000_000_000_001),
            Metric(keys[2], Operation.SET_GAUGE, -0.5, 1_700_000_000_000_000_001),
        ]
        frames = [
            one.frame.encode(total.operation, total.value, total.timestamp_ns)
            for one, total in zip(series, totals, strict=True)
        ]
        self.assertEqual(snapshot.chunk(0, 10_000)[0], b"".join(frames))


class SharingTests(FactoryTestCase):
    def many(self, **settings: int) -> MetricsFactory:
        """Return a factory with more totals than a client's transport takes."""
        factory = self.factory(**settings)
        for i in range(2000):
            factory.recorder.counter(NAME, i=i).increment(i)
        return factory

    def held(self, clients: list[FakeClient]) -> set[TotalsSnapshot | None]:
        self.reactor.settle()
        return {client.protocol._outbox.snapshot for client in clients}

    def test_sameTotals(self) -> None:
        """Clients that connect while no totals change share a snapshot."""
        factory = self.many()
        clients = []
        for _ in range(3):
            clients.append(FakeClient(factory))
            self.reactor.settle()
        [snapshot] = self.held(clients)
        self.assertIsNotNone(snapshot)
        for client in clients:
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))

    def test_changedTotals(self) -> None:
        """A client that connects after a change does not share an older snapshot."""
        factory = self.many()
        clients = [FakeClient(factory)]
        self.reactor.settle()
        factory.recorder.counter(NAME, i=1).increment()
        clients.append(FakeClient(factory))
        self.assertEqual(len(self.held(clients)), 2)
        for client in clients:
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))

    def test_limit(self) -> None:
        """
        Stalled clients hold few snapshots, whatever their number: the least recently read one is
        released.  Its client receives another one once it reads.
        """
        factory = self.many()
        clients: list[FakeClient] = []

        def connect() -> None:
            factory.recorder.counter(NAME, i=1).increment()
            clients.append(FakeClient(factory))
            self.reactor.settle()
            self.reactor.advance(1)
            self.assertLessEqual(len(self.held(clients) - {None}), MAX_SNAPSHOTS)

        for _ in range(MAX_SNAPSHOTS):
            connect()
        clients[0].read()
        connect()
        self.assertIsNotNone(clients[0].protocol._outbox.snapshot)
        self.assertIsNone(clients[1].protocol._outbox.snapshot)
        for _ in range(2 * MAX_SNAPSHOTS):
            connect()
        # The beginning of the released snapshot, as far as the transport had taken it.
        clients[1].transport.drain()
        clients[1].reader = Reader()
        self.assertEqual(clients[1].read_all(self.reactor).bits(), exact_totals(factory))

    def test_limitOfRate(self) -> None:
        """Clients that connect at once wait for totals rather than take them from each other."""
        factory = self.many()
        clients = []
        for _ in range(2 * MAX_SNAPSHOTS):
            factory.recorder.counter(NAME, i=1).increment()
            clients.append(FakeClient(factory))
            self.reactor.settle()
        waiting = [client for client in clients if not client.protocol.following]
        self.assertEqual(len(waiting), MAX_SNAPSHOTS - 1)
        self.reactor.advance(1)
        self.reactor.settle()
        self.assertTrue(all(client.protocol.following for client in clients))
        self.assertLessEqual(len(self.held(waiting)), 1)
        for client in waiting:
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))

    def test_resyncBesideNewClient(self) -> None:
        """A client that needs few totals does not receive all of them because another connects."""
        factory = self.factory()
        early = FakeClient(factory, limit=1)
        for name in "ab":
            factory.recorder.counter(name).increment()
        early.read_all(self.reactor)
        for _ in range(30):
            factory.recorder.counter("b").increment()
            self.reactor.settle()
        while early.transport.producer_paused:
            early.read()
        late = FakeClient(factory)
        for client in (early, late):
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(factory))
        self.assertEqual([[*one] for one in early.reader.snapshots], [[], [counter_key("b")]])

    def test_slowClients(self) -> None:
        """Clients that read slowly have whole snapshots in the end, although others connect."""
        factory = self.many()
        slow: list[tuple[FakeClient, Decoder]] = []
        served = set()
        order = random.Random(1)
        for _ in range(200):
            factory.recorder.counter(NAME, i=1).increment()
            if len(slow) < 2 * MAX_SNAPSHOTS:
                # A decoder, because snapshots in this stream may have no end.
                slow.append((FakeClient(factory), Decoder()))
            else:
                FakeClient(factory).read_all(self.reactor)
            order.shuffle(slow)
            for client, decoder in slow:
                if Snapshot.END in list(decoder.feed(client.transport.drain(CHUNK // 4))):
                    served.add(client)
            self.reactor.settle()
            self.reactor.advance(1)
        self.assertEqual(len(served), len(slow))

    def test_forgottenSeries(self) -> None:
        """The limit applies to the series that are left when others have gone."""
        factory = self.many(buffer_size=4000)
        clients = []
        for _ in range(MAX_SNAPSHOTS):
            factory.recorder.counter(NAME, i=1).increment()
            clients.append(FakeClient(factory))
            self.reactor.settle()
            self.reactor.advance(1)
        for key in factory.recorder.snapshot():
            factory.recorder.forget(key)
        self.reactor.settle()
        clients.append(FakeClient(factory))
        self.reactor.settle()
        self.assertTrue(clients[-1].protocol.following)
        self.assertEqual(
            [client.protocol._outbox.snapshot is not None for client in clients],
            [True] + [False] * MAX_SNAPSHOTS,
        )

    def test_fewSeries(self) -> None:
        """Clients do not wait because of small snapshots."""
        factory = self.factory()
        counter = factory.recorder.counter(NAME)
        clients = []
        for _ in range(3 * MAX_SNAPSHOTS):
            counter.increment()
            clients.append(FakeClient(factory))
            # Otherwise, its transport takes the whole snapshot.
            clients[-1].protocol.pauseProducing()
            self.reactor.settle()
        self.assertTrue(all(client.protocol.following for client in clients))


def fail(*args: object) -> None:
    raise MemoryError
