"""
A collector that a test reads step by step: it listens, and is the client of those that connect.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import LIMIT
from tests.programs import Stream


class Collector:
    """
    Listens on a UNIX socket.

    @ivar path: the path of the socket.
    """

    def __init__(self, case: SynchronousTestCase, path: str | None = None) -> None:
        """
        @param path: the path of an earlier collector; by default, a new one.
        """
        self._case = case
        if path is None:
            # The directory of the test may have too long a path.
            directory = mkdtemp()
            case.addCleanup(shutil.rmtree, directory)
            path = str(Path(directory) / "c.sock")
        self.path: str = path

    def listen(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._case.addCleanup(self._socket.close)
        self._socket.settimeout(LIMIT)
        self._socket.bind(self.path)
        self._socket.listen(64)

    def accept(self) -> Stream:
        """Wait for the next connection."""
        connected, _ = self._socket.accept()
        connected.settimeout(LIMIT)
        self._case.addCleanup(connected.close)
        return Stream.of(connected)

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        self._socket.close()
        Path(self.path).unlink()
