"""
Serves totals to Prometheus over HTTP, on ports of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.web.resource import IResource

from txmetrics_tcp._net.admission import Network
from txmetrics_tcp._net.listening import ListeningService
from txmetrics_tcp._net.tls import ServerTLS
from txmetrics_tcp.bridges._site import MetricsSite


class PrometheusService(ListeningService):
    """
    Serves a resource at ``/metrics`` while it runs.  For programs without a web site of their own.
    """

    announcement = "Serving /metrics to Prometheus on {address}"
    purpose = "served to Prometheus"

    def __init__(
        self,
        reactor: Any,
        resource: IResource,
        endpoints: Sequence[IStreamServerEndpoint],
        tls: ServerTLS | None = None,
        networks: Sequence[Network] | None = None,
        max_per_address: int | None = None,
    ) -> None:
        """
        @param resource: a `txmetrics_tcp.bridges.exposition.MetricsResource`, for example.
        @param endpoints: the endpoints to listen on.
        @param tls: wraps the connections of all endpoints in TLS; None for no TLS, or if the
            endpoints provide it.
        @param networks: the networks to accept clients from; None for any.
        @param max_per_address: the maximum number of connections per IPv4 address or IPv6 /64
            network; None for no limit.
        @raise TypeError: C{endpoints} or C{tls} is of the wrong type.
        """
        site = MetricsSite(reactor, resource, networks, max_per_address)
        super().__init__(site, endpoints, tls, networks)
