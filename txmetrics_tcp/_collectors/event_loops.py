"""
Metrics of asyncio's event loops: lag and number of tasks.
"""

from __future__ import annotations

import os
import threading
import time
from asyncio import AbstractEventLoop, all_tasks
from collections.abc import Callable, Mapping
from contextlib import suppress

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmetrics_tcp._collectors.reactor_lag import period, record_lag
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit
from txmetrics_tcp._net.internals import observe_running_loops

MAX_NAMES = 20
"""Maximum number of threads with a label of their own; others have the label C{other}."""

TASKS_SHARE = 0.01
"""Maximum share of a loop's time in which its tasks are counted."""

LAG = Metadata(
    MetricKind.HISTOGRAM,
    "asyncio_lag_seconds",
    Unit.SECONDS,
    "How late the event loop makes a call, by the thread of the loop.",
)
TASKS = Metadata(
    MetricKind.GAUGE,
    "asyncio_tasks",
    Unit.COUNT,
    "Number of tasks that are not done, by the thread of the event loop.",
)
METADATA = (LAG, TASKS)


class TaskCounter:
    """
    Counts the tasks of a loop at most once in an interval, and at most for `TASKS_SHARE` of its
    time.
    """

    def __init__(self, interval: float, monotonic: Callable[[], float]) -> None:
        self._interval = interval
        self._monotonic = monotonic
        self._count_at = 0.0

    def count(self, loop: AbstractEventLoop, now: float) -> int | None:
        """
        Return the number of tasks that are not done; None if it is too early to count them again.

        Called on the thread of the loop.
        """
        if now < self._count_at:
            return None
        tasks = len(all_tasks(loop))
        duration = self._monotonic() - now
        self._count_at = now + max(self._interval, duration / TASKS_SHARE)
        return tasks


class RunningLoop:
    """One run of an event loop.  The same loop may run several times."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop


_running: dict[int, RunningLoop] = {}
"""The running event loops by the ids of their threads."""


def watch_event_loops() -> None:
    """
    Let `EventLoopService` find all event loops that start from now on, in any thread.
    """
    observe_running_loops(_on_change)


def _on_change(loop: AbstractEventLoop | None) -> None:
    if loop is None:
        _running.pop(threading.get_ident(), None)
    else:
        _running[threading.get_ident()] = RunningLoop(loop)


# The loops of the parent share their descriptors with it: a call would wake the parent's loop.
os.register_at_fork(after_in_child=lambda: _running.clear())


class EventLoopService(Service):
    """
    Records the lag of each running event loop and the number of its tasks.

    The reactor asks each loop at regular intervals to make a call from another thread.  The time
    until the loop makes it is a sample; a loop that is blocked for several intervals is asked only
    once, and a sample is also recorded for each missed call, as by
    `txmetrics_tcp._collectors.reactor_lag.LagService`.  No timer of a loop is used, so loops with a
    clock of their own, and the end of a loop, are not affected.
    """

    def __init__(
        self,
        recorder: Recorder,
        interval: float,
        clock: IReactorTime,
        running: Mapping[int, RunningLoop] = _running,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param interval: seconds between two counts of tasks; also the time in which C{SAMPLES}
            samples of the lag are taken, as by C{LagService}.
        @param clock: the reactor that asks the loops, on another thread than theirs.
        @param running: the running loops by the ids of their threads.
        @param monotonic: returns seconds, on a monotonic clock.
        """
        for metadata in METADATA:
            recorder.describe(metadata)
        self.recorder = recorder
        self.interval = interval
        self.period = period(interval)
        self.running_loops = running
        self.monotonic = monotonic
        self._clock = clock
        self._probes: dict[RunningLoop, _Probe] = {}
        self._names: set[str] = set()
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._ask()

    def stopService(self) -> None:
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._probes.clear()

    def publish_tasks(self, thread: str) -> None:
        """Record the number of tasks of all loops with this label.  On any thread."""
        probes = list(self._probes.values())
        tasks = sum(probe.tasks for probe in probes if probe.thread == thread)
        self.recorder.gauge(TASKS.name, thread=thread).set(tasks)

    def _ask(self) -> None:
        self._call = self._clock.callLater(self.period, self._ask)
        running = dict(self.running_loops)
        for run in self._probes.keys() - running.values():
            ended = self._probes.pop(run)
            self.publish_tasks(ended.thread)
        new = {ident: run for ident, run in running.items() if run not in self._probes}
        if new:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, run in new.items():
                self._probes[run] = _Probe(self, ident, run, self._label(names.get(ident)))
        for probe in self._probes.values():
            probe.ask()

    def _label(self, name: str | None) -> str:
        if name is None or (name not in self._names and len(self._names) >= MAX_NAMES):
            return "other"
        self._names.add(name)
        return name


class _Probe:
    """
    Measures one run of a loop.

    @ivar thread: the label of the loop.
    @ivar tasks: the number of tasks when they were last counted.
    """

    def __init__(
        self, service: EventLoopService, ident: int, run: RunningLoop, thread: str
    ) -> None:
        self._service = service
        self._ident = ident
        self._run = run
        self.thread = thread
        self.tasks = 0
        self._lag = service.recorder.histogram(LAG.name, thread=thread)
        self._asked: float | None = None
        self._counter = TaskCounter(service.interval, service.monotonic)

    def ask(self) -> None:
        """Ask the loop to make a call, unless one is pending."""
        if self._asked is None:
            self._asked = self._service.monotonic()
            # A loop that is closed, or of another library, may raise any exception.
            with suppress(Exception):
                self._run.loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """The call.  On the thread of the loop."""
        # An exception would be reported by the loop, as if the program had raised it.
        with suppress(Exception):
            service = self._service
            now, asked = service.monotonic(), self._asked
            # The loop may have stopped, and run again later.
            is_same_run = service.running_loops.get(self._ident) is self._run
            if asked is None or not is_same_run or not service.running:
                return
            lag = max(0.0, now - asked)
            record_lag(self._lag, lag, service.period)
            self._asked = None
            tasks = self._counter.count(self._run.loop, now)
            if tasks is not None:
                self.tasks = tasks
                service.publish_tasks(self.thread)
