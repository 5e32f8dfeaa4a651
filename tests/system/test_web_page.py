"""
The web page in a real browser.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Generator
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import skipIf

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests import ROOT, needs
from tests.browser import no_browser, return_browser, shared_browser
from tests.daemon import METRICS_TCP, Daemon
from tests.programs import Program
from tests.recordings import NOON, SECOND, Clock
from tests.rust_peers import start_server
from txmetrics_tcp import (
    ExporterSettings,
    Key,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    RecordingWriter,
    encode_metric,
)
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp.web import MetricsWeb
from txmetrics_tcp.web._resource import MAX_IDS

reactor: Any = _reactor

CASES = json.loads((ROOT / "tests" / "conformance.json").read_text("utf-8"))

MINUTES = int(os.environ.get("TXMETRICS_PAGE_MINUTES", "1"))
"""The number of minutes for which the page's memory is watched."""

SERVING = r"Serving the live view on (\S+)"

HOSTILE = '<img src=x onerror="alert(1)">\u202e\x1b[2J'


@skipIf(no_browser, no_browser or "")
class BrowserTestCase(TestCase):
    """
    A test in the browser.  Afterwards, the console has no message, and with it no violation of the
    policy.

    @ivar allowed: texts of messages that the console may have.
    """

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Generator[Deferred[Any], Any, None]:  # type: ignore[override]
        self.allowed: list[str] = []
        self.browser = yield deferToThread(shared_browser)
        self.addCleanup(deferToThread, return_browser)

    @inlineCallbacks
    def tearDown(self) -> Generator[Deferred[Any], Any, None]:  # type: ignore[override]
        messages = yield deferToThread(self.browser.messages)
        others = [one for one in messages if not any(text in one for text in self.allowed)]
        self.assertEqual(others, [])

    def run_script(self, script: str, *arguments: object) -> Deferred[Any]:
        return deferToThread(self.browser.run, script, *arguments)

    def wait_for(self, condition: str, *arguments: object) -> Deferred[Any]:
        return deferToThread(self.browser.wait_for, condition, *arguments)

    def keys(self, text: str) -> Deferred[Any]:
        return deferToThread(self.browser.keys, text)

    @inlineCallbacks
    def until(self, condition: Callable[[], object]) -> Generator[Deferred[Any], Any, None]:
        """Wait until a condition in this process is true, at most as long as the test."""
        while not condition():
            yield deferLater(reactor, 0.01)


class PageTestCase(BrowserTestCase):
    """
    @ivar exporter: what the page shows.
    @ivar address: the page, below a prefix.
    """

    history: int | None = 600
    settings = ExporterSettings(own_metrics=False)

    @inlineCallbacks
    def setUp(self) -> Generator[Deferred[Any], Any, None]:  # type: ignore[override]
        self.exporter = MetricsFactory(reactor, self.settings)
        self.addCleanup(lambda: self.exporter.stop())
        self.recorder = self.exporter.recorder
        self.port = reactor.listenTCP(0, self.exporter, interface="127.0.0.1")
        self.addCleanup(lambda: self.port.stopListening())
        self.web = MetricsWeb(reactor, *self.sources(), history=self.history)
        root = Resource()
        root.putChild(b"prefix", self.web.resource)
        self.site = WrappingFactory(Site(root))
        site = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.disconnect)
        self.addCleanup(site.stopListening)
        self.web.startService()
        self.addCleanup(self.web.stopService)
        self.address = f"http://127.0.0.1:{site.getHost().port}/prefix/"
        yield super().setUp()

    @property
    def streams(self) -> list[Any]:
        """The streams of all tabs."""
        return list(self.web._feed.viewers)

    def disconnect(self) -> Deferred[Any]:
        """Close the connections that the browser keeps."""
        for connection in list(self.site.protocols):
            connection.abortConnection()
        return self.until(lambda: not self.site.protocols)

    def sources(self) -> list[str | MetricsFactory]:
        return [f"127.0.0.1:{self.port.getHost().port}"]

    def open(self, fragment: str = "") -> Deferred[Any]:
        """Open the page, and wait until it shows a series."""
        self.recorder.counter("opened_total").increment()
        return deferToThread(self._open, fragment)

    def _open(self, fragment: str) -> None:
        self.browser.open(self.address + fragment)
        self.browser.wait_for("metrics.live.series.size > 0 && metrics.connection[0] === 'live'")

    def expected_values(self) -> dict[str, str]:
        """Return the exporter's totals as the page's script returns them."""
        return {
            f"{key.kind.value} {key}": str(
                value.count if isinstance(value, Distribution) else value
            )
            if not isinstance(value, float)
            else repr(value)
            for key, value in self.recorder.snapshot().items()
        }


class PageTests(PageTestCase):
    @inlineCallbacks
    def test_conformance(self) -> Generator[Deferred[Any], Any, None]:
        """The page passes the cases that Python passes."""
        yield self.open()
        failures = yield self.run_script(CONFORMANCE, CASES)
        self.assertEqual(failures, [])

    @inlineCallbacks
    def test_totals(self) -> Generator[Deferred[Any], Any, None]:
        """Totals are exact, of any size, also those that are not finite."""
        self.recorder.counter("largest_total").increment(2**64 - 1)
        self.recorder.counter("odd_total").increment(2**53 + 1)
        for name, value in (("nan", math.nan), ("inf", math.inf), ("small", 5e-324)):
            self.recorder.gauge(f"{name}_gauge").set(value)
        self.recorder.histogram("wait_seconds", unit="seconds").record(0.25)
        yield self.open()
        yield self.wait_for("metrics.live.series.size >= 7")
        shown = yield self.run_script(VALUES)
        self.assertEqual(shown, self.expected_values())

    @inlineCallbacks
    def test_manySeries(self) -> Generator[Deferred[Any], Any, None]:
        """Of 10,000 series, only the rows on the screen are in the document."""
        for number in range(9_990):
            self.recorder.counter("many_total", number=str(number)).increment(number)
        yield self.open()
        yield self.wait_for(
            "metrics.live.series.size === 9991 && document.querySelector('#body .row')"
        )
        rows = yield self.run_script("return document.querySelectorAll('#body .row').length")
        self.assertLess(rows, 100)
        yield self.keys("G")
        yield self.wait_for(
            "document.querySelector('#body .chosen .text').textContent === 'opened_total'"
        )
        yield self.keys("/number=99*")
        yield self.wait_for("document.getElementById('count').textContent === '101 of 9,991'")

    @inlineCallbacks
    def test_hostileNames(self) -> Generator[Deferred[Any], Any, None]:
        """Names and labels are text, and hidden characters are escaped."""
        self.recorder.counter(HOSTILE, **{HOSTILE: HOSTILE}).increment()
        yield self.open()
        yield self.wait_for("metrics.live.series.size >= 2")
        yield self.run_script("metrics.open(metrics.rows.lines[0])")
        text = yield self.wait_for("document.querySelector('.chart h2')?.textContent")
        self.assertIn('<img src=x onerror="alert(1)">\\u202e\\x1b[2J', text)
        images = yield self.run_script("return document.images.length")
        self.assertEqual(images, 0)

    @inlineCallbacks
    def test_keyboard(self) -> Generator[Deferred[Any], Any, None]:
        """All is possible with keys: filter, choose, chart, sort, group, pause, close."""
        self.recorder.counter("requests_total", route="/").increment()
        self.recorder.gauge("queue").set(3)
        yield self.open()
        yield self.keys("/requests" + ENTER)
        yield self.wait_for("metrics.rows.matching.length === 1")
        yield self.keys("j" + ENTER)
        yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 1")
        yield self.keys("ss")
        yield self.wait_for(
            "document.querySelector('[aria-sort=descending]').textContent === 'value'"
        )
        yield self.keys("g")
        yield self.wait_for("metrics.rows.lines[0].title === 'requests_total'")
        yield self.keys(" ")
        yield self.wait_for("document.getElementById('mode').textContent.startsWith('HELD')")
        yield self.keys(" ")
        yield self.wait_for("document.getElementById('mode').textContent === 'LIVE'")
        yield self.keys("?")
        yield self.wait_for("document.getElementById('help-window').open")
        yield self.keys(ESCAPE)
        yield self.wait_for("!document.getElementById('help-window').open")
        yield self.keys(ESCAPE * 3)
        yield self.wait_for(
            "!metrics.rows.filterText && !metrics.rows.grouping && !metrics.charts.all.length"
        )

    @inlineCallbacks
    def test_link(self) -> Generator[Deferred[Any], Any, None]:
        """A link restores filter, order, grouping and charts."""
        self.recorder.counter("requests_total", route="/a*b").increment()
        self.recorder.histogram("wait_seconds").record(1)
        yield self.open("#filter=total&sort=-rate&group=name&window=10")
        yield self.wait_for("metrics.live.series.size >= 3 && metrics.rows.lines.length")
        yield self.run_script(
            "for (const row of metrics.live.series.values())"
            " if (row.name !== 'opened_total') metrics.charts.toggle(row)"
        )
        yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 2")
        fragment = yield self.run_script("return location.hash")
        yield self.open(fragment)
        yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 2")
        state = yield self.run_script(
            "return [metrics.rows.filterText, metrics.rows.sort, metrics.rows.descending,"
            " metrics.rows.grouping, metrics.window, location.hash]"
        )
        self.assertEqual(state, ["total", "rate", True, "name", 10, fragment])

    @inlineCallbacks
    def test_past(self) -> Generator[Deferred[Any], Any, None]:
        """The table shows an earlier time, and then follows again."""
        counter = self.recorder.counter("requests_total")
        counter.increment(3)
        yield self.open()
        yield self.wait_for(
            "metrics.live.history && metrics.live.time > metrics.live.history.from + 4"
        )
        at = yield self.run_script("return Math.floor(metrics.live.time)")
        yield self.wait_for("metrics.live.time > arguments[0] + 2", at)
        counter.increment(4)
        shown = (
            "document.querySelector('#body .row:nth-child(2) .value').textContent === arguments[0]"
        )
        yield self.wait_for(shown, "7")
        yield self.run_script("return metrics.goTo(arguments[0])", at)
        yield self.wait_for(shown, "3")
        self.assertEqual((yield self.run_script("return metrics.at")), at)
        # Series that begin meanwhile are listed afterwards, and are in no list that grows.
        self.recorder.counter("begun_total").increment()
        yield self.wait_for("metrics.live.series.size === 3")
        self.assertEqual((yield self.run_script("return metrics.live.changes.added.length")), 0)
        yield self.keys(" ")
        yield self.wait_for("metrics.rows.lines.length === 3")

    @inlineCallbacks
    def test_readout(self) -> Generator[Deferred[Any], Any, None]:
        """Above a chart are the last percentiles, also in seconds without a sample."""
        self.recorder.histogram("wait_seconds").record(1)
        yield self.open()
        yield self.wait_for("metrics.live.series.size === 2")
        yield self.run_script(OPEN_CHART, "wait_seconds")
        yield self.wait_for(
            "metrics.charts.all[0].fields.p50?.at(-1) === null"
            " && document.querySelector('.readout').textContent.startsWith('p50 1   p90 1 ')"
        )

    @inlineCallbacks
    def test_sortByNumber(self) -> Generator[Deferred[Any], Any, None]:
        """
        Rows of equal numbers stay in the order of their names.  Those without a number come last.
        """
        numbers = {"a": 2, "b": math.nan, "c": math.inf, "d": 2, "e": -math.inf, "f": math.nan}
        numbers |= {"g": math.inf, "h": -0.0, "i": 0.0, "j": 2, "k": -1e308, "l": 5e-324}
        for name, number in numbers.items():
            self.recorder.gauge(name).set(number)
        yield self.open("#filter=kind:gauge&sort=value")
        yield self.wait_for("metrics.rows.matching.length === 12")
        order = yield self.run_script(SORT, "value", False)
        self.assertEqual(order, "ekhiladjcgbf")
        order = yield self.run_script(SORT, "value", True)
        self.assertEqual(order, "cgadjlhikebf")
        # No figures are known.
        order = yield self.run_script(SORT, "p50", True)
        self.assertEqual(order, "abcdefghijkl")

    @inlineCallbacks
    def test_manyHistograms(self) -> Generator[Deferred[Any], Any, None]:
        """A group of more histograms than the server sums leaves the percentiles of its rows."""
        histograms = [self.recorder.histogram("wait", number=str(n)) for n in range(MAX_IDS + 1)]
        yield self.open("#group=name&filter=wait")
        yield self.wait_for("metrics.live.series.size === 1")
        for histogram in histograms:
            histogram.record(3)
        yield self.wait_for(
            "document.querySelector('#body .row.group .p50').textContent === '\\u2013'"
            " && document.querySelector('#body .row.histogram .p50').textContent === '3'"
        )

    @inlineCallbacks
    def test_brokenLink(self) -> Generator[Deferred[Any], Any, None]:
        """What a link has wrong is ignored; a series that is unknown may still come."""
        broken = "#at=x&sort=valueOf&group=label:x&window=7&range=x&source=x&chart=x&chart=rate+c*x"
        yield self.open(broken)
        yield self.wait_for("metrics.charts.all.length === 2 && metrics.rows.lines.length === 2")
        state = "return [metrics.at, metrics.charts.span, document.getElementById('group').value]"
        self.assertEqual((yield self.run_script(state)), [None, 0, "label:x"])
        text = yield self.run_script("return document.getElementById('charts').textContent")
        self.assertIn("c*x", text)
        yield self.run_script("metrics.charts.all[0].savePicture()")

    @inlineCallbacks
    def test_clicks(self) -> Generator[Deferred[Any], Any, None]:
        """
        Two clicks on a row while charts are loaded open one; one between rows, as after texts were
        chosen in several, does nothing.
        """
        yield self.open()
        yield self.wait_for("document.querySelector('#body .row')")
        yield self.run_script(
            "document.getElementById('body').click();"
            "for (let at = 0; at < 2; at++) document.querySelector('#body .row').click()"
        )
        yield self.wait_for("document.querySelectorAll('.chart .uplot').length")
        self.assertEqual((yield self.run_script("return metrics.charts.all.length")), 1)

    @inlineCallbacks
    def test_loadAgain(self) -> Generator[Deferred[Any], Any, None]:
        """If what draws charts cannot be loaded, a later click loads it."""
        yield self.open()
        self.allowed = ["net::ERR_"]
        yield deferToThread(self.browser.devtools, "Network.enable")
        url = f"{self.address}page/uplot.js"
        yield deferToThread(self.browser.devtools, "Network.setBlockedURLs", urls=[url])
        yield self.run_script(OPEN_CHART, "opened_total")
        yield deferToThread(self.browser.devtools, "Network.setBlockedURLs", urls=[])
        yield self.wait_for("!document.querySelector('.chart')")
        yield self.run_script(OPEN_CHART, "opened_total")
        yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 1")

    @inlineCallbacks
    def test_lateAnswer(self) -> Generator[Deferred[Any], Any, None]:
        """The error of a time that cannot be shown is hidden, if another one was chosen since."""
        yield self.open()
        yield self.run_script(
            """
            const { server } = metrics;
            const frame = server.frame;
            server.frame = () => Promise.reject(new Error("late"));
            const late = metrics.goTo(1);
            delete server.frame;
            metrics.goTo(null);
            await late;
            """
        )
        self.assertEqual((yield self.run_script("return metrics.failure")), "")

    @inlineCallbacks
    def test_chosenInThePast(self) -> Generator[Deferred[Any], Any, None]:
        """The chosen series is the same at another time."""
        yield self.open()
        opened = yield self.run_script("return metrics.live.time")
        yield self.wait_for("metrics.live.time > arguments[0] + 3", opened)
        yield self.keys("j")
        yield self.wait_for("metrics.table.chosen")
        yield self.run_script("return metrics.goTo(arguments[0] + 2)", opened)
        yield self.wait_for(
            "document.querySelector('#body .chosen .text').textContent === 'opened_total'"
            " && metrics.held.series.has(metrics.table.chosen.id)"
        )

    @inlineCallbacks
    def test_manySteps(self) -> Generator[Deferred[Any], Any, None]:
        """A chart of many steps fetches all again, so that the server makes them longer."""
        yield self.open()
        yield self.run_script(OPEN_CHART, "opened_total")
        yield self.wait_for("metrics.charts.all[0]?.t.length")
        begin = yield self.run_script(
            """
            const { charts, server } = metrics;
            const [chart] = charts.all;
            const end = chart.t.at(-1);
            charts.zoomed = [end - 5000, end];
            chart.t = Array.from({ length: 1000 }, (_, at) => end - 999 + at);
            chart.fields.rate = chart.t.map(() => 0);
            globalThis.asked = [];
            const { json } = server;
            server.json = (path) => {
                asked.push(path);
                return json.call(server, path);
            };
            return charts.zoomed[0];
            """
        )
        yield self.wait_for("asked.some((path) => path.includes(`&from=${arguments[0]}&`))", begin)

    @inlineCallbacks
    def test_leave(self) -> Generator[Deferred[Any], Any, None]:
        """
        A page that was left has no connection: a browser has at most six of them to a server, and
        may keep pages to go back to.
        """
        for _ in range(8):
            yield self.open()

    @inlineCallbacks
    def test_reconnect(self) -> Generator[Deferred[Any], Any, None]:
        """After a disconnection, totals are exact again, and the page has a mark."""
        counter = self.recorder.counter("requests_total")
        counter.increment(5)
        yield self.open()
        number = self.port.getHost().port
        yield self.port.stopListening()
        for client in list(self.exporter._fanout.clients):
            client.transport.abortConnection()
        yield self.wait_for("document.querySelector('.chip.bad, .chip.wait')")
        counter.increment(2**60)
        self.port = reactor.listenTCP(number, self.exporter, interface="127.0.0.1")
        yield self.wait_for("document.querySelector('.chip.good')")
        yield self.wait_for("metrics.live.notes.some(({ kind }) => kind === 'disconnect')")
        yield self.wait_for(
            "[...metrics.live.series.values()]"
            ".some((row) => metrics.live.value(row) === 2n ** 60n + 5n)"
        )
        self.assertEqual((yield self.run_script(VALUES)), self.expected_values())

    @inlineCallbacks
    def test_restart(self) -> Generator[Deferred[Any], Any, None]:
        """The page of a restarted server begins again, and has a mark, also on charts."""
        self.recorder.counter("requests_total").increment(5)
        self.recorder.counter("forgotten_total").increment()
        yield self.open()
        yield self.wait_for("metrics.live.series.size === 3")
        yield self.run_script(OPEN_CHART, "requests_total")
        yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 1")
        number = self.port.getHost().port
        yield self.port.stopListening()
        yield self.exporter.stop()
        self.exporter = MetricsFactory(reactor, self.settings)
        self.recorder = self.exporter.recorder
        self.recorder.counter("requests_total").increment(2)
        self.port = reactor.listenTCP(number, self.exporter, interface="127.0.0.1")
        yield self.wait_for("document.querySelector('.chip.good .restarts').textContent === '↻ 1'")
        yield self.wait_for("metrics.charts.marks().some(({ kind }) => kind === 'restart')")
        self.assertEqual((yield self.run_script(VALUES)), self.expected_values())
        yield self.wait_for("!metrics.charts.all[0].series.gone")

    @inlineCallbacks
    def test_tabs(self) -> Generator[Deferred[Any], Any, None]:
        """Of ten tabs, only the one that is visible has a stream, which it gets again if shown."""
        yield self.open()
        (first,) = yield deferToThread(lambda: self.browser.tabs)
        for _ in range(9):
            yield deferToThread(self.browser.new_tab)
            yield self.open()
        yield self.until(lambda: len(self.streams) == 1)
        yield deferToThread(self.browser.show, first)
        yield self.wait_for("metrics.connection[0] === 'live'")
        yield self.until(lambda: len(self.streams) == 1)

    @inlineCallbacks
    def test_stalled(self) -> Generator[Deferred[Any], Any, None]:
        """A page that gets no data says so, and connects again."""
        yield self.open()
        (stream,) = self.streams
        stream.pauseProducing()
        yield self.wait_for("document.getElementById('mode').textContent === 'STALLED'")
        yield self.run_script(
            "const now = performance.now.bind(performance); performance.now = () => now() + 60000"
        )
        yield self.wait_for("document.getElementById('mode').textContent === 'LIVE'")
        self.assertNotIn(stream, self.streams)

    @inlineCallbacks
    def test_doesNotRead(self) -> Generator[Deferred[Any], Any, None]:
        """A viewer that does not read costs one frame, and the page goes on."""
        counters = [self.recorder.counter("many_total", number=str(n)) for n in range(5_000)]
        yield self.open()
        (shown,) = self.streams
        table = self.web._feed.table
        client = socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = self.address.split("/")[2].partition(":")
        client.connect((host, int(port)))
        client.sendall(f"GET /prefix/stream HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        yield self.until(lambda: len(self.streams) == 2)
        (stream,) = (one for one in self.streams if one is not shown)
        transport = stream._request.channel.transport.transport

        def pending() -> int:
            return len(transport.dataBuffer) + int(transport._tempDataLen)

        def record() -> Deferred[Any]:
            for counter in counters:
                counter.increment()
            version = table.version + 1
            return self.until(lambda: table.version > version)

        while stream.ready:
            yield record()
        costs = [pending()]
        for _ in range(10):
            yield record()
            costs.append(pending())
        self.assertLess(max(costs), len(table.frame(None)))
        total = self.recorder.snapshot()[Key(MetricKind.COUNTER, "many_total", (("number", "7"),))]
        yield self.wait_for(HAS_VALUE, "many_total", total)

    @inlineCallbacks
    def test_heap(self) -> Generator[Deferred[Any], Any, None]:
        """
        The tab's memory stays the same, with charts, for a minute, or as many as the variable says.
        """
        counters = [self.recorder.counter("many_total", number=str(n)) for n in range(300)]
        histogram = self.recorder.histogram("wait_seconds")

        def record() -> None:
            histogram.record(1)
            for counter in counters:
                counter.increment()

        call = LoopingCall(record)
        call.start(0.1)
        self.addCleanup(call.stop)
        yield self.open("#sort=-rate")
        yield self.run_script(OPEN_CHART, "wait_seconds")
        yield self.run_script(OPEN_CHART, "opened_total")
        yield self.run_script(COUNT_FRAMES)
        sizes = []
        for number in range(100, 100 + 600 * MINUTES + 1, 50):
            yield self.wait_for("counted >= arguments[0]", number)
            sizes.append((yield deferToThread(self.browser.heap_size)))
        third = len(sizes) // 3
        growth = min(sizes[-third:]) - min(sizes[:third])
        self.assertLess(growth, 500_000, sizes)

    test_heap.timeout = 120 + 60 * MINUTES  # type: ignore[attr-defined]

    @skipIf(needs("axe_core_python"), needs("axe_core_python") or "")
    @inlineCallbacks
    def test_accessible(self) -> Generator[Deferred[Any], Any, None]:
        """axe-core finds nothing: wide and narrow, light and dark, with charts and windows."""
        axe = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
        self.recorder.histogram("wait_seconds", route="/").record(1)
        self.recorder.gauge("queue").set(3)
        for width in 1600, 390:
            yield deferToThread(self.browser.resize, width, 900)
            yield self.open("#group=name")
            yield self.wait_for("metrics.live.series.size === 3")
            yield self.run_script(axe)
            yield self.run_script(OPEN_CHART, "wait_seconds")
            yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 1")
            for _ in "light", "dark":
                yield self.run_script("metrics.toggleTheme()")
                for window in WINDOWS:
                    yield self.run_script(window)
                    self.assertEqual((yield self.run_script(AXE)), [], (width, window))
                yield self.keys(ESCAPE)


class SourcesTests(PageTestCase):
    """The page of several sources"""

    def sources(self) -> list[str | MetricsFactory]:
        return [*super().sources(), self.exporter]

    @inlineCallbacks
    def test_narrow(self) -> Generator[Deferred[Any], Any, None]:
        """Rows of different sources differ also where few columns fit."""
        self.recorder.counter("http_requests_total", method="GET", route="/api/orders").increment()
        self.recorder.histogram("http_request_seconds", route="/api/orders").record(1)
        for width in 1360, 700, 390:
            yield deferToThread(self.browser.resize, width, 700)
            yield self.open()
            yield self.wait_for("metrics.live.series.size === 6")
            yield self.run_script(OPEN_CHART, "opened_total")
            yield self.wait_for("document.querySelectorAll('.chart .uplot').length === 1")
            yield self.wait_for(f"(() => {{ {SEEN_SOURCES} }})()", 6, 2)


class LossTests(PageTestCase):
    settings = ExporterSettings(own_metrics=False, buffer_size=10)

    @inlineCallbacks
    def test_losses(self) -> Generator[Deferred[Any], Any, None]:
        """Totals are exact after losses, which the page counts and marks."""
        counter = self.recorder.counter("requests_total")
        histogram = self.recorder.histogram("wait_seconds")
        yield self.open()

        def record() -> None:
            for _ in range(3000):
                counter.increment()
                histogram.record(1)

        # The buffer is for other threads than the reactor's.
        yield deferToThread(record)
        self.assertGreater(self.recorder.stats().dropped_incoming, 0)
        yield self.wait_for("metrics.live.notes.some(({ kind }) => kind === 'loss')")
        yield self.wait_for(HAS_VALUE, "wait_seconds", 3000)
        yield self.wait_for(HAS_VALUE, "requests_total", 3000)
        self.assertEqual((yield self.run_script(VALUES)), self.expected_values())
        missed = yield self.run_script("return [...metrics.live.sources.values()][0].missed")
        self.assertEqual(missed, self.recorder.stats().dropped_incoming)


class EmbeddedPageTests(PageTestCase):
    """The page of an exporter of the same process, which has no client before the first viewer"""

    history = None

    def sources(self) -> list[str | MetricsFactory]:
        return [self.exporter]

    @inlineCallbacks
    def test_follows(self) -> Generator[Deferred[Any], Any, None]:
        self.recorder.counter("requests_total").increment(7)
        self.assertFalse(self.recorder.stats().clients)
        yield self.open()
        yield self.wait_for(HAS_VALUE, "requests_total", 7)
        self.assertEqual(len(self.recorder.stats().clients), 1)
        self.recorder.counter("requests_total").increment()
        yield self.wait_for(HAS_VALUE, "requests_total", 8)
        # The past begins with the viewer.
        yield self.wait_for("metrics.live.history.from >= Math.floor(metrics.live.time) - 30")


class NewNumbersTests(PageTestCase):
    """After a restart of the page's server, the numbers of series mean others."""

    def sources(self) -> list[str | MetricsFactory]:
        return [self.exporter]

    @inlineCallbacks
    def begin_again(self) -> Generator[Deferred[Any], Any, None]:
        self.recorder.histogram("first").record(1)
        self.recorder.counter("second").increment()
        yield self.open("#filter=first")
        yield self.wait_for("metrics.live.series.size === 3")
        self.recorder.histogram("first").record(1)
        yield self.wait_for("document.querySelector('#body .p50').textContent === '1'")
        yield self.run_script(OPEN_CHART, "second")
        yield self.run_script(OPEN_CHART, "first")
        yield self.wait_for("metrics.charts.all.filter(({ t }) => t.length).length === 2")

    @inlineCallbacks
    def restart(self) -> Generator[Deferred[Any], Any, Any]:
        """Return the time until which the page had data."""
        epoch = self.web._feed.table.epoch
        yield self.web.stopService()
        yield self.wait_for("metrics.connection[0] !== 'live'")
        stopped = yield self.run_script("return metrics.live.time")
        yield self.exporter.stop()
        self.exporter = MetricsFactory(reactor, self.settings)
        self.recorder = self.exporter.recorder
        for name in "x", "y", "z":
            self.recorder.histogram(name).record(7)
        self.recorder.histogram("first").record(7)
        self.web._make = [self.web._maker(self.exporter)]
        self.web.startService()
        yield self.wait_for("metrics.live.epoch > arguments[0] && metrics.live.series.size", epoch)
        for name in "x", "y", "z", "first":
            self.recorder.histogram(name).record(7)
        return stopped

    @inlineCallbacks
    def test_charts(self) -> Generator[Deferred[Any], Any, None]:
        """The chart of a series that has ended gets nothing of another one."""
        self.allowed = ["net::ERR_"]
        yield self.begin_again()
        stopped = yield self.restart()
        yield self.wait_for("metrics.charts.all[1].fields.p50.includes(7)")
        chart = yield self.run_script(
            "const [{ series, t }] = metrics.charts.all;"
            "return [series.name, t.every((time) => time <= arguments[0] + 1)]",
            stopped,
        )
        self.assertEqual(chart, ["second", True])

    @inlineCallbacks
    def test_held(self) -> Generator[Deferred[Any], Any, None]:
        """What a held page shows stays."""
        self.allowed = ["net::ERR_"]
        yield self.begin_again()
        # The history has samples when five seconds are complete.
        yield self.wait_for("metrics.charts.all[1].fields.p50?.includes(1)")
        yield self.keys(" ")
        yield self.wait_for(
            "metrics.held && metrics.rows.figures.size"
            " && document.querySelector('#body .p50').textContent === '1'"
            " && metrics.charts.all.every(({ t }) => t.length)"
        )
        yield self.restart()
        now = yield self.run_script("return metrics.live.time")
        yield self.wait_for("metrics.live.time > arguments[0] + 2", now)
        state = yield self.run_script(
            "return [document.querySelector('#body .p50').textContent,"
            " metrics.charts.all.map(({ t }) => !!t.length)]"
        )
        self.assertEqual(state, ["1", [True, True]])
        yield self.keys(" ")
        yield self.wait_for("document.querySelector('#body .p50').textContent === '7'")


class ProcessTests(BrowserTestCase):
    """The page of processes"""

    def show(self, address: str) -> Deferred[Any]:
        """Open a page and wait for its first series."""
        return deferToThread(self._show, address)

    def _show(self, address: str) -> None:
        self.browser.open(address)
        self.browser.wait_for("metrics.live.series.size > 0")

    def web(self, *arguments: str) -> str:
        """Run ``metrics-tcp web``, and return the link that it prints."""
        daemon = Daemon(self, "web", *arguments, runner=METRICS_TCP)
        return daemon.wait_for(r"the page is at (\S+)\n")[1]

    def daemon(self, *arguments: str) -> Daemon:
        return Daemon(self, "-n", "--pidfile=", "metrics-tcp", "--no-host", *arguments)

    @inlineCallbacks
    def test_daemon(self) -> Generator[Deferred[Any], Any, None]:
        daemon = self.daemon("--listen=0", "--web=0", "--interval=0.1")
        yield self.show(f"http://{daemon.wait_for(SERVING)[1]}/")
        yield self.wait_for(HAS_VALUE_ABOVE, "process_cpu_seconds_total", 0)

    @inlineCallbacks
    def test_collector(self) -> Generator[Deferred[Any], Any, None]:
        """The page of a collector has a past, and the sums of all processes."""
        # The directory of the test may have too long a path.
        directory = Path(mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        path = directory / "c.sock"
        daemon = self.daemon("--no-process", "--listen=0", f"--collect=unix:{path}", "--web=0")
        address = daemon.wait_for(SERVING)[1]
        daemon.wait_for("Collecting metrics on")
        for number in 3, 4:
            script = f"""
                metrics = TcpBuilder().report_to({f"unix:{path}"!r}).install_in_thread()
                counter("requests_total").increment({number})
                metrics.stop()
            """
            program = Program(self, script)
            code, _, errors = program.end()
            self.assertEqual((code, errors), (0, ""))
        yield self.show(f"http://{address}/")
        yield self.wait_for(HAS_VALUE, "requests_total", 7)
        yield self.wait_for("metrics.live.history.from < metrics.live.time - 1")

    @inlineCallbacks
    def test_rustServer(self) -> Generator[Deferred[Any], Any, None]:
        """The page follows a Rust program."""
        port, server = start_server(self)
        yield self.show(self.web(f"127.0.0.1:{port}", "--listen=127.0.0.1:0"))
        yield self.wait_for("metrics.live.series.size === 12")
        yield self.wait_for(HAS_VALUE_ABOVE, "rust_requests", 2)
        found = yield self.run_script(VALUES)
        largest = found["counter rust_largest"]
        special = [found[f"gauge rust_special [value = {name}]"] for name in ("nan", "inf", "-inf")]
        self.assertEqual((largest, special), (str(2**64 - 1), ["nan", "inf", "-inf"]))
        self.assertEqual(found["gauge rust_load"], "12.5")
        assert server.stdin is not None
        server.stdin.close()
        yield self.wait_for("document.querySelector('.chip.bad, .chip.wait')")

    @inlineCallbacks
    def test_recording(self) -> Generator[Deferred[Any], Any, None]:
        """The page shows a recording's end, and each time before it."""
        path = Path(self.mktemp()).absolute()
        key = Key(MetricKind.COUNTER, "requests_total")
        clock = Clock()
        with (
            path.open("wb") as file,
            RecordingWriter(file, "test", clock=lambda: NOON, monotonic=clock) as writer,
        ):
            writer.connected()
            for second in range(61):
                time = NOON + second * SECOND
                event = Metric(key, Operation.INCREMENT_COUNTER, 2, time)
                writer.write(encode_metric(event))
                clock.seconds += 1
        yield self.show(self.web(str(path), "--listen=127.0.0.1:0"))
        yield self.wait_for("document.getElementById('mode').textContent === 'RECORDING'")
        yield self.wait_for(HAS_VALUE, "requests_total", 122)
        # Its rate and trend are those of the end, and stay so.
        shown = "document.querySelector('#body .rate').textContent === '2/s'"
        yield self.wait_for(
            f"{shown} && document.querySelector('#body path[d]').outerHTML.length > 300"
        )
        passed = yield self.run_script(
            "const { live } = metrics; const { time } = live;"
            "live.apply({ head: { t: time + 20 }, ids: [], values: [] });"
            "return live.time - time"
        )
        self.assertEqual(passed, 0)

    @inlineCallbacks
    def test_token(self) -> Generator[Deferred[Any], Any, None]:
        """
        A page that other machines can open requires a token, which the link has.  The page takes it
        out of the address, and keeps it until the tab is closed.
        """
        link = self.web("127.0.0.1:1", "--listen=0.0.0.0:0")
        address, _, token = link.partition("#token=")
        self.assertTrue(token)
        yield deferToThread(self.browser.open, f"{link}&filter=x")
        yield self.wait_for("metrics.connection[0] === 'live'")
        state = "return [location.href, Object.values(sessionStorage), document.cookie]"
        self.assertEqual((yield self.run_script(state)), [f"{address}#filter=x", [token], ""])
        length = yield self.run_script("return history.length")
        yield self.run_script("location.reload()")
        yield self.wait_for("metrics.connection[0] === 'live'")
        self.assertEqual((yield self.run_script("return history.length")), length)
        self.allowed = ["the server responded with a status of 401"]
        yield self.run_script("sessionStorage.clear(); location.reload()")
        yield self.wait_for("document.getElementById('mode').textContent === 'NO ACCESS'")


ENTER = "\ue007"
ESCAPE = "\ue00c"
"""The keys' codes in WebDriver."""

WINDOWS = [
    "",
    "metrics.showSources()",
    "document.getElementById('source-window').close(); metrics.showHelp()",
]
"""Scripts that open the page's windows, one after the other."""

HAS_VALUE = """
    [...metrics.live.series.values()].some((row) =>
        row.name === arguments[0] && metrics.live.value(row) === arguments[1])
"""
"""Whether a series has a value."""

HAS_VALUE_ABOVE = """
    [...metrics.live.series.values()].some((row) =>
        row.name === arguments[0] && metrics.live.value(row) > arguments[1])
"""
"""Whether a series has a larger value."""

OPEN_CHART = """
    const [name] = arguments;
    metrics.charts.toggle([...metrics.live.series.values()].find((row) => row.name === name));
"""
"""A script that opens or closes the chart of a series."""

SEEN_SOURCES = """
    const { right } = document.getElementById("grid").getBoundingClientRect();
    const seen = [...document.querySelectorAll("#body .row .source")].filter((source) => {
        const place = source.getBoundingClientRect();
        return source.textContent && place.width > 30 && place.right <= right &&
            source.scrollWidth <= place.width + 1;
    }).map((source) => source.textContent);
    const [number, sources] = given;
    return seen.length === number && new Set(seen).size === sources;
"""
"""A script that returns whether so many rows have a legible source, of so many sources."""

SORT = """
    const [column, descending] = arguments;
    metrics.rows.setSort(column, descending);
    metrics.rows.update(metrics.state, performance.now());
    return metrics.rows.matching.map(({ name }) => name).join("");
"""
"""A script that sorts the rows, and returns their names."""

COUNT_FRAMES = """
    globalThis.counted = 0;
    const apply = metrics.live.apply;
    metrics.live.apply = function (frame) {
        counted++;
        apply.call(this, frame);
    };
"""
"""A script that counts the frames that follow."""

AXE = """
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
"""

VALUES = """
    const { keyText } = await import(new URL("page/filter.js", location));
    const text = (value) => typeof value === "bigint" ? String(value)
        : Number.isNaN(value) ? "nan" : Number.isFinite(value) ? value : value < 0 ? "-inf" : "inf";
    const python = (kind, value) => {
        const shown = text(value);
        if (typeof shown === "string") return shown;
        if (kind !== "gauge") return String(shown);
        return Number.isInteger(shown) && Math.abs(shown) < 1e16 ? `${shown}.0` : String(shown);
    };
    return Object.fromEntries([...metrics.live.series.values()].map((row) =>
        [`${row.kind} ${keyText(row)}`, python(row.kind, metrics.live.value(row))]));
"""
"""A script that returns the value of each series as Python's C{repr} shows it."""

CONFORMANCE = """
    const [cases] = arguments;
    const load = (name) => import(new URL(`page/${name}.js`, location));
    const [filters, numbers, texts] = await Promise.all(["filter", "numbers", "text"].map(load));
    const failures = [];
    const check = (found, wanted, what) => {
        if (JSON.stringify(found) !== JSON.stringify(wanted)) failures.push([what, found, wanted]);
    };
    for (const { filter, matches, error, page } of cases.filters) {
        let found;
        try {
            const selects = filters.parseFilter(filter);
            found = cases.series.flatMap((series, at) => selects(series) ? [at] : []);
        } catch (reason) {
            found = reason instanceof filters.FilterError ? "error" : String(reason);
        }
        check(found, error || page ? "error" : matches, filter);
    }
    for (const one of cases.numbers) {
        const special = { nan: NaN, inf: Infinity, "-inf": -Infinity };
        const value = one.whole ? BigInt(one.value) : special[one.value] ?? one.value;
        const show = one.rate ? numbers.showRate : numbers.showValue;
        const { whole, width } = one;
        check(show(value, one.unit, { whole, width }), one.text, one);
    }
    for (const order of cases.order) {
        const key = (text) => `${texts.naturalKey(text)}\\0${text}`;
        check(order.toReversed().sort((a, b) => key(a) < key(b) ? -1 : 1), order, "order");
    }
    return failures;
"""
"""A script that returns the cases that fail."""
