"""
The few words that instrumented code uses, and the recorder that is behind them.

Three things may be behind them, and the first that there is, is: the recorder of a scope (see
`local_recorder`), a capture (see `txmetrics_tcp.testing.capture`), the program's own.  Handles
made in a scope are that recorder's for ever; all others are those of `_Program`, and follow.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token

from txmetrics_tcp._instruments import forked as forked  # has to be there before a fork
from txmetrics_tcp._instruments.recorder import (
    HANDLES,
    Counter,
    Gauge,
    Handle,
    Histogram,
    NoopRecorder,
    Recorder,
)
from txmetrics_tcp._instruments.sink import NOWHERE, RelaySink, Series
from txmetrics_tcp._model import Key, Metadata, MetricKind, Unit


class RecorderInstalledError(Exception):
    """There is a global recorder already.  It says which."""


class _Program(Recorder):
    """
    The recorder of all who have none of their own: whatever is behind it at the moment.

    It keeps track of its handles, so that those made at import time, say, get to whoever is
    installed later; and of its series, which layers attach to.

    Making handles takes no lock, since a finalizer may do so anywhere, and a recorder's own locks
    may be held then.  Who makes one attaches it, until what it was attached to is what
    is behind: who changes that afterwards finds the handle among the known ones.
    """

    def __init__(self) -> None:
        super().__init__()
        # Weakly: who asks for handles in a loop and keeps none must not fill the memory.  A plain
        # set, as adding to it, discarding from it and listing it are atomic, other than
        # with a WeakSet.
        self._followers: set[weakref.ref[Handle | _Follower]] = set()
        self._described: dict[tuple[MetricKind, str], Metadata] = {}
        self._nobody = NoopRecorder()
        # To be changed under the lock, and read without.
        self._behind: Recorder = self._nobody
        self._installed: Recorder | None = None
        self._installed_in = 0
        self._captures: list[Recorder] = []
        self.renew_lock()

    def __repr__(self) -> str:
        return "<the recorder of a program that has none yet>"

    def attach(self, key: Key) -> Series:
        follower = _Follower(key)
        self._attach_for_good(follower)
        return follower

    def describe(self, metadata: Metadata) -> None:
        if not self._captures:
            # For whoever is installed later.
            self._described[metadata.kind, metadata.name] = metadata
        while True:
            behind = self._behind
            behind.describe(metadata)
            if self._behind is behind:
                return

    def _new_handle(self, kind: MetricKind, key: Key) -> Handle:
        handle = HANDLES[kind](key, Series(key, NOWHERE), self)
        self._attach_for_good(handle)
        return handle

    def _attach_for_good(self, follower: Handle | _Follower) -> None:
        self._followers.add(weakref.ref(follower, self._followers.discard))
        while True:
            behind = self._behind
            follower._attach(behind.attach(follower.key))
            if self._behind is behind:
                return

    def current(self) -> Recorder:
        """What is behind; or this one, if nobody is."""
        behind = self._behind
        return self if behind is self._nobody else behind

    def install(self, recorder: Recorder) -> None:
        """See `set_global_recorder`."""
        with self._lock:
            # A process that was forked from one with a recorder may have one of its own.
            if self._installed is not None and self._installed_in == os.getpid():
                raise RecorderInstalledError(
                    f"a global recorder is installed already: {self._installed!r}"
                )
            before = self._installed
            self._installed = recorder
            try:
                for metadata in list(self._described.values()):
                    recorder.describe(metadata)
                self._follow()
            except BaseException:
                # A prefix may make a name too long, for example.
                self._installed = before
                self._follow()
                raise
            self._installed_in = os.getpid()

    def uninstall(self, recorder: Recorder) -> None:
        """See `unset_global_recorder`."""
        with self._lock:
            if self._installed is recorder:
                self._installed = None
                self._follow()

    def begin_capture(self, recorder: Recorder) -> None:
        """Put a recorder in front of all others."""
        with self._lock:
            self._captures.append(recorder)
            self._follow()

    def end_capture(self, recorder: Recorder) -> None:
        """Take it away again."""
        with self._lock:
            self._captures.remove(recorder)
            self._follow()

    def renew_lock(self) -> None:
        """In a child after a fork: who held the lock may not exist here."""
        # Re-entrant, as one that is installed may be a recorder that installs.
        self._lock = threading.RLock()

    def _follow(self) -> None:
        behind = self._nobody if self._installed is None else self._installed
        if self._captures:
            behind = self._captures[-1]
        if behind is self._behind:
            return
        self._behind = behind
        for reference in list(self._followers):
            follower = reference()
            if follower is not None:
                follower._attach(behind.attach(follower.key))


class _Follower(Series):
    """What a layer over the program's recorder records to."""

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
    Make a recorder the one that the whole program records to, once and for all.

    Handles and descriptions that were made before, at import time for example, are its from
    now on.  May be called from any thread.  A process that was forked from one that has a global
    recorder may set one of its own.

    @raise RecorderInstalledError: there is one already.
    """
    _program.install(recorder)


def unset_global_recorder(recorder: Recorder) -> None:
    """
    Take `set_global_recorder` back, where what was to be behind it could not start or has
    stopped.  Nothing happens if another one is the global recorder.
    """
    _program.uninstall(recorder)


@contextmanager
def local_recorder(recorder: Recorder) -> Iterator[Recorder]:
    """
    Within this, handles that are made, and descriptions, are those of another recorder::

        with local_recorder(recorder):
            jobs = counter("jobs_total")

    Handles that exist already stay where they belong; those made here stay where they were
    made.  The scope is a matter of `contextvars`: it follows into coroutines, asyncio tasks and
    C{inlineCallbacks} functions that are started in it, and not into threads, delayed calls and
    callbacks of Deferreds.
    """
    token = _scope.set(recorder)
    try:
        yield recorder
    finally:
        _leave(token)


def current_recorder() -> Recorder:
    """
    The recorder that handles made now belong to: that of a scope, or the global one; without one,
    a recorder that hands over what it was asked for as soon as there is one.
    """
    recorder = _scope.get(_program)
    return _program.current() if recorder is _program else recorder


def counter(name: str, labels: Mapping[str, object] | None = None, /, **more: object) -> Counter:
    """
    The counter of that name and labels, of the current recorder.

    Made before a recorder is installed, it begins to work when one is.  Parameters and errors
    are those of `Recorder.counter`.
    """
    return _scope.get(_program).counter(name, labels, **more)


def gauge(name: str, labels: Mapping[str, object] | None = None, /, **more: object) -> Gauge:
    """The gauge of that name and labels.  See `counter`."""
    return _scope.get(_program).gauge(name, labels, **more)


def histogram(
    name: str, labels: Mapping[str, object] | None = None, /, **more: object
) -> Histogram:
    """The histogram of that name and labels.  See `counter`."""
    return _scope.get(_program).histogram(name, labels, **more)


def describe_counter(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """
    Say what the counters of that name count.  Parameters and errors are those of
    `Recorder.describe_counter`.
    """
    _scope.get(_program).describe_counter(name, unit, description)


def describe_gauge(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """Say what the gauges of that name show.  See `describe_counter`."""
    _scope.get(_program).describe_gauge(name, unit, description)


def describe_histogram(name: str, unit: Unit | str | None = None, description: str = "") -> None:
    """Say what the histograms of that name measure.  See `describe_counter`."""
    _scope.get(_program).describe_histogram(name, unit, description)


@contextmanager
def capturing(recorder: Recorder) -> Iterator[None]:
    """
    Within this, all that uses the functions of this module records to one recorder, handles that
    exist already too, in every thread; but for handles of scopes.
    """
    _program.begin_capture(recorder)
    # Handles made from here on are those of the program, also within a scope around this.
    token = _scope.set(_program)
    try:
        yield
    finally:
        _leave(token)
        _program.end_capture(recorder)


def _leave(token: Token[Recorder]) -> None:
    # A generator, a fixture of pytest's for example, may be finished in another context than it
    # began in; what it set has gone with that one.
    with suppress(ValueError):
        _scope.reset(token)
