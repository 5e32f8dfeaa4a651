"""
Line 3: each setting is checked at the call, and the error names setting and value.  Addresses may
be those of the socket module, and path objects are UNIX sockets.
"""

from pathlib import Path

from tests.faults import Report, outcome, run
from txmetrics_tcp import TcpBuilder

INVALID: dict[str, tuple[object, ...]] = {
    "allow": (5, "", "localhost", ["10.0.0.0/8"]),
    "buffer_size": ("10", 0.5),
    "max_series": (-1, 1.5, None),
    "max_clients": ("5", 1.5),
    "idle_after": (float("inf"), "5"),
    "repair_interval": (float("inf"), "5"),
    "dead_after": (float("inf"), "3", 1e300),
    "flush_timeout": (float("inf"), float("nan"), -1, None),
    "source": (5, b"x"),
}
VALID = (("127.0.0.1", 5000), ("::1", 5000), Path("/run/metrics.sock"), 5000)


def main(report: Report) -> None:
    for setting, values in INVALID.items():
        for value in values:
            result = outcome(lambda: getattr(TcpBuilder(), setting)(value))  # noqa: B023
            report.contains(f"{setting}({value!r})", result, "Error", setting)
    report.contains("allow()", outcome(lambda: TcpBuilder().allow()), "Error", "allow")
    for value in ("127.0.0.1:x", b"5000", 5000.5, -1, True):
        result = outcome(lambda: TcpBuilder().listen_address(value))  # type: ignore[arg-type] # noqa: B023
        report.contains(f"listen_address({value!r})", result, "Error", str(value))
    for address in VALID:
        result = outcome(lambda: TcpBuilder().listen_address(address))  # noqa: B023
        report.contains(f"listen_address({address!r})", result, "TcpBuilder")


if __name__ == "__main__":
    run(main)
