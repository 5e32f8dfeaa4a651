"""
The HTTP server of the page, on ports of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request

from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.admission import Network, ip_of
from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.listening import ListenError, ListeningService
from txmetrics_tcp._net.tls import ServerTLS
from txmetrics_tcp.bridges._site import TIME_LIMIT, MetricsChannel, MetricsRequest, MetricsSite

IDLE = 75.0
"""The time for which a connection is kept for further requests, in seconds."""


class PageChannel(MetricsChannel):
    """
    A connection of a browser.  It stays open between requests, and for as long as a stream lasts.
    """

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        # The body of a request is not read, so no other request can follow it.
        if self.has_body:
            return super().checkPersistence(request, version)
        return bool(HTTPChannel.checkPersistence(self, request, version))

    def response_begins(self) -> None:
        super().response_begins()
        self._expect_end(TIME_LIMIT)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        # The response is a stream.
        self.deadline.cancel()
        super().registerProducer(producer, streaming)

    def response_ends(self) -> None:
        super().response_ends()
        self._expect_end(IDLE)

    def _expect_end(self, seconds: float) -> None:
        self.deadline.cancel()
        self.deadline = Deadline(self.site.reactor, seconds, self.abort)


class PageRequest(MetricsRequest):
    """A request of a browser."""

    def process(self) -> None:
        if self.path == b"*":
            # Twisted would answer it before the page's rules.
            self.path = b"/*"
        super().process()


class PageSite(MetricsSite):
    """Serves a page at its root."""

    max_connections = 400

    def __init__(
        self,
        reactor: Any,
        page: IResource,
        networks: Sequence[Network] | None = None,
        max_per_address: int | None = None,
    ) -> None:
        """
        @param networks: see `txmetrics_tcp._net.admission.Admission`.
        @param max_per_address: the same.
        """
        super().__init__(reactor, page, networks, max_per_address)
        self.resource = page
        self.requestFactory = PageRequest

    def make_channel(self, peer: IAddress | None) -> MetricsChannel:
        return PageChannel(self, peer)


class PageService(ListeningService):
    """Serves the page while it runs."""

    announcement = "Serving the live view on {address}"
    purpose = "shown to browsers"

    def __init__(
        self,
        reactor: Any,
        page: IResource,
        endpoints: Sequence[IStreamServerEndpoint],
        tls: ServerTLS | None = None,
        networks: Sequence[Network] | None = None,
        max_per_address: int | None = None,
        required: str | None = None,
        with_token: bool = False,
    ) -> None:
        """
        The parameters are those of `txmetrics_tcp.bridges._service.PrometheusService`.

        @param required: what is required to listen beyond this machine without client
            certificates, for the message; None if that is no condition.
        @param with_token: whether the page requires a token from clients of other machines.
        """
        site = PageSite(reactor, page, networks, max_per_address)
        super().__init__(site, endpoints, tls, networks)
        if with_token:
            self.access = "read the metrics with the token"
        self._required = required if tls is None or not tls.wants_certificate else None

    def _check_ports(self) -> None:
        if self._required is None:
            return
        for address in self.addresses:
            host = ip_of(address)
            if host is not None and not host.is_loopback:
                shown = show_address(address)
                raise ListenError(
                    f"Couldn't listen on {shown} without {self._required}: other machines can"
                    " connect to it"
                )
