"""
The context of a benchmark, with the measurement of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from suite.figures import OURS, REACTOR, REFERENCE, ReaderSpeed
from suite.peers import MAX_DELAY, NoFigure, Peers

EVENTS = 8_000_000
"""The number of events in a ready-made stream, for all clients together."""


ATTEMPTS = 5
"""The maximum number of attempts at a measurement that a pause of the machine may spoil."""


@dataclass(frozen=True)
class Subject:
    """
    A server to measure.

    @ivar name: the column of its figures.
    @ivar ours: whether it is this library's server, not the reference.
    @ivar reactor: whether it records on its reactor thread.
    @ivar max_delay: the setting of this library's server.
    """

    name: str
    ours: bool
    reactor: bool = False
    max_delay: float = MAX_DELAY


SUBJECTS = (Subject(OURS, True), Subject(REACTOR, True, True), Subject(REFERENCE, False))


@dataclass
class Bench:
    """
    The context of a benchmark.

    @ivar quick: whether to check only that the benchmark works.
    @ivar call_ns: the cost of an empty method call on this host, in nanoseconds.
    @ivar about: facts about the host and the programs, for the head of the page.
    """

    peers: Peers
    quick: bool
    call_ns: float
    about: dict[str, str]

    def rounds(self, full: int) -> range:
        """Return a range over the repetitions of a measurement."""
        return range(1 if self.quick else full)

    def alternate(
        self,
        rounds: int,
        measure: Callable[[Subject], tuple[float, ...]],
        subjects: Sequence[Subject] = SUBJECTS,
    ) -> list[dict[str, list[float]]]:
        """
        Measure each subject in turns (A B A B).

        @param measure: returns one or more values for a subject.
        @param subjects: the subjects. The reference is left out if it was not built, and servers
            that record on their reactor thread if C{quick}.
        @return: for each value, its samples by column.
        """
        samples: list[dict[str, list[float]]] = []
        for _ in self.rounds(rounds):
            for subject in self.measured(subjects):
                for index, value in enumerate(measure(subject)):
                    if index == len(samples):
                        samples.append({})
                    samples[index].setdefault(subject.name, []).append(value)
        return samples

    def measured(self, subjects: Sequence[Subject]) -> list[Subject]:
        """Return the subjects that this run measures; see `alternate`."""
        return [
            one
            for one in subjects
            if (one.ours or self.peers.rust) and not (self.quick and one.reactor)
        ]

    def reader_speed(self, clients: int, mode: str = "count") -> ReaderSpeed:
        """Measure how many events per second the reader reads from a ready-made stream."""
        events = EVENTS // 4 if self.quick else EVENTS
        speed = self.peers.ready_made(clients, mode, events // clients)
        what = f"reader alone ({mode}), {clients_text(clients)}"
        self.about[what] = f"{speed} events/s"
        print(f"{what}: {self.about[what]}", flush=True)
        return speed


@contextmanager
def left_out(what: str) -> Iterator[None]:
    """Print a message if the measurement of a row raises `NoFigure`, and leave out the row."""
    try:
        yield
    except NoFigure as error:
        print(f"left out: {what}: {error}", flush=True)


def clients_text(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"
