"""
Context managers and decorators that measure blocks and functions.

Handles create them: `txmetrics_tcp.Histogram.time`, `txmetrics_tcp.Gauge.track_inprogress` and
`txmetrics_tcp.Counter.count_exceptions`.
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
_Begun = TypeVar("_Begun")  # the value that _begin hands to _end


class _Counter(Protocol):
    def increment(self, n: int) -> None: ...


class _Gauge(Protocol):
    def increment(self, value: float) -> None: ...
    def decrement(self, value: float) -> None: ...


class _Histogram(Protocol):
    def record(self, value: float) -> None: ...


class Measure(Generic[_Begun]):
    """
    A decorator with actions at the start and the end of each call.

    A call's state is kept in the call itself, so calls may overlap in any order.
    """

    __slots__ = ()

    @abstractmethod
    def _begin(self) -> _Begun:
        """Called when a call starts.  The result is passed to `_end`."""

    @abstractmethod
    def _end(self, begun: _Begun, error: BaseException | None) -> None:
        """Called when a call ends, with the exception that it raised, or None."""

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """
        Decorate a function, so that each call is measured.

        @param function: a function, a coroutine function, or a function that returns a Deferred,
            whose calls end when the Deferred fires.
        @raise TypeError: the argument is not callable, or is a generator function, whose calls
            return before the body runs.  To measure an C{inlineCallbacks} function, put
            C{@inlineCallbacks} below this decorator.
        """
        if not callable(function):
            raise TypeError(f"{function!r} is not a function")
        # For a callable object, its __call__ method decides.
        for called in (function, type(function).__call__):
            if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
                raise TypeError(
                    f"{function!r} is a generator function: calls return before its body runs; use"
                    " a with block inside it, or put @inlineCallbacks below this decorator"
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
            # The result cannot be a Deferred unless the program has imported Deferred.
            defer = sys.modules.get("twisted.internet.defer")
            if defer is None or not isinstance(result, getattr(defer, "Deferred", ())):
                self._end(begun, None)
                return result

            def fired(outcome: Any) -> Any:
                failed = isinstance(outcome, cast(Any, defer).Failure)
                self._end(begun, outcome.value if failed else None)
                return outcome

            return cast(_R, cast(Any, result).addBoth(fired))

        return measured


class InProgress(Measure[None]):
    """
    Adds 1 to a gauge while a block or call runs.  Created by `Gauge.track_inprogress`.

    Use it in a C{with} statement, or as a decorator.
    """

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
    """
    Counts exceptions raised by a block or call.  Created by `Counter.count_exceptions`.

    Use it in a C{with} statement, or as a decorator.
    """

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


# A linked list of the timers that were entered while already in use.  An entry consists of the
# timer, the start time, and the rest of the list.  A context belongs to one thread, and to one
# asyncio task or inlineCallbacks function.
_Nested = tuple["Timer", float, Any]
_nested: ContextVar[_Nested | None] = ContextVar("txmetrics_tcp nested timers", default=None)


class Timer(Measure[float]):
    """
    Records durations in a histogram, in seconds.  Created by `Histogram.time`.

    Use it in a C{with} statement, or as a decorator.
    """

    # The start time of a C{with} block is kept in the timer, unless the timer is already in use by
    # another block.  Then it is kept in the block's context.  The context alone would not suffice:
    # a generator may enter and leave its C{with} block in different contexts.
    __slots__ = ("_begun", "_clock", "_histogram", "_in_use")

    def __init__(self, histogram: _Histogram, clock: Callable[[], float]) -> None:
        self._histogram = histogram
        self._clock = clock
        self._begun = 0.0
        # Used as an atomic test-and-set flag, and never waited for.
        self._in_use = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self._histogram!r}.time()>"

    def _begin(self) -> float:
        return self._clock()

    def _end(self, begun: float, error: BaseException | None) -> None:
        self._histogram.record(self._clock() - begun)

    def __enter__(self) -> None:
        nested = _nested.get()
        if (nested is None or _find(nested, self) is None) and self._in_use.acquire(False):
            self._begun = self._clock()
        else:
            _nested.set((self, self._clock(), nested))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        end = self._clock()
        nested = _nested.get()
        found = None if nested is None else _find(nested, self)
        if nested is None or found is None:
            begun = self._begun
            self._in_use.release()
        else:
            begun = found[1]
            _nested.set(_without(nested, found))
        self._histogram.record(end - begun)


def _find(nested: _Nested | None, timer: Timer) -> _Nested | None:
    """Return the innermost entry of a timer, or None."""
    while nested is not None and nested[0] is not timer:
        nested = nested[2]
    return nested


def _without(nested: _Nested, entry: _Nested) -> _Nested | None:
    if nested is entry:
        return cast("_Nested | None", nested[2])
    return (nested[0], nested[1], _without(nested[2], entry))
