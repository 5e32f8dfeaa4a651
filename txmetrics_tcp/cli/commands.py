"""
Import the module of a command and run it.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from txmetrics_tcp._net.internals import (
    global_reactor,
    resolve_in_daemon_threads,
    use_monotonic_clock,
)
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp.cli.output import CommandError, say


def run_command(options: argparse.Namespace) -> int:
    """
    Run a command on the reactor.

    The module of a command has a function C{run}, which takes the options and the reactor.  It
    returns an exit code, or raises EndpointError, CommandError or RecordingError.  A module that
    requires a particular reactor also has C{install_reactor}.

    @param options: the result of the parser in `txmetrics_tcp.cli.parser`.
    @return: the exit code.
    @raise EndpointError: an endpoint is invalid.
    """
    command = import_module(f"txmetrics_tcp.cli.{options.command}")
    if hasattr(command, "install_reactor"):
        command.install_reactor()
    reactor = global_reactor()
    use_monotonic_clock(reactor)
    resolve_in_daemon_threads(reactor)
    try:
        code: int = command.run(options, reactor)
    except (CommandError, RecordingError) as error:
        say(str(error))
        return 1
    return code
