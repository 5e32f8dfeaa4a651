"""
Totals of histograms in a view: distributions since the program's start, and lost samples.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.view.test_series import INCREMENT, RECORD, ViewCase, event
from txmetrics_tcp import (
    Distribution,
    Gone,
    HistogramTotal,
    Key,
    MetricKind,
    Snapshot,
    SourceView,
    Status,
)
from txmetrics_tcp._view import series as module
from txmetrics_tcp._view.windows import FINEST, MAX_EXACT, QUANTILES, WINDOWS, Summary

BEGIN, END = Snapshot.BEGIN_COMPLETE, Snapshot.END


def total(*samples: float, name: str = "m", when: int = 0) -> HistogramTotal:
    return HistogramTotal(Key(MetricKind.HISTOGRAM, name), Distribution.of(samples), when)


class HistogramCase(ViewCase):
    def record(self, *samples: float, name: str = "m") -> None:
        self.ingest(*(event(RECORD, sample, name=name) for sample in samples))

    def summary(self, window: float | None = None, name: str = "m") -> Summary:
        summary = self.view.series[Key(MetricKind.HISTOGRAM, name)].summary(window, self.now)
        assert summary is not None
        return summary

    def partial(self, name: str = "m") -> list[bool]:
        """Return whether each window, and all time, is partial."""
        return [self.summary(window, name).partial for window in (*WINDOWS, None)]

    def distribution(self) -> Distribution:
        distribution = self.only().distribution
        assert distribution is not None
        return distribution

    def names(self) -> list[str]:
        return [str(key) for key in self.view.series]


class TotalTests(HistogramCase):
    def test_total(self) -> None:
        """A total replaces the distribution; later samples are added to it."""
        self.record(1.0, 2.0)
        self.ingest(total(1.0, 2.0, -3.0, 0.0, math.inf, when=7))
        series = self.only()
        self.assertEqual((series.value, series.events, series.timestamp_ns), (5, 3, 7))
        self.assertEqual(self.view.events, 3)
        self.assertEqual(self.distribution(), Distribution.of([1, 2, -3, 0, math.inf]))
        self.record(5.0)
        self.assertEqual(self.distribution(), Distribution.of([1, 2, -3, 0, math.inf, 5]))
        summary = self.summary()
        self.assertEqual((summary.count, summary.sum, summary.not_finite), (5, 5.0, 1))
        self.assertEqual((summary.min, summary.max), (-3.0, 5.0))
        self.near(summary.p50, 1.0, 0.011)
        self.assertEqual((series.value, series.updated), (6, self.now))

    def test_lateViewer(self) -> None:
        """The first total is known at once; it is no sample of a window, and no change."""
        self.now += 10
        self.ingest(Status("s", 1), BEGIN, total(*[1.0] * 1000), END)
        self.assertEqual((self.only().value, self.summary().p99), (1000, 1.0))
        self.assertEqual(self.summary(60).count, 0)
        self.assertEqual(self.partial(), [False] * 4)
        self.assertEqual((self.rate(), self.only().change), (0, 0))
        self.now += 5
        self.record(*[2.0] * 10)
        self.assertEqual((self.rate(), self.only().change), (10 / 9, 10))
        summary = self.summary(10)
        self.assertEqual((summary.count, summary.p50), (10, 2.0))

    def test_notHistogram(self) -> None:
        self.ingest(event(INCREMENT, 1))
        self.assertIsNone(self.only().distribution)

    def test_rate(self) -> None:
        """Samples that only a total shows are spread over the time since the last total."""
        self.ingest(Status("s", 1), total())
        self.now += 20
        self.ingest(total(*[1.0] * 40))
        history = self.only().history(self.now + 1)
        self.assertEqual([round(one, 6) for one in history], [0.0] * 40 + [2.0] * 20)
        self.view.connected()
        self.ingest(total(*[1.0] * 1000))
        self.assertEqual(self.only().change, 40)
        self.ingest(total(1.0))
        self.assertEqual((self.only().change, self.only().value), (40, 1))

    def test_windowsKeepSamples(self) -> None:
        """A total within an interval leaves the samples in their windows."""
        for _ in range(30):
            self.record(1.0)
            self.ingest(total(*[1.0] * 50))
            self.record(3.0)
            self.now += 1
        self.assertEqual(self.summary(60).count, 60)
        self.assertEqual(self.summary(300).p50, 1.0)
        self.assertEqual(self.summary().count, 51)

    def test_complete(self) -> None:
        """
        The end of a complete snapshot removes histograms that it has not set, if the server sends
        totals of histograms.
        """
        for version, names in ((2, ["a", "b"]), (3, ["b"])):
            self.setUp()
            self.ingest(Status("s", 1, protocol_version=version))
            self.ingest(total(1.0, name="a"), total(1.0, name="b"))
            self.ingest(BEGIN, total(1.0, name="b"), END)
            self.assertEqual(self.names(), names)
            self.assertEqual(self.view.gone, 2 - len(names))

    def test_completeAfterClear(self) -> None:
        """It also removes distributions from before C{clear}."""
        for version, value in ((2, 3), (3, 1)):
            self.setUp()
            self.ingest(Status("s", 1, protocol_version=version), total(1.0, 2.0))
            self.view.clear()
            self.ingest(BEGIN, END)
            self.record(1.0)
            self.assertEqual(self.only().value, value)

    def test_clear(self) -> None:
        """A cleared histogram comes back with its distribution, and without its windows."""
        self.ingest(Status("s", 1), total(1.0, 2.0))
        self.record(3.0)
        self.view.clear()
        self.assertEqual(self.view.series, {})
        self.now += 1
        self.record(4.0)
        self.assertEqual(self.distribution(), Distribution.of([1, 2, 3, 4]))
        self.assertEqual((self.only().value, self.only().events, self.only().change), (4, 1, 1))
        self.assertEqual(self.summary(60).count, 1)
        self.view.clear()
        self.ingest(total(1.0, 2.0, 3.0, 4.0))
        self.assertEqual((self.only().value, self.only().change), (4, 0))
        self.assertEqual(self.partial(), [False] * 4)

    def test_restart(self) -> None:
        """After a restart, the first total is that of the new run, and shows no loss."""
        self.ingest(Status("s", 1), total(1.0, 2.0))
        self.record(3.0)
        self.ingest(Status("s", 2), total(*[4.0] * 10))
        self.assertEqual(self.distribution(), Distribution.of([4.0] * 10))
        self.assertEqual((self.only().value, self.partial()), (10, [False] * 4))

    def test_gone(self) -> None:
        self.ingest(Status("s", 1), total(1.0, 2.0), Gone(Key(MetricKind.HISTOGRAM, "m")))
        self.assertEqual(self.names(), [])
        self.record(1.0)
        self.assertEqual(self.only().value, 1)

    def test_bounded(self) -> None:
        """Totals of excess series are counted and ignored."""
        self.view = SourceView(lambda: self.now, max_series=2)
        self.ingest(*(total(1.0, name=name) for name in "abcab"))
        self.assertEqual((self.names(), self.view.refused), (["a", "b"], 1))
        self.assertEqual(self.view.events, 5)
        self.view = SourceView(lambda: self.now, max_bytes=1000)
        self.ingest(total(1.0, name="x" * 2000))
        self.assertEqual((self.names(), self.view.refused), ([], 1))

    def test_boundedBytes(self) -> None:
        """
        Totals count towards the memory for samples.  If it does not suffice, the distribution is
        unknown until the next total; count, sum and extremes are known.
        """
        self.patch(module, "SAMPLE_BYTES", 20_000)
        self.view = SourceView(lambda: self.now)
        wide = [2.0 ** (number / 20) for number in range(-500, 500)]
        for name in "ab":
            self.ingest(total(*wide, name=name))
            self.assertLessEqual(self.view._samples.used, 20_000)
        distributions = [series.distribution for series in self.view.series.values()]
        self.assertEqual(distributions, [Distribution.of(wide), None])
        self.record(1e9, name="b")
        summary = self.summary(name="b")
        self.assertEqual((summary.count, summary.max), (1001, 1e9))
        self.assertTrue(math.isnan(summary.p50))
        self.view.clear()
        self.assertLessEqual(self.view._samples.used, 20_000)
        self.ingest(Gone(Key(MetricKind.HISTOGRAM, "a")), total(*wide, name="b"))
        self.assertEqual(self.only().distribution, Distribution.of(wide))

    def test_keyObjects(self) -> None:
        """A view keeps no key object of a total, of which decoders make a new one each time."""
        self.ingest(*(total(1.0) for _ in range(1000)))
        self.assertEqual(self.view._by_identity, {})


class PartialTests(HistogramCase):
    def test_lost(self) -> None:
        """A window is partial while it includes the second in which a total shows a loss."""
        self.ingest(Status("s", 1), total(1.0))
        self.record(2.0)
        self.ingest(total(1.0, 2.0))
        self.assertEqual(self.partial(), [False] * 4)
        self.ingest(total(1.0, 2.0, 3.0))
        for later, partial in (
            (0, [True, True, True, False]),
            (15, [False, True, True, False]),
            (80, [False, False, True, False]),
            (400, [False] * 4),
        ):
            self.now = 1000.0 + later
            self.assertEqual(self.partial(), partial)
        self.assertEqual(self.summary(10).count, 0)

    def test_onlyThatSeries(self) -> None:
        """A loss of another series does not matter if the server sends totals."""
        self.ingest(Status("s", 1), BEGIN, total(1.0), total(1.0, name="n"), END)
        self.ingest(Status("s", 1, 5), Snapshot.BEGIN, total(1.0, 2.0), END)
        self.assertEqual(self.partial("m"), [True, True, True, False])
        self.assertEqual(self.partial("n"), [False] * 4)

    def test_reconnected(self) -> None:
        """Samples recorded while no connection existed are lost."""
        self.view.connected()
        self.ingest(Status("s", 1), BEGIN, total(1.0), total(1.0, name="n"), END)
        self.view.connected()
        self.ingest(Status("s", 1), BEGIN, total(1.0, 1.0), total(1.0, name="n"), END)
        self.assertEqual(self.partial("m"), [True, True, True, False])
        self.assertEqual(self.partial("n"), [False] * 4)
        self.assertEqual([series.change for series in self.view.series.values()], [0, 0])

    def test_withoutTotals(self) -> None:
        """
        If the server has sent no total of a series, each reported loss may be one of its samples,
        and no total includes it.
        """
        self.ingest(Status("s", 1, protocol_version=2))
        self.record(1.0)
        self.assertEqual(self.partial(), [False] * 4)
        self.ingest(Status("s", 1, 0, 3, protocol_version=2))
        self.assertEqual(self.partial(), [True] * 4)
        self.now += 400
        self.ingest(Status("s", 1, 0, 3, protocol_version=2))
        self.record(1.0)
        self.assertEqual(self.partial(), [False, False, False, True])
        self.view.clear()
        self.record(1.0)
        self.assertEqual(self.partial(), [False, False, False, True])
        self.ingest(Status("s", 2, protocol_version=2))
        self.record(1.0)
        self.assertEqual(self.partial(), [False] * 4)

    def test_begunAgain(self) -> None:
        """A lower total is that of a series that has begun again, whose samples were lost."""
        self.ingest(Status("s", 1), BEGIN, total(1.0, 2.0), END)
        self.ingest(Status("s", 1, 9), BEGIN, total(), END)
        self.assertEqual(self.partial(), [False] * 4)
        self.record(1.0, 2.0)
        self.ingest(Status("s", 1, 18), BEGIN, total(1.0), END)
        self.assertEqual(self.partial(), [True, True, True, False])

    def test_reconnectedWithoutTotals(self) -> None:
        """Without totals, any samples may have been recorded while no connection existed."""
        self.ingest(Status("s", 1, protocol_version=2))
        self.record(1.0)
        self.view.connected()
        self.ingest(Status("s", 1, protocol_version=2), BEGIN, END)
        self.assertEqual(self.partial(), [True] * 4)

    def test_lateClientOfReplay(self) -> None:
        """Totals from the beginning of a replay do not make up for losses of an old recording."""
        self.ingest(Status("s", 1), BEGIN, total(1.0), END)
        self.ingest(Status("s", 1, 0, 3, protocol_version=2), Snapshot.BEGIN, END)
        self.assertEqual(self.partial(), [True] * 4)

    def test_notInResync(self) -> None:
        """A resync has all series that a loss may concern, so others are not partial after it."""
        self.ingest(Status("s", 1), BEGIN, END)
        self.record(1.0)
        self.now += 5
        self.ingest(Status("s", 1, 5))
        self.assertEqual(self.partial(), [True] * 4)
        self.ingest(Snapshot.BEGIN, END)
        self.assertEqual(self.partial(), [False] * 4)

    def test_newSeries(self) -> None:
        """A series that begins in a resync or after a reconnect has lost its first samples."""
        self.ingest(Status("s", 1), BEGIN, END)
        self.ingest(Status("s", 1, 5), Snapshot.BEGIN, total(1.0), total(name="empty"), END)
        self.assertEqual(self.partial(), [True, True, True, False])
        self.assertEqual(self.partial("empty"), [False] * 4)
        self.view.connected()
        self.ingest(Status("s", 1), BEGIN, total(1.0), total(1.0, name="n"), END)
        self.assertEqual(self.partial("n"), [True, True, True, False])

    def test_oldSeries(self) -> None:
        """Nothing is lost if a series returns, or if the program has been restarted."""
        self.ingest(Status("s", 1), BEGIN, total(1.0), END)
        self.ingest(Gone(Key(MetricKind.HISTOGRAM, "m")), total(1.0))
        self.assertEqual(self.partial(), [False] * 4)
        self.ingest(Status("s", 2), BEGIN, total(1.0, 2.0), END)
        self.assertEqual(self.partial(), [False] * 4)

    def test_lostBefore(self) -> None:
        """Losses before the first event of a series, or of the view, are not losses of it."""
        self.ingest(Status("s", 1, 7))
        self.record(1.0, name="a")
        self.assertEqual(self.partial("a"), [False] * 4)
        self.ingest(Status("s", 1, 8))
        self.now += 5
        self.record(1.0, name="b")
        self.assertEqual((self.partial("a"), self.partial("b")), ([True] * 4, [False] * 4))

    def test_clear(self) -> None:
        """After C{clear}, windows begin without earlier losses; a later loss is seen."""
        self.ingest(Status("s", 1), total(1.0), total(1.0, 2.0))
        self.view.clear()
        self.record(3.0)
        self.assertEqual(self.partial(), [False] * 4)
        self.view.clear()
        self.ingest(Status("s", 1, 1), Snapshot.BEGIN, total(1.0, 2.0, 3.0, 4.0), END)
        self.assertEqual(self.partial(), [True, True, True, False])


SAMPLES = st.lists(
    st.sampled_from([0.0, -1.0, 1.0, 2.5, 1e6, math.inf, math.nan]) | st.floats(-10, 10),
    max_size=5,
)


class ModelTests(HistogramCase):
    @given(
        st.lists(
            st.tuples(st.sampled_from(["receive", "lose", "many"]), SAMPLES)
            | st.tuples(st.just("pass"), st.integers(1, 40))
            | st.tuples(
                st.sampled_from(["total", "reconnect", "restart", "clear", "look"]), st.none()
            ),
            max_size=30,
        )
    )
    def test_anything(self, steps: list[tuple[str, object]]) -> None:
        """
        After any steps, the view has the distribution of all samples that it knows of, the exact
        statistics of the samples that it has received in each window, and its losses.
        """
        self.setUp()
        run = 1
        recorded: list[float] = []
        known: list[float] | None = None
        received: list[tuple[float, float]] = []
        # The number of those that are not in the open interval, and its start.
        closed, start = 0, -1.0
        lost_at = -math.inf
        shown = False
        self.ingest(Status("s", run))
        for step, argument in steps:
            match step, argument:
                case "receive" | "many", [*samples]:
                    samples = [float(one) for one in samples] * (200 if step == "many" else 1)
                    self.record(*samples)
                    recorded += samples
                    if samples and self.now // FINEST != start:
                        closed, start = len(received), self.now // FINEST
                    received += [(self.now, sample) for sample in samples]
                    if samples:
                        known = [*(known or []), *samples]
                        shown = True
                case "lose", [*samples]:
                    recorded += map(float, samples)
                case "pass", int(seconds):
                    self.now += seconds
                case (("total" | "reconnect"), _):
                    if step == "reconnect":
                        self.view.connected()
                        self.ingest(Status("s", run))
                    self.ingest(Snapshot.BEGIN, total(*recorded), END)
                    new = known is None and step == "reconnect"
                    if len(recorded) > len(known or []) and (known is not None or new):
                        lost_at = self.now
                    known = list(recorded)
                    shown = True
                    closed, start = len(received), self.now // FINEST
                case "restart", _:
                    run += 1
                    self.ingest(Status("s", run))
                    recorded, known, received = [], None, []
                    closed, start, lost_at, shown = 0, -1.0, -math.inf, False
                case "clear", _:
                    self.view.clear()
                    received = []
                    closed, start, lost_at, shown = 0, -1.0, -math.inf, False
            if not shown:
                self.assertEqual(self.view.series, {})
                continue
            if step == "receive":
                # Keep samples pending.
                continue
            assert known is not None
            self.check(known, received, closed, lost_at)

    def check(
        self, known: list[float], received: list[tuple[float, float]], closed: int, lost_at: float
    ) -> None:
        series = self.only()
        self.assertEqual(series.value, len(known))
        actual, expected = self.distribution(), Distribution.of(known)
        self.assertEqual(actual.buckets(), expected.buckets())
        self.assertEqual(actual.not_finite, expected.not_finite)
        self.near(actual.sum, expected.sum, 1e-9 * max(1.0, abs(expected.sum)))
        self.assertEqual(self.summary().count, expected.count)
        self.assertFalse(self.summary().partial)
        for window in WINDOWS:

            def covered(second: float, length: int, since: float = self.now - window) -> bool:
                return second // length * length + length > since

            length = window // 5
            inside = [
                sample
                for number, (second, sample) in enumerate(received)
                if covered(second, length if number < closed else FINEST)
            ]
            finite = sorted(filter(math.isfinite, inside))
            summary = self.summary(window)
            self.assertEqual(summary.count, len(finite))
            self.assertEqual(summary.not_finite, len(inside) - len(finite))
            self.assertEqual(summary.partial, lost_at > 0 and covered(lost_at, length))
            if finite:
                self.assertEqual((summary.min, summary.max), (finite[0], finite[-1]))
                names = summary.p50, summary.p90, summary.p99, summary.p999
                for value, quantile in zip(names, QUANTILES, strict=True):
                    exact = finite[int(quantile * (len(finite) - 1))]
                    self.near(value, exact, 0 if len(inside) <= MAX_EXACT else abs(exact) * 0.011)
