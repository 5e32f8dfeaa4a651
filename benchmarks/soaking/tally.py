"""
What one client makes of its stream: the tests' reader, and a count of what is missing.

Every event of a soak carries its number as its value, counted by its recorder from 0. Totals
carry none. Which one a `set` is, an event or a total, the lowest bit of its timestamp says: it is
1 for what the reactor's thread stamps, and totals are stamped there. (The reactor's thread records
too, but no `set`.) A sample that is recorded many times counts as so many numbers, and each
of them carries the first.
"""

from __future__ import annotations

from typing import Any

from tests.reader import Bits, Reader
from txmetrics_tcp import Metadata, Metric, Operation

BY = "by"
"""The label that names the recorder of an event."""

MANY = "soak_many"
"""The histogram whose samples are recorded many at once."""

_SET = (Operation.SET_COUNTER, Operation.SET_GAUGE)


def stamp(nanoseconds: int, *, reactor: bool) -> int:
    """A timestamp that says whether it is from the reactor's thread."""
    return nanoseconds & ~1 | reactor


class Numbers:
    """
    The numbers of one recorder, as they are received.

    @ivar first: the first that was received.
    @ivar next: the one that should be next.
    @ivar missing: how many were not received between the first and the next.
    @ivar disorder: how many were received after a higher one.
    """

    def __init__(self, first: int) -> None:
        self.first = self.next = first
        self.missing = 0
        self.disorder = 0
        self._many: int | None = None

    def add(self, number: int, many: bool) -> None:
        if many and number == self._many:
            self.next += 1
            return
        self._many = number if many else None
        if number < self.next:
            self.disorder += 1
        self.missing += max(0, number - self.next)
        self.next = number + 1


class Tally:
    """
    One client's account of its stream, of whatever length: it keeps no events.

    @ivar received: how many bytes it has received.
    @ivar events: how many events it has received, without totals.
    @ivar fewer: how often a `Status` had fewer losses than the one before.
    """

    def __init__(self) -> None:
        self.reader = Reader()
        self.received = 0
        self.events = 0
        self.fewer = 0
        self.numbers: dict[str, Numbers] = {}
        self.descriptions: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        self.received += len(data)
        reader = self.reader
        reader.feed(data)
        for event in reader.events:
            if isinstance(event, Metric):
                if event.operation not in _SET or not event.timestamp_ns & 1:
                    self._add(event)
            elif isinstance(event, Metadata):
                self.descriptions[event.name] = event.description
        reader.events.clear()
        for before, after in zip(reader.statuses, reader.statuses[1:], strict=False):
            self.fewer += (
                after.dropped_incoming < before.dropped_incoming
                or after.dropped_client < before.dropped_client
            )
        del reader.statuses[:-1]

    def totals(self) -> dict[str, int | str]:
        return {str(key): show(value) for key, value in self.reader.bits().items()}

    def report(self) -> dict[str, Any]:
        """All but the totals."""
        last = self.reader.statuses[-1:]
        return {
            "received": self.received,
            "events": self.events,
            "unfinished": self.reader.unfinished,
            "reported": [(one.dropped_incoming, one.dropped_client) for one in last],
            "fewer": self.fewer,
            "numbers": {
                by: (one.first, one.next, one.missing, one.disorder)
                for by, one in self.numbers.items()
            },
            "descriptions": self.descriptions,
        }

    def _add(self, event: Metric) -> None:
        self.events += 1
        by = dict(event.key.labels)[BY]
        number = int(event.value)
        numbers = self.numbers.get(by)
        if numbers is None:
            numbers = self.numbers[by] = Numbers(number)
        numbers.add(number, event.key.name == MANY)


def show(value: Bits) -> int | str:
    """A total as JSON has it, to the last bit."""
    return value.hex() if isinstance(value, bytes) else value
