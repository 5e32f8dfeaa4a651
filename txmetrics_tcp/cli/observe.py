"""
``metrics-tcp observe``: start the viewer.  Textual is imported when the command runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.logger import globalLogBeginner

from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, HOST_PORT
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of, wants_tls
from txmetrics_tcp.cli.output import CommandError, say
from txmetrics_tcp.cli.source_watch import SourceWatch
from txmetrics_tcp.cli.sources import Source

if TYPE_CHECKING:
    from txmetrics_tcp.observe.app import ObserveApp

GARBAGE = 50_000
"""
The number of new objects after which Python collects cyclic garbage.  Tens of thousands of events
may arrive at once, and they contain no cycles.
"""

EXIT_TIMEOUT = 3.0
"""
The time, in seconds, in which the app exits after a signal.  A terminal that takes no output would
delay the exit indefinitely.
"""


def install_reactor() -> None:
    """
    Install the asyncio reactor, which Textual requires, unless a reactor is already installed.
    """
    from twisted.internet import asyncioreactor

    try:
        asyncioreactor.install(asyncio.new_event_loop())
    except ReactorAlreadyInstalledError:
        return


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    try:
        import textual  # noqa: F401
    except ImportError:
        raise CommandError(
            "observe requires Textual: pip install 'txmetrics-tcp[observe]'"
        ) from None
    from txmetrics_tcp.observe.sources import LiveSource, RecordingSource

    tls = wants_tls(options)

    def make(source: Source) -> LiveSource | RecordingSource:
        if source.recording:
            return RecordingSource(reactor, source.endpoint)
        endpoint = client_endpoint_from(options, reactor, source)
        command = server_command(source.name, tls)
        if source.stream is not None:
            command = ""
        return LiveSource(reactor, source.name, endpoint, options.max_frame, command, source.behind)

    refusals: list[str] = []

    def refused(text: str) -> None:
        refusals.append(text)
        app.exit(2)

    sources = sources_of(options)
    watch: SourceWatch[LiveSource | RecordingSource] = SourceWatch(
        reactor,
        sources,
        make,
        lambda text: app.show_message(text, bad=True),
        lambda: app.show_sources(list(watch.clients.values())),
        failed=refused,
    )
    for number, name in enumerate(("input", "output", "error")):
        # Textual draws on standard error.
        if not os.isatty(number):
            raise CommandError(
                f"observe requires a terminal, but standard {name} is not one; use tail instead"
            )
    from txmetrics_tcp.observe.app import ObserveApp

    awaited = ", ".join(
        [
            *(glob.text for glob in sources.globs),
            *(stream.text for stream in sources.streams),
            *sources.empty_files,
        ]
    )
    clients = list(watch.clients.values())
    app = ObserveApp(clients, Path(options.export_dir), awaited, watch.follow)
    code = run_app(reactor, app)
    for text in refusals:
        # The terminal is restored.
        say(text)
    return code


def run_app(reactor: Any, app: ObserveApp) -> int:
    """
    Run the app until it exits.

    @param reactor: an asyncio reactor that is not running yet.
    @return: the exit code.
    """
    # Twisted would otherwise write critical log events over the screen.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 50)

    timers: list[threading.Timer] = []

    def interrupted(exit_code: int) -> None:
        timers.append(threading.Timer(EXIT_TIMEOUT, os._exit, (exit_code,)))
        timers[-1].daemon = True
        timers[-1].start()
        # Restores the terminal.
        app.exit(exit_code)

    def start() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupted, 128 + number)
        task = loop.create_task(app.run_async())
        task.add_done_callback(lambda done: reactor.stop())

    reactor.callLater(0, start)
    reactor.run(installSignalHandlers=False)
    for timer in timers:
        timer.cancel()
    code = app.return_value
    return (app.return_code or 1) if code is None else code


def server_command(name: str, tls: bool) -> str:
    """Return the command that starts a server; empty for a Twisted endpoint string."""
    if not (HOST_PORT.fullmatch(name) or name.startswith("unix:")):
        return ""
    command = "twistd -n metrics-tcp"
    if name != DEFAULT_ENDPOINT:
        command += f" --listen {shlex.quote(name)}"
    return f"{command} --tls-key KEY --tls-cert CERT" if tls else command
