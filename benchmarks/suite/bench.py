"""
What a benchmark is given, and how it measures pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from suite.figures import OURS, REACTOR, REFERENCE
from suite.peers import Peers


@dataclass(frozen=True)
class Subject:
    """
    Who is measured.

    @ivar name: the column.
    @ivar ours: our server, not the reference.
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


@dataclass(frozen=True)
class Bench:
    """
    What a benchmark needs.

    @ivar quick: only show that it works.
    """

    peers: Peers
    quick: bool

    def rounds(self, full: int) -> range:
        """How often each pair is measured."""
        return range(1 if self.quick else full)

    def subjects(self, names: Sequence[str] = (OURS, REFERENCE)) -> Iterator[Subject]:
        """Those of a round, as far as they are there."""
        for subject in SUBJECTS:
            if subject.name in names and (subject.ours or self.peers.rust):
                yield subject

    def alternate(
        self, rounds: int, measure: Callable[[Subject], float], *names: str
    ) -> dict[str, list[float]]:
        """Measure one thing of each, in turns: A B A B."""
        samples: dict[str, list[float]] = {}
        for _ in self.rounds(rounds):
            for subject in self.subjects(names or (OURS, REFERENCE)):
                samples.setdefault(subject.name, []).append(measure(subject))
        return samples


def clients_text(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"
