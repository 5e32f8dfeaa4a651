"""
One failure ends one client at most: every call that leaves the library's code raises once, at each
place, and then the others have exact totals and exact accounts.
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
    Counts the calls of functions that it wraps, as far as the library makes them, and lets one of
    them raise: before it has done what it does, or after.

    @ivar calls: what was called, by whose it is.
    @ivar places: if none is to raise, from where in the library each was called, by which way.
    @ivar sprung: whose call raised.
    """

    def __init__(self, at: int = -1, error: type[Exception] = RuntimeError, after: bool = False):
        """
        @param at: which call raises, counted from 0.
        """
        self._at = at
        self.error = error
        self._after = after
        self.calls: list[str] = []
        self.places: list[Place] = []
        self.sprung: str | None = None
        self.armed = True

    def wrap(self, whose: str, function: _F) -> _F:
        def wrapped(*args: Any, **more: Any) -> Any:
            caller = sys._getframe(1)
            # What is raised in waking is for the caller: a signal handler raises it, say.
            wakes = caller.f_code.co_name == "wake"
            if not self.armed or not is_library(caller.f_globals["__name__"]) or wakes:
                return function(*args, **more)
            number = len(self.calls)
            self.calls.append(whose)
            if self._at < 0:
                self.places.append(place(whose, caller))
            if number == self._at and not self._after:
                self.spring(whose)
            result = function(*args, **more)
            if number == self._at:
                self.spring(whose)
            return result

        return wrapped  # type: ignore[return-value]

    def spring(self, whose: str) -> None:
        self.sprung = whose
        raise self.error("the trap")


def place(whose: str, frame: FrameType | None) -> Place:
    """Where the library is that calls."""
    lines = []
    while frame is not None:
        if is_library(frame.f_globals["__name__"]):
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return whose, tuple(lines)


def is_library(module: str) -> bool:
    return module.startswith("txmetrics_tcp.") and module != "txmetrics_tcp.testing"


class TrappedReactor(FakeReactor):
    def __init__(self, trap: Trap) -> None:
        super().__init__()
        self.trap = trap
        for name in ("callFromThread", "callLater", "seconds"):
            whose = "timer" if name == "callLater" else "reactor"
            setattr(self, name, trap.wrap(whose, getattr(self, name)))


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
    """A client whose transport is trapped, and is used as Twisted's reactors use theirs."""

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
    def gone(self) -> bool:
        return self.transport.aborted or not self.transport.connected

    def read(self, size: int | None = None) -> Reader:
        try:
            return super().read(size)
        except Exception:
            # What a protocol raises ends the connection.
            self.transport.lose(ConnectionLost())
            return self.reader

    def end_of_file(self) -> None:
        try:
            self.transport.end_of_file()
        except Exception:
            self.transport.lose(ConnectionLost())


class World:
    """
    An exporter and its clients, to which everything happens that can: clients that keep up, that
    stall, that end their sending side, come late and leave; drops on both sides, repairs,
    half-close probes, descriptions, own metrics.

    @ivar counted: what the program has recorded.
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
                # As from a signal handler, which is none of the library's to swallow.
                assert self.trap.sprung == "encoder"
            self.counted[counter.key] = self.counted.get(counter.key, 0) + 1

    def turn(self, seconds: float = 0) -> None:
        """Let the reactor iterate.  What is raised in it is logged there, and it goes on."""
        turns: list[Callable[[], object]] = [self.reactor.settle]
        if seconds:
            turns.append(lambda: self.reactor.advance(seconds))
        for take in turns:
            try:
                take()
            except Exception:
                self.reactor.settle()

    def happen(self) -> None:
        recorder = self.factory.recorder
        fast, slow = self.connect("fast"), self.connect("slow", 300)
        half_closed = self.connect("half-closed")
        recorder.describe_counter("a", "count", "What is counted.")
        self.count("a", 5)
        recorder.gauge("g").set(1.5)
        self.turn()
        half_closed.end_of_file()
        # More than the log and the buffer take, in another thread; then more than a slow client.
        self.count("b", 50)
        self.turn(0.5)
        fast.read()
        for _ in range(4):
            self.count("a", 8)
            recorder.histogram("h").record_many(0.5, 3)
            self.turn(0.3)
            fast.read()
            half_closed.read()
        late = self.connect("late")
        recorder.describe_gauge("g", "count", "What is set.")
        self.turn(1)
        slow.read(100)
        self.turn(1)
        late.transport.lose(ConnectionLost())
        self.on_reactor_thread = True
        self.count("c", 30)
        self.on_reactor_thread = False
        self.turn(0.1)
        slow.read()
        self.turn()

    def come_to_rest(self) -> None:
        """Nothing fails any more, and some seconds pass."""
        self.trap.armed = False
        self.count("a")
        for _ in range(3):
            self.turn(1)
            for client in self.staying:
                client.read_all(self.reactor)

    @property
    def staying(self) -> list[Client]:
        return [client for client in self.clients if not client.gone]


_encoder_encode = encoder.Encoder.encode
_encode_status = fanout.encode_status


class EachCallTests(SynchronousTestCase):
    def setUp(self) -> None:
        log_lines(self, log_throttle, fanout)

    def world(self, trap: Trap) -> World:
        world = World(self, trap)
        world.happen()
        return world

    def test_nothingFails(self) -> None:
        """The world is one in which everything happens; only who leaves is gone."""
        trap = Trap()
        world = self.world(trap)
        self.assertEqual([one.name for one in world.clients if one.gone], ["late"])
        self.assertEqual(
            set(trap.calls),
            {"reactor", "timer", "clock", "host", "encoder"}
            | {"fast", "slow", "half-closed", "late"},
        )
        stats = world.factory.stats()
        self.assertGreater(stats.dropped, 0)
        self.assertGreater(stats.dropped_by_clients, 0)
        self.assertGreater(stats.repairs, 1)
        self.check(world, "nothing")

    def test_eachFails(self) -> None:
        """Of the calls that one place makes in the same way, the first fails, and the last."""
        trap = Trap()
        self.world(trap)
        first = {where: at for at, where in reversed([*enumerate(trap.places)])}
        last = {where: at for at, where in enumerate(trap.places)}
        for at in sorted({*first.values(), *last.values()}):
            whose, where = trap.calls[at], trap.places[at]
            once = first[where] == last[where]
            error = (RuntimeError, MemoryError)[at % 2 if once else at == last[where]]
            # A timer that could not be had is none.
            for after in (False,) if whose == "timer" else (False, True):
                world = self.world(Trap(at, error, after))
                self.check(world, f"call {at}, of {whose}, after: {after}")

    def check(self, world: World, what: str) -> None:
        world.come_to_rest()
        failed = {one.name for one in world.clients if one.gone} - {"late"}
        sprung = world.trap.sprung
        if world.trap.error is MemoryError:
            # Who has not taken what it was sent makes room for the others.
            failed.discard("slow")
        self.assertLessEqual(len(failed), 1, what)
        if sprung in {"fast", "slow", "half-closed", "late"}:
            self.assertLessEqual(failed, {sprung}, what)
        expected = exact_totals(world.factory)
        program = world.factory.recorder.snapshot()
        self.assertEqual({key: program[key] for key in world.counted}, world.counted, what)
        for client in world.staying:
            got = client.reader.bits()
            self.assertEqual({key: got.get(key) for key in expected}, expected, (what, client.name))
            stats = client.protocol.stats()
            self.assertEqual(
                stats.recorded,
                stats.dropped_incoming + stats.dropped + stats.written + stats.waiting,
                (what, stats),
            )
            self.assertEqual(client.reader.unfinished, 0)
        stopped = world.factory.stop()
        for _ in range(3):
            world.turn(1)
            for client in world.clients:
                client.read()
        world.factory.doStop()
        self.assertTrue(stopped.called, what)
        self.assertEqual(world.factory._present, {}, what)
        self.assertEqual(world.reactor.getDelayedCalls(), [], what)


class BareTransport:
    """A transport that can do next to nothing, and never says that a connection is lost."""

    disconnecting = False

    def write(self, data: bytes) -> None:
        pass

    def loseConnection(self) -> None:
        self.disconnecting = True


class FailingTransport(PausingTransport):
    """
    @ivar failing: the method that raises, each time.
    """

    failing = ""

    def __getattribute__(self, name: str) -> Any:
        if name == type(self).failing:
            raise RuntimeError(f"{name} fails")
        return super().__getattribute__(name)


class ClientTests(SynchronousTestCase):
    """One client that fails for good, beside one that does not."""

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
            ExporterSettings(own_metrics=False, max_clients=3),
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
        """It is gone as soon as it fails; the other has all, and the exporter stops at once."""
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

    def test_accountOfTheFailed(self) -> None:
        """Of what it was not sent, nothing is missing in the account."""
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
            ["Rejected client 127.0.0.1:54321: an error (RuntimeError): write fails"],
        )
        self.assertEqual(self.failures, ["write fails"])

    def test_fewLines(self) -> None:
        """Clients that fail again and again, as they come back, do not fill the log."""
        for _ in range(100):
            self.connect(self.failing("registerProducer"))
        self.reactor.pump([1] * 10)
        self.assertEqual(len(self.logged), 2)
        self.assertIn("Rejected 99 more clients: ", self.logged[1])

    def test_placesAreFree(self) -> None:
        """Those that fail as they are greeted take no place of others."""
        for transport in [self.failing("registerProducer") for _ in range(5)] + [BareTransport()]:
            self.connect(transport)
        self.assertEqual(self.factory._present, {})
        clients = [FakeClient(self.factory) for _ in range(3)]
        self.counter.increment()
        for client in clients:
            self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))

    def test_greeting(self) -> None:
        """Whatever fails while a client is greeted, the next one is greeted."""

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

    def test_lastOneFailsAtTheEnd(self) -> None:
        """Nothing is left to be called when the last client fails as the exporter stops."""
        bad = self.failing("")
        self.connect(bad)
        self.reactor.settle()
        type(bad).failing = "loseConnection"
        self.successResultOf(self.factory.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_goneAtTheBeginning(self) -> None:
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

    def test_neverSaysThatItIsGone(self) -> None:
        """
        A transport that does not say that its connection is gone does not hold up the end for
        longer than half a second; and Twisted's own for tests, which cannot be aborted then, not
        at all.
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

    def test_whatComesAfter(self) -> None:
        """A transport that goes on calling a client that has failed is not heard."""
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
        self.assertEqual(self.factory._fanout._wanting, {})
        self.assertEqual([call.func for call in self.reactor.getDelayedCalls()][1:], [])


class BrokenDrainTests(SynchronousTestCase):
    """Something is raised where a drain is about all clients."""

    def setUp(self) -> None:
        log_lines(self, fanout, log_throttle)
        self.reactor = FakeReactor()
        self.factory = MetricsFactory(
            self.reactor, ExporterSettings(own_metrics=False), in_reactor_thread=lambda: False
        )

    def once(self, owner: type, method: str, error: BaseException) -> None:
        """Let a method raise, the next time that it is called."""
        original = getattr(owner, method)

        def fails(*arguments: Any, **more: Any) -> None:
            self.patch(owner, method, original)
            raise error

        self.patch(owner, method, fails)

    def test_asTheFirstMarkComes(self) -> None:
        """A client that has just connected has its totals all the same, an older one as well."""
        for error in (RuntimeError(), MemoryError(), KeyboardInterrupt()):
            old = FakeClient(self.factory)
            counter = self.factory.recorder.counter("c")
            counter.increment(5)
            old.read_all(self.reactor)
            new = FakeClient(self.factory)
            self.assertEqual(len(self.factory._fanout._asked), 1)
            self.once(Incoming, "take", error)
            with contextlib.suppress(KeyboardInterrupt):
                self.reactor.settle()
            self.reactor.advance(1)
            counter.increment()
            for client in (old, new):
                self.assertEqual(client.read_all(self.reactor).bits(), exact_totals(self.factory))
                client.transport.lose()

    def test_noMemoryToApply(self) -> None:
        """An event that could not be applied to the totals is, with the next fold."""
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
        """An exporter without clients stops though its last drain breaks off."""
        for error in (MemoryError(), RuntimeError()):
            self.once(Incoming, "take", error)
            self.successResultOf(self.factory.stop())
            self.factory.startFactory()

    def test_noProgress(self) -> None:
        """While there is no memory, the reactor is not kept busy: the next tick tries again."""
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

    def test_goneMeanwhile(self) -> None:
        """A client that is disconnected for want of memory is not brought up to date."""
        stuck = FakeClient(self.factory, limit=1)
        counter = self.factory.recorder.counter("c")
        for _ in range(5):
            counter.increment()
            self.reactor.settle()
        self.factory._fanout.out_of_memory(Failure(MemoryError()))
        self.assertTrue(stuck.transport.aborted)
        before = stuck.protocol.stats()
        stuck.protocol.resync({})
        self.assertEqual(stuck.protocol.stats(), before)
        self.assertEqual(before.recorded, before.dropped + before.written + before.discarded)

    def test_putOffAtTheEnd(self) -> None:
        """A client whose events were put off has exact totals when the exporter stops."""
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

    def test_markIsReleased(self) -> None:
        """What a client was given at the beginning is not kept for longer than that."""
        self.factory.recorder.counter("c").increment()
        client = FakeClient(self.factory)
        client.read_all(self.reactor)
        self.assertIsNone(self.factory._fanout._marker)
        client = FakeClient(self.factory)
        client.transport.lose()
        self.assertEqual(len(self.factory._fanout.clients), 1)

    def test_lossReport(self) -> None:
        """A report of losses that had no timer can be closed."""
        report = log_throttle.LossReport(self.reactor, "here")
        report.lost(1)
        self.reactor.advance(3)
        report.lost(1)
        self.once(FakeReactor, "callLater", MemoryError())
        self.assertRaises(MemoryError, self.reactor.advance, 3)
        report.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
