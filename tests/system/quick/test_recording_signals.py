"""
Signals while a command reads a recording whose few bytes are many millions of frames.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.commands import CommandTestCase
from tests.programs import Stream
from tests.recordings import EMPTY_FRAMES, THREE, chunk, with_payload


class SignalTests(CommandTestCase):
    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())
        Path(self.path).write_bytes(with_payload(chunk(THREE) + EMPTY_FRAMES, 20))

    async def test_tail(self) -> None:
        for name, code in (("INT", 130), ("TERM", 143)):
            child = self.child("tail", self.path)
            await child.prints("requests_total 2\n")
            child.signal(name)
            self.assertEqual(await child.ended, code)

    async def test_stats(self) -> None:
        for name, code in (("INT", 130), ("TERM", 143)):
            child = self.child("stats", self.path, usePTY=True)
            await child.prints("reading ")
            child.signal(name)
            self.assertEqual(await child.ended, code)
            self.assertRegex(child.out, r"counter +requests_total +3")

    async def test_replay(self) -> None:
        for name, code in (("INT", 130), ("TERM", 143)):
            child = self.child("replay", self.path, "--listen", "0", "--speed", "max")
            port = (await child.says(r"is served on 127\.0\.0\.1:(\d+)"))[1]
            Stream(self, int(port))
            await child.says("the replay begins")
            child.signal(name)
            self.assertEqual(await child.ended, code)

    async def test_append(self) -> None:
        """
        A file that is cut off within such a block is not changed.  The signal may arrive while the
        command reads the file, or afterwards.
        """
        # Without a run of NUL bytes, which would end the block.
        cut = with_payload(5_000_000 * chunk(b"\0"))[:-100]
        Path(self.path).write_bytes(cut)
        child = self.child("record", self.path, self.serve(), "--append")
        descriptors = Path(f"/proc/{child.transport.pid}/fd")  # type: ignore[union-attr]

        def is_open() -> bool:
            return any(os.path.realpath(one) == self.path for one in descriptors.iterdir())

        while not is_open():
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        child.signal("INT")
        self.assertIn(await child.ended, (130, 1))
        self.assertEqual(Path(self.path).read_bytes(), cut)
