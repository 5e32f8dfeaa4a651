"""
The Rust programs as child processes of a test; tests/rust/README.md describes them.

No code sleeps: conditions are checked whenever a program writes output, and a wait ends when the
program does.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, TypeVar, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests import environment, needs
from tests.daemon import LIMIT
from tests.reader import Bits, bits
from txmetrics_tcp import Key, MetricKind, MetricsFactory

reactor: Any = _reactor

VARIABLE = "TXMETRICS_RUST_PEERS"
"""The environment variable with the directory of the programs."""

COLUMNS, ROWS = 120, 40

ATTEMPTS = 5
"""The number of attempts to use a free port, which another program may take first."""

Line = dict[str, Any]
"""The output of `receive` and ``metrics-tcp tail --json`` for one event."""

_P = TypeVar("_P", bound="Peer")


def program(name: str) -> str:
    """
    Return the path of a program.

    @raise SkipTest: the environment variable is not set.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise SkipTest("needs the Rust programs (tests/rust/build.sh)")
    path = Path(folder, name).resolve()
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{VARIABLE}={folder!r} has no program {name!r}")
    return str(path)


def start_server(case: SynchronousTestCase) -> tuple[int, Popen[bytes]]:
    """Start the Rust server for a test without a reactor, and return its port and its process."""
    for _ in range(ATTEMPTS):
        port = _free_port()
        server = Popen([program("serve"), f"127.0.0.1:{port}"], stdin=PIPE, stdout=PIPE)
        case.addCleanup(server.__exit__, None, None, None)
        case.addCleanup(server.kill)
        assert server.stdout is not None
        if server.stdout.readline():
            return port, server
    raise AssertionError("found no free port")


def screen_module() -> Any:
    """
    Return pyte, which emulates a terminal.

    @raise SkipTest: pyte is not installed.
    """
    if reason := needs("pyte"):
        raise SkipTest(reason)
    return import_module("pyte")


def lasting(totals: dict[Key, Bits]) -> dict[Key, Bits]:
    """Return the totals of counters and gauges, which all clients keep."""
    return {key: value for key, value in totals.items() if key.kind is not MetricKind.HISTOGRAM}


class Peer(ProcessProtocol):
    """
    A child process with waits for its output.

    @ivar errors: its standard error so far.
    @ivar status: its exit status after it has ended; -N for signal N.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors = ""
        self.status: int | None = None
        self._waiting: list[tuple[Callable[[], object], Deferred[None]]] = []

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """
        Wait until a condition on the output holds.

        @param what: describes the condition in the message of a failure.
        """
        await self._until(lambda: condition() or self._ended(), what)

    async def exited(self) -> int:
        """Wait until the process ends, and return its status."""
        await self._until(lambda: self.status is not None, "its end")
        assert self.status is not None
        return self.status

    def signal(self, number: signal.Signals) -> None:
        cast(Any, self.transport).signalProcess(number)

    async def kill(self) -> None:
        """Kill the process, even if it is stopped."""
        if self.status is None:
            with suppress(ProcessExitedAlready):
                self.signal(signal.SIGKILL)
            await self.exited()

    def shown(self) -> str:
        """Return the end of the output, for the message of a failure."""
        raise NotImplementedError

    # Called by Twisted.

    def outReceived(self, data: bytes) -> None:
        self.printed(data)
        self._look()

    def errReceived(self, data: bytes) -> None:
        self.errors += data.decode(errors="replace")
        self._look()

    def processEnded(self, reason: Failure) -> None:
        ended: Any = reason.value
        self.status = ended.exitCode if ended.signal is None else -ended.signal
        self._look()

    def printed(self, data: bytes) -> None:
        """Called with data from standard output."""
        raise NotImplementedError

    def _ended(self) -> bool:
        if self.status is not None:
            raise AssertionError(f"ended with status {self.status}")
        return False

    async def _until(self, condition: Callable[[], object], what: str) -> None:
        try:
            if condition():
                return
            holds: Deferred[None] = Deferred()
            self._waiting.append((condition, holds))
            await holds.addTimeout(LIMIT, reactor)
        except (AssertionError, TimeoutError) as error:
            reason = str(error) if isinstance(error, AssertionError) else f"timeout of {LIMIT}s"
            raise AssertionError(
                f"{self.name}: {reason}, while the test waited for {what}; output:\n"
                f"{self.shown()}\nerrors:\n{self.errors}"
            ) from None

    def _look(self) -> None:
        # Firing a Deferred resumes a coroutine, which may immediately wait again.
        waiting, self._waiting = self._waiting, []
        for condition, holds in waiting:
            if holds.called:
                continue
            try:
                met = condition()
            except Exception:
                holds.errback(Failure())
            else:
                if met:
                    holds.callback(None)
                else:
                    self._waiting.append((condition, holds))


class Printer(Peer):
    """
    A program that prints lines.

    @ivar text: the complete lines.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.text: list[str] = []
        self._rest = b""

    def shown(self) -> str:
        return "\n".join(self.text[-40:])

    def printed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.line(line.decode())

    def line(self, text: str) -> None:
        """Called with each complete line."""
        self.text.append(text)


class Server(Printer):
    """The Rust server `serve`."""

    async def listens(self) -> bool:
        """Wait until the server listens, and return whether it could."""
        try:
            await self.until(lambda: "listening" in self.text, "the server to listen")
        except AssertionError:
            # Another program may have taken the port.
            if "cannot listen" not in self.errors:
                raise
            return False
        return True

    def close_input(self) -> None:
        """Close standard input, at which the server ends."""
        cast(Any, self.transport).closeStdin()


class JsonPrinter(Printer):
    """
    A program that prints each event of a stream as a line of JSON.

    @ivar lines: the lines of metrics and metadata.
    @ivar others: the lines of other events.
    """

    def __init__(self, name: str, field: str) -> None:
        """
        @param field: the field with the kind of an event.
        """
        super().__init__(name)
        self.lines: list[Line] = []
        self.others: list[Line] = []
        self._field = field

    def line(self, text: str) -> None:
        super().line(text)
        line = json.loads(text)
        known = line[self._field] in ("metadata", "metric")
        (self.lines if known else self.others).append(line)

    def only(self, what: str) -> list[Line]:
        """Return the lines of one kind of event."""
        return [line for line in self.lines if line[self._field] == what]

    async def until_lines(self, count: int, what: str = "metric") -> None:
        """Wait for this number of events of a kind."""
        await self.until(lambda: len(self.only(what)) >= count, f"{count} lines of {what}")


class Receiver(JsonPrinter):
    """
    The Rust client `receive`.

    It does not know this library's extensions, which it decodes as empty events.
    """

    def __init__(self) -> None:
        super().__init__("receive", "what")
        self._totals: dict[Key, float] = {}

    def line(self, text: str) -> None:
        super().line(text)
        line = json.loads(text)
        if line["what"] == "metric":
            self._apply(line)

    def bits(self) -> dict[Key, Bits]:
        """Return the totals that a simple viewer would have now."""
        return {key: bits(value) for key, value in self._totals.items()}

    def _apply(self, line: Line) -> None:
        act, _, word = line["operation"].partition("_")
        kind = MetricKind(word)
        if kind is MetricKind.HISTOGRAM:
            return
        key = Key(kind, line["name"], tuple(sorted(line["labels"].items())))
        value = int(line["value"]) if kind is MetricKind.COUNTER else float(line["value"])
        if act == "increment":
            value += self._totals.get(key, 0)
        elif act == "decrement":
            value = self._totals.get(key, 0) - value
        self._totals[key] = value % 2**64 if kind is MetricKind.COUNTER else value


class Terminal(Peer):
    """A program on a terminal, with its emulated screen."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        pyte = screen_module()
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)

    def press(self, key: str) -> None:
        cast(Any, self.transport).write(key.encode())

    def shown(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display if line.strip())

    def printed(self, data: bytes) -> None:
        self._stream.feed(data)


class Observer(Terminal):
    """The Rust viewer `metrics-observer`."""

    def __init__(self) -> None:
        super().__init__("metrics-observer")

    def values(self) -> dict[str, str]:
        """Return the shown values by the shown name and labels, as text."""
        values = {}
        for line in self.shown().splitlines():
            if row := _OBSERVED.search(line):
                values[row[1]] = row[2]
        return values

    async def until_shown(self, expected: Mapping[str, str | re.Pattern[str]]) -> None:
        """Wait until the screen shows exactly these values."""
        table = "\n".join(f"{name}    {value}" for name, value in expected.items())
        await self.until(lambda: self._shows(expected), f"\n{table}\n")

    async def until_among_shown(self, expected: Mapping[str, str]) -> None:
        """Wait until the screen shows these values, perhaps among others."""
        await self.until(lambda: expected.items() <= self.values().items(), f"{expected}")

    def _shows(self, expected: Mapping[str, str | re.Pattern[str]]) -> bool:
        values = self.values()
        return values.keys() == expected.keys() and all(
            value.fullmatch(values[name])
            if isinstance(value, re.Pattern)
            else value == values[name]
            for name, value in expected.items()
        )


_OBSERVED = re.compile(r"│(?:>> | *)(\S.*?) +((?:total|current|min): .*?) *│")


class PeersTestCase(TestCase):
    """A test with child processes and this library's servers, which are always cleaned up."""

    timeout = 2 * LIMIT

    def setUp(self) -> None:
        program("receive")

    def spawn(self, peer: _P, executable: str, *arguments: str, terminal: bool = False) -> _P:
        """Start a program."""
        env = environment() | {"TERM": "xterm-256color"}
        command = [executable, *arguments]
        pty = _terminal() if terminal else False
        reactor.spawnProcess(peer, executable, command, env, usePTY=pty)
        self.addCleanup(lambda: Deferred.fromCoroutine(peer.kill()))
        return peer

    def receive(self, port: int) -> Receiver:
        """Start the Rust client, which prints the events that it receives."""
        return self.spawn(Receiver(), program("receive"), f"127.0.0.1:{port}")

    def observe(self, port: int) -> Observer:
        """Start the Rust viewer."""
        address = f"127.0.0.1:{port}"
        return self.spawn(Observer(), program("metrics-observer"), address, terminal=True)

    def tail(self, port: int) -> JsonPrinter:
        """Start ``metrics-tcp tail --json``."""
        command = ["-m", "txmetrics_tcp", "tail", f"127.0.0.1:{port}", "--json"]
        return self.spawn(JsonPrinter("tail", "event"), sys.executable, *command)

    async def serve(self) -> tuple[int, Server]:
        """Start the Rust server, and return its port and its process."""
        for _ in range(ATTEMPTS):
            port = _free_port()
            server = self.spawn(Server("serve"), program("serve"), f"127.0.0.1:{port}")
            if await server.listens():
                return port, server
        self.fail("found no free port")

    async def listen(self, factory: Factory, send_buffer: int | None = None) -> int:
        """
        Listen with a factory, and return the port.

        @param send_buffer: the approximate size of the kernel's send buffer of a connection; by
            default, the kernel decides.
        """
        listening: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(listening.stopListening)
        if send_buffer is not None:
            # Accepted connections inherit this from the listening socket.
            listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if isinstance(factory, MetricsFactory):
            self.addCleanup(factory.stop, 0)
        port: int = listening.getHost().port
        return port

    async def half_closed(self, port: int) -> int:
        """
        Return the port of a relay to a server.  The relay half-closes its connection to the server,
        and forwards the server's data.
        """
        relays: list[_Relay] = []

        def relay() -> _Relay:
            relays.append(_Relay(port))
            return relays[-1]

        self.addCleanup(lambda: gatherResults([relay.gone for relay in relays]))
        return await self.listen(Factory.forProtocol(relay))


class _Relay(Protocol):
    """
    The client's side of a relay.

    @ivar gone: fires when both sides are closed.
    """

    def __init__(self, port: int) -> None:
        self._endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._server = _RelayToServer(cast(ITCPTransport, self.transport), self.gone)
        connectProtocol(self._endpoint, self._server)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._server.transport is not None:
            cast(ITCPTransport, self._server.transport).abortConnection()


class _RelayToServer(Protocol):
    def __init__(self, client: ITCPTransport, gone: Deferred[None]) -> None:
        self._client = client
        self._gone = gone

    def connectionMade(self) -> None:
        cast(ITCPTransport, self.transport).loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self._client.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.loseConnection()
        self._gone.callback(None)


def _terminal() -> tuple[int, int, str]:
    """Return a pseudo-terminal of a fixed size, for `IReactorProcess.spawnProcess`."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    return ours, theirs, os.ttyname(theirs)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Output of `receive`


def as_text(line: Line) -> str:
    """Return text for exact comparison: NaN equals itself; 0.0 and -0.0 differ."""
    return json.dumps(line, sort_keys=True, ensure_ascii=False)


def metadata_line(
    kind: str, name: str, unit: str | None = None, description: str | None = None
) -> Line:
    return {
        "what": "metadata",
        "name": name,
        "kind": kind,
        "unit": unit,
        "description": description,
    }


def metric_line(
    operation: str, name: str, labels: Mapping[str, str], value: float, timestamp_ns: int
) -> Line:
    seconds, nanos = divmod(timestamp_ns, 1_000_000_000)
    return {
        "what": "metric",
        "name": name,
        "seconds": seconds,
        "nanos": nanos,
        "labels": dict(labels),
        "operation": operation,
        "value": _printed(value),
    }


def _printed(value: float) -> int | float | str:
    if isinstance(value, int):
        # A larger number would lose digits in a JSON reader that has only doubles.
        return value if value <= 1 << 53 else str(value)
    return value if math.isfinite(value) else str(value)
