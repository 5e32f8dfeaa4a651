"""
A minimal reader of a stream, against which tests compare the package.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from txmetrics_tcp import (
    Decoder,
    Distribution,
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
    SourceView,
    Status,
)
from txmetrics_tcp._model import SET_OPERATION
from txmetrics_tcp.testing import FakeReactor, PausingTransport

Bits = int | bytes | tuple[object, ...]


def bits(value: float | Distribution) -> Bits:
    """
    Return a value for exact comparison. All NaNs are equal; 0.0 and -0.0 differ.

    Only sums of samples are compared with a tolerance: they depend on the order of the samples.
    Whether they overflow does, too.
    """
    if isinstance(value, Distribution):
        return (
            *(value.scale, value.positive, value.negative, value.zeros, value.not_finite),
            *(value.min == value.min and value.min, value.max == value.max and value.max),
            _Sum.of(value),
        )
    if isinstance(value, int):
        return value
    return b"NaN" if value != value else struct.pack("<d", value)


@dataclass(eq=False)
class _Sum:
    sum: float
    tolerance: float

    @classmethod
    def of(cls, distribution: Distribution) -> _Sum:
        largest = max(abs(distribution.min), abs(distribution.max)) if distribution.count else 0.0
        return cls(distribution.sum, 1e-9 * largest * distribution.count)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Sum)
        if math.isinf(self.sum) or math.isinf(other.sum):
            return math.isinf(self.tolerance * 1e9 * 2)
        return math.isclose(self.sum, other.sum, rel_tol=0.0, abs_tol=self.tolerance)


class Reader:
    """
    Decodes a stream, and keeps its events and totals.

    It fails if an event other than a total occurs between the boundaries of a snapshot.  `Gone` and
    the end of a complete snapshot remove totals.

    @ivar all: all events, in order.
    @ivar events: all metadata, metric events and totals of histograms, in order.
    @ivar statuses: all `Status` events, in order.
    @ivar gone: all `Gone` events, in order.
    @ivar snapshots: the totals of each snapshot that has ended.
    @ivar totals: the total of each series.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self.all: list[Event] = []
        self.events: list[Event] = []
        self.statuses: list[Status] = []
        self.gone: list[Gone] = []
        self.snapshots: list[dict[Key, Any]] = []
        self._snapshot: dict[Key, Any] | None = None
        self._complete = False
        self.totals: dict[Key, Any] = {}

    def feed(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            self.all.append(event)
            if isinstance(event, Status):
                self.statuses.append(event)
                continue
            if isinstance(event, Snapshot):
                self._reach(event)
                continue
            if isinstance(event, Gone):
                assert not self.in_snapshot, event
                self.gone.append(event)
                self.totals.pop(event.key, None)
                continue
            self.events.append(event)
            if isinstance(event, Metric):
                self._apply(event)
            elif isinstance(event, HistogramTotal):
                self.totals[event.key] = event.distribution
                if self._snapshot is not None:
                    self._snapshot[event.key] = event.distribution

    def _reach(self, boundary: Snapshot) -> None:
        begun = self._snapshot is not None
        assert begun is (boundary is Snapshot.END), f"{boundary} after {'no ' * (not begun)}BEGIN"
        if self._snapshot is not None:
            self.snapshots.append(self._snapshot)
            if self._complete:
                # Before version 3, snapshots had no histograms.
                old = not self.statuses or self.statuses[-1].protocol_version < 3
                self.totals = {
                    key: total
                    for key, total in self.totals.items()
                    if key in self._snapshot or (old and key.kind is MetricKind.HISTOGRAM)
                }
        self._snapshot = None if begun else {}
        self._complete = boundary is Snapshot.BEGIN_COMPLETE

    @property
    def metrics(self) -> list[Metric]:
        return [event for event in self.events if isinstance(event, Metric)]

    @property
    def metadata(self) -> list[Metadata]:
        return [event for event in self.events if isinstance(event, Metadata)]

    @property
    def in_snapshot(self) -> bool:
        """Whether a snapshot has begun and not ended."""
        return self._snapshot is not None

    @property
    def unfinished(self) -> int:
        return self._decoder.unfinished

    def values(self, name: str) -> list[float]:
        """Return the values of all events with a name."""
        return [metric.value for metric in self.metrics if metric.key.name == name]

    def bits(self) -> dict[Key, Bits]:
        return {key: bits(value) for key, value in self.totals.items()}

    def _apply(self, event: Metric) -> None:
        if self._snapshot is not None:
            assert event.operation in SET_OPERATION.values(), event
            self._snapshot[event.key] = event.value
        total: Any = self.totals.get(event.key, 0)
        match event.operation:
            case Operation.INCREMENT_COUNTER:
                total = (int(total) + int(event.value)) % 2**64
            case Operation.INCREMENT_GAUGE:
                total += event.value
            case Operation.DECREMENT_GAUGE:
                total -= event.value
            case Operation.SET_COUNTER | Operation.SET_GAUGE:
                total = event.value
            case Operation.RECORD_HISTOGRAM:
                total = (total or Distribution.EMPTY).with_repeated(event.value, 1)
        self.totals[event.key] = total


class FakeClient:
    """
    A client of a factory, on a transport that a test drains.  It has already read the first event,
    the stream status.
    """

    def __init__(self, factory: MetricsFactory, limit: int = 64 * 1024) -> None:
        self.reader = Reader()
        self.transport = PausingTransport(limit)
        protocol = factory.buildProtocol(self.transport.getPeer())
        assert protocol is not None
        self.protocol = protocol
        self.transport.connect(protocol)
        self.read()

    @property
    def is_connected(self) -> bool:
        return self.transport.connected and not self.transport.aborted

    def read(self, size: int | None = None) -> Reader:
        """Read the pending data."""
        self.reader.feed(self.transport.drain(size))
        return self.reader

    def read_all(self, reactor: FakeReactor) -> Reader:
        """Read until no events or data are pending."""
        reactor.settle()
        reactor.advance(self.protocol.factory.settings.max_delay)
        while True:
            reactor.settle()
            transport = self.transport
            closing = transport.connected and transport.disconnecting
            if not (transport.written or transport.producer_paused or closing):
                return self.reader
            self.read()


def exact_totals(factory: MetricsFactory) -> dict[Key, Bits]:
    """Return the program's own totals."""
    return {key: bits(value) for key, value in factory.recorder.snapshot().items()}


def view_bits(view: SourceView) -> dict[Key, Bits]:
    """Return the total of each series of a view, for exact comparison."""
    found = {}
    for key, series in view.series.items():
        total: float | Distribution = series.value
        if key.kind is MetricKind.HISTOGRAM:
            assert series.distribution is not None
            total = series.distribution
        found[key] = bits(total)
    return found


def counter_key(name: str, *labels: tuple[str, str]) -> Key:
    return Key(MetricKind.COUNTER, name, labels)


def histogram_key(name: str, *labels: tuple[str, str]) -> Key:
    return Key(MetricKind.HISTOGRAM, name, labels)
