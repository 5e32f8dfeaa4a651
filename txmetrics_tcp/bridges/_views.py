"""
The series that clients receive from servers, as metrics of Prometheus: one page for all servers,
and one for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence

from twisted.web.http import NOT_FOUND
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import Request

from txmetrics_tcp._client.service import Connected, ConnectionState, Disconnected
from txmetrics_tcp._codec.framing import StreamError
from txmetrics_tcp._model import Event, Key, Labels, MetricKind, Total
from txmetrics_tcp._view.series import SeriesView, SourceView
from txmetrics_tcp.bridges._families import Own, Source
from txmetrics_tcp.bridges.exposition import Exposition, Gzip

LABEL = "source"
"""The label with the name of the server."""


class ServerView:
    """
    What is known of a server.  Pass it the events and the connection states of one client.

    @ivar name: the value of the label C{source}.
    @ivar view: the series.
    @ivar connected: whether a connection exists, unless the last one was to no metrics server and
        this one has delivered no events yet.
    @ivar connections: the number of connections so far.
    @ivar foreign: whether the last connection was to no metrics server.
    @ivar behind: of a source of a broker, returns the number of messages that the broker has and
        this process has not received; None for a server.
    """

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        stale_after: float,
        behind: Callable[[], int] | None = None,
    ) -> None:
        """
        @param clock: returns the time in seconds.
        @param stale_after: the number of seconds without a connection after which the series are no
            longer exposed.
        @param behind: see C{behind} of this class.
        """
        self.name = name
        self.behind = behind
        self.view: SourceView = SourceView(clock)
        self.connections: int = 0
        self.foreign: bool = False
        self._clock = clock
        self._stale_after = stale_after
        self._connected = False
        self._lost_at = -math.inf
        # Series without events since then are stale.
        self._since = -math.inf

    @property
    def connected(self) -> bool:
        return self._connected and not self.foreign

    @property
    def stale(self) -> bool:
        """Whether the server has been disconnected for too long."""
        return not self._connected and self._clock() - self._lost_at >= self._stale_after

    def received(self, events: list[Event]) -> None:
        """Ingest the next events."""
        self.foreign = False
        self.view.ingest(events)

    def state_changed(self, state: ConnectionState) -> None:
        """Handle a new state of the connection."""
        match state:
            case Connected():
                if self.stale:
                    self._since = self._clock()
                self._connected = True
                self.connections += 1
                self.view.connected()
            case Disconnected():
                self.foreign = isinstance(state.reason.value, StreamError)
                if self._connected:
                    self._connected = False
                    # A proxy, or another program, may accept connections for a dead server.
                    if not (state.closed_early or self.foreign):
                        self._lost_at = self._clock()

    def interrupted(self, reason: str) -> None:
        """
        Handle the loss of a broker, after which the stream continues.

        @param reason: empty when the broker is there again.
        """
        if reason and self._connected:
            self._connected = False
            self._lost_at = self._clock()
        elif not (reason or self._connected):
            if self.stale:
                self._since = self._clock()
            self._connected = True

    def source(self) -> Source:
        """Return the series to expose."""
        view, since = self.view, self._since
        series = {}
        if not self.stale:
            series = {key: one for key, one in view.series.items() if one.updated >= since}
        return Source(((LABEL, self.name),), _Totals(series), view.descriptions())


class _Totals(Mapping[Key, Total]):
    """
    The totals of series, read one after the other: that of a histogram takes time.

    Histograms without a distribution are omitted from the items.
    """

    def __init__(self, series: Mapping[Key, SeriesView]) -> None:
        self._series = series

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._series)

    def __getitem__(self, key: Key) -> Total:
        series = self._series[key]
        total = series.distribution if key.kind is MetricKind.HISTOGRAM else series.value
        if total is None:
            raise KeyError(key)
        return total

    def items(self) -> ItemsView[Key, Total]:
        return _Items(self)


class _Items(ItemsView[Key, Total]):
    def __init__(self, totals: _Totals) -> None:
        super().__init__(totals)
        self._totals = totals

    def __iter__(self) -> Iterator[tuple[Key, Total]]:
        for key in self._totals:
            try:
                yield key, self._totals[key]
            except KeyError:
                continue


def own_families(servers: Sequence[ServerView]) -> list[Own]:
    """Return families about servers and their connections."""

    def gauge(name: str, help: str, value: Callable[[ServerView], int]) -> Own:
        return Own(name, MetricKind.GAUGE, help, lambda: {_of(one): value(one) for one in servers})

    def missed() -> dict[Labels, Total]:
        rows: dict[Labels, Total] = {}
        for one in servers:
            view = one.view
            if view.status is not None:
                rows[_of(one, ("side", "incoming"))] = view.missed_incoming
                rows[_of(one, ("side", "client"))] = view.missed_client
            rows[_of(one, ("side", "bridge"))] = view.refused
        return rows

    def behind() -> dict[Labels, Total]:
        return {_of(one): one.behind() for one in servers if one.behind is not None}

    return [
        Own(
            "txmetrics_source_behind_messages",
            MetricKind.GAUGE,
            "Messages that the broker of the source has, and this process has not received.",
            behind,
        ),
        gauge(
            "txmetrics_source_connected",
            "Whether the server is connected.",
            lambda one: int(one.connected),
        ),
        Own(
            "txmetrics_source_connections",
            MetricKind.COUNTER,
            "Connections to the server.",
            lambda: {_of(one): one.connections for one in servers},
        ),
        Own(
            "txmetrics_source_restarts",
            MetricKind.COUNTER,
            "Restarts of the server that its stream status has shown.",
            lambda: {_of(one): one.view.restarts for one in servers if one.view.status is not None},
        ),
        Own(
            "txmetrics_source_missed_events",
            MetricKind.COUNTER,
            "Events dropped by the server on its incoming side, or because this client was slow,"
            " and events ignored here because of too many series.",
            missed,
        ),
    ]


def _of(server: ServerView, *more: tuple[str, str]) -> Labels:
    return tuple(sorted(((LABEL, server.name), *more)))


class Pages(Resource):
    """
    The root of the site: C{/metrics} with all servers, C{/metrics/NAME} with one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._servers: list[ServerView] = []
        self._all = _page(self._servers)
        self._pages: dict[str, IResource] = {}
        self._names: dict[str, str] = {}

    def show(self, servers: Sequence[ServerView], names: Mapping[str, str]) -> None:
        """
        Replace the servers.  The pages of those that stay are kept.

        @param names: short names of servers, which C{/metrics/NAME} also accepts, by their names.
        """
        stay = {one.name for one in servers if one in self._servers}
        self._pages = {
            one.name: self._pages[one.name] if one.name in stay else _page([one]) for one in servers
        }
        # The page of all servers reads this list.
        self._servers[:] = servers
        self._names = {brief: name for name, brief in names.items()}

    def getChild(self, path: bytes, request: Request) -> IResource:
        rest = request.postpath or []
        if path == b"metrics":
            # The name of a UNIX socket has slashes.
            name = b"/".join(rest).decode(errors="replace")
            if not name:
                return self._all
            page = self._pages.get(name) or self._pages.get(self._names.get(name, ""))
            names = "".join(f"  {one}\n" for one in self._pages)
            return page or _Text(f"No such source.  The sources are:\n{names}", NOT_FOUND)
        if path or rest:
            return _Text("Not found.  See /metrics\n", NOT_FOUND)
        return _Text("See /metrics, or /metrics/NAME for one source\n")


def _page(servers: Sequence[ServerView]) -> IResource:
    def sources() -> list[Source]:
        return [one.source() for one in servers]

    page: IResource = EncodingResourceWrapper(
        Exposition(sources, own=own_families(servers)), [Gzip()]
    )
    return page


class _Text(Resource):
    isLeaf = True

    def __init__(self, text: str, code: int = 200) -> None:
        super().__init__()
        self._text = text
        self._code = code

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self._code)
        request.setHeader("content-type", "text/plain; charset=utf-8")
        return self._text.encode()
