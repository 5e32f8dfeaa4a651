"""
``metrics-tcp prometheus`` as a process, with real servers and HTTP clients.
"""

from __future__ import annotations

import re

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.commands import Child, CommandTestCase, reactor
from tests.daemon import occupied_port
from tests.scraping import get
from txmetrics_tcp.bridges._site import MAX_CONNECTIONS

SERVED = r"metrics are served on (127\.0\.0\.1:\d+), at /metrics"


class ProcessTests(CommandTestCase):
    def start(self, *arguments: str) -> Child:
        return self.child("prometheus", "--listen", "0", *arguments)

    async def end(self, child: Child) -> None:
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)

    async def test_scrape(self) -> None:
        """Totals of a server, and the states of all, are served over HTTP."""
        port = self.serve()
        self.counter.increment(3)
        self.recorder.histogram("latency_seconds").record(0.5)
        foreign = str(occupied_port(self))
        child = self.start(port, foreign)
        address = (await child.says(SERVED))[1]
        await child.says(f"receiving metrics from 127.0.0.1:{port}")
        self.counter.increment(2)
        source = f'source="127.0.0.1:{port}"'
        total = f'\nrequests_total{{route="/",{source}}} 5\n'
        body = ""
        # The last events arrive a little later.
        while total not in body:
            _, body = await get(address)
        self.assertIn(f"\nlatency_seconds_count{{{source}}} 1\n", body)
        self.assertIn(f"\ntxmetrics_source_connected{{{source}}} 1\n", body)
        code, page = await get(address, f"/metrics/127.0.0.1:{foreign}")
        self.assertEqual(code, 200)
        self.assertNotIn("requests_total", page)
        code, names = await get(address, "/metrics/nowhere")
        self.assertEqual((code, f"  127.0.0.1:{port}\n" in names), (404, True))
        accept = "application/openmetrics-text;version=1.0.0"
        _, body = await get(address, Accept=accept)
        self.assertTrue(body.endswith("# EOF\n"))
        await self.end(child)

    async def test_serverStops(self) -> None:
        """The series of a server that has stopped vanish; its state stays."""
        port = self.serve()
        self.counter.increment(3)
        child = self.start(port, "--stale-after", "1ms")
        address = (await child.says(SERVED))[1]
        await child.says("receiving metrics from")
        self.port.stopListening()
        await self.server.stop(0)
        await child.says("disconnected from")
        body = "requests_total"
        while "requests_total" in body:
            _, body = await get(address)
        self.assertIn(f'txmetrics_source_connected{{source="127.0.0.1:{port}"}} 0\n', body)
        self.assertIn(f'txmetrics_source_connections_total{{source="127.0.0.1:{port}"}} 1\n', body)
        await self.end(child)

    async def test_manyClients(self) -> None:
        """Very many idle clients do not keep others from reading; the command ends cleanly."""
        child = self.start(self.serve())
        address = (await child.says(SERVED))[1]
        host, _, port = address.partition(":")
        endpoint = TCP4ClientEndpoint(reactor, host, int(port))
        clients = [await connectProtocol(endpoint, _Idle()) for _ in range(MAX_CONNECTIONS + 10)]
        self.assertEqual((await get(address))[0], 200)
        await child.says("Rejected .*: connection limit reached")
        await self.end(child)
        while not all(client.closed for client in clients):
            await next_iteration()

    async def test_interrupted(self) -> None:
        """SIGINT ends the command, even while no server can be reached."""
        child = self.start("1")
        await child.says("cannot connect to 127.0.0.1:1")
        child.signal("INT")
        self.assertEqual(await child.ended, 0)

    async def test_portInUse(self) -> None:
        port = str(occupied_port(self))
        child = self.child("prometheus", "1", "--listen", port)
        self.assertEqual(await child.ended, 1)
        self.assertEqual(
            child.err, f"metrics-tcp: cannot listen on {port}: [Errno 98] Address already in use\n"
        )

    async def test_clash(self) -> None:
        """A metric that cannot be exposed is reported once."""
        port = self.serve()
        self.recorder.gauge("a.b").set(1)
        self.recorder.counter("a_b").increment()
        child = self.start(port)
        address = (await child.says(SERVED))[1]
        await child.says("receiving metrics from")
        for _ in range(2):
            _, body = await get(address)
            self.assertIn('left_out{reason="clash"} 1\n', body)
        await child.says("The metric 'a_b' is not exposed to Prometheus")
        self.assertEqual(len(re.findall("is not exposed", child.err)), 1)
        await self.end(child)


class _Idle(Protocol):
    """
    A client that sends nothing.

    @ivar closed: whether the connection has ended.
    """

    closed = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = True


async def next_iteration() -> None:
    """Wait for the next reactor iteration."""
    await deferLater(reactor, 0)
