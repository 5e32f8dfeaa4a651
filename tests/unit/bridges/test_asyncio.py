"""
The measurement of an event loop from inside a program.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.task import Clock

from tests.recorders import GlobalRecorderTestCase
from txmetrics_tcp import Operation, set_global_recorder
from txmetrics_tcp._collectors import event_loops
from txmetrics_tcp.bridges.asyncio import LoopMeasurement, measure_loop


class FakeLoop:
    """An event loop on a fake clock, which may be late."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def call_later(self, delay: float, call: Callable[..., object], *arguments: object) -> Any:
        return self._clock.callLater(delay, call, *arguments)


class LoopMeasurementTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.tasks: list[object] = []
        self.patch(event_loops, "all_tasks", lambda loop: self.tasks)
        self.patch(threading.current_thread(), "name", "loop")
        loop: Any = FakeLoop(self.clock)
        self.measurement = LoopMeasurement(self.recorder, 1.0, loop, self.clock.seconds)
        self.measurement._sampler.start()

    def taken(self, operation: Operation) -> list[tuple[str, float]]:
        return [
            (name, round(float(str(value)), 6))
            for name, found, value in self.recorder.take()
            if found is operation
        ]

    def test_lag(self) -> None:
        """Ten samples in an interval, and those that a late call has missed."""
        self.clock.pump([0.1] * 10)
        lag = "asyncio_lag_seconds [thread = loop]"
        self.assertEqual(self.taken(Operation.RECORD_HISTOGRAM), [(lag, 0.0)] * 10)
        self.clock.advance(0.375)
        self.assertEqual(
            self.taken(Operation.RECORD_HISTOGRAM), [(lag, 0.275), (lag, 0.175), (lag, 0.075)]
        )

    def test_tasks(self) -> None:
        """They are counted once in an interval."""
        tasks = "asyncio_tasks [thread = loop]"
        self.tasks = [1, 2]
        self.clock.pump([0.1] * 10)
        self.assertEqual(self.taken(Operation.SET_GAUGE), [(tasks, 2.0)])
        self.tasks = [1]
        self.clock.pump([0.1] * 2)
        self.assertEqual(self.taken(Operation.SET_GAUGE), [(tasks, 1.0)])

    def test_stop(self) -> None:
        """Nothing is left in the loop."""
        self.measurement.stop()
        self.measurement.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual({value for _, value in self.taken(Operation.SET_GAUGE)}, {0.0})

    def test_failure(self) -> None:
        """A loop does not report a recorder that raises."""
        self.recorder.sink.log = mock.Mock(append=mock.Mock(side_effect=OSError("full")))
        self.clock.advance(0.1)


class MeasureLoopTests(GlobalRecorderTestCase):
    def test_running(self) -> None:
        """The running loop is measured until it ends, also without `stop`."""

        async def main() -> None:
            measure_loop(interval=0.01)
            while not self.recorder.entries:
                await asyncio.sleep(0.01)

        set_global_recorder(self.recorder)
        asyncio.run(main())
        thread = threading.current_thread().name
        self.assertEqual(
            {name for name, _, _ in self.recorder.take()},
            {f"asyncio_lag_seconds [thread = {thread}]", f"asyncio_tasks [thread = {thread}]"},
        )
        self.assertEqual(self.recorder.described, list(event_loops.METADATA))

    def test_wrong(self) -> None:
        self.assertRaises(RuntimeError, measure_loop)
        wrong: Any = "recorder"
        self.assertRaises(TypeError, measure_loop, wrong)
        self.assertRaises(ValueError, measure_loop, interval=0)
