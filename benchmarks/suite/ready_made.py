"""
Writes a prepared stream as fast as clients read it: ``python -m suite.ready_made``.

The command C{send} accepts C{clients} clients and writes C{events} events to each. It answers the
time C{start_ns} of the first write, and C{waited_ns}, the time spent waiting for clients.
"""

from __future__ import annotations

import select
import socket
import time

from suite.commands import allow_many_files, commands, say
from suite.streams import plain

UNIT = 1_000
"""A client receives a multiple of this number of events."""


def send(clients: dict[int, socket.socket], block: bytes, size: int) -> int:
    """
    Write C{size} bytes of the repeated block to each client.

    @return: the number of nanoseconds in which no client was writable.
    """
    view = memoryview(block)
    sent = dict.fromkeys(clients, 0)
    poller = select.poll()
    for number in clients:
        poller.register(number, select.POLLOUT)
    waited = 0
    while sent:
        start = time.monotonic_ns()
        ready = poller.poll()
        waited += time.monotonic_ns() - start
        for number, _events in ready:
            done = sent[number]
            at = done % len(block)
            done += clients[number].send(view[at : at + size - done])
            sent[number] = done
            if done == size:
                poller.unregister(number)
                del sent[number]
    return waited


def main() -> None:
    allow_many_files()
    unit = b"".join(plain(UNIT))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        say({"port": listening.getsockname()[1]})
        for _word, options in commands():
            accepted = [listening.accept()[0] for _ in range(int(options["clients"]))]
            clients = {one.fileno(): one for one in accepted}
            for one in accepted:
                one.setblocking(False)
            start_ns = time.monotonic_ns()
            waited_ns = send(clients, unit * 10, int(options["events"]) // UNIT * len(unit))
            say({"start_ns": start_ns, "waited_ns": waited_ns})


if __name__ == "__main__":
    main()
