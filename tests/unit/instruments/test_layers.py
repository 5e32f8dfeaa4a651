"""
Layers, which are recorders that wrap other recorders.
"""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.reader import FakeClient
from tests.recorders import ListRecorder
from txmetrics_tcp import (
    FanoutRecorder,
    FilterRecorder,
    Key,
    LabelsRecorder,
    Metadata,
    MetricKind,
    MetricsFactory,
    NoopRecorder,
    Operation,
    PrefixRecorder,
    Recorder,
    Route,
    RouterRecorder,
    Sink,
)
from txmetrics_tcp._instruments.layers import Pattern, _FanoutSeries
from txmetrics_tcp._instruments.sink import NOWHERE
from txmetrics_tcp.testing import FakeReactor


def use(recorder: Recorder, *names: str) -> None:
    """Record one event and one description for each name."""
    for name in names:
        recorder.counter(name).increment()
        recorder.describe_counter(name)


class LayerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.inner = ListRecorder()

    def names(self, recorder: ListRecorder) -> list[str]:
        """Return the names recorded since the last call.  Check that the same were described."""
        recorded = [name for name, _operation, _value in recorder.take()]
        described = [metadata.name for metadata in recorder.described]
        self.assertEqual(recorded, described)
        return recorded


class PrefixTests(LayerTestCase):
    def test_prefix(self) -> None:
        outer = PrefixRecorder(self.inner, "shop_")
        handle = outer.histogram("latency", route="/")
        handle.record_many(0.5, 2)
        self.assertEqual(self.inner.take(), [("shop_latency [route = /]", None, (0.5, 2))])
        self.assertEqual(str(handle.key), "latency [route = /]")
        outer.describe_gauge("load", "percent", "x")
        self.assertEqual(
            self.inner.described, [Metadata(MetricKind.GAUGE, "shop_load", "percent", "x")]
        )

    def test_sameSeries(self) -> None:
        """Handles record directly to a series of the inner recorder."""
        outer = PrefixRecorder(self.inner, "a_")
        self.assertIs(outer.counter("b")._series, self.inner.counter("a_b")._series)

    def test_invalidPrefix(self) -> None:
        with self.assertRaisesRegex(ValueError, "must not be empty"):
            PrefixRecorder(self.inner, "")
        with self.assertRaisesRegex(TypeError, "must be a str"):
            PrefixRecorder(self.inner, 1)  # type: ignore[arg-type]

    def test_tooLong(self) -> None:
        """Creating a handle raises if the prefixed name is too long."""
        outer = PrefixRecorder(self.inner, "x" * 60_000)
        outer.counter("y" * 5_000)
        with self.assertRaisesRegex(ValueError, "must not exceed"):
            outer.counter("y" * 6_000)
        with self.assertRaisesRegex(ValueError, "must not exceed"):
            outer.describe_counter("y" * 6_000)


class LabelsTests(LayerTestCase):
    def test_labels(self) -> None:
        outer = LabelsRecorder(self.inner, {"host-name": "a"}, region="eu", shard=3)
        outer.counter("c", route="/").increment()
        outer.counter("c", region="us").increment()
        self.assertEqual(
            [name for name, _, _ in self.inner.take()],
            [
                "c [host-name = a, region = eu, route = /, shard = 3]",
                "c [host-name = a, region = us, shard = 3]",
            ],
        )
        outer.describe_counter("c")
        self.assertEqual(self.inner.described, [Metadata(MetricKind.COUNTER, "c")])

    def test_invalidLabels(self) -> None:
        with self.assertRaisesRegex(ValueError, "label name '' must not be empty"):
            LabelsRecorder(self.inner, {"": "x"})
        for labels, rule in (
            ("region", "^labels must be a mapping from names to values, not 'region'$"),
            (["region"], r"^labels must be a mapping .*, not \['region'\]$"),
            ({"description": 5}, "^the value of label 'description' must be a str, not int$"),
        ):
            with self.assertRaisesRegex(TypeError, rule):
                LabelsRecorder(self.inner, labels)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "the labels must not exceed 65536 bytes"):
            LabelsRecorder(self.inner, a="x" * 65_536)


class FilterTests(LayerTestCase):
    NAMES = ("db_reads", "db_writes", "http_reads", "DB_reads")

    def through(
        self,
        allow: Pattern | list[Pattern] | None = None,
        deny: Pattern | list[Pattern] = (),  # type: ignore[assignment]
    ) -> list[str]:
        inner = ListRecorder()
        use(FilterRecorder(inner, allow=allow, deny=deny), *self.NAMES)
        return self.names(inner)

    def test_patterns(self) -> None:
        for allow, deny, expected in (
            (None, (), [0, 1, 2, 3]),
            ("db_*", (), [0, 1]),
            ("db_reads", (), [0]),
            ("db_", (), []),
            (["db_*", "http*"], (), [0, 1, 2]),
            (["db_*", "http*"], ["*_reads"], [1]),
            (None, "db_*", [2, 3]),
            (None, ["db_*", "*reads"], []),
            ([], (), []),
            (re.compile("reads"), (), [0, 2, 3]),
            (re.compile("^db", re.IGNORECASE), re.compile("writes$"), [0, 3]),
        ):
            self.assertEqual(
                self.through(allow, deny),  # type: ignore[arg-type]
                [self.NAMES[i] for i in expected],
                (allow, deny),
            )

    def test_discarded(self) -> None:
        """Handles of excluded names discard events, but validate values."""
        outer = FilterRecorder(self.inner, deny="x")
        self.assertIs(outer.counter("x")._series.sink, NOWHERE)
        with self.assertRaisesRegex(ValueError, "counter 'x': increment by -1"):
            outer.counter("x").increment(-1)

    def test_invalidPatterns(self) -> None:
        for bad in (5, [5], re.compile(b"x")):
            with self.assertRaisesRegex(TypeError, "a pattern must be a str or a compiled"):
                FilterRecorder(self.inner, allow=bad)  # type: ignore[arg-type]


class RouterTests(LayerTestCase):
    def test_routes(self) -> None:
        database, histograms, rest = ListRecorder(), ListRecorder(), ListRecorder()
        router = RouterRecorder(
            Route(database, prefix="db_"),
            Route(histograms, kind=MetricKind.HISTOGRAM),
            Route(rest, prefix="h", kind=MetricKind.COUNTER),
        )
        use(router, "db_reads", "hits", "misses")
        router.histogram("db_time").record(1)
        router.describe_histogram("db_time")
        router.histogram("time").record(1)
        router.describe_histogram("time")
        router.gauge("hot").set(1)
        self.assertEqual(self.names(database), ["db_reads", "db_time"])
        self.assertEqual(self.names(histograms), ["time"])
        self.assertEqual(self.names(rest), ["hits"])


class FanoutTests(LayerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = ListRecorder()
        self.both = FanoutRecorder(self.inner, self.other)

    def test_everything(self) -> None:
        counter, gauge = self.both.counter("c", a="b"), self.both.gauge("g")
        histogram = self.both.histogram("h")
        counter.increment(2)
        counter.absolute(9)
        gauge.increment(2)
        gauge.decrement(3)
        gauge.set(1)
        histogram.record(0.5)
        histogram.record_many(0.25, 3)
        self.both.describe_gauge("g", "seconds")
        expected = [
            ("c [a = b]", Operation.INCREMENT_COUNTER, 2),
            ("c [a = b]", Operation.SET_COUNTER, 9),
            ("g", Operation.INCREMENT_GAUGE, 2.0),
            ("g", Operation.DECREMENT_GAUGE, 3.0),
            ("g", Operation.SET_GAUGE, 1.0),
            ("h", Operation.RECORD_HISTOGRAM, 0.5),
            ("h", None, (0.25, 3)),
        ]
        for recorder in (self.inner, self.other):
            self.assertEqual(recorder.take(), expected)
            self.assertEqual(recorder.described, [Metadata(MetricKind.GAUGE, "g", "seconds")])

    def test_open(self) -> None:
        """Only sinks that are open when an event is recorded receive it."""
        counter = self.both.counter("c")
        for first, second in ((True, False), (False, True), (False, False), (True, True)):
            self.inner.sink.open, self.other.sink.open = first, second
            self.assertEqual(counter._series.sink.open, first or second)
            counter.increment()
            taken = len(self.inner.take()), len(self.other.take())
            self.assertEqual(taken, (int(first), int(second)))

    def test_stamp(self) -> None:
        """All recorders receive the same time, which is read only if one of them needs it."""
        reads: list[int] = []

        def clock() -> int:
            reads.append(1)
            return 40 + len(reads)

        for recorder in (self.inner, self.other):
            recorder.sink.clock = clock
        counter = self.both.counter("c")
        for wanted in ((False, False), (False, True), (True, True)):
            self.inner.sink.stamped, self.other.sink.stamped = wanted
            counter.increment()
        self.assertEqual([entry[3] for entry in self.inner.entries], [0, 0, 42])
        self.assertEqual([entry[3] for entry in self.other.entries], [0, 41, 42])
        self.assertEqual(len(reads), 2)

    def test_notify(self) -> None:
        """Each sink is notified by its own threshold."""
        notified: list[str] = []

        class Notified(Sink):
            name = ""

            def notify(self) -> None:
                notified.append(self.name)

        for recorder, name in ((self.inner, "a"), (self.other, "b")):
            recorder.sink = sink = Notified(recorder.entries, wake_threshold=1)
            sink.name = name
        counter = self.both.counter("c")
        counter.increment()
        self.assertEqual(notified, [])
        self.inner.sink.wake_threshold = -1
        counter.increment()
        self.assertEqual(notified, ["a", "b"])

    def test_flat(self) -> None:
        """Nested fan-outs are flattened.  With one target or none, no relay is used."""
        third = ListRecorder()
        deep = FanoutRecorder(PrefixRecorder(self.both, "x_"), third, NoopRecorder())
        deep.counter("c").increment()
        for recorder, name in ((self.inner, "x_c"), (self.other, "x_c"), (third, "c")):
            self.assertEqual(recorder.take(), [(name, Operation.INCREMENT_COUNTER, 1)])
        series = deep.counter("c")._series
        assert isinstance(series, _FanoutSeries)
        self.assertEqual(
            [one.sink for one in series.targets], [self.inner.sink, self.other.sink, third.sink]
        )
        one = FanoutRecorder(self.inner, NoopRecorder())
        self.assertIs(one.counter("c")._series, self.inner.counter("c")._series)
        self.assertIs(FanoutRecorder().counter("c")._series.sink, NOWHERE)

    def test_exporters(self) -> None:
        """Two exporters, one with a client and one without, keep separate totals and streams."""
        reactor = FakeReactor()
        factories = [MetricsFactory(reactor), MetricsFactory(reactor)]
        both = FanoutRecorder(*[factory.recorder for factory in factories])
        counter = both.counter("c")
        counter.increment(2)
        client = FakeClient(factories[1])
        client.read_all(reactor)
        for _ in range(5000):
            counter.increment()
        reader = client.read_all(reactor)
        key = Key(MetricKind.COUNTER, "c")
        self.assertEqual(reader.totals[key], 5002)
        for factory in factories:
            self.assertEqual(factory.recorder.snapshot()[key], 5002)


class ArgumentTests(SynchronousTestCase):
    def test_noRecorder(self) -> None:
        """A layer rejects what is not a recorder when it is created, not at the first metric."""
        for make in (
            lambda recorder: PrefixRecorder(recorder, "p"),
            LabelsRecorder,
            FilterRecorder,
            FanoutRecorder,
            Route,
        ):
            for wrong in (None, [NoopRecorder()], NoopRecorder):
                with self.assertRaisesRegex(TypeError, "^a recorder is required, not "):
                    make(wrong)


class ComposedTests(LayerTestCase):
    def test_composed(self) -> None:
        """Layers can be combined in any order."""
        debug = ListRecorder()
        recorder = FanoutRecorder(
            PrefixRecorder(LabelsRecorder(self.inner, region="eu"), "shop_"),
            FilterRecorder(debug, allow="db_*"),
        )
        recorder.counter("db_reads").labels(table="t").increment()
        recorder.gauge("load").set(1)
        self.assertEqual(
            [name for name, _, _ in self.inner.take()],
            ["shop_db_reads [region = eu, table = t]", "shop_load [region = eu]"],
        )
        self.assertEqual([name for name, _, _ in debug.take()], ["db_reads [table = t]"])

    def test_repr(self) -> None:
        inner = NoopRecorder()
        for recorder in (
            PrefixRecorder(inner, "x_"),
            LabelsRecorder(inner, a="b"),
            FilterRecorder(inner),
            RouterRecorder(Route(inner)),
            FanoutRecorder(inner),
        ):
            self.assertIn(type(recorder).__name__, repr(recorder))
            self.assertIn("NoopRecorder", repr(recorder))
