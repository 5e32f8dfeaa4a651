"""
The service that serves totals to Prometheus on ports of its own.
"""

from __future__ import annotations

from ipaddress import ip_network

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.listening import LateEndpoint, ListeningReactor
from tests.logs import log_events
from txmetrics_tcp import ListenError
from txmetrics_tcp._net import listening
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp.bridges._service import PrometheusService
from txmetrics_tcp.testing import PausingTransport


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ListeningReactor()
        self.events = log_events(self, listening)

    def service(self, endpoint: str, *networks: str) -> PrometheusService:
        return PrometheusService(
            self.reactor,
            Resource(),
            [server_endpoint(self.reactor, endpoint)],
            networks=[ip_network(one) for one in networks] or None,
        )

    def logged(self) -> list[str]:
        return [event["log_format"].format(**event) for event in self.events]

    def test_listens(self) -> None:
        service = self.service("9464")
        self.assertEqual(self.reactor.ports, [])
        service.privilegedStartService()
        service.startService()
        self.assertEqual(self.reactor.hosts, ["127.0.0.1:9464"])
        self.assertEqual(self.logged(), ["Serving /metrics to Prometheus on 127.0.0.1:9464"])

    def test_exposed(self) -> None:
        """A warning is logged if other machines can read the metrics."""
        self.service("0.0.0.0:1", "192.0.2.0/24").startService()
        self.assertEqual(
            self.logged(),
            [
                "Serving /metrics to Prometheus on 0.0.0.0:1",
                "Any client in 192.0.2.0/24 with network access to this machine can read the"
                " metrics on 0.0.0.0:1",
            ],
        )
        self.assertIs(self.events[1]["log_level"], LogLevel.warn)

    def test_inUse(self) -> None:
        self.reactor.taken.add("127.0.0.1:1")
        error = self.assertRaises(ListenError, self.service("1").privilegedStartService)
        self.assertIn("Couldn't listen on 127.0.0.1:1: ", str(error))

    def test_late(self) -> None:
        """A failure after the start is logged."""
        endpoint = LateEndpoint(self.reactor)
        PrometheusService(self.reactor, Resource(), [endpoint]).startService()
        endpoint.fail(RuntimeError("no port for you"))
        self.assertEqual(self.logged(), ["Could not listen: no metrics are served to Prometheus"])

    def test_stops(self) -> None:
        """The Deferred fires when the port and all connections are closed."""
        service = self.service("1")
        service.startService()
        transport = PausingTransport()
        transport.connect(self.reactor.ports[0].factory.buildProtocol(transport.getPeer()))
        stopped = service.stopService()
        self.reactor.settle()
        self.assertEqual(self.reactor.listening, [])
        self.assertNoResult(stopped)
        transport.drain()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
