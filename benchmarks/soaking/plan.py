"""
What a soak decides at random: all of it follows from one seed.

Each actor draws from a source of its own, so the decisions of one do not depend on how fast
another is. What the kernel and the scheduler make of them is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

MANNERS = ("reads", "drips", "stalls", "half-closes")
"""How a client reads: as fast as it can, little by little, not at all for a while, or as fast as
it can after it has ended its sending side."""

DEPARTURES = ("close", "reset", "shutdown")
"""How it leaves."""

RECORDERS = ("a", "b", "c", "d", "reactor")
"""What records: four threads, and the reactor's."""


@dataclass(frozen=True)
class Life:
    """
    What one client does.

    @ivar pause: how long, in seconds, its place is empty before it connects.
    @ivar seconds: how long it stays; None for to the end.
    @ivar receive_buffer: the size of the kernel's buffer on its side; None for the default.
    @ivar read_size: how many bytes it reads at once.
    @ivar rest: how long, in seconds, it rests between reads (one that drips), or does not read
        and then reads (one that stalls).
    """

    pause: float
    seconds: float | None
    departure: str
    manner: str
    receive_buffer: int | None
    read_size: int
    rest: float


@dataclass(frozen=True)
class Phase:
    """
    What a recorder does for some seconds, or until it has recorded so many events.

    @ivar rate: how many events a second; None for as fast as it can.
    @ivar new_series: how many series it begins, which end with it.
    """

    seconds: float
    rate: float | None
    events: int
    new_series: int


def source(seed: int, *names: object) -> Random:
    """Where an actor has its decisions from."""
    return Random("/".join(map(str, (seed, *names))))


def lives(seed: int, *who: object) -> Iterator[Life]:
    """The clients that come and go at one place."""
    random = source(seed, "lives", *who)
    while True:
        manner = random.choices(MANNERS, weights=(4, 2, 2, 1))[0]
        pause, seconds = random.expovariate(2.0), min(random.expovariate(0.5), 20.0)
        yield Life(pause, seconds, random.choice(DEPARTURES), **_reading(random, manner))


def witness(seed: int, manner: str, *who: object) -> Life:
    """A client that is there before anything is recorded, and until the end."""
    return Life(0.0, None, "close", **_reading(source(seed, "witness", manner, *who), manner))


def _reading(random: Random, manner: str) -> dict[str, Any]:
    read_size, rest = 256 * 1024, 0.0
    if manner == "drips":
        read_size, rest = random.randint(1, 8000), random.uniform(0.001, 0.2)
    elif manner == "stalls":
        rest = random.uniform(0.2, 4.0)
    buffer = random.choice((None, 4096, 65_536))
    return {"manner": manner, "receive_buffer": buffer, "read_size": read_size, "rest": rest}


def phases(seed: int, recorder: str) -> Iterator[Phase]:
    """What a recorder does: quiet, slow, medium or fast for a while, or a burst."""
    random = source(seed, "phases", recorder)
    rates = ((0, 0), (20, 200), (200, 1000), (1000, 4000), None)
    while True:
        seconds = random.uniform(0.2, 3.0)
        between = random.choices(rates, (2, 4, 4, 1, 1))[0]
        rate = None if between is None else random.uniform(*between)
        events = random.randint(500, 10_000) if rate is None else 1_000_000
        yield Phase(seconds, rate, events, random.choice((0, 0, 1, 5)))


def strikes(seed: int, kind: str) -> Iterator[tuple[float, float]]:
    """After how many seconds a process is stopped or killed, and for how many it is stopped."""
    random = source(seed, "strikes", kind)
    while True:
        yield random.uniform(1.0, 12.0), random.uniform(0.2, 6.0)


def send_buffers(seed: int) -> Iterator[int | None]:
    """The size of the kernel's buffer on the server's side, for each client."""
    random = source(seed, "send buffers")
    while True:
        yield random.choice((None, 8192, 65_536))
