"""
What only mutants of the server and of its totals have shown that nobody looked at; see
docs/mutation-testing.md.
"""

from __future__ import annotations

import gc
import sys
import weakref

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import FakeClient, counter_key, truth
from txmetrics_tcp import Key, MetricKind, MetricsFactory, Operation
from txmetrics_tcp._exporter.ingest import BATCH, Incoming, Taken
from txmetrics_tcp._net.descriptors import listens_with
from txmetrics_tcp.testing import FakeReactor


class DetailTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.reactor_thread = False

    def factory(self, buffer_size: int | None = 10, **more: object) -> MetricsFactory:
        return MetricsFactory(
            self.reactor,
            buffer_size,
            **{
                "own_metrics": False,
                "monotonic": self.reactor.seconds,
                "in_reactor_thread": lambda: self.reactor_thread,
                **more,
            },
        )


class TotalsTests(DetailTestCase):
    def test_largeGauge(self) -> None:
        """Counters wrap at 64 bits; a gauge of any size does not."""
        factory = self.factory()
        client = FakeClient(factory)
        gauge = factory.recorder.gauge("g")
        for value in (1e30, 2e30):
            gauge.set(value)
            client.read_all(self.reactor)
            self.assertEqual(list(factory.recorder.snapshot().values()), [value])

    def test_refusedLater(self) -> None:
        """A series that finds no room counts, whenever it comes."""
        factory = self.factory(max_series=1)
        client = FakeClient(factory)
        for _ in range(5):
            factory.recorder.counter("a").increment()
            client.read_all(self.reactor)
        for _ in range(5):
            factory.recorder.counter("b").increment()
            client.read_all(self.reactor)
        self.assertEqual(factory.stats().series_refused, 1)

    def test_notRefused(self) -> None:
        """While there is room, nothing is said of there being none."""
        factory = self.factory()
        FakeClient(factory)
        factory.recorder.counter("a").increment()
        with capturedLogs() as logged:
            self.reactor.pump([1] * 3)
        self.assertEqual(logged, [])

    def test_idleExactly(self) -> None:
        """A series is left out once the time has passed, to the second and to the fold."""
        factory = self.factory(idle_after=3)
        client = FakeClient(factory)
        resting, busy = factory.recorder.counter("resting"), factory.recorder.counter("busy")
        resting.increment()
        busy.increment()
        seen = []
        for _ in range(5):
            client.read_all(self.reactor)
            self.reactor.advance(1)
            seen.append(sorted(key.name for key in factory.recorder.snapshot()))
            busy.increment()
        both = ["busy", "resting"]
        # The look after one second says what had changed by then.
        self.assertEqual(seen, [both, both, both, ["busy"], ["busy"]])

    def test_idleAtOnce(self) -> None:
        factory = self.factory(idle_after=0)
        client = FakeClient(factory)
        for _ in range(2):
            factory.recorder.counter("c").increment()
            client.read_all(self.reactor)
            self.reactor.advance(1)
            self.assertEqual(factory.recorder.snapshot(), {})


class FactoryTests(DetailTestCase):
    def test_quiet(self) -> None:
        """Twisted's own lines about factories that start and stop say nothing here."""
        factory = self.factory()
        with capturedLogs() as logged:
            factory.doStart()
            factory.doStop()
        self.assertEqual(logged, [])

    def test_knowsNoAddresses(self) -> None:
        self.assertEqual(self.factory().recorder.addresses, ())

    def test_protocolKnowsIt(self) -> None:
        """As Twisted's documentation says of all protocols."""
        factory = self.factory()
        self.assertIs(FakeClient(factory).protocol.factory, factory)

    def test_defaults(self) -> None:
        """Its own metrics are in the stream, and its name is the program's."""
        self.patch(sys, "argv", ["/opt/program.py"])
        factory = MetricsFactory(self.reactor, in_reactor_thread=lambda: False)
        client = FakeClient(factory)
        factory.recorder.counter("c").increment()
        reader = client.read_all(self.reactor)
        self.reactor.advance(1)
        client.read_all(self.reactor)
        self.assertEqual(reader.values("txmetrics_clients"), [1])
        self.assertRegex(reader.statuses[0].source, r"^program\.py\[\d+\]@.")

    def test_noArguments(self) -> None:
        """An embedded interpreter may have none."""
        self.patch(sys, "argv", [])
        client = FakeClient(self.factory())
        self.assertRegex(client.reader.statuses[0].source, r"^python\[\d+\]@.")

    def test_flushTimeout(self) -> None:
        """Who does not read has a second at the end."""
        factory = self.factory()
        client = FakeClient(factory, limit=1)
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        factory.stop()
        self.reactor.advance(0.99)
        self.assertFalse(client.transport.aborted)
        self.reactor.advance(0.01)
        self.assertTrue(client.transport.aborted)

    def test_repairInterval(self) -> None:
        """Who never catches up has the totals after five seconds."""
        factory = self.factory()
        client = FakeClient(factory, limit=1)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        self.reactor.advance(4.99)
        self.reactor.settle()
        self.assertEqual(client.protocol.stats().repairs, 0)
        self.reactor.advance(0.01)
        self.reactor.settle()
        self.assertEqual(client.protocol.stats().repairs, 1)

    def test_hasten(self) -> None:
        """Somebody is in a hurry: who does not read is cut off now; without a stop, nobody is."""
        factory = self.factory()
        client = FakeClient(factory, limit=1)
        factory.hasten()
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.assertTrue(client.transport.connected)
        gone = factory.stop(timeout=1000)
        self.reactor.settle()
        self.assertNoResult(gone)
        factory.hasten()
        self.reactor.settle()
        self.assertTrue(client.transport.aborted)
        client.transport.lose()
        self.successResultOf(gone)
        factory.hasten()

    def test_interrupted(self) -> None:
        """
        Where a signal handler raises as the reactor is asked to come again, it comes all the same,
        also at the end.
        """
        for stopping in (False, True):
            self.interrupt(stopping)

    def interrupt(self, stopping: bool) -> None:
        factory = self.factory(buffer_size=None)
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
            # Now nothing new comes that would wake it.
            factory.stop(1000)
        # A batch is taken, and the reactor is to come for the next.
        self.patch(self.reactor, "callFromThread", interrupted)
        self.assertRaises(KeyboardInterrupt, self.reactor.settle)
        client.read_all(self.reactor)
        self.assertEqual(client.reader.values("c"), [1] * 4 * BATCH)

    def test_limits(self) -> None:
        """What makes no sense is refused, and the text names it."""
        for name, least, below in (
            ("repair_interval", 0.1, 0.09),
            ("dead_after", 0.1, 0.09),
            ("max_series", 0, -1),
        ):
            self.factory(**{name: least})
            error = self.assertRaises(ValueError, self.factory, **{name: below})
            self.assertEqual(str(error), f"{name} must be at least {least}, not {below}")

    def test_servesBehindWrappers(self) -> None:
        """A port is a factory's also where TLS, say, is in between."""

        class Holder:
            def __init__(self, **attributes: object) -> None:
                self.__dict__.update(attributes)

        factory = self.factory()
        wrapped = Holder(wrappedFactory=Holder(wrappedFactory=factory))
        self.assertTrue(listens_with(Holder(factory=factory), factory))
        self.assertTrue(listens_with(Holder(factory=wrapped), factory))
        self.assertFalse(listens_with(Holder(factory=self.factory()), factory))
        self.assertFalse(listens_with(Holder(), factory))


class ClientTests(DetailTestCase):
    def test_descriptionsForLaterOnes(self) -> None:
        """What others have been told already is told to who comes now."""
        factory = self.factory()
        FakeClient(factory)
        factory.recorder.describe_counter("c", "count", "What it counts.")
        self.reactor.settle()
        late = FakeClient(factory)
        self.assertEqual([one.name for one in late.read_all(self.reactor).metadata], ["c"])

    def test_goneWhileStuck(self) -> None:
        """Nothing keeps a client that went while it waited for totals."""
        factory = self.factory()
        other = FakeClient(factory)
        client = FakeClient(factory, limit=1)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            other.read_all(self.reactor)
        self.assertGreater(client.protocol.stats().dropped, 0)
        client.transport.lose()
        left = weakref.ref(client.protocol)
        del client
        gc.collect()
        self.assertIsNone(left())

    def test_oneMarkAtATime(self) -> None:
        """
        Clients that come while the totals for another are still on their way: each of them begins
        with its own.
        """
        factory = self.factory(buffer_size=None)
        first = FakeClient(factory)
        first.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(8 * BATCH):
            counter.increment()
        second, third = FakeClient(factory), FakeClient(factory)
        counter.increment()
        fourth = FakeClient(factory)
        for client in (first, second, third, fourth):
            self.assertEqual(client.read_all(self.reactor).bits(), truth(factory))
            self.assertEqual(client.reader.totals[counter_key("c")], 8 * BATCH + 1)

    def test_oneWakeUp(self) -> None:
        """While more waits than one turn takes, the next turn is arranged once."""
        factory = self.factory(buffer_size=None)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(3 * BATCH):
            counter.increment()
        for _ in range(2):
            self.assertEqual(self.reactor.waiting, 1)
            self.reactor.drain()
            counter.increment()
        self.assertEqual(self.reactor.waiting, 1)
        self.assertEqual(client.read_all(self.reactor).totals[counter_key("c")], 3 * BATCH + 2)

    def test_orderWhileDelivering(self) -> None:
        """What is recorded on the reactor thread while a batch is handed out comes after it."""
        self.reactor_thread = True
        factory = self.factory()
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

    def test_lossesAddUp(self) -> None:
        """The line that tells that losses are over tells how many they were, in all bursts."""
        factory = self.factory()
        client = FakeClient(factory)
        with capturedLogs() as logged:
            for _ in range(3):
                for _ in range(100):
                    factory.recorder.counter("c").increment()
                client.read_all(self.reactor)
                self.reactor.advance(1)
            self.reactor.pump([1] * 10)
        [lost] = [event["lost"] for event in logged if "lost" in event]
        self.assertEqual(lost, factory.stats().dropped)
        self.assertGreater(lost, 200)

    def test_latencyOfTheRest(self) -> None:
        """What one turn did not take counts as waiting from then on, not from the beginning."""
        factory = self.factory(buffer_size=None, own_metrics=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        counter = factory.recorder.counter("c")
        for _ in range(2 * BATCH):
            counter.increment()
        self.reactor.rightNow += 0.25
        self.reactor.drain()
        self.reactor.rightNow += 0.5
        self.reactor.drain()
        self.reactor.advance(1)
        latencies = client.read_all(self.reactor).values("txmetrics_record_to_write_seconds")
        self.assertEqual(latencies, [0.25, 0.5])

    def test_latencyOfEvents(self) -> None:
        """A description alone is no batch."""
        factory = self.factory(own_metrics=True)
        client = FakeClient(factory)
        client.read_all(self.reactor)
        factory.recorder.describe_counter("c")
        for _ in range(3):
            client.read_all(self.reactor)
            self.reactor.advance(1)
        # Its own metrics are, which it describes first.
        latencies = client.read_all(self.reactor).values("txmetrics_record_to_write_seconds")
        self.assertEqual(latencies, [0.0] * len(latencies))
        self.assertLessEqual(len(latencies), 2)

    def test_boundedWhileDelivering(self) -> None:
        """However much is recorded on the reactor thread within a write, it is bounded."""
        self.reactor_thread = True
        factory = self.factory()
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
        self.assertEqual(client.read_all(self.reactor).bits(), truth(factory))
        self.assertLess(max(lengths), 50)

    def test_goneCount(self) -> None:
        """What was dropped for a client, and made up for, still counts when it has gone."""
        factory = self.factory()
        client = FakeClient(factory, limit=1)
        for _ in range(50):
            factory.recorder.counter("c").increment()
            self.reactor.settle()
        client.read_all(self.reactor)
        before = factory.stats()
        self.assertGreater(min(before.dropped_by_clients, before.repairs, before.written), 0)
        client.transport.lose()
        after = factory.stats()
        for figure in ("dropped_by_clients", "repairs", "written", "bytes_written", "connected"):
            self.assertEqual(getattr(after, figure), getattr(before, figure), figure)

    def test_lostWithinWrite(self) -> None:
        """A transport may lose its connection while it is written to; the others go on."""
        factory = self.factory()
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

    def test_whoFollows(self) -> None:
        """
        Whatever a thread records once it sees a client comes to that as it happens, however soon
        after the client's arrival: what comes before the client's totals is in those alone.
        """
        factory = self.factory()
        counter = factory.recorder.counter("c")
        take = factory.incoming.take
        asked = []

        def taken() -> Taken:
            if not asked:
                # Another thread, in the middle of the arrival.
                asked.append(factory.stats().clients)
                counter.increment(100)
            return take()

        self.patch(Incoming, "take", lambda incoming: taken())
        factory.recorder.describe_counter("c", None, "told before")
        client = FakeClient(factory)
        self.assertEqual(asked, [()])
        self.assertGreater(factory.stats().bytes_written, 0)
        client.read_all(self.reactor)
        self.assertEqual(len(factory.stats().clients), 1)
        counter.increment(1)
        client.read_all(self.reactor)
        self.assertEqual(
            [(event.operation, event.value) for event in client.reader.metrics],
            [(Operation.SET_COUNTER, 100), (Operation.INCREMENT_COUNTER, 1)],
        )

    def test_whenAllHaveLeft(self) -> None:
        """Nobody is woken any more, nothing waits, and no clock is read."""
        asked = []

        def clock() -> int:
            asked.append(1)
            return 10**18

        factory = self.factory(clock=clock)
        client = FakeClient(factory)
        counter = factory.recorder.counter("c")
        counter.increment()
        client.read_all(self.reactor)
        client.transport.lose()
        self.reactor.settle()
        asked.clear()
        for _ in range(5000):
            counter.increment()
        self.assertEqual(self.reactor.waiting, 0)
        self.assertEqual((factory.stats().waiting, factory.stats().dropped), (0, 0))
        self.assertEqual(asked, [])
        self.assertEqual(list(factory.recorder.snapshot().values()), [5001])

    def test_startedAgain(self) -> None:
        """What listens anew records anew, also before a client has come."""
        factory = self.factory()
        counter = factory.recorder.counter("c")
        counter.increment()
        self.successResultOf(factory.stop())
        counter.increment()
        self.assertEqual(list(factory.recorder.snapshot().values()), [1])
        factory.startFactory()
        counter.increment()
        self.assertEqual(list(factory.recorder.snapshot().values()), [2])

    def test_seriesByKey(self) -> None:
        """Kinds share names, and nothing else."""
        factory = self.factory()
        factory.recorder.counter("x").increment(2)
        factory.recorder.gauge("x").set(3)
        self.assertEqual(
            factory.recorder.snapshot(),
            {Key(MetricKind.COUNTER, "x"): 2, Key(MetricKind.GAUGE, "x"): 3.0},
        )
