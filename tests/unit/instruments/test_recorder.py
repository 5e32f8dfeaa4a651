"""
Handles, and custom recorders.
"""

import collections
import enum
import gc
import types
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
        self.recorder.gauge("g").set(numpy.array(7.5))
        self.recorder.gauge("g").set(numpy.int64(7))
        self.recorder.counter("c").increment(numpy.array(7))
        self.assertEqual([value for _, _, value in self.recorder.take()], [7.5, 7.0, 7])
        with self.assertRaisesRegex(TypeError, "must be a whole number"):
            self.recorder.counter("c").increment(numpy.float64(5))
        for bad in (numpy.str_("1"), numpy.bytes_(b"1"), numpy.array([1.0, 2.0])):
            with self.assertRaisesRegex(TypeError, "gauge 'g': set to .*: must be a number"):
                self.recorder.gauge("g").set(bad)

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
                    with self.assertRaisesRegex(TypeError, f"{start} True: .*, not bool"):
                        act(True)
                else:
                    with self.assertRaisesRegex(ValueError, f"{start} 1000.*that a float can hold"):
                        act(10**400)

    def test_reprOfValidValue(self) -> None:
        """The repr of a valid value is not built: it may be slow, or raise an exception."""

        class Unprintable:
            def __index__(self) -> int:
                return 3

            def __repr__(self) -> str:
                raise AssertionError

        recorder = ListRecorder()
        for _start, act, _whole in self.cases(recorder):
            act(Unprintable())
        recorder.histogram("h").record_many(Unprintable(), Unprintable())  # type: ignore[arg-type]
        self.assertEqual(len(recorder.take()), 8)

    def test_shortMessages(self) -> None:
        """An error message about a large value, or one that cannot be printed, is short."""

        class Unprintable:
            def __repr__(self) -> str:
                raise AssertionError

        recorder = NoopRecorder()
        for start, act, _whole in self.cases(recorder):
            for bad in ("x" * 1_000_000, b"x" * 1_000_000, [1] * 10_000, 10**5000, Unprintable()):
                with self.assertRaisesRegex((TypeError, ValueError), f"{start} .*: must") as raised:
                    act(bad)
                self.assertLess(len(str(raised.exception)), 250)
        with self.assertRaisesRegex(TypeError, "counter 'x+…: increment by 'a': must") as caught:
            recorder.counter("x" * 10_000).increment("a")  # type: ignore[arg-type]
        self.assertLess(len(str(caught.exception)), 250)

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

    def test_strSubclasses(self) -> None:
        """
        The text of an instance of a subclass of str is its characters, in names and values, also if
        the handle of an equal text is cached.
        """

        class Route(str, enum.Enum):
            HOME = "home"

        class Tagged(str):
            def __str__(self) -> str:
                return "<Tagged>"

        for text in (Route.HOME, "home", Tagged("home"), Route.HOME):
            handles = [
                self.recorder.counter("c", route=text),
                self.recorder.counter("c", {"route": text}),
                self.recorder.counter("c").labels(route=text),
                self.recorder.counter("c", {text: "x"}),
                self.recorder.counter(text),
            ]
            self.assertEqual(
                [str(handle.key) for handle in handles],
                [*["c [route = home]"] * 3, "c [home = x]", "home"],
            )
        self.assertEqual(len(self.recorder.series), 4)

    def test_otherLibrariesParameters(self) -> None:
        """
        Parameters of other libraries' functions are not taken for labels.  The error names the
        function that describes a metric.
        """
        for kind in MetricKind:
            find = getattr(self.recorder, kind.value)
            for given, more in (
                (("help",), {}),
                ((["label"],), {}),
                (([("label", "value")],), {}),
                ((5,), {}),
                (({"buckets": 5},), {}),
                ((), {"buckets": [1, 2]}),
                ((), {"buckets": (1, 2), "unit": "seconds"}),
                ((), {"documentation": None}),
                ((), {"description": b"help"}),
                ((), {"labels": {"a": "b"}}),
            ):
                for call in (find, find("x").labels):
                    arguments = ("x", *given) if call is find else given
                    with self.assertRaisesRegex(
                        TypeError, rf"^{kind.value} 'x': .*must be .*describe_{kind.value}\(\)"
                    ):
                        call(*arguments, **more)
            text = find("x", buckets="1", documentation="2", description="3", unit=4)
            self.assertEqual(len(text.key.labels), 4)
            self.assertEqual(find("x", None).key, find("x", {}).key)

    def test_mappings(self) -> None:
        """Labels may be any mapping."""
        for labels in (types.MappingProxyType({"a": "b"}), collections.ChainMap({"a": "b"})):
            self.assertEqual(str(self.recorder.counter("c", labels).key), "c [a = b]")

    def test_badLabelValue(self) -> None:
        class Bad:
            def __str__(self) -> str:
                raise RuntimeError("no")

        for bad in (
            lambda: self.recorder.counter("c", a=Bad()),
            lambda: self.recorder.counter("c").labels({"a": Bad()}),
        ):
            with self.assertRaisesRegex(
                ValueError, r"counter 'c': the value of label 'a' .* raised RuntimeError\('no'\)"
            ):
                bad()

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
