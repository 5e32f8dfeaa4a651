"""
The bridge from OpenTelemetry.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import threading
import weakref
from collections.abc import Generator, Iterable
from enum import Enum
from http import HTTPStatus
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.metrics import (
    CallbackOptions,
    MeterProvider,
    NoOpMeter,
    NoOpMeterProvider,
    Observation,
)
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.exporting import FactoryTestCase
from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import (
    Distribution,
    Key,
    MetricKind,
    Operation,
    PrefixRecorder,
    Recorder,
    counter,
    local_recorder,
    set_global_recorder,
)
from txmetrics_tcp._instruments import facade
from txmetrics_tcp.bridges import opentelemetry as bridge
from txmetrics_tcp.bridges.opentelemetry import IGNORED, StreamingMeterProvider

no_sdk = needs("opentelemetry.sdk")

INCREMENT, SET = Operation.INCREMENT_COUNTER, Operation.SET_COUNTER
INCREMENT_GAUGE, SET_GAUGE = Operation.INCREMENT_GAUGE, Operation.SET_GAUGE
RECORD = Operation.RECORD_HISTOGRAM


class FakeThread:
    """A thread that is started, but does not run."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.started = False
        FakeThread.made.append(self)

    made: list[FakeThread]

    def start(self) -> None:
        self.started = True


class InnerProvider(NoOpMeterProvider):
    """A provider whose meters keep what they are called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def get_meter(self, *arguments: Any, **more: Any) -> Any:
        self.calls.append(("get_meter", *arguments))
        return InnerInstrument(self.calls)

    def force_flush(self, timeout_millis: float = 1) -> bool:
        self.calls.append(("force_flush", timeout_millis > 1))
        return True

    def shutdown(self, timeout_millis: float = 1, **more: Any) -> None:
        self.calls.append(("shutdown", timeout_millis > 1, more))


class InnerInstrument:
    """A meter or an instrument."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> InnerInstrument:
            self.calls.append((name, *arguments, *more.values()))
            return self

        return call


class BridgeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        FakeThread.made = []
        self.now = 100.0
        self.patch(bridge.threading, "Thread", FakeThread)
        self.patch(bridge, "_forking", weakref.WeakSet())
        self.patch(bridge, "time", self)
        self.recorder = ListRecorder()

    def monotonic(self) -> float:
        return self.now

    def provider(self, inner: MeterProvider | None = None, **more: Any) -> StreamingMeterProvider:
        return StreamingMeterProvider(self.recorder, inner, **more)

    def take(self) -> list[tuple[str, Operation | None, object]]:
        return self.recorder.take()


class InstrumentTests(BridgeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.meter = self.provider().get_meter("m")

    def test_counter(self) -> None:
        counter = self.meter.create_counter("requests")
        counter.add(1)
        counter.add(2, {"route": "/"})
        counter.add(2.0, {})
        self.assertEqual(
            self.take(),
            [
                ("requests", INCREMENT, 1),
                ("requests [route = /]", INCREMENT, 2),
                ("requests", INCREMENT, 2),
            ],
        )

    def test_fractions(self) -> None:
        """A counter adds fractions up, for each attribute set."""
        counter = self.meter.create_counter("ratio")
        for _ in range(3):
            counter.add(0.5, {"a": 1})
            counter.add(0.25, {"a": 2})
        self.assertEqual(self.take(), [("ratio [a = 1]", INCREMENT, 1)])

    def test_seconds(self) -> None:
        """A counter of seconds is a gauge, whether its unit or its name says so."""
        self.meter.create_counter("cpu.time", "s").add(0.5)
        self.meter.create_counter("cpu_seconds_total").add(1)
        self.meter.create_observable_counter("gc.time", [lambda _: [Observation(2.5)]], "s")
        self.meter._poller.poll()
        self.assertEqual(
            self.take(),
            [
                ("cpu.time", INCREMENT_GAUGE, 0.5),
                ("cpu_seconds_total", INCREMENT_GAUGE, 1.0),
                ("gc.time", SET_GAUGE, 2.5),
            ],
        )

    def test_others(self) -> None:
        self.meter.create_up_down_counter("u").add(-2, {"a": "b"})
        self.meter.create_up_down_counter("u").add(0.5)
        self.meter.create_histogram("h").record(1.5)
        self.meter.create_histogram("h").record(2, {"a": "b"})
        self.meter.create_gauge("g").set(-7)
        self.meter.create_gauge("g").set(1e300, {"a": "b"})
        self.assertEqual(
            self.take(),
            [
                ("u [a = b]", INCREMENT_GAUGE, -2.0),
                ("u", INCREMENT_GAUGE, 0.5),
                ("h", RECORD, 1.5),
                ("h [a = b]", RECORD, 2.0),
                ("g", SET_GAUGE, -7.0),
                ("g [a = b]", SET_GAUGE, 1e300),
            ],
        )

    def test_names(self) -> None:
        """Names ignore the case.  Equal arguments return the same instrument."""
        one = self.meter.create_counter("Requests", "{x}", "text")
        self.assertIs(one, self.meter.create_counter("requests", "{x}", "text"))
        self.assertIsNot(one, self.meter.create_counter("requests", "{x}", "other"))
        one.add(1)
        self.assertEqual(self.take(), [("requests", INCREMENT, 1)])

    def test_context(self) -> None:
        """A context is accepted, as later versions of the API have it."""
        self.meter.create_counter("c").add(1, None, Context())
        self.meter.create_up_down_counter("u").add(1, {}, context=Context())
        self.meter.create_histogram("h").record(1, attributes=None, context=None)
        self.meter.create_gauge("g").set(1, {}, Context())
        self.assertEqual(len(self.take()), 4)

    def test_laterArguments(self) -> None:
        """Arguments of later versions of the API are accepted."""
        self.meter.create_histogram(
            "h", "s", "", explicit_bucket_boundaries_advisory=[1.0], other=1
        ).record(1)
        self.assertEqual(len(self.take()), 1)

    def test_largeNumbers(self) -> None:
        """Counters wrap, as those of the library do."""
        self.meter.create_counter("c").add(2**64 + 5)
        self.meter.create_observable_counter("o", [lambda _: [Observation(2.0**64 + 4096)]])
        self.meter._poller.poll()
        self.assertEqual(self.take(), [("c", INCREMENT, 5), ("o", SET, 4096)])

    def test_numbers(self) -> None:
        """What the library takes for a number is one here, too."""

        class Exact:
            def __float__(self) -> float:
                return 1.5

        for amount in (True, HTTPStatus.OK, Exact()):
            self.meter.create_counter("c").add(amount)  # type: ignore[arg-type]
            self.meter.create_histogram("h").record(amount)  # type: ignore[arg-type]
        self.assertEqual(
            [value for _series, _operation, value in self.take()],
            [1, 1.0, 200, 200.0, 1, 1.5],
        )


class IgnoredTests(BridgeTestCase):
    class Hostile:
        def __bool__(self) -> bool:
            raise RuntimeError("bool")

        def __float__(self) -> float:
            raise RuntimeError("float")

        def __lt__(self, other: object) -> bool:
            raise RuntimeError("lt")

        def __hash__(self) -> int:
            raise RuntimeError("hash")

        def __str__(self) -> str:
            raise RuntimeError("str")

        __repr__ = items = values = __str__

    def ignored(self) -> int:
        taken = self.take()
        self.assertEqual({(one, value) for one, _, value in taken} - {(IGNORED, 1)}, set())
        return len(taken)

    def test_amounts(self) -> None:
        """An invalid measurement is counted, and the first of each instrument is logged."""
        meter = self.provider().get_meter("m")
        bad: list[Any] = [math.nan, math.inf, -math.inf, 10**400, "1", b"1", None, [], 1j]
        bad.append(self.Hostile())
        negative: list[Any] = [-1, -0.5]
        for number, (record, worse) in enumerate(
            (
                (meter.create_counter("c").add, bad[:3] + bad[4:] + negative),
                (meter.create_counter("s", "s").add, bad + negative),
                (meter.create_up_down_counter("u").add, bad),
                (meter.create_histogram("h").record, bad + negative),
                (meter.create_gauge("g").set, bad),
            )
        ):
            with self.assertLogs(bridge.__name__) as logs:
                for amount in worse:
                    record(amount, {"a": "b"})
                    record(amount)
            self.assertEqual(self.ignored(), 2 * len(worse), number)
            self.assertEqual(len(logs.output), 1)

    def test_attributes(self) -> None:
        """Attributes that have no text are ignored with their measurement."""
        counter = self.provider().get_meter("m").create_counter("c")
        circular: list[Any] = []
        circular.append(circular)
        bad: list[Any] = [
            self.Hostile(),
            {"a": self.Hostile()},
            {self.Hostile: circular},
            {"a": circular},
            {"a": "x" * 70_000},
            "text",
            7,
        ]
        with self.assertLogs(bridge.__name__):
            for attributes in bad:
                counter.add(1, attributes)
        self.assertEqual(self.ignored(), len(bad))

    def test_instruments(self) -> None:
        """Instruments without a valid name ignore everything."""
        with self.assertLogs(bridge.__name__):
            for name in ("", None, 7, "x" * 70_000):
                meter = self.provider().get_meter(name)  # type: ignore[arg-type]
                meter.create_counter(name, None, None).add(1)  # type: ignore[arg-type]
                self.assertEqual(self.ignored(), 1)

    def test_interrupt(self) -> None:
        """KeyboardInterrupt is not an error of a value."""

        class Interrupted:
            def __float__(self) -> float:
                raise KeyboardInterrupt

        counter = self.provider().get_meter("m").create_counter("c")
        self.assertRaises(KeyboardInterrupt, counter.add, Interrupted())


class AttributeTests(BridgeTestCase):
    def labels(self, *attributes: Any) -> list[dict[str, str]]:
        """Record with each attribute set twice, and return the labels of the events."""
        counter = self.provider().get_meter("m").create_counter("c")
        for _ in range(2):
            for one in attributes:
                counter.add(1, one)
        found = [dict(entry[0].key.labels) for entry in self.recorder.entries]
        self.recorder.entries.clear()
        self.assertEqual(found[: len(attributes)], found[len(attributes) :])
        return found[: len(attributes)]

    def test_equalValues(self) -> None:
        """Equal values of different types have different texts."""
        values = [True, 1, 1.0, "1", 0, False, 0.0, None, ""]
        texts = ["true", "1", "1.0", "1", "0", "false", "0.0", "", ""]
        self.assertEqual(
            self.labels(*({"a": value} for value in values)), [{"a": text} for text in texts]
        )
        nested = [(1,), (True,), (1.0,), [1], [True]]
        self.assertEqual(
            [labels["a"] for labels in self.labels(*({"a": value} for value in nested))],
            ["[1]", "[true]", "[1.0]", "[1]", "[true]"],
        )

    def test_texts(self) -> None:
        class Route(str, Enum):
            HOME = "/home"

            def __str__(self) -> str:
                return "not this"

        for value, text in (
            (Route.HOME, "/home"),
            (HTTPStatus.OK, "200"),
            (["a", None, "é"], '["a", null, "é"]'),
            ({"b": (1, 2)}, '{"b": [1, 2]}'),
            (range(3), "[0, 1, 2]"),
            (b"\xff", "/w=="),
            ([b"\xff"], '["/w=="]'),
            (math.nan, "NaN"),
            ("\ud800", "?"),
            (Key, str(Key)),
        ):
            self.assertEqual(
                self.labels({"a": value}), [{"a": text if value is not Key else f'"{text}"'}]
            )

    def test_names(self) -> None:
        """Names that are not strings become text; attributes without a name are left out."""
        attributes: Any = {1: "a", "": "b", "c": "d"}
        self.assertEqual(self.labels(attributes), [{"1": "a", "c": "d"}])

    def test_order(self) -> None:
        """The order of attributes makes no other attribute set."""
        provider = self.provider(max_attribute_sets=1)
        counter = provider.get_meter("m").create_counter("c")
        counter.add(1, {"a": 1, "b": 2})
        counter.add(1, {"b": 2, "a": 1})
        self.assertEqual([one for one, _, _ in self.take()], ["c [a = 1, b = 2]"] * 2)

    def test_overflow(self) -> None:
        """Attribute sets beyond the maximum of an instrument have a series in common."""
        provider = self.provider(max_attribute_sets=2)
        meter = provider.get_meter("m")
        counter, other = meter.create_counter("c"), meter.create_counter("d")
        for _ in range(2):
            for attributes in ({"a": 1}, {"a": 2}, {"a": 3}, {"a": [4]}, {}, None):
                counter.add(1, attributes)
        other.add(1, {"a": 5})
        overflow = "c [otel.metric.overflow = true]"
        expected = ["c [a = 1]", "c [a = 2]", *[overflow] * 4]
        self.assertEqual([one for one, _, _ in self.take()], [*expected * 2, "d [a = 5]"])

    def test_bounded(self) -> None:
        """The cache is bounded, whatever the attributes."""
        counter: Any = self.provider(max_attribute_sets=3).get_meter("m").create_counter("c")
        for number in range(100):
            counter.add(1, {"a": float("nan")})
            counter.add(1, {"b": number})
        self.assertTrue(len(counter._stream._cache) <= 12)
        self.assertEqual(len(counter._stream._series), 3)


class DescriptionTests(BridgeTestCase):
    def described(self, unit: str, text: str = "Text") -> tuple[str | None, str]:
        self.recorder.described.clear()
        self.provider().get_meter("m").create_counter("c", unit, text)
        one = self.recorder.described[-1]
        self.assertEqual((one.kind, one.name), (MetricKind.COUNTER, "c"))
        return one.unit, one.description

    def test_units(self) -> None:
        for unit, known in (
            ("ms", "milliseconds"),
            ("us", "microseconds"),
            ("ns", "nanoseconds"),
            ("By", "bytes"),
            ("KiBy", "kibibytes"),
            ("MiBy", "mebibytes"),
            ("GiBy", "gibibytes"),
            ("%", "percent"),
            ("{request}", "count"),
            ("{packet}/s", "count_per_second"),
            ("bytes", "bytes"),
            ("1", None),
            ("", None),
        ):
            self.assertEqual(self.described(unit), (known, "Text"), unit)

    def test_otherUnits(self) -> None:
        """The description has a unit that the library does not have."""
        self.assertEqual(self.described("Cel"), (None, "Text [Cel]"))
        self.assertEqual(self.described("Cel", ""), (None, "[Cel]"))

    def test_seconds(self) -> None:
        self.provider().get_meter("m").create_counter("c", "s", "Text")
        one = self.recorder.described[-1]
        self.assertEqual((one.kind, one.unit), (MetricKind.GAUGE, "seconds"))

    def test_impossible(self) -> None:
        """A description that cannot be sent is left out."""
        with self.assertLogs(bridge.__name__):
            self.provider().get_meter("m").create_counter("c", "", "x" * 70_000).add(1)
        self.assertEqual(self.take(), [("c", INCREMENT, 1)])


class MeterTests(BridgeTestCase):
    def test_same(self) -> None:
        provider = self.provider()
        one = provider.get_meter("m", "1", "url", {"a": 1})
        self.assertIs(one, provider.get_meter("m", "1", "url", {"a": 1}))
        self.assertIsNot(one, provider.get_meter("m", "1", "url", {"a": 2}))
        self.assertEqual((one.name, one.version, one.schema_url), ("m", "1", "url"))

    def test_sameNames(self) -> None:
        """Instruments of several meters with the same name have different series."""
        provider = self.provider()
        for arguments in (
            ("one",),
            ("two", "1.0"),
            ("two", "1.1", "url", {"deployment": "blue"}),
            ("one",),
        ):
            meter: Any = provider.get_meter(*arguments)
            meter.create_counter("c").add(1, {"a": "b"})
            meter.create_gauge(f"g {arguments}").set(1)
        self.assertEqual(
            [one for one, _, _ in self.take() if one.startswith("c")],
            [
                "c [a = b]",
                "c [a = b, otel.scope.name = two, otel.scope.version = 1.0]",
                "c [a = b, otel.scope.deployment = blue, otel.scope.name = two,"
                " otel.scope.schema_url = url, otel.scope.version = 1.1]",
                "c [a = b]",
            ],
        )
        self.assertFalse([one for one in self.recorder.series if one.name[0] == "g" and one.labels])

    def test_arguments(self) -> None:
        self.assertRaises(TypeError, StreamingMeterProvider, "recorder")
        self.assertRaises(TypeError, StreamingMeterProvider, None, "inner")
        self.assertRaises(ValueError, self.provider, interval=0)
        self.assertRaises(ValueError, self.provider, max_attribute_sets=0)

    def test_entryPoint(self) -> None:
        """The API finds the provider by its name, and calls it without arguments."""
        (found,) = importlib.metadata.entry_points(
            group="opentelemetry_meter_provider", name="txmetrics"
        )
        self.assertIs(found.load(), StreamingMeterProvider)


class GlobalTests(GlobalRecorderTestCase):
    def test_followsProgram(self) -> None:
        """Without a recorder, instruments record to the global one, also a later one."""
        counter_ = StreamingMeterProvider().get_meter("m").create_counter("c", "{x}", "Text")
        counter_.add(1)
        set_global_recorder(self.recorder)
        counter_.add(2)
        self.assertEqual(self.recorder.take(), [("c", INCREMENT, 2)])
        self.assertIn("Text", [one.description for one in self.recorder.described])

    def test_scope(self) -> None:
        """An instrument belongs to the program, wherever it measures first."""
        set_global_recorder(self.recorder)
        scoped = ListRecorder()
        provider = StreamingMeterProvider()
        with local_recorder(scoped):
            counter("own").increment()
            provider.get_meter("m").create_counter("c").add(1)
        self.assertEqual(scoped.take(), [("own", INCREMENT, 1)])
        self.assertEqual(self.recorder.take(), [("c", INCREMENT, 1)])


class ObservableTests(BridgeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.calls = 0

    def callback(self, options: CallbackOptions) -> Iterable[Observation]:
        self.calls += 1
        yield Observation(self.calls + 0.5, {"a": "b"})

    def create(self, provider: StreamingMeterProvider, **more: Any) -> None:
        meter = provider.get_meter("m")
        meter.create_observable_counter("c", [self.callback], **more)
        meter.create_observable_up_down_counter("u", [self.callback], **more)
        meter.create_observable_gauge("g", [self.callback], **more)

    def test_poll(self) -> None:
        provider = self.provider()
        self.create(provider)
        self.assertTrue(provider.force_flush())
        self.assertEqual(
            self.take(),
            [
                ("c [a = b]", SET, 1),
                ("u [a = b]", SET_GAUGE, 2.5),
                ("g [a = b]", SET_GAUGE, 3.5),
            ],
        )

    def test_generators(self) -> None:
        """A generator advances once at its creation, and once for each poll."""
        received: list[object] = []

        def generator() -> Generator[Iterable[Observation], CallbackOptions, None]:
            received.append("begin")
            received.append(type((yield [])))
            received.append(type((yield [Observation(1)])))

        for inner in (None, InnerProvider()):
            received.clear()
            provider = self.provider(inner)
            provider.get_meter("m").create_observable_gauge("g", [generator()])
            self.assertEqual(received, ["begin"])
            for expected in (1, 0, 0):
                provider.force_flush()
                self.assertEqual(len(self.take()), expected)
            self.assertEqual(received, ["begin", CallbackOptions, CallbackOptions])

    def test_failures(self) -> None:
        """A callback that fails does not affect others; what it returned before counts."""

        def failing(options: CallbackOptions) -> Iterable[Observation]:
            yield Observation(1)
            raise RuntimeError

        def wrong(options: CallbackOptions) -> Any:
            return [Observation(math.nan), Observation(-1, {"a": "b"}), "no observation"]

        provider = self.provider()
        meter = provider.get_meter("m")
        callbacks: Any = [failing, wrong, None, self.callback]
        meter.create_observable_counter("c", callbacks)
        meter.create_observable_gauge("bad", 7)  # type: ignore[arg-type]
        with self.assertLogs(bridge.__name__) as logs:
            provider.force_flush()
            provider.force_flush()
        self.assertEqual(len(logs.output), 1)
        series = [one for one, _, _ in self.take()]
        self.assertEqual(series, ["c", *[IGNORED] * 3, "c [a = b]"] * 2)

    def test_inner(self) -> None:
        """The inner provider gets what was observed; it does not call callbacks."""
        inner = InnerProvider()
        provider = self.provider(inner)
        provider.get_meter("m").create_observable_gauge("g", [self.callback], "s", "Text")
        ((name, *arguments),) = inner.calls[1:]
        self.assertEqual((name, arguments[:3]), ("create_observable_gauge", ["g", "s", "Text"]))
        (observe,) = arguments[3]

        def observed() -> list[float]:
            return [one.value for one in observe(CallbackOptions())]

        # Nothing has been observed yet.
        self.assertEqual(observed(), [1.5])
        self.now += 0.9
        self.assertEqual(observed(), [1.5])
        provider.force_flush()
        self.assertEqual(observed(), [2.5])
        # The thread is late.
        self.now += 1
        self.assertEqual(observed(), [3.5])
        self.assertEqual([value for _, _, value in self.take()], [1.5, 2.5, 3.5])

    def test_nested(self) -> None:
        """A callback that flushes does not call callbacks."""
        provider = self.provider()
        flushed = []

        def callback(options: CallbackOptions) -> Iterable[Observation]:
            flushed.append(provider.force_flush())
            return [Observation(1)]

        provider.get_meter("m").create_observable_gauge("g", [callback])
        self.assertTrue(provider.force_flush())
        self.assertEqual(flushed, [False])

    def test_busy(self) -> None:
        """Another thread that calls callbacks is not waited for longer than allowed."""
        provider = self.provider()
        self.create(provider)
        provider._poller._lock = threading.Lock()  # type: ignore[assignment]
        provider._poller._lock.acquire()
        self.assertFalse(provider.force_flush(timeout_millis=0))
        self.assertEqual(self.calls, 0)

    def test_thread(self) -> None:
        """One daemon thread begins with the first instrument."""
        provider = self.provider(interval=5)
        self.assertEqual(FakeThread.made, [])
        self.create(provider)
        (thread,) = FakeThread.made
        self.assertTrue(thread.started)
        self.assertTrue(thread.arguments["daemon"])
        self.assertEqual(self.calls, 0)

        waits = []

        class Stop:
            def wait(self, seconds: float) -> bool:
                waits.append(seconds)
                return len(waits) == 3

        reference, _stop, interval = thread.arguments["args"]
        bridge._poll_regularly(reference, Stop(), interval)  # type: ignore[arg-type]
        self.assertEqual((waits, self.calls), ([5, 5, 5], 6))

    def test_noThread(self) -> None:
        """A thread that cannot be started is no error of the program."""

        def start(_thread: FakeThread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(FakeThread, "start", start)
        with self.assertLogs(bridge.__name__):
            self.create(self.provider())

    def test_discarded(self) -> None:
        """The thread ends when the program has discarded the provider."""
        provider = self.provider()
        self.create(provider)
        (thread,) = FakeThread.made
        reference, stop, _ = thread.arguments["args"]
        thread.arguments.clear()
        gone = weakref.ref(provider)
        del provider
        gc.collect()
        self.assertIsNone(gone())
        bridge._poll_regularly(reference, stop, 0)

    def test_forked(self) -> None:
        """In a forked process, the thread and the locks begin again."""
        provider = self.provider()
        self.create(provider)
        idle = self.provider()
        locks = provider._poller._lock, provider._bridge.lock, provider._bridge.gauge_lock
        bridge._after_fork_in_child()
        first, second = FakeThread.made
        self.assertTrue(second.started)
        self.assertIsNot(second.arguments["args"][1], first.arguments["args"][1])
        after = provider._poller._lock, provider._bridge.lock, provider._bridge.gauge_lock
        for lock, one in zip(locks, after, strict=True):
            self.assertIsNot(lock, one)
        self.assertIsNone(idle._poller._thread)

    def test_forkedAfterShutdown(self) -> None:
        provider = self.provider()
        self.create(provider)
        provider.shutdown()
        bridge._after_fork_in_child()
        self.assertEqual(len(FakeThread.made), 1)


class ForgettingTests(FactoryTestCase):
    """
    Series of attribute sets that an observable instrument no longer reports.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(bridge._Poller, "_start", lambda _: None)
        self.recorder = self.factory(buffer_size=None).recorder
        self.observed: list[Observation] = []

    def create(self, recorder: Recorder | None, **settings: Any) -> StreamingMeterProvider:
        provider = StreamingMeterProvider(recorder, **settings)
        meter = provider.get_meter("m")
        callbacks = [lambda _: self.observed[:1], lambda _: self.observed[1:]]
        meter.create_observable_gauge("g", callbacks)
        meter.create_observable_counter("c", callbacks)
        return provider

    def observe(self, provider: StreamingMeterProvider, *observed: Observation) -> dict[str, Any]:
        """Return the totals after the callbacks returned some observations."""
        self.observed = [*observed]
        provider.force_flush()
        totals = self.recorder.snapshot()
        return {str(key): total for key, total in totals.items() if key.name != IGNORED}

    def test_released(self) -> None:
        provider = self.create(self.recorder)
        bare, one, two = Observation(7), Observation(8, {"a": 1}), Observation(9, {"a": 2})
        self.assertEqual(
            self.observe(provider, bare, one, two),
            {"g": 7, "g [a = 1]": 8, "g [a = 2]": 9, "c": 7, "c [a = 1]": 8, "c [a = 2]": 9},
        )
        self.assertEqual(self.observe(provider, two), {"g [a = 2]": 9, "c [a = 2]": 9})
        self.assertEqual(self.observe(provider), {})
        self.assertEqual(
            self.observe(provider, bare, one),
            {"g": 7, "g [a = 1]": 8, "c": 7, "c [a = 1]": 8},
        )

    def test_ignored(self) -> None:
        """A value that is ignored is no report."""
        provider = self.create(self.recorder)
        self.observe(provider, Observation(7))
        with self.assertLogs(bridge.__name__):
            self.assertEqual(self.observe(provider, Observation(math.nan)), {})

    def test_failed(self) -> None:
        """What a callback would have returned after its failure is not reported."""

        def failing(_options: CallbackOptions) -> Iterable[Observation]:
            yield from self.observed
            raise RuntimeError

        provider = StreamingMeterProvider(self.recorder)
        provider.get_meter("m").create_observable_gauge("g", [failing])
        one, two = Observation(1, {"a": 1}), Observation(2, {"a": 2})
        with self.assertLogs(bridge.__name__):
            self.observe(provider, one, two)
            self.assertEqual(self.observe(provider, two), {"g [a = 2]": 2})

    def test_overflow(self) -> None:
        """A released series makes room for another attribute set."""
        provider = self.create(self.recorder, max_attribute_sets=1)
        one, two, three = (Observation(number, {"a": number}) for number in (1, 2, 3))
        self.assertEqual(
            [*self.observe(provider, one, two)],
            [
                f"{name} [{label}]"
                for name in "gc"
                for label in ("a = 1", f"{bridge.OVERFLOW} = true")
            ],
        )
        self.assertEqual(self.observe(provider, three, two)[f"g [{bridge.OVERFLOW} = true]"], 2)
        self.assertEqual([*self.observe(provider, three)], ["g [a = 3]", "c [a = 3]"])

    def test_globalRecorder(self) -> None:
        self.patch(facade, "_program", facade._Program())
        set_global_recorder(self.recorder)
        provider = self.create(None)
        self.assertEqual(self.observe(provider, Observation(7)), {"g": 7, "c": 7})
        self.assertEqual(self.observe(provider), {})

    def test_otherRecorder(self) -> None:
        """A recorder that cannot release series, such as a layer, keeps their last values."""
        provider = self.create(PrefixRecorder(self.recorder, "x_"))
        self.assertEqual(self.observe(provider, Observation(7)), {"x_g": 7, "x_c": 7})
        self.assertEqual(self.observe(provider), {"x_g": 7, "x_c": 7})

    def test_failingRecorder(self) -> None:
        """A recorder that fails does not end the thread that calls the callbacks."""

        class Failing(ListRecorder):
            def forget(self, key: Key) -> None:
                raise RuntimeError

        provider = self.create(Failing())
        self.observe(provider, Observation(7))
        with self.assertLogs(bridge.__name__) as logs:
            self.observe(provider)
        self.assertEqual(len(logs.output), 2)


class InnerTests(BridgeTestCase):
    def test_everything(self) -> None:
        """The inner provider gets what the program says, also invalid measurements."""
        inner = InnerProvider()
        meter: Any = self.provider(inner).get_meter("m", "1", "url", {"a": 1})
        context = Context()
        meter.create_counter("C", "By", "Text").add(-1, {"a": 1})
        meter.create_counter("s", "s").add(1.5, None, context)
        meter.create_up_down_counter("u").add("x", None, context)
        meter.create_gauge("g").set(1, {"b": 2})
        meter.create_gauge("g").set(1, {"b": 2}, context)
        histogram = meter.create_histogram("h", explicit_bucket_boundaries_advisory=[1.0])
        histogram.record(1)
        self.assertEqual(
            inner.calls,
            [
                ("get_meter", "m", "1", "url", {"a": 1}),
                ("create_counter", "C", "By", "Text"),
                ("add", -1, {"a": 1}),
                ("create_counter", "s", "s", ""),
                ("add", 1.5, None, context),
                ("create_up_down_counter", "u", "", ""),
                ("add", "x", None, context),
                ("create_gauge", "g", "", ""),
                ("set", 1, {"b": 2}),
                ("set", 1, {"b": 2}, context),
                ("create_histogram", "h", "", "", [1.0]),
                ("record", 1, None),
            ],
        )

    def test_ends(self) -> None:
        """A flush and a shutdown reach the inner provider; a second shutdown does nothing."""
        inner = InnerProvider()
        provider = self.provider(inner)
        observed = []
        provider.get_meter("m").create_observable_gauge("g", [lambda _: observed.append(1) or []])
        inner.calls.clear()
        self.assertTrue(provider.force_flush())
        provider.shutdown(other=1)
        self.assertEqual(inner.calls, [("force_flush", True), ("shutdown", True, {"other": 1})])
        self.assertEqual(len(observed), 2)
        self.assertTrue(provider._poller._stop.is_set())
        with self.assertLogs(bridge.__name__) as logs:
            provider.shutdown()
            self.assertIsInstance(provider.get_meter("m"), NoOpMeter)
        self.assertEqual((len(inner.calls), len(logs.output)), (2, 2))

    def test_withoutEnds(self) -> None:
        """An inner provider of the API alone has neither."""
        for inner in (None, NoOpMeterProvider()):
            provider = self.provider(inner)
            self.assertTrue(provider.force_flush())
            provider.shutdown()


ATTRIBUTES: list[Any] = [
    None,
    {},
    {"a": "x"},
    {"a": 2},
    {"a": 2.5, "b": True},
    {"b": True, "a": 2.5},
    {"a": (1, 2)},
]

AMOUNTS = st.integers(-5, 1000) | st.integers(-20, 4000).map(lambda number: number / 4)

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("counter", "seconds", "up_down", "histogram", "gauge"),
                *("observe", "stop observing", "poll"),
            ]
        ),
        st.sampled_from(ATTRIBUTES),
        AMOUNTS,
    )
)


class AgreementTests(FactoryTestCase):
    """
    The totals agree with those of an inner provider of the SDK.
    """

    skip = no_sdk

    def begin(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider as SDKProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        self.reader = InMemoryMetricReader()
        self.recorder = self.factory(buffer_size=None).recorder
        inner = SDKProvider([self.reader], shutdown_on_exit=False)
        self.provider = StreamingMeterProvider(self.recorder, inner)
        self.meter = self.provider.get_meter("m")

    def sdk(self) -> dict[tuple[str, Any], Any]:
        """Return what the SDK has, by name and labels."""
        found = {}
        data: Any = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        labels = bridge._labels(point.attributes or {})
                        key = metric.name, tuple(sorted(labels.items()))
                        value = getattr(point, "value", None)
                        found[key] = (point.count, point.sum) if value is None else value
        return found

    def ours(self) -> dict[tuple[str, Any], Any]:
        return {
            (key.name, key.labels): (
                (total.count, total.sum) if isinstance(total, Distribution) else total
            )
            for key, total in self.recorder.snapshot().items()
            if key.name != IGNORED
        }

    @example(
        [
            *(("observe", None, 1), ("observe", {"a": 2}, 1), ("poll", None, 0)),
            ("stop observing", {"a": 2}, 0),
        ]
    )
    @given(OPERATIONS)
    def test_sequences(self, operations: list[tuple[str, Any, Any]]) -> None:
        self.patch(bridge._Poller, "_start", lambda _: None)
        self.begin()
        observed: dict[str, tuple[Any, Any]] = {}

        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, attributes) for attributes, value in observed.values()]

        self.meter.create_observable_gauge("observed_gauge", [callback])
        self.meter.create_observable_up_down_counter("observed_up_down", [callback])
        record: dict[str, Any] = {
            "counter": self.meter.create_counter("counter").add,
            "seconds": self.meter.create_counter("seconds", "s").add,
            "up_down": self.meter.create_up_down_counter("up_down").add,
            "histogram": self.meter.create_histogram("histogram").record,
            "gauge": self.meter.create_gauge("gauge").set,
        }
        for name, attributes, amount in operations:
            identity = str(sorted((attributes or {}).items()))
            if name == "observe":
                observed[identity] = attributes, amount
            elif name == "stop observing":
                observed.pop(identity, None)
            elif name == "poll":
                self.provider._poller.poll()
            else:
                record[name](amount, attributes)
        self.provider._poller.poll()
        expected = self.sdk()
        for key, value in expected.items():
            if key[0] == "counter":
                # Fractions are added up until they are one.
                expected[key] = math.floor(value)
        zero = {key: 0 for key, value in expected.items() if key[0] == "counter" and not value}
        self.assertEqual({**zero, **self.ours()}, expected)

    def test_threads(self) -> None:
        self.begin()
        add = self.meter.create_counter("c").add
        fraction = self.meter.create_counter("f").add
        change = self.meter.create_up_down_counter("u").add
        record = self.meter.create_histogram("h").record
        put = self.meter.create_gauge("g").set

        def work(number: int) -> None:
            for step in range(300):
                attributes = {"a": step % 7}
                add(step, attributes)
                fraction(0.25, attributes)
                change(step - 100, attributes)
                record(step, attributes)
                put(number * 1000 + step, attributes)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = self.sdk()
        for key, value in expected.items():
            if key[0] == "f":
                expected[key] = math.floor(value)
        self.assertEqual(self.ours(), expected)
