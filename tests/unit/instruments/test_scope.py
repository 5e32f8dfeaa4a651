"""
Scopes: `local_recorder`.
"""

import asyncio
import contextvars
import threading
from collections.abc import Generator

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.trial.unittest import SkipTest, TestCase

from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import (
    Metadata,
    MetricKind,
    Recorder,
    counter,
    current_recorder,
    describe_counter,
    describe_gauge,
    describe_histogram,
    gauge,
    histogram,
    local_recorder,
    set_global_recorder,
)
from txmetrics_tcp._instruments import facade


class ScopeTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.everywhere = ListRecorder()
        set_global_recorder(self.everywhere)
        self.local = ListRecorder()

    def test_current(self) -> None:
        with local_recorder(self.local) as target:
            self.assertIs(target, self.local)
            self.assertIs(current_recorder(), self.local)
        self.assertIs(current_recorder(), self.everywhere)

    def test_allFunctions(self) -> None:
        with local_recorder(self.local):
            counter("c").increment()
            gauge("g").set(1)
            histogram("h").record(1)
            describe_counter("c")
            describe_gauge("g")
            describe_histogram("h")
        self.assertEqual([name for name, _, _ in self.local.take()], ["c", "g", "h"])
        self.assertEqual(
            self.local.described,
            [
                Metadata(MetricKind.COUNTER, "c"),
                Metadata(MetricKind.GAUGE, "g"),
                Metadata(MetricKind.HISTOGRAM, "h"),
            ],
        )
        self.assertEqual((self.everywhere.take(), self.everywhere.described), ([], []))

    def test_handlesStay(self) -> None:
        """Handles belong to the recorder that was current when they were created."""
        outside = counter("c")
        with local_recorder(self.local):
            outside.increment()
            inside = counter("c")
            refined = outside.labels(a="b")
        inside.increment()
        inside.labels(a="b").increment()
        refined.increment()
        self.assertEqual([name for name, _, _ in self.local.take()], ["c", "c [a = b]"])
        self.assertEqual([name for name, _, _ in self.everywhere.take()], ["c", "c [a = b]"])

    def test_nested(self) -> None:
        inner = ListRecorder()
        with local_recorder(self.local):
            with local_recorder(inner):
                counter("c").increment()
            self.assertIs(current_recorder(), self.local)
        self.assertEqual((len(inner.take()), len(self.local.take())), (1, 0))

    def test_exception(self) -> None:
        with self.assertRaises(RuntimeError), local_recorder(self.local):
            raise RuntimeError
        self.assertIs(current_recorder(), self.everywhere)

    def test_notRecorders(self) -> None:
        """Neither a scope nor the program takes something that is not a recorder."""
        for wrong in (None, 5, ListRecorder):
            with self.assertRaisesRegex(TypeError, "a recorder is required, not "):
                set_global_recorder(wrong)  # type: ignore[arg-type]
            scope = local_recorder(wrong)  # type: ignore[arg-type]
            self.assertRaisesRegex(TypeError, "a recorder is required, not ", scope.__enter__)
        self.assertIs(current_recorder(), self.everywhere)

    def test_exitedInAnotherContext(self) -> None:
        """A generator can exit its scope in a different context from the one it entered in."""

        def generate() -> Generator[Recorder, None, None]:
            with local_recorder(self.local):
                yield current_recorder()

        generator = generate()
        self.assertIs(contextvars.copy_context().run(next, generator), self.local)
        self.assertIs(current_recorder(), self.everywhere)
        self.assertRaises(StopIteration, contextvars.copy_context().run, next, generator)
        self.assertIs(current_recorder(), self.everywhere)

    def test_withoutGlobal(self) -> None:
        facade.unset_global_recorder(self.everywhere)
        with local_recorder(self.local):
            counter("c").increment()
        self.assertEqual(len(self.local.take()), 1)


class InheritanceTests(TestCase):
    """
    A scope includes the code that docs/how-to/python-programs.md documents.
    """

    def setUp(self) -> None:
        self.local = ListRecorder()

    def inside(self) -> bool:
        return current_recorder() is self.local

    def test_asyncio(self) -> None:
        """Tasks and callbacks inherit the scope; a scope entered in a task stays in the task."""

        async def here() -> bool:
            await asyncio.sleep(0)
            return self.inside()

        async def scoped() -> bool:
            with local_recorder(self.local):
                await asyncio.sleep(0)
                return self.inside()

        async def main() -> list[object]:
            with local_recorder(self.local):
                task = asyncio.create_task(here())
                soon = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(lambda: soon.set_result(self.inside()))
                in_thread = asyncio.to_thread(self.inside)
                thread_within = await asyncio.to_thread(self.inside)
            return [
                await task,
                await soon,
                await in_thread,
                thread_within,
                *await asyncio.gather(scoped(), here()),
            ]

        # The coroutine of to_thread copies its context when it is first awaited, after the scope.
        self.assertEqual(asyncio.run(main()), [True, True, False, True, True, False])

    def test_inlineCallbacks(self) -> None:
        step: Deferred[None] = Deferred()

        @inlineCallbacks
        def work() -> Generator[Deferred[None], None, list[bool]]:
            before = self.inside()
            yield step
            return [before, self.inside()]

        with local_recorder(self.local):
            done = work()
        step.callback(None)
        self.assertEqual(self.successResultOf(done), [True, True])

    def test_scopeInInlineCallbacks(self) -> None:
        step: Deferred[None] = Deferred()

        @inlineCallbacks
        def work() -> Generator[Deferred[None], None, bool]:
            with local_recorder(self.local):
                yield step
                return self.inside()

        done = work()
        self.assertFalse(self.inside())
        step.callback(None)
        self.assertTrue(self.successResultOf(done))
        self.assertFalse(self.inside())

    def test_coroutine(self) -> None:
        step: Deferred[None] = Deferred()

        async def work() -> bool:
            await step
            return self.inside()

        with local_recorder(self.local):
            done = Deferred.fromCoroutine(work())
        step.callback(None)
        self.assertTrue(self.successResultOf(done))

    def test_notCallbacks(self) -> None:
        """A callback runs in the context that fires the Deferred."""
        step: Deferred[None] = Deferred()
        with local_recorder(self.local):
            step.addCallback(lambda result: self.inside())
        step.callback(None)
        self.assertFalse(self.successResultOf(step))

    def test_notDelayedCalls(self) -> None:
        clock = Clock()
        seen: list[bool] = []
        with local_recorder(self.local):
            clock.callLater(1, lambda: seen.append(self.inside()))
        clock.advance(1)
        self.assertEqual(seen, [False])

    def test_notReactorDelayedCalls(self) -> Deferred[None]:
        from twisted.internet import reactor

        if type(reactor).__name__ == "AsyncioSelectorReactor":
            raise SkipTest("its delayed calls run in the context that set its timer last")
        fired: Deferred[None] = Deferred()
        with local_recorder(self.local):
            reactor.callLater(0, lambda: fired.callback(None))  # type: ignore[attr-defined]
        return fired.addCallback(lambda result: self.assertFalse(self.inside()))

    def test_notThreads(self) -> Deferred[None]:
        from twisted.internet import reactor

        seen: list[bool] = []
        with local_recorder(self.local):
            thread = threading.Thread(target=lambda: seen.append(self.inside()))
            thread.start()
            thread.join()
            in_pool = deferToThreadPool(reactor, reactor.getThreadPool(), self.inside)  # type: ignore[attr-defined]
        self.assertEqual(seen, [False])
        return in_pool.addCallback(lambda inside: self.assertFalse(inside))
