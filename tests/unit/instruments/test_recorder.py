"""
Handles, and custom recorders.
"""

import collections
import gc
import weakref
from collections.abc import Callable
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.recorders import ListRecorder
from txmetrics_tcp import (
    Counter,
    Histogram,
    Key,
    Metadata,
    MetricKind,
    NoopRecorder,
    Operation,
    Recorder,
    Series,
    Sink,
    Unit,
)
from txmetrics_tcp._instruments.recorder import HANDLE_CACHE_SIZE
from txmetrics_tcp._instruments.sink import RECORD_MANY


class HandleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorder = ListRecorder()

    def test_counter(self) -> None:
        counter = self.recorder.counter("requests", route="/")
        counter.increment()
        counter.increment(2)
        counter.absolute(7)
        self.assertEqual(
            self.recorder.take(),
            [
                ("requests [route = /]", Operation.INCREMENT_COUNTER, 1),
                ("requests [route = /]", Operation.INCREMENT_COUNTER, 2),
                ("requests [route = /]", Operation.SET_COUNTER, 7),
            ],
        )

    def test_gauge(self) -> None:
        gauge = self.recorder.gauge("load")
        gauge.increment()
        gauge.increment(2)
        gauge.decrement()
        gauge.decrement(0.5)
        gauge.set(7)
        self.assertEqual(
            self.recorder.take(),
            [
                ("load", Operation.INCREMENT_GAUGE, 1.0),
                ("load", Operation.INCREMENT_GAUGE, 2.0),
                ("load", Operation.DECREMENT_GAUGE, 1.0),
                ("load", Operation.DECREMENT_GAUGE, 0.5),
                ("load", Operation.SET_GAUGE, 7.0),
            ],
        )

    def test_histogram(self) -> None:
        histogram = self.recorder.histogram("latency")
        histogram.record(0.25)
        histogram.record_many(3, 4)
        histogram.record_many(3, 0)
        self.assertEqual(
            self.recorder.take(),
            [
                ("latency", Operation.RECORD_HISTOGRAM, 0.25),
                ("latency", RECORD_MANY, (3.0, 4)),
            ],
        )

    def test_valuesArePlain(self) -> None:
        """Values of subclasses are recorded as plain ints and floats."""

        class Int(int):
            pass

        class Float(float):
            pass

        self.recorder.counter("c").increment(Int(1))
        self.recorder.counter("c").absolute(Int(1))
        gauge = self.recorder.gauge("g")
        for act in (gauge.increment, gauge.decrement, gauge.set):
            act(Float(1))
            act(1)
        self.recorder.histogram("h").record(Float(1))
        for _series, operation, value in self.recorder.take():
            plain = int if operation in (4, 5) else float
            self.assertIs(type(value), plain, operation)

    @skipIf(needs("numpy"), needs("numpy"))
    def test_numpy(self) -> None:
        import numpy

        self.recorder.counter("c").increment(numpy.int32(5))
        self.recorder.histogram("h").record(numpy.float32(0.5))
        self.assertEqual([value for _, _, value in self.recorder.take()], [5, 0.5])
        with self.assertRaisesRegex(TypeError, "must be a whole number"):
            self.recorder.counter("c").increment(numpy.float64(5))

    def test_clock(self) -> None:
        """An entry has the time of recording, if the sink needs it."""
        self.recorder.counter("c").increment()
        self.recorder.sink.stamped = False
        self.recorder.counter("c").increment()
        self.assertEqual([entry[3] for entry in self.recorder.entries], [42, 0])

    def test_notify(self) -> None:
        """A sink is notified when its log is longer than the threshold."""
        lengths: list[int] = []

        class Notified(Sink):
            def notify(self) -> None:
                lengths.append(len(self.log))

        sink = Notified(collections.deque(), wake_threshold=2)
        counter = Counter(Key(MetricKind.COUNTER, "c"), Series(Key(MetricKind.COUNTER, "c"), sink))
        sink.wake_threshold = -1
        counter.increment()
        sink.wake_threshold = 2
        counter.increment()
        counter.increment()
        self.assertEqual(lengths, [1, 3])

    def test_repr(self) -> None:
        self.assertEqual(
            repr(self.recorder.counter("requests", route="/")), "<Counter requests [route = /]>"
        )
        self.assertEqual(repr(self.recorder.gauge("load")), "<Gauge load>")

    def test_labels(self) -> None:
        """`labels` returns a handle with additional labels, which override existing ones."""
        base = self.recorder.histogram("h", service="a", route="/")
        refined = base.labels({"user-agent": "x", "n": 1}, route="/y", n=2)
        self.assertEqual(str(refined.key), "h [n = 2, route = /y, service = a, user-agent = x]")
        self.assertEqual(str(base.key), "h [route = /, service = a]")
        refined.record(1)
        self.assertEqual(len(self.recorder.take()), 1)
        self.assertIs(type(refined), Histogram)
        self.assertIs(base.labels({"user-agent": "x"}, n=2, route="/y"), refined)
        self.assertIs(base.labels()._series, base._series)
        with self.assertRaisesRegex(ValueError, "label name '' must not be empty"):
            base.labels({"": "x"})

    def test_labelsOfRegisteredHandle(self) -> None:
        registered = self.recorder.register_counter(Key(MetricKind.COUNTER, "c"))
        self.assertEqual(str(registered.labels(a="b").key), "c [a = b]")

    def test_labelsWithoutRecorder(self) -> None:
        key = Key(MetricKind.COUNTER, "c")
        with self.assertRaisesRegex(ValueError, "<Counter c> has no recorder"):
            Counter(key, self.recorder.attach(key)).labels(a="b")


class EveryMethodTests(SynchronousTestCase):
    """
    Every recording method validates its value, whether or not the value is recorded.
    """

    def cases(self, recorder: Recorder) -> list[tuple[str, Callable[[object], None], bool]]:
        counter, gauge = recorder.counter("metric"), recorder.gauge("metric")
        histogram = recorder.histogram("metric")
        return [
            ("counter 'metric': increment by", counter.increment, True),  # type: ignore[list-item]
            ("counter 'metric': absolute", counter.absolute, True),  # type: ignore[list-item]
            ("gauge 'metric': increment by", gauge.increment, False),  # type: ignore[list-item]
            ("gauge 'metric': decrement by", gauge.decrement, False),  # type: ignore[list-item]
            ("gauge 'metric': set to", gauge.set, False),  # type: ignore[list-item]
            ("histogram 'metric': record", histogram.record, False),  # type: ignore[list-item]
            (
                "histogram 'metric': record_many of",
                lambda n: histogram.record_many(1.0, n),  # type: ignore[arg-type]
                True,
            ),
        ]

    def test_invalidValues(self) -> None:
        for recorder in (ListRecorder(), NoopRecorder()):
            for start, act, whole in self.cases(recorder):
                with self.assertRaisesRegex(TypeError, f"{start} 'x': must be a .*, not str"):
                    act("x")
                if whole:
                    for bad, error in ((-1, ValueError), (2**64, ValueError), (0.5, TypeError)):
                        with self.assertRaisesRegex(error, f"{start} {bad}: must be a whole"):
                            act(bad)
                    with self.assertRaisesRegex(TypeError, f"{start} True: .*, not a bool"):
                        act(True)
                else:
                    with self.assertRaisesRegex(ValueError, f"{start} 1000.*that a float can hold"):
                        act(10**400)

    def test_nothingRecorded(self) -> None:
        """An invalid value is not recorded."""
        recorder = ListRecorder()
        for _start, act, _whole in self.cases(recorder):
            self.assertRaises(TypeError, act, "x")
        self.assertEqual(recorder.take(), [])


class RecorderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorder = ListRecorder()

    def test_sameSeries(self) -> None:
        """The same name and labels give the same series, in any way of passing the labels."""
        handles = [
            self.recorder.counter("c", {"a": "1", "b": "2"}),
            self.recorder.counter("c", {"b": "2", "a": "1"}),
            self.recorder.counter("c", a="1", b="2"),
            self.recorder.counter("c", {"a": "0", "b": 2}, a=1),
        ]
        self.assertEqual(len({handle.key for handle in handles}), 1)
        self.assertEqual(len(self.recorder.series), 1)
        self.assertIs(
            self.recorder.counter("c", a="1", b="2"), self.recorder.counter("c", a="1", b="2")
        )

    def test_kindsAreDistinct(self) -> None:
        self.recorder.counter("x")
        self.recorder.gauge("x")
        self.recorder.histogram("x")
        self.assertEqual({key.kind for key in self.recorder.series}, set(MetricKind))

    def test_equalValuesOfOtherTypes(self) -> None:
        """1, 1.0 and True are equal, but are different label values."""
        keys = [self.recorder.counter("c", v=value).key for value in (1, True, 1.0, "1")]
        self.assertEqual([dict(key.labels)["v"] for key in keys], ["1", "True", "1.0", "1"])

    def test_badNames(self) -> None:
        for name, error in (
            ("", ValueError),
            (b"x", TypeError),
            ([], TypeError),
            (None, TypeError),
        ):
            with self.assertRaisesRegex(error, "the name must"):
                self.recorder.counter(name)  # type: ignore[arg-type]
        self.assertEqual(self.recorder.series, {})

    def test_labelNamedLikeParameters(self) -> None:
        """Labels can have the names of parameters."""
        counter = self.recorder.counter("c", name="n", labels="l", self="s")
        self.assertEqual(counter.key.labels, (("labels", "l"), ("name", "n"), ("self", "s")))

    def test_cacheIsBounded(self) -> None:
        """Unreferenced handles are evicted from the cache."""
        first = weakref.ref(self.recorder.counter("c", i="first"))
        self.assertIsNotNone(first())
        for i in range(HANDLE_CACHE_SIZE):
            self.recorder.counter("c", i=str(i))
        gc.collect()
        self.assertIsNone(first())

    def test_register(self) -> None:
        key = Key(MetricKind.GAUGE, "g", (("a", "b"),))
        self.recorder.register_gauge(key).set(1)
        self.assertEqual(self.recorder.take(), [("g [a = b]", Operation.SET_GAUGE, 1.0)])
        self.assertIs(type(self.recorder.register_counter(Key(MetricKind.COUNTER, "c"))), Counter)
        self.recorder.register_histogram(Key(MetricKind.HISTOGRAM, "h")).record(1)
        with self.assertRaisesRegex(ValueError, "gauge 'g': cannot be registered as counter"):
            self.recorder.register_counter(key)

    def test_describe(self) -> None:
        self.recorder.describe_counter("c", Unit.BYTES, "what it is")
        self.recorder.describe_gauge("g", "seconds")
        self.recorder.describe_histogram("h", description="x")
        self.assertEqual(
            self.recorder.described,
            [
                Metadata(MetricKind.COUNTER, "c", "bytes", "what it is"),
                Metadata(MetricKind.GAUGE, "g", "seconds"),
                Metadata(MetricKind.HISTOGRAM, "h", None, "x"),
            ],
        )
        with self.assertRaisesRegex(ValueError, "unknown unit"):
            self.recorder.describe_counter("c", "parsecs")
