"""
``twistd metrics-tcp --prometheus`` as a process, scraped over HTTP and HTTPS.
"""

from __future__ import annotations

import signal
import ssl
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from unittest import skipIf

from tests.authority import Authority, no_tls
from tests.daemon import (
    IN_USE,
    LIMIT,
    TWIST,
    Daemon,
    DaemonTestCase,
    Viewer,
    connect,
    occupied_port,
    preamble,
)
from txmetrics_tcp.bridges._site import MAX_CONNECTIONS

SERVING = r"Serving /metrics to Prometheus on \S+:(\d+)"

NO_WEB = """
import sys
sys.modules["twisted.web"] = None
"""
"""Makes twisted.web impossible to import."""


class PrometheusTests(DaemonTestCase):
    def daemon(self, *options: str, modules: Path | None = None) -> Daemon:
        common = ("-n", "metrics-tcp", "--no-host", "--interval=0.1", "--listen=0")
        return Daemon(self, *common, *options, modules=modules)

    def port_of(self, daemon: Daemon) -> int:
        return int(daemon.wait_for(SERVING)[1])

    def scrape(
        self, port: int, method: str = "GET", context: ssl.SSLContext | None = None
    ) -> HTTPResponse:
        if context is None:
            connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        else:
            connection = HTTPSConnection("127.0.0.1", port, timeout=LIMIT, context=context)
        self.addCleanup(connection.close)
        connection.request(method, "/metrics")
        response = connection.getresponse()
        self.addCleanup(response.close)
        return response

    def assert_served(self, port: int, context: ssl.SSLContext | None = None) -> None:
        response = self.scrape(port, context=context)
        self.assertEqual(response.status, 200)
        self.assertIn("text/plain; version=0.0.4", response.headers["content-type"])
        self.assertIn(b"\n# TYPE process_cpu_seconds_total counter\n", b"\n" + response.read())

    def stop(self, daemon: Daemon) -> None:
        daemon.process.terminate()
        self.assert_stopped(daemon, signal.SIGTERM)

    def wait_for_metrics(self, daemon: Daemon) -> None:
        """Wait until the daemon has read the metrics of its process."""
        self.see(daemon.port, {"process_cpu_seconds_total"})

    def test_scrape(self) -> None:
        """The daemon serves the metrics that it streams; other methods are rejected."""
        daemon = self.daemon("--prometheus=0")
        port = self.port_of(daemon)
        self.wait_for_metrics(daemon)
        for _ in range(3):
            self.assert_served(port)
        post = self.scrape(port, "POST")
        self.assertEqual(post.status, 405)
        self.assertEqual({*post.headers["allow"].split(", ")}, {"GET", "HEAD"})
        self.assertEqual(self.scrape(port, "HEAD").status, 200)
        self.stop(daemon)

    def test_twist(self) -> None:
        daemon = Daemon(self, "metrics-tcp", "--listen=0", "--prometheus=0", runner=TWIST)
        self.assertEqual(self.scrape(self.port_of(daemon)).status, 200)
        self.stop(daemon)

    @skipIf(no_tls, no_tls)
    def test_tls(self) -> None:
        """With TLS for the stream, Prometheus has to use HTTPS."""
        authority = Authority(self)
        own = authority.issue()
        daemon = self.daemon("--prometheus=0", f"--tls-key={own.key}", f"--tls-cert={own.cert}")
        port = self.port_of(daemon)
        context = ssl.create_default_context(cafile=authority.file)
        response = self.scrape(port, context=context)
        self.assertEqual(response.status, 200)
        self.assertIn(b"# TYPE txmetrics_exposition_left_out gauge\n", response.read())
        self.assertRaises((OSError, HTTPException), self.scrape, port)
        daemon.wait_for("Rejected client .*: TLS handshake failed: http request")
        self.stop(daemon)

    @skipIf(no_tls, no_tls)
    def test_clientCertificate(self) -> None:
        authority, other = Authority(self), Authority(self)
        own = authority.issue()
        daemon = self.daemon(
            "--prometheus=0",
            f"--tls-key={own.key}",
            f"--tls-cert={own.cert}",
            f"--tls-client-ca={other.file}",
        )
        port = self.port_of(daemon)
        context = ssl.create_default_context(cafile=authority.file)
        self.assertRaises((OSError, HTTPException), self.scrape, port, context=context)
        certificate = other.issue()
        context.load_cert_chain(certificate.cert, certificate.key)
        self.assertEqual(self.scrape(port, context=context).status, 200)
        self.stop(daemon)

    def test_allow(self) -> None:
        """The log says who can read the metrics; other clients are rejected."""
        daemon = self.daemon("--prometheus=0.0.0.0:0", "--allow=192.0.2.0/24")
        port = self.port_of(daemon)
        daemon.wait_for(
            r"Any client in 192\.0\.2\.0/24 with network access to this machine can read the"
            rf" metrics on 0\.0\.0\.0:{port}"
        )
        self.assertRaises((OSError, HTTPException), self.scrape, port)
        daemon.wait_for(r"Rejected client 127\.0\.0\.1:\d+: address not allowed")
        self.stop(daemon)

    def test_idleConnections(self) -> None:
        """
        With more idle connections than the limit, a scrape is answered, and the stream goes on.
        Idle connections do not delay the end.
        """
        daemon = self.daemon("--prometheus=0")
        port = self.port_of(daemon)
        self.wait_for_metrics(daemon)
        viewer = iter(Viewer(self, daemon.port))
        idle = [connect(self, port) for _ in range(4 * MAX_CONNECTIONS)]
        idle[-1].sendall(b"GET /metrics HTTP/1.1\r\nx: ")
        self.assert_served(port)
        self.assertRaises(ConnectionResetError, idle[0].recv, 1)
        for _ in range(100):
            next(viewer)
        daemon.wait_for(rf"Rejected client .*: connection limit reached \({MAX_CONNECTIONS}\)")
        self.stop(daemon)

    def test_inUse(self) -> None:
        port = str(occupied_port(self))
        self.assert_one_line(self.daemon("--prometheus", port), port, IN_USE)

    def test_badValue(self) -> None:
        self.assert_one_line(self.daemon("--prometheus=70000"), "--prometheus", "'70000'")

    def test_withoutOption(self) -> None:
        """Without the option, the daemon does not import twisted.web."""
        modules = preamble(self, NO_WEB)
        daemon = self.daemon(modules=modules)
        self.wait_for_metrics(daemon)
        self.stop(daemon)
