"""
The table and the JSON of ``metrics-tcp stats``.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from txmetrics_tcp import Gone, Key, Metadata, Metric, MetricKind, Operation, Status, Unknown
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp._view import text
from txmetrics_tcp._view.filters import parse_filter
from txmetrics_tcp._view.report import SORTS, Report
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp._view.text import MAX_UNIT, cell_width, visible

WHEN = 1_795_363_464_789_260_613
"""2026-11-22T16:04:24.789260613Z"""

TABLE = r"""
KIND       NAME     LABELS           VALUE       RATE  COUNT   MIN    P50    P90    P99     MAX
gauge      depth                      -1.5        0/s
histogram  latency                             10.1/s    101  1 ms  50 ms  90 ms  99 ms  100 ms
gauge      odd      bad=\x1b[2J\n  3 a\x1b  0 a\x1b/s
counter    sent     at=x, to=b     1.5 KiB   51.2 B/s
counter    sent     to=a               5 B    0.5 B/s

127.0.0.1:5000 (shop[1]@web): 5 of 5 series, 106 events in 10 s, none missed
"""

PAGE = ROOT / "docs" / "reference" / "commands.md"


def metric(operation: Operation, value: float, name: str, **labels: str) -> Metric:
    return Metric(Key.of(operation.kind, name, labels), operation, value, WHEN)


class ReportCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.view = SourceView(lambda: 0.0)
        self.view.connected()
        self.view.ingest(
            [
                Status("shop[1]@web", WHEN - 789_260_613),
                Metadata(MetricKind.COUNTER, "sent", "bytes", "Sent bytes."),
                Metadata(MetricKind.HISTOGRAM, "latency", "seconds"),
                Metadata(MetricKind.GAUGE, "odd", "a\x1b"),
                metric(Operation.SET_COUNTER, 1024, "sent", to="b", at="x"),
                metric(Operation.INCREMENT_COUNTER, 512, "sent", to="b", at="x"),
                metric(Operation.INCREMENT_COUNTER, 5, "sent", to="a"),
                metric(Operation.SET_GAUGE, -1.5, "depth"),
                metric(Operation.SET_GAUGE, 3.0, "odd", bad="\x1b[2J\n"),
                *(metric(Operation.RECORD_HISTOGRAM, n / 1000, "latency") for n in range(1, 101)),
                metric(Operation.RECORD_HISTOGRAM, math.inf, "latency"),
            ]
        )

    def report(self, **more: Any) -> Report:
        return Report(self.view, "127.0.0.1:5000", 10.0, **more)


class TableTests(ReportCase):
    def test_table(self) -> None:
        self.assertEqual(
            self.report().to_table(),
            TABLE.lstrip(),
        )

    def test_partial(self) -> None:
        """Percentiles are marked if samples were dropped, and the server sends no totals."""
        self.view.ingest([Status("shop[1]@web", WHEN - 789_260_613, 7)])
        table = self.report().to_table()
        self.assertRegex(table, r"latency .* 101  \*1 ms  \*50 ms  \*90 ms  \*99 ms  \*100 ms\n")
        self.assertIn("missed 7 (incoming 7, client 0), * some samples missing", table)

    def test_noHistograms(self) -> None:
        """Without histograms, the columns for percentiles are omitted."""
        table = self.report(wanted=parse_filter("depth").matches).to_table()
        self.assertEqual(
            table.splitlines()[:2],
            ["KIND   NAME   LABELS  VALUE  RATE", "gauge  depth           -1.5   0/s"],
        )
        self.assertIn(": 1 of 5 series, ", table)

    def test_noEvents(self) -> None:
        report = Report(SourceView(), "h:1", 0.0)
        self.assertEqual(
            report.to_table(),
            "KIND  NAME  LABELS  VALUE  RATE\n\nh:1: 0 of 0 series, 0 events in 0 s,"
            " losses unknown\n",
        )

    def feed_odd(self) -> None:
        """Add values, names, labels and a source that need much space."""
        self.view.ingest(
            [
                Status("s" * 60_000, WHEN - 789_260_613),
                Metadata(MetricKind.GAUGE, "never", "seconds"),
                Metadata(MetricKind.GAUGE, "unit", "u" * 60_000),
                metric(Operation.SET_GAUGE, sys.float_info.max, "never"),
                metric(Operation.SET_GAUGE, 1.0, "unit"),
                metric(Operation.SET_COUNTER, U64_MAX, "large"),
                metric(Operation.INCREMENT_COUNTER, 1, "n" * 60_000),
                metric(Operation.INCREMENT_COUNTER, 1, "wide", a="日本語の値", b="e\u0301\u0301"),
                *(metric(Operation.RECORD_HISTOGRAM, 1.5e308, "big") for _ in range(9)),
            ]
        )

    def test_terminal(self) -> None:
        """On a terminal, lines fit: names are shortened in the middle, then columns are omitted."""
        self.feed_odd()
        for width, heads in (
            (60, "NAME LABELS VALUE"),
            (80, "NAME LABELS VALUE RATE"),
            (120, "KIND NAME LABELS VALUE RATE COUNT P50 P99"),
            (200, "KIND NAME LABELS VALUE RATE COUNT MIN P50 P90 P99 MAX"),
        ):
            lines = self.report().to_table(width).splitlines()
            self.assertEqual(lines[0].split(), heads.split())
            self.assertLessEqual(max(map(cell_width, lines[:-1])), width)
            text = "\n".join(lines)
            for part in ("nnn…nnn", "18.4E", "1.8e+308 s", "  1 uuuu", "sss…sss"):
                self.assertIn(part, text)
        self.assertLess(cell_width(lines[-1]), 300)
        # As many cells as columns and gaps.
        (named,) = (line for line in lines if "nnn" in line)
        (wide,) = (line for line in lines if "wide" in line)
        self.assertEqual(cell_width(named), cell_width(wide))

    def test_namesOnTerminal(self) -> None:
        """Names that differ in the middle are complete, even if other series need more space."""
        names = [f"host_network_{way}_packets_total" for way in ("receive", "transmit")]
        for name in names:
            self.view.ingest([metric(Operation.INCREMENT_COUNTER, 1, name, device="eth0")])
        self.view.ingest([metric(Operation.INCREMENT_COUNTER, 1, "long", label="x" * 300)])
        for width in (80, 100, 120, 160, 200):
            table = self.report().to_table(width)
            for name in names:
                self.assertRegex(table, rf"\b{name} +device=eth0 ")

    def test_longUnit(self) -> None:
        """A unit of a megabyte is cut before it is escaped for each series."""
        self.view.ingest([Metadata(MetricKind.GAUGE, "depth", "\x1b" * 1_000_000)])
        with mock.patch.object(text, "visible", wraps=visible) as escape:
            table = self.report(sort="value").to_table()
        self.assertLessEqual(max(len(call.args[0]) for call in escape.mock_calls), MAX_UNIT + 1)
        self.assertIn(r"-1.5 \x1b\x1b", table)

    def test_lastLine(self) -> None:
        """On a terminal, the line about the stream is wrapped between words."""
        (whole,) = self.report().to_table().splitlines()[-1:]
        for width in (30, 40, 60):
            lines = self.report().to_table(width).splitlines()
            end = lines[lines.index("") + 1 :]
            self.assertEqual(" ".join(end), whole)
            self.assertLessEqual(max(map(len, end)), width)

    def test_narrowTerminal(self) -> None:
        """A terminal of any width has name and value."""
        self.feed_odd()
        for width in range(1, 60):
            lines = self.report().to_table(width).splitlines()
            self.assertIn("18.4E", "".join(lines))
            if width > 20:
                self.assertLessEqual(max(map(cell_width, lines[:-1])), width)

    def test_pipe(self) -> None:
        """Elsewhere, names are complete, and do not widen the lines of other series."""
        self.feed_odd()
        lines = self.report().to_table().splitlines()
        long = [line for line in lines[:-1] if cell_width(line) > 200]
        self.assertEqual(len(long), 1)
        self.assertIn("n" * 60_000, long[0])
        self.assertIn("18,446,744,073,709,551,615", "".join(lines))

    def test_gone(self) -> None:
        """A gone series is not in the table."""
        self.view.ingest([Gone(Key(MetricKind.GAUGE, "depth"))])
        table = self.report().to_table()
        self.assertNotIn("depth", table)
        self.assertIn("4 of 4 series, 106 events", table)

    def test_sort(self) -> None:
        names = {
            sort: [f"{one.key.name}{len(one.key.labels)}" for one in self.report(sort=sort).series]
            for sort in SORTS
        }
        self.assertEqual(
            names,
            {
                "name": ["depth0", "latency0", "odd1", "sent2", "sent1"],
                "kind": ["sent2", "sent1", "depth0", "odd1", "latency0"],
                "value": ["sent2", "sent1", "odd1", "depth0", "latency0"],
                "rate": ["sent2", "latency0", "sent1", "depth0", "odd1"],
                "events": ["latency0", "sent2", "depth0", "odd1", "sent1"],
            },
        )

    def test_sortUnits(self) -> None:
        """Sorting takes units into account."""
        self.view.ingest(
            [
                Metadata(MetricKind.GAUGE, "more", "kibibytes"),
                metric(Operation.SET_GAUGE, 0.0, "more"),
                metric(Operation.SET_GAUGE, 2.0, "more"),
            ]
        )
        for sort in ("value", "rate"):
            names = [one.key.name for one in self.report(sort=sort).series]
            self.assertEqual(names[0], "more")

    def test_sortWithNaN(self) -> None:
        """NaN sorts last; of the values, before histograms, which have none."""
        self.view.ingest([metric(Operation.SET_GAUGE, math.nan, "a")])
        self.assertEqual(self.report(sort="value").series[-2].key.name, "a")
        self.assertEqual(self.report(sort="rate").series[-1].key.name, "a")

    def test_shortTime(self) -> None:
        """A report that covers less than `SHORTEST` seconds has no rates."""
        report = Report(self.view, "h:1", 0.05)
        self.assertTrue(math.isnan(report.rate(report.series[0])))
        self.assertRegex(report.to_table(), r"\ncounter .* 5 B +-\n")

    def test_losses(self) -> None:
        self.view.ingest([Status("shop[1]@web", WHEN, 1200, 34)])
        self.view.connected()
        self.view.ingest([Status("a\x1b", 1)])
        self.view.refused = 7
        last = self.report(connections=2).to_table().splitlines()[-1]
        self.assertEqual(
            last,
            "127.0.0.1:5000 (a\\x1b): 0 of 0 series, 106 events in 10 s, missed 1,234"
            " (incoming 1,200, client 34), 2 connections, restarted 2 times, 7 events left out"
            " because of too many series",
        )

    def test_unknown(self) -> None:
        self.view.ingest([Unknown("a metric without a known operation")] * 2)
        report = self.report()
        text = "none missed, 2 unknown events skipped"
        self.assertTrue(report.to_table().endswith(f"{text}\n"))
        self.assertEqual(json.loads("".join(report.to_json()))["unknown"], 2)

    def test_singular(self) -> None:
        self.view = SourceView()
        self.view.ingest([metric(Operation.SET_GAUGE, 1.0, "a"), Unknown("x")])
        self.view.refused = 1
        line = self.report().to_table().splitlines()[-1]
        for part in ("1 event in", "1 event left out", "1 unknown event skipped"):
            self.assertIn(part, line)


class BehindTests(ReportCase):
    def test_behind(self) -> None:
        """A source of a broker has the number of messages that it is behind."""
        self.assertNotIn("behind", self.report().to_table())
        self.assertNotIn("behind", self.report(behind=0).to_table())
        self.assertIn(", 1 message behind", self.report(behind=1).to_table())
        for number in 0, 1:
            found = json.loads("".join(self.report(behind=number).to_json()))
            self.assertEqual(found["behind"], number)
        self.assertNotIn("behind", json.loads("".join(self.report().to_json())))


class JsonTests(ReportCase):
    def document(self, **more: Any) -> Any:
        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        text = "".join(self.report(**more).to_json())
        self.assertTrue(text.isascii())
        self.assertTrue(text[:-1].isprintable() and text.endswith("\n"))
        return json.loads(text, parse_constant=refuse)

    def test_longDescription(self) -> None:
        """A long description of many series is not repeated in one part."""
        self.view.ingest([Metadata(MetricKind.COUNTER, "sent", "bytes", "d" * 900_000)])
        sizes = [len(part) for part in self.report().to_json()]
        self.assertEqual(sum(size > 900_000 for size in sizes), 2)
        self.assertLess(max(sizes), 1_000_000)

    def test_partial(self) -> None:
        """The statistics of samples tell whether samples are missing."""
        for partial in (False, True):
            samples = [one["samples"] for one in self.document()["series"] if one["samples"]]
            self.assertEqual([one["partial"] for one in samples], [partial])
            self.view.ingest([Status("shop[1]@web", WHEN - 789_260_613, 7)])

    def test_largeCounter(self) -> None:
        """A counter above 2**53 also has its digits as text."""
        key = Key.of(MetricKind.COUNTER, "large")
        self.view.ingest([Metric(key, Operation.SET_COUNTER, 2**64 - 1, WHEN)])
        texts = {one["name"]: one.get("value_text") for one in self.document()["series"]}
        self.assertEqual((texts["large"], texts["sent"]), (str(2**64 - 1), None))

    def test_stream(self) -> None:
        document = self.document(connections=3)
        del document["series"]
        self.assertEqual(
            document,
            {
                "report": "stats",
                "endpoint": "127.0.0.1:5000",
                "source": "shop[1]@web",
                "started": "2026-11-22T16:04:24.000000000Z",
                "started_ns": 1_795_363_464_000_000_000,
                "seconds": 10.0,
                "connections": 3,
                "restarts": 0,
                "events": 106,
                "missed": {"incoming": 0, "client": 0},
                "left_out": 0,
                "unknown": 0,
                "percentiles": True,
            },
        )

    def test_series(self) -> None:
        _depth, latency, _odd, sent, _other = self.document()["series"]
        self.assertEqual(
            sent,
            {
                "kind": "counter",
                "name": "sent",
                "labels": {"at": "x", "to": "b"},
                "unit": "bytes",
                "description": "Sent bytes.",
                "events": 2,
                "last": "2026-11-22T16:04:24.789260613Z",
                "last_ns": WHEN,
                "value": 1536,
                "rate": 51.2,
                "samples": None,
            },
        )
        self.assertEqual(latency["value"], 101)
        samples = latency["samples"]
        self.assertEqual((samples["count"], samples["not_finite"]), (100, 1))
        self.assertEqual((samples["min"], samples["p50"], samples["max"]), (0.001, 0.05, 0.1))
        self.assertAlmostEqual(samples["mean"], 0.0505)

    def test_notFinite(self) -> None:
        """Numbers are written as in JSON lines; unknown values are null."""
        for value, written in (
            (math.inf, "Infinity"),
            (-math.inf, "-Infinity"),
            (math.nan, "NaN"),
        ):
            self.view.ingest([metric(Operation.SET_GAUGE, value, "depth")])
            depth = self.document()["series"][0]
            self.assertEqual(depth["value"], written)
        self.assertIsNone(depth["rate"])
        self.view.ingest([Metric(Key(MetricKind.GAUGE, "depth"), Operation.SET_GAUGE, 0.0, 2**80)])
        depth = self.document()["series"][0]
        self.assertEqual((depth["last"], depth["last_ns"]), (None, 2**80))

    def test_overflow(self) -> None:
        """The mean of finite samples is finite, and so is the rate of finite values."""
        self.view.ingest(
            [
                metric(Operation.RECORD_HISTOGRAM, 1e308, "a"),
                metric(Operation.RECORD_HISTOGRAM, 1.5e308, "a"),
                metric(Operation.SET_GAUGE, 1e308, "b"),
                metric(Operation.SET_GAUGE, -1e308, "b"),
            ]
        )
        histogram, swinging = self.document()["series"][:2]
        samples = histogram["samples"]
        self.assertAlmostEqual(samples["mean"] / 1.25e308, 1)
        self.assertEqual(samples["sum"], "Infinity")
        self.assertAlmostEqual(swinging["rate"] / -2e307, 1)

    def test_noStatus(self) -> None:
        self.view = SourceView()
        document = self.document()
        for field in ("source", "started", "started_ns", "missed"):
            self.assertIsNone(document[field])

    def test_filter(self) -> None:
        self.assertEqual(
            [one["labels"] for one in self.document(wanted=parse_filter("to:").matches)["series"]],
            [{"at": "x", "to": "b"}, {"to": "a"}],
        )

    def test_documented(self) -> None:
        """The documentation names each field."""
        text = PAGE.read_text()
        document = self.document()
        fields = {*document, *document["series"][1], *document["series"][1]["samples"]}
        # A row may be about several fields.
        rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
        documented = set(re.findall(r"\w+", " ".join(rows)))
        self.assertEqual(fields - documented, set())
