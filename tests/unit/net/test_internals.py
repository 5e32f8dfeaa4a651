"""
Uses of undocumented interfaces of Twisted and Python, which leave objects without the expected
attributes unchanged.
"""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock, skipIf

from twisted.internet import reactor as _reactor
from twisted.internet._resolver import GAIResolver
from twisted.internet.address import IPv4Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, INegotiated, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.runtime import seconds as time_of_day
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.connecting import NamesReactor
from txmetrics_tcp._net import internals
from txmetrics_tcp._net.internals import (
    MAX_ACCEPTS,
    ResolvedEndpoint,
    call_at_exit,
    detach_socket,
    global_reactor,
    limit_accepts,
    lose_connection,
    private_reactor,
    reactor_thread_exists,
    replace_reactor,
    report_rejected,
    resolve_in_daemon_threads,
    stop_handler,
    use_monotonic_clock,
    wake_on_signals,
)
from txmetrics_tcp.testing import FakeReactor

reactor: Any = _reactor

NAME = "twisted.internet.reactor"


class UntouchedReactor(ReactorBase):
    """A real reactor, except that it opens no descriptors."""

    def installWaker(self) -> None:
        pass


class FakeAsyncioReactor(AsyncioSelectorReactor):
    def __init__(self, eventloop: Any) -> None:
        self.loop = eventloop


class NamedReactor:
    """A reactor that cannot be created without an argument."""

    def __init__(self, name: str) -> None:
        self.name = name


class ReplaceReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.installed: list[Any] = []
        self.patch(internals, "installReactor", self.installed.append)

    def replace(self, inherited: object) -> Any:
        self.patch(sys, "modules", sys.modules | {NAME: inherited})
        return replace_reactor(inherited)

    def test_sameType(self) -> None:
        inherited = UntouchedReactor()
        made = self.replace(inherited)
        self.assertIs(type(made), UntouchedReactor)
        self.assertIsNot(made, inherited)
        self.assertEqual(self.installed, [made])
        self.assertNotIn(NAME, sys.modules)

    def test_asyncio(self) -> None:
        """A new asyncio reactor gets a new event loop."""
        inherited = FakeAsyncioReactor(None)
        made = self.replace(inherited)
        self.addCleanup(made.loop.close)
        self.assertFalse(made.loop.is_closed())
        self.assertEqual(self.installed, [made])

    def test_cannotReplace(self) -> None:
        """A reactor whose type cannot be created again stays installed."""
        inherited = NamedReactor("x")
        self.assertIsNone(self.replace(inherited))
        self.assertEqual(self.installed, [])
        self.assertIs(sys.modules[NAME], inherited)


class ReactorTests(SynchronousTestCase):
    def test_global(self) -> None:
        self.assertIs(global_reactor(), reactor)

    def test_clock(self) -> None:
        earliest = time.monotonic()
        reactor = UntouchedReactor()
        self.assertIs(reactor.seconds, time_of_day)
        for _ in range(2):
            use_monotonic_clock(reactor)
            self.assertIs(reactor.seconds, time.monotonic)
        call = reactor.callLater(100, lambda: None)
        self.assertTrue(call.getTime() - earliest > 99)
        self.assertTrue(call.getTime() - time.monotonic() <= 100)

    def test_pendingCalls(self) -> None:
        """A reactor with pending calls keeps the clock that they were scheduled with."""
        reactor = UntouchedReactor()
        reactor.callLater(100, lambda: None)
        use_monotonic_clock(reactor)
        self.assertIs(reactor.seconds, time_of_day)

    def test_otherClock(self) -> None:
        """A reactor with another clock, or without a clock, is not changed."""
        reactor = FakeReactor()
        use_monotonic_clock(reactor)
        self.assertEqual(reactor.seconds(), 0.0)
        bare = SimpleNamespace()
        use_monotonic_clock(bare)
        self.assertEqual(vars(bare), {})

    def test_thread(self) -> None:
        for thread, exists in ((threading.get_ident(), True), (None, False), (-1, False)):
            self.patch(threadable, "ioThread", thread)
            self.assertIs(reactor_thread_exists(), exists)

    def test_threadUnknown(self) -> None:
        """If Twisted does not know the reactor thread, `reactor_thread_exists` returns True."""
        self.addCleanup(setattr, threadable, "ioThread", threadable.ioThread)
        del threadable.ioThread
        self.assertTrue(reactor_thread_exists())


class ResolverTests(TestCase):
    timeout = 60

    async def test_daemonThreads(self) -> None:
        """Host names are looked up in threads that neither reactor nor interpreter wait for."""
        self.addCleanup(reactor.installNameResolver, reactor.nameResolver)
        resolve_in_daemon_threads(reactor)
        found: list[IAddress] = []
        done: Deferred[None] = Deferred()
        receiver = SimpleNamespace(
            resolutionBegan=lambda resolution: None,
            addressResolved=found.append,
            resolutionComplete=lambda: done.callback(None),
        )
        reactor.nameResolver.resolveHostName(receiver, "127.0.0.1", 5000)
        await done
        self.assertEqual(found, [IPv4Address("TCP", "127.0.0.1", 5000)])
        own = [one for one in threading.enumerate() if "-resolver-" in one.name]
        self.assertTrue(own)
        self.assertTrue(all(one.daemon for one in own))
        self.assertFalse({*own} & {*reactor.getThreadPool().threads})

    async def test_error(self) -> None:
        """An attempt to connect ends, whatever error the look-up raises."""
        for error in (OSError(errno.EBUSY, "busy"), MemoryError()):
            resolver = GAIResolver(reactor, getaddrinfo=mock.Mock(side_effect=error))
            self.addCleanup(reactor.installNameResolver, reactor.installNameResolver(resolver))
            with self.assertRaises(DNSLookupError):
                await ResolvedEndpoint(reactor, "a_b.example", 5000).connect(Factory())
        self.assertIs(reactor.nameResolver, resolver)

    def test_otherResolver(self) -> None:
        """A reactor with another resolver, or without a resolver, is not changed."""
        other = NamesReactor()
        resolver = other.nameResolver
        resolve_in_daemon_threads(other)
        self.assertIs(other.nameResolver, resolver)
        bare = SimpleNamespace()
        resolve_in_daemon_threads(bare)
        self.assertEqual(vars(bare), {})

    def test_unknownInterface(self) -> None:
        """The reactor keeps its resolver if Twisted's resolver has moved."""
        resolver = reactor.nameResolver
        with mock.patch.dict(sys.modules, {"twisted.internet._resolver": None}):
            resolve_in_daemon_threads(reactor)
        self.assertIs(reactor.nameResolver, resolver)


class WakeOnSignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.patch(
            signal,
            "set_wakeup_fd",
            lambda descriptor, warn_on_full_buffer: self.calls.append(
                (descriptor, warn_on_full_buffer)
            ),
        )

    def test_wake(self) -> None:
        """A signal writes to the pipe that the reactor reads, without a warning if it is full."""
        wake_on_signals(SimpleNamespace(waker=SimpleNamespace(o=5)))
        self.assertEqual(self.calls, [(5, False)])

    def test_unknownInterface(self) -> None:
        for other in (SimpleNamespace(), SimpleNamespace(waker=SimpleNamespace(w=object()))):
            wake_on_signals(other)
        self.assertEqual(self.calls, [])


class StopHandlerTests(SynchronousTestCase):
    def found(self, reactor: object, handler: object) -> object:
        self.patch(signal, "getsignal", lambda number: handler)
        return stop_handler(reactor, signal.SIGTERM)

    def test_handlersOfTwisted(self) -> None:
        reactor = UntouchedReactor()
        for handler in (reactor.sigTerm, reactor.sigInt):
            self.assertEqual(self.found(reactor, handler), handler)

    def test_otherHandlers(self) -> None:
        """Other handlers, and those of another reactor, are not returned."""
        others = UntouchedReactor().sigTerm, signal.default_int_handler
        for handler in (*others, signal.SIG_IGN, signal.SIG_DFL, None):
            self.assertIsNone(self.found(UntouchedReactor(), handler))

    def test_unknownInterface(self) -> None:
        """For a reactor without these methods, no handler is returned."""
        for handler in (UntouchedReactor().sigTerm, None):
            self.assertIsNone(self.found(SimpleNamespace(), handler))


class AtExitTests(SynchronousTestCase):
    def registered(self, parent: object) -> list[str]:
        """Return the mechanisms that a function is registered with."""
        calls: list[str] = []

        def finalize(*arguments: object, exitpriority: int) -> None:
            calls.append("multiprocessing")

        self.patch(atexit, "register", lambda function: calls.append("atexit"))
        self.patch(multiprocessing, "parent_process", lambda: parent)
        self.patch(multiprocessing.util, "Finalize", finalize)
        call_at_exit(lambda: None)
        return calls

    def test_program(self) -> None:
        self.assertEqual(self.registered(None), ["atexit"])

    def test_childOfMultiprocessing(self) -> None:
        expected = ["atexit"] if sys.version_info >= (3, 13) else ["atexit", "multiprocessing"]
        self.assertEqual(self.registered(object()), expected)

    def test_beforeMultiprocessing(self) -> None:
        """
        multiprocessing may forget all finalizers later, when it runs a child's target.  Since
        Python 3.13, it calls the functions of C{atexit}.
        """
        self.registered(object())
        kept: list[object] = []
        self.patch(
            multiprocessing.util,
            "Finalize",
            lambda *arguments, exitpriority: kept.append(arguments),
        )

        def ended() -> None:
            pass

        call_at_exit(ended)
        kept.clear()
        multiprocessing.util._run_after_forkers()  # type: ignore[attr-defined]
        self.assertEqual((None, ended) in kept, sys.version_info < (3, 13))


class PrivateReactorTests(SynchronousTestCase):
    def test_private(self) -> None:
        """It is not the global reactor, and does not say that its thread is the reactor's."""
        before = sys.modules.get("twisted.internet.reactor"), threadable.__dict__.get("ioThread")
        reactor = private_reactor()
        threads: list[int] = []
        seen: list[object] = []

        def running() -> None:
            threads.append(threading.get_ident())
            seen.append(threadable.__dict__.get("ioThread"))
            reactor.callLater(0, reactor.stop)

        reactor.callWhenRunning(running)
        thread = threading.Thread(target=reactor.run, args=(False,))
        thread.start()
        thread.join()
        self.assertEqual(threads, [thread.ident])
        self.assertEqual(seen, [before[1]])
        self.assertIs(sys.modules.get("twisted.internet.reactor"), before[0])
        self.assertIsNot(reactor, before[0])
        self.assertIs(reactor.seconds, time.monotonic)
        for one in reactor.removeAll():
            one.connectionLost(None)
        reactor.waker.connectionLost(None)


class Listener:
    """
    A listening socket that accepts the clients that a test provides.

    @param accepted: the address of each client, or an error number.
    """

    def __init__(self, real: socket.socket, accepted: Iterator[Any]) -> None:
        self._real = real
        self._accepted = accepted

    def accept(self) -> tuple[socket.socket, Any]:
        accepted = next(self._accepted, errno.EAGAIN)
        if isinstance(accepted, int):
            raise OSError(accepted, os.strerror(accepted))
        return socket.socket(), accepted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class RejectingFactory(Factory):
    """Rejects and counts all clients."""

    noisy = False
    asked = 0

    def buildProtocol(self, addr: IAddress | None) -> None:
        self.asked += 1


class PortTestCase(TestCase):
    def setUp(self) -> None:
        self.factory = RejectingFactory()

    def listen(self, accepted: Iterator[Any], path: str | None = None) -> Any:
        """Return a port on the global reactor.  The test calls its C{doRead}."""
        port = (
            reactor.listenTCP(0, self.factory, interface="127.0.0.1")
            if path is None
            else reactor.listenUNIX(path, self.factory)
        )
        self.addCleanup(port.stopListening)
        port.stopReading()
        real, port.socket = port.socket, Listener(port.socket, accepted)
        self.addCleanup(setattr, port, "socket", real)
        return port


class LimitAcceptsTests(PortTestCase):
    def accepted(self, port: Any) -> list[int]:
        """Return the number of clients accepted after each of three iterations."""
        numbers = []
        for _ in range(3):
            port.doRead()
            numbers.append(self.factory.asked)
        return numbers

    def test_manyClients(self) -> None:
        """At most `MAX_ACCEPTS` clients are accepted in each iteration."""
        port = self.listen(("192.0.2.1", number) for number in range(1000))
        limit_accepts(port)
        self.assertEqual(self.accepted(port), [MAX_ACCEPTS, 2 * MAX_ACCEPTS, 3 * MAX_ACCEPTS])

    def test_plain(self) -> None:
        """Without `limit_accepts`, Twisted accepts more clients in each iteration."""
        port = self.listen(("192.0.2.1", number) for number in range(1000))
        self.assertGreater(self.accepted(port)[0], MAX_ACCEPTS)

    def test_unknownInterface(self) -> None:
        """A port without the expected attribute, or of another type, is not changed."""
        for port in (Port(0, self.factory), SimpleNamespace(numberAccepts=100)):
            before = dict(vars(port))
            limit_accepts(port)  # type: ignore[arg-type]
            self.assertEqual(vars(port), before)


class ReportRejectedTests(PortTestCase):
    REASON = "the process is out of file descriptors"

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[str] = []
        self.rejected: list[tuple[str, str]] = []
        logger = Logger("test", observer=lambda event: self.logged.append(event["log_format"]))
        self.patch(Port, "_logger", logger)

    def report(self, address: str, reason: str) -> None:
        self.rejected.append((address, reason))

    def test_outOfDescriptors(self) -> None:
        clients = ("192.0.2.1", 1), ("192.0.2.2", 2)
        port = self.listen(iter((errno.EMFILE, *clients)))
        report_rejected(port, self.report)
        port.doRead()
        self.assertEqual(
            self.rejected, [("192.0.2.1:1", self.REASON), ("192.0.2.2:2", self.REASON)]
        )
        self.assertEqual((self.logged, self.factory.asked), ([], 0))

    def test_plain(self) -> None:
        """Without `report_rejected`, Twisted logs several lines for each client."""
        self.listen(iter((errno.EMFILE, ("192.0.2.1", 1)))).doRead()
        self.assertGreater(len(self.logged), 1)

    @skipIf(not IReactorUNIX.providedBy(reactor), "this reactor has no UNIX sockets")
    def test_unix(self) -> None:
        """For clients of a UNIX socket, the path of the port is reported."""
        path = os.path.relpath(self.mktemp())
        port = self.listen(iter((errno.EMFILE, "", "/run/theirs", b"\0theirs")), path)
        report_rejected(port, self.report)
        port.doRead()
        self.assertEqual(self.rejected, [(f"unix:{path}", self.REASON)] * 3)

    def test_otherError(self) -> None:
        port = self.listen(iter((errno.ENFILE,)))
        report_rejected(port, self.report)
        port.doRead()
        self.assertEqual(self.rejected, [("(unknown address)", "accept failed with ENFILE")])

    def test_otherEvents(self) -> None:
        """Other messages of the port are logged."""
        port = self.listen(iter(()))
        report_rejected(port, self.report)
        port._logger.warn("Something else")
        self.assertEqual((self.logged, self.rejected), (["Something else"], []))

    def test_unknownInterface(self) -> None:
        """A port without a logger, or of another type, is not changed."""
        self.patch(Port, "_logger", None)
        for port in (Port(0, self.factory), SimpleNamespace(_logger=Logger())):
            before = dict(vars(port))
            report_rejected(port, self.report)  # type: ignore[arg-type]
            self.assertEqual(vars(port), before)


class Layer:
    """A transport that records when it is closed."""

    def __init__(self, name: str, closed: list[str]) -> None:
        self.name = name
        self.closed = closed

    def loseConnection(self) -> None:
        self.closed.append(self.name)


class DetachSocketTests(SynchronousTestCase):
    def test_detach(self) -> None:
        """The caller gets the descriptor once; the socket object no longer has it."""
        transport = SimpleNamespace(socket=socket.socket())
        descriptor = transport.socket.fileno()
        self.assertEqual(detach_socket(transport), descriptor)
        self.assertIsNone(detach_socket(transport))
        os.close(descriptor)

    def test_unknownInterface(self) -> None:
        self.assertIsNone(detach_socket(SimpleNamespace()))
        self.assertIsNone(detach_socket(SimpleNamespace(socket=object())))


@implementer(INegotiated)
class TLSLayer(Layer):
    """A TLS transport; its C{transport} is the transport below."""


class LoseConnectionTests(SynchronousTestCase):
    def closed(self, kind: type[Layer], **attributes: object) -> list[str]:
        closed: list[str] = []
        transport = kind("above", closed)
        vars(transport).update(transport=Layer("below", closed))
        vars(transport).update(attributes)
        lose_connection(transport)
        return closed

    def test_tls(self) -> None:
        """The transport below TLS is closed after TLS has written its alert."""
        self.assertEqual(self.closed(TLSLayer), ["above", "below"])

    def test_plain(self) -> None:
        """For other transports, the transport below is not closed."""
        self.assertEqual(self.closed(Layer), ["above"])

    def test_unknownInterface(self) -> None:
        self.assertEqual(self.closed(TLSLayer, transport=None), ["above"])
        closed: list[str] = []
        lose_connection(TLSLayer("above", closed))
        self.assertEqual(closed, ["above"])
