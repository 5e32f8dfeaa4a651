"""
The HTTP server for scrapers: one response per connection, and a bounded cost.
"""

from __future__ import annotations

import tempfile
from ipaddress import ip_network
from unittest import skipIf

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import NOT_ALLOWED
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.authority import no_tls
from tests.logs import log_lines
from txmetrics_tcp._net import log_throttle
from txmetrics_tcp._net.connection import Rejected
from txmetrics_tcp.bridges._site import MAX_CONNECTIONS, TIME_LIMIT, MetricsSite
from txmetrics_tcp.testing import FakeReactor, PausingTransport

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Page(Resource):
    """
    @ivar unfinished: requests that are not answered yet.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.unfinished: list[Request] = []

    def render(self, request: Request) -> bytes | int:
        if request.method != b"GET":
            request.setResponseCode(NOT_ALLOWED)
            return b""
        if request.args:
            self.unfinished.append(request)
            return NOT_DONE_YET
        return b"a 1\n"


class SiteTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.page = Page()
        self.site = MetricsSite(self.reactor, self.page)
        self.logged = log_lines(self, log_throttle)

    def connect(self, host: str = "127.0.0.1", limit: int = 1 << 20) -> PausingTransport:
        peer = IPv4Address("TCP", host, 1)
        transport = PausingTransport(limit, peer=peer)
        transport.connect(self.site.buildProtocol(peer))
        if transport.aborted:
            transport.drain()
        return transport

    def request(self, data: bytes = GET) -> bytes:
        """Return the whole response to a request, after which the connection has to be closed."""
        transport = self.connect()
        transport.receive(data)
        response = transport.drain()
        self.assertFalse(transport.connected)
        return response

    def connections(self, number: int) -> list[PausingTransport]:
        return [self.connect() for _ in range(number)]


class ResponseTests(SiteTestCase):
    def test_interfaces(self) -> None:
        """The site does not negotiate a protocol with TLS, such as HTTP/2."""
        self.assertTrue(IProtocolFactory.providedBy(self.site))
        self.assertFalse(IProtocolNegotiationFactory.providedBy(self.site))

    def test_get(self) -> None:
        """The connection is closed after the response, which announces this."""
        response = self.request()
        self.assertTrue(response.startswith(b"HTTP/1.1 200 OK\r\n"), response)
        self.assertIn(b"\r\nConnection: close\r\n", response)
        self.assertTrue(response.endswith(b"\r\n\r\na 1\n"), response)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_otherPaths(self) -> None:
        for path in (b"/", b"/metric", b"/nothing/metrics"):
            response = self.request(GET.replace(b"/metrics", path))
            self.assertTrue(response.startswith(b"HTTP/1.1 404 "), response)

    def test_post(self) -> None:
        """A method other than GET and HEAD is rejected, with a body of any encoding."""
        for length, body in (
            (b"Content-Length: 0", b""),
            (b"Content-Length: 1", b"x"),
            (b"Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"),
        ):
            head = b"POST /metrics HTTP/1.1\r\nHost: x\r\n"
            response = self.request(b"%b%b\r\n\r\n%b" % (head, length, body))
            self.assertTrue(response.startswith(b"HTTP/1.1 405 "), response)

    def test_pipelined(self) -> None:
        """Of several requests in a connection, only the first is answered."""
        self.assertEqual(self.request(GET * 100).count(b"HTTP/1.1"), 1)

    def test_bodyIgnored(self) -> None:
        """A request is answered before its body is received; no temporary file is made."""

        def fail(*arguments: object) -> None:
            raise AssertionError("a file was made")

        self.patch(tempfile, "TemporaryFile", fail)
        for length in (b"Content-Length: 200000", b"Transfer-Encoding: chunked"):
            response = self.request(b"POST /metrics HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % length)
            self.assertTrue(response.startswith(b"HTTP/1.1 405 "), response)

    def test_noAccessLog(self) -> None:
        """Requests are not logged, and no timer runs for the log."""
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.request()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.logged, [])


class LimitTests(SiteTestCase):
    def assert_rejected(self, transport: PausingTransport, reason: str) -> None:
        self.assertTrue(transport.aborted)
        transport.drain()
        self.assertEqual(self.logged, [f"Rejected client 127.0.0.1:1: {reason}"])

    def test_silent(self) -> None:
        """A client that sends no request is disconnected."""
        transport = self.connect()
        self.reactor.advance(TIME_LIMIT - 0.1)
        self.reactor.settle()
        self.assertFalse(transport.aborted)
        self.reactor.advance(0.1)
        self.reactor.settle()
        self.assert_rejected(transport, "request and response took more than 30 seconds")

    def test_slowRequest(self) -> None:
        """The limit holds for the whole request, however often a part of it is received."""
        transport = self.connect()
        transport.receive(GET[:-2])
        for number in range(int(TIME_LIMIT)):
            transport.receive(b"x: %d\r\n" % number)
            self.reactor.advance(1)
        self.reactor.settle()
        self.assert_rejected(transport, "request and response took more than 30 seconds")

    def test_slowReader(self) -> None:
        """A client that does not read its response is disconnected."""
        transport = self.connect()
        transport.receive(GET.replace(b"s ", b"s?a=1 "))
        ended = self.page.unfinished[0].notifyFinish()
        self.reactor.advance(TIME_LIMIT)
        self.reactor.settle()
        self.assert_rejected(transport, "request and response took more than 30 seconds")
        self.failureResultOf(ended)

    def test_noClose(self) -> None:
        """A client that has not read a complete response is disconnected."""
        transport = self.connect()
        transport.receive(GET)
        self.reactor.advance(TIME_LIMIT)
        self.reactor.settle()
        self.assert_rejected(transport, "request and response took more than 30 seconds")

    def assert_bounded(self, head: bytes, data: bytes) -> None:
        """Check that the server soon reads no more data from a client."""
        transport = self.connect()
        transport.receive(head)
        for _ in range(64):
            transport.receive(data)
        self.assertFalse(transport.reading)

    def test_longHeader(self) -> None:
        """A header of any size costs a bounded amount of memory."""
        for data in (b"x" * 1000, b"x: " + b"y" * 1000 + b"\r\n"):
            self.assert_bounded(b"", data)
            self.assert_bounded(GET[:-2], data)

    def test_longBody(self) -> None:
        """A client cannot send a long body while it waits for the response."""
        self.assert_bounded(GET.replace(b"s ", b"s?a=1 "), b"x" * 1000)

    def test_parserRaises(self) -> None:
        """An exception of Twisted's parser concerns one client only, and is no traceback."""
        transport = self.connect()
        digits = b"9" * 5000
        transport.receive(b"POST /metrics HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % digits)
        self.assert_rejected(transport, "sent a request that raises ValueError")

    @skipIf(no_tls, no_tls)
    def test_handshake(self) -> None:
        """The log says why a TLS handshake fails; later errors of TLS are not logged."""
        from OpenSSL.SSL import Error

        self.connect().lose(Error([("", "", "http request")]))
        later = self.connect()
        later.receive(GET[:5])
        later.lose(Error([("", "", "bad record mac")]))
        self.assertEqual(
            self.logged, ["Rejected client 127.0.0.1:1: TLS handshake failed: http request"]
        )

    def test_manyRejected(self) -> None:
        """Clients that are rejected for the same reason are counted, not logged one by one."""
        for _ in range(20):
            self.connect()
        self.reactor.advance(TIME_LIMIT)
        self.reactor.settle()
        self.assertEqual(len(self.logged), 1)

    def test_networks(self) -> None:
        self.site = MetricsSite(self.reactor, self.page, [ip_network("192.0.2.0/24")])
        self.assertIsInstance(self.site.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1)), Rejected)
        self.assertEqual(self.logged, ["Rejected client 10.0.0.1:1: address not allowed"])
        self.assertTrue(self.connect("192.0.2.1").connected)

    def test_perAddress(self) -> None:
        self.site = MetricsSite(self.reactor, self.page, max_per_address=2)
        kept = self.connections(2)
        self.assertFalse(self.connect().connected)
        self.assertTrue(self.connect("127.0.0.2").connected)
        kept[0].lose()
        self.assertTrue(self.connect().connected)


class ReplacementTests(SiteTestCase):
    def test_oldest(self) -> None:
        """Beyond the limit, a client replaces the oldest connection, so that it can scrape."""
        idle = self.connections(MAX_CONNECTIONS)
        self.assertIn(b" 200 ", self.request())
        self.assertEqual([one.aborted for one in idle], [True, *[False] * (MAX_CONNECTIONS - 1)])
        self.assertEqual(
            self.logged,
            [
                "Rejected client 127.0.0.1:1: connection limit reached (50), and no response is"
                " being made for it"
            ],
        )

    def test_several(self) -> None:
        """Each connection is replaced only once, even before it is closed."""
        idle = self.connections(MAX_CONNECTIONS)
        self.connections(3)
        self.assertEqual([one.aborted for one in idle[:4]], [True, True, True, False])

    def test_notWhileResponding(self) -> None:
        """A connection is not replaced while its response is being made, only after that."""
        transports = self.connections(MAX_CONNECTIONS)
        for transport in transports:
            transport.receive(GET.replace(b"s ", b"s?a=1 "))
        self.assertFalse(self.connect().connected)
        self.assertEqual(
            self.logged, ["Rejected client 127.0.0.1:1: connection limit reached (50)"]
        )
        self.page.unfinished[7].finish()
        self.assertIn(b" 200 ", self.request())
        self.assertEqual([at for at, one in enumerate(transports) if one.aborted], [7])

    def test_room(self) -> None:
        """A connection that has ended makes room."""
        idle = self.connections(MAX_CONNECTIONS)
        idle[0].lose()
        self.request()
        self.assertFalse(any(one.aborted for one in idle))
        self.connections(2)
        self.assertEqual([one.aborted for one in idle[:3]], [False, True, False])


class StopTests(SiteTestCase):
    def test_noConnections(self) -> None:
        self.successResultOf(self.site.stop())

    def test_connections(self) -> None:
        """Open connections are closed, and the Deferred fires when they are."""
        first, second = self.connections(2)
        second.receive(GET.replace(b"s ", b"s?a=1 "))
        stopped = self.site.stop()
        self.assertFalse(self.connect().connected)
        for transport in (first, second):
            self.assertNoResult(stopped)
            self.assertTrue(transport.aborted)
            transport.drain()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_log(self) -> None:
        """The rejected clients that were only counted are logged at the end."""
        self.site.doStart()
        for end in (self.site.doStop, self.site.stop):
            self.logged.clear()
            self.connections(MAX_CONNECTIONS + 2)[0].lose()
            self.assertEqual(len(self.logged), 1)
            end()
            for channel in list(self.site._channels):
                channel.transport.lose()
            self.assertRegex(self.logged[1], "Rejected 1 more client: connection limit reached")

    def test_again(self) -> None:
        """A site that has stopped accepts clients when a port listens again."""
        self.successResultOf(self.site.stop())
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        self.assertIn(b" 200 ", self.request())
