"""
The sources of a stream as endpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast
from unittest import mock

from twisted.internet.address import HostnameAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from txmetrics_tcp import Connected, Disconnected, Event, Metric, MetricsClientService, Status
from txmetrics_tcp._codec.decoder import decode

missing = needs("zstandard") or needs("nats")
if not missing:
    from tests.unit.relay.test_messages import KEYS, START, Publisher, Server
    from txmetrics_tcp.relay import _feed
    from txmetrics_tcp.relay._address import NatsAddress
    from txmetrics_tcp.relay._feed import FeedSource, NatsFeed
    from txmetrics_tcp.relay._messages import Following, Message


class FakeReader:
    def __init__(self) -> None:
        self.pauses: set[object] = set()

    def pause(self, who: object) -> None:
        self.pauses.add(who)

    def resume(self, who: object) -> None:
        self.pauses.discard(who)


class FeedTests(SynchronousTestCase):
    skip = missing

    def setUp(self) -> None:
        self.clock = Clock()
        self.reader: Any = FakeReader()
        self.said: list[str] = []
        self.changes = 0
        self.events: list[Event] = []
        self.states: list[str] = []
        self.publisher = Publisher(Server())
        self.source = FeedSource(
            self.clock,
            "web",
            HostnameAddress(b"broker", 4222),
            Following(),
            self.changed,
            self.said.append,
            self.reader,
        )

    def changed(self) -> None:
        self.changes += 1

    def client(self) -> MetricsClientService:
        def observer(state: object) -> None:
            if isinstance(state, Connected):
                self.states.append("connected")
            elif isinstance(state, Disconnected):
                self.states.append(str(state))

        service = MetricsClientService(
            self.clock, self.source, received_many=self.events.extend, observer=observer
        )
        service.startService()
        return service

    def messages(self) -> list[Message]:
        """Return the next messages of the publisher."""
        found = []
        while (message := self.publisher.publishing.message()) is not None:
            found.append(message)
            self.publisher.publishing.acknowledged(self.publisher.now)
        return found

    def deliver(self, *messages: Message) -> None:
        for message in messages:
            self.source.receive(message, message.time_ns)
        self.clock.advance(0)

    def record(self, value: int = 1) -> list[Message]:
        self.publisher.record(KEYS[0], value)
        self.publisher.cut()
        return self.messages()

    def values(self) -> list[float]:
        return [one.value for one in self.events if isinstance(one, Metric)]

    def test_pending(self) -> None:
        """A client that connects later gets the stream from its beginning."""
        self.deliver(*self.messages(), *self.record(3))
        self.assertTrue(self.source.live)
        self.assertEqual(self.changes, 1)
        self.client()
        self.clock.advance(0)
        self.assertIsInstance(self.events[0], Status)
        self.assertEqual(self.values(), [3])
        self.deliver(*self.record(4))
        self.assertEqual((self.values(), self.states), ([3, 4], ["connected"]))

    def test_waiting(self) -> None:
        """An attempt to connect waits for the source, and can be cancelled."""
        service = self.client()
        self.clock.advance(1000)
        self.assertEqual(self.states, [])
        service.stopService()
        self.states.clear()
        service.startService()
        self.deliver(*self.messages(), *self.record(3))
        self.assertEqual((self.values(), self.states), ([3], ["connected"]))

    def test_loss(self) -> None:
        """A loss does not end the connection: it is counted and reported."""
        self.client()
        self.deliver(*self.messages(), *self.record(1))
        self.record(2)
        self.deliver(*self.record(3))
        self.assertEqual(len(self.said), 1)
        self.assertIn("web: messages are missing; totals are not exact until", self.said[0])
        self.assertEqual(self.values(), [1])
        self.publisher.snapshot()
        self.deliver(*self.messages())
        self.assertEqual(self.values(), [1, 6])
        self.assertIn("web: totals are exact again; 2 events were missed", self.said[1])
        last = [one for one in self.events if isinstance(one, Status)][-1]
        self.assertEqual(last.dropped_client, 2)
        self.assertEqual(self.states, ["connected"])

    def test_beginsAgain(self) -> None:
        """A connection ends when the publisher connects to its server again."""
        self.client()
        self.deliver(*self.messages())
        self.publisher.connect()
        self.publisher.snapshot()
        self.deliver(*self.record(1))
        self.assertEqual(self.source.connections, 2)
        self.assertIn("it begins again", self.states[1])
        self.clock.advance(20)
        self.assertEqual(self.states[2:], ["connected"])

    def test_ends(self) -> None:
        self.client()
        self.deliver(*self.messages())
        self.publisher.publishing.close(self.publisher.now)
        changes = self.changes
        self.deliver(*self.messages())
        self.assertFalse(self.source.live)
        self.assertEqual(self.changes, changes + 1)
        self.assertEqual(self.states, ["connected", "its publisher has stopped"])

    def test_lostServer(self) -> None:
        """A source whose publisher has lost its server remains, without a connection."""
        self.client()
        self.deliver(*self.messages(), *self.record(1))
        self.publisher.publishing.disconnected(self.publisher.now)
        self.deliver(*(replace(one, time_ns=START + 1) for one in self.messages()))
        reason = "its publisher has lost the connection to its server"
        self.assertEqual(self.states, ["connected", reason])
        self.assertTrue(self.source.live)
        self.clock.advance(20)
        self.publisher.connect()
        self.publisher.snapshot()
        self.deliver(*self.record(2))
        self.assertEqual(self.states, ["connected", reason, "connected"])
        self.assertEqual(self.values(), [1, 1, 2])
        self.assertEqual(self.said, [])

    def test_silence(self) -> None:
        """The connection ends, also of a client that comes later, until the next snapshot."""
        self.deliver(*self.messages(), *self.record(1))
        self.source.check(START + 16 * 10**9, 0)
        self.client()
        self.clock.advance(0)
        self.assertEqual(self.states, ["connected", "its publisher is silent"])
        self.assertTrue(self.source.live)
        self.clock.advance(20)
        self.deliver(*self.record(2))
        self.publisher.snapshot()
        self.deliver(*self.messages())
        self.assertEqual(self.states[2:], ["connected"])
        self.assertEqual(self.values(), [1, 3])
        self.assertEqual(self.said, [])

    def test_clientLeaves(self) -> None:
        """The next connection begins with the next snapshot."""
        service = self.client()
        self.deliver(*self.messages(), *self.record(1))
        service.stopService()
        self.clock.advance(0)
        service.startService()
        self.deliver(*self.record(2))
        self.assertEqual(self.values(), [1])
        self.publisher.snapshot()
        self.deliver(*self.messages(), *self.record(4))
        self.assertEqual(self.values(), [1, 3, 4])
        statuses = [one for one in self.events if isinstance(one, Status)]
        self.assertEqual([one.dropped_client for one in statuses], [0, 0])

    def test_noClient(self) -> None:
        """What is kept for a client that does not connect is limited."""
        with mock.patch.object(_feed, "MAX_PENDING", 100):
            self.deliver(*self.messages())
            for number in range(20):
                self.deliver(*self.record(number))
            self.client()
            self.clock.advance(0)
            self.assertEqual(self.values(), [])
            self.publisher.snapshot()
            self.deliver(*self.messages())
        self.assertEqual(self.values(), [sum(range(20))])

    def test_pause(self) -> None:
        """A client that pauses stops the reading, and gets what had been requested later."""
        service = self.client()
        self.deliver(*self.messages())
        assert service.protocol is not None
        transport: Any = service.protocol.transport
        transport.pauseProducing()
        self.assertEqual(len(self.reader.pauses), 1)
        self.deliver(*self.record(1))
        self.assertEqual(self.values(), [])
        transport.resumeProducing()
        self.assertEqual((self.values(), self.reader.pauses), ([1], set()))

    def test_endsWhilePaused(self) -> None:
        """A client that has paused gets what had been requested before the connection ends."""
        service = self.client()
        self.deliver(*self.messages())
        assert service.protocol is not None
        transport: Any = service.protocol.transport
        transport.pauseProducing()
        self.deliver(*self.record(1))
        self.publisher.publishing.close(self.publisher.now)
        self.deliver(*self.messages())
        self.assertEqual(self.states, ["connected"])
        transport.resumeProducing()
        self.assertEqual(self.values(), [1])
        self.assertEqual(self.states, ["connected", "its publisher has stopped"])
        self.assertEqual(self.reader.pauses, set())

    def test_stop(self) -> None:
        """When the feed stops, its sources end."""
        self.client()
        self.deliver(*self.messages())
        self.source.stop()
        self.assertFalse(self.source.live)
        self.assertEqual(self.states, ["connected", "its stream is not followed any more"])

    def test_feedStops(self) -> None:
        feed = NatsFeed(
            *(cast("Any", self.clock), NatsAddress("h:1", "S")),
            **{"changed": self.changed, "observer": self.said.append, "say": self.said.append},
        )
        feed.reader.sources["web"] = self.source
        self.client()
        self.deliver(*self.messages())
        self.successResultOf(feed.stop())
        self.assertEqual(feed.sources, [])
        self.assertEqual(len(self.states), 2)

    def test_failingClient(self) -> None:
        """An exception of a client ends its connection only."""
        service = MetricsClientService(self.clock, self.source, received_many=lambda events: 1 / 0)
        service.startService()
        self.deliver(*self.messages())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(service.protocol)


class FramesTests(SynchronousTestCase):
    skip = missing

    def test_same(self) -> None:
        """Frames contain the events that are delivered decoded, also after losses."""
        publisher = Publisher(Server())
        one, other = Following(), Following()
        number = 0
        for step in range(60):
            publisher.record(KEYS[step % 3], step)
            publisher.cut()
            if step % 7 == 0:
                publisher.snapshot()
            while (message := publisher.publishing.message()) is not None:
                publisher.publishing.acknowledged(START)
                number += 1
                if number % 11:
                    events, begins = one.receive(message, START)
                    frames, also = other.receive_frames(message, START)
                    self.assertEqual((events, begins), (list(decode(frames)), also))
        self.assertEqual((one.missed, one.exact), (other.missed, other.exact))
        self.assertGreater(one.missed, 0)
