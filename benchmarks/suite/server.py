"""
The process of this library's server: ``python -m suite.server BUFFER SERIES OWN MAX_DELAY``.

Before it listens, it increments SERIES series, for snapshots. Unless OWN is 1, its own metrics are
off, so clients read only events that were recorded on command. MAX_DELAY is the setting of that
name. Commands:

  - C{record}: see `steps`; on a separate thread, with ``reactor=1`` on the reactor thread; with
    ``null=1``, use a counter that does nothing;
  - C{stats}: answer the exporter's statistics, and the processor time of this process;
  - C{snapshot}: take a snapshot, and answer its time in seconds;
  - C{lag}: start iterating the reactor without pauses; the second time, stop, and answer the
    longest time between two of these iterations, in seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from itertools import repeat
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import blockingCallFromThread

from suite.commands import LABELS, NAME, allow_many_files, commands, say
from suite.host import Empty
from txmetrics_tcp import ExporterSettings, MetricsFactory

reactor: Any = global_reactor

SLICE = 1024
"""The number of events between two readings of the clock."""


def steps(
    increment: Callable[..., None], options: dict[str, float], answer: dict[str, Any]
) -> Iterator[float]:
    """
    The load loop: record in steps, as ``serve.rs`` does.

    @param options: record C{count} events or, if that is 0, for C{seconds}; at full speed if
        C{rate} is 0, else at C{rate} events per second in ticks of C{tick_us}. After a delay, a
        tick records at most twice its share. Increment by 1 or, if C{timed} is 1, by the time.
    @param answer: its C{recorded} is set to the number of events so far.
    @return: the seconds to wait before each next step.
    """
    count, rate, timed = int(options["count"]), options["rate"], options["timed"]
    tick = options["tick_us"] / 1e6
    clock = time.monotonic_ns
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
        answer["recorded"] = done
        yield max(0.0, tick - (time.perf_counter() - now)) if rate else 0.0
        now = time.perf_counter()


@inlineCallbacks
def in_reactor(stepping: Iterator[float]) -> Generator[Any, Any, None]:
    """Record on the reactor thread, one step in each reactor iteration."""
    for wait in stepping:
        yield deferLater(reactor, wait)


class Server:
    """Answers commands, on a thread other than the reactor thread."""

    def __init__(self, factory: MetricsFactory) -> None:
        self._factory = factory
        self._increments = (factory.recorder.counter(NAME, LABELS).increment, Empty().method)
        self._iterating = LoopingCall(self._iterate)
        self._last = self._lag = 0.0

    def answer(self, word: str, options: dict[str, float]) -> dict[str, object]:
        if word == "record":
            return self.record(options)
        answer: dict[str, object] = blockingCallFromThread(reactor, getattr(self, word))
        return answer

    def record(self, options: dict[str, float]) -> dict[str, object]:
        start = time.monotonic_ns()
        answer: dict[str, Any] = {"recorded": 0, "start_ns": start}
        stepping = steps(self._increments[int(options["null"])], options, answer)
        if options["reactor"]:
            blockingCallFromThread(reactor, in_reactor, stepping)
        for wait in stepping:
            if wait:
                time.sleep(wait)
        return {**answer, "seconds": (time.monotonic_ns() - start) / 1e9}

    def stats(self) -> dict[str, object]:
        return {"cpu_seconds": time.process_time(), **asdict(self._factory.stats())}

    def snapshot(self) -> dict[str, object]:
        start = time.perf_counter()
        series = len(self._factory.recorder.snapshot())
        return {"series": series, "seconds": time.perf_counter() - start}

    def lag(self) -> dict[str, object]:
        if self._iterating.running:
            self._iterating.stop()
        else:
            self._last, self._lag = time.perf_counter(), 0.0
            self._iterating.start(0)
        return {"seconds": self._lag}

    def _iterate(self) -> None:
        now = time.perf_counter()
        self._lag = max(self._lag, now - self._last)
        self._last = now


def serve(
    factory: ServerFactory, answer: Callable[[str, dict[str, float]], Mapping[str, object]]
) -> None:
    """
    Listen on a free port and report it, then answer commands on a thread other than the reactor
    thread.
    """

    def answer_all() -> None:
        try:
            for word, options in commands():
                say(answer(word, options))
        finally:
            reactor.callFromThread(reactor.stop)

    port = reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")
    say({"port": port.getHost().port})
    reactor.callWhenRunning(Thread(target=answer_all, daemon=True).start)
    reactor.run()


def main() -> None:
    buffer_size, series, own_metrics, max_delay = sys.argv[1:]
    allow_many_files()
    settings = ExporterSettings(
        buffer_size=int(buffer_size),
        own_metrics=own_metrics == "1",
        max_delay=float(max_delay),
        max_clients=None,
    )
    factory = MetricsFactory(reactor, settings)
    for number in range(int(series)):
        factory.recorder.counter(NAME, {**LABELS, "number": str(number)}).increment(number)
    serve(factory, Server(factory).answer)


if __name__ == "__main__":
    main()
