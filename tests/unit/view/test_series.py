"""
The state of a stream's consumer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import (
    Distribution,
    Gone,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    Unknown,
)
from txmetrics_tcp._distribution import MAX_BUCKETS
from txmetrics_tcp._model import U64_MAX, Event
from txmetrics_tcp._view import series as module
from txmetrics_tcp._view.memory import Budget, Descriptions, key_size
from txmetrics_tcp._view.series import RECENT, SeriesView, SourceView
from txmetrics_tcp._view.windows import MAX_EXACT, Windows

INCREMENT = Operation.INCREMENT_COUNTER
SET = Operation.SET_COUNTER
UP, DOWN, SET_GAUGE = (
    Operation.INCREMENT_GAUGE,
    Operation.DECREMENT_GAUGE,
    Operation.SET_GAUGE,
)
RECORD = Operation.RECORD_HISTOGRAM


def event(operation: Operation, value: float, name: str = "m", when: int = 0) -> Metric:
    return Metric(Key(operation.kind, name), operation, value, when)


class ViewCase(SynchronousTestCase):
    def near(self, value: float, expected: float, delta: float) -> None:
        self.assertLessEqual(abs(value - expected), delta, f"{value} is not near {expected}")

    def setUp(self) -> None:
        self.now = 1000.0
        self.view = SourceView(lambda: self.now)

    def ingest(self, *events: Event) -> None:
        self.view.ingest(events)

    def only(self) -> SeriesView:
        (series,) = self.view.series.values()
        return series

    def rate(self) -> float:
        return self.only().rate(self.now)


class TotalTests(ViewCase):
    def test_counter(self) -> None:
        self.ingest(event(INCREMENT, 2, when=5), event(INCREMENT, 3, when=7))
        series = self.only()
        self.assertEqual(series.key, Key(MetricKind.COUNTER, "m"))
        self.assertEqual((series.value, series.events, series.timestamp_ns), (5, 2, 7))
        self.assertEqual(series.updated, 1000.0)
        self.assertEqual(self.view.events, 2)
        self.ingest(event(SET, 100), event(INCREMENT, 1))
        self.assertEqual(series.value, 101)
        self.assertIs(type(series.value), int)

    def test_wraps(self) -> None:
        """A counter wraps like the server's, and the rate stays correct."""
        self.ingest(event(SET, U64_MAX - 1))
        self.now += 20
        self.ingest(event(INCREMENT, 5))
        self.assertEqual(self.only().value, 3)
        self.assertAlmostEqual(self.rate(), 5 / 9)

    def test_gauge(self) -> None:
        self.ingest(event(UP, 2.5), event(DOWN, 1.0))
        self.assertEqual(self.only().value, 1.5)
        self.ingest(event(SET_GAUGE, -7.0))
        self.assertEqual(self.only().value, -7.0)

    def test_histogram(self) -> None:
        self.ingest(*[event(RECORD, 1.0)] * 3)
        self.assertEqual(self.only().value, 3)

    def test_series(self) -> None:
        """Series differ by kind, name and labels, and are in the order of their first events."""
        keys = [
            Key(MetricKind.COUNTER, "b"),
            Key(MetricKind.GAUGE, "b"),
            Key(MetricKind.COUNTER, "a", (("x", "1"),)),
            Key(MetricKind.COUNTER, "a", (("x", "2"),)),
        ]
        operations = {MetricKind.COUNTER: INCREMENT, MetricKind.GAUGE: UP}
        self.ingest(*(Metric(key, operations[key.kind], 1, 0) for key in keys * 2))
        self.assertEqual(list(self.view.series), keys)
        self.assertEqual([series.value for series in self.view.series.values()], [2] * 4)

    def test_equalKeys(self) -> None:
        """Equal keys may be different objects; the number of stored objects is limited."""
        for number in range(10_000):
            self.ingest(Metric(Key(MetricKind.COUNTER, f"m{number % 2}"), INCREMENT, 1, 0))
        self.assertEqual([series.value for series in self.view.series.values()], [5000, 5000])
        self.assertLess(len(self.view._by_identity), 2000)
        self.ingest(*(event(INCREMENT, 1, name="x" * 300_000) for _ in range(100)))
        self.assertLess(len(self.view._by_identity), 10)

    def test_failure(self) -> None:
        """Events before an error in the stream are applied and counted."""

        def events() -> Iterator[Event]:
            yield event(INCREMENT, 1)
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.view.ingest, events())
        self.assertEqual((self.only().value, self.view.events), (1, 1))

    def test_unknown(self) -> None:
        """Events that the decoder could not interpret are counted until `clear`."""
        self.ingest(Unknown("a"), Snapshot.BEGIN, event(INCREMENT, 1), Snapshot.END, Unknown("b"))
        self.assertEqual((self.view.unknown, self.view.events), (2, 1))
        self.view.clear()
        self.assertEqual(self.view.unknown, 0)

    def test_bounded(self) -> None:
        """Events of excess series are counted and ignored; known series are still updated."""
        self.view = SourceView(lambda: self.now, max_series=3)
        for _ in range(2):
            self.ingest(*(event(INCREMENT, 1, name=str(number)) for number in range(5)))
        self.assertEqual([str(key) for key in self.view.series], ["0", "1", "2"])
        self.assertEqual([series.value for series in self.view.series.values()], [2] * 3)
        self.assertEqual((self.view.refused, self.view.events), (4, 10))
        self.ingest(*(Metadata(MetricKind.COUNTER, str(number)) for number in range(5)))
        self.ingest(Metadata(MetricKind.COUNTER, "0", "bytes"))
        self.assertEqual(self.view.refused, 6)
        description = self.view.description(Key(MetricKind.COUNTER, "0"))
        self.assertEqual(description, Metadata(MetricKind.COUNTER, "0", "bytes"))
        self.assertIsNone(self.view.description(Key(MetricKind.COUNTER, "4")))
        self.assertIn(description, self.view.descriptions())

    def test_boundedBytes(self) -> None:
        """Names, labels and descriptions take `max_bytes`; the rest is counted and ignored."""
        self.view = SourceView(lambda: self.now, max_bytes=1_000_000)
        long = "x" * 300_000
        for number in range(5):
            self.ingest(event(INCREMENT, 1, name=f"{number}{long}"))
        for labels in [(("l", long),), tuple((f"{label}", "") for label in range(10_000))]:
            self.ingest(Metric(Key(MetricKind.COUNTER, "m", labels), INCREMENT, 1, 0))
        self.ingest(Metadata(MetricKind.COUNTER, "m", description=long))
        self.ingest(Metadata(MetricKind.COUNTER, "m", long))
        self.assertEqual([str(key)[0] for key in self.view.series], ["0", "1", "2"])
        self.assertEqual((self.view.refused, self.view.events), (2 + 2 + 2, 5 + 2))
        self.ingest(event(INCREMENT, 1))
        self.assertEqual([series.value for series in self.view.series.values()], [1] * 4)
        self.ingest(Gone(Key(MetricKind.COUNTER, f"0{long}")))
        self.ingest(Metadata(MetricKind.COUNTER, "m", description=long))
        self.ingest(event(INCREMENT, 1, name=f"0{long}"))
        self.assertEqual(self.view.refused, 7)
        self.ingest(Metadata(MetricKind.COUNTER, "m", "bytes"))
        self.ingest(event(INCREMENT, 1, name=f"0{long}"))
        self.assertEqual(self.view.refused, 7)

    def test_boundedAfterRestart(self) -> None:
        """Series of the previous run count when they appear again."""
        self.view = SourceView(lambda: self.now, max_series=2)
        self.ingest(Status("s", 1), event(INCREMENT, 1, name="a"), event(INCREMENT, 1, name="b"))
        self.ingest(Status("s", 2), *(event(INCREMENT, 1, name=name) for name in "cdab"))
        self.assertEqual([str(key) for key in self.view.series], ["c", "d"])

    def test_restartMakesRoom(self) -> None:
        """The series of a program's previous run make room for those of the next."""
        self.view = SourceView(lambda: self.now, max_bytes=1_000_000)
        for run in range(5):
            names = [letter * 300_000 for letter in "abcdefg"[run : run + 3]]
            self.ingest(Status("s", run), *(event(INCREMENT, 1, name=name) for name in names))
            self.assertEqual([key.name for key in self.view.series], names)

    @given(st.lists(st.tuples(st.sampled_from("sgrcmdef"), st.integers(0, 5)), max_size=60))
    def test_account(self, steps: list[tuple[str, int]]) -> None:
        """Whatever happens, the view accounts for what it keeps, and for nothing else."""
        view = SourceView(lambda: self.now, max_bytes=1800)
        for step, number in steps:
            name = "n" * number
            match step:
                case "s":
                    view.ingest([event(SET, 1, name=name), event(RECORD, 1.0, name=name)])
                case "g":
                    view.ingest([Gone(event(SET, 1, name=name).key, 1)])
                    view.ingest([Gone(event(RECORD, 1.0, name=name).key, 1)])
                case "r":
                    view.ingest([Status("s", number)])
                case "c":
                    view.clear()
                case "m":
                    view.ingest([Metadata(MetricKind.COUNTER, name, description="d" * number)])
                case "d":
                    view.ingest([Metadata(MetricKind.COUNTER, name)])
                case "e":
                    view.ingest([Snapshot.BEGIN_COMPLETE])
                case _:
                    view.ingest([Snapshot.END])
            descriptions = Descriptions(budget := Budget(1 << 20))
            for metadata in view._descriptions.values():
                descriptions.put(metadata)
            kept = [*view.series, *view._previous_run, *view._cleared]
            self.assertEqual(len(kept), len({*kept}))
            self.assertEqual(view._text.used, budget.used + sum(map(key_size, kept)))
            self.assertLessEqual(view._text.used, 1800)
            identified = [key for one in view.series.values() for key in one._identified]
            self.assertEqual({*map(id, identified)}, {*view._by_identity})
            self.assertEqual(view._identified_bytes, sum(map(key_size, identified)))

    def test_description(self) -> None:
        """Descriptions belong to a kind and a name; the last one replaces the others."""
        key = Key(MetricKind.GAUGE, "m", (("a", "b"),))
        self.assertIsNone(self.view.description(key))
        self.ingest(Metadata(MetricKind.GAUGE, "m", "bytes"), Metadata(MetricKind.COUNTER, "m"))
        self.ingest(Metadata(MetricKind.GAUGE, "m", "seconds", "Age."))
        self.assertEqual(
            self.view.description(key), Metadata(MetricKind.GAUGE, "m", "seconds", "Age.")
        )

    def test_recent(self) -> None:
        """Only a watched series keeps events, and only the last few."""
        self.ingest(event(INCREMENT, 1))
        series = self.only()
        self.assertEqual(list(series.recent), [])
        series.watch()
        self.ingest(*(event(INCREMENT, number, when=number) for number in range(50)))
        series.watch()
        expected = [(number, INCREMENT, number) for number in range(50 - RECENT, 50)]
        self.assertEqual(list(series.recent), expected)
        series.watch(False)
        self.ingest(event(INCREMENT, 1))
        self.assertEqual(list(series.recent), [])


class RateTests(ViewCase):
    def test_steady(self) -> None:
        """Once the window is full, the rate of a steady stream is constant."""
        for step in range(300):
            self.ingest(event(INCREMENT, 1), event(RECORD, 1.0), event(UP, -2.0))
            self.now = 1000 + (step + 1) / 10
            if step > 100:
                rates = [series.rate(self.now) for series in self.view.series.values()]
                self.near(rates[0], 10, 0.2)
                self.near(rates[1], 10, 0.2)
                self.near(rates[2], -20, 0.5)

    def test_rateAfterLastEvent(self) -> None:
        """The rate falls to zero ten seconds after the last event."""
        self.ingest(event(INCREMENT, 30))
        self.now += 9.5
        self.assertAlmostEqual(self.rate(), 30 / 9.5)
        self.now += 0.5
        self.assertEqual(self.rate(), 0)

    def test_shortTime(self) -> None:
        """A rate covers at least one second."""
        self.ingest(event(INCREMENT, 1))
        self.now += 1e-6
        self.assertEqual(self.rate(), 1)
        self.now += 4
        self.assertAlmostEqual(self.rate(), 1 / 4, places=4)

    def test_base(self) -> None:
        """The first known value does not count as a change."""
        self.ingest(event(SET, 1_000_000), event(SET_GAUGE, 1e6))
        for series in self.view.series.values():
            self.assertEqual(series.rate(self.now), 0)
        self.now += 5
        self.ingest(event(INCREMENT, 10), event(UP, 10.0))
        for series in self.view.series.values():
            self.assertEqual(series.rate(self.now), 2)

    def test_set(self) -> None:
        """The increase of a SET is spread over the time since the previous SET."""
        self.ingest(event(SET, 100))
        self.now += 20
        self.ingest(event(SET, 140))
        self.assertEqual(self.only().value, 140)
        self.now += 0.999
        self.near(self.rate(), 2, 0.01)
        history = self.only().history(self.now + 1)
        self.assertEqual([round(one, 6) for one in history], [0.0] * 40 + [2.0] * 20)

    def test_setAfterLongTime(self) -> None:
        """The increase of a SET is spread over a minute at most."""
        self.ingest(event(SET, 0))
        self.now += 100_000
        self.ingest(event(SET, 640))
        self.assertEqual(self.only().history(self.now + 1), [10.0] * 60)

    def test_resync(self) -> None:
        """The history of increments and a later SET adds up to the increase of the total."""
        self.view.connected()
        self.ingest(Status("s", 1), event(SET, 1000))
        for _ in range(5):
            self.now += 1
            self.ingest(event(INCREMENT, 10))
        # 90 of 100 events per second were dropped.
        self.ingest(Status("s", 1, 0, 450), event(SET, 1500))
        self.assertEqual(self.only().history(self.now + 1)[-6:], [0] + [100.0] * 5)
        self.assertEqual(self.only().value, 1500)
        self.now += 1
        self.assertEqual(self.only().history(self.now)[-6:], [0] + [100.0] * 5)

    def test_reconnected(self) -> None:
        """The first totals of a connection do not count as changes; later ones do."""
        self.view.connected()
        self.ingest(Status("s", 1), event(SET, 1000), event(SET, 5, name="absolute"))
        self.now += 3
        self.view.connected()
        self.ingest(Status("s", 1), event(SET, 9000), event(SET, 6, name="absolute"))
        series, absolute = self.view.series.values()
        self.assertEqual((series.value, series.rate(self.now)), (9000, 0))
        self.now += 1
        self.ingest(event(INCREMENT, 8), event(SET, 10, name="absolute"))
        self.assertEqual((series.value, series.rate(self.now)), (9008, 2))
        self.assertEqual((absolute.value, absolute.rate(self.now)), (10, 1))

    def test_connectionWithoutCall(self) -> None:
        """A status without drops starts a new connection."""
        self.ingest(Status("s", 1), event(SET, 1000))
        self.now += 3
        self.ingest(Status("s", 1), event(SET, 9000))
        self.assertEqual(self.rate(), 0)

    def test_change(self) -> None:
        """C{change} covers the whole time since the first event."""
        self.view.connected()
        self.ingest(Status("s", 1), event(SET, 1000), event(SET_GAUGE, 5.0), event(RECORD, 1.0))
        self.ingest(event(UP, 2.0, name="new"), event(INCREMENT, 3, name="new"))
        for _ in range(10):
            self.now += 100
            self.ingest(event(INCREMENT, 1), event(UP, -1.0))
        self.ingest(event(SET, 1100))
        changes = [series.change for series in self.view.series.values()]
        self.assertEqual(changes, [100, -10.0, 1, 2.0, 3])
        self.view.connected()
        self.ingest(Status("s", 2), event(SET, 50), event(SET_GAUGE, 7.0), event(INCREMENT, 1))
        counter, gauge = self.view.series.values()
        self.assertEqual((counter.change, gauge.change), (101, 0))

    def test_lowerTotal(self) -> None:
        """A lower total is a new base and does not count as a change."""
        self.ingest(event(INCREMENT, 100))
        self.now += 20
        self.ingest(event(SET, 10))
        self.assertEqual((self.only().value, self.rate()), (10, 0))
        self.now += 5
        self.ingest(event(INCREMENT, 9))
        self.assertEqual(self.rate(), 1)

    def test_setOfNewSeries(self) -> None:
        """The total of a counter whose first event is an increment is exact."""
        self.ingest(event(INCREMENT, 1))
        self.now += 9
        self.ingest(event(SET, 10))
        self.assertAlmostEqual(self.rate(), 10 / 9)

    def test_history(self) -> None:
        """The history contains complete seconds only, oldest first."""
        self.now = 1000.5
        self.ingest(event(INCREMENT, 1), event(SET_GAUGE, 5.0), event(RECORD, 0.5))
        counter, gauge, histogram = self.view.series.values()
        self.assertEqual(counter.history(self.now, 3), [0, 0, 0])
        self.now = 1003.0
        self.ingest(event(INCREMENT, 2), event(INCREMENT, 2), event(SET_GAUGE, 7.0))
        self.assertEqual(counter.history(self.now, 4), [0, 1, 0, 0])
        self.assertEqual(histogram.history(self.now, 4), [0, 1, 0, 0])
        self.assertEqual(str(gauge.history(self.now, 4)), str([math.nan, 5.0, 5.0, 5.0]))
        self.now = 1004.9
        self.assertEqual(counter.history(self.now, 5), [0, 1, 0, 0, 4])
        self.assertEqual(gauge.history(self.now, 3), [5.0, 5.0, 7.0])
        self.assertEqual(len(counter.history(self.now)), 60)
        self.now = 1064.9
        self.assertEqual(counter.history(self.now), [0] * 60)
        self.assertEqual(gauge.history(self.now), [7.0] * 60)
        self.ingest(event(SET_GAUGE, 8.0), event(INCREMENT, 1))
        self.assertEqual(gauge.history(self.now), [7.0] * 60)
        self.assertEqual(counter.history(self.now), [0] * 60)

    def test_notFiniteGauge(self) -> None:
        """The rate of an infinite or NaN gauge is NaN, until the value is finite again."""
        for value in (math.inf, -math.inf, math.nan):
            self.ingest(event(SET_GAUGE, value))
            self.now += 1
            self.assertTrue(math.isnan(self.rate()))
            self.assertEqual(str(self.only().history(self.now, 1)), str([value]))
        self.ingest(event(SET_GAUGE, 1.0))
        self.now += 20
        self.assertEqual(self.rate(), 0)

    def test_clockSetBack(self) -> None:
        """When the clock goes back, history and rates start again, and totals continue."""
        self.ingest(event(INCREMENT, 5), event(UP, 5.0), event(RECORD, 5.0))
        self.now -= 500
        self.ingest(event(INCREMENT, 1), event(UP, 1.0), event(RECORD, 1.0))
        self.assertEqual([series.value for series in self.view.series.values()], [6, 6.0, 2])
        for series in self.view.series.values():
            self.assertEqual(len(series.history(self.now + 1)), 60)
            self.assertTrue(math.isfinite(series.rate(self.now)))
        counter, _gauge, histogram = self.view.series.values()
        self.assertEqual(counter.history(self.now + 1)[-2:], [0, 1])
        self.now += 20
        summary = histogram.summary(60, self.now)
        assert summary is not None
        self.ingest(event(RECORD, 1.0))
        summary = histogram.summary(60, self.now)
        assert summary is not None
        self.assertEqual((summary.count, summary.max), (2, 1.0))


class StatusTests(ViewCase):
    def test_none(self) -> None:
        """Without a status, as from a Rust server, totals only include received events."""
        self.view.connected()
        self.ingest(event(INCREMENT, 1))
        self.view.connected()
        self.ingest(event(INCREMENT, 1))
        self.assertIsNone(self.view.status)
        self.assertEqual(self.only().value, 2)
        self.assertEqual((self.view.restarts, self.view.restarted_at), (0, None))

    def test_missed(self) -> None:
        """Drops are summed over all connections; each connection starts at zero."""
        self.view.connected()
        self.ingest(Status("s", 1), Status("s", 1, 10, 3))
        self.ingest(Status("s", 1, 12, 3))
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (12, 3))
        self.view.connected()
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (12, 3))
        self.ingest(Status("s", 1), Status("s", 1, 5, 5))
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (17, 8))
        self.view.connected()
        self.ingest(Status("s", 2), Status("s", 2, 1, 0))
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (18, 8))
        self.assertEqual(self.view.status, Status("s", 2, 1, 0))

    def test_restart(self) -> None:
        """After a restart of the server, the view has only new series, which start at zero."""
        self.view.connected()
        self.ingest(Status("s", 1), event(SET, 1000), event(UP, 5.0), event(RECORD, 5.0))
        self.ingest(event(INCREMENT, 1, name="gone"))
        self.now += 2
        self.view.connected()
        self.ingest(Status("s", 2))
        self.assertEqual((self.view.restarts, self.view.restarted_at), (1, 1002.0))
        self.assertEqual(self.view.series, {})
        self.ingest(event(UP, 1.0), event(SET, 3), event(RECORD, 7.0))
        self.assertEqual([series.value for series in self.view.series.values()], [1.0, 3, 1])
        gauge, counter, histogram = self.view.series.values()
        self.assertEqual(counter.rate(self.now), 0)
        self.assertEqual((counter.events, gauge.events), (1, 1))
        summary = histogram.summary()
        assert summary is not None
        self.assertEqual((summary.count, summary.max), (1, 7.0))

    def test_restartKeepsCharts(self) -> None:
        """The history of a series survives a restart of the server."""
        self.ingest(Status("s", 1), event(INCREMENT, 7), event(SET_GAUGE, 3.0))
        self.now += 2
        self.ingest(Status("s", 2), event(INCREMENT, 1), event(SET_GAUGE, 4.0))
        counter, gauge = self.view.series.values()
        self.assertEqual(counter.value, 1)
        self.assertEqual(counter.history(self.now + 1, 3), [7, 0, 1])
        self.assertEqual(gauge.history(self.now + 1, 3)[::2], [3.0, 4.0])

    def test_restartWithinSecond(self) -> None:
        """A restart discards the previous run's values, even within the same second."""
        self.ingest(Status("s", 1), event(RECORD, 5.0), event(SET, 9), event(UP, 4.0))
        self.view.clear()
        self.ingest(event(RECORD, 5.0))
        self.now += 20
        self.ingest(event(RECORD, 5.0), Status("s", 2), event(RECORD, 7.0))
        summary = self.only().summary()
        assert summary is not None
        self.assertEqual((summary.count, summary.min), (1, 7.0))
        self.ingest(event(INCREMENT, 1), event(UP, 1.0))
        self.assertEqual([series.value for series in self.view.series.values()], [1, 1, 1.0])

    def test_restartAndResync(self) -> None:
        """The increase of a SET is not spread beyond the last restart."""
        self.ingest(Status("s", 1), event(INCREMENT, 1))
        self.now += 40
        self.ingest(Status("s", 2), event(INCREMENT, 1))
        self.now += 10
        self.ingest(event(SET, 101))
        self.assertEqual(self.only().history(self.now + 1, 11), [1] + [10.0] * 10)

    def test_clear(self) -> None:
        """
        C{clear} removes everything except totals, also the distribution of a histogram, and
        descriptions.
        """
        self.view.connected()
        self.ingest(Status("s", 1), event(SET, 100), event(SET_GAUGE, 7.0), event(RECORD, 1.0))
        self.ingest(Metadata(MetricKind.COUNTER, "m", "bytes"), Status("s", 1, 5, 6))
        self.now += 100
        self.view.clear()
        self.assertEqual((self.view.series, self.view.events), ({}, 0))
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (0, 0))
        self.now += 5
        self.ingest(event(INCREMENT, 5), event(UP, 1.0), event(RECORD, 2.0))
        self.assertEqual([series.value for series in self.view.series.values()], [105, 8.0, 2])
        self.assertEqual([series.events for series in self.view.series.values()], [1, 1, 1])
        self.assertEqual(next(iter(self.view.series.values())).rate(self.now), 1)
        self.assertIsNotNone(self.view.description(Key(MetricKind.COUNTER, "m")))
        self.ingest(Status("s", 1, 7, 6))
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (2, 0))
        self.view.connected()
        self.ingest(Status("s", 1), Status("s", 1, 1, 0))
        self.assertEqual((self.view.missed_incoming, self.view.missed_client), (3, 0))


class GoneTests(ViewCase):
    def names(self) -> list[str]:
        return [str(key) for key in self.view.series]

    def gone(self, kind: MetricKind, name: str = "m") -> None:
        self.ingest(Gone(Key(kind, name)))

    def test_gone(self) -> None:
        """A gone series is removed, of any kind, and counted if it was known."""
        events = [event(INCREMENT, 1), event(UP, 1.0), event(RECORD, 1.0)]
        self.ingest(*events)
        for count, kind in enumerate(MetricKind, 1):
            self.gone(kind)
            self.gone(kind)
            self.assertNotIn(kind, [key.kind for key in self.view.series])
            self.assertEqual(self.view.gone, count)
        self.assertEqual(self.view.events, 3)
        self.assertEqual(self.view._by_identity, {})
        self.view.clear()
        self.assertEqual(self.view.gone, 0)

    def test_beginsAgain(self) -> None:
        """A series that begins again is a new one, also if the event has the same key object."""
        again = event(INCREMENT, 2)
        self.ingest(event(SET, 40), event(INCREMENT, 1, name="n"), again, again)
        before = self.view.series[again.key]
        self.now += 5
        self.ingest(Gone(again.key), again, again)
        series = self.view.series[again.key]
        self.assertIsNot(series, before)
        self.assertEqual((series.value, series.events, series.change), (4, 2, 4))
        self.assertEqual(self.names(), ["n", "m"])
        self.ingest(Gone(again.key), event(SET, 100))
        series = self.view.series[again.key]
        self.assertEqual((series.value, series.change), (100, 0))

    def test_goneWhileCleared(self) -> None:
        """A series that goes after `clear` begins again without its old total."""
        self.ingest(event(INCREMENT, 7), event(UP, 7.0))
        self.view.clear()
        self.gone(MetricKind.COUNTER)
        self.ingest(event(INCREMENT, 1), event(UP, 1.0))
        self.assertEqual([series.value for series in self.view.series.values()], [1, 8.0])

    def test_goneAfterRestart(self) -> None:
        """A series of the previous run that has gone begins again without its charts."""
        self.ingest(Status("s", 1), event(INCREMENT, 7))
        self.now += 2
        self.ingest(Status("s", 2))
        self.gone(MetricKind.COUNTER)
        self.ingest(event(INCREMENT, 1))
        self.assertEqual(self.only().history(self.now + 1, 3), [0, 0, 1])

    def test_makesRoom(self) -> None:
        self.view = SourceView(lambda: self.now, max_series=1)
        self.ingest(event(INCREMENT, 1), event(INCREMENT, 1, name="n"))
        self.assertEqual(self.names(), ["m"])
        self.gone(MetricKind.COUNTER)
        self.ingest(event(INCREMENT, 1, name="n"))
        self.assertEqual(self.names(), ["n"])

    def test_completeSnapshot(self) -> None:
        """
        The end of a complete snapshot removes the counters and gauges that it has not set.
        Histograms stay unless a status shows that the server sends their totals.
        """
        self.ingest(event(INCREMENT, 1), event(UP, 1.0), event(RECORD, 1.0))
        # A decoder returns the same key object again.
        kept = event(SET, 5, name="n")
        self.ingest(kept)
        begin, end = Snapshot.BEGIN_COMPLETE, Snapshot.END
        self.ingest(begin, kept, event(SET, 6, name="new"))
        self.assertEqual(self.names(), ["m", "m", "m", "n", "new"])
        self.ingest(end)
        self.assertEqual(
            [(str(key), series.value) for key, series in self.view.series.items()],
            [("m", 1), ("n", 5), ("new", 6)],
        )
        self.assertEqual(self.view.gone, 2)
        # A second end, and the events after it, remove nothing.
        self.ingest(end, event(INCREMENT, 1), end)
        self.assertEqual(self.names(), ["m", "n", "new", "m"])

    def test_incompleteSnapshot(self) -> None:
        """A snapshot of the series that may be wrong removes none."""
        self.ingest(event(INCREMENT, 1), event(INCREMENT, 1, name="n"))
        self.ingest(Snapshot.BEGIN, event(SET, 5, name="n"), Snapshot.END)
        self.assertEqual(self.names(), ["m", "n"])

    def test_unfinishedSnapshot(self) -> None:
        """A complete snapshot without an end removes nothing, whatever follows it."""
        for following in (
            lambda: self.ingest(Snapshot.BEGIN),
            lambda: self.ingest(Status("s", 1)),
            self.view.connected,
        ):
            self.ingest(event(INCREMENT, 1), Snapshot.BEGIN_COMPLETE)
            following()
            self.ingest(Snapshot.END)
            self.assertEqual(self.names(), ["m"])
        # The next beginning replaces it.
        self.ingest(event(INCREMENT, 1, name="n"))
        self.ingest(Snapshot.BEGIN_COMPLETE, event(SET, 5))
        self.ingest(Snapshot.BEGIN_COMPLETE, event(SET, 5, name="n"), Snapshot.END)
        self.assertEqual(self.names(), ["n"])

    def test_reconnected(self) -> None:
        """Series that went while no connection existed are removed with the first snapshot."""
        self.view.connected()
        self.ingest(Status("s", 1), event(INCREMENT, 1), event(INCREMENT, 1, name="n"))
        self.view.connected()
        self.ingest(Status("s", 1), Snapshot.BEGIN_COMPLETE, event(SET, 1, name="n"))
        self.ingest(Snapshot.END)
        self.assertEqual(self.names(), ["n"])

    def test_clearedWithinSnapshot(self) -> None:
        """After C{clear} within a complete snapshot, series continue with their totals."""
        self.ingest(event(INCREMENT, 1), event(INCREMENT, 1, name="n"))
        self.ingest(Snapshot.BEGIN_COMPLETE, event(SET, 5))
        self.view.clear()
        self.ingest(event(SET, 6, name="n"), Snapshot.END, event(INCREMENT, 1))
        self.assertEqual([series.value for series in self.view.series.values()], [6, 6])

    def test_clearedBeforeSnapshot(self) -> None:
        """A complete snapshot also removes totals from before C{clear}."""
        self.ingest(event(INCREMENT, 1), event(INCREMENT, 1, name="n"))
        self.view.clear()
        self.ingest(Snapshot.BEGIN_COMPLETE, event(SET, 5), Snapshot.END)
        self.ingest(event(INCREMENT, 1), event(INCREMENT, 1, name="n"))
        self.assertEqual([series.value for series in self.view.series.values()], [6, 1])

    def test_goneWithinSnapshot(self) -> None:
        """A peer that sends `Gone` within a snapshot, which no exporter does, is no problem."""
        self.ingest(event(INCREMENT, 1), Snapshot.BEGIN_COMPLETE)
        self.gone(MetricKind.COUNTER)
        self.ingest(Snapshot.END)
        self.assertEqual(self.names(), [])


class SummaryTests(ViewCase):
    def record(self, *samples: float) -> None:
        self.ingest(*(event(RECORD, sample) for sample in samples))

    def test_onlyHistograms(self) -> None:
        self.ingest(event(INCREMENT, 1))
        self.assertIsNone(self.only().summary())

    def test_few(self) -> None:
        """Statistics of few samples are exact."""
        self.record(*range(1, 101))
        summary = self.only().summary()
        assert summary is not None
        self.assertEqual((summary.count, summary.sum, summary.mean), (100, 5050, 50.5))
        self.assertEqual((summary.min, summary.max), (1, 100))
        self.assertEqual((summary.p50, summary.p90, summary.p99, summary.p999), (50, 90, 99, 99))

    def test_many(self) -> None:
        """Percentiles of many samples are accurate to one percent."""
        chance = random.Random(1)
        samples = [chance.lognormvariate(0, 3) for _ in range(5 * MAX_EXACT)]
        for at in range(0, len(samples), 100):
            self.record(*samples[at : at + 100])
        series = self.only()
        for window in (None, 10, 300):
            summary = series.summary(window, self.now)
            assert summary is not None
            samples.sort()
            self.assertEqual(summary.count, len(samples))
            self.assertAlmostEqual(summary.sum, math.fsum(samples))
            self.assertEqual((summary.min, summary.max), (samples[0], samples[-1]))
            for value, part in (
                (summary.p50, 0.5),
                (summary.p90, 0.9),
                (summary.p99, 0.99),
                (summary.p999, 0.999),
            ):
                exact = samples[int(part * (len(samples) - 1))]
                self.near(value, exact, exact * 0.0101)

    def test_windows(self) -> None:
        """A summary excludes samples older than the window plus a fifth of it."""
        for second in range(1000):
            self.now = 1000.0 + second
            self.record(second)
        series = self.only()
        for window in (10, 60, 300):
            summary = series.summary(window, self.now)
            assert summary is not None
            self.assertGreaterEqual(summary.count, window)
            self.assertLessEqual(summary.count, window * 1.2 + 1)
            self.assertEqual(summary.max, 999)
            self.assertEqual(summary.min, 1000 - summary.count)
        summary = series.summary()
        assert summary is not None
        self.assertEqual((summary.count, summary.min), (1000, 0))

    def test_windowPasses(self) -> None:
        """Samples leave the window even if no new ones arrive."""
        self.record(1.0)
        series = self.only()
        for later, window, count in (
            (5, 10, 1),
            (12, 10, 0),
            (12, 60, 1),
            (72, 60, 0),
            (72, 300, 1),
            (360, 300, 0),
            (1e6, None, 1),
        ):
            summary = series.summary(window, self.now + later)
            assert summary is not None
            self.assertEqual(summary.count, count, (later, window))
        self.assertTrue(math.isnan(summary.p50) or summary.count)

    def test_empty(self) -> None:
        self.record(1.0)
        summary = self.only().summary(10, self.now + 100)
        assert summary is not None
        self.assertEqual((summary.count, summary.sum), (0, 0))
        for value in (summary.min, summary.p50, summary.p999, summary.max, summary.mean):
            self.assertTrue(math.isnan(value))

    def test_extremeSamples(self) -> None:
        """Extreme finite samples are counted; infinities and NaN are counted separately."""
        most = 1.7976931348623157e308
        odd = [0.0, -0.0, -1.0, 5e-324, -5e-324, most, -most, math.inf, -math.inf, math.nan]
        for times in (1, MAX_EXACT):
            self.record(*odd * times)
            summary = self.only().summary(10, self.now)
            assert summary is not None
            self.assertEqual((summary.min, summary.max), (-most, most))
            self.assertAlmostEqual(summary.p50, 0.0)
        self.assertEqual(summary.count, 7 * (1 + MAX_EXACT))
        self.assertEqual(summary.not_finite, 3 * (1 + MAX_EXACT))

    def test_overflowingSum(self) -> None:
        """The mean of finite samples is finite, in any window, even if their sum is not."""
        most = 1.7976931348623157e308
        for samples, expected in (
            ([most] * 3 * MAX_EXACT, most),
            ([most, most, -most, -most], 0),
            ([most, most, most / 2, most / 2], most * 0.75),
        ):
            self.setUp()
            self.record(*samples)
            self.now += 10
            self.record(most / 2)
            summary = self.only().summary(300, self.now)
            assert summary is not None
            mean = (expected / most * len(samples) + 0.5) / (len(samples) + 1)
            self.near(summary.mean / most, mean, 0.011)
            self.assertFalse(math.isnan(summary.sum))

    def test_swing(self) -> None:
        """The rate of a gauge whose change overflows is finite."""
        self.view.ingest([event(Operation.SET_GAUGE, 1e308)])
        self.now += 5
        self.view.ingest([event(Operation.SET_GAUGE, -1e308)])
        series = self.only()
        self.assertAlmostEqual(series.rate(self.now) / 1e307, -4, delta=1)
        self.assertAlmostEqual(series.average_rate(5) / 1e307, -4)

    def test_negative(self) -> None:
        self.record(*(-float(number) for number in range(1, 2001)))
        summary = self.only().summary()
        assert summary is not None
        self.near(summary.p50, -1001, 10.1)
        self.near(summary.p99, -21, 0.22)

    def test_boundedMemory(self) -> None:
        """The number of buckets is limited."""
        chance = random.Random(2)
        for _ in range(20):
            self.record(*(10 ** chance.uniform(-300, 300) for _ in range(MAX_EXACT)))
        summary = self.only().summary()
        assert summary is not None
        self.assertEqual(summary.count, 20 * MAX_EXACT)
        distribution = self.only().distribution
        assert distribution is not None
        self.assertLessEqual(distribution.occupied, MAX_BUCKETS)
        self.assertTrue(summary.min <= summary.p50 <= summary.p99 <= summary.max)

    def test_pendingOfAll(self) -> None:
        """The number of pending samples of all series together is limited."""
        self.patch(module, "MAX_PENDING", 1000)
        for number in range(100):
            for name in "abc":
                self.ingest(*[event(RECORD, 1.0, name=f"{name}{number % 10}")] * 7)
            pending = sum(len(one._pending) for one in self.view.series.values())
            self.assertLess(pending, 1000 + 7)
        self.assertEqual({one.summary().count for one in self.view.series.values()}, {70})  # type: ignore[union-attr]

    def test_boundedBytes(self) -> None:
        """
        The samples of all series take `SAMPLE_BYTES`.  Beyond it, percentiles of a series are NaN
        until the samples so far are no longer in the window; count, sum, least and greatest stay.
        """
        self.patch(module, "SAMPLE_BYTES", 100_000)
        self.view = SourceView(lambda: self.now)
        names = [str(number) for number in range(10)]
        for _ in range(20):
            self.now += 2
            for name in names:
                samples = (10.0**exponent for exponent in range(-150, 150))
                self.ingest(*(event(RECORD, sample, name=name) for sample in samples))
                self.assertLessEqual(self.view._samples.used, 100_000)
        summaries = [one.summary() for one in self.view.series.values()]
        for summary in summaries:
            assert summary is not None
            self.assertEqual((summary.count, summary.min, summary.max), (6000, 1e-150, 1e149))
            self.near(summary.sum / 20e149, 10 / 9, 0.01)
        self.assertTrue(any(math.isnan(summary.p50) for summary in summaries if summary))
        for _ in range(10):
            self.now += 2
            self.ingest(*(event(RECORD, 3.0, name=name) for name in names))
        for one in self.view.series.values():
            summary = one.summary(10, self.now)
            assert summary is not None
            self.assertEqual((summary.p50, summary.max), (3.0, 3.0))

    def test_samplesMakeRoom(self) -> None:
        """Series that are removed need no room for their samples."""
        for remove in (
            lambda: self.ingest(Gone(Key(MetricKind.HISTOGRAM, "m"))),
            lambda: (self.view.clear(), self.ingest(Gone(Key(MetricKind.HISTOGRAM, "m")))),
            lambda: self.ingest(Status("s", 2)),
        ):
            self.ingest(Status("s", 1))
            self.ingest(*[event(RECORD, 1.0)] * 100)
            self.only().summary()
            self.assertEqual(self.view._samples.used, 800)
            remove()
            self.assertEqual(self.view._samples.used, 0)

    def test_samplesOfIntervals(self) -> None:
        """The budget has the size of all intervals, also after a clock that goes back."""
        for limit in 1 << 30, 6_000:
            windows = Windows(budget := Budget(limit))
            for start in [*range(0, 1000, 10), 500, *range(500, 600, 2)]:
                samples = [10.0 ** (start % 97), math.nan] * (start % 7 * 50)
                windows.add(samples)
                if start % 6 == 0:
                    windows.set_total(Distribution.of(samples), start)
                    windows.add(samples)
                if start % 50 == 0:
                    windows.clear()
                windows.close(start)
                levels = (part for level in windows._levels for _, part in level)
                kept = windows._all, windows._recent, windows._open, *levels
                self.assertEqual(budget.used, sum(part.size for part in kept))
                self.assertLessEqual(budget.used, limit)

    def test_emptyInterval(self) -> None:
        """An interval without samples changes nothing."""
        windows = Windows(Budget(1 << 30))
        windows.add([1.0])
        windows.close(0)
        before = windows.samples(60, 20, 20).summary()
        windows.close(10)
        self.assertEqual(windows.samples(60, 20, 20).summary(), before)
        self.assertEqual(before.count, 1)


ANY_KEY = st.sampled_from("ab")
ANY_EVENT = (
    st.builds(event, st.sampled_from([INCREMENT, SET]), st.integers(0, U64_MAX), ANY_KEY)
    | st.builds(event, st.sampled_from([UP, DOWN, SET_GAUGE, RECORD]), st.floats(), ANY_KEY)
    | st.builds(
        Status,
        st.just("s"),
        st.integers(1, 2),
        st.integers(0, 3),
        st.integers(0, 3),
    )
    | st.builds(Metadata, st.just(MetricKind.COUNTER), ANY_KEY, st.just("bytes"))
    | st.builds(lambda kind, name: Gone(Key(kind, name)), st.sampled_from(MetricKind), ANY_KEY)
    | st.sampled_from(Snapshot)
)


def state_of(view: SourceView, now: float) -> str:
    """Return the complete state of a view, as text because NaN is not equal to itself."""
    return repr(
        [
            (
                str(key),
                series.value,
                series.events,
                series.rate(now),
                series.history(now),
                [series.summary(window, now) for window in (None, 10, 60, 300)],
            )
            for key, series in view.series.items()
        ]
        + [view.events, view.missed_incoming, view.missed_client, view.restarts, view.status]
    )


class ChunkTests(SynchronousTestCase):
    @given(st.lists(st.tuples(ANY_EVENT, st.integers(0, 3)), max_size=40), st.data())
    def test_anyChunks(self, steps: list[tuple[Event, int]], data: st.DataObject) -> None:
        """The state does not depend on how the events of one moment are divided among calls."""
        now = 100.0
        one = SourceView(lambda: now)
        other = SourceView(lambda: now)
        pending: list[Event] = []
        for received, passed in steps:
            if passed:
                other.ingest(pending)
                pending.clear()
                now += passed
            one.ingest([received])
            pending.append(received)
            if data.draw(st.booleans()):
                other.ingest(pending)
                pending.clear()
        other.ingest(pending)
        self.assertEqual(state_of(one, now), state_of(other, now))

    @given(st.lists(st.tuples(ANY_EVENT, st.floats(0, 100)), max_size=60))
    def test_anyStream(self, steps: list[tuple[Event, float]]) -> None:
        """Increases and rates are never negative."""
        now = 100.0
        view = SourceView(lambda: now)
        for received, passed in steps:
            now += passed
            view.ingest([received])
            for key, series in view.series.items():
                if key.kind is not MetricKind.GAUGE:
                    self.assertGreaterEqual(series.change, 0)
                    self.assertGreaterEqual(series.rate(now), 0)
                    self.assertTrue(all(one >= 0 for one in series.history(now)))
