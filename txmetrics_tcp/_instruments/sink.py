"""
The interface between handles and recorders: series, and the sinks that receive their events.

A handle (`txmetrics_tcp.Counter`, for example) records to a `Series`, and a series belongs to a
`Sink`.  Recorders provide both: see `txmetrics_tcp.Recorder.attach`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from txmetrics_tcp._model import Key, Operation

# The series is Any, since recorders may subclass Series: it is the object that `attach` returned.
Entry = tuple[Any, Operation | None, Any, int]
"""
One recorded event: series, operation, value, and time in nanoseconds since the epoch (0 if the
sink is not `stamped`).

The operation `RECORD_MANY` stands for a repeated histogram sample.  Its value is the pair of sample
and count.
"""

RECORD_MANY = None
"""In an `Entry`, stands for several ``RECORD_HISTOGRAM`` events with the same sample."""


class Log(Protocol):
    """A queue of entries, such as a `collections.deque`."""

    def append(self, entry: Entry, /) -> object:
        """Append an entry.  Called from any thread, and re-entrantly during any other call."""

    def __len__(self) -> int: ...


class Sink:
    """
    The destination of the events of all series of one recorder.

    Handles read these attributes for each event, without a lock, and append an `Entry` to the log.
    A recorder may change the attributes at any time, from any thread.

    @ivar open: whether handles record events.  If False, they only validate the value.
    @ivar stamped: whether entries need a time.  If False, their time is 0.
    @ivar clock: returns the time of an entry, in nanoseconds since the epoch.
    @ivar log: receives the entries; a `collections.deque`, for example.
    @ivar wake_threshold: a handle calls `notify` after appending an entry if the log is longer than
        this; -1 means after every entry.
    """

    # Handles access the attributes directly, because a method call would add a fifth to the cost of
    # recording.

    __slots__ = ("__weakref__", "clock", "log", "open", "stamped", "wake_threshold")

    def __init__(
        self, log: Log, wake_threshold: int = 0, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.open: bool = True
        self.stamped: bool = True
        self.clock: Callable[[], int] = clock
        self.log: Log = log
        self.wake_threshold: int = wake_threshold

    def notify(self) -> None:
        """Process the log, now or later.  Called from any thread; must be re-entrant."""


class Series:
    """
    One series of a recorder.  A recorder may subclass it to add state.

    @ivar key: the series' kind, name and labels.
    @ivar sink: receives the events of the series.
    """

    __slots__ = ("__weakref__", "key", "sink")

    def __init__(self, key: Key, sink: Sink) -> None:
        self.key: Key = key
        self.sink: Sink = sink


class RelaySink(Sink):
    """
    Forwards entries to other series, which receive them as from handles.

    For each entry, it checks which targets are open, since sinks do not announce changes.
    """

    __slots__ = ("_sinks",)

    def __init__(self, targets: tuple[Series, ...]) -> None:
        # The relay log reads the time once per entry, from the clock of the first target that needs
        # it.
        self.stamped = False
        self.clock = time.time_ns
        # The relay log is always empty, so handles never call notify.
        self.wake_threshold = 0
        self.relay_to(targets)

    def relay_to(self, targets: tuple[Series, ...]) -> None:
        """
        Replace the targets.  An event that another thread is recording may still be forwarded to
        the previous targets.
        """
        self.log = _RelayLog(targets)
        self._sinks = tuple(series.sink for series in targets)

    @property
    def open(self) -> bool:  # type: ignore[override] # read-only: only the targets change it
        for sink in self._sinks:  # noqa: SIM110 - any() of a generator takes twice as long
            if sink.open:
                return True
        return False


class _RelayLog:
    """A log that forwards each entry and is always empty."""

    __slots__ = ("_targets",)

    def __init__(self, targets: tuple[Series, ...]) -> None:
        self._targets = targets

    def __len__(self) -> int:
        return 0

    def append(self, entry: Entry, /) -> None:
        _, operation, value, stamp = entry
        failure = None
        for series in self._targets:
            # An exception from one recorder must not keep the event from the others.
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
"""A sink that is never open, for series that discard all events."""

NOWHERE.open = False
