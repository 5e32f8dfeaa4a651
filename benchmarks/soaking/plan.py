"""
What a soak decides at random: all of it follows from one seed.

Each actor draws from a source of its own, so the decisions of one do not depend on how fast
another is: with the same seed, every client lives the same lives in the same order, every
recorder has the same phases, and the same processes are stopped and killed for as long. What the
kernel and the scheduler make of that is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

MANNERS = ("reads", "drips", "stalls", "half-closes")
"""How a client reads: as fast as it can, little by little, not at all for a while, or as fast as
it can after it has ended its sending side."""

DEPARTURES = ("close", "reset", "shutdown")
"""How it leaves, if it is not killed before."""

RECORDERS = ("a", "b", "c", "d", "reactor")
"""Who records: four threads, and the reactor's."""


@dataclass(frozen=True)
class Life:
    """
    What one client does.

    @ivar pause: how long, in seconds, nobody is there before it comes.
    @ivar seconds: how long it stays; None for to the end.
    @ivar manner: one of `MANNERS`.
    @ivar departure: one of `DEPARTURES`.
    @ivar receive_buffer: the size of the kernel's buffer on its side; None for the kernel's own.
    @ivar bite: how many bytes it reads at once.
    @ivar rest: how long, in seconds, it rests between bites (one that drips), or does not read
        and then reads (one that stalls).
    """

    pause: float
    seconds: float | None
    manner: str
    departure: str
    receive_buffer: int | None
    bite: int
    rest: float


@dataclass(frozen=True)
class Phase:
    """
    What a recorder does for a while.

    @ivar seconds: for how long.
    @ivar rate: how many events a second; None for as fast as it can.
    @ivar events: after how many it ends in any case.
    @ivar new_series: how many series it begins, which end with it.
    """

    seconds: float
    rate: float | None
    events: int
    new_series: int


@dataclass(frozen=True)
class Strike:
    """
    What happens to a process of clients.

    @ivar after: how long, in seconds, it is left alone before.
    @ivar seconds: for how long it is stopped.
    """

    after: float
    seconds: float


def source(seed: int, *names: object) -> Random:
    """Where an actor has its decisions from."""
    return Random("/".join(map(str, (seed, *names))))


def lives(seed: int, *who: object) -> Iterator[Life]:
    """The lives of those that come and go at one place."""
    random = source(seed, "lives", *who)
    while True:
        manner = random.choices(MANNERS, weights=(4, 2, 2, 1))[0]
        yield Life(
            pause=random.expovariate(2.0),
            seconds=min(random.expovariate(0.5), 20.0),
            departure=random.choice(DEPARTURES),
            **_reading(random, manner),
        )


def witness(seed: int, manner: str, *who: object) -> Life:
    """One that is there before anything is recorded, and until the end."""
    random = source(seed, "witness", manner, *who)
    return Life(pause=0.0, seconds=None, departure="close", **_reading(random, manner))


def _reading(random: Random, manner: str) -> dict[str, object]:
    bite, rest = 256 * 1024, 0.0
    if manner == "drips":
        bite, rest = random.randint(1, 8000), random.uniform(0.001, 0.2)
    elif manner == "stalls":
        rest = random.uniform(0.2, 4.0)
    return {
        "manner": manner,
        "receive_buffer": random.choice((None, 4096, 65_536)),
        "bite": bite,
        "rest": rest,
    }


def phases(seed: int, recorder: str) -> Iterator[Phase]:
    """What a recorder does, one after the other."""
    random = source(seed, "phases", recorder)
    while True:
        seconds = random.uniform(0.2, 3.0)
        rate: float | None
        rate, events = 0.0, 1_000_000
        match random.choices(("quiet", "slow", "medium", "fast", "burst"), (2, 4, 4, 1, 1))[0]:
            case "slow":
                rate = random.uniform(20, 200)
            case "medium":
                rate = random.uniform(200, 1000)
            case "fast":
                rate = random.uniform(1000, 4000)
            case "burst":
                rate, events = None, random.randint(500, 10_000)
        yield Phase(seconds, rate, events, random.choice((0, 0, 1, 5)))


def strikes(seed: int, kind: str) -> Iterator[Strike]:
    """When a process is stopped for a while, or killed."""
    random = source(seed, "strikes", kind)
    while True:
        yield Strike(random.uniform(1.0, 12.0), random.uniform(0.2, 6.0))


def send_buffers(seed: int) -> Iterator[int | None]:
    """The size of the kernel's buffer on the server's side, for each client that comes."""
    random = source(seed, "send buffers")
    while True:
        yield random.choice((None, 8192, 65_536))
