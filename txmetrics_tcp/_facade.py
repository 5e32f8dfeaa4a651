"""
The few words that instrumented code uses, and the recorder that is behind them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping

from txmetrics_tcp._model import Key, Metadata, MetricKind, Unit
from txmetrics_tcp._recorder import Counter, Gauge, Handle, Histogram, Recorder
from txmetrics_tcp._sink import NOWHERE, Series


class RecorderInstalledError(Exception):
    """There is a global recorder already.  It says which."""


class _Unbound(Recorder):
    """
    The recorder of those who come before any is installed, as module-level handles do.

    It remembers their handles and descriptions, for the one that comes.
    """

    def __init__(self) -> None:
        super().__init__()
        # Weakly: who asks for handles in a loop and keeps none must not fill the memory.
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._described: dict[tuple[MetricKind, str], Metadata] = {}

    def attach(self, key: Key) -> Series:
        return Series(key, NOWHERE)

    def describe(self, metadata: Metadata) -> None:
        with _lock:
            if _global is None:
                self._described[metadata.kind, metadata.name] = metadata
                return
        # One was installed on another thread since we were asked.
        _global.describe(metadata)

    def _make_handle(
        self, kind: MetricKind, name: str, labels: tuple[tuple[str, object], ...]
    ) -> Handle:
        handle = super()._make_handle(kind, name, labels)
        with _lock:
            self._handles.add(handle)
            if _global is not None:
                # One was installed on another thread since we were asked.
                handle._attach(_global.attach(handle.key))
        return handle

    def hand_over(self, recorder: Recorder) -> None:
        """Give all to the recorder that has come."""
        for metadata in list(self._described.values()):
            recorder.describe(metadata)
        for handle in list(self._handles):
            handle._attach(recorder.attach(handle.key))

    def take_back(self) -> None:
        """The recorder has gone again."""
        for handle in list(self._handles):
            handle._attach(self.attach(handle.key))


# Re-entrant, since a finalizer may ask for a handle anywhere.
_lock = threading.RLock()
_unbound = _Unbound()
_global: Recorder | None = None


def set_global_recorder(recorder: Recorder) -> None:
    """
    Make a recorder the one that the whole program records to, once and for all.

    Handles and descriptions that were made before, at import time for example, are its from
    now on.  May be called from any thread.

    @raise RecorderInstalledError: there is one already.
    """
    global _global
    with _lock:
        if _global is not None:
            raise RecorderInstalledError(f"a global recorder is installed already: {_global!r}")
        _global = recorder
        _unbound.hand_over(recorder)


def unset_global_recorder(recorder: Recorder) -> None:
    """Take `set_global_recorder` back, where what was to be behind it could not start."""
    global _global
    with _lock:
        if _global is recorder:
            _global = None
            _unbound.take_back()


def current_recorder() -> Recorder:
    """
    The recorder that handles made now belong to: the global one; without one, a recorder
    that hands over what it was asked for as soon as there is one.
    """
    return _global or _unbound


def counter(name: str, labels: Mapping[str, object] | None = None, /, **more: object) -> Counter:
    """
    The counter of that name and labels, of the current recorder.

    Made before a recorder is installed, it begins to work when one is.  Parameters and errors
    are those of `Recorder.counter`.
    """
    return (_global or _unbound).counter(name, labels, **more)


def gauge(name: str, labels: Mapping[str, object] | None = None, /, **more: object) -> Gauge:
    """The gauge of that name and labels.  See `counter`."""
    return (_global or _unbound).gauge(name, labels, **more)


def histogram(
    name: str, labels: Mapping[str, object] | None = None, /, **more: object
) -> Histogram:
    """The histogram of that name and labels.  See `counter`."""
    return (_global or _unbound).histogram(name, labels, **more)


def describe_counter(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """
    Say what the counters of that name count.  Parameters and errors are those of
    `Recorder.describe_counter`.
    """
    current_recorder().describe_counter(name, unit, description)


def describe_gauge(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """Say what the gauges of that name show.  See `describe_counter`."""
    current_recorder().describe_gauge(name, unit, description)


def describe_histogram(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """Say what the histograms of that name measure.  See `describe_counter`."""
    current_recorder().describe_histogram(name, unit, description)
