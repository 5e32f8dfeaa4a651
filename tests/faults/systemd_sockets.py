"""
Line 13: without sockets from systemd, the error about a C{systemd:} endpoint reports the
cause.
"""

import os

from tests.faults import Report, outcome, reactor, run
from txmetrics_tcp import MetricsClientService, TcpBuilder

SOCKET = "systemd:domain=INET:name=metrics"
CASES: tuple[tuple[dict[str, str], tuple[str, ...]], ...] = (
    ({}, ("passed no sockets", "LISTEN_FDS")),
    ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, ("passed no sockets", "LISTEN_PID is '1'")),
    ({"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}, ("no sockets", "LISTEN_FDS is 'x'")),
    # As Twisted leaves the environment after systemd has passed two other sockets.
    ({"LISTEN_FDNAMES": "a:b"}, ("no such socket", "a, b")),
)


def main(report: Report) -> None:
    for variables, words in CASES:
        for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        os.environ.update(variables)
        for text in (SOCKET, f"haproxy:{SOCKET}"):
            error = outcome(lambda: TcpBuilder().listen_address(text))  # noqa: B023
            report.contains(f"{text} with {variables}", error, text, *words)
    error = outcome(lambda: MetricsClientService(reactor, SOCKET, print))
    report.contains("client", error, "cannot connect", "is for servers")


if __name__ == "__main__":
    run(main)
