"""
The parser of StatsD and DogStatsD.
"""

from __future__ import annotations

from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.recorders import ListRecorder
from txmetrics_tcp import Metadata, MetricKind, Operation
from txmetrics_tcp.bridges import _statsd_lines
from txmetrics_tcp.bridges._statsd_lines import (
    MAX_REFUSED_VALUES,
    MAX_SIZE,
    MAX_TAGS,
    REASONS,
    StatsDLines,
)

if not needs("hypothesis"):
    from hypothesis import given
    from hypothesis import strategies as st

INCREMENT = Operation.INCREMENT_COUNTER
ADD = Operation.INCREMENT_GAUGE
SET = Operation.SET_GAUGE
RECORD = Operation.RECORD_HISTOGRAM


class LinesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorder = ListRecorder()
        self.reported: list[tuple[str, bytes]] = []
        self.lines = self.make()

    def make(self, prefix: str = "", max_series: int = 100) -> StatsDLines:
        return StatsDLines(
            self.recorder,
            prefix,
            max_series,
            lambda reason, line: self.reported.append((reason, line)),
        )

    def recorded(self, data: bytes | str) -> list[tuple[str, Operation | None, object]]:
        """Return what data records that are not refused."""
        recorded = self.fed(data)
        self.assertEqual(self.reported, [])
        return recorded

    def fed(self, data: bytes | str) -> list[tuple[str, Operation | None, object]]:
        self.lines.feed(data.encode() if isinstance(data, str) else data)
        return self.recorder.take()

    def total(self, data: str) -> object:
        """Return the sum of what data records."""
        return sum(value for _, _, value in self.recorded(data))  # type: ignore[misc]

    def assert_refused(self, reason: str, *lines: bytes) -> None:
        for line in lines:
            for _ in range(2):
                self.assertEqual(self.fed(line), [], line)
                self.assertEqual(self.reported, [(reason, line)])
                self.reported.clear()
        self.assertEqual(self.lines.refused[reason], 2 * len(lines))
        self.assertEqual(sum(self.lines.refused.values()), 2 * len(lines))


class TypesTests(LinesTestCase):
    def test_counters(self) -> None:
        self.assertEqual(
            self.recorded("a:1|c\na:23|c\na:+4|c\na:18446744073709551615|c\na:2e3|c\nb:0|c"),
            [
                ("a", INCREMENT, 1),
                ("a", INCREMENT, 23),
                ("a", INCREMENT, 4),
                ("a", INCREMENT, 2**64 - 1),
                ("a", INCREMENT, 2000),
                ("b", INCREMENT, 0),
            ],
        )
        self.assertEqual(self.lines.lines, 6)

    def test_sampledCounters(self) -> None:
        """Counts are scaled, and what rounding leaves is added to later ones."""
        self.assertEqual(self.recorded("a:1|c|@0.1"), [("a", INCREMENT, 10)])
        self.assertEqual(self.recorded("a:2|c|@1"), [("a", INCREMENT, 2)])
        self.assertEqual(self.total("b:1|c|@0.3\n" * 300), 1000)
        self.assertEqual(self.total("c:0.25|c\n" * 8), 2)
        self.assertEqual(self.total("d:1|c|@0.7\n" * 7), 10)

    def test_seconds(self) -> None:
        """A counter of seconds is a gauge, as in the other bridges."""
        self.assertEqual(
            self.recorded("cpu_seconds_total:0.25|c\ncpu.seconds:1|c|@0.5"),
            [("cpu_seconds_total", ADD, 0.25), ("cpu.seconds", ADD, 2.0)],
        )

    def test_gauges(self) -> None:
        """A sign adds to the value; so clients set a negative value in two lines."""
        self.assertEqual(
            self.recorded("q:0|g\nq:-7|g\nq:+2.5|g\nq:3.5|g|@0.1\nq:.5e-1|g"),
            [
                ("q", SET, 0.0),
                ("q", ADD, -7.0),
                ("q", ADD, 2.5),
                ("q", SET, 3.5),
                ("q", SET, 0.05),
            ],
        )

    def test_histograms(self) -> None:
        self.assertEqual(
            self.recorded("t:320|ms\nh:-1.5|h\nd:7|d\nd:1|d|@1"),
            [("t", RECORD, 320.0), ("h", RECORD, -1.5), ("d", RECORD, 7.0), ("d", RECORD, 1.0)],
        )
        described = Metadata(
            MetricKind.HISTOGRAM, "t", "milliseconds", "Timer received through StatsD."
        )
        self.fed("t:1|ms|#a:b")
        self.assertEqual(self.recorder.described, [described])

    def test_sampledHistograms(self) -> None:
        """A sample with a rate stands for several ones, up to a limit."""
        for kind in "ms", "h", "d":
            [(_, _, value)] = self.recorded(f"{kind}.a:5|{kind}|@0.1")
            self.assertEqual(value, (5.0, 10))
            [(_, _, value)] = self.recorded(f"{kind}.a:5|{kind}|@0.00001")
            self.assertEqual(value, (5.0, 1000))
        counts = [value[1] for _, _, value in self.recorded("x:5|ms|@0.4\n" * 4)]  # type: ignore[index]
        self.assertEqual(sum(counts), 10)

    def test_sets(self) -> None:
        """A gauge has the number of distinct values of each interval; unused sets become 0 once."""
        self.assertEqual(self.recorded("u:a|s\nu:b|s|@0.5\nu:a|s\nv:x:y|s|#a:b\nu:a:b|s"), [])
        self.lines.flush()
        self.assertCountEqual(self.recorder.take(), [("u", SET, 3.0), ("v [a = b]", SET, 1.0)])
        self.assertEqual(self.recorded("u:a|s"), [])
        self.lines.flush()
        self.assertCountEqual(self.recorder.take(), [("u", SET, 1.0), ("v [a = b]", SET, 0.0)])
        self.lines.flush()
        self.assertEqual(self.recorder.take(), [("u", SET, 0.0)])
        self.lines.flush()
        self.assertEqual(self.recorder.take(), [])

    def test_setLimits(self) -> None:
        self.patch(_statsd_lines, "MAX_SET_VALUES", 3)
        self.patch(_statsd_lines, "MAX_ALL_SET_VALUES", 4)
        self.fed("u:1|s\nu:2|s\nu:3|s\nu:3|s\nu:4|s")
        self.assertEqual(self.reported, [("set", b"u:4|s")])
        self.fed("v:1|s\nv:2|s")
        self.assertEqual(self.reported[1:], [("set", b"v:2|s")])
        self.lines.flush()
        self.assertCountEqual(self.recorder.take(), [("u", SET, 3.0), ("v", SET, 1.0)])
        self.fed("u:4|s\nv:2|s")
        self.assertEqual(len(self.reported), 2)

    def test_packed(self) -> None:
        """Each of several values is recorded or refused by itself."""
        self.assertEqual(
            self.recorded("h:1:2.5:3|h\na:1:2|c|#x:y"),
            [
                ("h", RECORD, 1.0),
                ("h", RECORD, 2.5),
                ("h", RECORD, 3.0),
                ("a [x = y]", INCREMENT, 1),
                ("a [x = y]", INCREMENT, 2),
            ],
        )
        line = b"a:1:-1:x::2|c"
        self.assertEqual(self.fed(line), [("a", INCREMENT, 1), ("a", INCREMENT, 2)])
        self.assertEqual(self.reported, [("negative", line), ("value", line), ("value", line)])

    def test_manyRefused(self) -> None:
        """A datagram of values that are refused does not delay others: the rest is ignored."""
        values = b"1:" + b"x:" * MAX_REFUSED_VALUES + b"2"
        self.assertEqual(
            self.fed(b"a:" + values + b"|c\nb:3|c"), [("a", INCREMENT, 1), ("b", INCREMENT, 3)]
        )
        self.assertEqual(self.lines.refused["value"], MAX_REFUSED_VALUES)


class FormatTests(LinesTestCase):
    def test_tags(self) -> None:
        """Tags are labels; values may be missing or contain colons; repeated tags are joined."""
        for line, series in (
            ("a:1|c|#env:prod,b:c:d", "a [b = c:d, env = prod]"),
            ("a:1|c|#bare,,x:", "a [bare = , x = ]"),
            ("a:1|c|#x:2,x:1,x:2", "a [x = 2,1]"),
            ("a:1|c|#", "a"),
            ("a:1|c|#x:1|@1|#y:2", "a [x = 1, y = 2]"),
            ("a,x=1,y:1|c", "a [x = 1, y = ]"),
            ("a,x=1:1|c|#x:2", "a [x = 1,2]"),
            ("größe:1|c|#ü:ß", "größe [ü = ß]"),
        ):
            for _ in range(2):
                self.assertEqual(self.recorded(line), [(series, INCREMENT, 1)], line)

    def test_fields(self) -> None:
        """Fields of DogStatsD for time, container and other data are accepted."""
        for field in "T1656581400", "c:abc123", "e:it-false,cn-x", "card:low", "":
            for line in f"a:1|c|{field}", f"a:1|c|@0.5|#b|{field}".replace("@0.5", "@1"):
                self.assertEqual([one[1:] for one in self.recorded(line)], [(INCREMENT, 1)])

    def test_lineEnds(self) -> None:
        self.assertEqual(len(self.recorded("\na:1|c\r\n\r\na:1|c\n\na:1|c\r")), 3)
        self.assertEqual(self.lines.lines, 3)

    def test_ignored(self) -> None:
        """Events and service checks are neither recorded nor refused."""
        self.assertEqual(self.recorded("_e{2,2}:ab|cd|#x:y\n_sc|web|0|#x:y|m:text\n_sc|web|0"), [])
        self.assertEqual(self.lines.lines, 0)

    def test_prefix(self) -> None:
        self.lines = self.make("app.")
        self.assertEqual(self.recorded("a:1|c"), [("app.a", INCREMENT, 1)])


class RefusedTests(LinesTestCase):
    def test_format(self) -> None:
        self.assert_refused("format", b"a", b"a:1", b"a|c", b"a:", b" ", b"\0")

    def test_name(self) -> None:
        self.assert_refused("name", b":1|c", b",x=1:1|c", b"a|b:1|c", b"txmetrics_clients:1|g")

    def test_encoding(self) -> None:
        self.assert_refused(
            "encoding", b"\xff:1|c", b"a:1|c|#\xff:1", b"a:1|c|#x:\xed\xa0\x80", b"a,\xff=1:1|c"
        )

    def test_type(self) -> None:
        self.assert_refused("type", b"a:1|", b"a:1|x", b"a:1|C", b"a:1| c", b"a:1|m", b"a:1||c")

    def test_rate(self) -> None:
        self.assert_refused(
            "rate",
            *(
                b"a:1|c|@" + rate
                for rate in (b"", b"0", b"-1", b"1.1", b"nan", b"x", b"1e-400", b"0.1 ", b"1_0")
            ),
        )

    def test_field(self) -> None:
        self.assert_refused("field", b"a:1|c|0.1", b"a:1|c|Tx", b"a:1|c|T")

    def test_tags(self) -> None:
        self.assert_refused("tags", b"a:1|c|#:x", b"a,=x:1|c", b"a:1|c|#y,:")

    def test_manyTags(self) -> None:
        tags = [f"x{number}" for number in range(MAX_TAGS)]
        self.assertEqual(len(self.recorded(f"a:1|c|#{','.join(tags)}")), 1)
        for line in (f"a:1|c|#y,{','.join(tags)}", f"a,y=1:1|c|#{','.join(tags)}"):
            self.assertEqual(self.fed(line), [])
        self.assertEqual(self.lines.refused["tags"], 2)

    def test_value(self) -> None:
        """Numbers have a strict syntax: Python's accepts more."""
        texts = b"", b"1_000", b" 1", b"1 ", b"nan", b"inf", b"-inf", b"1e400", b"0x1", b"e1", b"."
        more = b"+", b"1e", b"--1", b"1,5", b"\xd9\xa1", b"1" * 65
        for kind in b"c", b"g", b"ms", b"h", b"d", b"c|@0.1", b"h|@0.1":
            for text in texts + more:
                line = b"n:%s|%s" % (text, kind)
                self.assertEqual(self.fed(line), [], line)
                self.assertEqual(self.reported.pop(), ("value", line))
        self.assert_value_out_of_range()

    def assert_value_out_of_range(self) -> None:
        for line in (
            b"n:18446744073709551616|c",
            b"n:1e20|c",
            b"n:1e300|c|@1e-300",
            b"n_seconds:1e300|c|@1e-300",
            b"n:|s",
        ):
            self.assertEqual(self.fed(line), [], line)
            self.assertEqual(self.reported.pop(), ("value", line))

    def test_negative(self) -> None:
        self.assert_refused("negative", b"a:-1|c", b"a:-0.1|c|@0.5", b"x_seconds:-1|c")

    def test_size(self) -> None:
        long = b"x" * MAX_SIZE
        self.assert_refused("size", long + b":1|c", b"a:1|c|#" + long)
        self.assertEqual(len(self.fed(long[:-1] + b":1|c")), 1)

    def test_seriesLimit(self) -> None:
        """Beyond the limit, only lines of earlier series are recorded."""
        self.lines = self.make(max_series=2)
        self.recorded("a:1|c\nb:1|g")
        self.assert_refused("series", b"c:1|c", b"a:1|c|#x:y", b"a:1|g")
        self.assertEqual(len(self.fed("a:1|c\na:1|c|@0.5\nb:+1|g")), 3)
        self.assertEqual(self.lines.series, 2)

    def test_failed(self) -> None:
        """An exception in recording is counted, and later lines are recorded."""

        def fail(key: object) -> None:
            raise RuntimeError("no series today")

        self.patch(self.recorder, "attach", fail)
        self.fed("a:1|c\nb:1|g")
        self.assertEqual(self.reported, [("failed", b"a:1|c"), ("failed", b"b:1|g")])

    def test_cache(self) -> None:
        """What is cached of lines has a limit, also if each line differs."""
        self.lines = self.make(max_series=5)
        for number in range(100):
            self.fed(f"a:1|c|@0.{number + 10}\na:1|c|T{number}")
            self.fed(b"a:1|c|e:" + b"x" * (600 + number))
        self.assertLessEqual(len(self.lines._records), 10)
        self.assertEqual(self.reported, [])


@skipIf(needs("hypothesis"), needs("hypothesis"))
class AnyBytesTests(LinesTestCase):
    if not needs("hypothesis"):
        parts = st.sampled_from(
            [
                *b"a b : 1 - + .5 e9 , = @ # c g ms h d s _e{ _sc T1 nan _seconds".split(),
                *(b"|", b"\n", b"\r", b"\xff", b"\0", b" ", b"", b"a:1|c", b"|@0.1", b"|#x:y"),
            ]
        )

        @given(st.one_of(st.binary(), st.lists(parts, max_size=40).map(b"".join)))
        def test_neverRaises(self, data: bytes) -> None:
            """Any bytes are recorded or counted as refused, for a known reason."""
            lines = self.make("p.", max_series=10)
            before = len(self.reported)
            for _ in range(2):
                lines.feed(data)
                lines.flush()
            self.assertEqual(set(lines.refused), set(REASONS))
            self.assertEqual(sum(lines.refused.values()), len(self.reported) - before)
            self.assertEqual(lines.refused["failed"], 0)
            self.assertLessEqual(lines.series, 10)
            self.recorder.entries.clear()
