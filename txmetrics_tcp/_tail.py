"""
``metrics-tcp tail``: each event of a stream as a line of text, or of JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmetrics_tcp._arguments import at_least_one
from txmetrics_tcp._client import Connected, ConnectionState, MetricsClientService
from txmetrics_tcp._endpoint_options import add_endpoint_arguments, client_endpoint_from
from txmetrics_tcp._lines import JsonLines, Lines, TextLines
from txmetrics_tcp._model import Event
from txmetrics_tcp._output import Output, ReaderGone, say
from txmetrics_tcp._remarks import ConnectionRemarks
from txmetrics_tcp._running import Running
from txmetrics_tcp._wire import MAX_FRAME


class Tail:
    """
    Writes the events of a service as lines, and says how the connection is.

    Lines are written together, once for each turn of the reactor, so that a burst costs one
    write and a single event waits for nothing.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: str,
        make_lines: Callable[[], Lines],
        write: Callable[[str], object],
        say: Callable[[str], object],
        stop: Callable[[int], object],
    ) -> None:
        """
        @param endpoint: where the server is, as the user wrote it.
        @param make_lines: makes what turns the events of one connection into lines.
        @param write: takes whole lines.  May raise OSError.
        @param say: takes a remark of one line, for people.
        @param stop: called with an exit code when there is no point in going on.
        """
        self._clock = clock
        self._make_lines = make_lines
        self._write = write
        self._say = say
        self._stop = stop
        self._remarks = ConnectionRemarks(endpoint, say)
        self._format = make_lines()
        self._lines: list[str] = []
        self._flushing: IDelayedCall | None = None

    def received(self, event: Event) -> None:
        """An event has come."""
        self._lines.append(self._format(event))
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)

    def state_changed(self, state: ConnectionState) -> None:
        """The connection is in another state."""
        # What is said is to stand below the events that came before.
        self.flush()
        if isinstance(state, Connected):
            # Maybe to another server than before; it describes its metrics anew.
            self._format = self._make_lines()
        self._remarks.state_changed(state)

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


def run(options: argparse.Namespace, reactor: Any) -> int:
    """
    @return: the exit code.
    @raise EndpointError: the endpoint cannot be understood.
    """
    output = Output(1, getattr(sys.stdout, "encoding", None) or "utf-8")
    running = Running(reactor, lambda: service.stopService(), output.cancel)
    tail = Tail(
        reactor,
        options.endpoint,
        JsonLines if options.json else TextLines,
        output.write,
        say,
        running.stop,
    )
    service = MetricsClientService(
        reactor,
        client_endpoint_from(options, reactor),
        tail.received,
        observer=tail.state_changed,
        max_frame=options.max_frame,
    )
    if sys.stdout is None:
        # What is descriptor 1 by now is something else, the reactor's for example.
        say("cannot write: standard output is closed")
        return 1
    if ReaderGone.watches(1):
        reactor.addReader(ReaderGone(1, lambda: running.stop(0)))
    return running.run(service.startService)


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
        type=at_least_one("number of bytes"),
        default=MAX_FRAME,
        metavar="BYTES",
        help="""give a stream up when it announces a frame of more bytes than this (default:
        %(default)s)""",
    )
    parser.set_defaults(run=run)
