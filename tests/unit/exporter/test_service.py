"""
Tests of the service: starting, failures to listen, and stopping.
"""

from __future__ import annotations

from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.listening import LateEndpoint, ListeningReactor
from tests.logs import log_events
from tests.reader import FakeClient
from txmetrics_tcp import ExporterSettings, ListenError, MetricsFactory, MetricsService
from txmetrics_tcp._net import listening
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.endpoints import server_endpoint


class ServiceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ListeningReactor()
        self.factory = MetricsFactory(self.reactor, ExporterSettings(own_metrics=False))  # type: ignore[arg-type]
        self.events = log_events(self, listening)

    def service(self, *endpoints: str | LateEndpoint) -> MetricsService:
        return MetricsService(
            self.factory,
            [
                one if isinstance(one, LateEndpoint) else server_endpoint(self.reactor, one)
                for one in endpoints
            ],
        )

    @property
    def logged(self) -> list[tuple[LogLevel, str]]:
        """The level and the text of each log line."""
        return [(event["log_level"], event["log_format"].format(**event)) for event in self.events]

    def warnings(self) -> list[str]:
        return [text for level, text in self.logged if level is not LogLevel.info]


class StartTests(ServiceTestCase):
    def test_interface(self) -> None:
        service = self.service("1")
        self.assertTrue(verifyObject(IService, service))
        self.assertEqual(service.name, "metrics-tcp")

    def test_nothingBeforeStart(self) -> None:
        """A service opens no port before it is started: twistd makes services before it forks."""
        service = self.service("1")
        self.assertEqual(self.reactor.ports, [])
        self.assertEqual(service.addresses, ())
        service.recorder.counter("c").increment()
        self.assertEqual([*service.recorder.snapshot().values()], [1])

    def test_privileged(self) -> None:
        """A service listens when it is started privileged, and only once."""
        service = self.service("1")
        service.privilegedStartService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])
        service.startService()
        self.assertEqual(len(self.reactor.ports), 1)
        self.assertTrue(service.running)
        self.assertEqual(service.addresses, (IPv4Address("TCP", "127.0.0.1", 1),))
        self.assertEqual(service.recorder.addresses, service.addresses)

    def test_startAlone(self) -> None:
        """A service that is added to a running parent listens in `startService`."""
        parent = MultiService()
        parent.startService()
        service = self.service("1")
        service.setServiceParent(parent)
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])

    def test_severalEndpoints(self) -> None:
        """A service listens on all of its endpoints, and logs each address."""
        service = self.service("1", "[::1]:2", "unix:/run/x")
        service.privilegedStartService()
        self.assertEqual(
            [repr(address) for address in service.addresses],
            [
                "IPv4Address(type='TCP', host='127.0.0.1', port=1)",
                "IPv6Address(type='TCP', host='::1', port=2, flowInfo=0, scopeID=0)",
                "UNIXAddress('/run/x')",
            ],
        )
        self.assertEqual(len(self.logged), 3)
        self.assertEqual(
            self.logged[0],
            (LogLevel.info, "Streaming metrics on 127.0.0.1:1"),
        )

    def test_exposed(self) -> None:
        """A warning is logged for each address that other machines can reach."""
        for text, warned in (
            ("127.0.0.1:1", 0),
            ("192.0.2.1:1", 1),
            ("unix:/run/x", 0),
            ("0.0.0.0:1", 1),
            ("tcp:1", 1),
            ("[::]:1", 1),
        ):
            self.events.clear()
            service = self.service(text)
            service.startService()
            self.assertEqual(len(self.warnings()), warned, text)
            for warning in self.warnings():
                self.assertTrue(warning.startswith("Any client with network access to "))
                self.assertIn(show_address(service.addresses[0]), warning)
            service.stopService()
            self.reactor.settle()


class FailureTests(ServiceTestCase):
    def test_raisedByPrivilegedStartService(self) -> None:
        """The service raises the endpoint's error.  (Twisted's endpoint service only logs it.)"""
        self.reactor.taken.add("127.0.0.1:1")
        service = self.service("1")
        error = self.assertRaises(ListenError, service.privilegedStartService)
        self.assertEqual(
            str(error),
            "Couldn't listen on 127.0.0.1:1: [Errno 98] Address already in use",
        )
        self.assertEqual(type(error.__cause__).__name__, "CannotListenError")
        self.assertEqual(service.addresses, ())
        self.assertFalse(service.running)

    def test_raisedByStartService(self) -> None:
        self.reactor.taken.add("127.0.0.1:1")
        service = self.service("1")
        self.assertRaises(ListenError, service.startService)
        self.assertFalse(service.running)

    def test_raisedByParent(self) -> None:
        self.reactor.taken.add("127.0.0.1:1")
        parent = MultiService()
        self.service("1").setServiceParent(parent)
        self.assertRaises(ListenError, parent.privilegedStartService)

    def test_texts(self) -> None:
        """The message has the address in the notation of the user, and the cause."""
        for text, taken, where in (
            ("[::1]:1", "::1:1", "on [::1]:1: "),
            ("tcp:1", ":1", "on any interface:1: "),
            ("unix:/run/x", "/run/x", "on unix:/run/x: "),
            ("host:1", "host:1", "on host:1: "),
        ):
            self.reactor.taken = {taken}
            error = self.assertRaises(ListenError, self.service(text).privilegedStartService)
            expected = f"Couldn't listen {where}[Errno 98] Address already in use"
            self.assertEqual(str(error), expected)

    def test_otherErrors(self) -> None:
        """An endpoint may raise any exception."""

        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied", "/run/x.lock")

        self.patch(self.reactor, "listenUNIX", refuse)
        error = self.assertRaises(ListenError, self.service("unix:/run/x").startService)
        self.assertEqual(str(error), "Couldn't listen: [Errno 13] Permission denied: '/run/x.lock'")

    def test_oneOfSeveral(self) -> None:
        """
        If one endpoint fails, the error is raised at once, and the other ports are closed in the
        next reactor iteration.
        """
        self.reactor.taken.add("127.0.0.1:2")
        service = self.service("1", "2", "3")
        self.assertRaises(ListenError, service.privilegedStartService)
        self.assertEqual(service.addresses, ())
        self.reactor.settle()
        self.assertEqual(len(self.reactor.ports), 2)
        self.assertEqual(self.reactor.listening, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_portsAreClosed(self) -> None:
        """The Deferred of C{listen} fails after the open ports are closed."""
        self.reactor.taken.add("127.0.0.1:2")
        listening = self.service("1", "2").listen()
        self.assertNoResult(listening)
        self.reactor.settle()
        self.failureResultOf(listening, ListenError)
        self.assertEqual(self.reactor.listening, [])

    def test_tryAgain(self) -> None:
        """A service that failed to listen can be started again, and then streams."""
        self.reactor.taken.add("127.0.0.1:2")
        service = self.service("1", "2")
        self.assertRaises(ListenError, service.startService)
        self.reactor.settle()
        self.reactor.taken.clear()
        service.startService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1", "127.0.0.1:2"])
        client = FakeClient(self.factory)
        service.recorder.counter("c").increment()
        self.assertEqual(client.read_all(self.reactor).values("c"), [1])


class LateTests(ServiceTestCase):
    """Endpoints that listen asynchronously."""

    def test_success(self) -> None:
        endpoint = LateEndpoint(self.reactor)
        service = self.service("2", endpoint)
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.logged, [])
        endpoint.succeed()
        self.assertEqual(len(service.addresses), 2)
        self.assertEqual(len(self.logged), 2)

    def test_failure(self) -> None:
        """A late failure is logged, and no port is left open."""
        endpoint = LateEndpoint(self.reactor)
        service = self.service("2", endpoint)
        service.startService()
        client = FakeClient(self.factory)
        endpoint.fail(RuntimeError("no port for you"))
        client.read_all(self.reactor)
        self.assertEqual(self.reactor.listening, [])
        self.assertFalse(client.transport.connected)
        self.assertEqual(
            self.logged, [(LogLevel.critical, "Could not listen: no metrics are streamed")]
        )

    def test_stoppedMeanwhile(self) -> None:
        """A service that is stopped before it listens never listens, and writes no log line."""
        endpoint = LateEndpoint(self.reactor)
        service = self.service("2", endpoint)
        service.startService()
        stopped = service.stopService()
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertTrue(endpoint.cancelled)
        self.assertEqual(self.reactor.listening, [])
        self.assertEqual(self.logged, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stoppedMeanwhileFails(self) -> None:
        """The Deferred of C{listen} fails if the service is stopped."""
        service = self.service(LateEndpoint(self.reactor))
        listening = service.listen()
        self.successResultOf(service.stop())
        failure = self.failureResultOf(listening, ListenError)
        self.assertEqual(str(failure.value), "Couldn't listen: the service was stopped meanwhile")


class StopTests(ServiceTestCase):
    def stopping(self, service: MetricsService) -> Deferred[None]:
        stopped = service.stopService()
        self.assertFalse(service.running)
        return stopped

    def test_noClients(self) -> None:
        service = self.service("1", "2")
        service.startService()
        stopped = self.stopping(service)
        self.assertNoResult(stopped)
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.listening, [])
        self.assertEqual(service.addresses, ())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_neverStarted(self) -> None:
        self.successResultOf(self.stopping(self.service("1")))

    def test_waitsForClients(self) -> None:
        """The Deferred fires when all clients have received pending events and are disconnected."""
        service = self.service("1")
        service.startService()
        clients = [FakeClient(self.factory) for _ in range(2)]
        self.reactor.settle()
        service.recorder.counter("c").increment()
        stopped = self.stopping(service)
        for client in clients:
            self.assertNoResult(stopped)
            self.assertEqual(client.read_all(self.reactor).values("c"), [1])
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.listening, [])

    def test_stuckClient(self) -> None:
        """A client that does not read is aborted after C{flush_timeout}."""
        self.factory = MetricsFactory(self.reactor, ExporterSettings(flush_timeout=7))  # type: ignore[arg-type]
        service = self.service("1")
        service.startService()
        stuck = FakeClient(self.factory, limit=1)
        for _ in range(3):
            service.recorder.counter("c").increment()
            self.reactor.settle()
        stopped, again = self.stopping(service), service.stop()
        self.reactor.advance(6.9)
        self.reactor.settle()
        self.assertEqual(self.reactor.listening, [])
        self.assertFalse(stuck.transport.aborted)
        self.reactor.advance(0.2)
        self.assertTrue(stuck.transport.aborted)
        self.assertNoResult(stopped)
        stuck.transport.drain()
        self.successResultOf(stopped)
        self.successResultOf(again)

    def test_fromRecorder(self) -> None:
        """The recorder of a service stops the service."""
        service = self.service("1")
        service.startService()
        stopped = service.recorder.stop()
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.listening, [])

    def test_stats(self) -> None:
        service = self.service("1")
        service.startService()
        FakeClient(self.factory).read_all(self.reactor)
        self.assertEqual(service.stats(), self.factory.stats())
        self.assertEqual(len(service.recorder.stats().clients), 1)


class RestartTests(ServiceTestCase):
    def test_startStopStart(self) -> None:
        """A service can be started again and streams to new clients; totals are kept."""
        service = self.service("1")
        counter = service.recorder.counter("c")
        for total in (1, 2, 3):
            service.privilegedStartService()
            service.startService()
            self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])
            client = FakeClient(self.factory)
            counter.increment()
            reader = client.read_all(self.reactor)
            self.assertEqual([*reader.totals.values()], [total])
            stopped = service.stopService()
            client.read_all(self.reactor)
            self.successResultOf(stopped)
            self.assertFalse(client.transport.connected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_startWhileStopping(self) -> None:
        """A service that has not finished stopping cannot be started."""
        service = self.service("1")
        service.startService()
        service.stopService()
        error = self.assertRaises(ListenError, service.startService)
        self.assertEqual(str(error), "Couldn't listen: the service has not finished stopping")
        self.reactor.settle()
        service.startService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:1"])
