"""
``metrics-tcp stats``: watching a server or a recording, and the end of the command.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from tests.commands import Ended, run, serving
from tests.connecting import FakeEndpoint
from tests.recordings import HTTP, STATUS, increment, record
from txmetrics_tcp import (
    Status,
)
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._recording.events import Recording
from txmetrics_tcp._recording.writer import RecordingWriter
from txmetrics_tcp.cli.progress import Progress
from txmetrics_tcp.cli.stats import Watch, WatchRecording
from txmetrics_tcp.testing import FakeReactor


class WatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.messages: list[str] = []
        self.exit_codes: list[int] = []


class WatchTests(WatchCase):
    def setUp(self) -> None:
        super().setUp()
        self.endpoint = FakeEndpoint()
        self.watch = Watch(
            self.reactor, self.endpoint, "there", 10.0, self.messages.append, self.exit_codes.append
        )
        self.watch.start()

    def stop(self) -> None:
        """Stopping prints no message and leaves no delayed calls."""
        said = list(self.messages)
        self.watch.stop()
        self.reactor.advance(0)
        self.assertEqual(self.messages, said)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_duration(self) -> None:
        """The duration begins with the first connection."""
        self.assertEqual(self.watch.progress_text(), "connecting to there")
        self.reactor.advance(4)
        transport = self.endpoint.succeed()
        transport.receive(STATUS + increment(30))
        self.reactor.advance(9.9)
        self.assertEqual(self.exit_codes, [])
        self.assertEqual(
            self.watch.progress_text(), "watching there: 9 s of 10 s, 1 series, 1 event"
        )
        self.reactor.advance(0.1)
        self.assertEqual((self.exit_codes, self.messages), ([0], []))
        self.assertEqual((self.watch.seconds, self.watch.connections), (10.0, 1))
        (series,) = self.watch.view.series.values()
        self.assertEqual(series.value, 30)
        self.assertTrue(self.watch.received_any)
        self.stop()

    def test_noConnection(self) -> None:
        """Without a connection, watching ends after the duration; each reason is reported once."""
        for _ in range(3):
            self.endpoint.fail(ConnectionRefusedError())
            self.reactor.advance(3)
        self.reactor.advance(5)
        self.assertEqual(self.exit_codes, [1])
        self.assertEqual(
            self.messages,
            [
                "cannot connect to there: Connection was refused by other side",
                "no connection to there within 10 s",
            ],
        )
        self.assertFalse(self.watch.received_any)
        self.stop()

    def test_lateConnection(self) -> None:
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(9)
        self.endpoint.succeed().receive(STATUS)
        self.reactor.advance(9)
        self.assertEqual(self.exit_codes, [])
        self.reactor.advance(1)
        self.assertEqual(self.exit_codes, [0])
        self.stop()

    def test_silent(self) -> None:
        """A server that sends nothing is reported."""
        self.endpoint.succeed()
        self.reactor.advance(10)
        self.assertEqual(self.exit_codes, [1])
        self.assertEqual(
            self.messages,
            [
                "no data received yet; does the server require TLS (--tls-ca)?",
                "received nothing from there; is it a metrics server?",
            ],
        )
        self.stop()

    def test_refused(self) -> None:
        """A server that closes each connection at once is reported once, with the reason."""
        for _ in range(3):
            tried = len(self.endpoint.attempts)
            self.endpoint.succeed().lose(ConnectionLost())
            # The time until the next attempt is random.
            while len(self.endpoint.attempts) == tried:
                self.reactor.advance(0.1)
        self.reactor.advance(10)
        self.assertEqual(self.exit_codes, [1])
        self.assertEqual(
            self.messages,
            [
                "disconnected from there: the server closed the connection before it sent data: it"
                " may reject this address, have too many clients, or require TLS",
                "received nothing from there",
            ],
        )
        self.stop()

    def test_notAStream(self) -> None:
        """Data that is not a metrics stream ends the command at once."""
        transport = self.endpoint.succeed()
        transport.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        transport.lose()
        self.assertEqual(self.exit_codes, [1])
        (said,) = self.messages
        self.assertIn("disconnected from there: not a metrics stream", said)
        self.assertIn("HTTP", said)
        self.assertFalse(self.watch.received_any)
        self.stop()

    def test_reconnects(self) -> None:
        """A lost connection is retried, and the duration is not extended."""
        transport = self.endpoint.succeed()
        transport.receive(STATUS + increment(1))
        self.reactor.advance(2)
        transport.lose()
        self.assertEqual(len(self.messages), 1)
        self.assertIn("disconnected from there: ", self.messages[0])
        self.reactor.advance(3)
        self.endpoint.succeed().receive(encode_status(Status("s", 2)) + increment(1))
        self.reactor.advance(5)
        self.assertEqual(self.exit_codes, [0])
        self.assertEqual((self.watch.connections, self.watch.view.restarts), (2, 1))
        self.stop()

    def test_interrupted(self) -> None:
        """After an early stop, the results so far are available."""
        self.endpoint.succeed().receive(STATUS + increment(1))
        self.reactor.advance(2.5)
        self.assertEqual((self.watch.seconds, self.watch.received_any), (2.5, True))
        self.stop()


class RecordingTests(WatchCase):
    def record(self, *pieces: tuple[int, bytes]) -> str:
        """
        Create a recording.

        @param pieces: delays in seconds, each with data; empty data begins another connection.
        """
        now = [0]
        path = self.mktemp()
        with open(path, "wb", buffering=0) as file:
            writer = RecordingWriter(file, "there", monotonic=lambda: now[0] * 1_000_000_000)
            writer.connected()
            for seconds, data in pieces:
                now[0] += seconds
                if data:
                    writer.write(data)
                else:
                    writer.connected()
            writer.close()
        return path

    def watch(self, path: str, seconds: float | None = None) -> WatchRecording:
        with closing(Recording(path)) as recording:
            watch = WatchRecording(
                self.reactor, recording, seconds, self.messages.append, self.exit_codes.append
            )
            watch.start()
            self.reactor.settle()
        return watch

    def test_all(self) -> None:
        """Rates use the time of the recording; dropped events are added over its connections."""
        missed = encode_status(Status("s", 1, 2, 3))
        watch = self.watch(
            self.record(
                (1, missed + increment(10)),
                (9, increment(10)),
                (5, b""),
                (0, missed + increment(10)),
                (5, increment(10)),
                (5, b""),
            )
        )
        self.assertEqual((self.exit_codes, self.messages), ([0], []))
        self.assertEqual((watch.seconds, watch.connections), (25.0, 2))
        (series,) = watch.view.series.values()
        self.assertEqual((series.value, series.updated), (40, 20.0))
        self.assertEqual((watch.view.missed_incoming, watch.view.missed_client), (4, 6))

    def test_limit(self) -> None:
        watch = self.watch(self.record((1, increment(1)), (9, increment(1)), (5, b"\0")), 5.0)
        self.assertEqual((watch.seconds, watch.view.events), (5.0, 1))
        self.assertEqual((self.exit_codes, self.messages), ([0], []))


class CommandTests(SynchronousTestCase):
    """The whole command, on a fake reactor."""

    def stats(self, *arguments: str, **options: Any) -> Ended:
        return run("stats", "5000", *arguments, on=serving(STATUS + increment(3)), **options)

    def test_table(self) -> None:
        code, out, said = self.stats("--filter", "requests", "--filter", "name:x")
        self.assertEqual((code, said), (0, ""))
        head, series, empty, last = out.splitlines()
        self.assertEqual(head.split(), ["KIND", "NAME", "LABELS", "VALUE", "RATE"])
        self.assertEqual(series.split(), ["counter", "requests_total", "3", "0.3/s"])
        self.assertEqual(empty, "")
        self.assertEqual(last, "127.0.0.1:5000 (s): 1 of 1 series, 1 event in 10 s, none missed")

    def test_json(self) -> None:
        code, out, said = self.stats("--json", "--duration", "1")
        self.assertEqual((code, said), (0, ""))
        document = json.loads(out)
        self.assertEqual(document["missed"], {"incoming": 0, "client": 0})
        self.assertEqual([one["value"] for one in document["series"]], [3])

    def test_recording(self) -> None:
        path = self.mktemp()
        Path(path).write_bytes(record(STATUS + increment(1234)))
        code, out, said = run("stats", path)
        self.assertEqual((code, said), (0, ""))
        # A recording without duration has no rates.
        self.assertRegex(out, r"\ncounter  requests_total +1,234     -\n")

    def test_notAStream(self) -> None:
        code, out, said = run("stats", "5000", on=serving(HTTP))
        self.assertEqual((code, out), (1, ""))
        self.assertIn("not a metrics stream", said)

    def test_terminalWithoutSize(self) -> None:
        """A terminal that does not say its size counts as one of 80 columns."""
        self.patch(os, "isatty", lambda descriptor: True)
        self.patch(shutil, "get_terminal_size", lambda: os.terminal_size((0, 0)))
        code, out, _ = self.stats()
        self.assertEqual(code, 0)
        self.assertLessEqual(max(map(len, out.split("\n"))), 80)

    def test_cannotWrite(self) -> None:
        code, _, said = self.stats(stdout="/dev/full")
        self.assertEqual(
            (code, said),
            (1, "metrics-tcp: cannot write to standard output: No space left on device\n"),
        )


class ProgressTests(SynchronousTestCase):
    def test_narrow(self) -> None:
        """The progress line is shortened by its width, visibly."""
        written: list[bytes] = []
        self.patch(os, "isatty", lambda descriptor: True)
        self.patch(os, "get_terminal_size", lambda descriptor: os.terminal_size((12, 24)))
        self.patch(os, "write", lambda descriptor, data: written.append(data))
        self.patch(os, "environ", {"TERM": "xterm"})
        reactor = FakeReactor()
        progress = Progress(reactor, lambda: "日本語: 1,234,567 events")
        progress.start()
        reactor.advance(1)
        progress.stop()
        self.assertIn("\r\x1b[K日本語: 1,…".encode(), written)
