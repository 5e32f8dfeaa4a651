"""
Events as lines of text and JSON, and escaping of unsafe text.
"""

from __future__ import annotations

import json
import math
import re
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unicodedata import normalize

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import ROOT, wire_cases
from tests.unit.codec.test_wire import encode
from tests.wire_cases import CASES, SECOND
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
    Status,
    Unknown,
)
from txmetrics_tcp._model import U64_MAX
from txmetrics_tcp._view import lines
from txmetrics_tcp._view.lines import JsonLines, TextLines
from txmetrics_tcp._view.memory import name_size
from txmetrics_tcp._view.numbers import show_value
from txmetrics_tcp._view.text import MAX_UNIT, visible

WHEN = 1_795_363_464 * SECOND + 789_260_613
"""2026-11-22T16:04:24.789260613Z"""


metric = partial(wire_cases.metric, when=WHEN)


def histogram_total(*samples: float, when: int | None = WHEN, **labels: str) -> HistogramTotal:
    key = Key.of(MetricKind.HISTOGRAM, "latency", labels)
    return HistogramTotal(key, Distribution.of(samples), when)


ANY_TEXT = st.text(max_size=20)
# The full range of a Timestamp's fields.
ANY_TIME = (
    st.none()
    | st.integers(-(2**63) * SECOND - 2**31, (2**63 - 1) * SECOND + 2**31 - 1)
    | st.integers(0, 2 * WHEN)
)
ANY_EVENT = (
    st.builds(
        lambda operation, name, labels, count, number, when: Metric(
            Key(operation.kind, name, tuple(sorted(labels.items()))),
            operation,
            count if operation.kind is MetricKind.COUNTER else number,
            when,
        ),
        st.sampled_from(Operation),
        ANY_TEXT,
        st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
        st.integers(0, U64_MAX),
        st.floats(),
        ANY_TIME,
    )
    | st.builds(Metadata, st.sampled_from(MetricKind), ANY_TEXT, st.none() | ANY_TEXT, ANY_TEXT)
    | st.builds(
        Status,
        ANY_TEXT,
        ANY_TIME,
        st.integers(0, U64_MAX),
        st.integers(0, U64_MAX),
        st.integers(0, 2**32 - 1),
    )
    | st.sampled_from(Snapshot)
    | st.builds(
        lambda kind, name, labels, when: Gone(Key(kind, name, tuple(sorted(labels.items()))), when),
        st.sampled_from(MetricKind),
        ANY_TEXT,
        st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
        ANY_TIME,
    )
    | st.builds(
        lambda name, labels, samples, count, when: HistogramTotal(
            Key(MetricKind.HISTOGRAM, name, tuple(sorted(labels.items()))),
            Distribution.of(samples).with_repeated(samples[0] if samples else 0.0, count),
            when,
        ),
        ANY_TEXT,
        st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
        st.lists(st.floats() | st.just(0.0), max_size=20),
        st.integers(0, U64_MAX),
        ANY_TIME,
    )
)


class VisibleTests(SynchronousTestCase):
    def test_harmless(self) -> None:
        """Printable text in any language is unchanged."""
        for text in [
            *("requests_total", "Größe: µs", "東京 😀", "a b", "C:\\x1b", "", "« — … »"),
            *("नमस्ते", "สวัสดีที่นี่", "עִבְרִית", normalize("NFD", "Việt")),
        ]:
            self.assertEqual(visible(text), text)

    def test_escaped(self) -> None:
        for text, shown in [
            ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
            ("a\nb\rc\td", r"a\nb\rc\td"),
            ("\0\x08\x7f", r"\x00\x08\x7f"),
            ("\x80\x9b31m\x9f", r"\x80\x9b31m\x9f"),  # C1: 9b is the short form of ESC [
            ("\x85", r"\x85"),  # next line
            ("\u2028\u2029", r"\u2028\u2029"),  # line and paragraph separators
            ("\u202a\u202b\u202c\u202d\u202e", r"\u202a\u202b\u202c\u202d\u202e"),
            ("\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
            ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
            ("\u200b\ufeff\xad", r"\u200b\ufeff\xad"),  # without width
            ("\U000e0041", r"\U000e0041"),  # a tag
            ("\ud800", r"\ud800"),
            ("\u3164\uffa0\u115f\u1160", r"\u3164\uffa0\u115f\u1160"),  # fillers
            ("a\u034f\ufe0f\U000e0100", r"a\u034f\ufe0f\U000e0100"),  # joiner, selectors
            ("\u180b\u180f\u17b4", r"\u180b\u180f\u17b4"),
            ("\u2800\U00016fe4\U0001d159", r"\u2800\U00016fe4\U0001d159"),  # without ink
        ]:
            self.assertEqual(visible(text), shown)

    def test_marks(self) -> None:
        """Marks without a character before them, and those beyond four on one, are escaped."""
        accents = "\u0301\u0302\u0323\u20dd"
        for text, shown in [
            (f"a{accents}b{accents}", f"a{accents}b{accents}"),
            (f"a{accents}\u0308\u0308b", rf"a{accents}\u0308\u0308b"),
            (f"東{accents}\u0308", rf"東{accents}\u0308"),
            ("\u0338=a", r"\u0338=a"),
        ]:
            self.assertEqual(visible(text), shown)
        self.assertLess(len(re.findall("\u0301", visible("a" + 500 * "\u0301"))), 5)

    @given(st.text())
    def test_anyText(self, text: str) -> None:
        self.assertTrue(visible(text).isprintable())


class TextLinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.line = TextLines(time.gmtime)

    def test_operations(self) -> None:
        for event, line in [
            (
                metric(Operation.INCREMENT_COUNTER, 3),
                "16:04:24.789 counter/increment m 3",
            ),
            (metric(Operation.SET_COUNTER, U64_MAX), f"16:04:24.789 counter/set       m {U64_MAX}"),
            (metric(Operation.INCREMENT_GAUGE, 1.5), "16:04:24.789 gauge/increment   m 1.5"),
            (metric(Operation.DECREMENT_GAUGE, 1e-9), "16:04:24.789 gauge/decrement   m 1e-09"),
            (metric(Operation.SET_GAUGE, -0.0), "16:04:24.789 gauge/set         m -0.0"),
            (metric(Operation.RECORD_HISTOGRAM, math.inf), "16:04:24.789 histogram/record  m inf"),
            (metric(Operation.RECORD_HISTOGRAM, math.nan), "16:04:24.789 histogram/record  m nan"),
        ]:
            self.assertEqual(self.line(event), line)

    def test_readable(self) -> None:
        """Values are exact by default, and otherwise human-readable according to their units."""
        readable = TextLines(time.gmtime, exact=False)
        for unit, value, exact in [
            ("seconds", 0.0015, "0.0015 s"),
            ("bytes", 1536.0, "1536.0 B"),
            ("apples", 1234567.25, "1234567.25 apples"),
            ("a\x1b", 2.0, "2.0 a\\x1b"),
            ("ms", 1500.0, "1500.0 ms"),
            ("count", 1234567.0, "1234567.0"),
            (None, math.inf, "inf"),
        ]:
            shown = show_value(value, unit and visible(unit))
            for line, expected in (self.line, exact), (readable, shown):
                line(Metadata(MetricKind.GAUGE, "m", unit))
                text = line(metric(Operation.SET_GAUGE, value))
                self.assertEqual(text, f"16:04:24.789 gauge/set         m {expected}")
        line = readable(metric(Operation.INCREMENT_COUNTER, 1234567))
        self.assertEqual(line, f"16:04:24.789 counter/increment m {show_value(1234567)}")

    def test_labels(self) -> None:
        self.assertEqual(
            self.line(metric(Operation.INCREMENT_COUNTER, 1, {"route": "/", "method": "GET"})),
            "16:04:24.789 counter/increment m [method = GET, route = /] 1",
        )

    def test_time(self) -> None:
        """Times have milliseconds; a time outside the calendar is a number."""
        for when, shown in [
            (0, "00:00:00.000"),
            (999_999_999, "00:00:00.999"),
            (1_000_000, "00:00:00.001"),
            (86_399 * SECOND, "23:59:59.000"),
            (-1, "23:59:59.999"),
            (2**63 * SECOND, "@9223372036854775808.000"),
        ]:
            line = self.line(metric(Operation.INCREMENT_COUNTER, 1, when=when))
            self.assertEqual(line.partition(" ")[0], shown)

    def test_localTime(self) -> None:
        """By default, times are local."""
        expected = time.strftime("%H:%M:%S", time.localtime(WHEN // SECOND))
        line = TextLines()(metric(Operation.INCREMENT_COUNTER, 1))
        self.assertTrue(line.startswith(f"{expected}.789 "), line)

    def test_gone(self) -> None:
        for event, line in [
            (
                Gone(Key(MetricKind.COUNTER, "m", (("route", "/\n"),)), WHEN),
                r"16:04:24.789 counter/gone      m [route = /\n]",
            ),
            (Gone(Key(MetricKind.HISTOGRAM, "m")), "--:--:--.--- histogram/gone    m"),
            (Snapshot.BEGIN_COMPLETE, "snapshot     begin complete"),
        ]:
            self.assertEqual(self.line(event), line)

    def test_histogramTotal(self) -> None:
        """The total of a histogram is one line, with exact or human-readable values."""
        readable = TextLines(time.gmtime, exact=False)
        for line in self.line, readable:
            line(Metadata(MetricKind.HISTOGRAM, "latency", "seconds"))
        hundred = Distribution.of([0.0015] * 1000).with_repeated(2.0, 234)
        for event, exact, human in [
            (
                HistogramTotal(Key(MetricKind.HISTOGRAM, "latency", (("route", "/"),)), hundred),
                "--:--:--.--- histogram/set     latency [route = /] count 1234, sum 469.5 s,"
                f" min 0.0015 s, p50 0.0015 s, p99 {hundred.quantile(0.99)!r} s, max 2.0 s",
                "--:--:--.--- histogram/set     latency [route = /] count 1,234, sum 7m 50s,"
                " min 1.5 ms, p50 1.5 ms, p99 1.98 s, max 2 s",
            ),
            (
                histogram_total(math.inf, 0.25, math.nan),
                "16:04:24.789 histogram/set     latency count 1, sum 0.25 s, min 0.25 s,"
                " p50 0.25 s, p99 0.25 s, max 0.25 s, not finite 2",
                "16:04:24.789 histogram/set     latency count 1, sum 250 ms, min 250 ms,"
                " p50 250 ms, p99 250 ms, max 250 ms, not finite 2",
            ),
            *(
                (histogram_total(*samples), line, line)
                for samples, line in [
                    ([], "16:04:24.789 histogram/set     latency count 0"),
                    ([math.nan], "16:04:24.789 histogram/set     latency count 0, not finite 1"),
                ]
            ),
        ]:
            self.assertEqual((self.line(event), readable(event)), (exact, human))

    def test_metadata(self) -> None:
        for event, line in [
            (Metadata(MetricKind.COUNTER, "m"), "metadata     counter           m"),
            (
                Metadata(MetricKind.HISTOGRAM, "m", "seconds", "how long"),
                "metadata     histogram         m (seconds): how long",
            ),
            (Metadata(MetricKind.GAUGE, "m", None, "x"), "metadata     gauge             m: x"),
        ]:
            self.assertEqual(self.line(event), line)

    def test_unit(self) -> None:
        """After the description, each value is followed by the short name of its unit."""
        event = metric(Operation.RECORD_HISTOGRAM, 1.5)
        for unit, shown in [
            ("seconds", "1.5 s"),
            ("microseconds", "1.5 μs"),
            ("count_per_second", "1.5 /s"),
            ("count", "1.5"),
            ("parsecs\x1b", r"1.5 parsecs\x1b"),
            (None, "1.5"),
        ]:
            self.line(Metadata(MetricKind.HISTOGRAM, "m", unit))
            self.assertEqual(self.line(event), f"16:04:24.789 histogram/record  m {shown}")

    def test_unitOfKindAndName(self) -> None:
        """A unit belongs to a kind and a name, not to a name alone."""
        self.line(Metadata(MetricKind.GAUGE, "m", "bytes"))
        self.line(Metadata(MetricKind.HISTOGRAM, "n", "bytes"))
        line = self.line(metric(Operation.RECORD_HISTOGRAM, 1.0))
        self.assertTrue(line.endswith(" m 1.0"), line)
        self.assertTrue(self.line(metric(Operation.SET_GAUGE, 1.0)).endswith(" m 1.0 B"))

    def test_boundedMemory(self) -> None:
        """The size of stored units is limited; the latest are kept."""
        self.patch(lines, "CACHE_BYTES", 5 * name_size("m00") + name_size("m" * 10_000))
        for number in range(10):
            for unit in ("seconds", "bytes"):
                self.line(Metadata(MetricKind.GAUGE, f"m{number:02}", unit))
        self.line(Metadata(MetricKind.GAUGE, "m" * 10_000, "bytes"))
        shown = [
            self.line(metric(Operation.SET_GAUGE, 1.0, name=f"m{number:02}")).endswith(" B")
            for number in range(10)
        ]
        self.assertEqual(shown, [False] * 5 + [True] * 5)
        for number in range(10):
            self.line(Metadata(MetricKind.GAUGE, f"m{number:02}"))
        self.line(Metadata(MetricKind.GAUGE, "m" * 10_000))
        self.assertEqual(self.line._units_bytes, 0)

    def test_longUnit(self) -> None:
        """A long unit, which each value would repeat, is cut."""
        self.line(Metadata(MetricKind.GAUGE, "m", "\x1b" * 900_000))
        line = self.line(metric(Operation.SET_GAUGE, 1.0))
        self.assertEqual(line[line.index("\\") :], (r"\x1b" * MAX_UNIT)[: MAX_UNIT - 1] + "…")

    def test_status(self) -> None:
        self.assertEqual(
            self.line(Status("shop[4711]@web1", WHEN)),
            "status       shop[4711]@web1, started 2026-11-22 16:04:24, events missed: 0",
        )
        self.assertEqual(
            self.line(Status("\x1b", WHEN, 2, 1)),
            r"status       \x1b, started 2026-11-22 16:04:24, events missed: 3"
            " (incoming 2, client 1)",
        )

    def test_hostile(self) -> None:
        """Hostile text is escaped and stays on one line."""
        hostile = "\x1b[31m\n\x9b\u202e\u2028"
        for event in [
            metric(Operation.INCREMENT_COUNTER, 1, {hostile: hostile}, name=hostile),
            Metadata(MetricKind.GAUGE, hostile, hostile, hostile),
            metric(Operation.SET_GAUGE, 1.0, name=hostile),
            HistogramTotal(Key(MetricKind.HISTOGRAM, hostile), Distribution.of([1.0])),
        ]:
            line = self.line(event)
            self.assertTrue(line.isprintable(), line)
            self.assertIn(r"\x1b[31m\n\x9b\u202e\u2028", line)

    @given(ANY_EVENT)
    def test_anyEvent(self, event: Any) -> None:
        self.assertTrue(self.line(event).isprintable())

    def test_wireCases(self) -> None:
        """Every kind of event of the wire format can be printed."""
        for case in CASES:
            if not isinstance(case.event, Unknown | None):
                self.assertTrue(self.line(case.event), case.name)


class JsonLinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.line = JsonLines()

    def test_operations(self) -> None:
        for operation, kind, name in [
            (Operation.INCREMENT_COUNTER, "counter", "increment"),
            (Operation.SET_COUNTER, "counter", "set"),
            (Operation.INCREMENT_GAUGE, "gauge", "increment"),
            (Operation.DECREMENT_GAUGE, "gauge", "decrement"),
            (Operation.SET_GAUGE, "gauge", "set"),
            (Operation.RECORD_HISTOGRAM, "histogram", "record"),
        ]:
            value = 1 if kind == "counter" else 1.5
            self.assertEqual(
                json.loads(self.line(metric(operation, value, {"b": "2", "a": "1"}))),
                {
                    "event": "metric",
                    "time": "2026-11-22T16:04:24.789260613Z",
                    "timestamp_ns": WHEN,
                    "kind": kind,
                    "operation": name,
                    "name": "m",
                    "labels": {"a": "1", "b": "2"},
                    "value": value,
                },
            )

    def test_values(self) -> None:
        for operation, value, written in [
            (Operation.SET_COUNTER, 2**53, "9007199254740992"),
            (Operation.SET_GAUGE, 2.0**80, "1.2089258196146292e+24"),
            (Operation.SET_GAUGE, 0.1, "0.1"),
            (Operation.SET_GAUGE, -0.0, "-0.0"),
            (Operation.SET_GAUGE, 5e-324, "5e-324"),
            (Operation.SET_GAUGE, math.inf, '"Infinity"'),
            (Operation.DECREMENT_GAUGE, -math.inf, '"-Infinity"'),
            (Operation.RECORD_HISTOGRAM, math.nan, '"NaN"'),
        ]:
            line = self.line(metric(operation, value))
            self.assertTrue(line.endswith(f'"value":{written}}}'), line)

    def test_largeCounters(self) -> None:
        """A counter above 2**53 also has its digits as text."""
        for value in (2**53 + 1, U64_MAX):
            line = self.line(metric(Operation.INCREMENT_COUNTER, value))
            self.assertTrue(line.endswith(f'"value":{value},"value_text":"{value}"}}'), line)

    def test_time(self) -> None:
        for when, shown in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (-62_135_596_800 * SECOND, "0001-01-01T00:00:00.000000000Z"),
            (-62_135_596_801 * SECOND, None),
            (253_402_300_800 * SECOND - 1, "9999-12-31T23:59:59.999999999Z"),
            (253_402_300_800 * SECOND, None),
            (2**63 * SECOND, None),
            (None, None),
        ]:
            decoded = json.loads(self.line(metric(Operation.SET_COUNTER, 1, when=when)))
            self.assertEqual(decoded["time"], shown)
            self.assertEqual(decoded["timestamp_ns"], when)

    def test_histogramTotal(self) -> None:
        """Counts are exact integers, and what is unknown is null."""
        total = Distribution.of([-1.0, 0.0, 2.0, math.inf]).with_repeated(2.0, U64_MAX - 1)
        series = {
            "event": "histogram_total",
            "time": "2026-11-22T16:04:24.789260613Z",
            "timestamp_ns": WHEN,
            "kind": "histogram",
            "name": "latency",
            "labels": {"b": "1"},
        }
        self.assertEqual(
            json.loads(self.line(HistogramTotal(histogram_total(b="1").key, total, WHEN))),
            {
                **series,
                "count": U64_MAX + 2,
                "sum": 2.0 * U64_MAX,
                "min": -1.0,
                "max": 2.0,
                "zeros": 1,
                "not_finite": 1,
                "scale": 5,
                "positive": [[31, U64_MAX]],
                "negative": [[-1, 1]],
            },
        )
        empty = json.loads(self.line(histogram_total(math.nan, b="1", when=None)))
        self.assertEqual(
            empty,
            {
                **series,
                "time": None,
                "timestamp_ns": None,
                "count": 0,
                "sum": 0.0,
                "min": None,
                "max": None,
                "zeros": 0,
                "not_finite": 1,
                "scale": 5,
                "positive": [],
                "negative": [],
            },
        )
        overflow = json.loads(self.line(histogram_total(-1e308, -1e308)))
        self.assertEqual((overflow["sum"], overflow["min"]), ("-Infinity", -1e308))

    def test_metadata(self) -> None:
        for event, unit, description in [
            (Metadata(MetricKind.COUNTER, "m", "seconds", "how long"), "seconds", "how long"),
            (Metadata(MetricKind.COUNTER, "m", "parsecs"), "parsecs", ""),
            (Metadata(MetricKind.COUNTER, "m"), None, ""),
        ]:
            self.assertEqual(
                json.loads(self.line(event)),
                {
                    "event": "metadata",
                    "kind": "counter",
                    "name": "m",
                    "unit": unit,
                    "description": description,
                },
            )

    def test_hostile(self) -> None:
        """Hostile text is escaped without loss."""
        hostile = '\x1b[31m\n\x7f\x9b\u202e\u2028\\"\U000e0041'
        line = self.line(metric(Operation.SET_COUNTER, 1, {hostile: hostile}, name=hostile))
        self.assertTrue(line.isascii() and line.isprintable(), line)
        decoded = json.loads(line)
        self.assertEqual((decoded["name"], decoded["labels"]), (hostile, {hostile: hostile}))

    @given(ANY_EVENT)
    def test_anyEvent(self, event: Any) -> None:
        """Any event becomes one line of ASCII and strict JSON, without loss."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        line = self.line(event)
        self.assertTrue(line.isascii() and line.isprintable(), line)
        decoded = json.loads(line, parse_constant=refuse)
        match event:
            case Metric():
                self.assertEqual(repr(type(event.value)(decoded["value"])), repr(event.value))
                self.assertEqual(decoded["labels"], dict(event.key.labels))
                self.assertEqual(decoded["timestamp_ns"], event.timestamp_ns)
                self.assertEqual((decoded["kind"], decoded["name"]), _kind_and_name(event.key))
            case Metadata():
                self.assertEqual((decoded["kind"], decoded["name"]), _kind_and_name(event))
                self.assertEqual(decoded["unit"], event.unit)
                self.assertEqual(decoded["description"], event.description)
            case Gone():
                self.assertEqual(decoded["labels"], dict(event.key.labels))
                self.assertEqual(decoded["timestamp_ns"], event.timestamp_ns)
                self.assertEqual((decoded["kind"], decoded["name"]), _kind_and_name(event.key))
            case HistogramTotal():
                one = event.distribution
                sides = [tuple(map(tuple, decoded[side])) for side in ("positive", "negative")]
                self.assertEqual(sides, [one.positive, one.negative])
                self.assertEqual(decoded["count"], one.count)
                self.assertEqual(float(decoded["sum"]), one.sum)
                self.assertEqual(decoded["min"], one.min if one.count else None)
            case Status():
                self.assertEqual(decoded["source"], event.source)
                self.assertEqual(decoded["started_ns"], event.started_ns)

    @given(ANY_EVENT)
    def test_length(self, event: Any) -> None:
        """The length of a line is bounded by that of its frame, as documented."""
        self.assertLess(len(self.line(event)), 300 + 6 * len(encode(event)))

    def test_documented(self) -> None:
        """The output matches the examples in the documentation."""
        documented = re.findall(
            r"```json\n(.*)\n```",
            (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8"),
        )
        second = WHEN // SECOND * SECOND
        events = [
            metric(
                Operation.INCREMENT_COUNTER,
                1,
                {"method": "GET", "route": "/"},
                name="requests_total",
            ),
            metric(Operation.SET_GAUGE, math.inf, name="queue_depth", when=second),
            metric(Operation.SET_COUNTER, U64_MAX, name="bytes_total", when=second),
            Metadata(MetricKind.HISTOGRAM, "latency", "seconds", "Größe: µs, \x1b[31m"),
            Status("shop[4711]@web1", second + 5, 300, 0),
            Snapshot.BEGIN_COMPLETE,
            Gone(Key(MetricKind.GAUGE, "queue_depth", (("queue", "mail"),)), WHEN),
            histogram_total(0.25, 0.25, 0.5, 0.0, route="/"),
        ]
        self.assertEqual(documented, [self.line(event) for event in events])


class SchemaTests(SynchronousTestCase):
    """The JSON Schema of the lines."""

    def setUp(self) -> None:
        if find_spec("jsonschema") is None:
            raise SkipTest("needs jsonschema")
        schema = json.loads((ROOT / "txmetrics_tcp" / "json-lines.schema.json").read_text())
        kind = import_module("jsonschema").Draft202012Validator
        kind.check_schema(schema)
        self.validator = kind(schema)
        self.line = JsonLines()

    @given(ANY_EVENT)
    def test_anyEvent(self, event: Any) -> None:
        """It describes each line, and each field of it."""
        line = json.loads(self.line(event))
        self.validator.validate(line)
        described = self.validator.schema["$defs"][line["event"]]["properties"]
        self.assertEqual(line.keys() - described.keys(), set())

    def test_rejects(self) -> None:
        """It rejects a missing field, a wrong type, and a number out of range."""
        good = json.loads(self.line(metric(Operation.INCREMENT_COUNTER, 1)))
        validator = self.validator
        for wrong in [
            {"value": -1},
            {"value": 2**64},
            {"value": 1.5},
            {"value": 2**53 + 1},
            {"value_text": "9007199254740993"},
            {"operation": "record"},
            {"kind": "gauge", "value": "inf"},
            {"kind": "gauge", "value_text": "9007199254740993"},
            {"value_text": "1e18"},
            {"labels": {"a": 1}},
            {"time": "2026-11-22T16:04:24Z"},
            {"timestamp_ns": "1"},
            {"event": "snapshot", "boundary": "middle"},
            {"event": "snapshot", "boundary": "begin"},
            {"event": "snapshot", "boundary": "end", "complete": True},
            {"event": "status"},
            {"event": "metadata"},
            {"event": "gone", "labels": {"a": 1}},
            {"event": "gone", "kind": "summary"},
        ]:
            self.assertFalse(validator.is_valid({**good, **wrong}), wrong)
        total = json.loads(self.line(histogram_total(-0.25, 0.5, 0.0)))
        for wrong in [
            {"kind": "gauge"},
            {"labels": {"a": 1}},
            {"time": 0},
            {"timestamp_ns": "1"},
            {"count": -1},
            {"count": 1.5},
            {"sum": "NaN"},
            {"sum": None},
            {"min": "Infinity"},
            {"max": "NaN"},
            {"zeros": 2**64},
            {"not_finite": None},
            {"scale": 6},
            {"scale": -11},
            {"positive": [[1, 0]]},
            {"positive": [[1]]},
            {"positive": [[1, 1, 1]]},
            {"positive": [[32768, 1]]},
            {"negative": [[-34370, 1]]},
            {"negative": [1, 1]},
            {"positive": [[index, 1] for index in range(1025)]},
        ]:
            self.assertFalse(validator.is_valid({**total, **wrong}), wrong)
        for line in good, total:
            for name in line:
                less = {k: v for k, v in line.items() if k != name}
                self.assertFalse(validator.is_valid(less), name)
        self.assertTrue(validator.is_valid({"event": "of a later version", "more": 1}))


def _kind_and_name(described: Key | Metadata) -> tuple[str, str]:
    return described.kind.value, described.name
