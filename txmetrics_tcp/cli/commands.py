"""
The modules of the commands, each imported when its command runs.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from txmetrics_tcp._net.internals import global_reactor, use_monotonic_clock
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp.cli.output import CommandError, say


def run_command(options: argparse.Namespace) -> int:
    """
    Run a command on the reactor.

    The module of a command has a function C{run} of the options and the reactor, which returns an
    exit code, or raises EndpointError, CommandError, or RecordingError for a file that is no
    recording.  One that needs a certain reactor has C{install_reactor} as well.

    @param options: what `txmetrics_tcp.cli.parser` made of the arguments.
    @return: the exit code.
    @raise EndpointError: an endpoint cannot be understood.
    """
    command = import_module(f"txmetrics_tcp.cli.{options.command}")
    if hasattr(command, "install_reactor"):
        command.install_reactor()
    reactor = global_reactor()
    use_monotonic_clock(reactor)
    try:
        code: int = command.run(options, reactor)
    except (CommandError, RecordingError) as error:
        say(str(error))
        return 1
    return code
