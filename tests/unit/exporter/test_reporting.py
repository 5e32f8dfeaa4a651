"""
Tests of `TcpBuilder.report_to`: connections from an exporter to collectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError

from tests.connecting import FakeEndpoint
from tests.listening import ListeningReactor
from tests.logs import log_lines
from tests.reader import Reader, counter_key
from tests.recorders import GlobalRecorderTestCase
from txmetrics_tcp import (
    EndpointError,
    ListenError,
    MetricsFactory,
    MetricsService,
    TcpBuilder,
    TcpRecorder,
    counter,
)
from txmetrics_tcp._exporter import builder as builder_module
from txmetrics_tcp._exporter import reporting
from txmetrics_tcp._exporter.reporting import EXIT_DELAY, INITIAL_DELAY, MAX_DELAY, STABLE
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp.testing import PausingTransport

REFUSED = ConnectionRefusedError()


class ReportingCase(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = ListeningReactor()
        self.endpoint = FakeEndpoint()
        self.lines = log_lines(self, reporting)
        self.rejections = log_lines(self, log_throttle)

    def builder(self, wait_at_exit: float = 2.0) -> TcpBuilder:
        builder = TcpBuilder(self.reactor).own_metrics(False).max_delay(0)
        return builder.report_to(self.endpoint, wait_at_exit)

    def build(self, wait_at_exit: float = 2.0) -> TcpRecorder:
        return self.successResultOf(self.builder(wait_at_exit).build())

    def read(self, transport: PausingTransport) -> Reader:
        """Read all that is pending."""
        reader = Reader()
        self.reactor.settle()
        while data := transport.drain():
            reader.feed(data)
            self.reactor.settle()
        return reader

    def connect(self) -> PausingTransport:
        """Let an attempt succeed."""
        transport = self.endpoint.succeed()
        self.reactor.settle()
        return transport

    def stop(self, recorder: TcpRecorder) -> list[object]:
        """Stop, and return a list to which the result is appended."""
        results: list[object] = []
        recorder.stop().addBoth(results.append)
        self.reactor.settle()
        return results


class ConnectTests(ReportingCase):
    def test_reports(self) -> None:
        """The exporter connects, sends totals and events, and listens nowhere."""
        recorder = self.build()
        self.assertEqual((self.reactor.hosts, recorder.addresses), ([], ()))
        recorder.counter("c").increment(5)
        transport = self.connect()
        recorder.counter("c").increment(2)
        reader = self.read(transport)
        self.assertEqual(reader.totals, {counter_key("c"): 7})
        self.assertEqual(reader.snapshots, [{counter_key("c"): 5}])
        self.assertEqual([one.address for one in recorder.stats().clients], ["127.0.0.1:54321"])

    def test_alsoListens(self) -> None:
        """With an address, the exporter also listens."""
        self.successResultOf(self.builder().listen_address(1).build())
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_several(self) -> None:
        """Each call adds a collector."""
        second = FakeEndpoint()
        recorder = self.successResultOf(self.builder().report_to(second).build())
        recorder.counter("c").increment()
        for endpoint in (self.endpoint, second):
            self.assertEqual(self.read(endpoint.succeed()).totals, {counter_key("c"): 1})

    def test_install(self) -> None:
        recorder = self.successResultOf(self.builder().install())
        counter("c").increment(3)
        self.assertEqual(self.read(self.connect()).totals, {counter_key("c"): 3})
        self.assertIs(recorder.snapshot()[counter_key("c")], 3)

    def test_service(self) -> None:
        """A service connects when it is started, and again after it was stopped."""
        service = self.builder().service()
        self.assertEqual(self.endpoint.attempts, [])
        for attempts in (1, 2):
            service.privilegedStartService()
            service.startService()
            self.assertEqual(len(self.endpoint.attempts), attempts)
            transport = self.connect()
            stopped = service.stopService()
            self.read(transport)
            self.successResultOf(stopped)

    def test_notIfListeningFails(self) -> None:
        """If the exporter cannot listen, it does not connect, and does not wait for that."""
        self.reactor.taken.add("127.0.0.1:1")
        service = self.builder().listen_address(1).service()
        self.assertRaises(ListenError, service.startService)
        self.failureResultOf(service.listen(), ListenError)
        self.assertEqual(self.endpoint.attempts, [])

    def test_limitsOfClients(self) -> None:
        """Limits for clients do not apply to collectors."""
        builder = self.builder().listen_address(1).allow("192.0.2.0/24").max_clients(1, 1)
        recorder = self.successResultOf(builder.build())
        self.connect()
        port = self.reactor.listening[0]
        for connected, host in ((1, "198.51.100.1"), (2, "192.0.2.1"), (2, "192.0.2.2")):
            transport = PausingTransport(peer=IPv4Address("TCP", host, 1))
            transport.connect(port.factory.buildProtocol(transport.getPeer()))
            self.reactor.settle()
            self.assertEqual(len(recorder.stats().clients), connected)

    def test_endpoints(self) -> None:
        """Endpoints are those of clients, and are checked at the call, without a reactor."""
        self.patch(builder_module, "global_reactor", lambda: self.fail("used the reactor"))
        builder = TcpBuilder()
        for endpoint in (
            *("unix:/run/x.sock", Path("/run/x.sock"), 5000, "5000", "localhost:5000"),
            *(("::1", 5000), "tcp:example.org:5000", "[::1]:5000"),
        ):
            self.assertIs(builder.report_to(endpoint), builder)
        for bad, reason in (
            ("nonsense", "^nonsense has no port"),
            ("unix:", "the path is missing"),
            ("systemd:domain=INET:index=0", "systemd: is for servers"),
            ("127.0.0.1:0", "only a server can use any free port"),
        ):
            with self.assertRaisesRegex(EndpointError, reason):
                builder.report_to(bad)
        for wrong in (None, True, 1.0):
            with self.assertRaisesRegex(TypeError, "^endpoint must be "):
                builder.report_to(wrong)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "^wait_at_exit must "):
            builder.report_to(5000, -1)
        with self.assertRaisesRegex(TypeError, "^wait_at_exit must "):
            builder.report_to(5000, "1")  # type: ignore[arg-type]


class ReconnectTests(ReportingCase):
    def delays(self, number: int) -> list[float]:
        """Let attempts fail, and return the delays before the next ones."""
        delays = []
        for _ in range(number):
            self.endpoint.fail(REFUSED)
            (call,) = self.reactor.getDelayedCalls()
            delays.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(delays[-1])
        return delays

    def test_delays(self) -> None:
        """Delays grow to a limit, and have a random part.  The trouble is logged once."""
        self.build()
        first, *others = self.delays(20)
        self.assertTrue(1.5 * INITIAL_DELAY <= first <= 1.5 * INITIAL_DELAY + 1)
        for delay in others[10:]:
            self.assertTrue(MAX_DELAY <= delay <= MAX_DELAY + 1)
        self.assertEqual(len(set(others)), len(others))
        self.assertEqual(len(self.lines), 1)
        self.assertIn("No connection to the collector ", self.lines[0])
        self.assertIn(": Connection was refused by other side; trying again", self.lines[0])
        self.flushLoggedErrors()

    def test_totalsAfterReconnecting(self) -> None:
        """The collector receives exact totals of what was recorded meanwhile."""
        recorder = self.build()
        transport = self.connect()
        self.reactor.advance(STABLE)
        recorder.counter("c").increment(1)
        self.read(transport)
        transport.lose(ConnectionDone())
        for _ in range(5000):
            recorder.counter("c").increment(2)
        self.reactor.advance(1.5 * INITIAL_DELAY + 1)
        self.delays(3)
        self.assertEqual(len(self.endpoint.attempts), 5)
        transport = self.connect()
        self.assertEqual(self.read(transport).totals, {counter_key("c"): 10_001})
        self.reactor.advance(STABLE)
        collector = str(self.endpoint)
        self.assertEqual(
            self.lines,
            [
                f"Reporting metrics to {collector}",
                f"No connection to the collector {collector}: Connection was closed cleanly;"
                " trying again",
                f"Reporting metrics to {collector}",
            ],
        )

    def test_rejected(self) -> None:
        """A collector that closes connections at once is not asked more and more often."""
        self.build()
        waited = []
        for _ in range(12):
            transport = self.connect()
            before = self.reactor.seconds()
            attempts = len(self.endpoint.attempts)
            transport.lose(ConnectionDone())
            while len(self.endpoint.attempts) == attempts:
                self.reactor.advance(0.1)
            waited.append(self.reactor.seconds() - before)
        self.assertTrue(all(delay >= MAX_DELAY for delay in waited[10:]), waited)
        self.assertEqual(len(self.lines), 1)

    def test_endOfFile(self) -> None:
        """A collector that closes its side is gone."""
        self.build()
        transport = self.connect()
        transport.end_of_file()
        self.assertTrue(transport.aborted)
        transport.drain()
        self.assertIn("the collector closed the connection", self.lines[0])

    def test_neverReads(self) -> None:
        """A collector that reads nothing is bounded, and disconnected, as any client."""
        builder = self.builder().buffer_size(10).dead_after(5)
        recorder = self.successResultOf(builder.build())
        transport = self.connect()
        for number in range(20_000):
            recorder.counter("c").increment()
            if not number % 5:
                self.reactor.settle()
        (client,) = recorder.stats().clients
        self.assertLessEqual(client.waiting, 20)
        self.assertGreater(client.dropped_client, 10_000)
        self.reactor.advance(5.1)
        self.reactor.settle()
        self.assertTrue(transport.aborted)
        transport.drain()
        self.assertIn("has not read its pending data for 5 seconds", self.lines[-1])
        self.assertEqual(recorder.stats().clients, ())


class StopTests(ReportingCase):
    def test_connected(self) -> None:
        """Pending events are sent, then the connection is closed, and not made again."""
        recorder = self.build()
        transport = self.connect()
        recorder.counter("c").increment(3)
        results = self.stop(recorder)
        self.assertEqual(self.read(transport).totals, {counter_key("c"): 3})
        self.assertEqual(results, [None])
        self.assertFalse(transport.connected)
        self.reactor.advance(1000)
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.assertEqual(self.lines, [])

    def test_waits(self) -> None:
        """Stopping waits for the connection, and then sends everything."""
        recorder = self.build()
        recorder.counter("c").increment(3)
        results = self.stop(recorder)
        self.reactor.advance(1.9)
        recorder.counter("c").increment(1)
        self.assertEqual(results, [])
        transport = self.connect()
        reader = self.read(transport)
        self.assertEqual(reader.totals, {counter_key("c"): 4})
        self.assertEqual(results, [None])

    def test_connectsNow(self) -> None:
        """When the exporter stops, the next attempt does not wait, and further ones hardly do."""
        recorder = self.build()
        recorder.counter("c").increment(3)
        self.endpoint.fail(REFUSED)
        results = self.stop(recorder)
        self.assertEqual(len(self.endpoint.attempts), 2)
        for attempts in (3, 4):
            self.endpoint.fail(REFUSED)
            self.reactor.advance(EXIT_DELAY)
            self.assertEqual(len(self.endpoint.attempts), attempts)
        self.assertEqual(self.read(self.connect()).totals, {counter_key("c"): 3})
        self.assertEqual(results, [None])

    def test_limit(self) -> None:
        """Stopping waits for the given time at most; this is logged."""
        for wait in (0.0, 0.5, 2.0):
            self.lines.clear()
            self.endpoint = FakeEndpoint()
            recorder = self.build(wait)
            results = self.stop(recorder)
            if wait:
                self.reactor.advance(wait - 0.1)
                self.assertEqual(results, [])
                self.reactor.advance(0.2)
                self.reactor.settle()
                self.assertEqual(len(self.lines), 1)
                self.assertIn("Stopping without a connection to the collector ", self.lines[0])
            self.assertEqual(results, [None])
            self.assertEqual(self.endpoint.cancelled, 1)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_eachWaits(self) -> None:
        """Stopping waits for all collectors, and ends the attempts to reach one that is down."""
        second = FakeEndpoint()
        recorder = self.successResultOf(self.builder(1.0).report_to(second, 3.0).build())
        recorder.counter("c").increment()
        transport = self.connect()
        results = self.stop(recorder)
        self.reactor.advance(2.9)
        self.assertEqual((results, transport.connected), ([], True))
        self.reactor.advance(0.2)
        self.reactor.settle()
        self.assertEqual(self.read(transport).totals, {counter_key("c"): 1})
        self.assertEqual((results, second.cancelled), ([None], 1))

    def test_stopNow(self) -> None:
        """`MetricsService.stop_now` ends the wait."""
        service = self.builder(100.0).service()
        service.startService()
        stopped: Deferred[Any] = service.stopService()
        self.assertNoResult(stopped)
        listening = service.listen()
        service.stop_now()
        self.reactor.settle()
        self.successResultOf(stopped)
        self.failureResultOf(listening, ListenError)
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_stopTwice(self) -> None:
        """Further calls wait for the first one."""
        recorder = self.build(1.0)
        first, second = self.stop(recorder), self.stop(recorder)
        self.assertEqual((first, second), ([], []))
        self.reactor.advance(1.1)
        self.reactor.settle()
        self.assertEqual((first, second), ([None], [None]))

    def test_silentCollector(self) -> None:
        """A collector that reads nothing delays the end by C{flush_timeout}."""
        recorder = self.successResultOf(self.builder(5.0).flush_timeout(3).build())
        transport = self.connect()
        for _ in range(20_000):
            recorder.counter("c").increment()
            self.reactor.settle()
        results = self.stop(recorder)
        self.reactor.advance(2.9)
        self.assertEqual(results, [])
        self.reactor.advance(0.2)
        self.reactor.settle()
        self.assertTrue(transport.aborted)
        transport.drain()
        self.assertEqual(results, [None])

    def test_neverStarted(self) -> None:
        service = self.builder().service()
        self.successResultOf(service.stopService())

    def test_serviceAlone(self) -> None:
        """A service that was made without a builder reports as well."""
        service = MetricsService(MetricsFactory(self.reactor), [])  # type: ignore[arg-type]
        service.report_to(self.endpoint)
        service.startService()
        self.assertEqual(len(self.endpoint.attempts), 1)
