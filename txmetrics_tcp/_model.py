"""
The values that flow through the package: what a metric is called, what happened to it, and what an
operation does to a total.

Everything here is immutable and safe to share between threads.  Names, labels and
descriptions are checked where they enter, so that whatever exists can be put on the wire.
"""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, SupportsFloat, SupportsIndex

U64_MAX = 2**64 - 1
"""The largest value of a counter; the wire carries counters as ``uint64``."""

MAX_TEXT = 64 * 1024
"""
The most bytes of UTF-8 that a name with its labels, or a description, may have.

A generous bound with a purpose: no frame that we send may exceed the size at which a
receiver gives a stream up (see `txmetrics_tcp.MAX_FRAME`).
"""


class MetricKind(Enum):
    """What a metric is.  The values are the words used in text and JSON."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"

    # Enum's own is a function in Python, which costs more than all else of a look-up.
    __hash__ = object.__hash__


class Operation(IntEnum):
    """What happened to a metric.  The values are the field numbers in ``proto/event.proto``."""

    INCREMENT_COUNTER = 4
    SET_COUNTER = 5
    INCREMENT_GAUGE = 6
    DECREMENT_GAUGE = 7
    SET_GAUGE = 8
    RECORD_HISTOGRAM = 9

    # See `MetricKind`.
    __hash__ = int.__hash__

    @property
    def kind(self) -> MetricKind:
        """The only kind of metric that this operation is for."""
        return _KIND_OF[self]


_KIND_OF = {
    Operation.INCREMENT_COUNTER: MetricKind.COUNTER,
    Operation.SET_COUNTER: MetricKind.COUNTER,
    Operation.INCREMENT_GAUGE: MetricKind.GAUGE,
    Operation.DECREMENT_GAUGE: MetricKind.GAUGE,
    Operation.SET_GAUGE: MetricKind.GAUGE,
    Operation.RECORD_HISTOGRAM: MetricKind.HISTOGRAM,
}

Number = int | float


def _set(total: Number, value: Number) -> Number:
    return value


def _wrap(total: int, value: int) -> int:
    # As a view does that adds in 64 bits.
    return (total + value) & U64_MAX


APPLY: dict[Operation, Callable[..., Number]] = {
    Operation.INCREMENT_COUNTER: _wrap,
    Operation.SET_COUNTER: _set,
    Operation.INCREMENT_GAUGE: operator.add,
    Operation.DECREMENT_GAUGE: operator.sub,
    Operation.SET_GAUGE: _set,
}
"""
What each operation does to a total.  Floats are added one by one, in the order of the log: a view
that saw every event has the same value to the last bit.
"""

INITIAL_TOTAL: dict[MetricKind, Number] = {
    MetricKind.COUNTER: 0,
    MetricKind.GAUGE: 0.0,
    MetricKind.HISTOGRAM: 0,
}
"""
What a total is before the first event, by kind.  That of a histogram is the number of its samples
where a view counts them; no operation of `APPLY` changes it.
"""

SET_OPERATION = {
    MetricKind.COUNTER: Operation.SET_COUNTER,
    MetricKind.GAUGE: Operation.SET_GAUGE,
}
"""The operation that sets a total, by kind.  Histograms have no total."""


class Unit(str, Enum):
    """
    The unit of a metric's values.  The strings are those on the wire, and of the ``metrics``
    crate's ``Unit::as_str``.
    """

    COUNT = "count"
    PERCENT = "percent"
    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    MICROSECONDS = "microseconds"
    NANOSECONDS = "nanoseconds"
    TEBIBYTES = "tebibytes"
    GIBIBYTES = "gibibytes"
    MEBIBYTES = "mebibytes"
    KIBIBYTES = "kibibytes"
    BYTES = "bytes"
    TERABITS_PER_SECOND = "terabits_per_second"
    GIGABITS_PER_SECOND = "gigabits_per_second"
    MEGABITS_PER_SECOND = "megabits_per_second"
    KILOBITS_PER_SECOND = "kilobits_per_second"
    BITS_PER_SECOND = "bits_per_second"
    COUNT_PER_SECOND = "count_per_second"

    @property
    def label(self) -> str:
        """What a viewer shows behind a number, as the ``metrics`` crate's
        ``Unit::as_canonical_label``."""
        return _UNIT_LABEL[self]

    def __str__(self) -> str:
        return str(self.value)


_UNIT_LABEL = {
    Unit.COUNT: "",
    Unit.PERCENT: "%",
    Unit.SECONDS: "s",
    Unit.MILLISECONDS: "ms",
    Unit.MICROSECONDS: "μs",
    Unit.NANOSECONDS: "ns",
    Unit.TEBIBYTES: "TiB",
    Unit.GIBIBYTES: "GiB",
    Unit.MEBIBYTES: "MiB",
    Unit.KIBIBYTES: "KiB",
    Unit.BYTES: "B",
    Unit.TERABITS_PER_SECOND: "Tbps",
    Unit.GIGABITS_PER_SECOND: "Gbps",
    Unit.MEGABITS_PER_SECOND: "Mbps",
    Unit.KILOBITS_PER_SECOND: "kbps",
    Unit.BITS_PER_SECOND: "bps",
    Unit.COUNT_PER_SECOND: "/s",
}

Labels = tuple[tuple[str, str], ...]
"""The labels of a series: pairs of name and value, sorted by name, no name twice."""


@dataclass(frozen=True, slots=True)
class Key:
    """
    What identifies a series: its kind, its name and its labels.

    Use `Key.of` to make one from anything that a user wrote; the constructor itself takes
    what is known to be right.
    """

    kind: MetricKind
    name: str
    labels: Labels = ()

    @classmethod
    def of(cls, kind: MetricKind, name: str, labels: Mapping[str, object] | None = None) -> Key:
        """
        Check a name and labels, and make the key of their series.

        @param labels: any mapping; values that are not text are converted by `str`.
        @raise TypeError: the name, or the name of a label, is not a `str`.
        @raise ValueError: one of them is empty, cannot be encoded as UTF-8, or all are too
            long together (see `MAX_TEXT`).
        """
        checked_name = _text(f"{kind.value} {name!r}: the name", name)
        size = len(checked_name.encode())
        pairs = []
        for label, value in (labels or {}).items():
            label = _text(f"{kind.value} {name!r}: the label name {label!r}", label)
            value = value if type(value) is str else str(value)
            value = _text(f"{kind.value} {name!r}: the value of label {label!r}", value, empty=True)
            size += len(label.encode()) + len(value.encode())
            pairs.append((label, value))
        if size > MAX_TEXT:
            raise ValueError(
                f"{kind.value} {checked_name[:40]!r}…: name and labels take {size} bytes,"
                f" and must not exceed {MAX_TEXT}"
            )
        return cls(kind, checked_name, tuple(sorted(pairs)))

    def __str__(self) -> str:
        """``requests [method = GET, route = /]``, as viewers of the Rust family write it."""
        if not self.labels:
            return self.name
        return f"{self.name} [{', '.join(f'{label} = {value}' for label, value in self.labels)}]"


@dataclass(frozen=True, slots=True)
class Metadata:
    """
    What is said about all series of one kind and name.

    @ivar unit: one of `Unit`; text when a peer sent a unit that we do not know.
    @ivar description: free text, for people.
    """

    kind: MetricKind
    name: str
    unit: str | None = None
    description: str = ""

    @classmethod
    def of(
        cls, kind: MetricKind, name: str, unit: Unit | str | None = None, description: str = ""
    ) -> Metadata:
        """
        Check what a user says about a metric.

        @raise TypeError: name or description is not a `str`.
        @raise ValueError: the name is empty, the unit is not one of `Unit`, or a text is too
            long or cannot be encoded as UTF-8.
        """
        checked_name = _text(f"{kind.value} {name!r}: the name", name)
        if unit is not None:
            try:
                unit = Unit(unit)
            except ValueError:
                known = ", ".join(known.value for known in Unit)
                raise ValueError(
                    f"{kind.value} {name!r}: unknown unit {unit!r}; the units are {known}"
                ) from None
        description = _text(f"{kind.value} {name!r}: the description", description, empty=True)
        for what, text in (("name", checked_name), ("description", description)):
            if len(text.encode()) > MAX_TEXT:
                raise ValueError(
                    f"{kind.value} {checked_name[:40]!r}: the {what} must not exceed"
                    f" {MAX_TEXT} bytes"
                )
        return cls(kind, checked_name, unit, description)


class Metric(NamedTuple):
    """
    One event of one series: at a moment, something happened to it.

    A tuple, unlike the other values, because that is made in a quarter of the time, and who
    watches a busy program makes a million of them in a second or two.

    @ivar value: an `int` for counters, a `float` for the rest.
    @ivar timestamp_ns: when it was recorded, in nanoseconds since the epoch.
    """

    key: Key
    operation: Operation
    value: int | float
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class Status:
    """
    How the stream itself fares, for one client.

    It comes first of all, and again when events have been missed; servers of the Rust family do not
    send it.

    @ivar source: what the server calls itself.
    @ivar started_ns: when the server began, in nanoseconds since the epoch.  Another time than
        before means that it is not the same server any more.
    @ivar dropped_incoming: how many events this client has missed since it connected because
        they were recorded faster than the server could handle.
    @ivar dropped_client: how many it has missed because it was too slow itself.
    """

    source: str
    started_ns: int
    dropped_incoming: int = 0
    dropped_client: int = 0


Event = Metadata | Metric | Status
"""What a stream is made of."""


def whole_number(key: Key, act: str, value: SupportsIndex) -> int:
    """
    The value of a counter, as an exact `int` from 0 to `U64_MAX`.

    @param act: what was being done with the value, for the error.
    @raise TypeError: it is a bool, or nothing that `operator.index` takes.
    @raise ValueError: it is out of range.
    """
    rule = f"{key.kind.value} {key.name!r}: {act} {value!r}: must be a whole number"
    if isinstance(value, bool):
        raise TypeError(f"{rule}, not a bool")
    try:
        # int.__index__ turns an instance of a subclass of int, whose methods are not ours,
        # into a plain int: nothing foreign may run where events are folded.
        number = int.__index__(operator.index(value))
    except TypeError:
        raise TypeError(f"{rule}, not {type(value).__name__}") from None
    if not 0 <= number <= U64_MAX:
        raise ValueError(f"{rule} from 0 to {U64_MAX}")
    return number


def real_number(key: Key, act: str, value: SupportsFloat | datetime.timedelta) -> float:
    """
    The value of a gauge or histogram, as an exact `float`; a timedelta counts in seconds.

    @raise TypeError: it is nothing that `float` takes, or it is text.
    @raise ValueError: it is an integer beyond what a float can hold.
    """
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    rule = f"{key.kind.value} {key.name!r}: {act} {value!r}: must be a number"
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{rule}, not {type(value).__name__}")
    try:
        return float(value)
    except TypeError:
        raise TypeError(f"{rule}, not {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"{rule} that a float can hold") from None


def checked_source(name: str) -> str:
    """
    What a server calls itself, as it can be sent.

    @raise TypeError: it is not a `str`.
    @raise ValueError: it is empty, too long (see `MAX_TEXT`), or cannot be encoded as UTF-8.
    """
    name = _text("the source", name)
    if len(name.encode()) > MAX_TEXT:
        raise ValueError(f"the source must not exceed {MAX_TEXT} bytes")
    return name


def _text(what: str, text: object, empty: bool = False) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    if not text and not empty:
        raise ValueError(f"{what} must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} cannot be encoded as UTF-8: {error.reason}") from None
    return text if type(text) is str else str.__str__(text)
