"""
The viewer's keys, its mouse support, and the display of normal and hostile input.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from pathlib import Path
from unicodedata import normalize
from unittest import mock

from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import Input, Static
from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.observing import (
    FedSource,
    count,
    draw,
    drawn,
    drawn_text,
    event,
    gauge,
    listed,
    messages,
    resize,
    sample,
    settle,
    some_events,
    type_fast,
    watch,
)
from txmetrics_tcp import (
    Distribution,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Status,
    Unknown,
)
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp._view.filter_syntax import SYNTAX
from txmetrics_tcp.observe import export
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.bindings import KEYS, MOUSE
from txmetrics_tcp.observe.export import to_json
from txmetrics_tcp.observe.help import Help, help_text
from txmetrics_tcp.observe.popup import Popup
from txmetrics_tcp.observe.row import Group, Grouping, Row
from txmetrics_tcp.observe.rows import SORTS, Rows
from txmetrics_tcp.observe.source_list import SourceList
from txmetrics_tcp.observe.sources import State
from txmetrics_tcp.observe.table import SeriesTable

BY_NAME = [
    "answers [route = /, status = 200]",
    "answers [route = /users, status = 404]",
    "bytes_sent",
    "latency [route = /]",
    "memory",
]

Seen = tuple[Pilot[int], ObserveApp]


def chosen(app: ObserveApp) -> str:
    line = app.table.chosen
    assert line is not None
    return str(line.key) if isinstance(line, Row) else line.title


class KeyTests(SynchronousTestCase):
    """
    Each key does what the help describes.

    Each action in `KEYS` has a test method, which presses all keys of the action.
    """

    def test_sourcesComeAndGo(self) -> None:
        """The screen follows the sources; without one, it says what it waits for."""
        one, two = FedSource("here:1"), FedSource("here:2")
        for source in one, two:
            source.feed([count("requests")])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            for sources in [], [one], [one, two], [two], []:
                app.show_sources(sources)
                await draw(pilot, app)
                await settle(pilot)
                lines = "\n".join(drawn(app.header) + drawn(app.table))
                self.assertEqual(len(listed(app)), len(sources))
                for source in one, two:
                    self.assertEqual(source.label in lines, source in sources, lines)
                self.assertEqual("no sources yet; waiting for" in lines, not sources)

        watch(scenario, one)

    def test_allActions(self) -> None:
        """Each action has a test."""
        actions = {re.split(r"[ (']", key.action)[0] for key in KEYS}
        tested = {name.removeprefix("test_").lower() for name in dir(self) if "test_" in name}
        self.assertEqual({action.replace("_", "") for action in actions} - tested, set())

    def each(self, action: str) -> list[str]:
        """Return the keys of an action."""
        found = [name for key in KEYS if key.action == action for name in key.keys.split(",")]
        self.assertTrue(found, action)
        return found

    def test_move(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            for down, up in zip(self.each("move(1)"), self.each("move(-1)"), strict=True):
                self.assertEqual(chosen(app), BY_NAME[0])
                await pilot.press(down, down)
                self.assertEqual(chosen(app), BY_NAME[2])
                await pilot.press(up)
                self.assertEqual(chosen(app), BY_NAME[1])
                await pilot.press(up, up, up)
                self.assertEqual(chosen(app), BY_NAME[0])

        watch(scenario)

    def test_page(self) -> None:
        source = FedSource()
        source.feed([count(f"n{number:03}") for number in range(100)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            height = app.table.body_height
            await pilot.press(*self.each("page(1)"))
            self.assertEqual(chosen(app), f"n{height:03}")
            lines = drawn(app.table)
            self.assertIn(f"n{height:03}", lines[-1])
            await pilot.press(*self.each("page(-1)"))
            self.assertEqual(chosen(app), "n000")
            self.assertIn("n000", drawn(app.table)[1])

        watch(scenario, source, size=(80, 24))

    def test_edge(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            for last in self.each("edge(1)"):
                await pilot.press(last)
                self.assertEqual(chosen(app), BY_NAME[-1])
                await pilot.press(*self.each("edge(-1)"))
                self.assertEqual(chosen(app), BY_NAME[0])

        watch(scenario)

    def test_columns(self) -> None:
        """At 80 cells, percentiles are hidden at the right; the name stays when scrolling."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            before = drawn(app.table)[0]
            self.assertIn("trend", before)
            self.assertNotIn("p99", before)
            keys = zip(self.each("columns(1)"), self.each("columns(-1)"), strict=True)
            for further, back in keys:
                await pilot.press(*[further] * 12)
                titles = drawn(app.table)[0]
                self.assertIn("p999", titles)
                self.assertIn("max", titles)
                self.assertNotIn("rate", titles)
                self.assertTrue(titles.strip("◂ ").startswith("name"), titles)
                await pilot.press(*[back] * 12)
                self.assertEqual(drawn(app.table)[0], before)

        watch(scenario, size=(80, 24))

    def test_detail(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            (source,) = app.rows.sources
            assert isinstance(source, FedSource)
            await pilot.press("down", "down", "down", *self.each("detail"))
            await draw(pilot, app)
            source.feed([sample("latency", 0.0015, route="/")])
            await draw(pilot, app)
            self.assertTrue(app.detail.display)
            text = "\n".join(drawn(app.detail))
            for part in [
                "latency  histogram  seconds  here:1",
                "route=/",
                "How long it took.",
                "1m 00s ago",
                "1m 00s    all time",
                "p999",
                "100 ms",
                "101",
                ":24.000  1.5 ms",
            ]:
                self.assertIn(part, text)
            await pilot.press("down")
            await draw(pilot, app)
            text = "\n".join(drawn(app.detail))
            for part in ["memory  gauge  bytes", "In use.", "1.5 KiB", "1536.0"]:
                self.assertIn(part, text)
            await pilot.press(*self.each("detail"))
            self.assertFalse(app.detail.display)

        watch(scenario)

    def test_foldGroup(self) -> None:
        """On the line of a group, the detail key folds it."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("g", "home", "enter")
            self.assertEqual(listed(app)[:2], ["answers", "bytes_sent"])
            self.assertEqual(chosen(app), "answers")
            self.assertIn("▸ answers  2", drawn(app.table)[1])
            self.assertFalse(app.detail.display)
            await pilot.press("enter")
            self.assertEqual(listed(app)[:3], ["answers", *BY_NAME[:2]])

        watch(scenario)

    def test_filter(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press(*self.each("filter"))
            field = app.query_one("#filter", Input)
            self.assertTrue(field.has_focus)
            # Keys that have an action elsewhere are text in the field.
            await pilot.press(*"status=4")
            self.assertEqual(listed(app), [])
            self.assertIn("no series match the filter", "\n".join(drawn(app.table)))
            await pilot.press("*")
            self.assertEqual(listed(app), BY_NAME[1:2])
            self.assertIn("1 of 5", drawn(app.header)[0])
            await pilot.press("enter")
            self.assertFalse(field.has_focus)
            self.assertEqual(listed(app), BY_NAME[1:2])
            self.assertIn("/ status=4*", drawn(app.header)[0])
            # The filter applies to new series.
            (source,) = app.rows.sources
            assert isinstance(source, FedSource)
            source.feed([count("a", status="500"), count("b", status="401")])
            await draw(pilot, app)
            self.assertEqual(listed(app), [BY_NAME[1], "b [status = 401]"])
            # The filter can be edited.
            await pilot.press("slash", "backspace", "backspace", "5", "*", "enter")
            self.assertEqual(listed(app), ["a [status = 500]"])

        watch(scenario)

    def test_filterTypedFast(self) -> None:
        """Queued keys are handled in order: letters do not overtake other keys."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            type_fast(app, "slash", *"kind:x")
            await settle(pilot)
            type_fast(app, *["backspace"] * 6, *"ltency", *["left"] * 5, "a", "home", "/", "delete")
            await settle(pilot)
            self.assertEqual(app.query_one("#filter", Input).value, "/atency")
            type_fast(app, *["delete"] * 9, "end", *["backspace"] * 9, *"mem", "enter", "G")
            await settle(pilot)
            self.assertEqual(app.rows.filter_text, "mem")
            self.assertTrue(app.table.has_focus)
            # A discarded filter is not applied by pending changes.
            type_fast(app, "slash", *"ory", "escape")
            await settle(pilot)
            self.assertEqual(app.rows.filter_text, "mem")
            self.assertEqual(listed(app), BY_NAME[4:])
            await pilot.press("slash", *["backspace"] * 3, *"by", "enter")
            self.assertEqual(app.rows.filter_text, "by")

        watch(scenario)

    def test_invalidFilter(self) -> None:
        """An invalid filter shows an error and leaves the listed series unchanged."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("slash", *"kind:c")
            self.assertEqual(listed(app), BY_NAME[:3])
            await pilot.press("x")
            error = app.query_one("#filter-error")
            self.assertIn("unknown kind 'cx'", str(error.render()))
            self.assertEqual(listed(app), BY_NAME[:3])
            await pilot.press("backspace")
            self.assertEqual(str(error.render()), "")

        watch(scenario)

    def test_invalidFilterAt80(self) -> None:
        """At 80 cells, the error of a filter is visible; if cut, it ends with an ellipsis."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("slash", *"kind:x")
            self.assertRegex(
                drawn_text(app, "#filter-bar"),
                "^ / kind:x .*unknown kind 'x'; the kinds are counter, gauge, histogram $",
            )
            await pilot.press(*["backspace"] * 6, "slash", *"(abc", "slash")
            self.assertRegex(
                drawn_text(app, "#filter-bar"),
                r"/\(abc/ .*invalid regular expression /\(abc/: missing .*… $",
            )

        watch(scenario, size=(80, 24))

    def test_hints(self) -> None:
        """The last line of the screen shows the current effects of keys."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertRegex(drawn_text(app, "Footer"), "⏎ detail / filter s sort .* q quit")
            await pilot.press("slash")
            self.assertRegex(drawn_text(app, "Footer"), r"^ ?⏎ keep esc cancel f1 help *$")
            await pilot.press("a", "enter")
            self.assertRegex(drawn_text(app, "Footer"), "⏎ detail / filter")
            await pilot.press("enter")
            await settle(pilot)
            self.assertRegex(drawn_text(app, "Footer"), "⏎ detail / filter .* q back *$")
            await pilot.press("q")
            await settle(pilot)
            self.assertRegex(drawn_text(app, "Footer"), " q quit *$")

        watch(scenario, size=(80, 24))

    def test_stepBack(self) -> None:
        """The key goes back one step, and never quits."""
        (key,) = self.each("step_back")

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("slash", "m", "e", "m", key)
            self.assertEqual(listed(app), BY_NAME)
            self.assertTrue(app.table.has_focus)
            await pilot.press("g", "slash", *"memory", "enter", "down", "enter")
            for window in ("question_mark", "o"):
                await pilot.press(window)
                self.assertIsInstance(app.screen, Popup)
                await pilot.press(key)
                self.assertNotIsInstance(app.screen, Popup)
            self.assertTrue(app.detail.display)
            await pilot.press("slash", "x")
            self.assertEqual(listed(app), [])
            await pilot.press(key)
            self.assertEqual(listed(app), ["memory", "memory"])
            self.assertTrue(app.detail.display)
            await pilot.press(key)
            self.assertFalse(app.detail.display)
            self.assertEqual(listed(app), ["memory", "memory"])
            await pilot.press(key)
            self.assertEqual(app.rows.filter_text, "")
            self.assertIn("answers", listed(app))
            await pilot.press(key)
            self.assertEqual(listed(app), BY_NAME)
            await pilot.press(key)
            self.assertTrue(app.is_running)

        self.assertIsNone(watch(scenario).return_value)

    def test_closeDetail(self) -> None:
        """The key goes back from windows and details, and quits at the top only."""
        (key,) = self.each("close_detail")
        self.assertEqual([key], self.each("leave"))

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("enter")
            for window in ("question_mark", "o"):
                await pilot.press(window, key)
                self.assertNotIsInstance(app.screen, Popup)
            self.assertTrue(app.detail.display)
            await pilot.press(key)
            self.assertFalse(app.detail.display)
            self.assertTrue(app.is_running)
            await pilot.press(key)

        self.assertEqual(watch(scenario).return_value, 0)

    def test_sources(self) -> None:
        """The key lists all sources with their whole names and messages; the list is live."""
        name = "a-long-name." * 5
        sources = [FedSource(f"{name}{number}:1") for number in range(40)]
        message = "the server closed the connection before it sent data " * 2
        sources[30].set_state(State.LOST, message)

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            def lines() -> list[str]:
                static = app.screen.query_one(Static)
                width, height = static.size
                return [strip.text for strip in static.render_lines(Region(0, 0, width, height))]

            def text() -> str:
                return " ".join(" ".join(lines()).split())

            for key in self.each("sources"):
                await pilot.press(key)
                self.assertIsInstance(app.screen, SourceList)
                columns = [(line[:37], line[37:].strip()) for line in lines()[:8]]
                # Names and states are wrapped in their columns.
                self.assertEqual("".join(left.strip() for left, _ in columns[:2]), f"● {name}30:1")
                self.assertEqual(
                    " ".join(state for _, state in columns if state).split(" connected")[0],
                    f"disconnected, retrying: {message.strip()}",
                )
                self.assertEqual(text().count("●"), 40)
                sources[5].set_state(State.CONNECTING)
                await draw(pilot, app)
                self.assertRegex(text(), r"^● \S+ connecting… \S+5:1 ● ")
                sources[5].set_state(State.CONNECTED)
                box = app.screen.query_one(VerticalScroll)
                await pilot.press("pagedown")
                self.assertGreater(box.scroll_y, 0)
                await draw(pilot, app)
                self.assertGreater(box.scroll_y, 0)
                await pilot.press(key)
                self.assertNotIsInstance(app.screen, Popup)

        watch(scenario, *sources, size=(80, 24))

    def test_sort(self) -> None:
        """The keys step through the columns, and sort the table by the chosen column."""
        (following,), (before,) = self.each("sort(1)"), self.each("sort(-1)")

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            seen = []
            for _ in range(12):
                seen.append(app.rows.sort)
                self.assertRegex(drawn(app.table)[0], f"[▲▼]?{app.rows.sort}[▲▼]?")
                await pilot.press(following)
            self.assertEqual(
                seen,
                list(SORTS)[1:],
            )
            self.assertEqual(app.rows.sort, "name")
            self.assertEqual(listed(app), BY_NAME)
            await pilot.press(before)
            self.assertEqual(app.rows.sort, "max")
            # Series without percentiles come last.
            self.assertEqual(listed(app)[0], "latency [route = /]")
            await pilot.press(*[before] * 8)
            self.assertEqual(app.rows.sort, "value")
            self.assertEqual(
                listed(app), [BY_NAME[4], BY_NAME[3], BY_NAME[0], BY_NAME[2], BY_NAME[1]]
            )

        watch(scenario, size=(80, 24))

    def test_reverse(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertIn("name▲", drawn(app.table)[0])
            await pilot.press(*self.each("reverse"))
            self.assertEqual(listed(app), BY_NAME[::-1])
            self.assertIn("name▼", drawn(app.table)[0])

        watch(scenario)

    def test_group(self) -> None:
        (following,), (before,) = self.each("group(1)"), self.each("group(-1)")

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press(following)
            self.assertEqual(listed(app)[:4], ["answers", *BY_NAME[:2], "bytes_sent"])
            # A group of one metric has sums.
            self.assertRegex(drawn(app.table)[1], r"▾ answers  2 .* 40 ")
            await pilot.press(following)
            self.assertEqual(
                [line.title for line in app.rows.lines if isinstance(line, Group)],
                ["route=/", "route=/users", "without route"],
            )
            self.assertIn("by route", drawn(app.header)[0])
            await pilot.press(following)
            self.assertIn("status=404", listed(app))
            await pilot.press(following)
            self.assertEqual(listed(app), BY_NAME)
            await pilot.press(before)
            self.assertIn("without status", listed(app))

        watch(scenario)

    def test_foldAll(self) -> None:
        """When the chosen series is folded, its group becomes the chosen line."""
        (key,) = self.each("fold_all")

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press(key)
            self.assertIn("No groups", messages(app)[0])
            await pilot.press("g", *["down"] * 6)
            self.assertEqual(chosen(app), "latency [route = /]")
            await pilot.press(key)
            titles = ["answers", "bytes_sent", "latency", "memory"]
            self.assertEqual(listed(app), titles)
            self.assertEqual(chosen(app), "latency")
            # If one group is unfolded, the key folds all groups.
            await pilot.press("enter", key)
            self.assertEqual(listed(app), titles)
            await pilot.press(key)
            self.assertEqual(listed(app)[:3], ["answers", *BY_NAME[:2]])
            self.assertEqual(len(listed(app)), len(titles) + len(BY_NAME))
            # Other groups begin unfolded.
            await pilot.press(key, "g")
            self.assertIn(BY_NAME[0], listed(app))

        watch(scenario)

    def test_groupSums(self) -> None:
        """A group of several metrics or units has no sums and sorts last."""
        one, other = FedSource("one:1"), FedSource("other:2")
        for source, unit in ((one, "bytes"), (other, "kibibytes")):
            source.feed(
                [
                    Metadata(MetricKind.COUNTER, "sent", unit, ""),
                    Metadata(MetricKind.COUNTER, "packets", "count", ""),
                    count("sent", 3000, device="eth0"),
                    count("packets", 30, device="eth0"),
                    count("errors", 5, device="eth1"),
                ]
            )

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            def heads() -> list[str]:
                lines = [" ".join(line.split()) for line in drawn(app.table)]
                return [line.removeprefix("▌") for line in lines if "▾" in line]

            await pilot.press("g")
            self.assertRegex(heads()[0], r"^▾ errors 2 10\b")
            self.assertRegex(heads()[1], r"^▾ packets 2 60\b")
            self.assertEqual(heads()[2], "▾ sent 2")
            await pilot.press("g")
            self.assertEqual(heads()[0], "▾ device=eth0 4")
            self.assertRegex(heads()[1], r"^▾ device=eth1 2 10\b")
            for _ in range(2):
                app.rows.sort_by("value")
                app.redraw()
                self.assertEqual(heads()[1], "▾ device=eth0 4")

        watch(scenario, one, other)

    def test_partial(self) -> None:
        """
        If samples of the window are missing, percentiles of the series and of its group are marked,
        and the details and the help explain the mark.
        """
        source = FedSource()
        key = sample("took", 0.0, route="/").key
        source.feed([Status("s", 1), HistogramTotal(key, Distribution.EMPTY)])
        source.feed(sample("took", 0.25, route="/") for _ in range(3))
        source.feed([HistogramTotal(key, Distribution.of([0.25] * 5)), sample("other", 1.0)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("g", "down", "down", "down", "enter")
            await draw(pilot, app)
            group, row = (" ".join(line.split()) for line in drawn(app.table)[3:5])
            self.assertRegex(group, r"^▾ took 1 5 [\d.]+/s( \*0\.25){4}$")
            self.assertRegex(row, r"took .*( \*0\.25){4}$")
            self.assertNotIn("*", drawn(app.table)[2])
            detail = "\n".join(drawn(app.detail))
            self.assertRegex(detail, r"p50 +\*0\.25 +0\.25\b")
            self.assertRegex(detail, r"count +3 +5\b")
            self.assertIn("* some samples missing", detail)
            data = json.loads(to_json(app.rows))["series"]
            self.assertEqual([one["window"]["partial"] for one in data], [False, True])
            lines = list(csv.DictReader(io.StringIO(export.to_csv(app.rows))))
            self.assertEqual([one["window_partial"] for one in lines], ["false", "true"])
            await pilot.press("w", "w")
            await draw(pilot, app)
            self.assertNotIn("*", "".join([*drawn(app.table), *drawn(app.detail)]))

        watch(scenario, source)
        self.assertRegex(str(help_text()), r"\n  \* +some samples of the window")

    def test_groupRate(self) -> None:
        """
        Sums and rate of a group have the unit of its series, except for histograms, whose
        percentiles have it.
        """
        source = FedSource()
        source.feed(
            [
                Metadata(MetricKind.COUNTER, "sent", "bytes", ""),
                Metadata(MetricKind.HISTOGRAM, "took", "seconds", ""),
            ]
        )
        for _ in range(5):
            source.feed([count("sent", 30 * 1024, device=device) for device in ("eth0", "eth1")])
            source.feed([sample("took", 0.5, route=route) for route in "ab"], 0)

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("g")
            lines = [" ".join(line.split()) for line in drawn(app.table)]
            sent, took = (line for line in lines if "▾" in line)
            self.assertRegex(sent, r"▾ sent 2 300 KiB [\d.]+ KiB/s$")
            self.assertRegex(took, r"▾ took 2 10 [\d.]+/s 500 ms 500 ms 500 ms 500 ms$")

        watch(scenario, source)

    def test_groupScrolls(self) -> None:
        """The chosen line stays visible when the lines are grouped."""
        source = FedSource()
        source.feed(count(f"n{number:02}", number + 1, at=str(number % 3)) for number in range(60))

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press(*["down"] * 40)
            for _ in range(3):
                await pilot.press("g")
                self.assertIn("▌", "".join(line[0] for line in drawn(app.table)))
                self.assertEqual(chosen(app), "n40 [at = 1]")

        watch(scenario, source, size=(80, 24))

    def test_sortScrolls(self) -> None:
        """Sorting shows the first lines, and chooses the first until a key moves."""
        source = FedSource()
        source.feed(count(f"n{number:02}", number + 1) for number in range(60))

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            async def sort_by_click() -> None:
                await pilot.click(app.table, offset=(2, 0))

            for sort, first in [
                (lambda: pilot.press("s", "s", "s"), "n59"),
                (lambda: pilot.press("r"), "n00"),
                (lambda: pilot.press("S", "S"), "n00"),
                (sort_by_click, "n00"),
                (sort_by_click, "n59"),
            ]:
                await pilot.press("end", "up")
                await sort()
                self.assertEqual(chosen(app), first)
                self.assertRegex(drawn(app.table)[1], f"^▌{first} ")
            # A line that comes first is chosen, until the user chooses one.
            source.feed([count("zz")])
            await draw(pilot, app)
            self.assertEqual(chosen(app), "zz")
            await pilot.press("down", "up")
            source.feed([count("zzz")])
            await draw(pilot, app)
            self.assertEqual(chosen(app), "zz")

        watch(scenario, source, size=(80, 24))

    def test_sortDetails(self) -> None:
        """While details are open, sorting shows the first lines, and the details keep theirs."""
        source = FedSource()
        source.feed(count(f"n{number:02}", number + 1) for number in range(60))

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("enter", "s", "s", "s")
            self.assertIn("n59 ", drawn(app.table)[1])
            self.assertIn("n00 ", drawn(app.detail)[0])
            self.assertEqual(chosen(app), "n00")
            for key in ("enter", "escape", "q"):
                await pilot.press("r", "r", key)
                self.assertFalse(app.detail_open)
                # The chosen line is on the screen again.
                self.assertIn("▌n00", " ".join(drawn(app.table)))
                await pilot.press("enter")

        watch(scenario, source, size=(80, 24))

    def test_window(self) -> None:
        """Percentiles cover the chosen window."""
        source = FedSource()
        source.feed([sample("latency", 9.0)])
        source.feed([sample("latency", 2.0)], 150)
        source.feed([sample("latency", 1.0)], 100)
        (longer,), (shorter,) = self.each("window(1)"), self.each("window(-1)")

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            def largest() -> str:
                return drawn(app.table)[1].split()[-1]

            await pilot.press(*["right"] * 10)
            self.assertEqual((app.rows.window, largest()), (60.0, "1"))
            await pilot.press(longer)
            self.assertEqual((app.rows.window, largest()), (300.0, "9"))
            self.assertIn("window 5m 00s", drawn(app.header)[0])
            await pilot.press(longer)
            self.assertEqual((app.rows.window, largest()), (None, "9"))
            self.assertIn("all time", drawn(app.header)[0])
            await pilot.press(longer)
            self.assertEqual(app.rows.window, 10.0)
            await pilot.press(shorter)
            self.assertIsNone(app.rows.window)

        watch(scenario, source, size=(80, 24))

    def test_pause(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            (source,) = app.rows.sources
            assert isinstance(source, FedSource)
            total = 20
            for key in self.each("pause"):
                await pilot.press(key)
                before = drawn(app.table)
                self.assertIn("PAUSED", drawn(app.header)[0])
                new = f"new_{key}"
                source.feed([count("bytes_sent", 1000), count(new), Status("a program", 1, 5)])
                total += 1000
                await draw(pilot, app)
                self.assertEqual(drawn(app.table), before)
                # Losses are still shown.
                self.assertIn("missed 5", drawn(app.header)[1])
                # While paused, sorting works, but changing the window does not.
                await pilot.press("r", "w", "enter")
                self.assertEqual(listed(app)[-5:], BY_NAME[::-1][-5:])
                self.assertEqual(app.rows.window, 60.0)
                self.assertIn("Paused", messages(app)[0])
                await pilot.press("r", "enter", key)
                self.assertNotIn("PAUSED", drawn(app.header)[0])
                # Events during the pause were ingested.
                self.assertIn(new, listed(app))
                self.assertIn(f" {total:,} ", drawn(app.table)[3])

        watch(scenario)

    def test_clear(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            (source,) = app.rows.sources
            assert isinstance(source, FedSource)
            await pilot.press("enter", *self.each("clear"))
            self.assertEqual(listed(app), [])
            self.assertIn("no series yet", "\n".join(drawn(app.table)))
            # The same number of series appears again, and totals continue.
            source.feed([count("bytes_sent"), *(count(f"n{number}") for number in range(4))])
            await draw(pilot, app)
            self.assertEqual(listed(app), ["bytes_sent", "n0", "n1", "n2", "n3"])
            self.assertIn(" 21 ", drawn(app.table)[1])
            # Clearing resumes a paused display, as the help describes.
            await pilot.press("space", *self.each("clear"))
            self.assertNotIn("PAUSED", drawn(app.header)[0])
            self.assertEqual(listed(app), [])
            (key,) = [key for key in KEYS if key.action == "clear"]
            self.assertIn("resume if paused", key.does)

        watch(scenario)

    def test_export(self) -> None:
        """An export writes only the listed series, to a new file."""
        directory = Path(self.mktemp())
        directory.mkdir()

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("slash", *"route:", "enter", "r")
            await pilot.press(*self.each("export('json')"))
            await pilot.press(*self.each("export('json')"))
            await pilot.press(*self.each("export('csv')"))

        app = watch(scenario, export_dir=directory)
        wanted = [BY_NAME[3], BY_NAME[1], BY_NAME[0]]
        one, other = sorted(directory.glob("*.json"))
        document = json.loads(one.read_text())
        self.assertEqual(
            [
                str(Key.of(MetricKind(series["kind"]), series["name"], series["labels"]))
                for series in document["series"]
            ],
            wanted,
        )
        self.assertEqual(document["filter"], "route:")
        self.assertEqual(document["sources"][0]["source"], "here:1")
        latency, _, answers = document["series"]
        self.assertEqual(answers["value"], 30)
        self.assertEqual(latency["unit"], "seconds")
        self.assertEqual((latency["window"]["count"], latency["window"]["max"]), (100, 0.1))
        self.assertEqual(json.loads(other.read_text())["series"], document["series"])
        (table,) = directory.glob("*.csv")
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["name"] for row in rows], ["latency", "answers", "answers"])
        self.assertEqual(rows[0]["p999"], str(latency["window"]["p999"]))
        self.assertEqual(rows[2]["labels"], "route=/ status=200")
        for path in (one, other, table):
            self.assertIn(f"Saved to {path.resolve()}", messages(app))

    def test_picture(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press(*self.each("picture"))

        app = watch(scenario, export_dir=directory)
        (path,) = directory.glob("*.svg")
        text = path.read_text()
        self.assertTrue(text.startswith("<svg"))
        self.assertIn("bytes_sent", text)
        # The picture has no references to the web.
        self.assertNotRegex(text, r"url\([\"']?http")
        self.assertIn(f"Saved to {path.resolve()}", messages(app))

    def test_cannotWrite(self) -> None:
        """If the directory cannot be written to, a message is shown."""
        directory = Path(self.mktemp())

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("e", "v", "x")
            await pilot.pause()
            self.assertTrue(app.is_running)

        app = watch(scenario, export_dir=directory)
        reason = f"Cannot write to {directory.resolve()}: No such file or directory"
        self.assertEqual(messages(app), [reason] * 3)

    def test_noDescriptors(self) -> None:
        """If a file cannot be opened, an existing file with its path is not removed."""
        directory = Path(self.mktemp())
        directory.mkdir()

        def refuse(path: Path, *arguments: object, **more: object) -> None:
            path.write_text("dear")
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with mock.patch.object(export, "open", refuse, create=True):
            self.assertRaises(OSError, export.write_new, directory, "json", "")
        self.assertEqual([one.read_text() for one in directory.iterdir()], ["dear"])

    def test_help(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            for key in self.each("help"):
                await pilot.press(key)
                self.assertIsInstance(app.screen, Help)
                # The table is visible behind the help.
                self.assertLess(app.screen.styles.background.a, 1)
                await pilot.press("pagedown", "down", "j", "k", "up", "pageup", "space")
                self.assertIsInstance(app.screen, Help)
                await pilot.press(key)
                self.assertNotIsInstance(app.screen, Help)

        watch(scenario, size=(80, 24))

    def test_helpAt80(self) -> None:
        """At 80 cells, no line of the help wraps, and the key that closes it is visible."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press(*self.each("help")[:1])
            box = app.screen.query_one(VerticalScroll)
            self.assertIn("Esc closes", str(box.border_subtitle))
            text = app.screen.query_one(Static).size
            for line in help_text().plain.splitlines():
                self.assertLessEqual(len(line), text.width)

        watch(scenario, size=(80, 24))

    def test_leave(self) -> None:
        for keys in [[key] for key in self.each("leave")]:
            source = FedSource()

            async def scenario(pilot: Pilot[int], app: ObserveApp, keys: list[str] = keys) -> None:
                self.assertTrue(app.is_running)
                await pilot.press(*keys)

            app = watch(scenario, source)
            self.assertEqual(app.return_value, 0)
            self.assertEqual((source.started, source.stopped), (1, 1))

    def test_stop(self) -> None:
        """The keys quit from anywhere."""
        for key in self.each("stop"):
            for before in [[], ["enter"], ["slash", "x"], ["question_mark"], ["o"]]:

                async def scenario(
                    pilot: Pilot[int], app: ObserveApp, keys: tuple[str, ...] = (*before, key)
                ) -> None:
                    await pilot.press(*keys)

                self.assertEqual(watch(scenario).return_value, 0)


class MouseTests(SynchronousTestCase):
    def test_titles(self) -> None:
        """A click on a column title sorts by it; another click reverses the order."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            clicked = set()
            for column, x in app.table.placement.placed:
                # Click the first cell of the title, then the last.
                await pilot.click(app.table, offset=(x, 0))
                self.assertEqual(app.rows.sort, column.id)
                descending = app.rows.descending
                await pilot.click(app.table, offset=(x + column.width - 1, 0))
                self.assertEqual(app.rows.sort, column.id)
                self.assertEqual(app.rows.descending, not descending)
                clicked.add(column.id)
            self.assertLessEqual(
                {"source", "name", "labels", "kind", "value", "rate", "trend", "p99"}, clicked
            )

        source = FedSource("there:2")
        source.feed(some_events())
        watch(scenario, source, FedSource(), size=(200, 40))

    def test_lines(self) -> None:
        """A click chooses a series; a second click shows its details."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.click(app.table, offset=(10, 3))
            self.assertEqual(chosen(app), BY_NAME[2])
            self.assertFalse(app.detail.display)
            await pilot.click(app.table, offset=(10, 3))
            self.assertTrue(app.detail.display)
            self.assertIn("bytes_sent", drawn(app.detail)[0])
            await pilot.click(app.table, offset=(10, 2))
            self.assertIn("answers", drawn(app.detail)[0])
            # A click below the listed lines has no effect.
            await pilot.click(app.table, offset=(10, 10))
            self.assertEqual(chosen(app), BY_NAME[1])

        watch(scenario)

    def test_group(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("g")
            await pilot.click(app.table, offset=(2, 1))
            self.assertEqual(listed(app)[:2], ["answers", "bytes_sent"])
            await pilot.click(app.table, offset=(2, 1))
            self.assertEqual(listed(app)[1], BY_NAME[0])

        watch(scenario)


class ShownTests(SynchronousTestCase):
    def test_small(self) -> None:
        """At 80 by 24, no line is wider than the screen, and the table has enough lines."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            for keys in [[], ["enter"], ["g"], ["s", "s", "right"], ["slash", "a"]]:
                await pilot.press(*keys)
                await draw(pilot, app)
                for widget in (app.header, app.table, app.detail):
                    for line in drawn(widget):
                        self.assertLessEqual(len(line), 80)
            self.assertGreaterEqual(app.table.size.height, 8)

        watch(scenario, size=(80, 24))

    def test_namesAt80(self) -> None:
        """With two sources at 80 cells, the trend is hidden so that names are distinguishable."""
        sources = [FedSource("127.0.0.1:5631"), FedSource("127.0.0.1:5632")]
        names = ["host_cpu_seconds_total", "process_cpu_seconds_total"]
        for source in sources:
            source.feed(count(name, 1, mode="system", cpu="11") for name in names)

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            titles, *lines = drawn(app.table)
            for line, name in zip(lines, [names[0], names[0], names[1], names[1]], strict=False):
                # Names keep their beginning and their end.
                self.assertRegex(line, f"{name[:10]}.*{name[-8:]} ")
                self.assertIn(" cpu=11 mode=", line)
                self.assertIn(" counter ", line)
            self.assertIn("▸", titles)
            # The common host is omitted.
            self.assertRegex(lines[0], " :5631 ")
            self.assertRegex(lines[1], " :5632 ")
            self.assertIn("rate", titles)
            self.assertNotIn("trend", titles)
            # Scrolling shows the hidden column.
            await pilot.press("right")
            titles = drawn(app.table)[0]
            self.assertIn("rate", titles)
            self.assertIn("trend", titles)

        watch(scenario, *sources, size=(80, 24))

    def test_longSources(self) -> None:
        """Long names of sources that differ only at the end are distinguishable at any width."""
        sources = [FedSource(f"metrics.production.example.org:500{number}") for number in (1, 2)]
        for source in sources:
            source.feed([count("n")])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            lines = drawn(app.table)
            self.assertRegex(lines[1], r"n +:5001 ")
            self.assertRegex(lines[2], r"n +:5002 ")

        for width in (80, 160):
            watch(scenario, *sources, size=(width, 24))

    def test_trendAt80(self) -> None:
        """With one source at 80 cells, all columns up to the trend fit beside a scrollbar."""
        source = FedSource()
        name = "http_client_request_duration_{}"
        source.feed([sample(name.format(n), 0.1, route="/a/long/route") for n in range(60)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertTrue(app.table.show_vertical_scrollbar)
            titles = drawn(app.table)[0]
            self.assertRegex(titles, "name.* labels .* value +rate +trend")

        watch(scenario, source, size=(80, 24))

    def test_widthsOfListed(self) -> None:
        """Column widths depend on the listed series only."""
        source = FedSource()
        name = "host_network_received_packets_total"
        source.feed(
            [
                count(name, device="eth0"),
                count("short", route="/a/very/long/route/of/many/parts/indeed", method="OPTIONS"),
            ]
        )

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertNotIn(name, "".join(drawn(app.table)))
            await pilot.press("slash", *"host_net", "enter")
            self.assertIn(f"{name}  device=eth0  count", drawn(app.table)[1])
            await pilot.press("escape")
            self.assertNotIn(name, "".join(drawn(app.table)))

        watch(scenario, source, size=(100, 24))

    def test_wideLetters(self) -> None:
        """Text of letters that take two cells is not cut: the title of a group, descriptions."""
        name, description = "東京" * 8, "説明" * 40
        source = FedSource()
        source.feed([Metadata(MetricKind.COUNTER, name, "", description), count(name)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("g", "down", "enter")
            self.assertIn(f"▾ {name}  1 ", drawn(app.table)[1])
            await draw(pilot, app)
            self.assertEqual("".join(drawn(app.detail)).count("説"), 40)

        watch(scenario, source)

    def test_longNames(self) -> None:
        """The details show a long name whole, and kind and source; groups keep both ends."""
        name = "http_requests_total_for_a_service_with_a_long_name_number_{}"
        source = FedSource("127.0.0.1:5000")
        source.feed([count(name.format(n)) for n in (1, 2)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("enter")
            await draw(pilot, app)
            lines = [line[:35].strip() for line in drawn(app.detail)]
            self.assertEqual("".join(lines[:2]), name.format(1))
            self.assertEqual(lines[2], "counter  127.0.0.1:5000")
            await pilot.press("g", "f")
            for number, line in enumerate(drawn(app.table)[1:3], 1):
                self.assertRegex(line, f"^.▸ http_requests_.*….*number_{number}  1 +1 ")
            await resize(pilot, 200, 24)
            await draw(pilot, app)
            self.assertIn(f"▸ {name.format(1)}  1 ", drawn(app.table)[1])
            await resize(pilot, 40, 24)
            await draw(pilot, app)
            text = "".join(line.strip() for line in drawn(app.detail))
            self.assertTrue(text.startswith(name.format(1)), text)

        watch(scenario, source, size=(80, 24))

    def test_negativeSamples(self) -> None:
        """A space separates the percentiles of the window from those of all time."""
        source = FedSource()
        source.feed([Metadata(MetricKind.HISTOGRAM, "h", "seconds"), sample("h", -9.97e299)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("enter")
            await draw(pilot, app)
            self.assertRegex("\n".join(drawn(app.detail)), r"min +-\S+ s +-\S+ s ")

        watch(scenario, source)

    def test_slowGauge(self) -> None:
        """If both ends of a chart's scale round to the same text, the top shows the difference."""
        source = FedSource()
        source.feed([Metadata(MetricKind.GAUGE, "uptime", "seconds", "")])
        for number in range(30):
            source.feed([gauge("uptime", 4260.0 + number)])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("enter")
            await draw(pilot, app)
            edges = [line.split("┤")[0].strip() for line in drawn(app.detail) if "┤" in line]
            self.assertEqual(edges, ["+28 s", "1h 11m"])

        watch(scenario, source)

    def test_largeTotal(self) -> None:
        """The details and the header of any size have whole numbers."""
        exact = "18,446,744,073,709,551,615"
        for width, expected in ((120, exact), (80, exact), (36, "18.4E"), (24, "18.4E")):
            source = FedSource()
            source.feed(
                [
                    Status("s", 1, U64_MAX, U64_MAX),
                    event(Operation.SET_COUNTER, "large", U64_MAX),
                    Metadata(MetricKind.GAUGE, "tiny", "bytes"),
                    gauge("tiny", -1.23457e-105),
                ]
            )

            async def scenario(
                pilot: Pilot[int],
                app: ObserveApp,
                source: FedSource = source,
                expected: str = expected,
            ) -> None:
                await pilot.press("enter")
                await draw(pilot, app)
                source.feed([event(Operation.SET_COUNTER, "large", U64_MAX)])
                await draw(pilot, app)
                text = "\n".join(drawn(app.detail))
                self.assertRegex(text, rf"total +{expected} *\n")
                self.assertEqual(
                    re.findall(r"18[.,][\d,]*\dE?", text), [expected] * text.count("18")
                )
                await pilot.press("down")
                await draw(pilot, app)
                self.assertRegex("\n".join(drawn(app.detail)), r"value +-1\.23e-105 B *\n")
                if len(drawn(app.header)[1]) > 40:
                    self.assertIn("missed 36.9E", drawn(app.header)[1])

            watch(scenario, source, size=(width, 50))

    def test_units(self) -> None:
        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            lines = drawn(app.table)
            self.assertIn("1.5 KiB", lines[5])
            for part in [" 100 ", "1 ms", "50 ms", "90 ms", "99 ms", "100 ms"]:
                self.assertIn(part, lines[4])

        watch(scenario, size=(180, 40))

    def test_hostile(self) -> None:
        """
        Control characters and markup in names, labels, units and descriptions are shown as text.
        """
        source = FedSource("[red]me[/red]")
        evil = "[bold]\x1b[2J\x9b1m\u202e[/bold]"
        source.feed(
            [
                Status(evil, 1),
                Metadata(MetricKind.GAUGE, evil, evil, evil),
                gauge(evil, 1.0, **{evil: evil}),
            ]
        )

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await pilot.press("enter", "g")
            await pilot.press("g", "end")
            await draw(pilot, app)
            lines = [*drawn(app.header), *drawn(app.table), *drawn(app.detail)]
            text = "\n".join(lines)
            self.assertGreater(text.count(r"[bold]\x1b[2J\x9b1m\u202e[/bold]"), 5)
            self.assertTrue(all(line.isprintable() for line in lines))
            self.assertIn("[red]me[/red]", lines[1])
            # The same holds for a title, a message and a filter error.
            app.export_screenshot()
            await pilot.press("e")
            toast = str(app.screen.query_one("Toast").render())
            self.assertIn("[red]no[/red]", toast.replace("\n", ""))
            await pilot.press("slash", *"kind:", "left_square_bracket", "b", "right_square_bracket")
            self.assertIn("'[b]'", str(app.query_one("#filter-error").render()))

        directory = Path(self.mktemp()) / "[red]no[/red]"
        watch(scenario, source, size=(300, 60), export_dir=directory)

    def test_formula(self) -> None:
        """
        No text in a CSV export is a formula, even if the reader separates cells by semicolons.
        """
        written = {
            "=1+1": "'=1+1",
            "+1": "'+1",
            "-1": "'-1",
            "@A1": "'@A1",
            "\N{FULLWIDTH EQUALS SIGN}1": "'\N{FULLWIDTH EQUALS SIGN}1",
            "\N{SMALL EQUALS SIGN}1": "'\N{SMALL EQUALS SIGN}1",
            "  =1+1": "'  =1+1",
            '"=1': "'\"=1",
            "a;=1+1": "a;'=1+1",
            'a; "\N{FULLWIDTH COMMERCIAL AT}A1;': "a;' \"\N{FULLWIDTH COMMERCIAL AT}A1;",
            "\n\t=1": r"\n\t=1",
            "a-b;c=d": "a-b;c=d",
        }
        source = FedSource()
        source.feed([gauge(name, -1.5, a=name) for name in written])
        rows = Rows([source])
        rows.update()
        text = export.to_csv(rows)
        lines = list(csv.DictReader(io.StringIO(text)))
        self.assertEqual({line["name"] for line in lines}, {*written.values()})
        self.assertEqual({line["value"] for line in lines}, {"-1.5"})
        for line in csv.reader(io.StringIO(text), delimiter=";"):
            for cell in line:
                self.assertNotRegex(normalize("NFKC", cell), '^[ "]*[-=+@]')
        self.assertIn("=1+1", [series["name"] for series in json.loads(to_json(rows))["series"]])

    def test_csv(self) -> None:
        """In a CSV export, text is quoted and hidden characters are escaped; numbers are not."""
        source = FedSource()
        source.feed([Metadata(MetricKind.GAUGE, "n\x1b", "\u202e", "a\r\nb\u3164")])
        source.feed([gauge("n\x1b", -1.5, a="\x9b", b="x y")])
        rows = Rows([source])
        rows.update()
        titles, line, end = export.to_csv(rows).split("\r\n")
        self.assertTrue(titles.startswith('"source","kind","name",'))
        start = r""""here:1","gauge","n\x1b","a=\x9b b=x y","\u202e",-1.5,"",1,"","""
        self.assertTrue(line.startswith(start), line)
        # No histogram, and so no window.
        self.assertTrue(line.endswith(r',"","","","","","","","","","a\r\nb\u3164"'), line)
        self.assertEqual(end, "")

    def test_notFinite(self) -> None:
        """NaN, infinity and times outside the calendar are shown and exported."""
        source = FedSource()
        when = 2**70
        source.feed(
            Metric(
                Key.of(operation.kind, f"{operation.kind.value}_{value}"), operation, value, when
            )
            for operation in (Operation.SET_GAUGE, Operation.RECORD_HISTOGRAM)
            for value in (float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324)
        )
        source.feed([count("most", 2**64 - 1), count("most", 1)])
        directory = Path(self.mktemp())
        directory.mkdir()

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertIn("nan", "\n".join(drawn(app.table)))
            await pilot.press("enter")
            for position in range(len(app.rows.lines)):
                app.table.choose(position)
                app.redraw()
                self.assertNotEqual(drawn(app.detail), [])
            for _column in range(12):
                await pilot.press("s")
                self.assertIn("nan", "\n".join(drawn(app.table)))
            await pilot.press("e", "v", "x", "space")

        watch(scenario, source, export_dir=directory)
        self.assertEqual(len(list(directory.iterdir())), 3)

    def test_many(self) -> None:
        """
        With thousands of series, a frame only computes the visible ones, and keys work.
        """
        source = FedSource()
        source.feed(
            [count(f"name_{number % 100:02}", number, n=str(number)) for number in range(1800)]
            + [sample("latency", number, n=str(number)) for number in range(200)]
        )
        computed = 0
        values = Row.values

        def counted(row: Row, window: float | None) -> object:
            nonlocal computed
            computed += 1
            return values(row, window)

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            nonlocal computed
            self.assertEqual(len(app.rows.lines), 2000)
            self.patch(Row, "values", counted)
            computed = 0
            source.seconds_passed += 1
            await draw(pilot, app)
            await settle(pilot)
            self.assertGreater(computed, 10)
            self.assertLessEqual(computed, 4 * app.table.size.height)
            await pilot.press("end", "enter")
            await draw(pilot, app)
            self.assertIn("name_99", drawn(app.table)[-1])
            await pilot.press("g", "g", "r", "s", "s", "s", "home", "space", "space")
            await pilot.press("b", "b", "slash", *"n=1799", "enter")
            self.assertEqual(listed(app), ["name_99 [n = 1799]"])
            await pilot.press("c")

        watch(scenario, source, size=(80, 24))

    def test_onlyChanges(self) -> None:
        """Only changed lines are redrawn."""
        source = FedSource()
        source.feed([count(f"n{number}") for number in range(10)])
        lines: list[int] = []
        render_line = SeriesTable.render_line

        def noted(table: SeriesTable, y: int) -> Strip:
            lines.append(y)
            return render_line(table, y)

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            await settle(pilot)
            self.patch(SeriesTable, "render_line", noted)
            await draw(pilot, app)
            await settle(pilot)
            self.assertEqual(lines, [])
            source.feed([count("n3"), count("n7")], 0)
            await draw(pilot, app)
            await settle(pilot)
            self.assertEqual(set(lines), {4, 8})
            # A second later, all trends and rates may have changed.
            source.seconds_passed += 1
            await draw(pilot, app)
            await settle(pilot)
            self.assertEqual(set(lines), set(range(1, 11)))

        watch(scenario, source)

    def test_frames(self) -> None:
        """At most ten frames per second are drawn, and fewer if drawing is slow."""

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertGreaterEqual(app.delay, 0.1)
            app._drawing_since = 0.0  # simulate slow drawing
            app._drawn()
            self.assertEqual(app.delay, 2.0)

        watch(scenario)

    def test_gone(self) -> None:
        """A gone series vanishes; the next one takes its place in the table and the detail pane."""
        source = FedSource()
        source.feed([count(name) for name in "abcde"])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            async def goes(*names: str) -> None:
                source.feed([Gone(count(name).key) for name in names])
                await draw(pilot, app)

            await pilot.press("down", "down", "enter")
            await goes("a")
            self.assertEqual((listed(app), chosen(app)), (list("bcde"), "c"))
            await goes("c")
            self.assertEqual((listed(app), chosen(app)), (list("bde"), "d"))
            self.assertIn("d", drawn(app.detail)[0])
            # If a filter hides it, the first line is chosen, as without gone series.
            await pilot.press("down")
            app.rows.set_filter("-e")
            app.redraw()
            self.assertEqual(chosen(app), "b")
            app.rows.set_filter("")
            await goes("d")
            await pilot.press("end")
            self.assertIn("e", drawn(app.detail)[0])
            await goes("e")
            self.assertEqual(chosen(app), "b")
            self.assertIn("b", drawn(app.detail)[0])
            exported = json.loads(to_json(app.rows))["series"]
            self.assertEqual([one["name"] for one in exported], ["b"])
            await goes("b")
            self.assertIsNone(app.table.chosen)
            self.assertNotIn("b", "".join(drawn(app.detail)))
            self.assertIn("no series yet", " ".join(drawn(app.table)))
            source.feed([count("b", 7)])
            await draw(pilot, app)
            self.assertEqual(chosen(app), "b")

        watch(scenario, source)


class HeaderTests(SynchronousTestCase):
    def header(self, *sources: FedSource, size: tuple[int, int] = (120, 40)) -> list[str]:
        lines: list[str] = []

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            lines.extend(self.lines(app))

        watch(scenario, *sources, size=size)
        return lines

    def lines(self, app: ObserveApp) -> list[str]:
        return [" ".join(line.split()) for line in drawn(app.header)]

    def test_losses(self) -> None:
        """The header shows losses by source and reason, or that they are unknown."""
        fine, losing, rust = FedSource("fine:1"), FedSource("losing:2"), FedSource("rust:3")
        fine.feed([Status("one", 1), count("a")])
        losing.feed([Status("two", 1, 1200, 34)])
        rust.feed([count("a")])
        lines = self.header(fine, losing, rust)
        self.assertIn("● fine:1 connected 1 s no losses", lines[1])
        self.assertIn("losing:2 connected 1 s missed 1,234 (1,200 incoming, 34 client)", lines[2])
        self.assertIn("rust:3 connected 1 s losses unknown", lines[3])

    def test_lossesAt80(self) -> None:
        source = FedSource("a-rather-long-name.example.org:5000")
        source.feed([Status("a program with a long name " * 3, 1, 1200, 34)])
        line = self.header(source, size=(80, 24))[1]
        self.assertIn("missed 1,234 (1,200 incoming, 34 client)", line)

    def test_states(self) -> None:
        lost, foreign, new = FedSource("lost:1"), FedSource("foreign:2"), FedSource("new:3")
        lost.set_state(State.LOST, "Connection refused")
        # The rest of a second counts as one.
        lost.retry_at = lost.seconds_passed + 6.2
        foreign.set_state(State.FOREIGN, "it looks like an HTTP server")
        new.set_state(State.CONNECTING)
        lines = self.header(lost, foreign, new)
        self.assertIn("lost:1 disconnected, retry in 7 s: Connection refused", lines[1])
        self.assertIn("foreign:2 not a metrics stream, retrying: it looks like an", lines[2])
        self.assertIn("new:3 connecting…", lines[3])

    def test_several(self) -> None:
        """The line of a source that is not connected has no rate."""
        lost, idle = FedSource("lost:1"), FedSource("idle:2")
        lost.set_state(State.LOST, "Connection refused")
        self.assertEqual(
            self.header(lost, idle)[1:],
            ["● lost:1 disconnected, retrying: Connection refused", "● idle:2 connected 0 s 0/s"],
        )

    def test_silent(self) -> None:
        """A connection without data gets a warning."""
        silent, quiet = FedSource("silent:1"), FedSource("quiet:2")
        silent.has_received = False
        lines = self.header(silent, quiet, size=(80, 24))
        self.assertNotIn("no data", " ".join(lines))
        for source in (silent, quiet):
            source.seconds_passed += 3
        lines = self.header(silent, quiet, size=(80, 24))
        self.assertIn("silent:1 connected 3 s no data yet: is this a metrics server?", lines[1])
        self.assertNotIn("no data", lines[2])

    def test_reasonAtAnyWidth(self) -> None:
        """The reason for a lost connection is shown at any width, cut if necessary."""
        lost = FedSource("127.0.0.1:5631")
        lost.feed([Status("a program", 1, 3, 4)])
        lost.set_state(State.LOST, "Connection was refused by other side: 111: Connection refused")
        lost.retry_at = lost.seconds_passed + 2
        shown = "127.0.0.1:5631 disconnected, retry in 2 s: Connection was refu"

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            for width in (80, 90, 100, 120, 160):
                await resize(pilot, width, 24)
                await draw(pilot, app)
                line = self.lines(app)[1]
                self.assertIn(shown, line)
                self.assertIn(" missed 7", line)
                self.assertEqual("…" in line, width < 160, line)

        watch(scenario, lost, size=(200, 24))
        # Without losses, the reason gets the remaining space.
        lost = FedSource("127.0.0.1:5631")
        lost.set_state(State.LOST, "Connection was refused by other side: 111: Connection refused")
        line = self.header(lost, size=(80, 24))[1]
        self.assertIn("retrying: Connection was refused by", line)
        self.assertTrue(line.endswith("…"), line)

    def test_recording(self) -> None:
        """For a recording, the header shows its length and number of events, and no rates."""
        source = FedSource("yesterday.rec")
        source.seconds_passed = 4 * 60 + 5
        source.feed([Status("a program", 1), *[count("a")] * 1234], 0)
        source.set_state(State.ENDED, "from there:5000; it was cut off")
        first, line = self.header(source, size=(80, 24))
        self.assertIn("● RECORDING metrics-tcp 1 series 1,234 events window", first)
        self.assertNotIn("/s", first + line)
        self.assertIn("yesterday.rec recording, 4m 05s from there:5000; it was cut off", line)
        short = FedSource("short.rec")
        short.seconds_passed = 0.5
        short.feed([count("a")], 0)
        short.set_state(State.ENDED)
        first, line = self.header(short)
        self.assertIn(" 1 event window", first)
        self.assertIn("recording, 500 ms", line)
        # With an additional server, the state is live.
        lines = self.header(source, FedSource("live:1"))
        self.assertIn("▶ LIVE metrics-tcp 1 series 0 events/s", lines[0])
        self.assertIn("4m 05s from there:5000; it was cut off no losses 1,234 ev", lines[1])

    def test_restart(self) -> None:
        """A restart is shown in the header; only series of the new run are listed."""
        source = FedSource()
        source.feed([Status("a program", 1), count("a", label="x"), count("b")])

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            self.assertNotIn("restarted", drawn(app.header)[1])
            await pilot.press("down")
            source.feed([Status("a program", 2), count("b"), count("c"), count("d")])
            source.seconds_passed += 3
            await draw(pilot, app)
            self.assertIn("↻ restarted 3 s ago", drawn(app.header)[1])
            self.assertEqual(listed(app), ["b", "c", "d"])
            self.assertEqual(chosen(app), "b")
            source.feed([Status("a program", 3)])
            await draw(pilot, app)
            self.assertIn("↻ restarted 2 times, last 0 s ago", drawn(app.header)[1])
            # Labels and widths of removed series are forgotten.
            self.assertEqual(app.rows.groupings, [None, Grouping(None)])
            self.assertEqual(app.rows.name_length, 0)

        watch(scenario, source)

    def test_many(self) -> None:
        """Many sources have one line, with the number of those in each state, and the losses."""
        sources = [FedSource(f"here:{number}") for number in range(40)]
        for source in sources:
            source.feed([Status("a", 1)])
        for source in sources[:2]:
            source.set_state(State.CONNECTING)
        lines = self.header(*sources, size=(80, 24))
        self.assertEqual(lines[1:], ["38 connected, 2 connecting no losses reported o lists them"])
        sources[7].set_state(State.LOST, "gone")
        sources[8].set_state(State.FOREIGN)
        sources[9].view.ingest([Status("a", 1, 1, 2)])
        sources[10].has_received = False
        sources[10].seconds_passed += 10
        for width, text in [
            (80, "36 connected, 2 connecting, 1 disconnected, 1 not a metrics stream missed 3 o"),
            (200, "36 connected (1 without data), 2 connecting, 1 disconnected, 1 not a metrics"),
            (200, "a metrics stream missed 3 (1 incoming, 2 client) o lists them"),
        ]:
            self.assertIn(text, self.header(*sources, size=(width, 24))[1])
        # They have lines if these take a quarter of the screen.
        self.assertEqual(len(self.header(*sources, size=(80, 163))), 2)
        self.assertEqual(len(self.header(*sources, size=(80, 164))), 41)

    def test_noServer(self) -> None:
        """If no server listens, the table shows how to start one, until one is connected."""
        source = FedSource()
        source.server_command = "twistd -n metrics-tcp"
        source.set_state(State.LOST, "Connection refused")

        async def scenario(pilot: Pilot[int], app: ObserveApp) -> None:
            def text() -> str:
                return " ".join(" ".join(drawn(app.table)).split())

            self.assertIn("no data yet", text())
            source.refused = True
            await draw(pilot, app)
            self.assertIn("no server there; start one: twistd -n metrics-tcp", text())
            source.server_command += " --listen unix:/" + 100 * "x"
            await draw(pilot, app)
            # A long command is whole.
            self.assertTrue(text().replace(" ", "").endswith(100 * "x"), text())
            source.set_state(State.CONNECTED)
            await draw(pilot, app)
            self.assertIn("no series yet", text())

        watch(scenario, source, size=(80, 24))

    def test_longReason(self) -> None:
        """A reason is cut to the width of the screen only."""
        source = FedSource()
        source.set_state(State.LOST, "reason " * 20 + "end")
        self.assertIn("reason end", self.header(source, size=(200, 24))[1])

    def test_tooManySeries(self) -> None:
        source = FedSource()
        source.view._max_series = 1
        source.feed([Status("a", 1), count("a"), count("b")])
        self.assertIn("left out 1 (too many series)", self.header(source)[1])

    def test_unknown(self) -> None:
        source = FedSource()
        source.feed([Status("a", 1), count("a"), Unknown("a"), Unknown("b")])
        self.assertIn("skipped 2 unknown", self.header(source)[1])

    def test_behind(self) -> None:
        """The line of a source of a broker says how many messages it is behind."""
        source = FedSource()
        source.behind = lambda: 0
        self.assertNotIn("behind", self.header(source)[1])
        source.behind = lambda: 1234
        self.assertIn("1,234 messages behind", self.header(source)[1])


class DocumentationTests(SynchronousTestCase):
    def test_page(self) -> None:
        """docs/reference/viewer.md describes all keys and the mouse."""
        page = (ROOT / "docs" / "reference" / "viewer.md").read_text()
        for key in KEYS:
            shown = " ".join(f"`{name}`" for name in key.shown.split())
            self.assertIn(f"| {shown} | {key.does} |", page)
        for action, does in MOUSE:
            self.assertIn(f"| {action} | {does} |", page)

    def test_help(self) -> None:
        text = help_text().plain
        for key in KEYS:
            self.assertRegex(text, re.escape(key.shown) + " +" + re.escape(key.does))
        for line in SYNTAX.splitlines():
            self.assertIn(line, text)
