"""
The reader for hosts without cargo: ``python -m suite.reader 127.0.0.1:PORT CLIENTS count``.

It replaces ``read.rs`` in its mode C{count}, with the same loop: poll, and recv of 256 KiB. A walk
along the lengths of frames would be slow in Python, so this reader counts occurrences of the
counter's name, which each event contains once.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import Any

from suite.commands import NAME, allow_many_files, say

PIECE = 256 * 1024
COUNTED = NAME.encode()
SHORT = len(COUNTED) - 1


class Client:
    """One connection."""

    def __init__(self, connected: Any) -> None:
        self.socket = connected
        self.events = 0
        self.wrong: str | None = None
        self._rest = b""

    def receive(self) -> int:
        """Call recv once, and return the number of bytes."""
        try:
            data = self.socket.recv(PIECE)
        except OSError as error:
            data, self.wrong = b"", str(error)
        if not data:
            self.wrong = self.wrong or "the connection has ended"
            return 0
        # A name may be split between two pieces. The seam is too short for a whole name on either
        # side, so no name is counted twice.
        seam = self._rest + data[:SHORT]
        self.events += data.count(COUNTED) + seam.count(COUNTED)
        self._rest = (data if len(data) > SHORT else seam)[-SHORT:]
        return len(data)


def run(clients: dict[int, Client]) -> None:
    """
    Read, and answer C{wait total= quiet=}, until standard input ends.

    @param clients: the clients by file descriptor.
    """
    poller = select.poll()
    for number in (0, *clients):
        poller.register(number, select.POLLIN)
    received = last_ns = 0
    last = quiet = 0.0
    total: float | None = None
    ready: list[tuple[int, int]] = []
    while True:
        left = None if total is None else max(0.0, last + quiet - time.monotonic())
        # If this process was paused, data may be pending until the next poll.
        silent = not left and not ready
        if total is not None and (
            silent or sum(client.events for client in clients.values()) >= total
        ):
            events = [client.events for client in clients.values()]
            wrong = [client.wrong for client in clients.values() if client.wrong]
            say({"events": events, "wrong": wrong, "last_ns": last_ns})
            total = left = None
        before = received
        ready = poller.poll(None if left is None else left * 1000 + 1)
        for number, _events in ready:
            if number:
                received += clients[number].receive()
                if clients[number].wrong:
                    poller.unregister(number)
                continue
            line = os.read(0, 4096).decode()
            if not line:
                return
            _wait, *pairs = line.split()
            options = dict(pair.split("=") for pair in pairs)
            total, quiet = float(options["total"]), float(options["quiet"])
            last = time.monotonic()
        if received > before:
            last_ns, last = time.monotonic_ns(), time.monotonic()


def main() -> None:
    address, count, mode = sys.argv[1:]
    if mode != "count":
        sys.exit(f"the Python reader has no mode {mode!r}")
    host, port = address.split(":")
    allow_many_files()
    addresses = [(host, int(port))] * int(count)
    start_ns = time.monotonic_ns()
    clients = [Client(socket.create_connection(address)) for address in addresses]
    say({"start_ns": start_ns})
    run({client.socket.fileno(): client for client in clients})


if __name__ == "__main__":
    main()
