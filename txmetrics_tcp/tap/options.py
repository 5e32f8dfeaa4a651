"""
The options of ``twistd metrics-tcp``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from inspect import cleandoc
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from txmetrics_tcp._exporter.settings import ExporterSettings
from txmetrics_tcp._net.admission import Network, network
from txmetrics_tcp._net.checks import parse_count, parse_duration, parse_unless
from txmetrics_tcp._net.descriptors import occupy_standard_descriptors
from txmetrics_tcp._net.endpoint_syntax import EndpointError, has_own_tls
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.internals import global_reactor
from txmetrics_tcp._net.tls import ServerTLS
from txmetrics_tcp._net.tls_errors import TLSError

_DEFAULTS = ExporterSettings()


def _parameter(
    option: str, default: object, text: str, parse: Callable[[str], object] = str
) -> list[object]:
    """
    A row of C{optParameters}.

    @param parse: its parser, whose ValueError has the rule as its text.
    """

    def checked(value: str) -> object:
        try:
            return parse(value)
        except ValueError as error:
            raise UsageError(f"--{option} takes {error}; not {value!r}") from None

    return [option, None, default, text, checked]


class Options(UsageOptions):
    """
    What ``twistd metrics-tcp`` can be told.

    @ivar endpoints: where to listen; empty where nothing was said.
    @ivar settings: those of the exporter.
    @ivar tls: what connections begin with, if it is TLS.
    """

    synopsis = "[options]"

    longdesc = (
        "Streams metrics of its own process, and of the machine where psutil is installed, over"
        " TCP to every viewer that connects (metrics-tcp tail, metrics-observer). It listens on"
        " the loopback interface unless told otherwise, since who can connect can read. It needs no"
        " privileges. At SIGHUP it reads its certificates again, or, without any, it stops."
    )

    optParameters = [  # noqa: RUF012, such is usage.Options
        _parameter(
            "buffer-size",
            _DEFAULTS.buffer_size,
            "How many events may wait for a viewer that is slow, before its oldest are dropped;"
            " none for no limit, which may take all memory",
            parse_unless("none", parse_count),
        ),
        _parameter(
            "dead-after",
            _DEFAULTS.dead_after,
            "Cut off viewers that have not taken what waits for them for so many seconds, because"
            " their machine is gone or because they are stalled; never for as long as the kernel"
            " takes to find out, which it does of the former only [default: never]",
            parse_unless("never", partial(parse_duration, least=0.1)),
        ),
        _parameter(
            "max-clients",
            _DEFAULTS.max_clients,
            "How many viewers there may be at once; none for any number",
            parse_unless("none", parse_count),
        ),
        _parameter(
            "max-clients-per-address",
            _DEFAULTS.max_clients_per_address,
            "How many of them from one address, or, of IPv6, from one /64; none for any number"
            " [default: none]",
            parse_unless("none", parse_count),
        ),
        _parameter(
            "tls-key",
            None,
            "A file with the private key, in PEM, not encrypted: all connections are TLS",
        ),
        _parameter(
            "tls-cert",
            None,
            "A file with the certificate, in PEM, and those that lead to its authority",
        ),
        _parameter(
            "tls-client-ca",
            None,
            "A file with the authorities, in PEM, that a viewer has to have a certificate from",
        ),
        _parameter(
            "interval",
            1.0,
            "Seconds from one reading of process and machine to the next",
            parse_duration,
        ),
    ]

    optFlags = [  # noqa: RUF012
        [
            "no-process",
            None,
            "Leave out metrics of the daemon's own process and of its reactor"
            " [default: they are streamed]",
        ],
        [
            "no-host",
            None,
            "Leave out metrics of the machine [default: they are streamed, if psutil is installed]",
        ],
    ]

    def __init__(self) -> None:
        # Before anything opens a file, as the reactor does.
        occupy_standard_descriptors()
        super().__init__()
        self.endpoints: list[IStreamServerEndpoint] = []
        self._networks: list[Network] = []
        self.tls: ServerTLS | None = None
        self._with_tls: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        Where to listen; may be given several times. PORT (on the loopback interface),
        HOST:PORT, [IPV6]:PORT, or a Twisted endpoint string such as
        unix:/run/metrics.sock:mode=660; a port of 0 means any that is free
        [default: 127.0.0.1:5000]
        """
        if has_own_tls(endpoint):
            self._with_tls.append(endpoint)
        try:
            self.endpoints.append(server_endpoint(global_reactor(), endpoint))
        except EndpointError as error:
            raise UsageError(f"--listen: {error}") from None

    # --help shows it as it is, indentation included.
    opt_listen.__doc__ = cleandoc(opt_listen.__doc__ or "")

    def opt_allow(self, text: str) -> None:
        """
        Let viewers come from this network only; may be given several times. 192.0.2.0/24,
        2001:db8::/32, or an address. The loopback interface is one like any other;
        UNIX sockets are open to whom their mode lets in [default: from anywhere]
        """
        try:
            self._networks.append(network(text))
        except ValueError as error:
            raise UsageError(f"--allow: {error}") from None

    opt_allow.__doc__ = cleandoc(opt_allow.__doc__ or "")

    def opt_version(self) -> None:
        """Display the version of txmetrics-tcp and exit."""
        from txmetrics_tcp import __version__

        print(f"txmetrics-tcp {__version__}")
        sys.exit(0)

    def parseArgs(self, *args: str) -> None:
        if args:
            raise UsageError(f"unexpected {args[0]!r}; to listen there, write --listen {args[0]}")

    @property
    def settings(self) -> ExporterSettings:
        return ExporterSettings(
            buffer_size=self["buffer-size"],
            dead_after=self["dead-after"],
            allow=self._networks,
            max_clients=self["max-clients"],
            max_clients_per_address=self["max-clients-per-address"],
        )

    def postOptions(self) -> None:
        key, certificate, client_ca = (
            self[f"tls-{option}"] for option in ("key", "cert", "client-ca")
        )
        if key is None and certificate is None and client_ca is None:
            return
        if key is None or certificate is None:
            raise UsageError("TLS needs both --tls-key and --tls-cert")
        if self._with_tls:
            raise UsageError(
                f"--listen: {self._with_tls[0]!r} has TLS already; with --tls-key, leave out ssl:"
            )
        try:
            self.tls = ServerTLS(key, certificate, client_ca)
        except TLSError as error:
            raise UsageError(str(error)) from None

    def parseOptions(self, options: Any = None) -> None:
        """
        @raise UsageError: something is wrong with them; but where they follow a command's own,
            as those of twistd, the process ends.  twistd would print all of its options and
            ours, to standard output, and the error last.
        """
        try:
            super().parseOptions(options)
        except UsageError as error:
            if self.parent is None:
                raise
            sys.exit(f"metrics-tcp: {error}")
