"""
Recording on command, at full speed or at a rate: the same for our server as in ``serve.rs``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from itertools import repeat

from suite.commands import MODES, SEQUENCE
from txmetrics_tcp import Counter

SLICE = 1024
"""How many events are recorded between two looks at the clock."""


class Source:
    """Records one counter, with the value that a mode says."""

    def __init__(self, handle: Counter) -> None:
        self._handle = handle
        self._next = 0

    def record(self, count: int, mode: str) -> None:
        """
        Record some events.

        @param mode: one of `MODES`.
        """
        increment = self._handle.increment
        if mode == "plain":
            for _ in repeat(None, count):
                increment()
            return
        if mode == "timed":
            clock = time.time_ns
            for _ in repeat(None, count):
                increment(clock())
            return
        while count:
            stop = min(self._next + count, SEQUENCE)
            for number in range(self._next, stop):
                increment(number)
            count -= stop - self._next
            self._next = stop % SEQUENCE

    def steps(self, options: dict[str, float]) -> Generator[float, None, int]:
        """
        Record as a command says, stepwise.

        @param options: C{count} events, or for as many C{seconds} if that is 0; at full speed if
            C{rate} is 0, else that many a second in ticks of C{tick_us}, where what a tick
            missed is made up for by at most one tick's worth in the next.
        @return: a generator that says how long to wait before the next step, and in the end
            returns how many events it recorded.
        """
        count, rate, mode = int(options["count"]), options["rate"], MODES[int(options["mode"])]
        tick = options["tick_us"] / 1e6
        start = last = time.perf_counter()
        end = start + options["seconds"]
        done = 0
        due = 0.0
        while done < count if count else last < end:
            if rate:
                now = time.perf_counter()
                due += rate * min(now - last, 2 * tick)
                last = now
                size = int(due)
                due -= size
            else:
                size = min(SLICE, count - done) if count else SLICE
            self.record(size, mode)
            done += size
            if rate:
                yield max(0.0, tick - (time.perf_counter() - last))
            else:
                last = time.perf_counter()
                yield 0.0
        return done

    def run(self, options: dict[str, float]) -> int:
        """Record as a command says, on this thread."""
        steps = self.steps(options)
        try:
            while True:
                wait = next(steps)
                if options["rate"]:
                    time.sleep(wait)
        except StopIteration as stop:
            return int(stop.value)


def run_threads(handle: Counter, options: dict[str, float]) -> int:
    """Record as a command says on several threads at once, each with the whole of it."""
    recorded: list[int] = []

    def run() -> None:
        recorded.append(Source(handle).run(options))

    threads = [threading.Thread(target=run) for _ in range(int(options["threads"]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(recorded)
