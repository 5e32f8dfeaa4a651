"""
``metrics-tcp publish``: publish the streams of servers through a broker.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import globalLogBeginner

from txmetrics_tcp._client.service import Connected, ConnectionState, Waiting
from txmetrics_tcp._model import Unit
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_HOST, EndpointError
from txmetrics_tcp._view.numbers import show_duration, show_value
from txmetrics_tcp._view.text import counted
from txmetrics_tcp.cli.endpoint_options import (
    address_of,
    client_endpoint_from,
    sources_of,
    wants_tls,
)
from txmetrics_tcp.cli.messages import ConnectionMessages, SourceMessages
from txmetrics_tcp.cli.output import log_observer, say
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.runner import Running
from txmetrics_tcp.cli.source_watch import SourceWatch
from txmetrics_tcp.cli.sources import Source
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import check_source_name
from txmetrics_tcp.relay._extra import BrokerReport, access_from
from txmetrics_tcp.relay.nats import NatsPublisherService, StreamSettings


class Publisher:
    """
    The publisher of one server.

    @ivar connected: whether there is a connection to the server.
    @ivar service: publishes the stream.
    """

    connected: bool = False

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        name: str,
        options: argparse.Namespace,
        access: Access,
        messages: ConnectionMessages | SourceMessages,
        report: BrokerReport,
    ) -> None:
        """
        @param name: the name of the source in the stream.
        @param messages: reports the state of the connection to the server.
        @param report: reports the state of the broker.
        """
        self._messages = messages
        self._waiting = False
        self.service: NatsPublisherService = NatsPublisherService(
            reactor,
            address_of(options),
            name,
            endpoint,
            linger=options.linger,
            buffer_bytes=options.buffer,
            snapshot_interval=options.snapshot,
            settings=StreamSettings(max_age=options.max_age, replicas=options.replicas),
            access=access,
            observer=self._changed,
            received=messages.received,
            broker_observer=report,
            max_frame=options.max_frame,
        )

    def start(self) -> None:
        self.service.startService()

    def stop(self) -> Deferred[None]:
        self._messages.end_silence()
        return self.service.stopService()

    def retry(self) -> None:
        if self._waiting:
            self.service.reconnect()

    def interrupted(self, reason: str) -> None:
        self.connected = not reason

    def _changed(self, state: ConnectionState) -> None:
        self.connected = isinstance(state, Connected)
        self._waiting = isinstance(state, Waiting)
        self._messages.state_changed(state)


class _Command:
    """One run of the command, from its options to its exit code."""

    def __init__(self, options: argparse.Namespace, reactor: Any) -> None:
        self._options = options
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._sources = sources_of(options)
        self._access = access_from()
        self._address = address_of(options)
        self._progress = Progress(reactor, self._progress_text)
        self._running = Running(reactor, self._finish, interrupted_code=lambda number: 0)
        self._report = BrokerReport(
            self._address, ("publish to", "publishing to"), self._progress.say, self._refused
        )
        # Also those whose servers have disappeared.
        self._publishers: list[Publisher] = []
        self._refusal = ""
        self._watch: SourceWatch[Publisher] = SourceWatch(
            reactor,
            self._sources,
            self._make,
            self._progress.say,
            failed=self._refused,
        )

    def run(self) -> int:
        globalLogBeginner.beginLoggingTo([log_observer], redirectStandardIO=False)
        return self._running.run(self._start)

    def _make(self, source: Source) -> Publisher:
        options, say = self._options, self._progress.say
        name = source_name(options.source, source.name, self._sources.several)
        try:
            check_source_name(name)
        except ValueError as error:
            raise EndpointError(f"{source.name} cannot be published: {error}") from None
        endpoint = client_endpoint_from(options, self._reactor, source)
        messages_class = SourceMessages if self._sources.several else ConnectionMessages
        publisher = Publisher(
            self._reactor,
            endpoint,
            name,
            options,
            self._access,
            messages_class(source.name, self._clock, say, wants_tls(options)),
            self._report,
        )
        self._publishers.append(publisher)
        return publisher

    def _start(self) -> None:
        self._started = self._clock.seconds()
        self._progress.start()
        self._watch.start()

    def _refused(self, text: str) -> None:
        self._progress.say(text)
        self._refusal = text
        self._running.stop(2)

    def _finish(self) -> Deferred[Any]:
        self._progress.stop()
        stopped = self._watch.stop()
        if not self._refusal:
            stopped.addCallback(lambda result: self._say_result())
        return stopped

    def _say_result(self) -> None:
        say(f"published {self._summary()}")

    def _progress_text(self) -> str:
        seconds = show_duration(self._clock.seconds() - self._started)
        pending = sum(one.service.pending_bytes for one in self._publishers)
        more = f", {show_value(pending, Unit.BYTES)} pending" if pending else ""
        return f"publishing: {seconds}, {self._summary()}{more}"

    def _summary(self) -> str:
        publishers = self._publishers
        events = sum(one.service.events for one in publishers)
        given_up = sum(one.service.given_up for one in publishers)
        lost = f", of which {given_up:,} were given up" if given_up else ""
        return f"{counted(events, 'event')} of {counted(len(publishers), 'source')}{lost}"


def source_name(
    given: str | None, name: str, several: bool, host: Callable[[], str] = socket.gethostname
) -> str:
    """
    Return the name of a source in the stream.

        >>> source_name(None, "127.0.0.1:5000", False, lambda: "web1")
        'web1'
        >>> source_name(None, "127.0.0.1:5000", True, lambda: "web1")
        'web1:5000'
        >>> source_name("shop", "unix:/run/shop/a.sock", True)
        'shop:/run/shop/a.sock'

    @param given: the name that the user has given; by default, that of this host.
    @param name: the name of the server.
    @param several: whether there can be other servers.
    """
    whole = given or host()
    if not several:
        return whole
    return f"{whole}:{name.removeprefix('unix:').removeprefix(f'{DEFAULT_HOST}:')}"


def run(options: argparse.Namespace, reactor: Any) -> int:
    """See `txmetrics_tcp.cli.commands.run_command`."""
    return _Command(options, reactor).run()
