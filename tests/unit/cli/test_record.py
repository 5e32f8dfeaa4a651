"""
`metrics-tcp record`: that a file has what came, and when it ends.
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
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.daemon import LIMIT, METRICS_TCP, TWISTD, Daemon
from tests.unit.recording.test_recording import FullDisk, Unclosed, joined, read, record, writer_to
from tests.wire_cases import CASES
from txmetrics_tcp import Decoder, Metric, StreamError
from txmetrics_tcp._client.service import Disconnected, MetricsClientService, Waiting
from txmetrics_tcp._client.tee import TappedEndpoint
from txmetrics_tcp._model import Status
from txmetrics_tcp.cli.record import Record

reactor: Any = global_reactor

FRAMES = [case.frame for case in CASES]
STREAM = b"".join(FRAMES)
EVENTS = list(Decoder().feed(STREAM))
METRICS = [event for event in EVENTS if isinstance(event, Metric)]


class RecordTests(SynchronousTestCase):
    """What it makes of events and of the bytes behind them."""

    def setUp(self) -> None:
        self.file = Unclosed()
        self.stopped: list[int] = []
        self.errors: list[OSError] = []

    def record(self, file: Any = None, count: int | None = None) -> Record:
        self.file = file or self.file
        return Record(writer_to(self.file), self.stopped.append, self.errors.append, count)

    def give(self, record: Record, *pieces: bytes) -> None:
        decoder = Decoder()
        for piece in pieces:
            record.received(list(decoder.feed(piece)))
            record.tap(piece)

    def test_all(self) -> None:
        """Byte for byte, however it came."""
        for size in (1, 7, len(STREAM)):
            self.file = Unclosed()
            record = self.record()
            record.begin()
            self.give(record, *[STREAM[at : at + size] for at in range(0, len(STREAM), size)])
            record.close()
            reader, chunks = read(self.file.getvalue())
            self.assertEqual(joined(chunks), STREAM)
            self.assertTrue(chunks[0].begins)
            self.assertFalse(reader.cut_off)
            self.assertEqual(record.metrics, len(METRICS))
        self.assertEqual((self.stopped, self.errors), ([], []))

    def test_count(self) -> None:
        """It ends with the last event that is wanted, wherever the stream was cut."""
        for size in (1, 50, len(STREAM)):
            for count in (1, 2, len(METRICS) - 1, len(METRICS)):
                self.file = Unclosed()
                self.stopped.clear()
                record = self.record(count=count)
                record.begin()
                self.give(record, *[STREAM[at : at + size] for at in range(0, len(STREAM), size)])
                record.close()
                self.assertEqual(self.stopped, [0])
                self.assertEqual(record.metrics if size == len(STREAM) else count, count)
                got = joined(read(self.file.getvalue())[1])
                self.assertTrue(STREAM.startswith(got))
                metrics = [e for e in Decoder().feed(got) if isinstance(e, Metric)]
                self.assertEqual(list(map(repr, metrics)), list(map(repr, METRICS[:count])))

    def test_missed(self) -> None:
        """Losses are those of all connections together; each counts from 0 on."""
        record = self.record()
        record.begin()
        record.received([Status("s", 1, 3, 4), Status("s", 1, 5, 5)])
        record.begin()
        self.assertEqual(record.missed, 10)
        record.received([Status("s", 1, 1, 0)])
        self.assertEqual(record.missed, 11)

    def test_flush(self) -> None:
        """What has come is in the file when it is flushed."""
        record = self.record()
        self.give(record, STREAM)
        size = len(self.file.getvalue())
        record.flush()
        self.assertGreater(len(self.file.getvalue()), size)
        self.assertEqual(joined(read(self.file.getvalue())[1]), STREAM)

    def test_fullDisk(self) -> None:
        """Nothing more is written then, and what was is whole."""
        record = self.record(FullDisk())
        record.begin()
        self.give(record, STREAM)
        record.flush()
        self.file.room = len(self.file.getvalue()) + 10
        for _ in range(3):
            self.give(record, STREAM)
            record.flush()
        self.assertEqual([error.strerror for error in self.errors[:1]], ["No space left on device"])
        record.close()
        reader, chunks = read(self.file.getvalue())
        self.assertEqual(joined(chunks), STREAM)
        self.assertTrue(reader.cut_off)


class TapTests(TestCase):
    """The bytes beside the events, from a real connection."""

    timeout = 30

    async def test_otherServer(self) -> None:
        """What comes is handed on, but not the piece that is no stream of metrics."""
        serving = Factory.forProtocol(Talking)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(serving)
        self.addCleanup(listening.stopListening)
        pieces: list[bytes] = []
        log: list[object] = []
        gone: Deferred[None] = Deferred()

        def changed(state: object) -> None:
            if isinstance(state, Disconnected):
                log.append(type(state.reason.value))
            if isinstance(state, Waiting) and len(log) == 2:
                # Not from within the service.
                reactor.callLater(0, gone.callback, None)

        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
        service = MetricsClientService(
            reactor,
            TappedEndpoint(endpoint, pieces.append),
            received_many=lambda events: None,
            observer=changed,
            retry_policy=lambda failures: 0.0 if len(log) < 2 else 60.0,
        )
        Talking.says = [STREAM, b"\x02\xff\xff"]
        service.startService()
        await gone
        await service.stopService()
        self.assertEqual(b"".join(pieces[:1]), STREAM)
        self.assertEqual(b"".join(pieces), STREAM)
        self.assertEqual(log, [ConnectionDone, StreamError])


class Talking(Protocol):
    """Says one thing to each client, and closes."""

    says: list[bytes]

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.says:
            self.transport.write(self.says.pop(0))
        self.transport.loseConnection()


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
