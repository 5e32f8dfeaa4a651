"""
Exporters in forked processes.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.forking import in_child, is_open, warnings_of_forking_off
from tests.loopback import LoopbackTestCase, reactor
from tests.reader import FakeClient
from tests.recorders import ListRecorder
from txmetrics_tcp import ExporterSettings, MetricsFactory, counter, set_global_recorder
from txmetrics_tcp._exporter import factory as factory_module
from txmetrics_tcp._instruments import facade
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

    async def test_descriptorsClosed(self) -> None:
        """
        In a child, the descriptors of ports and connections of all exporters are closed, even if
        the process has no free descriptors.
        """
        transports = []
        for _ in range(2):
            factory = await self.exporter()
            await self.connect()
            [protocol] = factory.present
            transports += [protocol.transport, self.service._ports[0]]
        numbers = [one.fileno() for one in transports]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)

        def fork_without_descriptors() -> int:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                return os.fork()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        def still_open() -> list[int]:
            return [number for number in numbers if is_open(number)]

        self.assertEqual(still_open(), numbers)
        for fork in (os.fork, fork_without_descriptors):
            self.assertEqual(in_child(still_open, fork), "[]")
        self.assertEqual(still_open(), numbers)

    async def test_warning(self) -> None:
        """
        A child logs a warning at its first event, once for all exporters.  A grandchild logs its
        own.
        """
        counters = [(await self.exporter()).recorder.counter("c") for _ in range(2)]
        lines: list[str | None] = []

        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == "txmetrics_tcp":
                lines.append(formatEvent(event))

        def record() -> list[str | None]:
            globalLogPublisher.addObserver(observe)
            for one in counters * 2:
                one.increment()
            return lines

        def record_again() -> str:
            record()
            lines.clear()
            return in_child(record)

        warning = r"Process \d+ records no metrics: .* Install after forking, in each process"
        self.assertRegex(in_child(record), rf"\A\['{warning}'\]\Z")
        self.assertRegex(in_child(record_again), warning)
        self.assertEqual(in_child(lambda: lines), "[]")

    async def test_logDeadlock(self) -> None:
        """A child can record even if logging deadlocks, which is possible after a fork."""
        handle = (await self.exporter()).recorder.counter("c")
        self.patch(factory_module, "WARNING_TIMEOUT", 0.001)
        never = threading.Event()

        def record() -> None:
            globalLogPublisher.addObserver(lambda event: never.wait())
            handle.increment()

        self.assertEqual(in_child(record), "None")

    async def test_ownRecorder(self) -> None:
        """A child that installs its own recorder before it records logs no warning."""
        factory = await self.exporter()
        self.patch(facade, "_program", facade._Program())
        set_global_recorder(factory.recorder)
        handle = counter("c")
        events: list[LogEvent] = []

        def record() -> object:
            globalLogPublisher.addObserver(events.append)
            recorder = ListRecorder()
            set_global_recorder(recorder)
            handle.increment()
            return len(recorder.entries), events

        self.assertEqual(in_child(record), "(1, [])")

    async def test_inheritedService(self) -> None:
        """In a child, an inherited service has no addresses, and can be stopped."""
        path = os.path.relpath(self.mktemp())
        await self.exporter(endpoint=f"unix:{path}")
        service = self.service

        def look() -> object:
            before = service.addresses
            # The deferred has fired: nothing has to be closed.
            return before, service.recorder.stop().called, service.recorder.addresses

        self.assertEqual(in_child(look), "((), True, ())")
        self.assertTrue(os.path.exists(path))
        self.assertEqual(len(service.addresses), 1)
