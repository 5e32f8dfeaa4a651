"""
How late the reactor is: the time from when a call was due to when it is made.

It is what every timer and every byte of the program waits for while something else holds the
reactor's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit

SAMPLES = 10
"""How often the lag is measured between two collections of other metrics."""

MIN_PERIOD = 0.05
"""The least time between two samples, in seconds: being measured must not become a load."""

MAX_PERIOD = 1.0
"""The most time between two samples, in seconds: what lasts a second is never missed."""

MAX_MISSED = 100
"""How many samples one delay may count for, at most."""

_METADATA = Metadata(
    MetricKind.HISTOGRAM,
    "reactor_lag_seconds",
    Unit.SECONDS,
    "How much later than due the reactor made a delayed call.",
)


class LagService(Service):
    """
    Records how late the reactor calls what is due, as the histogram ``reactor_lag_seconds``.

    Calls are due at even distances, and each of them is a sample.  A reactor that was held up
    for long makes one call where several were due: then those count too, each as late as it
    would have been.  Without them, the longer a delay, the fewer of its victims would be seen.
    """

    def __init__(
        self,
        recorder: Recorder,
        interval: float,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param interval: within how many seconds some samples are wanted; there will be
            `SAMPLES`, within the bounds of `MIN_PERIOD` and `MAX_PERIOD`.
        @param clock: the reactor that is measured.
        @param monotonic: what it is measured with: seconds since whenever.  Not the reactor's
            own C{seconds}, which is the time of day for most reactors, and may be set.
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
        # Timers have a resolution of their own, and time may be set: early is not late.
        lag = max(0.0, now - self._due)
        missed = int(lag / self._period)
        for sample in range(min(missed, MAX_MISSED - 1) + 1):
            self._lag.record(lag - sample * self._period)
        self._due += (missed + 1) * self._period
        self._call = self._clock.callLater(max(0.0, self._due - now), self._sample)
