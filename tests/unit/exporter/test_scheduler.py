"""
Tests of wake-ups: when the reactor thread takes events.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.base import DelayedCall

from tests.exporting import FactoryTestCase, IncomingTestCase
from tests.reader import FakeClient
from txmetrics_tcp import Metadata, MetricKind, MetricsFactory
from txmetrics_tcp._exporter.ingest import LOG_LIMIT, Incoming
from txmetrics_tcp._exporter.ledger import Taken
from txmetrics_tcp._exporter.scheduler import UNLIMITED
from txmetrics_tcp._exporter.totals import Totals
from txmetrics_tcp._net.writers import Outlet


class WakeTests(IncomingTestCase):
    def test_onceForMany(self) -> None:
        """The first event wakes the reactor; later ones do not while the wake-up is pending."""
        incoming = self.incoming()
        counter = self.counter(incoming)
        for _ in range(5):
            counter.increment()
        self.assertEqual(self.reactor.waiting, 1)
        self.assertGreater(incoming.wake_threshold, 5)
        self.reactor.drain()
        self.assertEqual(self.wanted, 1)

    def test_againAfterDrain(self) -> None:
        incoming = self.incoming()
        self.counter(incoming).increment()
        incoming.scheduler.cancel_request()
        incoming.scheduler.rearm()
        self.counter(incoming).increment()
        self.assertEqual(self.reactor.waiting, 2)
        self.reactor.drain()
        self.assertEqual(self.wanted, 1)

    def test_withoutClients(self) -> None:
        """Without clients, events and descriptions do not wake the reactor."""
        for totals in (None, Totals()):
            incoming = self.incoming(totals=totals, streaming=False)
            self.counter(incoming).increment()
            incoming.describe(Metadata(MetricKind.COUNTER, "c"))
            incoming.scheduler.rearm()
            self.counter(incoming).increment()
            self.assertEqual(self.reactor.waiting, 0)

    def test_describe(self) -> None:
        """A description wakes the reactor."""
        incoming = self.incoming()
        incoming.describe(Metadata(MetricKind.COUNTER, "c"))
        self.assertEqual(self.reactor.waiting, 1)

    def test_reactorIsGone(self) -> None:
        """If `callFromThread` raises, the caller sees no error and the next event tries again."""
        attempts = []

        def closed(*args: object) -> None:
            attempts.append(args)
            raise RuntimeError("Event loop is closed")

        self.patch(self.reactor, "callFromThread", closed)
        incoming = self.incoming()
        counter = self.counter(incoming)
        for i in range(100):
            counter.increment(i)
            self.assertEqual(incoming.wake_threshold, -1)
        self.assertEqual(len(attempts), 100)
        self.assertEqual(incoming.counts().waiting, 10)
        self.assertLessEqual(len(incoming.log), 11)

    def test_interrupted(self) -> None:
        """If a signal handler raises during a wake-up, the next event wakes the reactor."""
        wake = self.reactor.callFromThread

        def interrupted(*args: object) -> None:
            self.patch(self.reactor, "callFromThread", wake)
            raise KeyboardInterrupt

        counter = self.counter(self.incoming())
        self.patch(self.reactor, "callFromThread", interrupted)
        self.assertRaises(KeyboardInterrupt, counter.increment)
        self.assertEqual(self.reactor.waiting, 0)
        counter.increment()
        self.assertEqual(self.reactor.waiting, 1)


class PacedTests(FactoryTestCase):
    """
    With C{max_delay}, a timer takes events while they keep coming.
    """

    def factory(
        self, buffer_size: int | None = 100, max_delay: float = 0.02, **more: Any
    ) -> MetricsFactory:
        factory = super().factory(buffer_size, max_delay=max_delay, **more)
        self.client = FakeClient(factory)
        self.client.read_all(self.reactor)
        self.reactor.advance(0.5)
        self.counter = factory.recorder.counter("c")
        return factory

    def paced(self, **settings: Any) -> MetricsFactory:
        """Return a factory that has just sent an event, so that its timer is pending."""
        factory = self.factory(**settings)
        self.record(1)
        self.reactor.drain()
        return factory

    def record(self, events: int) -> int:
        """Record events, and return the number of times that they wake the reactor."""
        before = self.reactor.waiting
        for _ in range(events):
            self.counter.increment()
        return self.reactor.waiting - before

    def received(self) -> int:
        """Return the number of events that the client has received."""
        return len(self.client.read().metrics)

    def due(self) -> float:
        """Return the seconds until the next call of the timer."""
        due = min(call.getTime() for call in self.reactor.getDelayedCalls())
        return due - self.reactor.seconds()

    def test_firstEvent(self) -> None:
        """An event after a quiet time wakes the reactor at once."""
        self.factory()
        self.assertEqual(self.record(1), 1)
        self.reactor.drain()
        self.assertEqual(self.received(), 1)

    def test_laterEvents(self) -> None:
        """Later events wait for the timer, which comes C{max_delay} later at the latest."""
        self.paced()
        self.assertEqual(self.record(20), 0)
        self.reactor.advance(0.019)
        self.assertEqual(self.received(), 1)
        self.reactor.advance(0.001)
        self.assertEqual(self.received(), 21)
        self.assertEqual(self.record(3), 0)
        self.reactor.advance(0.02)
        self.assertEqual(self.received(), 24)

    def test_quietAgain(self) -> None:
        """After a timer that found no events, none is pending, and an event wakes the reactor."""
        self.paced()
        self.reactor.advance(0.02)
        self.assertGreater(self.due(), 0.1)
        self.assertEqual(self.record(5), 1)

    def test_eventBeforeQuiet(self) -> None:
        """An event recorded just before the reactor becomes quiet is delivered."""
        factory = self.paced()
        ledger = factory.incoming.ledger
        more = type(ledger).more

        def more_then_record(this: Any) -> bool:
            self.patch(type(ledger), "more", more)
            found = more(this)
            self.record(1)
            return found

        self.patch(type(ledger), "more", more_then_record)
        self.reactor.advance(0.02)
        self.reactor.settle()
        self.assertEqual(self.received(), 2)

    def test_halfOfBuffer(self) -> None:
        """An event that exceeds half of the buffer wakes the reactor at once."""
        self.paced(buffer_size=100)
        self.assertEqual(self.record(50), 0)
        self.assertEqual(self.record(1), 1)
        self.assertEqual(self.record(49), 0)
        self.reactor.drain()
        self.assertEqual(self.received(), 101)

    def test_halfOfLargeBuffer(self) -> None:
        """Pending events that recording threads have applied count, too."""
        for buffer_size in (4 * LOG_LIMIT, 10 * LOG_LIMIT):
            factory = self.paced(buffer_size=buffer_size)
            # A thread looks at the pending events only when the log is too long.
            self.assertEqual(self.record(buffer_size // 2), 0)
            self.assertEqual(self.record(LOG_LIMIT + 1), 1)
            self.assertEqual(factory.stats().dropped_incoming, 0)
            self.client.transport.lose()

    def test_unlimitedBuffer(self) -> None:
        """Without a limit, only the timer takes events, unless very many are pending."""
        self.paced(buffer_size=None)
        self.assertEqual(self.record(UNLIMITED // 2), 0)
        self.assertAlmostEqual(self.due(), 0.02)
        self.assertEqual(self.record(LOG_LIMIT + 1), 1)

    def test_rate(self) -> None:
        """
        The timer comes before a quarter of the buffer is used at the present rate, even if it is a
        millisecond late.  A lower rate counts in full only after some drains.
        """
        self.paced(buffer_size=1000)
        for events, interval in (
            (20, 0.02),
            # 20,000 events a second: 12.5 ms for a quarter.
            (400, 0.0115),
            # 40,000.
            (460, 0.00525),
            # 20,000, which counts as 35,000, then as 31,250 and so on.
            (105, 250 / 35_000 - 0.001),
        ):
            self.record(events)
            self.reactor.advance(self.due())
            self.assertAlmostEqual(self.due(), interval, msg=f"{events}")
        for _ in range(20):
            self.record(1)
            self.reactor.advance(self.due())
        self.assertAlmostEqual(self.due(), 0.02)

    def test_rateBeforeQuiet(self) -> None:
        """After a quiet time, the rate before does not count."""
        self.paced(buffer_size=1000)
        self.record(400)
        self.reactor.pump([self.due()] * 2)
        self.assertEqual(self.record(1), 1)
        self.reactor.drain()
        self.assertAlmostEqual(self.due(), 0.02)

    def test_duringDrain(self) -> None:
        """An event that another thread records while the timer drains does not wake the reactor."""
        self.paced()
        self.record(1)
        take = Incoming.take
        wake_ups = []

        def take_then_record(this: Incoming) -> Taken:
            patch.restore()
            taken = take(this)
            wake_ups.append(self.record(1))
            return taken

        patch = self.patch(Incoming, "take", take_then_record)
        self.reactor.advance(0.02)
        self.assertEqual(wake_ups, [0])

    def test_fastProgram(self) -> None:
        """If the timer is too slow for the rate, the next event wakes the reactor."""
        self.paced(buffer_size=100)
        self.reactor.advance(0.004)
        self.assertEqual(self.record(51), 1)
        self.reactor.drain()
        # 12,750 events a second: a quarter in 1.96 ms, and the timer may be a millisecond late.
        self.assertEqual(self.record(5), 1)

    def test_quietForLong(self) -> None:
        """A tick that finds no events does not count: the next event wakes the reactor."""
        for max_delay in (0.02, 1, 10):
            factory = self.factory(max_delay=max_delay)
            self.record(1)
            self.reactor.settle()
            for _ in range(30):
                self.reactor.advance(1)
                self.reactor.settle()
            tick = factory._tick
            assert tick is not None
            self.reactor.advance(tick.getTime() - self.reactor.seconds())
            self.assertEqual(self.record(1), 1)
            self.client.transport.lose()

    def test_timerStays(self) -> None:
        """A drain that finds no events does not defer the timer."""
        self.paced(max_delay=3)
        due = self.reactor.seconds() + 3
        self.reactor.advance(2.5)
        self.assertIn(due, [call.getTime() for call in self.reactor.getDelayedCalls()])
        self.assertEqual(self.record(1), 0)

    def test_drainsAtTheSameTime(self) -> None:
        """Two drains at the same time, by a coarse clock, do not count as an infinite rate."""
        factory = self.paced()
        self.record(1)
        factory.recorder.describe_counter("c")
        self.reactor.drain()
        self.assertEqual(self.received(), 2)
        self.assertEqual(self.record(1), 0)

    def test_requestDuringDrain(self) -> None:
        """After an event that woke the reactor while it drained, events do not call C{notify}."""
        factory = self.factory(buffer_size=100)
        self.record(1)
        take = Incoming.take

        def take_then_record(this: Incoming) -> Any:
            patch.restore()
            taken = take(this)
            self.assertEqual(self.record(51), 1)
            return taken

        patch = self.patch(Incoming, "take", take_then_record)
        self.reactor.drain()
        self.assertEqual((self.reactor.waiting, factory.incoming.wake_threshold), (1, 100))

    def test_recordThatDrains(self) -> None:
        """
        A recording call that drains sets no timer: it may have interrupted a method of the reactor,
        which would lose it.
        """
        self.reactor_thread = True
        self.patch(Outlet, "bypasses", True)
        self.factory(buffer_size=100)
        self.assertEqual(self.record(101), 1)
        self.assertEqual(self.received(), 101)
        self.assertGreater(self.due(), 0.1)
        self.reactor.advance(0.1)
        self.reactor.drain()
        self.assertAlmostEqual(self.due(), 0.02)

    def test_clockSetBack(self) -> None:
        """If the clock is set back, events are late until half of the buffer is pending."""
        self.paced()
        for call in self.reactor.calls:
            call.time += 3600
        self.assertEqual(self.record(51), 1)
        self.reactor.drain()
        self.assertEqual(self.received(), 52)
        self.record(1)
        self.reactor.advance(0.02)
        self.assertEqual(self.received(), 53)

    def test_lostTimer(self) -> None:
        """
        If the reactor loses the timer, because a signal handler raised in one of its methods, the
        next tick makes another one.
        """

        def lose(seconds: float, function: Any) -> DelayedCall:
            due = self.reactor.seconds() + seconds
            return DelayedCall(due, function, (), {}, id, id, self.reactor.seconds)

        self.factory()
        self.record(1)
        patch = self.patch(self.reactor, "callLater", lose)
        self.reactor.drain()
        patch.restore()
        self.record(1)
        self.reactor.advance(0.98)
        self.assertEqual(self.received(), 2)
        self.assertEqual(self.record(1), 0)
        self.assertAlmostEqual(self.due(), 0.02)

    def test_noTimer(self) -> None:
        """With 0, each event that finds no other pending wakes the reactor."""
        self.factory(max_delay=0)
        for _ in range(3):
            self.assertEqual(self.record(5), 1)
            self.reactor.drain()
            self.assertGreater(self.due(), 0.1)

    def test_reactorThread(self) -> None:
        """Events recorded on the reactor thread wait for the timer, too."""
        self.reactor_thread = True
        self.paced()
        self.assertEqual(self.record(20), 0)
        self.reactor.advance(0.02)
        self.assertEqual(self.received(), 21)

    def test_atOnce(self) -> None:
        """A description, a new client and a stop do not wait for the timer."""
        factory = self.paced()
        self.record(1)
        factory.recorder.describe_counter("d")
        self.reactor.drain()
        self.assertEqual(self.received(), 2)
        self.assertEqual([one.name for one in self.client.reader.metadata], ["d"])
        self.record(1)
        second = FakeClient(factory)
        self.reactor.settle()
        self.assertEqual(self.received(), 3)
        self.assertEqual(second.read().totals[self.counter.key], 3)
        self.record(1)
        stopped = factory.stop()
        self.reactor.settle()
        self.assertEqual(self.received(), 4)
        second.read()
        self.client.read()
        self.successResultOf(stopped)

    def test_lastClient(self) -> None:
        """When the last client leaves, no timer is left."""
        self.paced()
        self.client.transport.lose()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_interruptedDrain(self) -> None:
        """After a drain that a signal handler interrupted, the next event wakes the reactor."""
        self.factory()
        self.record(1)

        def interrupted(this: Incoming) -> None:
            raise KeyboardInterrupt

        patch = self.patch(Incoming, "take", interrupted)
        self.assertRaises(KeyboardInterrupt, self.reactor.drain)
        patch.restore()
        self.assertEqual(self.record(1), 1)
        self.reactor.settle()
        self.client.read_all(self.reactor)
        self.assertEqual(self.client.reader.totals[self.counter.key], 2)

    def test_lostRequest(self) -> None:
        """A request that the reactor never handles delays events by a second at most."""
        self.factory()
        call = self.patch(self.reactor, "callFromThread", lambda *args: None)
        self.record(1)
        call.restore()
        self.reactor.advance(1)
        self.assertEqual(self.received(), 1)
        self.reactor.advance(0.02)
        self.assertEqual(self.record(1), 1)
