"""
The options of ``twistd metrics-tcp``.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import partial
from getopt import GetoptError
from inspect import cleandoc
from typing import Any, ClassVar

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from txmetrics_tcp import DOCS
from txmetrics_tcp._checks import (
    did_you_mean,
    parse_count,
    parse_duration,
    parse_size,
    parse_unless,
    reporting,
)
from txmetrics_tcp._exporter.settings import ExporterSettings
from txmetrics_tcp._model import Key, MetricKind
from txmetrics_tcp._net.admission import Network, network
from txmetrics_tcp._net.descriptors import occupy_standard_descriptors
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_PORT, EndpointError, has_own_tls
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.internals import global_reactor
from txmetrics_tcp._net.tls import ServerTLS
from txmetrics_tcp._net.tls_errors import TLSError
from txmetrics_tcp.bridges._otlp_settings import (
    FROM_ENVIRONMENT,
    MISSING,
    OtlpSettings,
    is_installed,
)
from txmetrics_tcp.bridges._statsd_endpoints import (
    DEFAULT_ENDPOINT as STATSD_ENDPOINT,
)
from txmetrics_tcp.bridges._statsd_endpoints import (
    DatagramEndpoint,
    statsd_endpoint,
)
from txmetrics_tcp.bridges._statsd_lines import MAX_SIZE
from txmetrics_tcp.bridges.statsd import FLUSH, MAX_SERIES
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import NatsAddress, check_source_name
from txmetrics_tcp.relay._extra import access_from, is_nats, parse_address, parse_target
from txmetrics_tcp.relay.collector import (
    GRACE,
    SourceLimits,
    check_instance_label,
    check_source,
)

_DEFAULTS = ExporterSettings()

_LIMITS = SourceLimits()

_COLLECTOR_SERIES = 100_000
"""The maximum number of series with totals of a collector."""

_FOR_COLLECTORS = {
    "gauges",
    "grace",
    "instance-label",
    "max-source-bytes",
    "max-source-events",
    "max-source-series",
    "merge",
}
"""The options that only a collector uses."""

_WEB_PORT = 5080
"""The usual port of the page; only used in an error message."""

_PROMETHEUS_PORT = 9464
"""The usual port of exporters that are part of a program; only used in an error message."""


def _parameter(
    option: str, default: object, text: str, parse: Callable[[str], object] = str
) -> list[object]:
    """
    Make a row of C{optParameters}.

    @param text: the help text.
    @param parse: parses the value.  The message of its ValueError is the expected form.
    """
    return [option, None, default, text, reporting(UsageError, parse, f"--{option}: ")]


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


def _prefix(text: str) -> str:
    try:
        Key.of(MetricKind.COUNTER, text + "x" * MAX_SIZE)
    except ValueError:
        raise ValueError("text in UTF-8, of 60 KiB at most") from None
    return text


class Options(UsageOptions):
    """
    The options of ``twistd metrics-tcp``.

    @ivar endpoints: the endpoints to listen on; empty if C{--listen} is not given.
    @ivar prometheus_endpoints: the endpoints to serve Prometheus on; empty without C{--prometheus}.
    @ivar statsd: the endpoints to receive StatsD on; empty without C{--statsd}.
    @ivar web_endpoints: the endpoints to serve the page on; empty without C{--web}.
    @ivar web_hosts: further names of the page's host.
    @ivar web_token: what is required to open the page; None for nothing.
    @ivar collect: the endpoints to listen on for processes that report.
    @ivar sources: the endpoints and directories of processes to connect to.
    @ivar networks: the networks to accept clients from; None for any.
    @ivar settings: the settings of the exporter.
    @ivar tls: the TLS configuration; None without TLS.
    @ivar publish: the stream through which to publish; None not to publish.
    @ivar access: the credentials for that.
    @ivar export: where and how to export with OTLP; None not to export.
    """

    synopsis = "[options]"

    longdesc: str = (
        "Stream metrics of this process, and of the machine if psutil is installed, over TCP to"
        ' every client that connects, such as "metrics-tcp observe". The daemon needs no'
        " privileges. By default it listens on the loopback interface only, because any client"
        " that can connect can read the metrics. SIGHUP reloads the TLS certificates; without TLS,"
        f" it is logged and ignored. Documentation: {DOCS}/reference/commands.html"
    )

    optParameters: ClassVar[list[list[object]]] = [
        _parameter(
            "buffer-size",
            _DEFAULTS.buffer_size,
            "Maximum number of events pending for each client, and separately before they reach"
            ' any client. Events that exceed it are dropped. "none" means no limit, which can'
            " exhaust the memory",
            parse_unless("none", parse_count),
        ),
        _parameter(
            "max-delay",
            None,
            "Longest time for which events are collected while they keep coming: seconds, or a"
            " duration such as 50ms. A shorter one costs more processor time; 0 sends each event"
            f" at once [default: {_DEFAULTS.max_delay}; 0 with --collect or --from]",
            partial(parse_duration, least=0),
        ),
        _parameter(
            "dead-after",
            _DEFAULTS.dead_after,
            "Disconnect a client that has not read its pending data for this long: seconds, or a"
            ' duration such as 5m. "never" relies on the kernel, which detects a dead machine,'
            " but not a stalled client [default: never]",
            parse_unless("never", partial(parse_duration, least=0.1)),
        ),
        _parameter(
            "max-clients",
            _DEFAULTS.max_clients,
            'Maximum number of connected clients; "none" means no limit',
            parse_unless("none", parse_count),
        ),
        _parameter(
            "max-clients-per-address",
            _DEFAULTS.max_clients_per_address,
            "Maximum number of connected clients per IPv4 address or IPv6 /64 network;"
            ' "none" means no limit [default: none]',
            parse_unless("none", parse_count),
        ),
        _parameter(
            "tls-key",
            None,
            "PEM file with the server's private key, not encrypted. Enables TLS for all"
            " connections; requires --tls-cert [default: no TLS]",
        ),
        _parameter(
            "tls-cert",
            None,
            "PEM file with the server's certificate, followed by any intermediate certificates;"
            " requires --tls-key",
        ),
        _parameter(
            "tls-client-ca",
            None,
            "PEM file with certificates of authorities. A client must present a certificate issued"
            " by one of them [default: clients need no certificate]",
        ),
        _parameter(
            "merge",
            "sum",
            "What is streamed of collected metrics: sum for sums over all processes, each for the"
            " series of each process, with its name as a label, or both",
            _one_of("sum", "each", "both"),
        ),
        _parameter("instance-label", "instance", "Name of the label with the name of the process"),
        _parameter(
            "gauges",
            "sum",
            "How the gauges of the living processes are combined in sums: sum, max, min, or last"
            " for the one that changed last",
            _one_of("sum", "max", "min", "last"),
        ),
        _parameter(
            "grace",
            GRACE,
            "Time after which a process without a connection is considered dead: its gauges leave"
            " the sums, and its series are gone. Seconds, or a duration such as 1m",
            partial(parse_duration, least=0),
        ),
        _parameter(
            "max-source-series",
            _LIMITS.series,
            "Maximum number of series of each collected process; further ones are ignored and"
            " counted",
            parse_count,
        ),
        _parameter(
            "max-source-events",
            _LIMITS.events,
            "Maximum number of events a second of each collected process. It is read at that rate,"
            ' and disconnected after 10 seconds; "none" means no limit',
            parse_unless("none", parse_count),
        ),
        _parameter(
            "max-source-bytes",
            _LIMITS.bytes,
            "Maximum number of bytes a second of each collected process, with the same effect as"
            ' --max-source-events; "none" means no limit',
            parse_unless("none", parse_count),
        ),
        _parameter(
            "publish-source",
            None,
            "Name of the source in the stream of --publish [default: the name of this host]",
        ),
        _parameter(
            "publish-linger",
            0.05,
            "Time for which events are collected for a message of --publish: seconds, or a duration"
            " such as 50ms",
            parse_duration,
        ),
        _parameter(
            "publish-buffer",
            64 * 1024 * 1024,
            "Size of messages to keep while the broker takes none, in bytes or such as 64MiB."
            " Beyond it, the newest events are given up, and counted",
            parse_size,
        ),
        _parameter(
            "publish-snapshot",
            5.0,
            "Time after which all totals are published, unless nothing has changed: seconds, or a"
            " duration such as 1m",
            parse_duration,
        ),
        _parameter(
            "publish-replicas",
            1,
            "Number of servers that keep each message of a stream that --publish creates",
            parse_count,
        ),
        _parameter(
            "publish-max-age",
            3600.0,
            "Time for which a stream that --publish creates keeps messages: seconds, or a duration"
            " such as 1h",
            parse_duration,
        ),
        _parameter(
            "statsd-max-series",
            MAX_SERIES,
            "Maximum number of series of StatsD clients. Lines of further ones are refused, and"
            " counted",
            parse_count,
        ),
        _parameter(
            "statsd-flush",
            FLUSH,
            "Interval in which the distinct values of StatsD sets are counted: seconds, or a"
            " duration such as 1m",
            partial(parse_duration, least=0.001),
        ),
        _parameter(
            "statsd-prefix",
            None,
            "Text before each name of a StatsD client, such as app. [default: none]",
            _prefix,
        ),
        _parameter(
            "otlp",
            None,
            "URL of a receiver of OTLP, http:// or https://, to which the metrics are exported;"
            ' without a path, /v1/metrics is appended. "env" means OTEL_EXPORTER_OTLP_ENDPOINT.'
            " Credentials come from the environment: OTEL_EXPORTER_OTLP_HEADERS, and for TLS the"
            " files OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY [default:"
            " not exported]",
        ),
        _parameter(
            "otlp-interval",
            None,
            "Time between two exports of --otlp: seconds, or a duration such as 1m [default:"
            " OTEL_METRIC_EXPORT_INTERVAL, or 15]",
            parse_duration,
        ),
        _parameter(
            "web-history",
            None,
            "Time that viewers of the page of --web can look back: seconds, or a duration such as"
            " 10m. For this, series are kept even while no page is open [default: 600 with"
            " --collect or --from; otherwise, since the page was opened]",
            partial(parse_duration, least=1),
        ),
        _parameter(
            "web-token-file",
            None,
            "File with the token, of at least 16 characters, that is required to open the page of"
            " --web as https://HOST/#token=TOKEN. Required beyond this machine, unless clients need"
            " certificates [default: no token]",
        ),
        _parameter(
            "interval",
            1.0,
            "Time between two readings of the metrics of process and machine: seconds, or a"
            " duration such as 5m",
            parse_duration,
        ),
    ]

    optFlags: ClassVar[list[list[str | None]]] = [
        [
            "no-process",
            None,
            "Do not stream metrics of the daemon's process and its reactor [default: streamed]",
        ],
        [
            "no-host",
            None,
            "Do not stream metrics of the machine [default: streamed if psutil is installed]",
        ],
    ]

    def __init__(self) -> None:
        # Before any file is opened, for example by the reactor.
        occupy_standard_descriptors()
        super().__init__()
        self.endpoints: list[IStreamServerEndpoint] = []
        self.prometheus_endpoints: list[IStreamServerEndpoint] = []
        self.statsd: list[DatagramEndpoint | IStreamServerEndpoint] = []
        self.web_endpoints: list[IStreamServerEndpoint] = []
        self.web_hosts: list[str] = []
        self.web_token: str | None = None
        self.collect: list[str] = []
        self.sources: list[str] = []
        self._networks: list[Network] = []
        self.tls: ServerTLS | None = None
        self.publish: NatsAddress | None = None
        self.access: Access | None = None
        self.export: OtlpSettings | None = None
        # The option and the value of each endpoint that includes TLS.
        self._with_tls: list[tuple[str, str]] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        Endpoint to listen on: PORT (on the loopback interface), HOST:PORT, [IPV6]:PORT,
        or a Twisted endpoint string such as unix:/run/metrics.sock:mode=660. Port 0
        means any free port. Repeat the option to listen on several endpoints
        [default: 127.0.0.1:5000]
        """
        self.endpoints.append(self._endpoint("--listen", endpoint))

    # --help would print the indentation.
    opt_listen.__doc__ = cleandoc(opt_listen.__doc__ or "")

    def opt_prometheus(self, endpoint: str) -> None:
        """
        Endpoint on which Prometheus can scrape the metrics over HTTP, at /metrics: PORT (on
        the loopback interface), HOST:PORT, [IPV6]:PORT, or a Twisted endpoint string. TLS,
        allowed networks and the limit per address are the same as for the stream. Repeat the
        option to listen on several endpoints [default: not served]
        """
        self.prometheus_endpoints.append(self._endpoint("--prometheus", endpoint, _PROMETHEUS_PORT))

    opt_prometheus.__doc__ = cleandoc(opt_prometheus.__doc__ or "")

    def opt_statsd(self, endpoint: str) -> None:
        """
        Endpoint on which to receive metrics from clients of StatsD and DogStatsD, which the daemon
        streams: PORT, HOST:PORT or [IPV6]:PORT for UDP, unixgram:/run/statsd.sock (mode 600 by
        default) for UNIX datagrams, tcp:HOST:PORT or a Twisted endpoint string for streams;
        without a value, 127.0.0.1:8125. Beyond this machine, it requires networks (--allow). TLS
        does not apply. Repeat the option to listen on several endpoints [default: not received]
        """
        try:
            self.statsd.append(statsd_endpoint(global_reactor(), endpoint))
        except EndpointError as error:
            raise UsageError(f"--statsd: {error}") from None

    opt_statsd.__doc__ = cleandoc(opt_statsd.__doc__ or "")

    def opt_web(self, endpoint: str) -> None:
        """
        Endpoint on which browsers can open a page with the live series: PORT (on the loopback
        interface), HOST:PORT, [IPV6]:PORT, or a Twisted endpoint string. TLS, allowed networks
        and the limit per address are the same as for the stream. Repeat the option to listen
        on several endpoints [default: not served]
        """
        self.web_endpoints.append(self._endpoint("--web", endpoint, _WEB_PORT))

    opt_web.__doc__ = cleandoc(opt_web.__doc__ or "")

    def opt_web_allow_host(self, name: str) -> None:
        """
        Name, or NAME:PORT, that browsers may use for the host of the page of --web, such as
        that of a proxy. Repeat the option to allow several names [default: localhost, and the
        address that a browser connects to]
        """
        # Imported only here, because it imports twisted.web.
        from txmetrics_tcp.web._access import check_host

        try:
            self.web_hosts.append(check_host(name))
        except ValueError as error:
            raise UsageError(f"--web-allow-host: {error}") from None

    opt_web_allow_host.__doc__ = cleandoc(opt_web_allow_host.__doc__ or "")

    def opt_collect(self, endpoint: str) -> None:
        """
        Endpoint on which other processes report their metrics, which the daemon merges and
        streams: unix:/run/app/metrics.sock (mode 600 by default), PORT, HOST:PORT, [IPV6]:PORT
        or a Twisted endpoint string. Beyond this machine, it requires --tls-client-ca or
        --allow. Repeat the option to listen on several endpoints [default: nothing is collected]
        """
        self._endpoint("--collect", endpoint)
        self.collect.append(endpoint)

    opt_collect.__doc__ = cleandoc(opt_collect.__doc__ or "")

    def opt_from(self, source: str) -> None:
        """
        Server to connect to, whose metrics the daemon merges and streams: PORT, HOST:PORT or a
        Twisted endpoint string, where one process listens; or a directory in which each
        process has a socket (*.sock), such as /run/app/; or a stream of a broker,
        nats://HOST/STREAM[?source=GLOB]. Repeat the option for several of them
        """
        try:
            self.sources.append(check_source(source))
        except EndpointError as error:
            raise UsageError(f"--from: {error}") from None

    opt_from.__doc__ = cleandoc(opt_from.__doc__ or "")

    def opt_publish(self, url: str) -> None:
        """
        Stream of NATS JetStream through which to publish the stream of this daemon:
        nats://HOST[:PORT]/STREAM. Credentials come from the environment: NATS_USER and
        NATS_PASSWORD, NATS_TOKEN, or the files NATS_CREDS or NATS_NKEY; for TLS, the files
        NATS_CA, NATS_CERT and NATS_KEY [default: not published]
        """
        try:
            self.publish = parse_target(url, "--publish-source")
            self.access = access_from()
        except EndpointError as error:
            raise UsageError(f"--publish: {error}") from None

    opt_publish.__doc__ = cleandoc(opt_publish.__doc__ or "")

    def _endpoint(
        self, option: str, text: str, usual_port: int = DEFAULT_PORT
    ) -> IStreamServerEndpoint:
        if has_own_tls(text):
            self._with_tls.append((option, text))
        try:
            return server_endpoint(global_reactor(), text, usual_port)
        except EndpointError as error:
            raise UsageError(f"{option}: {error}") from None

    def opt_allow(self, text: str) -> None:
        """
        Network to accept clients from, such as 192.0.2.0/24, 2001:db8::/32 or an address;
        all others are rejected, including the loopback interface. Repeat the option to
        allow several networks. For UNIX sockets, set the mode of the socket file instead
        [default: any network]
        """
        try:
            self._networks.append(network("--allow", text))
        except ValueError as error:
            raise UsageError(str(error)) from None

    opt_allow.__doc__ = cleandoc(opt_allow.__doc__ or "")

    def opt_version(self) -> None:
        """Display the version of txmetrics-tcp and exit."""
        from txmetrics_tcp import __version__

        print(f"txmetrics-tcp {__version__}")
        sys.exit(0)

    def parseArgs(self, *args: str) -> None:
        if args:
            raise UsageError(
                f"unexpected argument {args[0]!r}; to listen on it, use --listen {args[0]}"
            )

    @property
    def networks(self) -> list[Network] | None:
        return self._networks or None

    @property
    def collects(self) -> bool:
        """Whether the daemon is a collector."""
        return bool(self.collect or self.sources)

    @property
    def settings(self) -> ExporterSettings:
        max_delay = self["max-delay"]
        if max_delay is None:
            max_delay = 0.0 if self.collects else _DEFAULTS.max_delay
        max_series = _COLLECTOR_SERIES if self.collects else _DEFAULTS.max_series
        if self.statsd:
            max_series += self["statsd-max-series"]
        return ExporterSettings(
            buffer_size=self["buffer-size"],
            max_delay=max_delay,
            max_series=max_series,
            dead_after=self["dead-after"],
            allow=self.networks,
            max_clients=self["max-clients"],
            max_clients_per_address=self["max-clients-per-address"],
        )

    def postOptions(self) -> None:
        self._check_tls()
        try:
            check_instance_label(self["instance-label"])
        except ValueError as error:
            raise UsageError(f"--instance-label: {error}") from None
        self._check_dependent()
        self._check_publish()
        self._check_otlp()
        self._check_web()

    def _check_dependent(self) -> None:
        """Reject an option without the option that it belongs to."""
        owners = {
            "otlp": self["otlp"],
            "publish": self.publish,
            "statsd": self.statsd,
            "web": self.web_endpoints,
        }
        given = [name for name in self.defaults if self[name] != self.defaults[name]]
        if self.web_hosts:
            given.append("web-allow-host")
        for name in given:
            owner, dash, _ = name.partition("-")
            if dash and owner in owners and not owners[owner]:
                raise UsageError(f"--{name} requires --{owner}")
            if name in _FOR_COLLECTORS and not self.collects:
                raise UsageError(f"--{name} requires --collect or --from")

    def _check_otlp(self) -> None:
        url = self["otlp"]
        if url is None:
            return
        if not is_installed():
            raise UsageError(f"--otlp: {MISSING}")
        try:
            if url != FROM_ENVIRONMENT:
                OtlpSettings(url)
            self.export = OtlpSettings.from_environment(
                None if url == FROM_ENVIRONMENT else url,
                self["otlp-interval"],
                service_name="metrics-tcp",
            )
        except ValueError as error:
            raise UsageError(f"--otlp: {error}") from None
        # Imported here, because it imports twisted.web.
        from txmetrics_tcp.bridges._otlp_export import http_agent

        try:
            http_agent(global_reactor(), self.export)
        except TLSError as error:
            raise UsageError(f"--otlp: {error}") from None

    def _check_publish(self) -> None:
        if self["publish-source"] is None:
            self["publish-source"] = socket.gethostname()
        name = self["publish-source"]
        try:
            check_source_name(name)
        except ValueError as error:
            raise UsageError(f"--publish-source: {error}") from None
        if self.publish is None:
            return
        for source in filter(is_nats, self.sources):
            if parse_address(source).names(self.publish, name):
                raise UsageError(
                    f"--from: the source {name} of {self.publish} is what --publish publishes; its"
                    " own metrics would be added again and again"
                )

    def _check_web(self) -> None:
        if self["web-token-file"] is not None:
            # Imported only here, because it imports twisted.web.
            from txmetrics_tcp.web._access import read_token

            try:
                self.web_token = read_token(self["web-token-file"])
            except ValueError as error:
                raise UsageError(f"--web-token-file: {error}") from None

    def _check_tls(self) -> None:
        key, certificate, client_ca = (
            self[f"tls-{option}"] for option in ("key", "cert", "client-ca")
        )
        if key is None and certificate is None and client_ca is None:
            return
        if key is None or certificate is None:
            raise UsageError("TLS needs both --tls-key and --tls-cert")
        if self._with_tls:
            option, text = self._with_tls[0]
            raise UsageError(
                f"{option}: {text!r} already includes TLS; with --tls-key, give the"
                " endpoint without ssl:"
            )
        try:
            self.tls = ServerTLS(key, certificate, client_ca)
        except TLSError as error:
            raise UsageError(str(error)) from None

    def parseOptions(self, options: Any = None) -> None:
        """
        @raise UsageError: the options are invalid.
        @raise SystemExit: the options are invalid, and twistd has called this method.  For a
            UsageError, twistd would print the help of all options first, and the error last.  As
            for twistd's own options, the exit code is 1.
        """
        arguments = sys.argv[1:] if options is None else list(options)
        try:
            super().parseOptions(_with_statsd_endpoint(arguments))
        except UsageError as error:
            if self.parent is None:
                raise
            usage = hint = ""
            if isinstance(error.__context__, GetoptError):
                known = [f"--{option.removesuffix('=')}" for option in self.longOpt]
                option = f"--{error.__context__.opt}"
                hint = "" if option in known else did_you_mean(option, known)
                usage = f"{self.getSynopsis()}\n"
            sys.exit(f"{usage}metrics-tcp: {error}{hint}")


def _with_statsd_endpoint(arguments: list[str]) -> list[str]:
    """Add the default endpoint to each option C{--statsd} without a value, which getopt rejects."""
    following = [*arguments[1:], "--"]
    return [
        f"--statsd={STATSD_ENDPOINT}"
        if argument == "--statsd" and after.startswith("-")
        else argument
        for argument, after in zip(arguments, following, strict=False)
    ]
