"""
Issue 19, line 4: commands end at the first signal while a pipe blocks them.
"""

import fcntl
import os
import re
import select
import signal
import socket
import sys
import termios
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from tests import environment
from tests.daemon import LIMIT
from tests.faults import Report, exporter, run
from tests.recordings import STREAM, record
from txmetrics_tcp import counter

COMMAND = [sys.executable, "-m", "txmetrics_tcp"]


def start(*arguments: str, **options: Any) -> Popen[bytes]:
    return Popen([*COMMAND, *arguments], env=environment(), stdin=DEVNULL, **options)


def ended(child: Popen[bytes], number: int) -> object:
    """Return the exit status of a child after a signal."""
    child.send_signal(number)
    try:
        return child.wait(LIMIT)
    except TimeoutExpired:
        child.kill()
        child.wait()
        return "still running"


def fill(writing: int) -> None:
    """Record events until a client has filled a pipe."""
    while select.select([], [writing], [], 0)[1]:
        for _ in range(1000):
            counter("requests_total").increment()
        time.sleep(0.01)


def writes(report: Report, path: str) -> None:
    with exporter() as server:
        port = str(server.addresses[0].port)  # type: ignore[attr-defined]
        for command, expected in ("record", 1), ("tail", 130):
            reading, writing = os.pipe()
            arguments = ["record", "-", port] if command == "record" else ["tail", port]
            child = start(*arguments, stdout=writing, stderr=DEVNULL)
            fill(writing)
            report.equal(f"{command}, full pipe", ended(child, signal.SIGINT), expected)
            while server.recorder.stats().clients:
                time.sleep(0.01)
            # The pipe is still full.
            child = start("stats", port, "--duration", "999", stdout=writing, stderr=DEVNULL)
            while not server.recorder.stats().clients:
                time.sleep(0.01)
            report.equal("stats, full pipe", ended(child, signal.SIGINT), 130)
            os.close(reading)
            os.close(writing)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        child = start("record", path, port, stderr=DEVNULL)
        writing = os.open(path, os.O_WRONLY)
        fill(writing)
        report.equal("record, full FIFO", ended(child, signal.SIGTERM), 1)
        os.close(reading)
        os.close(writing)


def reads(report: Report, path: str) -> None:
    child = start("replay", path, "--listen", "0", stderr=PIPE)
    with open(path, "wb", buffering=0) as fifo:
        data = record(*[STREAM] * 100)
        fifo.write(data[:1000])
        assert child.stderr is not None
        found = re.search(rb":(\d+);", child.stderr.readline())
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1])), LIMIT):
            fifo.write(data[1000:-1])
            # More than one read takes, so the replay waits for data soon.
            while any(fcntl.ioctl(fifo, termios.FIONREAD, bytes(4))):
                time.sleep(0.01)
            report.equal("replay, empty FIFO", ended(child, signal.SIGINT), 130)
    child.stderr.close()


def main(report: Report) -> None:
    with TemporaryDirectory() as directory:
        path = str(Path(directory, "fifo"))
        os.mkfifo(path)
        writes(report, path)
        reads(report, path)


if __name__ == "__main__":
    run(main)
