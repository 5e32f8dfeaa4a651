"""
The history of a source: increases, values and percentiles at earlier times, in bounded memory.
"""

from __future__ import annotations

import math
from array import array

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Distribution
from txmetrics_tcp._view.memory import Budget
from txmetrics_tcp._view.windows import Samples
from txmetrics_tcp.web._history import MAX_BOUNDS, MAX_GAP, History, ends_of, heat


def samples(*values: float) -> Samples:
    found = Samples()
    found.add(values)
    return found


class HistoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.budget = Budget(1 << 30)
        self.history = History(600, self.budget)

    def column(self, time: int, values: dict[int, float], connected: bool = True) -> None:
        self.history.add(
            time,
            array("I", sorted(values)),
            array("d", [values[id] for id in sorted(values)]),
            connected,
        )
        self.history.now = time + 1


class RateTests(HistoryTestCase):
    def test_increaseOfEachSecond(self) -> None:
        for time, total in [(10, 5.0), (11, 5.0), (12, 8.0)]:
            self.column(time, {1: total})
        self.assertEqual(self.history.rates(1, range(10, 13)), [None, 0.0, 3.0])

    def test_stepsHaveTheAverageOfTheirSeconds(self) -> None:
        for time in range(10, 21):
            self.column(time, {1: 2.0 * time})
        self.assertEqual(self.history.rates(1, range(15, 21, 5)), [2.0, 2.0])

    def test_seriesThatBeginsHasItsFirstIncrease(self) -> None:
        self.column(10, {})
        self.column(11, {1: 5.0})
        self.assertEqual(self.history.rates(1, range(11, 12)), [5.0])

    def test_firstTotalOfASeriesIsNoIncrease(self) -> None:
        self.column(10, {})
        self.history.rebase(1, 100)
        self.column(11, {1: 103.0})
        self.assertEqual(self.history.rates(1, range(11, 12)), [3.0])

    def test_totalAfterAReconnectIsNoIncrease(self) -> None:
        self.column(10, {1: 5.0})
        self.history.rebase(1, 1000)
        self.column(11, {1: 1006.0})
        self.column(12, {1: 1007.0})
        self.assertEqual(self.history.rates(1, range(11, 13)), [1.0, 1.0])

    def test_restartIsNoDecrease(self) -> None:
        self.column(10, {1: 500.0})
        self.history.rebase(1, -500)
        self.column(11, {1: 2.0})
        self.assertEqual(self.history.rates(1, range(11, 12)), [2.0])

    def test_increaseThatATotalShowsIsSpread(self) -> None:
        for time in range(10, 14):
            self.column(time, {1: 0.0})
        self.history.resync(1, 40, 10)
        self.column(14, {1: 40.0})
        self.assertEqual(self.history.rates(1, range(11, 15)), [10.0] * 4)

    def test_noRateWithoutAConnection(self) -> None:
        self.column(10, {1: 1.0})
        self.column(11, {1: 1.0}, connected=False)
        self.column(12, {1: 3.0})
        self.assertEqual(self.history.rates(1, range(11, 13)), [None, 2.0])

    def test_missingColumns(self) -> None:
        """A busy process may skip seconds, and a recording has columns only with its events."""
        for time in range(10, 19, 2):
            self.column(time, {1: 3.0 * time})
        self.assertEqual(self.history.rates(1, range(11, 19)), [3.0] * 8)
        self.assertEqual(self.history.rates(1, range(13, 19, 3)), [3.0] * 2)
        self.assertEqual(self.history.rates(1, range(5, 13)), [None] * 6 + [3.0] * 2)

    def test_recording(self) -> None:
        self.history = History(10_000_000, self.budget, math.inf)
        self.column(0, {1: 0.0})
        self.column(1_000_000, {1: 1e6})
        self.assertEqual(self.history.rates(1, ends_of(0, 1_000_000, 10)), [1.0] * 10)
        self.assertEqual(self.history.rates(1, range(500, 503)), [1.0] * 3)
        self.assertEqual(self.history.values(1, range(100, 103)), [0.0] * 3)
        self.column(1_000_100, {1: 1e6})
        self.assertEqual(self.history.values(1, range(1_000_050, 1_000_053)), [1e6] * 3)

    def test_noRateOverAGap(self) -> None:
        self.column(10, {1: 1.0})
        self.column(10 + MAX_GAP + 1, {1: 3.0})
        self.assertEqual(self.history.rates(1, range(16, 17)), [None])

    def test_noRateOfAnUnknownSeries(self) -> None:
        self.column(10, {1: 1.0})
        self.column(11, {1: 1.0})
        self.assertEqual(self.history.rates(2, range(11, 12)), [None])


class ValueTests(HistoryTestCase):
    def test_lastValueOfEachStep(self) -> None:
        for time in range(10, 15):
            self.column(time, {1: float(time)})
        self.assertEqual(self.history.values(1, range(12, 17, 2)), [12.0, 14.0, None])

    def test_missingColumns(self) -> None:
        """Between two columns, the value is that of the first one."""
        for time in (10, 13, 13 + MAX_GAP + 1):
            self.column(time, {1: float(time)})
        values = [10.0, 10.0, 10.0, 13.0, None]
        self.assertEqual(self.history.values(1, range(10, 15)), values)
        self.assertEqual(self.history.values(1, range(11, 15)), values[1:])
        self.column(20, {1: math.nan})
        self.column(22, {1: 1.0})
        self.assertEqual(self.history.values(1, range(20, 23)), [None, None, 1.0])

    def test_noValueWithoutAConnection(self) -> None:
        self.column(10, {1: 1.0})
        self.column(11, {1: 1.0}, connected=False)
        self.assertEqual(self.history.values(1, range(10, 12)), [1.0, None])

    def test_valuesThatAreNoNumbersAreGaps(self) -> None:
        self.column(10, {1: math.nan})
        self.column(11, {1: math.inf})
        self.assertEqual(self.history.values(1, range(10, 12)), [None, None])


class BeforeTests(HistoryTestCase):
    def test_differenceIsTheIncrease(self) -> None:
        for time in range(10, 25):
            self.column(time, {1: 2.0 * time, 2: 7.0})
        ids, values, then = self.history.before(24, 10) or ((), (), 0)
        self.assertEqual((list(ids), list(values), then), ([1], [28.0], 14))

    def test_basesAreCorrected(self) -> None:
        self.column(10, {1: 5.0})
        self.history.rebase(1, 1000)
        self.history.rebase(2, 50)
        self.column(11, {1: 1006.0, 2: 51.0})
        ids, values, _ = self.history.before(11, 10) or ((), (), 0)
        self.assertEqual(dict(zip(ids, values, strict=True)), {1: 1005.0, 2: 50.0})

    def test_onlyThePartOfASpreadIncreaseThatIsInTheTime(self) -> None:
        for time in range(10, 30):
            self.column(time, {1: 0.0})
        self.history.resync(1, 40, 10)
        self.column(30, {1: 40.0})
        ids, values, _ = self.history.before(30, 10) or ((), (), 0)
        self.assertEqual((list(ids), list(values)), ([1], [20.0]))

    def test_gaugesHaveNoValueBeforeTheirFirst(self) -> None:
        self.column(10, {})
        self.column(11, {1: 5.0, 2: 5.0})
        ids, values, _ = self.history.before(11, 10, lambda id: id == 2) or ((), (), 0)
        self.assertEqual(dict(zip(ids, values, strict=True)), {1: 0.0})

    def test_unknownWithOneColumn(self) -> None:
        self.assertIsNone(self.history.before(10, 10))
        self.column(10, {1: 1.0})
        self.assertIsNone(self.history.before(10, 10))


class SampleTests(HistoryTestCase):
    def test_percentilesOfEachStep(self) -> None:
        self.history.add_samples(1, 10, samples(1.0, 2.0, 3.0))
        self.history.add_samples(1, 14, samples(7.0))
        found = [self.history.summary(1, end, 2) for end in range(12, 18, 2)]
        self.assertEqual([one and one.max for one in found], [3.0, None, 7.0])

    def test_longStepsMergeSamples(self) -> None:
        for start in 10, 12, 14:
            self.history.add_samples(1, start, samples(float(start)))
        found = self.history.summary(1, 16, 6)
        assert found is not None
        self.assertEqual((found.count, found.min, found.max), (3, 10.0, 14.0))

    def test_shortStepsRepeatTheSamplesAroundThem(self) -> None:
        self.history.add_samples(1, 10, samples(1.0))
        found = [self.history.summary(1, end, 1) for end in range(10, 15)]
        self.assertEqual([one is not None for one in found], [False, True, True, False, False])

    def test_intervalsAreAddedOnce(self) -> None:
        self.history.add_samples(1, 10, samples(1.0))
        self.history.add_samples(1, 10, samples(1.0))
        self.assertEqual(self.history.last_interval(1), 10)
        found = self.history.samples(1, 0, 100)
        assert found is not None
        self.assertEqual(found.summary().count, 1)

    def test_heatmapCountsAllSamples(self) -> None:
        values = [0.001 * 1.5**number for number in range(40)]
        found = heat([samples(*values), None, samples(values[0], values[-1])])
        self.assertEqual([sum(counts) for counts in found["counts"]], [40, 0, 2])
        bounds = found["bounds"]
        self.assertLessEqual(len(bounds), MAX_BOUNDS + 1)
        self.assertEqual(bounds, sorted(bounds))
        self.assertEqual(found["counts"][2][0] + found["counts"][2][-1], 2)

    def test_heatmapOfAnySamples(self) -> None:
        for values in (
            [0.0],
            [5.0, 5.0],
            [-1.0, 1.0],
            [-5.0, -3.0],
            [5e-324, 1.7e308],
            [1.0, 1.0000001],
            [-1.7e308, 1.7e308],
            [math.nan],
        ):
            found = heat([samples(*values)])
            finite = sum(map(math.isfinite, values))
            self.assertEqual(sum(found["counts"][0]), finite, values)
            self.assertLessEqual(len(found["bounds"]), MAX_BOUNDS + 1)

    def test_heatmapOfADistribution(self) -> None:
        found = heat([Samples(Distribution.of([1.0, 2.0, 4.0, 4.0]))])
        self.assertEqual(sum(found["counts"][0]), 4)


class MemoryTests(HistoryTestCase):
    def test_oldColumnsAreDropped(self) -> None:
        history = self.history = History(30, self.budget)
        for time in range(100):
            self.column(time, {1: float(time)})
            history.add_samples(1, time, samples(1.0))
            history.rebase(1, 1)
            history.resync(1, 1, time - 5)
        self.assertEqual((history.begin, history.end), (69, 99))
        self.assertIsNone(history.samples(1, 0, 50))

    def test_memoryIsReturned(self) -> None:
        for time in range(100):
            self.column(time, {1: float(time)})
            self.history.add_samples(1, time, samples(1.0))
            self.history.rebase(1, 1)
        self.assertGreater(self.budget.used, 0)
        self.history.clear()
        self.assertEqual(self.budget.used, 0)

    def test_usedMemoryOfALongHistoryIsThatOfItsSeconds(self) -> None:
        history = self.history = History(30, self.budget)
        used = []
        for time in range(400):
            self.column(time, {id: float(time) for id in range(50)})
            self.history.add_samples(1, time, samples(1.0))
            self.history.rebase(1, 1)
            used.append(self.budget.used)
        self.assertLess(used[-1], 1.5 * used[50])
        history.clear()
        self.assertEqual(self.budget.used, 0)

    def test_unchangedValuesTakeNoMemory(self) -> None:
        values = {id: 1.0 for id in range(1000)}
        self.column(1, values)
        before = self.budget.used
        self.column(2, values)
        self.assertLess(self.budget.used - before, 1000)

    def test_keepsLessIfTheMemoryDoesNotSuffice(self) -> None:
        self.budget = Budget(100_000)
        self.history = History(600, self.budget)
        for time in range(200):
            self.column(time, {id: float(time) for id in range(100)})
        self.assertLessEqual(self.budget.used, 100_000)
        begin = self.history.begin
        assert begin is not None
        self.assertGreater(begin, 50)
        self.assertEqual(self.history.rates(3, range(199, 200)), [1.0])


class StepTests(SynchronousTestCase):
    def test_stepsEndOnMultiplesOfTheirLength(self) -> None:
        self.assertEqual(list(ends_of(10, 15, 600)), [11, 12, 13, 14, 15])
        self.assertEqual(list(ends_of(10, 30, 5)), [12, 16, 20, 24, 28])

    def test_thereIsAlwaysOne(self) -> None:
        self.assertEqual(list(ends_of(10, 10, 600)), [11])

    def test_theirNumberIsBounded(self) -> None:
        self.assertLessEqual(len(ends_of(0, 100_000, 600)), 601)
