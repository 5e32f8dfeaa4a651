"""
A receiver of OTLP in this process, which decodes requests with opentelemetry-proto.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer_only

reactor: Any = global_reactor


class Series(NamedTuple):
    """
    A point of a request.

    @ivar resource: the attributes of its resource.
    @ivar metric: the message of its metric.
    @ivar labels: its attributes.
    @ivar point: its message.
    """

    resource: dict[str, str]
    metric: Any
    labels: dict[str, str]
    point: Any

    @property
    def value(self) -> int | float:
        """The value of a number."""
        field = self.point.WhichOneof("value")
        value: int | float = getattr(self.point, field)
        return value


def decoded(body: bytes) -> Any:
    return ExportMetricsServiceRequest.FromString(body)


def series_in(request: Any) -> Iterator[Series]:
    for resource in request.resource_metrics:
        about = attributes(resource.resource.attributes)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    yield Series(about, metric, attributes(point.attributes), point)


def named(request: Any, name: str) -> list[Series]:
    """Return the series of a metric."""
    return [one for one in series_in(request) if one.metric.name == name]


def attributes(found: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in found}


def partial(rejected: int, message: str) -> bytes:
    """Return the body of a response."""
    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = rejected
    response.partial_success.error_message = message
    return bytes(response.SerializeToString())


class Received(NamedTuple):
    """
    A request.

    @ivar message: its decoded body.
    """

    path: str
    headers: Headers
    message: Any


# With Twisted 24.10, a factory that negotiates protocols changes the TLS context.
@implementer_only(IProtocolFactory)
class _Site(Site):
    noisy = False


class OtlpReceiver(Resource):
    """
    Listens while a test runs.

    @ivar url: its URL, without a path.
    @ivar received: the requests so far.
    @ivar statuses: the statuses of the next responses; afterwards, it is 200.
    """

    isLeaf = True

    def __init__(self, case: TestCase, endpoint: Callable[[Site], Any] | None = None) -> None:
        """
        @param endpoint: makes the listening port of a site.
        """
        super().__init__()
        site = _Site(self)
        if endpoint is None:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            port = endpoint(site)
        case.addCleanup(port.stopListening)
        self.port: int = port.getHost().port
        self.url: str = f"http://127.0.0.1:{self.port}"
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self._waiting: list[Deferred[None]] = []

    def render_POST(self, request: Request) -> bytes:
        content: Any = request.content
        body = content.read()
        if request.getHeader("content-encoding") == "gzip":
            body = gzip.decompress(body)
        path = (request.path or b"").decode()
        self.received.append(Received(path, request.requestHeaders, decoded(body)))
        request.setResponseCode(self.statuses.pop(0) if self.statuses else 200)
        request.setHeader("content-type", "application/x-protobuf")
        request.setHeader("connection", "close")
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)
        return b""

    async def has(self, name: str, is_wanted: Callable[[Series], bool] = bool) -> Series:
        """Wait for a series of a metric for which a function returns True."""
        seen = 0
        while True:
            for request in self.received[seen:]:
                for one in named(request.message, name):
                    if is_wanted(one):
                        return one
            seen = len(self.received)
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
