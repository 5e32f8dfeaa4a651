"""
Check and convert the endpoints and TLS options of a command.

Only `client_endpoint_from` imports Twisted, so that `check_endpoints` reports errors at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import stat
import sys
from typing import TYPE_CHECKING, Any

from txmetrics_tcp._net.endpoint_syntax import (
    DEFAULT_PORT,
    PORT,
    EndpointError,
    check_has_port,
    check_port,
    has_own_tls,
    host_alone,
    host_of,
    reads_as_endpoint,
)
from txmetrics_tcp._recording.blocks import RecordingError
from txmetrics_tcp.bridges._otlp_settings import MISSING, OtlpSettings, is_installed
from txmetrics_tcp.cli.sources import (
    ENVIRONMENT,
    Source,
    Sources,
    endpoints_in,
    given_sources,
)
from txmetrics_tcp.relay._address import check_source_name
from txmetrics_tcp.relay._extra import access_from, is_nats, parse_address, parse_target

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

    from txmetrics_tcp.relay._address import NatsAddress

_ONLY_ENDPOINTS = ("record", "prometheus", "otlp", "publish")
"""The commands whose sources are servers.  Of C{record}, only FILE is a file."""


def check_endpoints(options: argparse.Namespace) -> None:
    """
    Check the endpoints of a command, without importing the modules that run the command.

    The endpoints of C{observe} are checked later, since other errors take precedence.  The same
    applies to every command if standard output is closed.

    @raise EndpointError: an endpoint is invalid.  The text is one line, for the user.  Some errors
        can only be detected later, with Twisted.
    @raise RecordingError: an argument is not an endpoint, but the path of a file that cannot be
        read.
    """
    if sys.stdout is None:
        return
    match options.command:
        case "record":
            if is_nats(options.file):
                address = parse_address(options.file)
                raise EndpointError(f"FILE is missing: {str(address)!r} is an endpoint")
            if reads_as_endpoint(options.file):
                # Without this check, the default endpoint would be recorded.
                raise EndpointError(
                    f"FILE is missing: {options.file!r} is an endpoint (for a file of that name,"
                    f" write ./{options.file})"
                )
            sources = sources_of(options)
            if sources.several and not names_directory(options.file):
                directory = "recordings" if options.file == "-" else options.file
                raise EndpointError(
                    f"{options.file}: several sources are recorded in a directory; write"
                    f" {directory}/"
                )
        case "tail" if options.raw is not None:
            if wants_tls(options):
                raise EndpointError("--raw reads a file: omit the --tls options")
        case "stats" | "tail":
            sources_of(options)
        case "prometheus" | "web":
            check_port(options.listen)
            sources_of(options)
        case "otlp":
            otlp_settings(options)
            sources_of(options)
        case "publish":
            address = address_of(options)
            access_from()
            if options.source is not None:
                try:
                    check_source_name(options.source)
                except ValueError as error:
                    raise EndpointError(f"--source: {error}") from None
            if any(stream.address.names(address) for stream in sources_of(options).streams):
                raise EndpointError(
                    f"--to: {address} is also a source; its own messages would be published again"
                )
        case "replay":
            check_port(options.listen)


def address_of(options: argparse.Namespace) -> NatsAddress:
    """
    Return the stream to publish to.

    @raise EndpointError: it is not valid, or the extra is not installed.
    """
    if options.to is None:
        raise EndpointError("--to is missing: the stream to publish to, nats://HOST/STREAM")
    try:
        return parse_target(options.to, "--source")
    except EndpointError as error:
        raise EndpointError(f"--to: {error}") from None


def otlp_settings(options: argparse.Namespace) -> OtlpSettings:
    """
    Return where and how C{otlp} exports.

    @raise EndpointError: an option or the environment is not valid, or the extra is not installed.
        The text contains neither the URL nor the value of a variable.
    """
    if not is_installed():
        raise EndpointError(MISSING)
    try:
        if options.to is not None:
            OtlpSettings(options.to)
    except ValueError as error:
        raise EndpointError(f"--to: {error}") from None
    try:
        return OtlpSettings.from_environment(
            options.to, options.interval, service_name="metrics-tcp"
        )
    except ValueError as error:
        raise EndpointError(str(error)) from None


def names_directory(path: str) -> bool:
    """Whether an argument is the path of a directory, which need not exist yet."""
    return path.endswith("/") or os.path.isdir(path)


def sources_of(options: argparse.Namespace) -> Sources:
    """
    Return the sources of a command, from its options.

    @raise EndpointError: see `check_endpoints`.
    @raise RecordingError: see `check_endpoints`.
    """
    since = getattr(options, "since", None)
    try:
        sources = Sources(given_sources(options.endpoints), since, options.max_frame)
        if since is not None and not sources.streams:
            raise EndpointError("--since requires a nats:// URL: servers keep no events")
        if sources.streams:
            access_from()
        for source in sources.find().values():
            if not source.recording or options.command in _ONLY_ENDPOINTS:
                _check_source(options, source)
    except (EndpointError, RecordingError) as error:
        if options.endpoints or not endpoints_in(os.environ):
            raise
        raise type(error)(f"{ENVIRONMENT}: {error}") from None
    return sources


def wants_tls(options: argparse.Namespace) -> bool:
    """Whether any TLS option was given."""
    given = options.tls_name, options.tls_ca, options.tls_key, options.tls_cert
    # An empty value, such as an unset variable in a script, must not disable TLS.
    return bool(options.tls) or any(value is not None for value in given)


def client_endpoint_from(
    options: argparse.Namespace, reactor: Any, source: Source
) -> IStreamClientEndpoint:
    """
    Return the endpoint to connect to, from the options of a command.

    @raise EndpointError: the endpoint or a TLS option is invalid.  The text is one line, for the
        user.
    @raise RecordingError: see `check_endpoints`.
    @raise CommandError: a TLS file cannot be used, or the extra ``tls`` is not installed.
    """
    from txmetrics_tcp._net.endpoints import client_endpoint
    from txmetrics_tcp._net.tls import tls_endpoint
    from txmetrics_tcp._net.tls_errors import TLSError, TLSNameError
    from txmetrics_tcp.cli.output import CommandError

    if source.stream is not None:
        return source.stream
    text = source.endpoint
    _check_source(options, source)
    try:
        plain = client_endpoint(reactor, text)
    except EndpointError as error:
        raise EndpointError(f"{source.origin}{error}") from None
    if not wants_tls(options):
        return plain
    if has_own_tls(text):
        raise EndpointError(f"{source.origin}{text!r} already uses TLS: omit the --tls options")
    if (options.tls_key is None) != (options.tls_cert is None):
        raise EndpointError("--tls-key and --tls-cert must be given together")
    name = options.tls_name or host_of(text)
    if not name:
        raise EndpointError(
            f"{source.origin}{text!r} has no host: give the name in the server's certificate with"
            " --tls-name"
        )
    try:
        return tls_endpoint(plain, name, options.tls_ca, options.tls_key, options.tls_cert)
    except TLSNameError as error:
        raise EndpointError(str(error)) from None
    except TLSError as error:
        raise CommandError(f"cannot use TLS with {text}: {error}") from None


def _check_source(options: argparse.Namespace, source: Source) -> None:
    try:
        _check_text(options, source.endpoint)
    except EndpointError as error:
        raise EndpointError(f"{source.origin}{error}") from None
    except RecordingError as error:
        if not source.origin:
            raise
        raise EndpointError(f"{source.origin}{error}") from None


def _check_text(options: argparse.Namespace, text: str) -> None:
    """
    @raise EndpointError: the port is invalid or missing, or the text is the path of a file for
        C{record}, C{prometheus}, C{otlp} or C{publish}.
    @raise RecordingError: the text is the path of a file, but not of a regular one.
    """
    check_port(text)
    if not text or ":" in text or PORT.fullmatch(text):
        return
    try:
        kind = os.stat(text).st_mode
    except (OSError, ValueError):
        if re.fullmatch(r"[0-9.]+|localhost", text):
            check_has_port(text)
        why = "no such file, and not an endpoint"
        if host_alone(text) is not None:
            why = f"no such file; for a server, write {text}:{DEFAULT_PORT}"
    else:
        if stat.S_ISDIR(kind):
            pattern = shlex.quote(os.path.join(text, "*.sock"))
            why = f"a directory; for the sockets in it, write {pattern}"
        elif stat.S_ISREG(kind):
            why = "a file, not an endpoint"
        else:
            why = "not an endpoint or a regular file"
    error = EndpointError if options.command in _ONLY_ENDPOINTS else RecordingError
    raise error(f"{text}: {why}")
