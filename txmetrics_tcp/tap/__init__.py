"""
``twistd metrics-tcp``: a daemon that streams metrics of its own process and machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger

from txmetrics_tcp._collectors.host import HostCollectors
from txmetrics_tcp._collectors.process import ProcessCollector
from txmetrics_tcp._collectors.reactor_lag import LagService
from txmetrics_tcp._collectors.service import Collector, CollectorService
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.service import ListenError, MetricsService
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.internals import global_reactor, use_monotonic_clock
from txmetrics_tcp.tap.options import Options
from txmetrics_tcp.tap.signals import HangUpService, StopSignals

_log = Logger(namespace="txmetrics_tcp")


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
    reactor = global_reactor()
    if options.parent is not None:
        # It is twistd's, or twist's, and the process is for nothing else.
        use_monotonic_clock(reactor)
    endpoints = options.endpoints or [server_endpoint(reactor, DEFAULT_ENDPOINT)]
    factory = MetricsFactory(reactor, options.settings)
    metrics = MetricsService(factory, endpoints, tls=options.tls)
    interval = options["interval"]
    daemon = Daemon(lambda reason: _say(options.parent, reason))
    # Before anybody can know that it listens, and send a signal.
    reload = None if options.tls is None else options.tls.reload
    HangUpService(reactor, reload).setServiceParent(daemon)
    metrics.setServiceParent(daemon)
    StopSignals(reactor, metrics.stop_now).setServiceParent(daemon)
    collectors: dict[str, Collector] = {}
    if not options["no-process"]:
        collectors["process"] = ProcessCollector(metrics.recorder)
        LagService(metrics.recorder, interval, reactor).setServiceParent(daemon)
    if not options["no-host"]:
        collectors.update(_host_collectors(metrics.recorder))
    CollectorService(collectors, interval, reactor).setServiceParent(daemon)
    return daemon


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
        # Not sys.stderr, which is the log by now.  It may be on a full disk.
        with suppress(OSError):
            print(f"metrics-tcp: {reason}", file=sys.__stderr__)
    if not foreground or _has_log_of_its_own(runner or {}):
        _log.error("{reason}", reason=reason)


def _has_log_of_its_own(runner: Mapping[str, Any]) -> bool:
    in_file = runner.get("logfile") not in (None, "", "-")
    return bool(in_file or runner.get("syslog") or runner.get("logger"))
