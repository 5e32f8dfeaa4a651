"""
What only mutants of the protocol have shown that nobody looked at; see docs/mutation-testing.md.
"""

from __future__ import annotations

from twisted.logger import capturedLogs

from tests.reader import FakeClient
from tests.test_server_details import DetailTestCase
from txmetrics_tcp.testing import PausingTransport


class ProtocolDetailTests(DetailTestCase):
    def stuck(self, **more: object) -> FakeClient:
        """A client that has something to read, and does not."""
        factory = self.factory(**more)
        client = FakeClient(factory, limit=1)
        client.read_all(self.reactor)
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.assertTrue(client.transport.producer_paused)
        return client

    def test_deadAfter(self) -> None:
        """Who takes nothing for so long is cut off then, with one line in the log."""
        client = self.stuck(dead_after=3)
        with capturedLogs() as logged:
            self.reactor.advance(2.99)
            self.assertFalse(client.transport.aborted)
            self.reactor.advance(0.01)
            self.assertTrue(client.transport.aborted)
        [line] = [event["log_format"].format(**event) for event in logged]
        self.assertIn(f"{client.protocol.address} has not taken what waits for it for 3 sec", line)
        client.transport.lose()
        self.reactor.advance(10)

    def test_aliveAgain(self) -> None:
        """Who takes something in time has all of the time again."""
        client = self.stuck(dead_after=3)
        for _ in range(5):
            self.reactor.advance(2.9)
            client.read_all(self.reactor)
            client.protocol.factory.recorder.counter("c").increment()
            self.reactor.settle()
        self.assertFalse(client.transport.aborted)
        client.transport.lose()
        self.reactor.advance(10)

    def test_knocks(self) -> None:
        """Who ended its sending side is asked every half second whether it reads."""
        client = FakeClient(self.factory())
        client.read_all(self.reactor)
        client.transport.end_of_file()
        knocks = []
        for _ in range(4):
            self.reactor.advance(0.25)
            knocks.append(client.transport.drain())
        self.assertEqual(knocks, [b"", b"\0", b"", b"\0"])

    def test_atTheBeginning(self) -> None:
        """A new client's account is that of what it was sent."""
        factory = self.factory()
        transport = PausingTransport()
        protocol = factory.buildProtocol(transport.getPeer())
        transport.connect(protocol)
        self.reactor.settle()
        stats = protocol.stats()
        self.assertEqual(stats.bytes_written, len(transport.drain()))
        self.assertEqual((stats.high_water, stats.waiting, stats.written), (0, 0, 0))

    def test_stopProducing(self) -> None:
        """Once the transport has said that it is over, nothing more is written to it."""
        factory = self.factory()
        client = FakeClient(factory)
        client.read_all(self.reactor)
        client.protocol.stopProducing()
        factory.recorder.counter("c").increment()
        self.reactor.settle()
        self.assertEqual(client.transport.drain(), b"")
