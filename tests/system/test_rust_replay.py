"""
The genuine Rust programs around a recording: what their server sends is recorded by ours, and
what we replay is read by their client and shown by their viewer.

Where the programs are: see `tests.rust_peers.VARIABLE`.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import Deferred

from tests.daemon import LIMIT
from tests.reader import Reader
from tests.rust_peers import (
    PeersTestCase,
    Printer,
    as_text,
    metric_line,
    reactor,
    screen_module,
)
from txmetrics_tcp import (
    Metadata,
    MetricKind,
    RecordingWriter,
    counter,
    encode_metadata,
    encode_metric,
    gauge,
)
from txmetrics_tcp._recording.events import Piece, Recording, Verdict
from txmetrics_tcp._recording.replay import ReplayFactory
from txmetrics_tcp.testing import capture

EVENTS = 85


class RustReplayTests(PeersTestCase):
    """From the Rust server into a file, and from there to the Rust client and viewer."""

    async def record(self) -> list[Piece]:
        """Record some events of the Rust server with ``metrics-tcp record``."""
        port, _ = await self.serve()
        path = str(Path(self.mktemp()).resolve())
        command = ["-m", "txmetrics_tcp", "record", path, str(port), "--count", str(EVENTS)]
        recorder = self.spawn(Printer("record"), sys.executable, *command)
        self.assertEqual(await recorder.exited(), 0)
        self.assertIn(f"recorded {EVENTS} events", recorder.errors)
        with closing(Recording(path)) as recording:
            pieces = list(recording)
        self.assertEqual(recording.verdict, Verdict())
        return pieces

    async def replay(self, pieces: list[Piece]) -> tuple[int, Deferred[None]]:
        """Serve pieces; with the port, what fires when all is sent."""
        finished: Deferred[None] = Deferred()
        factory = ReplayFactory(
            reactor, lambda: pieces, lambda: finished.callback(None), speed=1000.0
        )
        port = await self.listen(factory)
        self.addCleanup(factory.stop)
        return port, finished

    async def test_receive(self) -> None:
        """The Rust client receives every event that the Rust server sent, in its order."""
        pieces = await self.record()
        stream = b"".join(piece.frames for piece in pieces)
        reader = Reader()
        reader.feed(stream)
        self.assertEqual(len(reader.metrics), EVENTS)
        port, finished = await self.replay(pieces)
        receiver = self.receive(port)
        await finished.addTimeout(LIMIT, reactor)
        await receiver.exited()
        expected = [
            metric_line(
                metric.operation.name.lower(),
                metric.key.name,
                dict(metric.key.labels),
                metric.value,
                metric.timestamp_ns,
            )
            for metric in reader.metrics
        ]
        self.assertEqual(list(map(as_text, receiver.only("metric"))), list(map(as_text, expected)))
        self.assertEqual(receiver.bits(), reader.bits())

    async def test_observer(self) -> None:
        """The Rust viewer shows yesterday."""
        screen_module()
        path = self.mktemp()
        with capture() as captured:
            counter("requests_total", route="/").increment(2000)
            counter("requests_total", route="/").increment(500)
            gauge("temperature").set(21.5)
        with RecordingWriter.create(path, "yesterday", compress=True) as writer:
            writer.connected()
            writer.write(encode_metadata(Metadata(MetricKind.COUNTER, "sent_bytes_total", "bytes")))
            for metric in captured.metrics:
                writer.write(encode_metric(metric))
        with closing(Recording(path)) as recording:
            pieces = list(recording)
        # Something is to come still, so that the viewer stays connected.
        pieces.append(pieces[-1]._replace(seconds=1e9))
        port, _ = await self.replay(pieces)
        observer = self.observe(port)
        shown = {"requests_total [route = /]": "total: 2500", "temperature": "current: 21.5"}
        await observer.until_shown(shown)
        # And one that comes late.
        late = self.observe(port)
        await late.until_shown(shown)
        for viewer in (observer, late):
            await viewer.kill()
