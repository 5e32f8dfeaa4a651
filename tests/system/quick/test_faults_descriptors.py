"""
The process has run out of file descriptors for new clients.
"""

from __future__ import annotations

import contextlib
import resource

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import TWISTD, Daemon, Viewer, connect

LIMITED = [
    TWISTD[0],
    "-c",
    "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));" + TWISTD[2],
]


class DescriptorTests(SynchronousTestCase):
    def accepted(self, port: int) -> bool:
        """Whether a new client receives data, and is not disconnected."""
        with contextlib.suppress(ConnectionError):
            return bool(connect(self, port).recv(1))
        return False

    def test_none_left(self) -> None:
        """
        Connected clients still receive events. New ones are disconnected, with few log lines, until
        descriptors are free again.
        """
        self.assertGreater(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 100)
        daemon = Daemon(
            self, "-n", "metrics-tcp", "--listen=0", "--interval=0.01", "--no-host", runner=LIMITED
        )
        port = daemon.port
        viewer = iter(Viewer(self, port))
        next(viewer)
        clients = [connect(self, port) for _ in range(100)]
        daemon.wait_for("Rejected client")
        for _ in range(100):
            next(viewer)
        self.assertFalse(self.accepted(port))
        for client in clients:
            client.close()
        while not self.accepted(port):
            # The daemon takes a moment to detect the disconnects; meanwhile, it still streams.
            next(viewer)
        daemon.process.terminate()
        _, output, errors = daemon.end()
        lines = [line for line in output.splitlines() if "file descriptors" in line]
        self.assertEqual(errors, "")
        self.assertRegex(lines[0], r"Rejected client 127.0.0.1:\d+: the process is")
        # The last line has the number of rejected clients; a busy machine logs one more every ten
        # seconds.
        self.assertIn(len(lines), range(2, 10), output)
        self.assertNotIn("EMFILE", output)
        self.assertNotIn("Traceback", output)
