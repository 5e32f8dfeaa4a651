"""
A live view of metrics in the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from txmetrics_tcp._checks import at_least, seconds_from, short_repr
from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.local import LocalEndpoint
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp.observe.sources import LiveSource, Source

if TYPE_CHECKING:
    from twisted.web.resource import IResource

    from txmetrics_tcp.web._resource import PageResource

__all__ = ["DEFAULT_HISTORY", "MAX_VIEWERS", "MetricsWeb"]

MAX_VIEWERS = 50
"""The default limit of viewers."""

DEFAULT_HISTORY = 600
"""The default length of the history, in seconds."""


class MetricsWeb(Service):
    """
    The live view of sources, as a service and a resource for twisted.web.

        >>> from twisted.internet import reactor
        >>> from twisted.web.resource import Resource
        >>> from txmetrics_tcp.web import MetricsWeb
        >>> root = Resource()
        >>> web = MetricsWeb(reactor, "5000")
        >>> root.putChild(b"metrics", web.resource)

    While the service runs, sources are connected with the first viewer, until 60 seconds after the
    last one.  With C{history}, they are always connected, so that a viewer sees the past.

    The page and its data are served to everyone who can send requests to the site, unless there is
    a token.

    Use it on the reactor thread.
    """

    def __init__(
        self,
        reactor: Any,
        *sources: str | IStreamClientEndpoint | MetricsFactory,
        history: float | None = None,
        max_viewers: int = MAX_VIEWERS,
        allow_hosts: Iterable[str] = (),
        token: str | None = None,
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param sources: endpoint strings, endpoints, or exporters of this process.
        @param history: the time, in seconds, that viewers can look back, for which sources are
            always connected.  By default, they can look back 600 seconds at most, and to the time
            of the connection.
        @param max_viewers: the maximum number of viewers at the same time.
        @param allow_hosts: further names of the site, as in the header C{Host}, such as those of a
            reverse proxy.  Without a port, they stand for the usual one and the site's.
        @param token: what viewers have to know, of at least 16 characters.  It is part of the link
            to the page: C{https://HOST/metrics/#token=TOKEN}.
        @param max_frame: see `txmetrics_tcp.MetricsClientService`.
        @raise EndpointError: a source is not a valid endpoint string.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: an argument is out of range.
        """
        from txmetrics_tcp.web._access import Access
        from txmetrics_tcp.web._feed import Feed
        from txmetrics_tcp.web._resource import PageResource

        self._reactor = reactor
        self._max_frame = max_frame
        self._make = [self._maker(source) for source in sources]
        seconds = DEFAULT_HISTORY if history is None else int(seconds_from(1, "history", history))
        self._sources: list[Source] = []
        self._stopping: Deferred[Any] = succeed(None)
        self._feed = Feed(reactor, seconds, history is not None, self._begin, self._end)
        access = Access(allow_hosts, token)
        self._page: PageResource = PageResource(
            self._feed, access, at_least(1, "max_viewers", max_viewers)
        )

    @property
    def resource(self) -> IResource:
        """The page.  Put it under any site; its path then ends with a slash."""
        return self._page

    def _require(self, token: str) -> None:
        """Require a token from now on."""
        self._page.access.token = token

    def startService(self) -> None:
        super().startService()
        self._feed.start()

    def stopService(self) -> Deferred[Any]:
        """
        End all streams, and disconnect the sources.

        @return: a Deferred that fires when all sources are disconnected.
        """
        super().stopService()
        self._page.close()
        self._feed.stop()
        return self._stopping

    def _maker(self, source: str | IStreamClientEndpoint | MetricsFactory) -> Callable[[], Source]:
        label, endpoint = self._endpoint(source)
        return lambda: LiveSource(self._reactor, label, endpoint, self._max_frame)

    def _endpoint(
        self, source: str | IStreamClientEndpoint | MetricsFactory
    ) -> tuple[str, IStreamClientEndpoint]:
        if isinstance(source, str):
            return source, client_endpoint(self._reactor, source)
        if isinstance(source, MetricsFactory):
            return "this process", LocalEndpoint(source)
        if IStreamClientEndpoint.providedBy(source):
            return type(source).__name__, source
        raise TypeError(f"sources must be endpoints or exporters, not {short_repr(source)}")

    def _begin(self) -> None:
        self._sources = [make() for make in self._make]
        self._feed.show(self._sources)
        for source in self._sources:
            source.start()

    def _end(self) -> None:
        stopping = [maybeDeferred(source.stop) for source in self._sources]
        self._stopping = gatherResults([self._stopping, *stopping])
        self._sources = []
