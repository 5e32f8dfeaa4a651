"""
Metrics of the Python runtime: garbage collector, threads and event loops, with fakes.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.task import Clock

from tests.unit.collectors.test_collectors import CollectorTestCase
from txmetrics_tcp._collectors import event_loops, runtime
from txmetrics_tcp._collectors.event_loops import (
    MAX_NAMES,
    EventLoopService,
    RunningLoop,
    watch_event_loops,
)
from txmetrics_tcp._collectors.reactor_lag import MAX_MISSED
from txmetrics_tcp._collectors.runtime import RuntimeCollector


class RuntimeCollectorTests(CollectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Only the test makes collections.
        gc.disable()
        self.addCleanup(gc.enable)
        self.times = iter([1.0, 1.25, 2.0, 2.5])
        self.collector = RuntimeCollector(self.recorder, lambda: next(self.times))

    def start(self) -> None:
        self.collector.startService()
        self.addCleanup(self.collector.stopService)

    def test_pauses(self) -> None:
        """Each collection is a sample, of its generation."""
        self.start()
        gc.collect(0)
        gc.collect()
        pauses = [(str(key), value) for key, _, value in self.recorder.take_keys()]
        self.assertEqual(
            pauses,
            [
                ("python_gc_pause_seconds [generation = 0]", 0.25),
                ("python_gc_pause_seconds [generation = 2]", 0.5),
            ],
        )

    def test_stop(self) -> None:
        """A collector that has stopped, even twice, leaves no callback."""
        before = list(gc.callbacks)
        self.collector.startService()
        self.collector.stopService()
        self.collector.stopService()
        self.assertEqual(gc.callbacks, before)

    def test_started_within_collection(self) -> None:
        """A collection that was running when the service started is not a sample."""
        self.collector._on_collection("stop", {"generation": 0})
        self.assertEqual(self.recorder.take_keys(), [])

    def test_fork(self) -> None:
        """A forked child removes the callback of the parent's collector, and no other."""
        others = list(gc.callbacks)
        self.start()
        runtime._after_fork_in_child()
        self.assertEqual(gc.callbacks, others)

    def test_threads(self) -> None:
        self.collector()
        self.assertEqual(self.recorder.take_set(), {"python_threads": threading.active_count()})

    def test_described(self) -> None:
        self.start()
        self.collector()
        gc.collect()
        self.assert_described()


class FakeLoop:
    """An event loop that makes calls when a test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.closed = False

    def call_soon_threadsafe(self, call: Callable[[], object]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.calls.append(call)

    def iterate(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class EventLoopTests(CollectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.loop = FakeLoop()
        self.tasks: list[object] = []
        self.running: dict[int, RunningLoop] = {}
        self.patch(event_loops, "all_tasks", lambda loop: self.tasks)
        self.service = EventLoopService(
            self.recorder, 1.0, self.clock, self.running, self.clock.seconds
        )

    def run_loop(self, loop: Any = None, ident: int | None = None) -> None:
        ident = threading.get_ident() if ident is None else ident
        self.running[ident] = RunningLoop(loop or self.loop)

    def start(self) -> None:
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def taken(self, name: str = "asyncio_lag_seconds") -> list[float]:
        return [value for key, _, value in self.recorder.take_keys() if key.name == name]

    def test_lag(self) -> None:
        """The time until the loop makes a call is a sample, ten times an interval."""
        self.run_loop()
        self.start()
        self.clock.advance(0.025)
        self.loop.iterate()
        self.assertEqual(self.taken(), [0.025])
        self.clock.advance(0.075)
        self.loop.iterate()
        self.assertEqual(self.taken(), [0.0])

    def test_blocked(self) -> None:
        """One call is pending; samples stand for the calls that a blocked loop missed."""
        self.run_loop()
        self.start()
        self.clock.pump([0.05] * 7)
        self.assertEqual(len(self.loop.calls), 1)
        self.loop.iterate()
        self.assertEqual([round(lag, 6) for lag in self.taken()], [0.35, 0.25, 0.15, 0.05])

    def test_blocked_long(self) -> None:
        self.run_loop()
        self.start()
        self.clock.advance(1000)
        self.loop.iterate()
        self.assertEqual(len(self.taken()), MAX_MISSED)

    def test_tasks(self) -> None:
        """Tasks are counted once an interval, and are 0 when the loop has stopped."""
        self.run_loop()
        self.tasks = [1, 2, 3]
        self.start()
        counts = []
        for _ in range(12):
            self.loop.iterate()
            counts += self.taken("asyncio_tasks")
            self.clock.advance(0.1)
        self.assertEqual(counts, [3, 3])
        self.running.clear()
        self.clock.advance(0.1)
        self.assertEqual(self.taken("asyncio_tasks"), [0])

    def test_tasks_cost(self) -> None:
        """Counting many tasks takes at most a hundredth of the time."""

        def count(loop: object) -> list[object]:
            self.clock.rightNow += 0.5
            return []

        self.patch(event_loops, "all_tasks", count)
        self.run_loop()
        self.start()
        counts = 0
        while self.clock.seconds() < 49:
            self.loop.iterate()
            counts += len(self.taken("asyncio_tasks"))
            self.clock.advance(0.1)
        self.assertEqual(counts, 1)
        while self.clock.seconds() < 52:
            self.loop.iterate()
            counts += len(self.taken("asyncio_tasks"))
            self.clock.advance(0.1)
        self.assertEqual(counts, 2)

    def test_stopped(self) -> None:
        """A call that a loop makes when it runs again is not a sample."""
        self.run_loop()
        self.start()
        self.running.clear()
        self.clock.advance(5)
        self.run_loop()
        self.loop.iterate()
        self.assertEqual(self.taken(), [])
        self.clock.advance(0.1)
        self.loop.iterate()
        self.assertEqual(self.taken(), [0.0])

    def test_closed(self) -> None:
        """A loop that refuses calls does not affect others."""
        self.run_loop(ident=1)
        closed = FakeLoop()
        closed.closed = True
        self.run_loop(closed, ident=2)
        self.start()
        self.loop.iterate()
        self.assertEqual(self.taken(), [0.0])

    def test_failing(self) -> None:
        """An error never reaches the loop."""
        self.patch(event_loops, "all_tasks", mock.Mock(side_effect=RuntimeError))
        self.run_loop()
        self.start()
        self.loop.iterate()
        self.assertEqual(self.taken(), [0.0])

    def test_stop(self) -> None:
        """A service that has stopped asks no loop, and ignores the last call."""
        self.run_loop()
        self.service.startService()
        self.service.stopService()
        self.loop.iterate()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.taken(), [])

    def test_threads(self) -> None:
        """Loops have the names of their threads as labels; their number is limited."""
        self.run_loop()
        for ident in range(MAX_NAMES + 5):
            self.run_loop(ident=-ident - 1)
        names = {f"thread-{number}" for number in range(MAX_NAMES + 5)}
        threads = [mock.Mock(ident=-n - 1) for n in range(len(names))]
        for thread, name in zip(threads, sorted(names), strict=True):
            thread.name = name
        threads += threading.enumerate()
        with mock.patch.object(threading, "enumerate", lambda: threads):
            self.start()
        self.loop.iterate()
        labels = {dict(key.labels)["thread"] for key, _, _ in self.recorder.take_keys()}
        self.assertEqual(len(labels), MAX_NAMES + 1)
        self.assertIn("other", labels)

    def test_described(self) -> None:
        self.run_loop()
        self.start()
        self.loop.iterate()
        self.assert_described()


class WatchTests(CollectorTestCase):
    def test_asyncio(self) -> None:
        """A loop is found while it runs, each run by itself."""
        for module in asyncio, asyncio.events:
            self.patch(module, "_set_running_loop", module._set_running_loop)
        watch_event_loops()

        async def look() -> RunningLoop:
            return event_loops._running[threading.get_ident()]

        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        first, second = (loop.run_until_complete(look()) for _ in range(2))
        self.assertIs(first.loop, loop)
        self.assertIsNot(first, second)
        self.assertNotIn(threading.get_ident(), event_loops._running)
