"""
What a consumer knows: events ingested into totals, values, rates and distributions.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from txmetrics_tcp._model import (
    INITIAL_TOTAL,
    U64_MAX,
    Event,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Status,
)
from txmetrics_tcp._view.rates import MIN_WATCHED, RATE_WINDOW, SECONDS, Increases, Values
from txmetrics_tcp._view.sketch import FINEST, Summary, Windows

MAX_SERIES = 100_000
"""How many series a view has unless told otherwise, whatever a peer sends."""

RECENT = 20
"""How many events of a series that is watched are kept."""

CHUNK = 1024
"""How many samples wait at most before they are counted."""

Happened = tuple[int, Operation, int | float]
"""When something was recorded (nanoseconds since the epoch), what, and with which value."""


class SeriesView:
    """
    What is known of one series.  Made by `SourceView`, and changing with each `SourceView.ingest`.

    @ivar key: the series.
    @ivar events: how many events of it have come.
    @ivar updated: when the last of them came, by the view's clock.
    @ivar timestamp_ns: when the last of them was recorded, in nanoseconds since the epoch.
    @ivar value: the total of a counter, the value of a gauge, the number of samples of a histogram.
    """

    __slots__ = (
        "_base",
        "_connection",
        "_history",
        "_mark",
        "_pending",
        "_second",
        "_set_at",
        "_spread",
        "_view",
        "_watched",
        "_windows",
        "events",
        "key",
        "timestamp_ns",
        "updated",
        "value",
    )

    def __init__(self, key: Key, view: SourceView, second: int) -> None:
        self.key = key
        self.events = 0
        self.updated = -math.inf
        self.timestamp_ns = 0
        self.value = INITIAL_TOTAL[key.kind]
        self._view = view
        self._watched: deque[Happened] | None = None
        # The second of the last event; what happens in it is added up when the next begins.
        self._second = second
        self._history: Increases | Values
        if key.kind is MetricKind.GAUGE:
            self._history = Values(second)
        else:
            self._history = Increases(second)
        # The increase of a total is its value less the base.  At the beginning of the second it
        # was the mark.  What was spread over earlier seconds comes on top.  The base of a gauge is
        # its first value.
        self._base: int | float = 0
        self._mark: int | float = 0
        self._spread = 0
        # The connection in which the total was last known to be true, and the second.
        self._connection = -1
        self._set_at = second
        self._pending: list[float] = []
        self._windows = Windows() if key.kind is MetricKind.HISTOGRAM else None

    def __repr__(self) -> str:
        return f"<SeriesView {self.key.kind.value} {self.key}: {self.value!r}>"

    @property
    def recent(self) -> deque[Happened]:
        """The last events, oldest first, as far as they came after `watch` was called."""
        return deque() if self._watched is None else self._watched

    def watch(self, watched: bool = True) -> None:
        """Keep the last events from now on, for `recent`; or keep them no longer."""
        if not watched:
            self._watched = None
        elif self._watched is None:
            self._watched = deque(maxlen=RECENT)

    @property
    def change(self) -> int | float:
        """
        By how much it has changed since it was first seen, as far as that counts for `rate`.
        """
        return self.value - self._base + self._spread

    def rate(self, now: float) -> float:
        """
        The change per second over the last ten seconds, or since watching began if that is less.

        Of a counter's total, of the number of a histogram's samples, of a gauge's value.  What a
        counter had when it was first seen, and what it has after another connection was made, is no
        change; nor is what it falls to.  What it is set to otherwise has come about since it was
        set before, and is spread over that time.

        @param now: the time, by the view's clock.
        @return: NaN for a gauge that is, or was ten seconds ago, infinite or NaN.
        """
        second = math.floor(now)
        first = second - RATE_WINDOW + 1
        history = self._history
        if isinstance(history, Values):
            # The value of the second before, and all from then on: the first that is known.
            then = next(
                (
                    value
                    for value in history.between(first - 1, second + 1, self.value)
                    if value == value
                ),
                math.nan,
            )
            change = self.value - then
            if not math.isfinite(change):
                return math.nan
        else:
            change = sum(history.between(first, second + 1))
            if first <= self._second <= second:
                change += self.value - self._base - self._mark
        watched = min(now - first, now - self._view.since)
        return change / max(watched, MIN_WATCHED)

    def history(self, now: float, seconds: int = 60) -> list[float]:
        """
        One number for each of the last seconds that are complete, oldest first.

        For counters and histograms it is the increase in that second, for gauges the value at its
        end; NaN where a gauge was not known yet.

        @param now: the time, by the view's clock.
        @param seconds: how many, up to 60.
        """
        behind = math.floor(now)
        first = behind - min(seconds, SECONDS - 4)
        history = self._history
        if isinstance(history, Values):
            return history.between(first, behind, self.value if self.events else math.nan)
        increases = history.between(first, behind)
        if first <= self._second < behind:
            increases[self._second - first] += self.value - self._base - self._mark
        return increases

    def summary(self, window: float | None = None, now: float | None = None) -> Summary | None:
        """
        What the samples of a histogram are like.

        @param window: only those of so many last seconds, up to 300, and of up to a fifth more;
            None for all samples ever.
        @param now: the time, by the view's clock; the last event's unless given.
        @return: None for counters and gauges.
        """
        windows = self._windows
        if windows is None:
            return None
        self._count_samples()
        if now is None:
            now = self.updated
        return windows.summary(window, now, self._second - self._second % FINEST)

    # What the view calls.

    def _turn(self, second: int) -> None:
        """The next event is in another second than the last."""
        history = self._history
        windows = self._windows
        if isinstance(history, Values):
            history.turn(second, self.value if self.events else math.nan)
        else:
            risen = self.value - self._base
            history.turn(second, risen - self._mark)
            self._mark = risen
        if windows is not None and second // FINEST != self._second // FINEST:
            self._count_samples()
            windows.close(self._second - self._second % FINEST)
        self._second = second

    def _set_total(self, total: int, connection: int) -> None:
        """A counter's total is said, rather than what was added to it."""
        risen = total - self.value
        if self._connection == connection and risen > 0:
            assert isinstance(self._history, Increases)
            self._history.spread(risen, self._set_at + 1)
            self._spread += risen  # type: ignore[assignment]
        self._base += risen
        self.value = total
        self._connection = connection
        self._set_at = self._second

    def _count_samples(self) -> None:
        if self._pending and self._windows is not None:
            self._windows.add(self._pending)
            self._pending.clear()

    def _continue_from(self, total: int | float) -> None:
        """It had this total before it was first seen."""
        self.value = total
        if self.key.kind is MetricKind.COUNTER:
            self._base = total

    def _begin_anew(self, second: int) -> None:
        """Forget what another run of the program had; not what a chart shows of it."""
        if second != self._second:
            self._turn(second)
        if self.key.kind is not MetricKind.GAUGE:
            self._base -= self.value
        self.value = INITIAL_TOTAL[self.key.kind]
        self.events = 0
        self._connection = -1
        self._set_at = second
        self._pending.clear()
        if self._windows is not None:
            self._windows = Windows()


class SourceView:
    """
    What one stream has told: feed it with the events of a connection, in their order.

    With a server of ours, totals are those of the program whenever all that was sent has been
    ingested.  A server of the Rust family says no totals: they are of what was seen.

    It belongs to one thread.

        >>> from txmetrics_tcp.testing import capture
        >>> from txmetrics_tcp import counter
        >>> view = SourceView()
        >>> with capture() as captured:
        ...     counter("requests", route="/").increment(2)
        >>> view.ingest(captured.events)
        >>> [(str(key), series.value) for key, series in view.series.items()]
        [('requests [route = /]', 2)]

    @ivar series: by key, in the order in which they came.
    @ivar status: how the stream fares, as it said last; None if it never did.
    @ivar restarts: how often the server turned out to be another one than before.  The series of
        the one before are gone then.
    @ivar restarted_at: when that was the last time, by the clock.
    @ivar missed_incoming: how many events were missed on the server's incoming side, over all
        connections.
    @ivar missed_client: how many were missed because we were too slow for the server, likewise.
    @ivar events: how many events of metrics have come.
    @ivar refused: how many events, and descriptions, were left out because of too many series.
    @ivar since: from when on it was watched, by the clock.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_series: int = MAX_SERIES
    ) -> None:
        """
        @param clock: the time in seconds.  It is asked once for each call of `ingest`.
        @param max_series: how many series it knows at most, and how many descriptions.  The
            events of others are counted and left out.
        """
        self._clock = clock
        self._max_series = max_series
        self.series: dict[Key, SeriesView] = {}
        self.status: Status | None = None
        self.restarts = 0
        self.restarted_at: float | None = None
        self.missed_incoming = 0
        self.missed_client = 0
        self.events = 0
        self.refused = 0
        self.since = clock()
        self._descriptions: dict[tuple[MetricKind, str], Metadata] = {}
        self._connection = 0
        # What was missed in connections before.
        self._missed_before = (0, 0)
        # Series by the identity of keys, which is much quicker than by their value: a decoder has
        # few objects for the same key.  The keys are held, so that no other gets their identity.
        self._by_identity: dict[int, SeriesView] = {}
        self._identified: list[Key] = []
        # Series of the run before, which keep their charts if they are seen again.
        self._former: dict[Key, SeriesView] = {}
        # Totals from before `clear`.
        self._cleared: dict[Key, int | float] = {}

    def ingest(self, events: Iterable[Event]) -> None:
        """
        Take the next events.

        @raise Exception: what iterating over them raises; those before are taken.
        """
        now = self._clock()
        second = math.floor(now)
        series_of = self._by_identity.get
        ingested = 0
        try:
            for event in events:
                if type(event) is not Metric:
                    self._take_other(event, now)  # type: ignore[arg-type]
                    continue
                ingested += 1
                key, operation, value, timestamp_ns = event
                series = series_of(id(key))
                if series is None:
                    series = self._find(event, second)
                    if series is None:
                        continue
                if series._second != second:
                    series._turn(second)
                series.events += 1
                series.updated = now
                series.timestamp_ns = timestamp_ns
                # What `APPLY` does, written out: this is where a viewer spends its time.
                if operation is _INCREMENT_COUNTER:
                    total = series.value + value
                    if total > U64_MAX:
                        total -= U64_MAX + 1
                        series._base -= U64_MAX + 1
                    series.value = total
                elif operation is _RECORD_HISTOGRAM:
                    series.value += 1
                    pending = series._pending
                    pending.append(value)
                    if len(pending) >= CHUNK:
                        series._count_samples()
                elif operation is _SET_GAUGE:
                    series.value = value
                elif operation is _INCREMENT_GAUGE:
                    series.value += value
                elif operation is _DECREMENT_GAUGE:
                    series.value -= value
                else:
                    series._set_total(value, self._connection)  # type: ignore[arg-type]
                if series._watched is not None:
                    series._watched.append((timestamp_ns, operation, value))
        finally:
            self.events += ingested

    def connected(self) -> None:
        """
        A new connection begins.

        What it says of losses begins at zero.  The totals that it says first are not what has
        happened just now.
        """
        self._connection += 1
        self._missed_before = (self.missed_incoming, self.missed_client)

    def description(self, key: Key) -> Metadata | None:
        """What was said about all series of that kind and name, if anything was."""
        return self._descriptions.get((key.kind, key.name))

    def clear(self) -> None:
        """
        Forget all that was seen, and count anew what is missed.

        Totals go on where they were: a counter comes back with its next event, and with the total
        that it has.
        """
        for key, series in self.series.items():
            if key.kind is not MetricKind.HISTOGRAM:
                self._cleared[key] = series.value
        self._forget_series()
        self._former = {}
        self.restarts = 0
        self.restarted_at = None
        self._missed_before = (
            self._missed_before[0] - self.missed_incoming,
            self._missed_before[1] - self.missed_client,
        )
        self.missed_incoming = self.missed_client = 0
        self.events = self.refused = 0
        self.since = self._clock()

    def _forget_series(self) -> None:
        self.series.clear()
        self._by_identity.clear()
        self._identified.clear()

    def _find(self, event: Metric, second: int) -> SeriesView | None:
        """The series of a key that is not known by identity; None if there is no room for it."""
        key, operation, value, _timestamp_ns = event
        series = self.series.get(key)
        if series is None:
            if len(self.series) >= self._max_series:
                self.refused += 1
                return None
            series = self._former.pop(key, None)
            if series is None:
                series = SeriesView(key, self, second)
                if key in self._cleared:
                    series._continue_from(self._cleared.pop(key))
                    series._connection = self._connection
            if operation is _INCREMENT_COUNTER:
                # It has just begun, and so its total is known.
                series._connection = self._connection
            elif key.kind is MetricKind.GAUGE:
                series._base = value if operation is _SET_GAUGE else series.value
            self.series[key] = series
        if len(self._identified) > 4 * len(self.series) + 1000:
            # Nobody sends the same objects again.
            self._by_identity.clear()
            self._identified.clear()
        self._by_identity[id(key)] = series
        self._identified.append(key)
        return series

    def _take_other(self, event: Metadata | Status, now: float) -> None:
        if isinstance(event, Metadata):
            name = event.kind, event.name
            if name in self._descriptions or len(self._descriptions) < self._max_series:
                self._descriptions[name] = event
            else:
                self.refused += 1
            return
        before, self.status = self.status, event
        if before is not None and before.started_ns != event.started_ns:
            self._restarted(now)
        elif not (event.dropped_incoming or event.dropped_client):
            # So it only is at the beginning, also if nobody says so.
            self.connected()
        incoming, client = self._missed_before
        self.missed_incoming = incoming + event.dropped_incoming
        self.missed_client = client + event.dropped_client

    def _restarted(self, now: float) -> None:
        self.connected()
        self.restarts += 1
        self.restarted_at = now
        self._former = dict(self.series)
        for series in self._former.values():
            series._begin_anew(math.floor(now))
        self._forget_series()
        self._cleared.clear()


_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_INCREMENT_GAUGE = Operation.INCREMENT_GAUGE
_DECREMENT_GAUGE = Operation.DECREMENT_GAUGE
_SET_GAUGE = Operation.SET_GAUGE
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM
