"""
Timers, gauges of calls in progress, and exception counters.
"""

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import LIMIT
from tests.recorders import ListRecorder
from txmetrics_tcp import Operation
from txmetrics_tcp._instruments.measures import _nested


class MeasureTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorder = ListRecorder()
        self.clock = Clock()
        self.histogram = self.recorder.histogram("latency")
        self.gauge = self.recorder.gauge("in_progress")
        self.counter = self.recorder.counter("errors")
        self.timed = self.histogram.time(self.clock.seconds)

    def values(self) -> list[object]:
        return [value for _key, _operation, value in self.recorder.take()]


class Boom(Exception):
    pass


class TimeTests(MeasureTestCase):
    def test_block(self) -> None:
        with self.timed as target:
            self.clock.advance(2)
        self.assertIsNone(target)
        self.assertEqual(self.recorder.take(), [("latency", Operation.RECORD_HISTOGRAM, 2.0)])

    def test_blockThatFails(self) -> None:
        with self.assertRaises(Boom), self.timed:
            self.clock.advance(2)
            raise Boom
        self.assertEqual(self.values(), [2.0])

    def test_nested(self) -> None:
        """A timer can be entered again while in use, as in a recursive function."""
        with self.timed:
            self.clock.advance(1)
            with self.timed:
                self.clock.advance(2)
                with self.timed:
                    self.clock.advance(4)
            self.clock.advance(8)
        self.assertEqual(self.values(), [4.0, 6.0, 15.0])
        self.assertIsNone(_nested.get())

    def test_timersOverlap(self) -> None:
        """Different timers can be exited in any order."""
        other = self.histogram.time(self.clock.seconds)
        for timer in (self.timed, other, self.timed, other):
            timer.__enter__()
            self.clock.advance(1)
        self.timed.__exit__(None, None, None)
        self.clock.advance(10)
        other.__exit__(None, None, None)
        self.timed.__exit__(None, None, None)
        other.__exit__(None, None, None)
        self.assertEqual(self.values(), [2.0, 11.0, 14.0, 13.0])
        self.assertIsNone(_nested.get())

    def test_threads(self) -> None:
        """Threads that share a timer measure independently."""
        inside, leave = threading.Event(), threading.Event()

        def other() -> None:
            with self.timed:
                inside.set()
                leave.wait(LIMIT)

        thread = threading.Thread(target=other)
        with self.timed:
            self.clock.advance(1)
            thread.start()
            inside.wait(LIMIT)
            self.clock.advance(1)
        leave.set()
        thread.join()
        self.assertEqual(self.values(), [2.0, 1.0])

    def test_tasks(self) -> None:
        """asyncio tasks that share a timer measure independently."""

        async def main() -> None:
            events = [asyncio.Event() for _ in range(3)]

            async def work(event: asyncio.Event) -> None:
                with self.timed:
                    await event.wait()

            tasks = []
            for event in events:
                tasks.append(asyncio.ensure_future(work(event)))
                await asyncio.sleep(0)
                self.clock.advance(1)
            for event, task in zip(events, tasks, strict=True):
                event.set()
                await task
                self.clock.advance(10)

        asyncio.run(main())
        self.assertEqual(self.values(), [3.0, 12.0, 21.0])

    def test_inheritedContext(self) -> None:
        """A task distinguishes its own block from a block that it inherited in its context."""
        self.timed.__enter__()
        self.clock.advance(1)
        self.timed.__enter__()
        inner = contextvars.copy_context()
        # Another context exits the first block, which releases the timer.
        contextvars.Context().run(self.timed.__exit__, None, None, None)
        self.clock.advance(1)

        def in_task() -> None:
            with self.timed:
                self.clock.advance(5)

        inner.run(in_task)
        self.timed.__exit__(None, None, None)
        self.assertEqual(self.values(), [1.0, 5.0, 6.0])

    def test_anotherContext(self) -> None:
        """A generator's block can end in a different context from the one in which it began."""

        def generate() -> Iterator[None]:
            with self.timed:
                yield

        generator = generate()
        contextvars.copy_context().run(next, generator)
        self.clock.advance(3)
        contextvars.copy_context().run(next, generator, None)
        self.assertEqual(self.values(), [3.0])

    def test_realTime(self) -> None:
        with self.histogram.time():
            pass
        [value] = self.values()
        assert isinstance(value, float)
        self.assertTrue(0 <= value < 5, value)

    def test_repr(self) -> None:
        self.assertEqual(repr(self.histogram.time()), "<<Histogram latency>.time()>")
        self.assertEqual(
            repr(self.gauge.track_inprogress()), "<<Gauge in_progress>.track_inprogress()>"
        )
        self.assertEqual(
            repr(self.counter.count_exceptions()), "<<Counter errors>.count_exceptions()>"
        )


class InProgressTests(MeasureTestCase):
    def test_block(self) -> None:
        tracked = self.gauge.track_inprogress()
        with self.assertRaises(Boom), tracked:
            with tracked:
                pass
            raise Boom
        up, down = Operation.INCREMENT_GAUGE, Operation.DECREMENT_GAUGE
        self.assertEqual(
            self.recorder.take(), [("in_progress", act, 1.0) for act in (up, up, down, down)]
        )


class CountExceptionsTests(MeasureTestCase):
    def raises(self, exception: type[BaseException], *which: Any) -> int:
        """Raise an exception in a block, and return the number of counted exceptions."""
        try:
            with self.counter.count_exceptions(*which):
                raise exception
        except exception:
            return len(self.recorder.take())
        self.fail("the exception did not propagate")

    def test_selectedExceptions(self) -> None:
        self.assertEqual(self.raises(Boom), 1)
        self.assertEqual(self.raises(KeyboardInterrupt), 0)
        self.assertEqual(self.raises(KeyboardInterrupt, BaseException), 1)
        self.assertEqual(self.raises(Boom, OSError), 0)
        self.assertEqual(self.raises(ConnectionError, (ValueError, OSError)), 1)

    def test_noException(self) -> None:
        with self.counter.count_exceptions():
            pass
        self.assertEqual(self.recorder.take(), [])


class DecoratorTests(MeasureTestCase):
    """
    All three measures as decorators of one function.
    """

    def measured(self, function: Callable[..., Any]) -> Callable[..., Any]:
        function = self.counter.count_exceptions(Boom)(function)
        function = self.gauge.track_inprogress()(function)
        return self.timed(function)

    def state(self) -> tuple[list[object], float, int]:
        durations: list[object] = []
        progress, errors = 0.0, 0
        for entry in self.recorder.entries:
            match entry[1]:
                case Operation.RECORD_HISTOGRAM:
                    durations.append(entry[2])
                case Operation.INCREMENT_GAUGE:
                    progress += entry[2]
                case Operation.DECREMENT_GAUGE:
                    progress -= entry[2]
                case Operation.INCREMENT_COUNTER:
                    errors += entry[2]
        return durations, progress, errors

    def test_function(self) -> None:
        @self.measured
        def work(a: int, *, b: int) -> int:
            """The docstring."""
            self.clock.advance(a)
            self.assertEqual(self.state(), ([], 1.0, 0))
            return a + b

        self.assertEqual(work(1, b=2), 3)
        self.assertEqual(self.state(), ([1.0], 0.0, 0))
        self.assertEqual((work.__name__, work.__doc__), ("work", "The docstring."))

    def test_functionThatFails(self) -> None:
        @self.measured
        def work(error: type[BaseException]) -> None:
            self.clock.advance(1)
            raise error

        self.assertRaises(Boom, work, Boom)
        self.assertRaises(KeyboardInterrupt, work, KeyboardInterrupt)
        self.assertEqual(self.state(), ([1.0, 1.0], 0.0, 1))

    def test_recursive(self) -> None:
        @self.measured
        def work(depth: int) -> None:
            self.clock.advance(1)
            if depth:
                work(depth - 1)

        work(2)
        self.assertEqual(self.state(), ([1.0, 2.0, 3.0], 0.0, 0))

    def test_method(self) -> None:
        test = self

        class Worker:
            @test.measured
            def work(self, n: int) -> tuple[object, int]:
                return self, n

        worker = Worker()
        self.assertEqual(worker.work(1), (worker, 1))

    def test_coroutine(self) -> None:
        @self.measured
        async def work(step: Deferred[int]) -> int:
            return await step

        self.assertTrue(inspect.iscoroutinefunction(work))
        step: Deferred[int] = Deferred()
        done = Deferred.fromCoroutine(work(step))
        self.clock.advance(3)
        self.assertEqual(self.state(), ([], 1.0, 0))
        step.callback(7)
        self.assertEqual(self.successResultOf(done), 7)
        self.assertEqual(self.state(), ([3.0], 0.0, 0))

    def test_coroutineThatFails(self) -> None:
        @self.measured
        async def work() -> None:
            self.clock.advance(1)
            raise Boom

        self.failureResultOf(Deferred.fromCoroutine(work()), Boom)
        self.assertEqual(self.state(), ([1.0], 0.0, 1))

    def test_closedCoroutine(self) -> None:
        @self.measured
        async def work() -> None:
            await Deferred()

        coroutine = work()
        coroutine.send(None)
        self.clock.advance(1)
        coroutine.close()
        self.assertEqual(self.state(), ([1.0], 0.0, 0))

    def test_coroutineNeverAwaited(self) -> None:
        """A coroutine that never ran is not measured."""

        @self.measured
        async def work() -> None: ...

        work().close()
        self.assertEqual(self.state(), ([], 0.0, 0))

    def test_otherCoroutineFunctions(self) -> None:
        """Partials of coroutine functions and objects with an async `__call__` are measured."""

        async def work(n: int) -> int:
            self.clock.advance(n)
            return n

        class Worker:
            async def __call__(self, n: int) -> int:
                return await work(n)

        for function, args in ((functools.partial(work, 1), ()), (Worker(), (2,))):
            coroutine = self.measured(function)(*args)
            self.assertEqual(self.state()[1], 0.0)
            self.successResultOf(Deferred.fromCoroutine(coroutine))
        self.assertEqual(self.state(), ([1.0, 2.0], 0.0, 0))

    def test_deferred(self) -> None:
        """A call that returns a Deferred ends when the Deferred fires."""
        step: Deferred[int] = Deferred()
        work = self.measured(lambda: step)
        self.assertIs(work(), step)
        self.clock.advance(3)
        self.assertEqual(self.state(), ([], 1.0, 0))
        step.callback(7)
        self.assertEqual(self.state(), ([3.0], 0.0, 0))
        self.assertEqual(self.successResultOf(step), 7)

    def test_deferredThatFails(self) -> None:
        for error, counted in ((Boom(), 1), (ValueError(), 0)):
            self.recorder.take()
            work = self.measured(lambda error=error: fail(error))
            self.failureResultOf(work(), type(error))
            self.assertEqual(self.state(), ([0.0], 0.0, counted))

    def test_cancelledDeferred(self) -> None:
        step: Deferred[int] = Deferred()
        work = self.measured(lambda: step)
        work().cancel()
        self.failureResultOf(step, CancelledError)
        self.assertEqual(self.state(), ([0.0], 0.0, 0))

    def test_firedDeferred(self) -> None:
        self.assertEqual(self.successResultOf(self.measured(lambda: succeed(1))()), 1)
        self.assertEqual(self.state(), ([0.0], 0.0, 0))

    def test_inlineCallbacks(self) -> None:
        step: Deferred[int] = Deferred()

        @self.measured
        @inlineCallbacks
        def work() -> Generator[Deferred[int], int, int]:
            return (yield step) + 1

        done = work()
        self.clock.advance(2)
        step.callback(1)
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(self.state(), ([2.0], 0.0, 0))

    def test_threads(self) -> None:
        barrier = threading.Barrier(4)

        @self.measured
        def work() -> None:
            barrier.wait(LIMIT)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.state(), ([0.0] * 4, 0.0, 0))

    def test_generatorFunctions(self) -> None:
        """Generator functions are rejected: a call returns before the body runs."""

        def generator() -> Iterator[int]:
            yield 1

        async def asynchronous() -> AsyncIterator[int]:
            yield 1

        class Called:
            def __call__(self) -> Iterator[int]:
                yield 1

        for function in (generator, asynchronous, Called()):
            with self.assertRaisesRegex(TypeError, "generator function"):
                self.timed(function)

    def test_notCallable(self) -> None:
        with self.assertRaisesRegex(TypeError, "5 is not a function"):
            self.timed(5)  # type: ignore[arg-type]
