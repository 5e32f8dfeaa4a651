"""
Brings what sources deliver to viewers and into histories.

Everything in this module runs on the reactor thread.
"""

from __future__ import annotations

import math
import time as system
from array import array
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._net.deadline import cancel
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp._view.memory import Budget
from txmetrics_tcp._view.rates import RATE_WINDOW
from txmetrics_tcp._view.series import intervals_of
from txmetrics_tcp._view.source_names import brief_names
from txmetrics_tcp._view.windows import FINEST
from txmetrics_tcp.observe.sources import RecordingSource, Source, State
from txmetrics_tcp.web._frames import Changes, Rows, Table, dump
from txmetrics_tcp.web._history import HISTORY_BYTES, History

INTERVAL = 0.1
"""The shortest time between two frames, in seconds."""

MAX_INTERVAL = 2.0
"""The longest time between two frames."""

SHARE = 0.25
"""The share of a processor that frames may take; they are less frequent if they take more."""

HEARTBEAT = 1.0
"""The time after which a viewer gets a frame even if nothing has changed, in seconds."""

LINGER = 60.0
"""The time after which sources without viewers are no longer followed, in seconds."""

MAX_MARKS = 2000
"""The maximum number of notes that are kept for charts."""

RECORDING_SECONDS = 7 * 24 * 3600
"""The time that the history of a recording covers, at most, in seconds."""

_STATES = {
    State.CONNECTING: "connecting",
    State.CONNECTED: "connected",
    State.LOST: "disconnected",
    State.FOREIGN: "foreign",
    State.READING: "reading",
    State.ENDED: "recording",
}

_log = Logger(namespace="txmetrics_tcp")


class Viewer(Protocol):
    """
    A page that reads the stream.

    @ivar version: the version of the last frame; None without any.
    @ivar ready: whether the viewer takes a frame.
    @ivar sent_at: when the last frame was sent, by the reactor's clock.
    """

    version: int | None
    sent_at: float

    @property
    def ready(self) -> bool: ...

    def send(self, frame: bytes) -> None:
        """Send a frame."""

    def fail(self) -> None:
        """Leave, since a frame cannot be sent."""


class _HistoryChanges(Changes):
    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    def rebased(self, id: int, amount: int | float) -> None:
        self._followed.history.rebase(id, amount)

    def resynced(self, id: int, amount: int | float, since: int) -> None:
        self._followed.history.resync(id, amount, since + self._followed.offset)


class Followed:
    """
    A source, its rows and its history.

    @ivar finished: whether the last call of C{notes} has found that a recording is read.
    @ivar offset: the difference of the history's times and the view's, in whole seconds.
    """

    def __init__(
        self, source: Source, table: Table, seconds: int, budget: Budget, offset: int
    ) -> None:
        self.source = source
        self.rows: Rows = table.add(source.view, source.view_now)
        self.recording: bool = isinstance(source, RecordingSource)
        if self.recording:
            self.history = History(RECORDING_SECONDS, budget, math.inf)
        else:
            self.history = History(seconds, budget)
        self.rows.changes = _HistoryChanges(self)
        self.offset = offset
        self.rate = 0.0
        self.brief: str = source.label
        # When the state began, by the source's clock and as seconds since the epoch.
        self._began = -math.inf
        self._since = 0
        self.finished: bool = False
        self._collected_at = -math.inf
        # What the last notes were about.
        self._state: State = source.state
        self._missed = source.view.missed_incoming + source.view.missed_client
        self._restarts = source.view.restarts

    @property
    def missed(self) -> int:
        view = self.source.view
        return view.missed_incoming + view.missed_client

    def since(self, moment: float) -> int:
        """Return when the state of the source began, in seconds since the epoch."""
        if self.source.since != self._began:
            self._began = self.source.since
            self._since = round(moment - self.source.seconds)
        return self._since

    def column(self) -> None:
        """Add the present values to the history.  The rows are up to date."""
        now = self.source.view_now()
        second = math.floor(now)
        live = self.rows.live
        if second % FINEST == 0:
            self._collect(now)
        connected = self.recording or self.source.state is State.CONNECTED
        self.history.add(
            second + self.offset,
            self.rows.ids,
            array("d", [row.value for row in live]),
            connected,
        )
        self.history.now = second + self.offset + 1
        if second % 10 == 0 and (begin := self.history.begin) is not None:
            self.rows.forget_ended(begin - self.offset)

    def _collect(self, now: float) -> None:
        # An interval is closed by the next event, or here.
        since, self._collected_at = self._collected_at - 2 * FINEST, now
        history, offset = self.history, self.offset
        for row in self.rows.histograms:
            series = row.series
            if series.updated >= since:
                after = history.last_interval(row.id) - offset
                for start, samples in intervals_of(series, after, now):
                    history.add_samples(row.id, start + offset, samples)

    def notes(self, moment: float) -> list[dict[str, Any]]:
        """Return notes of what has happened since the last call."""
        found: list[dict[str, Any]] = []

        def note(kind: str, text: str) -> None:
            found.append(
                {"t": round(moment, 3), "source": self.rows.number, "kind": kind, "text": text}
            )

        source, view = self.source, self.source.view
        if source.state is not self._state:
            if self._state is State.CONNECTED:
                note("disconnect", source.note or "disconnected")
            elif source.state is State.CONNECTED:
                note("connect", "connected")
            self.finished = self._state is State.READING
            self._state = source.state
        if view.restarts != self._restarts:
            self._restarts = view.restarts
            note("restart", "the server has restarted")
        missed = self.missed
        if missed > self._missed:
            note("loss", f"{missed - self._missed} events dropped")
        self._missed = missed
        return found


class Feed:
    """
    Sends frames to viewers, and keeps the history of all sources, while it is active.

    It is active while it has viewers, until `LINGER` seconds after the last one, or always.

    @ivar always: whether it is always active while it runs.
    @ivar table: what viewers know.
    @ivar followed: the sources, by number.
    @ivar marks: notes, as long as the history lasts.
    """

    def __init__(
        self,
        reactor: Any,
        seconds: int,
        always: bool,
        begin: Callable[[], object],
        end: Callable[[], object],
        time: Callable[[], float] = system.time,
    ) -> None:
        """
        @param seconds: the length of the history.
        @param begin: called before the feed becomes active.
        @param end: called after it is active no longer.
        @param time: returns the time in seconds since the epoch of UNIX.
        """
        self._reactor = reactor
        self._seconds = seconds
        self.always = always
        self._begin = begin
        self._end = end
        self.time = time
        self.viewers: dict[Viewer, None] = {}
        self._running = False
        self._active = False
        self._tick_call: IDelayedCall | None = None
        self._column_call: IDelayedCall | None = None
        self._linger_call: IDelayedCall | None = None
        self._epoch = int(time() * 1000) & 0xFFFFFFFF
        self._told_at = -math.inf
        self.marks: list[dict[str, Any]] = []
        self.followed: dict[int, Followed] = {}
        self._reset()

    def _reset(self) -> None:
        for one in self.followed.values():
            one.rows.close()
        self._budget = Budget(HISTORY_BYTES)
        self._epoch += 1
        self.table = Table(self._epoch, self.time, self._ago)
        self.followed = {}
        self.marks = []
        for viewer in self.viewers:
            viewer.version = None

    # Running

    @property
    def active(self) -> bool:
        """Whether sources are followed."""
        return self._active

    def start(self) -> None:
        """Begin to run."""
        self._running = True
        if self.always or self.viewers:
            self._activate()

    def stop(self) -> None:
        """Stop to run.  The viewers have left."""
        self._running = False
        self._deactivate()

    def _activate(self) -> None:
        cancel(self._linger_call)
        if self._active or not self._running:
            return
        self._active = True
        self._begin()
        self._column_call = self._reactor.callLater(self._until_next_second(), self._column)

    def _deactivate(self) -> None:
        for call in self._tick_call, self._column_call, self._linger_call:
            cancel(call)
        if self._active:
            self._active = False
            self._end()
            self._reset()

    def _until_next_second(self) -> float:
        now = self._reactor.seconds()
        return float(math.floor(now) + 1.001 - now)

    # Sources

    def show(self, sources: Iterable[Source]) -> None:
        """Replace the sources.  Those that stay keep their numbers and histories."""
        wanted = dict.fromkeys(sources)
        for number, one in list(self.followed.items()):
            if one.source not in wanted:
                one.history.clear()
                del self.followed[number]
                self.table.remove(number)
        known = {one.source for one in self.followed.values()}
        for source in wanted:
            if source not in known:
                offset = round(self.time() - source.view_now())
                followed = Followed(source, self.table, self._seconds, self._budget, offset)
                self.followed[followed.rows.number] = followed
        self._told_at = -math.inf

    def reached(self, source: RecordingSource, seconds: float) -> None:
        """Handle that a recording is read up to a time, before it is ingested."""
        one = next((one for one in self.followed.values() if one.source is source), None)
        if one is None:
            return
        if not one.history.now:
            one.offset = round(source.started)
            one.history.now = one.offset
        if math.floor(seconds) + one.offset >= one.history.now:
            self.table.advance()
            one.column()
            one.history.now = math.floor(seconds) + one.offset
            if one.offset != round(source.started):
                # Another session.
                one.offset = round(source.started)

    # Viewers

    def join(self, viewer: Viewer) -> None:
        """Add a viewer, and send it everything."""
        self.viewers[viewer] = None
        self._activate()
        if self._active:
            cancel(self._tick_call)
            self._tick_call = self._reactor.callLater(0, self._tick)

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer, which may have left before."""
        if viewer not in self.viewers:
            return
        del self.viewers[viewer]
        if not self.viewers:
            cancel(self._tick_call)
            if self._active and not self.always:
                self._linger_call = self._reactor.callLater(LINGER, self._deactivate)

    # Ticks

    def _tick(self) -> None:
        began = system.perf_counter()
        try:
            self.update()
        except Exception:
            _log.failure("Cannot make a frame for the page", without_frames(Failure()))
        cost = system.perf_counter() - began
        if self.viewers and self._active:
            delay = min(max(INTERVAL, cost / SHARE), MAX_INTERVAL)
            self._tick_call = self._reactor.callLater(delay, self._tick)

    def _column(self) -> None:
        try:
            self.update()
            for one in self.followed.values():
                if not one.recording:
                    one.column()
        except Exception:
            _log.failure("Cannot keep the history of the page", without_frames(Failure()))
        self._column_call = self._reactor.callLater(self._until_next_second(), self._column)

    def update(self) -> None:
        """Look at what has changed, and send it to the viewers that take it."""
        table = self.table
        table.advance()
        self._tell()
        now = self._reactor.seconds()
        for viewer in list(self.viewers):
            if not viewer.ready:
                continue
            version = viewer.version
            if version is not None and now - viewer.sent_at < HEARTBEAT and table.silent(version):
                viewer.version = table.version
                continue
            viewer.version = table.version
            viewer.sent_at = now
            frame = table.frame(version)
            try:
                viewer.send(frame)
            except Exception:
                _log.failure("Cannot send a frame to a page", without_frames(Failure()))
                viewer.fail()

    def _tell(self) -> None:
        table, moment = self.table, self.time()
        now = self._reactor.seconds()
        each_second = now - self._told_at >= 1.0
        names = None
        for number, one in self.followed.items():
            for note in one.notes(moment):
                table.note(note)
                self.marks.append(note)
                del self.marks[:-MAX_MARKS]
            source = one.source
            if one.finished:
                one.finished = False
                one.column()
                # Their rates are those at its end.
                for viewer in self.viewers:
                    viewer.version = None
            if each_second:
                source.tick()
                one.rate = source.events_per_second
                if names is None:
                    names = brief_names([one.source.label for one in self.followed.values()])
                one.brief = names[source.label]
            table.tell(number, self._info(one, moment))
        if each_second:
            self._told_at = now
            begin = self.begin
            step = {"from": begin, "to": self.end, "step": 1}
            table.say(f'"history":{dump(step)}')
            if begin is not None and self.marks and self.marks[0]["t"] < begin:
                self.marks = [mark for mark in self.marks if mark["t"] >= begin]

    def _info(self, one: Followed, moment: float) -> dict[str, Any]:
        source = one.source
        detail = source.note
        if source.state is State.READING:
            detail = f"{source.progress:.0%}"
        return {
            "name": source.label,
            "brief": one.brief,
            "state": _STATES[source.state],
            "detail": detail,
            "missed": one.missed,
            "restarts": source.view.restarts,
            "lag": None if source.behind is None else source.behind(),
            "since": one.since(moment),
            "rate": round(one.rate, 1),
            "from": one.history.begin if one.recording else None,
            "to": one.history.end if one.recording else None,
        }

    # Looking back

    @property
    def begin(self) -> int | None:
        """The time of the beginning of the history; None without any."""
        found = [one.history.begin for one in self.followed.values()]
        return min((one for one in found if one is not None), default=None)

    @property
    def end(self) -> int | None:
        """The time of its end; None if a source is live."""
        ends = [one.history.end for one in self.followed.values() if one.recording]
        if len(ends) < len(self.followed):
            return None
        return max((one for one in ends if one is not None), default=None)

    def _ago(self) -> tuple[array[int], array[float], float] | None:
        return self.before(None)

    def _is_gauge(self, id: int) -> bool:
        known = self.table.by_id.get(id)
        return known is not None and known[1].gauge

    def before(self, time: float | None) -> tuple[array[int], array[float], float] | None:
        """
        Return the series that have changed in the ten seconds before a time, their values before,
        and how many seconds before that was.

        @param time: None for now.
        """
        ids, values = array("I"), array("d")
        seconds = 0.0
        for one in self.followed.values():
            end = one.history.end
            if end is None:
                continue
            at = end if time is None else time
            found = one.history.before(at, RATE_WINDOW, self._is_gauge)
            if found is not None:
                ids += found[0]
                values += found[1]
                if time is None and not one.recording:
                    at = self.time()
                seconds = max(seconds, at - found[2])
        return (ids, values, seconds) if ids else None
