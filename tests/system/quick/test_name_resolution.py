"""
Clients of host names: with several addresses, and with a name server that does not answer.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase

from tests.commands import Child, CommandTestCase
from tests.connecting import FakeResolver
from tests.daemon import STUCK_METRICS_TCP
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


class StuckTests(CommandTestCase):
    """A command does not wait for a look-up of a host name when it ends."""

    def stuck(self, *arguments: str, **options: Any) -> Child:
        return self.spawn(*STUCK_METRICS_TCP, *arguments, "metrics.example:5000", **options)

    async def test_interrupted(self) -> None:
        for command, name, code in (
            (("tail",), "INT", 130),
            (("stats",), "TERM", 143),
            (("record", self.mktemp()), "INT", 1),
        ):
            child = self.stuck(*command)
            await child.says("looking up")
            child.signal(name)
            self.assertEqual(await child.ended, code)

    async def test_signalInThread(self) -> None:
        """A signal that the system delivers to the look-up's thread ends the command as well."""
        python, option, program = STUCK_METRICS_TCP
        send = "signal.pthread_kill(threading.get_ident(), signal.SIGINT)"
        signalled = program.replace("threading.Event", f"{send}\n    threading.Event")
        child = self.spawn(python, option, signalled, "tail", "metrics.example:5000")
        self.assertEqual(await child.ended, 130)

    async def test_duration(self) -> None:
        """The limit of time ends the command, with its message last."""
        child = self.stuck("stats", "--duration", "0.1")
        self.assertEqual(await child.ended, 1)
        self.assertRegex(child.err, r"no connection to metrics\.example:5000 within 100 ms\n$")

    async def test_viewer(self) -> None:
        child = self.stuck("observe", usePTY=True)
        # Both are on the terminal, in any order.
        await child.prints("looking up")
        await child.prints("q.*uit")
        child.transport.write(b"q")  # type: ignore[union-attr]
        self.assertEqual(await child.ended, 0)
