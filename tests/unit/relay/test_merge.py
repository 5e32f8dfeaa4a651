"""
Merging the streams of many sources.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import (
    Distribution,
    ExporterSettings,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
    Status,
    Unknown,
)
from txmetrics_tcp._view.memory import BUCKET_BYTES
from txmetrics_tcp.relay import _merge as module
from txmetrics_tcp.relay._merge import (
    COLLECTOR_INFO,
    MAX_AGE,
    MAX_AHEAD,
    MAX_IDENTITIES,
    MAX_SAMPLES,
    AlreadyConnectedError,
    LoopError,
    Merger,
    Source,
)
from txmetrics_tcp.testing import FakeReactor

COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
INCREMENT, SET_COUNTER = Operation.INCREMENT_COUNTER, Operation.SET_COUNTER
UP, SET_GAUGE = Operation.INCREMENT_GAUGE, Operation.SET_GAUGE
RECORD = Operation.RECORD_HISTOGRAM
NOW = 1_800_000_000 * 10**9

C, G, H = Key(COUNTER, "c"), Key(GAUGE, "g"), Key(HISTOGRAM, "h")


def by(key: Key, instance: str) -> Key:
    return Key.of(key.kind, key.name, {**dict(key.labels), "instance": instance})


def event(key: Key, operation: Operation, value: float, when: int | None = NOW) -> Metric:
    return Metric(key, operation, value, when)


def total(*samples: float) -> HistogramTotal:
    return HistogramTotal(H, Distribution.of(samples), NOW)


class MergeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.factory = MetricsFactory(
            FakeReactor(),
            ExporterSettings(own_metrics=False),
        )
        self.recorder = self.factory.recorder
        self.entries: list[Any] = []
        ingest = self.recorder.ingest

        def spy(entries: Any) -> None:
            self.entries += [(one[0].key, *one[1:]) for one in entries]
            ingest(entries)

        self.patch(self.recorder, "ingest", spy)

    def merger(self, merge: Any = "both", **more: Any) -> Merger:
        return Merger(self.recorder, merge, clock=lambda: NOW, **more)

    def totals(self) -> dict[Key, Any]:
        return self.recorder.snapshot()

    def snapshot(self, source: Source, *events: Any, version: int = 3) -> None:
        """Send a complete snapshot."""
        status = Status("", source.started_ns, protocol_version=version)
        source.ingest([status, Snapshot.BEGIN_COMPLETE, *events, Snapshot.END])


class CounterTests(MergeTestCase):
    def test_dropped(self) -> None:
        """A total adds what was dropped, across 2**64."""
        source = self.merger("sum").open("a", 1)
        source.ingest([event(C, SET_COUNTER, 2**64 - 2), event(C, SET_COUNTER, 3)])
        self.assertEqual(self.entries[-1], (C, INCREMENT, 5, NOW))
        self.assertEqual(self.totals(), {C: 3})

    def test_lower(self) -> None:
        """A lower total has begun again, so the sum rises by it."""
        source = self.merger().open("a", 1)
        source.ingest([event(C, INCREMENT, 100), event(C, SET_COUNTER, 5)])
        self.assertEqual(self.totals(), {C: 105, by(C, "a"): 5})

    def test_unchanged(self) -> None:
        """A snapshot passes only what has changed, and series that are new."""
        source = self.merger("sum").open("a", 1)
        source.ingest([event(C, INCREMENT, 2), event(G, SET_GAUGE, 1.0), event(H, RECORD, 1.0)])
        self.entries.clear()
        new = Key(COUNTER, "new")
        source.ingest(
            [
                Snapshot.BEGIN,
                *(event(C, SET_COUNTER, 2), event(G, SET_GAUGE, 1.0), total(1.0)),
                event(new, SET_COUNTER, 0),
                Snapshot.END,
            ]
        )
        self.assertEqual(self.entries, [(new, INCREMENT, 0, NOW)])

    def test_goneEverywhere(self) -> None:
        """A sum is forgotten with its last part, together with what the dead have counted."""
        merger = self.merger("sum")
        sources = [merger.open(name, 1) for name in "abc"]
        for source in sources:
            source.ingest([event(C, INCREMENT, 1), event(H, RECORD, 1.0)])
        sources[2].dead()
        sources[0].ingest([Gone(C), Gone(H)])
        self.assertEqual(self.totals()[C], 3)
        sources[1].ingest([Gone(C), Gone(H)])
        self.assertEqual(self.totals(), {})
        # What c has counted is no longer part of the sum.
        self.snapshot(merger.open("c", 1), event(C, SET_COUNTER, 4))
        self.assertEqual(self.totals(), {C: 4})

    def test_goneBeforeSnapshot(self) -> None:
        """A sum is forgotten while a program that was declared dead has just connected again."""
        merger = self.merger("sum")
        a, b = merger.open("a", 1), merger.open("b", 1)
        a.ingest([event(C, INCREMENT, 1)])
        b.ingest([event(C, INCREMENT, 1)])
        a.dead()
        a = merger.open("a", 1)
        b.ingest([Gone(C)])
        self.snapshot(a, event(C, SET_COUNTER, 4))
        self.assertEqual(self.totals(), {C: 4})


class GaugeTests(MergeTestCase):
    def aggregate(self, gauges: Any, *values: float) -> float:
        merger = Merger(self.recorder, "sum", gauges=gauges)
        sources = [merger.open("a", number) for number in range(len(values))]
        for source, value in zip(sources, values, strict=True):
            source.ingest([event(G, SET_GAUGE, value)])
        found = self.totals()[G]
        for source in sources:
            source.dead()
        self.assertNotIn(G, self.totals())
        return float(found)

    def test_aggregates(self) -> None:
        inf, nan = math.inf, math.nan
        for gauges, values, expected in [
            ("sum", [0.1] * 10, 1.0),
            ("sum", [1e308, 1e308, -1e308], 1e308),
            ("sum", [1e308, 1e308], inf),
            ("sum", [1.0, inf], inf),
            ("sum", [inf, -inf], nan),
            ("sum", [1.0, nan], nan),
            ("max", [1.0, nan, 3.0, 2.0], 3.0),
            ("max", [nan, -inf], -inf),
            ("max", [nan, nan], nan),
            ("min", [2.0, nan, 1.0], 1.0),
            ("min", [nan], nan),
            ("last", [1.0, 3.0, 2.0], 2.0),
            ("last", [1.0, nan], nan),
        ]:
            found = self.aggregate(gauges, *values)
            self.assertTrue(found == expected or found != found != expected, (gauges, values))

    def test_noDrift(self) -> None:
        """Rounding errors do not add up."""
        merger = self.merger("sum")
        a, b = merger.open("a", 1), merger.open("b", 1)
        a.ingest([event(G, SET_GAUGE, 0.1)])
        for _ in range(100):
            b.ingest([event(G, SET_GAUGE, 1e16)])
            b.ingest([event(G, SET_GAUGE, 0.0)])
        self.assertEqual(self.totals(), {G: 0.1})

    def test_oneEvent(self) -> None:
        """The sum has one event for each call, the series by instance every event."""
        source = self.merger().open("a", 1)
        source.ingest([event(G, SET_GAUGE, 1.0), event(G, UP, 2.0, NOW + 1)])
        self.assertEqual(
            self.entries,
            [
                (by(G, "a"), SET_GAUGE, 1.0, NOW),
                (by(G, "a"), UP, 2.0, NOW + 1),
                (G, SET_GAUGE, 3.0, NOW + 1),
            ],
        )

    def test_last(self) -> None:
        """The part that changed last counts, and the one before it when its source leaves."""
        merger = self.merger("sum", gauges="last")
        a, b, c = (merger.open(name, 1) for name in "abc")
        for source, value in ((a, 1.0), (b, 2.0), (c, 3.0), (a, 4.0)):
            source.ingest([event(G, SET_GAUGE, value)])
        self.assertEqual(self.totals(), {G: 4.0})
        # A snapshot that sets the same value is not a change.
        self.snapshot(b, event(G, SET_GAUGE, 2.0))
        self.assertEqual(self.totals(), {G: 4.0})
        a.dead()
        self.assertEqual(self.totals(), {G: 3.0})

    def test_grace(self) -> None:
        """A part stays while its source is disconnected, and leaves when it is dead."""
        merger = self.merger()
        a, b = merger.open("a", 1), merger.open("b", 1)
        a.ingest([event(G, SET_GAUGE, 1.0)])
        b.ingest([event(G, SET_GAUGE, 2.0)])
        a.disconnected()
        self.assertEqual(self.totals(), {G: 3.0, by(G, "a"): 1.0, by(G, "b"): 2.0})
        a.dead()
        self.assertEqual(self.totals(), {G: 2.0, by(G, "b"): 2.0})

    def test_changedAndGone(self) -> None:
        """A gauge that changes and is gone in one call leaves nothing."""
        source = self.merger().open("a", 1)
        source.ingest([event(G, SET_GAUGE, 1.0), Gone(G)])
        self.assertEqual(self.totals(), {})
        source.ingest([event(G, SET_GAUGE, 1.0), Status("a", 2)])
        self.assertEqual(self.totals(), {})


class HistogramTests(MergeTestCase):
    def test_dropped(self) -> None:
        """A total adds what was dropped."""
        source = self.merger().open("a", 1)
        source.ingest([event(H, RECORD, 1.0), total(1.0, 2.0, 2.0)])
        expected = Distribution.of([1.0, 2.0, 2.0])
        self.assertEqual(self.totals(), {H: expected, by(H, "a"): expected})
        self.assertEqual(self.entries[-1][2].count, 2)

    def test_lower(self) -> None:
        """A lower total has begun again."""
        source = self.merger().open("a", 1)
        source.ingest([event(H, RECORD, 1.0), total(2.0)])
        self.assertEqual(
            self.totals(),
            {H: Distribution.of([1.0, 2.0]), by(H, "a"): Distribution.of([2.0])},
        )

    def test_manySamples(self) -> None:
        """The samples of a source that sends no totals are not kept."""
        source = self.merger("sum").open("rust", None)
        source.ingest([event(H, RECORD, 1.0)] * (2 * MAX_SAMPLES + 1))
        (part,) = source._parts.values()
        self.assertEqual(len(part.samples), 1)
        self.assertEqual(self.totals()[H].count, 2 * MAX_SAMPLES + 1)

    def test_oldServer(self) -> None:
        """A snapshot before version 3 has no histograms, and removes none."""
        source = self.merger("sum").open("a", 1)
        source.ingest([event(H, RECORD, 1.0), event(C, INCREMENT, 1)])
        self.snapshot(source, version=2)
        self.assertEqual(list(self.totals()), [H])
        self.snapshot(source, version=3)
        self.assertEqual(self.totals(), {})


class ConnectionTests(MergeTestCase):
    def test_connectsAgain(self) -> None:
        """The same run of a program continues, and the object of its last connection is closed."""
        merger = self.merger()
        first = merger.open("a", 1)
        first.ingest([event(C, INCREMENT, 2), Status("a", 1, 3, 4)])
        first.disconnected()
        second = merger.open("a", 1)
        self.assertTrue(first.closed)
        first.ingest([event(C, INCREMENT, 100)])
        first.dead()
        self.snapshot(second, event(C, SET_COUNTER, 5))
        second.ingest([Status("a", 1, 10, 20)])
        self.assertEqual(self.totals(), {C: 5, by(C, "a"): 5})
        self.assertEqual(merger.sources, [second])
        self.assertEqual((second.missed_incoming, second.missed_client), (13, 24))
        self.assertEqual((second.events, second.series), (2, 1))

    def test_twice(self) -> None:
        """A second connection to the same run of a program would count twice."""
        merger = self.merger()
        merger.open("a", 1)
        self.assertRaises(AlreadyConnectedError, merger.open, "a", 1)
        self.assertEqual(len(merger.sources), 1)

    def test_names(self) -> None:
        """Living sources have different names of instances."""
        merger = self.merger()
        opened = [merger.open("a", 1), merger.open("a", 2), merger.open("a-2", 1)]
        opened += [merger.open("a", None), merger.open("a", None)]
        names = [source.name for source in opened]
        self.assertEqual(names, ["a", "a-2", "a-2-2", "a-3", "a-4"])
        opened[1].dead()
        self.assertEqual(merger.open("a", 3).name, "a-2")

    def test_restart(self) -> None:
        """After a restart, all totals begin at zero."""
        source = self.merger().open("a", 1)
        source.ingest([event(C, INCREMENT, 5), event(G, SET_GAUGE, 5.0), event(H, RECORD, 1.0)])
        source.ingest([Status("a", 2)])
        self.assertEqual(self.totals(), {C: 5, H: Distribution.of([1.0])})
        self.snapshot(source, event(C, SET_COUNTER, 7), total(1.0))
        self.assertEqual(self.totals()[C], 12)
        self.assertEqual(self.totals()[by(C, "a")], 7)
        self.assertEqual(self.totals()[H].count, 2)
        self.assertEqual((source.restarts, source.started_ns), (1, 2))

    def test_replaced(self) -> None:
        """What a dead source has counted stays; its series by instance are gone."""
        merger = self.merger()
        for started in range(5):
            source = merger.open("a", started)
            self.snapshot(source, event(C, SET_COUNTER, 2), event(G, SET_GAUGE, 1.0), total(1.0))
            source.disconnected()
            source.dead()
        self.assertEqual(self.totals(), {C: 10, H: Distribution.of([1.0] * 5)})

    def test_deadByMistake(self) -> None:
        """A program that was declared dead connects again, and is not counted twice."""
        merger = self.merger()
        source = merger.open("a", 1)
        source.ingest([event(C, INCREMENT, 5), event(H, RECORD, 1.0)])
        source.dead()
        source = merger.open("a", 1)
        source.ingest([event(C, INCREMENT, 1), event(H, RECORD, 2.0)])
        samples = Distribution.of([1.0, 2.0])
        self.assertEqual(self.totals(), {C: 6, by(C, "a"): 6, H: samples, by(H, "a"): samples})
        self.snapshot(source, event(C, SET_COUNTER, 9), total(1.0, 2.0, 3.0))
        self.assertEqual(self.totals()[C], 9)
        self.assertEqual(self.totals()[H].count, 3)

    def test_notInSnapshot(self) -> None:
        """What a program no longer has is not remembered after its snapshot."""
        merger = self.merger("sum")
        source = merger.open("a", 1)
        source.ingest([event(C, INCREMENT, 5)])
        source.dead()
        source = merger.open("a", 1)
        self.snapshot(source)
        source.ingest([event(C, INCREMENT, 6), event(C, SET_COUNTER, 7)])
        self.assertEqual(self.totals(), {C: 12})

    def test_released(self) -> None:
        """A dead source keeps no series, and what is kept of the dead is limited."""
        self.patch(module, "ENDED_BYTES", 1000)
        merger = self.merger()
        for started in range(10):
            source = merger.open("a", started)
            source.ingest([event(Key(COUNTER, "c"), INCREMENT, 1), event(G, SET_GAUGE, 1.0)])
            source.dead()
            self.assertEqual((source.series, source._by_identity), (0, {}))
        self.assertEqual((merger._totals, merger.sources), ({}, []))
        self.assertEqual(list(merger._ended._sources), [("a", 9)])
        self.assertEqual(self.totals(), {C: 10})

    def test_rust(self) -> None:
        """Each connection to a server without a status is another source."""
        merger = self.merger("sum")
        for _ in range(2):
            source = merger.open("rust", None)
            source.ingest([event(C, INCREMENT, 2, None), event(H, RECORD, 1.0, None)])
            source.dead()
        self.assertEqual(self.totals(), {C: 4, H: Distribution.of([1.0, 1.0])})
        self.assertEqual(self.entries[0], (C, INCREMENT, 2, NOW))
        self.assertEqual(merger._ended._sources, {})


class DescriptionTests(MergeTestCase):
    def test_lastWins(self) -> None:
        """Descriptions pass once, and the last one is in effect."""
        merger = self.merger()
        a, b = merger.open("a", 1), merger.open("b", 1)
        described: list[Metadata] = []
        self.patch(self.recorder, "describe", described.append)
        one, other = Metadata(COUNTER, "c", "count", "x"), Metadata(COUNTER, "c", "bytes", "y")
        a.ingest([one, one, other])
        b.ingest([other, Metadata(COUNTER, "d", "furlongs")])
        self.assertEqual(described, [one, other, Metadata(COUNTER, "d")])

    def test_refused(self) -> None:
        """Descriptions that are not valid, or too much text, are refused."""
        source = self.merger().open("a", 1)
        source.ingest([Metadata(COUNTER, ""), Metadata(COUNTER, "c", None, "x" * 70_000)])
        self.assertEqual(source.refused, 2)
        source.ingest([Metadata(COUNTER, f"c{n}", None, "x" * 60_000) for n in range(300)])
        self.assertGreater(source.refused, 20)
        self.assertLess(len(self.recorder.descriptions()), 300)

    def test_ownMetrics(self) -> None:
        """Descriptions of sources' own metrics pass only with their series."""
        own = Metadata(COUNTER, "txmetrics_x")
        self.merger("sum").open("a", 1).ingest([own])
        self.assertEqual(self.recorder.descriptions(), [])
        self.merger("each").open("a", 1).ingest([own])
        self.assertEqual(self.recorder.descriptions(), [own])


class HostileTests(MergeTestCase):
    def test_labels(self) -> None:
        """A label that is named like that of the instance is renamed, and stays different."""
        keys = [
            Key(COUNTER, "c", (("instance", "1"),)),
            Key(COUNTER, "c", (("exported_instance", "1"),)),
            Key(COUNTER, "c", (("exported_x", "1"), ("my_instance", "1"))),
        ]
        self.merger().open("a", 1).ingest([event(key, INCREMENT, 1) for key in keys])
        sums = [dict(key.labels) for key in self.totals() if ("instance", "a") not in key.labels]
        self.assertEqual(
            sums,
            [
                {"exported_instance": "1"},
                {"exported_exported_instance": "1"},
                {"exported_x": "1", "my_instance": "1"},
            ],
        )
        self.assertEqual(len(self.totals()), 6)

    def test_labelsOfSums(self) -> None:
        """Without the label of the instance, labels keep their names."""
        key = Key(COUNTER, "c", (("instance", "1"),))
        self.merger("sum").open("a", 1).ingest([event(key, INCREMENT, 1)])
        self.assertEqual(self.totals(), {key: 1})

    def test_notValid(self) -> None:
        """Names and labels are checked as at an API call."""
        source = self.merger().open("a", 1)
        keys = [
            Key(COUNTER, ""),
            Key(COUNTER, "c", (("", "x"),)),
            Key(COUNTER, "c", (("l", "x" * 65_536),)),
            # Too large only with the label of the instance.
            Key(COUNTER, "c", (("l", "x" * 65_530),)),
        ]
        source.ingest([*(event(key, INCREMENT, 1) for key in keys), event(C, INCREMENT, 1)])
        self.assertEqual((source.refused, source.events, source.series), (4, 5, 1))
        self.assertEqual(self.totals(), {C: 1, by(C, "a"): 1})

    def test_kinds(self) -> None:
        """Metrics of the same name and different kinds are different."""
        keys = [Key(kind, "m") for kind in MetricKind]
        self.merger("sum").open("a", 1).ingest(
            [
                event(keys[0], INCREMENT, 1),
                event(keys[1], UP, 2.0),
                event(keys[2], RECORD, 3.0),
            ]
        )
        one = Distribution.of([3.0])
        self.assertEqual(self.totals(), dict(zip(keys, (1, 2.0, one), strict=True)))

    def test_times(self) -> None:
        """An event of an absurd time, or none, gets that of the clock."""
        source = self.merger("sum").open("a", 1)
        times = [
            None,
            0,
            -5,
            NOW - MAX_AGE - 1,
            NOW - MAX_AGE,
            NOW + MAX_AHEAD,
            NOW + MAX_AHEAD + 1,
        ]
        source.ingest([event(C, INCREMENT, 1, when) for when in times])
        self.assertEqual(
            [entry[3] for entry in self.entries],
            [NOW, NOW, NOW, NOW, NOW - MAX_AGE, NOW + MAX_AHEAD, NOW],
        )
        self.assertEqual(source.retimed, 4)
        source.ingest([HistogramTotal(H, Distribution.of([1.0]), 2**80)])
        self.assertEqual((self.entries[-1][3], source.retimed), (NOW, 5))

    def test_unknown(self) -> None:
        """Unknown events are counted."""
        source = self.merger().open("a", 1)
        source.ingest([Unknown("x"), Gone(C), Snapshot.END])
        self.assertEqual((source.unknown, source.events), (1, 0))

    def test_limits(self) -> None:
        """Further series of a source are refused; those that are gone make room."""
        merger = self.merger("sum", max_series=2)
        a, b = merger.open("a", 1), merger.open("b", 1)
        keys = [Key(COUNTER, name) for name in "wxyz"]
        a.ingest([event(key, INCREMENT, 1) for key in [*keys, *keys]])
        self.assertEqual((a.refused, a.series, a.events), (4, 2, 8))
        b.ingest([event(keys[3], INCREMENT, 1)])
        a.ingest([Gone(keys[0]), event(keys[2], INCREMENT, 1)])
        self.assertEqual((a.refused, a.series, b.refused), (4, 2, 0))

    def test_text(self) -> None:
        """The text of a source's series is limited, and given back."""
        self.patch(module, "CACHE_BYTES", 100_000)
        source = self.merger("sum").open("a", 1)
        keys = [Key(COUNTER, "c", (("l", f"{n:060000}"),)) for n in range(2)]
        source.ingest([event(keys[0], INCREMENT, 1), event(keys[1], INCREMENT, 1)])
        self.assertEqual(source.refused, 1)
        source.ingest([Gone(keys[0]), event(keys[1], INCREMENT, 1)])
        self.assertEqual((source.refused, source.series), (1, 1))

    def test_keyObjects(self) -> None:
        """Few objects of equal keys are kept, and none of large keys."""
        source = self.merger("sum").open("a", 1)
        for labels in ((), (("l", "x" * 10_000),)):
            for _ in range(20):
                source.ingest([event(Key(COUNTER, "c", labels), INCREMENT, 1)])
        self.assertEqual(len(source._by_identity), MAX_IDENTITIES)
        self.assertEqual(sorted(self.totals().values()), [20, 20])

    def test_ownMetrics(self) -> None:
        """Sources' own metrics are left out of sums."""
        own = Key(COUNTER, "txmetrics_x")
        self.merger("both").open("a", 1).ingest([event(own, INCREMENT, 1)])
        self.assertEqual(self.totals(), {by(own, "a"): 1})
        source = self.merger("sum").open("a", 1)
        source.ingest([event(own, INCREMENT, 1)])
        self.assertEqual((source.refused, source.series), (0, 0))

    def test_loop(self) -> None:
        """Collectors pass what identifies them, and recognize themselves."""
        mine, other = (Key(GAUGE, COLLECTOR_INFO, (("id", one),)) for one in ("mine", "other"))
        source = self.merger("sum", collector_id="mine").open("a", 1)
        source.ingest([event(other, SET_GAUGE, 1.0)])
        events = [event(C, INCREMENT, 1), event(mine, SET_GAUGE, 1.0), event(C, INCREMENT, 1)]
        self.assertEqual(self.totals(), {other: 1.0})
        self.assertRaises(LoopError, source.ingest, events)
        self.assertEqual(self.totals(), {C: 1})

    def test_loopInSnapshot(self) -> None:
        """Nothing of a first snapshot is recorded if the stream is the collector's own."""
        mine = Key(GAUGE, COLLECTOR_INFO, (("id", "mine"),))
        merger = self.merger("both", collector_id="mine")
        others: list[Any] = [event(C, SET_COUNTER, 7), event(G, SET_GAUGE, 3.0), total(1.0)]
        merger.open("other", 1).ingest([event(C, INCREMENT, 1), event(G, SET_GAUGE, 2.0)])
        before = self.totals()
        source = merger.open("a", 1)
        source.ingest([Status("a", 1), Snapshot.BEGIN_COMPLETE, *others])
        self.assertEqual(self.totals(), before)
        self.assertRaises(LoopError, source.ingest, [event(mine, SET_GAUGE, 1.0), Snapshot.END])
        self.assertEqual(self.totals(), before)
        self.assertTrue(source.closed)
        # If the program is not part of a loop later, all of it is counted.
        again = merger.open("a", 1)
        self.snapshot(again, *others)
        self.assertEqual((self.totals()[C], self.totals()[G]), (8, 5.0))

    def test_interruptedSnapshot(self) -> None:
        """What has arrived of a first snapshot is recorded when the connection is lost."""
        merger = self.merger("sum")
        source = merger.open("a", 1)
        source.ingest([Snapshot.BEGIN_COMPLETE, event(C, SET_COUNTER, 7), event(G, SET_GAUGE, 1)])
        self.assertEqual(self.totals(), {})
        source.disconnected()
        self.assertEqual(self.totals(), {C: 7, G: 1.0})
        source = merger.open("a", 1)
        self.snapshot(source, event(C, SET_COUNTER, 8), event(G, SET_GAUGE, 1.0))
        self.assertEqual(self.totals(), {C: 8, G: 1.0})

    def test_endlessSnapshot(self) -> None:
        """A snapshot that does not end is not kept back forever."""
        source = self.merger("sum", max_series=10).open("a", 1)
        source.ingest([Snapshot.BEGIN_COMPLETE])
        for number in range(1, 100):
            source.ingest([event(C, SET_COUNTER, number)])
        self.assertEqual(self.totals(), {C: 99})

    def test_informationFirst(self) -> None:
        """What identifies other collectors passes before the counters that follow it."""
        other = Key(GAUGE, COLLECTOR_INFO, (("id", "other"),))
        source = self.merger("sum", collector_id="mine").open("a", 1)
        self.snapshot(source, event(other, SET_GAUGE, 1.0), event(C, SET_COUNTER, 1))
        self.assertEqual([entry[0] for entry in self.entries[:2]], [other, C])

    def test_changesInSnapshot(self) -> None:
        """Only totals in a snapshot can be known already."""
        source = self.merger("sum").open("a", 1)
        self.snapshot(source, event(G, SET_GAUGE, 2.0))
        source.ingest([Snapshot.BEGIN, event(G, UP, 2.0), Snapshot.END])
        self.assertEqual(self.totals(), {G: 4.0})

    def test_buckets(self) -> None:
        """The buckets of a source's histograms are limited; those of others do not matter."""
        self.patch(module, "HISTOGRAM_BYTES", 20 * BUCKET_BYTES)
        merger = self.merger("sum")
        source = merger.open("a", 1)
        small, large = total(*range(10)), total(*range(1, 1000))
        source.ingest([small, large])
        self.assertEqual(source.refused, 1)
        self.assertEqual(self.totals()[H].count, 10)
        merger.open("b", 1).ingest([small])
        self.assertEqual(self.totals()[H].count, 20)
        for _ in range(5):
            source.ingest([Gone(H), small])
        self.assertEqual(source.refused, 1)

    def test_goneCost(self) -> None:
        """The end of a series takes no longer because of other series of dead sources."""
        merger = self.merger("sum")
        for number in range(50):
            source = merger.open("old", number)
            source.ingest([event(C, INCREMENT, 1)])
            source.dead()
        self.assertEqual(list(merger._ended._with), [C])
        one = Key(COUNTER, "one")
        source = merger.open("new", 1000)
        source.ingest([event(one, INCREMENT, 1), Gone(one)])
        source.ingest([event(C, INCREMENT, 1), Gone(C)])
        self.assertEqual(merger._ended._with, {})
        source.dead()
        for number in range(50):
            merger.open("old", number).ingest([event(C, SET_COUNTER, 1)])
        self.assertEqual(self.totals(), {C: 50})
        self.assertEqual(len(merger._returned), 0)

    def test_settings(self) -> None:
        for wrong in ({"merge": "all"}, {"gauges": "avg"}, {"instance_label": ""}):
            self.assertRaises(ValueError, Merger, self.recorder, **wrong)
        self.assertRaises(ValueError, Merger, self.recorder, max_series=-1)
        self.assertIn("'a': 0 series", repr(self.merger().open("a", 1)))
