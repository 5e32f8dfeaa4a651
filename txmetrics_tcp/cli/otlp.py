"""
``metrics-tcp otlp``: export the series of servers with OTLP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner

from txmetrics_tcp._model import Key, Metadata, MetricKind, Total
from txmetrics_tcp._net.tls_errors import TLSError
from txmetrics_tcp.bridges._otlp_export import METADATA, OtlpExporter
from txmetrics_tcp.bridges._otlp_messages import Resource
from txmetrics_tcp.bridges._views import own_families
from txmetrics_tcp.cli.endpoint_options import otlp_settings
from txmetrics_tcp.cli.output import CommandError, log_observer, say
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.view_clients import Client, watch_views


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._settings = settings = otlp_settings(options)
        self._begun_ns = time.time_ns()
        # When the totals of servers that do not say when they started begin.
        self._first_seen: dict[str, int] = {}
        self._watch = watch_views(options, reactor, self._sources_changed, self._refused)
        self._sources_changed()
        try:
            self._exporter = OtlpExporter(reactor, self._resources, settings, say, say)
        except TLSError as error:
            raise CommandError(f"cannot use TLS with {settings.url}: {error}") from None
        self._running = Running(reactor, self._finish, interrupted_code=lambda number: 0)

    def _refused(self, text: str) -> None:
        say(text)
        self._running.stop(2)

    def _sources_changed(self) -> None:
        now = time.time_ns()
        names = [client.server.name for client in self._watch.clients.values()]
        self._first_seen = {name: self._first_seen.get(name, now) for name in names}

    def run(self) -> int:
        globalLogBeginner.beginLoggingTo([log_observer], redirectStandardIO=False)
        return self._running.run(self._start)

    def _start(self) -> None:
        self._exporter.start()
        self._watch.start()

    def _finish(self) -> Deferred[Any]:
        # The last export has all that has been received.
        return self._exporter.stop().addCallback(lambda result: self._watch.stop())

    def _resources(self) -> Iterator[Resource | None]:
        clients = list(self._watch.clients.values())
        for client in clients:
            yield self._resource(client)
            yield None
        totals: dict[Key, Total] = {**self._exporter.stats.totals()}
        about = [*METADATA]
        for family in own_families([client.server for client in clients]):
            # Prometheus' formats append this, too.
            name = family.name + ("_total" if family.type is MetricKind.COUNTER else "")
            about.append(Metadata(family.type, name, None, family.help))
            for labels, total in family.rows().items():
                totals[Key(family.type, name, labels)] = total
        yield Resource(self._settings.resource_of(""), self._begun_ns, totals, about)

    def _resource(self, client: Client) -> Resource:
        server = client.server
        status = server.view.status
        started = None if status is None else status.started_ns
        if started is None:
            started = self._first_seen.get(server.name, self._begun_ns)
        source = server.source()
        attributes = self._settings.resource_of(server.name)
        return Resource(attributes, started, source.totals, source.descriptions)


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
