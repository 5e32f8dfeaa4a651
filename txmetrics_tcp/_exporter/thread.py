"""
An exporter for programs that run no reactor: the reactor runs in a thread.

The thread is a daemon, so it does not keep the program alive.  At exit, an `atexit` function
flushes pending events.  It runs after all threads that are not daemons have ended, so it flushes
their last events.  The reactor thread runs until then even if all exporters have been stopped,
because a reactor cannot be restarted.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorAlreadyRunning, ReactorNotRestartable
from twisted.internet.interfaces import IAddress
from twisted.logger import ILogObserver, LogEvent, STDLibLogObserver, globalLogPublisher
from twisted.python import threadable
from twisted.python.failure import Failure
from zope.interface import provider

from txmetrics_tcp._checks import seconds_from
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
By default, `ThreadedExporter.stop` waits for this number of seconds longer than the exporter takes.
"""

EXIT_MARGIN = 1.0
"""The same margin, in seconds, at program exit."""

_POLL_INTERVAL = 0.1
"""How often, in seconds, a waiting thread checks that the reactor still runs."""

_T = TypeVar("_T")


class ReactorThreadError(Exception):
    """The reactor cannot be used on this thread.  The message names the cause and a remedy."""


class ThreadedExporter:
    """
    An exporter that runs in the reactor thread, beside the program.

    `TcpBuilder.install_in_thread` makes instances.  All methods may be called on any thread but the
    reactor's.  As a context manager, it stops at the end of the block.

    @ivar recorder: the recorder; the global one until the exporter is stopped.
    """

    def __init__(self, reactor: Any, recorder: TcpRecorder, stop_timeout: float) -> None:
        """
        @param stop_timeout: the number of seconds that the exporter waits when it stops: for
            connections to collectors, then for clients to read their pending data.
        """
        self.recorder = recorder
        self._stop_timeout = stop_timeout
        self._reactor = reactor
        self._process = os.getpid()
        # An earlier one no longer has the global recorder: `recorder.stop` may have stopped it.
        _exporters[:] = [self]
        _stop_at_exit()

    def __repr__(self) -> str:
        return f"<ThreadedExporter on {', '.join(map(str, self.addresses)) or 'nothing'}>"

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """The addresses that the exporter listens on; empty after `stop`, and in a forked child."""
        return self.recorder.addresses

    def stop(self, timeout: float | None = None) -> None:
        """
        Stop listening, send pending events, and close all connections.  Blocks until that is done.

        Clients have C{flush_timeout} seconds (see `ExporterSettings`) to read their pending data.
        The recorder is uninstalled, even if stopping fails, so another global recorder may be
        installed.  If the reactor has already stopped, or in a child process, nothing else happens.

        The exporter stops by itself when the program ends: after the main thread has returned,
        after an unhandled exception, and after `sys.exit`, but not if a signal kills the process.

        @param timeout: the maximum number of seconds to wait; by default, C{flush_timeout} plus
            four seconds, and C{wait_at_exit} of collectors.
        @raise TypeError: the timeout is not a number.
        @raise ValueError: the timeout is negative, 1,000,000,000 seconds or more, or NaN.
        @raise TimeoutError: the reactor did not respond in time.
        @raise ReactorThreadError: called on the reactor thread, which this would block.
        """
        if timeout is None:
            timeout = self._stop_timeout + STOP_MARGIN
        timeout = seconds_from(0, "timeout", timeout)
        runs = self._process == os.getpid() and _is_running(self._reactor)
        if runs and threadable.isInIOThread():
            raise ReactorThreadError(
                "stop() would wait for the reactor thread, which is this thread: call"
                " recorder.stop() here, which returns a Deferred"
            )
        try:
            # If the reactor stops, the exporter has ended with it.
            with suppress(ReactorStoppedError):
                if runs:
                    _call(self._reactor, self.recorder.stop, timeout)
        finally:
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
    reactor: Any, install: Callable[[], Deferred[TcpRecorder]], stop_timeout: float
) -> ThreadedExporter:
    """
    See `TcpBuilder.install_in_thread`.

    @param reactor: a result of `own_reactor`.
    @param stop_timeout: see `ThreadedExporter`.
    """
    with _lock:
        _ensure_running(reactor)
    try:
        return ThreadedExporter(reactor, _call(reactor, install), stop_timeout)
    except RecorderInstalledError as error:
        if not (_exporters and _exporters[-1].addresses):
            # Another recorder is installed.
            raise
        raise RecorderInstalledError(
            f"metrics are streamed already, by {_exporters[-1]!r}: use it, or call its stop() first"
        ) from error


class ReactorStoppedError(ReactorThreadError):
    """The reactor stopped while a call waited for it."""


class ReactorThread(threading.Thread):
    """
    Runs a reactor.

    @ivar up: set when the reactor runs or has failed to start.
    @ivar error: the exception that prevented the reactor from starting, or None.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(name="txmetrics-tcp reactor", daemon=True)
        self.reactor = reactor
        self.up = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.reactor.callWhenRunning(self.up.set)
            # Signal handlers belong to the main thread and to the program.
            self.reactor.run(installSignalHandlers=False)
        except Exception as error:
            self.error = error
        finally:
            self.up.set()

    def call(self, function: Callable[[], Deferred[_T]], timeout: float | None = None) -> _T:
        """See `_call`."""
        return _call(self.reactor, function, timeout, lambda reactor: self.is_alive())

    def stop(self, timeout: float) -> None:
        """Stop the reactor if it runs, and wait for its thread to end."""

        def stop() -> None:
            if self.reactor.running:
                self.reactor.stop()

        if self.is_alive():
            self.reactor.callFromThread(stop)
            self.join(timeout)


_lock = threading.RLock()
_threads: list[ReactorThread] = []
_exporters: list[ThreadedExporter] = []
_exit_registered = False
_forwards = False


class HeldLog:
    """
    What the reactor thread logs while the program waits for it.

    A program may wait while it holds the lock of a log handler, or of `logging`.  The reactor
    thread must not wait for that lock, since the program would wait for a time limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] | None = []

    def add(self, call: Callable[[], object]) -> bool:
        """
        Keep a call that logs, on the reactor thread.

        @return: whether it will be made; otherwise, the caller has to.
        """
        if not isinstance(threading.current_thread(), ReactorThread):
            return False
        with self._lock:
            if self._calls is None:
                return False
            self._calls.append(call)
            return True

    def release(self) -> None:
        """Make the calls that were kept, on the calling thread, and stop keeping them."""
        with self._lock:
            calls, self._calls = self._calls or [], None
        for call in calls:
            call()


_held_log: HeldLog | None = None


def hold_log() -> HeldLog:
    """Hold what the reactor thread logs, until the result is released."""
    global _held_log
    _held_log = HeldLog()
    return _held_log


def log_call(call: Callable[[], object]) -> None:
    """Make a call that logs, now or once the program no longer waits for the reactor thread."""
    held = _held_log
    if held is None or not held.add(call):
        call()


def _after_fork_in_child() -> None:
    global _lock, _exit_registered, _held_log
    _lock = threading.RLock()
    _held_log = None
    # The threads and exporters belong to the parent.  The exit function has to be registered again:
    # multiprocessing may have unregistered it.
    _threads.clear()
    _exporters.clear()
    _exit_registered = False


os.register_at_fork(after_in_child=_after_fork_in_child)


def own_reactor(given: Any = None) -> Any:
    """
    Return a reactor that this process can use.  A reactor that was inherited from a parent process
    and has never run is replaced by a new one.

    @param given: the reactor to use; by default, the global one.
    @raise ReactorThreadError: the inherited reactor ran in the parent, was passed as C{given}, or
        cannot be replaced.
    """
    reactor = given or global_reactor()
    if reactor is not forked.inherited_reactor:
        return reactor
    if reactor.running:
        raise ReactorThreadError(
            "the reactor was already running when this process was forked, and cannot be used here:"
            " install after forking, in each process"
        )
    new = replace_reactor(reactor) if given is None else None
    if new is None:
        raise ReactorThreadError(
            "this reactor was made before this process was forked, and shares descriptors with"
            " other processes: pass no reactor to the builder, or make one after forking"
        )
    return new


def _ensure_running(reactor: Any) -> None:
    if not reactor.running:
        thread = ReactorThread(reactor)
        _threads.append(thread)
        thread.start()
        thread.up.wait()
        error = thread.error
        if error is None:
            forward_log()
            return
        _threads.remove(thread)
        if isinstance(error, ReactorNotRestartable):
            raise ReactorThreadError(
                "the reactor has run and stopped, and a reactor runs only once: install before it"
                " stops, or in a new process"
            ) from error
        if not isinstance(error, ReactorAlreadyRunning):
            raise ReactorThreadError(f"the reactor cannot run in a thread: {error}") from error
        # Another thread has started the reactor meanwhile.
    if threadable.isInIOThread():
        raise ReactorThreadError(
            "this is the reactor's thread, and the reactor is running: call install() here, which"
            " returns a Deferred"
        )
    if not _is_running(reactor):
        raise ReactorThreadError(
            "the reactor's thread does not exist in this process, which was probably forked while"
            " the reactor ran: install after forking, in each process"
        )


def _is_running(reactor: Any) -> bool:
    """Return whether a reactor runs in a thread of this process."""
    return bool(reactor.running) and reactor_thread_exists()


def _call(
    reactor: Any,
    function: Callable[[], Deferred[_T]],
    timeout: float | None = None,
    is_running: Callable[[Any], bool] = _is_running,
) -> _T:
    """
    Call a function on the reactor thread, and wait for its Deferred.

    Unlike `blockingCallFromThread`, it can time out, and notices that the reactor has stopped.

    @param timeout: seconds; None for no limit.
    @param is_running: returns whether the reactor runs in a thread of this process.
    @raise TimeoutError: the timeout has passed.
    @raise ReactorStoppedError: the reactor has stopped.
    """
    done = threading.Event()
    results: list[Any] = []

    def keep(result: Any) -> None:
        results.append(result)
        done.set()

    reactor.callFromThread(lambda: maybeDeferred(function).addBoth(keep))
    deadline = None if timeout is None else time.monotonic() + timeout
    while not done.wait(
        _POLL_INTERVAL
        if deadline is None
        else max(0.0, min(_POLL_INTERVAL, deadline - time.monotonic()))
    ):
        if not is_running(reactor):
            raise ReactorStoppedError("the reactor has stopped")
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"the reactor did not respond within {timeout} seconds")
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
        # Errors cannot be reported any longer, and pending events cannot be sent later.
        with suppress(Exception):
            exporter.stop(exporter._stop_timeout + EXIT_MARGIN)
    for thread in list(_threads):
        with suppress(Exception):
            thread.stop(_POLL_INTERVAL * 10)


def forward_log() -> None:
    """
    Forward log events of txmetrics_tcp to the standard library's logging.

    Programs without a reactor rarely observe Twisted's log, and would not see reports of lost
    events.
    """
    global _forwards
    if _forwards:
        # A forked child has the parent's observer.
        return
    _forwards = True
    to_logging = STDLibLogObserver(name="txmetrics_tcp")

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).split(".")[0] == "txmetrics_tcp":
            log_call(partial(to_logging, event))

    globalLogPublisher.addObserver(observe)
