"""
Runs instrumented programs as processes, and reads their streams.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.daemon import LIMIT, Daemon, connect
from tests.reader import Reader

EXAMPLES = ROOT / "examples"

PREAMBLE = """
import atexit, gc, itertools, os, signal, sys, threading, time
from txmetrics_tcp import *

events = counter("events_total")

def say(name, value):
    # One write, so that output of other processes and threads does not mix with it.
    os.write(1, f"{name}={value}\\n".encode())

def start(address=0, patience=600):
    builder = TcpBuilder().listen_address(address).flush_timeout(patience)
    metrics = builder.install_in_thread()
    say("port", metrics.addresses[0].port)
    return metrics

def wait_for_client(metrics):
    while not metrics.recorder.stats().clients:
        time.sleep(0.001)

def accelerate_clock():
    # Makes the clock advance by a thousand seconds more at each reading.
    clock, jumps = time.monotonic, itertools.count(0, 1000)
    time.monotonic = lambda: clock() + next(jumps)

def refused(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        say(type(error).__name__, str(error).replace("\\n", " "))
    else:
        say("refused", "nothing")
"""

_T = TypeVar("_T")


def until(look: Callable[[], _T | None], awaited: Callable[[], str] = lambda: "") -> _T:
    """
    Poll a function until its result is true. Only for conditions without another way to wait.

    @param awaited: returns a description of the condition for the message of a failure.
    """
    deadline = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < deadline, f"timed out: {awaited()}"
        time.sleep(0.01)
    return found


class Program(Daemon):
    """A Python program, given as its source text."""

    def __init__(
        self,
        case: SynchronousTestCase,
        script: str,
        preamble: str = PREAMBLE,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """
        @param variables: variables of its environment.
        """
        path = Path(case.mktemp()).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path.with_suffix(".py")
        path.write_text(preamble + dedent(script))
        assignments = [f"{name}={value}" for name, value in variables.items()]
        runner = ["env", *assignments, sys.executable, "-u"]
        super().__init__(case, str(path), runner=runner)

    def said(self, name: str, nth: int = 1) -> str:
        """Wait until the program prints C{name} for the nth time, and return its value."""
        line = rf"(?:.*\n)*?{name}="
        return self.wait_for(rf"\A(?:{line}.*\n){{{nth - 1}}}{line}(.*)\n")[1]

    @property
    def port(self) -> int:
        return int(self.said("port"))


class Stream:
    """
    A client of a program.

    @ivar reader: decodes the stream.
    """

    def __init__(self, case: SynchronousTestCase, address: int | str) -> None:
        """
        @param address: a port of this machine, or the path of a Unix socket.
        """
        if isinstance(address, int):
            self._socket = connect(case, address)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            case.addCleanup(self._socket.close)
            self._socket.settimeout(LIMIT)
            # Uses a path relative to the directory, since the whole path may be too long.
            here = os.open(".", os.O_RDONLY)
            try:
                os.chdir(os.path.dirname(address))
                self._socket.connect(os.path.basename(address))
            finally:
                os.fchdir(here)
                os.close(here)
        self.reader = Reader()

    @classmethod
    def of(cls, connected: socket.socket) -> Stream:
        """Return the stream of a connection that a program has made."""
        stream = cls.__new__(cls)
        stream._socket = connected
        stream.reader = Reader()
        return stream

    @property
    def unread(self) -> int:
        """The number of received bytes that were not read."""
        number = fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4))
        return int.from_bytes(number, sys.byteorder)

    def chunks(self) -> Iterator[bytes]:
        """Yield the stream piece by piece, until it ends."""
        while data := self._socket.recv(65536):
            yield data

    def read_until(self, condition: Callable[[Reader], bool]) -> Reader:
        """Read until a condition holds. It is checked first, then after each piece of data."""
        if not condition(self.reader):
            for data in self.chunks():
                self.reader.feed(data)
                if condition(self.reader):
                    break
            else:
                raise AssertionError(f"the stream ended: {self.reader.metrics[-5:]}")
        return self.reader

    def read_all(self) -> Reader:
        """Read to the end of the stream."""
        for data in self.chunks():
            self.reader.feed(data)
        assert self.reader.unfinished == 0, "the stream ended within a frame"
        return self.reader

    def close(self) -> None:
        self._socket.close()


def stream_of(case: SynchronousTestCase, find: Callable[[], Iterable[str]]) -> Stream:
    """
    Connect to the first UNIX socket that listens, once one does.

    @param find: returns the paths of sockets.
    """

    def connect() -> Stream | None:
        for path in find():
            # Bound a moment ago, or of a process that has executed another program; or removed.
            with suppress(ConnectionRefusedError, FileNotFoundError):
                return Stream(case, path)
        return None

    return until(connect, lambda: f"a socket that listens, in {[*find()]}")


def total(reader: Reader, name: str, **labels: str) -> float:
    """Return the sum of all series with this name and these labels."""
    return sum(
        value
        for key, value in reader.totals.items()
        if key.name == name and labels.items() <= dict(key.labels).items()
    )


class ProgramTestCase(SynchronousTestCase):
    def ends(self, program: Daemon, status: int = 0, errors: str | None = "") -> str:
        """
        Wait until a program ends, and check its exit status.

        @param errors: the expected standard error; None to ignore it.
        @return: the program's standard output.
        """
        result, output, stderr = program.end()
        self.assertEqual(result, status, stderr)
        if errors is not None:
            self.assertEqual(stderr, errors)
        return output


class ExampleTestCase(ProgramTestCase):
    """A test that runs scripts in examples/ as their users do."""

    def script(self, name: str, *arguments: str) -> Daemon:
        return Daemon(self, str(EXAMPLES / name), *arguments, runner=[sys.executable, "-u"])

    def check_asyncio(self, name: str, *arguments: str) -> None:
        """Check the stream of an example that serves requests, and that Ctrl-C ends it quietly."""
        example = self.script(name, *arguments)
        stream = Stream(self, example.port)
        stream.read_until(
            lambda reader: (
                all(
                    total(reader, "requests_total", service="example", route=route) >= 2
                    for route in ("/", "/cart", "/checkout")
                )
                and len(reader.values("request_seconds")) >= 6
            )
        )
        example.process.send_signal(signal.SIGINT)
        self.ends(example)
        self.assertIn("requests_running", {key.name for key in stream.read_all().totals})
