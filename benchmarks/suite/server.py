"""
A server of this library, as a process of its own: ``python -m suite.server PORT BUFFER SERIES``.

Before it listens it increments so many SERIES, for snapshots. Its own metrics are off, so that
every event that a client reads is one that was recorded. Its commands:

  - C{record}: see `steps`; on a thread of its own, or with ``reactor=1`` on the reactor thread, and
    with ``null=1`` into a counter that does nothing;
  - C{stats}: the exporter's statistics, and the processor time of this process;
  - C{snapshot}: take one; its time in seconds;
  - C{lag}: the longest time, in seconds, between two iterations of the reactor since it was asked
    last (from the first time on).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from itertools import repeat
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from suite.commands import LABELS, NAME, allow_many_files, commands, say
from txmetrics_tcp import MetricsFactory

reactor: Any = global_reactor


SLICE = 1024
"""How many events are recorded between two looks at the clock."""

Options = dict[str, float]


class Null:
    """A counter that does nothing, to measure the load loop alone."""

    def increment(self, value: int = 1) -> None:
        pass


def steps(increment: Callable[..., None], options: Options) -> Generator[float, None, int]:
    """
    The load loop: record stepwise, as ``serve.rs`` does.

    @param options: C{count} events, or for as many C{seconds} if that is 0; at full speed if
        C{rate} is 0, else at that many a second in ticks of C{tick_us}, where at most one tick's
        worth is made up for in the next; each by 1 or, where C{timed} is 1, by the time.
    @return: a generator of the seconds to wait before the next step, which returns how many events
        it recorded.
    """
    count, rate, timed = int(options["count"]), options["rate"], options["timed"]
    tick = options["tick_us"] / 1e6
    clock = time.time_ns
    now = last = time.perf_counter()
    end = now + options["seconds"]
    done, due = 0, 0.0
    while done < count if count else now < end:
        if rate:
            due += rate * min(now - last, 2 * tick)
            last = now
            size = int(due)
            due -= size
        else:
            size = min(SLICE, count - done) if count else SLICE
        if timed:
            for _ in repeat(None, size):
                increment(clock())
        else:
            for _ in repeat(None, size):
                increment()
        done += size
        yield max(0.0, tick - (time.perf_counter() - now)) if rate else 0.0
        now = time.perf_counter()
    return done


def in_thread(stepping: Generator[float, None, int]) -> int:
    """Record on this thread."""
    while True:
        try:
            wait = next(stepping)
        except StopIteration as stop:
            return int(stop.value)
        if wait:
            time.sleep(wait)


def in_reactor(stepping: Generator[float, None, int]) -> Deferred[int]:
    """Record on the reactor thread, one step an iteration."""
    done: Deferred[int] = Deferred()

    def step() -> None:
        try:
            reactor.callLater(next(stepping), step)
        except StopIteration as stop:
            done.callback(stop.value)

    step()
    return done


class Server:
    """Answers commands, on a thread that is not the reactor's."""

    def __init__(self, factory: MetricsFactory) -> None:
        self._factory = factory
        self._increments = (factory.recorder.counter(NAME, LABELS).increment, Null().increment)
        self._last: float | None = None
        self._lag = 0.0

    def run(self) -> None:
        try:
            for word, options in commands():
                if word == "record":
                    say(self.record(options))
                else:
                    say(blockingCallFromThread(reactor, getattr(self, word)))
        finally:
            reactor.callFromThread(reactor.stop)

    def record(self, options: Options) -> dict[str, object]:
        stepping = steps(self._increments[int(options["null"])], options)
        start_ns, start = time.time_ns(), time.perf_counter()
        recorded: int
        if options["reactor"]:
            recorded = blockingCallFromThread(reactor, in_reactor, stepping)  # type: ignore[arg-type]
        else:
            recorded = in_thread(stepping)
        seconds = time.perf_counter() - start
        return {"recorded": recorded, "seconds": seconds, "start_ns": start_ns}

    def stats(self) -> dict[str, object]:
        return {"cpu_seconds": time.process_time(), **asdict(self._factory.stats())}

    def snapshot(self) -> dict[str, object]:
        start = time.perf_counter()
        series = len(self._factory.recorder.snapshot())
        return {"series": series, "seconds": time.perf_counter() - start}

    def lag(self) -> dict[str, object]:
        if self._last is None:
            self._iterate()
        lag, self._lag = self._lag, 0.0
        return {"seconds": lag}

    def _iterate(self) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self._lag = max(self._lag, now - self._last)
        self._last = now
        reactor.callLater(0, self._iterate)


def main() -> None:
    port, buffer_size, series = map(int, sys.argv[1:])
    allow_many_files()
    factory = MetricsFactory(reactor, buffer_size, own_metrics=False)
    for number in range(series):
        factory.recorder.counter(NAME, {**LABELS, "number": str(number)}).increment(number)
    reactor.listenTCP(port, factory, backlog=1024, interface="127.0.0.1")
    server = Server(factory)
    say({"port": port})
    reactor.callWhenRunning(Thread(target=server.run, daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
