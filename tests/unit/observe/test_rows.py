"""
The viewer's listed series and layout: the parts that do not use Textual.
"""

from __future__ import annotations

import math
import sys
from sys import getrefcount

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from twisted.trial.unittest import SynchronousTestCase

from tests.observing import FedSource, count, gauge, sample
from txmetrics_tcp import (
    Distribution,
    Gone,
    HistogramTotal,
    Metadata,
    MetricKind,
    Snapshot,
)
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp._view.numbers import show_value
from txmetrics_tcp._view.source_names import brief_names
from txmetrics_tcp._view.text import MAX_SHOWN, shown
from txmetrics_tcp._view.windows import Samples
from txmetrics_tcp.observe.charts import chart, sparkline
from txmetrics_tcp.observe.columns import columns_for, lay_out
from txmetrics_tcp.observe.render import label_segments, percentile_text, row_cells
from txmetrics_tcp.observe.row import Group, Grouping, Row
from txmetrics_tcp.observe.rows import MAX_GROUPINGS, Rows
from txmetrics_tcp.observe.text import fit, fit_middle, right
from txmetrics_tcp.observe.theme import BACKGROUND

ANY_NUMBER = st.floats() | st.integers(0, 2**64)


class RowsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.source = FedSource()
        self.now = 100.0
        self.rows = Rows([self.source], lambda: self.now)

    def names(self) -> list[str]:
        return [row.key.name for row in self.rows.lines if isinstance(row, Row)]

    def test_resortInterval(self) -> None:
        """Rows sorted by a number are rearranged at most once per second."""
        self.source.feed([gauge("a", 1.0), gauge("b", 2.0)])
        self.rows.sort_by("value")
        self.assertTrue(self.rows.update())
        self.assertEqual(self.names(), ["b", "a"])
        self.source.feed([gauge("a", 3.0)])
        self.now += 0.9
        self.assertFalse(self.rows.update())
        self.assertEqual(self.names(), ["b", "a"])
        self.now += 0.2
        self.assertTrue(self.rows.update())
        self.assertEqual(self.names(), ["a", "b"])

    def test_slowSort(self) -> None:
        """Slow sorting is repeated less often."""
        self.source.feed([gauge("a", 1.0)])
        self.rows.sort_by("value")

        def clock() -> float:
            self.now += 0.5
            return self.now

        self.rows._clock = clock
        self.rows.update()
        self.rows._clock = lambda: self.now
        self.now += 4.9
        self.assertFalse(self.rows.update())
        self.now += 0.2
        self.assertTrue(self.rows.update())

    def test_sortByName(self) -> None:
        """Rows sorted by name are sorted again only for new series."""
        self.source.feed([count("b")])
        self.assertTrue(self.rows.update())
        self.source.feed([count("b")])
        self.now += 100
        self.assertFalse(self.rows.update())
        self.source.feed([count("a")])
        self.assertTrue(self.rows.update())
        self.assertEqual(self.names(), ["a", "b"])

    def test_gone(self) -> None:
        """Rows of gone series vanish, with their labels and widths.  Those of others stay."""
        other = FedSource()
        self.rows = Rows([self.source, other], lambda: self.now)
        wide = count("b" * 40, route="/")
        for source in (self.source, other):
            source.feed([count("a"), count("c"), sample("h", 1.0)])
        self.source.feed([wide])
        self.rows.set_filter("-name:c")
        self.rows.update()
        self.assertEqual(self.names(), ["a", "a", "b" * 40, "h", "h"])
        kept = [row for row in self.rows.all if row.source is other]
        self.source.feed([Gone(wide.key), Gone(sample("h", 1.0).key), Gone(count("c").key)])
        self.assertTrue(self.rows.update())
        self.assertEqual(self.names(), ["a", "a", "h"])
        self.assertEqual([row for row in self.rows.all if row.source is other], kept)
        self.assertEqual((len(self.rows.all), self.rows.histograms), (4, 1))
        self.assertEqual((self.rows.name_length, self.rows.labels_length), (1, 0))
        self.assertEqual(self.rows.groupings, [None, Grouping(None)])
        self.assertFalse(self.rows.update())

    def test_comeAndGo(self) -> None:
        """Sources and their series come and go; while the display is paused, series stay."""
        self.source.feed([count("a")])
        other = FedSource("here:2")
        other.feed([count("b"), sample("h", 1.0)])
        self.rows.add(other)
        self.assertEqual(self.rows.brief, {"here:1": ":1", "here:2": ":2"})
        self.assertTrue(self.rows.update())
        self.assertEqual(self.names(), ["a", "b", "h"])
        self.rows.pause()
        self.rows.remove(self.source)
        self.rows.update()
        self.assertEqual(self.names(), ["a", "b", "h"])
        self.assertIn("here:1", self.rows.brief)
        self.rows.resume()
        self.assertTrue(self.rows.update())
        self.assertEqual(self.names(), ["b", "h"])
        self.assertEqual((self.rows.brief, self.rows.histograms), ({"here:2": "here:2"}, 1))
        self.rows.remove(other)
        self.rows.update()
        self.assertEqual((self.names(), self.rows.sources, self.rows.brief), ([], [], {}))

    def test_goneAndNew(self) -> None:
        """Between two updates, series go, begin, and begin again."""
        self.source.feed([count("a"), count("b"), count("c")])
        self.rows.update()
        self.source.feed([Gone(count("a").key), count("d"), Gone(count("b").key), count("b", 5)])
        self.rows.update()
        self.assertEqual(self.names(), ["b", "c", "d"])
        self.assertEqual([row.value() for row in self.rows.matching], [5, 1, 1])
        self.assertEqual(len(self.rows.all), 3)
        self.source.feed([Snapshot.BEGIN_COMPLETE, gauge("g", 1.0), Snapshot.END])
        self.rows.update()
        self.assertEqual(self.names(), ["g"])

    def test_goneWhilePaused(self) -> None:
        """While the display is paused, gone series stay."""
        self.source.feed([count("a"), count("b")])
        self.rows.update()
        self.rows.pause()
        self.source.feed([Gone(count("a").key)])
        self.rows.update()
        self.assertEqual(self.names(), ["a", "b"])
        self.rows.resume()
        self.rows.update()
        self.assertEqual(self.names(), ["b"])

    def test_goneAndCleared(self) -> None:
        self.source.feed([count("a"), count("b")])
        self.rows.update()
        self.source.feed([Gone(count("a").key)])
        self.rows.clear()
        self.source.feed([count("a"), count("c")])
        self.rows.update()
        self.assertEqual(self.names(), ["a", "c"])

    def test_clearedAtOnce(self) -> None:
        """Cleared series vanish even if the view's clock stands still, as in a recording."""
        self.source.feed([count("a"), count("b")], 0)
        self.rows.update()
        self.rows.clear()
        self.rows.update()
        self.assertEqual(self.names(), [])

    def test_notANumber(self) -> None:
        """NaN sorts last in both orders."""
        self.source.feed([gauge("a", math.nan), gauge("b", 1.0), gauge("c", 2.0)])
        self.rows.sort_by("value")
        self.rows.update()
        self.assertEqual(self.names(), ["c", "b", "a"])
        self.rows.reverse()
        self.rows.update()
        self.assertEqual(self.names(), ["b", "c", "a"])

    def test_units(self) -> None:
        """Sorting takes units into account: 7 milliseconds are more than 6000 microseconds."""
        units = {"a": "nanoseconds", "b": "seconds", "c": "milliseconds"}
        numbers = {"a": 5e6, "b": 0.007, "c": 6.0}
        for kind in (MetricKind.GAUGE, MetricKind.HISTOGRAM):
            self.source.feed(Metadata(kind, name, unit) for name, unit in units.items())
        self.source.feed(gauge(name, number) for name, number in numbers.items())
        self.source.feed(sample(name, number) for name, number in numbers.items())
        self.source.tick()
        self.rows.sort_by("p99")
        self.rows.update()
        self.assertEqual(self.names()[:3], ["b", "c", "a"])
        self.rows.set_filter("kind:gauge")
        self.rows.sort_by("value")
        self.rows.update()
        self.assertEqual(self.names(), ["b", "c", "a"])

    def test_unitsOfGroups(self) -> None:
        self.source.feed(
            Metadata(MetricKind.COUNTER, name, unit)
            for name, unit in [("a", "kibibytes"), ("b", "bytes"), ("c", "mebibytes")]
        )
        for _ in range(3):
            self.source.feed([count("a", 10), count("b", 100), count("c", 1)])
        self.source.tick()
        self.rows.group_by(Grouping(None))
        for column in ("value", "rate"):
            self.rows.sort_by(column)
            self.rows.update()
            titles = [line.title for line in self.rows.lines if isinstance(line, Group)]
            self.assertEqual(titles, ["c", "a", "b"])

    def test_groupValue(self) -> None:
        """The sum of a group follows its series; while paused, it does not."""
        self.source.feed([count("a", 5, at="x"), count("a", 7, at="y")])
        self.rows.group_by(Grouping(None))
        self.rows.update()
        group = self.rows.lines[0]
        assert isinstance(group, Group)
        self.assertEqual(group.value, 12)
        self.source.feed([count("a", 1, at="x")], 0)
        self.assertFalse(self.rows.update())
        self.assertEqual(group.value, 13)
        self.rows.pause()
        self.source.feed([count("a", 1, at="x")], 0)
        self.assertEqual(group.value, 13)

    def groups(self) -> list[Group]:
        return [line for line in self.rows.lines if isinstance(line, Group)]

    def test_groupSummary(self) -> None:
        """A group of histograms of one name and unit has the statistics of all their samples."""
        other = FedSource("there:1")
        self.rows = Rows([self.source, other], lambda: self.now)
        samples = [float(number) for number in range(100)]
        self.source.feed(sample("a", one, route=str(int(one) % 3)) for one in samples[:60])
        other.feed(sample("a", one) for one in samples[60:])
        other.feed([count("b"), sample("c", 1.0)])
        self.source.feed([gauge("b", 1.0), sample("c", 1.0)])
        self.source.feed([Metadata(MetricKind.HISTOGRAM, "c", "seconds")])
        for source in (self.source, other):
            source.tick()
        self.rows.group_by(Grouping(None))
        self.rows.update()
        a, b, c = self.groups()
        summary = self.rows.summary(a)
        assert summary is not None
        self.assertEqual((summary.count, summary.min, summary.max), (100, 0.0, 99.0))
        self.assertEqual((summary.p50, summary.p90, summary.p99), (49.0, 89.0, 98.0))
        self.assertFalse(summary.partial)
        self.assertEqual((self.rows.summary(b), self.rows.summary(c)), (None, None))
        # All time, with totals of which no samples were received.
        self.source.feed([HistogramTotal(sample("a", 0, route="0").key, Distribution.of([-5.0]))])
        self.rows.set_window(None)
        self.rows.update()
        summary = self.rows.summary(self.groups()[0])
        assert summary is not None
        self.assertEqual((summary.count, summary.min), (81, -5.0))

    def test_groupSummaryOfMany(self) -> None:
        """The statistics are computed once for each sort, and their time counts as its time."""
        self.source.feed(sample("a", float(one), route=str(one % 3)) for one in range(3000))
        self.source.tick()
        self.rows.group_by(Grouping(None))
        self.rows.update()
        (group,) = self.groups()
        clock = iter([0.0, 5.0, 5.0, 5.0])
        self.rows._clock = lambda: next(clock)
        summary = self.rows.summary(group)
        assert summary is not None
        self.assertEqual(summary.count, 3000)
        self.assertLess(abs(summary.p99 - 2970), 33)
        self.assertIs(self.rows.summary(group), summary)
        self.rows._clock = lambda: self.now
        self.now += 49
        self.assertFalse(self.rows.update())
        self.now += 2
        self.assertTrue(self.rows.update())

    def test_groupSummaryPaused(self) -> None:
        """While paused, groups have the samples at the time of the pause, also new groups."""
        self.source.feed(sample("a", float(one), route=str(one % 3)) for one in range(100))
        self.source.tick()
        self.rows.update()
        self.rows.pause()
        self.source.feed(sample("a", 1e6, route="0") for _ in range(100))
        self.source.tick()
        self.rows.group_by(Grouping(None))
        self.rows.update()
        summary = self.rows.summary(self.groups()[0])
        assert summary is not None
        self.assertEqual((summary.count, summary.max, summary.p50), (100, 99.0, 49.0))
        self.rows.resume()
        self.rows.update()
        summary = self.rows.summary(self.groups()[0])
        assert summary is not None
        self.assertEqual((summary.count, summary.max), (200, 1e6))

    def test_sortGroupsByPercentile(self) -> None:
        """Groups sort by a percentile in one unit; those without one come last."""
        units = {"b": "seconds", "c": "milliseconds", "d": "milliseconds"}
        self.source.feed(Metadata(MetricKind.HISTOGRAM, name, unit) for name, unit in units.items())
        self.source.feed([count("a"), sample("b", 1.0), sample("c", 20.0), sample("d", 3000.0)])
        self.source.tick()
        self.rows.group_by(Grouping(None))
        for column in ("p50", "max"):
            self.rows.sort_by(column)
            for titles in (["d", "b", "c", "a"], ["c", "b", "d", "a"]):
                self.rows.update()
                self.assertEqual([group.title for group in self.groups()], titles)
                self.rows.reverse()

    def test_trend(self) -> None:
        """Sorting by trend sorts by the time of the last event."""
        for name in "bca":
            self.source.feed([count(name)])
        self.source.tick()
        self.rows.sort_by("trend")
        self.rows.update()
        self.assertEqual(self.names(), ["a", "c", "b"])

    def test_groupings(self) -> None:
        """Only the most common labels are available for grouping."""
        self.source.feed(count("n", **{f"label{number}": "x", "all": "y"}) for number in range(100))
        self.rows.update()
        labels = [grouping.label for grouping in self.rows.groupings if grouping is not None]
        self.assertEqual(labels[:2], [None, "all"])
        self.assertEqual(len(labels), 1 + MAX_GROUPINGS)

    def test_pause(self) -> None:
        """While paused, the displayed values of a series do not change."""
        self.source.feed([count("a", 5), sample("b", 1.0)])
        self.source.tick()
        self.rows.update()
        self.rows.pause()
        before = [(row.values(60), row.lifetime(), row.age()) for row in self.rows.matching]
        self.source.feed([count("a", 5), sample("b", 2.0)], 7)
        self.source.tick()
        self.assertEqual(
            [(row.values(60), row.lifetime(), row.age()) for row in self.rows.matching], before
        )
        self.rows.resume()
        self.assertEqual(self.rows.matching[0].values(60).value, 10)


class BriefTests(SynchronousTestCase):
    def test_brief(self) -> None:
        for names, brief in [
            (["127.0.0.1:5000", "127.0.0.1:5001"], [":5000", ":5001"]),
            (["web1.example:5000", "web2.example:5000"], ["web1", "web2"]),
            (["10.0.0.1:5000", "10.0.0.2:5000", "10.0.1.1:5000"], [".0.1", ".0.2", ".1.1"]),
            (["unix:/run/a.sock", "unix:/run/b.sock"], ["a", "b"]),
            (["rec/here-1.rec", "rec/there-1.rec"], ["here-1", "there-1"]),
            (["unix:/run/a.sock", "web:5000", "unix:/run/b.sock"], ["a", "web:5000", "b"]),
            (["unix:/run/a.sock", "web:5000"], ["unix:/run/a.sock", "web:5000"]),
            (["unix:/a:1", "unix:/b:1", "a", "c"], ["unix:/a:1", "unix:/b:1", "a", "c"]),
            (["yesterday.rec", "127.0.0.1:5000"], ["yesterday.rec", "127.0.0.1:5000"]),
            # A short name would be empty.
            (["a.b", "a"], ["a.b", "a"]),
            (["here:1"], ["here:1"]),
        ]:
            self.assertEqual(brief_names(names), dict(zip(names, brief, strict=True)))
        self.assertEqual(brief_names(["a:1", "a:1"]), {"a:1": "a:1"})

    @given(st.lists(st.text("ab:./1", max_size=8), max_size=4))
    def test_anyNames(self, names: list[str]) -> None:
        """Short names of any names are unique and parts of them."""
        brief = brief_names(names)
        self.assertEqual(list(brief), list(dict.fromkeys(names)))
        self.assertEqual(len(set(brief.values())), len(brief))
        for name, part in brief.items():
            self.assertIn(part, name)


class FittingTests(SynchronousTestCase):
    @given(st.text(), st.integers(0, 40))
    def test_text(self, text: str, width: int) -> None:
        """Any text is fitted to the exact width."""
        for fitted in (fit(shown(text), width), fit_middle(shown(text), width)):
            self.assertEqual(cell_len(fitted), width)
            self.assertTrue(fitted.isprintable())

    def test_longText(self) -> None:
        """Long text is cut, and the caches do not keep it."""
        text = "x" * 900_000
        references = getrefcount(text)
        self.assertEqual(shown(text), "x" * MAX_SHOWN + "…")
        self.assertEqual(getrefcount(text), references)

    def test_manyLabels(self) -> None:
        """Only the labels that fit are drawn."""
        labels = tuple((f"label{number}", "value") for number in range(10_000))
        segments = label_segments(labels, 40, BACKGROUND)
        self.assertEqual(
            "".join(segment.text for segment in segments),
            "label0=value label1=value label2=value …",
        )
        self.assertLess(len(segments), 20)

    def test_longNames(self) -> None:
        """A long name keeps its beginning and its end."""
        for text, width, expected in [
            ("host_network_received_bytes_total", 22, "host_networ…ytes_total"),
            ("name", 6, "name  "),
            ("東京の気温の平均", 9, "東京…平均"),
            ("東京の気温の平均", 10, "東京…平均 "),
            ("name", 3, "n…e"),
            ("name", 2, "n…"),
            ("name", 0, ""),
        ]:
            self.assertEqual(fit_middle(text, width), expected)

    def test_right(self) -> None:
        """A unit of wide letters is aligned by its width."""
        self.assertEqual(right("3 個", 6), "  3 個")

    def test_numbers(self) -> None:
        """No cell of a number is cut: each has the text for the width of its column."""
        units = {"scaled": "kibibytes", "plain": None, "time": "seconds", "text": "widgets"}
        values = (5e-324, -1.23457e-05, 6.62607e-34, 999.96, -12345678.9, 1.5e15, -1e308)
        source = FedSource()
        source.feed(Metadata(MetricKind.GAUGE, name, unit) for name, unit in units.items())
        rows = Rows([source])
        for width in (40, 80, 120, 200):
            for value in values:
                source.feed(gauge(name, value) for name in units)
                source.feed([sample("h", value), count("c", U64_MAX // 3)])
                rows.update()
                layout = lay_out(rows, width, 0)
                for row in rows.matching:
                    cells = row_cells(row, rows, layout, BACKGROUND)
                    texts = dict(
                        zip([p.column.id for p in layout.placed], cells[::2], strict=False)
                    )
                    if row.labels or "labels" not in texts:
                        continue
                    shown_values = row.values(rows.window)
                    place = next(p for p in layout.placed if p.column.id == "value")
                    self.assertLessEqual(place.end, width)
                    expected = show_value(shown_values.value, row.total_unit, place.column.width)
                    self.assertEqual(texts["value"].text, expected.rjust(place.column.width))

    def test_partial(self) -> None:
        """Percentiles of partial windows are marked, with and without samples, in any width."""
        for number in (1.0, 1.23457e-300, None):
            text = percentile_text(
                Samples(Distribution.of([] if number is None else [number])).summary(),
                *("p50", "seconds", 9),
            )
            samples = Samples(Distribution.of([] if number is None else [number]))
            samples.partial = True
            marked = percentile_text(samples.summary(), "p50", "seconds", 9)
            self.assertLessEqual(cell_len(marked), 9)
            self.assertEqual(marked[0], "*")
            if number != 1.23457e-300:
                self.assertEqual(marked, f"*{text}")

    def test_kinds(self) -> None:
        """The kinds are whole at any width."""
        rows = Rows([FedSource()])
        for histograms, longest in ((0, "counter"), (1, "histogram")):
            rows.histograms = histograms
            for width in (80, 120):
                (kind,) = (one for one in columns_for(rows, width) if one.id == "kind")
                self.assertEqual(kind.width, len(longest))

    @given(st.lists(ANY_NUMBER, max_size=70), st.integers(1, 60), st.booleans())
    def test_sparkline(self, values: list[float], width: int, from_zero: bool) -> None:
        self.assertEqual(len(sparkline(values, width, from_zero)), width)

    def test_sparklineShape(self) -> None:
        self.assertEqual(sparkline([0, 3, 6], 3, True), "▁▄▇")
        self.assertEqual(sparkline([6, 6, 12], 3, True), "▄▄▇")
        self.assertEqual(sparkline([6, 6, 12], 3, False), "▁▁▇")
        self.assertEqual(sparkline([5, 5], 4, False), "  ▄▄")
        self.assertEqual(sparkline([0, 0], 2, True), "▁▁")
        self.assertEqual(sparkline([1, math.nan, 2], 3, False), "▁ ▇")
        self.assertEqual(sparkline([9, 1, 2], 2, False), "▁▇")
        self.assertEqual(sparkline([0, 5e-324], 2, True), "▁▇")
        # The difference overflows.
        self.assertEqual(sparkline([-1e308, 0, 1e308], 3, False), "▁▄▇")

    @given(st.lists(ANY_NUMBER, max_size=70), st.integers(1, 99), st.integers(1, 9), st.booleans())
    def test_chart(self, values: list[float], width: int, height: int, from_zero: bool) -> None:
        lines, low, high = chart(values, width, height, from_zero)
        self.assertEqual([len(line) for line in lines], [width] * height)
        self.assertLessEqual(low, high)

    def test_chartShape(self) -> None:
        lines, low, high = chart([0, 2, 4], 6, 2, True)
        self.assertEqual(lines, ["    ██", "▁▁████"])
        self.assertEqual((low, high), (0, 4))
        most = sys.float_info.max
        self.assertEqual(chart([-most, most], 2, 1, False), (["▁█"], -most, most))
        self.assertEqual(chart([most] * 2, 2, 1, False), (["██"], 0, most))

    @given(
        st.integers(40, 400),
        st.integers(0, 20),
        st.integers(1, 80),
        st.integers(0, 80),
        st.integers(1, 3),
    )
    def test_columns(self, width: int, hidden: int, name: int, labels: int, sources: int) -> None:
        """Columns fit without overlap, each can be scrolled into view, and the name stays."""
        rows = Rows([FedSource(f"a.long.name.example:{n}") for n in range(sources)])
        rows.histograms = 1
        rows.name_length, rows.labels_length = name, labels
        layout = lay_out(rows, width, hidden)
        x = 0
        for placed in layout.placed:
            self.assertGreaterEqual(placed.x, x)
            x = placed.end
        self.assertEqual(layout.placed[0].column.id, "name")
        if width >= 80:
            self.assertLess(x, width)
            self.assertGreaterEqual(layout.placed[0].column.width, min(name, 12))
        # Hidden and placed columns together are all columns.
        total = len(columns_for(rows, width))
        self.assertEqual(layout.before + len(layout.placed) - 1 + layout.after, total)
        self.assertEqual(lay_out(rows, width, total).after, 0)
