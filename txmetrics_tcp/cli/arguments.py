"""
Arguments that several commands share, and the types and defaults of other arguments.

Nothing here imports Twisted or protobuf.  The filter parser is imported when a filter is given.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from textwrap import indent
from typing import TYPE_CHECKING

from txmetrics_tcp._checks import parse_count, parse_duration, parse_size, reporting
from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, DEFAULT_HOST
from txmetrics_tcp._recording.blocks import MAX_RECORDED_FRAME
from txmetrics_tcp._view.filter_syntax import SYNTAX
from txmetrics_tcp.bridges._otlp_settings import DEFAULT_INTERVAL, DEFAULT_URL
from txmetrics_tcp.cli.sources import ENVIRONMENT

if TYPE_CHECKING:
    from txmetrics_tcp._view.filters import Filter

DEFAULT_SECONDS = 10.0
"""How long ``stats`` watches a server, by default."""

PROMETHEUS_PORT = 9464
"""The usual port of OpenTelemetry's exporters for Prometheus."""

DEFAULT_PROMETHEUS = f"{DEFAULT_HOST}:{PROMETHEUS_PORT}"
"""Where ``prometheus`` listens, by default."""

DEFAULT_STALE_AFTER = 60.0
"""How long ``prometheus`` and ``otlp`` expose the series of a disconnected server, by default."""

DEFAULT_OTLP_URL = DEFAULT_URL
"""Where ``otlp`` exports to, by default."""

DEFAULT_OTLP_INTERVAL = DEFAULT_INTERVAL
"""Seconds between two exports of ``otlp``, by default."""

WEB_PORT = 5080
"""The usual port of the page."""

DEFAULT_WEB = f"{DEFAULT_HOST}:{WEB_PORT}"
"""Where ``web`` listens, by default."""

DEFAULT_WEB_HISTORY = 600.0
DEFAULT_MAX_VIEWERS = 50
"""The defaults of ``web``: those of `txmetrics_tcp.web`."""

DEFAULT_RUN_INTERVAL = 1.0
"""Seconds between two readings of the process and the runtime in a program of ``run``."""

DEFAULT_LINGER = "50ms"
DEFAULT_BUFFER = "64MiB"
DEFAULT_SNAPSHOT = "5s"
DEFAULT_MAX_AGE = "1h"
"""The defaults of ``publish``, as the user would write those of `txmetrics_tcp.relay.nats`."""

SORTS = ("name", "kind", "value", "rate", "events")
"""The sort keys of ``stats``: the keys of `txmetrics_tcp._view.report.SORTS`."""

ENDPOINT_HELP = """PORT (on this machine), HOST:PORT, [IPV6]:PORT, or a Twisted client endpoint
string such as unix:/run/metrics.sock"""
"""The syntax of endpoints, for the help of arguments."""

FILTERS_HELP = f"Filters:\n{indent(SYNTAX, '  ')}"
"""The syntax of filters, for the epilog of a command's help."""


duration: Callable[[str], float] = reporting(argparse.ArgumentTypeError, parse_duration)

count: Callable[[str], int] = reporting(argparse.ArgumentTypeError, parse_count)

size: Callable[[str], int] = reporting(argparse.ArgumentTypeError, parse_size)


def _speed(text: str) -> float:
    try:
        factor = math.inf if text == "max" else float(text)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise ValueError('a number greater than 0, or "max"')
    return factor


speed: Callable[[str], float] = reporting(argparse.ArgumentTypeError, _speed)


def add_end_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the limits of a command that runs until it is interrupted."""
    parser.add_argument(
        "--count",
        type=count,
        metavar="N",
        help="stop after N metric events (default: no limit)",
    )
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="""stop after TIME: a number of seconds, or with a unit as in 5m, 1h, 2d (default: no
        limit)""",
    )


def _recorded_frame(text: str) -> int:
    size = parse_count(text)
    if size > MAX_RECORDED_FRAME:
        raise ValueError(f"a whole number from 1 to {MAX_RECORDED_FRAME}")
    return size


recorded_frame: Callable[[str], int] = reporting(argparse.ArgumentTypeError, _recorded_frame)


def add_max_frame_argument(
    parser: argparse.ArgumentParser, parse: Callable[[str], int] = count
) -> None:
    """Add the size limit of frames, C{options.max_frame}."""
    parser.add_argument(
        "--max-frame",
        type=parse,
        default=MAX_FRAME,
        metavar="BYTES",
        help="disconnect if the server announces a frame larger than BYTES (default: %(default)s)",
    )


def add_source_arguments(
    parser: argparse.ArgumentParser,
    group: argparse._MutuallyExclusiveGroup | None = None,
    what: str = "address of a server",
) -> None:
    """
    Add the sources, C{options.endpoints}, and the TLS options.

    @param group: the group that the sources join, with their alternatives; None for no group.
    @param what: what a source is, for the help.
    """
    (group or parser).add_argument(
        "endpoints",
        nargs="*",
        default=[],
        metavar="ENDPOINT",
        help=f"""{what}: {ENDPOINT_HELP}; a quoted glob of UNIX sockets such as '/run/app/*.sock';
        a stream of a broker, nats://HOST/STREAM or, in quotes, nats://HOST/STREAM?source=GLOB;
        or @FILE, with one of these per line (default: {ENVIRONMENT} in the environment, or
        {DEFAULT_ENDPOINT})""",
    )
    add_tls_arguments(parser)


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the TLS options only."""
    tls = parser.add_argument_group(
        "TLS",
        # `argparse.RawDescriptionHelpFormatter` keeps the lines.
        description="""With any of these options, the connection uses TLS, and the server must
present a valid certificate.""",
    )
    tls.add_argument(
        "--tls",
        action="store_true",
        help="trust the certificate authorities of this machine",
    )
    tls.add_argument(
        "--tls-ca", metavar="FILE", help="trust the certificate authorities in FILE (PEM)"
    )
    tls.add_argument(
        "--tls-name",
        metavar="NAME",
        help="""expect the certificate to be for NAME (default: the host of the endpoint; required
        for an endpoint without a host, such as unix:/run/metrics.sock)""",
    )
    tls.add_argument(
        "--tls-cert",
        metavar="FILE",
        help="present the certificate in FILE (PEM) to the server; requires --tls-key",
    )
    tls.add_argument(
        "--tls-key",
        metavar="FILE",
        help="use the private key in FILE (PEM, not encrypted) with --tls-cert",
    )


def add_filter_argument(parser: argparse.ArgumentParser, help: str) -> None:
    """Add C{--filter}, which can be repeated; C{options.filter} is a list."""
    parser.add_argument(
        "--filter",
        action="append",
        type=_filter,
        default=[],
        metavar="TEXT",
        # argparse takes "-term" in "--filter -term" for an option.
        help=f"""{help}; if repeated, one match is enough; exclude series with '!TERM' or
        --filter=-TERM""",
    )


def _filter(text: str) -> Filter:
    from txmetrics_tcp._view.filters import FilterError, parse_filter

    try:
        return parse_filter(text)
    except FilterError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
