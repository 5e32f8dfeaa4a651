"""
The viewer's sources of events.
"""

from __future__ import annotations

import errno
from pathlib import Path
from unittest import mock

from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.connecting import FakeEndpoint
from tests.observing import SECOND, WHEN, count, sample
from tests.recordings import MANY, NO_RECORDINGS, RECORDINGS, BadDisk, metrics
from txmetrics_tcp import Event, RecordingError, Status, encode_metric
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._recording import events
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

    def test_batches(self) -> None:
        """The events of one read are ingested in one call, before the next read."""
        ingested: list[int] = []
        ingest = self.source.view.ingest

        def counted(events: list[Event]) -> None:
            ingested.append(len(events))
            ingest(events)

        self.patch(self.source.view, "ingest", counted)
        transport = self.endpoint.succeed()
        ingested.clear()
        transport.receive(b"".join(encode_metric(count("a")) for _ in range(1000)))
        self.assertEqual(ingested, [1000])
        self.assertEqual(self.source.view.events, 1000)
        transport.receive(encode_metric(count("a")))
        self.assertEqual(ingested, [1000, 1])

    def test_interrupted(self) -> None:
        """While its broker is gone, a source is shown as disconnected, and keeps its stream."""
        self.source.interrupted("no broker")
        self.assertEqual(self.source.state, State.CONNECTING)
        transport = self.endpoint.succeed()
        self.source.interrupted("no broker")
        self.assertEqual((self.source.state, self.source.note), (State.LOST, "no broker"))
        self.assertFalse(self.source.connected)
        self.source.interrupted("")
        self.assertEqual((self.source.state, self.source.note), (State.CONNECTED, ""))
        transport.receive(encode_metric(count("a")))
        self.assertEqual(self.source.view.events, 1)

    def test_hasReceived(self) -> None:
        """C{has_received} is reset for each connection and set by any data."""
        for _ in range(2):
            transport = self.endpoint.succeed()
            self.assertFalse(self.source.has_received)
            transport.receive(encode_status(Status("a", 1)))
            self.assertTrue(self.source.has_received)
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
        # The error reason stays visible during the next attempt.
        self.assertIs(source.state, State.LOST)
        self.assertIsNone(source.retry_in)
        transport = self.endpoint.succeed()
        self.assertIs(source.state, State.CONNECTED)
        self.assertEqual(source.note, "")
        transport.receive(encode_status(Status("a", 1, 2, 3)) + encode_metric(count("a")))
        # Events received just before the disconnect are ingested.
        transport.lose(ConnectionDone())
        self.assertIs(source.state, State.LOST)
        self.assertEqual(source.view.events, 1)
        self.reactor.advance(20)
        transport = self.endpoint.succeed()
        transport.receive(encode_status(Status("a", 1, 10, 0)))
        self.reactor.advance(0)
        # Drops are summed over all connections.
        self.assertEqual((source.view.missed_incoming, source.view.missed_client), (12, 3))
        self.assertEqual(source.view.restarts, 0)

    def test_refused(self) -> None:
        """C{refused} is set if no server listens, until the next failure or connection."""
        for error, refused in [
            (ConnectionRefusedError(), True),
            (ConnectError(errno.ENOENT), True),
            (ConnectError(errno.EACCES), False),
            (DNSLookupError(), False),
        ]:
            self.endpoint.fail(error)
            self.assertIs(self.source.refused, refused, error)
            self.reactor.advance(20)
        self.endpoint.fail(ConnectionRefusedError())
        self.reactor.advance(20)
        self.assertTrue(self.source.refused)
        self.endpoint.succeed()
        self.assertFalse(self.source.refused)

    def test_foreign(self) -> None:
        transport = self.endpoint.succeed()
        transport.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertTrue(transport.aborted)
        transport.lose()
        self.assertIs(self.source.state, State.FOREIGN)
        self.assertEqual(self.source.note, "it looks like an HTTP server")
        self.assertIsNotNone(self.source.retry_in)

    def test_reasonIsEscaped(self) -> None:
        self.endpoint.fail(ValueError("\x1b[2J"))
        self.assertEqual(self.source.note, r"\x1b[2J")

    def test_rate(self) -> None:
        """The event rate is the average over the last few seconds."""
        moment = [0.0]
        self.source._monotonic = lambda: moment[0]
        self.source.tick()
        self.assertEqual(self.source.events_per_second, 0.0)
        for _ in range(50):
            moment[0] += 0.1
            self.source.view.ingest([count("a")] * 100)
            self.source.tick()
        self.assertAlmostEqual(self.source.events_per_second, 1000.0)

    def test_rateAfterClear(self) -> None:
        """Clearing the view does not change the event rate."""
        moment = [0.0]
        self.source._monotonic = lambda: moment[0]
        self.source.tick()
        for frame in range(80):
            moment[0] += 0.1
            if frame == 40:
                self.source.view.clear()
            self.source.view.ingest([count("a")] * 100)
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
            writer.write(encode_status(Status("a", 1, 1, 1)))
            writer.connected()
            writer.write(encode_status(Status("a", 1, 2, 2)))
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
        """The view shows the end of the recording and uses the recording's clock."""
        self.write()
        source = self.read()
        source.tick()
        self.assertEqual(source.label, Path(self.path).name)
        self.assertEqual(source.note, "from there:5000")
        self.assertEqual(source.view.events, 60)
        self.assertEqual(source.now, 30)
        (a, b) = source.view.series.values()
        self.assertEqual((a.value, b.value), (60, 30))
        self.assertEqual(a.history(source.now, 20), [2] * 20)
        self.assertEqual(source.view.missed_client, 3)

    def test_damaged(self) -> None:
        """The note of a damaged recording equals the message of the commands."""
        for name, case in RECORDINGS.items():
            Path(self.path).write_bytes(case.data)
            source = self.read()
            if case.says:
                self.assertIn(case.says, source.note, name)
            else:
                self.assertRegex(source.note, r"^(from 127\.0\.0\.1:5000( and 1 more)?)?$", name)
            self.assertEqual(source.view.events, metrics(case.stream), name)
            self.assertEqual(source.progress, 1)
            self.assertTrue(source._recording._file.closed)

    def test_notARecording(self) -> None:
        for name, case in NO_RECORDINGS.items():
            Path(self.path).write_bytes(case.data)
            with self.assertRaises(RecordingError) as raised:
                RecordingSource(self.reactor, self.path)
            self.assertEqual(str(raised.exception), f"{self.path}: {case.says}", name)

    def test_unreadable(self) -> None:
        self.write()
        with mock.patch.object(events, "open", BadDisk, create=True):
            source = self.read()
        self.assertEqual(source.note, "from there:5000; cannot read the file: Input/output error")

    def test_stop(self) -> None:
        """C{stop} stops reading and closes the file."""
        Path(self.path).write_bytes(RECORDINGS["one large chunk"].data)
        source = RecordingSource(self.reactor, self.path)
        with mock.patch.object(events, "TIME_SLICE", 0):
            source.start()
            self.reactor.callLater(0, source.stop)
            self.reactor.settle()
        self.assertIs(source.state, State.READING)
        self.assertTrue(0 < source.view.events < metrics(MANY))
        self.assertTrue(0 < source.progress < 1)
        self.assertTrue(source._recording._file.closed)
