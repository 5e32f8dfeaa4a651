"""
One client's account of its stream: the reader of the tests, extended by counts of missing events.

The value of every event in a soak is its number, counted by its recorder from 0; the values of
totals are not numbers. The lowest bit of the timestamp distinguishes a `set` event from a total: it
is 1 on the reactor thread, which stamps totals and records no `set` events. The samples of one
C{record_many} call count as consecutive numbers, but all have the first number as their value.
"""

from __future__ import annotations

from typing import Any

from tests.reader import Bits, Reader
from txmetrics_tcp import Metadata, Metric, Operation

BY = "by"
"""The label with the name of the event's recorder."""

MANY = "soak_many"
"""The histogram that is recorded with C{record_many}."""

_SET = (Operation.SET_COUNTER, Operation.SET_GAUGE)


def stamp(nanoseconds: int, *, reactor: bool) -> int:
    """Return the timestamp with its lowest bit set to C{reactor}."""
    return nanoseconds & ~1 | reactor


class Numbers:
    """
    The received event numbers of one recorder.

    @ivar first: the first number received.
    @ivar next: the next number expected.
    @ivar missing: the number of event numbers between C{first} and C{next} not received.
    @ivar disorder: the number of event numbers received after a higher one, or twice.
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
    One client's account of its stream. It keeps no events, so its memory is bounded.

    @ivar received: the number of bytes received.
    @ivar events: the number of events received, without totals.
    @ivar gone: how many of them were `Gone`, which no recorder counts.
    @ivar fewer: the number of times that a `Status` reported fewer losses than the previous one.
    """

    def __init__(self) -> None:
        self.reader = Reader()
        self.received = 0
        self.events = 0
        self.gone = 0
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
        self.gone += len(reader.gone)
        self.events += len(reader.gone)
        for kept in (reader.all, reader.events, reader.gone, reader.snapshots):
            kept.clear()
        for before, after in zip(reader.statuses, reader.statuses[1:], strict=False):
            self.fewer += (
                after.dropped_incoming < before.dropped_incoming
                or after.dropped_client < before.dropped_client
            )
        del reader.statuses[:-1]

    def totals(self) -> dict[str, int | str]:
        return {str(key): show(value) for key, value in self.reader.bits().items()}

    def report(self) -> dict[str, Any]:
        """Return everything except the totals."""
        last = self.reader.statuses[-1:]
        return {
            "received": self.received,
            "events": self.events,
            "gone": self.gone,
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
    """Return a total for JSON, exact to the last bit."""
    if isinstance(value, tuple):
        # The samples are whole numbers, so their sum does not depend on their order.
        *buckets, total = value
        return f"{buckets} {total.sum}"
    return value.hex() if isinstance(value, bytes) else value
