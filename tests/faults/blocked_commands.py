"""
Line 4: commands end at the first signal while a pipe blocks them.
"""

import fcntl
import os
import re
import select
import signal
import socket
import termios
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory

from tests.daemon import LIMIT
from tests.faults import Report, exporter, port_of, run, start
from tests.programs import until
from tests.recordings import STREAM, record
from txmetrics_tcp import counter


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
        port = str(port_of(server))
        for command, expected in ("record", 1), ("tail", 130):
            reading, writing = os.pipe()
            arguments = ["record", "-", port] if command == "record" else ["tail", port]
            child = start(*arguments, stdout=writing, stderr=DEVNULL)
            fill(writing)
            report.equal(f"{command}, full pipe", ended(child, signal.SIGINT), expected)
            until(lambda: not server.recorder.stats().clients)
            # The pipe is still full.
            child = start("stats", port, "--duration", "999", stdout=writing, stderr=DEVNULL)
            until(lambda: server.recorder.stats().clients)
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
            until(lambda: not any(fcntl.ioctl(fifo, termios.FIONREAD, bytes(4))))
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
