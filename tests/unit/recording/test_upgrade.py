"""
Tests of recordings from before version 1 of the protocol.

``tests/data/protocol-0.rec`` was made then, by the exporter and ``record``: one session, and one
that was appended with C{--compress}.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.reader import Reader, bits
from tests.recordings import joined, read
from tests.wire_cases import CASES, SECOND, WHEN, seen, wire
from txmetrics_tcp import Key, MetricKind, RecordingWriter, SourceView, Status, decode
from txmetrics_tcp._codec.framing import Frames, frame
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._model import PROTOCOL_VERSION
from txmetrics_tcp._recording.events import Recording
from txmetrics_tcp._recording.upgrade import upgrade

OLD = ROOT / "tests" / "data" / "protocol-0.rec"
STARTED = 1_795_973_652
"""The second in which the server of `OLD` started."""

REQUESTS = Key.of(MetricKind.COUNTER, "requests_total", {"route": "/"})

STATUS = wire("0e 1a 0c 0a 04 08 01 10 02 12 04 64 65 6d 6f")
"""A status before version 1, and a frame that is skipped since then."""

FRAMES = st.sampled_from([case.frame for case in CASES])


class UpgradeTests(SynchronousTestCase):
    def test_oldRecording(self) -> None:
        """Each stream status is read, and all totals are exact."""
        reader, chunks = read(OLD.read_bytes())
        self.assertEqual([session.protocol_version for session in reader.sessions], [0, 0])
        stream = Reader()
        stream.feed(joined(chunks))
        self.assertEqual(
            [(one.source, one.dropped_incoming, one.protocol_version) for one in stream.statuses],
            [("shop[1]@web1", 0, 0), ("shop[1]@web1", 2959, 0)] * 2,
        )
        self.assertEqual({(one.started_ns or 0) // SECOND for one in stream.statuses}, {STARTED})
        depth = Key.of(MetricKind.GAUGE, "depth", {"zone": "東京", "empty": ""})
        totals = stream.bits()
        self.assertEqual([totals[REQUESTS], totals[depth]], [6118, bits(-0.0)])

    def test_view(self) -> None:
        """A view of the recording knows the server and its losses."""
        view = SourceView()
        recording = Recording(str(OLD))
        self.addCleanup(recording.close)
        for piece in recording:
            if piece.begins:
                view.connected()
            view.ingest(piece.events)
        assert view.status is not None
        self.assertEqual((view.status.source, view.missed_incoming), ("shop[1]@web1", 2 * 2959))
        self.assertEqual((view.series[REQUESTS].value, view.restarts), (6118, 0))

    def test_append(self) -> None:
        """A session that is appended has the present numbers, and is not changed."""
        path = self.mktemp()
        shutil.copy(OLD, path)
        # Field 3 belongs to the Rust crate.
        now = encode_status(Status("now", STARTED)) + wire(
            "0e 1a 0c 0a 04 08 01 10 02 12 04 64 65 6d 6f"
        )
        with RecordingWriter.append(path, "web2:5000") as writer:
            writer.write(now)
        reader, chunks = read(Path(path).read_bytes())
        self.assertEqual(
            [one.protocol_version for one in reader.sessions], [0, 0, PROTOCOL_VERSION]
        )
        self.assertEqual(chunks[-1].frames, now)
        self.assertIsInstance(decode(chunks[0].frames)[0], Status)

    @given(st.lists(FRAMES | st.binary(max_size=20).map(frame)))
    def test_anyFrames(self, frames: list[bytes]) -> None:
        """Frames stay whole, whatever they contain; each is handled by itself."""
        upgraded = [upgrade(one) for one in frames]
        for one in upgraded:
            self.assertEqual(Frames().feed(one), (one, 1))
        self.assertEqual(upgrade(b"".join(frames)), b"".join(upgraded))

    def test_otherFrames(self) -> None:
        """No frames change except a status."""
        for case in CASES:
            expected = seen([case.event] if case.event is not None else [])
            if case.frame == STATUS:
                expected = seen([Status("demo", WHEN, protocol_version=0)])
            self.assertEqual(seen(decode(upgrade(case.frame))), expected, case.name)
