"""
Measure the lag of the reactor: how late it runs delayed calls.

While other code blocks the reactor thread, all timers and all I/O of the program are delayed by
this time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit

SAMPLES = 10
"""Number of samples between two collections of other metrics."""

MIN_PERIOD = 0.05
"""Minimum seconds between two samples, so that measuring stays cheap."""

MAX_PERIOD = 1.0
"""Maximum seconds between two samples, so that a delay of a second is always detected."""

MAX_MISSED = 100
"""Maximum number of samples recorded for one delay."""

_METADATA = Metadata(
    MetricKind.HISTOGRAM,
    "reactor_lag_seconds",
    Unit.SECONDS,
    "How late the reactor runs delayed calls.",
)


class LagService(Service):
    """
    Records the lag of the reactor as the histogram ``reactor_lag_seconds``.

    Calls are due at regular intervals, and the lag of each call is a sample.  If the reactor is
    blocked for several intervals, it makes only one call.  A sample is then also recorded for each
    missed call, with the lag that the call would have had.  Otherwise, long delays would be
    underrepresented.
    """

    def __init__(
        self,
        recorder: Recorder,
        interval: float,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param interval: the time, in seconds, in which `SAMPLES` samples are taken.  The time
            between two samples is at least `MIN_PERIOD` and at most `MAX_PERIOD`.
        @param clock: the reactor to measure.
        @param monotonic: returns seconds, on a monotonic clock.  C{clock.seconds} is not suitable:
            most reactors use the system clock for it, which may be set.
        """
        recorder.describe(_METADATA)
        self._lag = recorder.histogram(_METADATA.name)
        self._period = min(max(interval / SAMPLES, MIN_PERIOD), MAX_PERIOD)
        self._clock = clock
        self._monotonic = monotonic
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._due = self._monotonic() + self._period
        self._call = self._clock.callLater(self._period, self._sample)

    def stopService(self) -> None:
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _sample(self) -> None:
        now = self._monotonic()
        # A call may be early: timers have a limited resolution, and the system clock may be set.
        lag = max(0.0, now - self._due)
        missed = int(lag / self._period)
        for sample in range(min(missed, MAX_MISSED - 1) + 1):
            self._lag.record(lag - sample * self._period)
        self._due += (missed + 1) * self._period
        self._call = self._clock.callLater(max(0.0, self._due - now), self._sample)
