"""
Line 7: wrong endpoints are reported in one line, and names are those that a resolver
knows.
"""

from tests import ROOT
from tests.faults import Report, finish, outcome, reactor, run
from txmetrics_tcp import MetricsClientService, TcpBuilder

LONG = f"unix:{'x' * 120}"
SERVERS = {
    "127.0.0.1": "127.0.0.1 has no port; write 127.0.0.1:5000",
    "::1": "write an IPv6 address in brackets, with a port, as in [::1]:5000",
    "tcp:99999": "the port must be from 0 to 65535",
    f"haproxy:{LONG}": "the path is longer than 107 bytes",
}
CLIENTS = {
    "localhost": "localhost has no port; write localhost:5000",
    "[::1]": "write an IPv6 address in brackets, with a port, as in [::1]:5000",
    f"{'x' * 64}.example:1": "is not a host name",
    "tcp:a..b:1": "is not a host name",
    LONG: "the path is longer than 107 bytes",
}
RECORDING = str(ROOT / "tests" / "data" / "protocol-0.rec")
COMMANDS = {
    ("replay", RECORDING, "--listen", "tcp:99999"): (2, "the port must be from 0 to 65535"),
    ("stats", "127.0.0.1"): (2, "127.0.0.1 has no port; write 127.0.0.1:5000"),
    ("stats", "--duration", "0.5", "a_b.invalid:1"): (1, "no connection to a_b.invalid:1 within"),
}


def main(report: Report) -> None:
    for text, reason in SERVERS.items():
        error = str(outcome(lambda: TcpBuilder().listen_address(text)))  # noqa: B023
        report.contains(f"listen on {text[:40]}", error.replace("x" * 64, ""), reason)
    for text, reason in CLIENTS.items():
        error = str(outcome(lambda: MetricsClientService(reactor, text, print)))  # noqa: B023
        report.contains(f"connect to {text[:40]}", error.replace("x" * 64, ""), reason)
    for command, (code, reason) in COMMANDS.items():
        done = finish(*command)
        report.equal(f"{command[-1]}: exit code", done.returncode, code)
        last = done.stderr.splitlines()[-1]
        report.contains(f"{command[-1]}: last line", last, "metrics-tcp", reason)
        for fault in ("Traceback", "invalid hostname"):
            report.equal(f"{command[-1]}: {fault}", fault in done.stderr, False)


if __name__ == "__main__":
    run(main)
