"""
``metrics-tcp stats``: watch a server for a while, then print a table.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
    MetricsClientService,
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
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, is_recording, wants_tls
from txmetrics_tcp.cli.messages import SilenceMessage, server_name
from txmetrics_tcp.cli.output import say, standard_output
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.selection import matcher


class Watch:
    """
    Watch a server for a while.

    @ivar name: the name of the server in messages.
    @ivar view: the series of the server.
    @ivar connections: the number of connections so far.
    @ivar received_any: whether any event has been received.
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
    ) -> None:
        """
        @param seconds: the maximum time to wait for the first connection, and the time to watch
            after it, in seconds.
        @param say: called with human-readable messages of one line.
        @param finished: called with an exit code at the end.
        @param tls: whether the client uses TLS.
        """
        self._clock: IReactorTime = reactor
        self._limit = seconds
        self._say = say
        self._finished = finished
        self.name = name
        self.view: SourceView = SourceView(reactor.seconds)
        self.connections: int = 0
        self.received_any: bool = False
        self._last_message = ""
        self._silence = SilenceMessage(reactor, say, tls)
        self._stopped = False
        self._began: float = reactor.seconds()
        self._service = MetricsClientService(
            reactor,
            endpoint,
            received_many=self._received,
            observer=self._state_changed,
            max_frame=max_frame,
        )

    @property
    def seconds(self) -> float:
        """The number of seconds since the first connection or, before that, since the start."""
        return float(self._clock.seconds()) - self._began

    def start(self) -> None:
        """Begin to connect."""
        self._began = self._clock.seconds()
        self._ending = Deadline(self._clock, self._limit, self._end)
        self._service.startService()

    def stop(self) -> Any:
        """
        Disconnect.

        @return: a Deferred that fires when the connection is closed.
        """
        self._stopped = True
        self._silence.end_silence()
        self._ending.cancel()
        return self._service.stopService()

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
                    self._ending.cancel()
                    self._began = self._clock.seconds()
                    self._ending = Deadline(self._clock, self._limit, self._end)
            case Disconnected() if not self._stopped:
                foreign = isinstance(state.reason.value, StreamError)
                done = "disconnected from" if self.connections else "cannot connect to"
                text = f"{done} {self.name}: {state}"
                if text != self._last_message:
                    # Later attempts often fail for the same reason.
                    self._last_message = text
                    self._say(text)
                if foreign:
                    self._finished(1)
        self._silence.state_changed(state)

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
        self._progress = Progress(reactor, lambda: self._watch.progress_text())
        self._running = Running(reactor, self._finish, lambda: self._output.interrupt())
        self._watch: Watch | WatchRecording
        self._failed = False

    def run(self) -> int:
        options, reactor = self._options, self._reactor
        text = options.endpoint
        self._output = standard_output()
        if is_recording(text):
            with closing(Recording(text)) as recording:
                return self._run(partial(WatchRecording, reactor, recording, options.duration))
        endpoint = client_endpoint_from(options, reactor)
        seconds = options.duration or DEFAULT_SECONDS
        watch = partial(Watch, reactor, endpoint, server_name(text), seconds)
        return self._run(partial(watch, max_frame=options.max_frame, tls=wants_tls(options)))

    def _run(self, watch: Callable[..., Watch | WatchRecording]) -> int:
        self._watch = watch(say=self._progress.say, finished=self._running.stop)
        code = self._running.run(self._start)
        return code or (1 if self._failed else 0)

    def _start(self) -> None:
        self._progress.start()
        self._watch.start()

    def _finish(self) -> Any:
        watch = self._watch
        report = Report(
            watch.view,
            watch.name,
            watch.seconds,
            watch.connections,
            matcher(self._options.filter),
            self._options.sort,
        )
        self._progress.stop()
        stopped = watch.stop()
        if watch.received_any:
            self._write(report)
        return stopped

    def _write(self, report: Report) -> None:
        try:
            if self._options.json:
                for part in report.to_json():
                    self._output.write(part)
            else:
                width = shutil.get_terminal_size().columns if os.isatty(1) else None
                self._output.write(report.to_table(width))
        except BrokenPipeError:
            return
        except OSError as error:
            self._failed = True
            say(f"cannot write to standard output: {error.strerror}")


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
