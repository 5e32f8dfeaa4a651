"""
The page's resource: the stream, its viewers, and answers about series.
"""

from __future__ import annotations

import math
import re
from unittest import mock

from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from twisted.web.test.requesthelper import DummyChannel

from tests import ROOT
from tests.unit.web.pages import Page
from tests.unit.web.serving import EPOCH, Answer, FakeSource, PageTestCase
from tests.unit.web.test_frames import counter, increment, sample, setting, status
from txmetrics_tcp import Gone, Metric, Operation
from txmetrics_tcp.observe.sources import State
from txmetrics_tcp.testing import PausingTransport
from txmetrics_tcp.web import _feed, _resource
from txmetrics_tcp.web._feed import LINGER
from txmetrics_tcp.web._resource import MAX_CHARTS, MAX_IDS, STALLED, StreamViewer
from txmetrics_tcp.web._site import IDLE, PageSite

PAGE = ROOT / "txmetrics_tcp" / "web" / "page"

MAX_SIZE = 130_000
"""The maximum size of all that a browser loads, in bytes."""


class FileTests(PageTestCase):
    def test_page(self) -> None:
        answer = self.get("/")
        self.assertEqual(answer.code, 200)
        self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
        self.assertIn(b"<!doctype html>", answer.body.lower())
        self.assertEqual(self.get("/page/index.html").body, answer.body)

    def test_withoutCommentsAndIndentation(self) -> None:
        """Each line is sent with its number, but for comments; a license is sent, too."""
        for path in PAGE.iterdir():
            sent = self.get(f"/page/{path.name}").body.decode().split("\n")
            lines = path.read_text("utf-8").split("\n")
            self.assertEqual(len(sent), len(lines), path.name)
            if path.suffix == ".txt":
                self.assertEqual(sent, lines)
                continue
            comment = re.compile(r"/\*(?!!)|\*(?: (?!\{)|/|$)|//")
            for one, line in zip(sent, lines, strict=True):
                self.assertFalse(comment.match(one), f"{path.name}: {one}")
                if one != line.strip():
                    self.assertEqual(one, "")
                    self.assertTrue(comment.match(line.strip()), f"{path.name}: {line}")
        self.assertTrue(self.get("/page/uplot.js").body.startswith(b"/*! https://"))

    def test_size(self) -> None:
        """A browser loads at most 130 kB, unpacked."""
        names = {path.name for path in PAGE.iterdir()} - {"uplot-license.txt"}
        sizes = {name: len(self.get(f"/page/{name}").body) for name in names}
        self.assertLess(sum(sizes.values()), MAX_SIZE, sizes)

    def test_preloaded(self) -> None:
        """
        A browser requests all modules for the table at once, not each when it is imported, and
        those for charts later.
        """
        found = re.findall("<page/(.+?)>; rel=modulepreload", self.get("/").headers["link"])
        modules = {path.name for path in PAGE.glob("*.js")}
        self.assertEqual(found, sorted(modules - {"chart.js", "heat.js", "uplot.js"}))
        for name in modules & set(found):
            self.assertNotRegex(
                (PAGE / name).read_text("utf-8"),
                r"""(?m)^(import|export) .*["']\./(chart|heat|uplot)\.js["']""",
            )
        self.assertNotIn(b"uplot", self.get("/").body)

    def test_unchangedFileIsNotSentAgain(self) -> None:
        tag = self.get("/").headers["etag"]
        answer = self.get("/", If_None_Match=tag)
        self.assertEqual((answer.code, answer.body), (304, b""))

    def test_otherPaths(self) -> None:
        for path in (
            "/nothing",
            "/page",
            "/page/",
            "/page/nothing",
            "/page/..",
            "/page/%2e%2e",
            "/page/..%2f__init__.py",
            "/page/%2fetc%2fpasswd",
            "/page/.hidden",
            "/page/%00",
            "/page/%e9.js",
            "/page/index.html%2f",
            f"/page/{'a' * 3000}.js",
            "/page/a/b",
            "/stream/x",
            "//",
        ):
            answer = self.get(path)
            self.assertEqual((answer.code, answer.json), (404, {"error": "not found"}), path)

    def test_underAPrefix(self) -> None:
        """The path without a slash is redirected, relative to it."""
        root = Resource()
        root.putChild(b"metrics", self.resource)
        site = Site(root, reactor=self.reactor)
        site.factory = site  # type: ignore[attr-defined]

        def get(path: str) -> Answer:
            transport = PausingTransport(1 << 20, host=self.local)
            transport.connect(site.buildProtocol(transport.getPeer()))
            request = f"GET {path} HTTP/1.1\r\nHost: localhost:5080\r\nConnection: close\r\n\r\n"
            transport.receive(request.encode())
            self.reactor.settle()
            return Answer(transport.drain())

        answer = get("/metrics")
        self.assertEqual((answer.code, answer.headers["location"]), (308, "./metrics/"))
        self.assertEqual(get("/metrics/").code, 200)
        self.assertEqual(get("/metrics/page/index.html").code, 200)
        self.assertEqual(get("/metrics/look").code, 400)

    def test_redirectStaysOnTheSite(self) -> None:
        """Whatever the last part of the path contains."""
        for name, location in (
            (b"//evil.example", "./%2F%2Fevil.example/"),
            (b"a b?c#d", "./a%20b%3Fc%23d/"),
            (b"javascript:x", "./javascript%3Ax/"),
        ):
            site = PageSite(self.reactor, self.resource)
            request = Request(DummyChannel(), False)
            request.site = site
            request.prepath = [name]
            request.method = b"GET"
            request.requestHeaders.setRawHeaders("host", ["localhost:5080"])
            request.getHost = lambda: self.local  # type: ignore[method-assign]
            self.resource.render(request)
            self.assertEqual(request.responseHeaders.getRawHeaders("location"), [location])


class StreamTests(PageTestCase):
    def test_everythingFirst(self) -> None:
        self.source.ingest(increment("a", 5))
        tab = self.open()
        (head,) = tab.read()
        self.assertTrue(head["whole"])
        self.assertEqual(tab.page.values, {(0, "counter", "a", ()): 5.0})
        self.assertEqual(tab.page.sources[0]["state"], "connected")

    def test_thenChanges(self) -> None:
        self.source.ingest(increment("a", 5))
        tab = self.open()
        tab.read()
        self.source.ingest(increment("a"))
        self.wait(0.1)
        (head,) = tab.read()
        self.assertNotIn("whole", head)
        self.assertEqual(tab.page.values, {(0, "counter", "a", ()): 6.0})

    def test_nothingFasterThanTheInterval(self) -> None:
        tab = self.open()
        tab.read()
        for _ in range(20):
            self.source.ingest(increment("a"))
            self.reactor.advance(0.01)
        self.assertLessEqual(len(tab.read()), 3)

    def test_heartbeat(self) -> None:
        """Without changes, a frame is sent each second."""
        tab = self.open()
        tab.read()
        self.wait(5)
        self.assertIn(len(tab.read()), range(4, 8))

    def test_viewersHaveTheSameFrames(self) -> None:
        tabs = [self.open() for _ in range(3)]
        for _ in range(20):
            self.source.ingest(increment("a"))
            self.wait(0.1)
        values = []
        for tab in tabs:
            tab.read()
            values.append(tab.page.values)
        self.assertEqual(values, [{(0, "counter", "a", ()): 20.0}] * 3)

    def test_viewerThatDoesNotRead(self) -> None:
        """One frame is pending for it, and the next one has only what has changed since."""
        names = [str(number) for number in range(500)]
        self.source.ingest(*(increment("a", n=name) for name in names))
        stalled, other = self.open(limit=100), self.open()
        pending = len(stalled.transport.written)
        self.assertGreater(pending, 500 * 12)
        for _ in range(30):
            self.source.ingest(increment("a", n="7"))
            self.wait(0.1)
        self.assertEqual(len(stalled.transport.written), pending)
        stalled.read()
        self.wait(0.1)
        (head,) = stalled.read()
        self.assertNotIn("whole", head)
        other.read()
        self.assertEqual(stalled.page.values, other.page.values)
        self.assertEqual(stalled.page.by_id[8], 31.0)

    def test_viewerThatNeverReadsIsDisconnected(self) -> None:
        self.source.ingest(increment("a"))
        stalled = self.open(limit=10)
        self.wait(STALLED / 2)
        self.assertFalse(stalled.transport.aborted)
        self.wait(STALLED / 2 + 1)
        self.assertTrue(stalled.transport.aborted)
        self.assertEqual(self.feed.viewers, {})

    def test_limitOfViewers(self) -> None:
        tabs = [self.open() for _ in range(self.max_viewers)]
        answer = self.get("/stream")
        self.assertEqual(
            (answer.code, answer.json), (503, {"error": "there are 3 viewers already"})
        )
        tabs[0].transport.lose()
        self.reactor.settle()
        self.assertEqual(len(self.open().read()), 1)

    def test_failureOfOneViewerEndsOnlyThisOne(self) -> None:
        first, second = self.open(), self.open()
        first.transport.lose()
        self.source.ingest(increment("a"))
        self.wait(0.2)
        second.read()
        self.assertEqual(second.page.values, {(0, "counter", "a", ()): 1.0})

    def test_exceptionOfOneViewerEndsOnlyThisOne(self) -> None:
        tab = self.open()
        (viewer,) = self.feed.viewers
        assert isinstance(viewer, StreamViewer)
        other = self.open()
        error = RuntimeError("cannot send")
        viewer.send = mock.Mock(side_effect=error)  # type: ignore[method-assign]
        self.source.ingest(increment("a"))
        self.wait(0.2)
        self.assertTrue(tab.transport.aborted)
        self.assertEqual(len(self.feed.viewers), 1)
        other.read()
        self.assertEqual(other.page.values, {(0, "counter", "a", ()): 1.0})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_end(self) -> None:
        """Streams end when the page does."""
        tab = self.open()
        tab.read()
        self.resource.close()
        self.assertTrue(tab.transport.drain().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.feed.viewers, {})
        self.feed.stop()
        self.wait(IDLE + 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_ratesAreKnownAtOnce(self) -> None:
        self.wait(0.5)
        for _ in range(20):
            self.source.ingest(increment("a", 3), setting("g", self.reactor.seconds()))
            self.wait(1)
        tab = self.open()
        (head,) = tab.read()
        ids, values, seconds = head["ago"]
        ago = dict(zip(ids, values, strict=True))[tab.page.id("a")]
        now = tab.page.by_id[tab.page.id("a")]
        self.assertTrue(2.7 < (now - ago) / seconds < 3.3)

    def test_historyIsAnnounced(self) -> None:
        self.wait(5)
        tab = self.open()
        (head,) = tab.read()
        self.assertEqual(head["history"], {"from": EPOCH + 1, "to": None, "step": 1})


class NoteTests(PageTestCase):
    def test_whatHappensToSources(self) -> None:
        tab = self.open()
        self.source.ingest(status(1), increment("a"))
        self.wait(0.2)
        self.source.change(State.LOST, "refused")
        self.wait(0.2)
        tab.read()
        self.assertEqual(tab.page.sources[0]["state"], "disconnected")
        self.assertEqual(tab.page.sources[0]["detail"], "refused")
        self.source.change(State.CONNECTED)
        self.source.ingest(status(2))
        self.wait(0.2)
        tab.read()
        kinds = [(note["kind"], note["source"]) for note in tab.page.notes]
        self.assertEqual(kinds, [("disconnect", 0), ("connect", 0), ("restart", 0)])
        self.assertEqual(tab.page.sources[0]["restarts"], 1)
        later = self.open()
        later.read()
        self.assertEqual(later.page.notes, tab.page.notes)

    def test_losses(self) -> None:
        from txmetrics_tcp import Status

        tab = self.open()
        self.source.ingest(Status("", 1), Status("", 1, 3, 4))
        self.wait(0.2)
        tab.read()
        (note,) = tab.page.notes
        self.assertEqual((note["kind"], note["text"]), ("loss", "7 events dropped"))
        self.assertEqual(tab.page.sources[0]["missed"], 7)

    def test_marksAreBounded(self) -> None:
        """A source that connects again and again does not fill the memory."""
        self.patch(_feed, "MAX_MARKS", 5)
        for _ in range(10):
            self.source.change(State.LOST, "gone")
            self.wait(0.2)
            self.source.change(State.CONNECTED)
            self.wait(0.2)
        self.assertLessEqual(len(self.feed.marks), 5)
        self.assertEqual(self.feed.marks[-1]["kind"], "connect")

    def test_sourcesComeAndGo(self) -> None:
        tab = self.open()
        more = FakeSource(self.reactor, "two")
        more.ingest(increment("b"))
        self.feed.show([*self.sources, more])
        self.wait(0.2)
        tab.read()
        self.assertEqual(tab.page.sources[1]["name"], "two")
        self.assertIn((1, "counter", "b", ()), tab.page.values)
        self.feed.show(self.sources)
        self.wait(0.2)
        tab.read()
        self.assertEqual(tab.page.sources[1]["state"], "removed")
        self.assertEqual(tab.page.values, {})


class OnDemandTests(PageTestCase):
    always = False

    def test_followsFromTheFirstViewerUntilAfterTheLast(self) -> None:
        self.wait(5)
        self.assertEqual((self.followed, self.reactor.getDelayedCalls()), ([], []))
        first, second = self.open(), self.open()
        self.assertEqual(self.followed, ["begin"])
        first.transport.lose()
        self.wait(LINGER + 5)
        self.assertEqual(self.followed, ["begin"])
        second.transport.lose()
        self.wait(LINGER - 1)
        self.assertEqual(self.followed, ["begin"])
        self.wait(2)
        self.assertEqual(self.followed, ["begin", "end"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_viewerThatComesBackInTimeFindsThePast(self) -> None:
        self.open().transport.lose()
        self.source.ingest(increment("a"))
        self.wait(LINGER / 2)
        tab = self.open()
        self.wait(LINGER)
        tab.read()
        self.assertEqual(self.followed, ["begin"])
        self.assertEqual(tab.page.values, {(0, "counter", "a", ()): 1.0})

    def test_viewerThatIsDisconnectedLeavesOnce(self) -> None:
        """Its end does not stop what the next viewer sees."""
        stalled = self.open(limit=10)
        self.wait(STALLED + 1)
        stalled.transport.lose()
        self.wait(LINGER / 2)
        tab = self.open()
        self.wait(LINGER)
        tab.read()
        self.assertEqual(self.followed, ["begin"])
        self.assertEqual(tab.page.epoch, self.feed.table.epoch)

    def test_nextViewerHasAnotherEpoch(self) -> None:
        first = self.open()
        first.read()
        first.transport.lose()
        self.wait(LINGER + 1)
        second = self.open()
        second.read()
        self.assertNotEqual(first.page.epoch, second.page.epoch)

    def test_noAnswersWithoutViewers(self) -> None:
        self.assertEqual(self.get("/look?ids=1").code, 503)


class AnswerTestCase(PageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.page = Page()

    def update(self) -> None:
        self.wait(1.1)
        self.page = Page()
        self.page.apply(self.feed.table.frame(None))


class LookTests(AnswerTestCase):
    def test_figures(self) -> None:
        self.source.ingest(*(sample("h", float(value)) for value in range(101)), increment("c", 3))
        self.source.ingest(setting("g", math.inf))
        self.update()
        h, c, g = map(self.page.id, "hcg")
        series = self.get(f"/look?ids={h},{c},{g},999").json["series"]
        self.assertEqual(series.keys(), {str(h), str(c), str(g)})
        one = series[str(h)]
        self.assertEqual((one["count"], one["p50"], one["p99"], one["max"]), (101, 50, 99, 100))
        self.assertEqual((one["sum"], one["min"], one["mean"]), (5050, 0, 50))
        self.assertEqual(series[str(c)]["value"], 3)
        self.assertEqual(series[str(g)]["value"], None)

    def test_groups(self) -> None:
        for number in range(3):
            self.source.ingest(increment("c", 10, n=str(number)), sample(f"h{number}", number))
        self.source.ingest(increment("c", 2**53, n="0"))
        self.update()
        counters = [id for id, (metric, *_) in self.page.series.items() if metric == 0]
        histograms = [self.page.id(f"h{number}") for number in range(3)]
        groups = ",".join("+".join(map(str, group)) for group in (counters, histograms))
        found = self.get(f"/look?groups={groups}").json["groups"]
        self.assertEqual(found["0"]["value"], 2**53 + 30)
        self.assertEqual(found["0"]["big"], str(2**53 + 30))
        self.assertEqual((found["1"]["count"], found["1"]["p50"], found["1"]["max"]), (3, 1, 2))

    def test_relativeNumbers(self) -> None:
        """The address is short enough for proxies, whatever the numbers are."""
        self.source.ingest(*(increment("c", n, n=str(n)) for n in range(1, 31)))
        self.update()
        answer = self.get("/look?relative=1&ids=1,4,1&groups=2+3,1+9+10").json
        self.assertEqual(list(answer["series"]), ["1", "5", "6"])
        values = [answer["groups"][index]["value"] for index in "01"]
        self.assertEqual(values, [2 + 5, 1 + 10 + 20])

    def test_groupsOfSeveralKindsAreLeftOut(self) -> None:
        self.source.ingest(increment("c"), setting("g", 1))
        self.update()
        self.assertEqual(self.get("/look?groups=1+2").json["groups"], {})

    def test_cachedForASecond(self) -> None:
        self.source.ingest(increment("c"))
        self.update()
        self.get("/look?ids=1")
        self.source.ingest(increment("c"))
        self.assertEqual(self.get("/look?ids=1").json["series"]["1"]["value"], 1)
        self.wait(1)
        self.assertEqual(self.get("/look?ids=1").json["series"]["1"]["value"], 2)

    def test_earlier(self) -> None:
        self.wait(0.5)
        for number in range(20):
            self.source.ingest(increment("c", 2), sample("h", float(number)))
            self.wait(1)
        self.update()
        h, c = map(self.page.id, "hc")
        series = self.get(f"/look?ids={h},{c}&at={EPOCH + 15}").json["series"]
        self.assertEqual(series[str(c)]["value"], 30)
        self.assertAlmostEqual(series[str(c)]["rate"], 2.0)
        self.assertLessEqual(series[str(h)]["max"], 15)
        self.assertGreaterEqual(series[str(h)]["min"], 2)

    def test_invalid(self) -> None:
        for query in (
            "",
            "ids=",
            "ids=x",
            "ids=-1",
            "ids=1.5",
            "ids=99999999999",
            "ids=1&ids=2",
            "ids=1&window=7",
            "ids=1&window=nan",
            "ids=1&at=inf",
            "ids=1&at=x",
            "groups=a",
            "ids=%C2%B2",
            "ids=" + ",".join(["1"] * (MAX_IDS + 1)),
            "groups=" + "+".join(["1"] * (MAX_IDS + 1)),
        ):
            answer = self.get(f"/look?{query}")
            self.assertEqual(answer.code, 400, query)
            self.assertEqual(list(answer.json), ["error"])

    def test_tooManyAtTheSameTime(self) -> None:
        self.patch(_resource, "MAX_ANSWERS", 1)
        self.update()
        pending = self.send("/look?ids=1")
        self.assertEqual(Answer(self.send("/look?ids=1").drain()).code, 429)
        self.reactor.settle()
        self.assertEqual(Answer(pending.drain()).code, 200)
        self.assertEqual(self.get("/look?ids=1").code, 200)

    def test_clientThatLeaves(self) -> None:
        self.update()
        self.send("/look?ids=1").lose()
        self.reactor.settle()
        self.assertEqual(self.resource._answers._pending, set())
        self.assertEqual(self.flushLoggedErrors(), [])


class HistoryTests(AnswerTestCase):
    def test_series(self) -> None:
        self.wait(0.5)
        for number in range(20):
            self.source.ingest(increment("c", 2), setting("g", number), sample("h", float(number)))
            self.wait(1)
        self.update()
        h, c, g = map(self.page.id, "hcg")
        found = self.get(
            f"/history?ids={h},{c},{g}&from={EPOCH + 4}&to={EPOCH + 16}&points=6&heat=1"
        ).json
        self.assertEqual(found["t"], [EPOCH + second for second in range(6, 17, 2)])
        self.assertEqual(found["step"], 2)
        series = found["series"]
        self.assertEqual(series[str(c)], {"kind": "counter", "rate": [2.0] * 6})
        self.assertEqual(series[str(g)]["value"], [5, 7, 9, 11, 13, 15])
        one = series[str(h)]
        self.assertEqual(one["max"], [5, 7, 9, 11, 13, 15])
        self.assertEqual([sum(counts) for counts in one["heat"]["counts"]], [2] * 6)

    def test_marks(self) -> None:
        self.wait(3)
        self.source.change(State.LOST, "gone")
        self.source.ingest(increment("c"))
        self.wait(3)
        self.update()
        found = self.get("/history?ids=1").json
        self.assertEqual([mark["kind"] for mark in found["marks"]], ["disconnect"])
        self.assertEqual(found["series"]["1"]["rate"][-1], None)

    def test_numberOfPointsIsBounded(self) -> None:
        self.update()
        found = self.get("/history?ids=1&from=0&to=1e11&points=1e9").json
        self.assertLessEqual(len(found["t"]), _resource.MAX_POINTS + 1)

    def test_invalid(self) -> None:
        for query in (
            "",
            "ids=1&from=x",
            "ids=1&to=nan",
            "ids=1&points=-",
            "ids=" + ",".join(["1"] * (MAX_CHARTS + 1)),
        ):
            self.assertEqual(self.get(f"/history?{query}").code, 400, query)


class TableTests(AnswerTestCase):
    def test_earlier(self) -> None:
        self.source.ingest(increment("a", 5), increment("b", 1))
        self.wait(3)
        self.source.ingest(increment("a", 5), Gone(counter("b")))
        self.wait(3)
        page = Page()
        head = page.apply(self.get(f"/table?at={EPOCH + 2}").body)
        self.assertEqual((head["at"], head["whole"]), (EPOCH + 2, True))
        self.assertEqual(page.values, {(0, "counter", "a", ()): 5.0, (0, "counter", "b", ()): 1.0})
        page.apply(self.get(f"/table?at={EPOCH + 6}").body)
        self.assertEqual(page.values, {(0, "counter", "a", ()): 10.0})

    def test_rates(self) -> None:
        for _ in range(20):
            self.source.ingest(increment("a", 2))
            self.wait(1)
        self.source.view.connected()
        self.source.ingest(Metric(counter("a"), Operation.SET_COUNTER, 1000, None))
        self.wait(2)
        page = Page()
        head = page.apply(self.get(f"/table?at={EPOCH + 15}").body)
        ids, values, seconds = head["ago"]
        self.assertEqual((ids, seconds), ([1], 10.0))
        self.assertEqual((page.by_id[1] - values[0]) / seconds, 2.0)

    def test_invalid(self) -> None:
        for query in ("", "at=", "at=x", "at=nan", "at=1&at=2"):
            self.assertEqual(self.get(f"/table?{query}").code, 400, query)


class ConnectionTests(PageTestCase):
    def test_staysForTheNextRequest(self) -> None:
        transport = self.connect()
        for _ in range(3):
            self.send("/", transport)
            self.assertEqual(Answer(transport.drain()).code, 200)
        self.assertTrue(transport.connected)
        self.wait(IDLE + 1)
        self.assertTrue(transport.aborted)

    def test_bodyEndsIt(self) -> None:
        """A body is not read, so that it cannot be taken for the next request."""
        transport = self.connect()
        body = "GET /look?ids=1 HTTP/1.1\r\nHost: localhost:5080\r\n\r\n"
        head = f"GET / HTTP/1.1\r\nHost: localhost:5080\r\nContent-Length: {len(body)}\r\n\r\n"
        transport.receive((head + body).encode())
        answer = transport.drain()
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.assertFalse(transport.connected)

    def test_streamHasNoTimeLimit(self) -> None:
        tab = self.open()
        for _ in range(20):
            self.wait(10)
            self.assertTrue(tab.read())
        self.assertTrue(tab.transport.connected)

    def test_answerThatIsNotReadIsGivenUp(self) -> None:
        transport = self.send("/", self.connect(limit=10))
        self.wait(IDLE + 1)
        self.assertTrue(transport.aborted)

    def test_idleConnectionsMakeRoom(self) -> None:
        """The oldest idle connection is closed for a new one, but no stream."""
        self.patch(PageSite, "max_connections", 3)
        tab = self.open()
        idle = [self.connect(), self.send("/", self.connect())]
        self.assertEqual(self.get("/").code, 200)
        self.assertTrue(idle[0].aborted)
        self.assertFalse(idle[1].aborted)
        for _ in range(1000):
            self.connect()
        self.reactor.settle()
        self.assertTrue(idle[1].aborted)
        self.assertTrue(tab.transport.connected)

    def test_slowHeaders(self) -> None:
        """A client that sends a request a byte at a time is disconnected."""
        transport = self.connect()
        for byte in b"GET / HTTP/1.1\r\nHost: localhost:5080\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyy":
            transport.receive(bytes([byte]))
            self.wait(1)
            if transport.aborted:
                break
        self.assertTrue(transport.aborted)
        self.assertEqual(transport.drain(), b"")
