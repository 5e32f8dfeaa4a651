"""
The resource: negotiation, responses in slices, and clients that read slowly or leave.
"""

from __future__ import annotations

import gzip
from collections.abc import Generator

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Site

from txmetrics_tcp import Distribution, Key, Metadata, MetricKind, Unit
from txmetrics_tcp._model import Total
from txmetrics_tcp.bridges.exposition import MAX_RESPONSES, TIMEOUT, MetricsResource, negotiated

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"
OPEN_METRICS = "application/openmetrics-text"


class FakeRecorder:
    """A recorder with given totals."""

    def __init__(self) -> None:
        self.totals: dict[Key, Total] = {Key.of(MetricKind.COUNTER, "requests_total"): 5}
        self.metadata: list[Metadata] = []
        self.own: dict[Key, Total] = {}

    def publish_own_metrics(self) -> None:
        self.totals.update(self.own)

    def snapshot_steps(self) -> Generator[None, None, dict[Key, Total]]:
        yield
        return self.totals

    def descriptions(self) -> list[Metadata]:
        return self.metadata


class NegotiationTests(SynchronousTestCase):
    def test_formats(self) -> None:
        """The header names the format; Prometheus 2 and 3 prefer protobuf for native histograms."""
        prometheus = (
            f"{PROTOBUF};encoding=delimited,{OPEN_METRICS};version=1.0.0;q=0.8,"
            f"{OPEN_METRICS};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        )
        for accept, kind in (
            ("", "text/plain"),
            ("*/*", "text/plain"),
            ("text/html, */*;q=0.8", "text/plain"),
            ("application/json", "text/plain"),
            (f"{OPEN_METRICS}; version=1.0.0", OPEN_METRICS),
            (f"{OPEN_METRICS};version=0.0.1,text/plain;q=0.5", "text/plain"),
            (f"text/plain;q=0.4,{OPEN_METRICS.upper()};q=0.5", OPEN_METRICS),
            (f"{OPEN_METRICS};q=0, text/plain;q=x", "text/plain"),
            (f"{PROTOBUF};encoding=text", "text/plain"),
            (prometheus, "application/vnd.google.protobuf"),
        ):
            found = negotiated(accept).content_type
            self.assertEqual(found.split(";")[0], kind, accept)


class ResourceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Clock()
        self.recorder = FakeRecorder()
        self.serve(MetricsResource(self.recorder))

    def serve(self, resource: MetricsResource) -> None:
        root = Resource()
        root.putChild(b"metrics", resource)
        self.site = Site(root, reactor=self.reactor)

    def settle(self) -> None:
        """Run all slices."""
        while any(call.getTime() <= self.reactor.seconds() for call in self.reactor.calls):
            self.reactor.advance(0)

    def request(self, method: str = "GET", **headers: str) -> StringTransport:
        """Send a request, without running any slices."""
        protocol = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        transport = StringTransport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        lines = [f"{method} /metrics HTTP/1.0", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        protocol.dataReceived("\r\n".join(lines).encode())
        return transport

    def response(self, method: str = "GET", **headers: str) -> tuple[bytes, bytes]:
        """Return the head and the body of a response."""
        transport = self.request(method, **headers)
        self.settle()
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return head.lower(), body

    def test_text(self) -> None:
        """The response has the totals, help and type."""
        self.recorder.metadata = [
            Metadata(MetricKind.COUNTER, "requests_total", Unit.COUNT, "Requests.")
        ]
        head, body = self.response()
        self.assertIn(b" 200 ", head)
        self.assertIn(b"content-type: text/plain; version=0.0.4; charset=utf-8", head)
        self.assertTrue(
            body.startswith(
                b"# TYPE requests_total counter\n"
                b"# HELP requests_total Requests.\n"
                b"requests_total 5\n"
            ),
            body,
        )

    def test_ownMetrics(self) -> None:
        """The response has current metrics of the exporter itself."""
        self.recorder.own = {Key.of(MetricKind.GAUGE, "clients"): 2.0}
        self.assertIn(b"\nclients 2.0\n", self.response()[1])

    def test_invalidAccept(self) -> None:
        """A header that is no UTF-8 is no error."""
        protocol = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(
            b"GET /metrics HTTP/1.0\r\nAccept: \xff\r\nAccept: "
            + OPEN_METRICS.encode()
            + b"\r\n\r\n"
        )
        self.settle()
        self.assertIn(b" 200 ", transport.value())
        self.assertTrue(transport.value().endswith(b"# EOF\n"))

    def test_head(self) -> None:
        """HEAD has no body, and renders nothing."""
        transport = self.request("HEAD")
        self.assertTrue(transport.value().endswith(b"\r\n\r\n"))
        self.assertIn(b"200 OK", transport.value())

    def test_otherMethods(self) -> None:
        """Only GET and HEAD are allowed."""
        self.assertIn(b" 405 ", self.response("POST")[0])

    def test_gzip(self) -> None:
        """The response is compressed if the client accepts that."""
        plain = self.response()[1]
        head, body = self.response(**{"Accept-Encoding": "gzip"})
        self.assertIn(b"content-encoding: gzip", head)
        self.assertEqual(gzip.decompress(body), plain)

    def test_buckets(self) -> None:
        """Classic buckets depend on the unit, or are given."""
        histogram = Key.of(MetricKind.HISTOGRAM, "time")
        self.recorder.totals = {histogram: Distribution.of([30.0])}
        self.recorder.metadata = [
            Metadata(MetricKind.HISTOGRAM, histogram.name, Unit.MILLISECONDS, "")
        ]
        body = self.response()[1]
        self.assertIn(b'{le="25.0"} 0\n', body)
        self.assertIn(b'{le="50.0"} 1\n', body)
        self.serve(MetricsResource(self.recorder, buckets=[1, 40, float("inf")]))
        body = self.response()[1]
        self.assertEqual(body.count(b"_bucket"), 3)
        self.assertIn(b'{le="40.0"} 1\n', body)
        self.serve(MetricsResource(self.recorder, buckets=()))
        self.assertEqual(self.response()[1].count(b"_bucket"), 1)
        for bad in ([2, 1], [1, 1], [1, float("nan")], [float("nan")]):
            with self.assertRaisesRegex(ValueError, "ascending order"):
                MetricsResource(self.recorder, buckets=bad)

    def test_quantiles(self) -> None:
        """Quantiles are exposed on request, and must be from 0 to 1."""
        histogram = Key.of(MetricKind.HISTOGRAM, "time")
        self.recorder.totals = {histogram: Distribution.of([30.0])}
        self.assertNotIn(b"quantile", self.response()[1])
        self.serve(MetricsResource(self.recorder, quantiles=[0.5]))
        self.assertIn(b'\ntime_quantile{quantile="0.5"} 30.0\n', self.response()[1])
        with self.assertRaisesRegex(ValueError, "from 0 to 1"):
            MetricsResource(self.recorder, quantiles=[1.5])

    def test_slowClient(self) -> None:
        """Nothing is rendered while the client does not read."""
        self.recorder.totals = {
            Key.of(MetricKind.GAUGE, "g", {"n": number}): 1.0 for number in range(5000)
        }
        transport = self.request()
        producer = transport.producer
        assert producer is not None
        producer.pauseProducing()
        self.settle()
        paused = len(transport.value())
        producer.resumeProducing()
        self.settle()
        self.assertGreater(len(transport.value()), paused + 10_000)

    def test_pausedTwice(self) -> None:
        """A transport that pauses the response several times resumes it once."""
        producer = self.request().producer
        assert producer is not None
        producer.pauseProducing()
        producer.pauseProducing()
        producer.resumeProducing()
        self.settle()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_neverReads(self) -> None:
        """A client that does not read is disconnected, and makes room for others."""
        transports = [self.request() for _ in range(MAX_RESPONSES)]
        for transport in transports:
            assert transport.producer is not None
            transport.producer.pauseProducing()
        self.reactor.advance(TIMEOUT)
        for transport in transports:
            self.assertTrue(transport.disconnecting)
            transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIn(b" 200 ", self.response()[0])

    def test_http2(self) -> None:
        """A response over HTTP/2 that takes too long is aborted, and makes room for others."""
        aborted = []

        class Stream:
            def abortConnection(self) -> None:
                aborted.append(self)

        for _ in range(MAX_RESPONSES):
            channel = self.request().producer
            assert isinstance(channel, HTTPChannel)
            channel.pauseProducing()
            channel.requests[0].channel = Stream()
        self.reactor.advance(TIMEOUT)
        self.assertEqual(len(aborted), MAX_RESPONSES)
        self.assertIn(b" 200 ", self.response()[0])

    def test_disconnected(self) -> None:
        """Nothing is rendered for a client that has left."""
        transport = self.request()
        transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn(b" 200 ", self.response()[0])

    def test_tooMany(self) -> None:
        """Only a few responses are rendered at the same time."""
        transports = [self.request() for _ in range(MAX_RESPONSES)]
        self.assertIn(b" 503 ", self.request().value())
        self.settle()
        for transport in transports:
            self.assertIn(b" 200 ", transport.value())
        self.assertIn(b" 200 ", self.response()[0])

    def test_clash(self) -> None:
        """A metric whose name is taken is logged once, and counted."""
        self.recorder.totals = {
            Key.of(MetricKind.GAUGE, "a_b" + "x" * 50_000): 1.0,
            Key.of(MetricKind.COUNTER, "a\nb" + "x" * 50_000): 1,
        }
        with capturedLogs() as events:
            for _ in range(2):
                self.assertIn(b'left_out{reason="clash"} 1\n', self.response()[1])
        (message,) = [formatEvent(one) for one in events if one["log_namespace"] == "txmetrics_tcp"]
        self.assertIn(r"The metric 'a\nbxxx", message)
        self.assertNotIn("\n", message)
        self.assertLess(len(message), 1000)

    def test_failure(self) -> None:
        """If rendering fails, the connection is closed, and the error logged."""
        self.recorder.totals = {Key.of(MetricKind.GAUGE, "g"): "no number"}  # type: ignore[dict-item]
        transport = self.request()
        self.settle()
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
