"""
An endpoint that passes the received bytes to a function.
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
    """The raw bytes and the events of a real connection."""

    timeout = 30

    async def test_otherServer(self) -> None:
        """Received pieces are passed on, up to the first invalid frame."""
        serving = Factory.forProtocol(Talking)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(serving)
        self.addCleanup(listening.stopListening)
        pieces: list[bytes] = []
        log: list[object] = []
        done: Deferred[None] = Deferred()

        def changed(state: object) -> None:
            if isinstance(state, Disconnected):
                log.append(type(state.reason.value))
            if isinstance(state, Waiting) and len(log) == 2:
                # Called later, since the service is calling this function.
                reactor.callLater(0, done.callback, None)

        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
        service = MetricsClientService(
            reactor,
            TappedEndpoint(endpoint, pieces.append),
            received_many=lambda events: None,
            observer=changed,
            retry_policy=lambda failures: 0.0 if len(log) < 2 else 60.0,
        )
        Talking.data = [STREAM, STREAM + b"\x02\xff\xff"]
        service.startService()
        await done
        await service.stopService()
        received = b"".join(pieces)
        self.assertEqual(received[: 2 * len(STREAM)], STREAM + STREAM)
        # If the invalid frame arrives in pieces, its beginning is passed on.
        self.assertIn(received[2 * len(STREAM) :], (b"", b"\x02", b"\x02\xff"))
        self.assertEqual(log, [ConnectionDone, StreamError])


class Talking(Protocol):
    """Sends the next piece of data to each client, and closes the connection."""

    data: list[bytes]

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.data:
            self.transport.write(self.data.pop(0))
        self.transport.loseConnection()
