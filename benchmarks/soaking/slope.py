"""
Whether a noisy figure grows: a line fitted through its samples, and how far it can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 24
"""
Into how many pieces of equal length the samples are put together first. Neighbours among samples
of memory are nearly the same, and to take each for news of its own would make the error too small.
"""

FEWEST = 3
"""The fewest samples that a line can be fitted through, and its error be known."""

CERTAIN = 3.0
"""How many standard errors away is certain."""


@dataclass(frozen=True)
class Slope:
    """
    @ivar rate: the growth per second.
    @ivar error: its standard error.
    @ivar seconds: the time over which it was fitted.
    """

    rate: float
    error: float
    seconds: float

    @property
    def growth(self) -> float:
        """How much it grew over the time."""
        return self.rate * self.seconds

    @property
    def certain_growth(self) -> float:
        """How much it grew at least, if chance did all it could to make it look worse."""
        return (self.rate - CERTAIN * self.error) * self.seconds


def fit(samples: Sequence[tuple[float, float]]) -> Slope:
    """
    Fit a line by least squares.

    @param samples: time in seconds, and value.
    @raise ValueError: there are fewer than `FEWEST`.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"no line can be fitted through {len(samples)} samples")
    count = min(BLOCKS, max(FEWEST, len(samples) // 2))
    blocks = [
        samples[len(samples) * i // count : len(samples) * (i + 1) // count] for i in range(count)
    ]
    xs = [math.fsum(at for at, _ in block) / len(block) for block in blocks]
    ys = [math.fsum(value for _, value in block) / len(block) for block in blocks]
    x_mean, y_mean = math.fsum(xs) / count, math.fsum(ys) / count
    spread = math.fsum((x - x_mean) ** 2 for x in xs)
    rate = math.fsum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    left = math.fsum((y - y_mean - rate * (x - x_mean)) ** 2 for x, y in zip(xs, ys, strict=True))
    return Slope(rate, math.sqrt(left / (count - 2) / spread), samples[-1][0] - samples[0][0])
