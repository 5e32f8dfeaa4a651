"""
Endpoints as a user gives them to a command: what they stand for, and what is wrong with them.

Only `client_endpoint_from` imports Twisted, so that `check_endpoints` need not wait for it.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from txmetrics_tcp._net.endpoint_syntax import (
    EndpointError,
    check_port,
    has_own_tls,
    host_of,
    reads_as_endpoint,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint


def check_endpoints(options: argparse.Namespace) -> None:
    """
    Look at the endpoint of a command before anything is imported that it takes to run it.

    What `observe` says depends on more than its endpoints; so does what any command says without a
    standard output.  Both are left to the command itself.

    @raise EndpointError: it cannot be understood, as far as that shows without Twisted.  The text,
        one line, is for the user.
    """
    if sys.stdout is None:
        return
    match options.command:
        case "record":
            if reads_as_endpoint(options.file):
                # FILE forgotten: it would record what is at the default endpoint.
                raise EndpointError(
                    f"FILE comes first, and {options.file!r} reads as an endpoint: if a file of"
                    f" that name is meant, write ./{options.file}"
                )
            _check_text(options.endpoint)
        case "stats" | "tail" if not is_recording(options.endpoint):
            _check_text(options.endpoint)
        case "replay":
            check_port(options.listen)


def is_recording(text: str) -> bool:
    """
    Whether what a user wrote is a file to read, rather than where a server is.

    What reads as an endpoint is one, also where there is a file of that name: C{./5000} is the
    file.
    """
    return not reads_as_endpoint(text) and os.path.isfile(text)


def wants_tls(options: argparse.Namespace) -> bool:
    """Whether any of the options of TLS was given."""
    given = options.tls_name, options.tls_ca, options.tls_key, options.tls_cert
    # An empty text may be a variable that a script has not set: no reason for plain text.
    return bool(options.tls) or any(value is not None for value in given)


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
    from txmetrics_tcp._net.endpoints import client_endpoint
    from txmetrics_tcp._net.tls import tls_endpoint
    from txmetrics_tcp._net.tls_errors import TLSError

    text = options.endpoint if endpoint is None else endpoint
    _check_text(text)
    plain = client_endpoint(reactor, text)
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
        return tls_endpoint(plain, name, options.tls_ca, options.tls_key, options.tls_cert)
    except TLSError as error:
        raise EndpointError(f"no TLS with {text}: {error}") from None


def _check_text(text: str) -> None:
    """
    @raise EndpointError: it is the path of something that is no endpoint, or its port is none.
    """
    check_port(text)
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
