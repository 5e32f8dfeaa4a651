"""
``metrics-tcp tail``: print each event of a stream as a line of text or JSON.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
    MetricsClientService,
)
from txmetrics_tcp._model import METRIC_EVENTS, Event, Metric, Unknown
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.events import Recording, Stepper
from txmetrics_tcp._view.filters import Filter
from txmetrics_tcp._view.lines import JsonLines, Lines, TextLines
from txmetrics_tcp._view.numbers import show_seconds
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, is_recording, wants_tls
from txmetrics_tcp.cli.messages import ConnectionMessages, server_name
from txmetrics_tcp.cli.output import ReaderGone, say, standard_output
from txmetrics_tcp.cli.raw import RawCapture
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.selection import Selection
from txmetrics_tcp.cli.summary import Summary

COUNTS_DELAY = 1.0
"""The time, in seconds, after which counts are printed that no event has followed."""


class Tail:
    """
    Write received events as lines, and report the state of the connection.

    Lines are collected and written once per reactor iteration, so that a burst costs one write and
    a single event is written without delay.

    @ivar received_any: whether any event has been received.
    """

    received_any: bool = False

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: str,
        make_lines: Callable[[], Lines],
        write: Callable[[str], object],
        say: Callable[[str], object],
        stop: Callable[[int], object],
        filters: Sequence[Filter] = (),
        count: int | None = None,
        tls: bool = False,
        summarize: bool = False,
    ) -> None:
        """
        @param endpoint: the endpoint of the server, as the user wrote it.
        @param make_lines: creates the formatter of the events of one connection.
        @param write: called with whole lines.  May raise OSError.
        @param say: called with human-readable messages of one line.
        @param stop: called with an exit code at the end, or when lines cannot be written.
        @param filters: select the series to write; if empty, all series are written.
        @param count: the number of metric events to write; None for no limit.
        @param tls: whether the client uses TLS.
        @param summarize: whether to write the number of initial descriptions and totals, rather
            than each of them.
        """
        self._clock = clock
        self._make_lines = make_lines
        self._write = write
        self._say = say
        self._stop = stop
        self._filters = filters
        self._left = count
        self._summarize = summarize
        self._messages = ConnectionMessages(endpoint, clock, self._say_after_lines, tls)
        self._summary: Summary | None = None
        self._counting: IDelayedCall | None = None
        self._connected = False
        self._lines: list[str] = []
        self._flushing: IDelayedCall | None = None
        self.begin()

    def begin(self) -> None:
        """Begin a new stream, whose server sends its descriptions again."""
        self._end_counts()
        self._format = self._make_lines()
        self._summary = Summary(self._format) if self._summarize else None
        self._select = Selection(self._filters)

    def received(self, event: Event) -> None:
        """Write an event, unless the filters or the count exclude it."""
        self.received_any = True
        self._messages.end_silence()
        if isinstance(event, Unknown):
            self._messages.unknown(event)
            return
        if self._left == 0:
            return
        selected = self._select(event)
        if not selected:
            return
        summary = self._summary
        if summary is None or (isinstance(event, Metric) and not summary.counting):
            for one in selected:
                self._lines.append(self._format(one))
        elif lines := summary(selected):
            self._lines += lines
        else:
            if self._connected and self._counting is None:
                self._counting = self._clock.callLater(COUNTS_DELAY, self._end_counts)
            return
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)
        if self._left is not None and isinstance(event, METRIC_EVENTS):
            self._left -= 1
            if self._left == 0:
                self.flush()
                self._stop(0)

    def state_changed(self, state: ConnectionState) -> None:
        """Handle a new state of the connection."""
        if isinstance(state, Connected):
            self._connected = True
            self.begin()
        elif isinstance(state, Disconnected):
            self._end_counts()
        self._messages.state_changed(state)

    def flush(self) -> None:
        """Write pending lines and counts now."""
        self._end_counts()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def end(self) -> None:
        """Cancel pending messages."""
        self._messages.end_silence()

    def _say_after_lines(self, text: str) -> None:
        """Print a message after the lines of earlier events."""
        self.flush()
        self._say(text)

    def _end_counts(self) -> None:
        if self._counting is not None:
            if self._counting.active():
                self._counting.cancel()
            self._counting = None
        if self._summary is not None and (lines := self._summary.end()):
            self._lines += lines
            if self._flushing is None:
                self._flushing = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        lines, self._lines = self._lines, []
        lines.append("")
        try:
            self._write("\n".join(lines))
        except OSError as error:
            # Later events are not printed.
            self._left, self._summary = 0, None
            broken = isinstance(error, BrokenPipeError)
            if not broken:
                self._say(f"cannot write to standard output: {error.strerror}")
            self._stop(0 if broken else 1)


class _Source(NamedTuple):
    """
    The origin of the events to print.

    @ivar name: its name in messages.
    @ivar start: begins to pass events to the tail.
    @ivar stop: ends it, and releases resources.  May return a Deferred.
    """

    name: str
    start: Callable[[], object]
    stop: Callable[[], object]


def _server(options: argparse.Namespace, reactor: Any, tail: Tail) -> _Source:
    """Print the stream of a server, and reconnect."""
    service = MetricsClientService(
        reactor,
        client_endpoint_from(options, reactor),
        tail.received,
        observer=tail.state_changed,
        max_frame=options.max_frame,
    )
    return _Source(server_name(options.endpoint), service.startService, service.stopService)


def _recording(path: str, reactor: Any, tail: Tail, running: Running) -> _Source:
    """Print a recording, in steps of one piece."""
    recording = Recording(path)

    def steps() -> Iterator[None]:
        for piece in recording:
            if piece.begins:
                tail.begin()
            for event in piece.events:
                tail.received(event)
            if running.stopping:
                return
            yield
        tail.flush()
        running.stop(recording.report(say))

    def stop() -> None:
        stepper.stop()
        recording.close()

    stepper = Stepper(reactor, steps())
    return _Source(path, stepper.start, stop)


def _raw(options: argparse.Namespace, reactor: Any, tail: Tail, running: Running) -> _Source:
    """Print a raw capture, as it arrives."""

    def received(events: list[Event]) -> None:
        if not running.stopping:
            for event in events:
                tail.received(event)

    def ended(message: str, exit_code: int) -> None:
        # After --count, the rest of the capture is not reported.
        if not running.stopping:
            tail.flush()
            if message:
                say(message)
            running.stop(exit_code)

    capture = RawCapture(reactor, options.raw, options.max_frame, received, ended)
    return _Source(capture.name, capture.start, capture.stop)


def _source(options: argparse.Namespace, reactor: Any, tail: Tail, running: Running) -> _Source:
    """
    Return the source that the options choose.

    @raise EndpointError: the endpoint is invalid.
    @raise CommandError: the raw capture cannot be read.
    @raise RecordingError: the recording cannot be read.
    """
    if options.raw is not None:
        return _raw(options, reactor, tail, running)
    if is_recording(options.endpoint):
        return _recording(options.endpoint, reactor, tail, running)
    return _server(options, reactor, tail)


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    output = standard_output()

    def finish() -> object:
        tail.flush()
        return source.stop()

    running = Running(reactor, finish, output.cancel)
    exact = options.exact or options.raw is not None or not os.isatty(1)
    tail = Tail(
        reactor,
        options.endpoint,
        JsonLines if options.json else partial(TextLines, exact=exact),
        output.write,
        say,
        running.stop,
        options.filter,
        options.count,
        wants_tls(options),
        summarize=not (options.json or options.verbose),
    )
    source = _source(options, reactor, tail, running)

    def timed_out() -> int:
        if tail.received_any:
            return 0
        tail.end()
        say(f"received nothing from {source.name} within {show_seconds(options.duration)}")
        return 1

    if ReaderGone.watches(1):
        reactor.addReader(ReaderGone(1, lambda: running.stop(0)))
    if options.duration is not None:
        Deadline(reactor, options.duration, lambda: running.stop(timed_out()))
    return running.run(source.start)
