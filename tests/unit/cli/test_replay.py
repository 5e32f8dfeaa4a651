"""
``metrics-tcp replay``: messages and exit codes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, Ended, run
from tests.recordings import RECORDINGS, STREAM, record


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def replay(self, data: bytes, *arguments: str) -> tuple[Ended, bytes]:
        """Serve a recording.  Return the result, and the bytes that a client received."""
        Path(self.path).write_bytes(data)
        reactor = CommandReactor()
        ended = run("replay", self.path, *arguments, on=reactor)
        return ended, reactor.received

    def test_whole(self) -> None:
        ended, received = self.replay(record(STREAM[:500], STREAM[500:], compress=True))
        self.assertEqual((ended.code, ended.out, received), (0, "", STREAM))
        self.assertIn("replayed 72 events, 0 s of recording", ended.err)

    def test_damagedLoop(self) -> None:
        """Even with C{--loop}, a damaged recording is served once."""
        for case in RECORDINGS.values():
            if case.code:
                ended, received = self.replay(case.data, "--loop")
                self.assertEqual((ended.code, received), (1, case.stream))
                self.assertEqual(ended.err.count(case.says), 1)

    def test_pipe(self) -> None:
        """A recording in a pipe is served once; C{--loop} cannot read it again."""
        for arguments, code in [([], 0), (["--loop"], 1)]:
            reading, writing = os.pipe()
            with open(writing, "wb") as file:
                file.write(record(STREAM))
            reactor = CommandReactor()
            path = f"/dev/fd/{reading}"
            ended = run("replay", path, *arguments, on=reactor)
            os.close(reading)
            self.assertEqual((ended.code, reactor.received), (code, STREAM))
            message = f"metrics-tcp: {path}: cannot read the file: "
            self.assertEqual(ended.err.count(message), code)

    def test_unreadable(self) -> None:
        for path, says in [
            (f"{self.path}.nothing", "cannot read the file: No such file or directory"),
            ("/", "cannot read the file: Is a directory"),
            ("/dev/null", "empty file, not a metrics recording"),
        ]:
            ended = run("replay", path)
            self.assertEqual(ended, (1, "", f"metrics-tcp: {path}: {says}\n"))

    def test_cannotListen(self) -> None:
        """All errors of listening are reported in one line, of whatever type."""
        Path(self.path).write_bytes(record(STREAM))

        class Full(CommandReactor):
            def listenTCP(
                self, port: int, factory: Factory, *more: object, **options: object
            ) -> Any:
                raise OverflowError("too many")

        ended = run("replay", self.path, on=Full())
        says = "metrics-tcp: cannot listen on 127.0.0.1:5000: too many\n"
        self.assertEqual(ended, (1, "", says))

    def test_badEndpoint(self) -> None:
        for endpoint, reason in (
            ("localhost", "localhost has no port; write localhost:5000"),
            ("tcp:70000", "'tcp:70000' is not an endpoint: the port must be from 0 to 65535"),
            ("stdio:", "cannot listen on standard input and output"),
        ):
            ended = run("replay", self.path, "--listen", endpoint)
            self.assertEqual(ended, (2, "", f"metrics-tcp replay: {reason}\n"))
