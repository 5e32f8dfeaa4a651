"""
What this library uses of Twisted and Python beyond their documented interfaces, in one place.
(`txmetrics_tcp._instruments.forked`, which may not import Twisted, is the other.)

Each function says what users would lose without it.  All work with Twisted 24.10 and 26.10.  Where
an object is not of the shape that it has there, nothing is replaced, and the program goes on as
with plain Twisted.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IListeningPort, INegotiated
from twisted.internet.main import installReactor
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python import threadable
from twisted.python.runtime import seconds as time_of_day
from zope.interface import provider

from txmetrics_tcp._net.endpoints import show_address

MAX_ACCEPTS = 10
"""How many connections a port accepts in one reactor iteration; see `limit_accepts`."""

SignalHandler = Callable[[int, FrameType | None], object]


def global_reactor() -> Any:
    """
    The global reactor.  If there is none, the default one is installed: not to be called before a
    program can have chosen another.
    """
    from twisted.internet import reactor

    return reactor


def replace_reactor(inherited: Any) -> Any:
    """
    Install a new reactor of the same type in place of one that a forked process has inherited.

    A reactor opens its descriptors when it is made (https://github.com/twisted/twisted/issues/7105),
    so an inherited one shares them with the parent and all other children; and Twisted does not
    install a second one.  Without this, workers of a pre-fork server could not stream if the
    application was loaded before the fork, and imported the reactor.

    @return: the new one; None, and the old one stays, if a reactor of that type cannot be made.
    """
    from asyncio import new_event_loop

    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    # Without an argument, it may take the parent's event loop.
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
    Have the reactor of a process that runs no other code measure delays with a monotonic clock.

    Most of Twisted's measure them with the time of day
    (https://github.com/twisted/twisted/issues/2424).  Without this, all timers of the daemon and of
    the commands are an hour late when that is set back by an hour.

    Nothing is replaced if the reactor has another clock, as asyncio's has, or if calls are pending,
    whose times are of the old one.
    """
    if getattr(reactor, "seconds", None) is time_of_day and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def reactor_thread_exists() -> bool:
    """
    Whether the thread that runs the reactor exists in this process.

    A reactor counts as running also in a forked child, and when its thread has died.  Without this,
    a call to the reactor thread would wait indefinitely there.  If Twisted does not know the
    thread, it counts as existing.
    """
    if not hasattr(threadable, "ioThread"):
        return True
    return any(thread.ident == threadable.ioThread for thread in threading.enumerate())


def stop_handler(reactor: Any, number: int) -> SignalHandler | None:
    """
    Twisted's handler of SIGTERM or SIGINT, if it is installed.

    The daemon calls it once, on the reactor thread.  As the handler of a signal it could deadlock,
    since it logs (https://github.com/twisted/twisted/issues/7736), and a second signal would be an
    error (https://github.com/twisted/twisted/issues/2265).  With C{reactor.stop()} in its place,
    twistd would not end with the status that stands for the signal.
    """
    handler = signal.getsignal(number)
    own = [getattr(reactor, name, None) for name in ("sigInt", "sigTerm")]
    return handler if callable(handler) and handler in own else None


def call_at_exit(function: Callable[[], object]) -> None:
    """
    Call a function when this process ends, as C{atexit} does.

    Before Python 3.13, forked children of multiprocessing end without C{atexit}
    (https://github.com/python/cpython/issues/83856): they would lose what they recorded last.
    """
    atexit.register(function)
    if sys.version_info < (3, 13):
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            util.Finalize(None, function, exitpriority=100)


def limit_accepts(port: IListeningPort) -> None:
    """
    Have a port accept `MAX_ACCEPTS` connections at most in one reactor iteration.

    Twisted accepts a hundred, and more while so many come.  Each client is sent a snapshot first:
    without this, a crowd of them would hold up all others for half a second at a time.
    """
    if not isinstance(port, Port) or not isinstance(getattr(port, "numberAccepts", None), int):
        return
    accept = port.doRead

    def accept_some() -> None:
        # Twisted raises it whenever so many came.
        port.numberAccepts = min(port.numberAccepts, MAX_ACCEPTS)
        accept()

    port.doRead = accept_some  # type: ignore[method-assign]


def report_rejected(port: IListeningPort, rejected: Callable[[str, str], object]) -> None:
    """
    Have a port report through a function, and not in the log, that the process has no descriptor
    left for a client.

    Twisted accepts such clients and disconnects them, and logs up to three lines for each
    (https://github.com/twisted/twisted/issues/5368).  Most connect again soon: without this, they
    could fill the disk that the log is on.

    @param rejected: called with the client's address and the reason.
    """
    if not isinstance(port, Port) or not isinstance(getattr(port, "_logger", None), Logger):
        return
    logger = port._logger

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "address" in event:
            address = event["address"]
            # Clients of UNIX sockets have no address as a rule.
            client = address if isinstance(address, tuple) else port.getHost()
            rejected(show_address(client), "the process is out of file descriptors")
        elif "acceptError" in event:
            rejected("of unknown address", f"accept failed with {event['acceptError']}")
        elif event.get("log_level") is not LogLevel.info:
            logger.observer(event)

    port._logger = Logger(namespace=logger.namespace, observer=observe)


def lose_connection(transport: Any) -> None:
    """
    Close a connection once what was written is sent.

    With TLS, Twisted sends its close alert and then waits for that of the peer, indefinitely
    (https://github.com/twisted/twisted/issues/7926).  Without this, a client that does not answer
    would hold up the end of the program.
    """
    transport.loseConnection()
    below = getattr(transport, "transport", None)
    if INegotiated.providedBy(transport) and below is not None:
        # It has the alert by now.
        below.loseConnection()
