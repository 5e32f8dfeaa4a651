"""
Where the viewer's events come from, and how its command begins and ends.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.connecting import FakeEndpoint
from tests.daemon import LEFT_TO_THE_SYSTEM
from tests.observing import SECOND, WHEN, count, sample
from txmetrics_tcp import Event, Status, encode_metric
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._recording.writer import RecordingWriter
from txmetrics_tcp.observe.sources import LiveSource, RecordingSource, State
from txmetrics_tcp.testing import FakeReactor


class LiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.endpoint = FakeEndpoint()
        self.source = LiveSource(self.reactor, "here:5000", self.endpoint)
        self.source.start()
        self.addCleanup(self.source.stop)

    def test_folding(self) -> None:
        """What one read brings is folded once, and before the next."""
        folded: list[int] = []
        fold = self.source.view.fold

        def counted(events: list[Event]) -> None:
            folded.append(len(events))
            fold(events)

        self.patch(self.source.view, "fold", counted)
        transport = self.endpoint.succeed()
        folded.clear()
        transport.receive(b"".join(encode_metric(count("a")) for _ in range(1000)))
        self.assertEqual(folded, [1000])
        self.assertEqual(self.source.view.events, 1000)
        transport.receive(encode_metric(count("a")))
        self.assertEqual(folded, [1000, 1])

    def test_heard(self) -> None:
        """Of each connection it is known whether anything has come over it, if no metrics."""
        for _ in range(2):
            transport = self.endpoint.succeed()
            self.assertFalse(self.source.heard)
            transport.receive(encode_status(Status("a", 1)))
            self.assertTrue(self.source.heard)
            transport.lose(ConnectionDone())
            self.reactor.advance(20)

    def test_states(self) -> None:
        source = self.source
        self.assertIs(source.state, State.CONNECTING)
        self.endpoint.fail(ConnectionRefusedError())
        self.assertIs(source.state, State.LOST)
        self.assertIn("refused", source.note)
        self.assertIsNotNone(source.retry_in)
        self.reactor.advance(20)
        # What was wrong stays to be read while it tries again.
        self.assertIs(source.state, State.LOST)
        self.assertIsNone(source.retry_in)
        transport = self.endpoint.succeed()
        self.assertIs(source.state, State.CONNECTED)
        self.assertEqual(source.note, "")
        transport.receive(encode_status(Status("a", 1, 2, 3)) + encode_metric(count("a")))
        # What came last counts, although the turn is not over.
        transport.lose(ConnectionDone())
        self.assertIs(source.state, State.LOST)
        self.assertEqual(source.view.events, 1)
        self.reactor.advance(20)
        transport = self.endpoint.succeed()
        transport.receive(encode_status(Status("a", 1, 10, 0)))
        self.reactor.advance(0)
        # Over all connections.
        self.assertEqual((source.view.missed_incoming, source.view.missed_client), (12, 3))
        self.assertEqual(source.view.restarts, 0)

    def test_foreign(self) -> None:
        transport = self.endpoint.succeed()
        transport.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertTrue(transport.aborted)
        transport.lose()
        self.assertIs(self.source.state, State.FOREIGN)
        self.assertEqual(self.source.note, "it looks like an HTTP server")
        self.assertIsNotNone(self.source.retry_in)

    def test_reasonIsHarmless(self) -> None:
        self.endpoint.fail(ValueError("\x1b[2J"))
        self.assertEqual(self.source.note, r"\x1b[2J")

    def test_rate(self) -> None:
        """How many events come in a second, over the last few."""
        moment = [0.0]
        self.source._monotonic = lambda: moment[0]
        self.source.tick()
        self.assertEqual(self.source.events_per_second, 0.0)
        for _ in range(50):
            moment[0] += 0.1
            self.source.view.fold([count("a")] * 100)
            self.source.tick()
        self.assertAlmostEqual(self.source.events_per_second, 1000.0)

    def test_rateAfterClear(self) -> None:
        """When the view has been cleared, that is not the end of the rate of what comes."""
        moment = [0.0]
        self.source._monotonic = lambda: moment[0]
        self.source.tick()
        for frame in range(80):
            moment[0] += 0.1
            if frame == 40:
                self.source.view.clear()
            self.source.view.fold([count("a")] * 100)
            self.source.tick()
            self.assertAlmostEqual(self.source.events_per_second, 1000.0, msg=str(frame))

    def test_stop(self) -> None:
        transport = self.endpoint.succeed()
        self.source.stop()
        self.assertTrue(transport.aborted)
        self.reactor.advance(60)
        self.assertEqual(len(self.endpoint.attempts), 1)


class RecordingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.path = self.mktemp()

    def write(self, seconds: int = 30) -> None:
        now = [0]
        with open(self.path, "wb", buffering=0) as file:
            writer = RecordingWriter(
                file, "there:5000", clock=lambda: WHEN, monotonic=lambda: now[0]
            )
            writer.connected()
            writer.write(encode_status(Status("a", 1, 2, 3)))
            for _ in range(seconds):
                now[0] += SECOND
                frames = [encode_metric(count("a", 2)), encode_metric(sample("b", 0.5))]
                writer.write(b"".join(frames))
            writer.close()

    def read(self) -> RecordingSource:
        source = RecordingSource(self.reactor, self.path)
        self.addCleanup(source.stop)
        source.start()
        for _ in range(1000):
            if source.state is State.ENDED:
                break
            self.assertIs(source.state, State.READING)
            self.reactor.advance(0)
        self.assertIs(source.state, State.ENDED)
        return source

    def test_whole(self) -> None:
        """The view is that at the recording's end, by the recording's time."""
        self.write()
        source = self.read()
        source.tick()
        self.assertEqual(source.label, Path(self.path).name)
        self.assertEqual(source.note, "of there:5000")
        self.assertEqual(source.view.events, 60)
        self.assertEqual(source.now, 30)
        (a, b) = source.view.series.values()
        self.assertEqual((a.value, b.value), (60, 30))
        self.assertEqual(a.history(source.now, 20), [2] * 20)
        self.assertEqual(source.view.missed_client, 3)

    def test_cutOff(self) -> None:
        self.write()
        data = Path(self.path).read_bytes()
        Path(self.path).write_bytes(data[: len(data) // 2])
        source = self.read()
        self.assertGreater(source.view.events, 0)
        self.assertIn("; it ", source.note)

    def test_stop(self) -> None:
        """Nothing is read any more, and the file is closed."""
        self.write()
        source = RecordingSource(self.reactor, self.path)
        source.start()
        source.stop()
        self.reactor.advance(1)
        self.assertEqual(source.view.events, 0)
        self.assertTrue(source._file.closed)


class CommandTests(SynchronousTestCase):
    """What is wrong is said in one line, before the screen is taken."""

    def run_command(
        self, *arguments: str, terminal: bool = False, **environment: str
    ) -> tuple[int, str]:
        """Its exit code, and all that it has written."""
        command = [sys.executable, "-m", "txmetrics_tcp", "observe", *arguments]
        options: dict[str, object] = {
            "cwd": ROOT,
            "env": os.environ | {"PYTHONPATH": str(ROOT)} | LEFT_TO_THE_SYSTEM | environment,
            "timeout": 60,
        }
        if not terminal:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
            )  # type: ignore[call-overload]
            return done.returncode, done.stdout + done.stderr
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, **options)  # type: ignore[call-overload]
            os.set_blocking(ours, False)
            return done.returncode, os.read(ours, 65536).decode().replace("\r\n", "\n")
        finally:
            os.close(ours)
            os.close(theirs)

    def test_noTerminal(self) -> None:
        code, said = self.run_command("5000")
        self.assertEqual(code, 1)
        self.assertRegex(said, r"\Ametrics-tcp observe: this needs a terminal, .*input.*\n\Z")

    def test_badEndpoint(self) -> None:
        for arguments in [("nonsense:",), ("5000", "host:port:1"), ("5000", "\x1b[2J:")]:
            code, said = self.run_command(*arguments, terminal=True)
            self.assertEqual(code, 2)
            self.assertRegex(said, r"\Ametrics-tcp observe: [^\n\x1b]+\n\Z")

    def test_noRecording(self) -> None:
        path = Path(self.mktemp())
        path.write_text("something else")
        code, said = self.run_command(str(path.resolve()), terminal=True)
        self.assertEqual(code, 1)
        self.assertRegex(said, r"\Ametrics-tcp observe: .*: it is not a recording of metrics\n\Z")

    def test_noTextual(self) -> None:
        """Without the extra, one line says how to get it."""
        directory = Path(self.mktemp())
        (directory / "textual").mkdir(parents=True)
        (directory / "textual" / "__init__.py").write_text("raise ImportError")
        path = os.pathsep.join([str(directory.resolve()), str(ROOT)])
        code, said = self.run_command("5000", terminal=True, PYTHONPATH=path)
        self.assertEqual(code, 1)
        self.assertEqual(
            said, "metrics-tcp observe: this needs Textual: pip install 'txmetrics-tcp[observe]'\n"
        )

    def test_lazy(self) -> None:
        """Importing commands does not import Textual, which only a run of the viewer needs."""
        script = (
            "import sys; from txmetrics_tcp.cli import observe, record, replay, stats, tail;"
            "sys.exit('textual' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60)
        self.assertEqual(done.returncode, 0)
