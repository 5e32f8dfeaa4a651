"""
Line 12: a server with TLS serves clients that offer protocols (ALPN), as curl does, and
logs what they send.
"""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from tests.authority import Authority
from tests.daemon import LIMIT
from tests.faults import Report, log_lines, outcome, port_of, run
from txmetrics_tcp import TcpBuilder


def main(report: Report) -> None:
    logged = log_lines()
    with TemporaryDirectory() as directory:
        case: Any = SimpleNamespace(mktemp=lambda: Path(directory, "files"))
        authority = Authority(case)
        own = authority.issue()
        builder = TcpBuilder().listen_address(0).tls(own.key, own.cert)
        context = ssl.create_default_context(cafile=authority.file)
    context.set_alpn_protocols(["h2", "http/1.1"])

    def exchange(request: bytes) -> str:
        plain = socket.create_connection(address, timeout=LIMIT)
        with context.wrap_socket(plain, server_hostname=address[0]) as client:
            received = len(client.recv(65536))
            client.sendall(request)
            # The server disconnects clients that send a request.
            with suppress(ConnectionError):
                while request and client.recv(65536):
                    pass
            return f"received {'data' if received else 'nothing'}"

    with builder.install_in_thread() as exporter:
        address = "127.0.0.1", port_of(exporter)
        for request in (b"", b"GET / HTTP/1.1\r\n\r\n"):
            report.equal(
                f"a client that sends {request!r}",
                outcome(lambda: exchange(request)),  # noqa: B023
                "received data",
            )
    report.contains("log", "\n".join(logged), "sent an HTTP request")
    report.equal("internal errors", "internal error" in "\n".join(logged), False)


if __name__ == "__main__":
    run(main)
