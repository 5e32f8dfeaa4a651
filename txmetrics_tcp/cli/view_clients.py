"""
Clients whose series are given to other systems: the common part of ``prometheus`` and ``otlp``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    Disconnected,
)
from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._model import Event
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.bridges._views import ServerView
from txmetrics_tcp.cli.endpoint_options import client_endpoint_from, sources_of, wants_tls
from txmetrics_tcp.cli.messages import SilenceMessage
from txmetrics_tcp.cli.output import say
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


def watch_views(
    options: argparse.Namespace,
    reactor: Any,
    changed: Callable[[], object],
    failed: Callable[[str], object],
) -> SourceWatch[Client]:
    """
    Make a client for each source of a command.

    @param changed: called after clients were added or removed.
    @param failed: called with a message of one line if a broker will never deliver anything.
    """
    tls = wants_tls(options)

    def make(source: Source) -> Client:
        endpoint = client_endpoint_from(options, reactor, source)
        server = ServerView(
            visible(source.name), reactor.seconds, options.stale_after, source.behind
        )
        return Client(reactor, endpoint, server, say, options.max_frame, tls)

    return SourceWatch(reactor, sources_of(options), make, say, changed, failed=failed)
