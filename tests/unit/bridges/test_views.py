"""
The series of servers as metrics of Prometheus.
"""

from __future__ import annotations

import gzip
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from txmetrics_tcp import (
    Connected,
    Disconnected,
    Distribution,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    StreamError,
    Unit,
)
from txmetrics_tcp._view.memory import SAMPLE_BYTES
from txmetrics_tcp.bridges._views import Pages, ServerView

STALE_AFTER = 60.0
CONNECTED = Connected(IPv4Address("TCP", "127.0.0.1", 5000))
REQUESTS = Key.of(MetricKind.COUNTER, "requests_total")
LOAD = Key.of(MetricKind.GAUGE, "load")
LATENCY = Key.of(MetricKind.HISTOGRAM, "latency_seconds")


def lost(error: Exception | None = None) -> Disconnected:
    return Disconnected(Failure(error or ConnectionDone()))


def increment(amount: int = 1, key: Key = REQUESTS) -> Metric:
    return Metric(key, Operation.INCREMENT_COUNTER, amount, None)


def load(value: float, key: Key = LOAD) -> Metric:
    return Metric(key, Operation.SET_GAUGE, value, None)


class PagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.web1 = ServerView("web1:5000", self.clock.seconds, STALE_AFTER)
        self.web2 = ServerView("unix:/run/a b", self.clock.seconds, STALE_AFTER)
        names = {"web1:5000": "web1", "unix:/run/a b": "unix"}
        self.pages = Pages()
        self.pages.show([self.web1, self.web2], names)
        self.site = Site(self.pages, reactor=self.clock)

    def get(self, path: str, head: str = "") -> tuple[bytes, bytes]:
        """Return the head and the body of a response."""
        protocol: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.0\r\n{head}\r\n".encode())
        # Each slice is a call without a delay.
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.calls):
            self.clock.advance(0)
        found, _, body = transport.value().partition(b"\r\n\r\n")
        return found, body

    def samples(self, path: str = "/metrics") -> dict[str, str]:
        """Return the values of a page by name and labels, without the bridge's own."""
        lines = self.get(path)[1].decode().splitlines()
        rows = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: value for name, value in rows.items() if not name.startswith("txmetrics_")}

    def own(self, name: str, path: str = "/metrics") -> dict[str, str]:
        """Return the values of a metric about sources, by labels."""
        lines = self.get(path)[1].decode().splitlines()
        begin = f"txmetrics_source_{name}{{"
        rows = [line.removeprefix(begin) for line in lines if line.startswith(begin)]
        return dict(row.split("} ") for row in rows)

    def test_broker(self) -> None:
        """Sources of brokers have their lag, and become stale without their broker."""
        web = ServerView("web", self.clock.seconds, STALE_AFTER, lambda: 5)
        self.pages.show([web, self.web1], {})
        self.assertEqual(self.own("behind_messages"), {'source="web"': "5"})
        web.interrupted("not connected anyway")
        web.state_changed(CONNECTED)
        web.received([increment(1)])
        web.interrupted("no broker")
        self.assertEqual(self.own("connected")['source="web"'], "0")
        self.assertEqual(list(self.samples().values()), ["1"])
        self.clock.advance(STALE_AFTER)
        self.assertEqual(self.samples(), {})
        web.interrupted("")
        self.assertEqual(self.own("connected")['source="web"'], "1")
        web.received([increment(1)])
        self.assertEqual(list(self.samples().values()), ["2"])

    def test_series(self) -> None:
        """Pages have counters, gauges and histograms of each server, with descriptions."""
        distribution = Distribution.of([0.5, 2.0])
        for server, value in (self.web1, 5), (self.web2, 6):
            server.state_changed(CONNECTED)
            server.received(
                [
                    Metadata(REQUESTS.kind, REQUESTS.name, Unit.COUNT, "Requests."),
                    increment(value),
                    load(value / 2),
                    HistogramTotal(LATENCY, distribution),
                    Metric(LATENCY, Operation.RECORD_HISTOGRAM, 1.0, None),
                ]
            )
        body = self.get("/metrics")[1]
        self.assertTrue(
            body.startswith(
                b"# TYPE requests_total counter\n"
                b"# HELP requests_total Requests.\n"
                b'requests_total{source="web1:5000"} 5\n'
                b'requests_total{source="unix:/run/a b"} 6\n'
            )
        )
        samples = self.samples()
        self.assertEqual(samples['load{source="unix:/run/a b"}'], "3.0")
        self.assertEqual(samples['latency_seconds_count{source="web1:5000"}'], "3")
        self.assertEqual(samples['latency_seconds_sum{source="web1:5000"}'], "3.5")

    def test_one(self) -> None:
        """There is a page for each server, by its name or its short name."""
        for server in self.web1, self.web2:
            server.state_changed(CONNECTED)
            server.received([increment()])
        for name, paths in {
            "web1:5000": ["web1:5000", "web1"],
            "unix:/run/a b": ["unix:/run/a%20b", "unix%3A%2Frun%2Fa%20b", "unix"],
        }.items():
            for path in paths:
                page = f"/metrics/{path}"
                self.assertEqual(self.samples(page), {f'requests_total{{source="{name}"}}': "1"})
                self.assertEqual(self.own("connected", page), {f'source="{name}"': "1"})

    def test_otherPaths(self) -> None:
        """Other paths lead to those that exist."""
        head, body = self.get("/")
        self.assertIn(b" 200 ", head)
        self.assertIn(b"/metrics", body)
        head, body = self.get("/metrics/web3")
        self.assertIn(b" 404 ", head)
        self.assertIn(b"Content-Type: text/plain", head)
        self.assertIn(b"\n  web1:5000\n  unix:/run/a b\n", body)
        for path in "/x", "/x/metrics", "//metrics", "/metrics/%ff":
            self.assertIn(b" 404 ", self.get(path)[0], path)
        self.assertEqual(self.get("/metrics/")[1], self.get("/metrics")[1])

    def test_gzip(self) -> None:
        head, body = self.get("/metrics", "Accept-Encoding: gzip\r\n")
        self.assertIn(b"Content-Encoding: gzip", head)
        self.assertEqual(gzip.decompress(body), self.get("/metrics")[1])

    def test_connected(self) -> None:
        """The state and the number of connections are exposed from the beginning."""
        one, two = 'source="web1:5000"', 'source="unix:/run/a b"'
        self.assertEqual(self.own("connected"), {one: "0", two: "0"})
        self.assertEqual(self.own("connections_total"), {one: "0", two: "0"})
        self.web1.state_changed(CONNECTED)
        self.assertEqual(self.own("connected"), {one: "1", two: "0"})
        self.web1.state_changed(lost())
        self.web1.state_changed(CONNECTED)
        self.web1.state_changed(lost())
        self.assertEqual(self.own("connected"), {one: "0", two: "0"})
        self.assertEqual(self.own("connections_total"), {one: "2", two: "0"})

    def test_foreign(self) -> None:
        """A peer that is no metrics server is not connected until it sends events."""
        self.web1.state_changed(CONNECTED)
        self.web1.state_changed(lost(StreamError("no stream")))
        self.web1.state_changed(CONNECTED)
        self.assertEqual(self.own("connected", "/metrics/web1"), {'source="web1:5000"': "0"})
        self.web1.received([increment()])
        self.assertEqual(self.own("connected", "/metrics/web1"), {'source="web1:5000"': "1"})

    def test_losses(self) -> None:
        """Dropped events and restarts are exposed if the server reports them."""
        self.web1.state_changed(CONNECTED)
        self.web1.received([increment()])
        bridge = {'side="bridge",source="web1:5000"': "0"}
        self.assertEqual(self.own("missed_events_total", "/metrics/web1"), bridge)
        self.assertEqual(self.own("restarts_total"), {})
        self.web1.received([Status("s", 1), Status("s", 1, 1, 4)])
        self.web1.state_changed(lost())
        # Each connection counts from zero.
        self.web1.state_changed(CONNECTED)
        self.web1.received([Status("s", 1, 2, 0)])
        self.web1.received([Status("s", 2)])
        self.assertEqual(
            self.own("missed_events_total", "/metrics/web1"),
            {
                'side="incoming",source="web1:5000"': "3",
                'side="client",source="web1:5000"': "4",
                **bridge,
            },
        )
        self.assertEqual(self.own("restarts_total"), {'source="web1:5000"': "1"})

    def test_tooManySeries(self) -> None:
        """Events of series beyond the limit of the view are counted."""
        self.web1.view._max_series = 1
        self.web1.received([increment(), load(1.0), load(2.0)])
        missed = self.own("missed_events_total", "/metrics/web1")
        self.assertEqual(missed, {'side="bridge",source="web1:5000"': "2"})

    def test_noDistribution(self) -> None:
        """A histogram whose samples took too much memory is not exposed."""
        self.assertTrue(self.web1.view._samples.take(SAMPLE_BYTES))
        self.web1.state_changed(CONNECTED)
        self.web1.received([Metric(LATENCY, Operation.RECORD_HISTOGRAM, 1.0, None), load(1.0)])
        self.assertEqual(self.samples(), {'load{source="web1:5000"}': "1.0"})

    def test_clash(self) -> None:
        """Series that are named as those about servers are left out, and counted."""
        self.web1.state_changed(CONNECTED)
        self.web1.received(
            [
                load(7.0, Key.of(MetricKind.GAUGE, "txmetrics.source.connected")),
                increment(7, Key.of(MetricKind.COUNTER, "txmetrics_source_restarts")),
            ]
        )
        self.assertEqual(self.own("connected", "/metrics/web1"), {'source="web1:5000"': "1"})
        self.assertEqual(self.own("restarts_total"), {})
        self.assertIn(b'left_out{reason="clash"} 2\n', self.get("/metrics")[1])

    def test_stale(self) -> None:
        """The series of a server that stays disconnected vanish."""
        self.web1.state_changed(CONNECTED)
        self.web1.received([increment(), load(1.0)])
        self.clock.advance(10 * STALE_AFTER)
        # A server without events is not stale.
        self.assertEqual(len(self.samples()), 2)
        self.web1.state_changed(lost())
        self.clock.advance(STALE_AFTER - 1)
        # A failed attempt does not extend the time.
        self.web1.state_changed(lost())
        self.assertEqual(len(self.samples()), 2)
        self.clock.advance(1)
        self.assertEqual(self.samples(), {})
        self.assertEqual(self.own("connected", "/metrics/web1"), {'source="web1:5000"': "0"})

    def test_staleBehindProxy(self) -> None:
        """Connections without events, such as those of a proxy, do not extend the time."""
        for last in Disconnected(Failure(ConnectionDone()), True), lost(StreamError("no stream")):
            self.web1.state_changed(CONNECTED)
            self.web1.received([load(1.0)])
            self.web1.state_changed(lost())
            self.assertEqual(len(self.samples()), 1)
            for _ in range(2):
                self.clock.advance(STALE_AFTER / 2)
                self.web1.state_changed(CONNECTED)
                self.web1.state_changed(last)
            self.assertEqual(self.samples(), {})

    def test_back(self) -> None:
        """After a long disconnection, series are exposed again with their next event."""
        self.web1.state_changed(CONNECTED)
        self.web1.received([increment(5), load(1.0)])
        self.web1.state_changed(lost())
        self.clock.advance(STALE_AFTER)
        self.web1.state_changed(CONNECTED)
        self.assertEqual(self.samples(), {})
        self.web1.received([increment(2)])
        self.assertEqual(self.samples(), {'requests_total{source="web1:5000"}': "7"})

    def test_backSoon(self) -> None:
        """After a short disconnection, all series stay."""
        self.web1.state_changed(CONNECTED)
        self.web1.received([increment(5), load(1.0)])
        self.web1.state_changed(lost())
        self.clock.advance(STALE_AFTER - 1)
        self.web1.state_changed(CONNECTED)
        self.clock.advance(STALE_AFTER)
        self.assertEqual(len(self.samples()), 2)

    def test_gone(self) -> None:
        """Series that the server has removed vanish."""
        self.web1.state_changed(CONNECTED)
        self.web1.received([increment(), load(1.0)])
        self.web1.received([Snapshot.BEGIN_COMPLETE, load(2.0), Snapshot.END])
        self.assertEqual(self.samples(), {'load{source="web1:5000"}': "2.0"})
