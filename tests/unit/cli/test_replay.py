"""
``metrics-tcp replay``: what it says of a recording, and how it ends.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, run
from tests.recordings import STREAM, record


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def replay(self, data: bytes, code: int, says: str) -> bytes:
        """Serve a recording: what a client receives of it."""
        Path(self.path).write_bytes(data)
        reactor = CommandReactor()
        ended = run("replay", self.path, on=reactor)
        self.assertEqual((ended.code, ended.out), (code, ""))
        self.assertIn(says, ended.err)
        return reactor.received

    def test_whole(self) -> None:
        data = record(STREAM[:500], STREAM[500:], compress=True)
        self.assertEqual(self.replay(data, 0, "replayed 63 events, 0s of recording"), STREAM)

    def test_cutOff(self) -> None:
        """A recording that was cut off is served as far as it goes, which is no error."""
        whole = record(STREAM)
        received = self.replay(whole[: len(whole) // 2], 0, "it was cut off")
        self.assertTrue(received)
        self.assertTrue(STREAM.startswith(received))

    def test_damaged(self) -> None:
        whole = bytearray(record(STREAM[:500], STREAM[500:]))
        whole[-40] ^= 1
        received = self.replay(bytes(whole), 1, "it is damaged behind its first")
        self.assertTrue(STREAM.startswith(received))

    def test_noRecording(self) -> None:
        Path(self.path).write_text("hello")
        for path, says in [
            (f"{self.path}.nothing", "No such file or directory"),
            ("/dev/null", "it is empty, and no recording"),
            (self.path, "it is not a recording of metrics"),
            ("/", "Is a directory"),
        ]:
            ended = run("replay", path)
            self.assertEqual(ended, (1, "", f"metrics-tcp: cannot replay {path}: {says}\n"))
