"""
The values that flow through the package: series keys, descriptions, events and units.

All values are immutable and can be shared between threads.  The `of` constructors validate names,
labels and descriptions, so that every validated value can be encoded.
"""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, NamedTuple, SupportsFloat, SupportsIndex

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._distribution import Distribution

U64_MAX = 2**64 - 1
"""The largest counter value.  On the wire, a counter is a ``uint64``."""

PROTOCOL_VERSION = 3
"""
The version of the protocol, in each `Status`.  ``event.proto`` lists what each version has added.
"""

HISTOGRAM_TOTALS = 3
"""The first version of the protocol with totals of histograms."""

MAX_TEXT = 64 * 1024
"""
The maximum size, in bytes of UTF-8, of a name together with its labels, of a description, and of a
source.

The limit keeps every frame below `txmetrics_tcp.MAX_FRAME`, beyond which receivers reject a stream.
"""


class MetricKind(Enum):
    """The kind of a metric.  The values are the names used in text and JSON."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"

    # Enum.__hash__ is implemented in Python, and would take most of the time of a dictionary
    # look-up.
    __hash__: ClassVar[Callable[[object], int]] = object.__hash__


class Operation(IntEnum):
    """How an event changes a metric.  The values are the field numbers in ``event.proto``."""

    INCREMENT_COUNTER = 4
    SET_COUNTER = 5
    INCREMENT_GAUGE = 6
    DECREMENT_GAUGE = 7
    SET_GAUGE = 8
    RECORD_HISTOGRAM = 9

    # See `MetricKind`.
    __hash__: ClassVar[Callable[[int], int]] = int.__hash__

    @property
    def kind(self) -> MetricKind:
        """The kind of metric that this operation applies to."""
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

Total = int | float | Distribution
"""The total of a counter, a gauge or a histogram."""


def _set(total: Number, value: Number) -> Number:
    return value


def _wrap(total: int, value: int) -> int:
    # Counters wrap at 2**64, as in clients that use 64-bit integers.
    return (total + value) & U64_MAX


APPLY: dict[Operation, Callable[..., Number]] = {
    Operation.INCREMENT_COUNTER: _wrap,
    Operation.SET_COUNTER: _set,
    Operation.INCREMENT_GAUGE: operator.add,
    Operation.DECREMENT_GAUGE: operator.sub,
    Operation.SET_GAUGE: _set,
}
"""
The function that applies each operation to a total.

Floats are added one at a time, in the order of the events.  Therefore a client that receives every
event computes the same value, to the last bit.
"""

INITIAL_TOTAL: dict[MetricKind, Number] = {
    MetricKind.COUNTER: 0,
    MetricKind.GAUGE: 0.0,
    MetricKind.HISTOGRAM: 0,
}
"""
The total before the first event, by kind.

Histograms have no operation in `APPLY`: their total is a `Distribution`.  Their entry is the
initial number of samples, which views count.
"""

SET_OPERATION = {
    MetricKind.COUNTER: Operation.SET_COUNTER,
    MetricKind.GAUGE: Operation.SET_GAUGE,
}
"""The operation that sets a total, by kind.  Histograms have none; see `HistogramTotal`."""


class Unit(str, Enum):
    """
    The unit of a metric's values.

    Each member is also a `str`: the name of the unit on the wire, which is the result of
    ``Unit::as_str`` in the Rust crate ``metrics``.

        >>> str(Unit.MILLISECONDS), Unit.MILLISECONDS.label
        ('milliseconds', 'ms')
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
        """The symbol that viewers show after a number, such as ``ms``; empty for `COUNT`."""
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

_UNITS = [str(unit) for unit in Unit]

Labels = tuple[tuple[str, str], ...]
"""The labels of a series: pairs of name and value, sorted by name, with unique names."""


@dataclass(frozen=True, slots=True)
class Key:
    """
    The identity of a series: kind, name and labels.

    The constructor does not validate its arguments, unlike `Key.of`.

        >>> key = Key.of(MetricKind.COUNTER, "requests_total", {"route": "/", "method": "GET"})
        >>> key.labels
        (('method', 'GET'), ('route', '/'))
        >>> print(key)
        requests_total [method = GET, route = /]

    @ivar labels: pairs of label name and value, sorted by name.
    """

    kind: MetricKind
    name: str
    labels: Labels = ()

    @classmethod
    def of(cls, kind: MetricKind, name: str, labels: Mapping[str, object] | None = None) -> Key:
        """
        Validate a name and labels, and return their key.

        @param labels: a mapping from label names to values.  See `checked_labels`.
        @raise TypeError: C{kind} is not a `MetricKind`; the name, or a label name, is not a `str`;
            or C{labels} is not a mapping.
        @raise ValueError: the name or a label name is empty; a value cannot be converted to text; a
            string cannot be encoded as UTF-8; or name and labels together exceed 64 KiB of UTF-8.
        """
        metric = _named(kind, name)
        checked_name = _text("the name", name, metric)
        texts = checked_labels(merge_labels(labels, {}, metric), metric)
        check_size("name and labels", (checked_name, *texts, *texts.values()), metric)
        return cls(kind, checked_name, tuple(sorted(texts.items())))

    def __str__(self) -> str:
        """``requests [method = GET, route = /]``: the format of the Rust viewer."""
        if not self.labels:
            return self.name
        return f"{self.name} [{', '.join(f'{label} = {value}' for label, value in self.labels)}]"


@dataclass(frozen=True, slots=True)
class Metadata:
    """
    The description of a metric, which applies to all series of one kind and name.  The constructor
    does not validate its arguments, unlike `Metadata.of`.

    @ivar unit: a `Unit`, or None.  In decoded events, the string that the peer sent.
    @ivar description: human-readable text, possibly empty.
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
        Validate a description, and return it.

        @param unit: a `Unit` or its string.
        @raise TypeError: C{kind} is not a `MetricKind`, or name or description is not a `str`.
        @raise ValueError: the name is empty; the unit is neither a `Unit` nor the string of one; or
            a string exceeds 64 KiB of UTF-8 or cannot be encoded as UTF-8.
        """
        metric = _named(kind, name)
        checked_name = checked_text("the name", name, metric)
        checked_unit = None
        if unit is not None:
            if not isinstance(unit, str) or unit not in _UNITS:
                raise ValueError(
                    f"{_prefix(metric)}unknown unit {short_repr(unit)};"
                    f" the units are {', '.join(_UNITS)}"
                )
            checked_unit = Unit(unit)
        checked_description = checked_text("the description", description, metric, empty=True)
        return cls(kind, checked_name, checked_unit, checked_description)


class Metric(NamedTuple):
    """
    One event of one series.

    @ivar key: the series.
    @ivar operation: how the event changes the series.
    @ivar value: the operand: an `int` for counters, a `float` for gauges and histograms.
    @ivar timestamp_ns: when the event was recorded, in nanoseconds since the epoch; None if the
        peer sent no time.
    """

    # A client of a busy program creates about a million instances per second.  A tuple is created
    # four times as fast as a dataclass.

    key: Key
    operation: Operation
    value: int | float
    timestamp_ns: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """
    The stream status of one client: the source, and the number of dropped events.

    A server sends it as the first event, and again when it resyncs the client after drops, before
    the totals.  Rust servers do not send it.

    @ivar source: the name that the server gives itself.
    @ivar started_ns: when the server started, in nanoseconds since the epoch; None if not sent.  A
        change after a reconnection shows that the server was restarted.
    @ivar dropped_incoming: events dropped since this client connected, because events were
        recorded faster than the server could process them.
    @ivar dropped_client: events dropped since this client connected, because the client did not
        read fast enough.
    @ivar protocol_version: the version of the protocol that the server speaks; see
        `PROTOCOL_VERSION`.  0 if not sent.
    """

    source: str
    started_ns: int | None
    dropped_incoming: int = 0
    dropped_client: int = 0
    protocol_version: int = PROTOCOL_VERSION


class Snapshot(Enum):
    """
    The beginning or the end of a snapshot: the exact totals that a server sends to a client when it
    connects, and when it resyncs the client after drops.

    Between `BEGIN` or `BEGIN_COMPLETE` and `END`, every metric event sets a total.  A complete
    snapshot has all retained series: at its end, series that it has not set are `Gone`; histograms
    only if the server's `Status.protocol_version` is 3 or more.  Rust servers send no snapshots.
    """

    BEGIN = "begin"
    BEGIN_COMPLETE = "begin complete"
    END = "end"


@dataclass(frozen=True, slots=True)
class Gone:
    """
    A series has left the totals: the program has forgotten it, or has not changed it for
    C{idle_after} seconds.  Rust servers do not send it.

    @ivar key: the series.
    @ivar timestamp_ns: when it left, in nanoseconds since the epoch; None if not sent.
    """

    key: Key
    timestamp_ns: int | None = None


@dataclass(frozen=True, slots=True)
class HistogramTotal:
    """
    The distribution of all samples of a histogram.  Servers send it as they send totals of counters
    and gauges: when a client connects, and after drops.  Rust servers do not send it.

    @ivar key: the series.
    @ivar distribution: replaces what the client knows of the distribution.
    @ivar timestamp_ns: when the server copied it, in nanoseconds since the epoch; None if not sent.
    """

    key: Key
    distribution: Distribution
    timestamp_ns: int | None = None


METRIC_EVENTS = Metric, HistogramTotal
"""The classes of events that counts of events include."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """
    A metric event, a description, a gone series or a total of a histogram that this version cannot
    interpret, and skips.

    Decoders return it, so that clients can tell that they do not show everything.

    @ivar reason: what is unknown, human-readable, such as C{"a metric without a known operation"}.
    """

    reason: str


Event = Metadata | Metric | Status | Snapshot | Gone | HistogramTotal | Unknown
"""Any decoded event of a stream.  Ignore events of other types, which a later version may add."""


def whole_number(key: Key, act: str, value: SupportsIndex) -> int:
    """
    Convert the operand of a counter to an exact `int` from 0 to `U64_MAX`.

    @param act: the attempted operation, for the error message.
    @raise TypeError: the value is a bool, or is not accepted by `operator.index`.
    @raise ValueError: the value is out of range, or its conversion raised an exception.
    """
    if type(value) is bool or not hasattr(type(value), "__index__"):
        raise TypeError(
            f"{_attempt(key, act, value)}: must be a whole number, not {type(value).__name__}"
        )
    try:
        # int.__index__ converts an instance of a subclass of int to a plain int.  Methods of such
        # subclasses must not be called later, when the event is applied.
        number = int.__index__(operator.index(value))
    except Exception as error:
        rule = f"{_attempt(key, act, value)}: must be a whole number"
        raise _conversion_error(rule, error) from error
    if not 0 <= number <= U64_MAX:
        raise ValueError(f"{_attempt(key, act, value)}: must be a whole number from 0 to {U64_MAX}")
    return number


def real_number(key: Key, act: str, value: SupportsFloat | datetime.timedelta) -> float:
    """
    Convert the operand of a gauge or histogram to an exact `float`.  A timedelta is converted to
    seconds.

    @param act: the attempted operation, for the error message.
    @raise TypeError: the value is not a number.  Text is not, although `float` parses it.
    @raise ValueError: the value is too large for a float, or its conversion raised an exception.
    """
    try:
        if isinstance(value, datetime.timedelta):
            return float(value.total_seconds())
        if _is_number(value):
            return float(value)
    except OverflowError as error:
        raise too_large(key, act, value) from error
    except Exception as error:
        rule = f"{_attempt(key, act, value)}: must be a number"
        raise _conversion_error(rule, error) from error
    raise TypeError(f"{_attempt(key, act, value)}: must be a number, not {type(value).__name__}")


def too_large(key: Key, act: str, value: object) -> ValueError:
    """
    Return the error to raise for a value that a `float` cannot hold.

    @param act: the attempted operation.
    """
    return ValueError(f"{_attempt(key, act, value)}: must be a number that a float can hold")


def merge_labels(
    labels: Mapping[str, object] | None,
    more: Mapping[str, object],
    metric: _Named | None = None,
) -> dict[str, object]:
    """
    Return labels given as a mapping together with labels given as keyword arguments, which
    override the mapping.

    @param metric: the metric, for the error message.
    @raise TypeError: C{labels} is not a mapping.
    """
    if labels is None:
        return {**more}
    if not hasattr(labels, "keys"):
        raise not_a_mapping(metric, labels)
    return {**labels, **more}


def not_a_mapping(metric: _Named | None, *given: object) -> TypeError:
    """
    Return the error to raise for positional arguments other than a name and a mapping of labels.
    """
    return TypeError(
        f"{_prefix(metric)}labels must be a mapping from names to values, not"
        f" {', '.join(map(short_repr, given))}{_describe(metric)}"
    )


def plain_labels(labels: Mapping[str, object], metric: _Named | None = None) -> dict[str, str]:
    """
    Convert the names and values of labels to plain strings, without further checks.

    The text of an instance of a subclass of `str` is its characters, whatever its C{__str__}
    returns.  Other values are converted with `str`, except those of `_NOT_LABELS`.

    @param metric: the metric, for error messages.
    @raise TypeError: a label name is not a `str`, or a value that is not a string is an error.
    @raise ValueError: the conversion of a value raised an exception.
    """
    return {
        label if type(label) is str else _text("the label name", label, metric, label): (
            value if type(value) is str else _label_value(label, value, metric)
        )
        for label, value in labels.items()
    }


def checked_labels(labels: Mapping[str, object], metric: _Named | None = None) -> dict[str, str]:
    """
    Convert the names and values of labels to plain strings, and validate them.

    @param metric: the metric, for error messages.
    @raise TypeError: see `plain_labels`.
    @raise ValueError: see `plain_labels`; or a label name is empty, or a string cannot be encoded
        as UTF-8.
    """
    texts = plain_labels(labels, metric)
    for label, value in texts.items():
        _text("the label name", label, metric, label)
        _text("the value of label", value, metric, label, empty=True)
    return texts


_NOT_LABELS = {
    "buckets": "; buckets need no configuration",
    "description": "",
    "documentation": "",
    "labels": "; a mapping of labels is the second argument",
}
"""
Labels whose value must be a `str`, and hints for the error message.  Other values are parameters of
the same functions of other libraries, such as prometheus_client, and converted with `str` they
would be a label of each series.
"""


def checked_text(
    part: str, text: object, metric: _Named | None = None, *, empty: bool = False
) -> str:
    """
    Validate a text that the protocol limits to `MAX_TEXT`, and return it as a plain `str`.

    @param part: what the text is, for error messages.
    @param metric: the metric that it belongs to, for error messages.
    @param empty: whether it may be empty.
    @raise TypeError: the text is not a `str`.
    @raise ValueError: the text is empty, exceeds `MAX_TEXT`, or cannot be encoded as UTF-8.
    """
    plain = _text(part, text, metric, empty=empty)
    check_size(part, (plain,), metric)
    return plain


def check_size(part: str, texts: Iterable[str], metric: _Named | None = None) -> None:
    """
    Check that texts together do not exceed `MAX_TEXT`.

    @param part: what the texts are, for the error message.
    @param metric: the metric that they belong to, for the error message.
    @raise ValueError: they do.
    """
    size = sum([len(text.encode()) for text in texts])
    if size > MAX_TEXT:
        raise ValueError(
            f"{_prefix(metric)}{part} must not exceed {MAX_TEXT} bytes of UTF-8; got {size}"
        )


_Named = tuple[MetricKind, object]
"""The kind and the name of a metric, for error messages.  The name may be invalid."""


def _text(
    part: str, text: object, metric: _Named | None = None, *label: object, empty: bool = False
) -> str:
    error: type[Exception] = ValueError
    if not issubclass(type(text), str):
        error, rule = TypeError, f"must be a str, not {type(text).__name__}"
    else:
        # Methods of subclasses of str must not be called, here or later.
        plain = str.__str__(text)
        if plain or empty:
            try:
                plain.encode()
                return plain
            except UnicodeEncodeError as unencodable:
                rule = f"cannot be encoded as UTF-8: {unencodable.reason}"
        else:
            rule = "must not be empty"
    raise error(f"{_prefix(metric)}{' '.join((part, *map(short_repr, label)))} {rule}")


def _label_value(label: str, value: object, metric: _Named | None) -> str:
    # isinstance would accept proxies, such as those of Werkzeug.
    if issubclass(type(value), str):
        return str.__str__(value)
    if label in _NOT_LABELS:
        raise TypeError(
            f"{_prefix(metric)}the value of label {label!r} must be a str, not"
            f" {type(value).__name__}{_describe(metric)}{_NOT_LABELS[label]}"
        )
    try:
        text = str(value)
    except Exception as error:
        rule = f"{_prefix(metric)}the value of label {short_repr(label)} must be text"
        raise _conversion_error(rule, error) from error
    return text if type(text) is str else str.__str__(text)


def _named(kind: MetricKind, name: object) -> _Named:
    if not isinstance(kind, MetricKind):
        raise TypeError(f"kind must be a MetricKind, not {short_repr(kind)}")
    return kind, name


def _prefix(metric: _Named | None) -> str:
    return "" if metric is None else f"{metric[0].value} {short_repr(metric[1])}: "


def _describe(metric: _Named | None) -> str:
    return "" if metric is None else f"; describe_{metric[0].value}() takes unit and description"


def _attempt(key: Key, act: str, value: object) -> str:
    return f"{_prefix((key.kind, key.name))}{act} {short_repr(value)}"


def _conversion_error(rule: str, error: Exception) -> Exception:
    # TypeErrors stay TypeErrors, since such a value can never be converted.
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{rule}, but its conversion raised {short_repr(error)}")


def _is_number(value: object) -> bool:
    # float() also parses strings, bytes and the contents of buffers.  numpy's strings are
    # subclasses of str and bytes, but have the methods of numbers.
    return not isinstance(value, str | bytes) and (
        hasattr(type(value), "__float__") or hasattr(type(value), "__index__")
    )
