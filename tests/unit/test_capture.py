"""
What tests of instrumented code use.
"""

import contextvars
import threading
from collections.abc import Iterator

from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import (
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    counter,
    current_recorder,
    describe_counter,
    gauge,
    histogram,
    local_recorder,
    set_global_recorder,
)
from txmetrics_tcp.testing import Captured, capture


class CaptureTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.program = ListRecorder()

    def test_values(self) -> None:
        """What was recorded comes back as values, in its order."""
        with capture(clock=lambda: 42) as captured:
            describe_counter("c", "bytes", "x")
            counter("c", route="/").increment(2)
            gauge("g").set(1)
            histogram("h").record_many(0.5, 2)
        sample = Metric(Key(MetricKind.HISTOGRAM, "h"), Operation.RECORD_HISTOGRAM, 0.5, 42)
        described = Metadata(MetricKind.COUNTER, "c", "bytes", "x")
        self.assertEqual(
            captured.events,
            [
                described,
                Metric(
                    Key(MetricKind.COUNTER, "c", (("route", "/"),)),
                    Operation.INCREMENT_COUNTER,
                    2,
                    42,
                ),
                Metric(Key(MetricKind.GAUGE, "g"), Operation.SET_GAUGE, 1.0, 42),
                sample,
                sample,
            ],
        )
        self.assertEqual(captured.metadata, [described])
        self.assertEqual(captured.metrics, captured.events[1:])

    def test_handlesFromBefore(self) -> None:
        """Handles of modules are redirected, whether or not there is a recorder, and come back."""
        early = counter("early")
        with capture() as first:
            early.increment(1)
        early.increment(10)
        set_global_recorder(self.program)
        early.increment(2)
        late = counter("late")
        with capture() as second:
            early.increment(3)
            late.increment(4)
        early.increment(5)
        late.increment(6)
        self.assertEqual([metric.value for metric in first.metrics], [1])
        self.assertEqual([metric.value for metric in second.metrics], [3, 4])
        self.assertEqual([value for _, _, value in self.program.take()], [2, 5, 6])
        self.assertIs(current_recorder(), self.program)

    def test_handlesFromWithin(self) -> None:
        """A handle that is made within, as by a module imported late, is the program's after."""
        set_global_recorder(self.program)
        with capture() as captured:
            made = counter("c")
            direct = current_recorder().counter("c")
        made.increment()
        direct.increment()
        self.assertEqual(captured.events, [])
        self.assertEqual(len(self.program.take()), 1)

    def test_descriptions(self) -> None:
        """Descriptions of before are not repeated; those from within are not the program's."""
        describe_counter("before")
        with capture() as captured:
            describe_counter("within")
        set_global_recorder(self.program)
        self.assertEqual(captured.metadata, [Metadata(MetricKind.COUNTER, "within")])
        self.assertEqual(self.program.described, [Metadata(MetricKind.COUNTER, "before")])

    def test_installedWithin(self) -> None:
        """What the tested code installs is there afterwards, and gets nothing until then."""
        early = counter("early")
        with capture() as captured:
            set_global_recorder(self.program)
            early.increment(1)
        early.increment(2)
        self.assertEqual(captured.total("early"), 1)
        self.assertEqual([value for _, _, value in self.program.take()], [2])

    def test_nested(self) -> None:
        handle = counter("c")
        with capture() as outer:
            handle.increment(1)
            with capture() as inner:
                handle.increment(2)
            handle.increment(3)
        self.assertEqual([metric.value for metric in outer.metrics], [1, 3])
        self.assertEqual([metric.value for metric in inner.metrics], [2])

    def test_overlapping(self) -> None:
        """Two that do not end in reverse order, as in two tasks, restore everything."""
        set_global_recorder(self.program)
        handle = counter("c")
        first, second = capture(), capture()
        task, another = contextvars.copy_context(), contextvars.copy_context()
        one, two = task.run(first.__enter__), another.run(second.__enter__)
        handle.increment(1)
        task.run(first.__exit__, None, None, None)
        handle.increment(2)
        another.run(second.__exit__, None, None, None)
        handle.increment(3)
        self.assertEqual((one.total("c"), two.total("c")), (None, 3))
        self.assertEqual([value for _, _, value in self.program.take()], [3])

    def test_error(self) -> None:
        set_global_recorder(self.program)
        handle = counter("c")
        with self.assertRaises(RuntimeError), capture() as captured:
            handle.increment()
            raise RuntimeError
        handle.increment()
        self.assertEqual((captured.total("c"), len(self.program.take())), (1, 1))

    def test_threads(self) -> None:
        """Every thread is captured, with old and new handles."""
        handle = counter("c")

        def work() -> None:
            handle.increment()
            counter("d").increment()

        with capture() as captured:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        self.assertEqual((captured.total("c"), captured.total("d")), (1, 1))

    def test_scopes(self) -> None:
        """The innermost of captures and scopes counts; handles of a scope are never redirected."""
        local = ListRecorder()
        with local_recorder(local):
            handle = counter("scoped")
            with capture() as captured:
                handle.increment()
                counter("c").increment()
                with local_recorder(local):
                    counter("inner").increment()
            self.assertIs(current_recorder(), local)
        self.assertEqual([metric.key.name for metric in captured.metrics], ["c"])
        self.assertEqual([name for name, _, _ in local.take()], ["scoped", "inner"])

    def test_fixture(self) -> None:
        """As a generator, whose end may come in another context."""
        handle = counter("c")

        def fixture() -> Iterator[Captured]:
            with capture() as captured:
                yield captured

        generator = fixture()
        captured = contextvars.copy_context().run(next, generator)
        handle.increment()
        self.assertIsNone(contextvars.copy_context().run(next, generator, None))
        handle.increment()
        self.assertEqual(captured.total("c"), 1)

    def test_longAfterwards(self) -> None:
        """What reaches the captured recorder after the end, by a race for example, is dropped."""
        with capture() as captured:
            late = current_recorder().counter("c")
        late.increment()
        self.assertEqual(captured.events, [])


class CapturedTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        context = capture()
        self.captured = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def test_total(self) -> None:
        requests = counter("requests", route="/")
        requests.increment(3)
        requests.increment(4)
        counter("requests").increment()
        load = gauge("load")
        load.increment(5)
        load.decrement(2)
        self.assertEqual(self.captured.total("requests", route="/"), 7)
        self.assertEqual(self.captured.total("requests", {"route": "/"}), 7)
        self.assertEqual(self.captured.total("requests"), 1)
        self.assertEqual(self.captured.total("load"), 3.0)
        requests.absolute(2)
        self.assertEqual(self.captured.total("requests", route="/"), 2)

    def test_nothing(self) -> None:
        """What was never recorded is not mistaken for what was recorded as 0."""
        counter("c").increment(0)
        histogram("h").record(1)
        self.assertEqual(self.captured.total("c"), 0)
        for name in ("C", "h", "x"):
            self.assertIsNone(self.captured.total(name))
        self.assertIsNone(self.captured.total("c", a="b"))
        self.assertEqual(self.captured.samples("c"), [])

    def test_ambiguous(self) -> None:
        counter("x").increment()
        gauge("x").set(1)
        with self.assertRaisesRegex(ValueError, "a counter and a gauge 'x'"):
            self.captured.total("x")

    def test_samples(self) -> None:
        latency = histogram("latency", status=200)
        latency.record(1)
        latency.record_many(2, 3)
        histogram("latency").record(9)
        self.assertEqual(self.captured.samples("latency", status=200), [1.0, 2.0, 2.0, 2.0])

    def test_clear(self) -> None:
        handle = counter("c")
        handle.increment(1)
        self.captured.clear()
        handle.increment(2)
        self.assertEqual(self.captured.total("c"), 2)
