"""
Streaming what prometheus_client measures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import mkdtemp
from textwrap import dedent
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    Summary,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tests import environment
from tests.daemon import LIMIT
from tests.forking import in_child
from txmetrics_tcp import (
    Distribution,
    Key,
    Metadata,
    MetricKind,
    MetricsFactory,
    NoopRecorder,
    TcpRecorder,
    Unit,
)
from txmetrics_tcp._instruments.facade import set_global_recorder, unset_global_recorder
from txmetrics_tcp.bridges import prometheus
from txmetrics_tcp.bridges.prometheus import PrometheusStream, stream
from txmetrics_tcp.testing import FakeReactor

NEVER = 100_000_000.0
"""An interval in which the thread does not poll; tests poll themselves."""


def made_recorder() -> TcpRecorder:
    return MetricsFactory(FakeReactor()).recorder


@contextmanager
def streaming(
    registry: CollectorRegistry, **options: Any
) -> Iterator[tuple[TcpRecorder, PrometheusStream]]:
    recorder = made_recorder()
    made = stream(recorder, registry, poll=NEVER, **options)
    try:
        yield recorder, made
    finally:
        made.stop()


def totals(recorder: TcpRecorder) -> dict[str, Any]:
    """Return totals by the text of the key; of histograms, count and sum."""
    return {
        str(key): (total.count, total.sum) if isinstance(total, Distribution) else total
        for key, total in recorder.snapshot().items()
        if not key.name.startswith("txmetrics_")
    }


def exposed(registry: CollectorRegistry) -> dict[str, Any]:
    """Return what a registry exposes, in the form of `totals`."""
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        sums: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            if sample.name.endswith(("_created", "_bucket")):
                continue
            if family.type in ("histogram", "summary"):
                sums.setdefault(labels, {})[sample.name[len(family.name) :]] = sample.value
            elif family.type == "counter" and not family.name.endswith("_seconds"):
                found[str(Key(MetricKind.COUNTER, sample.name, labels))] = int(sample.value)
            else:
                found[str(Key(MetricKind.GAUGE, sample.name, labels))] = sample.value
        for labels, parts in sums.items():
            if parts["_count"]:
                key = Key(MetricKind.HISTOGRAM, family.name, labels)
                found[str(key)] = parts["_count"], parts["_sum"]
    return found


AMOUNTS = st.sampled_from([0, 1, 2.5, 0.1, 7])

ACTS = (
    *("count", "count_label", "seconds", "inc", "dec", "set", "function", "observe", "summarize"),
    *("remove", "clear", "again", "reset", "poll"),
)

STEPS = st.lists(st.tuples(st.sampled_from(ACTS), AMOUNTS, st.sampled_from("ab")), max_size=30)


class Program:
    """Instruments, and what a program does with them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.counter = Counter("plain", "Plain.", registry=registry)
        self.labeled = Counter("labeled", "Labeled.", ["x"], registry=registry)
        self.seconds = Counter("cpu_seconds", "Time.", registry=registry)
        self.gauge = Gauge("level", "Level.", ["x"], registry=registry)
        self.histogram = Histogram("latency_seconds", "Latency.", ["x"], registry=registry)
        self.summary = Summary("size_bytes", "Size.", registry=registry)

    def act(self, what: str, amount: float, label: str) -> None:
        gauge = self.gauge.labels(label)
        match what:
            case "count":
                self.counter.inc(amount)
            case "count_label":
                self.labeled.labels(label).inc(amount)
            case "seconds":
                self.seconds.inc(amount)
            case "inc":
                gauge.inc(amount)
            case "dec":
                gauge.dec(amount)
            case "set":
                gauge.set(amount)
            case "function":
                gauge.set_function(lambda: amount)
            case "observe":
                self.histogram.labels(label).observe(amount)
            case "summarize":
                self.summary.observe(amount)
            case "remove":
                self.gauge.remove(label)
                if (label,) in self.labeled._metrics:
                    self.labeled.remove(label)
            case "clear":
                self.histogram.clear()
                self.labeled.clear()
            case "again":
                self.registry.unregister(self.counter)
                self.registry.register(self.counter)
            case "reset":
                self.counter.reset()


class Ticks:
    """A collector that tells when it is polled."""

    seen = threading.Event()

    def collect(self) -> Iterator[Any]:
        yield GaugeMetricFamily("ticks", "Ticks.", 1)
        self.seen.set()


class InterruptingLog:
    """Takes the place of a sink's log, and acts before the next entry, as a finalizer may."""

    def __init__(self, sink: Any, act: Callable[[], object]) -> None:
        self.sink = sink
        self.log = sink.log
        self.act = act
        sink.log = self

    def append(self, entry: object) -> None:
        self.sink.log = self.log
        self.act()
        self.log.append(entry)

    def __len__(self) -> int:
        return len(self.log)


class AgreementTests(SynchronousTestCase):
    """What the registry exposes and what the stream's totals are."""

    def check(self, program: Program, recorder: TcpRecorder, made: PrometheusStream) -> None:
        made._synchronize()
        expected, found = exposed(program.registry), totals(recorder)
        self.assertEqual(expected.keys(), found.keys())
        for key, value in expected.items():
            if isinstance(value, tuple):
                self.assertEqual(value[0], found[key][0], key)
                self.assertAlmostEqual(value[1], found[key][1], msg=key)
            else:
                self.assertEqual(value, found[key], key)

    @given(STEPS, STEPS)
    def test_sequences(
        self, before: list[tuple[str, float, str]], after: list[tuple[str, float, str]]
    ) -> None:
        """They agree after any events before (but no samples) and after `stream`."""
        program = Program()
        for step in before:
            if step[0] not in ("observe", "summarize"):
                program.act(*step)
        with streaming(program.registry) as (recorder, made):
            for step in after:
                if step[0] == "poll":
                    self.check(program, recorder, made)
                program.act(*step)
            self.check(program, recorder, made)
            self.assertEqual(made.stats().not_carried, {})

    @given(STEPS)
    def test_unchanged(self, steps: list[tuple[str, float, str]]) -> None:
        """The registry exposes the same bytes with and without the stream."""
        with mock.patch("time.time", return_value=1.0):
            alone, streamed = Program(), Program()
            with streaming(streamed.registry) as (_, made):
                for step in steps:
                    alone.act(*step)
                    streamed.act(*step)
                    made._synchronize()
                self.assertEqual(
                    generate_latest(alone.registry), generate_latest(streamed.registry)
                )

    def test_threads(self) -> None:
        """They agree after several threads have set and increased the same values."""
        program = Program()
        with streaming(program.registry) as (recorder, made):

            def work() -> None:
                for number in range(2000):
                    program.act("set", float(number), "a")
                    program.act("inc", 0.1, "a")
                    program.act("count", 0.5, "a")
                    program.act("observe", 0.5, "a")

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.check(program, recorder, made)


class InterruptedTests(SynchronousTestCase):
    """Finalizers and signal handlers that measure while an event is recorded."""

    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("c", "C.", registry=self.registry)
        self.gauge = Gauge("g", "G.", registry=self.registry)
        self.histogram = Histogram("h", "H.", registry=self.registry)
        self.labeled = Counter("labeled", "L.", ["x"], registry=self.registry)

    def test_agree(self) -> None:
        """Registry and stream agree afterwards."""
        acts: list[Callable[[], object]] = [
            partial(self.counter.inc, 3),
            self.counter.reset,
            partial(self.gauge.inc, 0.1),
            partial(self.gauge.dec, 0.7),
            partial(self.gauge.set, 5.0),
            partial(self.gauge.set, 7),
            partial(self.histogram.observe, 0.5),
            lambda: self.labeled.labels("new").inc(),
            lambda: self.labeled.clear(),
        ]
        with streaming(self.registry) as (recorder, made):
            sink = recorder.attach(Key(MetricKind.COUNTER, "c_total")).sink
            for outer in acts:
                for inner in acts:
                    InterruptingLog(sink, inner)
                    outer()
                    made._synchronize()
                    sink.log = getattr(sink.log, "log", sink.log)
                    self.assertEqual(totals(recorder), exposed(self.registry), (outer, inner))
            InterruptingLog(sink, partial(self.gauge.inc, 0.1))
            self.counter._value._tx_owner.resynchronize(self.gauge._value, True)
            self.assertEqual(totals(recorder), exposed(self.registry))
            self.assertEqual(made.stats().not_carried, {})

    def test_newSeries(self) -> None:
        """
        The first event of a series does not wait forever for a thread that waits for a value whose
        lock this thread holds.
        """
        self.patch(prometheus, "_ADOPTION_TIMEOUT", 0.01)
        with streaming(self.registry) as (recorder, made):
            with held(made._lock) as holder:
                self.labeled.labels("a").inc()
                self.assertTrue(holder.is_alive())
            self.assertEqual(made.stats().not_carried, {"busy": 1})
            self.labeled.labels("a").inc()
            self.assertEqual(totals(recorder), exposed(self.registry))

    def test_counting(self) -> None:
        """An event that cannot be carried does not wait for another thread, which counts it."""
        with streaming(self.registry) as (_, made):
            with held(made._leaf) as holder:
                self.counter.inc(float("nan"))
                self.assertTrue(holder.is_alive())
            self.counter.inc()
            self.assertEqual(made.stats().not_carried, {"range": 2})


@contextmanager
def held(lock: Any) -> Iterator[threading.Thread]:
    """Let another thread hold a lock, but not forever."""
    has, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            has.set()
            may_end.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    has.wait(LIMIT)
    try:
        yield thread
    finally:
        may_end.set()
        thread.join()


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = CollectorRegistry()

    def test_polled(self) -> None:
        """Functions, Info, Enum and other collectors are polled."""

        class Custom:
            def collect(self) -> Iterator[Any]:
                yield GaugeMetricFamily("depth", "Depth.", 3.5)
                yield CounterMetricFamily("seen", "Seen.", 7.9)

        Info("build", "Build.", registry=self.registry).info({"version": "1"})
        Enum("state", "State.", states=["on", "off"], registry=self.registry)
        Gauge("now", "Now.", registry=self.registry).set_function(lambda: 4)
        self.registry.register(Custom())  # type: ignore[arg-type]
        with streaming(self.registry) as (recorder, made):
            self.assertEqual(
                totals(recorder),
                {
                    "build_info [version = 1]": 1.0,
                    "state [state = on]": 1.0,
                    "state [state = off]": 0.0,
                    "now": 4.0,
                    "depth": 3.5,
                    "seen_total": 7,
                },
            )
            self.assertEqual((made.stats().streamed, made.stats().polled), (0, 6))

    def test_exclude(self) -> None:
        """Metrics and collectors that the caller excludes are not streamed."""
        before, after = (
            Counter("a", "A.", ["b"], registry=self.registry),
            Info("build", "Build.", registry=self.registry),
        )
        after.info({"version": "1"})
        before.labels("1").inc()
        with streaming(self.registry, exclude=[before, after]) as (recorder, made):
            before.labels("1").inc()
            before.labels("2").inc()
            Counter("c", "C.", registry=self.registry).inc()
            made._synchronize()
            self.assertEqual(totals(recorder), {"c_total": 1})

    def test_failingCollector(self) -> None:
        """A collector that raises is counted, and its series are kept."""
        fails = False

        class Custom:
            def collect(self) -> Iterator[Any]:
                if fails:
                    raise ValueError("no")
                yield GaugeMetricFamily("depth", "Depth.", 3.5)

        self.registry.register(Custom())  # type: ignore[arg-type]
        with streaming(self.registry) as (recorder, made):
            fails = True
            with self.assertLogs("txmetrics_tcp", "WARNING"):
                made._synchronize()
            self.assertEqual(made.stats().not_carried, {"collector": 1})
            self.assertEqual(totals(recorder), {"depth": 3.5})

    def test_descriptions(self) -> None:
        """Units and help texts come along."""
        Counter("sent_bytes", "Sent.", registry=self.registry)
        Histogram("wait", "Waited.", unit="seconds", registry=self.registry)
        with streaming(self.registry) as (recorder, _):
            found = recorder.descriptions()
        self.assertIn(Metadata(MetricKind.COUNTER, "sent_bytes_total", Unit.BYTES, "Sent."), found)
        self.assertIn(
            Metadata(MetricKind.HISTOGRAM, "wait_seconds", Unit.SECONDS, "Waited."), found
        )

    def test_processUnits(self) -> None:
        """Metrics of process and Python have the units that this library gives them."""
        GCCollector(self.registry)
        with streaming(self.registry) as (recorder, made):
            made._synchronize()
            found = {one.name: one.unit for one in recorder.descriptions()}
        self.assertEqual(found["python_gc_collections_total"], Unit.COUNT)

    def test_hostileHelp(self) -> None:
        """Help texts that cannot be encoded, or are too long, are shortened."""
        Gauge("a:b", "\ud800", registry=self.registry)
        Gauge("long", "é" * 70_000, registry=self.registry)
        with streaming(self.registry) as (recorder, made):
            texts = {one.name: one.description for one in recorder.descriptions()}
            self.assertEqual(texts["a:b"], "?")
            self.assertEqual(len(texts["long"]), 32 * 1024)
            self.assertEqual(made.stats().not_carried["help"], 2)

    def test_hostileValues(self) -> None:
        """Values that cannot be carried are counted, and later ones are carried again."""
        counter = Counter("c", "C.", registry=self.registry)
        gauge = Gauge("g", "G.", registry=self.registry)
        with streaming(self.registry) as (recorder, made):
            counter.inc(2)
            counter.inc(float("nan"))
            counter.inc()
            self.assertRaises(OverflowError, gauge.set, 10**400)
            self.assertRaises(OverflowError, counter.inc, 10**400)
            self.assertEqual(made.stats().not_carried, {"range": 2})
            self.assertEqual(totals(recorder)["c_total"], 2)
            counter.reset()
            counter.inc(2**63)
            counter.inc(float("inf"))
            counter.reset()
            counter.inc(3)
            gauge.set(float("inf"))
            self.assertEqual(totals(recorder), {"c_total": 3, "g": float("inf")})

    def test_attributes(self) -> None:
        """A streamed value has the methods and attributes of the value that it was."""
        counter = Counter("c", "C.", registry=self.registry)
        before = counter._value
        with streaming(self.registry):
            counter.inc(2, {"trace": "1"})
            self.assertIsNot(counter._value, before)
            self.assertEqual(counter._value.get_exemplar().labels, {"trace": "1"})
            self.assertEqual(counter._value.get_exemplar().value, 2)
            for name in ("_value", "_exemplar", "_lock", "_multiprocess"):
                self.assertIs(getattr(counter._value, name), getattr(before, name))
            self.assertRaises(AttributeError, getattr, counter._value, "unknown")
            # Attributes of a class with this method are slow.
            self.assertFalse(hasattr(counter._value, "__getattr__"))

    def test_nan(self) -> None:
        """A gauge that is NaN is not repeated by each poll."""
        gauge = Gauge("g", "G.", registry=self.registry)
        with streaming(self.registry) as (_, made):
            gauge.set(float("nan"))
            with mock.patch.object(gauge._value._tx_handle.__class__, "set") as set_:
                made._synchronize()
            self.assertEqual(set_.call_count, 0)

    def test_numpy(self) -> None:
        try:
            import numpy
        except ImportError:
            self.skipTest("needs numpy")
        gauge = Gauge("g", "G.", registry=self.registry)
        histogram = Histogram("h", "H.", registry=self.registry)
        with streaming(self.registry) as (recorder, _):
            gauge.inc(numpy.float32(0.1))
            gauge.inc(0.1)
            histogram.observe(numpy.float64(0.5))
            self.assertEqual(totals(recorder)["g"], float(gauge._value.get()))
            self.assertEqual(totals(recorder)["h"], (1, 0.5))

    def test_otherClasses(self) -> None:
        """A value class with slots is streamed; one that is set later is found by the poll."""

        class Slotted:
            __slots__ = ("number",)

            def __init__(self, *args: object, **kwargs: object) -> None:
                self.number = 0.0

            def inc(self, amount: float) -> None:
                self.number += amount

            def set(self, value: float, timestamp: float | None = None) -> None:
                self.number = value

            def get(self) -> float:
                return self.number

            def get_exemplar(self) -> None:
                return None

        values_class = values.ValueClass
        with streaming(self.registry) as (recorder, made):
            hook = values.ValueClass
            values.ValueClass = Slotted
            self.addCleanup(setattr, values, "ValueClass", values_class)
            counter = Counter("c", "C.", registry=self.registry)
            counter.inc(2)
            made._synchronize()
            counter.inc(2)
            self.assertEqual(totals(recorder), {"c_total": 4})
            values.ValueClass = hook
        self.assertIs(type(counter._value), Slotted)

    def test_stop(self) -> None:
        """All is as before, also the classes."""
        before = values.ValueClass
        counter = Counter("c", "C.", ["x"], registry=self.registry)
        counter.labels("a").inc()
        with streaming(self.registry) as (recorder, made):
            later = Gauge("g", "G.", registry=self.registry)
            self.assertIsNot(values.ValueClass, before)
        made.stop()
        self.assertIs(values.ValueClass, before)
        for metric in (counter.labels("a"), counter.labels("b"), later):
            self.assertIs(type(metric._value), before)
        counter.labels("a").inc()
        self.assertEqual(totals(recorder), {"c_total [x = a]": 1})

    def test_otherRegistry(self) -> None:
        """Metrics of another registry with the same name are not streamed."""
        with streaming(self.registry) as (recorder, _):
            Counter("c", "C.", registry=self.registry)
            Counter("c", "C.", registry=CollectorRegistry()).inc(5)
            Counter("c", "C.", registry=None).inc(5)
            self.assertEqual(totals(recorder).get("c_total", 0), 0)

    def test_removedChild(self) -> None:
        """A child that is used after its removal does not change its successor."""
        counter = Counter("c", "C.", ["x"], registry=self.registry)
        with streaming(self.registry) as (recorder, _):
            old = counter.labels("a")
            old.inc(5)
            counter.remove("a")
            counter.labels("a").inc()
            old.inc(7)
            self.assertEqual(totals(recorder), {"c_total [x = a]": 1})

    def test_twice(self) -> None:
        with streaming(self.registry):
            error = self.assertRaises(ValueError, stream, NoopRecorder(), self.registry)
            self.assertIn("is streamed already", str(error))
        with streaming(self.registry):
            pass

    def test_arguments(self) -> None:
        for error, arguments in (
            (TypeError, {"recorder": 1}),
            (TypeError, {"registry": None}),
            (TypeError, {"events": 1}),
            (ValueError, {"poll": 0}),
        ):
            self.assertRaises(error, stream, **{"registry": self.registry, **arguments})

    def test_withoutEvents(self) -> None:
        """Everything is polled; buckets are streamed on request."""
        Histogram("h", "H.", registry=self.registry, buckets=[1]).observe(0.5)
        with streaming(self.registry, events=False, buckets=True) as (recorder, _):
            self.assertEqual(
                totals(recorder),
                {
                    "h_bucket [le = 1.0]": 1,
                    "h_bucket [le = +Inf]": 1,
                    "h_count": 1,
                    "h_sum": 0.5,
                },
            )

    def test_installedLater(self) -> None:
        """A recorder that is installed later receives the totals."""
        counter = Counter("c", "C.", registry=self.registry)
        made = stream(registry=self.registry, poll=NEVER)
        self.addCleanup(made.stop)
        counter.inc(3)
        recorder = made_recorder()
        set_global_recorder(recorder)
        self.addCleanup(unset_global_recorder, recorder)
        made._synchronize()
        self.assertEqual(totals(recorder), {"c_total": 3})

    def test_fork(self) -> None:
        """In a child, the first event binds all values again."""
        counter = Counter("c", "C.", registry=self.registry)
        other = Counter("d", "D.", registry=self.registry)
        other.inc(2)
        with streaming(self.registry) as (recorder, made):
            counter.inc()

            def child() -> object:
                made._recorder = recorder = made_recorder()
                counter.inc()
                assert made._thread.is_alive()
                return totals(recorder)

            self.assertEqual(in_child(child), "{'c_total': 2, 'd_total': 2}")
            counter.inc()
            self.assertEqual(totals(recorder)["c_total"], 2)

    def test_forkProgram(self) -> None:
        """Without an explicit recorder, nothing happens in a child before its first event."""
        counter = Counter("c", "C.", registry=self.registry)
        made = stream(registry=self.registry, poll=NEVER)
        self.addCleanup(made.stop)

        def child() -> object:
            before = made._thread
            counter.inc()
            return before, made._thread is not None and made._thread.is_alive()

        self.assertEqual(in_child(child), "(None, True)")

    def test_forkPolled(self) -> None:
        """A child with collectors only polls them, also if no event tells it to."""
        self.registry.register(Ticks())  # type: ignore[arg-type]
        recorder = made_recorder()
        made = stream(recorder, self.registry, poll=0.01)
        self.addCleanup(made.stop)

        def child() -> object:
            Ticks.seen = threading.Event()
            found = Ticks.seen.wait(LIMIT)
            made.stop()
            return found, totals(recorder)

        self.assertEqual(in_child(child), "(True, {'ticks': 1.0})")

    def test_forkSilenced(self) -> None:
        """A recorder that records nothing in a child is not polled there."""
        self.registry.register(Ticks())  # type: ignore[arg-type]
        factory = MetricsFactory(FakeReactor())
        factory.doStart()
        self.addCleanup(factory.doStop)
        made = stream(factory.recorder, self.registry, poll=NEVER)
        self.addCleanup(made.stop)

        def child() -> object:
            assert made._thread is not None
            assert factory.recorder.silenced
            Ticks.seen = threading.Event()
            waited = threading.Event()
            made._wake = mock.Mock(**{"wait.side_effect": lambda _: waited.set()})
            made._thread = None
            made._run_thread()
            waited.wait(LIMIT)
            made._stopped = True
            made._thread.join(LIMIT)
            return Ticks.seen.is_set()

        self.assertEqual(in_child(child), "False")

    def test_unregister(self) -> None:
        """What is unregistered, and not registered again, is forgotten, and streams no more."""
        counter = Counter("c", "C.", registry=self.registry)
        histogram = Histogram("h", "H.", ["x"], registry=self.registry)
        with streaming(self.registry) as (recorder, made):
            counter.inc()
            histogram.labels("a").observe(1)
            self.registry.unregister(counter)
            self.registry.unregister(histogram)
            made._synchronize()
            counter.inc()
            histogram.labels("a").observe(1)
            histogram.labels("b").observe(1)
            made._synchronize()
            self.assertEqual(totals(recorder), {})
            self.assertEqual(made.stats().streamed, 0)
            self.assertEqual(counter._value.get(), 2)

    def test_registries(self) -> None:
        """Several registries are streamed at the same time, and stopped in any order."""
        other = CollectorRegistry()
        before = values.ValueClass
        with streaming(self.registry) as (one, first):
            with streaming(other) as (two, _):
                Counter("c", "C.", registry=self.registry).inc(1)
                Counter("c", "C.", registry=other).inc(2)
                self.assertEqual((totals(one), totals(two)), ({"c_total": 1}, {"c_total": 2}))
                first.stop()
                Counter("d", "D.", registry=self.registry).inc(3)
                Counter("d", "D.", registry=other).inc(4)
            self.assertEqual(totals(one), {"c_total": 1})
            self.assertEqual(totals(two), {"c_total": 2, "d_total": 4})
        self.assertIs(values.ValueClass, before)

    def test_seconds(self) -> None:
        """Counters of seconds are gauges, also if they are polled."""

        class Custom:
            def collect(self) -> Iterator[Any]:
                yield CounterMetricFamily("polled_seconds", "P.", 0.5)

        self.registry.register(Custom())  # type: ignore[arg-type]
        Counter("spent", "S.", unit="seconds", registry=self.registry).inc(0.5)
        with streaming(self.registry) as (recorder, _):
            self.assertEqual(
                totals(recorder), {"polled_seconds_total": 0.5, "spent_seconds_total": 0.5}
            )

    def test_multiprocess(self) -> None:
        """Each process streams its own values, also a forked one; those of all are not polled."""
        script = """
            import os
            from prometheus_client import CollectorRegistry, Counter, Histogram, REGISTRY
            from prometheus_client.multiprocess import MultiProcessCollector
            from tests.forking import in_child
            from txmetrics_tcp import MetricsFactory
            from txmetrics_tcp.bridges.prometheus import stream
            from txmetrics_tcp.testing import FakeReactor

            registry = CollectorRegistry()
            counter = Counter("c", "C.", registry=registry)
            histogram = Histogram("h", "H.", registry=registry)
            counter.inc(5)
            MultiProcessCollector(registry)
            recorder = MetricsFactory(FakeReactor()).recorder
            streaming = stream(recorder, registry)
            counter.inc(2)
            histogram.observe(1)
            found = {str(key): getattr(total, "count", total)
                     for key, total in recorder.snapshot().items()}
            assert found == {"c_total": 7, "h": 1}, found

            def child():
                streaming._recorder = recorder = MetricsFactory(FakeReactor()).recorder
                counter.inc(1)
                histogram.observe(1)
                found = {str(key): getattr(total, "count", total)
                         for key, total in recorder.snapshot().items()}
                assert found == {"c_total": 1, "h": 1}, found

            assert in_child(child) == "None", in_child(child)
        """
        directory = mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        subprocess.run(
            [sys.executable, "-c", dedent(script)],
            env={**environment(), "PROMETHEUS_MULTIPROC_DIR": directory},
            check=True,
            timeout=LIMIT,
        )
