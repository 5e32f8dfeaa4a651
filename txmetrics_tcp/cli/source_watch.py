"""
Follow the sources of a command while they come and go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

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
from txmetrics_tcp._net.endpoint_syntax import EndpointError
from txmetrics_tcp.cli.output import CommandError
from txmetrics_tcp.cli.sources import Source, Sources

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

    def _changed(self, state: ConnectionState) -> None:
        self.connected = isinstance(state, Connected)
        self._waiting = isinstance(state, Waiting)
        self._observer(state)


class SourceWatch(Generic[C]):
    """
    Keeps a client for each source of a command.  Globs and files are looked at once a second.

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
    ) -> None:
        """
        @param make: creates the client of a source.  For those that exist now, its exceptions are
            raised.  For later ones, `EndpointError` and `CommandError` are reported once.
        @param say: called with human-readable messages of one line.
        @param changed: called after clients were added or removed.
        @param keep: whether to keep sources that have disappeared.
        """
        self._sources = sources
        self._make = make
        self._say = say
        self._changed = changed
        self._keep = keep
        self._said: set[str] = set()
        self._running = False
        found = sources.find()
        self.clients: dict[str, C] = {name: make(source) for name, source in found.items()}
        self._identities = {name: source.identity for name, source in found.items()}
        self._unusable: set[str] = set()
        self._loop = LoopingCall(self.update)
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
        return gatherResults([maybeDeferred(one.stop) for one in self.clients.values()])

    def update(self) -> None:
        """Add new sources, and remove those that have disappeared."""
        found = self._sources.find()
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
