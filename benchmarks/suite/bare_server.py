"""
The least that a Twisted server can do, as a process of its own: ``python -m suite.bare_server
PORT``.

It records nothing, encodes nothing and keeps nothing: ready-made frames go to all transports, those
of a tick joined, one C{transport.write} each.  It understands C{prepare}, C{record} and C{stats}.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure

from suite.commands import (
    LABELS,
    NAME,
    SEQUENCE,
    allow_many_files,
    commands,
    cpu_seconds,
    say,
)
from txmetrics_tcp import Key, Metric, MetricKind, Operation, encode_metric

reactor: Any = global_reactor


class BareProtocol(Protocol):
    """One client."""

    factory: BareFactory

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self.factory.clients.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.clients.remove(self)


class BareFactory(ServerFactory):
    """Sends what waits to everybody."""

    noisy = False
    protocol = BareProtocol  # type: ignore[assignment]

    def __init__(self) -> None:
        self.clients: list[BareProtocol] = []
        self._waiting: deque[bytes] = deque()
        self._woken = False
        self._frames: list[bytes] = []
        self._next = 0

    def prepare(self) -> None:
        """Make the frames."""
        key = Key.of(MetricKind.COUNTER, NAME, LABELS)
        now = time.time_ns()
        self._frames = [
            encode_metric(Metric(key, Operation.INCREMENT_COUNTER, number, now))
            for number in range(SEQUENCE)
        ]

    def record(self, options: dict[str, float]) -> int:
        """Send frames at a steady rate, on a thread of its own."""
        tick = options["tick_us"] / 1e6
        size = int(options["rate"] * tick)
        end = time.perf_counter() + options["seconds"]
        count = int(options["count"])
        done = 0
        while done < count if count else time.perf_counter() < end:
            start = time.perf_counter()
            for _ in range(1 if count else size):
                self._waiting.append(self._frames[self._next])
                self._next = (self._next + 1) % SEQUENCE
                done += 1
            if not self._woken:
                self._woken = True
                reactor.callFromThread(self._send)
            time.sleep(max(0.0, tick - (time.perf_counter() - start)))
        return done

    def _send(self) -> None:
        self._woken = False
        waiting = self._waiting
        self.send(b"".join([waiting.popleft() for _ in range(len(waiting))]))

    def send(self, batch: bytes) -> None:
        """Write the same to everybody."""
        for client in self.clients:
            client.transport.write(batch)  # type: ignore[union-attr]


def answer(factory: BareFactory) -> None:
    for word, options in commands():
        if word == "record":
            say({"recorded": factory.record(options)})
        elif word == "prepare":
            factory.prepare()
            say({})
        else:
            say({"cpu_seconds": cpu_seconds()})
    reactor.callFromThread(reactor.stop)


def main() -> None:
    allow_many_files()
    factory = BareFactory()
    port = reactor.listenTCP(int(sys.argv[1]), factory, backlog=1024, interface="127.0.0.1")
    say({"port": port.getHost().port})
    reactor.callWhenRunning(Thread(target=answer, args=(factory,), daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
