"""
The arguments of all commands of ``metrics-tcp``, and their help.

Nothing here needs Twisted or protobuf, so help and usage errors do not wait for them.
"""

from __future__ import annotations

import argparse
from typing import Any

from txmetrics_tcp import __version__
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp.cli.arguments import (
    DEFAULT_SECONDS,
    ENDPOINT_HELP,
    FILTERS_HELP,
    SORTS,
    add_end_arguments,
    add_endpoint_arguments,
    add_filter_argument,
    add_max_frame_argument,
    add_tls_arguments,
    duration,
    speed,
)

DOCS = "https://txmetrics-tcp.readthedocs.io/en/latest"
"""Where users read the documentation, whether or not they have the repository."""


def make_parser() -> argparse.ArgumentParser:
    """
    Make the parser of the command line.  In what it returns, C{options.command} is the name of the
    command.
    """
    parser = argparse.ArgumentParser(
        prog="metrics-tcp",
        description="Watch the metrics that a program streams, live.",
        epilog="metrics-tcp COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    _add_tail(commands)
    _add_stats(commands)
    _add_record(commands)
    _add_replay(commands)
    _add_observe(commands)
    return parser


def _add_tail(commands: Any) -> None:
    parser = commands.add_parser(
        "tail",
        help="print each event as a line",
        description="""\
Connect to a server of metrics and print each event as a line, until
interrupted. A connection that ends, or does not come about, is tried again
after a while. Events go to standard output; how the connection is, to standard
error. A file that "metrics-tcp record" has written, given in place of the
endpoint, is printed from its beginning to its end.""",
        epilog=f"""\
{FILTERS_HELP}
Exit codes:
  0    after --count, --duration or the end of a recording; or when nobody
       reads the output any more (as with "| head")
  1    when it cannot be written, when a file is no recording or damaged, or
       when nothing at all came within --duration: no connection, or a refused one
  2    for wrong arguments
  130  when interrupted (Ctrl-C)
  143  when terminated

While standard output is slow, nothing is read: the server then drops events,
and counts them.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_endpoint_arguments(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help=f"print JSON, one object a line ({DOCS}/reference/json.html)",
    )
    add_filter_argument(
        parser,
        """print only events of series that TEXT stands for, see below, descriptions of these,
        and what is said of losses; if given again, those of the other TEXT too""",
    )
    add_end_arguments(parser)
    add_max_frame_argument(parser)


def _add_stats(commands: Any) -> None:
    parser = commands.add_parser(
        "stats",
        help="watch for a while, print a table and leave",
        description="""\
Connect to a server of metrics, watch it for a while, print what was seen as a
table, and leave. Values are the last ones; rates, and what histograms say, are
of all the time that was watched. A file that "metrics-tcp record" has written,
given in place of the endpoint, is read at once, to its end.""",
        epilog=f"""\
{FILTERS_HELP}
Exit codes:
  0    when all went well; losses are told in the last line, and are no error
  1    when there was no connection within the time, when nothing came, when
       what came is no stream of metrics, when a recording is damaged, or when the result
       cannot be written
  2    for wrong arguments
  130  when interrupted (Ctrl-C), with what was seen so far
  143  when terminated, likewise

{DOCS}/reference/commands.html describes the JSON.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_endpoint_arguments(parser)
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help=f"""for how long to watch, in seconds, or as 5m, 1h, 2d (default:
        {DEFAULT_SECONDS:g}; of a recording, all)""",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_filter_argument(
        parser,
        """report only series that TEXT stands for, see below; if given again, those of the other
        TEXT too""",
    )
    parser.add_argument(
        "--sort",
        choices=SORTS,
        default="name",
        help="""what to sort by; the largest value, rate or number of events comes first (default:
        %(default)s)""",
    )
    add_max_frame_argument(parser)


def _add_record(commands: Any) -> None:
    parser = commands.add_parser(
        "record",
        help="write a stream to a file, with its timing",
        description="""Connect to a server of metrics and write all that it sends to a file, as it
        comes, until interrupted; "metrics-tcp replay" serves it again. A connection that ends, or
        does not come about, is tried again after a while. What has come is in the file within a
        second. A file that was cut off, by a full disk or a crash, can still be read and
        appended to.""",
        epilog="""Exit codes: 0 when it ended as it was to, also by Ctrl-C or SIGTERM; 1 when the
        file cannot be written (a full disk, or it is there already), or when nothing ever came: no
        connection, or one that was refused; a file that was made for it is then removed; 2 for
        wrong arguments. The file is closed properly in every case.""",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="""the file to write, which must not be there yet; "-" is standard output; what reads
        as an endpoint is refused: ./5000 is a file of that name""",
    )
    add_endpoint_arguments(parser)
    parser.add_argument(
        "--compress",
        action="store_true",
        help="""compress with zlib, to about a tenth; when the file is cut off, up to a block of
        64 KiB more is lost""",
    )
    there = parser.add_mutually_exclusive_group()
    there.add_argument(
        "--append",
        action="store_true",
        help="go on with the recording in FILE, if there is one",
    )
    there.add_argument("--force", action="store_true", help="replace FILE, if there is one")
    add_end_arguments(parser)
    add_max_frame_argument(parser)


def _add_replay(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="serve a recording again as a live stream",
        description="""Serve what "metrics-tcp record" has written, as a live server would, to any
        viewer. It waits for its first client, and then sends the recording with its own timing,
        byte for byte the same to all, and drops nothing: it goes on when the slowest of its clients
        has taken what came before, and waits while there is none. Who comes later is told first
        what the metrics are and what their totals have come to, and sees the rest as the others
        do.""",
        epilog="""Times within the stream stay those of the recording. Exit codes: 0 when all was
        sent and all clients have taken it, also of a recording that was cut off, which is said; 1
        when FILE cannot be read, is no recording or is damaged, or when it is not possible to
        listen; 2 for wrong arguments, 130 when interrupted (Ctrl-C), 143 when terminated.""",
    )
    parser.add_argument("file", metavar="FILE", help="the recording")
    parser.add_argument(
        "--speed",
        type=speed,
        default=1.0,
        metavar="N",
        help="""N times as fast as it was, 0.5 for half of it; "max" for as fast as the clients can
        take it (default: %(default)g)""",
    )
    parser.add_argument(
        "--listen",
        default=DEFAULT_ENDPOINT,
        metavar="ENDPOINT",
        help="""where to listen: PORT (on this machine), HOST:PORT, [IPV6]:PORT, or one of Twisted's
        server endpoint strings, such as unix:/run/metrics.sock; port 0 is any that is free
        (default: %(default)s)""",
    )
    parser.add_argument("--loop", action="store_true", help="begin again after the end, for ever")


def _add_observe(commands: Any) -> None:
    parser = commands.add_parser(
        "observe",
        help="watch series live, on the whole screen",
        description="""Watch the series of one or more servers live, on the whole screen of the
        terminal: values, rates, trends and percentiles, filtered, sorted and grouped. Press ? for
        all keys. A connection that ends, or does not come about, is tried again after a while.""",
        epilog=f"""Exit codes: 0 when left (q, Ctrl-C), 1 when it cannot be shown (no terminal, a
        file that is no recording, or Textual is not installed: pip install
        'txmetrics-tcp[observe]'), 2 for wrong arguments, 130
        when interrupted and 143 when terminated from outside.
        {DOCS}/reference/viewer.html has more.""",
    )
    parser.add_argument(
        "endpoints",
        nargs="*",
        default=[DEFAULT_ENDPOINT],
        metavar="ENDPOINT",
        help=f"""where a server is: {ENDPOINT_HELP}; or a file that "metrics-tcp record" has
        written (default: {DEFAULT_ENDPOINT})""",
    )
    add_tls_arguments(parser)
    parser.add_argument(
        "--export-dir",
        default=".",
        metavar="DIR",
        help="where exports and screenshots are written (default: the current directory)",
    )
    add_max_frame_argument(parser)
