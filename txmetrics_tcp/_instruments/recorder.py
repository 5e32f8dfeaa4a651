"""
The recorder interface, and the handles that a program records with.
"""

from __future__ import annotations

import datetime
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import SupportsFloat, SupportsIndex, TypeVar

from txmetrics_tcp._instruments.measures import ExceptionCount, InProgress, Timer
from txmetrics_tcp._instruments.sink import NOWHERE, RECORD_MANY, Series
from txmetrics_tcp._model import (
    U64_MAX,
    Key,
    Metadata,
    MetricKind,
    Operation,
    Unit,
    real_number,
    whole_number,
)

HANDLE_CACHE_SIZE = 4096
"""How many handles a recorder keeps, so that asking for one again costs little."""

_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_SET_COUNTER = Operation.SET_COUNTER
_INCREMENT_GAUGE = Operation.INCREMENT_GAUGE
_DECREMENT_GAUGE = Operation.DECREMENT_GAUGE
_SET_GAUGE = Operation.SET_GAUGE
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM
_ONE = 1


_H = TypeVar("_H", bound="Handle")


class Handle:
    """
    What a program records one series with: a `Counter`, a `Gauge` or a `Histogram`.

    Handles come from a recorder, or from `txmetrics_tcp.counter` and its like.  They may be
    kept for ever, shared between threads, and used from signal handlers and finalizers:
    recording never blocks on the reactor or on I/O, and raises for bad values only.

    @ivar key: the series that was asked for.
    """

    __slots__ = ("__weakref__", "_recorder", "_series", "key")

    def __init__(self, key: Key, series: Series, recorder: Recorder | None = None) -> None:
        self.key = key
        self._series = series
        self._recorder = recorder

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def labels(self: _H, labels: Mapping[str, object] | None = None, /, **more: object) -> _H:
        """
        The series that has these labels, too::

            requests = counter("requests_total", service="api")
            requests.labels(route="/").increment()

        It belongs to the same recorder as this one, and is found again as fast as by its name;
        where every nanosecond counts, keep what this returns.

        @param labels: the labels as a mapping, for names that are no Python identifiers.
        @param more: labels as keywords; they win over those of the mapping, and both over the
            labels that are there.
        @raise TypeError: the name of a label is not text.
        @raise ValueError: a name is empty, a text cannot be encoded as UTF-8, or all are too
            long together.
        """
        if self._recorder is None:
            raise ValueError(f"{self!r} was made without a recorder, which would know the others")
        refined = {**dict(self.key.labels), **(labels or {}), **more}
        return self._recorder._find(type(self), self.key.kind, self.key.name, None, refined)

    def _attach(self, series: Series) -> None:
        # One assignment: another thread may be recording, and must find the old or the new.
        self._series = series


class Counter(Handle):
    """A total that only grows: requests served, bytes read.  From 0 to 2**64-1, then from 0."""

    __slots__ = ()

    def increment(self, n: SupportsIndex = 1) -> None:
        """
        Add to the total.

        @param n: a whole number from 0 to 2**64-1; anything that `operator.index` takes, but
            no bool.
        @raise TypeError: C{n} is not a whole number.
        @raise ValueError: C{n} is out of range.
        """
        # That it is 1 is seen at a glance: CPython has one object for it (and no other is it).
        if n is not _ONE and (type(n) is not int or not 0 <= n <= U64_MAX):
            n = whole_number(self.key, "increment by", n)
        # These five lines stand in each method of each handle, because a shared function
        # would cost a quarter of the time that they take.
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
        Count the exceptions that leave a block or a function, as context manager or decorator::

            @errors.count_exceptions(OSError)
            def read(): ...

        The exceptions go on.  Functions may be plain ones, coroutine functions, and such as
        return Deferreds, whose failures are counted when they come.  One object may be used by
        any number of threads and tasks at a time.

        @param exception: which ones; by default those that are errors, and not
            `KeyboardInterrupt`, `SystemExit` or `asyncio.CancelledError`.
        """
        return ExceptionCount(self, exception)

    def absolute(self, n: SupportsIndex) -> None:
        """
        Set the total, where it is kept elsewhere (by the operating system, say).

        Parameters and errors are those of `increment`.
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
    """A value that goes up and down: connections open, degrees, bytes in use."""

    __slots__ = ()

    def increment(self, value: SupportsFloat | datetime.timedelta = 1.0) -> None:
        """
        Add to the value.

        @param value: anything that `float` takes but text, NaN and infinities too; a timedelta
            counts in seconds.
        @raise TypeError: C{value} is not a number.
        @raise ValueError: C{value} is an integer too large for a float.
        """
        if type(value) is not float:
            value = real_number(self.key, "increment by", value)
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _INCREMENT_GAUGE, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def decrement(self, value: SupportsFloat | datetime.timedelta = 1.0) -> None:
        """
        Subtract from the value.  Parameters and errors are those of `increment`.
        """
        if type(value) is not float:
            value = real_number(self.key, "decrement by", value)
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _DECREMENT_GAUGE, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def track_inprogress(self) -> InProgress:
        """
        Count how many times a block or a function is under way, as context manager or
        decorator::

            @requests_in_progress.track_inprogress()
            async def handle(request): ...

        The gauge goes up at the beginning, and down at the end, whatever the end is.  Functions
        may be plain ones, coroutine functions, and such as return Deferreds: those are under way
        until the Deferred fires.  One object may be used by any number of threads and tasks at a
        time.
        """
        return InProgress(self)

    def set(self, value: SupportsFloat | datetime.timedelta) -> None:
        """
        Set the value.  Parameters and errors are those of `increment`.
        """
        if type(value) is not float:
            value = real_number(self.key, "set to", value)
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _SET_GAUGE, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()


class Histogram(Handle):
    """Samples whose distribution matters: durations, sizes."""

    __slots__ = ()

    def record(self, value: SupportsFloat | datetime.timedelta) -> None:
        """
        Record one sample.

        @param value: anything that `float` takes but text, NaN and infinities too; a timedelta
            counts in seconds.
        @raise TypeError: C{value} is not a number.
        @raise ValueError: C{value} is an integer too large for a float.
        """
        if type(value) is not float:
            value = real_number(self.key, "record", value)
        series = self._series
        sink = series.sink
        if sink.open:
            log = sink.log
            log.append((series, _RECORD_HISTOGRAM, value, sink.clock() if sink.stamped else 0))
            if len(log) > sink.wake_threshold:
                sink.notify()

    def time(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        """
        Record how long a block or a function takes, in seconds, as context manager or decorator::

            with latency.time():
                ...

            @latency.time()
            async def handle(request): ...

        What ends in an exception is recorded, too.  Functions may be plain ones, coroutine
        functions, and such as return Deferreds: those take until the Deferred fires.  One
        object may be used by any number of threads and tasks at a time, and nested.

        @param clock: seconds that never go back; a test may pass that of a
            `twisted.internet.task.Clock`.
        """
        return Timer(self, clock)

    def record_many(self, value: SupportsFloat | datetime.timedelta, n: SupportsIndex) -> None:
        """
        Record the same sample several times.

        It is streamed as so many events, but recording them costs no more than one.  Beyond the
        first 100 samples of each call, 50,000 are streamed until the exporter has caught up with
        all that is recorded; the rest is dropped and counted, as in C{stats().dropped}.

        @param value: as for `record`.
        @param n: how often; a whole number from 0 to 2**64-1.
        @raise TypeError: C{value} is not a number, or C{n} is not a whole number.
        @raise ValueError: one of them is out of range.
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
    What metrics are recorded to.

    To write one, provide `attach` and `describe`; all else follows from them.  Every method may
    be called from any thread.
    """

    def __init__(self) -> None:
        # The cache is keyed by what the caller wrote; two orders of the same labels are two
        # entries with handles of the same series.  lru_cache is safe between threads, and
        # holds no lock while it makes a handle.
        self._handle = lru_cache(HANDLE_CACHE_SIZE)(self._make_handle)

    @abstractmethod
    def attach(self, key: Key) -> Series:
        """
        Find or make the series of a key.  The same key gives the same series for as long as
        anybody has it.
        """

    @abstractmethod
    def describe(self, metadata: Metadata) -> None:
        """Take a description; a later one of the same kind and name replaces it."""

    def register_counter(self, key: Key) -> Counter:
        """Make a handle for a key whose kind is counter."""
        return self._register(Counter, MetricKind.COUNTER, key)

    def register_gauge(self, key: Key) -> Gauge:
        """Make a handle for a key whose kind is gauge."""
        return self._register(Gauge, MetricKind.GAUGE, key)

    def register_histogram(self, key: Key) -> Histogram:
        """Make a handle for a key whose kind is histogram."""
        return self._register(Histogram, MetricKind.HISTOGRAM, key)

    def counter(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> Counter:
        """
        The counter of that name and labels.

        @param labels: the labels as a mapping, for names that are no Python identifiers.
        @param more: labels as keywords; they win over those of the mapping.  Values that are
            not text are converted by `str`.
        @raise TypeError: a name is not text.
        @raise ValueError: a name is empty, a text cannot be encoded as UTF-8, or all are too
            long together.
        """
        return self._find(Counter, MetricKind.COUNTER, name, labels, more)

    def gauge(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> Gauge:
        """The gauge of that name and labels.  Parameters and errors are those of `counter`."""
        return self._find(Gauge, MetricKind.GAUGE, name, labels, more)

    def histogram(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> Histogram:
        """The histogram of that name and labels.  Parameters and errors are those of `counter`."""
        return self._find(Histogram, MetricKind.HISTOGRAM, name, labels, more)

    def describe_counter(
        self, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> None:
        """
        Say what the counters of that name count.

        @param unit: one of `Unit`, or its string.
        @param description: for people; one sentence, as a rule.
        @raise TypeError: name or description is not text.
        @raise ValueError: the name is empty, the unit is unknown, or a text is too long or
            cannot be encoded as UTF-8.
        """
        self.describe(Metadata.of(MetricKind.COUNTER, name, unit, description))

    def describe_gauge(
        self, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> None:
        """Say what the gauges of that name show.  See `describe_counter`."""
        self.describe(Metadata.of(MetricKind.GAUGE, name, unit, description))

    def describe_histogram(
        self, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> None:
        """Say what the histograms of that name measure.  See `describe_counter`."""
        self.describe(Metadata.of(MetricKind.HISTOGRAM, name, unit, description))

    def _register(self, handle: type[_H], kind: MetricKind, key: Key) -> _H:
        if key.kind is not kind:
            raise ValueError(f"{key.kind.value} {key.name!r}: cannot be registered as {kind.value}")
        return self._new_handle(kind, key)  # type: ignore[return-value]

    def _find(
        self,
        handle: type[_H],
        kind: MetricKind,
        name: str,
        labels: Mapping[str, object] | None,
        more: dict[str, object],
    ) -> _H:
        if type(name) is not str:
            name = Key.of(kind, name).name
        if labels:
            more = {**labels, **more}
        for value in more.values():
            if type(value) is not str:
                # Text only in the cache: 1, 1.0 and True are one key there, but three labels.
                more = {label: str(value) for label, value in more.items()}
                break
        return self._handle(kind, name, tuple(more.items()))  # type: ignore[return-value]

    def _make_handle(
        self, kind: MetricKind, name: str, labels: tuple[tuple[str, object], ...]
    ) -> Handle:
        return self._new_handle(kind, Key.of(kind, name, dict(labels)))

    def _new_handle(self, kind: MetricKind, key: Key) -> Handle:
        return HANDLES[kind](key, self.attach(key), self)


class NoopRecorder(Recorder):
    """The recorder that does nothing: values are checked, and forgotten."""

    def attach(self, key: Key) -> Series:
        return Series(key, NOWHERE)

    def describe(self, metadata: Metadata) -> None:
        pass
