"""
An exporter for programs that have no reactor of their own: the reactor runs in a thread.

The thread is a daemon, which no exit of the program waits for.  What flushes at the end
is `atexit`, whose functions run when all other threads have ended, and so after the last event that
can be flushed.  The thread stays until then even if every exporter has been stopped, since a
reactor cannot be started a second time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorAlreadyRunning, ReactorNotRestartable
from twisted.internet.interfaces import IAddress
from twisted.logger import ILogObserver, LogEvent, STDLibLogObserver, globalLogPublisher
from twisted.python import threadable
from twisted.python.failure import Failure
from zope.interface import provider

from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._instruments import forked
from txmetrics_tcp._instruments.facade import RecorderInstalledError, unset_global_recorder
from txmetrics_tcp._net.internals import (
    call_at_exit,
    global_reactor,
    reactor_thread_exists,
    replace_reactor,
)

STOP_MARGIN = 4.0
"""
How many seconds longer than clients have to take what waits, `ThreadedExporter.stop` waits for
the reactor unless told otherwise.
"""

EXIT_MARGIN = 1.0
"""The same at the end of the program."""

_LOOK_INTERVAL = 0.1
"""How often, in seconds, who waits for the reactor looks whether it is still there."""

_T = TypeVar("_T")


class ReactorThreadError(Exception):
    """The reactor cannot be used from this thread.  It says why, and what to do instead."""


class ThreadedExporter:
    """
    An exporter that runs beside the program, in the reactor's thread.

    It comes from `TcpBuilder.install_in_thread`.  Everything may be called from any thread but the
    reactor's.  As a context manager it stops at the end of the block.

    @ivar recorder: the recorder; the global one until this is stopped.
    """

    def __init__(self, reactor: Any, recorder: TcpRecorder, flush_timeout: float) -> None:
        """
        @param flush_timeout: how many seconds clients have at the end.
        """
        self.recorder = recorder
        self._flush_timeout = flush_timeout
        self._reactor = reactor
        self._process = os.getpid()
        _exporters.append(self)
        _stop_at_exit()

    def __repr__(self) -> str:
        return f"<ThreadedExporter on {', '.join(map(str, self.addresses)) or 'nothing'}>"

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """Where it listens; empty when it has stopped."""
        return self.recorder.addresses

    def stop(self, timeout: float | None = None) -> None:
        """
        Stop listening, send what was recorded, and close every connection; wait for it.

        Clients have a second to take what waits for them, or what `TcpBuilder.flush_timeout`
        says.  The recorder is the global one no more, so that another one may be installed.
        Nothing happens where all of it has happened already, where the reactor has stopped, and in
        a process that was forked since.

        The program's end does the same by itself, if it is an orderly one: the end of the main
        thread, an exception, or `sys.exit`, but no signal.

        @param timeout: for how many seconds to wait at most; four more than clients have, unless
            given.
        @raise TimeoutError: the reactor did not come round to it so far.
        @raise ReactorThreadError: called on the reactor's thread, which this would wait for.
        """
        if timeout is None:
            timeout = self._flush_timeout + STOP_MARGIN
        try:
            if self._process == os.getpid() and _runs(self._reactor):
                if threadable.isInIOThread():
                    raise ReactorThreadError(
                        "this is the reactor's thread, which stop() would wait for: call"
                        " recorder.stop() here, which returns a Deferred"
                    )
                _call(self._reactor, self.recorder.stop, timeout)
        except ReactorStoppedError:
            # On its own, with all that it did.
            pass
        unset_global_recorder(self.recorder)
        with suppress(ValueError):
            _exporters.remove(self)

    def __enter__(self) -> ThreadedExporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def install_in_thread(
    reactor: Any, install: Callable[[], Deferred[TcpRecorder]], flush_timeout: float
) -> ThreadedExporter:
    """
    See `TcpBuilder.install_in_thread`.

    @param reactor: from `own_reactor`.
    @param flush_timeout: how many seconds clients have when what is installed stops.
    """
    with _lock:
        _make_run(reactor)
    try:
        return ThreadedExporter(reactor, _call(reactor, install), flush_timeout)
    except RecorderInstalledError as error:
        if not _exporters:
            raise
        raise RecorderInstalledError(
            f"metrics are streamed already, by {_exporters[-1]!r}: use that, or stop() it first"
        ) from error


class ReactorStoppedError(ReactorThreadError):
    """The reactor stopped while it was waited for."""


class _ReactorThread(threading.Thread):
    """
    Runs a reactor.

    @ivar up: set when it runs, or cannot.
    @ivar error: why it cannot.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(name="txmetrics-tcp reactor", daemon=True)
        self.reactor = reactor
        self.up = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.reactor.callWhenRunning(self.up.set)
            # Signal handlers are the main thread's, and the program's own business.
            self.reactor.run(installSignalHandlers=False)
        except Exception as error:
            self.error = error
        finally:
            self.up.set()

    def stop(self, timeout: float) -> None:
        """Stop the reactor, and wait for that, if it is not stopped yet."""

        def stop() -> None:
            if self.reactor.running:
                self.reactor.stop()

        if self.is_alive():
            self.reactor.callFromThread(stop)
            self.join(timeout)


_lock = threading.RLock()
_threads: list[_ReactorThread] = []
_exporters: list[ThreadedExporter] = []
_exit_registered = False


def _after_fork_in_child() -> None:
    global _lock, _exit_registered
    _lock = threading.RLock()
    # Both are the parent's.  What it registered for its exit may be gone here: multiprocessing
    # clears it.
    _threads.clear()
    _exporters.clear()
    _exit_registered = False


os.register_at_fork(after_in_child=_after_fork_in_child)


def own_reactor(given: Any = None) -> Any:
    """
    The reactor of this process; a new one in its place, if it is a parent's that never ran.

    @param given: the one that it has to be, if any.
    @raise ReactorThreadError: it is a parent's, and ran there, or it has to be that one.
    """
    reactor = given or global_reactor()
    if reactor is not forked.inherited_reactor:
        return reactor
    if reactor.running:
        raise ReactorThreadError(
            "the reactor ran already when this process was forked, and cannot be used here:"
            " install after forking, in each process, and not before"
        )
    new = replace_reactor(reactor) if given is None else None
    if new is None:
        raise ReactorThreadError(
            "this reactor was made before this process was forked, and shares descriptors with"
            " those of all other processes: leave it to the builder, or make it after forking"
        )
    return new


def _make_run(reactor: Any) -> None:
    if not reactor.running:
        thread = _ReactorThread(reactor)
        _threads.append(thread)
        thread.start()
        thread.up.wait()
        error = thread.error
        if error is None:
            _tell_logging()
            return
        _threads.remove(thread)
        if isinstance(error, ReactorNotRestartable):
            raise ReactorThreadError(
                "the reactor has run and stopped, and a reactor runs only once: install before,"
                " or in a new process"
            ) from error
        if not isinstance(error, ReactorAlreadyRunning):
            raise ReactorThreadError(f"the reactor does not run in a thread: {error}") from error
        # Somebody else has been quicker.
    if threadable.isInIOThread():
        raise ReactorThreadError(
            "this is the reactor's thread, and the reactor runs: call install() here, which"
            " returns a Deferred"
        )
    if not _runs(reactor):
        raise ReactorThreadError(
            "the reactor's thread does not exist (any more), as in a process that was forked when"
            " it ran: install after forking, in each process, and not before"
        )


def _runs(reactor: Any) -> bool:
    """Whether a reactor runs, in a thread of this process."""
    return bool(reactor.running) and reactor_thread_exists()


def _call(reactor: Any, function: Callable[[], Deferred[_T]], timeout: float | None = None) -> _T:
    """
    Call a function on the reactor's thread, and wait for its Deferred.

    `blockingCallFromThread` does it too, but for ever.

    @raise TimeoutError: it took longer.
    @raise ReactorStoppedError: the reactor stopped.
    """
    came = threading.Event()
    results: list[Any] = []

    def keep(result: Any) -> None:
        results.append(result)
        came.set()

    reactor.callFromThread(lambda: maybeDeferred(function).addBoth(keep))
    deadline = None if timeout is None else time.monotonic() + timeout
    while not came.wait(
        _LOOK_INTERVAL
        if deadline is None
        else max(0.0, min(_LOOK_INTERVAL, deadline - time.monotonic()))
    ):
        if not _runs(reactor):
            raise ReactorStoppedError("the reactor has stopped")
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"the reactor did not come round to it within {timeout} seconds")
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[no-any-return]


def _stop_at_exit() -> None:
    global _exit_registered
    if not _exit_registered:
        _exit_registered = True
        call_at_exit(_at_exit)


def _at_exit() -> None:
    for exporter in list(_exporters):
        # What cannot be flushed now never will be, and there is nobody left to be told.
        with suppress(Exception):
            exporter.stop(exporter._flush_timeout + EXIT_MARGIN)
    for thread in list(_threads):
        with suppress(Exception):
            thread.stop(_LOOK_INTERVAL * 10)


def _tell_logging() -> None:
    """
    Let the program's own logging have what the exporter has to say.

    A program without a reactor hardly looks at Twisted's log, where losses are reported.
    """
    to_logging = STDLibLogObserver(name="txmetrics_tcp")

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).split(".")[0] == "txmetrics_tcp":
            to_logging(event)

    globalLogPublisher.addObserver(observe)
