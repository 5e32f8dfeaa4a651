"""
Frames: a page that has applied some of them knows what the views know.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.pages import Page, unpack
from txmetrics_tcp import (
    Distribution,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    SourceView,
    Status,
)
from txmetrics_tcp.web import _frames
from txmetrics_tcp.web._frames import Table


def counter(name: str, **labels: str) -> Key:
    return Key.of(MetricKind.COUNTER, name, labels)


def increment(name: str, amount: int = 1, **labels: str) -> Metric:
    return Metric(counter(name, **labels), Operation.INCREMENT_COUNTER, amount, None)


def setting(name: str, value: float) -> Metric:
    return Metric(Key.of(MetricKind.GAUGE, name), Operation.SET_GAUGE, value, None)


def sample(name: str, value: float) -> Metric:
    return Metric(Key.of(MetricKind.HISTOGRAM, name), Operation.RECORD_HISTOGRAM, value, None)


def status(started_ns: int) -> Status:
    return Status("", started_ns)


class Sources:
    """Some views with a clock, and their table."""

    def __init__(self, number: int = 1) -> None:
        self.now = 1000.0
        self.table = Table(7, lambda: self.now)
        self.views = [SourceView(lambda: self.now) for _ in range(number)]
        self.rows = [self.table.add(view, lambda: self.now) for view in self.views]

    def ingest(self, *events: Any, source: int = 0) -> None:
        self.views[source].ingest(events)

    def expected(self) -> tuple[dict[Any, float], dict[Any, float]]:
        """Return values and bases as the views have them."""
        values, bases = {}, {}
        for rows in self.table.sources:
            for key, series in rows.view.series.items():
                name = rows.number, key.kind.value, key.name, key.labels
                values[name] = float(series.value)
                gauge = key.kind is MetricKind.GAUGE
                bases[name] = 0 if gauge else series.base
        return values, bases


class FrameTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sources = Sources(2)
        self.table = self.sources.table
        self.page = Page()

    def next(self) -> dict[str, Any]:
        """Advance, and apply the next frame."""
        self.table.advance()
        since = None if self.page.version < 0 else self.page.version
        return self.page.apply(self.table.frame(since))

    def test_wholeFrameHasEverything(self) -> None:
        self.sources.ingest(
            Metadata(MetricKind.COUNTER, "requests", "count", "All of them."),
            increment("requests", 3, route="/"),
            setting("level", 1.5),
            sample("latency", 2.0),
        )
        head = self.next()
        self.assertTrue(head["whole"])
        self.assertEqual(head["epoch"], 7)
        self.assertEqual(head["t"], 1000.0)
        self.assertEqual(
            self.page.values,
            {
                (0, "counter", "requests", (("route", "/"),)): 3.0,
                (0, "gauge", "level", ()): 1.5,
                (0, "histogram", "latency", ()): 1.0,
            },
        )
        self.assertIn(["counter", "requests", "count", "All of them."], self.page.metrics.values())

    def test_nextFrameHasOnlyWhatHasChanged(self) -> None:
        self.sources.ingest(increment("a"), increment("b"))
        self.next()
        self.sources.now += 0.1
        self.sources.ingest(increment("b"))
        head = self.next()
        self.assertEqual(head, {"t": 1000.1})
        self.assertEqual(self.page.values[0, "counter", "b", ()], 2.0)
        self.assertEqual(unpack(self.table.frame(self.page.version - 1))[2], [self.page.id("b")])

    def test_eventsAtTheTimeOfAFrameAreInTheNextOne(self) -> None:
        self.sources.ingest(increment("a"))
        self.next()
        self.sources.ingest(increment("a"))
        self.next()
        self.assertEqual(self.page.values[0, "counter", "a", ()], 2.0)

    def test_metricsAndLabelNamesAreSentOnce(self) -> None:
        self.sources.ingest(increment("a", route="/"), increment("a", route="/x"))
        head = self.next()
        self.assertEqual(len(head["metrics"]), 1)
        self.assertEqual(len(head["names"]), 1)
        self.sources.ingest(increment("a", route="/y"))
        head = self.next()
        self.assertNotIn("metrics", head)
        self.assertNotIn("names", head)

    def test_laterDescriptionReplacesTheMetric(self) -> None:
        self.sources.ingest(increment("a"))
        self.next()
        self.sources.ingest(Metadata(MetricKind.COUNTER, "a", "bytes", "New."))
        head = self.next()
        self.assertEqual(head["metrics"], [[0, "counter", "a", "bytes", "New."]])

    def test_goneSeriesIsRemoved(self) -> None:
        self.sources.ingest(increment("a"), increment("b"))
        self.next()
        self.sources.ingest(Gone(counter("a")))
        self.next()
        self.assertEqual(list(self.page.values), [(0, "counter", "b", ())])

    def test_seriesThatBeginsAgainKeepsItsNumber(self) -> None:
        self.sources.ingest(increment("a", 5), increment("b"))
        self.next()
        before = self.page.id("a")
        self.sources.ingest(Gone(counter("a")), increment("a", 2))
        head = self.next()
        self.assertEqual(head["gone"], [before])
        self.assertEqual(self.page.id("a"), before)
        self.assertEqual(self.page.by_id[before], 2.0)

    def test_restartRemovesSeries(self) -> None:
        self.sources.ingest(status(1), increment("a", 5), increment("b"))
        self.next()
        self.sources.ingest(status(2), increment("a"))
        self.next()
        self.assertEqual(self.page.values, {(0, "counter", "a", ()): 1.0})
        self.assertEqual(self.page.values, self.sources.expected()[0])

    def test_sourcesWithTheSameSeriesAreApart(self) -> None:
        self.sources.ingest(increment("a"))
        self.sources.ingest(increment("a", 7), source=1)
        self.next()
        self.assertEqual(
            self.page.values, {(0, "counter", "a", ()): 1.0, (1, "counter", "a", ()): 7.0}
        )

    def test_removedSourceTakesItsSeriesAway(self) -> None:
        self.sources.ingest(increment("a"))
        self.sources.ingest(increment("a", 7), source=1)
        self.next()
        self.table.remove(0)
        self.next()
        self.assertEqual(self.page.values, {(1, "counter", "a", ()): 7.0})
        self.assertEqual(self.page.sources[0]["state"], "removed")
        self.assertIsNone(self.sources.views[0].observer)

    def test_totalOfAnotherConnectionIsNoIncrease(self) -> None:
        self.sources.ingest(increment("a", 5))
        self.next()
        self.sources.views[0].connected()
        self.sources.ingest(Metric(counter("a"), Operation.SET_COUNTER, 100, None))
        self.next()
        self.assertEqual(self.page.bases, {(0, "counter", "a", ()): 95})

    def test_totalsBeyondFloatsAreTextToo(self) -> None:
        self.sources.ingest(increment("a", 2**64 - 1), increment("b", 2**53 - 1))
        self.next()
        self.assertEqual(self.page.big, {self.page.id("a"): "18446744073709551615"})

    def test_gaugesThatAreNoNumbers(self) -> None:
        self.sources.ingest(setting("nan", math.nan), setting("inf", math.inf))
        self.next()
        values = {key[2]: value for key, value in self.page.values.items()}
        self.assertTrue(math.isnan(values["nan"]))
        self.assertEqual(values["inf"], math.inf)

    def test_namesMayHaveAnyCharacters(self) -> None:
        name = '</script>"\\\u2028\x00é'
        self.sources.ingest(increment(name, **{name: name}))
        self.next()
        self.assertEqual(list(self.page.values), [(0, "counter", name, ((name, name),))])

    def test_viewersOfAVersionShareTheFrame(self) -> None:
        self.sources.ingest(increment("a"))
        self.table.advance()
        self.assertIs(self.table.frame(None), self.table.frame(None))

    def test_silentWithoutChanges(self) -> None:
        self.sources.ingest(increment("a"))
        self.next()
        self.table.advance()
        self.assertTrue(self.table.silent(self.page.version))
        self.table.tell(0, {"state": "connected"})
        self.assertFalse(self.table.silent(self.page.version))

    def test_sourcesAndNotesAreSentWhenTheyChange(self) -> None:
        self.next()
        self.table.advance()
        self.table.tell(0, {"state": "connected"})
        self.table.note({"t": 1, "kind": "connect"})
        head = self.page.apply(self.table.frame(self.page.version))
        self.assertEqual(head["sources"], [{"no": 0, "state": "connected"}])
        self.assertEqual(head["notes"], [{"t": 1, "kind": "connect"}])
        self.table.advance()
        self.table.tell(0, {"state": "connected"})
        head = self.page.apply(self.table.frame(self.page.version))
        self.assertEqual(head, {"t": 1000.0})

    def test_viewerThatMissedTooManyRemovalsBeginsAgain(self) -> None:
        self.patch(_frames, "MAX_GONE", 2)
        self.sources.ingest(*(increment("a", n=str(number)) for number in range(5)))
        self.next()
        self.sources.ingest(*(Gone(counter("a", n=str(number))) for number in range(3)))
        head = self.next()
        self.assertTrue(head["whole"])
        self.assertEqual(self.page.values, self.sources.expected()[0])

    def test_endedSeriesAreBounded(self) -> None:
        """Neither many ended series nor their long labels fill the memory."""
        self.patch(_frames, "MAX_ENDED_TEXT", 3000)
        rows = self.sources.rows[0]
        for number in range(10):
            self.sources.ingest(increment("a", n="x" * 1000 + str(number)))
            self.next()
            self.sources.ingest(Gone(counter("a", n="x" * 1000 + str(number))))
            self.next()
        self.assertEqual(len(rows.definitions), 2)
        self.patch(_frames, "MAX_ENDED", 1)
        self.sources.ingest(increment("a"), Gone(counter("a")))
        self.next()
        self.sources.ingest(increment("b"))
        self.next()
        self.sources.ingest(Gone(counter("b")))
        self.next()
        self.assertEqual(len(rows.definitions), 1)
        self.assertEqual(len(list(rows.known())), 1)

    def test_unusedDescriptionsAreForgotten(self) -> None:
        """Names that no series has any longer fill neither the memory nor the page."""
        self.patch(_frames, "MIN_TEXT", 10_000)
        table = self.table = self.sources.table = Table(7, lambda: 1000.0)
        view = SourceView(lambda: 1000.0)
        rows = table.add(view, lambda: 1000.0)
        self.page = Page()
        view.ingest([Metadata(MetricKind.COUNTER, "kept", None, "Kept."), increment("kept")])
        for number in range(100):
            name = f"{number}-{'x' * 1000}"
            view.ingest([increment(name, **{name: "y"})])
            self.next()
            view.ingest([Gone(counter(name, **{name: "y"}))])
            self.next()
            rows.forget_ended(2000.0)
        view.ingest([increment("kept")])
        self.next()
        self.assertEqual(self.page.values, {(0, "counter", "kept", ()): 2.0})
        self.assertIn(["counter", "kept", None, "Kept."], self.page.metrics.values())
        self.assertLess(len(self.page.metrics), 20)
        self.assertLess(len(self.page.names), 20)

    def test_removedSourcesAreForgotten(self) -> None:
        """Sources that come and go fill neither the memory nor whole frames."""
        self.patch(_frames, "MAX_REMOVED", 3)
        self.next()
        before = self.page.version
        for _ in range(2):
            number = self.table.add(SourceView(), lambda: 0.0).number
            self.table.tell(number, {"state": "connected"})
            self.table.remove(number)
        states = [one["state"] for one in self.table_head(before)["sources"]]
        self.assertEqual(states, ["removed", "removed"])
        for _ in range(2):
            self.table.remove(self.table.add(SourceView(), lambda: 0.0).number)
        self.assertTrue(self.table_head(before)["whole"])
        self.assertNotIn("removed", str(self.table_head(None)))

    def table_head(self, since: int | None) -> dict[str, Any]:
        return unpack(self.table.frame(since))[1]

    def test_endedSeriesAreForgotten(self) -> None:
        rows = self.sources.rows[0]
        self.sources.ingest(increment("a"))
        self.next()
        number = self.page.id("a")
        self.sources.ingest(Gone(counter("a")))
        self.next()
        rows.forget_ended(999.0)
        self.assertIn(number, rows.definitions)
        rows.forget_ended(1001.0)
        self.assertEqual(rows.definitions, {})
        self.sources.ingest(increment("a"))
        self.next()
        self.assertNotEqual(self.page.id("a"), number)


NAMES = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("increment"), NAMES, st.integers(0, 2**63)),
    st.tuples(st.just("gauge"), NAMES, st.floats(allow_nan=False)),
    st.tuples(st.just("sample"), NAMES, st.floats(-1e9, 1e9)),
    st.tuples(st.just("total"), NAMES, st.integers(0, 2**64 - 1)),
    st.tuples(st.just("histogram"), NAMES, st.integers(0, 50)),
    st.tuples(st.just("gone"), NAMES, st.sampled_from(list(MetricKind))),
    st.tuples(st.just("restart"), st.just(""), st.integers(1, 3)),
    st.tuples(st.just("connected"), st.just(""), st.just(0)),
    st.tuples(st.just("snapshot"), NAMES, st.integers(0, 9)),
    st.tuples(st.just("time"), st.just(""), st.sampled_from([0.1, 1.0, 70.0])),
    st.tuples(st.just("advance"), st.just(""), st.just(0)),
    st.tuples(st.just("read"), st.just(""), st.integers(0, 2)),
)


class ModelTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=60))
    @settings(max_examples=150, deadline=None)
    def test_everyViewerKnowsWhatTheViewsKnow(self, steps: list[Any]) -> None:
        sources = Sources(2)
        table = sources.table
        pages = [Page(), Page(), Page()]
        for source, (what, name, value) in steps:
            match what:
                case "increment":
                    sources.ingest(increment(name, value), source=source)
                case "gauge":
                    sources.ingest(setting(name, value), source=source)
                case "sample":
                    sources.ingest(sample(name, value), source=source)
                case "total":
                    total = Metric(counter(name), Operation.SET_COUNTER, value, None)
                    sources.ingest(total, source=source)
                case "histogram":
                    key = Key.of(MetricKind.HISTOGRAM, name)
                    samples = Distribution.of(range(value))
                    sources.ingest(HistogramTotal(key, samples, None), source=source)
                case "gone":
                    sources.ingest(Gone(Key.of(value, name)), source=source)
                case "restart":
                    sources.ingest(status(value), source=source)
                case "connected":
                    sources.views[source].connected()
                case "snapshot":
                    sources.ingest(
                        Snapshot.BEGIN_COMPLETE, increment(name, value), Snapshot.END, source=source
                    )
                case "time":
                    sources.now += value
                case "advance":
                    table.advance()
                case "read":
                    table.advance()
                    self._read(sources, pages[value])
        table.advance()
        for page in pages:
            self._read(sources, page)

    def _read(self, sources: Sources, page: Page) -> None:
        since = None if page.version < 0 else page.version
        page.apply(sources.table.frame(since))
        self.assertEqual((page.values, page.bases), sources.expected())
