"""
What the page shows of all sources, and the binary frames with it and with its changes.  No I/O.

A frame, little endian: the size of the whole frame, the size of its head, the number of values and
the version, of 32 bits each; the head, which is JSON; the numbers of series, of 32 bits each; their
values, of 64 bits each.  The head is padded with spaces, so that the values are aligned.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from json.encoder import encode_basestring_ascii
from typing import Any

from txmetrics_tcp._model import Key, Metadata, MetricKind
from txmetrics_tcp._view.series import SeriesView, SourceView, values_of

MAX_NOTES = 200
"""The maximum number of notes that are kept."""

MAX_GONE = 200_000
"""
The maximum number of removals that are kept for viewers that do not read.  A viewer that has missed
further ones begins again with a whole frame.
"""

MAX_ENDED = 100_000
"""The maximum number of series that have ended, of a source, that a history still shows."""

MAX_ENDED_TEXT = 32 * 1024 * 1024
"""The maximum length of their definitions."""

MAX_REMOVED = 1000
"""The maximum number of removed sources that are kept for viewers that do not read."""

MIN_TEXT = 8 * 1024 * 1024
"""The length of descriptions and label names from which unused ones are looked for."""

EXACT = 2**53
"""Not all whole numbers from here on are exact as a 64-bit float."""

_HEADER = struct.Struct("<IIII")


def dump(value: object) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def pack(version: int, head: str, ids: array[int], values: array[float]) -> bytes:
    """
    Return a frame.

    @param ids: the numbers of series, of 32 bits.
    @param values: their values, of 64 bits.
    """
    text = head.encode()
    text += b" " * (-(len(text) + 4 * len(ids)) % 8)
    if sys.byteorder == "big":
        ids, values = ids[:], values[:]
        ids.byteswap()
        values.byteswap()
    total = _HEADER.size + len(text) + 12 * len(ids)
    header = _HEADER.pack(total, len(text), len(ids), version)
    return b"".join((header, text, ids.tobytes(), values.tobytes()))


class Row:
    """
    A series as viewers know it.

    @ivar id: the number of the series.
    @ivar definition: what the head says of the series, in JSON.
    @ivar born: the version with which it has begun.
    @ivar changed: the version with which C{value} last changed.
    @ivar rebased: the version with which C{base} last changed.
    @ivar value: the last value.
    @ivar base: the last base; 0 for gauges.
    """

    __slots__ = (
        "base",
        "born",
        "changed",
        "definition",
        "gauge",
        "id",
        "rebased",
        "series",
        "value",
    )

    def __init__(self, id: int, series: SeriesView, definition: str, version: int) -> None:
        self.id = id
        self.series = series
        self.definition = definition
        self.gauge = series.key.kind is MetricKind.GAUGE
        self.born = self.changed = version
        self.value = series.value
        self.base = 0 if self.gauge else series.base
        self.rebased = version if self.base else 0


class Changes:
    """
    What happens to the series of a source, for its history.  This one ignores it.
    """

    def rebased(self, id: int, amount: int | float) -> None:
        """Handle a change of the base of a series."""

    def resynced(self, id: int, amount: int | float, since: int) -> None:
        """See `txmetrics_tcp._view.series.SeriesObserver`."""


class Rows:
    """
    The series of one source.

    @ivar number: the number of the source.
    @ivar live: the rows, by ascending number.
    @ivar ids: their numbers.
    @ivar histograms: the rows of histograms.
    @ivar begun_at: the version with which series have last begun or ended.
    @ivar rebased_at: the version with which a base last changed.
    @ivar definitions: those of series that have ended, by number, as long as a history has them.
    @ivar changes: is notified.
    """

    def __init__(
        self, table: Table, number: int, view: SourceView, now: Callable[[], float]
    ) -> None:
        """
        @param now: returns the time by the view's clock.
        """
        self.number = number
        self.view = view
        self.live: list[Row] = []
        self.ids = array("I")
        self.histograms: list[Row] = []
        self.begun_at = self.rebased_at = 0
        self.definitions: dict[int, str] = {}
        self.changes: Changes = Changes()
        self._table = table
        self._now = now
        self._by_key: dict[Key, Row] = {}
        # The numbers of series that have ended, their last bases, and when they have ended.
        self._ended: dict[Key, tuple[int, int | float, float]] = {}
        self._ended_text = 0
        self._news: list[tuple[bool, SeriesView | None]] = [
            (True, series) for series in view.series.values()
        ]
        self._rebased: dict[int, SeriesView] = {}
        self._resynced: list[tuple[SeriesView, int | float, int]] = []
        self._events = -1
        self._looked_at = -math.inf
        for metadata in view.descriptions():
            table.describe(metadata)
        view.observer = self

    def close(self) -> None:
        """Stop to observe the view."""
        self.view.observer = None

    # SeriesObserver

    def added(self, series: SeriesView) -> None:
        self._news.append((True, series))

    def removed(self, series: SeriesView) -> None:
        self._news.append((False, series))

    def cleared(self) -> None:
        self._news.append((False, None))

    def described(self, metadata: Metadata) -> None:
        self._table.describe(metadata)

    def rebased(self, series: SeriesView) -> None:
        self._rebased[id(series)] = series

    def resynced(self, series: SeriesView, amount: int | float, since: int) -> None:
        self._resynced.append((series, amount, since))

    # Called by the table.

    def update(self, version: int) -> tuple[list[Row], list[int]]:
        """
        Look at what has changed.

        @return: the rows that have begun or changed, and the numbers of those that have ended.
        """
        view = self.view
        if not self._news and view.events == self._events:
            return [], []
        gone = self._apply_news(version) if self._news else []
        since, self._looked_at = self._looked_at, self._now()
        self._events = view.events
        touched = [row for row in self.live if row.series.updated >= since]
        values = values_of([row.series for row in touched])
        for row, value in zip(touched, values, strict=True):
            if value != row.value:
                row.value = value
                row.changed = version
        if self._rebased:
            rebased, self._rebased = self._rebased, {}
            for series in rebased.values():
                self._rebase(series, version)
        found = [row for row in touched if row.changed == version]
        if self._resynced:
            resynced, self._resynced = self._resynced, []
            for series, amount, second in resynced:
                known = self._by_key.get(series.key)
                if known is not None:
                    self.changes.resynced(known.id, amount, second)
        return found, gone

    def _rebase(self, series: SeriesView, version: int) -> None:
        row = self._by_key.get(series.key)
        if row is not None and row.base != series.base:
            self.changes.rebased(row.id, series.base - row.base)
            row.base = series.base
            row.changed = row.rebased = self.rebased_at = version

    def _apply_news(self, version: int) -> list[int]:
        news, self._news = self._news, []
        gone: list[Row] = []
        before = len(self.live)
        for begins, series in news:
            if series is None:
                gone += self._by_key.values()
                for row in self._by_key.values():
                    self._remember(row)
                self._by_key.clear()
            elif begins:
                self._by_key[series.key] = row = self._begin(series, version)
                self.live.append(row)
            elif (ended := self._by_key.pop(series.key, None)) is not None:
                gone.append(ended)
                self._remember(ended)
        if gone:
            without = set(gone)
            self.live = [row for row in self.live if row not in without]
        if before and self.live:
            # Series that begin again keep their numbers.
            self.live.sort(key=_number)
        self.ids = array("I", [row.id for row in self.live])
        self.histograms = [row for row in self.live if row.series.key.kind is MetricKind.HISTOGRAM]
        self.begun_at = version
        return [row.id for row in gone]

    def _remember(self, row: Row) -> None:
        key = row.series.key
        # The last one to be forgotten.
        self._forget(key)
        self._ended[key] = row.id, row.base, self._now()
        self.definitions[row.id] = row.definition
        self._ended_text += len(row.definition)
        while len(self._ended) > MAX_ENDED or self._ended_text > MAX_ENDED_TEXT:
            self._forget(next(iter(self._ended)))

    def _forget(self, key: Key) -> tuple[int, int | float]:
        """Forget a series that has ended; return its number and its base, 0 for an unknown one."""
        number, base, _ = self._ended.pop(key, (0, 0, 0.0))
        self._ended_text -= len(self.definitions.pop(number, ""))
        return number, base

    def _begin(self, series: SeriesView, version: int) -> Row:
        key = series.key
        table = self._table
        number, base = self._forget(key)
        number = number or table.next_id()
        values = ",".join([encode_basestring_ascii(value) for _, value in key.labels])
        definition = (
            f"[{number},{table.metric(key)},[{values}],{self.number},{table.label_names(key)}]"
        )
        row = Row(number, series, definition, version)
        if row.rebased:
            self.rebased_at = version
        if row.base != base:
            self.changes.rebased(number, row.base - base)
        return row

    def forget_ended(self, before: float) -> None:
        """Forget series that have ended before a time, by the view's clock."""
        while self._ended:
            key, (_, _, ended) = next(iter(self._ended.items()))
            if ended >= before:
                break
            self._forget(key)

    def known(self) -> Iterable[Key]:
        """Return the series, also those that have ended."""
        return (*self._by_key, *self._ended)

    def row(self, key: Key) -> Row | None:
        """Return the row of a series."""
        return self._by_key.get(key)


def _number(row: Row) -> int:
    return row.id


class Table:
    """
    The series of all sources, and what viewers know of them.

    `advance` begins a version.  The frame with what has changed since another version is the same
    for all viewers, and is made once.

    @ivar version: the current version.
    @ivar epoch: numbers and versions of another epoch mean something else.
    @ivar by_id: the rows by their numbers.
    """

    def __init__(
        self,
        epoch: int,
        time: Callable[[], float],
        ago: Callable[[], tuple[array[int], array[float], float] | None] = lambda: None,
    ) -> None:
        """
        @param time: returns the time in seconds since the epoch of UNIX.
        @param ago: returns series, their former values, and the time of these.
        """
        self.version = 0
        self.epoch = epoch
        self.by_id: dict[int, tuple[Rows, Row]] = {}
        self._time = time
        self._ago = ago
        self._ids = 0
        self._sources: dict[int, Rows] = {}
        self._metrics: dict[tuple[MetricKind, str], _Metric] = {}
        self._names: dict[tuple[str, ...], tuple[int, int]] = {}
        self._numbers = count()
        self._text = 0
        self._max_text = MIN_TEXT
        self._added = 0
        self._info: dict[int, tuple[int, str]] = {}
        self._removed: deque[tuple[int, str]] = deque()
        self._notes: deque[tuple[int, str]] = deque(maxlen=MAX_NOTES)
        self._gone: deque[tuple[int, int]] = deque()
        # A viewer that knows only an earlier version gets a whole frame.
        self._gone_since = 0
        self._latest: list[Row] = []
        self._extra = (-1, "")
        self._moment = time()
        self._made: dict[int | None, bytes] = {}
        self._silent = True

    @property
    def sources(self) -> Iterable[Rows]:
        """The rows of all sources."""
        return self._sources.values()

    # Called by rows.

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def describe(self, metadata: Metadata) -> None:
        """Use a description, from the next version on."""
        self._describe(metadata, self.version + 1)

    def _describe(self, metadata: Metadata, version: int) -> None:
        metric = self._metrics.get((metadata.kind, metadata.name))
        if metric is None:
            metric = _Metric(next(self._numbers))
            self._metrics[metadata.kind, metadata.name] = metric
        text = dump(
            [metric.number, metadata.kind.value, metadata.name, metadata.unit, metadata.description]
        )
        if metric.text != text:
            self._text += len(text) - len(metric.text)
            metric.text = text
            metric.version = version

    def metric(self, key: Key) -> int:
        """Return the number of a metric."""
        metric = self._metrics.get((key.kind, key.name))
        if metric is None:
            self._describe(Metadata(key.kind, key.name, None, ""), self.version)
            metric = self._metrics[key.kind, key.name]
        return metric.number

    def label_names(self, key: Key) -> int:
        """Return the number of a list of label names."""
        names = tuple([name for name, _ in key.labels])
        found = self._names.get(names)
        if found is None:
            found = self._names[names] = next(self._numbers), self.version
            self._text += sum(map(len, names))
        return found[0]

    # Called by the feed.

    def add(self, view: SourceView, now: Callable[[], float]) -> Rows:
        """
        Add a source.

        @param now: returns the time by the view's clock.
        """
        number, self._added = self._added, self._added + 1
        rows = self._sources[number] = Rows(self, number, view, now)
        self._info[number] = 0, ""
        return rows

    def remove(self, number: int) -> None:
        """Remove a source and its series."""
        self.advance()
        rows = self._sources.pop(number)
        rows.close()
        self._end([row.id for row in rows.live])
        del self._info[number]
        self._removed.append((self.version, dump({"no": number, "state": "removed"})))
        if len(self._removed) > MAX_REMOVED:
            self._require(self._removed.popleft()[0])
        self._silent = False
        self._made.clear()

    def tell(self, number: int, info: dict[str, Any]) -> None:
        """Replace the state of a source."""
        text = dump({"no": number, **info})
        if self._info[number][1] != text:
            self._info[number] = self.version, text
            self._silent = False
            self._made.clear()

    def note(self, note: dict[str, Any]) -> None:
        """Add a note about a source."""
        self._notes.append((self.version, dump(note)))
        self._silent = False
        self._made.clear()

    def say(self, head: str) -> None:
        """
        Add keys to the heads of the frames of this version, in JSON, and to later whole ones.
        """
        self._extra = self.version, head
        self._silent = False
        self._made.clear()

    def advance(self) -> None:
        """Begin a version, with what has changed in the views."""
        self.version += 1
        self._moment = self._time()
        self._made.clear()
        latest: list[Row] = []
        version = self.version
        self._silent = True
        for rows in self._sources.values():
            found, gone = rows.update(version)
            if gone:
                self._end(gone)
            if rows.begun_at == version:
                for row in found:
                    if row.born == version:
                        self.by_id[row.id] = rows, row
            latest += found
        self._latest = latest
        if self._text > self._max_text:
            self._clean()
            self._silent = False
        if latest:
            self._silent = False

    def _end(self, gone: Sequence[int]) -> None:
        for number in gone:
            self.by_id.pop(number, None)
            self._gone.append((self.version, number))
        while len(self._gone) > MAX_GONE:
            self._require(self._gone.popleft()[0])
        self._silent = False

    def _require(self, version: int) -> None:
        """Send a whole frame to viewers that know only an earlier version."""
        self._gone_since = max(self._gone_since, version)

    def _clean(self) -> None:
        """Forget descriptions and label names that no series has, and make all viewers do so."""
        metrics: set[tuple[MetricKind, str]] = set()
        names: set[tuple[str, ...]] = set()
        for rows in self._sources.values():
            for key in rows.known():
                metrics.add((key.kind, key.name))
                names.add(tuple([name for name, _ in key.labels]))
            metrics.update((one.kind, one.name) for one in rows.view.descriptions())
        self._metrics = {key: one for key, one in self._metrics.items() if key in metrics}
        self._names = {key: one for key, one in self._names.items() if key in names}
        self._text = sum(len(one.text) for one in self._metrics.values())
        self._text += sum(len(name) for names in self._names for name in names)
        self._max_text = MIN_TEXT + 2 * self._text
        self._require(self.version)

    def frame(self, since: int | None) -> bytes:
        """
        Return the changes since a version, or everything.

        @param since: the version; None for everything.
        """
        if since is not None and since < self._gone_since:
            since = None
        frame = self._made.get(since)
        if frame is None:
            frame = self._made[since] = self._whole() if since is None else self._changes(since)
        return frame

    def definitions_head(self) -> list[str]:
        """Return what the heads of frames say of all metrics and label names."""
        metrics = ",".join(one.text for one in self._metrics.values())
        names = ",".join(dump([no, names]) for names, (no, _) in self._names.items())
        return [f'"metrics":[{metrics}]', f'"names":[{names}]']

    def silent(self, since: int) -> bool:
        """Whether there is nothing to tell a viewer that knows a version."""
        return since == self.version - 1 and self._silent

    def _whole(self) -> bytes:
        rows = [row for source in self._sources.values() for row in source.live]
        head = [f'"epoch":{self.epoch},"whole":true']
        ago = self._ago()
        if ago is not None:
            ids, values, moment = ago
            head.append(f'"ago":[{dump(ids.tolist())},{dump(values.tolist())},{moment:.3f}]')
        return self._frame(-1, head, rows, rows)

    def _changes(self, since: int) -> bytes:
        if since == self.version - 1:
            rows = self._latest
        else:
            rows = [
                row
                for source in self._sources.values()
                for row in source.live
                if row.changed > since
            ]
        head = []
        gone = dict.fromkeys(number for version, number in self._gone if version > since)
        if gone:
            head.append(f'"gone":{dump(list(gone))}')
        begun = any(source.begun_at > since for source in self._sources.values())
        new = [row for row in rows if row.born > since] if begun else []
        return self._frame(since, head, new, rows)

    def _frame(self, since: int, head: list[str], new: list[Row], rows: list[Row]) -> bytes:
        head.insert(0, f'"t":{self._moment:.3f}')

        def told(key: str, texts: Iterable[str]) -> None:
            text = ",".join(texts)
            if text:
                head.append(f'"{key}":[{text}]')

        told("metrics", (one.text for one in self._metrics.values() if one.version > since))
        told(
            "names",
            (dump([no, names]) for names, (no, version) in self._names.items() if version > since),
        )
        told("series", [row.definition for row in new])
        # A viewer that gets everything has not heard of those that were removed.
        states = [*self._info.values(), *(self._removed if since >= 0 else ())]
        told("sources", (text for version, text in states if version > since and text))
        told("notes", (text for version, text in self._notes if version > since))
        if any(source.rebased_at > since for source in self._sources.values()):
            bases = [f'"{row.id}":{row.base}' for row in rows if row.rebased > since]
            if bases:
                head.append(f'"base":{{{",".join(bases)}}}')
        large = [row for row in rows if row.value >= EXACT]
        big = [f'"{row.id}":"{row.value}"' for row in large if isinstance(row.value, int)]
        if big:
            head.append(f'"big":{{{",".join(big)}}}')
        version, extra = self._extra
        if version > since:
            head.append(extra)
        return pack(
            self.version,
            f"{{{','.join(head)}}}",
            array("I", [row.id for row in rows]),
            array("d", [row.value for row in rows]),
        )


class _Metric:
    __slots__ = ("number", "text", "version")

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = ""
        self.version = 0
