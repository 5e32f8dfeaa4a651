"""
How the commands of ``metrics-tcp`` are told where a server is, and how to talk to it.

The same arguments for every command: it calls `add_endpoint_arguments`, or, if its endpoints are
not one argument called C{endpoint}, `add_tls_arguments`, and then `client_endpoint_from`.
"""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from txmetrics_tcp._endpoints import DEFAULT_ENDPOINT, client_endpoint

ENDPOINT_HELP = """PORT (on this machine), HOST:PORT, [IPV6]:PORT, or one of Twisted's client
endpoint strings, such as unix:/run/metrics.sock"""
"""What may be written for an endpoint, to be put into a command's help."""


def add_endpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one endpoint, C{options.endpoint}, and how to talk to it."""
    parser.add_argument(
        "endpoint",
        nargs="?",
        default=DEFAULT_ENDPOINT,
        metavar="ENDPOINT",
        help=f"where the server is: {ENDPOINT_HELP} (default: %(default)s)",
    )
    add_tls_arguments(parser)


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how to talk to servers, for a command that has arguments of its own for where."""


def client_endpoint_from(
    options: argparse.Namespace, reactor: Any, endpoint: str | None = None
) -> IStreamClientEndpoint:
    """
    Where to connect to, by the options of a command.

    @param endpoint: what the user wrote; C{options.endpoint} unless given, for commands that
        have several.
    @raise EndpointError: it cannot be understood; or its TLS cannot be set up.  The text, one
        line, is for the user.
    """
    return client_endpoint(reactor, options.endpoint if endpoint is None else endpoint)
