"""
``metrics-tcp tail``: the printed lines, the messages, and the end of the command.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, Ended, run, serving
from tests.recordings import HTTP, MEMORY, RECORDINGS, SET, STATUS, STREAM, increment, record
from txmetrics_tcp import StreamError, Unknown, decode, encode_metadata, encode_metric
from txmetrics_tcp._client.service import Connected, Connecting, Disconnected, Waiting
from txmetrics_tcp._net import pipes
from txmetrics_tcp._recording.blocks import MAGIC
from txmetrics_tcp._view.numbers import show_value
from txmetrics_tcp.cli import tail
from txmetrics_tcp.cli.messages import SILENCE, ConnectionMessages, SilenceMessage
from txmetrics_tcp.cli.output import Output, ReaderGone, write_message
from txmetrics_tcp.cli.tail import Printer, Tail
from txmetrics_tcp.testing import FakeReactor, PausingTransport

CONNECTED = Connected(PausingTransport().getPeer())


class TailTests(SynchronousTestCase):
    """Lines and messages are printed in the order of events."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.printed: list[str] = []
        self.stopped: list[int] = []
        self.error: OSError | None = None
        self.made = 0
        self.printer = Printer(
            self.reactor,
            self.write,
            lambda text: self.printed.append(f"({text})"),
            self.stopped.append,
        )
        messages = ConnectionMessages("there", self.reactor, self.printer.say, False)
        self.tail = Tail(self.printer, messages, self.make_lines)

    def make_lines(self) -> Callable[[Any], str]:
        self.made += 1
        made = self.made
        return lambda event: f"{made}: {event}"

    def write(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.printed.append(text)

    def receive(self, *events: str) -> None:
        for event in events:
            self.tail.received(event)  # type: ignore[arg-type]

    def test_oneWrite(self) -> None:
        """Events of one reactor iteration are written together, in the next iteration."""
        self.receive("a", "b")
        self.assertEqual(self.printed, [])
        self.reactor.advance(0)
        self.assertEqual(self.printed, ["1: a\n1: b\n"])
        self.reactor.advance(10)
        self.assertEqual(len(self.printed), 1)
        self.receive("c")
        self.reactor.advance(0)
        self.assertEqual(self.printed[1:], ["1: c\n"])

    def test_states(self) -> None:
        """Each state of the connection is reported once."""
        refused = Disconnected(Failure(ConnectionRefusedError()))
        wrong = Disconnected(Failure(StreamError("not a metrics stream: no")))
        for state in [Connecting(), refused, Waiting(1.25), Connecting(), CONNECTED, wrong]:
            self.tail.state_changed(state)
        self.tail.state_changed(Waiting(2))
        self.tail.state_changed(Connecting())
        self.tail.state_changed(refused)
        self.tail.state_changed(Waiting(3))
        self.assertEqual(
            self.printed,
            [
                "(connecting to there)",
                "(cannot connect to there: Connection was refused by other side;"
                " next attempt in 1.25 s)",
                "(connected to there)",
                "(disconnected from there: not a metrics stream: no; next attempt in 2 s)",
                "(cannot connect to there: Connection was refused by other side;"
                " next attempt in 3 s)",
            ],
        )

    def test_messageOrder(self) -> None:
        """A message follows the lines of earlier events."""
        self.tail.state_changed(CONNECTED)
        self.receive("a")
        self.tail.state_changed(Disconnected(Failure(ConnectionRefusedError())))
        self.tail.state_changed(Waiting(1))
        self.assertEqual(self.printed[1], "2: a\n")
        self.assertIn("disconnected", self.printed[2])
        self.reactor.advance(1)
        self.assertEqual(len(self.printed), 3)

    def test_reconnect(self) -> None:
        """Each connection has its own formatter, since descriptions may differ."""
        for _ in range(2):
            self.tail.state_changed(CONNECTED)
            self.receive("a")
            self.reactor.advance(0)
        self.assertEqual(self.printed[1::2], ["2: a\n", "3: a\n"])

    def test_readerClosed(self) -> None:
        """If the reader closes the pipe, the command stops without an error."""
        self.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.receive("a")
        self.reactor.advance(0)
        self.assertEqual((self.printed, self.stopped), ([], [0]))

    def test_cannotWrite(self) -> None:
        """Any other write error is reported, and the exit code is 1."""
        self.error = OSError(errno.ENOSPC, "No space left on device")
        self.receive("a")
        self.reactor.advance(0)
        self.receive("b")
        self.tail.flush()
        self.assertEqual(
            self.printed, ["(cannot write to standard output: No space left on device)"]
        )
        self.assertEqual(self.stopped, [1])


class OutputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(self.close)

    def close(self) -> None:
        for descriptor in self.reading, self.writing:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def test_unbuffered(self) -> None:
        """Text is written at once, without a flush."""
        Output(self.writing, "utf-8").write("größe\n")
        self.assertEqual(os.read(self.reading, 100), "größe\n".encode())

    def test_encoding(self) -> None:
        """Characters outside the encoding are escaped."""
        Output(self.writing, "ascii").write("μs\n")
        self.assertEqual(os.read(self.reading, 100), b"\\u03bcs\n")

    def test_slowReader(self) -> None:
        """A write waits for a slow reader and loses nothing."""
        text = "".join(f"{number}\n" for number in range(100_000))
        read: list[bytes] = []

        def reader() -> None:
            while data := os.read(self.reading, 10_000):
                read.append(data)

        thread = threading.Thread(target=reader)
        thread.start()
        Output(self.writing, "utf-8").write(text)
        os.close(self.writing)
        thread.join()
        self.assertEqual(b"".join(read), text.encode())

    def test_readerClosed(self) -> None:
        os.close(self.reading)
        self.assertRaises(BrokenPipeError, Output(self.writing, "utf-8").write, "a")

    def test_cancelled(self) -> None:
        """A signal handler can cancel a blocked write."""
        output = Output(self.writing, "utf-8")
        wait = pipes.is_writable
        waits = 0

        def interrupted(descriptor: int, seconds: float) -> bool:
            nonlocal waits
            ready = wait(descriptor, 0)
            if not ready:
                waits += 1
                self.assertEqual(waits, 1, "the write was not cancelled")
                output.cancel()
            return ready

        self.patch(pipes, "is_writable", interrupted)
        output.write("x" * 1_000_000)
        self.assertEqual(waits, 1)

    def test_interrupted(self) -> None:
        """After C{interrupt}, a write waits for a second longer."""
        output = Output(self.writing, "utf-8")
        wait = pipes.is_writable
        seconds = 0.0

        def interrupted(descriptor: int, timeout: float) -> bool:
            nonlocal seconds
            ready = wait(descriptor, 0)
            if not ready:
                seconds += timeout
                self.assertLess(seconds, 60, "the write was not interrupted")
                if seconds > 5:
                    output.interrupt()
            return ready

        self.patch(pipes, "is_writable", interrupted)
        self.assertRaises(TimeoutError, output.write, "x" * 1_000_000)
        self.assertTrue(6 <= seconds < 6.3, seconds)

    def test_nonBlocking(self) -> None:
        """A write is repeated if another process makes the pipe non-blocking and fills it."""
        write = os.write
        failures = iter([BlockingIOError(errno.EAGAIN, "full")])

        def fail_once(descriptor: int, data: bytes) -> int:
            for error in failures:
                raise error
            return write(descriptor, data)

        self.patch(os, "write", fail_once)
        Output(self.writing, "utf-8").write("text")
        self.assertEqual(os.read(self.reading, 100), b"text")

    def test_messages(self) -> None:
        """A message is dropped if the reader of a full pipe does not read."""
        os.set_blocking(self.writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, bytes(65536))
        os.set_blocking(self.writing, True)
        kept = os.dup(2)
        try:
            os.dup2(self.writing, 2)
            write_message("message\n", 0.001)
            os.read(self.reading, 1_000_000)
            write_message("message\n", 60)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        self.assertEqual(os.read(self.reading, 1_000_000), b"message\n")

    def test_watches(self) -> None:
        """Only the writing end of a pipe becomes readable when the reader closes it."""
        self.assertTrue(ReaderGone.watches(self.writing))
        self.assertFalse(ReaderGone.watches(self.reading))
        with open(os.devnull, "w") as file:
            self.assertFalse(ReaderGone.watches(file.fileno()))


class CommandTests(SynchronousTestCase):
    """The whole command, on a fake reactor."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.frames = encode_metadata(MEMORY) + encode_metric(SET)

    def tail(self, data: bytes, *arguments: str) -> Ended:
        """Print a recording."""
        Path(self.path).write_bytes(data)
        return run("tail", self.path, *arguments)

    def test_recording(self) -> None:
        """
        A recording is printed from its beginning to its end, with units as each connection
        describes them.
        """
        again = record(encode_metric(SET))[len(MAGIC) :]
        code, out, said = self.tail(record(self.frames, self.frames, compress=True) + again)
        self.assertEqual((code, said), (0, ""))
        self.assertEqual([out.count(" memory 1.0 B\n"), out.count(" memory 1.0\n")], [2, 1])
        self.assertEqual(out.count("metadata"), 2)

    def test_terminal(self) -> None:
        """Values are human-readable on a terminal, unless an option asks for exact ones."""
        frames = encode_metadata(MEMORY) + encode_metric(SET._replace(value=1536.0))
        Path(self.path).write_bytes(record(frames))
        raw = self.mktemp()
        Path(raw).write_bytes(frames)
        for terminal, arguments, value in [
            (True, [self.path], f" memory {show_value(1536, 'bytes')}\n"),
            (True, [self.path, "--exact"], " memory 1536.0 B\n"),
            (True, [self.path, "--json"], '"value":1536.0}\n'),
            (True, ["--raw", raw], " memory 1536.0 B\n"),
            (False, [self.path], " memory 1536.0 B\n"),
        ]:
            with mock.patch.object(os, "isatty", lambda number, result=terminal: result):
                out = run("tail", *arguments).out
            self.assertTrue(out.endswith(value), out)

    def test_order(self) -> None:
        """Damage is reported after all events have been printed."""
        printed: list[int] = []
        with mock.patch.object(tail, "say", lambda text: printed.append(os.fstat(1).st_size)):
            _, out, _ = self.tail(RECORDINGS["damaged"].data)
        self.assertEqual(printed, [len(out)])

    def test_json(self) -> None:
        """With C{--json}, each event is one JSON object."""
        code, out, _ = self.tail(record(STREAM), "--json")
        self.assertEqual(code, 0)
        events = [json.loads(line) for line in out.splitlines()]
        printed = [event for event in decode(STREAM) if not isinstance(event, Unknown)]
        self.assertEqual(len(events), len(printed))

    def test_live(self) -> None:
        """C{--filter} with C{--count} or C{--duration} limits the printed events."""
        stream = STATUS + increment(1) + self.frames + encode_metric(SET)
        options = ["--json", "--filter", "name:mem", "--count", "1"]
        code, out, _ = run("tail", "5000", *options, on=serving(stream))
        self.assertEqual(code, 0)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [(event["event"], event.get("name")) for event in events],
            [("status", None), ("metadata", "memory"), ("metric", "memory")],
        )
        options = ["--filter", "nothing_like_that", "--duration", "5m"]
        code, out, said = run("tail", "5000", *options, on=serving(stream))
        self.assertEqual((code, out.count("\n")), (0, 1))
        self.assertEqual(
            said,
            "metrics-tcp: connecting to 127.0.0.1:5000\nmetrics-tcp: connected to 127.0.0.1:5000\n",
        )

    def test_unknown(self) -> None:
        """Unknown events are reported once."""
        _, _, said = run("tail", "5000", "--duration", "1", on=serving(STREAM + STREAM))
        for text in (said, self.tail(record(STREAM + STREAM))[2]):
            self.assertEqual(text.count("cannot interpret"), 1)
            self.assertIn("interpret a description of an unknown kind of metric; a newer", text)

    def test_nothingReceived(self) -> None:
        """If no event is received, the exit code is 1, even after a connection."""
        for served, says in [
            (None, "cannot connect to 127.0.0.1:1: Connection was refused"),
            (PausingTransport.lose, "the server closed the connection before it sent data"),
            (
                lambda transport: None,
                "no data received yet; does the server require TLS (--tls-ca)?",
            ),
            (lambda transport: transport.receive(HTTP), "it looks like an HTTP server"),
        ]:
            code, out, said = run("tail", "1", "--duration", "2.5", on=CommandReactor(served))
            self.assertEqual((code, out), (1, ""))
            self.assertIn(says, said)
            self.assertEqual(said.count("no data received"), says.count("no data received"))
            self.assertTrue(said.endswith("received nothing from 127.0.0.1:1 within 2.5 s\n"))

    def test_lastMoment(self) -> None:
        """Events that are received at the end of the duration are printed."""
        on = CommandReactor(lambda transport: on.callLater(1, transport.receive, STATUS))
        code, out, _ = run("tail", "5000", "--duration", "1", on=on)
        self.assertEqual((code, out.count("status ")), (0, 1))

    def test_maxFrame(self) -> None:
        """C{--max-frame} limits the frames of live streams only."""
        options = ["--max-frame", "5"]
        _, _, said = run("tail", "1", "--duration", "1", *options, on=serving(STATUS))
        self.assertIn("the limit of 5 bytes", said)
        self.assertEqual(self.tail(record(STATUS), *options).code, 0)

    def test_notARecording(self) -> None:
        """An argument that looks like a path is reported with its kind of file."""
        folder = self.mktemp()
        os.mkdir(folder)
        # The path of a socket must be short.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = f"{directory}/s"
        unix = socket.socket(socket.AF_UNIX)
        self.addCleanup(unix.close)
        unix.bind(path)
        for file, says in [
            ("No-such-file.rec", "no such file; for a server, write No-such-file.rec:5000"),
            (folder, f"a directory; for the sockets in it, write '{folder}/*.sock'"),
            ("/dev/null", "not an endpoint or a regular file"),
        ]:
            ended = run("tail", file)
            self.assertEqual((ended.code, ended.out), (1, ""))
            self.assertTrue(ended.err.endswith(f"{says}\n"), ended.err)

    def test_fileNamedAsPort(self) -> None:
        """A number is a port, even if a file of that name exists."""
        Path("1").write_text("")
        self.addCleanup(os.unlink, "1")
        for endpoint, says in [("1", "connecting to 127.0.0.1:1\n"), ("./1", "empty file")]:
            code, _, said = run("tail", endpoint, "--duration", "0.2")
            self.assertEqual(code, 1)
            self.assertIn(says, said)

    def test_badEndpoint(self) -> None:
        for endpoint in ["nowhere:x", "no\x1bsuch:", "localhost:70000", "tcp:host=x", "::1", ""]:
            for tls in [[], ["--tls"]]:
                code, out, said = run("tail", endpoint, *tls)
                self.assertEqual((code, out), (2, ""))
                self.assertRegex(said, r"^metrics-tcp tail: .* is not an endpoint.*\n$")
                self.assertTrue(said[:-1].isprintable(), said)


class SilenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []

    def test_once(self) -> None:
        """The message is printed once, for the first connection that stays silent long enough."""
        silence = SilenceMessage(self.clock, self.said.append, tls=False)
        silence.state_changed(CONNECTED)
        self.clock.advance(SILENCE / 2)
        silence.end_silence()
        self.clock.advance(SILENCE)
        self.assertEqual(self.said, [])
        for _ in range(2):
            silence.state_changed(CONNECTED)
            self.clock.advance(SILENCE)
            silence.end_silence()
        self.assertEqual(
            self.said, ["no data received yet; does the server require TLS (--tls-ca)?"]
        )

    def test_withTLS(self) -> None:
        """If the client uses TLS, the message does not suggest to use TLS."""
        silence = SilenceMessage(self.clock, self.said.append, tls=True)
        silence.state_changed(CONNECTED)
        self.clock.advance(SILENCE)
        self.assertEqual(self.said, ["no data received yet"])

    def test_end(self) -> None:
        """A command that ends at that moment prints only its last message."""
        for command in (["tail"], ["stats"], ["record", self.mktemp()]):
            reactor = CommandReactor(lambda transport: None)
            ended = run(*command, "5000", f"--duration={SILENCE:g}", on=reactor)
            self.assertEqual(ended.code, 1)
            self.assertIn("received nothing from 127.0.0.1:5000", ended.err.splitlines()[-1])
            self.assertNotIn("no data received yet", ended.err)
