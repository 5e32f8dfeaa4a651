"""
When a reader of sources checks whether they are silent.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests import needs

missing = needs("zstandard") or needs("nats")
if not missing:
    from tests.unit.relay.test_messages import SECOND, START, Publisher, Server
    from txmetrics_tcp.relay import _sources
    from txmetrics_tcp.relay._address import NatsAddress
    from txmetrics_tcp.relay._broker import BrokerError, Received
    from txmetrics_tcp.relay._messages import Message
    from txmetrics_tcp.relay._sources import SourceReader


class FakeBroker:
    def __init__(self, reactor: object, address: str, access: object) -> None:
        self.reads: list[Deferred[list[Received]]] = []

    def reader(self, *arguments: object) -> FakeBroker:
        return self

    def read(self) -> Deferred[list[Received]]:
        self.reads.append(Deferred())
        return self.reads[-1]

    def close(self) -> Deferred[None]:
        return succeed(None)


class FakeSource:
    def __init__(self) -> None:
        self.checks: list[tuple[int, int]] = []
        self.error: Exception | None = None

    def receive(self, message: Message, time_ns: int) -> None:
        pass

    def check(self, now_ns: int, since_ns: int) -> None:
        self.checks.append(((now_ns - START) // SECOND, max(since_ns - START, 0) // SECOND))
        if self.error is not None:
            raise self.error


class ChecksTests(SynchronousTestCase):
    skip = missing

    def setUp(self) -> None:
        self.patch(_sources, "Broker", FakeBroker)
        self.clock: Any = Clock()
        self.clock.callFromThread = None
        self.source = FakeSource()
        self.reader: SourceReader[FakeSource] = SourceReader(
            self.clock,
            NatsAddress.parse("nats://h/S"),
            lambda name: self.source,
            None,
            None,
            None,
        )
        self.reader.startService()
        self.addCleanup(self.reader.stopService)
        self.broker: Any = self.reader._broker

    def deliver(self, time_ns: int, behind: int = 0, token: str = "web") -> None:
        message = Publisher(Server()).take()[0]
        received = Received(
            f"S.{token}.snap", 1, time_ns, behind, message.headers(), message.payload
        )
        self.broker.reads[-1].callback([received])

    def test_time(self) -> None:
        """Time is that of the broker, and continues without messages."""
        self.deliver(START)
        self.clock.pump([1, 1])
        self.broker.reads[-1].callback([])
        self.clock.advance(1)
        self.assertEqual(self.source.checks, [(1, 0), (2, 0), (3, 0)])

    def test_behind(self) -> None:
        """Nothing is checked while the broker has messages."""
        self.deliver(START, behind=1)
        self.clock.pump([1, 1])
        self.assertEqual(self.source.checks, [])

    def test_expired(self) -> None:
        """The broker may have removed the messages that it had."""
        self.deliver(START, behind=1)
        self.broker.reads[-1].callback([])
        self.assertEqual(self.reader.behind, 0)
        self.clock.advance(1)
        self.assertEqual(self.source.checks, [(1, 0)])

    def test_failedCheck(self) -> None:
        """An exception of a source is logged, and checks continue."""
        self.deliver(START)
        self.source.error = ZeroDivisionError()
        self.clock.pump([1, 1])
        self.assertEqual(len(self.source.checks), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_foreignSubjects(self) -> None:
        """Two subjects cannot be those of one source."""
        for token in "%77eb", "%ff", "we%62":
            self.deliver(START, token=token)
        self.deliver(START)
        self.assertEqual((list(self.reader.sources), self.reader.invalid), (["web"], 3))

    def test_manySources(self) -> None:
        """Sources beyond the limit are not followed, which is reported."""
        self.patch(_sources, "MAX_SOURCES", 1)
        self.deliver(START)
        with capturedLogs() as logs:
            self.deliver(START, token="shop")
        self.assertEqual((list(self.reader.sources), self.reader.invalid), (["web"], 1))
        self.assertIn("there are more than 1 sources", formatEvent(logs[0]))

    def test_failing(self) -> None:
        """The time in which the broker cannot be read does not count."""
        self.deliver(START)
        self.broker.reads[-1].errback(BrokerError("gone"))
        self.clock.pump([1, 1])
        self.assertEqual(self.source.checks, [])
        self.deliver(START)
        self.clock.advance(1)
        self.assertEqual(self.source.checks, [(3, 2)])

    def test_paused(self) -> None:
        """Nor does the time in which a client has paused the reader."""
        self.reader.pause(self)
        self.deliver(START)
        self.clock.pump([1, 1])
        self.assertEqual(self.source.checks, [])
        self.reader.resume(self)
        self.clock.advance(1)
        self.assertEqual(self.source.checks, [(3, 2)])

    def test_suspended(self) -> None:
        """Nor does the time in which this process was suspended."""
        self.deliver(START)
        self.clock.advance(60)
        self.assertEqual(self.source.checks, [(60, 60)])
