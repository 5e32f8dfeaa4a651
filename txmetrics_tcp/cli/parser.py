"""
The command line of ``metrics-tcp``: the arguments and the help of all commands.

Nothing here imports Twisted or protobuf, so that help and usage errors appear at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

from txmetrics_tcp import DOCS, __version__
from txmetrics_tcp._checks import did_you_mean
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, without_credentials
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.cli.arguments import (
    DEFAULT_BUFFER,
    DEFAULT_LINGER,
    DEFAULT_MAX_AGE,
    DEFAULT_MAX_VIEWERS,
    DEFAULT_OTLP_INTERVAL,
    DEFAULT_OTLP_URL,
    DEFAULT_PROMETHEUS,
    DEFAULT_RUN_INTERVAL,
    DEFAULT_SECONDS,
    DEFAULT_SNAPSHOT,
    DEFAULT_STALE_AFTER,
    DEFAULT_WEB,
    DEFAULT_WEB_HISTORY,
    FILTERS_HELP,
    SORTS,
    add_end_arguments,
    add_filter_argument,
    add_max_frame_argument,
    add_source_arguments,
    count,
    duration,
    recorded_frame,
    size,
    speed,
)


class Parser(argparse.ArgumentParser):
    """
    The parser of one command.

    Options may stand before, between and after the other arguments, up to C{--}.  They cannot be
    abbreviated: an abbreviation in a script would become ambiguous with a later option.

    @ivar takes_program: whether C{--} separates the options from a program and its arguments,
        C{options.program}.
    """

    takes_program = False

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """
        @raise SystemExit: the arguments are invalid, or ask for help.
        """
        if self.takes_program:
            return self._parse_with_program(list(arguments))
        return self._parse(arguments)

    def _parse_with_program(self, arguments: list[str]) -> argparse.Namespace:
        if "--" not in arguments and not {"-h", "--help"} & {*arguments}:
            self._fail("write -- before PROGRAM, as in: metrics-tcp run -- python app.py")
        separator = arguments.index("--") if "--" in arguments else len(arguments)
        options = self._parse(arguments[:separator])
        options.program = arguments[separator + 1 :]
        if not options.program:
            self._fail("PROGRAM is missing after --")
        return options

    def _fail(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def _parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        options, extra = self.parse_known_args(self._options_first(arguments))
        for argument in extra:
            # Left over, too, in a command without positional arguments.
            if argument != "--":
                self.error(f"unexpected argument {argument!r}")
        return options

    def error(self, message: str) -> NoReturn:
        super().error(visible(without_credentials(message)))

    def unknown(self, option: str) -> NoReturn:
        """Report an unknown option."""
        hint = did_you_mean(option, self._option_string_actions)
        self.error(f"unrecognized option {option}{hint}")

    def knows(self, option: str) -> bool:
        """Whether this is an option of the command."""
        return option in self._option_string_actions

    def _options_first(self, arguments: Sequence[str]) -> list[str]:
        # argparse assigns all positional arguments at the first of them, also those that follow an
        # option.  Its parse_intermixed_args supports no groups and loses "--".
        options: list[str] = []
        others: list[str] = []
        pending = iter(arguments)
        for argument in pending:
            if argument == "--":
                others.extend(pending)
            elif not argument.startswith("-") or argument == "-":
                others.append(argument)
            else:
                name, equals, _ = argument.partition("=")
                if not self.knows(name):
                    self.unknown(name)
                options.append(argument)
                if not equals and self._option_string_actions[name].nargs != 0:
                    options.extend(islice(pending, 1))
        return [*options, "--", *others] if others else options


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse a command line.  C{options.command} is the name of the chosen command.

    @param arguments: the arguments; by default those of the process.
    @raise SystemExit: the arguments are invalid, or ask for help or the version.
    """
    parser, commands = make_parsers()
    first, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if first in commands:
        return argparse.Namespace(command=first, **vars(commands[first].parse(rest)))
    if first.startswith("-") and first != "-":
        if not parser.knows(first) and any(one.knows(first) for one in commands.values()):
            parser.error(f"option {first} must follow the COMMAND")
        parser.parse([first])
    elif first:
        hint = did_you_mean(first, commands) or f"; the commands are {', '.join(commands)}"
        parser.error(f"unknown command {first!r}{hint}")
    parser.error("COMMAND is missing")


def make_parsers() -> tuple[Parser, dict[str, Parser]]:
    """
    Create the parser of the command line.

    @return: this parser, and those of the commands by their names.
    """
    parser = Parser(
        prog="metrics-tcp",
        description="Watch, record and replay the metrics that a program streams over TCP.",
        epilog=f"""\
Run "metrics-tcp COMMAND --help" for the options of a command.

Documentation:
  {DOCS}/""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_tail(commands)
    _add_stats(commands)
    _add_record(commands)
    _add_replay(commands)
    _add_observe(commands)
    _add_web(commands)
    _add_prometheus(commands)
    _add_otlp(commands)
    _add_publish(commands)
    _add_run(commands)
    return parser, commands.choices


def _add_tail(commands: Any) -> None:
    parser = commands.add_parser(
        "tail",
        help="print each event as a line",
        description="""\
Connect to servers and print each event as a line, until interrupted. Events go
to standard output, messages to standard error. Failed and lost connections are
retried. Of several servers, each line begins with the name of its server; with
--json, it has the field "endpoint".

ENDPOINT can also be a recording made by "metrics-tcp record". It is printed
from beginning to end.

Before the first event, a line counts the descriptions and totals that the
server sends; --verbose prints them. On a terminal, values are human-readable;
elsewhere, and with --exact, --json or --raw, they are exact.

With --raw, print a raw capture instead: the bytes that a server sent, as in
"nc web1 5000 > capture.bin".

If standard output is slow, the server drops events and reports their number.""",
        epilog=f"""\
{FILTERS_HELP}
Exit codes:
  0    --count or --duration was reached, the recording or capture ended, or the
       reader of standard output exited (as with "| head")
  1    nothing was received (within --duration, or from a capture), the
       recording or capture is missing, unreadable or damaged, a TLS file is
       unusable, or standard output cannot be written
  2    an invalid option, value or endpoint
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)

Documentation:
  {DOCS}/reference/commands.html
  {DOCS}/reference/json.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    add_source_arguments(parser, source)
    source.add_argument(
        "--raw",
        metavar="FILE",
        help="""print a raw capture instead: FILE, or "-" for standard input; a pipe is printed as
        data arrives""",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print initial descriptions and totals, instead of their number",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="print exact values on a terminal too, in the unit of the metric",
    )
    parser.add_argument(
        "--since",
        type=duration,
        metavar="TIME",
        help="""of nats:// URLs, begin with the events of TIME ago, as far as the broker has kept
        them (default: now)""",
    )
    add_filter_argument(
        parser,
        "print and count only events and descriptions of series that match TEXT (see Filters"
        " below), and print stream status",
    )
    add_end_arguments(parser)
    add_max_frame_argument(parser)


def _add_stats(commands: Any) -> None:
    parser = commands.add_parser(
        "stats",
        help="watch servers for a while and print a table of each",
        description="""\
Connect to servers, watch their series for a while, and print a table of those
of each server: nothing is added up over servers.
VALUE is the total of a counter or the last value of a gauge, COUNT the number
of samples of a histogram, and RATE the change of either per second. Rates cover
the whole time, COUNT and percentiles all samples since the program's start. On
a terminal, lines fit its width: columns are omitted, long names shortened.
Failed and lost connections are retried.

ENDPOINT can also be a recording made by "metrics-tcp record". It is read as
fast as possible.""",
        epilog=f"""\
{FILTERS_HELP}
Exit codes:
  0    the table was printed, even if events were dropped
  1    nothing was received within --duration, the only server does not send a
       metrics stream, a recording is missing, unreadable or damaged, a TLS
       file is unusable, or standard output cannot be written
  2    an invalid option, value or endpoint
  130  interrupted (Ctrl-C), after printing the results so far
  143  terminated (SIGTERM), after printing the results so far

Documentation:
  {DOCS}/reference/commands.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help=f"""watch for TIME: a number of seconds, or with a unit as in 5m, 1h, 2d (default:
        {DEFAULT_SECONDS:g}; for a recording, all of it)""",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per server, one per line, instead of tables",
    )
    add_filter_argument(parser, "print only series that match TEXT (see Filters below)")
    parser.add_argument(
        "--sort",
        choices=SORTS,
        default="name",
        metavar="KEY",
        help=f"""sort by KEY: {", ".join(SORTS[:-1])} or {SORTS[-1]}; numbers are sorted in
        descending order (default: %(default)s)""",
    )
    add_max_frame_argument(parser)


def _add_record(commands: Any) -> None:
    parser = commands.add_parser(
        "record",
        help="write streams to files",
        description="""\
Connect to a server and write its stream to FILE, with the timing, until
interrupted. Failed and lost connections are retried. The streams of several
servers are written to a directory, FILE/, one file for each: NAME.rec.

Received data is in FILE within a second. A recording that was cut off by a
crash, a power cut or a full disk can still be read and appended to. An existing
FILE is not changed before the first event.

"metrics-tcp replay" serves a recording to clients. The commands tail, stats and
observe read recordings directly.""",
        epilog=f"""\
Exit codes:
  0    --count or --duration was reached, or the command was interrupted
       (Ctrl-C) or terminated (SIGTERM)
  1    FILE exists or cannot be written, a TLS file is unusable, or nothing was
       received (a new FILE is then removed)
  2    an invalid option, value or endpoint
  130  interrupted before FILE was open, for example a FIFO without a reader;
       143 if terminated

Documentation:
  {DOCS}/reference/commands.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="""file to create, or "-" for standard output; if it exists and is not empty, --append
        or --force is required; write ./5000 for a file whose name looks like an endpoint; or a
        directory, DIR/, which is created if needed, for one file per server""",
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--compress",
        action="store_true",
        help="""compress with zlib, to about a tenth of the size; if FILE is cut off, up to 64 KiB
        of additional data is lost""",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--append", action="store_true", help="append to FILE if it exists")
    existing.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    add_end_arguments(parser)
    add_max_frame_argument(parser, recorded_frame)


def _add_replay(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="serve a recording to clients",
        description="""\
Serve a recording made by "metrics-tcp record" as a live server would. All
clients receive the recorded bytes with the recorded timing. Timestamps in the
stream are not changed.

The replay begins with the first client, and pauses while no clients are
connected. It drops no events, and waits for the slowest client. Late clients
first receive the current descriptions and totals.""",
        epilog=f"""\
Exit codes:
  0    all clients received the whole recording, even if it was cut off
  1    FILE is missing, unreadable or damaged, or the endpoint is unavailable
  2    an invalid option, value or endpoint
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)

Documentation:
  {DOCS}/reference/commands.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="recording to serve")
    parser.add_argument(
        "--speed",
        type=speed,
        default=1.0,
        metavar="N",
        help="""play N times as fast as recorded, for example 0.5 for half the speed, or "max" for
        as fast as the clients read (default: %(default)g)""",
    )
    parser.add_argument(
        "--listen",
        default=DEFAULT_ENDPOINT,
        metavar="ENDPOINT",
        help="""listen on ENDPOINT: PORT (on the loopback interface), HOST:PORT, [IPV6]:PORT, or a
        Twisted server endpoint string such as unix:/run/metrics.sock; port 0 selects a free port
        (default: %(default)s)""",
    )
    parser.add_argument(
        "--loop", action="store_true", help="repeat the recording until interrupted"
    )


def _add_observe(commands: Any) -> None:
    parser = commands.add_parser(
        "observe",
        help="show live series in a full-screen viewer",
        description="""\
Show the live series of one or more servers on the whole terminal: values,
rates, trends and percentiles, with filters, sorting and grouping. Press ? for
all keys. Failed and lost connections are retried.

ENDPOINT can also be a recording made by "metrics-tcp record".

The viewer requires Textual: pip install 'txmetrics-tcp[observe]'""",
        epilog=f"""\
Exit codes:
  0    the user quit (q or Ctrl-C)
  1    a recording is missing or unreadable, a TLS file is unusable, Textual is
       not installed, or standard input, output or error is not a terminal
  2    an invalid option, value or endpoint
  129  the terminal was closed (SIGHUP)
  130  interrupted by a signal (SIGINT)
  143  terminated (SIGTERM)

Documentation:
  {DOCS}/reference/viewer.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--export-dir",
        default=".",
        metavar="DIR",
        help="write exports and screenshots to DIR (default: the current directory)",
    )
    add_max_frame_argument(parser)


def _add_listen(parser: argparse.ArgumentParser, purpose: str, default: str) -> None:
    parser.add_argument(
        "--listen",
        default=default,
        metavar="ENDPOINT",
        help=f"""{purpose} on ENDPOINT: PORT (on the loopback interface), HOST:PORT,
        [IPV6]:PORT, or a Twisted server endpoint string; port 0 selects a free port (default:
        %(default)s)""",
    )


def _add_web(commands: Any) -> None:
    parser = commands.add_parser(
        "web",
        help="show live series on a page for browsers",
        description="""\
Connect to one or more servers and serve a page with their live series: values,
rates, trends, percentiles and charts, with filters and grouping. Failed and
lost connections are retried. The page can look back for --history, or over a
whole recording.

ENDPOINT can also be a recording made by "metrics-tcp record".

By default, only browsers on this machine can open the page. Where others can
connect, it requires a token, which is part of the printed link. A name of this
machine, or of a proxy before it, needs --allow-host.""",
        epilog=f"""\
Exit codes:
  0    the command was interrupted (Ctrl-C) or terminated (SIGTERM)
  1    the endpoint to listen on is unavailable, or a recording, a TLS file or
       the file with the token is unusable
  2    an invalid option, value or endpoint

Documentation:
  {DOCS}/reference/commands.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    _add_listen(parser, "serve the page", DEFAULT_WEB)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--history",
        type=duration,
        default=DEFAULT_WEB_HISTORY,
        metavar="TIME",
        help="""let viewers look back for TIME: a number of seconds, or with a unit as in 5m, 1h
        (default: %(default)g)""",
    )
    parser.add_argument(
        "--since",
        type=duration,
        metavar="TIME",
        help="""of nats:// URLs, begin with the events of TIME ago, as far as the broker has kept
        them (default: now)""",
    )
    parser.add_argument(
        "--max-viewers",
        type=count,
        default=DEFAULT_MAX_VIEWERS,
        metavar="N",
        help="show the page to N viewers at the same time (default: %(default)d)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="""accept requests for NAME, or NAME:PORT, as the name of the page's host; can be
        repeated (default: localhost, and the address that a browser connects to)""",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="""require the token in the first line of FILE, of at least 16 characters (default: a
        new one if others than this machine can connect)""",
    )
    tls = parser.add_argument_group("TLS of the page")
    tls.add_argument(
        "--web-tls-key",
        metavar="FILE",
        help="serve https with the private key in FILE (PEM, not encrypted)",
    )
    tls.add_argument(
        "--web-tls-cert",
        metavar="FILE",
        help="the certificate in FILE (PEM) with those of authorities; requires --web-tls-key",
    )
    add_max_frame_argument(parser)


def _add_prometheus(commands: Any) -> None:
    parser = commands.add_parser(
        "prometheus",
        help="serve the series of servers to Prometheus",
        description="""\
Connect to one or more servers and serve their series over HTTP, for Prometheus
to scrape, until interrupted. Failed and lost connections are retried.

/metrics has the series of all servers, with the label "source", and
/metrics/NAME those of one. NAME is the value of this label: the address of the
server, such as web1.example:5000.""",
        epilog=f"""\
Exit codes:
  0    the command was interrupted (Ctrl-C) or terminated (SIGTERM)
  1    the endpoint to listen on is unavailable, or a TLS file is unusable
  2    an invalid option, value or endpoint

Documentation:
  {DOCS}/reference/commands.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    _add_listen(parser, "listen for Prometheus", DEFAULT_PROMETHEUS)
    parser.add_argument(
        "--stale-after",
        type=duration,
        default=DEFAULT_STALE_AFTER,
        metavar="TIME",
        help="""remove the series of a server that has been disconnected for TIME: a number of
        seconds, or with a unit as in 5m, 1h, 2d (default: %(default)g)""",
    )
    add_max_frame_argument(parser)


def _add_otlp(commands: Any) -> None:
    parser = commands.add_parser(
        "otlp",
        help="export the series of servers with OTLP",
        description="""\
Connect to one or more servers and export their totals with OTLP over HTTP in
protobuf, until interrupted. Failed and lost connections are retried, and so are
failed exports, with the newest totals. At the end, it exports once more, for up
to 5 seconds.

The series of each server are a resource with its own "service.instance.id".

Credentials come from the environment: OTEL_EXPORTER_OTLP_HEADERS, and for TLS
the files OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE
and OTEL_EXPORTER_OTLP_CLIENT_KEY.

It requires opentelemetry-proto: pip install 'txmetrics-tcp[otlp]'""",
        epilog=f"""\
Exit codes:
  0    the command was interrupted (Ctrl-C) or terminated (SIGTERM)
  1    a TLS file is unusable
  2    an invalid option, value or endpoint, an invalid environment variable, or
       the extra "otlp" is not installed

Documentation:
  {DOCS}/how-to/otlp.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--to",
        metavar="URL",
        help=f"""export to URL, http:// or https://; without a path, /v1/metrics is appended
        (default: OTEL_EXPORTER_OTLP_ENDPOINT in the environment, or {DEFAULT_OTLP_URL})""",
    )
    parser.add_argument(
        "--interval",
        type=duration,
        metavar="TIME",
        help=f"""time between two exports: a number of seconds, or with a unit as in 5m, 1h
        (default: OTEL_METRIC_EXPORT_INTERVAL in the environment, or {DEFAULT_OTLP_INTERVAL:g})""",
    )
    parser.add_argument(
        "--stale-after",
        type=duration,
        default=DEFAULT_STALE_AFTER,
        metavar="TIME",
        help="""stop exporting the series of a server that has been disconnected for TIME: a number
        of seconds, or with a unit as in 5m, 1h, 2d (default: %(default)g)""",
    )
    add_max_frame_argument(parser)


def _add_publish(commands: Any) -> None:
    parser = commands.add_parser(
        "publish",
        help="publish the streams of servers through NATS",
        description="""\
Connect to servers, and publish their streams through a stream of NATS
JetStream, until interrupted. Failed and lost connections are retried. Consumers
follow the stream with nats://HOST/STREAM as the ENDPOINT of observe, tail,
stats, record or prometheus.

While the broker accepts no messages, they are kept in memory. Beyond --buffer,
the newest events are given up, and counted; totals are exact again afterwards.

Credentials come from the environment: NATS_USER and NATS_PASSWORD, NATS_TOKEN,
or the files NATS_CREDS or NATS_NKEY; for TLS, the files NATS_CA, NATS_CERT and
NATS_KEY.

It requires nats-py: pip install 'txmetrics-tcp[nats]'""",
        epilog=f"""\
Exit codes:
  0    the command was interrupted (Ctrl-C) or terminated (SIGTERM)
  1    a TLS file is unusable
  2    an invalid option, value or endpoint, the extra "nats" is not installed,
       the broker does not accept the credentials or does not permit publishing,
       or the stream is not one of metrics or cannot be created as specified

Documentation:
  {DOCS}/how-to/nats.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--to",
        metavar="URL",
        help="""the stream, nats://HOST[:PORT]/STREAM, which is created if it does not exist;
        required""",
    )
    parser.add_argument(
        "--source",
        metavar="NAME",
        help="""the name of the source in the stream; several sources are NAME:PORT or NAME:PATH
        (default: the name of this host)""",
    )
    parser.add_argument(
        "--linger",
        type=duration,
        default=DEFAULT_LINGER,
        metavar="TIME",
        help="collect events for TIME for a message (default: %(default)s)",
    )
    parser.add_argument(
        "--buffer",
        type=size,
        default=DEFAULT_BUFFER,
        metavar="SIZE",
        help="""keep SIZE of messages for each source while the broker accepts none, such as 64MiB
        (default: %(default)s)""",
    )
    parser.add_argument(
        "--snapshot",
        type=duration,
        default=DEFAULT_SNAPSHOT,
        metavar="TIME",
        help="publish all totals every TIME, unless nothing has changed (default: %(default)s)",
    )
    parser.add_argument(
        "--replicas",
        type=count,
        default=1,
        metavar="N",
        help="create the stream on N servers of the cluster (default: %(default)d)",
    )
    parser.add_argument(
        "--max-age",
        type=duration,
        default=DEFAULT_MAX_AGE,
        metavar="TIME",
        help="""create the stream so that it keeps messages for TIME: a number of seconds, or with a
        unit as in 5m, 1h, 2d (default: %(default)s)""",
    )
    add_max_frame_argument(parser)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run a program and stream its metrics",
        usage="""metrics-tcp run [-h] [--listen ENDPOINT] [--interval TIME]
                [--prometheus] [--opentelemetry] -- PROGRAM [ARGUMENT]...""",
        description="""\
Run PROGRAM, and stream metrics of its process, of its Python (threads, garbage
collector, asyncio), and whatever it records with txmetrics_tcp. The program is
not changed; its Python must have the package txmetrics_tcp.

PROGRAM is a Python program, or starts one. It replaces this command: process
id, signals, terminal and exit code are its own. With an ENDPOINT, the first
Python process is watched; with a DIRECTORY, every one, also those that it
starts or forks.

Python ignores this command if it runs with -I, -E or -S.""",
        epilog=f"""\
Exit codes:
  2    an invalid option, value or endpoint, or PROGRAM is missing
  126  PROGRAM cannot be executed
  127  PROGRAM was not found
  Other codes are those of the program.

Documentation:
  {DOCS}/how-to/run.html""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        default=DEFAULT_ENDPOINT,
        metavar="ENDPOINT",
        help="""listen on ENDPOINT: PORT (on the loopback interface), HOST:PORT, [IPV6]:PORT, or a
        Twisted server endpoint string such as unix:/run/metrics.sock; or DIRECTORY/, which then
        has a UNIX socket for each process (default: %(default)s)""",
    )
    parser.takes_program = True
    parser.add_argument(
        "--interval",
        type=duration,
        default=DEFAULT_RUN_INTERVAL,
        metavar="TIME",
        help="""read the metrics of process and Python every TIME: a number of seconds, or with a
        unit as in 500ms, 5m (default: %(default)g)""",
    )
    parser.add_argument(
        "--prometheus",
        action="store_true",
        help="also stream what the program records with prometheus_client",
    )
    parser.add_argument(
        "--opentelemetry",
        action="store_true",
        help="also stream what the program measures with OpenTelemetry",
    )
