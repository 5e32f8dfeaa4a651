"""
Merging, compared with an independent model, for events in any order.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import FakeClient, bits
from txmetrics_tcp import (
    Distribution,
    ExporterSettings,
    Gone,
    HistogramTotal,
    Key,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
    Status,
)
from txmetrics_tcp.relay._merge import Merger, Source
from txmetrics_tcp.testing import FakeReactor

COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
NOW = 1_800_000_000 * 10**9
U64 = 2**64

KEYS = [
    Key(COUNTER, "c"),
    Key(COUNTER, "c", (("instance", "x"),)),
    Key(COUNTER, "c", (("exported_instance", "x"),)),
    Key(COUNTER, "txmetrics_c"),
    Key(GAUGE, "c"),
    Key(GAUGE, "g", (("l", "1"),)),
    Key(HISTOGRAM, "h"),
    Key(HISTOGRAM, "h", (("l", "1"),)),
]
# In different buckets, with exact sums.
SAMPLES = [0.0, 1.0, 4.0, -2.0, 1024.0, math.inf, math.nan]


def samples(found: Counter[float]) -> Distribution:
    return Distribution.of(found.elements())


def merged(key: Key, instance: str | None) -> Key:
    labels = {
        f"exported_{name}" if name.endswith("instance") else name: value
        for name, value in key.labels
    }
    if instance is not None:
        labels["instance"] = instance
    return Key.of(key.kind, key.name, labels)


def plus(kind: MetricKind, one: Any, other: Any) -> Any:
    return (one + other) % U64 if kind is COUNTER else one + other


def minus(kind: MetricKind, one: Any, other: Any) -> Any:
    return (one - other) % U64 if kind is COUNTER else one - other


def has_begun_again(kind: MetricKind, before: Any, after: Any) -> bool:
    if kind is COUNTER:
        return bool((after - before) % U64 >= U64 // 2)
    return any(after[sample] < number for sample, number in before.items())


class Program:
    """
    A run of a program.

    @ivar actual: its totals.
    @ivar seen: the totals that follow from what the collector has received.
    """

    def __init__(self, name: str, started: int) -> None:
        self.name = name
        self.started = started
        self.actual: dict[Key, Any] = {}
        self.seen: dict[Key, Any] = {}
        # Of a program that is declared dead.
        self.kept: dict[Key, Any] = {}
        self.source: Source | None = None
        self.connected = False
        self.dropping = False

    def status(self) -> Status:
        return Status(self.name, self.started)


class Machine(RuleBasedStateMachine):
    """
    Programs of equal names record, forget, drop events, resync, restart, disconnect, connect again,
    and die.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factory = MetricsFactory(
            FakeReactor(),
            ExporterSettings(own_metrics=False),
        )
        self.starts = count(1)
        self.programs: list[Program] = []
        # What dead programs, and series that are gone, have counted.
        self.retired: dict[Key, Any] = {}

    @initialize(merge=st.sampled_from(["sum", "each", "both"]))
    def begin(self, merge: Any) -> None:
        self.merge = merge
        self.merger = Merger(self.factory.recorder, merge, clock=lambda: NOW)
        self.start("a")
        self.start("a")

    def pick(self, number: int, *, connected: bool | None = None) -> Program | None:
        found = [one for one in self.programs if connected in (None, one.connected)]
        return found[number % len(found)] if found else None

    def send(self, program: Program, *events: Any) -> None:
        assert program.source is not None
        program.source.ingest(events)

    # The model.

    def retire(self, program: Program, key: Key) -> None:
        value = program.seen.pop(key)
        if key.kind is not GAUGE:
            before = self.retired.get(key)
            self.retired[key] = value if before is None else plus(key.kind, before, value)

    def see(self, program: Program, key: Key, value: Any) -> None:
        before = program.seen.get(key)
        if before is None and key in program.kept:
            before = program.kept.pop(key)
            self.retired[key] = minus(key.kind, self.retired[key], before)
        if before is not None and key.kind is not GAUGE:
            program.seen[key] = before
            if has_begun_again(key.kind, before, value):
                self.retire(program, key)
        program.seen[key] = value

    def end(self, program: Program, key: Key) -> None:
        """The collector has learned that a series is gone."""
        if key in program.seen:
            self.retire(program, key)
            if not any(key in one.seen for one in self.programs if one.source is not None):
                self.retired.pop(key, None)
                for one in self.programs:
                    one.kept.pop(key, None)

    def die(self, program: Program) -> None:
        program.kept = {key: value for key, value in program.seen.items() if key.kind is not GAUGE}
        for key in list(program.seen):
            self.retire(program, key)

    # Events.

    @rule(
        number=st.integers(0, 9),
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=12),
        data=st.data(),
    )
    def record(self, number: int, keys: list[Key], data: st.DataObject) -> None:
        program = self.pick(number)
        if program is not None:
            events = [self.record_one(program, key, data) for key in keys]
            if program.connected:
                self.send(program, *filter(None, events))

    def record_one(self, program: Program, key: Key, data: st.DataObject) -> Metric | None:
        value: Any
        if key.kind is COUNTER:
            value = data.draw(st.sampled_from([0, 1, 7, 2**40]))
            before = program.actual.get(key, 0)
            if data.draw(st.booleans()):
                operation, after = Operation.INCREMENT_COUNTER, (before + value) % U64
            else:
                value = data.draw(st.sampled_from([0, 9, 2**62, U64 - 3]))
                operation, after = Operation.SET_COUNTER, value
        elif key.kind is GAUGE:
            value = data.draw(st.sampled_from([0.0, 0.1, -3.7, 1e9, math.inf, -math.inf, math.nan]))
            before = program.actual.get(key, 0.0)
            operation = data.draw(
                st.sampled_from(
                    [Operation.SET_GAUGE, Operation.INCREMENT_GAUGE, Operation.DECREMENT_GAUGE]
                )
            )
            after = self.gauge(before, operation, value)
        else:
            value = data.draw(st.sampled_from(SAMPLES))
            operation = Operation.RECORD_HISTOGRAM
            after = program.actual.get(key, Counter()) + Counter([value])
        program.actual[key] = after
        if not program.connected or program.dropping:
            return None
        if data.draw(st.booleans()):
            key = Key(key.kind, key.name, key.labels)
        if operation is Operation.INCREMENT_COUNTER:
            program.seen[key] = (program.seen.get(key, 0) + value) % U64
        elif operation is Operation.SET_COUNTER:
            self.see(program, key, value)
        elif key.kind is GAUGE:
            program.seen[key] = self.gauge(program.seen.get(key, 0.0), operation, value)
        else:
            program.seen[key] = program.seen.get(key, Counter()) + Counter([value])
        return Metric(key, operation, value, NOW)

    def gauge(self, before: float, operation: Operation, value: float) -> float:
        if operation is Operation.SET_GAUGE:
            return value
        return before + value if operation is Operation.INCREMENT_GAUGE else before - value

    @rule(number=st.integers(0, 9), key=st.sampled_from(KEYS))
    def forget(self, number: int, key: Key) -> None:
        program = self.pick(number)
        if program is None or program.actual.pop(key, None) is None:
            return
        if program.connected and not program.dropping:
            self.send(program, Gone(key, NOW))
            self.end(program, key)

    @rule(number=st.integers(0, 9))
    def drop(self, number: int) -> None:
        program = self.pick(number)
        if program is not None:
            program.dropping = True

    @rule(number=st.integers(0, 9))
    def arrive_again(self, number: int) -> None:
        """Later events arrive before the resync."""
        program = self.pick(number)
        if program is not None:
            program.dropping = False

    @rule(number=st.integers(0, 9), complete=st.booleans())
    def resync(self, number: int, complete: bool) -> None:
        program = self.pick(number, connected=True)
        if program is not None:
            self.send_totals(program, complete)

    def send_totals(self, program: Program, complete: bool) -> None:
        program.dropping = False
        events: list[Any] = [
            program.status(),
            Snapshot.BEGIN_COMPLETE if complete else Snapshot.BEGIN,
        ]
        for key, value in program.actual.items():
            if key.kind is HISTOGRAM:
                events.append(HistogramTotal(key, samples(value), NOW))
            elif key.kind is COUNTER:
                events.append(Metric(key, Operation.SET_COUNTER, value, NOW))
            else:
                events.append(Metric(key, Operation.SET_GAUGE, value, NOW))
        self.send(program, *events, Snapshot.END)
        for key, value in program.actual.items():
            self.see(program, key, value)
        if complete:
            program.kept = {}
            for key in [key for key in program.seen if key not in program.actual]:
                self.end(program, key)

    # Connections.

    @rule(name=st.sampled_from("ab"))
    def start(self, name: str) -> None:
        if len(self.programs) < 4:
            program = Program(name, next(self.starts))
            self.programs.append(program)
            self.connect(program)

    @rule(number=st.integers(0, 9))
    def connect_again(self, number: int) -> None:
        program = self.pick(number, connected=False)
        if program is not None:
            self.connect(program)

    def connect(self, program: Program) -> None:
        program.source = self.merger.open(program.name, program.started)
        program.connected = True
        self.send_totals(program, complete=True)

    @rule(number=st.integers(0, 9))
    def disconnect(self, number: int) -> None:
        program = self.pick(number, connected=True)
        if program is not None and program.source is not None:
            program.connected = False
            program.source.disconnected()

    @rule(number=st.integers(0, 9))
    def declare_dead(self, number: int) -> None:
        """The program may connect again."""
        program = self.pick(number)
        if program is not None and program.source is not None:
            source, program.source = program.source, None
            program.connected = False
            source.dead()
            self.die(program)

    @rule(number=st.integers(0, 9))
    def exit(self, number: int) -> None:
        program = self.pick(number)
        if program is not None:
            self.declare_dead(self.programs.index(program))
            self.programs.remove(program)

    @rule(number=st.integers(0, 9))
    def restart(self, number: int) -> None:
        """The same connection, as from a relay, continues with another run of the program."""
        program = self.pick(number, connected=True)
        if program is not None:
            self.die(program)
            program.kept = {}
            program.actual = {}
            program.started = next(self.starts)
            self.send_totals(program, complete=True)

    # The comparison.

    def expected(self) -> dict[Key, Any]:
        found: dict[Key, Any] = {}
        living = [one for one in self.programs if one.source is not None]
        for key in KEYS:
            seen = [one.seen[key] for one in living if key in one.seen]
            if self.merge != "each" and not key.name.startswith("txmetrics_"):
                if key.kind is GAUGE:
                    if seen:
                        found[merged_sum(self.merge, key)] = sum_of(seen)
                elif seen or key in self.retired:
                    total = self.retired.get(key, 0 if key.kind is COUNTER else Counter())
                    for value in seen:
                        total = plus(key.kind, total, value)
                    found[merged_sum(self.merge, key)] = total
            if self.merge != "sum":
                for one in living:
                    if key in one.seen and one.source is not None:
                        found[merged(key, one.source.name)] = one.seen[key]
        return {
            key: bits(samples(value) if isinstance(value, Counter) else value)
            for key, value in found.items()
        }

    @invariant()
    def exact(self) -> None:
        got = {key: bits(value) for key, value in self.factory.recorder.snapshot().items()}
        assert got == self.expected(), (got, self.expected())

    @invariant()
    def unique(self) -> None:
        names = [one.source.name for one in self.programs if one.source is not None]
        assert len(names) == len(set(names))


def merged_sum(merge: str, key: Key) -> Key:
    return key if merge == "sum" else merged(key, None)


def sum_of(values: list[float]) -> float:
    """Return the exact sum, rounded once."""
    special = [value for value in values if not math.isfinite(value)]
    return sum(special) if special else float(sum(map(Fraction, values)))


class MergingTests(SynchronousTestCase):
    def test_anyOrder(self) -> None:
        """Sums, and series by instance, are those of the model after each event."""
        case = Machine.TestCase
        case.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
        case("runTest").debug()


class ExporterTests(SynchronousTestCase):
    def test_losses(self) -> None:
        """Sums are those of the exporters' totals, after both sides have dropped events."""
        chance = random.Random(24)
        programs = []
        collector = MetricsFactory(FakeReactor(), ExporterSettings(own_metrics=False))
        merger = Merger(collector.recorder, "both")
        for number in range(3):
            reactor = FakeReactor()
            # On another thread than the reactor's, a full buffer drops events.
            factory = MetricsFactory(
                reactor,
                ExporterSettings(buffer_size=9),
                monotonic=reactor.seconds,
                in_reactor_thread=lambda: False,
            )
            programs.append((reactor, factory, FakeClient(factory, 300), merger.open("p", number)))
            # The client has read the status.
            factory.recorder.counter("c").increment()
        read = [0, 0, 0]
        for _ in range(600):
            number = chance.randrange(3)
            reactor, factory, client, source = programs[number]
            recorder = factory.recorder
            for _ in range(chance.choice([1, 3, 40])):
                recorder.counter("c", l=chance.randrange(3)).increment(chance.randrange(9))
                recorder.gauge("g").set(chance.randrange(9))
                recorder.histogram("h").record(chance.choice([0.5, 1.0, 8.0]))
            if chance.random() < 0.1:
                recorder.forget(recorder.gauge("g").key)
            if chance.random() < 0.5:
                reactor.settle()
            if chance.random() < 0.2:
                client.read_all(reactor)
            else:
                client.read(chance.choice([10, 500]))
            events = client.reader.all
            source.ingest(events[read[number] :])
            read[number] = len(events)
        for number, (reactor, _factory, client, source) in enumerate(programs):
            source.ingest(client.read_all(reactor).all[read[number] :])
            self.assertGreater(source.missed_incoming, 0)
            self.assertGreater(source.missed_client, 0)
        found = collector.recorder.snapshot()
        expected: dict[Key, Any] = {}
        value: Any
        for _reactor, factory, _client, source in programs:
            for key, value in factory.recorder.snapshot().items():
                labels = {**dict(key.labels), "instance": source.name}
                self.assertEqual(bits(found.pop(Key.of(key.kind, key.name, labels))), bits(value))
                if key.name.startswith("txmetrics_"):
                    continue
                if key.kind is HISTOGRAM:
                    value = Distribution.merge([value, expected.get(key, Distribution.EMPTY)])
                    expected[key] = value
                else:
                    expected[key] = value + expected.get(key, 0)
        self.assertEqual(
            {key: bits(value) for key, value in found.items()},
            {key: bits(value) for key, value in expected.items()},
        )
