"""
The values of prometheus_client's instruments, wrapped in objects that also record what changes
them.

A change and its event are one step for all threads: both happen under the lock of the wrapper.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from prometheus_client import values
from prometheus_client.values import MutexValue

from txmetrics_tcp._instruments.recorder import HANDLES, Handle
from txmetrics_tcp._instruments.sink import NOWHERE, Series
from txmetrics_tcp._model import U64_MAX, Key, MetricKind, Operation

_INCREMENT_COUNTER = Operation.INCREMENT_COUNTER
_INCREMENT_GAUGE = Operation.INCREMENT_GAUGE
_SET_GAUGE = Operation.SET_GAUGE
_RECORD_HISTOGRAM = Operation.RECORD_HISTOGRAM


class Owner(Protocol):
    """A stream, as far as values use it."""

    def adopt(self, value: Value) -> bool:
        """Bind a value if it belongs to the registry, and return whether it does."""

    def resynchronize(self, value: Value, again: bool = False) -> None:
        """Record the total of a bound value; also if it is believed to be recorded, if told to."""

    def failed(self, error: Exception) -> None:
        """Count an event that could not be recorded."""


def _forwarded(name: str) -> Any:
    """Return a property that is an attribute of the wrapped value."""

    def get(value: Value) -> Any:
        return getattr(value._tx_value, name)

    def set_(value: Value, new: Any) -> None:
        setattr(value._tx_value, name, new)

    return property(get, set_)


class Value:
    """
    Wraps a value.  It has the methods and attributes of a `MutexValue`.

    Has no C{__getattr__}: with one, each access to an attribute takes several times as long, so
    that a change takes 200 ns more.

    @ivar _tx_value: the wrapped value.
    @ivar _tx_about: the metric's name, and the values of its labels.
    @ivar _tx_lock: held while the value changes.  Re-entrant, since recording may run a finalizer
        or a signal handler that changes the same value.
    @ivar _tx_key: the key of the series.
    @ivar _tx_owner: the stream; None if no stream ever had the value.
    @ivar _tx_handle: records; discards what a thread records that waited for the lock while the
        value was released.
    @ivar _tx_total: what the stream's total is; None if that is not known.
    """

    __slots__ = (
        "__weakref__",
        "_tx_about",
        "_tx_handle",
        "_tx_key",
        "_tx_lock",
        "_tx_owner",
        "_tx_total",
        "_tx_value",
    )

    def __init__(self, value: Any, metric_name: str, labelvalues: tuple[str, ...]) -> None:
        self._tx_value: Any = value
        self._tx_about = metric_name, labelvalues
        self._tx_lock: Any = threading.RLock()
        self._tx_key: Key = _UNKNOWN
        self._tx_owner: Any = None
        self._tx_handle: Any = None
        self._tx_total: Any = None

    _value = _forwarded("_value")
    _exemplar = _forwarded("_exemplar")
    _lock = _forwarded("_lock")
    _multiprocess = _forwarded("_multiprocess")

    def get(self) -> Any:
        return self._tx_value.get()

    def inc(self, amount: Any) -> None:
        self._tx_value.inc(amount)

    def set(self, value: Any, timestamp: Any = None) -> None:
        self._tx_value.set(value, timestamp)

    def get_exemplar(self) -> Any:
        return self._tx_value.get_exemplar()

    def set_exemplar(self, exemplar: Any) -> None:
        self._tx_value.set_exemplar(exemplar)

    def release(self, pending: bool = True) -> None:
        """Record nothing more."""
        with self._tx_lock:
            self._tx_handle = discarding(self._tx_key)
            self._tx_total = None
            self.__class__ = PendingValue if pending else UnboundValue


class _Attributes:
    """Gets all other attributes from the wrapped value."""

    __slots__ = ()

    _tx_value: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx_value, name)


class UnboundValue(Value, _Attributes):
    """A value that belongs to no stream."""

    __slots__ = ()


class PendingValue(UnboundValue):
    """A value that belongs to no stream yet, or no longer.  A change of it looks for one."""

    __slots__ = ()

    def inc(self, amount: Any) -> None:
        if self._tx_find():
            self.inc(amount)
        else:
            self._tx_value.inc(amount)

    def set(self, value: Any, timestamp: Any = None) -> None:
        if self._tx_find():
            self.set(value, timestamp)
        else:
            self._tx_value.set(value, timestamp)

    def _tx_find(self) -> bool:
        """Offer the value to the streams, and return whether one has it."""
        for stream in streams:
            try:
                if stream.adopt(self):
                    return True
            except Exception as error:
                stream.failed(error)
                # It may belong to that stream.
                return False
        if self._tx_owner is None or not streams:
            # It belongs to another registry.
            self.__class__ = UnboundValue  # type: ignore[assignment]
        return False


class BoundValue(Value):
    """The value of a counter or gauge."""

    __slots__ = ()

    def inc(self, amount: Any) -> None:
        with self._tx_lock:
            self._tx_value.inc(amount)
            self._tx_owner.resynchronize(self)

    def set(self, value: Any, timestamp: Any = None) -> None:
        with self._tx_lock:
            self._tx_value.set(value, timestamp)
            self._tx_owner.resynchronize(self)


class BoundSum(Value):
    """The sum of a histogram or summary."""

    __slots__ = ()

    def inc(self, amount: Any) -> None:
        with self._tx_lock:
            self._tx_value.inc(amount)
            try:
                self._tx_handle.record(amount)
            except Exception as error:
                self._tx_owner.failed(error)


class OtherValue(BoundValue, _Attributes):
    """One that is not a `MutexValue`, but a value of multiprocess mode, for example."""

    __slots__ = ()


class OtherSum(BoundSum, _Attributes):
    """Likewise."""

    __slots__ = ()


# The following classes wrap a MutexValue, and change it themselves, as its methods do in all
# versions from 0.12 to 0.26.  Calling the methods, `with`, and the methods of handles would make
# recording more than twice as slow.


class CounterValue(BoundValue):
    """The value of a counter.  The stream's total is its floor."""

    __slots__ = ()

    def inc(self, amount: Any) -> None:
        lock = self._tx_lock
        lock.acquire()
        try:
            value = self._tx_value
            value._value = now = value._value + amount
            try:
                total = int(now)
                n = total - self._tx_total
                if n > 0 and total <= U64_MAX:
                    # Before recording, which may run a finalizer that increments again.
                    self._tx_total = total
                    series = self._tx_handle._series
                    sink = series.sink
                    if sink.open:
                        log = sink.log
                        stamp = sink.clock() if sink.stamped else 0
                        log.append((series, _INCREMENT_COUNTER, n, stamp))
                        if len(log) > sink.wake_threshold:
                            sink.notify()
                        if value._value is not now:
                            # A finalizer changed it while it was recorded.
                            self._tx_owner.resynchronize(self, True)
                elif n:
                    self._tx_owner.resynchronize(self)
            except Exception:
                self._tx_owner.resynchronize(self, True)
        finally:
            lock.release()


class GaugeValue(BoundValue):
    """The value of a gauge, or of a counter of seconds."""

    __slots__ = ()

    def inc(self, amount: Any) -> None:
        lock = self._tx_lock
        lock.acquire()
        try:
            value = self._tx_value
            before = value._value
            value._value = now = before + amount
            try:
                kind = type(amount)
                if (
                    type(now) is float
                    and (kind is float or kind is int)
                    and before == self._tx_total
                ):
                    # The stream's total is the result of the same addition.
                    self._tx_total = now
                    series = self._tx_handle._series
                    sink = series.sink
                    if sink.open:
                        log = sink.log
                        stamp = sink.clock() if sink.stamped else 0
                        log.append((series, _INCREMENT_GAUGE, amount + 0.0, stamp))
                        if len(log) > sink.wake_threshold:
                            sink.notify()
                        if value._value is not now:
                            self._tx_owner.resynchronize(self, True)
                else:
                    self._tx_owner.resynchronize(self)
            except Exception:
                self._tx_owner.resynchronize(self, True)
        finally:
            lock.release()

    def set(self, value: Any, timestamp: Any = None) -> None:
        lock = self._tx_lock
        lock.acquire()
        try:
            self._tx_value._value = value
            if type(value) is not float:
                self._tx_owner.resynchronize(self)
                return
            try:
                self._tx_total = value
                series = self._tx_handle._series
                sink = series.sink
                if sink.open:
                    log = sink.log
                    stamp = sink.clock() if sink.stamped else 0
                    log.append((series, _SET_GAUGE, value, stamp))
                    if len(log) > sink.wake_threshold:
                        sink.notify()
                    if self._tx_value._value is not value:
                        self._tx_owner.resynchronize(self, True)
            except Exception:
                self._tx_owner.resynchronize(self, True)
        finally:
            lock.release()


class SumValue(BoundSum):
    """The sum of a histogram or summary.  Each sample increases it."""

    __slots__ = ()

    def inc(self, amount: Any) -> None:
        lock = self._tx_lock
        lock.acquire()
        try:
            value = self._tx_value
            value._value = value._value + amount
            try:
                if type(amount) is not float:
                    self._tx_handle.record(amount)
                    return
                series = self._tx_handle._series
                sink = series.sink
                if sink.open:
                    log = sink.log
                    stamp = sink.clock() if sink.stamped else 0
                    log.append((series, _RECORD_HISTOGRAM, amount, stamp))
                    if len(log) > sink.wake_threshold:
                        sink.notify()
            except Exception as error:
                self._tx_owner.failed(error)
        finally:
            lock.release()


def bound_class(kind: MetricKind, value: Any) -> type[Value]:
    """Return the class of the wrapper of a value that belongs to a series of this kind."""
    if type(value) is not MutexValue:
        return OtherSum if kind is MetricKind.HISTOGRAM else OtherValue
    return _CLASSES[kind]


_CLASSES: dict[MetricKind, type[Value]] = {
    MetricKind.COUNTER: CounterValue,
    MetricKind.GAUGE: GaugeValue,
    MetricKind.HISTOGRAM: SumValue,
}

_UNKNOWN = Key(MetricKind.GAUGE, "")


def discarding(key: Key) -> Handle:
    """Return a handle that records nothing."""
    return HANDLES[key.kind](key, Series(key, NOWHERE))


lock = threading.RLock()
"""Protects the following variables."""

streams: tuple[Owner, ...] = ()
"""The streams that record events."""

_hook: Any = None


def add_stream(stream: Owner) -> None:
    """Begin to offer values to a stream."""
    global streams, _hook
    with lock:
        streams = (*streams, stream)
        if _hook is None or values.ValueClass is not _hook:
            _hook = values.ValueClass = _hooked(values.ValueClass)


def remove_stream(stream: Owner) -> None:
    """End what `add_stream` began."""
    global streams, _hook
    with lock:
        streams = tuple(one for one in streams if one is not stream)
        if not streams and _hook is not None:
            if values.ValueClass is _hook:
                values.ValueClass = _hook._tx_replaced
            _hook = None


def _hooked(base: Any) -> Any:
    """Return a subclass of the class that instruments make values of, which makes wrapped ones."""

    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is not made:
            # The program has derived another class.
            return object.__new__(cls)
        value = base(*args, **kwargs)
        if not streams or not _is_recorded(*args[:3]):
            return value
        return PendingValue(value, args[1], tuple(args[4]))

    names = ("__module__", "__qualname__", "__doc__")
    body = {name: getattr(base, name) for name in names}
    made = type(base.__name__, (base,), {**body, "__new__": __new__, "_tx_replaced": base})
    return made


def _is_recorded(kind: str = "", metric_name: str = "", name: str = "") -> bool:
    """Return whether events change the value with these arguments, and no other of its metric."""
    if kind in ("histogram", "summary"):
        return name == f"{metric_name}_sum"
    return kind in ("counter", "gauge")


def after_fork() -> None:
    """Renew the lock in a child, where the thread that holds it may not exist."""
    global lock
    lock = threading.RLock()
