"""
Tests of `TcpRecorder.ingest`: events from elsewhere, and distributions merged into totals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.exporting import FactoryTestCase
from tests.reader import FakeClient, counter_key, exact_totals, histogram_key
from txmetrics_tcp import (
    Distribution,
    ExporterSettings,
    FanoutRecorder,
    HistogramTotal,
    Key,
    MetricKind,
    MetricsFactory,
    Operation,
)
from txmetrics_tcp._exporter import ledger as ledger_module
from txmetrics_tcp._exporter.ledger import MERGES
from txmetrics_tcp._instruments.sink import Series
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp.testing import FakeReactor

INCREMENT, SET = Operation.INCREMENT_COUNTER, Operation.SET_COUNTER
RECORD, SET_GAUGE = Operation.RECORD_HISTOGRAM, Operation.SET_GAUGE
LATEST = 2**63 - 1


class EntryCase(FactoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.make()

    def make(self, buffer_size: int | None = None, **settings: Any) -> None:
        self.exporter = self.factory(buffer_size, **settings)
        self.recorder = self.exporter.recorder
        self.counter = self.series(MetricKind.COUNTER, "c")
        self.gauge = self.series(MetricKind.GAUGE, "g")
        self.histogram = self.series(MetricKind.HISTOGRAM, "h")

    def series(self, kind: MetricKind, name: str) -> Series:
        return self.recorder.attach(Key.of(kind, name))

    def merge(self, *samples: float, time: int = 7) -> None:
        self.recorder.ingest([(self.histogram, RECORD, Distribution.of(samples), time)])

    def totals(self) -> dict[str, object]:
        return {key.name: total for key, total in self.recorder.snapshot().items()}


class IngestTests(EntryCase):
    def test_streamed(self) -> None:
        """Entries are streamed in order, each with its own time."""
        client = FakeClient(self.exporter)
        self.reactor.settle()
        self.recorder.ingest(
            [
                (self.counter, INCREMENT, U64_MAX, LATEST),
                (self.counter, INCREMENT, 3, 1),
                (self.gauge, SET_GAUGE, -math.inf, 2),
                (self.histogram, RECORD, 1.5, 10**18),
                (self.counter, SET, 9, 3),
            ]
        )
        reader = client.read_all(self.reactor)
        self.assertEqual(
            [(one.key.name, one.operation, one.value, one.timestamp_ns) for one in reader.metrics],
            [
                ("c", INCREMENT, U64_MAX, LATEST),
                ("c", INCREMENT, 3, 1),
                ("g", SET_GAUGE, -math.inf, 2),
                ("h", RECORD, 1.5, 10**18),
                ("c", SET, 9, 3),
            ],
        )
        self.assertEqual(reader.bits(), exact_totals(self.exporter))
        self.assertEqual(self.recorder.stats().recorded, 5)

    def test_now(self) -> None:
        """A time of 0 is the current one."""
        self.exporter = self.factory(clock=lambda: 1234)
        client = FakeClient(self.exporter)
        self.recorder = self.exporter.recorder
        self.recorder.ingest([(self.series(MetricKind.COUNTER, "c"), INCREMENT, 1, 0)])
        (metric,) = client.read_all(self.reactor).metrics
        self.assertEqual(metric.timestamp_ns, 1234)

    def test_withoutClients(self) -> None:
        """Without clients, entries change the totals."""
        self.recorder.ingest([(self.counter, INCREMENT, 1, 1)] * 5000)
        self.assertEqual(self.totals(), {"c": 5000})

    def test_iterator(self) -> None:
        """An iterator may record by itself: the entries are recorded together afterwards."""

        def entries() -> Iterator[Any]:
            yield self.counter, INCREMENT, 1, 1
            self.recorder.counter("c").absolute(10)
            yield self.counter, INCREMENT, 1, 1

        self.recorder.ingest(entries())
        self.recorder.ingest(iter(()))
        self.assertEqual(self.totals(), {"c": 12})

    def test_bufferFull(self) -> None:
        """Entries beyond the buffer are dropped and counted, but not from the totals."""
        self.make(10)
        client = FakeClient(self.exporter)
        self.reactor.settle()
        self.recorder.ingest([(self.counter, INCREMENT, 1, 1)] * 3000)
        self.assertLessEqual(len(self.exporter.incoming.log), 10)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.totals, {counter_key("c"): 3000})
        stats = self.recorder.stats()
        self.assertEqual(stats.recorded, 3000)
        self.assertGreater(stats.dropped_incoming, 2900)

    def test_onReactorThread(self) -> None:
        """On the reactor thread, entries beyond the buffer are delivered at once."""
        self.make(10)
        client = FakeClient(self.exporter)
        self.reactor.settle()
        self.reactor_thread = True
        self.recorder.ingest([(self.counter, INCREMENT, 1, 1)] * 3000)
        self.assertEqual(client.read_all(self.reactor).totals, {counter_key("c"): 3000})
        self.assertEqual(self.recorder.stats().dropped_incoming, 0)

    def test_stopped(self) -> None:
        """A stopped exporter takes no entries, but checks them."""
        self.exporter.stop()
        self.recorder.ingest([(self.counter, INCREMENT, 1, 1)])
        self.assertEqual(self.totals(), {})
        self.assertRaises(TypeError, self.recorder.ingest, [(self.counter, INCREMENT, "1", 1)])

    def test_withoutTotals(self) -> None:
        """Without totals, entries are streamed, but distributions cannot be merged."""
        self.make(totals=False)
        client = FakeClient(self.exporter)
        self.recorder.ingest([(self.histogram, RECORD, 1.0, 1)])
        self.assertEqual(client.read_all(self.reactor).values("h"), [1.0])
        with self.assertRaisesRegex(ValueError, "^without totals, a Distribution cannot"):
            self.merge(1.0)

    def test_invalid(self) -> None:
        """An invalid entry raises, and none of the entries is recorded."""
        other = self.factory().recorder.attach(self.counter.key)
        layered = FanoutRecorder(self.recorder, self.recorder).attach(self.counter.key)
        for bad, error, message in (
            ((self.counter, INCREMENT, -1, 1), ValueError, "c': the value must be from 0 to 18446"),
            ((self.counter, SET, U64_MAX + 1, 1), ValueError, "the value must be from 0 to "),
            ((self.counter, SET, True, 1), TypeError, "the value must be an int, not bool"),
            ((self.counter, INCREMENT, 1.0, 1), TypeError, "the value must be an int, not float"),
            ((self.gauge, SET_GAUGE, 1, 1), TypeError, "the value must be a float, not int"),
            ((self.histogram, RECORD, "1", 1), TypeError, "a float or a Distribution, not str"),
            ((self.gauge, SET_GAUGE, Distribution.EMPTY, 1), TypeError, "must be a float, not Dis"),
            ((self.counter, INCREMENT, 1, -1), ValueError, "the time must be from 0 to 9223372036"),
            ((self.counter, INCREMENT, 1, LATEST + 1), ValueError, "the time must be from 0 to "),
            ((self.counter, INCREMENT, 1, 1.0), TypeError, "the time must be an int, not float"),
            ((self.counter, INCREMENT, 1, None), TypeError, "the time must be an int, not NoneTy"),
            ((self.counter, SET_GAUGE, 1.0, 1), ValueError, "is not an operation of this kind"),
            ((self.gauge, INCREMENT, 1, 1), ValueError, "is not an operation of this kind"),
            ((self.counter, 4, 1, 1), ValueError, "c': 4 is not an operation of this kind"),
            ((self.counter, None, (1.0, 2), 1), ValueError, "None is not an operation of this"),
            ((other, INCREMENT, 1, 1), ValueError, "is not a series of this recorder: see "),
            ((layered, INCREMENT, 1, 1), ValueError, "is not a series of this recorder: see "),
            ((None, INCREMENT, 1, 1), ValueError, "None is not a series of this recorder: see "),
            (
                (self.counter, INCREMENT, 1),
                TypeError,
                "^an entry is a tuple of series, operation, ",
            ),
            (5, TypeError, "^an entry is a tuple of series, operation, value and time, not 5$"),
        ):
            with self.assertRaisesRegex(error, message):
                self.recorder.ingest([(self.counter, INCREMENT, 1, 1), bad])  # type: ignore[list-item]
        self.assertEqual(self.totals(), {})


class MergeTests(EntryCase):
    def test_streamed(self) -> None:
        """A merge is streamed as one event, with the total at this position of the stream."""
        client = FakeClient(self.exporter)
        self.reactor.settle()
        self.recorder.ingest(
            [
                (self.histogram, RECORD, 1.0, 1),
                (self.histogram, RECORD, Distribution.of([2.0, 3.0]), 2),
                (self.histogram, RECORD, 4.0, 3),
                (self.histogram, RECORD, Distribution.EMPTY, 4),
            ]
        )
        reader = client.read_all(self.reactor)
        self.assertEqual(
            [
                (event.timestamp_ns, event.distribution)
                for event in reader.events
                if isinstance(event, HistogramTotal)
            ],
            [(2, Distribution.of([1, 2, 3])), (4, Distribution.of([1, 2, 3, 4]))],
        )
        self.assertEqual(reader.totals[histogram_key("h")], Distribution.of([1, 2, 3, 4]))
        self.assertEqual(self.totals(), {"h": Distribution.of([1, 2, 3, 4])})
        stats = self.recorder.stats()
        self.assertEqual((stats.recorded, stats.clients[0].written), (4, 4))

    def test_withoutClients(self) -> None:
        """Without clients, a merge changes the total, which a later client receives."""
        self.recorder.histogram("h").record(5.0)
        self.merge(1.0, math.nan)
        self.recorder.histogram("h").record_many(0.0, 2)
        expected = Distribution.of([5, 1, math.nan, 0, 0])
        self.assertEqual(self.totals(), {"h": expected})
        reader = FakeClient(self.exporter).read_all(self.reactor)
        self.assertEqual(reader.totals, {histogram_key("h"): expected})
        self.assertEqual(self.recorder.stats().recorded, 4)

    def test_lost(self) -> None:
        """A client that loses a merge receives the total later."""
        self.make(2)
        client = FakeClient(self.exporter)
        self.reactor.settle()
        for sample in range(100):
            self.merge(float(sample))
        self.assertGreater(self.recorder.stats().dropped_incoming, 90)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.totals, {histogram_key("h"): Distribution.of(range(100))})

    def test_drainedInParts(self) -> None:
        """A drain applies few merges, which take long, and leaves further events in the log."""
        FakeClient(self.exporter)
        self.reactor.settle()
        incoming = self.exporter.incoming
        self.recorder.ingest([(self.counter, INCREMENT, 1, 1)] * 10)
        for _ in range(MERGES + 5):
            self.merge(1.0)
        self.recorder.ingest([(self.counter, INCREMENT, 1, 1)] * 10)
        sizes = []
        while (batch := incoming.take().batch) is not None:
            sizes.append(batch.size)
        self.assertEqual(sizes, [10 + MERGES, 5 + 10])

    def test_memoryExhausted(self) -> None:
        """A merge that exhausts memory is applied in the next epoch."""
        client = FakeClient(self.exporter)
        self.reactor.settle()
        merge, failures = Distribution.merge, [MemoryError()]

        class Failing(Distribution):
            @classmethod
            def merge(cls, parts: Any) -> Distribution:
                if failures:
                    raise failures.pop()
                return merge(parts)

        self.patch(ledger_module, "Distribution", Failing)
        self.recorder.histogram("h").record(1.0)
        self.merge(2.0)
        self.recorder.histogram("h").record(3.0)
        self.reactor.settle()
        self.patch(ledger_module, "Distribution", Distribution)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.reactor.advance(1)
        reader = client.read_all(self.reactor)
        self.assertEqual(reader.totals, {histogram_key("h"): Distribution.of([1, 2, 3])})
        self.assertEqual(self.recorder.stats().recorded, 3)


samples = st.lists(st.integers(-9, 9).map(float), max_size=5)


class PropertyTests(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(st.sampled_from(["record", "merge"]), st.integers(0, 2), samples)
            | st.tuples(st.just("many"), st.integers(0, 2), st.just([3.0]))
            | st.tuples(
                st.sampled_from(["forget", "read", "settle", "snapshot", "join"]),
                st.integers(0, 2),
                st.just([]),
            ),
            max_size=40,
        ),
        st.sampled_from([1, 5, None]),
        st.sampled_from([2, 100]),
    )
    def test_anything(
        self, steps: list[tuple[str, int, list[float]]], buffer_size: int | None, max_series: int
    ) -> None:
        """
        After any sequence of merges, samples, gone series and losses, totals are the distributions
        of all samples, in the program and in each client.
        """
        reactor = FakeReactor()
        settings = ExporterSettings(
            buffer_size=buffer_size, max_series=max_series, own_metrics=False, max_delay=0
        )
        factory = MetricsFactory(reactor, settings, monotonic=reactor.seconds)  # type: ignore[arg-type]
        recorder = factory.recorder
        clients = [FakeClient(factory)]
        keys = [histogram_key(f"h{number}") for number in range(3)]
        recorded: dict[Key, list[float]] = {}
        for act, number, values in steps:
            key = keys[number]
            match act:
                case "record":
                    recorder.ingest([(recorder.attach(key), RECORD, one, 1) for one in values])
                case "merge":
                    recorder.ingest([(recorder.attach(key), RECORD, Distribution.of(values), 1)])
                case "many":
                    recorder.register_histogram(key).record_many(3.0, 7)
                    values = [3.0] * 7
                case "forget":
                    recorder.forget(key)
                    recorded.pop(key, None)
                case "read":
                    clients[0].read()
                case "settle":
                    reactor.settle()
                case "join":
                    clients.append(FakeClient(factory))
                case "snapshot":
                    if max_series > len(keys):
                        self.assertEqual(recorder.snapshot(), distributions(recorded))
            if values or act == "merge":
                recorded.setdefault(key, []).extend(values)
        if max_series > len(keys):
            self.assertEqual(recorder.snapshot(), distributions(recorded))
        reactor.settle()
        snapshot = recorder.snapshot()
        for client in clients:
            reader = client.read_all(reactor)
            known = {key: total for key, total in reader.totals.items() if key in snapshot}
            self.assertEqual(known, snapshot)
            if max_series > len(keys):
                self.assertEqual(reader.totals, snapshot)
        self.assertEqual(recorder.snapshot(), snapshot)
        for one in recorder.stats().clients:
            self.assertEqual(one.recorded, one.written + one.dropped_client + one.dropped_incoming)


def distributions(recorded: dict[Key, list[float]]) -> dict[Key, Distribution]:
    return {key: Distribution.of(values) for key, values in recorded.items()}
