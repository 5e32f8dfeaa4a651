"""
`metrics-tcp tail`: what it prints, where, and how it ends.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import (
    StreamError,
    __version__,
)
from txmetrics_tcp._client.service import Connected, Connecting, Disconnected, Waiting
from txmetrics_tcp.cli import main
from txmetrics_tcp.cli.messages import SILENCE, SilenceRemark
from txmetrics_tcp.cli.output import Output, ReaderGone
from txmetrics_tcp.cli.tail import Tail
from txmetrics_tcp.testing import FakeReactor, PausingTransport


class TailTests(SynchronousTestCase):
    """Lines go to one place, remarks to the other, in an order that makes sense."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.printed: list[str] = []
        self.stopped: list[int] = []
        self.error: OSError | None = None
        self.made = 0
        self.tail = Tail(
            self.reactor,
            "there",
            self.make_lines,
            self.write,
            lambda text: self.printed.append(f"({text})"),
            self.stopped.append,
        )

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

    def test_together(self) -> None:
        """What came in one turn of the reactor is written at once, in the next."""
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
        """Each state is one remark, said once."""
        connected = Connected(PausingTransport().getPeer())
        refused = Disconnected(Failure(ConnectionRefusedError()))
        wrong = Disconnected(Failure(StreamError("not a metrics stream: no")))
        for state in [Connecting(), refused, Waiting(1.25), Connecting(), connected, wrong]:
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
                " next attempt in 1.2 seconds)",
                "(connected to there)",
                "(disconnected from there: not a metrics stream: no; next attempt in 2.0 seconds)",
                "(cannot connect to there: Connection was refused by other side;"
                " next attempt in 3.0 seconds)",
            ],
        )

    def test_order(self) -> None:
        """A remark stands behind the events that came before what it is about."""
        self.tail.state_changed(Connected(PausingTransport().getPeer()))
        self.receive("a")
        self.tail.state_changed(Disconnected(Failure(ConnectionRefusedError())))
        self.tail.state_changed(Waiting(1))
        self.assertEqual(self.printed[1], "2: a\n")
        self.assertIn("disconnected", self.printed[2])
        self.reactor.advance(1)
        self.assertEqual(len(self.printed), 3)

    def test_eachConnectionAnew(self) -> None:
        """What one server said of its metrics does not hold for the next."""
        for _ in range(2):
            self.tail.state_changed(Connected(PausingTransport().getPeer()))
            self.receive("a")
            self.reactor.advance(0)
        self.assertEqual(self.printed[1::2], ["2: a\n", "3: a\n"])

    def test_nobodyReads(self) -> None:
        """That is not an error: it was enough."""
        self.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.receive("a")
        self.reactor.advance(0)
        self.assertEqual((self.printed, self.stopped), ([], [0]))

    def test_cannotWrite(self) -> None:
        """This is one."""
        self.error = OSError(errno.ENOSPC, "No space left on device")
        self.receive("a")
        self.reactor.advance(0)
        self.assertEqual(self.printed, ["(cannot write: No space left on device)"])
        self.assertEqual(self.stopped, [1])


class OutputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(self.close)

    def close(self) -> None:
        for descriptor in self.reading, self.writing:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def test_writes(self) -> None:
        """What was written is out: nothing has to be flushed."""
        Output(self.writing, "utf-8").write("größe\n")
        self.assertEqual(os.read(self.reading, 100), "größe\n".encode())

    def test_encoding(self) -> None:
        """What the terminal's encoding cannot say is escaped, and is no error."""
        Output(self.writing, "ascii").write("μs\n")
        self.assertEqual(os.read(self.reading, 100), b"\\u03bcs\n")

    def test_slowReader(self) -> None:
        """It waits for a reader that is slower, and loses nothing."""
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

    def test_nobodyReads(self) -> None:
        os.close(self.reading)
        self.assertRaises(BrokenPipeError, Output(self.writing, "utf-8").write, "a")

    def test_cancelled(self) -> None:
        """A write that waits for a reader ends when a signal handler wants it to."""
        output = Output(self.writing, "utf-8")
        alarms = 0

        def alarm(number: int, frame: object) -> None:
            nonlocal alarms
            alarms += 1
            output.cancelled = True
            if alarms > 100:
                raise AssertionError("it goes on waiting")

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, alarm))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        output.write("x" * 1_000_000)
        self.assertGreater(alarms, 0)

    def test_watches(self) -> None:
        """Only of the writing end of a pipe is it true that it can be read when nobody reads."""
        self.assertTrue(ReaderGone.watches(self.writing))
        self.assertFalse(ReaderGone.watches(self.reading))
        with open(os.devnull, "w") as file:
            self.assertFalse(ReaderGone.watches(file.fileno()))


class MainTests(SynchronousTestCase):
    """What can be said without a reactor."""

    def run_main(self, *arguments: str) -> tuple[object, str, str]:
        """Exit code, standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: object = main(arguments)
            except SystemExit as exit:
                code = exit.code
        return code, out.getvalue(), err.getvalue()

    def test_version(self) -> None:
        self.assertEqual(self.run_main("--version"), (0, f"metrics-tcp {__version__}\n", ""))

    def test_help(self) -> None:
        code, out, _ = self.run_main("--help")
        self.assertEqual(code, 0)
        self.assertIn("tail", out)
        code, out, _ = self.run_main("tail", "--help")
        self.assertEqual(code, 0)
        for word in ["127.0.0.1:5000", "--json", "--max-frame", "1048576", "Exit codes"]:
            self.assertIn(word, out)

    def test_noCommand(self) -> None:
        code, _, err = self.run_main()
        self.assertEqual(code, 2)
        self.assertIn("COMMAND", err)

    def test_badEndpoint(self) -> None:
        for endpoint in ["no\x1bsuch", "localhost:70000", "tcp:host=x", "[::1:5000", ""]:
            for tls in [[], ["--tls"]]:
                code, out, err = self.run_main("tail", endpoint, *tls)
                self.assertEqual((code, out), (2, ""))
                self.assertRegex(err, r"^metrics-tcp tail: .* is no endpoint.*\n$")
                self.assertTrue(err[:-1].isprintable(), err)

    def test_badNumber(self) -> None:
        for number in ["0", "-1", "many", "1.5"]:
            code, _, err = self.run_main("tail", f"--max-frame={number}")
            self.assertEqual(code, 2)
            self.assertIn("argument --max-frame: invalid number of bytes", err)


class SilenceTests(SynchronousTestCase):
    """What is said about a connection over which nothing comes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []

    def test_once(self) -> None:
        """Of several such connections, of the first that lasts."""
        silence = SilenceRemark(self.clock, self.said.append, tls=False)
        silence.connected()
        self.clock.advance(SILENCE / 2)
        silence.over()
        self.clock.advance(SILENCE)
        self.assertEqual(self.said, [])
        for _ in range(2):
            silence.connected()
            self.clock.advance(SILENCE)
            silence.over()
        self.assertEqual(self.said, ["nothing has come yet; does the server want TLS (--tls-ca)?"])

    def test_withTLS(self) -> None:
        """Then that is not the question."""
        SilenceRemark(self.clock, self.said.append, tls=True).connected()
        self.clock.advance(SILENCE)
        self.assertEqual(self.said, ["nothing has come yet"])
