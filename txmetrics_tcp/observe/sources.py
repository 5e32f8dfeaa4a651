"""
Sources of events: servers and recordings, each with its view and its state.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint

from txmetrics_tcp._client.service import (
    Connected,
    Connecting,
    ConnectionState,
    Disconnected,
    MetricsClientService,
)
from txmetrics_tcp._codec.framing import MAX_FRAME, NOT_A_STREAM, StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._recording.events import Recording, Stepper
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp._view.text import shown

METER = 3.0
"""The number of seconds that the event rate of a source covers."""


class State(Enum):
    """The state of a source."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "disconnected"
    FOREIGN = NOT_A_STREAM
    READING = "reading"
    ENDED = "recording"


class Source:
    """
    The base class of sources.  Use it on the reactor thread only.

    @ivar label: the name on the screen: the text the user wrote, escaped.
    @ivar view: the state of the stream.
    @ivar state: the state of the source.
    @ivar since: when that state began, as `time.monotonic`.
    @ivar has_received: whether data has arrived on the current connection.
    @ivar note: a human-readable detail of the state, escaped.
    @ivar refused: whether the last attempt failed because no server listens there.
    @ivar server_command: the command that starts a server there; empty if unknown.
    @ivar retry_at: when the next connection attempt starts, as `time.monotonic`; None if none is
        scheduled.
    @ivar progress: the part of a recording that has been read, from 0 to 1.
    @ivar now: the time on the view's clock at the last `tick`.
    @ivar behind: of a source of a broker, returns the number of messages that the broker has and
        this process has not received; None for others.
    """

    def __init__(
        self, label: str, view: SourceView, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.label: str = shown(label)
        self.view = view
        self.state: State = State.CONNECTING
        self.has_received: bool = True
        self.note: str = ""
        self.refused: bool = False
        self.server_command: str = ""
        self.retry_at: float | None = None
        self.progress: float = 0.0
        self.behind: Callable[[], int] | None = None
        self._monotonic = monotonic
        self.since: float = monotonic()
        self.now: float = 0.0
        self._counts: deque[tuple[float, int]] = deque()

    def start(self) -> None:
        """Start to connect or to read."""

    def stop(self) -> object:
        """Disconnect or stop reading.  May return a Deferred that fires afterwards."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to a server."""
        return self.state is State.CONNECTED

    def retry(self) -> None:
        """Connect now, if the source waits before the next attempt."""

    def interrupted(self, reason: str) -> None:
        """
        Handle the loss of the broker of the source, after which the stream continues.

        @param reason: human-readable; empty when the broker is there again.
        """

    def view_now(self) -> float:
        """The time on the view's clock."""
        return self._monotonic()

    def tick(self) -> None:
        """Update the time and the event rate, before a frame is drawn."""
        self.now = self.view_now()
        moment = self._monotonic()
        counts = self._counts
        if counts and self.view.events < counts[-1][1]:
            # The view was cleared, so earlier counts no longer apply.
            since = counts[-1][0]
            counts.clear()
            counts.append((since, 0))
        counts.append((moment, self.view.events))
        while len(counts) > 2 and counts[1][0] <= moment - METER:
            counts.popleft()

    @property
    def events_per_second(self) -> float:
        """The event rate over the last `METER` seconds."""
        if len(self._counts) < 2:
            return 0.0
        (began, before), (ended, after) = self._counts[0], self._counts[-1]
        return max(0.0, (after - before) / (ended - began)) if ended > began else 0.0

    @property
    def seconds(self) -> float:
        """The number of seconds in the current state."""
        return max(0.0, self._monotonic() - self.since)

    @property
    def retry_in(self) -> float | None:
        """The number of seconds until the next connection attempt; None if none is scheduled."""
        return None if self.retry_at is None else max(0.0, self.retry_at - self._monotonic())

    def _set_state(self, state: State, note: str = "") -> None:
        self.state = state
        self.note = shown(note)
        self.refused = False
        self.since = self._monotonic()
        self.retry_at = None


class LiveSource(Source):
    """
    A server, with automatic reconnects.

    Events of one read from the socket are ingested together.
    """

    has_received: bool
    refused: bool
    server_command: str

    def __init__(
        self,
        reactor: Any,
        label: str,
        endpoint: IStreamClientEndpoint,
        max_frame: int = MAX_FRAME,
        server_command: str = "",
        behind: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(label, SourceView())
        self.behind = behind
        self.server_command = shown(server_command)
        self._service = MetricsClientService(
            reactor,
            endpoint,
            received_many=self._received,
            observer=self._changed,
            max_frame=max_frame,
        )

    def start(self) -> None:
        self._service.startService()

    def stop(self) -> Deferred[None]:
        return self._service.stopService()

    def retry(self) -> None:
        if self.retry_at is not None:
            self._service.stopService()
            self._service.startService()

    def interrupted(self, reason: str) -> None:
        if reason and self.state is State.CONNECTED:
            self._set_state(State.LOST, reason)
        elif not reason and self._service.protocol is not None:
            self._set_state(State.CONNECTED)

    def _received(self, events: list[Event]) -> None:
        self.has_received = True
        self.view.ingest(events)

    def _changed(self, state: ConnectionState) -> None:
        match state:
            case Connecting():
                # Keep the error reason on the screen until the connection is made.
                if self.state is State.CONNECTING:
                    self._set_state(State.CONNECTING)
                self.retry_at = None
            case Connected():
                self.view.connected()
                self._set_state(State.CONNECTED)
                self.has_received = False
            case Disconnected():
                foreign = isinstance(state.reason.value, StreamError)
                reason = str(state).removeprefix(f"{NOT_A_STREAM}: ")
                self._set_state(State.FOREIGN if foreign else State.LOST, reason)
                self.refused = _is_refused(state.reason.value)
            case _:
                self.retry_at = self._monotonic() + state.seconds


def _is_refused(error: BaseException | None) -> bool:
    """Whether no server listens on the port, or the file of its socket does not exist."""
    return isinstance(error, ConnectionRefusedError) or (
        isinstance(error, ConnectError) and error.osError == errno.ENOENT
    )


class RecordingSource(Source):
    """
    A recording, read as fast as possible.  The view then shows the end of the recording.
    """

    progress: float

    def __init__(
        self, reactor: Any, path: str, reached: Callable[[float], object] | None = None
    ) -> None:
        """
        @param reached: called before the next events are ingested, with their time of reception in
            seconds since the beginning of the recording.
        @raise RecordingError: the file cannot be read or is not a recording.
        """
        self._recording = Recording(path)
        super().__init__(Path(path).name, SourceView(self.view_now))
        self._reached = reached
        self._stepper = Stepper(reactor, self._read())
        self._set_state(State.READING)

    def start(self) -> None:
        self._stepper.start()

    def stop(self) -> None:
        self._stepper.stop()
        self._recording.close()

    def view_now(self) -> float:
        return self._recording.seconds

    @property
    def started(self) -> float:
        """
        The time of the beginning, in seconds since the epoch; without the time between sessions, if
        there are several.
        """
        sessions = self._recording.sessions
        return sessions[-1].time_ns / 1e9 - sessions[-1].seconds if sessions else 0.0

    def _read(self) -> Iterator[None]:
        recording = self._recording
        for piece in recording:
            if self._reached is not None:
                self._reached(piece.seconds)
            if piece.begins:
                self.view.connected()
            self.view.ingest(piece.events)
            self.progress = recording.progress
            yield
        self.progress = 1.0
        recording.close()
        sessions = recording.sessions
        origin = f"from {sessions[0].source}" if sessions else ""
        if len(sessions) > 1:
            origin += f" and {len(sessions) - 1} more"
        self._set_state(State.ENDED, "; ".join(filter(None, (origin, recording.outcome.text))))
