"""
The highest rate at which nothing is lost, with the default buffers.
"""

from __future__ import annotations

from contextlib import ExitStack

from suite.bench import Bench, Subject, clients_text
from suite.figures import REFERENCE, Goal, Row, Section
from suite.peers import PeerError, Session

BUFFER = 1024
GOALS = {1: Goal(1.5), 10: Goal(3), 100: Goal(10)}
START = {1: 100_000, 10: 80_000, 100: 15_000}
TICK_US = 500
HIGHEST = 1_800_000.0
"""Where the search ends: more could overrun a buffer of 1024 within a tick."""

TITLE = "Highest rate without a loss"

HOW = """\
A program records for 0.4 seconds at a steady rate, in ticks of half a millisecond, with the
default buffers of 1024 events; the reader tells increments from totals. If every client has read
every event, a higher rate follows, else a lower one, until they are within 5 %. As the machine
has pauses of its own, a rate is too high only if something was lost in each of two attempts. The
figure is the rate that was reached, not the one that was asked for."""


class Prober:
    """Tries rates on one server and its clients, or on new ones after a stream was destroyed."""

    def __init__(self, bench: Bench, subject: Subject, clients: int) -> None:
        self._bench = bench
        self._subject = subject
        self._clients = clients
        self._open = ExitStack()
        self._session: Session | None = None

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def attempt(self, rate: float) -> float | None:
        """The rate that was reached, or None if events were lost each time."""
        seconds = 0.1 if self._bench.quick else 0.4
        for _ in range(2):
            session = self._session or self._connect()
            recorded = session.record(
                seconds=seconds, rate=rate, tick_us=TICK_US, reactor=self._subject.reactor
            )
            lost = session.close()
            if session.corrupt:
                self._session = None
            elif not lost:
                return float(recorded["recorded"] / recorded["seconds"])
        return None

    def _connect(self) -> Session:
        self._open.close()
        self._session = self._open.enter_context(
            self._bench.peers.session(self._subject.ours, self._clients, BUFFER, "increments")
        )
        return self._session


def highest(bench: Bench, subject: Subject, clients: int) -> float:
    """The highest rate without a loss."""
    precision = 2.0 if bench.quick else 1.05
    best = low = 0.0
    high = None
    rate = float(START[clients])
    with Prober(bench, subject, clients) as prober:
        while high is None or high > low * precision:
            reached = prober.attempt(rate)
            if reached is None:
                high = rate
            else:
                grown = reached > best * 1.1
                low, best = rate, max(best, reached)
                if rate == HIGHEST or (high is None and not grown):
                    # That is as fast as it records, however much is asked for.
                    break
            if not low:
                rate /= 3
                if rate < 100:
                    raise PeerError(f"{subject.name}: events are lost at any rate")
            elif high is None:
                rate = min(rate * 2, HIGHEST)
            else:
                rate = (low * high) ** 0.5
    return best


def run(bench: Bench) -> Section:
    rows = []
    for clients, goal in GOALS.items():

        def measure(subject: Subject, clients: int = clients) -> tuple[float]:
            return (highest(bench, subject, clients),)

        reader = bench.reader_speed(clients, "increments") / clients
        (rates,) = bench.alternate(2, measure)
        what = clients_text(clients)
        rows.append(Row.of(what, "events/s", rates, REFERENCE, goal, reader=reader))
    return Section(TITLE, HOW, rows)
