"""
``metrics-tcp stats``: watch a stream for a while, print what it told, and leave.
"""

from __future__ import annotations

import argparse
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
from txmetrics_tcp._model import Event, MetricKind
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.events import Recording, Turns
from txmetrics_tcp._view.numbers import show_duration, show_seconds, show_share
from txmetrics_tcp._view.report import Report
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp._view.sketch import has_percentiles
from txmetrics_tcp.cli.arguments import DEFAULT_SECONDS
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, is_recording, wants_tls
from txmetrics_tcp.cli.messages import SilenceMessage, server_name
from txmetrics_tcp.cli.output import say, standard_output
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.selection import wanted


class Watch:
    """
    Watches a server for a while.

    @ivar name: what it is called in what is said.
    @ivar view: what it has told.
    @ivar connections: how many there have been.
    @ivar told: whether it has told anything.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        name: str,
        seconds: float,
        say: Callable[[str], object],
        over: Callable[[int], object],
        max_frame: int = MAX_FRAME,
        tls: bool = False,
    ) -> None:
        """
        @param seconds: how long to watch, from the first connection on; and how long to wait for
            that.
        @param say: takes a remark of one line, for people.
        @param over: called with an exit code when it is over.
        @param tls: whether the server is spoken to with TLS.
        """
        self._clock: IReactorTime = reactor
        self._limit = seconds
        self._say = say
        self._over = over
        self.name = name
        self.view = SourceView(reactor.seconds)
        self.connections = 0
        self.told = False
        self._said = ""
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
        """How long it has been watched."""
        return float(self._clock.seconds()) - self._began

    def start(self) -> None:
        """Connect."""
        self._began = self._clock.seconds()
        self._ending = Deadline(self._clock, self._limit, self._end)
        self._service.startService()

    def stop(self) -> Any:
        """
        Watch no longer.

        @return: a Deferred that fires when the connection is closed.
        """
        self._stopped = True
        self._silence.end_silence()
        self._ending.cancel()
        return self._service.stopService()

    def how_far(self) -> str:
        """For people who wait."""
        if not self.connections:
            return f"connecting to {self.name}"
        return (
            f"watching {self.name}: {show_duration(self.seconds)} of {show_seconds(self._limit)},"
            f" {len(self.view.series):,} series, {self.view.events:,} events"
        )

    def _received(self, events: list[Event]) -> None:
        self.told = True
        self._silence.end_silence()
        self._said = ""
        self.view.ingest(events)

    def _state_changed(self, state: ConnectionState) -> None:
        self._silence.state_changed(state)
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
                if text != self._said:
                    # It goes on trying, often for the same reason.
                    self._said = text
                    self._say(text)
                if foreign:
                    self._over(1)

    def _end(self) -> None:
        if not self.connections:
            self._say(f"no connection to {self.name} within {show_seconds(self._limit)}")
        elif not self.told:
            # Why a connection ended has been said, if it has.
            question = "" if self._said else ": is it a server of metrics?"
            self._say(f"nothing came from {self.name}{question}")
        self._over(0 if self.told else 1)


class WatchRecording:
    """
    Reads a recording, as fast as it can be.

    Attributes are those of `Watch`.
    """

    told = True

    def __init__(
        self,
        reactor: Any,
        recording: Recording,
        seconds: float | None,
        say: Callable[[str], object],
        over: Callable[[int], object],
    ) -> None:
        """
        @param seconds: how much of it is read; by default all.
        """
        self._recording = recording
        self._limit = seconds
        self._say = say
        self._over = over
        self.name = recording.path
        self.seconds = 0.0
        self.view = SourceView(lambda: self.seconds)
        self.connections = 0
        turns = Turns(reactor, self._read())
        self.start, self.stop = turns.start, turns.stop

    def how_far(self) -> str:
        """For people who wait."""
        recording = self._recording
        return (
            f"reading {self.name}: {show_share(recording.progress)},"
            f" {show_duration(recording.seconds)} of recording"
        )

    def _read(self) -> Iterator[None]:
        for piece in self._recording:
            if self._limit is not None and piece.seconds > self._limit:
                self.seconds = self._limit
                self._over(0)
                return
            self.seconds = piece.seconds
            if piece.begins:
                self.view.connected()
                self.connections += 1
            self.view.ingest(piece.events)
            yield
        self.seconds = self._recording.seconds
        self._over(self._recording.report(self._say))


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        self._reactor = reactor
        self._progress = Progress(reactor, lambda: self._watch.how_far())
        self._running = Running(reactor, self._finish)
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
        self._watch = watch(say=self._progress.say, over=self._running.stop)
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
            wanted(self._options.filter),
            self._options.sort,
        )
        self._progress.stop()
        stopped = watch.stop()
        if watch.told:
            self._write(report)
        return stopped

    def _write(self, report: Report) -> None:
        try:
            self._output.write(report.to_json() if self._options.json else report.to_table())
        except BrokenPipeError:
            return
        except OSError as error:
            self._failed = True
            say(f"cannot write: {error.strerror}")
            return
        if not has_percentiles() and any(
            one.key.kind is MetricKind.HISTOGRAM for one in report.series
        ):
            say("percentiles need a library: pip install 'txmetrics-tcp[sketch]'")


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
