"""
Handles, which record events, and the interface of recorders.
"""

from __future__ import annotations

import datetime
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn, SupportsFloat, SupportsIndex, TypeVar

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._instruments.measures import (
    ExceptionCount,
    InProgress,
    Timer,
    check_parentheses,
)
from txmetrics_tcp._instruments.sink import NOWHERE, RECORD_MANY, Series
from txmetrics_tcp._model import (
    U64_MAX,
    Key,
    Metadata,
    MetricKind,
    Operation,
    Unit,
    merge_labels,
    plain_labels,
    real_number,
    too_large,
    whole_number,
)

HANDLE_CACHE_SIZE = 4096
"""The maximum number of handles that a recorder caches, so that repeated look-ups are cheap."""

_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_SET_COUNTER = Operation.SET_COUNTER
_INCREMENT_GAUGE = Operation.INCREMENT_GAUGE
_DECREMENT_GAUGE = Operation.DECREMENT_GAUGE
_SET_GAUGE = Operation.SET_GAUGE
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM
_ONE = 1


_H = TypeVar("_H", bound="Handle")
_R = TypeVar("_R", bound="Recorder")


class Handle:
    """
    Records the events of one series: the base class of `Counter`, `Gauge` and `Histogram`.

    Recorders create handles; so do `txmetrics_tcp.counter`, `txmetrics_tcp.gauge` and
    `txmetrics_tcp.histogram`.  A handle can be kept indefinitely, shared between threads, and used
    in signal handlers and finalizers.  Recording never waits for the reactor or for I/O, and raises
    only for invalid values.

    A copy of a handle is the same handle.  A handle from `txmetrics_tcp.counter`,
    `txmetrics_tcp.gauge` or `txmetrics_tcp.histogram` can be pickled, unless it was created in a
    scope: the process that loads it calls the same function with the same name and labels.

    @ivar key: the kind, name and labels that the handle was created with.
    """

    __slots__ = ("__weakref__", "_recorder", "_series", "key")

    def __init__(self, key: Key, series: Series, recorder: Recorder | None = None) -> None:
        self.key: Key = key
        self._series = series
        self._recorder = recorder

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def __copy__(self: _H) -> _H:
        return self

    def __deepcopy__(self: _H, memo: object) -> _H:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recorder is None:
            raise TypeError(f"cannot pickle {short_repr(self)}: it has no recorder")
        return self._recorder._reduce_handle(self)

    def labels(self: _H, labels: Mapping[str, object] | None = None, /, **more: object) -> _H:
        """
        Return the handle of the series with additional labels, from the same recorder::

            requests = counter("requests_total", service="api")
            requests.labels(route="/").increment()

        A call costs as much as looking the series up by name.  On hot paths, keep the returned
        handle.

        @param labels: labels as a mapping, for names that are not Python identifiers.
        @param more: labels as keyword arguments; they override the mapping.  Both override labels
            of this handle.  See `txmetrics_tcp.counter` for their values.
        @raise TypeError: C{labels} is not a mapping, or a label name is not a `str`.
        @raise ValueError: a label name is empty; a value cannot be converted to text; a string
            cannot be encoded as UTF-8; name and labels together exceed 64 KiB of UTF-8; or the
            handle was constructed without a recorder.
        """
        if self._recorder is None:
            raise ValueError(f"{self!r} has no recorder: labels() is not available")
        key = self.key
        refined = {**dict(key.labels), **merge_labels(labels, more, (key.kind, key.name))}
        return self._recorder._find(type(self), key.kind, key.name, None, refined)

    def _attach(self, series: Series) -> None:
        # A single assignment, since other threads may be recording.
        self._series = series


class Counter(Handle):
    """
    A total that only increases: requests served, bytes read.

    The total is an integer from 0 to 2**64-1, and wraps to 0 above that.

        >>> from txmetrics_tcp import counter
        >>> from txmetrics_tcp.testing import capture
        >>> requests = counter("requests_total", route="/")
        >>> with capture() as captured:
        ...     requests.increment()
        ...     requests.increment(3)
        >>> captured.total("requests_total", route="/")
        4
    """

    __slots__ = ()

    def increment(self, n: SupportsIndex = 1) -> None:
        """
        Add to the total.

        @param n: a whole number from 0 to 2**64-1: any value that `operator.index` accepts, except
            a bool.
        @raise TypeError: C{n} is not a whole number.
        @raise ValueError: C{n} is out of range, or its conversion raised an exception.
        """
        # The identity check is the fast path: CPython has a single object for 1.
        if n is not _ONE and (type(n) is not int or not 0 <= n <= U64_MAX):
            n = whole_number(self.key, "increment by", n)
        # Every recording method repeats the following lines, because calling a function for them
        # would add a quarter to their cost.
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _INCREMENT_COUNTER, n, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def count_exceptions(
        self, exception: type[BaseException] | tuple[type[BaseException], ...] = Exception
    ) -> ExceptionCount:
        """
        Return a context manager and decorator that counts exceptions raised by a block or
        function::

            @errors.count_exceptions(OSError)
            def read(): ...

        The exceptions propagate.  The exception of a coroutine, a Deferred or a future that the
        function returns is counted when that fails; see `Histogram.time`.  The returned object is
        reusable and re-entrant, and can be shared between threads and tasks.

        @param exception: the exception class to count, or a tuple of classes.  The default,
            `Exception`, excludes `KeyboardInterrupt`, `SystemExit` and `asyncio.CancelledError`,
            but not the C{CancelledError} of Twisted and of C{concurrent.futures}.
        @raise TypeError: C{exception} is anything else, or an empty tuple.
        """
        return ExceptionCount(self, exception)

    def absolute(self, n: SupportsIndex) -> None:
        """
        Set the total to a value that is maintained elsewhere, such as in the operating system.

        @param n: the new total, of the same type and range as for `increment`.
        @raise TypeError: C{n} is not a whole number.
        @raise ValueError: C{n} is out of range, or its conversion raised an exception.
        """
        if type(n) is not int or not 0 <= n <= U64_MAX:
            n = whole_number(self.key, "absolute", n)
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _SET_COUNTER, n, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()


class Gauge(Handle):
    """
    A value that rises and falls: open connections, temperature, bytes in use.

    The value is a float that starts at 0.

        >>> from txmetrics_tcp import gauge
        >>> from txmetrics_tcp.testing import capture
        >>> connections = gauge("connections_open")
        >>> with capture() as captured:
        ...     connections.set(10)
        ...     connections.decrement()
        >>> captured.total("connections_open")
        9.0
    """

    __slots__ = ()

    def increment(self, value: SupportsFloat | datetime.timedelta = 1.0) -> None:
        """
        Add to the value.

        @param value: any value that `float` accepts, including NaN and infinities, except text: a
            string or a buffer.  A timedelta is converted to seconds.
        @raise TypeError: C{value} is not a number.
        @raise ValueError: C{value} is too large for a float, or its conversion raised an exception.
        """
        if type(value) is not float:
            try:
                value = (
                    value + 0.0
                    if type(value) is int
                    else real_number(self.key, "increment by", value)
                )
            except OverflowError as error:
                raise too_large(self.key, "increment by", value) from error
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _INCREMENT_GAUGE, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def decrement(self, value: SupportsFloat | datetime.timedelta = 1.0) -> None:
        """
        Subtract from the value.

        @param value: as for `increment`.
        @raise TypeError: C{value} is not a number.
        @raise ValueError: C{value} is too large for a float, or its conversion raised an exception.
        """
        if type(value) is not float:
            try:
                value = (
                    value + 0.0
                    if type(value) is int
                    else real_number(self.key, "decrement by", value)
                )
            except OverflowError as error:
                raise too_large(self.key, "decrement by", value) from error
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _DECREMENT_GAUGE, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def track_inprogress(self, *arguments: NoReturn) -> InProgress:
        """
        Return a context manager and decorator that adds 1 to the gauge while a block or function
        runs::

            @requests_in_progress.track_inprogress()
            async def handle(request): ...

        It subtracts 1 when the block or call ends, normally or with an exception; `Histogram.time`
        describes when a call ends.  The returned object is reusable and re-entrant, and can be
        shared between threads and tasks.

        @raise TypeError: there is an argument, as with a decorator without parentheses.
        """
        check_parentheses("track_inprogress", arguments)
        return InProgress(self)

    def set(self, value: SupportsFloat | datetime.timedelta) -> None:
        """
        Set the value.

        @param value: as for `increment`.
        @raise TypeError: C{value} is not a number.
        @raise ValueError: C{value} is too large for a float, or its conversion raised an exception.
        """
        if type(value) is not float:
            try:
                value = (
                    value + 0.0 if type(value) is int else real_number(self.key, "set to", value)
                )
            except OverflowError as error:
                raise too_large(self.key, "set to", value) from error
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _SET_GAUGE, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()


class Histogram(Handle):
    """
    The distribution of samples: durations, sizes.

    Every sample is streamed as a separate event.  The exporter also keeps the `Distribution` of all
    samples, in buckets that need no configuration.  Record durations in seconds.

        >>> from txmetrics_tcp import histogram
        >>> from txmetrics_tcp.testing import capture
        >>> latency = histogram("request_seconds")
        >>> with capture() as captured:
        ...     latency.record(0.25)
        ...     latency.record_many(0.5, 2)
        >>> captured.samples("request_seconds")
        [0.25, 0.5, 0.5]
    """

    __slots__ = ()

    def record(self, value: SupportsFloat | datetime.timedelta) -> None:
        """
        Record one sample.

        @param value: any value that `float` accepts, including NaN and infinities, except text: a
            string or a buffer.  A timedelta is converted to seconds.
        @raise TypeError: C{value} is not a number.
        @raise ValueError: C{value} is too large for a float, or its conversion raised an exception.
        """
        if type(value) is not float:
            try:
                value = (
                    value + 0.0 if type(value) is int else real_number(self.key, "record", value)
                )
            except OverflowError as error:
                raise too_large(self.key, "record", value) from error
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _RECORD_HISTOGRAM, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def time(self, *arguments: NoReturn, clock: Callable[[], float] = time.perf_counter) -> Timer:
        """
        Return a context manager and decorator that records the duration of a block or function, in
        seconds::

            with latency.time():
                ...

            @latency.time()
            async def handle(request): ...

        It records the duration even if the block or call raises.  The decorator measures a
        coroutine from its first step to its end, also if a function decorated by another library
        returns it.  If a function returns a Deferred or a future (of asyncio or
        C{concurrent.futures}), its call ends when that is done.  A call that returns another
        awaitable is not recorded, and causes a C{RuntimeWarning}.  The returned object is reusable
        and re-entrant, and can be shared between threads and tasks.

        @param clock: returns the current time in seconds, and must be monotonic.  Tests can pass
            the C{seconds} method of a `twisted.internet.task.Clock`.
        @raise TypeError: the clock is not callable; or there is a positional argument, as with a
            decorator without parentheses.
        """
        check_parentheses("time", arguments)
        return Timer(self, clock)

    def record_many(self, value: SupportsFloat | datetime.timedelta, n: SupportsIndex) -> None:
        """
        Record the same sample C{n} times, for the caller at the cost of recording it once.

        The sample is streamed as C{n} events, up to a limit.  An exporter streams the first 100
        samples of each call, and 50,000 more samples of all calls together until it has processed
        all recorded events.  Further samples are dropped and counted; see `Stats.dropped_incoming`.

        @param value: as for `record`.
        @param n: the number of samples; a whole number from 0 to 2**64-1.
        @raise TypeError: C{value} is not a number, or C{n} is not a whole number.
        @raise ValueError: C{value} or C{n} is out of range, or its conversion raised an exception.
        """
        sample = real_number(self.key, "record", value)
        count = whole_number(self.key, "record_many of", n)
        series = self._series
        sink = series.sink
        if sink.open and count:
            log = sink.log
            log.append((series, RECORD_MANY, (sample, count), sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()


HANDLES: dict[MetricKind, type[Handle]] = {
    MetricKind.COUNTER: Counter,
    MetricKind.GAUGE: Gauge,
    MetricKind.HISTOGRAM: Histogram,
}


class Recorder(ABC):
    """
    The destination of recorded metrics, and the factory of their handles.

    Subclasses implement `attach` and `describe`.  All methods may be called from any thread.  A
    copy of a recorder is the same recorder, and recorders cannot be pickled.

    @ivar replaceable: whether `set_global_recorder` may install another recorder in its place, for
        example because its exporter has stopped.
    """

    replaceable: bool = False

    def __init__(self) -> None:
        # The order of labels matters to the cache: the same labels in another order have a second
        # handle, of the same series.  lru_cache is thread-safe, and holds no lock while it calls
        # the function.
        self._handle = lru_cache(HANDLE_CACHE_SIZE)(self._make_handle)

    def __copy__(self: _R) -> _R:
        return self

    def __deepcopy__(self: _R, memo: object) -> _R:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"cannot pickle {short_repr(self)}: create a recorder in each process, or call"
            " txmetrics_tcp.current_recorder() there"
        )

    @abstractmethod
    def attach(self, key: Key) -> Series:
        """
        Find or create the series of a key.

        Calls with the same key return the same series while a reference to it exists.
        """

    @abstractmethod
    def describe(self, metadata: Metadata) -> None:
        """Store a description, which replaces an earlier one of the same kind and name."""

    def register_counter(self, key: Key) -> Counter:
        """
        Create a handle from a key, without the cache that `counter` uses.

        @raise ValueError: the key's kind is not `MetricKind.COUNTER`.
        """
        return self._register(Counter, MetricKind.COUNTER, key)

    def register_gauge(self, key: Key) -> Gauge:
        """
        Create a handle from a key, without the cache that `gauge` uses.

        @raise ValueError: the key's kind is not `MetricKind.GAUGE`.
        """
        return self._register(Gauge, MetricKind.GAUGE, key)

    def register_histogram(self, key: Key) -> Histogram:
        """
        Create a handle from a key, without the cache that `histogram` uses.

        @raise ValueError: the key's kind is not `MetricKind.HISTOGRAM`.
        """
        return self._register(Histogram, MetricKind.HISTOGRAM, key)

    def counter(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> Counter:
        """
        Return the counter with this name and these labels.

        Handles are cached: repeated calls with the same arguments are cheap.

        @param labels: labels as a mapping, for names that are not Python identifiers.
        @param more: labels as keyword arguments; they override the mapping.  See
            `txmetrics_tcp.counter` for their values, and for the errors.
        """
        return self._find(Counter, MetricKind.COUNTER, name, labels, more)

    def gauge(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> Gauge:
        """Return the gauge with this name and these labels.  See `counter`."""
        return self._find(Gauge, MetricKind.GAUGE, name, labels, more)

    def histogram(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> Histogram:
        """Return the histogram with this name and these labels.  See `counter`."""
        return self._find(Histogram, MetricKind.HISTOGRAM, name, labels, more)

    def describe_counter(
        self, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> None:
        """
        Describe all counters with this name, for viewers.

        @param unit: the unit of their values: a `Unit`, its string, or None.
        @param description: human-readable text, usually one sentence.
        @raise TypeError: name or description is not a `str`.
        @raise ValueError: the name is empty; the unit is not a `Unit`; or a string exceeds 64 KiB
            of UTF-8 or cannot be encoded as UTF-8.
        """
        self.describe(Metadata.of(MetricKind.COUNTER, name, unit, description))

    def describe_gauge(
        self, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> None:
        """Describe all gauges with this name.  See `describe_counter`."""
        self.describe(Metadata.of(MetricKind.GAUGE, name, unit, description))

    def describe_histogram(
        self, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> None:
        """Describe all histograms with this name.  See `describe_counter`."""
        self.describe(Metadata.of(MetricKind.HISTOGRAM, name, unit, description))

    def _register(self, handle: type[_H], kind: MetricKind, key: Key) -> _H:
        if key.kind is not kind:
            raise ValueError(
                f"{key.kind.value} {short_repr(key.name)}: cannot be registered as {kind.value}"
            )
        return self._new_handle(kind, key)  # type: ignore[return-value]

    def _find(
        self,
        handle: type[_H],
        kind: MetricKind,
        name: str,
        labels: Mapping[str, object] | None,
        more: Mapping[str, object],
    ) -> _H:
        if type(name) is not str:
            name = Key.of(kind, name).name
        if type(labels) is dict:
            more = {**labels, **more}
        elif labels is not None:
            more = merge_labels(labels, more, (kind, name))
        for value in more.values():
            if type(value) is not str:
                # The cache would confuse 1, 1.0 and True, which are equal but different labels.
                more = plain_labels(more, (kind, name))
                break
        return self._handle(kind, name, tuple(more.items()))  # type: ignore[return-value]

    def _make_handle(
        self, kind: MetricKind, name: str, labels: tuple[tuple[str, object], ...]
    ) -> Handle:
        return self._new_handle(kind, Key.of(kind, name, dict(labels)))

    def _reduce_handle(self, handle: Handle) -> tuple[Any, ...]:
        """Return the result of the handle's C{__reduce__}."""
        raise TypeError(
            f"cannot pickle {short_repr(handle)}: it belongs to {short_repr(self)}, which other"
            " processes do not have; handles from txmetrics_tcp.counter(), gauge() and histogram()"
            " can be pickled"
        )

    def _new_handle(self, kind: MetricKind, key: Key) -> Handle:
        return HANDLES[kind](key, self.attach(key), self)

    def _replaced(self) -> None:  # noqa: B027 - most recorders do nothing
        """
        Called once `set_global_recorder` has installed another recorder in place of this one, in
        the thread that called it.
        """


def checked_recorder(recorder: _R) -> _R:
    """
    Check an argument that is a recorder, and return it.

    @raise TypeError: the argument is not a `Recorder`.
    """
    if not isinstance(recorder, Recorder):
        raise TypeError(f"a recorder is required, not {short_repr(recorder)}")
    return recorder


class NoopRecorder(Recorder):
    """Discards everything.  Its handles validate values but record nothing."""

    def attach(self, key: Key) -> Series:
        return Series(key, NOWHERE)

    def describe(self, metadata: Metadata) -> None:
        pass
