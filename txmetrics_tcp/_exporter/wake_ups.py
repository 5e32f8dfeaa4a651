"""
When the reactor thread takes events: at once after a quiet time, and from a timer while events keep
coming.

A wake-up of the reactor costs as much as recording and sending a hundred events, so a program that
records a few events each millisecond would mostly pay for wake-ups.  There are four states, and
C{wake_threshold} of the sink tells handles which events must call `WakeUps.notify`, in addition to
those that find the log too long:

- B{idle}: no clients are connected.  No event does.
- B{quiet}: no events are pending.  The next event does, and wakes the reactor.
- B{paced}: a timer is pending.  Only an event that exceeds half of the buffer wakes the reactor.
- B{woken}: the reactor drains in its next iteration.  No event wakes it.

A drain that took events begins the paced state, unless the rate is too high for a timer.  A timer
that finds no events begins the quiet state.
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
The seconds by which a timer may be late, since reactors round up to a millisecond.  If that is all
the time there is, the next event wakes the reactor instead.
"""

DECAY = 0.75
"""
The part of the estimated rate that remains from one drain to the next if the program slows down.
Events come in bursts, so a single interval may have few.
"""


class WakeUps:
    """
    Calls C{drain} on the reactor thread, soon after events are recorded.

    Any thread may call `wake` and `notify`, re-entrantly; the reactor thread calls the rest.

    @ivar drained_at: the last time, on a monotonic clock, at which a drain had left no events
        pending.
    """

    __slots__ = (
        "_drain",
        "_half",
        "_held",
        "_ledger",
        "_limit",
        "_max_delay",
        "_monotonic",
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
        self._half: float = math.inf if buffer_size is None else buffer_size / 2
        # The wake threshold in the paced state.
        self._held = int(min(self._half, limit))
        self._max_delay = max_delay
        self._monotonic = monotonic
        # The pending call from a thread.  Calls other than this one do nothing.
        self._request: object = None
        self._timer: IDelayedCall | None = None
        # The number of recorded events at `drained_at`, and the estimated events per second.
        self._recorded = 0
        self._rate = 0.0
        self.drained_at: float = -math.inf

    # Any thread.

    def notify(self) -> None:
        """Wake the reactor if it is quiet, or if half of the buffer is pending."""
        if self._sink.wake_threshold < 0 or self._pending() > self._half:
            self.wake()

    def wake(self) -> None:
        """Have the reactor thread drain in its next iteration, if clients are connected."""
        if not self._ledger.streaming:
            return
        try:
            # In this order: if the reactor drains between any two of these lines, either the call
            # is made after it, or the state is the one that it began.
            self._sink.wake_threshold = self._limit
            if self._request is not None:
                return
            self._request = request = object()
            try:
                self._reactor.callFromThread(self._on_request, request)
            except Exception:
                # The caller must see no error if the reactor is gone: a closed asyncio loop raises.
                # The buffer remains bounded.
                self.handled()
                self.rearm()
        except BaseException:
            # The call may not have been made.
            self.handled()
            self.rearm()
            raise

    def handled(self) -> None:
        """Forget a pending request.  If this is not its call, the caller drains instead."""
        self._request = None

    def rearm(self) -> None:
        """Let the next event wake the reactor."""
        self._sink.wake_threshold = -1 if self._ledger.streaming else self._limit

    # Reactor thread.

    def stop(self) -> None:
        """Let no event wake the reactor; no clients are left."""
        self.rearm()
        cancel(self._timer)

    def hold(self) -> None:
        """Let events wake the reactor only if half of the buffer is pending."""
        if self._ledger.streaming:
            self._sink.wake_threshold = self._held

    def continue_later(self) -> None:
        """
        Determine when to drain next: in the next iteration if events or a request are pending, else
        after an interval, or when the next event is recorded.  Call this after `rearm`, so that no
        event is missed.
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
                self.hold()
            elif not events and is_pending(self._timer):
                self.hold()
        except Exception:
            # A recording call may drain, and must see no error, as in `wake`.
            return

    # Private.

    def _interval(self, events: int, seconds: float) -> float:
        """
        Return the seconds until a quarter of the buffer is used, and at most the maximum.

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
        return len(self._sink.log) + self._ledger.counts().waiting

    def _on_request(self, request: object) -> None:
        if request is self._request:
            self._drain()

    def _on_timer(self) -> None:
        self.rearm()
        if self._ledger.more():
            self._drain()
        else:
            self._rate = 0.0
