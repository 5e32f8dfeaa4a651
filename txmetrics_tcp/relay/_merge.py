"""
The rules by which a collector merges the streams of many sources into one recorder.

A *source* is one run of a program: a name and a start time.  For each of its series, the merger
keeps a *part*: ``last``, the total of the series at the source as far as it is known here.

 - An increment, and a sample of a histogram, passes and changes ``last``.
 - A new total of a counter or a histogram becomes the difference to ``last``, which is what was
   dropped upstream.  A total that is lower than ``last`` has begun again at zero.
 - A gauge changes its part, and the sum is computed again from the parts of living sources.

Therefore the sums are exact after each snapshot, whatever was dropped before.  They cannot be if a
series has begun again, nothing that shows it has arrived, and its total is at least as high as
before.

What a dead source has counted stays in the sums.  Its gauges, and its series by instance, do not.

No I/O.  Not thread-safe: use a merger and its sources from one thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Protocol

from txmetrics_tcp._checks import at_least
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._exporter.totals import OWN_PREFIX
from txmetrics_tcp._instruments.sink import Series
from txmetrics_tcp._model import (
    HISTOGRAM_TOTALS,
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
    Unit,
    Unknown,
)
from txmetrics_tcp._view.memory import BUCKET_BYTES, CACHE_BYTES, Budget, Descriptions, key_size

Merge = Literal["sum", "each", "both"]
"""What a merger records: sums, the series of each source with its instance as a label, or both."""

Gauges = Literal["sum", "max", "min", "last"]
"""How the value of a gauge is computed from its parts; see `AGGREGATES`."""

COLLECTOR_INFO: Final = OWN_PREFIX + "collector_info"
"""
The gauge that a collector records about itself, with its identity as the label C{id}.  Unlike other
metrics with `OWN_PREFIX`, it is part of sums, so that it passes through any chain of collectors.
"""

MAX_SERIES: Final = 10_000
"""The default limit of series for each source."""

MAX_AGE: Final = 24 * 3600 * 10**9
MAX_AHEAD: Final = 60 * 10**9
"""
The limits, in nanoseconds, between the time of an event and the merger's clock.  An event outside
of them gets the time of the clock.
"""

MAX_SAMPLES: Final = 256
"""
The maximum number of samples of a part that are not in its ``last`` yet.  Adding them takes two
microseconds, and a tenth for each sample.
"""

MAX_IDENTITIES: Final = 4
"""The maximum number of keys by whose id() a part is found."""

MAX_IDENTIFIED: Final = 4096
"""The size of the largest key that is found by its id().  Decoders do not reuse larger ones."""

ENDED_BYTES: Final = CACHE_BYTES
"""The limit of what is kept of dead sources, in bytes; see `Source.dead`."""

HISTOGRAM_BYTES: Final = 4 * CACHE_BYTES
"""The limit of the buckets of the histograms of a source, in bytes."""

_PART_BYTES: Final = 300
"""The approximate size of one number that is kept of a dead source, in bytes."""


class LoopError(Exception):
    """A source's stream contains what this collector itself has recorded."""


class AlreadyConnectedError(Exception):
    """The same run of a program is connected already."""


class Target(Protocol):
    """The methods of `txmetrics_tcp.TcpRecorder` that a merger calls."""

    def attach(self, key: Key) -> Series: ...

    def ingest(self, entries: Iterable[tuple[Series, Operation, Any, int]]) -> None: ...

    def forget(self, key: Key) -> None: ...

    def describe(self, metadata: Metadata) -> None: ...


class _Total:
    """
    A series of the sum.

    @ivar parts: the number of parts of living sources.
    @ivar values: of a gauge, the value of each part, the one that changed last at the end.
    """

    __slots__ = ("key", "parts", "series", "values")

    def __init__(self, key: Key, series: Series) -> None:
        self.key = key
        self.series = series
        self.parts = 0
        self.values: dict[_Part, float] = {}


class _Part:
    """
    A series of a source.

    @ivar last: the total at the source as far as it is known; of a counter, before wrapping; of a
        histogram, without `samples`.
    @ivar total: the series of the sum that the part belongs to, or None.
    @ivar passed: of counters and histograms, the series in C{total}, which events pass to.
    @ivar each: the series with the label of the instance, or None.
    @ivar begun: the number of the last snapshot that had begun before the part did.
    @ivar size: the size of the key.
    @ivar buckets: the number of buckets that the source has been charged for.
    @ivar identities: the equal keys by whose id() the source finds the part.  The list keeps them,
        so that no id is reused.
    """

    __slots__ = (
        "begun",
        "buckets",
        "each",
        "identities",
        "last",
        "passed",
        "samples",
        "size",
        "total",
    )

    def __init__(
        self, last: Any, total: _Total | None, each: Series | None, begun: int, size: int
    ) -> None:
        self.last = last
        self.samples: list[float] = []
        self.total = total
        self.passed: Series | None = None
        self.each = each
        self.begun = begun
        self.size = size
        self.buckets = 0
        self.identities: list[Key] = []

    def add_samples(self) -> None:
        """Add the samples to `last`."""
        self.last, self.samples = self.last.with_samples(self.samples), []


_INITIAL: dict[MetricKind, Any] = {
    MetricKind.COUNTER: 0,
    MetricKind.GAUGE: 0.0,
    MetricKind.HISTOGRAM: Distribution.EMPTY,
}


class Source:
    """
    A source, and its connection.  Made by `Merger.open`.

    @ivar name: the name of the instance, which no other living source has.
    @ivar started_ns: when the program started, in nanoseconds since the epoch; None if the server
        sends no status.
    @ivar connected: whether the connection is open.
    @ivar closed: whether the source is dead, or its program has connected again.  Events are then
        ignored.
    @ivar events: the number of received metric events.
    @ivar refused: the number of events and descriptions ignored because of too many series, of too
        much text in them, or of names and labels that are not valid.
    @ivar retimed: the number of events whose time was beyond the limits.
    @ivar unknown: the number of `Unknown` events.
    @ivar restarts: the number of restarts without a new connection; see `ingest`.
    @ivar missed_incoming: the number of events that the program dropped on its incoming side, over
        all connections.
    @ivar missed_client: the number of events that the program dropped because the collector was too
        slow, over all connections.
    """

    __slots__ = (
        "_buckets",
        "_by_identity",
        "_held",
        "_held_changed",
        "_in_snapshot",
        "_merger",
        "_missed_before",
        "_parts",
        "_program",
        "_remembered",
        "_set",
        "_snapshots",
        "_text",
        "_version",
        "closed",
        "connected",
        "events",
        "missed_client",
        "missed_incoming",
        "name",
        "refused",
        "restarts",
        "retimed",
        "started_ns",
        "unknown",
    )

    def __init__(
        self, merger: Merger, program: str, name: str, started_ns: int | None, text: Budget
    ) -> None:
        """Private: see `Merger.open`."""
        self.name: str = name
        self.started_ns: int | None = started_ns
        self.connected: bool = True
        self.closed: bool = False
        self.events: int = 0
        self.refused: int = 0
        self.retimed: int = 0
        self.unknown: int = 0
        self.restarts: int = 0
        self.missed_incoming: int = 0
        self.missed_client: int = 0
        self._merger = merger
        # The name that the program gives itself.
        self._program = program
        self._parts: dict[Key, _Part] = {}
        # Parts by the id() of keys, a much faster look-up than by value: a decoder returns few
        # objects for the same key.
        self._by_identity: dict[int, _Part] = {}
        # Charged for the key of each part.
        self._text = text
        # `last` of series from before the source was declared dead, by their keys in the sum.
        self._remembered: _Counted = {}
        # Charged for the buckets of each histogram.
        self._buckets = Budget(HISTOGRAM_BYTES)
        # Until the first complete snapshot ends, what it changes: not recorded if it is this
        # collector's own.
        self._held: list[_Entry] | None = None
        self._held_changed: dict[_Part, int] = {}
        self._missed_before = (0, 0)
        self._version = 0
        self._snapshots = 0
        self._in_snapshot = False
        # Within a complete snapshot, the parts that it has set.
        self._set: set[_Part] | None = None

    def __repr__(self) -> str:
        return f"<Source {self.name!r}: {len(self._parts)} series>"

    @property
    def series(self) -> int:
        """The number of series of the source."""
        return len(self._parts)

    def ingest(self, events: Iterable[Event]) -> None:
        """
        Merge the next events of the connection, all of them and in order, as the decoder returns
        them.

        They are recorded together: at the end, or with a merger that gathers, by `Merger.flush`.  A
        gauge of the sum has one event each time, with its last value; all other events are recorded
        one by one.

        A status with another start time is a restart: all series begin again at zero, as if the
        source were dead and replaced.

        The first complete snapshot is recorded once it has ended.

        @raise LoopError: a series shows that the stream is this collector's own.  The events
            before it are recorded, except those of the first complete snapshot.  The source is
            dead.
        """
        if self.closed:
            return
        merger = self._merger
        if self._held is not None:
            # Only this source's changes are held.
            merger.flush()
        now = merger._clock()
        earliest, latest = now - MAX_AGE, now + MAX_AHEAD
        part_of = self._by_identity.get
        changed = merger._changed
        add = merger._entries.append
        ingested = 0
        try:
            for event in events:
                if type(event) is not Metric:
                    self._ingest_other(event, now)
                    add = merger._entries.append
                    continue
                ingested += 1
                key, operation, value, stamp = event
                part = part_of(id(key)) or self._identify(key, now)
                if part is None:
                    continue
                if stamp is None:
                    stamp = now
                elif not earliest <= stamp <= latest:
                    self.retimed += 1
                    stamp = now
                if self._set is not None:
                    self._set.add(part)
                if operation is _INCREMENT_COUNTER:
                    part.last += value
                elif operation is _RECORD_HISTOGRAM:
                    part.samples.append(value)
                    if len(part.samples) >= MAX_SAMPLES:
                        part.add_samples()
                else:
                    if (
                        self._in_snapshot
                        and value == part.last
                        and part.begun < self._snapshots
                        and operation in _SET
                    ):
                        continue
                    if operation is _SET_COUNTER:
                        self._set_counter(part, value, stamp)  # type: ignore[arg-type]
                        continue
                    if operation is _SET_GAUGE:
                        part.last = value
                    elif operation is _INCREMENT_GAUGE:
                        part.last += value
                    else:
                        part.last -= value
                    if part.total is not None:
                        changed[part] = stamp
                if (series := part.passed) is not None:
                    add((series, operation, value, stamp))
                if (series := part.each) is not None:
                    add((series, operation, value, stamp))
        except LoopError:
            if self._held is not None:
                # Nothing of the snapshot becomes part of a sum.
                self._held = None
                merger._entries = []
                changed.clear()
                for one in self._parts.values():
                    one.passed = None
            self.dead()
            raise
        finally:
            self.events += ingested
            if self._held is not None:
                self._hold()
            elif not merger._gathers:
                merger.flush()

    def disconnected(self) -> None:
        """
        Note that the connection is closed.  The source stays alive: its gauges stay in the sums
        until it is declared `dead`, and if its program connects again, its series continue.
        """
        self._end_hold()
        self._merger.flush()
        self.connected = False
        self._in_snapshot = False
        self._set = None

    def dead(self) -> None:
        """
        Remove the source.  Its counters and histograms stay in the sums, its gauges leave them, and
        its series by instance are forgotten.

        If its program was only disconnected for long and connects again, its totals would be added
        to the sums once more.  Therefore `ENDED_BYTES` of totals of the sources that died last are
        kept.  Nothing is kept of a server without a start time.
        """
        if self.closed:
            return
        merger = self._merger
        self._close()
        merger._remove(self)
        if self.started_ns is not None and merger._sums:
            merger._ended.put((self._program, self.started_ns), self._counted())
        self._release_all(merger._clock())
        merger.flush()

    # Private.

    def _close(self) -> None:
        self.closed = True
        self.disconnected()
        self._merger._returned.pop(self, None)

    def _hold(self) -> None:
        """Keep what the events have changed until the snapshot ends."""
        assert self._held is not None
        merger = self._merger
        self._held += merger._entries
        merger._entries = []
        self._held_changed |= merger._changed
        merger._changed.clear()
        # A snapshot has each series once, and up to two entries for it.
        if len(self._held) > 2 * merger._max_series + 2:
            self._end_hold()
            merger.flush()

    def _end_hold(self) -> None:
        """Let `Merger.flush` record what is held, before anything else."""
        held, self._held = self._held, None
        if held is not None:
            merger = self._merger
            merger._entries = held + merger._entries
            merger._changed |= self._held_changed
            self._held_changed = {}

    def _counted(self) -> _Counted:
        """Return `_Part.last` of the counters and histograms that are part of a sum."""
        counted = self._remembered
        for part in self._parts.values():
            if part.passed is not None:
                if part.samples:
                    part.add_samples()
                counted[part.passed.key] = part.last
        return counted

    def _continue(self, before: Source) -> None:
        """Continue with the series of an earlier connection."""
        before._close()
        self._parts, before._parts = before._parts, {}
        self._remember(before._remembered)
        before._remembered = {}
        self._text = before._text
        self._buckets = before._buckets
        self._snapshots = before._snapshots
        for part in self._parts.values():
            # They are keys of another decoder.
            part.identities.clear()
        before._by_identity.clear()
        self.events = before.events
        self.refused = before.refused
        self.retimed = before.retimed
        self.unknown = before.unknown
        self.restarts = before.restarts
        self.missed_incoming = before.missed_incoming
        self.missed_client = before.missed_client
        self._missed_before = (self.missed_incoming, self.missed_client)

    def _remember(self, counted: _Counted) -> None:
        self._remembered = counted
        if counted:
            self._merger._returned[self] = None
        else:
            self._merger._returned.pop(self, None)

    def _find(self, key: Key, now: int) -> _Part | None:
        """Find or create the part of a key; return None if it is not merged."""
        return self._parts.get(key) or self._begin(key, now)

    def _identify(self, key: Key, now: int) -> _Part | None:
        """Find or create the part of a new key object, and find it by its id() from now on."""
        part = self._find(key, now)
        if part is not None and part.size <= MAX_IDENTIFIED:
            if len(part.identities) >= MAX_IDENTITIES:
                del self._by_identity[id(part.identities.pop(0))]
            part.identities.append(key)
            self._by_identity[id(key)] = part
        return part

    def _begin(self, key: Key, now: int) -> _Part | None:
        """
        @raise LoopError: see `ingest`.
        """
        merger = self._merger
        if _is_own(key.name):
            if not merger._by_instance:
                return None
        elif key.name == COLLECTOR_INFO and ("id", merger._collector_id) in key.labels:
            raise LoopError(f"{self.name}: it sends what this collector has recorded")
        size = key_size(key)
        try:
            if len(self._parts) >= merger._max_series:
                raise ValueError
            sum_key, each_key = merger._keys(key, self.name)
            if not self._text.take(size):
                raise ValueError
        except ValueError:
            self.refused += 1
            return None
        total = None if sum_key is None else merger._total(sum_key)
        each = None if each_key is None else merger._recorder.attach(each_key)
        before = None if sum_key is None else self._remembered.pop(sum_key, None)
        last = _INITIAL[key.kind] if before is None else before
        part = self._parts[key] = _Part(last, total, each, self._snapshots, size)
        if key.name == COLLECTOR_INFO and key.kind is MetricKind.GAUGE and total is not None:
            # Before other events, so that another collector finds it before them.
            merger._entries.append((total.series, _SET_GAUGE, 1.0, now))
        if total is not None and key.kind is not MetricKind.GAUGE:
            part.passed = total.series
        if before is not None and each is not None:
            # The sum already has it.
            if key.kind is MetricKind.COUNTER:
                merger._entries.append((each, _SET_COUNTER, before & U64_MAX, now))
            else:
                merger._entries.append((each, _RECORD_HISTOGRAM, before, now))
        return part

    def _set_counter(self, part: _Part, value: int, stamp: int) -> None:
        add = self._merger._entries.append
        rise = (value - part.last) & U64_MAX
        if rise > U64_MAX >> 1:
            # It is lower.
            rise = value
        part.last = value
        if part.passed is not None:
            add((part.passed, _INCREMENT_COUNTER, rise, stamp))
        if part.each is not None:
            add((part.each, _SET_COUNTER, value, stamp))

    def _ingest_other(self, event: Event, now: int) -> None:
        if isinstance(event, HistogramTotal):
            self._ingest_total(event, now)
        elif isinstance(event, Gone):
            self._remove(event.key, now)
        elif isinstance(event, Snapshot):
            self._ingest_boundary(event, now)
        elif isinstance(event, Status):
            self._ingest_status(event, now)
        elif isinstance(event, Metadata):
            if not self._merger._describe(event):
                self.refused += 1
        elif isinstance(event, Unknown):
            self.unknown += 1

    def _ingest_total(self, event: HistogramTotal, now: int) -> None:
        self.events += 1
        merger = self._merger
        part = self._find(event.key, now)
        if part is None:
            return
        if self._set is not None:
            self._set.add(part)
        stamp = event.timestamp_ns
        if stamp is None or not now - MAX_AGE <= stamp <= now + MAX_AHEAD:
            self.retimed += stamp is not None
            stamp = now
        if part.samples:
            part.add_samples()
        total = event.distribution
        if not self._charge(part, total.occupied):
            self.refused += 1
            return
        rise = total.minus(part.last)
        part.last = total
        if rise is None:
            # It is lower.
            rise = total
            if part.each is not None:
                merger.flush()
                merger._recorder.forget(part.each.key)
        elif not (rise.count or rise.not_finite) and part.begun < self._snapshots:
            return
        for series in (part.passed, part.each):
            if series is not None:
                merger._entries.append((series, _RECORD_HISTOGRAM, rise, stamp))

    def _charge(self, part: _Part, buckets: int) -> bool:
        """Charge for the buckets that a histogram will have; return whether there is room."""
        more = (buckets - part.buckets) * BUCKET_BYTES
        if more > 0 and not self._buckets.take(more):
            return False
        if more < 0:
            self._buckets.give_back(-more)
        part.buckets = buckets
        return True

    def _ingest_boundary(self, boundary: Snapshot, now: int) -> None:
        complete, self._set = self._set, None
        self._in_snapshot = boundary is not Snapshot.END
        if boundary is not Snapshot.END:
            self._end_hold()
            self._snapshots += 1
            if boundary is Snapshot.BEGIN_COMPLETE:
                if self._snapshots == 1:
                    self._merger.flush()
                    self._held = []
                self._set = set()
        elif complete is not None:
            self._end_hold()
            self._remember({})
            gone = [key for key, part in self._parts.items() if part not in complete]
            for key in gone:
                if key.kind is not MetricKind.HISTOGRAM or self._version >= HISTOGRAM_TOTALS:
                    self._remove(key, now)

    def _ingest_status(self, event: Status, now: int) -> None:
        if event.started_ns != self.started_ns:
            self._release_all(now)
            self.restarts += 1
            self.started_ns = event.started_ns
            self._missed_before = (self.missed_incoming, self.missed_client)
        self._version = event.protocol_version
        incoming, client = self._missed_before
        self.missed_incoming = incoming + event.dropped_incoming
        self.missed_client = client + event.dropped_client

    def _remove(self, key: Key, now: int) -> None:
        """Handle the end of a series at a living source."""
        part = self._parts.pop(key, None)
        if part is not None:
            self._end_hold()
            self._merger.flush()
            self._release(part, now, gone=True)

    def _release_all(self, now: int) -> None:
        self._end_hold()
        self._merger.flush()
        self._remember({})
        parts, self._parts = self._parts, {}
        for part in parts.values():
            self._release(part, now, gone=False)

    def _release(self, part: _Part, now: int, *, gone: bool) -> None:
        for key in part.identities:
            del self._by_identity[id(key)]
        self._text.give_back(part.size)
        if type(part.last) is Distribution:
            self._buckets.give_back(part.buckets * BUCKET_BYTES)
        merger = self._merger
        if part.each is not None:
            merger._recorder.forget(part.each.key)
        if part.total is not None:
            merger._leave(part.total, part, now, gone=gone)


class Merger:
    """
    Merges the events of any number of sources, and records the result.

    In sums, the series of all sources with the same kind, name and labels are one.  Sources' own
    metrics (``txmetrics_*``) are left out of sums, except `COLLECTOR_INFO`.  Descriptions pass; the
    last one of a metric is in effect.

    With C{merge="each"} or C{"both"}, a label of a source that is named like the label of instances
    gets the prefix ``exported_``, in sums too; and one that has the prefix already gets another
    one, so that different series stay different.

    The values of a gauge are combined by its parts of all living sources:

     - C{sum}: computed from all parts each time, so that rounding errors do not add up.  NaN if a
       part is NaN, or if both infinities are among them.
     - C{max}, C{min}: without parts that are NaN; NaN if all are.
     - C{last}: the part that changed last, in the order in which the collector received the
       changes.  If its source leaves, the one before it.
    """

    def __init__(
        self,
        recorder: Target,
        merge: Merge = "sum",
        *,
        instance_label: str = "instance",
        gauges: Gauges = "sum",
        max_series: int = MAX_SERIES,
        collector_id: str | None = None,
        gathers: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """
        @param recorder: receives the merged events; usually a `txmetrics_tcp.TcpRecorder`.
        @param merge: see `Merge`.
        @param instance_label: the name of the label with the name of the instance.
        @param gauges: how sums of gauges are computed.
        @param max_series: the maximum number of series for each source.  The text of their names
            and labels is limited to 16 MiB.  Events of further series are counted and ignored.
        @param collector_id: the identity of this collector in `COLLECTOR_INFO`.
        @param gathers: whether `Source.ingest` leaves what it has merged to `flush`, so that many
            calls share the cost of recording.
        @param clock: returns the time in nanoseconds since the epoch.  `Source.ingest` calls it
            once.
        @raise TypeError: C{max_series} is not a whole number.
        @raise ValueError: an argument is out of range.
        """
        if merge not in _MERGES:
            raise ValueError(f"merge must be one of {', '.join(_MERGES)}, not {merge!r}")
        if gauges not in AGGREGATES:
            raise ValueError(f"gauges must be one of {', '.join(AGGREGATES)}, not {gauges!r}")
        # Validates the name of the label.
        Key.of(MetricKind.COUNTER, "m", {instance_label: ""})
        self._recorder = recorder
        self._sums = merge != "each"
        self._by_instance = merge != "sum"
        self._instance_label = instance_label
        self._aggregate = AGGREGATES[gauges]
        self._max_series = at_least(0, "max_series", max_series)
        self._collector_id = collector_id
        self._gathers = gathers
        self._clock = clock
        self._totals: dict[Key, _Total] = {}
        # The living sources by the name of the instance.
        self._sources: dict[str, Source] = {}
        self._ended = _Ended(ENDED_BYTES)
        self._descriptions = Descriptions(Budget(CACHE_BYTES))
        # Living sources that have `Source._remembered`.
        self._returned: dict[Source, None] = {}
        # What the current call of a method records at its end.
        self._entries: list[_Entry] = []
        # Parts of gauges that have changed, with the time of the last change.
        self._changed: dict[_Part, int] = {}

    @property
    def sources(self) -> list[Source]:
        """The living sources, in the order of their names' first connections."""
        return list(self._sources.values())

    @property
    def waiting(self) -> int:
        """The number of events that wait for `flush`, and of gauges of sums that have changed."""
        return len(self._entries) + len(self._changed)

    def flush(self) -> None:
        """
        Record what has been merged.  Whatever depends on the order calls this itself, such as the
        end of a series.
        """
        if self._changed:
            add = self._entries.append
            aggregate = self._aggregate
            for part, stamp in self._changed.items():
                total = part.total
                assert total is not None
                values = total.values
                values.pop(part, None)
                values[part] = part.last
                add((total.series, _SET_GAUGE, aggregate(values), stamp))
            self._changed.clear()
        if self._entries:
            entries, self._entries = self._entries, []
            self._recorder.ingest(entries)

    def open(self, name: str, started_ns: int | None) -> Source:
        """
        Begin a connection.

        If a source with this name and start time was disconnected, its series continue, and the
        object for its earlier connection is closed.  While another source with this name is alive,
        the name of the instance gets a number, as in C{web-2}.  A server without a status has no
        start time: each of its connections is another source.

        @param name: the name that the program gives itself, or any other.
        @param started_ns: when it started, in nanoseconds since the epoch; None if unknown.
        @raise AlreadyConnectedError: a source with this name and start time is connected.  Its
            events would be counted twice.
        """
        if started_ns is not None:
            for before in self._sources.values():
                if before.started_ns == started_ns and before._program == name:
                    if before.connected:
                        raise AlreadyConnectedError(f"{before.name} is connected already")
                    source = Source(self, name, before.name, started_ns, before._text)
                    source._continue(before)
                    self._sources[before.name] = source
                    return source
        instance, number = name, 1
        while instance in self._sources:
            number += 1
            instance = f"{name}-{number}"
        source = Source(self, name, instance, started_ns, Budget(CACHE_BYTES))
        self._sources[instance] = source
        if started_ns is not None:
            source._remember(self._ended.take((name, started_ns)))
        return source

    # Called by sources.

    def _remove(self, source: Source) -> None:
        del self._sources[source.name]

    def _describe(self, metadata: Metadata) -> bool:
        """Pass a description; return whether it is valid and there is room for it."""
        if _is_own(metadata.name) and not self._by_instance:
            return True
        kind, name = metadata.kind, metadata.name
        if self._descriptions.get((kind, name)) == metadata:
            return True
        # A later version may know more units.
        unit = metadata.unit if metadata.unit in _UNITS else None
        try:
            checked = Metadata.of(kind, name, unit, metadata.description)
        except ValueError:
            return False
        if not self._descriptions.put(metadata):
            return False
        self._recorder.describe(checked)
        return True

    def _keys(self, key: Key, instance: str) -> tuple[Key | None, Key | None]:
        """
        Return the keys of a source's series in the sum and by instance.

        @raise ValueError: the key is not valid, or too large with the label of the instance.
        """
        labels = dict(key.labels)
        if self._by_instance:
            labels = {self._exported(label): value for label, value in key.labels}
        sum_key = each_key = None
        if self._sums and not _is_own(key.name):
            sum_key = Key.of(key.kind, key.name, labels)
        if self._by_instance:
            each_key = Key.of(key.kind, key.name, {**labels, self._instance_label: instance})
        return sum_key, each_key

    def _exported(self, label: str) -> str:
        own = self._instance_label
        if label.endswith(own):
            prefixes = label.removesuffix(own)
            if prefixes == _EXPORTED * (len(prefixes) // len(_EXPORTED)):
                return _EXPORTED + label
        return label

    def _total(self, key: Key) -> _Total:
        """Find or create a series of the sum, for one more part."""
        total = self._totals.get(key)
        if total is None:
            total = self._totals[key] = _Total(key, self._recorder.attach(key))
        total.parts += 1
        return total

    def _leave(self, total: _Total, part: _Part, now: int, *, gone: bool) -> None:
        """
        Remove a part from the sum.

        @param gone: whether the source still lives, so that the series has come to its end.
        """
        total.parts -= 1
        gauge = total.key.kind is MetricKind.GAUGE
        if gauge:
            total.values.pop(part, None)
            if total.values:
                value = self._aggregate(total.values)
                self._entries.append((total.series, _SET_GAUGE, value, now))
        if not total.parts:
            del self._totals[total.key]
            if gone or gauge:
                self._recorder.forget(total.key)
            if gone and not gauge:
                self._ended.forget(total.key)
                for source in self._returned:
                    source._remembered.pop(total.key, None)


_Entry = tuple[Series, Operation, Any, int]
"""An entry of `Target.ingest`."""

_Counted = dict[Key, Any]
"""`_Part.last` of counters and histograms, by their keys in the sum."""


class _Ended:
    """Totals of dead sources, those of the last ones, within a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        # By name and start time, the oldest first.
        self._sources: dict[tuple[str, int], tuple[_Counted, int]] = {}
        # The totals that have a key.
        self._with: dict[Key, dict[tuple[str, int], _Counted]] = {}

    def put(self, identity: tuple[str, int], counted: _Counted) -> None:
        self.take(identity)
        size = _PART_BYTES + sum(_size(key, last) for key, last in counted.items())
        self._sources[identity] = counted, size
        for key in counted:
            self._with.setdefault(key, {})[identity] = counted
        self._used += size
        while self._used > self._limit:
            self.take(next(iter(self._sources)))

    def take(self, identity: tuple[str, int]) -> _Counted:
        """Remove and return what is kept of a source."""
        counted, size = self._sources.pop(identity, ({}, 0))
        for key in counted:
            having = self._with[key]
            del having[identity]
            if not having:
                del self._with[key]
        self._used -= size
        return counted

    def forget(self, key: Key) -> None:
        """Handle that a series of the sum begins again at zero."""
        for counted in self._with.pop(key, {}).values():
            del counted[key]


def _is_own(name: str) -> bool:
    return name.startswith(OWN_PREFIX) and name != COLLECTOR_INFO


def _size(key: Key, last: Any) -> int:
    buckets = last.occupied if isinstance(last, Distribution) else 0
    return _PART_BYTES + key_size(key) + BUCKET_BYTES * buckets


def _sum_of(values: Mapping[_Part, float]) -> float:
    parts = values.values()
    try:
        return math.fsum(parts)
    except OverflowError:
        # A partial sum is too large, although the sum may not be.
        return math.fsum(value * 2.0**-64 for value in parts) * 2.0**64
    except ValueError:
        return math.nan


def _max_of(values: Mapping[_Part, float]) -> float:
    return max((value for value in values.values() if value == value), default=math.nan)


def _min_of(values: Mapping[_Part, float]) -> float:
    return min((value for value in values.values() if value == value), default=math.nan)


def _last_of(values: dict[_Part, float]) -> float:
    return next(reversed(values.values()))


AGGREGATES: Final[dict[Gauges, Callable[[dict[_Part, float]], float]]] = {
    "sum": _sum_of,
    "max": _max_of,
    "min": _min_of,
    "last": _last_of,
}
"""The functions that compute the value of a gauge from its parts."""

_MERGES: Final = ("sum", "each", "both")
_EXPORTED: Final = "exported_"
_UNITS: Final = frozenset(map(str, Unit))

_INCREMENT_COUNTER: Final = Operation.INCREMENT_COUNTER
_SET_COUNTER: Final = Operation.SET_COUNTER
_SET: Final = (_SET_COUNTER, Operation.SET_GAUGE)
_INCREMENT_GAUGE: Final = Operation.INCREMENT_GAUGE
_SET_GAUGE: Final = Operation.SET_GAUGE
_RECORD_HISTOGRAM: Final = Operation.RECORD_HISTOGRAM
