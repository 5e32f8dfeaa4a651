"""
The exporter that the environment variable C{TXMETRICS_TCP_LISTEN} asks for.

`txmetrics_tcp` starts it before the program's first handle.  Its reactor is private: a program that
uses Twisted, asyncio or nothing of the kind does not notice it.  No failure raises in the program;
it is logged with `logging`.

In a forked child, the recorder begins again without events, and the first event or new handle
starts a thread that listens.  The thread that records does not wait for it: the event may come from
a signal handler or a finalizer, in a process in which other threads' locks may never be released.
A child that records nothing, because it executes another program or forks again, does nothing.

With a port, only one process can listen.  The others keep their totals, and try again until they
can.
"""

from __future__ import annotations

import _thread
import errno
import logging
import os
import re
import sys
import threading
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.failure import Failure

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._exporter.factory import MetricsFactory
from txmetrics_tcp._exporter.program_name import program_name
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._exporter.service import MetricsService
from txmetrics_tcp._exporter.thread import (
    EXIT_MARGIN,
    ReactorStoppedError,
    ReactorThread,
    forward_log,
    hold_log,
    log_call,
)
from txmetrics_tcp._instruments.facade import (
    RecorderInstalledError,
    call_before_handles,
    has_global_recorder,
    set_global_recorder,
    unset_global_recorder,
)
from txmetrics_tcp._net.endpoint_syntax import EndpointError, host_and_port, reads_as_endpoint
from txmetrics_tcp._net.endpoints import server_endpoint
from txmetrics_tcp._net.internals import call_at_exit, private_reactor
from txmetrics_tcp._net.listening import ListenError
from txmetrics_tcp._net.unix import IN_USE, MAX_PATH, UnixReactor, remove_stale_socket

_log = logging.getLogger("txmetrics_tcp")

VARIABLE = "TXMETRICS_TCP_LISTEN"

START_TIMEOUT = 10.0
"""
The longest time, in seconds, that the program waits until the exporter listens.  It listens within
milliseconds, unless the machine is overloaded.
"""

FIRST_RETRY = 0.1
LONGEST_RETRY = 5.0
"""
The seconds until the exporter tries again to listen on an address in use.  They double with each
attempt, up to the longest.
"""

MAX_NAME = 40
"""The maximum length of the program's name in the name of a socket, in characters."""

_MODE = 0o600
_DIRECTORY_MODE = 0o700
_SOCKET = re.compile(r".+-(?P<process>[1-9][0-9]{0,9})\.sock", re.ASCII | re.DOTALL)

OnStart = Callable[[TcpRecorder, Any], object]


def start() -> None:
    """
    Start the exporter that the environment asks for, and wait until it listens.

    Does nothing if the variable is not set, if a global recorder is installed, or if this function
    was called before in this process.  In a forked child of a process that did, starts the exporter
    of the child.  Raises no exception.  Thread-safe.
    """
    if isinstance(threading.current_thread(), ReactorThread):
        # A callback of `on_start` makes a handle.
        return
    # Other threads that make handles wait, so that their first events are not lost; but not
    # indefinitely, because they may hold a lock that an import of the starting thread needs.
    if not _state.lock.acquire(timeout=START_TIMEOUT):
        return
    try:
        _state.start()
    finally:
        _state.lock.release()


def on_start(callback: OnStart) -> None:
    """
    Have a function called once the exporter exists: in this process, immediately if it exists
    already, and in each forked child in which it starts again.

    Thread-safe.

    @param callback: called on the reactor thread with the recorder and the private reactor, before
        the exporter listens.  An exception is logged.
    """
    _state.callbacks.append(callback)
    exporter = _state.exporter
    if exporter is not None and exporter.process == os.getpid():
        exporter.reactor.callFromThread(exporter.call_back)


class _State:
    """
    The state of this process.

    @ivar lock: held by the thread that starts the exporter.
    @ivar exporter: the exporter; also that of the parent, which can start again in a child.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.callbacks: list[OnStart] = []
        self.exporter: _Exporter | None = None
        self._starting = False

    def start(self) -> None:
        if self._starting:
            # A finalizer or a signal handler makes a handle while this thread starts the exporter.
            return
        self._starting = True
        try:
            self._start()
        except Exception as error:
            _log.warning("%s: no metrics are streamed: %s", VARIABLE, error)
            if self.exporter is not None:
                self.exporter.give_up()
        finally:
            call_before_handles(None)
            self._starting = False

    def _start(self) -> None:
        exporter = self.exporter
        if exporter is not None:
            exporter.start_again()
            return
        value = os.environ.get(VARIABLE, "").strip()
        if not value or has_global_recorder():
            return
        self.exporter = _Exporter(Address.parse(value))
        with suppress(RecorderInstalledError):
            # Another thread may install one meanwhile.
            self.exporter.start()

    def after_fork(self) -> None:
        self.lock = threading.RLock()
        self._starting = False
        if self.exporter is not None and self.exporter.wanted:
            self.exporter.after_fork()


class Address(NamedTuple):
    """
    Where the processes of a program listen.

    @ivar text: an endpoint, or the absolute path of a directory.
    @ivar is_directory: whether each process has a socket in the directory.
    """

    text: str
    is_directory: bool

    @classmethod
    def parse(cls, value: str) -> Address:
        """
        Interpret the value of the variable.  It is a directory if it ends with a slash, or if a
        directory with this name exists and the value is not an endpoint.
        """
        if value.endswith("/") or (not reads_as_endpoint(value) and os.path.isdir(value)):
            # Absolute, since a daemon changes its working directory.
            return cls(os.path.abspath(value), True)
        return cls(value, False)

    def endpoint(self, reactor: Any) -> IStreamServerEndpoint:
        """
        Make the endpoint of this process.

        @raise EndpointError: the value is not an endpoint, or the path of the socket is too long.
        @raise OSError: the directory cannot be made.
        """
        if not self.is_directory:
            # Without a search for plugins, which would import modules of other packages.
            found = host_and_port(self.text, lambda host: "." not in host and host != "localhost")
            return server_endpoint(reactor, self.text if found is None else found)
        os.makedirs(self.text, _DIRECTORY_MODE, exist_ok=True)
        remove_stale_sockets(self.text)
        path = os.path.join(self.text, socket_name())
        if len(os.fsencode(path)) > MAX_PATH:
            raise EndpointError(
                f"the path of the socket is longer than {MAX_PATH} bytes: {short_repr(path)}"
            )
        return UNIXServerEndpoint(UnixReactor(reactor), path, mode=_MODE)


def socket_name() -> str:
    """Return the name of the socket of this process: ``PROGRAM-PID.sock``."""
    name = re.sub(r"[^\w.-]", "_", program_name().removesuffix(".py"), flags=re.ASCII)[:MAX_NAME]
    # `python -c`.
    if name.startswith("-") or not name.strip("."):
        name = "python"
    return f"{name}-{os.getpid()}.sock"


def remove_stale_sockets(directory: str) -> None:
    """
    Remove the sockets in a directory whose processes no longer exist.

    A socket is removed only if nothing listens on it and no other process has the number in its
    name.  The number alone is not sufficient: the directory may be shared with a container.  This
    process may have had another name before it executed this program.
    """
    with suppress(OSError):
        for name in os.listdir(directory):
            match = _SOCKET.fullmatch(name)
            if match is not None and not _is_other(int(match["process"])):
                with suppress(OSError, CannotListenError):
                    remove_stale_socket(os.path.join(directory, name))


def _is_other(process: int) -> bool:
    """Return whether another process with this number exists."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # For example, another user's.
        return True
    return True


class _Exporter:
    """
    The exporter of this process.

    @ivar recorder: the recorder; the same object in forked children.
    @ivar process: the process that it was last started in.
    @ivar wanted: whether it should run; false once another recorder was installed.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._thread = ReactorThread(private_reactor())
        self._factory = MetricsFactory(
            self._thread.reactor, in_reactor_thread=self._in_reactor_thread
        )
        self._factory.restart_in_children(self.start_in_background)
        self._service = self._make_service()
        self.recorder: TcpRecorder = TcpRecorder(self._factory.incoming, self._service)
        self.recorder.replaceable = True
        self.recorder._on_replaced = self._stop_replaced
        self.process = os.getpid()
        self.wanted = True
        # The number of callbacks of `on_start` that have been called.
        self._called = 0
        self._starting_in = 0
        self._retry = FIRST_RETRY

    @property
    def reactor(self) -> Any:
        """The private reactor of this process."""
        return self._thread.reactor

    def start(self) -> None:
        """
        Install the recorder, run the reactor, and wait for the first attempt to listen.

        @raise RecorderInstalledError: another recorder is installed.
        """
        try:
            set_global_recorder(self.recorder)
        except RecorderInstalledError:
            self.wanted = False
            raise
        self._run()

    def give_up(self) -> None:
        """Uninstall the recorder: nothing will listen."""
        self.wanted = False
        unset_global_recorder(self.recorder)

    def after_fork(self) -> None:
        """In a forked child, wait for the first event or handle."""
        # The service's ports are the parent's.
        self.recorder._use_exporter(self._factory)
        call_before_handles(self.start_in_background)

    def start_in_background(self) -> None:
        """In a forked child, start the exporter in a new thread, unless that has been done."""
        process = os.getpid()
        if self._starting_in == process or not self.wanted:
            return
        self._starting_in = process
        call_before_handles(None)
        # Not `threading.Thread`, which takes locks: a signal handler may have interrupted this
        # thread while it held them.  The process may not be allowed to start another thread.
        with suppress(RuntimeError):
            start_new_thread(start, ())

    def start_again(self) -> None:
        """
        In a forked child, start the exporter.

        @raise EndpointError: the socket of this process cannot be used.
        @raise RuntimeError: threads were replaced by greenlets after this module was imported.
            The reactor would block all of them.
        """
        if self.process == os.getpid() or not self.wanted:
            return
        if _are_greenlets():
            raise RuntimeError(
                f"process {os.getpid()} was forked after gevent's monkey.patch_all(), which must"
                " run before the first handle"
            )
        self._starting_in = os.getpid()
        self._called = 0
        self._retry = FIRST_RETRY
        self._thread = ReactorThread(private_reactor())
        self._factory.use_reactor(self._thread.reactor, self._in_reactor_thread)
        self._service = self._make_service()
        self.recorder._use_exporter(self._service)
        # From here on, `on_start` uses the reactor.
        self.process = os.getpid()
        self._run()

    def call_back(self) -> None:
        """Call the callbacks of `on_start` that have not been called.  On the reactor thread."""
        while self._called < len(_state.callbacks):
            callback = _state.callbacks[self._called]
            self._called += 1
            try:
                callback(self.recorder, self._thread.reactor)
            except Exception:
                text = "%s: a function called at the start failed"
                log_call(partial(_log.error, text, VARIABLE, exc_info=sys.exc_info()))

    def stop(self, timeout: float) -> None:
        """
        Stop, and wait until pending events are sent, and the reactor has stopped.

        @param timeout: seconds.
        """
        if self.process != os.getpid():
            return
        thread = self._thread
        with suppress(TimeoutError, ReactorStoppedError):
            if thread.is_alive():
                thread.call(self._service.stop, timeout)
        if not _are_greenlets():
            # Otherwise, the end of the thread would be reported as an error.
            thread.stop(EXIT_MARGIN)

    def _in_reactor_thread(self) -> bool:
        return get_ident() == self._thread.ident

    def _make_service(self) -> MetricsService:
        endpoint = self._address.endpoint(self._thread.reactor)
        return MetricsService(self._factory, [endpoint])

    def _run(self) -> None:
        forward_log()
        held = hold_log()
        try:
            self._thread.start()
            call_at_exit(_at_exit)
            self._thread.call(self._begin, START_TIMEOUT)
        except TimeoutError:
            _log.warning("%s: the exporter does not listen yet", VARIABLE)
        finally:
            held.release()

    def _begin(self) -> Deferred[None]:
        self.call_back()
        return self._listen(first=True)

    def _listen(self, first: bool = False) -> Deferred[None]:
        service = self._service

        def failed(reason: Failure) -> None:
            reason.trap(ListenError)
            if not self.wanted:
                return
            if not _is_in_use(reason.value):
                _warn("%s: no metrics are streamed: %s", VARIABLE, reason.value)
                service.stop()
                self.give_up()
                return
            if first:
                _warn(
                    "%s: process %d will stream its metrics when the address is free: %s."
                    "  With a directory, each process has its own socket",
                    VARIABLE,
                    os.getpid(),
                    reason.value,
                )
            self._thread.reactor.callLater(self._retry, self._listen)
            self._retry = min(2 * self._retry, LONGEST_RETRY)

        if not self.wanted:
            return service.stop()
        return service.try_listening().addErrback(failed)

    def _stop_replaced(self) -> None:
        """The program has installed its own recorder, and may listen on the same address."""
        self.wanted = False
        if self.process != os.getpid():
            # The recorder of the parent, which has not started here.
            self._factory.incoming.stop()
            call_before_handles(None)
            return
        _warn("%s has no effect any more: the program installs its own exporter", VARIABLE)
        if self._in_reactor_thread():
            self._service.stop()
        else:
            self.stop(self._factory.settings.flush_timeout + EXIT_MARGIN)


def _warn(text: str, *words: object) -> None:
    log_call(partial(_log.warning, text, *words))


def _are_greenlets() -> bool:
    """Return whether gevent has replaced threads since this module was imported."""
    return _thread.start_new_thread is not start_new_thread


def _is_in_use(error: BaseException | None) -> bool:
    match error and error.__cause__:
        case CannotListenError(socketError=OSError(errno=errno.EADDRINUSE)):
            return True
        case CannotListenError(socketError=reason):
            return bool(reason == IN_USE)
    return False


_state = _State()


def _at_exit() -> None:
    exporter = _state.exporter
    if exporter is None:
        return
    call_before_handles(None)
    exporter.wanted = False
    # A thread may be starting it.
    acquired = _state.lock.acquire(timeout=EXIT_MARGIN)
    try:
        exporter.stop(exporter._factory.settings.flush_timeout + EXIT_MARGIN)
    finally:
        if acquired:
            _state.lock.release()


os.register_at_fork(after_in_child=lambda: _state.after_fork())
