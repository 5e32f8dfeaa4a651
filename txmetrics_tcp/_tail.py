"""
``metrics-tcp tail``: each event of a stream as a line of text, or of JSON.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._client import (
    Connected,
    Connecting,
    ConnectionState,
    Disconnected,
    MetricsClientService,
    Waiting,
)
from txmetrics_tcp._endpoint_options import add_endpoint_arguments, client_endpoint_from
from txmetrics_tcp._endpoints import DEFAULT_HOST
from txmetrics_tcp._model import Event, Metadata, Metric, MetricKind, Operation, Status, Unit
from txmetrics_tcp._wire import MAX_FRAME

# Events as lines


Lines = Callable[[Event], str]
"""Turns the events of one connection into lines, without what ends a line."""

_ACT = {operation: operation.name.lower().partition("_")[0] for operation in Operation}
"""What an operation is called beside the kind of its metric: ``increment``, ``set``, …"""

_WHAT = {
    operation: f"{operation.kind.value}/{_ACT[operation]}".ljust(len("counter/increment"))
    for operation in Operation
}

MAX_UNITS = 10_000
"""For how many metrics `TextLines` remembers a unit, whatever a server says."""


def visible(text: str) -> str:
    """
    Show what a terminal would act on, or not show at all, instead of sending it there.

    That is all but letters, marks, numbers, punctuation, symbols and the plain space: control
    characters (C0 and C1, escape sequences with them), characters that change the direction of
    text, separators of lines and paragraphs, characters without width.

        >>> print(visible("a\\x1b[2Jb\\u202e\\n"))
        a\\x1b[2Jb\\u202e\\n
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class TextLines:
    """
    Lines for people: time, kind and operation, name and labels, value and unit::

        12:30:05.042 counter/increment requests_total [route = /] 1
        12:30:05.042 histogram/record  latency 0.0015 s

    Times are local.  The unit is known if it was described before.
    """

    def __init__(self, localtime: Callable[[float], time.struct_time] = time.localtime) -> None:
        self._localtime = localtime
        self._second = -1
        self._clock = ""
        self._units: dict[tuple[MetricKind, str], str] = {}

    def __call__(self, event: Event) -> str:
        if not isinstance(event, Metric):
            return self._metadata(event) if isinstance(event, Metadata) else self._status(event)
        key = event.key
        unit = self._units.get((key.kind, key.name), "") if self._units else ""
        return (
            f"{self._time(event.timestamp_ns)} {_WHAT[event.operation]}"
            f" {visible(str(key))} {event.value!r}{unit}"
        )

    def _metadata(self, metadata: Metadata) -> str:
        self._remember(metadata)
        unit = f" ({visible(metadata.unit)})" if metadata.unit else ""
        description = f": {visible(metadata.description)}" if metadata.description else ""
        return f"metadata     {metadata.kind.value:17} {visible(metadata.name)}{unit}{description}"

    def _status(self, status: Status) -> str:
        second = status.started_ns // 1_000_000_000
        started = self._show("%Y-%m-%d %H:%M:%S", second)
        missed = status.dropped_incoming + status.dropped_client
        where = f" (incoming {status.dropped_incoming}, client {status.dropped_client})"
        return (
            f"status       {visible(status.source)}, started {started}"
            f", events missed: {missed}{where if missed else ''}"
        )

    def _remember(self, metadata: Metadata) -> None:
        unit = metadata.unit or ""
        try:
            label = Unit(unit).label
        except ValueError:
            label = visible(unit)
        units = self._units
        units.pop((metadata.kind, metadata.name), None)
        if label:
            units[metadata.kind, metadata.name] = f" {label}"
            if len(units) > MAX_UNITS:
                del units[next(iter(units))]

    def _time(self, timestamp_ns: int) -> str:
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._clock = self._show("%H:%M:%S", second)
        return f"{self._clock}.{nanos // 1_000_000:03}"

    def _show(self, how: str, second: int) -> str:
        try:
            return time.strftime(how, self._localtime(second))
        except (OverflowError, ValueError, OSError):
            # A time that no calendar has, from a peer that may send any number.
            return f"@{second}"


class JsonLines:
    """
    Lines for programs: one JSON object each, in ASCII.  docs/json-lines.md describes them.
    """

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
        self._second = -1
        self._clock: str | None = None

    def __call__(self, event: Event) -> str:
        if isinstance(event, Metric):
            return self._encode(self._metric(event))
        if isinstance(event, Metadata):
            return self._encode(self._metadata(event))
        return self._encode(self._status(event))

    def _metric(self, metric: Metric) -> dict[str, object]:
        key = metric.key
        value = metric.value
        return {
            "event": "metric",
            "time": self._time(metric.timestamp_ns),
            "timestamp_ns": metric.timestamp_ns,
            "kind": key.kind.value,
            "operation": _ACT[metric.operation],
            "name": key.name,
            "labels": dict(key.labels),
            "value": value if math.isfinite(value) else _not_finite(value),
        }

    def _metadata(self, metadata: Metadata) -> dict[str, object]:
        return {
            "event": "metadata",
            "kind": metadata.kind.value,
            "name": metadata.name,
            "unit": None if metadata.unit is None else str(metadata.unit),
            "description": metadata.description,
        }

    def _status(self, status: Status) -> dict[str, object]:
        return {
            "event": "status",
            "source": status.source,
            "started": self._time(status.started_ns),
            "started_ns": status.started_ns,
            "dropped_incoming": status.dropped_incoming,
            "dropped_client": status.dropped_client,
        }

    def _time(self, timestamp_ns: int) -> str | None:
        second, nanos = divmod(timestamp_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._clock = _utc(second)
        return None if self._clock is None else f"{self._clock}.{nanos:09}Z"


def _not_finite(value: float) -> str:
    # JSON has no such numbers; these are the strings that protobuf's own mapping to JSON uses.
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _utc(second: int) -> str | None:
    """Date and time to the second; None outside of the years that RFC 3339 knows."""
    try:
        moment = time.gmtime(second)
    except (OverflowError, ValueError, OSError):
        return None
    if not 1 <= moment.tm_year <= 9999:
        return None
    return f"{moment.tm_year:04}{time.strftime('-%m-%dT%H:%M:%S', moment)}"


# Lines to where they belong


class Tail:
    """
    Writes the events of a service as lines, and says how the connection is.

    Lines are written together, once for each turn of the reactor, so that a burst costs one
    write and a single event waits for nothing.
    """

    def __init__(
        self,
        clock: IReactorTime,
        server: str,
        make_lines: Callable[[], Lines],
        write: Callable[[str], object],
        say: Callable[[str], object],
        stop: Callable[[int], object],
    ) -> None:
        """
        @param server: what the server is called in what is said.
        @param make_lines: makes what turns the events of one connection into lines.
        @param write: takes whole lines.  May raise OSError.
        @param say: takes a remark of one line, for people.
        @param stop: called with an exit code when there is no point in going on.
        """
        self._clock = clock
        self._server = server
        self._make_lines = make_lines
        self._write = write
        self._say = say
        self._stop = stop
        self._format = make_lines()
        self._lines: list[str] = []
        self._flushing: IDelayedCall | None = None
        self._begun = False
        self._lost = ""

    def received(self, event: Event) -> None:
        """An event has come."""
        self._lines.append(self._format(event))
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)

    def state_changed(self, state: ConnectionState) -> None:
        """The connection is in another state."""
        # What is said is to stand below the events that came before.
        self.flush()
        match state:
            case Connecting():
                if not self._begun:
                    self._begun = True
                    self._say(f"connecting to {self._server}")
            case Connected():
                # Maybe to another server than before; it describes its metrics anew.
                self._format = self._make_lines()
                self._lost = "disconnected from"
                self._say(f"connected to {self._server}")
            case Disconnected():
                self._lost = f"{self._lost or 'cannot connect to'} {self._server}: {state}"
            case Waiting():
                self._say(f"{self._lost}; next attempt in {state.seconds:.1f} seconds")
                self._lost = ""

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


class Output:
    """
    Standard output, written to without a buffer of ours: what was written is out.

    Writing waits while the reader is slow; meanwhile the reactor stands still, and the server
    drops and counts what it cannot send.

    @ivar cancelled: set, by a signal handler for example, ends a write that waits.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self.cancelled = False

    def write(self, text: str) -> None:
        """
        @raise BrokenPipeError: nobody reads any more.
        @raise OSError: it cannot be written, to a full disk for example.
        """
        waiting = memoryview(text.encode(self._encoding, "backslashreplace"))
        while waiting and not self.cancelled:
            # So much never waits, and so a signal is heeded whenever it comes; a write that waits
            # is resumed by Python after a signal, for ever.
            if select.select([], [self._descriptor], [], 0.1)[1]:
                written = os.write(self._descriptor, waiting[: select.PIPE_BUF])
                waiting = waiting[written:]


@implementer(IReadDescriptor)
class ReaderGone:
    """
    Notices at once, and not only at the next write, that nobody reads a pipe any more.

    To a reactor, the writing end of such a pipe is ready to be read.
    """

    def __init__(self, descriptor: int, gone: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._gone = gone

    @staticmethod
    def watches(descriptor: int) -> bool:
        """Whether a descriptor is of the kind that this works for."""
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "stdout"

    def doRead(self) -> Any:
        return CONNECTION_LOST

    def connectionLost(self, reason: Failure) -> None:
        self._gone()


# The command


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        """
        @raise EndpointError: the endpoint cannot be understood.
        """
        self._reactor = reactor
        self._output = Output(1, getattr(sys.stdout, "encoding", None) or "utf-8")
        self._tail = Tail(
            reactor,
            _name(options.endpoint),
            JsonLines if options.json else TextLines,
            self._output.write,
            _say,
            self._stop,
        )
        self._service = MetricsClientService(
            reactor,
            client_endpoint_from(options, reactor),
            self._tail.received,
            observer=self._tail.state_changed,
            max_frame=options.max_frame,
        )
        self._exit_code: int | None = None

    def run(self) -> int:
        if sys.stdout is None:
            # What is descriptor 1 by now is something else, the reactor's for example.
            _say("cannot write: standard output is closed")
            return 1
        if ReaderGone.watches(1):
            self._reactor.addReader(ReaderGone(1, lambda: self._stop(0)))
        # Twisted's own handlers would only be heeded when a write has come to its end.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupted)
        self._reactor.callWhenRunning(self._service.startService)
        self._reactor.run(installSignalHandlers=False)
        return self._exit_code or 0

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        # A second time is for who does not want to wait, for a slow name server for example.
        signal.signal(number, signal.SIG_DFL)
        self._output.cancelled = True
        self._reactor.callFromThread(self._stop, 128 + number)

    def _stop(self, exit_code: int) -> None:
        if self._exit_code is None:
            self._exit_code = exit_code
            self._service.stopService().addBoth(lambda result: self._reactor.stop())


def _name(endpoint: str) -> str:
    return f"{DEFAULT_HOST}:{endpoint}" if endpoint.isdigit() else endpoint


def _say(text: str) -> None:
    if sys.stderr is not None:
        # It may be that nobody is there any more to be told.
        with suppress(OSError):
            os.write(2, f"metrics-tcp: {visible(text)}\n".encode())


def _size(text: str) -> int:
    size = int(text)
    if size < 1:
        raise ValueError
    return size


_size.__name__ = "number of bytes"  # argparse calls it so


def run(options: argparse.Namespace, reactor: Any) -> int:
    """
    @return: the exit code.
    @raise EndpointError: the endpoint cannot be understood.
    """
    return _Command(reactor, options).run()


def add_command(commands: Any) -> None:
    """
    Add the command to ``metrics-tcp``.

    @param commands: what `argparse.ArgumentParser.add_subparsers` gave.
    """
    parser = commands.add_parser(
        "tail",
        help="print each event as a line",
        description="""Connect to a server of metrics and print each event as a line, until
        interrupted. A connection that ends, or does not come about, is tried again after a while.
        Events go to standard output; how the connection is, to standard error.""",
        epilog="""Exit codes: 0 when nobody reads the output any more (as with "| head"), 1 when
        it cannot be written, 2 for wrong arguments, 130 when interrupted (Ctrl-C), 143 when
        terminated. While standard output is slow, nothing is read: the server then drops events,
        and counts them.""",
    )
    add_endpoint_arguments(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, one object a line; docs/json-lines.md says what is in it",
    )
    parser.add_argument(
        "--max-frame",
        type=_size,
        default=MAX_FRAME,
        metavar="BYTES",
        help="""give a stream up when it announces a frame of more bytes than this (default:
        %(default)s)""",
    )
    parser.set_defaults(run=run)
