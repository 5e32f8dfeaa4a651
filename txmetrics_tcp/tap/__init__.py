"""
``twistd metrics-tcp``: a daemon that streams metrics of its own process and machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger

from txmetrics_tcp._collectors.host import HostCollectors
from txmetrics_tcp._collectors.process import ProcessCollector
from txmetrics_tcp._collectors.reactor_lag import LagService
from txmetrics_tcp._collectors.service import Collector, PollingService
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.local import LocalEndpoint
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.service import MetricsService
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.internals import global_reactor, use_monotonic_clock
from txmetrics_tcp._net.listening import ListenError
from txmetrics_tcp.bridges.statsd import StatsDService
from txmetrics_tcp.relay import collector as relay
from txmetrics_tcp.relay._extra import BrokerReport, capitalized
from txmetrics_tcp.tap.options import Options
from txmetrics_tcp.tap.signals import HangUpService, StopSignals

if TYPE_CHECKING:
    from txmetrics_tcp.bridges.otlp import OtlpService, OtlpSettings

_log = Logger(namespace="txmetrics_tcp")


class CannotStart(SystemExit, Exception):
    """
    Ends the process with status 1 and without a traceback.

    It is a `SystemExit`, because the interpreter prints no traceback for a `SystemExit`.  It is
    also an `Exception`, because twistd cleans up only after an `Exception`: it removes its pid
    file, and notifies the parent process, which would otherwise wait indefinitely for the daemon to
    start.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code: int = 1


class Daemon(MultiService):
    """
    The services of the daemon.  If listening fails, it reports the error and ends the process.
    """

    def __init__(self, report: Callable[[str], object]) -> None:
        """
        @param report: called with a one-line message if listening fails.
        """
        super().__init__()
        self._report = report

    def privilegedStartService(self) -> None:
        """
        @raise CannotStart: listening failed.
        """
        self._start(super().privilegedStartService)

    def startService(self) -> None:
        """
        @raise CannotStart: listening failed.  Only for runners such as twist, which do not call
            `privilegedStartService`.
        """
        self._start(super().startService)

    def _start(self, start: Callable[[], object]) -> None:
        try:
            start()
        except ListenError as error:
            self._report(str(error))
            raise CannotStart(str(error)) from None


def makeService(options: Options) -> Daemon:
    """
    Make the daemon's services.  They open no files before they are started, since twistd may fork
    before that.
    """
    reactor = global_reactor()
    if options.parent is not None:
        # The process was started by twistd or twist, and runs nothing else.
        use_monotonic_clock(reactor)
    endpoints = options.endpoints or [server_endpoint(reactor, DEFAULT_ENDPOINT)]
    factory = MetricsFactory(reactor, options.settings)
    metrics = MetricsService(factory, endpoints, tls=options.tls)
    interval = options["interval"]
    daemon = Daemon(lambda reason: _report(options.parent, reason))
    # Added first, so that the handler is installed before the daemon listens: other processes may
    # send SIGHUP from then on.
    reload = None if options.tls is None else options.tls.reload
    HangUpService(reactor, reload).setServiceParent(daemon)
    metrics.setServiceParent(daemon)
    if options.prometheus_endpoints:
        _prometheus(reactor, metrics.recorder, options).setServiceParent(daemon)
    if options.statsd:
        StatsDService(
            reactor,
            metrics.recorder,
            options.statsd,
            prefix=options["statsd-prefix"] or "",
            max_series=options["statsd-max-series"],
            flush=options["statsd-flush"],
            allow=options.networks,
        ).setServiceParent(daemon)
    if options.web_endpoints:
        _web(reactor, factory, options, daemon)
    if options.collects:
        _collector(reactor, metrics.recorder, options).setServiceParent(daemon)
    publishing: Callable[[], object] | None = None
    if options.publish is not None:
        publisher, publishing = _publisher(reactor, factory, metrics.recorder, options)
        publisher.setServiceParent(daemon)
    stop_now: list[Callable[[], object]] = [metrics.stop_now]
    if options.export is not None:
        exporter = _otlp(reactor, metrics.recorder, options.export)
        exporter.setServiceParent(daemon)
        stop_now.append(exporter.stop_now)
    StopSignals(reactor, lambda: [stop() for stop in stop_now]).setServiceParent(daemon)
    collectors: dict[str, Collector] = {}
    if not options["no-process"]:
        collectors["process"] = ProcessCollector(metrics.recorder)
        LagService(metrics.recorder, interval, reactor).setServiceParent(daemon)
    if not options["no-host"]:
        collectors.update(_host_collectors(metrics.recorder))
    if publishing is not None:
        collectors["publisher"] = publishing
    PollingService(collectors, interval, reactor).setServiceParent(daemon)
    return daemon


def _prometheus(reactor: Any, recorder: TcpRecorder, options: Options) -> IService:
    # Imported here, because it imports twisted.web.
    from txmetrics_tcp.bridges._service import PrometheusService
    from txmetrics_tcp.bridges.exposition import MetricsResource

    return PrometheusService(
        reactor,
        MetricsResource(recorder),
        options.prometheus_endpoints,
        options.tls,
        options.networks,
        options["max-clients-per-address"],
    )


def _otlp(reactor: Any, recorder: TcpRecorder, settings: OtlpSettings) -> OtlpService:
    # Imported here, because it needs the extra.
    from txmetrics_tcp.bridges.otlp import OtlpService

    return OtlpService(reactor, recorder, settings)


def _web(reactor: Any, factory: MetricsFactory, options: Options, daemon: Daemon) -> None:
    # Imported here, because they import twisted.web.
    from txmetrics_tcp.web import DEFAULT_HISTORY, MetricsWeb
    from txmetrics_tcp.web._site import PageService

    history = options["web-history"]
    if history is None and options.collects:
        history = DEFAULT_HISTORY
    web = MetricsWeb(
        reactor,
        factory,
        history=history,
        allow_hosts=options.web_hosts,
        token=options.web_token,
    )
    # Its streams end before the connections are closed.
    PageService(
        reactor,
        web.resource,
        options.web_endpoints,
        options.tls,
        options.networks,
        options["max-clients-per-address"],
        None if options.web_token else "--web-token-file or --tls-client-ca",
        with_token=options.web_token is not None,
    ).setServiceParent(daemon)
    web.setServiceParent(daemon)


def _collector(reactor: Any, recorder: TcpRecorder, options: Options) -> IService:
    return relay.CollectorService(
        reactor,
        recorder,
        collect=options.collect,
        sources=options.sources,
        merge=options["merge"],
        instance_label=options["instance-label"],
        gauges=options["gauges"],
        grace=options["grace"],
        limits=relay.SourceLimits(
            options["max-source-series"],
            options["max-source-events"],
            options["max-source-bytes"],
        ),
        tls=options.tls,
        allow=options.networks,
    )


def _publisher(
    reactor: Any, factory: MetricsFactory, recorder: Recorder, options: Options
) -> tuple[IService, Collector]:
    # Imported here, because it needs the extra.
    from txmetrics_tcp.relay._publisher_metrics import PublisherCollector
    from txmetrics_tcp.relay.nats import NatsPublisherService, StreamSettings

    address = options.publish
    assert address is not None
    service = NatsPublisherService(
        reactor,
        address,
        options["publish-source"],
        LocalEndpoint(factory),
        linger=options["publish-linger"],
        buffer_bytes=options["publish-buffer"],
        snapshot_interval=options["publish-snapshot"],
        settings=StreamSettings(options["publish-max-age"], replicas=options["publish-replicas"]),
        access=options.access,
        broker_observer=BrokerReport(
            address,
            ("publish to", "publishing to"),
            lambda text: _log.warn("{text}", text=capitalized(text)),
            succeeded=lambda text: _log.info("{text}", text=capitalized(text)),
        ),
    )
    return service, PublisherCollector(recorder, service)


def _host_collectors(recorder: Recorder) -> Mapping[str, Collector]:
    try:
        import psutil
    except ImportError:
        _log.warn(
            "Not collecting metrics of the machine, because psutil is not installed:"
            " pip install 'txmetrics-tcp[host]'"
        )
        return {}
    return HostCollectors(recorder, psutil).all()


def _report(runner: Mapping[str, Any] | None, reason: str) -> None:
    """
    Report why the daemon cannot start.  In the foreground, print the reason to standard error, and
    log it only if the log goes elsewhere.  In the background, log it.

    @param runner: the options of twistd or twist; None if another program made the service.
    """
    # twist has no option "nodaemon", since it never daemonizes.
    foreground = runner is not None and runner.get("nodaemon", True)
    if foreground:
        # twistd has redirected sys.stderr to the log.
        with suppress(OSError):
            print(f"metrics-tcp: {reason}", file=sys.__stderr__)
    if not foreground or _has_separate_log(runner or {}):
        _log.error("{reason}", reason=reason)


def _has_separate_log(runner: Mapping[str, Any]) -> bool:
    in_file = runner.get("logfile") not in (None, "", "-")
    return bool(in_file or runner.get("syslog") or runner.get("logger"))
