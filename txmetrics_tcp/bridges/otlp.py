"""
Exports totals to a receiver of OTLP, such as OpenTelemetry's collector or Prometheus.

Requires the extra ``otlp``; for C{https://}, also ``tls``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.iweb import IAgent

from txmetrics_tcp._instruments.recorder import Counter, Gauge
from txmetrics_tcp._model import Key, Metadata, MetricKind
from txmetrics_tcp.bridges._otlp_export import METADATA, OtlpExporter, OtlpStats
from txmetrics_tcp.bridges._otlp_messages import Resource
from txmetrics_tcp.bridges._otlp_settings import OtlpSettings
from txmetrics_tcp.bridges.exposition import Readable

__all__ = ["OtlpService", "OtlpSettings", "OtlpStats"]

_log = Logger(namespace="txmetrics_tcp")


class Exported(Readable, Protocol):
    """The source of totals, which also records the metrics of the export: a `TcpRecorder`."""

    @property
    def started_ns(self) -> int: ...

    def describe(self, metadata: Metadata) -> None: ...

    def register_counter(self, key: Key) -> Counter: ...

    def register_gauge(self, key: Key) -> Gauge: ...


class OtlpService(Service):
    """
    Exports the totals of a recorder at an interval, with OTLP over HTTP in protobuf, while it runs.

        >>> from twisted.internet import reactor
        >>> from txmetrics_tcp import MetricsFactory
        >>> settings = OtlpSettings.from_environment(service_name="shop")
        >>> service = OtlpService(reactor, MetricsFactory(reactor).recorder, settings)

    Histograms are exponential histograms.  A request is made in steps of a few milliseconds.  After
    a failure, it is retried after at most a second, and then after delays that double up to a
    minute, or as the receiver demands; but only until newer totals are due, which replace it.

    When the service stops, it exports once more, for up to five seconds.

    The service records metrics of its own, C{txmetrics_otlp_…}.
    """

    def __init__(
        self,
        reactor: Any,
        recorder: Exported,
        settings: OtlpSettings | None = None,
        agent: IAgent | None = None,
    ) -> None:
        """
        @param recorder: the source of totals and descriptions: a `txmetrics_tcp.TcpRecorder`.
            Without totals (C{totals=False}), nothing is exported.
        @param settings: where to export to; by default, those in the environment.
        @param agent: what sends the requests, such as one that uses a proxy; by default, an agent
            that verifies certificates as the settings say.
        @raise ValueError: the environment is not valid.
        @raise TLSError: a file cannot be used, or the extra ``tls`` is not installed.
        """
        self.setName("otlp")
        if settings is None:
            settings = OtlpSettings.from_environment()
        self._recorder = recorder
        self._resource = settings.resource()
        for metadata in METADATA:
            recorder.describe(metadata)
        self._handles: dict[Key, Callable[[Any], object]] = {}
        self._exporter = OtlpExporter(
            reactor,
            self._resources,
            settings,
            failed=lambda text: _log.warn("{text}", text=text[:1].upper() + text[1:]),
            succeeded=lambda text: _log.info("{text}", text=text[:1].upper() + text[1:]),
            changed=self._record,
            agent=agent,
        )

    def stats(self) -> OtlpStats:
        """Return what has become of exports so far.  Call this on the reactor thread."""
        return self._exporter.stats

    def startService(self) -> None:
        super().startService()
        self._exporter.start()

    def stopService(self) -> Deferred[None]:
        """
        Stop, after a last export.

        @return: a Deferred that fires after it, in at most five seconds.
        """
        super().stopService()
        return self._exporter.stop()

    def stop_now(self) -> None:
        """If the service is stopping, give up the last export.  Call this on the reactor thread."""
        self._exporter.stop_now()

    def _resources(self) -> Iterator[Resource | None]:
        recorder = self._recorder
        recorder.publish_own_metrics()
        totals = yield from recorder.snapshot_steps()
        about = recorder.descriptions()
        yield Resource(self._resource, recorder.started_ns, totals, about, complete=True)

    def _record(self) -> None:
        for key, total in self._exporter.stats.totals().items():
            record = self._handles.get(key)
            if record is None:
                record = self._handles[key] = self._handle(key)
            record(total)

    def _handle(self, key: Key) -> Callable[[Any], object]:
        if key.kind is MetricKind.COUNTER:
            return self._recorder.register_counter(key).absolute
        return self._recorder.register_gauge(key).set
