"""
Metrics of the Python runtime of this process: threads, and pauses of the garbage collector.

The totals of the garbage collector are in `txmetrics_tcp._collectors.process`, the metrics of
asyncio in `txmetrics_tcp._collectors.event_loops`.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from twisted.application.service import Service

from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit

_THREADS = Metadata(
    MetricKind.GAUGE,
    "python_threads",
    Unit.COUNT,
    "Number of Python threads that run, including daemon threads and those of the exporter.",
)
_PAUSES = Metadata(
    MetricKind.HISTOGRAM,
    "python_gc_pause_seconds",
    Unit.SECONDS,
    "How long the garbage collector paused the program, by generation.",
)
METADATA = (_THREADS, _PAUSES)

_GENERATIONS = range(3)


class RuntimeCollector(Service):
    """
    Records each pause of the garbage collector while the service runs, and the number of threads
    when it is called.

    A pause is recorded by the thread that the garbage collector has interrupted, for about one
    microsecond.  In a forked process, an inherited collector records no pauses.
    """

    def __init__(
        self, recorder: Recorder, monotonic: Callable[[], float] = time.perf_counter
    ) -> None:
        """
        @param monotonic: returns seconds, on a monotonic clock.
        """
        for metadata in METADATA:
            recorder.describe(metadata)
        self._threads = recorder.gauge(_THREADS.name)
        self._pauses = [
            recorder.histogram(_PAUSES.name, generation=str(generation))
            for generation in _GENERATIONS
        ]
        self._monotonic = monotonic
        self._began: float | None = None

    def __call__(self) -> None:
        """Record the number of threads."""
        self._threads.set(threading.active_count())

    def startService(self) -> None:
        super().startService()
        gc.callbacks.append(self._on_collection)

    def stopService(self) -> None:
        super().stopService()
        with suppress(ValueError):
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: Mapping[str, int]) -> None:
        # Uses no globals, which no longer exist when the interpreter has shut down.
        if phase == "start":
            self._began = self._monotonic()
        elif self._began is not None:
            pause = self._monotonic() - self._began
            self._began = None
            self._pauses[info["generation"]].record(pause)


def _after_fork_in_child() -> None:
    gc.callbacks[:] = [
        callback
        for callback in gc.callbacks
        if not isinstance(getattr(callback, "__self__", None), RuntimeCollector)
    ]


os.register_at_fork(after_in_child=_after_fork_in_child)
