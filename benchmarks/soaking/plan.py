"""
The random decisions of a soak, all derived from one seed.

Each actor has its own random source, so its decisions do not depend on the speed of other actors.
The behaviour of the kernel and the scheduler is not repeatable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

MANNERS = ("reads", "drips", "stalls", "half-closes")
"""The manners of reading: at full speed, in small pieces, with long pauses, or at full speed after
half-closing the connection."""

DEPARTURES = ("close", "reset", "shutdown")
"""The ways of leaving."""

RECORDERS = ("a", "b", "c", "d", "reactor")
"""The recorders: four threads, and the reactor thread."""


@dataclass(frozen=True)
class Life:
    """
    The behaviour of one client.

    @ivar pause: the number of seconds before it connects, in which its place is empty.
    @ivar seconds: the number of seconds for which it stays; None to stay until the end.
    @ivar receive_buffer: the size of its kernel receive buffer; None for the default.
    @ivar read_size: the maximum number of bytes of one read.
    @ivar rest: the pause between reads (a client that drips), or the length of each stall and of
        the reading between stalls (a client that stalls), in seconds.
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
    A phase of a recorder, which ends after C{seconds} or after C{events} events.

    @ivar rate: events per second; None for full speed.
    @ivar new_series: the number of series that exist only in this phase.
    """

    seconds: float
    rate: float | None
    events: int
    new_series: int


def source(seed: int, *names: object) -> Random:
    """Return the random source of an actor."""
    return Random("/".join(map(str, (seed, *names))))


def lives(seed: int, *who: object) -> Iterator[Life]:
    """Yield the clients of one place."""
    random = source(seed, "lives", *who)
    while True:
        manner = random.choices(MANNERS, weights=(4, 2, 2, 1))[0]
        pause, seconds = random.expovariate(2.0), min(random.expovariate(0.5), 20.0)
        yield Life(pause, seconds, random.choice(DEPARTURES), **_reading(random, manner))


def witness(seed: int, manner: str, *who: object) -> Life:
    """Return a client that connects before recording begins and stays to the end."""
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
    """Yield the phases of a recorder: idle, slow, medium, fast, or a burst."""
    random = source(seed, "phases", recorder)
    rates = ((0, 0), (20, 200), (200, 1000), (1000, 4000), None)
    while True:
        seconds = random.uniform(0.2, 3.0)
        between = random.choices(rates, (2, 4, 4, 1, 1))[0]
        rate = None if between is None else random.uniform(*between)
        events = random.randint(500, 10_000) if rate is None else 1_000_000
        yield Phase(seconds, rate, events, random.choice((0, 0, 1, 5)))


def strikes(seed: int, kind: str) -> Iterator[tuple[float, float]]:
    """Yield pairs of seconds: until a process is stopped or killed, and for which it is stopped."""
    random = source(seed, "strikes", kind)
    while True:
        yield random.uniform(1.0, 12.0), random.uniform(0.2, 6.0)


def send_buffers(seed: int) -> Iterator[int | None]:
    """Yield the size of the server's kernel send buffer for each client."""
    random = source(seed, "send buffers")
    while True:
        yield random.choice((None, 8192, 65_536))
