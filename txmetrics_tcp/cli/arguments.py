"""
Arguments that several commands share, and the conversions and defaults of others.

Nothing here needs Twisted or protobuf.  The parser of filters is imported when a filter is given.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from textwrap import indent
from typing import TYPE_CHECKING, TypeVar

from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._net.checks import parse_count, parse_duration
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp._view.filter_syntax import SYNTAX

if TYPE_CHECKING:
    from txmetrics_tcp._view.filters import Filter

_T = TypeVar("_T")

DEFAULT_SECONDS = 10.0
"""How long ``stats`` watches a server by default."""

SORTS = ("name", "kind", "value", "rate", "events")
"""What ``stats`` may sort by: the keys of `txmetrics_tcp._view.report.SORTS`."""

ENDPOINT_HELP = """PORT (on this machine), HOST:PORT, [IPV6]:PORT, or one of Twisted's client
endpoint strings, such as unix:/run/metrics.sock"""
"""What may be written for an endpoint, to be put into a command's help."""

FILTERS_HELP = f"Filters:\n{indent(SYNTAX, '  ')}"
"""What the language is, for the end of a command's help."""


def argument(what: str, parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """
    The type of an argument.

    @param what: what a value is called in an error.
    @param parse: its parser, whose ValueError has the rule as its text.
    """

    def checked(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            message = f"invalid {what} value: {text!r}: it is {error}"
            raise argparse.ArgumentTypeError(message) from None

    return checked


duration = argument("duration", parse_duration)


def _speed(text: str) -> float:
    try:
        factor = math.inf if text == "max" else float(text)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise ValueError('a number more than 0, or "max"')
    return factor


speed = argument("speed", _speed)


def add_end_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a command ends after that would go on for ever."""
    parser.add_argument(
        "--count",
        type=argument("number of events", parse_count),
        metavar="N",
        help="end after N events of metrics",
    )
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="end after so many seconds, or 5m, 1h, 2d",
    )


def add_max_frame_argument(parser: argparse.ArgumentParser) -> None:
    """Add the size past which a frame is refused, C{options.max_frame}."""
    parser.add_argument(
        "--max-frame",
        type=argument("number of bytes", parse_count),
        default=MAX_FRAME,
        metavar="BYTES",
        help="""give a connection up when it announces a frame of more bytes than this (default:
        %(default)s)""",
    )


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
        # In lines, for `argparse.RawDescriptionHelpFormatter`.
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


def add_filter_argument(parser: argparse.ArgumentParser, help: str) -> None:
    """Add C{--filter}, which may be given several times; C{options.filter} is their list."""
    parser.add_argument(
        "--filter",
        action="append",
        type=_filter,
        default=[],
        metavar="TEXT",
        # "--filter -term" is two options to argparse.
        help=f"{help}; what is not wanted is written !TERM, since -TERM looks like an option",
    )


def _filter(text: str) -> Filter:
    from txmetrics_tcp._view.filters import FilterError, parse_filter

    try:
        return parse_filter(text)
    except FilterError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
