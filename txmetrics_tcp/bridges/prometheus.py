"""
Streams what a program measures with prometheus_client::

    from txmetrics_tcp.bridges.prometheus import stream

    stream()

Needs the extra C{prometheus}.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

try:
    from prometheus_client import (
        GC_COLLECTOR,
        PLATFORM_COLLECTOR,
        PROCESS_COLLECTOR,
        REGISTRY,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        Summary,
    )
    from prometheus_client.metrics import MetricWrapperBase
    from prometheus_client.multiprocess import MultiProcessCollector
except ImportError as _error:
    raise ImportError(
        f"{_error}: txmetrics_tcp.bridges.prometheus needs prometheus_client 0.20 or later:"
        " pip install 'txmetrics-tcp[prometheus]'"
    ) from _error

from txmetrics_tcp._checks import flag, seconds_from, short_repr
from txmetrics_tcp._collectors.process import METADATA
from txmetrics_tcp._instruments import facade
from txmetrics_tcp._instruments.recorder import Handle, Recorder, checked_recorder
from txmetrics_tcp._model import MAX_TEXT, U64_MAX, Key, Metadata, MetricKind, Unit
from txmetrics_tcp.bridges import _prometheus_values as values
from txmetrics_tcp.bridges._counters import is_seconds
from txmetrics_tcp.bridges._prometheus_values import UnboundValue, Value

__all__ = ["DEFAULT_COLLECTORS", "PrometheusStats", "PrometheusStream", "stream"]

_log = logging.getLogger("txmetrics_tcp")

DEFAULT_COLLECTORS = (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR)
"""The collectors that prometheus_client adds to its default registry."""

_JOIN_TIMEOUT = 1.0
"""How long `PrometheusStream.stop` waits for a collector, in seconds."""

_ADOPTION_TIMEOUT = 1.0
"""How long the first event of a value waits until the value can be bound, in seconds."""

# Units are written out in Prometheus too, and are the last word of a metric's name.
_UNITS = {str(unit): unit for unit in Unit if unit is not Unit.COUNT}

_PROCESS_UNITS = {(one.kind, one.name): Unit(one.unit) for one in METADATA if one.unit}
"""The units of metrics that prometheus_client and `ProcessCollector` both have."""

# The attribute with the value that events change.
_VALUES = {Counter: "_value", Gauge: "_value", Histogram: "_sum", Summary: "_sum"}

_DISTRIBUTIONS = ("histogram", "summary")


@dataclass(frozen=True, slots=True)
class PrometheusStats:
    """
    What a `PrometheusStream` carries.

    @ivar streamed: the number of series that are streamed event by event.
    @ivar polled: the number of series that are polled.
    @ivar not_carried: how many events, or polled samples, could not be carried, by reason:
        C{range} (the total of a counter is negative, infinite, NaN or above 2**64-1), C{number} (a
        value is not a number), C{key} (name and labels are too long or cannot be encoded as UTF-8),
        C{help} (likewise a help text), C{busy} (the first event of a new series waited too long for
        the poller), C{collector} (a collector raised an exception), C{recorder}
        (the recorder raised one).
    """

    streamed: int
    polled: int
    not_carried: Mapping[str, int]


def stream(
    recorder: Recorder | None = None,
    registry: CollectorRegistry = REGISTRY,
    *,
    events: bool = True,
    poll: float = 1.0,
    buckets: bool = False,
    exclude: Iterable[object] = (),
) -> PrometheusStream:
    """
    Stream the metrics of a registry of prometheus_client, from now on::

        stream()

    May be called before or after metrics are made, from any thread, and before an exporter is
    installed.  Each C{inc}, C{dec}, C{set} and C{observe} is streamed as it happens.  What the
    library does not call a method for is polled by a daemon thread: functions, C{Info}, C{Enum} and
    collectors.  The same thread notices series that were removed, and forgets them.

    It never raises an exception into the program that measures, and never changes what the registry
    exposes.  A counter's total is rounded down, except for counters of seconds, which are gauges of
    the same name.  A histogram or summary is a histogram with all samples since this call.

    @param recorder: the recorder; by default, the global one, also if it is installed later.
    @param registry: the registry.
    @param events: whether to stream events; otherwise, everything is polled.
    @param poll: the number of seconds between polls; 0.01 or more.
    @param buckets: whether the buckets of polled histograms are streamed, as counters.
    @param exclude: metrics and collectors that are not streamed, such as `DEFAULT_COLLECTORS`.
    @return: an object with C{stop} and C{stats}.
    @raise TypeError: an argument is of the wrong type.
    @raise ValueError: C{poll} is out of range, or the registry is streamed already.
    """
    if recorder is not None:
        checked_recorder(recorder)
    if not callable(getattr(registry, "collect", None)):
        raise TypeError(f"registry must be a CollectorRegistry, not {short_repr(registry)}")
    streaming = PrometheusStream(
        facade.program_recorder() if recorder is None else recorder,
        registry,
        flag("events", events),
        seconds_from(0.01, "poll", poll),
        flag("buckets", buckets),
        tuple(exclude),
    )
    with values.lock:
        if any(one._registry is registry for one in _active):
            raise ValueError(
                f"{short_repr(registry)} is streamed already: stop that stream first, or use it"
            )
        _active.append(streaming)
    streaming._start()
    return streaming


_active: list[PrometheusStream] = []


class PrometheusStream:
    """
    Streams the metrics of a registry.  `stream` makes instances.  Thread-safe.
    """

    def __init__(
        self,
        recorder: Recorder,
        registry: CollectorRegistry,
        events: bool,
        poll: float,
        buckets: bool,
        exclude: tuple[object, ...],
    ) -> None:
        self._recorder = recorder
        self._registry: Any = registry
        self._events = events and hasattr(registry, "_collector_to_names")
        self._poll = poll
        self._buckets = buckets
        self._exclude = exclude
        # Protects the attributes below, and is acquired before the lock of a value.  No collector
        # is called while it is held.
        self._lock = threading.RLock()
        # Held while one thread polls; acquired before the other lock.
        self._polling = threading.RLock()
        self._bound: dict[Key, Value] = {}
        # All instruments whose values were wrapped, also those that were removed.
        self._wrapped: WeakSet[Any] = WeakSet()
        self._polled: dict[Key, Handle] = {}
        self._described: dict[tuple[MetricKind, str], tuple[Unit | None, object]] = {}
        self._moved = False
        self._forked = False
        self._stopped = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        # Protects the attributes below.
        self._leaf = threading.RLock()
        self._uncounted: deque[tuple[str, str]] = deque()
        self._refused: Tally[str] = Tally()
        self._unlogged: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"<PrometheusStream of {short_repr(self._registry)}>"

    def stats(self) -> PrometheusStats:
        """Return current statistics."""
        with self._leaf:
            refused = dict(self._refused)
        with self._lock:
            return PrometheusStats(len(self._bound), len(self._polled), refused)

    def stop(self) -> None:
        """
        Stop streaming.  The program's metrics are as before `stream`, and the stream keeps the last
        totals.  May be called more than once.
        """
        with values.lock:
            if self not in _active:
                return
            _active.remove(self)
            values.remove_stream(self)
        facade.program_recorder().unwatch(self._recorder_changed)
        with self._lock:
            self._stopped = True
            for collector in self._collectors():
                if isinstance(collector, MetricWrapperBase):
                    self._wrapped.update(_children(collector))
            for metric in self._wrapped:
                self._unwrap(metric)
            self._wrapped.clear()
            self._bound.clear()
            self._polled.clear()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            # A collector may take long; the thread ends after it.
            thread.join(_JOIN_TIMEOUT)

    def _start(self) -> None:
        facade.program_recorder().watch(self._recorder_changed)
        if self._events:
            values.add_stream(self)
        self._synchronize()
        self._run_thread()

    # The poller.

    def _run_thread(self) -> None:
        """Start the thread, unless it runs in this process."""
        # Another lock may be held by a thread that waits for the caller to install a recorder.
        with self._leaf:
            if self._thread is not None or self._stopped:
                return
            thread = threading.Thread(
                target=self._run, name="txmetrics-tcp prometheus", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                # The limit of threads, or the end of the interpreter.
                self._count("collector", repr(error))
                return
            self._thread = thread

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._poll)
            self._wake.clear()
            try:
                # A recorder whose process has forked would warn.
                if not self._stopped and not getattr(self._recorder, "silenced", False):
                    self._synchronize()
            except Exception as error:
                self._count("collector", repr(error))

    def _recorder_changed(self) -> None:
        """Repeat all totals soon; called while a global recorder is being installed."""
        self._moved = True
        if self._forked:
            self._run_thread()
        self._wake.set()

    def _synchronize(self) -> None:
        """Bind new values, release those that were removed, and poll everything else."""
        with self._polling:
            with self._lock:
                self._forked = False
                repeat, self._moved = self._moved, False
                rest = self._bind_all(repeat)
            if not self._stopped:
                self._poll_all(rest)
        self._log()

    def _bind_all(self, repeat: bool) -> list[Any]:
        """
        Bind all values of the registry, and release those that it no longer has.

        @param repeat: whether to record the totals of all values again.
        @return: the collectors that have to be polled.
        """
        if self._stopped:
            return []
        rest = []
        kept: set[Key] = set()
        for collector in self._collectors():
            if isinstance(collector, MultiProcessCollector):
                # It has the totals of all processes, and each streams its own.
                continue
            if not self._bind_collector(collector, kept, repeat):
                rest.append(collector)
        for key in self._bound.keys() - kept:
            self._forget(key)
        return rest

    def _collectors(self) -> list[Any]:
        # Copying a dictionary is atomic.
        found = getattr(self._registry, "_collector_to_names", None)
        if found is None:
            return [self._registry]
        return [one for one in found.copy() if one not in self._exclude]

    def _bind_collector(self, collector: Any, kept: set[Key], repeat: bool) -> bool:
        """
        Bind the values of a collector.

        @param kept: is given their keys.
        @return: whether all were bound, so that the collector need not be polled.
        """
        if not self._events or not isinstance(collector, MetricWrapperBase):
            return False
        complete = True
        try:
            for child in _children(collector):
                key = self._bind(child)
                if key is None:
                    complete = False
                    continue
                kept.add(key)
                self._check(self._bound[key], repeat)
        except Exception as error:
            self._count("collector", repr(error))
            return False
        return complete

    def _check(self, value: Value, repeat: bool) -> None:
        """Record the total of a value if the stream does not have it, or if told to."""
        if value._tx_key.kind is not MetricKind.HISTOGRAM:
            with value._tx_lock:
                if repeat:
                    value._tx_total = None
                self._record_total(value)

    def _poll_all(self, collectors: Iterable[Any]) -> None:
        polled: dict[Key, Handle] = {}
        failed = False
        for collector in collectors:
            try:
                for metric in collector.collect():
                    self._poll_metric(metric, polled)
            except Exception as error:
                failed = True
                self._count("collector", repr(error))
        try:
            info = self._registry.get_target_info() or {}
            if info:
                self._carry(MetricKind.GAUGE, "target_info", info, 1.0, polled)
        except Exception as error:
            self._count("collector", repr(error))
        with self._lock:
            if failed:
                # The series of a collector that failed this time are kept.
                polled = {**self._polled, **polled}
            gone = self._polled.keys() - polled.keys() - self._bound.keys()
            self._polled = {} if self._stopped else polled
            for key in gone:
                self._forget_in_recorder(key)

    def _poll_metric(self, metric: Any, polled: dict[Key, Handle]) -> None:
        is_distribution = metric.type in _DISTRIBUTIONS
        for sample in metric.samples:
            name, labels, value = sample[:3]
            suffix = name[len(metric.name) :]
            if suffix == "_created" or (suffix == "_bucket" and not self._buckets):
                continue
            if is_distribution and self._is_bound(metric.name, labels):
                continue
            unit = _unit(metric.name, metric.unit)
            kind = MetricKind.GAUGE
            if is_distribution and suffix in ("_bucket", "_count"):
                kind, unit = MetricKind.COUNTER, None
            elif metric.type == "counter" and not is_seconds(metric.name, metric.unit):
                kind = MetricKind.COUNTER
            if self._carry(kind, name, labels, value, polled):
                self._describe(kind, name, unit, metric.documentation)

    def _is_bound(self, name: str, labels: Mapping[str, str]) -> bool:
        """Return whether a histogram or summary is streamed event by event."""
        own = {label: value for label, value in labels.items() if label not in ("le", "quantile")}
        return Key(MetricKind.HISTOGRAM, name, tuple(sorted(own.items()))) in self._bound

    def _carry(
        self,
        kind: MetricKind,
        name: str,
        labels: Mapping[str, str],
        value: Any,
        polled: dict[Key, Handle],
    ) -> bool:
        """Record a polled total, and return whether that was possible."""
        try:
            key = Key.of(kind, name, labels)
        except (TypeError, ValueError) as error:
            self._count("key", repr(error))
            return False
        if key in self._bound:
            return False
        try:
            handle: Any = self._polled.get(key) or self._handle(key)
            polled[key] = handle
            if kind is MetricKind.COUNTER:
                handle.absolute(_floor(value))
            else:
                handle.set(value)
        except Exception as error:
            self.failed(error)
            return False
        return True

    # Values.

    def adopt(self, value: Value) -> bool:
        # In a finalizer, this thread may hold the lock of a value that the holder of the other lock
        # waits for.
        if not self._lock.acquire(timeout=_ADOPTION_TIMEOUT):
            raise TimeoutError(f"{value._tx_about[0]}: the registry's values are being bound")
        try:
            if self._stopped:
                return False
            if self._forked:
                # The first event in a forked process.
                self._forked = False
                self._bind_all(False)
                self._run_thread()
            name, labelvalues = value._tx_about
            metric = self._registry._names_to_collectors.get(name)
            if metric in self._exclude:
                return False
            if metric is not None and labelvalues:
                metric = getattr(metric, "_metrics", {}).get(labelvalues)
            attribute = _attribute(metric)
            if attribute is None or getattr(metric, attribute, None) is not value:
                return False
            return self._bind(metric) is not None
        finally:
            self._lock.release()

    def _bind(self, metric: Any) -> Key | None:
        """
        Bind the value of an instrument without labels, or of a child.

        @return: the key of its series; None if it cannot be bound, and has to be polled.
        """
        attribute = _attribute(metric)
        if attribute is None:
            return None
        value = getattr(metric, attribute)
        # Not `vars(metric)`, which makes access to its attributes slower from then on.
        samples = getattr(metric._child_samples, "__func__", None)
        is_function = samples is not type(metric)._child_samples
        if isinstance(value, Value) and not isinstance(value, UnboundValue):
            if value._tx_owner is self and self._bound.get(value._tx_key) is value:
                if not is_function:
                    bound: Key = value._tx_key
                    return bound
                self._forget(value._tx_key)
            return None
        if is_function:
            return None
        kind, name = _series(metric)
        try:
            labels = dict(zip(metric._labelnames, metric._labelvalues, strict=True))
            key = Key.of(kind, name, labels)
        except (TypeError, ValueError) as error:
            self._count("key", repr(error))
            return None
        try:
            handle = self._handle(key)
        except Exception as error:
            self._count("recorder", repr(error))
            return None
        if not isinstance(value, Value):
            value = UnboundValue(value, metric._name, metric._labelvalues)
        if key in self._bound:
            # Of a child that was removed.
            self._forget(key)
        with value._tx_lock:
            value._tx_key, value._tx_owner, value._tx_handle = key, self, handle
            value.__class__ = values.bound_class(kind, value._tx_value)
            setattr(metric, attribute, value)
            self._wrapped.add(metric)
            self._bound[key] = value
            self._polled.pop(key, None)
            if kind is not MetricKind.HISTOGRAM:
                self._record_total(value)
        self._describe(kind, name, _unit(metric._name, metric._unit), metric._documentation)
        return key

    def resynchronize(self, value: Value, again: bool = False) -> None:
        """
        Record the total of a bound value, which an event has changed.

        @param again: whether to record it even if it is believed to be recorded.
        """
        with value._tx_lock:
            if again:
                value._tx_total = None
            error = self._record_total(value)
            if error is not None:
                self.failed(error)

    def _record_total(self, value: Value) -> Exception | None:
        """Record the total of a value unless it is known to be recorded.  Return the error."""
        handle: Any = value._tx_handle
        is_counter = value._tx_key.kind is MetricKind.COUNTER
        before = value._tx_total
        try:
            while True:
                total = value.get()
                if is_counter:
                    total = _floor(total)
                # NaN is not equal to itself.
                if total is before or total == before:
                    return None
                value._tx_total = total
                if is_counter:
                    handle.absolute(total)
                else:
                    handle.set(total)
                if value._tx_total is total:
                    return None
                # A finalizer changed it while it was recorded.
                before = None
        except Exception as error:
            value._tx_total = None
            return error

    def _unwrap(self, metric: Any) -> None:
        """Give an instrument the value that it had before."""
        attribute = _attribute(metric)
        value = None if attribute is None else getattr(metric, attribute, None)
        if not isinstance(value, Value) or value._tx_owner not in (None, self):
            return
        with value._tx_lock:
            value.release(pending=False)
            setattr(metric, str(attribute), value._tx_value)

    def _forget(self, key: Key) -> None:
        value = self._bound.pop(key)
        with value._tx_lock:
            value.release()
            self._forget_in_recorder(key)

    # The recorder.

    def _handle(self, key: Key) -> Handle:
        # Not from the recorder's cache, which is small.
        register: Callable[[Key], Handle] = getattr(self._recorder, f"register_{key.kind.value}")
        return register(key)

    def _forget_in_recorder(self, key: Key) -> None:
        forget = getattr(self._recorder, "forget", None)
        if forget is not None:
            try:
                forget(key)
            except Exception as error:
                self._count("recorder", repr(error))

    def _describe(self, kind: MetricKind, name: str, unit: Unit | None, text: Any) -> None:
        unit = unit or _PROCESS_UNITS.get((kind, name))
        with self._lock:
            about = unit, text
            if self._described.get((kind, name)) == about:
                return
            self._described[kind, name] = about
        try:
            # Surrogates cannot be encoded, and help texts may be of any length and type.
            data = str(text).encode(errors="replace")[:MAX_TEXT]
            described = data.decode(errors="ignore")
            if described != text:
                self._count("help", "a text is too long, or cannot be encoded")
            self._recorder.describe(Metadata.of(kind, name, unit, described))
        except Exception as error:
            self._count("help", repr(error))

    def failed(self, error: Exception) -> None:
        if isinstance(error, OverflowError):
            reason = "range"
        elif isinstance(error, (TypeError, ValueError)):
            reason = "number"
        elif isinstance(error, TimeoutError):
            reason = "busy"
        else:
            reason = "recorder"
        self._count(reason, repr(error))

    def _count(self, reason: str, why: str) -> None:
        # Never waits, since the lock of a value may be held: the holder of the lock, which a
        # finalizer may have interrupted, counts this, too.
        self._uncounted.append((reason, why))
        while self._uncounted and self._leaf.acquire(blocking=False):
            try:
                while self._uncounted:
                    reason, why = self._uncounted.popleft()
                    self._refused[reason] += 1
                    if self._refused[reason] == 1:
                        # Not logged here, because a handler of the program may measure what it
                        # logs.
                        self._unlogged.append((reason, why))
            finally:
                self._leaf.release()

    def _log(self) -> None:
        while self._unlogged:
            _log.warning(
                "prometheus_client: something could not be streamed (%s): %s; further cases are"
                " only counted",
                *self._unlogged.pop(),
            )

    def _after_fork(self) -> None:
        """In a child: wait for the first event or poll, and then bind all values again."""
        self._lock = threading.RLock()
        self._polling = threading.RLock()
        self._leaf = threading.RLock()
        self._wake = threading.Event()
        self._thread = None
        self._forked = True
        for value in self._bound.values():
            value._tx_lock = threading.RLock()
            value.release()
        self._bound.clear()
        if self._recorder is not facade.program_recorder():
            # The child may use it at any time, without notice.  With the program's recorder, an
            # event or an installation starts the thread, so that other children start no exporter.
            self._run_thread()


def _children(metric: Any) -> list[Any]:
    """Return the children of an instrument with labels; of one without, itself."""
    return list(metric._metrics.copy().values()) if metric._is_parent() else [metric]


def _attribute(metric: Any) -> str | None:
    """
    Return the name of the attribute with the value that events change; None if the instrument is
    not one of the library's.
    """
    for kind, attribute in _VALUES.items():
        if isinstance(metric, kind):
            known = type(metric)._child_samples is kind._child_samples
            return attribute if known and hasattr(metric, attribute) else None
    return None


def _series(metric: Any) -> tuple[MetricKind, str]:
    """Return the kind and the name of an instrument's series."""
    if isinstance(metric, Counter):
        seconds = is_seconds(metric._name, metric._unit)
        kind = MetricKind.GAUGE if seconds else MetricKind.COUNTER
        return kind, f"{metric._name}_total"
    return MetricKind.GAUGE if isinstance(metric, Gauge) else MetricKind.HISTOGRAM, metric._name


def _unit(name: str, unit: str) -> Unit | None:
    """Return the unit of a metric, which often is the last word of its name."""
    if unit == "s":
        return Unit.SECONDS
    if unit in _UNITS:
        return _UNITS[unit]
    for word, found in _UNITS.items():
        if name == word or name.endswith(f"_{word}"):
            return found
    return None


def _floor(value: Any) -> int:
    """
    Return the total of a counter.

    @raise OverflowError: it is out of range.
    """
    if value != value:
        raise OverflowError("NaN")
    total: int = math.floor(value)
    if not 0 <= total <= U64_MAX:
        raise OverflowError(f"not from 0 to {U64_MAX}: {short_repr(value)}")
    return total


def _after_fork() -> None:
    values.after_fork()
    for one in _active:
        one._after_fork()


os.register_at_fork(after_in_child=_after_fork)
