"""
Runs ``metrics-tcp`` commands, in this process on a fake reactor, or as processes.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any, NamedTuple, TextIO, cast
from unittest import mock

import twisted.internet
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor
from twisted.internet.protocol import ClientFactory, Factory, ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests import environment
from tests.connecting import NamesReactor
from tests.daemon import LEFT_TO_THE_SYSTEM
from txmetrics_tcp import ExporterSettings, MetricsFactory
from txmetrics_tcp.cli import main, observe
from txmetrics_tcp.testing import PausingTransport

reactor: Any = global_reactor

Match = re.Match[str] | None
UTF8 = getincrementaldecoder("utf-8")

FAR = 1e7
"""The time limit of a command, in seconds of the fake clock."""


class CommandReactor(NamesReactor):
    """
    The reactor of a command in this process. Its clock jumps to the next delayed call.

    @ivar received: the data that clients of the command have received.
    """

    def __init__(self, served: Callable[[PausingTransport], object] | None = None) -> None:
        """
        @param served: called with each connection to a server; by default, connections are refused.
        """
        super().__init__()
        self.received = b""
        self._served = served
        self._transports: list[PausingTransport] = []
        self._readers: list[IReadDescriptor] = []
        self._running = False

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        self.callFromThread(call)

    def run(self, installSignalHandlers: bool) -> None:
        self._running = True
        idle = 0
        while self._running:
            called = self.drain() + self.read()
            sent = b"".join([transport.drain() for transport in self._transports])
            self.received += sent
            due = [call.getTime() for call in self.getDelayedCalls()]
            # A few idle iterations are normal, for example while a drained transport closes.
            idle = 0 if called or sent or due else idle + 1
            assert idle < 5, "the command hangs: no call is pending"
            self.advance(max(0.0, min(due, default=0.0) - self.seconds()))
            assert self.seconds() < FAR, "the command does not end"

    def stop(self) -> None:
        self._running = False

    def addReader(self, reader: IReadDescriptor) -> None:
        self._readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    def read(self) -> int:
        """
        Call the readers whose descriptors are readable.

        @return: their number.
        """
        readable = select.select(self._readers, [], [], 0)[0]
        for reader in readable:
            if reason := reader.doRead():
                self.removeReader(reader)
                reader.connectionLost(Failure(reason))
        return len(readable)

    def connectTCP(
        self, host: str, port: int, factory: IProtocolFactory, **options: object
    ) -> None:
        super().connectTCP(host, port, factory, **options)
        self.callLater(0, self._connect, factory)

    def _connect(self, factory: IProtocolFactory) -> None:
        if self._served is None:
            refused = Failure(ConnectionRefusedError())
            cast(ClientFactory, factory).clientConnectionFailed(cast(Any, None), refused)
        else:
            self._served(self._connected(factory))

    def _connected(self, factory: IProtocolFactory) -> PausingTransport:
        transport = PausingTransport()
        self._transports.append(transport)
        transport.connect(factory.buildProtocol(transport.getPeer()))
        return transport

    def listenTCP(self, port: int, factory: Factory, *more: object, **options: object) -> Any:
        """Listen, and have a client connect."""
        factory.doStart()
        self.callLater(0, self._connected, factory)
        return self

    # The interface of the port that `listenTCP` returns.

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 5000)

    def stopListening(self) -> Deferred[None]:
        return succeed(None)


def serving(data: bytes) -> CommandReactor:
    """Return a reactor with a server that sends the same data to every client."""
    return CommandReactor(lambda transport: transport.receive(data))


class Ended(NamedTuple):
    """The exit code of a command, its standard output and its standard error."""

    code: object
    out: str
    err: str


def run(
    *arguments: str,
    on: CommandReactor | None = None,
    stdin: str = os.devnull,
    stdout: str | None = None,
    closed: bool = False,
) -> Ended:
    """
    Run a command in this process, from its arguments to its exit code.

    @param on: its reactor; by default, one whose servers refuse connections.
    @param stdin: the path of a file for its standard input.
    @param stdout: the path of a file for its standard output; by default, a temporary file.
    @param closed: whether its standard output is closed.
    """
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    with (
        _redirected(0, stdin),
        _redirected(1, stdout) as out,
        _redirected(2, None) as err,
        mock.patch.object(sys, "stdout", None if closed else out),
        mock.patch.object(sys, "stderr", err),
        mock.patch.object(twisted.internet, "reactor", on or CommandReactor()),
        mock.patch.object(observe, "install_reactor"),
    ):
        try:
            code: object = main(arguments)
        except SystemExit as exit:
            code = exit.code
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)
        return Ended(code, "" if stdout else _content(out), _content(err))


@contextmanager
def _redirected(descriptor: int, path: str | None) -> Iterator[TextIO]:
    """
    Redirect a descriptor to another file.

    @param path: the path of that file; by default, a temporary file.
    """
    kept = os.dup(descriptor)
    try:
        with open(path, "r+") if path else TemporaryFile("w+", encoding="utf-8") as file:
            os.dup2(file.fileno(), descriptor)
            yield cast(TextIO, file)
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def _content(file: TextIO) -> str:
    file.flush()
    file.seek(0)
    return file.read()


class Child(ProcessProtocol):
    """
    A command that runs as a process.

    @ivar out: its standard output so far; with C{usePTY}, this includes its standard error.
    @ivar err: its standard error so far.
    @ivar ended: fires with its exit code.
    """

    def __init__(self, *command: str, **options: Any) -> None:
        self.out = self.err = ""
        self._out, self._err = UTF8(), UTF8()
        self.ended: Deferred[int | None] = Deferred()
        self._alive = True
        self._waiting: list[tuple[Callable[[], Match], Deferred[re.Match[str]]]] = []
        env = environment() | LEFT_TO_THE_SYSTEM
        reactor.spawnProcess(self, command[0], command, env=env, **options)

    def prints(self, pattern: str) -> Deferred[re.Match[str]]:
        """Wait until a pattern is in standard output; fail if the process ends before that."""
        return self._when(lambda: re.search(pattern, self.out))

    def says(self, pattern: str) -> Deferred[re.Match[str]]:
        """Wait until a pattern is in standard error; fail if the process ends before that."""
        return self._when(lambda: re.search(pattern, self.err))

    def signal(self, name: str) -> None:
        self.transport.signalProcess(name)  # type: ignore[union-attr]

    def kill(self) -> None:
        if self._alive:
            self.signal("KILL")

    def outReceived(self, data: bytes) -> None:
        self.out += self._out.decode(data)
        self._check()

    def errReceived(self, data: bytes) -> None:
        self.err += self._err.decode(data)
        self._check()

    def processEnded(self, reason: Failure) -> None:
        self._alive = False
        self._check()
        self.ended.callback(reason.value.exitCode)  # type: ignore[union-attr]

    def _when(self, find: Callable[[], Match]) -> Deferred[re.Match[str]]:
        deferred: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((find, deferred))
        self._check()
        return deferred

    def _check(self) -> None:
        waiting, self._waiting = self._waiting, []
        for find, deferred in waiting:
            if found := find():
                deferred.callback(found)
            elif self._alive:
                self._waiting.append((find, deferred))
            else:
                deferred.errback(AssertionError(f"the command ended: {self.out}{self.err}"))


class CommandTestCase(TestCase):
    """A test of a command as a process, with a server in the test process."""

    timeout = 120

    def serve(self, path: str = "") -> str:
        """
        Start a server.

        @param path: the path of a UNIX socket; by default, the server listens on a free TCP port.
        @return: the server's endpoint.
        """
        self.server = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
        self.recorder = self.server.recorder
        self.counter = self.recorder.counter("requests_total", route="/")
        if path:
            self.port = reactor.listenUNIX(path, self.server)
        else:
            self.port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.addCleanup(self.server.stop, 0)
        return f"unix:{path}" if path else str(self.port.getHost().port)

    def child(self, *arguments: str, **options: Any) -> Child:
        return self.spawn(sys.executable, "-m", "txmetrics_tcp", *arguments, **options)

    def shell(self, script: str, *arguments: str, **options: Any) -> Child:
        """Run a shell script in which C{"$@"} is the command."""
        command = [sys.executable, "-m", "txmetrics_tcp", *arguments]
        return self.spawn("/bin/sh", "-c", script, "sh", *command, **options)

    def spawn(self, *command: str, **options: Any) -> Child:
        child = Child(*command, **options)
        self.addCleanup(child.kill)
        return child
