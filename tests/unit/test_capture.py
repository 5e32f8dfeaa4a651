"""
`capture` and `Captured`, for tests of instrumented code.
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
        """Captured events and descriptions are available as values, in order."""
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

    def test_earlyHandles(self) -> None:
        """Existing handles are redirected during the block, with and without a global recorder."""
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

    def test_handlesCreatedInBlock(self) -> None:
        """A handle created in the block records to the global recorder afterwards."""
        set_global_recorder(self.program)
        with capture() as captured:
            made = counter("c")
            direct = current_recorder().counter("c")
        made.increment()
        direct.increment()
        self.assertEqual(captured.events, [])
        self.assertEqual(len(self.program.take()), 1)

    def test_descriptions(self) -> None:
        """Earlier descriptions are not captured; captured ones do not reach the program."""
        describe_counter("before")
        with capture() as captured:
            describe_counter("within")
        set_global_recorder(self.program)
        self.assertEqual(captured.metadata, [Metadata(MetricKind.COUNTER, "within")])
        self.assertEqual(self.program.described, [Metadata(MetricKind.COUNTER, "before")])

    def test_installedInBlock(self) -> None:
        """A recorder installed in the block receives events only after the block."""
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
        """Captures that overlap, in two tasks for example, restore all handles at the end."""
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
        """Events of all threads are captured, from existing and new handles."""
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
        """The innermost capture or scope applies; handles of scopes are not redirected."""
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
        """A generator can end its capture in a different context."""
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

    def test_lateEvents(self) -> None:
        """Events that reach the capture's recorder after the block are discarded."""
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
        """A series without events has no total, unlike one with a total of 0."""
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
        with self.assertRaisesRegex(ValueError, "both a counter and a gauge are named 'x'"):
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
