"""
An HTTP server for scrapers, whose cost is bounded.

Twisted's own server allows a client to stay connected indefinitely, to send a body of any size, and
to pipeline requests, which are answered without a reactor iteration in between.  This one answers
one request per connection, without its body, within a time limit.

Everything in this module runs on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer_only

from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.admission import Admission, Network
from txmetrics_tcp._net.connection import Rejected
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.log_throttle import RejectionLog
from txmetrics_tcp._net.tls import explain
from txmetrics_tcp._net.writers import abort

MAX_CONNECTIONS = 50
"""
The maximum number of connections at the same time.  A scrape takes one, usually for milliseconds.
Beyond it, a new connection replaces the oldest one for which no response is being made.
"""

TIME_LIMIT = 30.0
"""
The number of seconds after which a connection is closed: TLS handshake, request and response.
"""


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> IResource:
        # The page of `Resource` is deprecated.
        return notFound()


# Unlike Twisted's site, not an IProtocolNegotiationFactory: for one, Twisted 24.10 changes the TLS
# context, which fails if a connection has used it.
@implementer_only(IProtocolFactory)
class MetricsSite(Site):
    """
    Serves a resource at ``/metrics``.

    @cvar max_connections: see `MAX_CONNECTIONS`.
    @ivar reactor: the reactor that the site is used with.
    @ivar silenced: see `txmetrics_tcp._net.listening.Server`.
    """

    noisy = False
    silenced = False
    max_connections: int = MAX_CONNECTIONS

    def __init__(
        self,
        reactor: Any,
        resource: IResource,
        networks: Sequence[Network] | None = None,
        max_per_address: int | None = None,
    ) -> None:
        """
        @param networks: see `Admission`.
        @param max_per_address: see `Admission`.
        """
        root = _Root()
        root.putChild(b"metrics", resource)
        # Twisted's timeout is not used: it begins again with each received byte.
        super().__init__(root, MetricsRequest, timeout=None, reactor=reactor)
        self._admission = Admission(networks, None, max_per_address)
        self._rejections = RejectionLog(reactor)
        self._channels: set[MetricsChannel] = set()
        # Those for which no response is being made, in the order of their arrival.
        self._replaceable: dict[MetricsChannel, None] = {}
        self._stopping = False
        self._waiters: list[Deferred[None]] = []

    def stop(self) -> Deferred[None]:
        """
        Close all connections, and reject further ones until a port listens again.

        @return: a Deferred that fires when all connections are closed.
        """
        gone: Deferred[None] = Deferred()
        self._waiters.append(gone)
        self._stopping = True
        for channel in list(self._channels):
            channel.abort()
        self._finish()
        return gone

    # Called by Twisted.

    def startFactory(self) -> None:
        """Unlike Twisted's site, log no requests."""
        self._stopping = False

    def stopFactory(self) -> None:
        self._rejections.close()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._stopping:
            return Rejected()
        reason = self._admission.rejection_reason(addr) or self._make_room()
        if reason is not None:
            self._rejections.report(show_address(addr), reason)
            return Rejected()
        channel = self.make_channel(addr)
        channel.factory = self
        channel.requestFactory = self.requestFactory
        channel.timeOut = None
        return channel

    def make_channel(self, peer: IAddress | None) -> MetricsChannel:
        """Make the protocol of a connection."""
        return MetricsChannel(self, peer)

    # Called by channels.

    def arrived(self, channel: MetricsChannel) -> None:
        """Count a connection."""
        self._channels.add(channel)
        self._replaceable[channel] = None
        self._admission.enter(channel.peer)

    def left(self, channel: MetricsChannel) -> None:
        """Stop counting a connection."""
        self._channels.discard(channel)
        self._replaceable.pop(channel, None)
        self._admission.leave(channel.peer)
        self._finish()

    def response_begins(self, channel: MetricsChannel) -> None:
        """Do not replace this connection."""
        self._replaceable.pop(channel, None)

    def response_ends(self, channel: MetricsChannel) -> None:
        """From now on, the connection only waits for the client to read the response."""
        self._replaceable[channel] = None

    def rejected(self, channel: MetricsChannel, reason: str) -> None:
        """Log why a client is disconnected."""
        self._rejections.report(show_address(channel.peer), reason)

    def connection_rejected(self, address: str, reason: str) -> None:
        """Log a connection that was closed before it reached `buildProtocol`."""
        self._rejections.report(address, reason)

    def _make_room(self) -> str | None:
        """
        If there are too many connections, close one.

        @return: the reason for rejecting a client if none can be closed.
        """
        if len(self._channels) < self.max_connections:
            return None
        limit = f"connection limit reached ({self.max_connections})"
        if not self._replaceable:
            return limit
        oldest = next(iter(self._replaceable))
        # The connection is closed in the next reactor iteration.
        del self._replaceable[oldest]
        oldest.reject(f"{limit}, and no response is being made for it")
        return None

    def _finish(self) -> None:
        if self._stopping and not self._channels:
            self._rejections.close()
            waiters, self._waiters = self._waiters, []
            for gone in waiters:
                gone.callback(None)


class MetricsChannel(HTTPChannel):
    """
    The connection of a scraper.  One deadline ends it, whatever it waits for: the TLS handshake, a
    request, a reader of the response, or the client's close alert.

    @ivar peer: the client's address.
    @ivar deadline: ends the connection.
    @ivar has_body: whether the current request has a body, which is not read.
    """

    transport: Any
    has_body: bool = False

    def __init__(self, site: MetricsSite, peer: IAddress | None) -> None:
        super().__init__()
        self.site = site
        self.peer = peer
        self._received_data = False

    def abort(self) -> None:
        """Close the connection immediately."""
        abort(self.transport)

    def reject(self, reason: str) -> None:
        """Log a reason, and close the connection immediately."""
        self.site.rejected(self, reason)
        self.abort()

    def connectionMade(self) -> None:
        self.site.arrived(self)
        self.deadline = Deadline(self.site.reactor, TIME_LIMIT, self._too_slow)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self._received_data = True
        try:
            super().dataReceived(data)
        except Exception as error:
            # Twisted's parser raises for some invalid requests.
            self.reject(f"sent a request that raises {type(error).__name__}")

    def allHeadersReceived(self) -> None:
        """
        Answer without waiting for the body.  Twisted would put it in memory or a temporary file,
        and decode 64 KiB of chunks of one byte in 40 ms.
        """
        self.has_body = self.length != 0
        self.length = 0
        super().allHeadersReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Close the connection after the first response."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def response_begins(self) -> None:
        """Called before a request is answered."""
        self.site.response_begins(self)

    def response_ends(self) -> None:
        """Called when a request has been answered."""
        self.site.response_ends(self)

    def requestDone(self, request: Request) -> None:
        self.response_ends()
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.deadline.cancel()
        try:
            if not self._received_data and (why := explain(reason.value)) is not None:
                self.site.rejected(self, f"TLS handshake failed: {why}")
            super().connectionLost(reason)
        finally:
            self.site.left(self)

    def _too_slow(self) -> None:
        self.reject(f"request and response took more than {TIME_LIMIT:g} seconds")


class MetricsRequest(Request):
    """A request that tells the site when its response begins."""

    def process(self) -> None:
        channel: Any = self.channel
        channel.response_begins()
        super().process()
