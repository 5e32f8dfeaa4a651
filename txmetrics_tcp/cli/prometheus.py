"""
``metrics-tcp prometheus``: serve the series of servers to Prometheus.
"""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.internals import keep_others_file
from txmetrics_tcp._view.source_names import brief_names
from txmetrics_tcp.bridges._site import MetricsSite
from txmetrics_tcp.bridges._views import Pages
from txmetrics_tcp.cli.arguments import PROMETHEUS_PORT
from txmetrics_tcp.cli.messages import cannot_listen
from txmetrics_tcp.cli.output import log_observer, say
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.view_clients import watch_views


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._listen = options.listen
        self._endpoint = server_endpoint(reactor, options.listen, PROMETHEUS_PORT)
        self._port: IListeningPort | None = None
        self._pages = Pages()
        self._watch = watch_views(options, reactor, self._show_sources, self._refused)
        self._show_sources()
        self._site = MetricsSite(reactor, self._pages)
        # The pages include that of the root.
        self._site.resource = self._pages
        self._running = Running(reactor, self._finish, interrupted_code=lambda number: 0)

    def _refused(self, text: str) -> None:
        say(text)
        self._running.stop(2)

    def _show_sources(self) -> None:
        servers = [client.server for client in self._watch.clients.values()]
        self._pages.show(servers, brief_names([server.name for server in servers]))

    def run(self) -> int:
        globalLogBeginner.beginLoggingTo([log_observer], redirectStandardIO=False)
        return self._running.run(self._start)

    def _start(self) -> Any:
        listening = maybeDeferred(self._endpoint.listen, self._site)
        return listening.addCallbacks(self._listening, self._not_listening)

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        keep_others_file(port, self._endpoint)
        address = port.getHost()
        say(f"metrics are served on {show_address(address)}, at /metrics")
        if who := audience(address):
            say(f"{who} can read the metrics")
        self._watch.start()

    def _not_listening(self, reason: Failure) -> None:
        say(cannot_listen(self._listen, reason))
        self._running.stop(1)

    def _finish(self) -> Deferred[Any] | None:
        if self._port is None:
            return None
        stopping = maybeDeferred(self._port.stopListening)
        return gatherResults([self._watch.stop(), stopping, self._site.stop()])


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
