"""
The process has no file descriptor left for another client.
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
        """Whether a new client receives something, rather than being disconnected."""
        with contextlib.suppress(ConnectionError):
            return bool(connect(self, port).recv(1))
        return False

    def test_none_left(self) -> None:
        """
        Clients that are connected go on; new ones are disconnected, with one line for many; and as
        soon as there is room again, new ones are accepted.
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
            # It takes a moment to find that they have gone; meanwhile its other client goes on.
            next(viewer)
        daemon.process.terminate()
        _, output, errors = daemon.end()
        lines = [line for line in output.splitlines() if "file descriptors" in line]
        self.assertEqual(errors, "")
        self.assertRegex(lines[0], r"Rejected client 127.0.0.1:\d+: the process is")
        # One at the end says how many, and on a busy machine, one every ten seconds before.
        self.assertIn(len(lines), range(2, 10), output)
        self.assertNotIn("EMFILE", output)
        self.assertNotIn("Traceback", output)
