"""
``metrics-tcp record`` as a process.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import LIMIT, METRICS_TCP, TWISTD, Daemon
from tests.recordings import STREAM, joined, read, record
from txmetrics_tcp import Decoder, Metric


class CommandTests(SynchronousTestCase):
    """The command itself, with a real daemon."""

    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())

    def daemon(self) -> str:
        return str(Daemon(self, "-n", "metrics-tcp", "--listen", "0", runner=TWISTD).port)

    def start(self, *arguments: str) -> Daemon:
        return Daemon(self, "record", *arguments, runner=METRICS_TCP)

    def test_interrupted(self) -> None:
        """Ctrl-C is how it ends as a rule: the file is whole, and all is well."""
        port = self.daemon()
        for number in (signal.SIGINT, signal.SIGTERM):
            command = self.start(self.path, port, "--append", "--compress")
            command.wait_for("connected to")
            self.wait_for_events(1 if number == signal.SIGINT else 2)
            command.process.send_signal(number)
            status, said, _ = command.end()
            self.assertEqual(status, 0, said)
            self.assertRegex(said, r"recorded [\d,]+ events in ")
        reader, _ = read(Path(self.path).read_bytes())
        self.assertEqual((reader.cut_off, reader.damage), (False, ""))
        self.assertEqual(len(reader.sessions), 2)
        self.assertEqual(reader.sessions[0].source, f"127.0.0.1:{port}")

    def wait_for_events(self, sessions: int) -> None:
        """What has come is in the file within a second."""
        deadline = time.monotonic() + LIMIT
        while True:
            reader, chunks = read(Path(self.path).read_bytes())
            if len(reader.sessions) == sessions and chunks and reader.cut_off:
                last = reader.sessions[-1].seconds
                if chunks[-1].seconds > last or sessions == 1:
                    return
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def test_fileForgotten(self) -> None:
        """An endpoint in its place is refused, before anything is written."""
        for forgotten in ("5611", "web1:5000", "[::1]:5000", "unix:/run/x.sock"):
            code, said, _ = self.start(forgotten, "--duration", "0.1").end()
            self.assertEqual(code, 2, said)
            self.assertIn(f"if a file of that name is meant, write ./{forgotten}", said)
            self.assertFalse(Path(forgotten).exists())

    def test_nothingCame(self) -> None:
        """The file that was made for it is gone, so that the next attempt can be the same."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = str(silent.getsockname()[1])
            for _ in range(2):
                code, said, _ = self.start(self.path, port, "--duration", "0.3").end()
                self.assertEqual(code, 1, said)
                self.assertIn(f"nothing came from 127.0.0.1:{port}, nothing is recorded", said)
                self.assertFalse(Path(self.path).exists())
            Path(self.path).write_bytes(record(STREAM))
            code, said, _ = self.start(self.path, port, "--append", "--duration", "0.3").end()
            self.assertEqual(code, 1, said)
            self.assertEqual(joined(read(Path(self.path).read_bytes())[1]), STREAM)

    def test_countAndAppend(self) -> None:
        """So many events, to the last one; then as many again."""
        port = self.daemon()
        for arguments in ([], ["--append"]):
            status, said, _ = self.start(self.path, port, "--count", "10", *arguments).end()
            self.assertEqual(status, 0, said)
        reader, chunks = read(Path(self.path).read_bytes())
        events = [e for chunk in chunks for e in Decoder().feed(chunk.frames)]
        self.assertEqual(sum(isinstance(event, Metric) for event in events), 20)
        self.assertFalse(reader.cut_off)
        Path(self.path).write_bytes(Path(self.path).read_bytes()[:-40])
        status, said, _ = self.start(self.path, port, "--count", "1", "--append").end()
        self.assertEqual(status, 0)
        self.assertRegex(said, "had been cut off: of the last .* bytes, .* whole frames were kept")
        self.assertFalse(read(Path(self.path).read_bytes())[0].cut_off)

    def test_duration(self) -> None:
        port = self.daemon()
        status, said, seconds = None, "nothing came", 0.5
        # On a busy machine, it may end before anything has.
        while "nothing came" in said and seconds < LIMIT:
            status, said, _ = self.start(self.path, port, "--duration", f"{seconds}s").end()
            seconds *= 2
        self.assertEqual(status, 0, said)

    def test_output(self) -> None:
        """To standard output, for a pipe."""
        runner = [sys.executable, "-m", "txmetrics_tcp"]
        command = Daemon(self, "record", "-", self.daemon(), "--count", "3", runner=runner)
        assert command.process.stdout is not None
        written = command.process.stdout.read()
        self.assertEqual(command.process.wait(), 0)
        reader, chunks = read(written)
        self.assertTrue(chunks)
        self.assertFalse(reader.cut_off)

    def test_bad(self) -> None:
        """What cannot be done is one line, and an exit code."""
        port = self.daemon()
        Path(self.path).write_bytes(record(STREAM))
        Path(f"{self.path}.txt").write_text("hello")
        none = f"{self.path}.none"
        for status, arguments, says in [
            (1, [self.path, port], "is there already: --append goes on with it, --force replaces"),
            (1, [f"{self.path}.txt", port, "--append"], "it is not a recording of metrics"),
            (1, ["/nowhere/file", port], "cannot record to /nowhere/file: No such file"),
            (1, ["/dev/full", port], "cannot record to /dev/full: No space left on device"),
            (1, [none, "1", "--duration", "0.2"], "nothing came from 127.0.0.1:1"),
            (2, [none, "x:y"], "'x:y' is no endpoint"),
            (2, [none, port, "--append", "--force"], "not allowed with argument"),
            (2, [none, port, "--count", "0"], "invalid number of events"),
            (2, [none, port, "--duration", "-1"], "expected one argument|invalid duration"),
        ]:
            code, said, _ = self.start(*arguments).end()
            self.assertEqual(code, status, said)
            self.assertRegex(said, says)
            self.assertNotIn("Traceback", said)
        self.assertEqual(Path(f"{self.path}.txt").read_text(), "hello")
        self.assertEqual(self.start(self.path, port, "--force", "--count", "1").end()[0], 0)
        self.assertNotIn(STREAM, Path(self.path).read_bytes())

    def test_progress(self) -> None:
        """On a terminal it shows how far it is, in one line that is gone in the end."""
        port = self.daemon()
        master, terminal = pty.openpty()
        self.addCleanup(os.close, master)
        script = (
            f"import os, sys; os.dup2({terminal}, 2); from txmetrics_tcp.cli import main;"
            "sys.exit(main())"
        )
        command = Daemon(
            self,
            *["record", self.path, port],
            runner=[sys.executable, "-c", script],
            inherit=[terminal],
        )
        os.close(terminal)
        self.read_until(master, rb"recording: 0:\d\d, [\d,]+ events, [\d.]+ kB")
        command.process.send_signal(signal.SIGINT)
        self.read_until(master, rb"\r\x1b\[Kmetrics-tcp: recorded [\d,]+ events in")
        self.assertEqual(command.end()[0], 0)

    def read_until(self, terminal: int, pattern: bytes) -> bytes:
        shown = b""
        deadline = time.monotonic() + LIMIT
        while not re.search(pattern, shown):
            # It draws again and again, so that something always comes.
            left = max(0.0, deadline - time.monotonic())
            if not select.select([terminal], [], [], left)[0]:
                self.fail(f"waited for {pattern!r} in vain: {shown!r}")
            shown += os.read(terminal, 65536)
        return shown
