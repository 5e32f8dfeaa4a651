"""
``metrics-tcp replay``: what it says of a recording, and how it ends.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, Ended, run
from tests.recordings import RECORDINGS, STREAM, record


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def replay(self, data: bytes, *arguments: str) -> tuple[Ended, bytes]:
        """Serve a recording: how that ends, and what a client receives."""
        Path(self.path).write_bytes(data)
        reactor = CommandReactor()
        ended = run("replay", self.path, *arguments, on=reactor)
        return ended, reactor.received

    def test_whole(self) -> None:
        ended, received = self.replay(record(STREAM[:500], STREAM[500:], compress=True))
        self.assertEqual((ended.code, ended.out, received), (0, "", STREAM))
        self.assertIn("replayed 63 events, 0s of recording", ended.err)

    def test_damagedLoop(self) -> None:
        """A recording that is damaged is served once, also with C{--loop}."""
        for case in RECORDINGS.values():
            if case.code:
                ended, received = self.replay(case.data, "--loop")
                self.assertEqual((ended.code, received), (1, case.stream))
                self.assertEqual(ended.err.count(case.says), 1)

    def test_pipe(self) -> None:
        """A recording in a pipe is served; it cannot be served again."""
        for arguments, code in [([], 0), (["--loop"], 1)]:
            reading, writing = os.pipe()
            with open(writing, "wb") as file:
                file.write(record(STREAM))
            reactor = CommandReactor()
            path = f"/dev/fd/{reading}"
            ended = run("replay", path, *arguments, on=reactor)
            os.close(reading)
            self.assertEqual((ended.code, reactor.received), (code, STREAM))
            wrong = f"metrics-tcp: {path}: it cannot be read: "
            self.assertEqual(ended.err.count(wrong), code)

    def test_noFile(self) -> None:
        for path, says in [
            (f"{self.path}.nothing", "it cannot be read: No such file or directory"),
            ("/", "it cannot be read: Is a directory"),
            ("/dev/null", "it is empty, and no recording"),
        ]:
            ended = run("replay", path)
            self.assertEqual(ended, (1, "", f"metrics-tcp: {path}: {says}\n"))
