"""
``metrics-tcp record``: write the bytes of a stream and their timing to a file.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from txmetrics_tcp._client.service import Connected, ConnectionState, MetricsClientService
from txmetrics_tcp._client.tee import TappedEndpoint
from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import Frames, read_varint
from txmetrics_tcp._model import METRIC_EVENTS, Event, Status, Unit, Unknown
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.blocks import MAX_RECORDED_FRAME, RecordingError
from txmetrics_tcp._recording.writer import RecordingWriter
from txmetrics_tcp._view.numbers import show_duration, show_seconds, show_value
from txmetrics_tcp._view.text import counted
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, wants_tls
from txmetrics_tcp.cli.messages import ConnectionMessages, server_name
from txmetrics_tcp.cli.output import CommandError, ReaderGone, check_standard_output, say
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running

FLUSH_INTERVAL = 1.0
"""The time, in seconds, between writes to the file.  A killed process loses at most this much."""


class Record:
    """
    Write the data that a service receives to a recording.

    @ivar metrics: the number of recorded metric events.
    @ivar received_any: whether any event has been received.
    """

    def __init__(
        self,
        writer: RecordingWriter,
        stop: Callable[[int], object],
        fail: Callable[[OSError], object],
        count: int | None = None,
        unknown: Callable[[Unknown], object] = lambda event: None,
    ) -> None:
        """
        @param stop: called with an exit code after C{count} events.
        @param fail: called when the file cannot be written.
        @param count: the number of metric events to record; None for no limit.
        @param unknown: called with each unknown event.
        """
        self._writer = writer
        self._stop = stop
        self._fail = fail
        self._count = count
        self._unknown = unknown
        self.metrics: int = 0
        self.received_any: bool = False
        self._missed_before = 0
        self._missed_now = 0
        # Splits the stream at the last event to record.  Used with `count` only.
        self._frames = Frames(MAX_RECORDED_FRAME)
        self._ended = False

    @property
    def missed(self) -> int:
        """The number of events that the server reported as dropped, over all connections."""
        return self._missed_before + self._missed_now

    def begin(self) -> None:
        """Handle a new connection."""
        self._missed_before, self._missed_now = self.missed, 0
        self._frames = Frames(MAX_RECORDED_FRAME)
        self._write(self._writer.connected)

    def received(self, events: list[Event]) -> None:
        """Count received events.  Their bytes are passed to `tap` afterwards."""
        self.received_any = True
        for event in events:
            if isinstance(event, METRIC_EVENTS):
                self.metrics += 1
            elif isinstance(event, Status):
                self._missed_now = event.dropped_incoming + event.dropped_client
            elif isinstance(event, Unknown):
                self._unknown(event)

    def tap(self, data: bytes) -> None:
        """
        Record received bytes.

        @param data: the next bytes of the stream, which may end anywhere.
        """
        if self._ended:
            return
        if self._count is not None:
            data, _ = self._frames.feed(data)
            surplus = self.metrics - self._count
            if surplus >= 0:
                self._ended = True
                if surplus:
                    data = _without_last(data, surplus)
                    self.metrics = self._count
        self._write(lambda: self._writer.write(data))
        if self._ended:
            self._stop(0)

    def flush(self) -> None:
        """Write buffered data to the file."""
        self._write(self._writer.flush)

    def close(self) -> None:
        """End the session and close the file."""
        self._ended = True
        try:
            self._writer.close()
        except OSError as error:
            self._fail(error)

    def _write(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            self._ended = True
            self._fail(error)


def _without_last(frames: bytes, surplus: int) -> bytes:
    """
    Remove the last metric events, and all frames after the last one that remains.

    @param frames: whole frames.
    @param surplus: the number of metric events to remove.
    """
    ends = []
    decoder = Decoder(MAX_RECORDED_FRAME)
    at = 0
    while at < len(frames):
        length, begin = read_varint(frames, at)
        begin, at = at, begin + length
        if any(isinstance(event, METRIC_EVENTS) for event in decoder.feed(frames[begin:at])):
            ends.append(at)
    return frames[: ends[-surplus - 1]] if len(ends) > surplus else b""


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        self._clock: IReactorTime = reactor
        self._endpoint = client_endpoint_from(options, reactor)
        self._reactor = reactor
        self._progress = Progress(reactor, self._progress_text)
        self._failed = False

    def run(self) -> int:
        options = self._options
        try:
            self._writer = _writer(options)
        except FileExistsError:
            raise CommandError(
                f"{options.file} already exists: use --append to extend it, or --force to overwrite"
                " it"
            ) from None
        except (OSError, RecordingError) as error:
            raise CommandError(self._reason(error)) from None
        if self._writer.removed:
            say(
                f"{options.file} was cut off: keeping"
                f" {counted(self._writer.salvaged, 'complete frame')} of its"
                f" last {counted(self._writer.removed, 'byte')}"
            )
        self._running = Running(
            self._reactor, self._finish, self._writer.interrupt, lambda number: 0
        )
        self._messages = ConnectionMessages(
            options.endpoint, self._clock, self._progress.say, wants_tls(options)
        )
        self._record = Record(
            self._writer, self._running.stop, self._fail, options.count, self._messages.unknown
        )
        self._service = MetricsClientService(
            self._reactor,
            TappedEndpoint(self._endpoint, self._record.tap),
            received_many=self._received,
            observer=self._state_changed,
            max_frame=options.max_frame,
        )
        self._flushing = LoopingCall(self._record.flush)
        self._flushing.clock = self._clock
        code = self._running.run(self._start)
        return 1 if self._failed else code or (0 if self._record.received_any else 1)

    def _start(self) -> None:
        self._started = self._clock.seconds()
        self._progress.start()
        self._flushing.start(FLUSH_INTERVAL, now=False)
        if self._options.duration is not None:
            Deadline(self._clock, self._options.duration, self._ended)
        if self._options.file == "-" and ReaderGone.watches(1):
            self._reactor.addReader(ReaderGone(1, self._reader_gone))
        self._service.startService()

    def _ended(self) -> None:
        self._messages.end_silence()
        self._running.stop(0)

    def _reader_gone(self) -> None:
        # The reactor also calls this when it stops.
        if not self._running.stopping:
            self._fail(BrokenPipeError())

    def _finish(self) -> Any:
        self._flushing.stop()
        self._progress.stop()
        stopped = self._service.stopService()
        self._record.close()
        if not self._failed:
            self._say_result()
        return stopped

    def _received(self, events: list[Event]) -> None:
        self._messages.end_silence()
        self._record.received(events)

    def _state_changed(self, state: ConnectionState) -> None:
        if isinstance(state, Connected):
            self._record.begin()
        self._messages.state_changed(state)

    def _fail(self, error: OSError) -> None:
        if self._failed:
            return
        self._failed = True
        if isinstance(error, BrokenPipeError):
            self._progress.say("the reader of the recording has closed the pipe")
        else:
            self._progress.say(self._reason(error))
        self._running.stop(1)

    def _reason(self, error: OSError | RecordingError) -> str:
        return f"cannot record to {self._options.file}: {getattr(error, 'strerror', None) or error}"

    def _progress_text(self) -> str:
        record = self._record
        missed = f", {record.missed:,} dropped" if record.missed else ""
        return (
            f"recording: {show_duration(self._clock.seconds() - self._started)},"
            f" {counted(record.metrics, 'event')}, {self._size()}{missed}"
        )

    def _say_result(self) -> None:
        record = self._record
        if not record.received_any:
            say(f"received nothing from {server_name(self._options.endpoint)}; recorded nothing")
            return
        missed = f"; the server dropped {counted(record.missed, 'event')}" if record.missed else ""
        seconds = self._clock.seconds() - self._started
        say(
            f"recorded {counted(record.metrics, 'event')} in {show_seconds(seconds)}:"
            f" {self._size()}{missed}"
        )

    def _size(self) -> str:
        return show_value(self._writer.bytes_written, Unit.BYTES)


def _writer(options: argparse.Namespace) -> RecordingWriter:
    """
    @raise RecordingError: the file cannot be appended to, or standard output is a terminal.
    @raise OSError: the file cannot be written.
    """
    source = server_name(options.endpoint)
    if options.file == "-":
        check_standard_output()
        if os.isatty(1):
            raise RecordingError("standard output is a terminal")
        return RecordingWriter(FileIO(1, "w", closefd=False), source, compress=options.compress)
    if options.append:
        return RecordingWriter.append(options.file, source, compress=options.compress)
    with suppress(OSError):
        # A name of an open pipe, such as /dev/stdout, resolves to a path that does not exist.
        if stat.S_ISFIFO(os.stat(os.path.realpath(options.file)).st_mode):
            say(f"waiting for a program that reads {options.file}")
    return RecordingWriter.create(
        options.file, source, overwrite=options.force, compress=options.compress
    )


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
