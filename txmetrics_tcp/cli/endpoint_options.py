"""
How the commands of ``metrics-tcp`` are told where a server is, and how to talk to it.

The same arguments for every command: it calls `add_endpoint_arguments`, or, if its endpoints are
not one argument called C{endpoint}, `add_tls_arguments`, and then `client_endpoint_from`.
"""

from __future__ import annotations

import argparse
import os
import stat
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from txmetrics_tcp._net.endpoint_syntax import (
    DEFAULT_ENDPOINT,
    EndpointError,
    has_own_tls,
    host_of,
    reads_as_endpoint,
)
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp._net.tls import TLSError, tls_endpoint

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
    tls = parser.add_argument_group(
        "TLS",
        description="""Any of these means that the connection is encrypted, and that the server
        has to prove with a certificate that it is the one that was asked for.""",
    )
    tls.add_argument(
        "--tls",
        action="store_true",
        help="take certificates from authorities that this machine trusts",
    )
    tls.add_argument(
        "--tls-ca", metavar="FILE", help="take certificates from the authorities in FILE (PEM)"
    )
    tls.add_argument(
        "--tls-name",
        metavar="NAME",
        help="""take certificates that are for NAME (default: the host of the endpoint; needed
        where it has none, as unix:/run/metrics.sock)""",
    )
    tls.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="show the certificate in FILE (PEM) to a server that asks for one; with --tls-key",
    )
    tls.add_argument(
        "--tls-key", metavar="FILE", help="the private key of that certificate, not encrypted"
    )


def is_recording(text: str) -> bool:
    """
    Whether what a user wrote is a file to read, rather than where a server is.

    What reads as an endpoint is one, also where there is a file of that name: C{./5000} is the
    file.
    """
    return not reads_as_endpoint(text) and os.path.isfile(text)


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
    text = options.endpoint if endpoint is None else endpoint
    _check_no_path(text)
    plain = client_endpoint(reactor, text)
    files = options.tls_ca, options.tls_key, options.tls_cert
    if not wants_tls(options):
        return plain
    if has_own_tls(text):
        raise EndpointError(f"{text!r} is TLS already: leave out --tls and what begins with it")
    name = options.tls_name or host_of(text)
    if not name:
        raise EndpointError(
            f"{text!r} names no host: say with --tls-name whose certificate to take"
        )
    try:
        return tls_endpoint(plain, name, *files)
    except TLSError as error:
        raise EndpointError(f"no TLS with {text}: {error}") from None


def wants_tls(options: argparse.Namespace) -> bool:
    """Whether any of the options of TLS was given."""
    files = options.tls_ca, options.tls_key, options.tls_cert
    return bool(options.tls or options.tls_name or any(files))


def _check_no_path(text: str) -> None:
    """
    @raise EndpointError: it is the path of something that is no endpoint.
    """
    if ":" in text or not (os.sep in text or "." in text):
        return
    try:
        kind = os.stat(text).st_mode
    except (OSError, ValueError):
        why = "no such file, and no endpoint"
    else:
        if stat.S_ISSOCK(kind):
            why = f"it is a socket; to connect to it, write unix:{text}"
        elif stat.S_ISDIR(kind):
            why = "it is a directory, and no endpoint"
        else:
            why = "it is no regular file, and no endpoint"
    raise EndpointError(f"{text}: {why}")
