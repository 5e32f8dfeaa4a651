"""
The cable between a client and the exporter is pulled: neither is notified.
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
"""The shortest that the kernel knows."""


class CableTests(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cable = Cable(self)

    async def exporter_there(self, **settings: Any) -> WatchedFactory:
        """Listen at one end of the cable."""
        self.factory = WatchedFactory(reactor, ExporterSettings(own_metrics=False, **settings))
        listening = self.cable.listen()
        listening.setblocking(False)
        self.there = listening.getsockname()
        endpoint = AdoptedStreamServerEndpoint(reactor, listening.detach(), socket.AF_INET)
        self.service = MetricsService(self.factory, [endpoint])
        self._services.append(self.service)
        await self.service.listen()
        return self.factory

    async def connect_there(self, from_client: bool = True) -> SocketClient:
        connected = self.cable.connect(self.there, from_client=from_client)
        self._sockets.append(connected)
        await self.factory.connections(len(self.factory.protocols) + 1)
        client = SocketClient(connected)
        await self.in_thread(client.read_snapshot)
        return client

    async def test_idle(self) -> None:
        """Though nothing is sent, the exporter finds that the client is gone; others go on."""
        self.patch(MetricsProtocol, "keepalive", SOON)
        factory = await self.exporter_there()
        await self.connect_there()
        near = await self.connect_there(from_client=False)
        self.cable.pull()
        await factory.clients(1)
        self.assertEqual(factory.present, [factory.protocols[1]])
        factory.recorder.counter("c").increment()
        await self.in_thread(near.read, until=lambda: near.reader.values("c") == [1])

    async def test_data_outstanding(self) -> None:
        """Something was sent to the client: it has so long to take it, and no longer."""
        factory = await self.exporter_there(dead_after=0.2)
        await self.connect_there()
        near = await self.connect_there(from_client=False)
        self.cable.pull()
        factory.recorder.counter("c").increment()
        await factory.clients(1)
        self.assertEqual(factory.present, [factory.protocols[1]])
        factory.recorder.counter("c").increment()
        await self.in_thread(near.read, until=lambda: near.reader.values("c") == [1, 1])

    async def test_plugged_in_again(self) -> None:
        """Soon enough, it is as if nothing had happened."""
        factory = await self.exporter_there()
        far = await self.connect_there()
        near = await self.connect_there(from_client=False)
        self.cable.pull()
        for _ in range(500):
            factory.recorder.counter("c").increment()
        await self.in_thread(near.read, until=lambda: near.reader.bits() == exact_totals(factory))
        self.cable.plug_in()
        await self.in_thread(far.read, until=lambda: far.reader.bits() == exact_totals(factory))
        self.assertEqual((far.events, factory.stats().dropped_by_clients), (500, 0))

    async def test_viewer(self) -> None:
        """The other way round: a viewer notices that the exporter is gone."""
        self.patch(MetricsClientProtocol, "keepalive", SOON)
        await self.exporter_there()
        lost: Deferred[object] = Deferred()
        came: Deferred[None] = Deferred()

        def received(event: object) -> None:
            if not came.called:
                came.callback(None)

        connected = self.cable.connect(self.there)
        connected.setblocking(False)
        viewer = MetricsClientFactory(received, lost=lambda protocol, reason: lost.callback(None))
        reactor.adoptStreamConnection(connected.fileno(), socket.AF_INET, viewer)
        connected.close()
        await came
        self.cable.pull()
        await lost
