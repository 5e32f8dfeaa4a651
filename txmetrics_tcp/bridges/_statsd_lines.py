"""
Parses lines of StatsD and DogStatsD, and records their values.  No I/O.

A line is ``NAME:VALUE|TYPE``, optionally with further fields: ``|@RATE``, ``|#TAG:VALUE,…`` and
fields of DogStatsD.  Everything but the value is usually the same in most lines of a series.
Therefore the method that records a value is cached by name and tail, which is the part after the
value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import U64_MAX, Key, Labels, Metadata, MetricKind, Unit
from txmetrics_tcp.bridges._counters import is_seconds

REASONS = (
    "address",  # a datagram from a network that is not allowed
    "encoding",  # name or tags are not UTF-8
    "failed",  # an error of this library
    "field",  # an unknown field
    "format",  # not NAME:VALUE|TYPE
    "name",  # the name is empty, has "|", or is reserved
    "negative",  # a counter cannot fall
    "rate",  # the rate is not a number greater than 0, and at most 1
    "series",  # too many series
    "set",  # too many values of sets
    "size",  # the line is too long
    "tags",  # a tag has no name, or there are too many
    "type",  # an unknown type
    "value",  # the value is not a number, or out of range
)
"""Why a line, or one of several values in it, is refused."""

RESERVED = "txmetrics_"
"""The beginning of names of the exporter's own metrics."""

MAX_SIZE = 4096
"""The maximum size of a line without its value, in bytes."""

MAX_TAGS = 100
"""The maximum number of tags of a line.  A series with many takes a hundred times its text."""

MAX_REFUSED_VALUES = 100
"""The number of refused values in a line after which its further values are ignored."""

MAX_REPEATS = 1000
"""The maximum number of samples that one value of a timer stands for."""

MAX_SET_VALUES = 10_000
"""The maximum number of distinct values of a set in one flush interval."""

MAX_ALL_SET_VALUES = 100_000
"""The maximum number of values of all sets together in one flush interval."""

_MAX_CACHED = 512
_MAX_NUMBER = 64

_U64_END = 2.0**64

_INTEGER = re.compile(rb"[+-]?[0-9]+")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_METRICS = (b"_e{", b"_sc|")
"""The beginnings of events and service checks of DogStatsD, which are ignored."""

_IGNORED = re.compile(rb"T[0-9]+|[a-z]+:.*", re.DOTALL)

Record = Callable[[bytes], object]


class Refused(Exception):
    """
    A line is not valid, or exceeds a limit.

    @ivar reason: one of `REASONS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason: str = reason


class StatsDLines:
    """
    Records what lines say.  Use it on one thread only.

    @ivar lines: the number of lines so far, including refused ones.
    @ivar refused: the number of refused lines and values by reason.
    @ivar recorder: where they are recorded.
    @ivar set_values: the number of values of all sets in this flush interval.
    """

    def __init__(
        self,
        recorder: Recorder,
        prefix: str,
        max_series: int,
        report: Callable[[str, bytes], object],
    ) -> None:
        """
        @param prefix: precedes each name; of 60 KiB of UTF-8 at most.
        @param max_series: the maximum number of series; lines of further ones are refused.
        @param report: called with the reason and the line for each refused line or value.  For the
            reason C{"failed"}, the exception is being handled.
        """
        self.recorder = recorder
        self.lines = 0
        self.refused: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.set_values = 0
        self._prefix = prefix
        self._max_series = max_series
        self._report = report
        self._records: dict[tuple[bytes, bytes], Record] = {}
        self._targets: dict[tuple[type[_Target], str, Labels], _Target] = {}
        self._timers: set[str] = set()
        self._sets: set[_Set] = set()
        self._empty_sets: set[_Set] = set()

    @property
    def series(self) -> int:
        """The number of series."""
        return len(self._targets)

    def feed(self, data: bytes) -> None:
        """
        Record all lines of a datagram, or complete lines of a stream.  Raises no exceptions.
        """
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
        records = self._records
        for line in data.split(b"\n"):
            name, colon, rest = line.partition(b":")
            value, bar, tail = rest.partition(b"|")
            record = records.get((name, tail))
            if record is None:
                if not line or line.startswith(_NOT_METRICS):
                    continue
                try:
                    if not (colon and bar):
                        raise Refused("format")
                    record = self._find(name, tail)
                except Exception as error:
                    self.lines += 1
                    self._refuse(error, line)
                    continue
            self.lines += 1
            try:
                record(value)
            except Exception as error:
                self._not_recorded(error, record, value, line)

    def flush(self) -> None:
        """Set the gauges of sets to the numbers of their distinct values, and empty the sets."""
        filled, self._sets = self._sets, set()
        for one in self._empty_sets - filled:
            one.flush()
        for one in filled:
            one.flush()
        self._empty_sets = filled
        self.set_values = 0

    def refuse(self, reason: str, line: bytes) -> None:
        """Count and report a refused line or value."""
        self.refused[reason] += 1
        self._report(reason, line)

    def fill(self, one: _Set) -> None:
        """Called when a set has its first value in a flush interval."""
        self._sets.add(one)

    def describe_timer(self, name: str) -> None:
        """Describe a histogram of milliseconds, once."""
        if name not in self._timers:
            self._timers.add(name)
            text = "Timer received through StatsD."
            self.recorder.describe(Metadata.of(MetricKind.HISTOGRAM, name, Unit.MILLISECONDS, text))

    def _not_recorded(self, error: Exception, record: Record, value: bytes, line: bytes) -> None:
        values = value.split(b":")
        if not isinstance(error, Refused) or error.reason != "value" or len(values) == 1:
            self._refuse(error, line)
            return
        refused = 0
        for one in values:
            try:
                record(one)
            except Exception as refusal:
                self._refuse(refusal, line)
                refused += 1
                if refused == MAX_REFUSED_VALUES:
                    return

    def _refuse(self, error: Exception, line: bytes) -> None:
        reason = error.reason if isinstance(error, Refused) else "failed"
        self.refuse(reason, line)

    def _find(self, name: bytes, tail: bytes) -> Record:
        """
        Return what records a value.

        @raise Refused: the line is not valid, or there are too many series.
        """
        if len(name) + len(tail) > MAX_SIZE:
            raise Refused("size")
        kind, *fields = tail.split(b"|")
        make = _TYPES.get(kind)
        if make is None:
            raise Refused("type")
        rate: float | None = None
        tags: list[bytes] = []
        timed = False
        for field in fields:
            if field.startswith(b"@"):
                rate = _rate(field[1:])
            elif field.startswith(b"#"):
                tags += field[1:].split(b",")
            elif _IGNORED.fullmatch(field):
                timed = timed or field.startswith(b"T")
            elif field:
                raise Refused("field")
        target = self._target(make, name, tags)
        record = target.record if rate is None else partial(target.record_sampled, rate)
        # Lines with a time would fill the cache.
        if not timed and len(name) + len(tail) <= _MAX_CACHED:
            if len(self._records) >= 2 * self._max_series:
                self._records.clear()
            self._records[name, tail] = record
        return record

    def _target(self, make: type[_Target], name: bytes, tags: list[bytes]) -> _Target:
        name, *influx = name.split(b",")
        if len(influx) + len(tags) > MAX_TAGS:
            raise Refused("tags")
        try:
            text = self._prefix + name.decode()
            labels = _labels([one.decode().replace("=", ":", 1) for one in influx])
            for label, value in _labels([one.decode() for one in tags]).items():
                labels[label] = f"{labels[label]},{value}" if label in labels else value
        except UnicodeDecodeError:
            raise Refused("encoding") from None
        if not name or b"|" in name or text.startswith(RESERVED):
            raise Refused("name")
        if make is _Counter and is_seconds(text):
            make = _Seconds
        identity = make, text, tuple(sorted(labels.items()))
        target = self._targets.get(identity)
        if target is None:
            if len(self._targets) >= self._max_series:
                raise Refused("series")
            # Valid: text and labels are UTF-8, not empty, and not too long.
            target = make(self, Key(make.kind, text, identity[2]))
            self._targets[identity] = target
        return target


def _labels(tags: list[str]) -> dict[str, str]:
    """
    Return the labels of tags; those of one name are joined.

    @raise Refused: a tag has no name.
    """
    labels: dict[str, list[str]] = {}
    for tag in filter(None, tags):
        name, _, value = tag.partition(":")
        if not name:
            raise Refused("tags")
        values = labels.setdefault(name, [])
        if value not in values:
            values.append(value)
    return {name: ",".join(values) for name, values in labels.items()}


def _number(text: bytes) -> int | float:
    """
    @raise Refused: the text is not a finite number.
    """
    if len(text) > _MAX_NUMBER:
        raise Refused("value")
    if text.isdigit() or _INTEGER.fullmatch(text):
        return int(text)
    if not _NUMBER.fullmatch(text):
        raise Refused("value")
    value = float(text)
    if not math.isfinite(value):
        raise Refused("value")
    return value


def _rate(text: bytes) -> float | None:
    """
    @return: the rate; None for 1.
    @raise Refused: the text is not a rate.
    """
    try:
        rate = float(_number(text))
    except Refused:
        rate = 0.0
    if not 0 < rate <= 1:
        raise Refused("rate")
    return None if rate == 1 else rate


class _Target:
    """
    Records values of one series.

    @cvar kind: the kind of metric.
    """

    __slots__ = ()

    kind: MetricKind

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        raise NotImplementedError

    def record(self, text: bytes) -> None:
        """
        Record a value.

        @raise Refused: it is not valid.
        """
        raise NotImplementedError

    def record_sampled(self, rate: float, text: bytes) -> None:
        """
        Record a value that stands for several ones, of which the client sends a share.

        @param rate: the share, between 0 and 1.
        @raise Refused: the value is not valid.
        """
        self.record(text)


class _Counter(_Target):
    """A counter.  What is left by rounding is added to the next value."""

    __slots__ = ("_increment", "_rest")

    kind = MetricKind.COUNTER

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        self._increment = lines.recorder.register_counter(key).increment
        self._rest = 0.0

    def record(self, text: bytes) -> None:
        if text == b"1":
            self._increment()
            return
        value = _number(text)
        if type(value) is int and 0 <= value <= U64_MAX:
            self._increment(value)
        else:
            self._add(value)

    def record_sampled(self, rate: float, text: bytes) -> None:
        self._add(_number(text) / rate)

    def _add(self, amount: float) -> None:
        if amount < 0:
            raise Refused("negative")
        amount += self._rest
        if not amount < _U64_END:
            raise Refused("value")
        whole = round(amount)
        if whole:
            self._increment(whole)
        self._rest = amount - whole


class _Seconds(_Target):
    """A counter of seconds, which becomes a gauge, because counters are whole numbers."""

    __slots__ = ("_increment",)

    kind = MetricKind.GAUGE

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        self._increment = lines.recorder.register_gauge(key).increment

    def record(self, text: bytes) -> None:
        self.record_sampled(1.0, text)

    def record_sampled(self, rate: float, text: bytes) -> None:
        amount = _number(text) / rate
        if amount < 0:
            raise Refused("negative")
        if not math.isfinite(amount):
            raise Refused("value")
        self._increment(amount)


class _Gauge(_Target):
    """A gauge.  A value with a sign is added to it."""

    __slots__ = ("_increment", "_set")

    kind = MetricKind.GAUGE

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        gauge = lines.recorder.register_gauge(key)
        self._set = gauge.set
        self._increment = gauge.increment

    def record(self, text: bytes) -> None:
        value = _number(text)
        if text.startswith((b"+", b"-")):
            self._increment(value)
        else:
            self._set(value)


class _Histogram(_Target):
    """A histogram."""

    __slots__ = ("_record", "_record_many", "_rest")

    kind = MetricKind.HISTOGRAM

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        histogram = lines.recorder.register_histogram(key)
        self._record = histogram.record
        self._record_many = histogram.record_many
        self._rest = 0.0

    def record(self, text: bytes) -> None:
        self._record(_number(text))

    def record_sampled(self, rate: float, text: bytes) -> None:
        value = _number(text)
        samples = min(1 / rate + self._rest, MAX_REPEATS)
        whole = round(samples)
        self._record_many(value, whole)
        self._rest = samples - whole


class _Timer(_Histogram):
    """A histogram of milliseconds."""

    __slots__ = ()

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        super().__init__(lines, key)
        lines.describe_timer(key.name)


class _Set(_Target):
    """A gauge of the number of distinct values in the last flush interval."""

    __slots__ = ("_lines", "_set", "_values")

    kind = MetricKind.GAUGE

    def __init__(self, lines: StatsDLines, key: Key) -> None:
        self._set = lines.recorder.register_gauge(key).set
        self._lines = lines
        # Hash values instead of texts, whose size has no limit.
        self._values: set[int] = set()

    def record(self, text: bytes) -> None:
        if not text:
            raise Refused("value")
        value, values, lines = hash(text), self._values, self._lines
        if value in values:
            return
        if len(values) >= MAX_SET_VALUES or lines.set_values >= MAX_ALL_SET_VALUES:
            raise Refused("set")
        if not values:
            lines.fill(self)
        values.add(value)
        lines.set_values += 1

    def flush(self) -> None:
        self._set(len(self._values))
        self._values.clear()


_TYPES: dict[bytes, type[_Target]] = {
    b"c": _Counter,
    b"g": _Gauge,
    b"ms": _Timer,
    b"h": _Histogram,
    b"d": _Histogram,
    b"s": _Set,
}
