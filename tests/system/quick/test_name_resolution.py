"""
Clients of a host name with several addresses, over real connections.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase

from tests.connecting import FakeResolver
from txmetrics_tcp import Event, MetricsFactory, Status
from txmetrics_tcp._client.service import MetricsClientService

reactor: Any = _reactor


class AddressTests(TestCase):
    timeout = 60

    async def test_firstAddressDead(self) -> None:
        """If no server listens at the first address, the client connects to the second."""
        server = MetricsFactory(reactor)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(server)
        number = port.getHost().port
        resolver = FakeResolver()
        resolver.addresses = [
            IPv4Address("TCP", "127.0.0.2", number),
            IPv4Address("TCP", "127.0.0.1", number),
        ]
        self.addCleanup(
            reactor.installNameResolver, reactor.installNameResolver(cast(Any, resolver))
        )
        first: Deferred[list[Event]] = Deferred()
        service = MetricsClientService(
            reactor,
            f"metrics.example:{number}",
            received_many=lambda events: first.called or first.callback(events),
        )
        service.startService()
        events = await first
        self.assertIsInstance(events[0], Status)
        await service.stopService()
        server.stop()
        await port.stopListening()
