"""
Measures Twisted itself: the requests of a web site, the reactor and its thread pool, looping calls,
and what is logged.

No function of this module imports the reactor, which would install the default one, except for a
`TimerService` without a clock, when it starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.web.iweb import INonQueuedRequestFactory
from twisted.web.server import Site
from zope.interface import directlyProvides, implementer

from txmetrics_tcp._checks import at_least, seconds_from, short_repr
from txmetrics_tcp._collectors.reactor_lag import LagService
from txmetrics_tcp._collectors.service import PollingService
from txmetrics_tcp._instruments.facade import default_recorder
from txmetrics_tcp._instruments.recorder import Counter, Gauge, Histogram, Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit
from txmetrics_tcp._net.internals import global_reactor
from txmetrics_tcp.bridges._log_counts import MAX_NAMES, OTHER, LogCounts

__all__ = [
    "MAX_NAMES",
    "CountingObserver",
    "ReactorMetrics",
    "measure_looping_call",
    "measure_site",
]

_REQUESTS = Metadata(
    MetricKind.COUNTER,
    "twisted_web_requests_total",
    Unit.COUNT,
    "Requests that have ended, by method and class of the status.",
)
_SECONDS = Metadata(
    MetricKind.HISTOGRAM,
    "twisted_web_request_seconds",
    Unit.SECONDS,
    "Time from the arrival of a whole request to the end of its response.",
)
_IN_PROGRESS = Metadata(
    MetricKind.GAUGE,
    "twisted_web_requests_in_progress",
    Unit.COUNT,
    "Requests that have arrived and not ended, by method.",
)
_THREADS = Metadata(
    MetricKind.GAUGE,
    "reactor_threadpool_threads",
    Unit.COUNT,
    "Number of threads in the reactor's thread pool.",
)
_MAX_THREADS = Metadata(
    MetricKind.GAUGE,
    "reactor_threadpool_max_threads",
    Unit.COUNT,
    "Maximum number of threads in the reactor's thread pool.",
)
_WORKING = Metadata(
    MetricKind.GAUGE,
    "reactor_threadpool_working",
    Unit.COUNT,
    "Number of threads in the reactor's thread pool that make a call.",
)
_QUEUED = Metadata(
    MetricKind.GAUGE,
    "reactor_threadpool_queued",
    Unit.COUNT,
    "Number of calls that wait for a thread of the reactor's thread pool.",
)
_LATENESS = Metadata(
    MetricKind.HISTOGRAM,
    "twisted_looping_call_lateness_seconds",
    Unit.SECONDS,
    "How late the reactor makes a looping call.",
)
_LOGGED = Metadata(
    MetricKind.COUNTER,
    "twisted_log_events_total",
    Unit.COUNT,
    "Events of twisted.logger, by level and namespace.",
)
METADATA = (
    *(_REQUESTS, _SECONDS, _IN_PROGRESS),
    *(_THREADS, _MAX_THREADS, _WORKING, _QUEUED),
    *(_LATENESS, _LOGGED),
)

_METHODS = {
    method: method.decode()
    for method in (
        *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE"),
        b"PATCH",
    )
}
"""The methods that HTTP defines (RFC 9110 and RFC 5789)."""

_STATUSES = {number: f"{number}xx" for number in range(1, 6)}

_DISCONNECTED = "disconnected"


def measure_site(site: Site, recorder: Recorder | None = None) -> None:
    """
    Measure the requests of a `twisted.web` site, on connections that are made from now on::

        measure_site(site)

    Records, when a request ends, the counter ``twisted_web_requests_total{method,status}`` and the
    histogram ``twisted_web_request_seconds{method,status}``; and while it is being answered, the
    gauge ``twisted_web_requests_in_progress{method}``.  Labels:

      - C{method}: C{other} for a method that HTTP does not define.
      - C{status}: C{1xx} to C{5xx}; C{disconnected} if the connection was lost before the response
        was finished; C{other} for a status that HTTP does not define.

    The time begins when the whole request has arrived, and ends when the program calls
    C{finish()}.  A response from a producer therefore includes the client's time to read it.

    Call it on the reactor thread.  It replaces C{site.requestFactory}, which may be any class or
    function.  Recording never raises an exception into the program.

    @param recorder: the recorder; by default, the global one, also if it is installed later.
        To tell sites apart, pass a `txmetrics_tcp.LabelsRecorder`.
    @raise TypeError: C{recorder} is not a recorder, or the site has no request factory.
    @raise ValueError: the site is measured already.
    """
    factory = getattr(site, "requestFactory", None)
    if not callable(factory):
        raise TypeError(f"a site is required, not {short_repr(site)}")
    if hasattr(factory, "_txmetrics"):
        raise ValueError(f"{short_repr(site)} is measured already")
    requests = _Requests(default_recorder(recorder))
    measured = _measured_factory(factory, requests)
    if INonQueuedRequestFactory.providedBy(factory):
        directlyProvides(measured, INonQueuedRequestFactory)
    site.requestFactory = measured


class _Requests:
    """
    The metrics of the requests of a site.
    """

    def __init__(self, recorder: Recorder) -> None:
        for metadata in (_REQUESTS, _SECONDS, _IN_PROGRESS):
            recorder.describe(metadata)
        self._recorder = recorder
        # Bounded, because the labels are.
        self._in_progress: dict[str, Gauge] = {}
        self._ended: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def begin(self, request: Any) -> None:
        try:
            if request._txmetrics_method is not None:
                # A request may be processed again.
                return
            method = _METHODS.get(request.method, OTHER)
            gauge = self._in_progress.get(method)
            if gauge is None:
                gauge = self._recorder.gauge(_IN_PROGRESS.name, method=method)
                self._in_progress[method] = gauge
            gauge.increment()
            request._txmetrics_method = method
            request._txmetrics_began = time.perf_counter()
        except Exception:
            pass

    def end(self, request: Any, status: str | None = None) -> None:
        """
        @param status: the label; by default, it depends on the code of the response.
        """
        try:
            method = request._txmetrics_method
            if not method:
                # It has not begun, or has ended.
                return
            seconds = time.perf_counter() - request._txmetrics_began
            request._txmetrics_method = ""
            if status is None:
                status = _STATUSES.get(request.code // 100, OTHER)
            ended = self._ended.get((method, status))
            if ended is None:
                labels = {"method": method, "status": status}
                ended = (
                    self._recorder.counter(_REQUESTS.name, labels),
                    self._recorder.histogram(_SECONDS.name, labels),
                )
                self._ended[method, status] = ended
            self._in_progress[method].decrement()
            ended[0].increment()
            ended[1].record(seconds)
        except Exception:
            pass


def _measured_factory(factory: Any, requests: _Requests) -> Any:
    """Return a factory whose requests are measured."""

    @cache
    def measured(base: Any) -> Any:
        class MeasuredRequest(base):  # type: ignore[misc]
            _txmetrics = requests
            # None before the request begins, and empty after its end.
            _txmetrics_method: str | None = None

            def process(self) -> Any:
                requests.begin(self)
                return super().process()

            def finish(self) -> Any:
                # Before the base class's method, because that may process the next request of the
                # connection.
                requests.end(self)
                return super().finish()

            def connectionLost(self, reason: Any) -> Any:
                requests.end(self, _DISCONNECTED)
                return super().connectionLost(reason)

            def __del__(self) -> None:
                # A WebSocket takes the connection over, and the request does not learn of its end.
                requests.end(self, _DISCONNECTED)
                finalize = getattr(super(), "__del__", None)
                if finalize is not None:
                    finalize()

        MeasuredRequest.__name__ = base.__name__
        MeasuredRequest.__qualname__ = base.__qualname__
        MeasuredRequest.__module__ = base.__module__
        return MeasuredRequest

    if isinstance(factory, type):
        return measured(factory)

    def make_request(*arguments: Any, **keywords: Any) -> Any:
        request = factory(*arguments, **keywords)
        kind: Any = type(request)
        # Fails for a class with slots.  Its requests are not measured.
        with suppress(TypeError):
            request.__class__ = measured(kind)
        return request

    make_request._txmetrics = requests  # type: ignore[attr-defined]
    return make_request


class ReactorMetrics(MultiService):
    """
    A service that measures a reactor while it runs: its lag and its thread pool::

        ReactorMetrics(reactor).setServiceParent(application)

    Without an application, call C{startService()} and C{stopService()}, on the reactor thread.

    Records how late the reactor makes delayed calls as the histogram ``reactor_lag_seconds``, ten
    times in an interval, and these gauges once in an interval:

      - ``reactor_threadpool_threads``, the number of threads
      - ``reactor_threadpool_max_threads``, their maximum
      - ``reactor_threadpool_working``, the number of threads that make a call
      - ``reactor_threadpool_queued``, the number of calls that wait for a thread

    Do not use it in a program that ``metrics-tcp run`` or ``twistd metrics-tcp`` measures under the
    same names.
    """

    def __init__(
        self, reactor: Any, recorder: Recorder | None = None, *, interval: float = 1.0
    ) -> None:
        """
        @param reactor: the reactor.
        @param recorder: the recorder; by default, the global one, also if it is installed later.
        @param interval: seconds between two readings of the pool; 0.01 or more.  The lag is sampled
            ten times as often, but at intervals of 0.05 to 1 second.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{interval} is out of range.
        """
        super().__init__()
        used = default_recorder(recorder)
        seconds = seconds_from(0.01, "interval", interval)
        poll = _ThreadPoolCollector(used, reactor)
        LagService(used, seconds, reactor).setServiceParent(self)
        PollingService({"thread pool": poll}, seconds, reactor).setServiceParent(self)


class _ThreadPoolCollector:
    """Records the state of the reactor's thread pool."""

    def __init__(self, recorder: Recorder, reactor: Any) -> None:
        for metadata in (_THREADS, _MAX_THREADS, _WORKING, _QUEUED):
            recorder.describe(metadata)
        self._threads = recorder.gauge(_THREADS.name)
        self._max_threads = recorder.gauge(_MAX_THREADS.name)
        self._working = recorder.gauge(_WORKING.name)
        self._queued = recorder.gauge(_QUEUED.name)
        self._reactor = reactor

    def __call__(self) -> None:
        pool = self._reactor.getThreadPool()
        self._threads.set(pool.workers)
        self._max_threads.set(pool.max)
        self._working.set(len(pool.working))
        self._queued.set(pool.q.qsize())


def measure_looping_call(
    call: LoopingCall | Service, name: str, recorder: Recorder | None = None
) -> None:
    """
    Measure how late a looping call is called, from its next call on::

        loop = LoopingCall(poll_queue)
        measure_looping_call(loop, "poll_queue")

    Records the time from when a call is due to when the reactor makes it as the histogram
    ``twisted_looping_call_lateness_seconds{call}``.  The first call is not delayed, and not
    measured, if the loop calls at once.  A call that is due while the previous one runs is not
    made, and not late either.

    Call it on the reactor thread.  It replaces C{call.clock}.  Recording never raises an exception
    into the program.

    @param call: the call, or a `TimerService` before it starts.
    @param name: the label C{call}.
    @param recorder: the recorder; by default, the global one, also if it is installed later.
    @raise TypeError: an argument is of the wrong type.
    @raise ValueError: the call is measured already, or C{name} cannot be a label.
    """
    if not isinstance(call, LoopingCall | TimerService):
        raise TypeError(f"a LoopingCall or TimerService is required, not {short_repr(call)}")
    if isinstance(call.clock, _MeasuredClock):
        raise ValueError(f"{short_repr(call)} is measured already")
    used = default_recorder(recorder)
    used.describe(_LATENESS)
    lateness = used.histogram(_LATENESS.name, call=name)
    call.clock = _MeasuredClock(call.clock, lateness)


@implementer(IReactorTime)
class _MeasuredClock:
    """
    A clock that measures how late its delayed calls are.
    """

    def __init__(self, clock: Any, lateness: Histogram) -> None:
        """
        @param clock: the clock; None for the global reactor.
        """
        self._clock = clock
        self._lateness = lateness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def seconds(self) -> float:
        seconds: float = self._real().seconds()
        return seconds

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        due = self.seconds() + delay
        delayed: IDelayedCall = self._real().callLater(
            delay, self._call, due, callable, args, kwargs
        )
        return delayed

    def getDelayedCalls(self) -> Any:
        return self._real().getDelayedCalls()

    def _real(self) -> Any:
        if self._clock is None:
            # A service that starts.
            self._clock = global_reactor()
        return self._clock

    def _call(
        self,
        due: float,
        function: Callable[..., Any],
        arguments: tuple[object, ...],
        keywords: dict[str, object],
    ) -> None:
        with suppress(Exception):
            self._lateness.record(max(0.0, self.seconds() - due))
        function(*arguments, **keywords)


_LEVELS = {level: level.name for level in LogLevel.iterconstants()}


@implementer(ILogObserver)
class CountingObserver:
    """
    An observer that counts the events of `twisted.logger` by level and namespace::

        globalLogPublisher.addObserver(CountingObserver())

    The counter is ``twisted_log_events_total{level,namespace}``.  Each namespace after the first
    C{max_namespaces} has the label C{other}, and so has an event without a level or namespace.  The
    events of this library are not counted.  Thread-safe; never raises an exception.
    """

    def __init__(
        self, recorder: Recorder | None = None, *, max_namespaces: int = MAX_NAMES
    ) -> None:
        """
        @param recorder: the recorder; by default, the global one, also if it is installed later.
        @param max_namespaces: the maximum number of namespaces with series of their own; 0 or more.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{max_namespaces} is negative.
        """
        maximum = at_least(0, "max_namespaces", max_namespaces)
        self._counts = LogCounts(recorder, _LOGGED, "namespace", maximum)

    def __call__(self, event: LogEvent) -> None:
        """Count an event."""
        level: Any = event.get("log_level")
        try:
            label = _LEVELS.get(level, OTHER)
        except Exception:
            # Not hashable.
            label = OTHER
        self._counts.count(label, event.get("log_namespace"))
