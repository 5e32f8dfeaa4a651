"""
When the reactor thread takes events: at once after a quiet time, and from a timer while events keep
coming.

Otherwise, a program that records a few events each millisecond would mostly pay for wake-ups.
There are four states.  The sink's C{wake_threshold} determines which events wake the reactor:

- B{idle}, while no clients are connected: none.
- B{quiet}, after a timer that found no events: the next one.
- B{paced}, after a drain that took events, while a timer is pending: one that exceeds half of the
  buffer.
- B{waking}, until the reactor drains: none.

If the timer would be too slow, or is turned off, the quiet state follows a drain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from txmetrics_tcp._exporter.ledger import Ledger
from txmetrics_tcp._instruments.sink import Sink
from txmetrics_tcp._net.deadline import cancel, is_pending

ROUNDING = 0.001
"""
The seconds by which a timer may be late, since reactors round up to a millisecond.  If the interval
is shorter, the next event wakes the reactor instead.
"""

UNLIMITED = 131_072
"""
Without a limit, the timer and wake-ups take the buffer to be this large, so that pending events are
bounded even if the reactor's clock is set back, which delays the timer.
"""

DECAY = 0.75
"""
The weight of the previous estimate of the rate if the rate has fallen.  Events come in bursts, so a
single interval may have few.
"""


class DrainScheduler:
    """
    Calls C{drain} on the reactor thread while events are pending.

    Any thread may call `wake` and `notify`, re-entrantly; the reactor thread calls the rest.

    @ivar drained_at: when a drain last left no events pending, on a monotonic clock.
    """

    __slots__ = (
        "_drain",
        "_half",
        "_ledger",
        "_limit",
        "_max_delay",
        "_monotonic",
        "_paced_threshold",
        "_rate",
        "_reactor",
        "_recorded",
        "_request",
        "_sink",
        "_timer",
        "drained_at",
    )

    def __init__(
        self,
        sink: Sink,
        ledger: Ledger,
        reactor: Any,
        drain: Callable[[], object],
        *,
        limit: int,
        buffer_size: int | None,
        max_delay: float,
        monotonic: Callable[[], float],
    ) -> None:
        """
        @param reactor: provides C{IReactorTime} and C{IReactorFromThreads}.
        @param limit: the length of the sink's log beyond which an event always calls C{notify}.
        @param buffer_size: the maximum number of pending events; None for no limit.
        @param max_delay: the longest interval of the timer, in seconds; 0 for no timer.
        @param monotonic: returns seconds, on a monotonic clock.
        """
        self._sink = sink
        self._ledger = ledger
        self._reactor = reactor
        self._drain = drain
        self._limit = limit
        self._half = (UNLIMITED if buffer_size is None else buffer_size) / 2
        # The wake threshold in the paced state.
        self._paced_threshold = int(min(self._half, limit))
        self._max_delay = max_delay
        self._monotonic = monotonic
        # The argument of the pending call; calls with another one do nothing.
        self._request: object = None
        self._timer: IDelayedCall | None = None
        # The number of recorded events at `drained_at`, and the estimated events per second.
        self._recorded = 0
        self._rate = 0.0
        self.drained_at: float = -math.inf

    # Any thread.

    def notify(self) -> None:
        """Wake the reactor in the quiet state, or if half of the buffer is pending."""
        if self._sink.wake_threshold < 0 or self._pending() > self._half:
            self.wake()

    def wake(self) -> None:
        """Have the reactor thread drain in its next iteration, if clients are connected."""
        if not self._ledger.streaming:
            return
        try:
            # First the threshold: if the reactor drains after this line, its threshold remains.
            self._sink.wake_threshold = self._limit
            if self._request is not None:
                return
            self._request = request = object()
            try:
                self._reactor.callFromThread(self._on_request, request)
            except Exception:
                # The caller must see no error if the reactor is gone: a closed asyncio loop raises.
                # The buffer remains bounded.
                self.cancel_request()
                self.rearm()
        except BaseException:
            # The call may not have been made.
            self.cancel_request()
            self.rearm()
            raise

    def use_reactor(self, reactor: Any) -> None:
        """Use another reactor.  Call this only while no clients are connected."""
        self._reactor = reactor

    def cancel_request(self) -> None:
        """Cancel the pending call; the caller drains instead."""
        self._request = None

    def rearm(self) -> None:
        """Let the next event wake the reactor."""
        self._sink.wake_threshold = -1 if self._ledger.streaming else self._limit

    # Reactor thread.

    def stop(self) -> None:
        """Cancel the timer, and let no event wake the reactor; no clients are left."""
        self.rearm()
        cancel(self._timer)

    def disarm(self) -> None:
        """Let events wake the reactor only if half of the buffer is pending."""
        self._sink.wake_threshold = self._paced_threshold

    def schedule(self) -> None:
        """
        Determine when to drain next: in the next iteration if events or a request are pending,
        otherwise from the timer or when the next event is recorded.  Call this after `rearm`, so
        that an event recorded meanwhile wakes the reactor.
        """
        if not self._ledger.streaming:
            return
        # A recording call that drains has made a request.  It may have interrupted a method of the
        # reactor, which could then lose a new timer.
        if self._request is not None or self._ledger.more():
            self.wake()
            return
        try:
            now, recorded = self._monotonic(), self._ledger.recorded
            events, seconds = recorded - self._recorded, now - self.drained_at
            self.drained_at, self._recorded = now, recorded
            interval = self._interval(events, seconds)
            if events and interval >= ROUNDING:
                cancel(self._timer)
                self._timer = self._reactor.callLater(interval, self._on_timer)
                self.disarm()
            elif not events and is_pending(self._timer):
                self.disarm()
        except Exception:
            # A recording call may drain, and must see no error, as in `wake`.
            return

    # Private.

    def _interval(self, events: int, seconds: float) -> float:
        """
        Update the rate, and return the seconds until a quarter of the buffer is used, at most
        C{max_delay}.

        @param events: the number of events recorded since the previous call.
        @param seconds: the time since then.
        """
        if seconds > 0:
            rate = events / seconds
            self._rate = max(rate, DECAY * self._rate + (1 - DECAY) * rate)
        if self._rate <= 0:
            return self._max_delay
        return min(self._max_delay, self._half / 2 / self._rate - ROUNDING)

    def _pending(self) -> int:
        return len(self._sink.log) + self._ledger.waiting

    def _on_request(self, request: object) -> None:
        if request is self._request:
            self._drain()

    def _on_timer(self) -> None:
        self.rearm()
        if self._ledger.more():
            self._drain()
        else:
            self._rate = 0.0
