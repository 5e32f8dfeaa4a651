"""
The latency of an event from the recording call to the client.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from suite.bench import ATTEMPTS, SUBJECTS, Bench, Subject, left_out
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import MAX_DELAY, NoFigure

AT_ONCE_RATES = (1_000, 20_000)
RATES = (100, 1_000, 10_000, 50_000)
GOAL = Goal(2, False)
LIMIT = Goal(2 * MAX_DELAY * 1000, False, "ms")

MEDIAN, P99 = "median", "99th percentile"

TITLE = "Latency"

HOW = """\
A program records at a steady rate, in ticks of a millisecond, with one client and the default
buffers: with `max_delay=0`, then with the default of 20 ms, which the reference does not have. An
event's value is the time just before the recording call (the reference's timestamps are later); its
latency ends when the client's recv returns. A run that loses an event is repeated, up to four
times: at 50,000 events a second, a pause of 20 ms fills the buffers. "First event after a quiet
time" is the latency of an event before and after which none is recorded for a second, with the
default `max_delay`; at 1 event a second, the figure is the longest of twelve of these."""


def run(bench: Bench) -> Section:
    at_once = [replace(subject, max_delay=0) for subject in SUBJECTS]
    ours = [subject for subject in SUBJECTS if subject.ours]
    rows = []
    for rate in AT_ONCE_RATES:
        what = f"{rate:,} events/s, max_delay=0"
        with left_out(what):
            p50, p99 = bench.alternate(3, partial(latency, bench, rate, 2), at_once)
            rows.append(Row.of(f"{MEDIAN}, {what}", "µs", p50, REFERENCE, GOAL))
            rows.append(Row.of(f"{P99}, {what}", "µs", p99, REFERENCE, GOAL))
    what = "first event after a quiet time"
    with left_out(what):
        first = after_quiet(bench)
        rows.append(Row.of(what, "µs", first, REFERENCE, GOAL))
        longest = {name: [max(values) / 1e3] for name, values in first.items()}
        rows.append(Row.of(f"{P99}, 1 event/s", "ms", longest, None, LIMIT))
    for rate in RATES:
        what = f"{rate:,} events/s"
        with left_out(what):
            _, p99 = bench.alternate(3, partial(latency, bench, rate, 1), ours)
            p99 = {name: [value / 1e3 for value in values] for name, values in p99.items()}
            rows.append(Row.of(f"{P99}, {what}", "ms", p99, None, LIMIT))
    return Section(TITLE, HOW, rows)


def latency(bench: Bench, rate: int, seconds: float, subject: Subject) -> tuple[float, float]:
    """Measure the median and the 99th percentile at a rate, in microseconds."""
    # A quick run may share the machine with other work, and must not lose events.
    buffer_size = 65_536 if bench.quick else 1024
    how = {"rate": rate, "reactor": subject.reactor}
    for _ in range(ATTEMPTS):
        with bench.peers.session(
            subject.ours, 1, buffer_size, "timed", subject.max_delay
        ) as session:
            # Warms up: the first events take longer.
            session.record(seconds=0.2, **how)
            session.drain()
            session.reader.ask("latency")
            recorded = session.record(seconds=0.3 if bench.quick else seconds, **how)
            session.drain()
            found = session.reader.ask("latency")
        if found["count"] == recorded["recorded"] > 0:
            return found["p50"] / 1000, found["p99"] / 1000
    raise NoFigure(f"the client read {found['count']} of the events {recorded}")


def after_quiet(bench: Bench) -> dict[str, list[float]]:
    """Measure the latencies of events that are a second apart, in microseconds."""
    with ExitStack() as stack:
        sessions = {
            subject: stack.enter_context(bench.peers.session(subject.ours, 1, 1024, "timed"))
            for subject in bench.measured(SUBJECTS)
        }
        # The turns of all subjects take a second. The load loop waits before and after an event.
        tick = 0.5 / len(sessions)

        def measure(subject: Subject) -> tuple[float]:
            session = sessions[subject]
            session.reader.ask("latency")
            session.record(count=1, rate=1 / tick, tick_us=tick * 1e6, reactor=subject.reactor)
            session.wait_for_all()
            return (session.reader.ask("latency")["p50"] / 1000,)

        for subject in sessions:
            measure(subject)  # warms up
        (samples,) = bench.alternate(12, measure)
    return samples
