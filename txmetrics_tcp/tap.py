"""
``twistd metrics-tcp``: a daemon that streams metrics of its own process and machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from txmetrics_tcp._admission import MAX_CLIENTS, Network, network
from txmetrics_tcp._collect import Collector, CollectorService
from txmetrics_tcp._endpoints import (
    DEFAULT_ENDPOINT,
    EndpointError,
    has_own_tls,
    server_endpoint,
)
from txmetrics_tcp._hangup import HangUpService
from txmetrics_tcp._host import HostCollectors
from txmetrics_tcp._incoming import DEFAULT_BUFFER_SIZE, at_least, check_buffer_size
from txmetrics_tcp._lag import LagService
from txmetrics_tcp._process import ProcessCollector
from txmetrics_tcp._recorder import Recorder
from txmetrics_tcp._server import MetricsFactory
from txmetrics_tcp._service import ListenError, MetricsService
from txmetrics_tcp._steady import measure_steadily
from txmetrics_tcp._stop_signals import StopSignals
from txmetrics_tcp._tls import ServerTLS, TLSError

DEFAULT_INTERVAL = 1.0
"""Seconds from one reading of process and machine to the next."""

_log = Logger(namespace="txmetrics_tcp")


def _buffer_size(text: str) -> int | None:
    if text.strip().lower() == "none":
        return None
    try:
        return check_buffer_size(int(text))
    except ValueError:
        raise UsageError(
            f"--buffer-size takes a whole number from 1 up, or none; not {text!r}"
        ) from None


def _limit(option: str) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        if text.strip().lower() == "none":
            return None
        try:
            limit: int = at_least(option, 1, int(text))
            return limit
        except ValueError:
            raise UsageError(
                f"--{option} takes a whole number from 1 up, or none; not {text!r}"
            ) from None

    return parse


def _interval(text: str) -> float:
    try:
        interval = float(text)
    except ValueError:
        interval = math.nan
    if not 0 < interval < math.inf:
        raise UsageError(f"--interval takes a number of seconds greater than 0; not {text!r}")
    return interval


def _dead_after(text: str) -> float | None:
    if text.strip().lower() == "never":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds < math.inf:
        raise UsageError(
            f"--dead-after takes a number of seconds from 0.1 up, or never; not {text!r}"
        )
    return seconds


class Options(UsageOptions):
    """
    What ``twistd metrics-tcp`` can be told.

    @ivar endpoints: where to listen; empty where nothing was said.
    @ivar networks: where viewers may come from; empty for anywhere.
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
        [
            "buffer-size",
            None,
            DEFAULT_BUFFER_SIZE,
            "How many events may wait for a viewer that is slow, before its oldest are dropped;"
            " none for no limit, which may take all memory",
            _buffer_size,
        ],
        [
            "dead-after",
            None,
            None,
            "Cut off viewers that have not taken what waits for them for so many seconds, because"
            " their machine is gone or because they are stalled; never for as long as the kernel"
            " takes to find out, which it does of the former only [default: never]",
            _dead_after,
        ],
        [
            "max-clients",
            None,
            MAX_CLIENTS,
            "How many viewers there may be at once; none for any number",
            _limit("max-clients"),
        ],
        [
            "max-clients-per-address",
            None,
            None,
            "How many of them from one address, or, of IPv6, from one /64; none for any number"
            " [default: none]",
            _limit("max-clients-per-address"),
        ],
        [
            "tls-key",
            None,
            None,
            "A file with the private key, in PEM, not encrypted: all connections are TLS",
        ],
        [
            "tls-cert",
            None,
            None,
            "A file with the certificate, in PEM, and those that lead to its authority",
        ],
        [
            "tls-client-ca",
            None,
            None,
            "A file with the authorities, in PEM, that a viewer has to have a certificate from",
        ],
        [
            "interval",
            None,
            DEFAULT_INTERVAL,
            "Seconds from one reading of process and machine to the next",
            _interval,
        ],
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
        super().__init__()
        self.endpoints: list[IStreamServerEndpoint] = []
        self.networks: list[Network] = []
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
            self.endpoints.append(server_endpoint(_reactor(), endpoint))
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
            self.networks.append(network(text))
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


class CannotStart(SystemExit, Exception):
    """
    Ends the process, with status 1 and without a traceback.

    It is both, because the interpreter prints no traceback for a `SystemExit` only, and twistd
    cleans up for an `Exception` only: it removes its pid file, and tells the process that
    waits for the daemon to start, which would wait for ever.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class Daemon(MultiService):
    """
    All services of the daemon; if one cannot listen, it says so once and ends the process.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        """
        @param say: called with one line, in the case that it cannot listen.
        """
        super().__init__()
        self._say = say

    def privilegedStartService(self) -> None:
        """
        @raise CannotStart: it cannot listen.
        """
        self._start(super().privilegedStartService)

    def startService(self) -> None:
        """
        @raise CannotStart: it cannot listen; but here only for who does not call
            `privilegedStartService` before, as twist does not.
        """
        self._start(super().startService)

    def _start(self, start: Callable[[], object]) -> None:
        try:
            start()
        except ListenError as error:
            self._say(str(error))
            raise CannotStart(str(error)) from None


def makeService(options: Options) -> Daemon:
    """
    Make the daemon's services.  Nothing is opened before they start: twistd forks between.
    """
    reactor = _reactor()
    if options.parent is not None:
        # It is twistd's, or twist's, and the process is for nothing else.
        measure_steadily(reactor)
    endpoints = options.endpoints or [server_endpoint(reactor, DEFAULT_ENDPOINT)]
    factory = MetricsFactory(
        reactor,
        options["buffer-size"],
        dead_after=options["dead-after"],
        allow=options.networks,
        max_clients=options["max-clients"],
        max_clients_per_address=options["max-clients-per-address"],
    )
    metrics = MetricsService(factory, endpoints, tls=options.tls)
    interval = options["interval"]
    daemon = Daemon(lambda reason: _say(options.parent, reason))
    # Before anybody can know that it listens, and send a signal.
    reload = None if options.tls is None else options.tls.reload
    HangUpService(reactor, reload).setServiceParent(daemon)
    metrics.setServiceParent(daemon)
    StopSignals(reactor, metrics.hasten).setServiceParent(daemon)
    collectors: dict[str, Collector] = {}
    if not options["no-process"]:
        collectors["process"] = ProcessCollector(metrics.recorder)
        LagService(metrics.recorder, interval, reactor).setServiceParent(daemon)
    if not options["no-host"]:
        collectors.update(_host_collectors(metrics.recorder))
    CollectorService(collectors, interval, reactor).setServiceParent(daemon)
    return daemon


def _reactor() -> Any:
    # Late, since importing it installs it, and twistd has an option for another one.
    from twisted.internet import reactor

    return reactor


def _host_collectors(recorder: Recorder) -> Mapping[str, Collector]:
    try:
        import psutil
    except ImportError:
        _log.warn(
            "There will be no metrics of the machine, which need psutil:"
            " pip install 'txmetrics-tcp[host]'"
        )
        return {}
    return HostCollectors(recorder, psutil).all()


def _say(runner: Mapping[str, Any] | None, reason: str) -> None:
    """
    Say why the daemon cannot start: in the log, and on standard error if somebody is there to
    see it; but not on the same terminal twice.

    @param runner: the options of twistd or twist; None if something else has made the service.
    """
    # twist has no such option, since it never daemonizes.
    foreground = runner is not None and runner.get("nodaemon", True)
    if foreground:
        # Not sys.stderr, which is the log by now.
        print(f"metrics-tcp: {reason}", file=sys.__stderr__)
    if not foreground or _has_log_of_its_own(runner or {}):
        _log.error("{reason}", reason=reason)


def _has_log_of_its_own(runner: Mapping[str, Any]) -> bool:
    in_file = runner.get("logfile") not in (None, "", "-")
    return bool(in_file or runner.get("syslog") or runner.get("logger"))
