"""
What a collector does with its connections: identify the sources, merge their events, enforce
limits, and record figures about the sources.

Everything in this module runs on the reactor thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from twisted.logger import Logger

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._client.protocol import MetricsClientProtocol
from txmetrics_tcp._codec.framing import StreamError
from txmetrics_tcp._exporter.totals import OWN_PREFIX
from txmetrics_tcp._instruments.sink import Series
from txmetrics_tcp._model import (
    U64_MAX,
    Event,
    Key,
    Metadata,
    MetricKind,
    Operation,
    Status,
    Unit,
)
from txmetrics_tcp._net.deadline import Deadline, cancel, is_pending
from txmetrics_tcp._net.log_throttle import MessageLimit, RejectionLog
from txmetrics_tcp._net.tls import explain
from txmetrics_tcp.relay._limits import OVERLOAD, Meter, SourceLimits
from txmetrics_tcp.relay._merge import (
    COLLECTOR_INFO,
    AlreadyConnectedError,
    LoopError,
    Merger,
    Source,
    Target,
)

_log = Logger(namespace="txmetrics_tcp")

IDENTITY_LIMIT = 10.0
"""The number of seconds in which a source has to send its first event, after it has connected."""

GATHER = 0.001
"""
The number of seconds for which events of all sources are gathered, and then recorded together.
Otherwise most reads would wake the exporter.  After a quiet time, events are recorded at once.
"""

MAX_GATHERED = 1024
"""The number of gathered events that are recorded at once."""

MAX_NAME = 1000
"""The maximum length of the name of an instance, in characters.  The rest is cut off."""

MAX_SHOWN = 200
"""The maximum length of a name in a log line, in characters."""

REASONS: Final = {
    "loop": "it sends what this collector has recorded",
    "duplicate": "it is connected already",
    "protocol": "it does not send the protocol",
    "silent": "it sent nothing",
    "tls": "TLS failed",
    "events": "too many events a second",
    "bytes": "too many bytes a second",
}
"""The reasons for which a source is disconnected: the values of the label, and the log lines."""


class _Figure(NamedTuple):
    """A metric about each source."""

    kind: MetricKind
    suffix: str
    text: str
    unit: Unit = Unit.COUNT

    @property
    def name(self) -> str:
        return OWN_PREFIX + self.suffix


_CONNECTED = _Figure(
    MetricKind.GAUGE,
    "collector_source_connected",
    "Whether the source is connected to the collector.",
)
_SERIES = _Figure(MetricKind.GAUGE, "collector_source_series", "Series of the source.")
_CONNECTIONS = _Figure(
    MetricKind.COUNTER, "collector_source_connections_total", "Connections of the source."
)
_RESTARTS = _Figure(
    MetricKind.COUNTER,
    "collector_source_restarts_total",
    "Restarts that the stream of the source has shown.",
)
_EVENTS = _Figure(
    MetricKind.COUNTER, "collector_source_events_total", "Events received from the source."
)
_MISSED = _Figure(
    MetricKind.COUNTER,
    "collector_source_missed_events_total",
    "Events that are missing. 'incoming': dropped by the source before they reached a client."
    " 'client': dropped by the source because the collector was too slow. 'collector': ignored by"
    " the collector because of too many or invalid series.",
)
_RETIMED = _Figure(
    MetricKind.COUNTER,
    "collector_source_retimed_events_total",
    "Events whose time was more than a day old or a minute ahead, and was replaced.",
)
_CUT = _Figure(
    MetricKind.COUNTER,
    "collector_source_cut_total",
    "Connections of the source that the collector has closed.",
)
_ALL_CUT = _Figure(
    MetricKind.COUNTER,
    "collector_cut_total",
    "Connections that the collector has closed, by reason.",
)
_SOURCES = _Figure(
    MetricKind.GAUGE, "collector_sources", "Sources that are connected, or were until recently."
)
_FIGURES: Final = (
    _CONNECTED,
    _SERIES,
    _CONNECTIONS,
    _RESTARTS,
    _EVENTS,
    _MISSED,
    _RETIMED,
    _CUT,
    _ALL_CUT,
    _SOURCES,
)

OWN_LABELS: Final = frozenset({"side", "reason", "id"})
"""Names of labels of these metrics, which the label of instances cannot have."""

_OPERATIONS: Final = {
    MetricKind.COUNTER: Operation.SET_COUNTER,
    MetricKind.GAUGE: Operation.SET_GAUGE,
}


_Recorded = dict[tuple[str, ...], tuple[Series, float]]
"""The last values of figures, by the suffix of the name and the labels without the instance."""


class Instance:
    """
    A source over all its connections, until it is declared dead.

    @ivar source: the source of its last connection.
    @ivar connections: the number of its connections.
    @ivar cut: the number of connections that the collector has closed, by reason.
    @ivar meter: the rates of all connections; None before the first one has events.
    @ivar deadline: pending while the source is disconnected.
    """

    def __init__(self, source: Source) -> None:
        self.source: Source = source
        self.connections: int = 0
        self.cut: Counter[str] = Counter()
        self.meter: Meter | None = None
        self.deadline: Deadline | None = None
        self.recorded: _Recorded = {}
        self.logged_refused: bool = False

    def figures(self) -> Iterator[tuple[_Figure, dict[str, str], float]]:
        source = self.source
        yield _CONNECTED, {}, source.connected
        yield _SERIES, {}, source.series
        yield _CONNECTIONS, {}, self.connections
        yield _RESTARTS, {}, source.restarts
        yield _EVENTS, {}, source.events
        yield _MISSED, {"side": "incoming"}, source.missed_incoming
        yield _MISSED, {"side": "client"}, source.missed_client
        yield _MISSED, {"side": "collector"}, source.refused
        yield _RETIMED, {}, source.retimed
        for reason, number in self.cut.items():
            yield _CUT, {"reason": reason}, number


class Intake:
    """
    Merges the events of all connections into one recorder.

    @ivar instances: the living sources by the names of their instances.
    """

    def __init__(
        self,
        clock: Any,
        recorder: Target,
        merger: Merger,
        collector_id: str,
        instance_label: str,
        limits: SourceLimits,
        grace: float,
        max_disconnected: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param clock: provides C{IReactorTime}.
        @param merger: should gather; see `merged`.
        @param grace: the number of seconds after which a disconnected source is declared dead.
        @param max_disconnected: the number of disconnected sources beyond which the one that was
            disconnected first is declared dead earlier; None for no limit.
        @param monotonic: returns seconds, on a clock that is never set back.
        """
        self.clock: Any = clock
        self.merger: Merger = merger
        self.limits: SourceLimits = limits
        self.grace: float = grace
        self.instances: dict[str, Instance] = {}
        self._max_disconnected = max_disconnected
        # The first one that was disconnected first.
        self._disconnected: dict[Instance, None] = {}
        self._recorder = recorder
        self._instance_label = instance_label
        self._cut: Counter[str] = Counter()
        self._recorded: _Recorded = {}
        self._rejections = RejectionLog(clock, "source")
        self._messages = MessageLimit(clock, _warn, "sources")
        self._running = False
        self._monotonic = monotonic
        self._flushed = monotonic() - GATHER
        self._flush_later: Any = None
        # First of all, so that another collector finds it before anything else.
        info = recorder.attach(Key.of(MetricKind.GAUGE, COLLECTOR_INFO, {"id": collector_id}))
        recorder.ingest([(info, Operation.SET_GAUGE, 1.0, 0)])
        # The recorder has the series as long as there is a reference.
        self._info = info
        recorder.describe(
            Metadata.of(
                MetricKind.GAUGE,
                COLLECTOR_INFO,
                Unit.COUNT,
                "1 for each collector that this stream has passed through.",
            )
        )
        for figure in _FIGURES:
            recorder.describe(Metadata.of(figure.kind, figure.name, figure.unit, figure.text))

    def start(self) -> None:
        self._running = True
        for instance in self.instances.values():
            if not instance.source.connected:
                self.disconnected(instance)

    def stop(self) -> None:
        self._running = False
        self.flush()
        for instance in self.instances.values():
            if instance.deadline is not None:
                instance.deadline.cancel()
                instance.deadline = None
        self._rejections.close()
        self._messages.close()

    def say(self, message: str) -> None:
        """Log a message about a source; too many are counted instead."""
        self._messages.say(message)

    def connected(self, name: str, started_ns: int | None) -> Instance:
        """
        Begin a connection of a source.

        @raise AlreadyConnectedError: see `Merger.open`.
        """
        source = self.merger.open(name[:MAX_NAME], started_ns)
        instance = self.instances.get(source.name)
        if instance is None:
            instance = self.instances[source.name] = Instance(source)
        instance.source = source
        self._disconnected.pop(instance, None)
        instance.connections += 1
        if instance.deadline is not None:
            instance.deadline.cancel()
            instance.deadline = None
        return instance

    def disconnected(self, instance: Instance) -> None:
        """Declare a source dead after the time of grace."""
        instance.source.disconnected()
        if self._running:
            instance.deadline = Deadline(self.clock, self.grace, lambda: self.dead(instance))
        self._disconnected[instance] = None
        if self._max_disconnected is not None and len(self._disconnected) > self._max_disconnected:
            self.dead(next(iter(self._disconnected)))

    def dead(self, instance: Instance) -> None:
        """Declare a source dead, and forget the figures about it."""
        if self.instances.get(instance.source.name) is not instance:
            return
        if instance.deadline is not None:
            instance.deadline.cancel()
            instance.deadline = None
        del self.instances[instance.source.name]
        self._disconnected.pop(instance, None)
        instance.source.dead()
        for series, _value in instance.recorded.values():
            self._recorder.forget(series.key)

    def merged(self) -> None:
        """Have what a source has merged recorded, within `GATHER` seconds."""
        # The reactor's clock may be set back, which delays its timers.
        passed = self._monotonic() - self._flushed
        if passed >= GATHER or self.merger.waiting >= MAX_GATHERED:
            self.flush()
        elif not is_pending(self._flush_later):
            self._flush_later = self.clock.callLater(GATHER - passed, self.flush)

    def flush(self) -> None:
        """Record what has been gathered."""
        cancel(self._flush_later)
        self._flushed = self._monotonic()
        self.merger.flush()

    def cut(self, reason: str, address: str, detail: str = "") -> None:
        """Count and log a connection that this side closes."""
        self._cut[reason] += 1
        self._rejections.report(address, REASONS[reason], detail)

    def publish(self) -> None:
        """Record the figures that have changed since the last call, and the events before them."""
        self.flush()
        entries: list[tuple[Series, Operation, Any, int]] = []
        for name, instance in self.instances.items():
            for figure, labels, value in instance.figures():
                self._record(entries, instance.recorded, figure, labels, value, name)
            if instance.source.refused and not instance.logged_refused:
                instance.logged_refused = True
                self.say(
                    f"Ignored events of source {_shown(name)}: it has more than"
                    f" {self.limits.series:,} series, or invalid ones"
                )
        for reason, number in self._cut.items():
            self._record(entries, self._recorded, _ALL_CUT, {"reason": reason}, number)
        self._record(entries, self._recorded, _SOURCES, {}, len(self.instances))
        if entries:
            self._recorder.ingest(entries)

    def _record(
        self,
        entries: list[tuple[Series, Operation, Any, int]],
        recorded: _Recorded,
        figure: _Figure,
        labels: dict[str, str],
        value: float,
        instance: str | None = None,
    ) -> None:
        identity = (figure.suffix, *labels.values())
        known = recorded.get(identity)
        if known is None:
            if instance is not None:
                labels = {**labels, self._instance_label: instance}
            series = self._recorder.attach(Key.of(figure.kind, figure.name, labels))
        else:
            series, last = known
            if value == last:
                return
        recorded[identity] = series, value
        counter = figure.kind is MetricKind.COUNTER
        now = int(value) & U64_MAX if counter else float(value)
        entries.append((series, _OPERATIONS[figure.kind], now, 0))


class Stream:
    """
    One connection.

    @ivar instance: the source; None before its first event.
    @ivar cut: why this side has closed the connection, or empty.
    """

    def __init__(
        self,
        intake: Intake,
        protocol: MetricsClientProtocol,
        address: str,
        endpoint: Endpoint | None = None,
    ) -> None:
        """
        @param address: the peer, human-readable.
        @param endpoint: where the source listens; None if it has connected to the collector.
        """
        self.instance: Instance | None = None
        self.cut: str = ""
        self._intake = intake
        self._protocol = protocol
        self._address = address
        self._endpoint = endpoint
        clock = intake.clock
        self._meter = Meter(intake.limits, clock.seconds())
        self._resume: Any = None
        self._identity: Deadline | None = None
        if endpoint is None:
            # A Rust server, which only listens, sends nothing before its first event.
            self._identity = Deadline(clock, IDENTITY_LIMIT, lambda: self.close("silent"))

    def received(self, events: list[Event]) -> None:
        """Merge the events of one read."""
        if self.cut:
            return
        if self.instance is None and not self._identify(events[0]):
            return
        assert self.instance is not None
        try:
            self.instance.source.ingest(events)
        except LoopError:
            instance = self.instance
            self.close("loop")
            self._intake.dead(instance)
            return
        self._intake.merged()
        clock = self._intake.clock
        wait, exceeded = self._meter.charge(
            len(events), self._protocol.batch_bytes, clock.seconds()
        )
        if exceeded:
            self.close(exceeded, f", for {OVERLOAD:g} seconds")
        elif wait:
            self._protocol.transport.pauseProducing()  # type: ignore[attr-defined]
            cancel(self._resume)
            self._resume = clock.callLater(wait, self._protocol.transport.resumeProducing)  # type: ignore[attr-defined]

    def lost(self, error: BaseException | None) -> None:
        """Handle the end of the connection."""
        if not self.cut and isinstance(error, StreamError):
            self._count("protocol", f": {error}")
        elif not self.cut and self.instance is None and (problem := explain(error)):
            self._count("tls", f": {problem}")
        self._end_timers()
        if self.instance is not None and not self.instance.source.closed:
            self._intake.disconnected(self.instance)

    def close(self, reason: str, detail: str = "") -> None:
        """Close the connection for one of `REASONS`."""
        self._count(reason, detail)
        self._end_timers()
        self._protocol.close()

    def _identify(self, first: Event) -> bool:
        """Find out which source this is, and return whether its events are wanted."""
        endpoint = self._endpoint
        if isinstance(first, Status):
            name, started_ns = first.source, first.started_ns
        elif endpoint is not None:
            # A Rust server.
            name, started_ns = "", None
        else:
            self.close("protocol", ": the first event is not a status")
            return False
        name = name or self._address
        if endpoint is not None:
            endpoint.identified(name, started_ns)
        try:
            self.instance = self._intake.connected(name, started_ns)
        except AlreadyConnectedError:
            self._address = _shown(name)
            self.close("duplicate")
            return False
        self._address = _shown(self.instance.source.name)
        # A source cannot begin a new allowance by connecting again.
        if self.instance.meter is None:
            self.instance.meter = self._meter
        self._meter = self.instance.meter
        if endpoint is not None:
            endpoint.instance = self.instance
        if self._identity is not None:
            self._identity.cancel()
        return True

    def _count(self, reason: str, detail: str) -> None:
        self.cut = reason
        if self.instance is not None:
            self.instance.cut[reason] += 1
        self._intake.cut(reason, self._address, detail)

    def _end_timers(self) -> None:
        cancel(self._resume)
        if self._identity is not None:
            self._identity.cancel()


class Endpoint:
    """
    A place where one process listens at a time.

    @ivar instance: the process that was connected last.
    """

    def __init__(self, dead: Callable[[Instance], object]) -> None:
        """
        @param dead: see `Intake.dead`.
        """
        self.instance: Instance | None = None
        self._dead = dead
        self._known: tuple[str, int | None] | None = None

    def identified(self, name: str, started_ns: int | None) -> None:
        """If another process listens there now, the one before it is dead."""
        identity = name, started_ns
        if self.instance is not None and (started_ns is None or identity != self._known):
            # It may be connected elsewhere.
            if not self.instance.source.connected:
                self._dead(self.instance)
            self.instance = None
        self._known = identity


def _shown(name: str) -> str:
    """Return a name for a log line: on one line, without control characters, and not too long."""
    return name if name.isprintable() and len(name) <= MAX_SHOWN else short_repr(name)


def _warn(message: str) -> None:
    _log.warn("{message}", message=message)
