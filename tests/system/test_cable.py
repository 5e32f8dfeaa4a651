"""
The network cable between a client and the exporter is pulled.  Neither is notified.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint

from tests.cable import Cable
from tests.loopback import LoopbackTestCase, SocketClient, WatchedFactory, reactor
from tests.reader import exact_totals
from txmetrics_tcp import ExporterSettings, MetricsClientFactory, MetricsProtocol, MetricsService
from txmetrics_tcp._client.protocol import MetricsClientProtocol
from txmetrics_tcp._net.keepalive import Keepalive

SOON = Keepalive(idle=1, interval=1, probes=1)
"""The shortest times that the kernel allows."""


class CableTests(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cable = Cable(self)

    async def cable_exporter(self, **settings: Any) -> WatchedFactory:
        """Start an exporter at the server's end of the cable."""
        self.factory = WatchedFactory(reactor, ExporterSettings(own_metrics=False, **settings))
        listening = self.cable.listen()
        listening.setblocking(False)
        self.server_address = listening.getsockname()
        endpoint = AdoptedStreamServerEndpoint(reactor, listening.detach(), socket.AF_INET)
        self.service = MetricsService(self.factory, [endpoint])
        self._services.append(self.service)
        await self.service.listen()
        return self.factory

    async def cable_client(self, from_client: bool = True) -> SocketClient:
        connected = self.cable.connect(self.server_address, from_client=from_client)
        self._sockets.append(connected)
        await self.factory.connections(len(self.factory.protocols) + 1)
        client = SocketClient(connected)
        await self.in_thread(client.read_snapshot)
        return client

    async def test_idle(self) -> None:
        """Without traffic, the exporter detects an unreachable client; others receive events."""
        self.patch(MetricsProtocol, "keepalive", SOON)
        factory = await self.cable_exporter()
        await self.cable_client()
        near = await self.cable_client(from_client=False)
        self.cable.pull()
        await factory.clients(1)
        self.assertEqual(factory.present, [factory.protocols[1]])
        factory.recorder.counter("c").increment()
        await self.in_thread(near.read, until=lambda: near.reader.values("c") == [1])

    async def test_data_outstanding(self) -> None:
        """A client that does not acknowledge data for C{dead_after} is disconnected."""
        factory = await self.cable_exporter(dead_after=0.2)
        await self.cable_client()
        near = await self.cable_client(from_client=False)
        self.cable.pull()
        factory.recorder.counter("c").increment()
        await factory.clients(1)
        self.assertEqual(factory.present, [factory.protocols[1]])
        factory.recorder.counter("c").increment()
        await self.in_thread(near.read, until=lambda: near.reader.values("c") == [1, 1])

    async def test_plugged_in_again(self) -> None:
        """If the cable is plugged in again soon, no event is lost."""
        factory = await self.cable_exporter()
        far = await self.cable_client()
        near = await self.cable_client(from_client=False)
        self.cable.pull()
        for _ in range(500):
            factory.recorder.counter("c").increment()
        await self.in_thread(near.read, until=lambda: near.reader.bits() == exact_totals(factory))
        self.cable.plug_in()
        await self.in_thread(far.read, until=lambda: far.reader.bits() == exact_totals(factory))
        self.assertEqual((far.events, factory.stats().dropped_client), (500, 0))

    async def test_viewer(self) -> None:
        """A viewer detects that the exporter is unreachable."""
        self.patch(MetricsClientProtocol, "keepalive", SOON)
        await self.cable_exporter()
        lost: Deferred[object] = Deferred()
        streaming: Deferred[None] = Deferred()

        def received(event: object) -> None:
            if not streaming.called:
                streaming.callback(None)

        connected = self.cable.connect(self.server_address)
        connected.setblocking(False)
        viewer = MetricsClientFactory(received, lost=lambda protocol, reason: lost.callback(None))
        reactor.adoptStreamConnection(connected.fileno(), socket.AF_INET, viewer)
        connected.close()
        await streaming
        self.cable.pull()
        await lost
