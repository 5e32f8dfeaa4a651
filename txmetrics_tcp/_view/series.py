"""
The state of a stream's consumer: totals, values, rates and distributions of ingested events.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from txmetrics_tcp._checks import at_least
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._model import (
    HISTOGRAM_TOTALS,
    INITIAL_TOTAL,
    U64_MAX,
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
    Unknown,
)
from txmetrics_tcp._view.memory import MAX_BYTES, SAMPLE_BYTES, Budget, Descriptions, key_size
from txmetrics_tcp._view.rates import (
    MIN_WATCHED,
    RATE_WINDOW,
    SECONDS,
    Increases,
    Values,
    per_second,
)
from txmetrics_tcp._view.windows import FINEST, Samples, Summary, Windows, covers

MAX_SERIES = 100_000
"""The default limit of series in a view."""

RECENT = 20
"""The number of events kept for a watched series."""

MAX_PENDING = 250_000
"""The maximum number of pending samples of all histograms, apart from those of one `ingest`."""

SPARE = 512 * 1024
"""The size of key objects that are identified in addition to two for each series, in bytes."""

RecentEvent = tuple[int | None, Operation, int | float]
"""The time of an event (nanoseconds since the epoch, or None), its operation and its value."""


class SeriesView:
    """
    The state of one series.  Created by `SourceView` and updated by each `SourceView.ingest`.

    @ivar key: the series.
    @ivar updated: when the last event was received, by the view's clock.
    @ivar timestamp_ns: when the last event was recorded, in nanoseconds since the epoch; None if
        unknown.
    """

    __slots__ = (
        "_base",
        "_connection",
        "_events",
        "_history",
        "_identified",
        "_increase_before",
        "_pending",
        "_second",
        "_set_at",
        "_size",
        "_spread",
        "_value",
        "_view",
        "_watched",
        "_windows",
        "key",
        "timestamp_ns",
        "updated",
    )

    def __init__(self, key: Key, view: SourceView, second: int, size: int) -> None:
        self.key: Key = key
        self.updated: float = -math.inf
        self.timestamp_ns: int | None = None
        # Both without the pending samples.
        self._events = 0
        self._value = INITIAL_TOTAL[key.kind]
        self._view = view
        # The equal keys by whose id() the view finds the series.  The list keeps them, so that no
        # id is reused.
        self._identified: list[Key] = []
        self._size = size
        self._watched: deque[RecentEvent] | None = None
        # The second of the last event.  The history receives the increase in this second when an
        # event arrives in a later second.
        self._second = second
        self._history: Increases | Values
        if key.kind is MetricKind.GAUGE:
            self._history = Values(second)
        else:
            self._history = Increases(second)
        # `value - _base` is the increase of a total.  `_increase_before` is the same at the start
        # of the current second.  `_spread` is a further increase, which the history already
        # includes.  For a gauge, `_base` is the first value.
        self._base: int | float = 0
        self._increase_before: int | float = 0
        self._spread = 0
        # The connection and the second of the last exact total.
        self._connection = -1
        self._set_at = second
        self._pending: list[float] = []
        self._windows: Windows | None = None
        if key.kind is MetricKind.HISTOGRAM:
            self._windows = Windows(view._samples, second)

    def __repr__(self) -> str:
        return f"<SeriesView {self.key.kind.value} {self.key}: {self.value!r}>"

    @property
    def events(self) -> int:
        """The number of events received."""
        return self._events + len(self._pending)

    @property
    def value(self) -> int | float:
        """
        The total of a counter, the value of a gauge, the number of samples of a histogram.
        """
        pending = self._pending
        return self._value + len(pending) if pending else self._value

    @property
    def recent(self) -> deque[RecentEvent]:
        """The last events since `watch` was called, oldest first."""
        return deque() if self._watched is None else self._watched

    def watch(self, watched: bool = True) -> None:
        """Start or stop keeping the last events for `recent`."""
        if not watched:
            self._watched = None
        elif self._watched is None:
            self._watched = deque(maxlen=RECENT)

    @property
    def change(self) -> int | float:
        """
        The total change since the series was first seen, counted as in `rate`.
        """
        return self.value - self._base + self._spread

    @property
    def base(self) -> int | float:
        """`value - base` is `change`."""
        return self._base - self._spread

    def average_rate(self, seconds: float) -> float:
        """
        Return `change` per second.

        @param seconds: the time in which the series has changed, in seconds.
        """
        return per_second(self.value + self._spread, self._base, seconds)

    def rate(self, now: float) -> float:
        """
        Return the change per second over the last ten seconds, or since `SourceView.since` if that
        is more recent.

        This is the change of a counter's total, a histogram's sample count or a gauge's value.  The
        first known total of a counter or histogram, the first total after a reconnect and a lower
        total do not count as changes.  Any other new total is spread over the time since the last
        exact total.

        @param now: the time, by the view's clock.
        @return: the rate; NaN for a gauge that is, or was ten seconds ago, infinite or NaN.
        """
        second = math.floor(now)
        first = second - RATE_WINDOW + 1
        watched = max(min(now - first, now - self._view.since), MIN_WATCHED)
        history = self._history
        if isinstance(history, Values):
            # The first known value, starting with the second before the window.
            then = next(
                (
                    value
                    for value in history.between(first - 1, second + 1, self.value)
                    if value == value
                ),
                math.nan,
            )
            rate = per_second(self.value, then, watched)
            return rate if math.isfinite(rate) else math.nan
        change = sum(history.between(first, second + 1))
        if first <= self._second <= second:
            change += self.value - self._base - self._increase_before
        return change / watched

    def history(self, now: float, seconds: int = 60) -> list[float]:
        """
        Return one number for each of the last complete seconds, oldest first.

        For counters and histograms, it is the increase in that second.  For gauges, it is the value
        at the end of the second, or NaN before the first value.

        @param now: the time, by the view's clock.
        @param seconds: the number of seconds, up to 60.
        """
        end = math.floor(now)
        first = end - min(seconds, SECONDS - 4)
        history = self._history
        if isinstance(history, Values):
            return history.between(first, end, self.value if self.events else math.nan)
        increases = history.between(first, end)
        if first <= self._second < end:
            increases[self._second - first] += self.value - self._base - self._increase_before
        return increases

    def summary(self, window: float | None = None, now: float | None = None) -> Summary | None:
        """
        Return statistics of a histogram's samples.

        Statistics of a window are those of the samples that the view has received in it.  Those of
        all time include all samples that the program has recorded, if the server sends totals of
        histograms.

        @param window: the length of the window in seconds: 10, 60 or 300.  Up to a fifth more is
            included.  None for all time.
        @param now: the time, by the view's clock; by default, the time of the last event.
        @return: the statistics; None for counters and gauges.
        """
        samples = samples_of(self, window, self.updated if now is None else now)
        return None if samples is None else samples.summary()

    @property
    def distribution(self) -> Distribution | None:
        """
        The distribution of all samples of a histogram since the program has started; if the server
        sends no totals of histograms, of those that the view has received.  It is None for counters
        and gauges, or if the memory for samples did not suffice.
        """
        samples = samples_of(self, None, self.updated)
        return samples.whole if samples is not None and samples.known else None

    # Called by the view

    def _advance(self, second: int) -> None:
        """Start a new second.  Called before an event in a later second than the last event."""
        history = self._history
        windows = self._windows
        if isinstance(history, Values):
            history.advance(second, self.value if self.events else math.nan)
        else:
            risen = self.value - self._base
            history.advance(second, risen - self._increase_before)
            self._increase_before = risen
        if windows is not None and second // FINEST != self._second // FINEST:
            self._count_samples()
            windows.close(self._second - self._second % FINEST)
        self._second = second

    def _set_total(self, total: int, connection: int) -> None:
        """Apply a total of a counter, or the number of samples in that of a histogram."""
        risen = total - self.value
        if self._connection == connection and risen > 0:
            assert isinstance(self._history, Increases)
            self._history.spread(risen, self._set_at + 1)
            self._spread += risen  # type: ignore[assignment]
            if self._view.observer is not None:
                self._view.observer.resynced(self, risen, self._set_at)
        elif risen and self._view.observer is not None:
            self._view.observer.rebased(self)
        self._base += risen
        self._value = total
        self._connection = connection
        self._set_at = self._second

    def _set_distribution(self, total: Distribution, connection: int) -> None:
        """Apply a total of a histogram."""
        windows = self._windows
        assert windows is not None
        self._count_samples()
        windows.set_total(total, self._second - self._second % FINEST)
        count = total.count + total.not_finite
        # The first total of a series shows lost samples only in a resync or after a reconnect.
        known = self._connection >= 0 or self._view._lost_at > -math.inf
        # With a lower one, the series has begun again.
        if known and count not in (0, self.value):
            windows.lost_at = self._second
        self._set_total(count, connection)

    def _count_samples(self) -> None:
        pending = self._pending
        if pending and self._windows is not None:
            self._windows.add(pending)
            self._events += len(pending)
            self._value += len(pending)
            pending.clear()

    def _continue_from(self, total: int | float, windows: Windows | None) -> None:
        """Start with a total, and the distribution of a histogram, from before C{clear}."""
        self._value = total
        self._windows = windows
        if self.key.kind is not MetricKind.GAUGE:
            self._base = total

    def _reset(self, second: int) -> None:
        """Discard the state of the program's previous run, but keep the history for charts."""
        if second != self._second:
            self._advance(second)
        if self.key.kind is not MetricKind.GAUGE:
            self._base -= self.value
        self._value = INITIAL_TOTAL[self.key.kind]
        self._events = 0
        self._connection = -1
        self._set_at = second
        self._pending.clear()
        if self._windows is not None:
            self._windows = Windows(self._view._samples, second)


def samples_of(series: SeriesView, window: float | None, now: float) -> Samples | None:
    """
    Return the samples of a histogram in a window; None for counters and gauges.  See
    `SeriesView.summary`.
    """
    windows = series._windows
    if windows is None:
        return None
    series._count_samples()
    samples = windows.samples(window, now, series._second - series._second % FINEST)
    view = series._view
    lost_at = -math.inf if window is None else windows.lost_at
    if view._lost_at >= windows.since:
        # It is unknown of which series the events were.
        lost_at = max(lost_at, view._lost_at)
    samples.partial = lost_at > -math.inf and (window is None or covers(window, now, lost_at))
    return samples


def values_of(many: Iterable[SeriesView]) -> list[int | float]:
    """Return C{value} of many series, in less time than the property takes."""
    return [one._value + len(one._pending) for one in many]


def intervals_of(series: SeriesView, after: int, now: float) -> list[tuple[int, Samples]]:
    """
    Return the first second and the samples of the recent intervals of a histogram, oldest first:
    of `FINEST` seconds each, and over by now.  The caller must not change the samples.

    @param after: return those that start later than this second, by the view's clock.
    @param now: the time by the view's clock.
    """
    windows = series._windows
    if windows is None:
        return []
    second = math.floor(now)
    if second > series._second:
        series._advance(second)
    return windows.closed(after)


class SeriesObserver(Protocol):
    """
    Is notified when series of a view begin and end.  It must not change the view.
    """

    def added(self, series: SeriesView) -> None:
        """Handle a new series, or one that has begun again after a restart."""

    def removed(self, series: SeriesView) -> None:
        """Handle the end of a series."""

    def cleared(self) -> None:
        """Handle the end of all series."""

    def described(self, metadata: Metadata) -> None:
        """Handle a new description."""

    def rebased(self, series: SeriesView) -> None:
        """Handle a change of C{base} of a counter or histogram."""

    def resynced(self, series: SeriesView, amount: int | float, since: int) -> None:
        """
        Handle an increase that a total has shown on the same connection.

        @param amount: the increase.
        @param since: the second of the last exact total, by the view's clock.
        """


class SourceView:
    """
    The state of one stream.  Pass it all events of each connection, in order.

    With this library's exporter, totals equal the program's once all sent events are ingested.  A
    Rust server sends no totals, so totals only include the received events.

    Not thread-safe: use it from one thread.

        >>> from txmetrics_tcp.testing import capture
        >>> from txmetrics_tcp import counter
        >>> view = SourceView()
        >>> with capture() as captured:
        ...     counter("requests", route="/").increment(2)
        >>> view.ingest(captured.events)
        >>> [(str(key), series.value) for key, series in view.series.items()]
        [('requests [route = /]', 2)]

    @ivar series: the series by key, in the order of their first events.  `Gone` and the end of a
        complete snapshot remove series.
    @ivar gone: the number of series removed in this way.
    @ivar status: the last stream status; None if the server has sent none.
    @ivar restarts: the number of detected restarts of the server.  A restart removes all series.
    @ivar restarted_at: when the last restart was detected, by the clock; None without restarts.
    @ivar missed_incoming: the number of events that the server dropped on its incoming side, over
        all connections.
    @ivar missed_client: the number of events that the server dropped because this client was too
        slow, over all connections.
    @ivar events: the number of received metric events.
    @ivar refused: the number of events and descriptions ignored because of too many series, or of
        too much text in them.
    @ivar unknown: the number of `Unknown` events.
    @ivar since: when the view was created or last cleared, by the clock.
    @ivar observer: is notified of series that begin and end; None by default.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        max_series: int = MAX_SERIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """
        @param clock: returns the time in seconds.  `ingest` calls it once.
        @param max_series: the maximum number of series, and of descriptions.  Events of further
            series are counted and ignored.
        @param max_bytes: the maximum size of the names, labels and descriptions in memory, in
            bytes; by default 128 MiB.  Events of series that exceed it are counted and ignored.
        @raise TypeError: C{max_series} or C{max_bytes} is not a whole number.
        @raise ValueError: C{max_series} or C{max_bytes} is negative.
        """
        self._clock = clock
        self._max_series = at_least(0, "max_series", max_series)
        # Charged for each description, and for each key in `series`, `_previous_run` or `_cleared`,
        # which have no key in common.
        self._text = Budget(at_least(0, "max_bytes", max_bytes))
        self._samples = Budget(SAMPLE_BYTES)
        # The number of events since no samples were pending.
        self._uncounted = 0
        self.series: dict[Key, SeriesView] = {}
        self.gone: int = 0
        self.status: Status | None = None
        self.restarts: int = 0
        self.restarted_at: float | None = None
        self.missed_incoming: int = 0
        self.missed_client: int = 0
        self.events: int = 0
        self.refused: int = 0
        self.unknown: int = 0
        self.since: float = clock()
        self.observer: SeriesObserver | None = None
        self._descriptions = Descriptions(self._text)
        self._connection = 0
        # The dropped events of previous connections.
        self._missed_before = (0, 0)
        # Series by the id() of keys, a much faster lookup than by value: a decoder returns few
        # objects for the same key.
        self._by_identity: dict[int, SeriesView] = {}
        self._identified_bytes = 0
        # Series of the program's previous run.  They keep their history if they appear again.
        self._previous_run: dict[Key, SeriesView] = {}
        # Totals at the time of `clear`, with the distributions of histograms.
        self._cleared: dict[Key, tuple[int | float, Windows | None]] = {}
        # The second in which a status last reported further dropped events or another connection,
        # if no totals of histograms have made up for them.
        self._lost_at = -math.inf
        # Within a complete snapshot, the series that it has set.
        self._set: set[Key] | None = None

    def ingest(self, events: Iterable[Event]) -> None:
        """
        Apply the next events.

        @raise Exception: the iteration over the events raised it.  Earlier events are applied.
        """
        now = self._clock()
        second = math.floor(now)
        series_of = self._by_identity.get
        ingested = 0
        try:
            for event in events:
                if type(event) is not Metric:
                    self._ingest_other(event, now)
                    continue
                ingested += 1
                key, operation, value, timestamp_ns = event
                series = series_of(id(key))
                if series is None:
                    series = self._find(key, operation, value, second)
                    if series is None:
                        continue
                if series._second != second:
                    series._advance(second)
                series.updated = now
                series.timestamp_ns = timestamp_ns
                # `APPLY`, inlined because a viewer spends most of its time here.
                if operation is _INCREMENT_COUNTER:
                    series._events += 1
                    total = series._value + value
                    if total > U64_MAX:
                        total -= U64_MAX + 1
                        series._base -= U64_MAX + 1
                        if self.observer is not None:
                            self.observer.rebased(series)
                    series._value = total
                elif operation is _RECORD_HISTOGRAM:
                    series._pending.append(value)
                else:
                    series._events += 1
                    if operation is _SET_GAUGE:
                        series._value = value
                    elif operation is _INCREMENT_GAUGE:
                        series._value += value
                    elif operation is _DECREMENT_GAUGE:
                        series._value -= value
                    else:
                        series._set_total(value, self._connection)  # type: ignore[arg-type]
                if series._watched is not None:
                    series._watched.append((timestamp_ns, operation, value))
        finally:
            self.events += ingested
            self._uncounted += ingested
            if self._uncounted > MAX_PENDING:
                self._uncounted = 0
                for series in self.series.values():
                    series._count_samples()

    def connected(self) -> None:
        """
        Start a new connection.

        Its counts of dropped events start at zero, and its first totals do not count as changes.
        """
        self._connection += 1
        self._set = None
        self._missed_before = (self.missed_incoming, self.missed_client)

    def description(self, key: Key) -> Metadata | None:
        """Return the description of all series of this kind and name, or None."""
        return self._descriptions.get((key.kind, key.name))

    def descriptions(self) -> list[Metadata]:
        """Return all descriptions."""
        return list(self._descriptions.values())

    def clear(self) -> None:
        """
        Remove all series and reset the counts of events, dropped events, gone series and restarts.

        Totals continue: a counter or histogram appears again with its next event and its full total
        or distribution.
        """
        for key, series in self.series.items():
            series._count_samples()
            if series._windows is not None:
                series._windows.clear()
            self._cleared[key] = series.value, series._windows
        self._forget_series()
        self._empty(self._previous_run)
        self._set = None
        self.restarts = 0
        self.restarted_at = None
        self._missed_before = (
            self._missed_before[0] - self.missed_incoming,
            self._missed_before[1] - self.missed_client,
        )
        self.missed_incoming = self.missed_client = 0
        self.events = self.refused = self.unknown = self.gone = 0
        self.since = self._clock()

    def _forget_series(self) -> None:
        self._forget_identities()
        self.series.clear()
        if self.observer is not None:
            self.observer.cleared()

    def _forget_identities(self) -> None:
        for series in self._by_identity.values():
            series._identified.clear()
        self._by_identity.clear()
        self._identified_bytes = 0

    def _empty(self, store: dict[Key, Any]) -> None:
        """Clear `_previous_run` or `_cleared`."""
        self._text.give_back(sum(map(key_size, store)))
        store.clear()

    def _admits(self, key: Key, size: int) -> bool:
        """Whether there is room for the text of a series that is not in the view."""
        if key in self._cleared or self._text.take(size):
            return True
        self._empty(self._previous_run)
        return self._text.take(size)

    def _find(
        self, key: Key, operation: Operation, value: int | float, second: int
    ) -> SeriesView | None:
        """Find or create the series of a new key object; return None if there are too many."""
        series = self.series.get(key)
        if series is None:
            series = self._begin(key, second)
            if series is None:
                return None
            if operation is _INCREMENT_COUNTER or operation is _RECORD_HISTOGRAM:
                # The series has just started, so its total is exact.
                series._connection = self._connection
            elif key.kind is MetricKind.GAUGE:
                series._base = value if operation is _SET_GAUGE else series.value
        if self._identified_bytes > 2 * self._text.used + SPARE:
            # The decoder does not reuse key objects.
            self._forget_identities()
        self._identified_bytes += series._size
        self._by_identity[id(key)] = series
        series._identified.append(key)
        if self._set is not None:
            self._set.add(series.key)
        return series

    def _begin(self, key: Key, second: int) -> SeriesView | None:
        """Create a series; return None if there are too many."""
        if len(self.series) >= self._max_series:
            self.refused += 1
            return None
        series = self._previous_run.pop(key, None)
        if series is None:
            size = key_size(key)
            if not self._admits(key, size):
                self.refused += 1
                return None
            series = SeriesView(key, self, second, size)
            if key in self._cleared:
                series._continue_from(*self._cleared.pop(key))
                series._connection = self._connection
        self.series[key] = series
        if self.observer is not None:
            self.observer.added(series)
        return series

    def _ingest_other(self, event: Event, now: float) -> None:
        if isinstance(event, Status):
            self._ingest_status(event, now)
        elif isinstance(event, HistogramTotal):
            self._ingest_total(event, now)
        elif isinstance(event, Unknown):
            self.unknown += 1
        elif isinstance(event, Metadata):
            known = (event.kind, event.name) in self._descriptions
            admitted = known or len(self._descriptions) < self._max_series
            if not (admitted and self._descriptions.put(event)):
                self.refused += 1
            elif self.observer is not None:
                self.observer.described(event)
        elif isinstance(event, Gone):
            self._remove(event.key)
        elif isinstance(event, Snapshot):
            self._ingest_boundary(event)

    def _ingest_total(self, event: HistogramTotal, now: float) -> None:
        self.events += 1
        second = math.floor(now)
        key = event.key
        series = self.series.get(key) or self._begin(key, second)
        if series is None:
            return
        if self._set is not None:
            self._set.add(series.key)
        if series._second != second:
            series._advance(second)
        series._events += 1
        series.updated = now
        series.timestamp_ns = event.timestamp_ns
        series._set_distribution(event.distribution, self._connection)

    def _ingest_boundary(self, boundary: Snapshot) -> None:
        complete, self._set = self._set, None
        if boundary is Snapshot.BEGIN_COMPLETE:
            self._set = set()
            # The next event of each series calls `_find`.
            self._forget_identities()
        elif boundary is Snapshot.END:
            version = 0 if self.status is None else self.status.protocol_version
            with_histograms = version >= HISTOGRAM_TOTALS
            if with_histograms:
                self._lost_at = -math.inf
            if complete is not None:
                # The snapshot has set no series that is still in `_cleared`.
                for key in [*self.series.keys() - complete, *self._cleared]:
                    if with_histograms or key.kind is not MetricKind.HISTOGRAM:
                        self._remove(key)

    def _remove(self, key: Key) -> None:
        if not any(key in store for store in (self.series, self._previous_run, self._cleared)):
            return
        size = key_size(key)
        self._text.give_back(size)
        self._cleared.pop(key, None)
        self._previous_run.pop(key, None)
        series = self.series.pop(key, None)
        if series is not None:
            self.gone += 1
            self._identified_bytes -= size * len(series._identified)
            for identified in series._identified:
                del self._by_identity[id(identified)]
            if self.observer is not None:
                self.observer.removed(series)

    def _ingest_status(self, event: Status, now: float) -> None:
        before, self.status = self.status, event
        missed = self.missed_incoming + self.missed_client
        reconnected = False
        if before is not None and before.started_ns != event.started_ns:
            self._restarted(now)
        elif not (event.dropped_incoming or event.dropped_client):
            # A status without drops is the first one of a connection.  The caller may not have
            # called `connected`.
            self.connected()
            reconnected = before is not None
        incoming, client = self._missed_before
        self.missed_incoming = incoming + event.dropped_incoming
        self.missed_client = client + event.dropped_client
        # The first status may report what was dropped before the view was created.
        lost = before is not None and self.missed_incoming + self.missed_client > missed
        if lost or reconnected:
            self._lost_at = math.floor(now)

    def _restarted(self, now: float) -> None:
        self.connected()
        self.restarts += 1
        self.restarted_at = now
        self._lost_at = -math.inf
        self._empty(self._previous_run)
        self._previous_run = dict(self.series)
        for series in self._previous_run.values():
            series._reset(math.floor(now))
        self._forget_series()
        self._empty(self._cleared)


_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_INCREMENT_GAUGE = Operation.INCREMENT_GAUGE
_DECREMENT_GAUGE = Operation.DECREMENT_GAUGE
_SET_GAUGE = Operation.SET_GAUGE
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM
