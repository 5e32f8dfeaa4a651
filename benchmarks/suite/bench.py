"""
What a benchmark is given, and how it measures pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from suite.figures import OURS, REACTOR, REFERENCE, ReaderSpeed
from suite.peers import NoFigure, Peers

EVENTS = 8_000_000
"""How many events a ready-made stream has, for all clients together."""


ATTEMPTS = 5
"""How often at most something is measured that a pause of the machine may spoil."""


@dataclass(frozen=True)
class Subject:
    """
    What is measured.

    @ivar name: the column.
    @ivar ours: this library, not the reference.
    @ivar reactor: it records on its reactor thread.
    """

    name: str
    ours: bool
    reactor: bool = False


SUBJECTS = (Subject(OURS, True), Subject(REACTOR, True, True), Subject(REFERENCE, False))


@dataclass
class Bench:
    """
    What a benchmark needs.

    @ivar quick: only show that it works.
    @ivar call_ns: what an empty method call costs on this host, in nanoseconds.
    @ivar about: of the host and what takes part, for the head of the page.
    """

    peers: Peers
    quick: bool
    call_ns: float
    about: dict[str, str]

    def rounds(self, full: int) -> range:
        """How often each is measured."""
        return range(1 if self.quick else full)

    def alternate(
        self, rounds: int, measure: Callable[[Subject], tuple[float, ...]], reactor: bool = True
    ) -> list[dict[str, list[float]]]:
        """
        Measure some things of each, in turns (A B A B).

        @param reactor: also of that which records on the reactor thread, unless quick.
        @return: for each thing, its samples by column.
        """
        subjects = [one for one in SUBJECTS if one.ours or self.peers.rust]
        if self.quick or not reactor:
            subjects = [one for one in subjects if not one.reactor]
        samples: list[dict[str, list[float]]] = []
        for _ in self.rounds(rounds):
            for subject in subjects:
                for index, value in enumerate(measure(subject)):
                    if index == len(samples):
                        samples.append({})
                    samples[index].setdefault(subject.name, []).append(value)
        return samples

    def reader_speed(self, clients: int, mode: str = "count") -> ReaderSpeed:
        """What the reader takes of a ready-made stream, in events a second."""
        events = EVENTS // 4 if self.quick else EVENTS
        speed = self.peers.ready_made(clients, mode, events // clients)
        what = f"reader alone ({mode}), {clients_text(clients)}"
        self.about[what] = f"{speed} events/s of a ready-made stream"
        print(f"{what}: {self.about[what]}", flush=True)
        return speed


@contextmanager
def left_out(what: str) -> Iterator[None]:
    """Where a row is measured that may have no figure: then it is left out, and that is printed."""
    try:
        yield
    except NoFigure as error:
        print(f"left out: {what}: {error}", flush=True)


def clients_text(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"
