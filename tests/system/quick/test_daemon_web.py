"""
``twistd metrics-tcp --web`` as a process.
"""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

from tests.daemon import LIMIT, Daemon, DaemonTestCase
from tests.unit.web.pages import Page, frames

SERVING = r"Serving the live view on \S+:(\d+)"


class WebTests(DaemonTestCase):
    def daemon(self, *options: str) -> Daemon:
        return Daemon(self, "-n", "metrics-tcp", "--no-host", "--listen=0", *options)

    def test_ownSeries(self) -> None:
        daemon = self.daemon("--web=0")
        connection = HTTPConnection("127.0.0.1", int(daemon.wait_for(SERVING)[1]), timeout=LIMIT)
        self.addCleanup(connection.close)
        connection.request("GET", "/stream")
        response = connection.getresponse()
        self.addCleanup(response.close)
        page, data = Page(), b""
        while not page.series:
            found, data = frames(data + response.read1())
            for frame in found:
                page.apply(frame)
        self.assertIn("process_cpu_seconds_total", {name for _, name, *_ in page.metrics.values()})

    def test_beyondThisMachine(self) -> None:
        """It requires a token or client certificates."""
        code, _, err = self.daemon("--web=0.0.0.0:0").end()
        self.assertEqual(code, 1)
        self.assertIn("without --web-token-file or --tls-client-ca: other machines can", err)
        token = Path(self.mktemp())
        token.write_text("0123456789abcdef\n")
        daemon = self.daemon("--web=0.0.0.0:0", f"--web-token-file={token.absolute()}")
        connection = HTTPConnection("127.0.0.1", int(daemon.wait_for(SERVING)[1]), timeout=LIMIT)
        self.addCleanup(connection.close)
        connection.request("GET", "/stream")
        self.assertEqual(connection.getresponse().status, 401)
        daemon.wait_for("can read the metrics with the token on 0.0.0.0:")
