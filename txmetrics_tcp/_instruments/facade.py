"""
The module-level functions that instrumented code uses, and the current recorder.

The current recorder is the recorder of the innermost scope (see `local_recorder`) or capture (see
`txmetrics_tcp.testing.capture`); outside of these, the global recorder (see `set_global_recorder`).
Handles created in a scope always belong to the scope's recorder.  All other handles belong to
`_Program` and follow its current target.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, NoReturn

from txmetrics_tcp._instruments import forked as forked  # must be imported before a fork
from txmetrics_tcp._instruments.recorder import (
    HANDLES,
    Counter,
    Gauge,
    Handle,
    Histogram,
    NoopRecorder,
    Recorder,
    checked_recorder,
)
from txmetrics_tcp._instruments.sink import NOWHERE, RelaySink, Series
from txmetrics_tcp._model import Key, Metadata, MetricKind, Unit, not_a_mapping


class RecorderInstalledError(Exception):
    """A global recorder is already installed.  The message names it."""


class _Program(Recorder):
    """
    The recorder of all code outside scopes.  It records to its current target: the recorder of the
    innermost capture, or the installed recorder, or none.

    It tracks its handles, and the series that layers attach to, and moves them when the target
    changes.  A handle created at import time therefore records to a recorder installed later.

    Creating a handle takes no lock, because a finalizer may create one at any point, even while a
    recorder holds its locks.  Instead, the creating thread registers the handle and attaches it
    repeatedly until the target no longer changes.  A thread that changes the target later finds the
    handle registered.
    """

    def __init__(self) -> None:
        super().__init__()
        # Weak references, so that discarded handles free their memory.  A plain set, because
        # unlike a WeakSet it supports add, discard and list() atomically.
        self._followers: set[weakref.ref[Handle | _Follower]] = set()
        # By kind, name and unit, so that a recorder sees conflicting units.  The last is in effect.
        self._described: dict[tuple[MetricKind, str, str | None], Metadata] = {}
        self._noop = NoopRecorder()
        # Written with the lock held, read without.
        self._target: Recorder = self._noop
        self._installed: Recorder | None = None
        self._installed_pid = 0
        self._captures: list[Recorder] = []
        # See `call_before_handles`.
        self.before_handle: Callable[[], object] | None = None
        self._watchers: list[Callable[[], object]] = []
        self.renew_lock()

    def __repr__(self) -> str:
        return "<program recorder: none installed>"

    def attach(self, key: Key) -> Series:
        follower = _Follower(key)
        self._register_follower(follower)
        return follower

    def describe(self, metadata: Metadata) -> None:
        if not self._captures:
            # For a recorder that is installed later.
            key = (metadata.kind, metadata.name, metadata.unit)
            self._described.pop(key, None)
            self._described[key] = metadata
        while True:
            target = self._target
            target.describe(metadata)
            if self._target is target:
                return

    def _reduce_handle(self, handle: Handle) -> tuple[Any, ...]:
        key = handle.key
        return _FIND[key.kind], (key.name, dict(key.labels))

    def _new_handle(self, kind: MetricKind, key: Key) -> Handle:
        handle = HANDLES[kind](key, Series(key, NOWHERE), self)
        self._register_follower(handle)
        return handle

    def _register_follower(self, follower: Handle | _Follower) -> None:
        before_handle = self.before_handle
        if before_handle is not None:
            before_handle()
        self._followers.add(weakref.ref(follower, self._followers.discard))
        while True:
            target = self._target
            follower._attach(target.attach(follower.key))
            if self._target is target:
                return

    def forget(self, key: Key) -> None:
        """Release the series of a key in the target if that can; see `TcpRecorder.forget`."""
        forget = getattr(self._target, "forget", None)
        if forget is not None:
            forget(key)

    def watch(self, installed: Callable[[], object]) -> None:
        """
        Call a function after each installation of a recorder, which does not know what its series
        were before.  The function must not wait for a lock, and must not raise.
        """
        self._watchers.append(installed)

    def unwatch(self, installed: Callable[[], object]) -> None:
        """Undo `watch`."""
        self._watchers.remove(installed)

    def current(self) -> Recorder:
        """Return the target, or this recorder if it has none."""
        target = self._target
        return self if target is self._noop else target

    def install(self, recorder: Recorder) -> None:
        """See `set_global_recorder`."""
        with self._lock:
            before = self._installed
            # A forked process may replace the recorder that it inherited.
            inherited = self._installed_pid != os.getpid()
            if before is not None and not (before.replaceable or inherited):
                raise RecorderInstalledError(f"a global recorder is installed already: {before!r}")
            self._installed = recorder
            try:
                for metadata in list(self._described.values()):
                    recorder.describe(metadata)
                self._follow()
            except BaseException:
                # For example, a prefix made a name too long.
                self._installed = before
                self._follow()
                raise
            self._installed_pid = os.getpid()
            for installed in list(self._watchers):
                installed()
        if before is not None and before is not recorder:
            before._replaced()

    @property
    def has_recorder(self) -> bool:
        """Whether a recorder is installed."""
        return self._installed is not None

    def uninstall(self, recorder: Recorder) -> None:
        """See `unset_global_recorder`."""
        with self._lock:
            if self._installed is recorder:
                self._installed = None
                self._follow()

    def begin_capture(self, recorder: Recorder) -> None:
        """Make a recorder the target."""
        with self._lock:
            self._captures.append(recorder)
            self._follow()

    def end_capture(self, recorder: Recorder) -> None:
        """Undo `begin_capture`."""
        with self._lock:
            self._captures.remove(recorder)
            self._follow()

    def renew_lock(self) -> None:
        """Replace the lock.  After a fork, the thread that holds it may not exist in the child."""
        # Re-entrant, since an installed recorder's methods may install another one.
        self._lock = threading.RLock()

    def _follow(self) -> None:
        target = self._noop if self._installed is None else self._installed
        if self._captures:
            target = self._captures[-1]
        if target is self._target:
            return
        self._target = target
        for reference in list(self._followers):
            follower = reference()
            if follower is not None:
                follower._attach(target.attach(follower.key))


class _Follower(Series):
    """A series of `_Program`, for layers: it forwards events to the current target."""

    __slots__ = ("_relay",)

    def __init__(self, key: Key) -> None:
        self._relay = RelaySink(())
        super().__init__(key, self._relay)

    def _attach(self, series: Series) -> None:
        self._relay.relay_to((series,))


_program = _Program()
_scope: ContextVar[Recorder] = ContextVar("txmetrics_tcp recorder")

os.register_at_fork(after_in_child=lambda: _program.renew_lock())


def set_global_recorder(recorder: Recorder) -> None:
    """
    Install the recorder that the whole program records to.

    Handles and descriptions created earlier, at import time for example, use it from now on.  May
    be called from any thread.  A process has at most one global recorder at a time.  It can replace
    a recorder whose exporter has stopped, and a forked process the one that it inherited.

    @raise TypeError: C{recorder} is not a `Recorder`.
    @raise RecorderInstalledError: a global recorder is already installed.
    @raise Exception: raised by the recorder for an earlier handle or description; the recorder is
        then not installed.
    """
    _program.install(checked_recorder(recorder))


def unset_global_recorder(recorder: Recorder) -> None:
    """
    Undo `set_global_recorder`, for example after an exporter has stopped.  Does nothing if another
    recorder is installed.  May be called from any thread.
    """
    _program.uninstall(recorder)


def call_before_handles(function: Callable[[], object] | None) -> None:
    """
    Call a function before each handle of the program is made, in any thread; None to call none.

    The function must not raise.  Handles that the cache returns are not made again.
    """
    _program.before_handle = function


def has_global_recorder() -> bool:
    """Return whether a global recorder is installed."""
    return _program.has_recorder


@contextmanager
def local_recorder(recorder: Recorder) -> Iterator[Recorder]:
    """
    Return a context manager in which another recorder is the current one::

        with local_recorder(recorder):
            jobs = counter("jobs_total")

    Handles and descriptions created in the block belong to that recorder, also after the block.
    Handles created outside keep their recorder.  The scope is a `contextvars` context: it includes
    coroutines, asyncio tasks and C{inlineCallbacks} functions started in the block, but not
    threads, delayed calls or Deferred callbacks.

    @raise TypeError: C{recorder} is not a `Recorder`; raised when the block is entered.
    """
    token = _scope.set(checked_recorder(recorder))
    try:
        yield recorder
    finally:
        _reset_scope(token)


def current_recorder() -> Recorder:
    """
    Return the recorder that `counter`, `gauge` and `histogram` use.

    It is the recorder of the innermost scope or capture, or the global recorder.  If no recorder is
    installed, handles of the returned recorder discard events until `set_global_recorder` is
    called, and then record to the installed recorder.
    """
    recorder = _scope.get(_program)
    return _program.current() if recorder is _program else recorder


def program_recorder() -> _Program:
    """Return the recorder of code outside scopes.  Bridges use it, also if called in a scope."""
    return _program


def default_recorder(recorder: Recorder | None) -> Recorder:
    """
    Return the recorder of a bridge: the argument, or the program's if it is None.

    @raise TypeError: the argument is not a `Recorder`.
    """
    return _program if recorder is None else checked_recorder(recorder)


def counter(
    name: str,
    labels: Mapping[str, object] | None = None,
    /,
    *unexpected: NoReturn,
    **more: object,
) -> Counter:
    """
    Return the counter with this name and these labels, from the current recorder.

    Without an installed recorder, the counter discards events until one is installed, and then
    records to it.  Modules can therefore create handles at import time::

        requests = counter("requests_total", service="api")

    May be called from any thread.

    @param labels: labels as a mapping, for names that are not Python identifiers.
    @param more: labels as keyword arguments; they override the mapping.  The value of a label is
        text.  The text of an instance of a subclass of `str`, such as a member of
        C{class Route(str, Enum)}, is its characters, as for names; its C{__str__} is not called.
        Values that are not strings are converted with `str`, except under the names C{buckets},
        C{documentation}, C{description} and C{labels}, where they are errors.
    @param unexpected: none are accepted.  The error explains what to do with the arguments of other
        libraries' functions, as in C{counter("x", "help", ["label"])}.
    @raise TypeError: the name, or a label name, is not a `str`; C{labels} is not a mapping, such as
        a description (see `describe_counter`); or a value that is not a string is an error.
    @raise ValueError: the name or a label name is empty; a value cannot be converted to text; a
        string cannot be encoded as UTF-8; or name and labels together exceed 64 KiB of UTF-8.
    """
    if unexpected:
        raise not_a_mapping((MetricKind.COUNTER, name), labels, *unexpected)
    return _scope.get(_program).counter(name, labels, **more)


def gauge(
    name: str,
    labels: Mapping[str, object] | None = None,
    /,
    *unexpected: NoReturn,
    **more: object,
) -> Gauge:
    """
    Return the gauge with this name and these labels, from the current recorder.

    Parameters and errors are those of `counter`.
    """
    if unexpected:
        raise not_a_mapping((MetricKind.GAUGE, name), labels, *unexpected)
    return _scope.get(_program).gauge(name, labels, **more)


def histogram(
    name: str,
    labels: Mapping[str, object] | None = None,
    /,
    *unexpected: NoReturn,
    **more: object,
) -> Histogram:
    """
    Return the histogram with this name and these labels, from the current recorder.

    Parameters and errors are those of `counter`.
    """
    if unexpected:
        raise not_a_mapping((MetricKind.HISTOGRAM, name), labels, *unexpected)
    return _scope.get(_program).histogram(name, labels, **more)


_FIND = {
    MetricKind.COUNTER: counter,
    MetricKind.GAUGE: gauge,
    MetricKind.HISTOGRAM: histogram,
}


def describe_counter(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """
    Describe all counters with this name, for viewers::

        describe_counter("requests_total", "count", "Requests answered.")

    The description is sent to connected clients, and to each client that connects later.
    Descriptions made before a recorder is installed are passed to it.  May be called again to
    replace the description, and from any thread.

    @param unit: the unit of their values: a `Unit`, its string, or None.
    @param description: human-readable text, usually one sentence.
    @raise TypeError: name or description is not a `str`.
    @raise ValueError: the name is empty; the unit is not a `Unit`; or a string exceeds 64 KiB of
        UTF-8 or cannot be encoded as UTF-8.
    """
    _scope.get(_program).describe_counter(name, unit, description)


def describe_gauge(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """
    Describe all gauges with this name.

    Parameters and errors are those of `describe_counter`.
    """
    _scope.get(_program).describe_gauge(name, unit, description)


def describe_histogram(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """
    Describe all histograms with this name.

    Parameters and errors are those of `describe_counter`.
    """
    _scope.get(_program).describe_histogram(name, unit, description)


@contextmanager
def capturing(recorder: Recorder) -> Iterator[None]:
    """
    Return a context manager in which `_program` records to a recorder, in all threads.  Handles of
    scopes are not affected.
    """
    _program.begin_capture(recorder)
    # Handles created in the block belong to _program, even inside a scope.
    token = _scope.set(_program)
    try:
        yield
    finally:
        _reset_scope(token)
        _program.end_capture(recorder)


def _reset_scope(token: Token[Recorder]) -> None:
    # A generator, such as a pytest fixture, may start and finish in different contexts.  The
    # variable was set in the first one only, so it needs no reset.
    with suppress(ValueError):
        _scope.reset(token)
