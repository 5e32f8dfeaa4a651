"""
Line 6: timers and C{count_exceptions} measure what a function returns to its end; misused
decorators raise a TypeError when they decorate, and do not replace the program's own errors.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.faults import Report, outcome, run
from txmetrics_tcp import Metric, counter, gauge, histogram, local_recorder, set_global_recorder
from txmetrics_tcp.testing import capture

# The clock of the timers, which goes on by one in each function's work.
now = 0.0


def work() -> None:
    global now
    now += 1


async def slow() -> None:
    await asyncio.sleep(0)
    work()


async def fails() -> None:
    raise OSError


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of coroutines and generators."""
    return functools.wraps(function)(lambda: function())


async def measure(report: Report) -> None:
    with capture() as captured:

        def timed(name: str, function: Callable[..., Any]) -> Any:
            return histogram(name).time(clock=lambda: now)(function)()

        def check(name: str, expected: float) -> None:
            events = [event for event in captured.events if isinstance(event, Metric)]
            report.equal(name, [e.value for e in events if e.key.name == name], [expected])

        functions: dict[str, Callable[..., Any]] = {
            "coroutine function": slow,
            "coroutine function under a decorator": wrapped(slow),
            "partial coroutine function": functools.partial(slow),
            "function that returns a task": lambda: asyncio.ensure_future(slow()),
        }
        for name, function in functions.items():
            await timed(name, function)
            await asyncio.sleep(0)
            check(name, 1.0)
        with ThreadPoolExecutor() as pool:
            timed("future", lambda: pool.submit(work))
        check("future", 1.0)
        failing = counter("exceptions under a decorator").count_exceptions()(wrapped(fails))
        await asyncio.gather(failing(), return_exceptions=True)
        check("exceptions under a decorator", 1)


def main(report: Report) -> None:
    asyncio.run(measure(report))
    # Their types forbid these arguments.
    latency: Any = histogram("latency")
    errors: Any = counter("errors")
    running: Any = gauge("running")
    recorder: Any = None
    for case, call in {
        "@time without parentheses": lambda: latency.time(len),
        "@count_exceptions without parentheses": lambda: errors.count_exceptions(len),
        "@track_inprogress without parentheses": lambda: running.track_inprogress(len),
        "count_exceptions('OSError')": lambda: errors.count_exceptions("OSError"),
        "count_exceptions([OSError])": lambda: errors.count_exceptions([OSError]),
        "time(clock=5)": lambda: latency.time(clock=5),
        "set_global_recorder(None)": lambda: set_global_recorder(recorder),
        "local_recorder(None)": lambda: local_recorder(recorder).__enter__(),
    }.items():
        report.contains(case, outcome(call), "TypeError")


if __name__ == "__main__":
    run(main)
