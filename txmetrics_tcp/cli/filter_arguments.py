"""
How the commands of ``metrics-tcp`` are told which series are wanted: the same for every command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from textwrap import indent

from txmetrics_tcp._model import Key
from txmetrics_tcp._view.filters import SYNTAX, Filter, FilterError, parse_filter

FILTERS_HELP = f"Filters:\n{indent(SYNTAX, '  ')}"
"""What the language is, for the end of a command's help."""


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


def wanted(filters: Sequence[Filter]) -> Callable[[Key], bool]:
    """
    Whether one of some filters holds for a series; if there are none, all are wanted.
    """
    return lambda key: not filters or any(one.matches(key) for one in filters)


def _filter(text: str) -> Filter:
    try:
        return parse_filter(text)
    except FilterError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
