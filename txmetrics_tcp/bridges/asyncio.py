"""
Measures an event loop of asyncio, from inside a program::

    async def main():
        measure_loop()

``metrics-tcp run`` measures all event loops of a program without changing it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from txmetrics_tcp._checks import seconds_from
from txmetrics_tcp._collectors.event_loops import LAG, METADATA, TASKS, TaskCounter
from txmetrics_tcp._collectors.reactor_lag import Cancellable, LagSampler
from txmetrics_tcp._instruments.facade import default_recorder
from txmetrics_tcp._instruments.recorder import Recorder

__all__ = ["LoopMeasurement", "measure_loop"]


def measure_loop(recorder: Recorder | None = None, *, interval: float = 1.0) -> LoopMeasurement:
    """
    Measure the running event loop, from now on until it ends.

    Records how late the loop makes calls as the histogram ``asyncio_lag_seconds{thread}``, ten
    times in an interval, and the number of its tasks as the gauge ``asyncio_tasks{thread}``, once
    in an interval.  The label is the name of the thread.  With many tasks, they are counted less
    often, so that it takes at most 1 % of the loop's time.

    Call it in a coroutine or callback, on the thread of the loop.

    @param recorder: the recorder; by default, the global one, also if it is installed later.
    @param interval: seconds between two counts of tasks; 0.01 or more.  The lag is sampled ten
        times as often, but at intervals of 0.05 to 1 second.
    @raise RuntimeError: no event loop runs in this thread.
    @raise TypeError: an argument is of the wrong type.
    @raise ValueError: C{interval} is out of range.
    """
    measurement = LoopMeasurement(
        default_recorder(recorder),
        seconds_from(0.01, "interval", interval),
        asyncio.get_running_loop(),
    )
    measurement._sampler.start()
    return measurement


class LoopMeasurement:
    """
    Measures an event loop.  `measure_loop` makes instances.
    """

    def __init__(
        self,
        recorder: Recorder,
        interval: float,
        loop: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        for metadata in METADATA:
            recorder.describe(metadata)
        thread = threading.current_thread().name
        lag = recorder.histogram(LAG.name, thread=thread)
        self._tasks = recorder.gauge(TASKS.name, thread=thread)
        self._loop = loop
        self._monotonic = monotonic
        self._counter = TaskCounter(interval, monotonic)
        self._sampler = LagSampler(lag, interval, self._call_later, monotonic)

    def stop(self) -> None:
        """
        Stop measuring.  May be called more than once, on the thread of the loop.
        """
        self._sampler.stop()
        self._tasks.set(0)

    def _call_later(self, delay: float, sample: Callable[[], object]) -> Cancellable:
        return self._loop.call_later(delay, self._sample, sample)

    def _sample(self, sample: Callable[[], object]) -> None:
        # An exception would be reported by the loop, as if the program had raised it.
        with suppress(Exception):
            sample()
            tasks = self._counter.count(self._loop, self._monotonic())
            if tasks is not None:
                self._tasks.set(tasks)
