"""
``metrics-tcp prometheus``: serve the series of servers to Prometheus.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
)
from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.exposure import audience
from txmetrics_tcp._net.internals import keep_others_file
from txmetrics_tcp._view.source_names import brief_names
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.bridges._site import MetricsSite
from txmetrics_tcp.bridges._views import Pages, ServerView
from txmetrics_tcp.cli.arguments import PROMETHEUS_PORT
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of, wants_tls
from txmetrics_tcp.cli.messages import SilenceMessage, cannot_listen
from txmetrics_tcp.cli.output import log_observer, say
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.source_watch import ServerClient, SourceWatch
from txmetrics_tcp.cli.sources import Source


class Client(ServerClient):
    """
    A client of one server.  It reports the first events of a connection, and each new reason for a
    failed or lost one.

    @ivar server: receives the events and the connection states.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        server: ServerView,
        say: Callable[[str], object],
        max_frame: int = MAX_FRAME,
        tls: bool = False,
    ) -> None:
        """
        @param say: called with human-readable messages of one line.
        @param tls: whether the client uses TLS.
        """
        super().__init__(reactor, endpoint, self._received, self._state_changed, max_frame)
        self.server = server
        self._say = say
        self._last_message = ""
        self._was_connected = False
        self._receiving = False
        self._stopped = False
        self._silence = SilenceMessage(reactor, lambda text: say(f"{server.name}: {text}"), tls)

    def stop(self) -> Deferred[None]:
        """
        Disconnect.

        @return: a Deferred that fires when the connection is closed.
        """
        self._stopped = True
        self._silence.end_silence()
        return super().stop()

    def interrupted(self, reason: str) -> None:
        super().interrupted(reason)
        if self.connected is not bool(reason):
            self.server.interrupted(reason)

    def _received(self, events: list[Event]) -> None:
        if not self._receiving:
            self._receiving = True
            self._last_message = ""
            self._silence.end_silence()
            self._say(f"receiving metrics from {self.server.name}")
        self.server.received(events)

    def _state_changed(self, state: ConnectionState) -> None:
        server = self.server
        was_foreign = server.foreign
        server.state_changed(state)
        if self._stopped:
            return
        self._silence.state_changed(state)
        if isinstance(state, Connected):
            self._was_connected = True
        elif isinstance(state, Disconnected):
            done = "disconnected from" if self._was_connected else "cannot connect to"
            self._was_connected = self._receiving = False
            text = f"{done} {server.name}: {state}"
            # Later attempts often fail for the same reason, and other servers may send any data.
            if text != self._last_message and not (was_foreign and server.foreign):
                self._last_message = text
                self._say(text)


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._listen = options.listen
        self._endpoint = server_endpoint(reactor, options.listen, PROMETHEUS_PORT)
        self._port: IListeningPort | None = None
        tls = wants_tls(options)

        def make(source: Source) -> Client:
            endpoint = client_endpoint_from(options, reactor, source)
            server = ServerView(
                visible(source.name), reactor.seconds, options.stale_after, source.behind
            )
            return Client(reactor, endpoint, server, say, options.max_frame, tls)

        self._pages = Pages()
        self._watch = SourceWatch(
            reactor, sources_of(options), make, say, self._show_sources, failed=self._refused
        )
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
