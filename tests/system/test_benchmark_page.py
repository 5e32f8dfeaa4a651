"""
The page of the benchmarks in benchmarks/: what a table says, and that its charts show all of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

import run  # noqa: E402
from suite import cost, latency, loss, throughput  # noqa: E402
from suite.figures import OURS, REFERENCE, Goal, Row, Section, Spread  # noqa: E402
from suite.outputs import output_file  # noqa: E402
from suite.page import from_json, to_json, to_page, to_table  # noqa: E402
from suite.plots import charts  # noqa: E402

MACHINE = {"date": "2026-11-22", "Python": "CPython 3.11.7"}


def section(module, *rows: Row) -> Section:
    return Section(module.TITLE, module.HOW, list(rows))


SPEED = section(
    throughput,
    Row.of(
        "delivered to 1 client",
        "events/s",
        {OURS: [1e6, 1.2e6], REFERENCE: [5e5, 8e5]},
        REFERENCE,
        Goal(1.5),
    ),
    Row.of("delivered to 10 clients", "events/s", {OURS: [9e6], REFERENCE: [1.5e6]}, REFERENCE),
)
COST = section(
    cost,
    Row.of("counter, client <connected>", "ns", {OURS: [160.0], cost.EMPTY: [18.0]}),
    Row.of("counter, client <connected>", "ns", {OURS: [160.0], REFERENCE: [207.0]}),
    Row.of("gauge", "ns", {cost.PROMETHEUS: [290.0], cost.OPENTELEMETRY: [5700.0, 5800.0]}),
)
LATENCY = section(
    latency,
    *(
        Row.of(latency.what(percentile.name, rate), "µs", {OURS: [50.0], REFERENCE: [60.0]})
        for rate in latency.RATES
        for percentile in latency.PERCENTILES
    ),
)
LOSS = section(
    loss,
    *(
        row
        for rate in loss.RATES
        for row in (
            Row.of(loss.lost_at(rate), "%", {OURS: [0.0], REFERENCE: [0.0, 70.0]}),
            Row.of(loss.recorded_at(rate), "events/s", {OURS: [rate], REFERENCE: [rate, rate]}),
        )
    ),
)
ALL = [SPEED, COST, LATENCY, LOSS]
HOW = {one.title: one.how for one in ALL}


def texts(svg: str) -> list[str]:
    """What can be read in a picture."""
    return [
        element.text or ""
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


class TableTests(SynchronousTestCase):
    """What a table says."""

    def test_ratio_is_the_median_of_those_of_the_pairs(self) -> None:
        # 2 and 1.5, where the medians' own ratio is 1.69.
        self.assertIn("**1.75 x**", to_table(SPEED.rows))

    def test_verdicts(self) -> None:
        for goal, verdict in (
            (Goal(1.75), "yes"),
            (Goal(1.76), "no"),
            (Goal(1.75, at_least=False), "yes"),
            (Goal(1.74, at_least=False), "no"),
        ):
            cells = {OURS: [1.0e6, 1.2e6], REFERENCE: [5e5, 8e5]}
            table = to_table([Row.of("what", "unit", cells, REFERENCE, goal)])
            self.assertTrue(table.endswith(f"| {goal} x | {verdict} |\n"), table)

    def test_no_verdict_without_the_reference(self) -> None:
        table = to_table([Row.of("what", "unit", {OURS: [1.0]}, REFERENCE, Goal(1))])
        self.assertTrue(table.endswith("| what (unit) | 1 |  |  |\n"), table)


class JsonTests(SynchronousTestCase):
    """Figures are the same after they have been written and read."""

    def test_there_and_back(self) -> None:
        self.assertEqual(from_json(to_json(MACHINE, ALL), HOW), (MACHINE, ALL))

    def test_sections_that_are_no_more_are_left_out(self) -> None:
        _, sections = from_json(to_json(MACHINE, ALL), {LOSS.title: "new"})
        self.assertEqual(sections, [Section(LOSS.title, "new", LOSS.rows)])

    def test_what_is_no_json_of_benchmarks(self) -> None:
        for text in ("", "[]", "{}", '{"machine": {}, "sections": [{}]}'):
            with self.assertRaises(ValueError):
                from_json(text, HOW)


class KeepTests(SynchronousTestCase):
    """A page is completed with what an earlier run has measured."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_of_the_same_machine_on_another_day(self) -> None:
        file = self.directory / "earlier.json"
        file.write_text(to_json({**MACHINE, "date": "2026-11-21", run.LATER: "loss"}, ALL))
        self.assertEqual(run.kept(file, MACHINE), ALL)

    def test_of_another_machine(self) -> None:
        file = self.directory / "earlier.json"
        file.write_text(to_json({**MACHINE, "quick": "only shows that it works"}, ALL))
        self.assertIn("quick", str(self.assertRaises(ValueError, run.kept, file, MACHINE)))

    def test_what_is_measured_anew_counts_and_the_order_is_that_of_the_page(self) -> None:
        again = section(loss, *LOSS.rows[:2])
        self.assertEqual(run.in_order([*ALL, again]), [SPEED, again, COST, LATENCY])

    def test_page_and_charts(self) -> None:
        page = self.directory / "figures.md"
        run.write_page(page, MACHINE, ALL)
        text = page.read_text()
        for name in ("throughput", "cost", "latency", "loss"):
            self.assertIn(f"](figures/{name}.svg)\n\n|", text)
            self.assertTrue(texts((self.directory / "figures" / f"{name}.svg").read_text()))


class OutputTests(SynchronousTestCase):
    """A file that is written at the very end."""

    def test_can_be_written(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        self.assertEqual(output_file(str(path)), path)
        self.assertFalse(path.exists())
        path.write_text("of an earlier run")
        self.assertEqual(output_file(str(path)), path)
        self.assertEqual(path.read_text(), "of an earlier run")

    def test_cannot_be_written(self) -> None:
        """That is told before anything is measured."""
        path = Path(self.mktemp()) / "figures"
        for command, option in (("run.py", "--page"), ("run.py", "--json"), ("soak.py", "--json")):
            ended = subprocess.run(
                [sys.executable, str(BENCHMARKS / command), option, str(path)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((ended.returncode, ended.stdout), (2, ""))
            self.assertIn(f"{option}: {path}: No such file or directory\n", ended.stderr)


class ChartTests(SynchronousTestCase):
    """What can be read in the charts."""

    def drawn(self, one: Section) -> str:
        (chart,) = charts([one])
        return chart.svg

    def test_lines(self) -> None:
        svg = self.drawn(SPEED)
        for text in ("1", "10", "clients", OURS, REFERENCE, "events/s in all, log scale"):
            self.assertIn(text, texts(svg))
        self.assertEqual(svg.count("<polyline"), 2)

    def test_each_measurement_has_its_mark(self) -> None:
        self.assertEqual(self.drawn(SPEED).count("<circle"), 4)
        self.assertEqual(self.drawn(LATENCY).count("<circle"), 16)
        self.assertEqual(self.drawn(LOSS).count("<circle"), 12)

    def test_each_range_has_its_whisker(self) -> None:
        for one, ranges in ((SPEED, 4), (COST, 5), (LOSS, 12)):
            # The line, and one across at each end.
            whiskers = [line for line in self.drawn(one).splitlines() if line.count("M") == 3]
            self.assertEqual(len(whiskers), ranges)

    def test_latency(self) -> None:
        labels = texts(self.drawn(LATENCY))
        for text in ("50", "90", "99", "99.9", f"{OURS}, 1k/s", f"{REFERENCE}, 20k/s"):
            self.assertIn(text, labels)

    def test_loss(self) -> None:
        labels = texts(self.drawn(LOSS))
        for text in ("25k", "800k", "0", "100", OURS, REFERENCE):
            self.assertIn(text, labels)

    def test_bars_that_are_compared_twice_are_drawn_once(self) -> None:
        svg = self.drawn(COST)
        labels = texts(svg)
        self.assertEqual(labels.count("counter, client <connected>"), 1)
        for text in ("160", "18", "207", "290", "5,750", cost.EMPTY, cost.PROMETHEUS):
            self.assertIn(text, labels)
        # And the background.
        self.assertEqual(svg.count("<rect"), 6)

    def test_high_is_up_and_much_is_long(self) -> None:
        _, ours, _ = self.drawn(SPEED).split("<polyline")
        first, second = ours.split('points="')[1].split('"')[0].split()
        self.assertGreater(float(first.split(",")[1]), float(second.split(",")[1]))
        widths = [
            float(part.split('width="')[1].split('"')[0])
            for part in self.drawn(COST).split("<rect")[2:]
        ]
        self.assertEqual(sorted(widths[:3]), [widths[2], widths[0], widths[1]])

    def test_what_is_missing_is_left_out(self) -> None:
        self.assertEqual(charts([]), [])
        self.assertEqual(charts([section(throughput), section(cost)]), [])
        self.assertEqual(charts([section(latency, LATENCY.rows[0])]), [])
        self.assertNotIn("![", to_page(MACHINE, ALL))

    def test_spread_of_one_measurement_repeated(self) -> None:
        same = Section(
            throughput.TITLE,
            throughput.HOW,
            [
                Row("delivered to 1 client", "events/s", {OURS: Spread.of([1e6, 1e6])}),
                Row("delivered to 10 clients", "events/s", {OURS: Spread.of([1e6])}),
            ],
        )
        self.assertEqual(self.drawn(same).count("<circle"), 2)
