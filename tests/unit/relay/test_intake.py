"""
What the collector does with connections, with fakes for time and transport.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import log_lines
from txmetrics_tcp import Gone, Key, Metric, MetricKind, MetricsFactory, Operation, Status
from txmetrics_tcp._codec.framing import StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp.relay import _intake
from txmetrics_tcp.relay._intake import (
    GATHER,
    IDENTITY_LIMIT,
    MAX_GATHERED,
    MAX_NAME,
    Endpoint,
    Intake,
    Stream,
)
from txmetrics_tcp.relay._limits import OVERLOAD, SourceLimits
from txmetrics_tcp.relay._merge import Merger
from txmetrics_tcp.relay.collector import CollectorService
from txmetrics_tcp.testing import FakeReactor

GRACE = 5.0


class FakeTransport:
    def __init__(self) -> None:
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class FakeProtocol:
    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.batch_bytes = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True


def events(number: int, name: str = "n") -> list[Event]:
    key = Key.of(MetricKind.COUNTER, name)
    return [Metric(key, Operation.INCREMENT_COUNTER, 1, None)] * number


class IntakeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines = log_lines(self, log_throttle, _intake)
        self.reactor = FakeReactor()
        self.recorder = MetricsFactory(self.reactor).recorder
        limits = SourceLimits(series=10, events=100, bytes=10_000)
        merger = Merger(self.recorder, max_series=limits.series, collector_id="me", gathers=True)
        # A clock of its own, since the reactor's may be set back.
        self.monotonic = 100.0
        self.intake = Intake(
            *(self.reactor, self.recorder, merger, "me", "instance", limits, GRACE),
            monotonic=lambda: self.monotonic,
        )
        self.intake.start()
        self.addCleanup(self.intake.stop)

    def stream(self, endpoint: Endpoint | None = None) -> Stream:
        protocol: Any = FakeProtocol()
        self.protocol = protocol
        return Stream(self.intake, protocol, "peer", endpoint)

    def begun(self, name: str = "w", started: int | None = 1, **more: Any) -> Stream:
        stream = self.stream(**more)
        stream.received([Status(name, started)])
        return stream

    def value(self, name: str, **labels: str) -> float | None:
        self.intake.publish()
        return self.recorded(name, **labels)

    def recorded(self, name: str, **labels: str) -> float | None:
        found = [
            total
            for key, total in self.recorder.snapshot().items()
            if key.name == name and dict(key.labels) == labels
        ]
        return found[0] if found else None  # type: ignore[return-value]

    def figure(self, name: str, **labels: str) -> float | None:
        return self.value(f"txmetrics_{name}", **labels)


class GatherTests(IntakeTestCase):
    """Events are recorded at once after a quiet time, and otherwise gathered."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.other = self.begun("one"), self.begun("other")
        self.monotonic += 2 * GATHER
        self.one.received(events(1))

    def test_quiet(self) -> None:
        """The first event is recorded at once."""
        self.assertEqual(self.recorded("n"), 1)

    def test_timer(self) -> None:
        """The events of all sources are recorded together, after a while."""
        self.monotonic += GATHER / 2
        self.other.received(events(2))
        self.one.received(events(4))
        self.assertEqual(self.recorded("n"), 1)
        self.reactor.pump([GATHER / 2])
        self.assertEqual(self.recorded("n"), 7)

    def test_clock_set_back(self) -> None:
        """A late timer delays events until the next read only, and is cancelled then."""
        self.other.received(events(2))
        self.reactor.pump([GATHER * 0.6])
        self.monotonic += 2 * GATHER
        self.one.received(events(4))
        self.assertEqual(self.recorded("n"), 7)
        self.one.received(events(8))
        self.reactor.pump([GATHER * 0.6])
        self.assertEqual(self.recorded("n"), 7)

    def test_many(self) -> None:
        """Many events are not held back."""
        self.one.received(events(MAX_GATHERED - 1))
        self.assertEqual(self.recorded("n"), 1)
        self.one.received(events(1))
        self.assertEqual(self.recorded("n"), 1 + MAX_GATHERED)

    def test_gauges(self) -> None:
        """Gauges of sums count as well."""
        self.one.received(
            [
                Metric(Key.of(MetricKind.GAUGE, f"g{number}"), Operation.SET_GAUGE, 1.0, None)
                for number in range(9)
            ]
        )
        self.assertEqual(self.intake.merger.waiting, 9)

    def test_gone(self) -> None:
        """The end of a series comes after the events before it."""
        key = Key.of(MetricKind.COUNTER, "n")
        self.other.received([*events(2), Gone(key, None)])
        self.one.received([Gone(key, None)])
        self.one.received(events(4))
        self.intake.flush()
        self.assertEqual(self.recorded("n"), 4)

    def test_dead(self) -> None:
        """What a source has sent before it is declared dead is recorded."""
        self.other.received(events(2))
        assert self.other.instance is not None
        self.intake.dead(self.other.instance)
        self.assertEqual(self.recorded("n"), 3)

    def test_stop(self) -> None:
        """Nothing stays behind, and no timer."""
        self.one.received(events(2))
        self.intake.stop()
        self.assertEqual(self.recorded("n"), 3)
        self.assertEqual(
            [call for call in self.reactor.getDelayedCalls() if call.func == self.intake.flush], []
        )


class StopTests(SynchronousTestCase):
    def test_beforeConnections(self) -> None:
        """A service that stops records what it has gathered first, before the exporter stops."""
        reactor = FakeReactor()
        recorder = MetricsFactory(reactor).recorder
        service = CollectorService(reactor, recorder)
        slow = Service()
        ended: Deferred[None] = Deferred()
        slow.stopService = lambda: ended  # type: ignore[method-assign]
        slow.setServiceParent(service)
        service.startService()
        self.addCleanup(ended.callback, None)
        protocol: Any = FakeProtocol()
        stream = Stream(service._intake, protocol, "peer")
        stream.received([Status("w", 1), *events(1)])
        stream.received(events(2))
        service.stopService()
        self.assertEqual(recorder.snapshot()[Key.of(MetricKind.COUNTER, "n")], 3)


class StreamTests(IntakeTestCase):
    def test_information(self) -> None:
        """The collector's identity is the first series."""
        self.assertEqual(
            next(iter(self.recorder.snapshot())),
            Key.of(MetricKind.GAUGE, "txmetrics_collector_info", {"id": "me"}),
        )

    def test_grace(self) -> None:
        """A source without a connection is dead after a while, and its figures are forgotten."""
        stream = self.begun()
        stream.received(events(3))
        self.assertEqual(self.figure("collector_source_connected", instance="w"), 1)
        stream.lost(ConnectionError())
        self.assertEqual(self.figure("collector_source_connected", instance="w"), 0)
        self.reactor.pump([GRACE / 2])
        self.assertEqual(self.figure("collector_sources"), 1)
        self.reactor.pump([GRACE / 2, 0])
        self.assertEqual(self.figure("collector_sources"), 0)
        self.assertIsNone(self.figure("collector_source_connected", instance="w"))
        self.assertEqual(self.value("n"), 3)

    def test_reconnection(self) -> None:
        """A source that connects again in time is the same."""
        self.begun().lost(None)
        self.reactor.pump([GRACE / 2])
        self.begun().received(events(1))
        self.reactor.pump([GRACE, 0])
        self.assertEqual(self.figure("collector_source_connections_total", instance="w"), 2)
        self.assertEqual(self.figure("collector_source_connected", instance="w"), 1)

    def test_duplicate(self) -> None:
        """A source that is connected already is disconnected."""
        self.begun()
        self.begun()
        self.assertTrue(self.protocol.closed)
        self.assertEqual(self.figure("collector_cut_total", reason="duplicate"), 1)
        self.assertEqual(len(self.lines), 1)

    def test_loop(self) -> None:
        stream = self.begun()
        info = Key.of(MetricKind.GAUGE, "txmetrics_collector_info", {"id": "me"})
        stream.received([*events(1), Metric(info, Operation.SET_GAUGE, 1.0, None), *events(5)])
        self.assertTrue(self.protocol.closed)
        self.assertEqual(self.figure("collector_cut_total", reason="loop"), 1)
        self.assertEqual(self.figure("collector_sources"), 0)
        stream.received(events(5))
        stream.lost(None)
        self.assertEqual(self.value("n"), 1)
        self.assertEqual(len(self.lines), 1)

    def test_silent(self) -> None:
        """A process that connects and sends nothing is disconnected."""
        self.stream()
        self.reactor.pump([IDENTITY_LIMIT, 0])
        self.assertTrue(self.protocol.closed)
        self.assertEqual(self.figure("collector_cut_total", reason="silent"), 1)
        self.assertEqual(len(self.lines), 1)

    def test_noStatus(self) -> None:
        """A process that does not say who it is is disconnected."""
        self.stream().received(events(1))
        self.assertTrue(self.protocol.closed)
        self.assertEqual(self.figure("collector_cut_total", reason="protocol"), 1)
        self.assertIsNone(self.value("n"))
        self.assertEqual(len(self.lines), 1)

    def test_invalid(self) -> None:
        stream = self.begun()
        stream.lost(StreamError("bad"))
        self.assertEqual(
            self.figure("collector_source_cut_total", instance="w", reason="protocol"), 1
        )
        self.assertEqual(len(self.lines), 1)

    def test_longName(self) -> None:
        self.begun("x" * 2 * MAX_NAME)
        self.assertEqual(self.figure("collector_source_connected", instance="x" * MAX_NAME), 1)

    def test_rate(self) -> None:
        """A source that is over the limit is not read for a while, and then disconnected."""
        stream, protocol = self.begun(), self.protocol
        began = self.reactor.seconds()
        while not protocol.closed:
            stream.received(events(200))
            self.assertTrue(protocol.transport.paused or protocol.closed)
            while protocol.transport.paused and not protocol.closed:
                self.reactor.advance(0.1)
        self.assertGreaterEqual(self.reactor.seconds() - began, OVERLOAD)
        stream.lost(None)
        self.assertEqual(
            self.figure("collector_source_cut_total", instance="w", reason="events"), 1
        )
        self.assertEqual(len(self.lines), 1)

    def test_rateOfConnections(self) -> None:
        """Connecting again brings no new allowance."""
        stream = self.begun()
        stream.received(events(100))
        stream.lost(None)
        stream = self.begun()
        self.assertTrue(self.protocol.transport.paused)
        stream.lost(None)
        self.reactor.advance(2)
        self.begun().received(events(50))
        self.assertFalse(self.protocol.transport.paused)

    def test_disconnected(self) -> None:
        """Of many disconnected sources, the first ones are declared dead early."""
        self.intake._max_disconnected = 2
        for name in "abcd":
            self.begun(name).lost(None)
        self.assertEqual(list(self.intake.instances), ["c", "d"])
        self.begun("c")
        self.begun("e").lost(None)
        self.assertEqual(list(self.intake.instances), ["c", "d", "e"])

    def test_controlCharacters(self) -> None:
        """A log line about a source is one line, without control characters."""
        for name in ("evil\n\x1b[31m", "x" * 5000):
            self.begun(name)
            self.begun(name)
            self.begun(name).close("events")
        self.assertTrue(self.lines)
        for line in self.lines:
            self.assertTrue(line.isprintable(), line)
            self.assertLess(len(line), 400)

    def test_series(self) -> None:
        """Too many series are ignored, counted, and logged once."""
        stream = self.begun()
        for number in range(12):
            stream.received(events(1, f"n{number}"))
        self.assertEqual(
            self.figure("collector_source_missed_events_total", instance="w", side="collector"), 2
        )
        self.intake.publish()
        [line] = self.lines
        self.assertIn("it has more than 10 series", line)


class EndpointTests(IntakeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.endpoint = Endpoint(self.intake.dead)

    def test_replaced(self) -> None:
        """At one endpoint there is one process: a new one replaces the one before at once."""
        self.begun(endpoint=self.endpoint).lost(None)
        self.begun("w", 2, endpoint=self.endpoint)
        self.assertEqual(list(self.intake.instances), ["w"])
        self.assertEqual(self.figure("collector_source_connections_total", instance="w"), 1)

    def test_sameProcess(self) -> None:
        self.begun(endpoint=self.endpoint).lost(None)
        self.begun(endpoint=self.endpoint)
        self.assertEqual(self.figure("collector_source_connections_total", instance="w"), 2)

    def test_connectedElsewhere(self) -> None:
        """A process that is connected from another endpoint now is not dead."""
        self.begun("a", endpoint=self.endpoint).lost(None)
        stream = self.begun("a", endpoint=Endpoint(self.intake.dead))
        self.begun("b", endpoint=self.endpoint)
        stream.received(events(3))
        self.assertEqual(self.value("n"), 3)
        self.assertEqual(list(self.intake.instances), ["a", "b"])

    def test_rust(self) -> None:
        """A server without a status has the name of its endpoint."""
        for _ in range(2):
            stream = self.stream(self.endpoint)
            self.reactor.pump([IDENTITY_LIMIT, 0])
            stream.received(events(2))
            stream.lost(None)
        self.assertEqual(list(self.intake.instances), ["peer"])
        self.assertEqual(self.value("n"), 4)
