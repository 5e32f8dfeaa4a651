"""
``metrics-tcp tail`` as a process, with real sockets and terminals.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests import ROOT
from tests.daemon import TWISTD, Daemon
from tests.recordings import MEMORY, SET, record
from tests.wire_cases import CASES
from txmetrics_tcp import (
    MetricsFactory,
    encode_metadata,
    encode_metric,
)
from txmetrics_tcp.cli.messages import SILENCE

reactor: Any = global_reactor

ENOUGH = 10.0
"""For how many seconds a command looks at most for what should come."""


def _environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]))


class Child(ProcessProtocol):
    """
    A process.

    @ivar out: what it has written to standard output.
    @ivar err: what it has written to standard error.
    @ivar ended: fires with its exit code.
    @ivar code: the same, when it has ended.
    """

    def __init__(self, *command: str, **options: Any) -> None:
        self.out = self.err = ""
        self.ended: Deferred[int | None] = Deferred()
        self.code: int | None = None
        self._alive = True
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        reactor.spawnProcess(self, command[0], command, env=_environment(), **options)

    @classmethod
    def tail(cls, *arguments: str, **options: Any) -> Child:
        return cls(sys.executable, "-m", "txmetrics_tcp", "tail", *arguments, **options)

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when a condition holds; fails if the process ends before."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((condition, deferred))
        self._check()
        return deferred

    def lines(self, number: int) -> Deferred[None]:
        """Fires when there are so many lines on standard output."""
        return self.until(lambda: self.out.count("\n") >= number)

    def says(self, text: str) -> Deferred[None]:
        """Fires when something has been said on standard error."""
        return self.until(lambda: text in self.err)

    def signal(self, name: str) -> None:
        self.transport.signalProcess(name)  # type: ignore[union-attr]

    def kill(self) -> None:
        if self._alive:
            self.signal("KILL")

    def outReceived(self, data: bytes) -> None:
        self.out += data.decode()
        self._check()

    def errReceived(self, data: bytes) -> None:
        self.err += data.decode()
        self._check()

    def processEnded(self, reason: Failure) -> None:
        self._alive = False
        self._check()
        for _, deferred in self._waiting:
            deferred.errback(AssertionError(f"ended with {reason.value}; it said: {self.err}"))
        self.code = reason.value.exitCode  # type: ignore[union-attr]
        self.ended.callback(self.code)

    def _check(self) -> None:
        waiting, self._waiting = self._waiting, []
        for condition, deferred in waiting:
            if condition():
                deferred.callback(None)
            else:
                self._waiting.append((condition, deferred))


async def patiently(
    start: Callable[[str], Child], seconds: float, missing: Callable[[Child], bool]
) -> Child:
    """
    Have a command look for some seconds; for more of them if they were not enough for what should
    have come: a busy machine may let the one process or the other stand still meanwhile.

    @param start: starts it, given the duration.
    @param missing: tells, when it has ended, that it did not see what should have come.
    """
    while True:
        child = start(f"{seconds:g}")
        await child.ended
        if seconds > ENOUGH or not missing(child):
            return child
        seconds *= 2


class Greeting(Protocol):
    """A server of another kind."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + b"X-Padding: yes\r\n" * 10)


class HangingUp(Protocol):
    """A server that turns everybody away."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class ProcessTests(TestCase):
    """The command itself, with a real server."""

    timeout = 60

    def serve(self, port: str = "0") -> str:
        """Start a server, and return its port."""
        self.server = MetricsFactory(reactor, own_metrics=False)
        self.recorder = self.server.recorder
        self.counter = self.recorder.counter("requests_total", route="/")
        port = self.listen(self.server, port)
        self.addCleanup(self.server.stop, 0)
        return port

    def listen(self, factory: Factory, port: str = "0") -> str:
        self.port = reactor.listenTCP(int(port), factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        return str(self.port.getHost().port)

    def child(self, *arguments: str, **options: Any) -> Child:
        child = Child.tail(*arguments, **options)
        self.addCleanup(child.kill)
        return child

    def assertQuiet(self, child: Child) -> None:
        """It said nothing but what it has to say."""
        lines = child.err.splitlines()
        # True where a busy machine lets us stand still before the first words are sent.
        silence = "metrics-tcp: nothing has come yet; does the server want TLS (--tls-ca)?"
        if silence in lines:
            lines.remove(silence)
        for line in lines:
            self.assertRegex(line, r"^metrics-tcp: (connecting to|connected to) 127\.0\.0\.1:\d+$")

    async def connected(self, child: Child) -> None:
        """
        Wait until the server knows its client: its first words have come.

        That the client has said that it is connected is not enough.
        """
        await child.says("connected to")
        await child.lines(1)

    async def test_text(self) -> None:
        """Events as they come, and Ctrl-C ends it."""
        child = self.child(self.serve())
        await self.connected(child)
        self.recorder.describe_counter("requests_total", "count", "how many\x1b[2J")
        self.counter.increment(3)
        await child.until(lambda: " counter/increment requests_total [route = /] 3\n" in child.out)
        self.assertIn("requests_total (count): how many\\x1b[2J\n", child.out)
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        self.assertQuiet(child)

    async def test_json(self) -> None:
        child = self.child(self.serve(), "--json")
        await self.connected(child)
        self.counter.increment(3)
        await child.lines(2)
        child.signal("TERM")
        self.assertEqual(await child.ended, 143)
        self.assertQuiet(child)
        status, event = map(json.loads, child.out.splitlines())
        self.assertEqual(status["event"], "status")
        self.assertEqual(
            (event["kind"], event["operation"], event["name"], event["labels"], event["value"]),
            ("counter", "increment", "requests_total", {"route": "/"}, 3),
        )

    async def test_head(self) -> None:
        """``| head -1`` gets its line, and ends it at once, though nothing more happens."""
        port = self.serve()
        script = f'{{ "{sys.executable}" -m txmetrics_tcp tail {port}; echo "code $?" >&2; }}'
        child = Child("/bin/sh", "-c", f"{script} | head -1")
        self.addCleanup(child.kill)
        self.assertEqual(await child.ended, 0)
        self.assertEqual(child.out.count("\n"), 1)
        *before, last = child.err.splitlines()
        self.assertEqual(last, "code 0")
        child.err = "\n".join(before)
        self.assertQuiet(child)

    async def test_reconnects(self) -> None:
        """It comes back when the server does."""
        port = self.serve()
        child = self.child(port)
        await self.connected(child)
        await self.port.stopListening()
        await self.server.stop(0)
        await child.says("next attempt")
        self.serve(port)
        await child.until(lambda: child.out.count("status ") == 2)
        self.counter.increment(7)
        await child.until(lambda: "requests_total [route = /] 7\n" in child.out)
        self.assertRegex(child.err, r"disconnected from .*; next attempt in \d+\.\d seconds\n")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)

    async def test_anotherKindOfServer(self) -> None:
        child = self.child(self.listen(Factory.forProtocol(Greeting)))
        await child.says("it looks like an HTTP server")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        self.assertEqual(child.out, "")

    async def test_maxFrame(self) -> None:
        child = self.child(self.serve(), "--max-frame", "5")
        await child.says("the limit is 5")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)

    async def test_interruptedWhileBlocked(self) -> None:
        """Ctrl-C ends it also while it waits for a reader that does not read."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        child = self.child(self.serve(), childFDs={0: "w", 1: writing, 2: "r"})
        # That something can be read means that the server knows its client, and that nothing can
        # be written, that the pipe is full.
        while not select.select([reading], [], [], 0)[0]:
            await deferLater(reactor, 0.01, lambda: None)
        for _ in range(20_000):
            self.counter.increment()
        while select.select([], [writing], [], 0)[1]:
            await deferLater(reactor, 0.01, lambda: None)
        child.signal("INT")
        self.assertEqual(await child.ended, 130)
        self.assertQuiet(child)

    async def test_closedOutput(self) -> None:
        """Without a standard output there is nothing to do."""
        port = self.serve()
        command = f'exec "{sys.executable}" -m txmetrics_tcp tail {port} >&-'
        child = Child("/bin/sh", "-c", command)
        self.addCleanup(child.kill)
        self.assertEqual(await child.ended, 1)
        self.assertEqual(child.err, "metrics-tcp: cannot write: standard output is closed\n")

    async def test_fullDisk(self) -> None:
        port = self.serve()
        command = f'exec "{sys.executable}" -m txmetrics_tcp tail {port} >/dev/full'
        child = Child("/bin/sh", "-c", command)
        self.addCleanup(child.kill)
        self.assertEqual(await child.ended, 1)
        self.assertIn("metrics-tcp: cannot write: No space left on device\n", child.err)

    async def test_refused(self) -> None:
        """A stream that never began is an error, though there were connections."""
        port = self.listen(Factory.forProtocol(HangingUp))
        said = "it hung up before anything came: perhaps it does not allow"
        child = await patiently(
            lambda seconds: self.child(port, "--duration", seconds),
            1,
            lambda child: said not in child.err,
        )
        self.assertEqual(child.code, 1)
        self.assertIn(said, child.err)
        self.assertRegex(child.err, r"nothing came from 127\.0\.0\.1:\d+ within \d+ seconds\n$")

    async def test_silence(self) -> None:
        """As of a server that waits for TLS to begin."""
        port = self.listen(Factory.forProtocol(Protocol))
        said = "nothing has come yet; does the server want TLS (--tls-ca)?"
        child = await patiently(
            lambda seconds: self.child(port, "--duration", seconds),
            1.25 * SILENCE,
            lambda child: said not in child.err,
        )
        self.assertEqual(child.code, 1)
        self.assertEqual(child.err.count(said), 1, child.err)

    async def test_wrongFiles(self) -> None:
        """What looks like a path is told of as one."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        (folder / "empty.rec").touch()
        unix = socket.socket(socket.AF_UNIX)
        self.addCleanup(unix.close)
        # Such a name has to be short.
        where = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, where)
        unix.bind(f"{where}/s")
        for code, path, says in [
            (1, f"{folder}/empty.rec", "it is empty, and no recording"),
            (2, "No-such-file.rec", "No-such-file.rec: no such file, and no endpoint"),
            (2, f"{folder}", "it is a directory, and no endpoint"),
            (2, f"{where}/s", f"it is a socket; to connect to it, write unix:{where}/s"),
        ]:
            child = self.child(path)
            self.assertEqual(await child.ended, code, child.err)
            self.assertTrue(child.err.endswith(f"{says}\n"), child.err)

    async def test_fileNamedAsPort(self) -> None:
        """It is no recording unless it is written as a path."""
        Path("1").write_text("")
        self.addCleanup(os.unlink, "1")
        for endpoint, says in [("1", "connecting to 127.0.0.1:1\n"), ("./1", "it is empty")]:
            child = self.child(endpoint, "--duration", "0.2")
            self.assertEqual(await child.ended, 1)
            self.assertIn(says, child.err)

    async def test_badEndpoint(self) -> None:
        child = self.child("nowhere")
        self.assertEqual(await child.ended, 2)
        self.assertEqual(child.out, "")
        self.assertRegex(child.err, r"^metrics-tcp tail: 'nowhere' is no endpoint.*\n$")


class CommandTests(SynchronousTestCase):
    """The command itself."""

    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())
        self.stream = b"".join(case.frame for case in CASES)

    def tail(self, *arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "txmetrics_tcp", "tail"]
        return Daemon(self, *arguments, runner=command).end()

    def test_recording(self) -> None:
        """A recording is printed from its beginning to its end, with units as described."""
        frames = encode_metadata(MEMORY) + encode_metric(SET)
        Path(self.path).write_bytes(record(frames, frames, compress=True))
        status, out, said = self.tail(self.path)
        self.assertEqual((status, said), (0, ""))
        self.assertEqual(out.count("memory 1.0 B"), 2)
        self.assertEqual(out.count("metadata"), 2)

    def test_all(self) -> None:
        """Every event that there is."""
        Path(self.path).write_bytes(record(self.stream))
        status, out, _ = self.tail(self.path, "--json")
        self.assertEqual(status, 0)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(events), sum(case.event is not None for case in CASES))

    def test_cutOff(self) -> None:
        whole = record(encode_metric(SET), encode_metric(SET))
        Path(self.path).write_bytes(whole[:-40])
        status, out, said = self.tail(self.path)
        self.assertEqual((status, out.count("\n")), (0, 1))
        self.assertIn("it was cut off; this was its last whole event", said)

    def test_damaged(self) -> None:
        whole = bytearray(record(encode_metric(SET), encode_metric(SET)))
        whole[-40] ^= 1
        Path(self.path).write_bytes(whole)
        status, out, said = self.tail(self.path)
        self.assertEqual((status, out.count("\n")), (1, 1))
        self.assertIn("it is damaged behind its first", said)
        Path(self.path).write_bytes(record(encode_metric(SET), b"\x02\xff\xff"))
        status, out, said = self.tail(self.path)
        self.assertEqual((status, out.count("\n")), (1, 1))
        self.assertIn("not a metrics stream", said)

    def test_live(self) -> None:
        """Filters, an end by count and one by time, on a daemon."""
        port = str(Daemon(self, "-n", "metrics-tcp", "--listen", "0", runner=TWISTD).port)
        status, out, _ = self.tail(port, "--json", "--filter", "name:process_cpu", "--count", "1")
        self.assertEqual(status, 0)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [(event["event"], event.get("name")) for event in events],
            [
                ("status", None),
                ("metadata", "process_cpu_seconds_total"),
                ("metric", "process_cpu_seconds_total"),
            ],
        )
        status, out, _ = self.tail(port, "--filter", "nothing_like_that", "--duration", "0.3")
        self.assertEqual((status, out.count("\n")), (0, 1))

    def test_help(self) -> None:
        """-TERM at the beginning of a filter would be an option."""
        _, said, _ = self.tail("--help")
        self.assertIn("what is not wanted is written !TERM", " ".join(said.split()))

    def test_bad(self) -> None:
        Path(self.path).write_text("hello")
        for status, arguments, says in [
            (1, ["1", "--duration", "0.2"], "cannot connect to 127.0.0.1:1"),
            (1, [self.path], "it is not a recording of metrics"),
            (2, ["--filter", "kind:x"], "there is no kind 'x'"),
            (2, ["--count", "x"], "invalid number of events value: 'x'"),
            (2, ["--duration", "0"], "invalid duration value: '0'"),
        ]:
            code, _, said = self.tail(*arguments)
            self.assertEqual(code, status, said)
            self.assertIn(says, said)
            self.assertNotIn("Traceback", said)
