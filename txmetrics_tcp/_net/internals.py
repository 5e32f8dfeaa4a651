"""
All uses of undocumented interfaces of Twisted and Python, except those in
`txmetrics_tcp._instruments`, which must not import Twisted.

Each function documents the feature that depends on it.  All functions work with Twisted 24.10 and
26.10.  If an object does not have the expected attributes, a function changes nothing, and the
program behaves as with plain Twisted.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial, wraps
from types import FrameType
from typing import Any

from twisted.internet.endpoints import AdoptedStreamServerEndpoint, HostnameEndpoint
from twisted.internet.interfaces import (
    IHostnameResolver,
    IListeningPort,
    INegotiated,
    IStreamServerEndpoint,
)
from twisted.internet.main import installReactor
from twisted.internet.tcp import Port
from twisted.internet.udp import Port as UDPPort
from twisted.internet.unix import Port as UNIXPort
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python import threadable
from twisted.python.runtime import seconds as time_of_day
from twisted.python.threadpool import ThreadPool
from zope.interface import provider

from txmetrics_tcp._net.addresses import show_address

_log = Logger(namespace="txmetrics_tcp")

MAX_ACCEPTS = 10
"""Maximum number of connections that a port accepts per reactor iteration; see `limit_accepts`."""

MAX_DATAGRAMS = 500
"""Maximum number of datagrams that a port reads per reactor iteration; see `limit_datagrams`."""

MAX_DATAGRAM = 256 * 1024
"""
The maximum size of a datagram in bytes, more than Linux' default limit for UNIX sockets; see
`limit_datagrams`.
"""

_MAX_READ = 64 * 1024
"""A port stops reading datagrams in a reactor iteration once they have this size in all."""

_LOOKUPS = 10
"""Maximum number of simultaneous look-ups of host names, the same as Twisted's."""

_REACTORS = ("EPollReactor", "PollReactor", "SelectReactor")
"""The types of reactors that Twisted prefers, depending on the platform."""

SignalHandler = Callable[[int, FrameType | None], object]


def global_reactor() -> Any:
    """
    Return the global reactor.

    If none is installed, this installs the default reactor.  Do not call it while the program may
    still install another one.
    """
    from twisted.internet import reactor

    return reactor


def private_reactor() -> Any:
    """
    Return a new reactor that is not the global one, of the type that Twisted prefers.

    It runs in a thread beside a program that may install and run its own reactor later.  Twisted
    considers the thread of the last reactor that started to be the reactor thread.  Without this
    function, C{isInIOThread} would be wrong in such a program.
    """
    from twisted.internet.default import install as preferred

    module = sys.modules[preferred.__module__]
    [made] = [name for name in _REACTORS if hasattr(module, name)]
    reactor = getattr(module, made)()
    reactor._registerAsIOThread = False
    use_monotonic_clock(reactor)
    return reactor


def replace_reactor(inherited: Any) -> Any:
    """
    In a forked process, replace the inherited reactor with a new one of the same type.

    A reactor opens its descriptors when it is created
    (https://github.com/twisted/twisted/issues/7105), so an inherited reactor shares them with the
    parent and its other children.  Twisted refuses to install a second reactor.  Without this
    function, workers of a pre-fork server could not stream if the application imported the reactor
    before the fork.

    @return: the new reactor.  None if a reactor of this type cannot be created; the inherited
        reactor then stays installed.
    """
    from asyncio import new_event_loop

    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    # Without an argument, the new reactor might use the parent's event loop.
    loops = [new_event_loop()] if isinstance(inherited, AsyncioSelectorReactor) else []
    try:
        reactor = type(inherited)(*loops)
    except TypeError:
        return None
    del sys.modules["twisted.internet.reactor"]
    installReactor(reactor)
    return reactor


def use_monotonic_clock(reactor: Any) -> None:
    """
    Make a reactor measure delays with a monotonic clock.  For processes that run only this
    library's code.

    Most reactors use the time of day (https://github.com/twisted/twisted/issues/2424).  Without
    this function, all timers of the daemon and of the commands would be an hour late after the
    system clock is set back by an hour.

    Nothing is replaced if the reactor has another clock, such as asyncio's, or if delayed calls are
    pending, since these are scheduled by the old clock.
    """
    if getattr(reactor, "seconds", None) is time_of_day and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def resolve_in_daemon_threads(reactor: Any) -> None:
    """
    Make a reactor look up host names in threads that the end of the process does not wait for.  For
    processes that run only this library's code.

    A look-up cannot be cancelled.  The reactor waits for its threads when it stops, and so does the
    interpreter when it exits, except for daemon threads.  Without this function, Ctrl-C would take
    effect only when a name server that does not answer has timed out, often after 10 seconds or
    more.

    Nothing is replaced if the reactor resolves names in another way.
    """
    try:
        from twisted.internet._resolver import GAIResolver
    except ImportError:
        return
    if type(getattr(reactor, "nameResolver", None)) is not GAIResolver:
        return
    threads = ThreadPool(minthreads=0, maxthreads=_LOOKUPS, name="resolver")
    threads.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
    threads.start()
    reactor.installNameResolver(GAIResolver(reactor, lambda: threads))


def _look_up(getaddrinfo: Callable[..., Any], *arguments: object) -> Any:
    """
    @raise gaierror: the look-up failed, for any reason.
    """
    try:
        return getaddrinfo(*arguments)
    except Exception as error:
        raise socket.gaierror(str(error)) from error


class ResolvedEndpoint(HostnameEndpoint):
    """
    Connects to any host name that the resolver knows, even if it is not a valid domain name.

    Twisted rejects names with underscores (https://github.com/twisted/twisted/issues/8190), which
    are common in container networks.  Without this class, their services would be unreachable.

    Twisted's resolver handles only C{gaierror}.  After another error of the operating system, such
    as EBUSY, an attempt to connect would never end, and a client would not reconnect.
    """

    def _getNameResolverAndMaybeWarn(self, reactor: object) -> IHostnameResolver:
        resolver = super()._getNameResolverAndMaybeWarn(reactor)
        getaddrinfo = getattr(resolver, "_getaddrinfo", None)
        if getaddrinfo is None:
            return resolver
        resolver = copy(resolver)
        vars(resolver)["_getaddrinfo"] = partial(_look_up, getaddrinfo)
        return resolver

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        """
        @param host: the name, in ASCII.
        @return: whether it is invalid, and the name.
        """
        text = host if isinstance(host, str) else host.decode()
        return False, text.encode(), text


def reactor_thread_exists() -> bool:
    """
    Whether the thread that runs the reactor exists in this process.

    A reactor claims to be running even in a forked child and after its thread has died.  Without
    this function, a call to the reactor thread would block indefinitely there.

    Returns True if Twisted does not know the thread.
    """
    if not hasattr(threadable, "ioThread"):
        return True
    return any(thread.ident == threadable.ioThread for thread in threading.enumerate())


def stop_handler(reactor: Any, number: int) -> SignalHandler | None:
    """
    Return Twisted's handler of SIGTERM or SIGINT, or None if it is not installed.

    The daemon calls the handler once, on the reactor thread.  As a signal handler it could
    deadlock, because it logs (https://github.com/twisted/twisted/issues/7736), and a second signal
    would log an error (https://github.com/twisted/twisted/issues/2265).  If the daemon called
    C{reactor.stop()} instead, twistd would not exit with the status for the signal.
    """
    handler = signal.getsignal(number)
    own = [getattr(reactor, name, None) for name in ("sigInt", "sigTerm")]
    return handler if callable(handler) and handler in own else None


def wake_on_signals(reactor: Any) -> None:
    """
    Make a reactor iterate when the process receives a signal that has a handler.

    Python runs a handler between bytecodes of the main thread.  If the signal arrives immediately
    before the reactor waits for events, or in another thread, the handler runs after the next
    event.  Twisted prevents this only for its own handlers, which commands do not use.  Without
    this function, a command that waits for a silent server would sometimes ignore the first Ctrl-C.
    """
    descriptor = getattr(getattr(reactor, "waker", None), "o", None)
    if isinstance(descriptor, int):
        signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def observe_running_loops(changed: Callable[[Any], object]) -> None:
    """
    Call a function on each thread in which an asyncio event loop starts, with the loop, and when it
    stops, with None.

    asyncio has no hook for this.  Its loops and those of uvloop call C{_set_running_loop}, which
    asyncio exports for event loops of other libraries.  uvloop and other libraries may keep a
    reference: call this function before they are imported.

    @param changed: must not raise, and may be called on several threads at once.
    """
    original = getattr(asyncio.events, "_set_running_loop", None)
    if original is None:
        return

    @wraps(original)
    def set_running_loop(loop: Any) -> None:
        original(loop)
        changed(loop)

    for module in (asyncio, asyncio.events):
        module._set_running_loop = set_running_loop  # type: ignore[attr-defined]


def call_at_exit(function: Callable[[], object]) -> None:
    """
    Register a function to be called when this process ends, as C{atexit} does.

    Before Python 3.13, forked children of multiprocessing do not call C{atexit} functions
    (https://github.com/python/cpython/issues/83856).  Without this function, they would lose their
    last events.
    """
    atexit.register(function)
    if sys.version_info < (3, 13):
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            _finalize(function)
        # A process of the start method "forkserver" imports the main module before it forgets all
        # finalizers.
        util.register_after_fork(function, _finalize)


def _finalize(function: Callable[[], object]) -> None:
    from multiprocessing import util

    util.Finalize(None, function, exitpriority=100)


def limit_accepts(port: IListeningPort) -> None:
    """
    Make a port accept at most `MAX_ACCEPTS` connections per reactor iteration.

    Twisted accepts a hundred or more.  Each new client is sent a snapshot, so without this
    function, many simultaneous connections would delay all other clients by half a second at a
    time.
    """
    if not isinstance(port, Port) or not isinstance(getattr(port, "numberAccepts", None), int):
        return
    accept = port.doRead

    def accept_some() -> None:
        # Twisted increases the number after an iteration that reached it.
        port.numberAccepts = min(port.numberAccepts, MAX_ACCEPTS)
        accept()

    port.doRead = accept_some  # type: ignore[method-assign]


def limit_datagrams(port: object, received: Callable[[bytes, Any], object]) -> None:
    """
    Make a port of datagrams read a limited number of them per reactor iteration, of any size.

    Twisted reads 256 KiB.  Without this function, many small datagrams would delay other events by
    a tenth of a second, and empty ones indefinitely.  The caller of C{listenUDP} would also have to
    know the size of the largest datagram.

    @param received: called with each datagram and the address of its sender.  As with Twisted, an
        exception is logged.
    """
    opened = getattr(port, "socket", None)
    if not isinstance(port, UDPPort) or not isinstance(opened, socket.socket):
        return
    receive = opened.recvfrom_into
    own = port.doRead
    buffer = memoryview(bytearray(MAX_DATAGRAM))

    def read_some() -> None:
        size = 0
        for _ in range(MAX_DATAGRAMS):
            try:
                length, address = receive(buffer)
            except BlockingIOError:
                return
            except OSError:
                # Twisted knows which errors are temporary.
                own()
                return
            try:
                received(bytes(buffer[:length]), address)
            except Exception:
                # The reactor would close the port.
                _log.failure("Failed to handle a datagram")
            size += length
            if size >= _MAX_READ or not port.connected:
                return

    port.doRead = read_some  # type: ignore[method-assign]


def keep_others_file(port: IListeningPort, endpoint: IStreamServerEndpoint) -> None:
    """
    Make the port of a UNIX socket remove, when it closes, only the file that it made.

    Twisted removes any file with the port's path.  Without this function, a program that stops
    would remove the socket of the next instance, of systemd, or, in a forked child, of its parent.
    If there was no file, or no permission to remove it, the port would not be closed.  A socket of
    systemd would also be shut down, which Twisted prevents for TCP only
    (https://github.com/twisted/twisted/issues/5621).

    @param endpoint: the endpoint that made the port.
    """
    if not isinstance(port, UNIXPort) or not hasattr(port, "lockFile"):
        return
    path = os.path.abspath(os.fsdecode(port.getHost().name or b""))
    made = _status(path)
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        # Another process made the socket and its file.
        made = None
        port._shouldShutdown = False
    process = os.getpid()

    def connection_lost(reason: Any) -> None:
        # Until the socket is closed, the number of its inode is not used again.
        found = _status(path)
        if made and found and os.path.samestat(made, found) and os.getpid() == process:
            try:
                os.unlink(path)
            except OSError as error:
                _log.warn(
                    "Cannot remove the socket {path}: {reason}", path=path, reason=error.strerror
                )
        if port.lockFile is not None:
            # In a forked child, the lock is the parent's.
            with suppress(OSError, ValueError):
                port.lockFile.unlock()
        Port.connectionLost(port, reason)

    port.connectionLost = connection_lost  # type: ignore[method-assign]


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None


def report_rejected(port: IListeningPort, rejected: Callable[[str, str], object]) -> None:
    """
    Make a port call a function, instead of logging, when it rejects a client because the process
    has no free file descriptors.

    Twisted accepts and disconnects such clients, and logs up to three lines for each
    (https://github.com/twisted/twisted/issues/5368).  Most clients soon reconnect, so without this
    function, the log could fill the disk.

    @param rejected: called with the client's address and the reason.
    """
    if not isinstance(port, Port) or not isinstance(getattr(port, "_logger", None), Logger):
        return
    logger = port._logger

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "address" in event:
            address = event["address"]
            # Clients of UNIX sockets usually have no address.
            client = address if isinstance(address, tuple) else port.getHost()
            rejected(show_address(client), "the process is out of file descriptors")
        elif "acceptError" in event:
            rejected("(unknown address)", f"accept failed with {event['acceptError']}")
        elif event.get("log_level") is not LogLevel.info:
            logger.observer(event)

    port._logger = Logger(namespace=logger.namespace, observer=observe)


def text_logger(namespace: str) -> Logger:
    """
    Return a logger that logs the text of all objects, for the attribute C{_log} of a Twisted class.

    Twisted's loggers add the object that logs to each event, and its endpoints.  Twisted keeps the
    first 65,536 events of a program that does not begin logging.  Without this function, a stopped
    client that had to reconnect would stay in memory.
    """

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        globalLogPublisher(
            {key: one if key.startswith("log_") else str(one) for key, one in event.items()}
        )

    return Logger(namespace=namespace, observer=observe)


def silent_logger() -> Logger:
    """
    Return a logger that logs nothing, for the attribute C{_log} of a Twisted class.

    Twisted's C{ClientService} logs each attempt to reconnect.  Without this function, processes
    whose collector is down would log a line every 15 seconds each.
    """

    @provider(ILogObserver)
    def discard(event: LogEvent) -> None:
        pass

    return Logger(observer=discard)


def detach_socket(transport: Any) -> int | None:
    """
    Take the file descriptor from the socket object of a port or connection.

    Twisted closes a socket only after shutting it down, which in a forked child would end the
    parent's connection.  Without this function, the child would keep the parent's connections open.

    @return: the descriptor, which the caller has to close; None if there is no socket, or it is
        closed.
    """
    handle = getattr(transport, "socket", None)
    if not isinstance(handle, socket.socket) or handle.fileno() < 0:
        return None
    return handle.detach()


def lose_connection(transport: Any) -> None:
    """
    Close a connection after sending its buffered data.

    With TLS, Twisted sends its close alert and then waits indefinitely for the peer's
    (https://github.com/twisted/twisted/issues/7926).  Without this function, a client that does not
    answer would delay the end of the program.
    """
    transport.loseConnection()
    below = getattr(transport, "transport", None)
    if INegotiated.providedBy(transport) and below is not None:
        # The alert is already in the buffer of this transport.
        below.loseConnection()
