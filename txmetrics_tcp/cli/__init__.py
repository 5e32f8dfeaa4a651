"""
The console script ``metrics-tcp``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from txmetrics_tcp import __version__
from txmetrics_tcp._net.endpoint_syntax import EndpointError
from txmetrics_tcp._net.reactor_clock import measure_steadily
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.cli import observe, record, replay, stats, tail

_COMMANDS = (
    tail.add_command,
    stats.add_command,
    record.add_command,
    replay.add_command,
    observe.add_command,
)
"""
What adds each command, in the order of the help.

It is given what `argparse.ArgumentParser.add_subparsers` returned, adds its parser there, and
sets the default C{run} of it to a function of the options and the reactor that returns an exit
code.  One that needs a certain reactor sets C{install_reactor} to a function that installs it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    @param argv: the arguments; those of the process unless given.
    @return: the exit code.
    """
    options = _parser().parse_args(argv)
    try:
        install_reactor = getattr(options, "install_reactor", None)
        if install_reactor is not None:
            install_reactor()
        # Late, since importing it installs it.
        from twisted.internet import reactor

        measure_steadily(reactor)
        code: int = options.run(options, reactor)
    except EndpointError as error:
        print(f"metrics-tcp {options.command}: {visible(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metrics-tcp",
        description="Watch the metrics that a program streams, live.",
        epilog="metrics-tcp COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for add_command in _COMMANDS:
        add_command(commands)
    return parser
