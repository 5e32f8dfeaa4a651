"""
The console script ``metrics-tcp``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from txmetrics_tcp._net.endpoint_syntax import EndpointError, without_credentials
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.cli.endpoint_options import check_endpoints
from txmetrics_tcp.cli.parser import parse_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    @param argv: the arguments; by default those of the process.
    @return: the exit code.
    """
    options = parse_arguments(argv)
    try:
        if options.command == "run":
            # Runs on no reactor: nothing of Twisted is imported.
            from txmetrics_tcp.cli.run import run

            return run(options)
        check_endpoints(options)
        # Imported late: this loads Twisted and protobuf, which takes ten times as long as parsing.
        from txmetrics_tcp.cli.commands import run_command

        return run_command(options)
    except EndpointError as error:
        print(
            f"metrics-tcp {options.command}: {visible(without_credentials(str(error)))}",
            file=sys.stderr,
        )
        return 2
    except RecordingError as error:
        print(f"metrics-tcp: {visible(without_credentials(str(error)))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
