"""
`MetricsWeb`: sources of the page, and its beginning and end.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.connecting import FakeEndpoint
from tests.recordings import STATUS, increment
from tests.unit.web.serving import Tab
from txmetrics_tcp import EndpointError
from txmetrics_tcp.testing import FakeReactor, PausingTransport
from txmetrics_tcp.web import MetricsWeb
from txmetrics_tcp.web._feed import LINGER
from txmetrics_tcp.web._site import PageSite


class WebTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.endpoint = FakeEndpoint()

    def make(self, **options: Any) -> MetricsWeb:
        web = MetricsWeb(self.reactor, self.endpoint, **options)
        self.site = PageSite(self.reactor, web.resource)
        return web

    def open(self) -> Tab:
        transport = PausingTransport(1 << 20)
        transport.connect(self.site.buildProtocol(transport.getPeer()))
        transport.receive(b"GET /stream HTTP/1.1\r\nHost: localhost:5000\r\n\r\n")
        self.reactor.settle()
        return Tab(transport)

    def test_connectsWithTheFirstViewer(self) -> None:
        web = self.make()
        web.startService()
        self.assertEqual(len(self.endpoint.attempts), 0)
        tab = self.open()
        server = self.endpoint.succeed()
        server.receive(STATUS + increment(30))
        self.reactor.advance(0.2)
        tab.read()
        self.assertEqual(list(tab.page.values.values()), [30.0])
        tab.transport.lose()
        self.reactor.advance(LINGER - 1)
        self.assertFalse(server.disconnecting)
        self.reactor.advance(2)
        self.assertTrue(server.disconnecting)
        server.lose()
        self.successResultOf(web.stopService())
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_withAHistoryConnectsAtOnce(self) -> None:
        web = self.make(history=60)
        web.startService()
        transport = self.endpoint.succeed()
        transport.receive(STATUS + increment(30))
        stopped = web.stopService()
        transport.lose()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopEndsStreams(self) -> None:
        web = self.make()
        web.startService()
        tab = self.open()
        tab.read()
        transport = self.endpoint.succeed()
        stopped = web.stopService()
        self.assertTrue(tab.transport.drain().endswith(b"0\r\n\r\n"))
        self.assertNoResult(stopped)
        transport.lose()
        self.successResultOf(stopped)

    def test_viewerBeforeTheStart(self) -> None:
        web = self.make()
        tab = self.open()
        self.assertEqual(len(self.endpoint.attempts), 0)
        web.startService()
        self.endpoint.succeed().receive(STATUS + increment(30))
        self.reactor.advance(0.2)
        self.reactor.advance(1)
        tab.read()
        self.assertEqual(list(tab.page.values.values()), [30.0])
        web.stopService()

    def test_startsAgain(self) -> None:
        web = self.make(history=60)
        for _ in range(2):
            web.startService()
            transport = self.endpoint.succeed()
            stopped = web.stopService()
            transport.lose()
            self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_invalid(self) -> None:
        for options in (
            {"token": "short"},
            {"token": "é" * 20},
            {"history": 0},
            {"history": math.nan},
            {"max_viewers": 0},
            {"allow_hosts": ["https://metrics.example"]},
        ):
            self.assertRaises(ValueError, self.make, **options)
        for wrong in ({"token": 5}, {"history": "5"}, {"allow_hosts": "metrics.example"}):
            self.assertRaises(TypeError, self.make, **wrong)
        self.assertRaises(EndpointError, MetricsWeb, self.reactor, "nonsense:x")
        self.assertRaises(TypeError, MetricsWeb, self.reactor, 5000)
