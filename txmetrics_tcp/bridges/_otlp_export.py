"""
Exports totals with OTLP over HTTP, at an interval.

Totals are cumulative, so that a failed export loses only resolution: later totals include it.
Therefore at most one message is kept.

Everything in this module runs on the reactor thread.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Cooperator, LoopingCall, TaskFinished, deferLater
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from txmetrics_tcp._model import Key, Metadata, MetricKind, Total, Unit
from txmetrics_tcp._net.tls import explain, tls_endpoint
from txmetrics_tcp._view.text import visible
from txmetrics_tcp.bridges._otlp_messages import Messages, Resource, partial_success
from txmetrics_tcp.bridges._otlp_settings import OtlpSettings

RETRIED: Final = frozenset((429, 502, 503, 504))
"""The statuses after which a request is retried, as the specification of OTLP requires."""

FIRST_DELAY: Final = 1.0
"""The longest time before the first retry, in seconds.  It doubles with each, up to `MAX_DELAY`."""

MAX_DELAY: Final = 60.0

MAX_RETRY_AFTER: Final = 600.0
"""The longest time, in seconds, for which a receiver can delay exports."""

LAST_EXPORT: Final = 5.0
"""The time that the last export may take, in seconds, when the service stops."""

MAX_RESPONSE: Final = 65536
"""The number of bytes of a response that are read."""

_CHUNK = 65536
_MAX_TEXT = 200
_SHORTEST_SECRET = 4

METADATA: Final = (
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_otlp_exports_total",
        Unit.COUNT,
        "Exports with OTLP, by result: delivered, refused by the receiver, or superseded by newer"
        " totals before the receiver was available.",
    ),
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_otlp_failed_attempts_total",
        Unit.COUNT,
        "Attempts to export with OTLP that failed and were repeated.",
    ),
    Metadata(
        MetricKind.COUNTER,
        "txmetrics_otlp_rejected_points_total",
        Unit.COUNT,
        "Points that the receiver rejected in requests that it accepted.",
    ),
    Metadata(
        MetricKind.GAUGE,
        "txmetrics_otlp_left_out_series",
        Unit.COUNT,
        "Series that the last export left out, because OTLP cannot represent them.",
    ),
    Metadata(
        MetricKind.GAUGE,
        "txmetrics_otlp_export_seconds",
        Unit.SECONDS,
        "Time of the last delivered export, from the snapshot to the response.",
    ),
)
"""Descriptions of the metrics of an export."""


@dataclass
class OtlpStats:
    """
    What has become of exports so far.

    @ivar delivered: exports that the receiver has accepted.
    @ivar refused: exports that the receiver will never accept.
    @ivar superseded: exports that newer totals replaced before the receiver was available.
    @ivar failed_attempts: attempts that failed and were repeated.
    @ivar rejected_points: points that the receiver rejected in requests that it accepted.
    @ivar left_out_series: series that the last export left out, because OTLP cannot represent them.
    @ivar export_seconds: the time of the last delivered export.
    """

    delivered: int = 0
    refused: int = 0
    superseded: int = 0
    failed_attempts: int = 0
    rejected_points: int = 0
    left_out_series: int = 0
    export_seconds: float = 0.0

    def totals(self) -> dict[Key, Total]:
        """Return the totals of the metrics of `METADATA`."""
        exports, failed, rejected, left_out, seconds = (one.name for one in METADATA)
        counter, gauge = MetricKind.COUNTER, MetricKind.GAUGE
        return {
            Key(counter, exports, (("result", "delivered"),)): self.delivered,
            Key(counter, exports, (("result", "refused"),)): self.refused,
            Key(counter, exports, (("result", "superseded"),)): self.superseded,
            Key(counter, failed, ()): self.failed_attempts,
            Key(counter, rejected, ()): self.rejected_points,
            Key(gauge, left_out, ()): float(self.left_out_series),
            Key(gauge, seconds, ()): self.export_seconds,
        }


class _Unavailable(Exception):
    """
    An attempt that is repeated.

    @ivar retry_after: the number of seconds to wait before, at least.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _Refused(Exception):
    """An attempt that is not repeated."""


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class Receiver:
    """
    The endpoint of a receiver.  The files for TLS are read once.
    """

    def __init__(self, reactor: Any, settings: OtlpSettings) -> None:
        """
        @raise TLSError: a file cannot be used, or the extra ``tls`` is not installed.
        """
        uri = URI.fromBytes(settings.url.encode())
        host = uri.host.decode()
        plain = HostnameEndpoint(reactor, host, uri.port, timeout=settings.timeout)
        self._endpoint: IStreamClientEndpoint = plain
        if uri.scheme == b"https":
            files = settings.ca, settings.key, settings.certificate
            self._endpoint = tls_endpoint(plain, host, *files)

    def endpointForURI(self, uri: URI) -> Receiver:
        return self

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        # Otherwise, Twisted logs two lines about each request.
        protocolFactory.noisy = False
        connected: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connected


def http_agent(reactor: Any, settings: OtlpSettings) -> IAgent:
    """
    Return what sends requests to a receiver.

    @raise TLSError: see `Receiver`.
    """
    agent: IAgent = Agent.usingEndpointFactory(reactor, Receiver(reactor, settings))
    return agent


class OtlpExporter:
    """
    Exports at an interval.  While the receiver is not available, the newest totals are retried,
    after delays that grow.

    @ivar stats: what has become of exports so far.
    """

    def __init__(
        self,
        reactor: Any,
        resources: Callable[[], Iterable[Resource | None]],
        settings: OtlpSettings,
        failed: Callable[[str], object],
        succeeded: Callable[[str], object],
        changed: Callable[[], object] = lambda: None,
        agent: IAgent | None = None,
        clock: Callable[[], int] = time.time_ns,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """
        @param resources: returns the series.  It may be a generator that works in slices, and
            yields None after each.
        @param failed: called with a message of one line about each new reason for a failure.
        @param succeeded: called with a message of one line when the receiver accepts metrics, for
            the first time or again.
        @param changed: called when `stats` has changed.
        @param agent: sends requests; by default, one of twisted.web.
        @param clock: returns the time in nanoseconds since the epoch.
        @param uniform: returns a random number between two.
        @raise TLSError: a file cannot be used, or the extra ``tls`` is not installed.
        """
        self.stats: OtlpStats = OtlpStats()
        self._reactor = reactor
        self._resources = resources
        self._settings = settings
        self._say_failed = failed
        self._say_succeeded = succeeded
        self._changed = changed
        self._agent = http_agent(reactor, settings) if agent is None else agent
        self._clock = clock
        self._uniform = uniform
        self._messages = Messages()
        self._cooperator = Cooperator(lambda: lambda: True, partial(reactor.callLater, 0))
        self._loop = LoopingCall(self._due)
        self._loop.clock = reactor
        self._export: Deferred[None] | None = None
        self._newer_due = False
        self._last: Deferred[None] | None = None
        self._accepted = False
        self._problem = ""
        self._warning = ""

    def start(self) -> None:
        """Begin, with the first export after one interval."""
        self._loop.start(self._settings.interval, now=False)

    def stop(self) -> Deferred[None]:
        """
        End, after an export of the current totals.

        @return: a Deferred that fires afterwards, in at most `LAST_EXPORT` seconds.
        """
        if not self._loop.running:
            return succeed(None)
        self._loop.stop()
        if self._export is not None:
            self._export.cancel()
        self._last = Deferred.fromCoroutine(self._export_last())
        limit = min(LAST_EXPORT, self._settings.timeout)
        stopped: Deferred[None] = Deferred()
        self._last.addTimeout(limit, self._reactor)
        self._last.addErrback(self._last_failed)
        self._last.addBoth(stopped.callback)
        return stopped

    def stop_now(self) -> None:
        """If `stop` is waiting, give up the last export."""
        if self._last is not None:
            self._last.cancel()

    def _due(self) -> None:
        if self._export is not None:
            self._newer_due = True
            return
        self._export = Deferred.fromCoroutine(self._export_now())
        self._export.addErrback(lambda failure: failure.trap(CancelledError))
        self._export.addErrback(self._unexpected).addBoth(self._ended)

    def _ended(self, result: object) -> None:
        self._export = None

    def _unexpected(self, failure: Failure) -> None:
        self._report(f"{type(failure.value).__name__}: {failure.getErrorMessage()}")

    async def _export_now(self) -> None:
        """Export until the receiver has accepted or refused the newest totals."""
        delay, body, begun = FIRST_DELAY, b"", 0.0
        while True:
            if not body or self._newer_due:
                if body:
                    self.stats.superseded += 1
                self._newer_due = False
                begun = self._reactor.seconds()
                body = await self._render()
                if not body:
                    return
            try:
                await self._send(body, begun)
            except _Unavailable as error:
                if not self._loop.running:
                    # Not every agent fails with a `CancelledError` when its request is cancelled.
                    return
                self.stats.failed_attempts += 1
                self._report(f"{error}; retrying")
                self._changed()
                wait = max(self._uniform(delay / 2, delay), error.retry_after)
                delay = min(2 * delay, MAX_DELAY)
                await deferLater(self._reactor, wait)
                continue
            except _Refused as error:
                self.stats.refused += 1
                self._report(str(error))
            self._changed()
            if not self._newer_due:
                return
            delay, body = FIRST_DELAY, b""

    async def _export_last(self) -> None:
        begun = self._reactor.seconds()
        if body := await self._render():
            await self._send(body, begun)

    def _last_failed(self, failure: Failure) -> None:
        if failure.check(TimeoutError):
            self._report("the last export took too long")
        elif not failure.check(CancelledError):
            self._report(f"the last export failed: {failure.getErrorMessage()}")

    async def _render(self) -> bytes:
        """Return the encoded and compressed totals; empty without series."""
        pieces: list[bytes] = []
        task = self._cooperator.cooperate(self._steps(pieces))
        try:
            await task.whenDone()
        finally:
            with suppress(TaskFinished):
                task.stop()
        return b"".join(pieces)

    def _steps(self, body: list[bytes]) -> Iterator[None]:
        encoding = self._messages.request(self._resources(), self._clock())
        pieces = yield from encoding
        self.stats.left_out_series = self._messages.left_out
        if not self._settings.gzip:
            body += pieces
        elif pieces:
            compressor = zlib.compressobj(1, wbits=31)
            size = 0
            for piece in pieces:
                body.append(compressor.compress(piece))
                size += len(piece)
                if size >= _CHUNK:
                    size = 0
                    yield
            body.append(compressor.flush())

    async def _send(self, body: bytes, begun: float) -> None:
        """
        Send a request.

        @raise _Unavailable: it is to be sent again.
        @raise _Refused: it is not.
        """
        attempt = Deferred.fromCoroutine(self._attempt(body))
        timeout = self._settings.timeout
        try:
            text = await attempt.addTimeout(timeout, self._reactor)
        except TimeoutError:
            raise _Unavailable(f"no response within {timeout:g} seconds") from None
        except (_Unavailable, _Refused, CancelledError):
            raise
        except Exception as error:
            raise _Unavailable(self._reason(error)) from None
        self.stats.delivered += 1
        self.stats.export_seconds = self._reactor.seconds() - begun
        self._check_partial(text)
        if self._problem or not self._accepted:
            self._accepted, self._problem = True, ""
            self._say_succeeded(f"exporting metrics to {self._settings.url}")

    async def _attempt(self, body: bytes) -> bytes:
        """Send a request, and return the body of the response."""
        headers = Headers({"User-Agent": ["txmetrics-tcp"]})
        for name, value in self._settings.headers.items():
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders("Content-Type", ["application/x-protobuf"])
        if self._settings.gzip:
            headers.setRawHeaders("Content-Encoding", ["gzip"])
        producer: Any = FileBodyProducer(BytesIO(body), self._cooperator)
        url = self._settings.url.encode()
        try:
            response: Any = await self._agent.request(b"POST", url, headers, producer)
        except Exception as error:
            # What a cancelled request fails with.
            if isinstance(error, ConnectingCancelledError):
                raise CancelledError from None
            if any(one.check(CancelledError) for one in getattr(error, "reasons", ())):
                raise CancelledError from None
            raise
        content = await _Content.of(response)
        if 200 <= response.code < 300:
            return content
        status = f"{response.code} {response.phrase.decode('latin-1')}".strip()
        if response.code in RETRIED:
            raise _Unavailable(status, self._retry_after(response))
        kind = b"".join(response.headers.getRawHeaders(b"content-type", []))
        text = content.decode(errors="replace").strip() if kind.startswith(b"text/plain") else ""
        raise _Refused(self._safe(f"{status}: {text}" if text else status))

    def _retry_after(self, response: Any) -> float:
        text = b"".join(response.headers.getRawHeaders(b"retry-after", [])).decode("latin-1")
        text = text.strip()
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            try:
                when = parsedate_to_datetime(text)
            except (ValueError, OverflowError):
                return 0.0
            if when.tzinfo is None:
                when = when.replace(tzinfo=timezone.utc)
            seconds = when.timestamp() - self._clock() / 1e9
        return min(max(seconds, 0.0), MAX_RETRY_AFTER)

    def _check_partial(self, body: bytes) -> None:
        try:
            rejected, message = partial_success(body)
        except ValueError:
            # It has accepted the request.
            return
        self.stats.rejected_points += rejected
        warning = self._safe(message)
        if rejected and not warning:
            warning = "no reason given"
        if warning and warning != self._warning:
            points = f"rejected {rejected:,} points" if rejected else "has a warning"
            self._say_failed(f"{self._settings.url} {points}: {warning}")
        self._warning = warning

    def _reason(self, error: Exception) -> str:
        """Return why there was no response, in a line."""
        reasons = getattr(error, "reasons", None)
        cause = reasons[0].value if reasons else error
        text = explain(cause) or str(cause) or type(cause).__name__
        return self._safe(text.rstrip("."))

    def _safe(self, text: str) -> str:
        """
        Return a text from the network in a short line, without the values of headers, and their
        longer words: a receiver may repeat a token without the scheme before it.
        """
        for value in self._settings.headers.values():
            words = [word for word in value.split() if len(word) >= _SHORTEST_SECRET]
            for secret in filter(None, (value, *words)):
                text = text.replace(secret, "…")
        return visible(" ".join(text[:_MAX_TEXT].split()))

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._say_failed(f"cannot export metrics to {self._settings.url}: {problem}")


class _Content(Protocol):
    """Collects the first bytes of a response, and closes the connection after them."""

    def __init__(self) -> None:
        self._data = b""
        self._cancelled = False
        self._done: Deferred[bytes] = Deferred(self._cancel)

    @classmethod
    def of(cls, response: Any) -> Deferred[bytes]:
        """Return a Deferred that fires with them.  If it is cancelled, the connection is closed."""
        content = cls()
        response.deliverBody(content)
        return content._done

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > MAX_RESPONSE:
            self._data = self._data[:MAX_RESPONSE]
            self._abort()
            # With TLS, a receiver that goes on sending would delay the end.
            self.connectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The status is known: a body that was cut off does not change it.
        if not (self._cancelled or self._done.called):
            self._done.callback(self._data)

    def _cancel(self, done: Deferred[bytes]) -> None:
        self._cancelled = True
        self._abort()

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()
