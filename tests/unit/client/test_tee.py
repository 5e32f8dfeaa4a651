"""
An endpoint whose bytes are seen by another as well.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.recordings import STREAM
from txmetrics_tcp import StreamError
from txmetrics_tcp._client.service import Disconnected, MetricsClientService, Waiting
from txmetrics_tcp._client.tee import TappedEndpoint

reactor: Any = global_reactor


class TapTests(TestCase):
    """The bytes beside the events, from a real connection."""

    timeout = 30

    async def test_otherServer(self) -> None:
        """What comes is handed on, but not the piece that is no stream of metrics."""
        serving = Factory.forProtocol(Talking)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(serving)
        self.addCleanup(listening.stopListening)
        pieces: list[bytes] = []
        log: list[object] = []
        gone: Deferred[None] = Deferred()

        def changed(state: object) -> None:
            if isinstance(state, Disconnected):
                log.append(type(state.reason.value))
            if isinstance(state, Waiting) and len(log) == 2:
                # Not from within the service.
                reactor.callLater(0, gone.callback, None)

        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
        service = MetricsClientService(
            reactor,
            TappedEndpoint(endpoint, pieces.append),
            received_many=lambda events: None,
            observer=changed,
            retry_policy=lambda failures: 0.0 if len(log) < 2 else 60.0,
        )
        Talking.says = [STREAM, b"\x02\xff\xff"]
        service.startService()
        await gone
        await service.stopService()
        self.assertEqual(b"".join(pieces[:1]), STREAM)
        self.assertEqual(b"".join(pieces), STREAM)
        self.assertEqual(log, [ConnectionDone, StreamError])


class Talking(Protocol):
    """Says one thing to each client, and closes."""

    says: list[bytes]

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.says:
            self.transport.write(self.says.pop(0))
        self.transport.loseConnection()
