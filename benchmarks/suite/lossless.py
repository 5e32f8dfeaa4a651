"""
The highest rate without a loss, and the loss at twice that rate, with the default buffers.
"""

from __future__ import annotations

from statistics import median

from suite.bench import Bench, Subject, clients_text, left_out
from suite.figures import REFERENCE, Goal, ReaderSpeed, Row, Section
from suite.peers import NoFigure

BUFFER = 1024
GOALS = {1: Goal(1.5), 10: Goal(3), 100: Goal(10)}
START = {1: 100_000, 10: 80_000, 100: 15_000}
TICK_US = 500
HIGHEST = 1_800_000.0
"""The limit of the search: a higher rate could overrun a buffer of 1024 within a tick."""

TITLE = "Highest rate without a loss"

HOW = """\
A program records for 0.4 seconds at a steady rate, in ticks of half a millisecond, with the
default buffers of 1024 events. The rate rises if every client reads every event, and falls if two
attempts lose some, until it is known within 10 %. The figure is the achieved rate, not the
requested one. "Lost" is the share of events that do not reach the clients at twice that rate, the
median of three attempts. What follows the first corrupt frame of a reference's stream is lost."""


def highest(bench: Bench, subject: Subject, clients: int) -> float:
    """Search for the highest rate without a loss."""
    precision = 2.0 if bench.quick else 1.1
    best = low = 0.0
    high = None
    rate = float(START[clients])
    while high is None or high > low * precision:
        reached = without_loss(bench, subject, clients, rate)
        if not reached:
            high = rate
        else:
            grown = reached > best * 1.1
            low, best = rate, max(best, reached)
            if rate == HIGHEST or (high is None and not grown):
                # The program cannot record faster, even if a higher rate is requested.
                break
        if not low:
            rate /= 3
            if rate < 100:
                raise NoFigure(f"{subject.name}: events were lost at every rate")
        elif high is None:
            rate = min(rate * 2, HIGHEST)
        else:
            rate = (low * high) ** 0.5
    return best


def without_loss(bench: Bench, subject: Subject, clients: int, rate: float) -> float | None:
    """Return the achieved rate, or None if two attempts lost events."""
    for _ in range(2):
        reached, lost = attempt(bench, subject, clients, rate)
        if not lost:
            return reached
    return None


def attempt(bench: Bench, subject: Subject, clients: int, rate: float) -> tuple[float, float]:
    """Return the achieved rate, and the lost share of the events in percent."""
    seconds = 0.1 if bench.quick else 0.4
    with bench.peers.session(subject.ours, clients, BUFFER, "increments") as session:
        recorded = session.record(
            seconds=seconds, rate=rate, tick_us=TICK_US, reactor=subject.reactor
        )
        lost = session.losses() or len(session.corrupt)
    events = recorded["recorded"]
    return events / recorded["seconds"], lost / (events * clients) * 100


def run(bench: Bench) -> Section:
    rows: list[Row] = []
    losses: list[Row] = []
    for clients, goal in GOALS.items():
        if bench.quick and clients != 10:
            continue

        def measure(subject: Subject, clients: int = clients) -> tuple[float, float]:
            rate = highest(bench, subject, clients)
            lost = [attempt(bench, subject, clients, 2 * rate)[1] for _ in bench.rounds(3)]
            return rate, median(lost)

        what = clients_text(clients)
        all_clients = bench.reader_speed(clients, "increments")
        reader = ReaderSpeed(all_clients.value / clients, all_clients.least)
        with left_out(what):
            rates, lost = bench.alternate(2, measure)
            rows.append(Row.of(what, "events/s", rates, REFERENCE, goal, reader=reader))
            losses.append(Row.of(f"lost at twice that rate, {what}", "%", lost))
    return Section(TITLE, HOW, rows + losses)
