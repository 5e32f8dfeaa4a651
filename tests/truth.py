"""
A count in memory that processes share: what they have recorded, whatever becomes of it.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SLOTS = 512

SCRIPT = """
import mmap, struct

with open({path!r}, "r+b") as file:
    truth = mmap.mmap(file.fileno(), 0)

def count(slot, number):
    # Written before the event is recorded, so that it is never too small.
    struct.pack_into("<Q", truth, 8 * slot, number)
"""
"""Defines C{count} in a program."""


class Truth:
    """Each process counts in a slot of its own."""

    def __init__(self, case: SynchronousTestCase) -> None:
        path = Path(case.mktemp()).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(8 * SLOTS))
        self.script: str = SCRIPT.format(path=str(path))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        case.addCleanup(self._memory.close)

    def __getitem__(self, slot: int) -> int:
        number: int = struct.unpack_from("<Q", self._memory, 8 * slot)[0]
        return number

    def total(self) -> int:
        return sum(struct.unpack(f"<{SLOTS}Q", self._memory))
