"""
Where handles put what is recorded.

A handle (`txmetrics_tcp.Counter` and its like) writes to a `Series`, and a series belongs to a
`Sink`.  That is all that a recorder has to provide: see `txmetrics_tcp.Recorder.attach`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from txmetrics_tcp._model import Key, Operation

# The series is Any for the sake of recorders that have series of their own, with more to them: it
# is what their own `attach` returned.
Entry = tuple[Any, Operation | None, Any, int]
"""
One recorded event on its way: its series, what happened, the value, and when (nanoseconds since
the epoch, 0 where nobody needs to know).

The operation `RECORD_MANY` means a histogram sample that counts several times; its value is the
pair of sample and count.
"""

RECORD_MANY = None
"""In an `Entry`, stands for as many ``RECORD_HISTOGRAM`` as the value says."""


class Log(Protocol):
    """What a handle appends entries to; a `collections.deque` for example."""

    def append(self, entry: Entry, /) -> object:
        """Take an entry.  Called from any thread, and in the middle of any other call."""

    def __len__(self) -> int: ...


class Sink:
    """
    The place that entries of all series of one recorder go to.

    A handle looks at the fields itself, in the manner of
    `txmetrics_tcp.Counter.increment`: recording is what an instrumented program does most,
    and a method call would be a fifth of its cost.

    @ivar open: whether anything is to be recorded at all.
    @ivar stamped: whether entries need their time.
    @ivar clock: gives the time of an entry.
    @ivar log: takes the entries.
    @ivar wake_threshold: a handle calls `notify` if the log is longer than this after it has
        appended an entry; with -1, always.
    """

    __slots__ = ("__weakref__", "clock", "log", "open", "stamped", "wake_threshold")

    def __init__(
        self, log: Log, wake_threshold: int = 0, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.open = True
        self.stamped = True
        self.clock = clock
        self.log = log
        self.wake_threshold = wake_threshold

    def notify(self) -> None:
        """See to what has been appended.  Called from any thread, and must be re-entrant."""


class Series:
    """
    What is known of one series by the recorder that it belongs to.

    @ivar key: its kind, name and labels.
    @ivar sink: where its events go.
    """

    __slots__ = ("__weakref__", "key", "sink")

    def __init__(self, key: Key, sink: Sink) -> None:
        self.key = key
        self.sink = sink


class RelaySink(Sink):
    """
    Passes entries on to other series, by the rules that handles themselves follow.

    It is looked at anew for each entry which of them are open, since nobody says when that changes.
    """

    __slots__ = ("_sinks",)

    def __init__(self, every: tuple[Series, ...]) -> None:
        # The time is read when the first turns up that wants it, and is the same for the rest.
        self.stamped = False
        self.clock = time.time_ns
        # Nothing stays here, so there is nothing to be nudged for.
        self.wake_threshold = 0
        self.relay_to(every)

    def relay_to(self, every: tuple[Series, ...]) -> None:
        """
        Pass on to others from now on.  What another thread is recording meanwhile goes to those of
        before.
        """
        self.log = _RelayLog(every)
        self._sinks = tuple(series.sink for series in every)

    @property
    def open(self) -> bool:  # type: ignore[override] # nobody sets that of somebody else's sink
        for sink in self._sinks:  # noqa: SIM110 - any() of a generator takes twice as long
            if sink.open:
                return True
        return False


class _RelayLog:
    """Looks like a log that is always empty."""

    __slots__ = ("_every",)

    def __init__(self, every: tuple[Series, ...]) -> None:
        self._every = every

    def __len__(self) -> int:
        return 0

    def append(self, entry: Entry, /) -> None:
        _, operation, value, stamp = entry
        failure = None
        for series in self._every:
            # A recorder of the program's own that fails must not be why the others miss it.
            try:
                sink = series.sink
                if sink.open:
                    if sink.stamped and not stamp:
                        stamp = sink.clock()
                    log = sink.log
                    log.append((series, operation, value, stamp))
                    if len(log) > sink.wake_threshold:
                        sink.notify()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure


NOWHERE = Sink(deque(maxlen=0))
"""The sink of what nobody listens to."""

NOWHERE.open = False
