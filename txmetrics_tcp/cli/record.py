"""
``metrics-tcp record``: write the bytes of a stream and their timing to a file.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from txmetrics_tcp._client.service import Connected, ConnectionState
from txmetrics_tcp._client.tee import TappedEndpoint
from txmetrics_tcp._codec.decoder import Decoder
from txmetrics_tcp._codec.framing import Frames, read_varint
from txmetrics_tcp._model import METRIC_EVENTS, Event, Status, Unit, Unknown
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._recording.blocks import MAX_RECORDED_FRAME, RecordingError
from txmetrics_tcp._recording.writer import RecordingWriter
from txmetrics_tcp._view.numbers import show_duration, show_seconds, show_value
from txmetrics_tcp._view.text import counted
from txmetrics_tcp.cli.endpoint_options import (
    client_endpoint_from,
    names_directory,
    sources_of,
    wants_tls,
)
from txmetrics_tcp.cli.messages import ConnectionMessages, SourceMessages, received_nothing
from txmetrics_tcp.cli.output import CommandError, ReaderGone, check_standard_output, say
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.source_watch import ServerClient, SourceWatch
from txmetrics_tcp.cli.sources import Source

FLUSH_INTERVAL = 1.0
"""The time, in seconds, between writes to the file.  A killed process loses at most this much."""

ENDING = ".rec"
"""The ending of the names of files in a directory of recordings."""

_NOT_IN_FILES = re.compile(r"[^\w.@-]+")


class Tally:
    """
    The number of recorded metric events of all streams.

    @ivar metrics: their number so far.
    @ivar limit: the number to record; None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.metrics: int = 0
        self.limit: int | None = limit


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
        tally: Tally | None = None,
        unknown: Callable[[Unknown], object] = lambda event: None,
    ) -> None:
        """
        @param stop: called with an exit code after the last event to record.
        @param fail: called when the file cannot be written.
        @param tally: counts and limits the metric events; may be shared with other streams.
        @param unknown: called with each unknown event.
        """
        self._writer = writer
        self._stop = stop
        self._fail = fail
        self._tally = Tally() if tally is None else tally
        self._unknown = unknown
        self.metrics: int = 0
        self.received_any: bool = False
        self._missed_before = 0
        self._missed_now = 0
        # Splits the stream at the last event to record.  Used with a limit only.
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
        before = self.metrics
        for event in events:
            if isinstance(event, METRIC_EVENTS):
                self.metrics += 1
            elif isinstance(event, Status):
                self._missed_now = event.dropped_incoming + event.dropped_client
            elif isinstance(event, Unknown):
                self._unknown(event)
        self._tally.metrics += self.metrics - before

    def tap(self, data: bytes) -> None:
        """
        Record received bytes.

        @param data: the next bytes of the stream, which may end anywhere.
        """
        if self._ended:
            return
        tally = self._tally
        if tally.limit is not None:
            data, _ = self._frames.feed(data)
            surplus = tally.metrics - tally.limit
            if surplus >= 0:
                self._ended = True
                if surplus:
                    data = _without_last(data, surplus)
                    self.metrics -= surplus
                    tally.metrics -= surplus
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


class _Target(ServerClient):
    """
    The recording of one server.

    @ivar record: writes the data.
    @ivar path: the path of the file, as in messages.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        writer: RecordingWriter,
        record: Record,
        messages: ConnectionMessages | SourceMessages,
        path: str,
        max_frame: int,
    ) -> None:
        tapped = TappedEndpoint(endpoint, record.tap)
        super().__init__(reactor, tapped, self._received, self._state_changed, max_frame)
        self.writer = writer
        self.record = record
        self.messages = messages
        self.path = path

    def stop(self) -> Deferred[None]:
        stopped = super().stop()
        self.messages.end_silence()
        self.record.close()
        return stopped

    def _received(self, events: list[Event]) -> None:
        self.messages.received()
        self.record.received(events)

    def _state_changed(self, state: ConnectionState) -> None:
        if isinstance(state, Connected):
            self.record.begin()
        self.messages.state_changed(state)


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._sources = sources_of(options)
        self._in_directory = names_directory(options.file)
        self._progress = Progress(reactor, self._progress_text)
        self._tally = Tally(options.count)
        # The sources by the paths of the files of this run.
        self._files: dict[str, str] = {}
        # All recordings of this run, also those of sources that have disappeared.
        self._targets: list[_Target] = []
        self._failed = False

    def run(self) -> int:
        options = self._options
        if self._in_directory:
            try:
                os.makedirs(options.file, exist_ok=True)
            except OSError as error:
                raise CommandError(f"cannot create {options.file}: {error.strerror}") from None
        self._running = Running(self._reactor, self._finish, self._interrupt, lambda number: 0)
        try:
            self._watch: SourceWatch[_Target] = SourceWatch(
                self._reactor,
                self._sources,
                self._make,
                self._progress.say,
                failed=self._refused,
            )
        except BaseException:
            # Removes the files that were created.
            for target in self._targets:
                target.record.close()
            raise
        self._flushing = LoopingCall(self._flush)
        self._flushing.clock = self._clock
        code = self._running.run(self._start)
        received_any = any(target.record.received_any for target in self._targets)
        return 1 if self._failed else code or (0 if received_any else 1)

    def _make(self, source: Source) -> _Target:
        options = self._options
        endpoint = client_endpoint_from(options, self._reactor, source)
        path = self._path(source.name)
        again = path in self._files
        self._files[path] = source.name
        try:
            writer = _writer(options, path, source.name, again)
        except FileExistsError:
            raise CommandError(
                f"{path} already exists: use --append to extend it, or --force to overwrite it"
            ) from None
        except (OSError, RecordingError) as error:
            raise CommandError(_reason(path, error)) from None
        if writer.removed:
            say(
                f"{path} was cut off: keeping"
                f" {counted(writer.salvaged, 'complete frame')} of its"
                f" last {counted(writer.removed, 'byte')}"
            )
        messages_class = SourceMessages if self._sources.several else ConnectionMessages
        messages = messages_class(source.name, self._clock, self._progress.say, wants_tls(options))

        def fail(error: OSError) -> None:
            self._fail(path, error)

        record = Record(writer, self._running.stop, fail, self._tally, messages.unknown)
        self._targets.append(
            _Target(self._reactor, endpoint, writer, record, messages, path, options.max_frame)
        )
        return self._targets[-1]

    def _refused(self, text: str) -> None:
        self._progress.say(text)
        self._running.stop(2)

    def _path(self, name: str) -> str:
        """Return the path of the file for a source."""
        directory = self._options.file
        if not self._in_directory:
            return str(directory)
        stem = path = os.path.join(directory, file_name(name))
        number = 1
        while self._files.get(path, name) != name:
            number += 1
            path = f"{stem.removesuffix(ENDING)}-{number}{ENDING}"
        return path

    def _interrupt(self) -> None:
        for target in self._targets:
            target.writer.interrupt()

    def _flush(self) -> None:
        for target in list(self._watch.clients.values()):
            target.record.flush()

    def _start(self) -> None:
        self._started = self._clock.seconds()
        self._progress.start()
        self._flushing.start(FLUSH_INTERVAL, now=False)
        if self._options.duration is not None:
            Deadline(self._clock, self._options.duration, self._ended)
        if self._options.file == "-" and ReaderGone.watches(1):
            self._reactor.addReader(ReaderGone(1, self._reader_gone))
        self._watch.start()

    def _ended(self) -> None:
        for target in self._targets:
            target.messages.end_silence()
        self._running.stop(0)

    def _reader_gone(self) -> None:
        # The reactor also calls this when it stops.
        if not self._running.stopping:
            self._fail("-", BrokenPipeError())

    def _finish(self) -> Any:
        self._flushing.stop()
        self._progress.stop()
        stopped = self._watch.stop()
        if not self._failed:
            self._say_result()
        return stopped

    def _fail(self, path: str, error: OSError) -> None:
        if self._failed:
            return
        self._failed = True
        if isinstance(error, BrokenPipeError):
            self._progress.say("the reader of the recording has closed the pipe")
        else:
            self._progress.say(_reason(path, error))
        self._running.stop(1)

    def _progress_text(self) -> str:
        missed = f", {self._missed():,} dropped" if self._missed() else ""
        return (
            f"recording{self._of_sources()}:"
            f" {show_duration(self._clock.seconds() - self._started)},"
            f" {counted(self._tally.metrics, 'event')}, {self._size()}{missed}"
        )

    def _say_result(self) -> None:
        if not any(target.record.received_any for target in self._targets):
            names = list(dict.fromkeys(self._files.values()))
            say(f"{received_nothing(names)}; recorded nothing")
            return
        missed = self._missed()
        dropped = f"; the server dropped {counted(missed, 'event')}" if missed else ""
        if self._sources.several and missed:
            dropped = f"; the servers dropped {counted(missed, 'event')}"
        seconds = self._clock.seconds() - self._started
        say(
            f"recorded {counted(self._tally.metrics, 'event')}{self._of_sources()}"
            f" in {show_seconds(seconds)}: {self._size()}{dropped}"
        )

    def _of_sources(self) -> str:
        if not self._sources.several:
            return ""
        received = {target.path for target in self._targets if target.record.received_any}
        return f" of {counted(len(received), 'source')}"

    def _missed(self) -> int:
        return sum(target.record.missed for target in self._targets)

    def _size(self) -> str:
        size = sum(target.writer.bytes_written for target in self._targets)
        return show_value(size, Unit.BYTES)


def file_name(name: str) -> str:
    """
    Return the name of the file for a source.

        >>> file_name("127.0.0.1:5000")
        '127.0.0.1-5000.rec'
        >>> file_name("unix:/run/app/worker 1.sock")
        'run-app-worker-1.sock.rec'
    """
    stem = _NOT_IN_FILES.sub("-", name.removeprefix("unix:")).strip("-.")
    return f"{stem or 'source'}{ENDING}"


def _reason(path: str, error: OSError | RecordingError) -> str:
    return f"cannot record to {path}: {getattr(error, 'strerror', None) or error}"


def _writer(options: argparse.Namespace, path: str, source: str, again: bool) -> RecordingWriter:
    """
    @param again: whether this run has written the file before.
    @raise RecordingError: the file cannot be appended to, or standard output is a terminal.
    @raise OSError: the file cannot be written.
    """
    if path == "-":
        check_standard_output()
        if os.isatty(1):
            raise RecordingError("standard output is a terminal")
        return RecordingWriter(FileIO(1, "w", closefd=False), source, compress=options.compress)
    if options.append or again:
        return RecordingWriter.append(path, source, compress=options.compress)
    with suppress(OSError):
        # A name of an open pipe, such as /dev/stdout, resolves to a path that does not exist.
        if stat.S_ISFIFO(os.stat(os.path.realpath(path)).st_mode):
            say(f"waiting for a program that reads {path}")
    return RecordingWriter.create(path, source, overwrite=options.force, compress=options.compress)


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
