"""
Metrics of Twisted itself: web requests, the reactor, looping calls and log events.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.application.internet import TimerService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import INonQueuedRequestFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import directlyProvides

from tests.recorders import GlobalRecorderTestCase, ListRecorder
from txmetrics_tcp import LabelsRecorder, Operation, set_global_recorder
from txmetrics_tcp._collectors import service as polling
from txmetrics_tcp.bridges import twisted as bridge
from txmetrics_tcp.bridges.twisted import (
    CountingObserver,
    ReactorMetrics,
    measure_looping_call,
    measure_site,
)
from txmetrics_tcp.testing import PausingTransport


class Pages(Resource):
    """
    @ivar unfinished: requests that are not answered yet.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.unfinished: list[Request] = []
        self.status: Any = 200

    def render(self, request: Request) -> bytes | int:
        if request.path == b"/later":
            self.unfinished.append(request)
            return NOT_DONE_YET
        if request.path == b"/error":
            raise ValueError("of the page")
        request.setResponseCode(self.status)
        return b"page"


class BadRecorder(ListRecorder):
    """A recorder whose log cannot take entries."""

    def __init__(self) -> None:
        super().__init__()
        self.sink.log = mock.Mock(append=mock.Mock(side_effect=OSError("full")))


class SiteTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now = 100.0
        self.patch(bridge, "time", SimpleNamespace(perf_counter=lambda: self.now))
        self.pages = Pages()
        self.site = self.make_site()

    def make_site(self, factory: Any = None) -> Site:
        site = Site(self.pages, requestFactory=factory, reactor=Clock())
        site.displayTracebacks = False
        return site

    def connect(self) -> PausingTransport:
        peer = IPv4Address("TCP", "127.0.0.1", 1)
        transport = PausingTransport(peer=peer)
        transport.connect(self.site.buildProtocol(peer))
        return transport

    def send(self, *lines: str) -> PausingTransport:
        """Send requests, one after another, on a new connection."""
        transport = self.connect()
        requests = "".join(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n" for line in lines)
        transport.receive(requests.encode())
        return transport

    def ended(self) -> Counter[str]:
        """Return the number of ended requests by method and status, since the last call."""
        return Counter(
            name.removeprefix("twisted_web_requests_total ")
            for name, operation, _ in self.recorder.take()
            if operation is Operation.INCREMENT_COUNTER
        )

    def in_progress(self) -> float:
        """Return the number of requests in progress, since the last call."""
        values = {Operation.INCREMENT_GAUGE: 1, Operation.DECREMENT_GAUGE: -1}
        return sum(values.get(operation, 0) for _, operation, _ in self.recorder.take())

    def test_events(self) -> None:
        """The events of a request; its time ends when the response is finished."""
        measure_site(self.site, self.recorder)
        transport = self.send("GET /later")
        self.assertEqual(
            self.recorder.take(),
            [("twisted_web_requests_in_progress [method = GET]", Operation.INCREMENT_GAUGE, 1.0)],
        )
        self.now += 2.5
        self.pages.unfinished.pop().finish()
        labels = "[method = GET, status = 2xx]"
        self.assertEqual(
            self.recorder.take(),
            [
                ("twisted_web_requests_in_progress [method = GET]", Operation.DECREMENT_GAUGE, 1.0),
                (f"twisted_web_requests_total {labels}", Operation.INCREMENT_COUNTER, 1),
                (f"twisted_web_request_seconds {labels}", Operation.RECORD_HISTOGRAM, 2.5),
            ],
        )
        self.assertIn(b"200 OK", transport.drain())

    def test_methods(self) -> None:
        measure_site(self.site, self.recorder)
        for line in ("GET /", "POST /", "PATCH /", "get /", "PROPFIND /", "X-1 /"):
            self.send(line)
        self.assertEqual(
            self.ended(),
            {
                "[method = GET, status = 2xx]": 1,
                "[method = POST, status = 2xx]": 1,
                "[method = PATCH, status = 2xx]": 1,
                "[method = other, status = 2xx]": 3,
            },
        )

    def test_statuses(self) -> None:
        measure_site(self.site, self.recorder)
        for self.pages.status in (204, 302, 404, 503, 99, 600, 1000):
            self.send("GET /")
        self.assertEqual(
            self.ended(),
            {
                **{f"[method = GET, status = {status}xx]": 1 for status in range(2, 6)},
                "[method = GET, status = other]": 3,
            },
        )

    def test_error(self) -> None:
        """An exception of a page is an internal error."""
        measure_site(self.site, self.recorder)
        self.assertIn(b"500 Internal Server Error", self.send("GET /error").drain())
        self.assertEqual(self.ended(), {"[method = GET, status = 5xx]": 1})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_disconnected(self) -> None:
        """A client that leaves before the response is finished; finishing it then is an error."""
        measure_site(self.site, self.recorder)
        transport = self.send("GET /later")
        transport.lose()
        self.assertEqual(self.ended(), {"[method = GET, status = disconnected]": 1})
        self.assertRaises(RuntimeError, self.pages.unfinished.pop().finish)
        self.assertEqual(self.recorder.take(), [])

    def test_in_progress(self) -> None:
        """However requests end, none is in progress then."""
        measure_site(self.site, self.recorder)
        lost = self.send("GET /later")
        self.send("GET /error", "GET /later")
        self.flushLoggedErrors(ValueError)
        self.assertEqual(self.in_progress(), 2)
        lost.lose()
        self.pages.unfinished.pop().finish()
        self.assertEqual(self.in_progress(), -2)

    def test_incomplete(self) -> None:
        """A request that never arrives as a whole is not one."""
        measure_site(self.site, self.recorder)
        transport = self.connect()
        transport.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        transport.lose()
        self.assertEqual(self.recorder.take(), [])

    def test_pipelining(self) -> None:
        """Of requests that are sent at once, each has its own time."""
        measure_site(self.site, self.recorder)
        self.send("GET /later", "HEAD /later", "PUT /later")
        for seconds in (1.0, 2.0, 4.0):
            self.now += seconds
            self.pages.unfinished.pop(0).finish()
        times = [
            (name.partition("[")[2], value)
            for name, operation, value in self.recorder.take()
            if operation is Operation.RECORD_HISTOGRAM
        ]
        self.assertEqual(
            times,
            [
                ("method = GET, status = 2xx]", 1.0),
                ("method = HEAD, status = 2xx]", 2.0),
                ("method = PUT, status = 2xx]", 4.0),
            ],
        )

    def test_pipelined_within_finish(self) -> None:
        """The next request is processed within `finish` of the previous one, which has ended."""
        measure_site(self.site, self.recorder)
        self.send("GET /later", "HEAD /")
        original = Pages.render

        def render(page: Pages, request: Request) -> bytes | int:
            self.now += 50.0
            return original(page, request)

        self.patch(Pages, "render", render)
        self.now += 1.0
        self.pages.unfinished.pop().finish()
        times = [value for name, _, value in self.recorder.take() if "seconds" in name]
        self.assertEqual(times, [1.0, 50.0])

    def test_finished_twice(self) -> None:
        measure_site(self.site, self.recorder)
        self.send("GET /later")
        request = self.pages.unfinished.pop()
        request.finish()
        request.finish()
        [warning] = self.flushWarnings()
        self.assertIn("finish called twice", warning["message"])
        self.assertEqual(self.ended(), {"[method = GET, status = 2xx]": 1})

    def test_abandoned(self) -> None:
        """A request whose connection another protocol has taken over ends when it is collected."""
        measure_site(self.site, self.recorder)
        transport = self.send("GET /later")
        self.assertEqual(self.in_progress(), 1)
        channel = self.pages.unfinished.pop().channel
        channel.connectionLost = lambda reason: None
        transport.lose()
        self.assertEqual(self.recorder.take(), [])
        channel.requests.clear()
        del channel, transport
        gc.collect()
        self.assertEqual(self.ended(), {"[method = GET, status = disconnected]": 1})

    def test_processed_again(self) -> None:
        measure_site(self.site, self.recorder)
        self.send("GET /later")
        self.pages.unfinished[0].process()
        self.pages.unfinished[0].finish()
        self.assertEqual(self.in_progress(), 0)

    def check_factory(self, factory: Any) -> None:
        self.site = self.make_site(factory)
        measure_site(self.site, self.recorder)
        self.assertIn(b"200 OK", self.send("GET /").drain())
        self.assertEqual(self.ended(), {"[method = GET, status = 2xx]": 1})

    def test_factory_class(self) -> None:
        """A request class of the program, of which measured requests are instances."""

        class OwnRequest(Request):
            def process(self) -> None:
                self.setHeader(b"x-own", b"1")
                super().process()

            def __del__(self) -> None:
                deleted.append(self)

        deleted: list[object] = []
        self.check_factory(OwnRequest)
        self.assertTrue(issubclass(self.site.requestFactory, OwnRequest))
        self.assertEqual(self.site.requestFactory.__name__, "OwnRequest")
        gc.collect()
        self.assertEqual(len(deleted), 1)

    def test_factory_function(self) -> None:
        self.check_factory(lambda channel, queued: Request(channel, queued))

    def test_factory_without_queue(self) -> None:
        """Factories that say so are called without the argument for the queue."""

        def make(channel: Any) -> Request:
            return Request(channel)

        directlyProvides(make, INonQueuedRequestFactory)
        self.check_factory(make)

        class OwnRequest(Request):
            def __init__(self, channel: Any) -> None:
                super().__init__(channel)

        directlyProvides(OwnRequest, INonQueuedRequestFactory)
        self.check_factory(OwnRequest)

    def test_factory_of_other_objects(self) -> None:
        """Objects that cannot be measured work as before."""

        class Slotted:
            __slots__ = ("channel",)

            def __init__(self, channel: Any, queued: bool) -> None:
                self.channel = channel

        self.site = self.make_site(Slotted)
        self.site.requestFactory = lambda channel, queued: Slotted(channel, queued)
        measure_site(self.site, self.recorder)
        self.assertIs(type(self.site.requestFactory(None, False)), Slotted)

    def test_other_sites(self) -> None:
        """Other sites are not measured."""
        measure_site(self.make_site(), self.recorder)
        self.send("GET /")
        self.assertEqual(self.recorder.take(), [])

    def test_recorder_fails(self) -> None:
        """A recorder that raises does not affect responses."""
        measure_site(self.site, BadRecorder())
        self.assertEqual(self.send("GET /", "HEAD /", "GET /").drain().count(b"200 OK"), 3)

    def test_labels(self) -> None:
        """A layer of recorders tells sites apart."""
        measure_site(self.site, LabelsRecorder(self.recorder, site="admin"))
        self.send("GET /")
        self.assertEqual(self.ended(), {"[method = GET, site = admin, status = 2xx]": 1})

    def test_global_recorder(self) -> None:
        """By default, the global recorder, which may be installed later."""
        measure_site(self.site)
        self.send("GET /")
        set_global_recorder(self.recorder)
        self.send("HEAD /")
        self.assertEqual(self.ended(), {"[method = HEAD, status = 2xx]": 1})
        self.assertEqual(len(self.recorder.described), 3)

    def test_wrong(self) -> None:
        self.assertRaises(TypeError, measure_site, object())
        self.assertRaises(TypeError, measure_site, self.site, "recorder")
        self.assertIs(self.site.requestFactory, Request)
        for factory in (None, lambda channel, queued: Request(channel, queued)):
            site = self.make_site(factory)
            measure_site(site)
            self.assertRaises(ValueError, measure_site, site)


class FakePoolReactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.pool: Any = SimpleNamespace(
            workers=3, max=10, working=[None] * 2, q=SimpleNamespace(qsize=lambda: 4)
        )

    def getThreadPool(self) -> Any:
        return self.pool


class ReactorTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = FakePoolReactor()

    def test_pool(self) -> None:
        """The pool is read at the start, and once in an interval, while the service runs."""
        service = ReactorMetrics(self.reactor, self.recorder, interval=2.0)
        self.assertEqual(self.recorder.take(), [])
        service.startService()
        expected = [
            ("reactor_threadpool_threads", Operation.SET_GAUGE, 3.0),
            ("reactor_threadpool_max_threads", Operation.SET_GAUGE, 10.0),
            ("reactor_threadpool_working", Operation.SET_GAUGE, 2.0),
            ("reactor_threadpool_queued", Operation.SET_GAUGE, 4.0),
        ]
        self.assertEqual(self.recorder.take(), expected)
        self.reactor.pump([0.1] * 21)
        self.assertEqual([one for one in self.recorder.take() if "threadpool" in one[0]], expected)
        service.stopService()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lag(self) -> None:
        service = ReactorMetrics(self.reactor, self.recorder)
        service.startService()
        self.reactor.advance(0.1)
        lags = [name for name, _, _ in self.recorder.take() if "lag" in name]
        self.assertEqual(lags, ["reactor_lag_seconds"])

    def test_real_pool(self) -> None:
        """The attributes of Twisted's own thread pool."""
        from twisted.python.threadpool import ThreadPool

        self.reactor.pool = ThreadPool(0, 7)
        service = ReactorMetrics(self.reactor, self.recorder)
        self.reactor.pool.callInThread(int)
        service.startService()
        self.assertEqual([value for _, _, value in self.recorder.take()], [0.0, 7.0, 0.0, 1.0])

    def test_failure(self) -> None:
        """A pool that cannot be read is logged once."""
        logger = mock.Mock()
        self.patch(polling, "_log", logger)
        self.reactor.pool = None
        ReactorMetrics(self.reactor, self.recorder).startService()
        self.reactor.pump([1.0] * 3)
        self.assertEqual(logger.failure.call_count, 1)

    def test_wrong(self) -> None:
        self.assertRaises(ValueError, ReactorMetrics, self.reactor, interval=0)
        self.assertRaises(TypeError, ReactorMetrics, self.reactor, "recorder")


class LateClock(Clock):
    """A clock whose calls are late."""

    late = 0.0

    def pass_time(self, seconds: float, late: float) -> None:
        """Let time pass, and be late for the calls that are due."""
        self.rightNow += seconds + late
        self.advance(0)


class LoopingCallTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = LateClock()
        self.calls: list[float] = []

    def loop(self, function: Callable[[], object] | None = None) -> LoopingCall:
        loop = LoopingCall(function or (lambda: self.calls.append(self.clock.seconds())))
        loop.clock = self.clock
        return loop

    def lateness(self) -> list[float]:
        found = []
        for name, operation, value in self.recorder.take():
            self.assertEqual(name, "twisted_looping_call_lateness_seconds [call = poll]")
            self.assertIs(operation, Operation.RECORD_HISTOGRAM)
            assert isinstance(value, float)
            found.append(round(value, 6))
        return found

    def test_lateness(self) -> None:
        """Each call but the first is a sample; the calls are those without the measurement."""
        for measured in (False, True):
            self.clock, self.calls = LateClock(), []
            loop = self.loop()
            if measured:
                measure_looping_call(loop, "poll", self.recorder)
            loop.start(1.0)
            self.clock.pass_time(1.0, 0.25)
            self.clock.pass_time(0.75, 0.0)
            self.clock.pass_time(1.0, 3.5)
            loop.stop()
            self.assertEqual(self.calls, [0.0, 1.25, 2.0, 6.5])
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.lateness(), [0.25, 0.0, 3.5])

    def test_not_at_once(self) -> None:
        loop = self.loop()
        measure_looping_call(loop, "poll", self.recorder)
        loop.start(1.0, now=False)
        self.clock.pass_time(1.0, 0.5)
        self.assertEqual(self.lateness(), [0.5])

    def test_busy(self) -> None:
        """A call that is not made because the previous one runs is not late."""
        deferreds: list[Deferred[None]] = []

        def run() -> Deferred[None]:
            deferreds.append(Deferred())
            return deferreds[-1]

        loop = self.loop(run)
        measure_looping_call(loop, "poll", self.recorder)
        loop.start(1.0)
        self.clock.pass_time(2.5, 0.0)
        deferreds[0].callback(None)
        self.clock.pass_time(0.5, 0.0)
        self.assertEqual((len(deferreds), self.lateness()), (2, [0.0]))

    def test_while_running(self) -> None:
        loop = self.loop()
        loop.start(1.0)
        measure_looping_call(loop, "poll", self.recorder)
        self.clock.pass_time(1.0, 0.5)
        self.clock.pass_time(0.5, 0.125)
        self.assertEqual(self.lateness(), [0.125])

    def test_timer_service(self) -> None:
        service = TimerService(1.0, self.calls.append, 5.0)
        service.clock = self.clock
        measure_looping_call(service, "poll", self.recorder)
        service.startService()
        self.clock.pass_time(1.0, 0.5)
        service.stopService()
        self.assertEqual((self.calls, self.lateness()), ([5.0, 5.0], [0.5]))
        self.assertEqual(service.clock.getDelayedCalls(), [])

    def test_timer_service_without_clock(self) -> None:
        """It uses the global reactor, when it starts."""
        reactor = mock.Mock(wraps=self.clock)
        self.patch(bridge, "global_reactor", lambda: reactor)
        service = TimerService(1.0, self.calls.append, 5.0)
        measure_looping_call(service, "poll", self.recorder)
        self.assertEqual(reactor.mock_calls, [])
        service.startService()
        self.clock.pass_time(1.0, 0.5)
        self.assertEqual(self.lateness(), [0.5])

    def test_other_attributes(self) -> None:
        """The clock of a measured call has the attributes of the one before."""
        loop = self.loop()
        measure_looping_call(loop, "poll", self.recorder)
        clock: Any = loop.clock
        self.assertEqual(clock.late, 0.0)
        self.assertRaises(AttributeError, lambda: clock.nothing)

    def test_recorder_fails(self) -> None:
        loop = self.loop()
        measure_looping_call(loop, "poll", BadRecorder())
        loop.start(1.0)
        self.clock.pass_time(1.0, 0.0)
        self.assertEqual(self.calls, [0.0, 1.0])

    def test_wrong(self) -> None:
        wrong: Any = 5
        self.assertRaises(TypeError, measure_looping_call, wrong, "poll")
        self.assertRaises(TypeError, measure_looping_call, self.loop(), "poll", wrong)
        loop = self.loop()
        measure_looping_call(loop, "poll")
        self.assertRaises(ValueError, measure_looping_call, loop, "poll")


class ObserverTests(GlobalRecorderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.publisher = LogPublisher()

    def observe(self, observer: CountingObserver) -> None:
        self.publisher.addObserver(observer)

    def log(self, namespace: str) -> Logger:
        return Logger(namespace=namespace, observer=self.publisher)

    def counted(self) -> Counter[str]:
        return Counter(
            name.removeprefix("twisted_log_events_total ") for name, _, _ in self.recorder.take()
        )

    def test_levels(self) -> None:
        self.observe(CountingObserver(self.recorder))
        for level in LogLevel.iterconstants():
            self.log("shop").emit(level, "something")
        expected = {
            f"[level = {level}, namespace = shop]": 1
            for level in ("debug", "info", "warn", "error", "critical")
        }
        self.assertEqual(self.counted(), expected)

    def test_unusual(self) -> None:
        """Events that lack a level or a namespace, or have another object in its place."""
        observer = CountingObserver(self.recorder)
        observer({})
        observer({"log_level": [], "log_namespace": {}})
        observer({"log_level": "info", "log_namespace": None})
        self.assertEqual(self.counted(), {"[level = other, namespace = other]": 2})

    def test_maximum(self) -> None:
        """Each namespace after the first ones is another one, at all levels."""
        self.observe(CountingObserver(self.recorder, max_namespaces=2))
        for name in ("a", "b", "c", "d", "a", "c"):
            self.log(name).info("something")
        self.log("c").warn("something")
        self.assertEqual(
            self.counted(),
            {
                "[level = info, namespace = a]": 2,
                "[level = info, namespace = b]": 1,
                "[level = info, namespace = other]": 3,
                "[level = warn, namespace = other]": 1,
            },
        )
        self.assertEqual(len(self.recorder.series), 4)

    def test_own(self) -> None:
        """This library's events are not counted."""
        self.observe(CountingObserver(self.recorder))
        for name in ("txmetrics_tcp", "txmetrics_tcp.part", "txmetrics_tcp_shop"):
            self.log(name).info("something")
        self.assertEqual(self.counted(), {"[level = info, namespace = txmetrics_tcp_shop]": 1})

    def test_recursion(self) -> None:
        """What a recorder logs while it records is not counted."""
        log = self.log("recorder")

        class LoggingRecorder(ListRecorder):
            def attach(self, key: Any) -> Any:
                log.info("attached")
                return super().attach(key)

        recorder = LoggingRecorder()
        recorder.sink.log = mock.Mock(append=lambda entry: log.info("recorded"))
        recorder.sink.log.__len__ = lambda log: 0
        observer = CountingObserver(recorder)
        counted = mock.Mock(wraps=observer)
        self.observe(counted)
        self.log("shop").info("something")
        self.log("shop").info("something")
        # Its own two, and three of the recorder.
        self.assertEqual(counted.call_count, 5)
        self.assertEqual([dict(key.labels)["namespace"] for key in recorder.series], ["shop"])

    def test_recorder_fails(self) -> None:
        """Neither the program nor another observer notices."""
        events: list[object] = []
        self.observe(CountingObserver(BadRecorder()))
        self.publisher.addObserver(events.append)
        self.log("shop").info("something")
        self.assertEqual(len(events), 1)

    def test_wrong(self) -> None:
        self.assertRaises(ValueError, CountingObserver, max_namespaces=-1)
        self.assertRaises(TypeError, CountingObserver, "recorder")


class DescriptionTests(SynchronousTestCase):
    def test_described(self) -> None:
        recorder = ListRecorder()
        measure_site(Site(Resource(), reactor=Clock()), recorder)
        ReactorMetrics(FakePoolReactor(), recorder)
        loop = LoopingCall(int)
        measure_looping_call(loop, "poll", recorder)
        CountingObserver(recorder)
        described = [one for one in recorder.described if one.name != "reactor_lag_seconds"]
        self.assertEqual(described, list(bridge.METADATA))
