"""
``metrics-tcp replay`` as a process.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import METRICS_TCP, Daemon, occupied_port
from tests.programs import Stream
from tests.reader import Reader
from tests.recordings import REQUESTS, increment, joined, read, record
from tests.wire_cases import CASES
from txmetrics_tcp import RecordingWriter


class CommandTests(SynchronousTestCase):
    """The command itself, with real sockets."""

    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())
        self.stream = b"".join(case.frame for case in CASES if case.event is not None)

    def run_command(self, *arguments: str) -> Daemon:
        return Daemon(self, *arguments, runner=METRICS_TCP)

    def serve(self, *arguments: str) -> Daemon:
        return self.run_command("replay", self.path, "--listen", "0", *arguments)

    def connect(self, replay: Daemon) -> Stream:
        return Stream(self, int(replay.wait_for(r"is served on 127\.0\.0\.1:(\d+)")[1]))

    def received(self, stream: Stream) -> bytes:
        data = b"".join(stream._chunks())
        stream.close()
        return data

    def test_twoClients(self) -> None:
        """Two clients get every byte of a large recording, whoever is quicker."""
        batch = b"".join(increment(n) for n in range(1000))
        with RecordingWriter.create(self.path, "") as writer:
            for _ in range(200):
                writer.write(batch)
        replay = self.serve("--speed", "1e9")
        fast = self.connect(replay)
        slow = self.connect(replay)
        replay.wait_for("(?s)has come.*has come")
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(self.received(fast)))
        reading.start()
        late = self.received(slow)
        reading.join()
        got = received[0]
        self.assertEqual(got, batch * 200)
        # The one that came second may have been told first where the stream stood.
        reader = Reader()
        reader.feed(late)
        self.assertEqual(reader.totals, {REQUESTS: 200 * sum(range(1000))})
        status, said, _ = replay.end()
        self.assertEqual(status, 0)
        self.assertIn("replayed 200,000 events", said)

    def test_recordReplay(self) -> None:
        """A replay that is recorded is the same recording, but for its timing."""
        Path(self.path).write_bytes(record(self.stream[:500], self.stream[500:], compress=True))
        replay = self.serve("--speed", "max")
        port = replay.wait_for(r"is served on 127\.0\.0\.1:(\d+)")[1]
        recorded = self.mktemp()
        recorder = self.run_command("record", str(Path(recorded).resolve()), port)
        self.assertEqual(replay.end()[0], 0)
        recorder.wait_for("disconnected from .*: Connection was closed cleanly")
        recorder.process.send_signal(signal.SIGINT)
        status, said, _ = recorder.end()
        self.assertEqual(status, 0, said)
        again = Path(recorded).read_bytes()
        reader, chunks = read(again)
        self.assertEqual(joined(chunks), self.stream)
        self.assertFalse(reader.cut_off)

    def test_cutOff(self) -> None:
        """A recording that was cut off is served as far as it goes; it is said, and is no error."""
        whole = record(self.stream)
        Path(self.path).write_bytes(whole[: len(whole) // 2])
        replay = self.serve()
        got = self.received(self.connect(replay))
        self.assertTrue(got)
        self.assertTrue(self.stream.startswith(got))
        status, said, _ = replay.end()
        self.assertEqual(status, 0)
        self.assertIn("it was cut off", said)

    def test_damaged(self) -> None:
        whole = bytearray(record(self.stream[:500], self.stream[500:]))
        whole[-40] ^= 1
        Path(self.path).write_bytes(whole)
        replay = self.serve()
        self.received(self.connect(replay))
        status, said, _ = replay.end()
        self.assertEqual(status, 1)
        self.assertIn("it is damaged behind its first", said)

    def test_bad(self) -> None:
        """What cannot be served is one line, and an exit code."""
        Path(self.path).write_bytes(record(self.stream))
        Path(f"{self.path}.txt").write_text("hello")
        port = str(occupied_port(self))
        for status, arguments, said in [
            (1, [f"{self.path}.nothing"], "cannot replay .*: No such file or directory"),
            (1, ["/dev/null"], "cannot replay /dev/null: it is empty, and no recording"),
            (1, [f"{self.path}.txt"], "cannot replay .*: it is not a recording of metrics"),
            (1, ["/"], "cannot replay /: Is a directory"),
            (1, [self.path, "--listen", port], "cannot listen on .*: .*Address already in use"),
            (2, [self.path, "--listen", "x:y"], "'x:y' is no endpoint"),
            (
                2,
                [self.path, "--speed", "0"],
                "invalid speed value: '0': it is a number more than 0",
            ),
            (2, [self.path, "--speed", "nan"], "invalid speed"),
        ]:
            code, output, _ = self.run_command("replay", *arguments).end()
            self.assertEqual(code, status, output)
            self.assertRegex(output, said)
            self.assertNotIn("Traceback", output)

    def test_interrupted(self) -> None:
        """Before anybody has come, and with a client."""
        Path(self.path).write_bytes(record(self.stream))
        replay = self.serve()
        replay.wait_for("is served")
        replay.process.send_signal(signal.SIGINT)
        self.assertEqual(replay.end()[0], 130)
        replay = self.serve("--loop")
        stream = self.connect(replay)
        replay.wait_for("has come")
        replay.process.send_signal(signal.SIGTERM)
        self.assertEqual(replay.end()[0], 143)
        stream.close()
