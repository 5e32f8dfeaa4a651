"""
``metrics-tcp observe``, as the console script sees it.  Textual is imported when it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.logger import globalLogBeginner

from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.cli.arguments import add_max_frame_argument
from txmetrics_tcp.cli.endpoint_options import (
    ENDPOINT_HELP,
    add_tls_arguments,
    client_endpoint_from,
    is_recording,
)
from txmetrics_tcp.cli.messages import server_name

if TYPE_CHECKING:
    from txmetrics_tcp.observe.app import ObserveApp
    from txmetrics_tcp.observe.sources import Source

GARBAGE = 50_000
"""
After how many new objects Python looks for garbage in cycles: events come by the ten thousand, and
have none.
"""


def install_reactor() -> None:
    """
    Install the reactor that runs on asyncio, on which Textual runs; leave one that is there.
    """
    from twisted.internet import asyncioreactor

    try:
        asyncioreactor.install(asyncio.new_event_loop())
    except ReactorAlreadyInstalledError:
        return


def run(options: argparse.Namespace, reactor: Any) -> int:
    """
    @return: the exit code.
    @raise EndpointError: an endpoint cannot be understood.
    """
    try:
        import textual  # noqa: F401
    except ImportError:
        return _refuse("this needs Textual: pip install 'txmetrics-tcp[observe]'")
    try:
        sources = [_source(options, reactor, text) for text in options.endpoints]
    except _UnreadableError as error:
        return _refuse(str(error))
    for number, name in enumerate(("input", "output", "error")):
        # The last is what Textual draws on.
        if not os.isatty(number):
            return _refuse(f"this needs a terminal, and standard {name} is none; see also: tail")
    from txmetrics_tcp.observe.app import ObserveApp

    return run_app(reactor, ObserveApp(sources, options.export_dir))


def run_app(reactor: Any, app: ObserveApp) -> int:
    """
    Show the app until it is left.

    @param reactor: one on asyncio, not running yet.
    @return: the exit code.
    """
    # What is critical would otherwise be written over the screen.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 50)

    def start() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # The terminal is left as it was found.
            loop.add_signal_handler(number, app.exit, 128 + number)
        task = loop.create_task(app.run_async())
        task.add_done_callback(lambda done: reactor.stop())

    reactor.callLater(0, start)
    reactor.run(installSignalHandlers=False)
    code = app.return_value
    return (app.return_code or 1) if code is None else code


class _UnreadableError(Exception):
    """A file that is there, and that nothing can be shown of."""


def _source(options: argparse.Namespace, reactor: Any, text: str) -> Source:
    """
    @raise EndpointError: it is neither a file nor an endpoint.
    @raise _UnreadableError: it is a file, and no recording.
    """
    from txmetrics_tcp.observe.sources import LiveSource, RecordingSource

    if is_recording(text):
        try:
            return RecordingSource(reactor, text)
        except RecordingError as error:
            raise _UnreadableError(f"{text}: {error}") from None
        except OSError as error:
            raise _UnreadableError(f"{text}: cannot be read: {error.strerror}") from None
    endpoint = client_endpoint_from(options, reactor, text)
    return LiveSource(reactor, server_name(text), endpoint, options.max_frame)


def _refuse(reason: str) -> int:
    print(f"metrics-tcp observe: {visible(reason)}", file=sys.stderr)
    return 1


def add_command(commands: Any) -> None:
    """
    Add the command to ``metrics-tcp``.

    @param commands: what `argparse.ArgumentParser.add_subparsers` gave.
    """
    parser = commands.add_parser(
        "observe",
        help="watch series live, on the whole screen",
        description="""Watch the series of one or more servers live, on the whole screen of the
        terminal: values, rates, trends and percentiles, filtered, sorted and grouped. Press ? for
        all keys. A connection that ends, or does not come about, is tried again after a while.""",
        epilog="""Exit codes: 0 when left (q, Ctrl-C), 1 when it cannot be shown (no terminal, a
        file that is no recording, or Textual is not installed: pip install
        'txmetrics-tcp[observe]'), 2 for wrong arguments, 130
        when interrupted and 143 when terminated from outside. docs/observe.md has more.""",
    )
    parser.add_argument(
        "endpoints",
        nargs="*",
        default=[DEFAULT_ENDPOINT],
        metavar="ENDPOINT",
        help=f"""where a server is: {ENDPOINT_HELP}; or a file that "metrics-tcp record" has
        written (default: {DEFAULT_ENDPOINT})""",
    )
    add_tls_arguments(parser)
    parser.add_argument(
        "--export-dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where exports and screenshots are written (default: the current directory)",
    )
    add_max_frame_argument(parser)
    parser.set_defaults(run=run, install_reactor=install_reactor)
