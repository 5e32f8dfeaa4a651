"""
Serves totals to Prometheus: a resource for twisted.web.

The resource answers in the text format 0.0.4, in OpenMetrics 1.0.0, or in protobuf with native
histograms, as the request accepts.  It renders in slices of a few milliseconds, between which the
reactor handles other events, and waits while a client reads slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Cooperator, TaskFinished, TaskStopped
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NOT_ALLOWED, SERVICE_UNAVAILABLE
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request
from zope.interface import implementer

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._distribution import Distribution
from txmetrics_tcp._model import Key, Metadata, Total, Unit
from txmetrics_tcp.bridges._families import Families, Family, Own, Source
from txmetrics_tcp.bridges._formats import OPEN_METRICS, PROTOBUF, TEXT, Format

_log = Logger(namespace="txmetrics_tcp")

MAX_RESPONSES = 8
"""The maximum number of responses at the same time.  Further requests are answered with 503."""

TIMEOUT = 30.0
"""The time in which a client has to read a response, in seconds; then it is disconnected."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BYTES = tuple(float(4**exponent) for exponent in range(3, 16))
_NUMBERS = tuple(digit * 10.0**power for power in range(7) for digit in (1, 2, 5))

BUCKETS: dict[str, tuple[float, ...]] = {
    Unit.SECONDS: _SECONDS,
    Unit.MILLISECONDS: tuple(limit * 1e3 for limit in _SECONDS),
    Unit.MICROSECONDS: tuple(limit * 1e6 for limit in _SECONDS),
    Unit.NANOSECONDS: tuple(limit * 1e9 for limit in _SECONDS),
    Unit.BYTES: _BYTES,
}
"""The limits of classic buckets by unit."""


class Readable(Protocol):
    """What totals are read from: a recorder."""

    def publish_own_metrics(self) -> None:
        """Record metrics of the exporter itself."""

    def snapshot_steps(self) -> Generator[None, None, Mapping[Key, Total]]:
        """Return the totals of all series; the generator yields after each step."""

    def descriptions(self) -> Iterable[Metadata]:
        """Return the descriptions of all metrics."""


class MetricsResource(EncodingResourceWrapper):
    """
    The totals of a recorder, as metrics of Prometheus.  Put it under any twisted.web site.

        >>> from twisted.internet import reactor
        >>> from twisted.web.resource import Resource
        >>> from txmetrics_tcp import MetricsFactory
        >>> root = Resource()
        >>> root.putChild(b"metrics", MetricsResource(MetricsFactory(reactor).recorder))

    Names are made valid.  If metrics have the same name then, only the first one is exposed; the
    log says once which one is not, and C{txmetrics_exposition_left_out} counts the series.
    """

    def __init__(
        self,
        recorder: Readable,
        *,
        buckets: Sequence[float] | None = None,
        quantiles: Sequence[float] = (),
    ) -> None:
        """
        @param recorder: the source of totals and descriptions.
        @param buckets: the limits of the classic buckets of all histograms, in ascending order.  By
            default, they depend on the unit.  Native histograms need none: C{()}.
        @param quantiles: those of each histogram, from 0 to 1, that are exposed as gauges: of all
            samples since the program's start, with the name of the histogram and C{_quantile}.
        @raise ValueError: the limits are not in ascending order, or a quantile is out of range.
        """

        def sources() -> Iterator[Source | None]:
            recorder.publish_own_metrics()
            totals = yield from recorder.snapshot_steps()
            yield Source((), totals, recorder.descriptions())

        super().__init__(Exposition(sources, buckets, quantiles=quantiles), [Gzip()])


class Gzip(GzipEncoderFactory):
    """Compresses responses fast."""

    compressLevel = 1


class Exposition(Resource):
    """
    Series of any number of sources, as metrics of Prometheus.
    """

    isLeaf = True

    def __init__(
        self,
        sources: Callable[[], Iterable[Source | None]],
        buckets: Sequence[float] | None = None,
        own: Sequence[Own] = (),
        quantiles: Sequence[float] = (),
    ) -> None:
        """
        @param sources: returns the series; called on the reactor thread for each request.  It may
            be a generator that works in slices, and yields None after each.
        @param buckets: see `MetricsResource`.
        @param own: families in addition to those of the sources, whose metrics cannot have their
            names.
        @param quantiles: see `MetricsResource`.
        """
        super().__init__()
        self._sources = sources
        self._buckets = None if buckets is None else _limits(buckets)
        Distribution.EMPTY.quantiles(quantiles)
        self._families = Families(_clashed, own, quantiles)
        self._responses: set[_Response] = set()

    def render(self, request: Request) -> int | bytes:
        """Begin to answer."""
        if request.method not in (b"GET", b"HEAD"):
            # The page of `Resource` is deprecated.
            request.setResponseCode(NOT_ALLOWED)
            request.setHeader("allow", "GET, HEAD")
            return b"Only GET and HEAD are allowed.\n"
        # Bytes, because a request may have any.
        accept = b",".join(request.requestHeaders.getRawHeaders(b"accept", []))
        form = negotiated(accept.decode("latin-1"))
        request.setHeader("content-type", form.content_type)
        request.setHeader("vary", "accept, accept-encoding")
        if request.method == b"HEAD":
            return b""
        if len(self._responses) >= MAX_RESPONSES:
            request.setResponseCode(SERVICE_UNAVAILABLE)
            return b"Too many scrapes at the same time.\n"
        response = _Response(request, self._pieces(form), self._responses.discard)
        self._responses.add(response)
        response.begin()
        return NOT_DONE_YET

    def _pieces(self, form: Format) -> Iterator[bytes]:
        families = self._families
        collecting = families.collect(self._sources())
        while True:
            try:
                next(collecting)
            except StopIteration as done:
                found = done.value
                break
            yield b""
        yield from form.encode([*found, *families.own()], self._limits_of)

    def _limits_of(self, family: Family) -> tuple[float, ...]:
        if self._buckets is not None:
            return self._buckets
        return BUCKETS.get(family.unit, _NUMBERS)


def _limits(buckets: Sequence[float]) -> tuple[float, ...]:
    limits = tuple(map(float, buckets))
    if not all(below < above for below, above in pairwise((-math.inf, *limits))):
        raise ValueError(f"the limits of buckets are not in ascending order: {limits}")
    return limits[:-1] if limits and limits[-1] == math.inf else limits


def _clashed(metric: str, family: str) -> None:
    _log.warn(
        "The metric {metric} is not exposed to Prometheus:"
        " the name {family} belongs to another metric.",
        metric=short_repr(metric),
        family=short_repr(family),
    )


@implementer(IPushProducer)
class _Response:
    """One response: it renders while the client reads."""

    def __init__(
        self, request: Request, pieces: Iterator[bytes], ended: Callable[[_Response], object]
    ) -> None:
        self._request = request
        self._pieces = pieces
        self._ended = ended
        self._paused = False

    def begin(self) -> None:
        """Begin to render."""
        assert self._request.site is not None
        reactor = self._request.site.reactor
        self._timeout = reactor.callLater(TIMEOUT, self._abort)
        # One slice in each iteration of the reactor.
        cooperator = Cooperator(lambda: lambda: True, partial(reactor.callLater, 0))
        self._task = cooperator.cooperate(self._write())
        self._task.whenDone().addCallback(self._finish).addErrback(self._fail)
        self._request.notifyFinish().addBoth(self._end)
        self._request.registerProducer(self, True)

    def _write(self) -> Iterator[None]:
        for piece in self._pieces:
            if piece:
                self._request.write(piece)
            yield

    def _finish(self, result: object) -> None:
        self._request.unregisterProducer()
        self._request.finish()

    def _fail(self, failure: Failure) -> None:
        if failure.check(TaskStopped) is None:
            _log.failure("Cannot render the response to Prometheus.", failure)
            self._abort()

    def _abort(self) -> None:
        channel = self._request.channel
        # A stream of HTTP/2 has another method, after which the request is not told.
        abort = getattr(channel, "abortConnection", None) or channel.forceAbortClient
        abort()
        self._end(None)

    def _end(self, result: object) -> None:
        if self._timeout.active():
            self._timeout.cancel()
        with suppress(TaskFinished):
            self._task.stop()
        self._ended(self)

    def pauseProducing(self) -> None:
        # A transport calls this with each write to its full buffer, such as that of the head.
        if not self._paused:
            self._paused = True
            self._task.pause()

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            self._task.resume()

    def stopProducing(self) -> None:
        """Called if the connection is lost; `_end` stops the task."""


def negotiated(accept: str) -> Format:
    """
    Return the format that a header C{Accept} prefers; of equal preference, the first one.  Without
    one that it names, it is text.
    """
    best, best_quality = TEXT, 0.0
    for part in accept.lower().split(","):
        kind, *parameters = (one.strip() for one in part.split(";"))
        values = dict(one.split("=", 1) for one in parameters if "=" in one)
        try:
            quality = float(values.get("q", "1"))
        except ValueError:
            continue
        form = _FORMATS.get(kind)
        if form is None or not quality > best_quality:
            continue
        if any(values.get(name, value) != value for name, value in _PARAMETERS.get(kind, ())):
            continue
        best, best_quality = form, quality
    return best


_FORMATS = {
    "application/vnd.google.protobuf": PROTOBUF,
    "application/openmetrics-text": OPEN_METRICS,
    "text/plain": TEXT,
    "text/*": TEXT,
    "*/*": TEXT,
}
_PARAMETERS = {
    "application/vnd.google.protobuf": (
        ("proto", "io.prometheus.client.metricfamily"),
        ("encoding", "delimited"),
    ),
    "application/openmetrics-text": (("version", "1.0.0"),),
    "text/plain": (("version", "0.0.4"),),
}
