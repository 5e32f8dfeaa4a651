"""
Measure the lag of the reactor: how late it runs delayed calls.

While other code blocks the reactor thread, all timers and all I/O of the program are delayed by
this time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

from txmetrics_tcp._instruments.recorder import Histogram, Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit

SAMPLES = 10
"""Number of samples between two collections of other metrics."""

MIN_PERIOD = 0.05
"""Minimum seconds between two samples, so that measuring stays cheap."""

MAX_PERIOD = 1.0
"""Maximum seconds between two samples, so that a delay of a second is always detected."""

MAX_MISSED = 100
"""Maximum number of samples recorded for one delay."""

METADATA = Metadata(
    MetricKind.HISTOGRAM,
    "reactor_lag_seconds",
    Unit.SECONDS,
    "How late the reactor runs delayed calls.",
)


class Cancellable(Protocol):
    """A delayed call."""

    def cancel(self) -> object: ...


CallLater = Callable[[float, Callable[[], object]], Cancellable]
"""Makes a call after a number of seconds."""


def period(interval: float) -> float:
    """
    Return the time between two samples, in seconds, if `SAMPLES` are taken in an interval.
    """
    return min(max(interval / SAMPLES, MIN_PERIOD), MAX_PERIOD)


def record_lag(histogram: Histogram, lag: float, period: float) -> int:
    """
    Record the lag of a call, and of the calls that were missed because of it.

    @return: the number of missed calls.
    """
    missed = int(lag / period)
    for sample in range(min(missed, MAX_MISSED - 1) + 1):
        histogram.record(lag - sample * period)
    return missed


class LagSampler:
    """
    Records the lag of an event loop: how late it makes calls.

    Calls are due at regular intervals, and the lag of each call is a sample.  If the loop is
    blocked for several intervals, it makes only one call.  A sample is then also recorded for each
    missed call, with the lag that the call would have had.  Otherwise, long delays would be
    underrepresented.
    """

    def __init__(
        self,
        histogram: Histogram,
        interval: float,
        call_later: CallLater,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param interval: the time, in seconds, in which `SAMPLES` samples are taken.  The time
            between two samples is at least `MIN_PERIOD` and at most `MAX_PERIOD`.
        @param call_later: a method of the loop to measure.
        @param monotonic: returns seconds, on a monotonic clock.
        """
        self._histogram = histogram
        self._period = period(interval)
        self._call_later = call_later
        self._monotonic = monotonic
        self._due = 0.0
        self._call: Cancellable | None = None

    def start(self) -> None:
        self._due = self._monotonic() + self._period
        self._call = self._call_later(self._period, self._sample)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _sample(self) -> None:
        now = self._monotonic()
        # A call may be early: timers have a limited resolution, and the system clock may be set.
        missed = record_lag(self._histogram, max(0.0, now - self._due), self._period)
        self._due += (missed + 1) * self._period
        self._call = self._call_later(max(0.0, self._due - now), self._sample)


class LagService(Service):
    """
    Records the lag of the reactor as the histogram ``reactor_lag_seconds``; see `LagSampler`.
    """

    def __init__(
        self,
        recorder: Recorder,
        interval: float,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param interval: see `LagSampler`.
        @param clock: the reactor to measure.
        @param monotonic: returns seconds, on a monotonic clock.  C{clock.seconds} is not suitable:
            most reactors use the system clock for it, which may be set.
        """
        recorder.describe(METADATA)
        lag = recorder.histogram(METADATA.name)
        self._sampler = LagSampler(lag, interval, clock.callLater, monotonic)

    def startService(self) -> None:
        super().startService()
        self._sampler.start()

    def stopService(self) -> None:
        super().stopService()
        self._sampler.stop()
