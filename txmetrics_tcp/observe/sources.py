"""
Where the events come from: servers, or recordings.  Each with its view, and how it is with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

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
from txmetrics_tcp._recording.events import Recording, Turns
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp.observe.text import shown

METER = 3.0
"""Over how many seconds the rate of a source's events is taken."""


class State(Enum):
    """How it is with a source."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "disconnected"
    FOREIGN = NOT_A_STREAM
    READING = "reading"
    ENDED = "recording"


class Source:
    """
    What all sources have in common; to be used on the reactor thread.

    @ivar label: what it is called on the screen: what the user wrote, made harmless.
    @ivar view: what its stream has told.
    @ivar state: how it is with it.
    @ivar since: when that began, as `time.monotonic`.
    @ivar heard: whether anything has come since that, where it is connected.
    @ivar note: more about the state, for people, made harmless.
    @ivar retry_at: when the next attempt to connect is made, as `time.monotonic`, if one is.
    @ivar progress: how much of a recording has been read, from 0 to 1.
    @ivar now: the time of the view, as of the last `tick`.
    """

    def __init__(
        self, label: str, view: SourceView, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.label = shown(label)
        self.view = view
        self.state = State.CONNECTING
        self.heard = True
        self.note = ""
        self.retry_at: float | None = None
        self.progress = 0.0
        self._monotonic = monotonic
        self.since = monotonic()
        self.now = 0.0
        self._counts: deque[tuple[float, int]] = deque()

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """Come to an end."""

    def view_now(self) -> float:
        """The time on the view's clock."""
        return self._monotonic()

    def tick(self) -> None:
        """A frame is about to be drawn."""
        self.now = self.view_now()
        moment = self._monotonic()
        counts = self._counts
        if counts and self.view.events < counts[-1][1]:
            # The view has begun to count anew: what it had before says nothing of what comes now.
            since = counts[-1][0]
            counts.clear()
            counts.append((since, 0))
        counts.append((moment, self.view.events))
        while len(counts) > 2 and counts[1][0] <= moment - METER:
            counts.popleft()

    @property
    def events_per_second(self) -> float:
        """How many came lately."""
        if len(self._counts) < 2:
            return 0.0
        (began, before), (ended, after) = self._counts[0], self._counts[-1]
        return max(0.0, (after - before) / (ended - began)) if ended > began else 0.0

    @property
    def seconds(self) -> float:
        """How long it has been in its state."""
        return max(0.0, self._monotonic() - self.since)

    @property
    def retry_in(self) -> float | None:
        """How many seconds it is to the next attempt to connect."""
        return None if self.retry_at is None else max(0.0, self.retry_at - self._monotonic())

    def _turn(self, state: State, note: str = "") -> None:
        self.state = state
        self.note = shown(note)
        self.since = self._monotonic()
        self.retry_at = None


class LiveSource(Source):
    """
    A server, to which it stays connected.

    What a read from the socket brought is folded together.
    """

    def __init__(
        self,
        reactor: Any,
        label: str,
        endpoint: IStreamClientEndpoint,
        max_frame: int = MAX_FRAME,
    ) -> None:
        super().__init__(label, SourceView())
        self._service = MetricsClientService(
            reactor,
            endpoint,
            received_many=self._received,
            observer=self._changed,
            max_frame=max_frame,
        )

    def start(self) -> None:
        self._service.startService()

    def stop(self) -> None:
        self._service.stopService()

    def _received(self, events: list[Event]) -> None:
        self.heard = True
        self.view.ingest(events)

    def _changed(self, state: ConnectionState) -> None:
        match state:
            case Connecting():
                # What went wrong stays on the screen until something is better.
                if self.state is State.CONNECTING:
                    self._turn(State.CONNECTING)
                self.retry_at = None
            case Connected():
                self.view.connected()
                self._turn(State.CONNECTED)
                self.heard = False
            case Disconnected():
                foreign = isinstance(state.reason.value, StreamError)
                reason = str(state).removeprefix(f"{NOT_A_STREAM}: ")
                self._turn(State.FOREIGN if foreign else State.LOST, reason)
            case _:
                self.retry_at = self._monotonic() + state.seconds


class RecordingSource(Source):
    """
    A recording, read as fast as it can be; its view then stands at the recording's end.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        """
        @raise RecordingError: the file cannot be read, or is no recording.
        """
        self._recording = Recording(path)
        super().__init__(Path(path).name, SourceView(self.view_now))
        self._turns = Turns(reactor, self._read())
        self._turn(State.READING)

    def start(self) -> None:
        self._turns.start()

    def stop(self) -> None:
        self._turns.stop()
        self._recording.close()

    def view_now(self) -> float:
        return self._recording.seconds

    def _read(self) -> Iterator[None]:
        recording = self._recording
        for piece in recording:
            if piece.begins:
                self.view.connected()
            self.view.ingest(piece.events)
            self.progress = recording.progress
            yield
        self.progress = 1.0
        recording.close()
        begun = recording.sessions
        of = f"of {begun[0].source}" if begun else ""
        if len(begun) > 1:
            of += f" and {len(begun) - 1} more"
        self._turn(State.ENDED, "; ".join(filter(None, (of, recording.verdict.text))))
