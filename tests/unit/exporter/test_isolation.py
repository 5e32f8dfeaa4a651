"""
Tests of failures in code outside the library: each call raises once, at each place.  A failure
disconnects at most one client, and the other clients then have exact totals and exact accounts.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import log_lines
from tests.reader import FakeClient, Reader, exact_totals
from txmetrics_tcp import (
    ExporterSettings,
    Key,
    MetricsFactory,
    MetricsProtocol,
)
from txmetrics_tcp._codec import encoder
from txmetrics_tcp._exporter import fanout
from txmetrics_tcp._exporter.fanout import Fanout
from txmetrics_tcp._exporter.ingest import LOG_LIMIT, Incoming
from txmetrics_tcp._exporter.ledger import Ledger
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp.testing import FakeReactor, PausingTransport

Place = tuple[str, tuple[tuple[str, int], ...]]

_F = TypeVar("_F", bound=Callable[..., Any])


class Trap:
    """
    Counts the library's calls of the functions that it wraps, and makes one of these calls raise,
    before or after the wrapped function has run.

    @ivar calls: the owner of the called function, for each call.
    @ivar places: the call sites and owners of all calls; only if no call is to raise.
    @ivar sprung: the owner whose call raised, or None.
    """

    def __init__(self, at: int = -1, error: type[Exception] = RuntimeError, after: bool = False):
        """
        @param at: the index of the call that raises; negative for none.
        """
        self._at = at
        self.error = error
        self._after = after
        self.calls: list[str] = []
        self.places: list[Place] = []
        self.sprung: str | None = None
        self.armed = True

    def wrap(self, owner: str, function: _F) -> _F:
        def wrapped(*args: Any, **more: Any) -> Any:
            caller = sys._getframe(1)
            # An exception in `wake` reaches the recording caller, as from a signal handler.
            wakes = caller.f_code.co_name == "wake"
            if not self.armed or not is_library(caller.f_globals["__name__"]) or wakes:
                return function(*args, **more)
            number = len(self.calls)
            self.calls.append(owner)
            if self._at < 0:
                self.places.append(place(owner, caller))
            if number == self._at and not self._after:
                self.spring(owner)
            result = function(*args, **more)
            if number == self._at:
                self.spring(owner)
            return result

        return wrapped  # type: ignore[return-value]

    def spring(self, owner: str) -> None:
        self.sprung = owner
        raise self.error("the trap")


def place(owner: str, frame: FrameType | None) -> Place:
    """Return the owner and the library's lines on the stack."""
    lines = []
    while frame is not None:
        if is_library(frame.f_globals["__name__"]):
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return owner, tuple(lines)


def is_library(module: str) -> bool:
    return module.startswith("txmetrics_tcp.") and module != "txmetrics_tcp.testing"


class TrappedReactor(FakeReactor):
    def __init__(self, trap: Trap) -> None:
        super().__init__()
        self.trap = trap
        for name in ("callFromThread", "callLater", "seconds"):
            owner = "timer" if name == "callLater" else "reactor"
            setattr(self, name, trap.wrap(owner, getattr(self, name)))


class TrappedTransport(PausingTransport):
    METHODS = (
        "write",
        "registerProducer",
        "unregisterProducer",
        "loseConnection",
        "abortConnection",
        "getHost",
        "getPeer",
    )

    def __init__(self, name: str, trap: Trap, limit: int) -> None:
        super().__init__(limit)
        for method in self.METHODS:
            setattr(self, method, trap.wrap(name, getattr(self, method)))


class Client(FakeClient):
    """A client with a trapped transport, which handles exceptions as Twisted's reactors do."""

    def __init__(self, name: str, world: World, limit: int = 64 * 1024) -> None:
        self.name = name
        self.reader = Reader()
        self.transport = TrappedTransport(name, world.trap, limit)
        protocol = world.factory.buildProtocol(self.transport.getPeer())
        assert isinstance(protocol, MetricsProtocol)
        self.protocol = protocol
        try:
            self.transport.connect(protocol)
        except Exception:
            self.transport.lose(ConnectionLost())
        self.read()

    @property
    def disconnected(self) -> bool:
        return self.transport.aborted or not self.transport.connected

    def read(self, size: int | None = None) -> Reader:
        try:
            return super().read(size)
        except Exception:
            # An exception from a protocol ends the connection.
            self.transport.lose(ConnectionLost())
            return self.reader

    def end_of_file(self) -> None:
        try:
            self.transport.end_of_file()
        except Exception:
            self.transport.lose(ConnectionLost())


class World:
    """
    An exporter and its clients, with all kinds of activity: clients that keep up, stall, end their
    sending side, connect late or disconnect; drops on both sides, repairs, half-close probes,
    descriptions and own metrics.

    @ivar counted: the totals that the program has recorded.
    """

    def __init__(self, case: SynchronousTestCase, trap: Trap) -> None:
        self.trap = trap
        self.reactor = TrappedReactor(trap)
        self.on_reactor_thread = False
        case.patch(fanout.socket, "gethostname", trap.wrap("host", lambda: "host"))
        case.patch(encoder.Encoder, "encode", trap.wrap("encoder", _encoder_encode))
        case.patch(fanout, "encode_status", trap.wrap("encoder", _encode_status))
        self.factory = MetricsFactory(
            self.reactor,
            ExporterSettings(buffer_size=10, idle_after=20, repair_interval=1),
            clock=lambda: 1_000_000_000,
            monotonic=trap.wrap("clock", lambda: float(self.reactor.rightNow)),
            in_reactor_thread=lambda: self.on_reactor_thread,
        )
        trap.armed = False
        self.factory.doStart()
        trap.armed = True
        self.clients: list[Client] = []
        self.counted: dict[Key, float] = {}

    def connect(self, name: str, limit: int = 64 * 1024) -> Client:
        client = Client(name, self, limit)
        self.clients.append(client)
        return client

    def count(self, name: str, times: int = 1) -> None:
        counter = self.factory.recorder.counter(name)
        for _ in range(times):
            try:
                counter.increment()
            except RuntimeError:
                # The exception stands for one of a signal handler; the library must not swallow it.
                assert self.trap.sprung == "encoder"
            self.counted[counter.key] = self.counted.get(counter.key, 0) + 1

    def iterate(self, seconds: float = 0) -> None:
        """Let the reactor iterate.  As in a reactor, exceptions do not stop it."""
        steps: list[Callable[[], object]] = [self.reactor.settle]
        if seconds:
            steps.append(lambda: self.reactor.advance(seconds))
        for step in steps:
            try:
                step()
            except Exception:
                self.reactor.settle()

    def act(self) -> None:
        recorder = self.factory.recorder
        fast, slow = self.connect("fast"), self.connect("slow", 300)
        half_closed = self.connect("half-closed")
        recorder.describe_counter("a", "count", "What is counted.")
        self.count("a", 5)
        recorder.gauge("g").set(1.5)
        self.iterate()
        half_closed.end_of_file()
        # Another thread exceeds the log and the buffer; later, events exceed a slow client's.
        self.count("b", 50)
        self.iterate(0.5)
        fast.read()
        for _ in range(4):
            self.count("a", 8)
            recorder.histogram("h").record_many(0.5, 3)
            self.iterate(0.3)
            fast.read()
            half_closed.read()
        late = self.connect("late")
        recorder.describe_gauge("g", "count", "What is set.")
        self.iterate(1)
        slow.read(100)
        self.iterate(1)
        late.transport.lose(ConnectionLost())
        self.on_reactor_thread = True
        self.count("c", 30)
        self.on_reactor_thread = False
        self.iterate(0.1)
        slow.read()
        self.iterate()

    def recover(self) -> None:
        """Let some seconds pass without failures."""
        self.trap.armed = False
        self.count("a")
        for _ in range(3):
            self.iterate(1)
            for client in self.staying:
                client.read_all(self.reactor)

    @property
    def staying(self) -> list[Client]:
        return [client for client in self.clients if not client.disconnected]


_encoder_encode = encoder.Encoder.encode
_encode_status = fanout.encode_status


class EachCallTests(SynchronousTestCase):
    def setUp(self) -> None:
        log_lines(self, log_throttle, fanout)

    def world(self, trap: Trap) -> World:
        world = World(self, trap)
        world.act()
        return world

    def test_nothingFails(self) -> None:
        """Without failures, all kinds of calls occur, and only one client disconnects."""
        trap = Trap()
        world = self.world(trap)
        self.assertEqual([one.name for one in world.clients if one.disconnected], ["late"])
        self.assertEqual(
            set(trap.calls),
            {"reactor", "timer", "clock", "host", "encoder"}
            | {"fast", "slow", "half-closed", "late"},
        )
        stats = world.factory.stats()
        self.assertGreater(stats.dropped_incoming, 0)
        self.assertGreater(stats.dropped_client, 0)
        self.assertGreater(stats.repairs, 1)
        self.check(world, "nothing")

    def test_eachFails(self) -> None:
        """For each call site and stack, the first call fails, and then the last."""
        trap = Trap()
        self.world(trap)
        first = {where: at for at, where in reversed([*enumerate(trap.places)])}
        last = {where: at for at, where in enumerate(trap.places)}
        for at in sorted({*first.values(), *last.values()}):
            owner, where = trap.calls[at], trap.places[at]
            once = first[where] == last[where]
            error = (RuntimeError, MemoryError)[at % 2 if once else at == last[where]]
            # A timer that raises was not scheduled.
            for after in (False,) if owner == "timer" else (False, True):
                world = self.world(Trap(at, error, after))
                self.check(world, f"call {at}, of {owner}, after: {after}")

    def check(self, world: World, case: str) -> None:
        world.recover()
        failed = {one.name for one in world.clients if one.disconnected} - {"late"}
        sprung = world.trap.sprung
        if world.trap.error is MemoryError:
            # A client that does not read may be disconnected to free memory.
            failed.discard("slow")
        self.assertLessEqual(len(failed), 1, case)
        if sprung in {"fast", "slow", "half-closed", "late"}:
            self.assertLessEqual(failed, {sprung}, case)
        expected = exact_totals(world.factory)
        program = world.factory.recorder.snapshot()
        self.assertEqual({key: program[key] for key in world.counted}, world.counted, case)
        for client in world.staying:
            got = client.reader.bits()
            self.assertEqual({key: got.get(key) for key in expected}, expected, (case, client.name))
            stats = client.protocol.stats()
            self.assertEqual(
                stats.recorded,
                stats.dropped_incoming + stats.dropped_client + stats.written + stats.waiting,
                (case, stats),
            )
            self.assertEqual(client.reader.unfinished, 0)
        stopped = world.factory.stop()
        for _ in range(3):
            world.iterate(1)
            for client in world.clients:
                client.read()
        world.factory.doStop()
        self.assertTrue(stopped.called, case)
        self.assertEqual(world.factory._present, {}, case)
        self.assertEqual(world.reactor.getDelayedCalls(), [], case)


class BareTransport:
    """A minimal transport that never reports the end of its connection."""

    disconnecting = False

    def write(self, data: bytes) -> None:
        pass

    def loseConnection(self) -> None:
        self.disconnecting = True


class FailingTransport(PausingTransport):
    """
    @cvar failing: the name of the method that raises at each access.
    """

    failing = ""

    def __getattribute__(self, name: str) -> Any:
        if name == type(self).failing:
            raise RuntimeError(f"{name} fails")
        return super().__getattribute__(name)


class ClientTests(SynchronousTestCase):
    """Two clients: the transport of one always fails."""

    def setUp(self) -> None:
        self.logged: list[str] = []
        self.failures: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            self.logged.append(event["log_format"].format(**event))
            if "log_failure" in event:
                self.failures.append(event["log_failure"].getErrorMessage())

        self.patch(log_throttle, "_log", Logger(namespace="test", observer=observe))
        self.reactor = FakeReactor()
        self.factory = MetricsFactory(
            self.reactor,
            ExporterSettings(own_metrics=False, max_delay=0, max_clients=3),
            in_reactor_thread=lambda: False,
        )
        self.counter = self.factory.recorder.counter("c")

    def connect(self, transport: Any) -> MetricsProtocol:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 54321))
        assert isinstance(protocol, MetricsProtocol)
        protocol.makeConnection(transport)
        return protocol

    def failing(self, method: str) -> FailingTransport:
        made: type[FailingTransport] = type("Failing", (FailingTransport,), {"failing": method})
        return made()

    def test_eachMethod(self) -> None:
        """A client is released when it fails; others lose nothing, and the exporter can stop."""
        for method in ("registerProducer", "write", "unregisterProducer", "loseConnection"):
            self.setUp()
            good = FakeClient(self.factory)
            bad = self.failing("")
            if method != "registerProducer":
                self.connect(bad)
            type(bad).failing = method
            if method == "registerProducer":
                self.connect(bad)
            for _ in range(3):
                self.counter.increment()
                self.reactor.settle()
            self.assertEqual(good.read_all(self.reactor).bits(), exact_totals(self.factory), method)
            self.assertEqual(good.reader.values("c"), [1, 1, 1], method)
            stopped = self.factory.stop()
            good.read_all(self.reactor)
            bad.drain()
            self.successResultOf(stopped)
            self.assertEqual(self.factory._present, {}, method)

    def test_accountOfFailedClient(self) -> None:
        """The account of a failed client includes events that it was not sent."""
        bad = self.failing("")
        protocol = self.connect(bad)
        self.reactor.settle()
        for _ in range(5):
            self.counter.increment()
        type(bad).failing = "write"
        self.reactor.settle()
        stats = protocol.stats()
        self.assertEqual((stats.recorded, stats.written, stats.discarded), (5, 0, 5))
        self.assertEqual(
            self.logged,
            ["Rejected client 127.0.0.1:54321: unexpected RuntimeError: write fails"],
        )
        self.assertEqual(self.failures, ["write fails"])

    def test_fewLines(self) -> None:
        """Clients that fail repeatedly do not fill the log."""
        for _ in range(100):
            self.connect(self.failing("registerProducer"))
        self.reactor.pump([1] * 10)
        self.assertEqual(len(self.logged), 2)
        self.assertIn("Rejected 99 more clients: ", self.logged[1])

    def test_limitAfterFailures(self) -> None:
        """Clients that fail while they connect do not count towards C{max_clients}."""
        for transport in [self.failing("registerProducer") for _ in range(5)] + [BareTransport()]:
            self.connect(transport)
        self.assertEqual(self.factory._present, {})
        clients = [FakeClient(self.factory) for _ in range(3)]
        self.counter.increment()
        for client in clients:
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))

    def test_greeting(self) -> None:
        """If the greeting of a client fails, the client is aborted and the next one is accepted."""

        def fails(*arguments: object) -> None:
            raise ValueError("no greeting")

        for owner, method in ((Fanout, "status"), (MetricsFactory, "client_connected")):
            patch = self.patch(owner, method, fails)
            transport = PausingTransport()
            self.connect(transport)
            self.assertTrue(transport.aborted)
            patch.restore()
            client = FakeClient(self.factory)
            self.counter.increment()
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))
            client.transport.lose()
        self.assertEqual(self.factory._present, {})
        self.successResultOf(self.factory.stop())

    def test_lastClientFailsWhileStopping(self) -> None:
        """If the last client fails while the exporter stops, no timer is left."""
        bad = self.failing("")
        self.connect(bad)
        self.reactor.settle()
        type(bad).failing = "loseConnection"
        self.successResultOf(self.factory.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lostWhileConnecting(self) -> None:
        """A transport may report the end of the connection while the client is greeted."""

        class Ending(PausingTransport):
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                super().registerProducer(producer, streaming)
                self.lose()

        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 54321))
        transport = Ending()
        transport.connect(protocol)
        self.assertEqual((self.factory._fanout.clients, self.factory._present), ({}, {}))
        self.successResultOf(self.factory.stop())

    def test_endNeverReported(self) -> None:
        """
        A transport that never reports the end of its connection delays the stop by at most half a
        second.  Twisted's C{StringTransport}, which raises when it is aborted, does not delay it.
        """
        for transport, waits in ((StringTransport(), False), (PausingTransport(limit=0), True)):
            self.setUp()
            self.connect(transport)
            self.counter.increment()
            self.reactor.settle()
            stopped = self.factory.stop(2)
            self.reactor.settle()
            self.reactor.pump([1.9, 0.0])
            self.assertNoResult(stopped)
            self.reactor.pump([0.2, 0.4])
            self.assertEqual(stopped.called, not waits)
            self.reactor.pump([0.2])
            self.successResultOf(stopped)
            self.assertEqual(self.factory._present, {})

    def test_callsAfterFailure(self) -> None:
        """Calls by the transport of a failed client do nothing."""
        bad = self.failing("")
        protocol = self.connect(bad)
        self.reactor.settle()
        type(bad).failing = "write"
        self.counter.increment()
        self.reactor.settle()
        type(bad).failing = ""
        for call in (
            protocol.pauseProducing,
            protocol.resumeProducing,
            protocol.readConnectionLost,
            protocol.stopProducing,
            lambda: protocol.dataReceived(b"GET / HTTP/1.1\r\n"),
            lambda: protocol.connectionLost(),
        ):
            call()
        self.counter.increment()
        self.reactor.settle()
        self.assertEqual(len(self.logged), 1)
        self.assertEqual(self.factory._fanout._need_totals, {})
        self.assertEqual([call.func for call in self.reactor.getDelayedCalls()][1:], [])


class AbortedDrainTests(SynchronousTestCase):
    """An exception that concerns all clients is raised within a drain."""

    def setUp(self) -> None:
        log_lines(self, fanout, log_throttle)
        self.reactor = FakeReactor()
        self.factory = MetricsFactory(
            self.reactor,
            ExporterSettings(own_metrics=False, max_delay=0),
            in_reactor_thread=lambda: False,
        )

    def once(self, owner: type, method: str, error: BaseException) -> None:
        """Make the next call of a method raise."""
        original = getattr(owner, method)

        def fails(*arguments: Any, **more: Any) -> None:
            self.patch(owner, method, original)
            raise error

        self.patch(owner, method, fails)

    def test_beforeFirstMarker(self) -> None:
        """After an aborted drain, new and old clients receive exact totals."""
        for error in (RuntimeError(), MemoryError(), KeyboardInterrupt()):
            old = FakeClient(self.factory)
            counter = self.factory.recorder.counter("c")
            counter.increment(5)
            old.read_all(self.reactor)
            new = FakeClient(self.factory)
            self.assertEqual(len(self.factory._fanout._awaiting_marker), 1)
            self.once(Incoming, "take", error)
            with contextlib.suppress(KeyboardInterrupt):
                self.reactor.settle()
            self.reactor.advance(1)
            counter.increment()
            for client in (old, new):
                self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))
                client.transport.lose()

    def test_noMemoryToApply(self) -> None:
        """An event that could not be applied for lack of memory is applied in the next epoch."""
        for connected in (True, False):
            counter = self.factory.recorder.counter("c", connected=connected)
            client = FakeClient(self.factory) if connected else None
            if client is not None:
                client.read_all(self.reactor)
            counter.increment(3)
            self.once(Ledger, "_first_in_epoch", MemoryError())
            if client is None:
                for _ in range(2 * LOG_LIMIT):
                    counter.increment(0)
            self.reactor.settle()
            self.reactor.advance(1)
            self.assertEqual(self.factory.recorder.snapshot()[counter.key], 3)
            if client is not None:
                self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))
                client.transport.lose()

    def test_stopping(self) -> None:
        """An exporter without clients can stop even if its last drain is aborted."""
        for error in (MemoryError(), RuntimeError()):
            self.once(Incoming, "take", error)
            self.successResultOf(self.factory.stop())
            self.factory.startFactory()

    def test_noProgress(self) -> None:
        """While memory is exhausted, only the tick retries, so the reactor is not kept busy."""
        client = FakeClient(self.factory)
        client.read_all(self.reactor)

        def fails(*arguments: object) -> None:
            drains.append(1)
            raise MemoryError

        drains: list[int] = []
        patch = self.patch(Ledger, "_first_in_epoch", fails)
        counter = self.factory.recorder.counter("c")
        counter.increment(5)
        self.reactor.settle()
        self.reactor.pump([1] * 3)
        self.assertLess(len(drains), 10)
        patch.restore()
        self.reactor.advance(1)
        self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))
        self.assertEqual(client.reader.totals[counter.key], 5)

    def test_resyncAfterDisconnection(self) -> None:
        """`resync` does nothing for a client that was disconnected for lack of memory."""
        stuck = FakeClient(self.factory, limit=1)
        counter = self.factory.recorder.counter("c")
        for _ in range(5):
            counter.increment()
            self.reactor.settle()
        self.factory._fanout.out_of_memory(Failure(MemoryError()))
        self.assertTrue(stuck.transport.aborted)
        before = stuck.protocol.stats()
        stuck.protocol.resync()
        self.assertEqual(stuck.protocol.stats(), before)
        self.assertEqual(before.recorded, before.dropped_client + before.written + before.discarded)

    def test_releasedWhileStopping(self) -> None:
        """A client whose pending events were released receives totals before the exporter stops."""
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        counter = self.factory.recorder.counter("c")
        self.once(encoder.Encoder, "encode", MemoryError())
        counter.increment(5)
        self.reactor.settle()
        stopped = self.factory.stop(5)
        self.reactor.settle()
        self.assertNoResult(stopped)
        self.reactor.advance(1)
        self.assertEqual(client.read_all(self.reactor).totals[counter.key], 5)
        self.successResultOf(stopped)

    def test_markerIsReleased(self) -> None:
        """A marker is released once its clients have received it or have disconnected."""
        self.factory.recorder.counter("c").increment()
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        self.assertIsNone(self.factory._fanout._marker)
        client = FakeClient(self.factory)
        client.transport.lose()
        self.assertEqual(len(self.factory._fanout.clients), 1)

    def test_lossReport(self) -> None:
        """A loss report whose timer could not be scheduled can be closed."""
        report = log_throttle.LossReport(self.reactor, "here")
        report.lost(1)
        self.once(FakeReactor, "callLater", MemoryError())
        self.assertRaises(MemoryError, self.reactor.advance, log_throttle.INTERVAL)
        report.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
