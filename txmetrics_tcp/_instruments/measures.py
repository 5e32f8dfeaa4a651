"""
What measures blocks and functions: how long, how many at a time, how many failures.

Each is a context manager and a decorator, made by a handle: `txmetrics_tcp.Histogram.time`,
`txmetrics_tcp.Gauge.track_inprogress` and `txmetrics_tcp.Counter.count_exceptions`.
"""

from __future__ import annotations

import inspect
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Begun = TypeVar("_Begun")


class _Counter(Protocol):
    def increment(self, n: int) -> None: ...


class _Gauge(Protocol):
    def increment(self, value: float) -> None: ...
    def decrement(self, value: float) -> None: ...


class _Histogram(Protocol):
    def record(self, value: float) -> None: ...


class Measure(Generic[_Begun]):
    """
    Something to be done when a call begins, and when it ends; as a decorator.

    Nothing is kept here between the two, so that calls may overlap in every way.
    """

    __slots__ = ()

    @abstractmethod
    def _begin(self) -> _Begun:
        """A call begins.  What is returned is handed to `_end`."""

    @abstractmethod
    def _end(self, begun: _Begun, error: BaseException | None) -> None:
        """A call ends, with an error or without."""

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """
        Decorate a function.

        @param function: a plain function, a coroutine function, or one that returns a Deferred,
            which then counts as ended when the Deferred fires.
        @raise TypeError: it cannot be called; or it is a generator function, of which a call is
            over before any of it runs.  Decorated with C{inlineCallbacks} first, it returns a
            Deferred and is welcome.
        """
        if not callable(function):
            raise TypeError(f"{function!r} is not a function")
        # Of an object that can be called, it is the method that matters.
        for called in (function, type(function).__call__):
            if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
                raise TypeError(
                    f"{function!r} is a generator function: a call of it is over before any of it"
                    " runs; use a with block inside of it (or put @inlineCallbacks below this)"
                )
            if inspect.iscoroutinefunction(called):
                return self._around_coroutine(function)
        return self._around_call(function)

    def _around_coroutine(self, function: Callable[_P, Any]) -> Callable[_P, Any]:
        @wraps(function)
        async def measured(*args: _P.args, **kwargs: _P.kwargs) -> Any:
            begun = self._begin()
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                self._end(begun, error)
                raise
            self._end(begun, None)
            return result

        return measured

    def _around_call(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def measured(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            begun = self._begin()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self._end(begun, error)
                raise
            # Where nobody has imported Deferred, nobody returns one.
            defer = sys.modules.get("twisted.internet.defer")
            if defer is None or not isinstance(result, getattr(defer, "Deferred", ())):
                self._end(begun, None)
                return result

            def fired(outcome: Any) -> Any:
                # A Failure has its exception as `value`.
                failed = isinstance(outcome, cast(Any, defer).Failure)
                self._end(begun, outcome.value if failed else None)
                return outcome

            return cast(_R, cast(Any, result).addBoth(fired))

        return measured


class InProgress(Measure[None]):
    """A gauge goes up for as long as something is under way.  See `Gauge.track_inprogress`."""

    __slots__ = ("_gauge",)

    def __init__(self, gauge: _Gauge) -> None:
        self._gauge = gauge

    def __repr__(self) -> str:
        return f"<{self._gauge!r}.track_inprogress()>"

    def _begin(self) -> None:
        self._gauge.increment(1.0)

    def _end(self, begun: None, error: BaseException | None) -> None:
        self._gauge.decrement(1.0)

    __enter__ = _begin

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._gauge.decrement(1.0)


class ExceptionCount(Measure[None]):
    """A counter counts exceptions.  See `Counter.count_exceptions`."""

    __slots__ = ("_counter", "_exception")

    def __init__(
        self, counter: _Counter, exception: type[BaseException] | tuple[type[BaseException], ...]
    ) -> None:
        self._counter = counter
        self._exception = exception

    def __repr__(self) -> str:
        return f"<{self._counter!r}.count_exceptions()>"

    def _begin(self) -> None:
        pass

    def _end(self, begun: None, error: BaseException | None) -> None:
        if isinstance(error, self._exception):
            self._counter.increment(1)

    __enter__ = _begin

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end(None, error)


# Timers that were entered while they were measuring already: the timer, when, and the rest.
# A context belongs to one thread, and to one asyncio task or inlineCallbacks function.
_Nested = tuple["Timer", float, Any]
_nested: ContextVar[_Nested | None] = ContextVar("txmetrics_tcp nested timers", default=None)


class Timer(Measure[float]):
    """
    Durations become samples of a histogram.  See `Histogram.time`.

    As a context manager, an object is nearly always used once, and one object can keep one
    beginning.  For those that are shared, whoever comes while it is taken leaves its beginning in
    its own context, where nobody else finds it.  Not everybody does so, because a generator may be
    resumed, and leave its with block, in another context than it entered it in.
    """

    __slots__ = ("_begun", "_clock", "_histogram", "_taken")

    def __init__(self, histogram: _Histogram, clock: Callable[[], float]) -> None:
        self._histogram = histogram
        self._clock = clock
        self._begun = 0.0
        # Never waited for: it makes a test and a set one step.
        self._taken = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self._histogram!r}.time()>"

    def _begin(self) -> float:
        return self._clock()

    def _end(self, begun: float, error: BaseException | None) -> None:
        self._histogram.record(self._clock() - begun)

    def __enter__(self) -> None:
        nested = _nested.get()
        if (nested is None or _find(nested, self) is None) and self._taken.acquire(False):
            self._begun = self._clock()
        else:
            _nested.set((self, self._clock(), nested))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        end = self._clock()
        nested = _nested.get()
        found = None if nested is None else _find(nested, self)
        if nested is None or found is None:
            begun = self._begun
            self._taken.release()
        else:
            begun = found[1]
            _nested.set(_without(nested, found))
        self._histogram.record(end - begun)


def _find(nested: _Nested | None, timer: Timer) -> _Nested | None:
    """The innermost use of a timer."""
    while nested is not None and nested[0] is not timer:
        nested = nested[2]
    return nested


def _without(nested: _Nested, gone: _Nested) -> _Nested | None:
    if nested is gone:
        return cast("_Nested | None", nested[2])
    return (nested[0], nested[1], _without(nested[2], gone))
