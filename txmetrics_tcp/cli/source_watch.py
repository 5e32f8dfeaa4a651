"""
Follow the sources of a command while they come and go.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from txmetrics_tcp._client.service import (
    Connected,
    ConnectionState,
    MetricsClientService,
    Waiting,
)
from txmetrics_tcp._model import Event
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoint_syntax import EndpointError
from txmetrics_tcp.cli.output import CommandError
from txmetrics_tcp.cli.sources import NatsStream, Source, Sources
from txmetrics_tcp.relay._extra import BrokerReport, access_from

if TYPE_CHECKING:
    from txmetrics_tcp.relay._feed import NatsFeed

INTERVAL = 1.0
"""The time, in seconds, between looks at globs and files."""


class Client(Protocol):
    """
    What receives or reads one source.

    @ivar connected: whether there is a connection.
    """

    @property
    def connected(self) -> bool: ...

    def start(self) -> object:
        """Begin to connect or to read."""

    def stop(self) -> object:
        """End that.  May return a Deferred that fires afterwards."""

    def retry(self) -> object:
        """Connect now, if the client waits before the next attempt."""

    def interrupted(self, reason: str) -> object:
        """
        Handle the loss of the broker of the source, after which the stream continues.

        @param reason: human-readable; empty when the broker is there again.
        """


C = TypeVar("C", bound=Client)


class ServerClient:
    """
    A client of one server.

    @ivar connected: whether there is a connection.
    """

    connected: bool = False

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        received_many: Callable[[list[Event]], object],
        observer: Callable[[ConnectionState], object],
        max_frame: int,
    ) -> None:
        """The parameters are those of `MetricsClientService`."""
        self._observer = observer
        self._waiting = False
        self._service = MetricsClientService(
            reactor,
            endpoint,
            received_many=received_many,
            observer=self._changed,
            max_frame=max_frame,
        )

    def start(self) -> None:
        self._service.startService()

    def stop(self) -> Deferred[None]:
        return self._service.stopService()

    def retry(self) -> None:
        if self._waiting:
            self._service.stopService()
            self._service.startService()

    def interrupted(self, reason: str) -> None:
        if self._service.protocol is not None:
            self.connected = not reason

    def _changed(self, state: ConnectionState) -> None:
        self.connected = isinstance(state, Connected)
        self._waiting = isinstance(state, Waiting)
        self._observer(state)


class SourceWatch(Generic[C]):
    """
    Keeps a client for each source of a command.  Globs and files are looked at once a second.
    Brokers report their sources.

    A source that has disappeared is removed when it has no connection.  If a socket is replaced by
    another one, its client connects without waiting for its next attempt.

    @ivar clients: the clients by the names of their sources, in the order of their beginning.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sources: Sources,
        make: Callable[[Source], C],
        say: Callable[[str], object],
        changed: Callable[[], object] = lambda: None,
        keep: bool = False,
        failed: Callable[[str], object] | None = None,
    ) -> None:
        """
        @param clock: the reactor, if sources of brokers are to be followed.
        @param make: creates the client of a source.  For those that exist now, its exceptions are
            raised.  For later ones, `EndpointError` and `CommandError` are reported once.
        @param say: called with human-readable messages of one line.
        @param changed: called after clients were added or removed.
        @param keep: whether to keep sources that have disappeared.
        @param failed: called with a message of one line if a broker will never deliver anything.
            By default, that is retried.
        """
        self._clock = clock
        self._failed = failed
        self._sources = sources
        self._make = make
        self._say = say
        self._changed = changed
        self._keep = keep
        self._said: set[str] = set()
        self._running = False
        self._feeds: dict[NatsStream, NatsFeed] = {}
        # The names of sources of brokers, by their streams and their names there.
        self._names: dict[tuple[NatsStream, str], str] = {}
        self._interruptions: dict[NatsStream, str] = {}
        # Those that could be read when they were last looked at.
        self._available: set[NatsStream] = set()
        self._soon: Deadline | None = None
        found = sources.find()
        self.clients: dict[str, C] = {name: make(source) for name, source in found.items()}
        self._identities = {name: source.identity for name, source in found.items()}
        self._unusable: set[str] = set()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Start all clients, and begin to look at globs and files."""
        for glob in self._sources.globs:
            if not glob.find():
                self._say_once(f"no socket matches {glob.text} yet; waiting for one")
        for path in self._sources.empty_files:
            self._say_once(f"{path} names no source yet; waiting for one")
        for client in list(self.clients.values()):
            client.start()
        self.follow()

    def follow(self) -> None:
        """Begin to look at globs and files.  The caller has started the clients."""
        self._running = True
        self._follow_streams()
        if self._sources.watched:
            self._loop.start(INTERVAL, now=False)

    def stop(self) -> Deferred[Any]:
        """
        Stop all clients.

        @return: a Deferred that fires when all connections are closed.
        """
        self._running = False
        if self._loop.running:
            self._loop.stop()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        stopping = [maybeDeferred(one.stop) for one in self.clients.values()]
        stopping += [maybeDeferred(feed.stop) for feed in self._feeds.values()]
        return gatherResults(stopping)

    def update(self) -> None:
        """Add new sources, and remove those that have disappeared."""
        found = self._sources.find()
        self._follow_streams()
        self._add_streams(found)
        for problem in self._sources.problems:
            self._say_once(f"{problem}; its last content applies")
        added = [source for name, source in found.items() if name not in self.clients]
        for name, client in self.clients.items():
            source = found.get(name)
            if source is not None and source.identity != self._identities[name]:
                self._identities[name] = source.identity
                client.retry()
        gone = [
            name
            for name, client in self.clients.items()
            if name not in found and not client.connected and not self._keep
        ]
        self._unusable &= found.keys()
        begun = [new for source in added if (new := self._add(source)) is not None]
        for name in gone:
            del self._identities[name]
            self.clients.pop(name).stop()
        if begun or gone:
            self._changed()
        for client in begun:
            if self._running:
                client.start()

    def _look(self) -> None:
        self.update()
        for stream, feed in self._feeds.items():
            named = any(one == stream for one, _ in self._names)
            # The names of sources have had the time of an interval to arrive.
            if stream in self._available and feed.available and not (named or feed.sources):
                pattern = stream.address.sources
                what = "" if pattern == "*" else f" that matches {pattern!r}"
                self._say_once(f"no source{what} in {stream.address} yet; waiting for one")
        self._available = {stream for stream, feed in self._feeds.items() if feed.available}

    def _follow_streams(self) -> None:
        """Follow the streams that the command line and the files name now."""
        if not self._running:
            return
        streams = self._sources.streams
        for stream in streams:
            if stream not in self._feeds:
                self._feeds[stream] = feed = self._feed(stream)
                feed.start()
        for stream in self._feeds.keys() - streams:
            self._feeds.pop(stream).stop()

    def _feed(self, stream: NatsStream) -> NatsFeed:
        # Imported only here: this needs the extra.
        from txmetrics_tcp.relay._feed import NatsFeed

        since = self._sources.since
        return NatsFeed(
            self._clock,
            stream.address,
            changed=self._stream_changed,
            observer=BrokerReport(stream.address, ("follow", "following"), self._say, self._failed),
            say=self._say,
            since=None if since is None else datetime.now(timezone.utc) - timedelta(seconds=since),
            access=access_from(),
            max_frame=self._sources.max_frame,
        )

    def _add_streams(self, found: dict[str, Source]) -> None:
        """Add the sources of brokers, whose names are longer if there are others of the same."""
        taken = {*found, *self._names.values()}
        for stream, feed in self._feeds.items():
            address = stream.address
            for one in feed.sources:
                name = self._names.get((stream, one.name))
                if name is None:
                    name = one.name
                    if name in taken:
                        name = f"{address.broker}/{address.stream}/{name}"
                    taken.add(name)
                    self._names[stream, one.name] = name
                found.setdefault(
                    name,
                    Source(
                        *(name, name, False, "", one.connections, one),
                        lambda feed=feed: feed.behind,  # type: ignore[misc]
                    ),
                )

    def _stream_changed(self) -> None:
        # One update for all sources of a message batch.
        if self._running and self._soon is None:
            self._soon = Deadline(self._clock, 0, self._update_streams)

    def _update_streams(self) -> None:
        self._soon = None
        self.update()
        for stream, feed in self._feeds.items():
            reason = feed.interruption
            if self._interruptions.get(stream, "") != reason:
                self._interruptions[stream] = reason
                for source in feed.sources:
                    client = self.clients.get(self._names.get((stream, source.name), ""))
                    if client is not None:
                        client.interrupted(reason)

    def _add(self, source: Source) -> C | None:
        if source.name in self._unusable:
            return None
        try:
            client = self._make(source)
        except (EndpointError, CommandError) as error:
            self._unusable.add(source.name)
            self._say(str(error))
            return None
        self._identities[source.name] = source.identity
        self.clients[source.name] = client
        return client

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)
