"""
Exporters in forked processes.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest import skipIf

from tests import DESCRIPTORS, no_descriptors
from tests.forking import in_child, warnings_of_forking_off
from tests.loopback import LoopbackTestCase, reactor
from tests.reader import FakeClient
from txmetrics_tcp import ExporterSettings, MetricsFactory
from txmetrics_tcp.testing import FakeReactor


class ForkTests(LoopbackTestCase):
    def test_notListening(self) -> None:
        """
        A factory that does not listen yet works in a child. twistd needs this, since it makes the
        service before it daemonizes.
        """
        factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))

        def work() -> object:
            factory.recorder.counter("c").increment()
            return factory.silenced, list(factory.recorder.snapshot().values())

        self.assertEqual(in_child(work), "(False, [1])")

    async def test_silenced(self) -> None:
        """A listening factory is silenced in a child, and still works in the parent."""
        factory = await self.exporter()
        client = await self.connect()
        counter = factory.recorder.counter("c")
        counter.increment()

        def work() -> object:
            for _ in range(5000):
                counter.increment(1000)
            recorder = factory.recorder
            # The parent's event may have been pending at the fork.
            total = sum(recorder.snapshot().values())
            return recorder.silenced, factory.stats().clients, total <= 1

        self.assertEqual(await self.in_thread(in_child, work), "(True, (), True)")
        counter.increment(2)
        await self.in_thread(client.read, until=lambda: sum(client.reader.values("c")) == 3)
        self.assertEqual(len(factory.present), 1)

    async def test_connectionsStayWithParent(self) -> None:
        """A child does not keep connections and ports open after the parent has closed them."""
        factory = await self.exporter()
        port = self.address.port  # type: ignore[attr-defined]
        client = await self.connect()
        parents, childs = socket.socketpair()
        with warnings_of_forking_off():
            child = os.fork()
        if child == 0:
            try:
                parents.close()
                childs.recv(1)
            finally:
                os._exit(0)
        try:
            factory.recorder.counter("c").increment()
            await self.in_thread(client.read, until=lambda: client.reader.values("c") == [1])
            stopped = self.service.stop()
            await self.in_thread(client.read)
            await stopped
            self.assertNotEqual(self.socket(socket.AF_INET).connect_ex(("127.0.0.1", port)), 0)
        finally:
            parents.close()
            childs.close()
            await self.in_thread(os.waitpid, child, 0)

    async def test_socketFileStays(self) -> None:
        """A child that closes its copy, and ends, does not remove the parent's socket file."""
        path = os.path.relpath(self.mktemp())
        await self.exporter(endpoint=f"unix:{path}")

        def close() -> object:
            port: Any = self.service._ports[0]
            # The epoll reactor of a child cannot remove the port.
            port.stopReading = lambda: None
            port.connectionLost(None)
            return os.path.exists(path)

        self.assertEqual(in_child(close), "True")
        self.assertTrue(os.path.exists(path))

    async def test_whichAreSilenced(self) -> None:
        """A child silences a factory only if it listens or has clients."""
        reactor = FakeReactor()
        idle, stopped, listening, connected = (MetricsFactory(reactor) for _ in range(4))
        self.assertFalse(idle.silenced)
        stopped.doStart()
        stopped.doStop()
        listening.doStart()
        FakeClient(connected)
        factories = (idle, stopped, listening, connected)
        self.assertEqual(
            in_child(lambda: [one.silenced for one in factories]), "[False, False, True, True]"
        )
        listening.doStop()

    @skipIf(no_descriptors, no_descriptors)
    async def test_descriptorsReplaced(self) -> None:
        """In a child, the descriptors of port and connections are /dev/null, not inheritable."""
        factory = await self.exporter()
        await self.connect()
        [protocol] = factory.present
        numbers = [protocol.transport.fileno(), self.service._ports[0].fileno()]

        def open_files() -> list[str]:
            # Without the listing's own descriptor, which is closed.
            present = [DESCRIPTORS / number for number in os.listdir(DESCRIPTORS)]
            return [os.readlink(one) for one in present if os.path.lexists(one)]

        def look() -> object:
            return (
                [os.readlink(DESCRIPTORS / str(number)) for number in numbers],
                [os.get_inheritable(number) for number in numbers],
                open_files().count(os.devnull) - before,
            )

        before = open_files().count(os.devnull)
        self.assertEqual(in_child(look), repr(([os.devnull] * 2, [False] * 2, 2)))
