"""
Where the viewer's events come from.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from tests.connecting import FakeEndpoint
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
