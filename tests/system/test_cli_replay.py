"""
Tests of ``metrics-tcp replay`` as a process that take longer than a second.
"""

from __future__ import annotations

import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import METRICS_TCP, Daemon
from tests.programs import Stream
from tests.reader import Reader
from tests.recordings import REQUESTS, increment
from txmetrics_tcp import RecordingWriter

BATCHES = 100
"""Of 1000 events each: more than fits into the buffers of two sockets."""


class ProcessTests(SynchronousTestCase):
    def test_twoClients(self) -> None:
        """Two clients receive a large recording completely, although one may read faster."""
        path = str(Path(self.mktemp()).resolve())
        batch = b"".join(map(increment, range(1000)))
        with RecordingWriter.create(path, "") as writer:
            for _ in range(BATCHES):
                writer.write(batch)
        arguments = ["replay", path, "--listen", "0", "--speed", "1e9"]
        replay = Daemon(self, *arguments, runner=METRICS_TCP)
        port = int(replay.wait_for(r"is served on 127\.0\.0\.1:(\d+)")[1])
        first, second = Stream(self, port), Stream(self, port)
        replay.wait_for("(?s)client .* connected.*client .* connected")
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(b"".join(first.chunks())))
        reading.start()
        late = b"".join(second.chunks())
        reading.join()
        self.assertEqual(received, [batch * BATCHES])
        # The second client may have missed the first events, and received their totals instead.
        reader = Reader()
        reader.feed(late)
        self.assertEqual(reader.totals, {REQUESTS: BATCHES * sum(range(1000))})
        for stream in (first, second):
            stream.close()
        status, output, _ = replay.end()
        self.assertEqual(status, 0)
        self.assertIn(f"replayed {BATCHES * 1000:,} events", output)
