"""
Requests a page over keep-alive connections: ``python -m suite.http_load PORT CONNECTIONS``.

The command C{load} requests it for C{seconds}. With a C{rate}, requests are due at equal intervals,
and a latency begins when the request is due, even if no connection is free; with ``rate=0``, each
connection has a request pending all the time. The answer has the number of C{requests}, the
C{seconds} until all are answered, the percentiles C{p50} and C{p99} of the latencies in seconds,
and C{waited}, the share of the time in which this process waited.
"""

from __future__ import annotations

import gc
import socket
import sys
import time
from collections import deque
from select import select

from suite.commands import commands, say

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


def response_size(connection: socket.socket) -> int:
    """Request the page once, and return the size of the response, which is always the same."""
    connection.sendall(REQUEST)
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, body = data.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return len(head) + 4 + len(body)


def load(
    connections: list[socket.socket], size: int, rate: float, seconds: float
) -> dict[str, float]:
    """
    Request the page; see the module.

    @param size: the size of a response.
    @raise ValueError: a response is not the page.
    """
    free = deque(connections)
    pending: dict[socket.socket, float] = {}
    received = dict.fromkeys(connections, 0)
    latencies: list[float] = []
    waited = 0.0
    start = now = due = time.perf_counter()
    end = start + seconds
    while now < end or pending:
        while free and now < end and due <= now:
            connection = free.popleft()
            connection.sendall(REQUEST)
            pending[connection] = due if rate else now
            due += 1 / rate if rate else 0
            now = time.perf_counter()
        timeout = max(0.0, min(due, end) - now) if free and now < end else None
        ready, _, _ = select(pending, [], [], timeout)
        then, now = now, time.perf_counter()
        waited += now - then
        for connection in ready:
            data = connection.recv(65536)
            if not received[connection] and not data.startswith(OK):
                raise ValueError(f"not a page: {data[:200]!r}")
            received[connection] += len(data)
            if received[connection] >= size:
                received[connection] = 0
                latencies.append(now - pending.pop(connection))
                free.append(connection)
    latencies.sort()
    return {
        "requests": len(latencies),
        "seconds": now - start,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
        "waited": waited / (now - start),
    }


def main(port: str, count: str) -> None:
    gc.disable()  # a collection is no latency of the server
    address = ("127.0.0.1", int(port))
    connections = [socket.create_connection(address, 30) for _ in range(int(count))]
    size = response_size(connections[0])
    say({})
    for _word, options in commands():
        say(load(connections, size, options["rate"], options["seconds"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
