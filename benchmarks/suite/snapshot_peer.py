"""
A server with many series, as a process of its own: ``python -m suite.snapshot_peer PORT SERIES``.

C{snapshot} takes one, and gives its time in seconds and its memory in bytes; C{lag} gives the
longest time, in seconds, that the reactor was away since the last such command.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.threads import blockingCallFromThread

from suite.commands import LABELS, NAME, commands, say
from txmetrics_tcp import MetricsFactory

reactor: Any = global_reactor


class Lag:
    """How long the reactor is away at most."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._longest = 0.0
        self._tick()

    def take(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest

    def _tick(self) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        reactor.callLater(0, self._tick)


class Server:
    """Answers commands, on a thread that is not the reactor's."""

    def __init__(self, factory: MetricsFactory, lag: Lag) -> None:
        self._factory = factory
        self._lag = lag

    def run(self) -> None:
        for word, _options in commands():
            if word == "lag":
                lag = blockingCallFromThread(reactor, self._lag.take)
                say({"seconds": lag})
            else:
                say(blockingCallFromThread(reactor, self.snapshot))
        reactor.callFromThread(reactor.stop)

    def snapshot(self) -> dict[str, object]:
        recorder = self._factory.recorder
        start = time.perf_counter()
        series = len(recorder.snapshot())
        seconds = time.perf_counter() - start
        tracemalloc.start()
        snapshot = recorder.snapshot()
        _size, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del snapshot
        return {"series": series, "seconds": seconds, "bytes": peak}


def main() -> None:
    port, series = map(int, sys.argv[1:])
    factory = MetricsFactory(reactor, own_metrics=False)
    for number in range(series):
        factory.recorder.counter(NAME, {**LABELS, "number": str(number)}).increment(number)
    reactor.listenTCP(port, factory, interface="127.0.0.1")
    server = Server(factory, Lag())
    say({"series": series})
    reactor.callWhenRunning(Thread(target=server.run, daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
