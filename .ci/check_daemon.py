"""
Start a daemon, read its stream, and stop it while a client is connected.

    python3 check_daemon.py COMMAND...

COMMAND runs twistd in the foreground, directly or by way of another program; metrics-tcp must be in
the same directory as twistd. This script uses only the standard library, so any Python can run it.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LIMIT = 120.0  # seconds after which the daemon counts as hanging
LISTENING = re.compile(r"starting on (\d+)")


@contextmanager
def running(command: Sequence[str | Path], cwd: str | Path | None = None) -> Iterator[int]:
    """Run the command, yield the port that it listens on, then check that SIGTERM stops it."""
    daemon = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Kills a daemon that hangs, which also ends readline().
    watchdog = threading.Timer(LIMIT, daemon.kill)
    watchdog.start()
    try:
        assert daemon.stdout is not None
        port = None
        while port is None:
            line = daemon.stdout.readline()
            if not line:
                sys.exit(f"the daemon exited with {daemon.wait()} before it listened")
            print("   ", line, end="", flush=True)
            if found := LISTENING.search(line):
                port = int(found[1])
        rest: list[str] = []
        reader = threading.Thread(target=lambda: rest.extend(daemon.stdout or ()))
        reader.start()
        yield port
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.recv(1)
            daemon.send_signal(signal.SIGTERM)
            status = daemon.wait()
        reader.join()
        for line in rest:
            print("   ", line, end="")
        if "Traceback" in "".join(rest):
            sys.exit("the daemon logged a traceback")
        if status != -signal.SIGTERM:  # twistd kills itself with the signal that stopped it
            sys.exit(f"the daemon exited with {status} instead of {-signal.SIGTERM} (SIGTERM)")
    finally:
        watchdog.cancel()
        daemon.kill()
        daemon.wait()


def look(metrics_tcp: Path, port: int, cwd: str | Path | None = None) -> None:
    """Tail the stream, and check its order: status, then metadata, then a snapshot."""
    tail = [metrics_tcp, "tail", f"127.0.0.1:{port}", "--json", "--count", "1"]
    # With a timeout, since tail reconnects indefinitely.
    done = subprocess.run(tail, cwd=cwd, stdout=subprocess.PIPE, timeout=LIMIT, check=True)
    names = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    first, *between, snapshot, last = names
    if (first, set(between), snapshot, last) != ("status", {"metadata"}, "snapshot", "metric"):
        sys.exit(f"the stream begins with {names}")
    print(f"received the status, {len(between)} descriptions and a metric")


def main() -> None:
    [twistd] = re.findall(r"\S*twistd\b", " ".join(sys.argv[1:]))
    with running(sys.argv[1:]) as port:
        look(Path(twistd).with_name("metrics-tcp"), port)


if __name__ == "__main__":
    main()
