"""
``metrics-tcp stats``: watch a server for a while, then print a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
)
from txmetrics_tcp._codec.framing import MAX_FRAME, StreamError
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.events import Recording, Stepper
from txmetrics_tcp._view.numbers import show_duration, show_seconds, show_share
from txmetrics_tcp._view.report import Report
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp._view.text import counted
from txmetrics_tcp.cli.arguments import DEFAULT_SECONDS
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of, wants_tls
from txmetrics_tcp.cli.messages import SilenceMessage, received_nothing
from txmetrics_tcp.cli.output import say, standard_output
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.selection import matcher
from txmetrics_tcp.cli.source_watch import ServerClient, SourceWatch
from txmetrics_tcp.cli.sources import Source

MAX_NAMED = 5
"""The maximum number of silent sources that are named."""


class Watch(ServerClient):
    """
    Watch a server for a while.

    @ivar name: the name of the server in messages.
    @ivar view: the series of the server.
    @ivar connections: the number of connections so far.
    @ivar received_any: whether any event has been received.
    @ivar behind: see `txmetrics_tcp.cli.sources.Source`.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        name: str,
        seconds: float,
        say: Callable[[str], object],
        finished: Callable[[int], object],
        max_frame: int = MAX_FRAME,
        tls: bool = False,
        began: Callable[[], object] | None = None,
        behind: Callable[[], int] | None = None,
    ) -> None:
        """
        @param seconds: the maximum time to wait for the first connection, and the time to watch
            after it, in seconds.
        @param say: called with human-readable messages of one line.
        @param finished: called with an exit code at the end.
        @param tls: whether the client uses TLS.
        @param began: called at the first connection, if the caller ends the watch of several
            servers; C{seconds} and C{finished} then have no effect.
        @param behind: see `txmetrics_tcp.cli.sources.Source`.
        """
        super().__init__(reactor, endpoint, self._received, self._state_changed, max_frame)
        self._clock: IReactorTime = reactor
        self._limit = seconds
        self._say = say
        self._finished = finished
        self.name = name
        self.behind = behind
        self.view: SourceView = SourceView(reactor.seconds)
        self.connections: int = 0
        self.received_any: bool = False
        self._last_message = ""
        self._silence = SilenceMessage(reactor, say, tls)
        self._stopped = False
        self._began: float = reactor.seconds()
        self._begun = began
        self._ending: Deadline | None = None

    @property
    def seconds(self) -> float:
        """The number of seconds since the first connection or, before that, since the start."""
        return float(self._clock.seconds()) - self._began

    def start(self) -> None:
        """Begin to connect."""
        self._begin()
        super().start()

    def stop(self) -> Any:
        """
        Disconnect.

        @return: a Deferred that fires when the connection is closed.
        """
        self._stopped = True
        self._silence.end_silence()
        if self._ending is not None:
            self._ending.cancel()
        return super().stop()

    def progress_text(self) -> str:
        """Return the text of the progress line."""
        if not self.connections:
            return f"connecting to {self.name}"
        return (
            f"watching {self.name}: {show_duration(self.seconds)} of {show_seconds(self._limit)},"
            f" {len(self.view.series):,} series, {counted(self.view.events, 'event')}"
        )

    def _received(self, events: list[Event]) -> None:
        self.received_any = True
        self._silence.end_silence()
        self._last_message = ""
        self.view.ingest(events)

    def _state_changed(self, state: ConnectionState) -> None:
        match state:
            case Connected():
                self.view.connected()
                self.connections += 1
                if self.connections == 1:
                    self._begin()
                    if self._begun is not None:
                        self._begun()
            case Disconnected() if not self._stopped:
                foreign = isinstance(state.reason.value, StreamError)
                done = "disconnected from" if self.connections else "cannot connect to"
                text = f"{done} {self.name}: {state}"
                if text != self._last_message:
                    # Later attempts often fail for the same reason.
                    self._last_message = text
                    self._say(text)
                if foreign and self._begun is None:
                    self._finished(1)
        self._silence.state_changed(state)

    def _begin(self) -> None:
        self._began = self._clock.seconds()
        if self._begun is None:
            if self._ending is not None:
                self._ending.cancel()
            self._ending = Deadline(self._clock, self._limit, self._end)

    def _end(self) -> None:
        self._silence.end_silence()
        if not self.connections:
            self._say(f"no connection to {self.name} within {show_seconds(self._limit)}")
        elif not self.received_any:
            # Ask only if no reason for a disconnection was reported.
            question = "" if self._last_message else "; is it a metrics server?"
            self._say(f"received nothing from {self.name}{question}")
        self._finished(0 if self.received_any else 1)


class WatchRecording:
    """
    Read a recording as fast as possible.

    The attributes are those of `Watch`.
    """

    received_any: bool = True
    connected: bool = False
    behind: Callable[[], int] | None = None

    def __init__(
        self,
        reactor: Any,
        recording: Recording,
        seconds: float | None,
        say: Callable[[str], object],
        finished: Callable[[int], object],
    ) -> None:
        """
        @param seconds: the time in the recording to stop at, in seconds; None to read all of it.
        """
        self._recording = recording
        self._limit = seconds
        self._say = say
        self._finished = finished
        self.name: str = recording.path
        self.seconds: float = 0.0
        self.view: SourceView = SourceView(lambda: self.seconds)
        self.connections: int = 0
        stepper = Stepper(reactor, self._read())
        self.start: Callable[[], None] = stepper.start
        self.stop: Callable[[], None] = stepper.stop

    def retry(self) -> None:
        """See `txmetrics_tcp.cli.source_watch.Client`."""

    def interrupted(self, reason: str) -> None:
        """See `txmetrics_tcp.cli.source_watch.Client`."""

    def progress_text(self) -> str:
        """Return the text of the progress line."""
        recording = self._recording
        return (
            f"reading {self.name}: {show_share(recording.progress)},"
            f" {show_duration(recording.seconds)} of recording"
        )

    def _read(self) -> Iterator[None]:
        for piece in self._recording:
            if self._limit is not None and piece.seconds > self._limit:
                self.seconds = self._limit
                self._finished(0)
                return
            self.seconds = piece.seconds
            if piece.begins:
                self.view.connected()
                self.connections += 1
            self.view.ingest(piece.events)
            yield
        self.seconds = self._recording.seconds
        self._finished(self._recording.report(self._say))


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        self._reactor = reactor
        self._seconds: float = options.duration or DEFAULT_SECONDS
        self._progress = Progress(reactor, self._progress_text)
        self._running = Running(reactor, self._finish, lambda: self._output.interrupt())
        self._recordings: list[Recording] = []
        self._reading = 0
        self._ending: Deadline | None = None
        self._connected = False
        self._exit_code = 0
        self._failed = False

    def run(self) -> int:
        self._output = standard_output()
        self._sources = sources_of(self._options)
        try:
            self._watch: SourceWatch[Watch | WatchRecording] = SourceWatch(
                self._reactor,
                self._sources,
                self._make,
                self._progress.say,
                keep=True,
                failed=self._refused,
            )
            code = self._running.run(self._start)
        finally:
            for recording in self._recordings:
                recording.close()
        return code or (1 if self._failed else 0)

    def _make(self, source: Source) -> Watch | WatchRecording:
        options, say = self._options, self._progress.say
        several = self._sources.several
        if source.recording:
            recording = Recording(source.endpoint)
            self._recordings.append(recording)
            self._reading += 1
            ended = self._recording_ended
            return WatchRecording(self._reactor, recording, options.duration, say, ended)
        return Watch(
            self._reactor,
            client_endpoint_from(options, self._reactor, source),
            source.name,
            self._seconds,
            say,
            self._running.stop,
            options.max_frame,
            wants_tls(options),
            self._first_connection if several else None,
            source.behind,
        )

    def _start(self) -> None:
        self._progress.start()
        servers = any(isinstance(one, Watch) for one in self._watch.clients.values())
        if self._sources.several and (servers or self._sources.watched):
            self._end_later()
        self._watch.start()

    def _refused(self, text: str) -> None:
        self._progress.say(text)
        self._running.stop(2)

    def _first_connection(self) -> None:
        if not self._connected:
            self._connected = True
            self._end_later()

    def _end_later(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = Deadline(self._reactor, self._seconds, self._time_is_over)

    def _time_is_over(self) -> None:
        self._ending = None
        watches = self._watch.clients.values()
        silent = [watch.name for watch in watches if not watch.received_any]
        if not watches:
            self._progress.say(received_nothing([]))
        elif silent:
            more = ", …" if len(silent) > MAX_NAMED else ""
            names = f"{', '.join(silent[:MAX_NAMED])}{more}"
            number = f"{len(silent):,} of {counted(len(watches), 'source')}"
            self._progress.say(f"received nothing from {number}: {names}")
        if len(silent) == len(watches):
            self._exit_code = 1
        if not self._reading:
            self._running.stop(self._exit_code)

    def _recording_ended(self, exit_code: int) -> None:
        self._reading -= 1
        self._exit_code = max(self._exit_code, exit_code)
        if not self._reading and self._ending is None:
            self._running.stop(self._exit_code)

    def _progress_text(self) -> str:
        watches = list(self._watch.clients.values())
        if not self._sources.several:
            return watches[0].progress_text()
        connected = sum(watch.connected for watch in watches)
        series = sum(len(watch.view.series) for watch in watches)
        events = sum(watch.view.events for watch in watches)
        return (
            f"watching {counted(len(watches), 'source')}, {connected:,} connected:"
            f" {series:,} series, {counted(events, 'event')}"
        )

    def _finish(self) -> Any:
        if self._ending is not None:
            self._ending.cancel()
        watches = list(self._watch.clients.values())
        reports = [
            Report(
                watch.view,
                watch.name,
                watch.seconds,
                watch.connections,
                matcher(self._options.filter),
                self._options.sort,
                watch.behind and watch.behind(),
            )
            for watch in watches
            if watch.received_any
        ]
        self._progress.stop()
        stopped = self._watch.stop()
        for number, report in enumerate(reports):
            if not self._write(report, following=number > 0):
                break
        return stopped

    def _write(self, report: Report, following: bool) -> bool:
        """
        Write a report, and return whether it was written.

        @param following: whether another report was written before.
        """
        try:
            if self._options.json:
                for part in report.to_json():
                    self._output.write(part)
            else:
                # Python 3.10 returns 0 for a terminal that does not say its size.
                width = shutil.get_terminal_size().columns or 80 if os.isatty(1) else None
                self._output.write("\n" * following + report.to_table(width))
        except BrokenPipeError:
            return False
        except OSError as error:
            self._failed = True
            say(f"cannot write to standard output: {error.strerror}")
            return False
        return True


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
