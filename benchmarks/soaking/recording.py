"""
Who records in a soak: at changing rates, on series that stay and on such as come and go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from soaking import plan
from soaking.tally import BY, MANY
from txmetrics_tcp import Key, MetricKind, TcpRecorder

TICK = 0.005
"""How long, in seconds, a recorder rests between two looks at what is due."""

SLICE = 500
"""The most events that it records in one go."""

BATCH = 7
"""Every how many events it records a sample many times, and how often."""


class Recording:
    """
    One recorder.

    @ivar by: its name.
    @ivar number: how many events it has recorded, which is the number of the next.
    @ivar described: the description that it gave last, by the name that it is for.
    """

    def __init__(self, recorder: TcpRecorder, seed: int, by: str) -> None:
        self._recorder = recorder
        self._seed = seed
        self.by = by
        self.number = 0
        self.described: dict[str, str] = {}
        self._random = plan.source(seed, "series", by)
        names = {BY: by}
        counter, gauge = (
            recorder.counter("soak_counter", names),
            recorder.gauge("soak_gauge", names),
        )
        # A `set` on the reactor's thread could not be told from a total.
        may_set = by != "reactor"
        self._stays: list[Callable[[int], object]] = [
            counter.increment,
            gauge.increment,
            gauge.decrement,
            recorder.histogram("soak_histogram", names).record,
            *(recorder.counter("soak_route", names, route=route).increment for route in range(20)),
        ]
        if may_set:
            level = recorder.gauge("soak_level", names)
            self._stays += [
                recorder.counter("soak_absolute", names).absolute,
                level.set,
                level.set,
            ]
        self._many = recorder.histogram(MANY, names)

    def steps(self) -> Iterator[float]:
        """Records; gives how long, in seconds, to wait before the next step.  Never ends."""
        for number, phase in enumerate(plan.phases(self._seed, self.by)):
            name = f"soak_phase_{self.by}"
            self.described[name] = f"phase {number}"
            self._recorder.describe_gauge(name, "count", self.described[name])
            # All that stay are used in each phase: so none is idle for so long that it is left out
            # of what new clients receive, and comes again with an event that is not recorded.
            for record in self._stays:
                self._one(record)
            yield from self._phase(phase, self._begin_series(number, phase.new_series))

    def _phase(
        self, phase: plan.Phase, newcomers: list[Callable[[int], object]]
    ) -> Iterator[float]:
        records = self._stays + newcomers
        start = last = time.monotonic()
        left, due = phase.events, 0.0
        while left > 0 and last - start < phase.seconds:
            now = time.monotonic()
            due = SLICE if phase.rate is None else due + phase.rate * (now - last)
            last = now
            size = min(int(due), SLICE, left)
            due -= size
            left -= size
            for record in self._random.choices(records, k=size):
                self._one(record)
            if phase.rate is not None:
                yield TICK
            elif self.by == "reactor":
                yield 0.0

    def _one(self, record: Callable[[int], object]) -> None:
        number = self.number
        record(number)
        self.number = number + 1
        if number % 100 == 0:
            self._many.record_many(self.number, BATCH)
            self.number += BATCH

    def _begin_series(self, phase: int, count: int) -> list[Callable[[int], object]]:
        begun: list[Callable[[int], object]] = []
        for number in range(count):
            kind = self._random.choice(list(MetricKind))
            labels = {BY: self.by, "phase": str(phase), "number": str(number)}
            key = Key.of(kind, f"soak_passing_{kind.value}", labels)
            # Not by name, which would keep the last few thousand.
            recorder: Any = self._recorder
            handle = getattr(recorder, f"register_{kind.value}")(key)
            record = handle.record if kind is MetricKind.HISTOGRAM else handle.increment
            begun.append(record)
            self._one(record)
        return begun
