"""
``metrics-tcp tail``: print each event of a stream as a line of text or JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
)
from txmetrics_tcp._model import METRIC_EVENTS, Event, Metric, Unknown
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.events import Recording, Stepper
from txmetrics_tcp._view.filters import Filter
from txmetrics_tcp._view.lines import JsonLines, Lines, TextLines
from txmetrics_tcp._view.numbers import show_seconds
from txmetrics_tcp._view.source_names import brief_names
from txmetrics_tcp._view.text import cell_width, visible
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of, wants_tls
from txmetrics_tcp.cli.messages import ConnectionMessages, SourceMessages, received_nothing
from txmetrics_tcp.cli.output import ReaderGone, say, standard_output
from txmetrics_tcp.cli.raw import RawCapture
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.selection import Selection
from txmetrics_tcp.cli.source_watch import ServerClient, SourceWatch
from txmetrics_tcp.cli.sources import Source
from txmetrics_tcp.cli.summary import Summary

MAX_NAME = 24
"""The maximum width to which names of sources are padded, in cells."""

COUNTS_DELAY = 1.0
"""The time, in seconds, after which counts are printed that no event has followed."""


class Printer:
    """
    Write the lines of all sources.

    Lines are collected and written once per reactor iteration, so that a burst costs one write and
    a single event is written without delay.

    @ivar lines: the pending lines.
    @ivar left: the number of metric events still to print; None for no limit.
    @ivar received_any: whether any event has been received.
    """

    def __init__(
        self,
        clock: IReactorTime,
        write: Callable[[str], object],
        say: Callable[[str], object],
        stop: Callable[[int], object],
        count: int | None = None,
    ) -> None:
        """
        @param write: called with whole lines.  May raise OSError.
        @param say: called with human-readable messages of one line.
        @param stop: called with an exit code at the end, or when lines cannot be written.
        @param count: the number of metric events to write; None for no limit.
        """
        self.clock = clock
        self._write = write
        self._say = say
        self._stop = stop
        self.lines: list[str] = []
        self.left: int | None = count
        self.received_any: bool = False
        self._flushing: IDelayedCall | None = None

    def schedule(self) -> None:
        """Write pending lines in the next reactor iteration."""
        if self._flushing is None:
            self._flushing = self.clock.callLater(0, self._flush)

    def count(self) -> None:
        """Count a printed metric event.  The last one ends the command."""
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.flush()
                self._stop(0)

    def say(self, text: str) -> None:
        """Print a message after the lines of earlier events."""
        self.flush()
        self._say(text)

    def flush(self) -> None:
        """Write pending lines now."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def _flush(self) -> None:
        self._flushing = None
        text = "\n".join([*self.lines, ""])
        self.lines.clear()
        try:
            self._write(text)
        except OSError as error:
            # Later events are not printed.
            self.left = 0
            broken = isinstance(error, BrokenPipeError)
            if not broken:
                self._say(f"cannot write to standard output: {error.strerror}")
            self._stop(0 if broken else 1)


class Tail:
    """
    Print the events of one source as lines, and report the state of its connection.

    @ivar prefix: precedes each line.
    """

    def __init__(
        self,
        printer: Printer,
        messages: ConnectionMessages | SourceMessages,
        make_lines: Callable[[], Lines],
        filters: Sequence[Filter] = (),
        summarize: bool = False,
    ) -> None:
        """
        @param messages: reports the state of the connection.
        @param make_lines: creates the formatter of the events of one connection.
        @param filters: select the series to write; if empty, all series are written.
        @param summarize: whether to write the number of initial descriptions and totals, rather
            than each of them.
        """
        self.prefix: str = ""
        self._printer = printer
        self._messages = messages
        self._make_lines = make_lines
        self._filters = filters
        self._summarize = summarize
        self._summary: Summary | None = None
        self._counting: IDelayedCall | None = None
        self._connected = False
        self._lines = printer.lines
        self.begin()

    def begin(self) -> None:
        """Begin a new stream, whose server sends its descriptions again."""
        self._end_counts()
        self._format = self._make_lines()
        self._summary = Summary(self._format) if self._summarize else None
        self._select = Selection(self._filters)

    def received(self, event: Event) -> None:
        """Write an event, unless the filters or the count exclude it."""
        printer = self._printer
        printer.received_any = True
        self._messages.received()
        if isinstance(event, Unknown):
            self._messages.unknown(event)
            return
        if printer.left == 0:
            return
        selected = self._select(event)
        if not selected:
            return
        summary = self._summary
        if summary is None or (isinstance(event, Metric) and not summary.counting):
            for one in selected:
                self._lines.append(self.prefix + self._format(one))
        elif lines := summary(selected):
            self._lines += [self.prefix + line for line in lines]
        else:
            if self._connected and self._counting is None:
                self._counting = printer.clock.callLater(COUNTS_DELAY, self._end_counts)
            return
        printer.schedule()
        if printer.left is not None and isinstance(event, METRIC_EVENTS):
            printer.count()

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
        self._printer.flush()

    def end(self) -> None:
        """Cancel pending messages."""
        self._messages.end_silence()

    def _end_counts(self) -> None:
        if self._counting is not None:
            if self._counting.active():
                self._counting.cancel()
            self._counting = None
        if self._summary is None or self._printer.left == 0:
            return
        if lines := self._summary.end():
            self._lines += [self.prefix + line for line in lines]
            self._printer.schedule()


def with_endpoint(make_lines: Callable[[], Lines], name: str) -> Callable[[], Lines]:
    """Return a maker of formatters of JSON lines that have the endpoint of their source."""
    field = f',"endpoint":{json.dumps(name)}}}'

    def make() -> Lines:
        format = make_lines()
        return lambda event: format(event)[:-1] + field

    return make


class _ServerTail(ServerClient):
    """
    The stream of a server, with reconnects.

    @ivar tail: prints the events.
    """

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, tail: Tail, max_frame: int
    ) -> None:
        super().__init__(reactor, endpoint, self._received, tail.state_changed, max_frame)
        self.tail = tail

    def stop(self) -> Deferred[None]:
        self.tail.flush()
        stopped = super().stop()
        self.tail.end()
        return stopped

    def _received(self, events: list[Event]) -> None:
        for event in events:
            self.tail.received(event)


class _RecordingTail:
    """
    A recording, printed in steps of one piece.

    @ivar tail: prints the events.
    """

    connected: bool = False

    def __init__(
        self,
        reactor: Any,
        path: str,
        tail: Tail,
        running: Running,
        ended: Callable[[int], object],
    ) -> None:
        """
        @param ended: called with an exit code at the end.
        @raise RecordingError: the recording cannot be read.
        """
        self.tail = tail
        self._running = running
        self._ended = ended
        self._recording = Recording(path)
        self._stepper = Stepper(reactor, self._steps())

    def start(self) -> None:
        self._stepper.start()

    def stop(self) -> None:
        self.tail.flush()
        self._stepper.stop()
        self._recording.close()

    def retry(self) -> None:
        pass

    def interrupted(self, reason: str) -> None:
        pass

    def _steps(self) -> Iterator[None]:
        for piece in self._recording:
            if piece.begins:
                self.tail.begin()
            for event in piece.events:
                self.tail.received(event)
            if self._running.stopping:
                return
            yield
        self.tail.flush()
        self._ended(self._recording.report(say))


class _Source(NamedTuple):
    """
    The origin of the events to print.

    @ivar names: returns the names of its sources in messages.
    @ivar start: begins to pass events to the tail.
    @ivar stop: ends it, and releases resources.  May return a Deferred.
    @ivar end: cancels pending messages.
    """

    names: Callable[[], Sequence[str]]
    start: Callable[[], object]
    stop: Callable[[], object]
    end: Callable[[], object]


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

    def stop() -> None:
        tail.flush()
        capture.stop()

    capture = RawCapture(reactor, options.raw, options.max_frame, received, ended)
    return _Source(lambda: [capture.name], capture.start, stop, tail.end)


class _Sources:
    """All servers and recordings of one run."""

    def __init__(
        self, options: argparse.Namespace, reactor: Any, printer: Printer, running: Running
    ) -> None:
        """
        @raise EndpointError: an endpoint is invalid.
        @raise RecordingError: a recording cannot be read.
        """
        self._options = options
        self._reactor = reactor
        self._printer = printer
        self._running = running
        self._sources = sources_of(options)
        self._endless = bool(self._sources.watched)
        self._recordings = 0
        self._exit_code = 0
        self._watch: SourceWatch[_ServerTail | _RecordingTail] = SourceWatch(
            reactor, self._sources, self._make, printer.say, self._name_lines, failed=self._refused
        )
        self._name_lines()

    def source(self) -> _Source:
        watch = self._watch
        return _Source(lambda: list(watch.clients), watch.start, watch.stop, self._end)

    def _make(self, source: Source) -> _ServerTail | _RecordingTail:
        options, several = self._options, self._sources.several
        make = _make_lines(options)
        if several and options.json:
            make = with_endpoint(make, source.name)
        messages_class = SourceMessages if several else ConnectionMessages
        messages = messages_class(source.name, self._reactor, self._printer.say, wants_tls(options))
        summarize = not (options.json or options.verbose)
        tail = Tail(self._printer, messages, make, options.filter, summarize)
        if source.recording:
            self._recordings += 1
            return _RecordingTail(
                self._reactor, source.endpoint, tail, self._running, self._recording_ended
            )
        self._endless = True
        endpoint = client_endpoint_from(options, self._reactor, source)
        return _ServerTail(self._reactor, endpoint, tail, options.max_frame)

    def _name_lines(self) -> None:
        """Have the lines begin with the short names of their sources."""
        if self._options.json or not self._sources.several:
            return
        brief = {name: visible(one) for name, one in brief_names([*self._watch.clients]).items()}
        width = min(max(map(cell_width, brief.values()), default=0), MAX_NAME)
        for name, client in self._watch.clients.items():
            text = brief[name]
            client.tail.prefix = f"{text}{' ' * (width - cell_width(text))}  "

    def _refused(self, text: str) -> None:
        self._printer.say(text)
        self._running.stop(2)

    def _recording_ended(self, exit_code: int) -> None:
        self._recordings -= 1
        self._exit_code = max(self._exit_code, exit_code)
        if not (self._recordings or self._endless):
            self._running.stop(self._exit_code)

    def _end(self) -> None:
        for client in self._watch.clients.values():
            client.tail.end()


def _make_lines(options: argparse.Namespace) -> Callable[[], Lines]:
    exact = options.exact or options.raw is not None or not os.isatty(1)
    return JsonLines if options.json else partial(TextLines, exact=exact)


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    output = standard_output()

    def finish() -> object:
        stopped = source.stop()
        printer.flush()
        return stopped

    running = Running(reactor, finish, output.cancel)
    printer = Printer(reactor, output.write, say, running.stop, options.count)
    if options.raw is not None:
        messages = ConnectionMessages(options.raw, reactor, printer.say, False)
        summarize = not (options.json or options.verbose)
        tail = Tail(printer, messages, _make_lines(options), options.filter, summarize)
        source = _raw(options, reactor, tail, running)
    else:
        source = _Sources(options, reactor, printer, running).source()

    def timed_out() -> int:
        if printer.received_any:
            return 0
        source.end()
        say(f"{received_nothing(source.names())} within {show_seconds(options.duration)}")
        return 1

    if ReaderGone.watches(1):
        reactor.addReader(ReaderGone(1, lambda: running.stop(0)))
    if options.duration is not None:
        Deadline(reactor, options.duration, lambda: running.stop(timed_out()))
    return running.run(source.start)
