"""
``metrics-tcp tail``: each event of a stream as a line of text, or of JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmetrics_tcp._client.service import Connected, ConnectionState, MetricsClientService
from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import StreamError
from txmetrics_tcp._model import Event, Metric
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.blocks import MAX_RECORDED_FRAME, RecordingError
from txmetrics_tcp._recording.reader import RecordingReader
from txmetrics_tcp._view.filters import Filter
from txmetrics_tcp._view.lines import JsonLines, Lines, TextLines
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, is_recording, wants_tls
from txmetrics_tcp.cli.messages import ConnectionMessages, server_name
from txmetrics_tcp.cli.output import Output, ReaderGone, say
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.selection import Selection


class Tail:
    """
    Writes the events of a service as lines, and says how the connection is.

    Lines are written together, once for each turn of the reactor, so that a burst costs one
    write and a single event waits for nothing.

    @ivar told: whether anything has ever come.
    """

    told = False

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
    ) -> None:
        """
        @param endpoint: where the server is, as the user wrote it.
        @param make_lines: makes what turns the events of one connection into lines.
        @param write: takes whole lines.  May raise OSError.
        @param say: takes a remark of one line, for people.
        @param stop: called with an exit code when there is no point in going on.
        @param filters: whose series are written; without any, all.
        @param count: after how many events of metrics it is over; None for never.
        @param tls: whether the server is spoken to with TLS.
        """
        self._clock = clock
        self._make_lines = make_lines
        self._write = write
        self._say = say
        self._stop = stop
        self._filters = filters
        self._left = count
        self._messages = ConnectionMessages(endpoint, clock, say, tls)
        self.begin()
        self._lines: list[str] = []
        self._flushing: IDelayedCall | None = None

    def begin(self) -> None:
        """A stream begins; maybe from another server, which describes its metrics anew."""
        self._format = self._make_lines()
        self._select = Selection(self._filters)

    def received(self, event: Event) -> None:
        """An event has come."""
        self.told = True
        self._messages.end_silence()
        if self._left == 0:
            return
        for selected in self._select(event):
            self._lines.append(self._format(selected))
            if self._left is not None and isinstance(selected, Metric):
                self._left -= 1
        if self._lines and self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)
        if self._left == 0:
            self.flush()
            self._stop(0)

    def state_changed(self, state: ConnectionState) -> None:
        """The connection is in another state."""
        # What is said is to stand below the events that came before.
        self.flush()
        if isinstance(state, Connected):
            self.begin()
        self._messages.state_changed(state)

    def flush(self) -> None:
        """Write what has come."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    def _flush(self) -> None:
        self._flushing = None
        lines, self._lines = self._lines, []
        lines.append("")
        try:
            self._write("\n".join(lines))
        except BrokenPipeError:
            self._stop(0)
        except OSError as error:
            self._say(f"cannot write: {error.strerror}")
            self._stop(1)


class _RecordingTail:
    """Has the events of a recording written, as fast as that goes."""

    def __init__(
        self, clock: IReactorTime, path: str, tail: Tail, stop: Callable[[int], object]
    ) -> None:
        """
        @raise RecordingError: it is no recording.
        @raise OSError: it cannot be read.
        """
        self._clock = clock
        self._path = path
        self._tail = tail
        self._stop = stop
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 - closed when it has been read
        try:
            self._reader = RecordingReader.begun(self._file)
        except BaseException:
            self._file.close()
            raise
        self._events = self._read()

    def start(self) -> None:
        self._turn: IDelayedCall | None = self._clock.callLater(0, self._go_on)

    def stop(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
        self._file.close()

    def _go_on(self) -> None:
        self._turn = None
        batch: list[Event] = []
        problem = ""
        try:
            # What comes out before it raises is in the list.
            batch.extend(islice(self._events, 1000))
        except (OSError, StreamError) as error:
            problem = str(error)
        for event in batch:
            self._tail.received(event)
        self._tail.flush()
        if problem:
            self._end(problem, 1)
        elif batch:
            self._turn = self._clock.callLater(0, self._go_on)
        elif self._reader.damage:
            self._end(self._reader.damage, 1)
        elif self._reader.cut_off:
            self._end("it was cut off; this was its last whole event", 0)
        else:
            self._stop(0)

    def _end(self, remark: str, exit_code: int) -> None:
        say(f"{self._path}: {remark}")
        self._stop(exit_code)

    def _read(self) -> Iterator[Event]:
        decoder = Decoder(MAX_RECORDED_FRAME)
        for chunk in self._reader:
            if chunk.begins:
                self._tail.begin()
            yield from decoder.feed(chunk.frames)


def run(options: argparse.Namespace, reactor: Any) -> int:
    """
    @return: the exit code.
    @raise EndpointError: the endpoint cannot be understood.
    """
    output = Output(1, getattr(sys.stdout, "encoding", None) or "utf-8")
    running = Running(reactor, lambda: stop(), output.cancel)
    tail = Tail(
        reactor,
        options.endpoint,
        JsonLines if options.json else TextLines,
        output.write,
        say,
        running.stop,
        options.filter,
        options.count,
        wants_tls(options),
    )
    start: Callable[[], object]
    stop: Callable[[], object]
    recorded = is_recording(options.endpoint)
    if recorded:
        try:
            recording = _RecordingTail(reactor, options.endpoint, tail, running.stop)
        except RecordingError as error:
            say(f"{options.endpoint}: {error}")
            return 1
        except OSError as error:
            say(f"{options.endpoint}: {error.strerror or error}")
            return 1
        start, stop = recording.start, recording.stop
    else:
        service = MetricsClientService(
            reactor,
            client_endpoint_from(options, reactor),
            tail.received,
            observer=tail.state_changed,
            max_frame=options.max_frame,
        )
        start, stop = service.startService, service.stopService

    def timed_out() -> int:
        if recorded or tail.told:
            return 0
        say(
            f"nothing came from {server_name(options.endpoint)} within {options.duration:g} seconds"
        )
        return 1

    if sys.stdout is None:
        # What is descriptor 1 by now is something else, the reactor's for example.
        say("cannot write: standard output is closed")
        return 1
    if ReaderGone.watches(1):
        reactor.addReader(ReaderGone(1, lambda: running.stop(0)))
    if options.duration is not None:
        Deadline(reactor, options.duration, lambda: running.stop(timed_out()))
    return running.run(start)
