"""
What a benchmark is given, and how it measures pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from suite.figures import OURS, REACTOR, REFERENCE, number
from suite.peers import Peers

EVENTS = 8_000_000
"""How many events a ready-made stream has, for all clients together."""


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


SUBJECTS = (
    Subject(OURS, True),
    Subject(REACTOR, True, reactor=True),
    Subject(REFERENCE, False),
)


@dataclass
class Bench:
    """
    What a benchmark needs.

    @ivar quick: only show that it works.
    @ivar call_ns: what an empty method call costs on this host, in nanoseconds.
    @ivar speeds: what the reader alone takes, in events a second, by mode and number of clients.
    """

    peers: Peers
    quick: bool
    call_ns: float
    speeds: dict[tuple[str, int], float] = field(default_factory=dict)

    def rounds(self, full: int) -> range:
        """How often each is measured."""
        return range(1 if self.quick else full)

    def alternate(
        self, rounds: int, measure: Callable[[Subject], tuple[float, ...]], *names: str
    ) -> list[dict[str, list[float]]]:
        """
        Measure some things of each, in turns (A B A B); by default of all, when quick not of that
        which records on the reactor thread.

        @return: for each thing, its samples by column.
        """
        if not names:
            names = (OURS, REFERENCE) if self.quick else (OURS, REACTOR, REFERENCE)
        subjects = [one for one in SUBJECTS if one.name in names and (one.ours or self.peers.rust)]
        samples: list[dict[str, list[float]]] = []
        for _ in self.rounds(rounds):
            for subject in subjects:
                for index, value in enumerate(measure(subject)):
                    if index == len(samples):
                        samples.append({})
                    samples[index].setdefault(subject.name, []).append(value)
        return samples

    def reader_speed(self, clients: int, mode: str = "count") -> float:
        """What the reader takes of a ready-made stream, in events a second."""
        if (mode, clients) not in self.speeds:
            events = EVENTS // 4 if self.quick else EVENTS
            speed = self.peers.ready_made(clients, mode, events // clients)
            self.speeds[mode, clients] = speed
            print(
                f"reader ({mode}) takes {number(speed)} events/s of a ready-made stream,"
                f" {clients_text(clients)}",
                flush=True,
            )
        return self.speeds[mode, clients]


def clients_text(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"
