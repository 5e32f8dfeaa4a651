"""
Tests of interrupts: neither a KeyboardInterrupt nor a record at any line of the exporter stops the
stream.
"""

from __future__ import annotations

import contextlib
from functools import cache
from itertools import product
from pathlib import Path

import txmetrics_tcp
from tests.exporting import FactoryTestCase
from tests.logs import log_lines
from tests.reader import FakeClient, exact_totals
from tests.tracing import Line, lines_of, tracing
from txmetrics_tcp import MetricsFactory
from txmetrics_tcp._exporter import factory, fanout, scheduler
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.writers import Outlet
from txmetrics_tcp.testing import FakeReactor

PACKAGE = Path(txmetrics_tcp.__file__).parent


@cache
def is_exporter(file: str) -> bool:
    """Whether a file is in a package that an event passes through, from handle to transport."""
    path = Path(file)
    return path.parent.parent == PACKAGE and path.parent.name in {
        "_exporter",
        "_instruments",
        "_net",
    }


def is_draining(file: str) -> bool:
    """Whether a file is part of wake-ups and drains."""
    return file in {scheduler.__file__, fanout.__file__}


class World:
    """An exporter with a fast client, a slow client, and a client that connects later."""

    def __init__(self, factory: MetricsFactory, reactor: FakeReactor) -> None:
        self.factory = factory
        self.reactor = reactor
        self.counter = factory.recorder.counter("c")
        self.counter.increment()
        self.clients = [FakeClient(factory), FakeClient(factory, limit=100)]
        reactor.settle()
        self.read()

    def act(self) -> None:
        """Record events, wake and drain the reactor, and begin the stream of a client."""
        recorder = self.factory.recorder
        recorder.describe_counter("c", "count")
        recorder.gauge("g").set(1)
        recorder.histogram("h").record_many(1, 3)
        self.reactor.settle()
        # More events than the buffer holds: the recording thread applies them, some are dropped.
        for _ in range(10):
            self.counter.increment()
        self.reactor.settle()
        self.clients.append(FakeClient(self.factory))
        self.reactor.settle()
        self.read()
        self.reactor.advance(1)
        self.reactor.settle()

    def pause(self) -> None:
        """Let a second pass without records, and read."""
        self.reactor.settle()
        self.reactor.advance(1)
        self.read_all()

    def resume(self) -> None:
        """Connect another client, record events, and read."""
        self.counter.increment()
        self.clients.append(FakeClient(self.factory))
        self.read_all()
        for _ in range(3):
            self.factory.recorder.counter("later").increment()
        self.read_all()

    def read(self) -> None:
        for client in self.clients:
            try:
                client.read()
            except KeyboardInterrupt:
                # A reactor does this with exceptions of a protocol.
                client.transport.lose()
                raise

    @property
    def connected(self) -> list[FakeClient]:
        return [client for client in self.clients if client.is_connected]

    def read_all(self) -> None:
        for client in self.clients:
            client.read_all(self.reactor)


class ReleasingWorld(World):
    """An exporter whose series are forgotten, or idle and released."""

    def __init__(self, factory: MetricsFactory, reactor: FakeReactor) -> None:
        self.idle = [factory.recorder.counter("idle", i=i) for i in range(3)]
        for counter in self.idle:
            counter.increment(5)
        super().__init__(factory, reactor)

    def act(self) -> None:
        recorder = self.factory.recorder
        gauge = recorder.gauge("g")
        gauge.set(3)
        self.counter.increment()
        recorder.forget(self.counter.key)
        self.counter.increment(2)
        self.reactor.settle()
        self.read()
        # More events than the buffer holds.
        for key in (self.counter.key, gauge.key):
            for _ in range(10):
                self.counter.increment()
            recorder.forget(key)
        self.clients.append(FakeClient(self.factory))
        for _ in range(3):
            self.reactor.settle()
            self.reactor.advance(1)
        self.read()

    def resume(self) -> None:
        self.idle[0].increment()
        self.factory.recorder.gauge("g").increment()
        super().resume()


class PacedWorld(World):
    """An exporter whose timer takes events while they keep coming."""

    def act(self) -> None:
        super().act()
        # Few events, none, none after an event, more than half of the buffer, and too many for the
        # timer.
        for events in (1, 1, 0, 1, 0, 3, 1, 20, 1):
            for _ in range(events):
                self.counter.increment()
            self.reactor.settle()
            self.reactor.advance(0.02)
            self.reactor.settle()
            self.read()
        for _ in range(3):
            self.counter.increment(3)
            self.reactor.advance(0.0005)
            self.reactor.settle()
        self.factory.recorder.describe_counter("c", "bytes")
        self.clients.pop().transport.lose()
        self.reactor.settle()


class InterruptTests(FactoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Interrupted clients are rejected with a traceback.
        log_lines(self, log_throttle)

    def world(self) -> World:
        # A new reactor has no timers of earlier worlds.
        self.reactor = FakeReactor()
        return self.make_world()

    def make_world(self) -> World:
        return World(self.factory(4), self.reactor)

    def make_paced_world(self) -> World:
        return PacedWorld(self.factory(4, max_delay=0.02), self.reactor)

    def interrupt(self, line: Line) -> World:
        """Make a line raise the first time that it is reached."""
        world = self.world()

        def reached(this: Line) -> None:
            if this == line:
                raise KeyboardInterrupt

        # A reactor logs exceptions of its calls and continues.
        with contextlib.suppress(KeyboardInterrupt), tracing(is_exporter, reached):
            world.act()
        return world

    def check_records(self) -> None:
        """
        Record before each line between a wake-up and the end of a drain, as signal handlers and
        finalizers do, one event or more than the buffer holds.  Check that all events are taken
        without a tick.
        """
        self.make_world = self.make_paced_world  # type: ignore[method-assign]
        self.patch(factory, "TICK", 1e6)
        lines = lines_of(is_draining, self.world().act)
        self.assertGreater(len(lines), 100)
        for line, events in product(lines, (1, 6)):
            world = self.world()
            pending = [line]

            def reached(
                this: Line,
                pending: list[Line] = pending,
                world: World = world,
                events: int = events,
            ) -> None:
                if this in pending:
                    pending.clear()
                    for _ in range(events):
                        world.counter.increment()

            with tracing(is_draining, reached):
                world.act()
            self.reactor.settle()
            self.reactor.advance(world.factory.settings.max_delay)
            self.reactor.settle()
            self.assertFalse(world.factory.incoming.more(), line)
            # The next event wakes the reactor, too.
            self.reactor.advance(5)
            world.counter.increment()
            self.assertGreater(self.reactor.waiting, 0, line)
            world.read_all()
            for client in world.connected:
                self.assertEqual(client.reader.bits(), exact_totals(world.factory), line)

    def check(self) -> None:
        lines = lines_of(is_exporter, self.world().act)
        self.assertGreater(len(lines), 300)
        for line in lines:
            world = self.interrupt(line)
            world.pause()
            for client in world.connected:
                self.assertEqual(client.reader.bits(), exact_totals(world.factory), line)
            world.resume()
            # The last client, and all that were not interrupted while data was sent to them.
            self.assertGreater(len(world.connected), 1, line)
            for client in world.connected:
                self.assertEqual(client.reader.bits(), exact_totals(world.factory), line)
                self.assertEqual(client.reader.values("later"), [1, 1, 1], line)

    def test_otherThread(self) -> None:
        """Events are recorded on a thread other than the reactor's."""
        self.check()

    def test_reactorThread(self) -> None:
        """Events are recorded on the reactor thread, and delivered at once."""
        self.reactor_thread = True
        self.patch(Outlet, "bypasses", True)
        self.check()

    def test_paced(self) -> None:
        """A timer takes events while they keep coming."""
        self.make_world = self.make_paced_world  # type: ignore[method-assign]
        self.check()

    def test_records(self) -> None:
        """A record at any line, on a thread other than the reactor's, delays no event."""
        self.check_records()

    def test_recordsOnReactorThread(self) -> None:
        """The same on the reactor thread."""
        self.reactor_thread = True
        self.patch(Outlet, "bypasses", True)
        self.check_records()

    def test_release(self) -> None:
        """Series are forgotten on a thread other than the reactor's, or idle and released."""
        self.make_world = lambda: ReleasingWorld(self.factory(4, idle_after=2), self.reactor)  # type: ignore[method-assign]
        self.check()
