"""
Line 2: the commands take little memory, whatever a server sends.  Argument: megabytes of it.
"""

import itertools
import os
import pty
import re
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from tests import environment
from tests.faults import Report, read_all, run, start
from txmetrics_tcp import (
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    encode_metadata,
    encode_metric,
)

LONG = "x" * 900_000


def series(number: int) -> bytes:
    key = Key(MetricKind.COUNTER, f"n{number}", (("l", LONG),))
    return encode_metric(Metric(key, Operation.INCREMENT_COUNTER, 1, 1))


def description(number: int) -> bytes:
    return encode_metadata(Metadata(MetricKind.COUNTER, f"n{number}", None, LONG))


def unit(number: int) -> bytes:
    return encode_metadata(Metadata(MetricKind.COUNTER, f"n{number}{LONG}", "bytes"))


def peak(make: Callable[[int], bytes], megabytes: int, *arguments: str) -> float:
    """Return the most memory, in MB, that a command takes for this much of a stream."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        screen, terminal = pty.openpty()
        command, *options = arguments
        files: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        env = environment() | {"TERM": "xterm-256color"}
        port = str(server.getsockname()[1])
        with start(command, port, *options, env=env, **files) as child:
            Thread(target=lambda: b"".join(read_all(screen)), daemon=True).start()
            connection, _ = server.accept()
            connection.settimeout(60)
            with connection:
                sent = 0
                for number in itertools.count():
                    connection.sendall(frame := make(number))
                    sent += len(frame)
                    if sent > megabytes * 1_000_000:
                        break
                status = Path(f"/proc/{child.pid}/status").read_text()
            child.kill()
        os.close(terminal)
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e3  # type: ignore[index]


def main(report: Report, megabytes: int = 500) -> None:
    for make in (series, description, unit):
        for arguments in (("stats",), ("tail", "--filter", "y"), ("observe",)):
            memory = peak(make, megabytes, *arguments)
            report.at_most(f"{make.__name__} of 900 kB, {arguments[0]}", memory, 350, "MB")
    memory = peak(unit, megabytes, "tail")
    report.at_most("unit of 900 kB, tail without filter", memory, 350, "MB")


if __name__ == "__main__":
    run(main)
