"""
Stopped servers, clients and collectors are garbage-collected, although log events are kept: Twisted
keeps the first 65,536 events of a program that does not begin logging.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.connecting import FakeEndpoint
from tests.listening import LateEndpoint, ListeningReactor
from tests.reader import FakeClient
from tests.recorders import GlobalRecorderTestCase
from txmetrics_tcp import (
    ExporterSettings,
    MetricsClientService,
    MetricsFactory,
    MetricsService,
    NoopRecorder,
    TcpBuilder,
    counter,
    set_global_recorder,
)
from txmetrics_tcp._collectors.service import PollingService
from txmetrics_tcp._exporter.ingest import Incoming
from txmetrics_tcp._instruments.facade import unset_global_recorder
from txmetrics_tcp._recording.replay import ReplayFactory
from txmetrics_tcp.testing import PausingTransport


class BrokenTransport(PausingTransport):
    def write(self, data: bytes) -> None:
        raise RuntimeError("a broken transport")


class CollectedTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = ListeningReactor()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def check(self, use: Callable[[], object], failures: int = 0) -> None:
        """
        Check that an object is collected.

        @param use: makes, uses and stops the object, and returns it.
        @param failures: the number of logged exceptions.
        """
        left = weakref.ref(use())
        self.assertEqual(len(self.flushLoggedErrors()), failures)
        # The traceback is still in the log.
        logged = [event["log_failure"] for event in self.events if "log_failure" in event]
        self.assertEqual(len(logged), failures)
        for failure in logged:
            self.assertIn("  File ", failure.getTraceback())
        gc.collect()
        self.assertIsNone(left())


class ServerTests(GlobalRecorderTestCase, CollectedTestCase):
    def test_rejectedClients(self) -> None:
        def use() -> object:
            factory = MetricsFactory(self.reactor, ExporterSettings(allow=["10.0.0.0/8"]))
            factory.doStart()
            factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
            factory.doStop()
            return factory

        self.check(use)
        self.assertEqual(len(self.events), 1)

    def test_failedClient(self) -> None:
        def use() -> object:
            factory = MetricsFactory(self.reactor)
            factory.doStart()
            transport = BrokenTransport()
            transport.connect(factory.buildProtocol(transport.getPeer()))
            self.assertTrue(transport.aborted)
            factory.stop()
            factory.doStop()
            return factory

        self.check(use, failures=1)

    def test_failedDelivery(self) -> None:
        def use() -> object:
            factory = MetricsFactory(self.reactor, ExporterSettings(max_delay=0))
            client = FakeClient(factory)
            self.reactor.settle()

            def take(incoming: Incoming) -> None:
                raise RuntimeError("no memory for a batch")

            patch = self.patch(Incoming, "take", take)
            factory.recorder.counter("c").increment()
            self.reactor.settle()
            patch.restore()
            client.transport.lose()
            return factory

        self.check(use, failures=1)

    def test_losses(self) -> None:
        def use() -> object:
            factory = MetricsFactory(self.reactor, ExporterSettings(buffer_size=1))
            client = FakeClient(factory, limit=1)
            for _ in range(5):
                factory.recorder.counter("c").increment()
                self.reactor.settle()
            self.assertGreater(factory.stats().dropped_client, 0)
            client.transport.lose()
            return factory

        self.check(use)
        self.assertEqual(len(self.events), 1)

    def test_cannotListen(self) -> None:
        def use() -> object:
            endpoint = LateEndpoint(self.reactor)
            service = MetricsService(MetricsFactory(self.reactor), [endpoint])
            service.startService()
            try:
                raise OSError("cannot listen")
            except OSError as error:
                endpoint.fail(error)
            return service

        self.check(use, failures=1)

    def test_replaced(self) -> None:
        """An installed recorder that has stopped stays until it is replaced."""

        def use() -> object:
            recorder = self.successResultOf(TcpBuilder(self.reactor).install())
            counter("c").increment()
            stopped = recorder.stop()
            self.reactor.settle()
            self.successResultOf(stopped)
            self.reactor.ports.clear()
            other = NoopRecorder()
            set_global_recorder(other)
            self.addCleanup(unset_global_recorder, other)
            return recorder

        self.check(use)

    def test_replay(self) -> None:
        def use() -> object:
            factory = ReplayFactory(self.reactor, lambda: [], lambda: None)
            transport = PausingTransport()
            transport.connect(factory.buildProtocol(transport.getPeer()))
            factory.stop()
            return factory

        self.check(use)


class ClientTests(CollectedTestCase):
    def use(self, observer: Callable[[object], object] | None = None) -> object:
        """Use a service that fails to connect."""
        endpoint = FakeEndpoint()
        service = MetricsClientService(self.reactor, endpoint, print, observer=observer)
        service.startService()
        endpoint.fail(ConnectionRefusedError())
        self.successResultOf(service.stopService())
        return service

    def test_reconnects(self) -> None:
        self.check(self.use)
        # Twisted logs the next attempt.
        self.assertEqual(len(self.events), 1)

    def test_failedObserver(self) -> None:
        def fail(state: object) -> None:
            raise RuntimeError("a broken observer")

        self.check(lambda: self.use(fail), failures=3)


class CollectorTests(CollectedTestCase):
    def test_failedCollectors(self) -> None:
        def use() -> object:
            def missing() -> None:
                raise OSError("no such reading")

            def broken() -> None:
                raise RuntimeError("a broken collector")

            clock = Clock()
            service = PollingService({"a": missing, "b": broken}, 1.0, clock)
            service.startService()
            service.stopService()
            return service

        self.check(use, failures=1)
        self.assertEqual(len(self.events), 2)
