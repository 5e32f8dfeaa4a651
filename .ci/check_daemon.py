"""
Start a daemon, be a client of it, and stop it while the client is attached.

    python3 check_daemon.py COMMAND...

The command is twistd or becomes it, in the foreground. Needs nothing but the standard library, so
that it can look at an environment from outside.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

STOP_LIMIT = 15.0  # or it hangs; by itself it takes a hundredth of a second
LISTENING = re.compile(r"starting on (\d+)")
# The first byte of an Event that is not empty: the tag of the one field that it has.
METADATA, METRIC, STATUS = 0x0A, 0x12, 0x1A


@contextmanager
def running(command: Sequence[str | Path], cwd: str | Path | None = None) -> Iterator[int]:
    """Run the command, give the port it listens on, and at the end see it stop on SIGTERM."""
    daemon = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Whatever goes wrong, it ends; and its end ends all reading from it.
    watchdog = threading.Timer(120, daemon.kill)
    watchdog.start()
    try:
        assert daemon.stdout is not None
        port = None
        while port is None:
            line = daemon.stdout.readline()
            if not line:
                sys.exit(f"it ended with {daemon.wait()} before it listened")
            print("   ", line, end="", flush=True)
            if found := LISTENING.search(line):
                port = int(found[1])
        rest: list[str] = []
        reader = threading.Thread(target=lambda: rest.extend(daemon.stdout or ()))
        reader.start()
        yield port
        asked = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        status = daemon.wait()
        took = time.monotonic() - asked
        reader.join()
        for line in rest:
            print("   ", line, end="")
        if "Traceback" in "".join(rest):
            sys.exit("its log has a traceback")
        if status != -signal.SIGTERM:  # twistd dies of the signal that it was stopped with
            sys.exit(f"it ended with {status} and not of SIGTERM")
        if took > STOP_LIMIT:
            sys.exit(f"it took {took:.2f}s to stop, and {STOP_LIMIT}s are allowed")
        print(f"stopped in {took:.2f}s")
    finally:
        watchdog.cancel()
        daemon.kill()
        daemon.wait()


class Client:
    """A connection that reads frames, with no code of the package that is looked at."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._file = self._socket.makefile("rb")

    def frame(self) -> bytes:
        """The next frame, without its length."""
        length = shift = 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return self._exactly(length)

    def read_to_end(self) -> None:
        """Read to the end of the stream, which must not be within a frame."""
        while self._file.peek(1):
            self.frame()

    def _exactly(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            sys.exit("the stream ended where a frame should be")
        return data


def look(port: int) -> Client:
    """Connect, and see the stream's status come first, then metadata, then metrics."""
    client = Client(port)
    if client.frame()[:1] != bytes([STATUS]):
        sys.exit("the stream's status does not come first")
    frames = [client.frame()]
    while frames[-1][:1] != bytes([METRIC]):
        frames.append(client.frame())
    if len(frames) < 2 or any(frame[:1] != bytes([METADATA]) for frame in frames[:-1]):
        sys.exit("metadata does not come before metrics")
    print(f"got {len(frames) - 1} descriptions and a metric")
    return client


def main() -> None:
    with running(sys.argv[1:]) as port:
        client = look(port)
    client.read_to_end()


if __name__ == "__main__":
    main()
