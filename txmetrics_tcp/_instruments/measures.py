"""
Context managers and decorators that measure blocks and functions.

Handles create them: `txmetrics_tcp.Histogram.time`, `txmetrics_tcp.Gauge.track_inprogress` and
`txmetrics_tcp.Counter.count_exceptions`.
"""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import CodeType, CoroutineType, GeneratorType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from txmetrics_tcp._checks import check_callable, short_repr

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

    def _cancel(self, begun: _Begun) -> None:
        """Called instead of `_end` for a call that is not measured.  Undoes `_begin`."""

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """
        Decorate a function, so that each call is measured.

        The call of a coroutine function begins and ends with its body, and so does the call of a
        function that returns a coroutine.  If a function returns a Deferred,
        a task or another future of asyncio, or a future of C{concurrent.futures}, the call ends
        when that is done; the caller receives the same object.  A call that returns another
        awaitable is not measured, and causes a C{RuntimeWarning}.

        @param function: a function, or another callable object that is not a class.
        @raise TypeError: the argument is not callable, or is a class or a C{staticmethod}; or it is
            a generator function, whose calls return before the body runs.  To measure an
            C{inlineCallbacks} function, put C{@inlineCallbacks} below this decorator.
        """
        if isinstance(function, type):
            raise TypeError(
                f"{short_repr(function)} is a class, and would become a function: decorate a"
                " method, or a function that creates the object"
            )
        if not callable(function) or isinstance(function, staticmethod):
            raise TypeError(
                f"{short_repr(function)} is not a function; this decorator goes below"
                " @staticmethod, @classmethod and @property"
            )
        around: Callable[[Callable[..., Any]], Callable[..., Any]] = self._around_call
        # For a callable object, its __call__ method decides.
        for called in (function, type(function).__call__):
            if inspect.iscoroutinefunction(called) or _is_iterable_coroutine(
                getattr(called, "__code__", None)
            ):
                around = self._around_coroutine
            elif inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
                raise TypeError(
                    f"{short_repr(function)} is a generator function: calls return before its body"
                    " runs; use a with block inside it, or put @inlineCallbacks below this"
                    " decorator"
                )
        return wraps(function)(around(function))

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def measured(*args: Any, **kwargs: Any) -> Any:
            begun = self._begin()
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                self._end(begun, error)
                raise
            self._end(begun, None)
            return result

        return measured

    def _around_call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            begun = self._begin()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self._end(begun, error)
                raise
            if type(result) in _VALUES or not _may_be_pending(type(result)):
                self._end(begun, None)
                return result
            return self._until_done(begun, result)

        return measured

    def _until_done(self, begun: _Begun, result: Any) -> Any:
        """
        End a call when its result is done.

        @return: the object to return to the caller.
        """
        if isinstance(result, CoroutineType) or _is_iterable_coroutine(
            getattr(result, "gi_code", None)
        ):
            self._cancel(begun)
            return _named_as(result, self._around_coroutine(_Unawaited(result)))
        # The result can be one of these only if the program has imported their module.
        if defer := _module_of("twisted.internet.defer", "Deferred", result):

            def fired(outcome: Any) -> Any:
                failed = isinstance(outcome, defer.Failure)
                self._end(begun, outcome.value if failed else None)
                return outcome

            return result.addBoth(fired)

        futures = _module_of("asyncio", "Future", result) or _module_of(
            "concurrent.futures", "Future", result
        )
        if futures:

            def done(future: Any) -> None:
                if future.cancelled():
                    self._end(begun, futures.CancelledError())
                else:
                    # After exception(), asyncio would not log an exception that the program never
                    # retrieves.
                    self._end(begun, getattr(future, "_exception", None))

            # asyncio refuses callbacks of a future that is done if its loop was closed.
            if result.done():
                done(result)
            else:
                result.add_done_callback(done)
            return result

        if hasattr(type(result), "__await__"):
            self._cancel(begun)
            warnings.warn(
                f"{self!r} does not measure calls that return a {type(result).__qualname__},"
                " because it cannot tell when it is done: decorate a coroutine function that"
                " awaits it",
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            self._end(begun, None)
        return result


class _Unawaited:
    """
    Returns a coroutine when called.  It closes the coroutine if it is never called, so that Python
    warns of one coroutine that was never awaited, or of none if the program closed or cancelled it.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def __call__(self) -> Any:
        return self._coroutine

    def __del__(self) -> None:
        self._coroutine.close()


_VALUES = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})
"""Common types of results, for speed."""


def _may_be_pending(kind: type) -> bool:
    """Whether `Measure._until_done` has to look at results of this type."""
    # Only the type is looked at, since an attribute of a proxy may raise any exception.
    return kind is GeneratorType or hasattr(kind, "__await__") or hasattr(kind, "add_done_callback")


def _is_iterable_coroutine(code: CodeType | None) -> bool:
    """Whether the code is that of a generator function decorated with C{types.coroutine}."""
    return bool(getattr(code, "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE)


def _named_as(original: Any, function: Callable[[], Any]) -> Any:
    """Call a function, and give its result, a coroutine or generator, the name of another."""
    result = function()
    result.__name__ = original.__name__
    result.__qualname__ = original.__qualname__
    return result


def _module_of(name: str, kind: str, result: object) -> Any:
    """Return a module if it is imported and C{result} is an instance of its class, else None."""
    module = sys.modules.get(name)
    return module if issubclass(type(result), getattr(module, kind, ())) else None


def check_parentheses(method: str, arguments: tuple[object, ...]) -> None:
    """
    @raise TypeError: there are positional arguments, such as the function below a decorator that
        was written without parentheses.
    """
    if arguments:
        raise TypeError(
            f"{method}() takes only named arguments, not {short_repr(arguments[0])}; as a"
            f" decorator, write @….{method}() with parentheses"
        )


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

    def _cancel(self, begun: None) -> None:
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
        classes = exception if isinstance(exception, tuple) else (exception,)
        if not classes or not all(
            isinstance(one, type) and issubclass(one, BaseException) for one in classes
        ):
            hint = "; write @….count_exceptions() with parentheses" if callable(exception) else ""
            raise TypeError(
                "count_exceptions() takes an exception class or a tuple of exception classes,"
                f" not {short_repr(exception)}{hint}"
            )
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
        check_callable("clock", clock, optional=False)
        self._histogram = histogram
        self._clock = clock
        self._begun = 0.0
        # Used as an atomic test-and-set flag, and never waited for.
        self._in_use = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self._histogram!r}.time()>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is not in use.
        return type(self), (self._histogram, self._clock)

    def _begin(self) -> float:
        now = self._clock()
        if type(now) is not float:
            self._check(now)
        return now

    def _check(self, now: Any) -> None:
        # An error at the end could replace an exception of the program.
        try:
            now - now
        except TypeError:
            raise TypeError(
                f"the clock of {self!r} returned {short_repr(now)}, not a number of seconds"
            ) from None

    def _end(self, begun: float, error: BaseException | None) -> None:
        self._histogram.record(self._clock() - begun)

    def __enter__(self) -> None:
        begun = self._clock()
        if type(begun) is not float:
            self._check(begun)
        nested = _nested.get()
        if (nested is None or _find(nested, self) is None) and self._in_use.acquire(False):
            self._begun = begun
        else:
            _nested.set((self, begun, nested))

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
