"""
Recordings and the Rust programs: this library records the Rust server's stream, and replays it to
the Rust client and viewer.

`tests.rust_peers.VARIABLE` has the directory of the programs.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import Deferred

from tests import ROOT
from tests.daemon import LIMIT
from tests.reader import Reader
from tests.rust_peers import (
    PeersTestCase,
    Printer,
    as_text,
    lasting,
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
from txmetrics_tcp._recording.events import Outcome, Piece, Recording
from txmetrics_tcp._recording.replay import ReplayFactory
from txmetrics_tcp.testing import capture

EVENTS = 85


class RustReplayTests(PeersTestCase):
    """A recording is replayed to the Rust client and viewer."""

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
        self.assertEqual(recording.outcome, Outcome())
        return pieces

    async def replay(self, pieces: list[Piece]) -> tuple[int, Deferred[None]]:
        """Serve pieces; return the port, and a Deferred that fires when all pieces are sent."""
        finished: Deferred[None] = Deferred()
        factory = ReplayFactory(
            reactor, lambda: pieces, lambda: finished.callback(None), speed=1000.0
        )
        port = await self.listen(factory)
        self.addCleanup(factory.stop)
        return port, finished

    async def test_receive(self) -> None:
        """The Rust client receives every recorded event of the Rust server, in order."""
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
        self.assertEqual(receiver.bits(), lasting(reader.bits()))

    async def test_beforeVersion1(self) -> None:
        """A recording of before version 1 of the protocol is replayed with exact totals."""
        with closing(Recording(str(ROOT / "tests" / "data" / "protocol-0.rec"))) as recording:
            pieces = list(recording)
        reader = Reader()
        reader.feed(b"".join(piece.frames for piece in pieces))
        port, finished = await self.replay(pieces)
        receiver = self.receive(port)
        await finished.addTimeout(LIMIT, reactor)
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        self.assertEqual(receiver.bits(), lasting(reader.bits()))
        # Each status, under its present number.
        self.assertEqual([line["what"] for line in receiver.others], ["empty"] * 4)

    async def test_observer(self) -> None:
        """The Rust viewer shows the totals of a recording."""
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
        # A last piece far in the future keeps the viewer connected.
        pieces.append(pieces[-1]._replace(seconds=1e9))
        port, _ = await self.replay(pieces)
        observer = self.observe(port)
        shown = {"requests_total [route = /]": "total: 2500", "temperature": "current: 21.5"}
        await observer.until_shown(shown)
        late = self.observe(port)
        await late.until_shown(shown)
        for viewer in (observer, late):
            await viewer.kill()
