"""
Streams the measurements of OpenTelemetry's instruments.

A provider of the OpenTelemetry API streams each measurement as it is made.  It needs no SDK, but
can pass everything on to one::

    from opentelemetry import metrics
    from txmetrics_tcp.bridges.opentelemetry import StreamingMeterProvider

    metrics.set_meter_provider(StreamingMeterProvider())

With C{OTEL_PYTHON_METER_PROVIDER=txmetrics} in the environment, the API makes the provider itself.

Views, aggregations and temporality of an SDK do not apply to the stream.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import operator
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextvars import Context as Variables
from functools import partial
from typing import Any, Generic, TypeVar, cast

from opentelemetry.context import Context
from opentelemetry.metrics import (
    CallbackOptions,
    CallbackT,
    Counter,
    Histogram,
    Meter,
    MeterProvider,
    NoOpMeter,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    Observation,
    UpDownCounter,
    _Gauge,
)
from opentelemetry.util.types import Attributes

from txmetrics_tcp._checks import at_least, seconds_from, short_repr
from txmetrics_tcp._instruments import facade
from txmetrics_tcp._instruments.recorder import Handle, Recorder, checked_recorder
from txmetrics_tcp._model import U64_MAX, Key, Labels, Metadata, MetricKind, Unit, real_number
from txmetrics_tcp.bridges._counters import FractionalCounter, is_seconds

_log = logging.getLogger(__name__)

IGNORED = "txmetrics_opentelemetry_ignored_total"
"""The counter of ignored measurements."""

OVERFLOW = "otel.metric.overflow"
"""The label of the series that takes all attribute sets beyond the maximum; its value is true."""

_UNITS: dict[str, Unit] = {
    **{str(unit): unit for unit in Unit},
    "%": Unit.PERCENT,
    "s": Unit.SECONDS,
    "ms": Unit.MILLISECONDS,
    "us": Unit.MICROSECONDS,
    "ns": Unit.NANOSECONDS,
    "By": Unit.BYTES,
    "KiBy": Unit.KIBIBYTES,
    "MiBy": Unit.MEBIBYTES,
    "GiBy": Unit.GIBIBYTES,
    "TiBy": Unit.TEBIBYTES,
    "bit/s": Unit.BITS_PER_SECOND,
    "kbit/s": Unit.KILOBITS_PER_SECOND,
    "Mbit/s": Unit.MEGABITS_PER_SECOND,
    "Gbit/s": Unit.GIGABITS_PER_SECOND,
    "Tbit/s": Unit.TERABITS_PER_SECOND,
}

_PLAIN = frozenset({str, int, float, bool, type(None)})
"""The types of attribute values that are equal only if their text is, given the type."""

_INFINITY = math.inf

_S = TypeVar("_S")
_I = TypeVar("_I", bound="_Instrument[Any]")
_Number = int | float


class StreamingMeterProvider(MeterProvider):
    """
    Streams each measurement of its instruments, and passes it on to another provider.

    Counters stream as counters, with whole numbers: fractions are added up until they are one.  A
    counter of seconds (with the unit C{s}, or a name such as C{cpu_seconds_total}) streams as a
    gauge.  Up-down counters and gauges stream as gauges; histograms with every sample.  The
    callbacks of observable instruments are called every C{interval} seconds, on a daemon thread,
    also in the child after a fork.  A series that they stop reporting is released, as by
    `TcpRecorder.forget`; recorders without this method, such as layers, keep its last value.

    A metric has the lower-case name of its instrument.  If several meters have an instrument of the
    same name, series of all meters but the first have the labels C{otel.scope.name},
    C{otel.scope.version}, C{otel.scope.schema_url} and C{otel.scope.…} for each attribute of the
    meter.  Several instruments of one meter with the same name and kind share their series.

    Attributes become labels, and values that are not strings become JSON text, so C{1} and C{"1"}
    share a series.  Attribute sets of an instrument beyond the maximum share the series with the
    label C{otel.metric.overflow}.

    Measurements that the SDK ignores are ignored, as are those that cannot be streamed: negative
    ones of counters and histograms, NaN and infinities, and values that are no numbers.  The
    counter C{txmetrics_opentelemetry_ignored_total} counts them, and the log has the first one of
    each instrument.

    May be used from any thread.  Instruments raise only what the instruments of the inner provider
    raise.
    """

    def __init__(
        self,
        recorder: Recorder | None = None,
        inner: MeterProvider | None = None,
        *,
        interval: float = 1.0,
        max_attribute_sets: int = 2000,
    ) -> None:
        """
        @param recorder: takes the measurements.  By default, the global recorder, also if it is
            installed later.
        @param inner: a provider, such as one of the SDK, that gets every measurement, too.  It does
            not call the callbacks of observable instruments itself, unless the last call is more
            than C{interval} ago.
        @param interval: the time between two calls of callbacks, in seconds.
        @param max_attribute_sets: the maximum number of attribute sets of each instrument.
        @raise TypeError: an argument has the wrong type.
        @raise ValueError: the interval or the maximum is not positive.
        """
        if inner is not None and not isinstance(inner, MeterProvider):
            raise TypeError(f"a MeterProvider is required, not {short_repr(inner)}")
        seconds = seconds_from(0.001, "interval", interval)
        self._inner = inner
        self._shut_down = False
        self._bridge = _Bridge(recorder, at_least(1, "max_attribute_sets", max_attribute_sets))
        self._poller = _Poller(seconds)
        self._meters: dict[Labels, Meter] = {}

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Meter:
        """
        Return a meter.  Calls with equal arguments return the same meter.  After `shutdown`, it
        does nothing.
        """
        if self._shut_down:
            _log.warning("a shut-down StreamingMeterProvider makes only meters that do nothing")
            return NoOpMeter(name, version=version, schema_url=schema_url)
        scope = _scope(name, version, schema_url, attributes)
        with self._bridge.lock:
            meter = self._meters.get(scope)
            if meter is None:
                inner = None
                if self._inner is not None:
                    more: Any = () if attributes is None else (attributes,)
                    inner = self._inner.get_meter(name, version, schema_url, *more)
                meter = _Meter(self._bridge, self._poller, inner, scope, name, version, schema_url)
                self._meters[scope] = meter
            return meter

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """
        Call the callbacks of observable instruments now, and flush the inner provider.

        @param timeout_millis: the maximum time, in milliseconds, as far as the callbacks and the
            inner provider observe it.
        @return: whether all of it was done in time.
        """
        deadline = time.monotonic() + timeout_millis / 1e3
        done = self._poller.poll(timeout_millis)
        flush = getattr(self._inner, "force_flush", None)
        if flush is None:
            return done
        remaining = max(0.0, deadline - time.monotonic()) * 1e3
        return flush(timeout_millis=remaining) is not False and done

    def shutdown(self, timeout_millis: float = 30_000, **more: Any) -> None:
        """
        Call the callbacks of observable instruments for the last time, and shut the inner provider
        down.  Counters, gauges and histograms still stream what they measure; the exporter is the
        recorder's.

        @param timeout_millis: see `force_flush`.
        @param more: further arguments for the inner provider.
        """
        if self._shut_down:
            _log.warning("StreamingMeterProvider.shutdown() was called more than once")
            return
        self._shut_down = True
        deadline = time.monotonic() + timeout_millis / 1e3
        self._poller.stop(timeout_millis)
        shutdown = getattr(self._inner, "shutdown", None)
        if shutdown is not None:
            remaining = max(0.0, deadline - time.monotonic()) * 1e3
            shutdown(timeout_millis=remaining, **more)


def _scope(name: object, version: object, schema_url: object, attributes: Attributes) -> Labels:
    """Return the labels that identify a meter."""
    known = {"name": name, "version": version, "schema_url": schema_url}
    try:
        scope = {**_labels(attributes or {}), **{one: _words(known[one]) for one in known}}
    except Exception as error:
        _log.warning("attributes of the meter %s: %s", short_repr(name), short_repr(error))
        scope = {one: _words(known[one]) for one in known}
    return tuple(sorted((f"otel.scope.{label}", text) for label, text in scope.items() if text))


class _Bridge:
    """
    What all instruments of a provider share.

    @ivar lock: held while meters and instruments are made.
    @ivar gauge_lock: held while a gauge is set here and in the inner provider, so that both end
        with the same value.
    """

    def __init__(self, recorder: Recorder | None, limit: int) -> None:
        self._recorder = None if recorder is None else checked_recorder(recorder)
        self.limit: int = limit
        self._claims: dict[tuple[MetricKind, str], Labels] = {}
        self.renew()
        # In the program's recorder, the first handle starts an exporter that the environment names.
        self._ignored: Any = self.handle(MetricKind.COUNTER, IGNORED, {})
        self.describe(MetricKind.COUNTER, IGNORED, "count", "Measurements that were ignored.")
        _forking.add(self)

    def renew(self) -> None:
        # The thread that holds a lock may not exist in the child.
        self.lock = threading.RLock()
        self.gauge_lock = threading.RLock()

    def handle(self, kind: MetricKind, name: str, labels: dict[str, str]) -> Handle:
        """Make a handle."""
        if self._recorder is None:
            # In an empty context, where no local recorder is set: an instrument belongs to the
            # whole program.
            return Variables().run(_FIND[kind], name, labels)
        return _REGISTER[kind](self._recorder, Key.of(kind, name, labels))

    def forget(self, key: Key) -> None:
        """Release the series of a key, if the recorder can."""
        recorder = facade.program_recorder() if self._recorder is None else self._recorder
        forget = getattr(recorder, "forget", None)
        if forget is not None:
            try:
                forget(key)
            except Exception as error:
                _log.warning("%s is not released: %s", key, short_repr(error))

    def describe(self, kind: MetricKind, name: str, unit: str, description: str) -> None:
        """Describe a metric.  A unit that `Unit` does not have is added to the description."""
        known = _UNITS.get(unit)
        if known is None and unit.startswith("{") and unit.endswith(("}", "}/s")):
            known = Unit.COUNT if unit.endswith("}") else Unit.COUNT_PER_SECOND
        if known is None and unit not in ("", "1"):
            description = f"{description} [{unit}]".strip()
        if known is None and not description:
            return
        try:
            metadata = Metadata.of(kind, name, known, _encodable(description))
            if self._recorder is None:
                Variables().run(_describe, metadata)
            else:
                self._recorder.describe(metadata)
        except Exception as error:
            _log.warning("no description of %s: %s", short_repr(name), short_repr(error))

    def claim(self, kind: MetricKind, name: str, scope: Labels) -> Labels:
        """
        Return the labels that tell the series of a meter from those of others: none for the first
        meter that has an instrument with this name.
        """
        return () if self._claims.setdefault((kind, name), scope) == scope else scope

    def ignore(self) -> None:
        """Count an ignored measurement."""
        self._ignored.increment()


_FIND: dict[MetricKind, Callable[..., Handle]] = {
    MetricKind.COUNTER: facade.counter,
    MetricKind.GAUGE: facade.gauge,
    MetricKind.HISTOGRAM: facade.histogram,
}
_REGISTER: dict[MetricKind, Callable[[Recorder, Key], Handle]] = {
    MetricKind.COUNTER: Recorder.register_counter,
    MetricKind.GAUGE: Recorder.register_gauge,
    MetricKind.HISTOGRAM: Recorder.register_histogram,
}
_DESCRIBE = {
    MetricKind.COUNTER: facade.describe_counter,
    MetricKind.GAUGE: facade.describe_gauge,
    MetricKind.HISTOGRAM: facade.describe_histogram,
}


def _describe(metadata: Metadata) -> None:
    unit = None if metadata.unit is None else Unit(metadata.unit)
    _DESCRIBE[metadata.kind](metadata.name, unit, metadata.description)


class _Stream(Generic[_S]):
    """
    Finds what records to the series of one instrument with given attributes.

    Takes no lock: a finalizer may record at any point.  Threads that find the same new series at
    the same time get the same one.
    """

    def __init__(
        self,
        bridge: _Bridge,
        kind: MetricKind,
        recording: Callable[[Any], _S],
        name: str,
        scope: Labels,
    ) -> None:
        """
        @param recording: returns what records to the series of a handle.
        """
        self._bridge = bridge
        self._kind = kind
        self._recording = recording
        self._name = name
        self._scope = dict(bridge.claim(kind, name, scope))
        self._series: dict[Labels, _S] = {}
        self._overflow: dict[Labels, _S] = {}
        self._overflow_labels: Labels = tuple(sorted({**self._scope, OVERFLOW: "true"}.items()))
        # By names, values and their types, since 1, 1.0 and True are equal.  The same attributes in
        # another order have another entry.
        self._cache: dict[Any, _S] = {}

    def find(self, attributes: Attributes) -> _S:
        """Return what records to the series with these attributes."""
        try:
            # A tuple of pairs would take 200 ns more for three attributes.
            values = attributes.values()  # type: ignore[union-attr]
            key = (*attributes, *values, *map(type, values))  # type: ignore[misc]
            found = self._cache.get(key)
        except Exception:
            # A list cannot be hashed, for example.
            return self.look_up(attributes)
        if found is None:
            found = self.look_up(attributes)
            overflows = found is self._overflow.get(self._overflow_labels)
            if not overflows and _PLAIN.issuperset(map(type, values)):
                if len(self._cache) >= 4 * self._bridge.limit:
                    self._cache.clear()
                self._cache[key] = found
        return found

    def look_up(self, attributes: Attributes) -> _S:
        """Return what `find` does, without its cache."""
        labels = _labels(attributes) if attributes else {}
        labels.update(self._scope)
        key = tuple(sorted(labels.items()))
        found = self._series.get(key)
        if found is None and len(self._series) < self._bridge.limit:
            found = self._series.setdefault(key, self._make(key))
        if found is None:
            key = self._overflow_labels
            found = self._overflow.get(key) or self._overflow.setdefault(key, self._make(key))
        return found

    def forget_others(self, used: Sequence[_S]) -> None:
        """Release all series but some.  No other thread may look for series meanwhile."""
        kept = set(map(id, used))
        for known in (self._series, self._overflow):
            for labels in [labels for labels, found in known.items() if id(found) not in kept]:
                del known[labels]
                self._cache.clear()
                self._bridge.forget(Key(self._kind, self._name, labels))

    def _make(self, labels: Labels) -> _S:
        return self._recording(self._bridge.handle(self._kind, self._name, dict(labels)))


def _labels(attributes: Mapping[str, object]) -> dict[str, str]:
    """Return attributes as labels.  Those without a name are left out."""
    labels = {_text(name): _text(value) for name, value in attributes.items()}
    labels.pop("", None)
    return labels


def _text(value: object) -> str:
    """Return the text of an attribute's value, as OpenTelemetry defines it outside OTLP."""
    if isinstance(value, str):
        # The characters of a plain string or of a member of an Enum.
        return _encodable(str.__str__(value))
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _base64(value)
    return _encodable(json.dumps(value, ensure_ascii=False, default=_jsonable))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _jsonable(value: object) -> object:
    if isinstance(value, bytes):
        return _base64(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | set | frozenset):
        return list(value)
    return str(value)


def _encodable(text: str) -> str:
    """Replace surrogates, which UTF-8 does not have."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _number(amount: Any) -> _Number:
    """
    Convert a measurement.

    @raise ValueError: it is NaN or infinite.
    @raise TypeError: it is not a number.
    """
    if type(amount) is not int and type(amount) is not float:
        if hasattr(type(amount), "__index__"):
            # Also a bool, and integers of numpy.
            amount = int.__index__(operator.index(amount))
        else:
            amount = real_number(_MEASUREMENT, "record", amount)
    if not -_INFINITY < amount < _INFINITY:
        raise ValueError(f"{amount} is not finite")
    return amount  # type: ignore[no-any-return]


_MEASUREMENT = Key(MetricKind.GAUGE, "measurement")


def _positive(amount: Any) -> _Number:
    """
    Convert a measurement that must not be negative.

    @raise ValueError: it is NaN, infinite or negative.
    @raise TypeError: it is not a number.
    """
    number = _number(amount)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


class _Instrument(Generic[_S]):
    """
    What all instruments have.

    @ivar name: the name of the metric.
    @ivar inner: the instrument of the inner provider, or None.
    """

    def __init__(
        self, bridge: _Bridge, stream: _Stream[_S], name: str, unit: str, description: str
    ) -> None:
        self._bridge = bridge
        self._stream = stream
        self.inner: Any = None
        self._find = stream.find
        self._bare: _S | None = None
        self._logged = False
        self.name: str = name
        self.unit: str = unit
        self.description: str = description

    def _begin(self) -> _S:
        """Return the series without attributes."""
        self._bare = found = self._stream.look_up(None)
        return found

    def _ignore(self, error: Exception) -> None:
        """Count a measurement that cannot be streamed, and log the first one."""
        self._bridge.ignore()
        if not self._logged:
            self._logged = True
            _log.warning("%s: ignored a measurement: %s", short_repr(self.name), short_repr(error))


# The recording methods repeat some lines, because a call of a function would add a fifth to their
# cost.


class _Counter(_Instrument[FractionalCounter], Counter):
    def add(
        self, amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        try:
            if type(amount) is float and 0.0 <= amount < _INFINITY:
                series = self._find(attributes) if attributes else self._bare or self._begin()
                series.increment(amount)
            else:
                number = amount if type(amount) is int and amount >= 0 else _positive(amount)
                series = self._find(attributes) if attributes else self._bare or self._begin()
                if type(number) is int:
                    series.counter.increment(number & U64_MAX)
                else:
                    series.increment(number)
        except Exception as error:
            self._ignore(error)
        if self.inner is not None:
            if context is None:
                self.inner.add(amount, attributes)
            else:
                self.inner.add(amount, attributes, context)


class _FloatCounter(_Instrument[Callable[[float], None]], Counter):
    """A counter of seconds."""

    def add(
        self, amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        try:
            if type(amount) is not float or not 0.0 <= amount < _INFINITY:
                number = _positive(amount)
            else:
                number = amount
            (self._find(attributes) if attributes else self._bare or self._begin())(number)
        except Exception as error:
            self._ignore(error)
        if self.inner is not None:
            if context is None:
                self.inner.add(amount, attributes)
            else:
                self.inner.add(amount, attributes, context)


class _UpDownCounter(_Instrument[Callable[[float], None]], UpDownCounter):
    def add(
        self, amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        try:
            number = amount if type(amount) is int else _number(amount)
            (self._find(attributes) if attributes else self._bare or self._begin())(number)
        except Exception as error:
            self._ignore(error)
        if self.inner is not None:
            if context is None:
                self.inner.add(amount, attributes)
            else:
                self.inner.add(amount, attributes, context)


class _StreamedHistogram(_Instrument[Callable[[float], None]], Histogram):
    def record(
        self, amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        try:
            if type(amount) is not float or not 0.0 <= amount < _INFINITY:
                number = _positive(amount)
            else:
                number = amount
            (self._find(attributes) if attributes else self._bare or self._begin())(number)
        except Exception as error:
            self._ignore(error)
        if self.inner is not None:
            if context is None:
                self.inner.record(amount, attributes)
            else:
                self.inner.record(amount, attributes, context)


class _StreamedGauge(_Instrument[Callable[[float], None]], _Gauge):
    def set(
        self, amount: float, attributes: Attributes = None, context: Context | None = None
    ) -> None:
        if self.inner is None:
            self._set(amount, attributes)
            return
        with self._bridge.gauge_lock:
            self._set(amount, attributes)
            if context is None:
                self.inner.set(amount, attributes)
            else:
                self.inner.set(amount, attributes, context)

    def _set(self, amount: float, attributes: Attributes) -> None:
        try:
            if type(amount) is not float or not -_INFINITY < amount < _INFINITY:
                number = _number(amount)
            else:
                number = amount
            (self._find(attributes) if attributes else self._bare or self._begin())(number)
        except Exception as error:
            self._ignore(error)


class _Observable(_Instrument[Callable[[float], None]]):
    """
    An instrument with callbacks.

    @ivar observed: what the callbacks returned when they were last called.
    @ivar observed_at: when that was, on the monotonic clock.
    """

    _check: Callable[[Any], _Number] = staticmethod(_number)

    def set_callbacks(self, callbacks: Sequence[CallbackT] | None) -> None:
        self._callbacks: list[Callable[[CallbackOptions], Iterable[Observation]]] = []
        self.observed: list[Observation] = []
        self.observed_at: float = -_INFINITY
        try:
            for callback in callbacks or ():
                if isinstance(callback, Generator):
                    # Runs to its first yield, which returns the options.
                    next(callback)
                    self._callbacks.append(_Sender(callback))
                else:
                    self._callbacks.append(callback)
        except Exception as error:
            self._failed(error)

    def observe(self, options: CallbackOptions) -> None:
        """
        Call the callbacks, and stream what they return.  Series of attribute sets that they do not
        return are released, as the SDK drops them.
        """
        observed: list[Observation] = []
        used: list[Callable[[float], None]] = []
        for callback in self._callbacks:
            try:
                for observation in callback(options):
                    observed.append(observation)
                    self._record(observation, used)
            except Exception as error:
                self._failed(error)
        self._stream.forget_others(used)
        self.observed = observed
        self.observed_at = time.monotonic()

    def _record(self, observation: Observation, used: list[Callable[[float], None]]) -> None:
        try:
            number = self._check(observation.value)
            attributes = observation.attributes
            series = self._find(attributes) if attributes else self._stream.look_up(None)
            series(number)
            used.append(series)
        except Exception as error:
            self._ignore(error)

    def _failed(self, error: Exception) -> None:
        if not self._logged:
            self._logged = True
            _log.warning("%s: a callback failed", short_repr(self.name), exc_info=error)


class _Sender:
    """A generator as a callback.  After its end, it returns nothing."""

    def __init__(self, generator: Generator[Iterable[Observation], CallbackOptions, None]) -> None:
        self._generator = generator

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        try:
            return self._generator.send(options)
        except StopIteration:
            return ()


class _ObservableCounter(_Observable, ObservableCounter):
    _check = staticmethod(_positive)


class _ObservableUpDownCounter(_Observable, ObservableUpDownCounter):
    pass


class _ObservableGauge(_Observable, ObservableGauge):
    pass


def _absolute(counter: Any) -> Callable[[float], None]:
    """Return what sets the total of a counter, rounded down."""
    return lambda number: counter.absolute(int(number) & U64_MAX)


_increment: Callable[[Any], Callable[[float], None]] = operator.attrgetter("increment")
_set: Callable[[Any], Callable[[float], None]] = operator.attrgetter("set")
_record: Callable[[Any], Callable[[float], None]] = operator.attrgetter("record")


class _Meter(Meter):
    """Makes instruments.  As in the SDK, equal arguments return the same instrument."""

    def __init__(
        self,
        bridge: _Bridge,
        poller: _Poller,
        inner: Meter | None,
        scope: Labels,
        name: str,
        version: str | None,
        schema_url: str | None,
    ) -> None:
        super().__init__(name, version=version, schema_url=schema_url)
        self._bridge = bridge
        self._poller = poller
        self._inner = inner
        self._scope = scope
        self._made: dict[tuple[object, ...], Any] = {}

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        """Create a counter."""
        if is_seconds(_name(name), unit):
            gauge = MetricKind.GAUGE
            return self._make(_FloatCounter, gauge, _increment, name, unit, description)
        kind = MetricKind.COUNTER
        return self._make(_Counter, kind, FractionalCounter, name, unit, description)

    def create_up_down_counter(
        self, name: str, unit: str = "", description: str = ""
    ) -> UpDownCounter:
        """Create an up-down counter."""
        kind = MetricKind.GAUGE
        return self._make(_UpDownCounter, kind, _increment, name, unit, description)

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", **more: Any
    ) -> Histogram:
        """
        Create a histogram.

        @param more: C{explicit_bucket_boundaries_advisory}, for the inner provider, and what later
            versions of the API add.
        """
        kind = MetricKind.HISTOGRAM
        return self._make(_StreamedHistogram, kind, _record, name, unit, description, more)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> _Gauge:
        """Create a gauge."""
        kind = MetricKind.GAUGE
        return self._make(_StreamedGauge, kind, _set, name, unit, description)

    def create_observable_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> ObservableCounter:
        """Create a counter whose callbacks return the total."""
        more = {"callbacks": callbacks}
        if is_seconds(_name(name), unit):
            gauge = MetricKind.GAUGE
            return self._make(_ObservableCounter, gauge, _set, name, unit, description, more)
        kind = MetricKind.COUNTER
        return self._make(_ObservableCounter, kind, _absolute, name, unit, description, more)

    def create_observable_up_down_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> ObservableUpDownCounter:
        """Create an up-down counter whose callbacks return the total."""
        kind, more = MetricKind.GAUGE, {"callbacks": callbacks}
        return self._make(_ObservableUpDownCounter, kind, _set, name, unit, description, more)

    def create_observable_gauge(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> ObservableGauge:
        """Create a gauge whose callbacks return the value."""
        kind, more = MetricKind.GAUGE, {"callbacks": callbacks}
        return self._make(_ObservableGauge, kind, _set, name, unit, description, more)

    def _make(
        self,
        cls: type[_I],
        kind: MetricKind,
        recording: Callable[[Any], Any],
        name: str,
        unit: str,
        description: str,
        more: dict[str, Any] | None = None,
    ) -> _I:
        metric, unit_text, text = _name(name), _words(unit), _words(description)
        identity = cls, metric, unit_text, text
        with self._bridge.lock:
            if identity in self._made:
                return cast(_I, self._made[identity])
            stream = _Stream(self._bridge, kind, recording, metric, self._scope)
            instrument = cls(self._bridge, stream, metric, unit_text, text)
            more = more or {}
            if isinstance(instrument, _Observable):
                instrument.set_callbacks(more["callbacks"])
                more = {"callbacks": [partial(self._poller.observed, instrument)]}
            if self._inner is not None:
                create = getattr(self._inner, _CREATE[cls])
                instrument.inner = create(name, unit=unit, description=description, **more)
            if isinstance(instrument, _Observable):
                self._poller.add(instrument)
            self._made[identity] = instrument
        if metric:
            self._bridge.describe(kind, metric, unit_text, text)
        return instrument


_CREATE: dict[type[Any], str] = {
    _Counter: "create_counter",
    _FloatCounter: "create_counter",
    _UpDownCounter: "create_up_down_counter",
    _StreamedHistogram: "create_histogram",
    _StreamedGauge: "create_gauge",
    _ObservableCounter: "create_observable_counter",
    _ObservableUpDownCounter: "create_observable_up_down_counter",
    _ObservableGauge: "create_observable_gauge",
}


def _name(name: object) -> str:
    """Return the name of an instrument's metric.  Names of instruments ignore the case."""
    return _text(name).lower() if isinstance(name, str) else ""


def _words(text: object) -> str:
    return _text(text) if isinstance(text, str) else ""


class _Poller:
    """
    Calls the callbacks of observable instruments, on a thread of its own.

    The thread begins with the first instrument, and waits before the first call, so that the
    program can finish its preparations.  It ends with the poller.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._observables: list[_Observable] = []
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._renew_locks()
        _forking.add(self)

    def _renew_locks(self) -> None:
        self._lock = threading.RLock()
        self._polling = False
        self._stop = threading.Event()

    def renew(self) -> None:
        """Begin again in a forked process."""
        self._renew_locks()
        if self._thread is not None:
            self._start()

    def add(self, observable: _Observable) -> None:
        """Add an instrument."""
        self._observables.append(observable)
        if self._thread is None and not self._stopped:
            self._start()

    def _start(self) -> None:
        arguments = weakref.ref(self), self._stop, self._interval
        self._thread = threading.Thread(
            target=_poll_regularly, args=arguments, name="txmetrics opentelemetry", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            _log.warning("observable instruments are not polled: %s", error)

    def poll(self, timeout_millis: float = 10_000) -> bool:
        """
        Call all callbacks.

        @param timeout_millis: the maximum time to wait for another thread that does so.
        @return: whether they were called.
        """
        return self._call(list(self._observables), timeout_millis, fresh=0.0)

    def observed(self, one: _Observable, options: CallbackOptions) -> list[Observation]:
        """Return what an instrument has observed, for the inner provider."""
        self._call([one], options.timeout_millis, self._interval)
        return one.observed

    def stop(self, timeout_millis: float) -> None:
        """Call all callbacks for the last time, and end the thread."""
        self.poll(timeout_millis)
        self._stopped = True
        self._stop.set()
        self._thread = None

    def _call(self, some: list[_Observable], timeout_millis: float, fresh: float) -> bool:
        # Within limits of the platform.
        if not self._lock.acquire(timeout=min(max(timeout_millis / 1e3, 0.0), 1e6)):
            return False
        try:
            if self._polling:
                # A callback causes this call.
                return False
            self._polling = True
            try:
                options = CallbackOptions(timeout_millis=timeout_millis)
                for one in some:
                    if not time.monotonic() - one.observed_at < fresh:
                        one.observe(options)
            finally:
                self._polling = False
        finally:
            self._lock.release()
        return True


def _poll_regularly(
    reference: weakref.ref[_Poller], stop: threading.Event, interval: float
) -> None:
    while not stop.wait(interval):
        poller = reference()
        if poller is None:
            return
        poller.poll()
        del poller


_forking: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for one in list(_forking):
        one.renew()


os.register_at_fork(after_in_child=_after_fork_in_child)
