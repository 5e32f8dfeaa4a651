"""
The export with OTLP: retries, responses, the end, and no secrets in messages.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any
from unittest import skipIf

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionRefusedError,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from tests import needs
from txmetrics_tcp import Key, MetricKind, MetricsFactory
from txmetrics_tcp._model import Total
from txmetrics_tcp.testing import FakeReactor

missing = needs("opentelemetry.proto")
if not missing:
    from tests.otlp import decoded, named, partial
    from txmetrics_tcp.bridges._otlp_export import (
        LAST_EXPORT,
        MAX_DELAY,
        MAX_RESPONSE,
        MAX_RETRY_AFTER,
        METADATA,
        OtlpExporter,
    )
    from txmetrics_tcp.bridges._otlp_messages import Resource
    from txmetrics_tcp.bridges.otlp import OtlpService, OtlpSettings

URL = "https://otlp.example/v1/metrics"
REQUESTS = Key.of(MetricKind.COUNTER, "requests_total")


class FakeTransport:
    """
    The transport of the body of a response.

    @ivar closed: whether it was closed.
    """

    closed = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def loseConnection(self) -> None:
        if not self.closed:
            self.closed = True
            self._protocol.connectionLost(connectionDone)


class FakeResponse:
    def __init__(self, code: int, body: bytes, headers: dict[str, str], ends: bool) -> None:
        self.code = code
        self.phrase = b"Phrase"
        self.headers = Headers({name: [value] for name, value in headers.items()})
        self._body = body
        self._ends = ends

    def deliverBody(self, protocol: Any) -> None:
        self.transport = FakeTransport(protocol)
        protocol.makeConnection(self.transport)
        protocol.dataReceived(self._body)
        if self._ends and not self.transport.closed:
            protocol.connectionLost(connectionDone)


class FakeConsumer:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Sent:
    """
    A request.

    @ivar cancelled: whether it was cancelled.
    """

    def __init__(
        self, url: bytes, headers: Headers, producer: Any, cancelled_with: Failure
    ) -> None:
        self.url = url
        self._cancelled_with = cancelled_with
        self.headers = headers
        self.consumer = FakeConsumer()
        self.cancelled = False
        self.response: Deferred[Any] = Deferred(self._cancel)
        producer.startProducing(self.consumer)

    def _cancel(self, response: Deferred[Any]) -> None:
        self.cancelled = True
        response.errback(self._cancelled_with)

    def message(self) -> Any:
        data = self.consumer.data
        if self.headers.hasHeader("content-encoding"):
            data = gzip.decompress(data)
        return decoded(data)

    def total(self, name: str = REQUESTS.name) -> int | float:
        (series,) = named(self.message(), name)
        return series.value

    def answer(
        self, code: int = 200, body: bytes = b"", ends: bool = True, **headers: str
    ) -> FakeResponse:
        found = {name.replace("_", "-"): value for name, value in headers.items()}
        response = FakeResponse(code, body, found, ends)
        self.response.callback(response)
        return response


@implementer(IAgent)
class FakeAgent:
    """
    An agent whose requests the test answers.

    @ivar sent: the requests so far.
    @ivar cancelled_with: what a request fails with when it is cancelled.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        # As the agent of Twisted does it once the request has been sent.
        reasons = [Failure(CancelledError()), Failure(ConnectionAborted())]
        self.cancelled_with = Failure(ResponseNeverReceived(reasons))

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        assert method == b"POST" and headers is not None
        sent = Sent(uri, headers, bodyProducer, self.cancelled_with)
        self.sent.append(sent)
        return sent.response


@skipIf(missing, missing)
class ExporterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Clock()
        self.agent = FakeAgent()
        self.messages: list[str] = []
        self.totals: dict[Key, Total] = {REQUESTS: 1}
        self.export(OtlpSettings(URL, {"api-key": "hunter2"}))

    def export(self, settings: OtlpSettings) -> None:
        def resources() -> Iterator[Resource | None]:
            yield None
            yield Resource((("service.name", "shop"),), 1, self.totals, [])

        self.exporter = OtlpExporter(
            self.reactor,
            resources,
            settings,
            self.messages.append,
            self.messages.append,
            agent=self.agent,
            clock=lambda: int(self.reactor.seconds() * 1e9),
            uniform=lambda low, high: high,
        )
        self.exporter.start()

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, and run all slices."""
        self.reactor.advance(seconds)
        while any(call.getTime() <= self.reactor.seconds() for call in self.reactor.calls):
            self.reactor.advance(0)

    def sent(self, number: int = 1) -> Sent:
        """Check the number of requests so far, and return the last one."""
        self.assertEqual(len(self.agent.sent), number)
        return self.agent.sent[-1]

    def test_request(self) -> None:
        """The first request follows after an interval, with the headers of the settings."""
        self.advance(14.9)
        self.assertEqual(self.agent.sent, [])
        self.advance(0.1)
        request = self.sent()
        self.assertEqual(request.url, URL.encode())
        self.assertEqual(request.total(), 1)
        found = {name.lower(): values for name, values in request.headers.getAllRawHeaders()}
        self.assertEqual(found[b"api-key"], [b"hunter2"])
        self.assertEqual(found[b"content-type"], [b"application/x-protobuf"])
        self.assertEqual(found[b"content-encoding"], [b"gzip"])
        self.advance(0.5)
        request.answer()
        self.assertEqual(self.messages, [f"exporting metrics to {URL}"])
        self.totals[REQUESTS] = 2
        self.advance(14.5)
        self.assertEqual(self.sent(2).total(), 2)
        self.sent(2).answer()
        self.assertEqual(len(self.messages), 1)
        self.assertEqual(
            (self.exporter.stats.delivered, self.exporter.stats.failed_attempts), (2, 0)
        )

    def test_duration(self) -> None:
        self.advance(15)
        self.advance(0.5)
        self.sent().answer()
        self.assertEqual(self.exporter.stats.export_seconds, 0.5)

    def test_uncompressed(self) -> None:
        self.exporter.stop()
        self.agent.sent.clear()
        self.export(OtlpSettings(URL, gzip=False))
        self.advance(15)
        request = self.agent.sent[-1]
        self.assertFalse(request.headers.hasHeader("content-encoding"))
        self.assertEqual(request.total(), 1)

    def test_nothing(self) -> None:
        """Without series, nothing is sent."""
        self.totals.clear()
        self.advance(15)
        self.assertEqual(self.agent.sent, [])
        self.totals[REQUESTS] = 1
        self.advance(15)
        self.sent()

    def test_retry(self) -> None:
        """Statuses of an overload and failed connections are retried with the same message."""
        self.advance(15)
        delay = 1.0
        number = 0
        for number, code in enumerate((429, 502, 503, 504), 1):
            self.totals[REQUESTS] = 100
            self.sent(number).answer(code)
            self.advance(delay - 0.01)
            self.sent(number)
            self.advance(0.01)
            # Not newer: the interval has not passed again.
            if delay < 8:
                self.assertEqual(self.sent(number + 1).total(), 1)
            delay *= 2
        self.assertEqual(self.exporter.stats.failed_attempts, 4)

    def test_connectionFails(self) -> None:
        self.advance(15)
        self.sent().response.errback(ConnectionRefusedError())
        self.advance(1)
        refused = Failure(ConnectionRefusedError())
        self.sent(2).response.errback(ResponseNeverReceived([refused]))
        self.advance(2)
        self.sent(3).answer()
        text = f"cannot export metrics to {URL}: Connection was refused by other side; retrying"
        # The second failure has the same reason.
        self.assertEqual(self.messages, [text, f"exporting metrics to {URL}"])

    def test_newest(self) -> None:
        """While the receiver is not available, only the newest totals are kept."""
        self.advance(15)
        self.totals[REQUESTS] = 2
        self.sent().answer(503, retry_after="40")
        self.advance(35)
        self.sent()
        self.totals[REQUESTS] = 3
        self.advance(5)
        self.assertEqual(self.sent(2).total(), 3)
        self.sent(2).answer()
        stats = self.exporter.stats
        self.assertEqual((stats.delivered, stats.superseded), (1, 1))

    def test_slowReceiver(self) -> None:
        """If an export takes longer than the interval, the next one follows at once."""
        self.exporter.stop()
        self.agent.sent.clear()
        self.export(OtlpSettings(URL, interval=5, timeout=30.0))
        self.advance(5)
        self.advance(5)
        self.advance(5)
        self.totals[REQUESTS] = 2
        self.sent().answer()
        self.advance()
        self.assertEqual(self.sent(2).total(), 2)

    def test_maxDelay(self) -> None:
        """Retries become less frequent, up to a limit."""
        self.advance(15)
        for _ in range(12):
            self.agent.sent[-1].answer(503)
            number = len(self.agent.sent)
            self.advance(MAX_DELAY)
            self.assertEqual(len(self.agent.sent), number + 1)

    def test_retryAfter(self) -> None:
        """The receiver can ask for a longer time, in seconds or as a date, up to a limit."""
        self.advance(15)
        for number, (value, seconds) in enumerate(
            (
                ("30", 30.0),
                ("99999999999", MAX_RETRY_AFTER),
                ("soon", 4.0),
                ("-1", 8.0),
                ("", 16.0),
                ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 32.0),
            ),
            1,
        ):
            self.sent(number).answer(429, retry_after=value)
            self.advance(seconds - 0.01)
            self.sent(number)
            self.advance(0.02)
            self.sent(number + 1)
        self.assertEqual(len(self.messages), 1)

    def test_retryAfterDate(self) -> None:
        for date in "Thu, 01 Jan 1970 00:01:00 GMT", "Thu, 01 Jan 1970 00:01:00 -0000":
            self.exporter.stop()
            self.reactor = Clock()
            self.agent.sent.clear()
            self.export(OtlpSettings(URL))
            self.advance(15)
            self.sent().answer(503, retry_after=date)
            self.advance(44.9)
            self.sent()
            self.advance(0.1)
            self.sent(2)

    def test_refused(self) -> None:
        """Other statuses are not retried; the reason is reported once, without credentials."""
        for number in 1, 2:
            self.advance(15)
            body = b"the key hunter2 is\n not\x1b known" + b"!" * 1000
            self.sent(number).answer(401, body, content_type="text/plain")
        (message,) = self.messages
        self.assertIn("401 Phrase: the key … is not", message)
        self.assertLess(len(message), 300)
        self.assertNotIn("\x1b", message)
        self.assertEqual(self.exporter.stats.refused, 2)
        self.advance(15)
        self.sent(3).answer(404, b"<html>", content_type="text/html")
        self.assertTrue(self.messages[1].endswith(f"to {URL}: 404 Phrase"), self.messages[1])

    def test_partOfSecret(self) -> None:
        """A receiver may repeat a token without its scheme."""
        self.exporter.stop()
        self.agent.sent.clear()
        self.export(OtlpSettings(URL, {"Authorization": "Bearer hunter2", "x": "a b"}))
        self.advance(15)
        self.agent.sent[-1].answer(401, b"bad token: hunter2", content_type="text/plain")
        self.assertIn("401 Phrase: bad token: …", self.messages[-1])

    def test_redirect(self) -> None:
        """A redirect, which would send credentials elsewhere, is not followed."""
        self.advance(15)
        self.sent().answer(307, location="https://other.example/")
        self.advance(5)
        self.sent()
        self.assertEqual(self.exporter.stats.refused, 1)

    def test_partialSuccess(self) -> None:
        """Rejected points are counted; each new reason is reported."""
        self.advance(15)
        self.sent().answer(200, partial(3, "too old"))
        for number in 2, 3:
            self.advance(15)
            self.sent(number).answer(200, partial(2, ""))
        self.advance(15)
        self.sent(4).answer(200, partial(0, "deprecated"))
        self.assertEqual(self.exporter.stats.rejected_points, 7)
        self.assertEqual(self.exporter.stats.delivered, 4)
        self.assertEqual(
            [one for one in self.messages if not one.startswith("exporting")],
            [
                f"{URL} rejected 3 points: too old",
                f"{URL} rejected 2 points: no reason given",
                f"{URL} has a warning: deprecated",
            ],
        )

    def test_strangeResponse(self) -> None:
        """What follows an accepting status does not matter."""
        self.advance(15)
        self.sent().answer(200, b"<html>")
        self.assertEqual(self.exporter.stats.delivered, 1)

    def test_largeResponse(self) -> None:
        """Of a response, only the beginning is read."""
        self.advance(15)
        response = self.sent().answer(200, b"x" * (MAX_RESPONSE + 1), ends=False)
        self.assertTrue(response.transport.closed)
        self.assertEqual(self.exporter.stats.delivered, 1)

    def test_endlessResponse(self) -> None:
        """A connection with TLS ends only when the receiver agrees: this is not waited for."""
        self.patch(FakeTransport, "loseConnection", lambda transport: None)
        self.advance(15)
        self.sent().answer(200, b"x" * (MAX_RESPONSE + 1), ends=False)
        self.assertEqual(self.exporter.stats.delivered, 1)

    def test_timeout(self) -> None:
        """Without a response in time, the attempt is repeated."""
        self.advance(15)
        first = self.sent()
        self.advance(10)
        self.assertTrue(first.cancelled)
        self.advance(1)
        response = self.sent(2).answer(200, ends=False)
        self.advance(10)
        self.assertTrue(response.transport.closed)
        text = f"cannot export metrics to {URL}: no response within 10 seconds; retrying"
        self.assertEqual(self.messages, [text])
        self.assertEqual(self.exporter.stats.failed_attempts, 2)

    def test_failedResponse(self) -> None:
        """A connection that is lost is retried."""
        self.advance(15)
        self.sent().response.errback(ResponseFailed([Failure(connectionDone.value)]))
        self.advance(1)
        self.sent(2)

    def test_bug(self) -> None:
        """If the totals cannot be read, the next export is not affected."""
        self.totals[REQUESTS] = "x"  # type: ignore[assignment]
        self.advance(15)
        self.assertIn("TypeError", self.messages[0])
        self.totals[REQUESTS] = 1
        self.advance(15)
        self.sent()

    def test_stop(self) -> None:
        """The end waits for a last export of the present totals."""
        self.totals[REQUESTS] = 7
        stopped = self.exporter.stop()
        self.advance()
        self.assertNoResult(stopped)
        self.assertEqual(self.sent().total(), 7)
        self.sent().answer()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIsNone(self.successResultOf(self.exporter.stop()))

    def test_stopWhileExporting(self) -> None:
        """The end replaces an export that is under way, or waits for its next attempt."""
        self.advance(15)
        first = self.sent()
        stopped = self.exporter.stop()
        self.assertTrue(first.cancelled)
        self.assertEqual(self.messages, [])
        self.advance()
        self.sent(2).answer(503)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn("the last export failed: 503 Phrase", self.messages[-1])

    def test_stopWhileWaiting(self) -> None:
        self.advance(15)
        self.sent().answer(503)
        stopped = self.exporter.stop()
        self.advance()
        self.sent(2).answer()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopWhileConnecting(self) -> None:
        """A receiver that does not answer at all: nothing is retried after the end."""
        for error in ConnectingCancelledError(None), ValueError("an agent of one's own"):
            self.agent.cancelled_with = Failure(error)
            self.advance(15)
            before = len(self.agent.sent)
            self.exporter.stop()
            self.advance()
            self.sent(before + 1).answer()
            self.advance(1000)
            self.sent(before + 1)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.exporter.start()

    def test_connectingTakesTooLong(self) -> None:
        self.agent.cancelled_with = Failure(ConnectingCancelledError(None))
        self.advance(15)
        self.advance(10)
        self.assertIn("no response within 10 seconds; retrying", self.messages[-1])

    def test_stopTakesTooLong(self) -> None:
        stopped = self.exporter.stop()
        self.advance()
        self.advance(LAST_EXPORT)
        self.successResultOf(stopped)
        self.assertTrue(self.sent().cancelled)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn("the last export took too long", self.messages[-1])

    def test_stopNow(self) -> None:
        self.exporter.stop_now()
        stopped = self.exporter.stop()
        self.advance()
        self.exporter.stop_now()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.exporter.stop_now()

    def test_restart(self) -> None:
        stopped = self.exporter.stop()
        self.advance()
        self.sent().answer()
        self.successResultOf(stopped)
        self.exporter.start()
        self.advance(15)
        self.sent(2)


@skipIf(missing, missing)
class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.agent = FakeAgent()
        self.recorder = MetricsFactory(self.reactor).recorder
        settings = OtlpSettings(URL, attributes={"service.name": "shop"})
        self.service = OtlpService(self.reactor, self.recorder, settings, self.agent)

    def advance(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        for _ in range(20):
            self.reactor.drain()
            self.reactor.advance(0)

    def test_totals(self) -> None:
        """The totals and descriptions of the recorder are exported, and metrics of the export."""
        self.recorder.counter("jobs_total").increment(3)
        self.recorder.describe_counter("jobs_total", "count", "Jobs.")
        self.service.startService()
        with capturedLogs() as events:
            self.advance(15)
            self.agent.sent[0].answer()
        self.assertEqual([formatEvent(one) for one in events], [f"Exporting metrics to {URL}"])
        (jobs,) = named(self.agent.sent[0].message(), "jobs_total")
        self.assertEqual((jobs.value, jobs.metric.description), (3, "Jobs."))
        self.assertEqual(jobs.point.start_time_unix_nano, self.recorder.started_ns)
        self.assertEqual(jobs.resource["service.name"], "shop")
        self.advance(15)
        later = self.agent.sent[1]
        exports = named(later.message(), "txmetrics_otlp_exports_total")
        self.assertEqual(
            {one.labels["result"]: one.value for one in exports},
            {"delivered": 1, "refused": 0, "superseded": 0},
        )
        instances = {
            one.message().resource_metrics[0].resource.SerializeToString()
            for one in self.agent.sent
        }
        self.assertEqual(len(instances), 1)
        self.assertEqual(self.service.stats().delivered, 1)
        described = {one.name for one in self.recorder.descriptions()}
        self.assertLessEqual({one.name for one in METADATA}, described)

    def test_forgotten(self) -> None:
        """A series that the program forgets begins again, with a start time of its own."""
        self.service.startService()
        jobs = self.recorder.counter("jobs_total")
        starts = []
        for count in 2, 1:
            jobs.increment(count)
            self.advance(15)
            (found,) = named(self.agent.sent[-1].message(), "jobs_total")
            starts.append(found.point.start_time_unix_nano)
            self.agent.sent[-1].answer()
            self.recorder.forget(jobs.key)
        self.assertEqual(starts[0], self.recorder.started_ns)
        self.assertLess(*starts)

    def test_warning(self) -> None:
        self.recorder.counter("jobs_total").increment()
        self.service.startService()
        with capturedLogs() as events:
            self.advance(15)
            self.agent.sent[0].answer(400)
        (event,) = events
        self.assertEqual(event["log_level"].name, "warn")
        self.assertEqual(formatEvent(event), f"Cannot export metrics to {URL}: 400 Phrase")

    def test_stop(self) -> None:
        self.recorder.counter("jobs_total").increment()
        self.service.startService()
        stopped = self.service.stopService()
        self.advance(0)
        self.assertNoResult(stopped)
        self.service.stop_now()
        self.successResultOf(stopped)
        self.assertFalse(self.service.running)

    def test_environment(self) -> None:
        """Without settings, those of the environment are used."""
        self.patch(
            OtlpSettings,
            "from_environment",
            classmethod(lambda cls: OtlpSettings("http://localhost/from-environment")),
        )
        self.recorder.counter("jobs_total").increment()
        service = OtlpService(self.reactor, self.recorder, agent=self.agent)
        service.startService()
        self.advance(15)
        self.assertEqual(self.agent.sent[0].url, b"http://localhost/from-environment")
