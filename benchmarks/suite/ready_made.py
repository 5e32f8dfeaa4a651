"""
Writes a prepared stream as fast as clients take it: ``python -m suite.ready_made PORT``.

C{send}: accept so many C{clients} and write so many C{events} to each.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from suite.commands import allow_many_files, commands, say
from suite.streams import plain

UNIT = 1_000
"""A client gets a multiple of so many events."""


def send(clients: dict[int, socket.socket], block: bytes, size: int) -> None:
    """Write to each so many bytes of the block, repeated."""
    view = memoryview(block)
    sent = dict.fromkeys(clients, 0)
    poller = select.poll()
    for number in clients:
        poller.register(number, select.POLLOUT)
    while sent:
        for number, _events in poller.poll():
            done = sent[number]
            at = done % len(block)
            done += clients[number].send(view[at : at + size - done])
            sent[number] = done
            if done == size:
                poller.unregister(number)
                del sent[number]


def main() -> None:
    allow_many_files()
    unit = b"".join(plain(UNIT))
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listening:
        say({})
        for _word, options in commands():
            accepted = [listening.accept()[0] for _ in range(int(options["clients"]))]
            clients = {one.fileno(): one for one in accepted}
            for one in accepted:
                one.setblocking(False)
            start_ns = time.time_ns()
            send(clients, unit * 10, int(options["events"]) // UNIT * len(unit))
            say({"start_ns": start_ns})


if __name__ == "__main__":
    main()
