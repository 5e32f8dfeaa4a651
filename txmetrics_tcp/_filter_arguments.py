"""
How the commands of ``metrics-tcp`` are told which series are wanted: the same for every command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from txmetrics_tcp._filters import Filter, FilterError, parse_filter
from txmetrics_tcp._model import Key


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add C{--filter}, which may be given several times: a list of filters, C{options.filters}."""
    group = parser.add_argument_group(
        "filters",
        description="""Terms, separated by spaces, of which all must hold: word (in the name, or in
        the name or value of a label), name:text, kind:counter (or only the beginning: kind:c),
        label=value (* stands for anything), label: (has it), /regex/ (in the line "name
        [label = value]"), and !term for what must not hold. Quotes keep spaces together. Upper
        and lower case are the same, but for a regex.""",
    )
    group.add_argument(
        "--filter",
        action="append",
        type=_filter,
        default=[],
        dest="filters",
        metavar="TEXT",
        help="only series that this holds for; given several times, one of them has to hold",
    )


def wanted(filters: list[Filter]) -> Callable[[Key], bool]:
    """
    Whether one of some filters holds for a series; if there are none, all are wanted.
    """
    if len(filters) == 1:
        return filters[0].matches
    return lambda key: not filters or any(one.matches(key) for one in filters)


def _filter(text: str) -> Filter:
    try:
        return parse_filter(text)
    except FilterError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
