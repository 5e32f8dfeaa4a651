"""
``metrics-tcp replay`` as a process, with real clients.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.commands import Child, CommandTestCase
from tests.daemon import occupied_port
from tests.programs import Stream
from tests.recordings import STREAM, joined, read, record

SERVED = r"is served on 127\.0\.0\.1:(\d+)"


class ProcessTests(CommandTestCase):
    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())
        Path(self.path).write_bytes(record(STREAM[:500], STREAM[500:], compress=True))

    def replay(self, *arguments: str) -> Child:
        return self.child("replay", self.path, "--listen", "0", *arguments)

    async def test_recordReplay(self) -> None:
        """A recording of a replay has the same frames as the original."""
        replay = self.replay("--speed", "max")
        port = (await replay.says(SERVED))[1]
        recorded = f"{self.path}.again"
        recorder = self.child("record", recorded, port)
        self.assertEqual(await replay.ended, 0, replay.err)
        await recorder.says("disconnected from .*: Connection was closed cleanly")
        recorder.signal("INT")
        self.assertEqual(await recorder.ended, 0, recorder.err)
        reader, chunks = read(Path(recorded).read_bytes())
        self.assertEqual(joined(chunks), STREAM)
        self.assertFalse(reader.cut_off)

    async def test_interrupted(self) -> None:
        """SIGINT ends a replay without clients."""
        replay = self.replay()
        await replay.says(SERVED)
        replay.signal("INT")
        self.assertEqual(await replay.ended, 130)

    async def test_terminated(self) -> None:
        """SIGTERM ends a replay with a client."""
        replay = self.replay("--loop")
        Stream(self, int((await replay.says(SERVED))[1]))
        await replay.says("client .* connected")
        replay.signal("TERM")
        self.assertEqual(await replay.ended, 143)

    async def test_socketReplaced(self) -> None:
        """A replay that ends removes its socket, and no other file with its path."""
        path = f"{os.path.relpath(self.mktemp())}.sock"
        for replaced in (False, True):
            replay = self.child("replay", self.path, "--listen", f"unix:{path}")
            await replay.says("is served on unix:")
            if replaced:
                os.unlink(path)
                Path(path).write_text("dear")
            replay.signal("INT")
            self.assertEqual(await replay.ended, 130)
            self.assertEqual(os.path.exists(path), replaced)

    async def test_portInUse(self) -> None:
        port = str(occupied_port(self))
        replay = self.child("replay", self.path, "--listen", port)
        self.assertEqual(await replay.ended, 1)
        self.assertEqual(
            replay.err, f"metrics-tcp: cannot listen on {port}: [Errno 98] Address already in use\n"
        )
