"""
Line 13: the zone of an allowed network counts, and the log says why C{::/0} rejects IPv4 clients.
Needs IPv6, and for zones a link-local address.
"""

import socket
from ipaddress import IPv6Address
from pathlib import Path

from tests.faults import Report, connect, exporter, log_lines, outcome, run
from txmetrics_tcp import TcpBuilder


def main(report: Report) -> None:
    def receives(network: str, host: str) -> bool:
        with exporter("[::]:0", allow=[network]) as metrics:
            # A rejected client may be disconnected before `connect` returns.
            return outcome(lambda: len(connect(metrics, host).recv(1))) == 1

    interfaces = Path("/proc/net/if_inet6")
    for line in interfaces.read_text().splitlines() if interfaces.exists() else ():
        address, *_, interface = line.split()
        if address.startswith("fe80"):
            host = f"{IPv6Address(int(address, 16))}%{interface}"
            for zone in (interface, "lo"):
                allowed = f"fe80::%{zone}/64"
                report.equal(f"{allowed} accepts {host}", receives(allowed, host), zone != "lo")
    error = outcome(lambda: TcpBuilder().allow("fd00::%lo/64"))
    report.contains("a zone that is not link-local", error, "ValueError", "link-local")
    if socket.has_dualstack_ipv6():
        lines = log_lines()
        report.equal("::/0 accepts 127.0.0.1", receives("::/0", "127.0.0.1"), False)
        report.contains("log", lines[-2:], "no IPv4 network is allowed")


if __name__ == "__main__":
    run(main)
