"""
Interoperability with the Rust programs over real sockets: the Rust client and viewer with this
library's server, and this library's clients with the Rust server.

`tests.rust_peers.VARIABLE` has the directory of the programs.
"""

from __future__ import annotations

import json
import math
import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.daemon import LIMIT
from tests.reader import Reader, counter_key, exact_totals
from tests.rust_peers import (
    Line,
    Observer,
    PeersTestCase,
    Receiver,
    as_text,
    lasting,
    metadata_line,
    metric_line,
    reactor,
    screen_module,
)
from tests.unit.codec.test_wire import encode
from txmetrics_tcp import (
    Decoder,
    Distribution,
    Event,
    EventStream,
    ExporterSettings,
    Gone,
    HistogramTotal,
    Key,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Recorder,
    Snapshot,
    Status,
    Unit,
)
from txmetrics_tcp._net import connection

COUNTS = [0, 1, 127, 128, 2**53, 2**53 + 1, 2**63, 2**64 - 1]
NUMBERS = [
    0.0,
    -0.0,
    1.5,
    -2.25,
    0.1,
    5e-324,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    math.nan,
]
LABELS: list[dict[str, str]] = [
    {},
    {"empty": ""},
    {"route": "/", "method": "GET", "code": "200"},
    {"größe": "µs 東京 🦀", "…": "\u202e"},
    {"control": "\x00\x1b[31m\r\n", 'quote"': "\\"},
    {f"label_{number}": "x" * number for number in range(20)},
]
TIMES_NS = [
    1,
    999_999_999,
    1_000_000_000,
    1_795_363_464_000_000_127,
    1_795_363_464_000_000_128,
    1_795_363_464_123_456_789,
    2**31 * 1_000_000_000,  # the first second that does not fit into an int32
    253_402_300_799_999_999_999,  # the last time that a Timestamp allows
]


def serving(events: list[Event]) -> Factory:
    """Return a factory that sends events to each client, and then disconnects it."""

    class Serve(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"".join(map(encode, events)))
            self.transport.loseConnection()

    return Factory.forProtocol(Serve)


class ReceiveTests(PeersTestCase):
    """
    A Rust client receives this library's stream.

    @ivar now_ns: the time of the exporter's clock.
    """

    now_ns = 1_795_363_464_000_000_001

    def factory(self) -> MetricsFactory:
        return MetricsFactory(
            reactor, ExporterSettings(own_metrics=False), clock=lambda: self.now_ns
        )

    async def test_everyOperation(self) -> None:
        """The client receives every operation with all kinds of values, labels and times."""
        factory = self.factory()
        recorder = factory.recorder
        recorder.describe_counter("first")
        receiver = self.receive(await self.listen(factory))
        await receiver.until_lines(1, "metadata")
        expected = []

        def expect(operation: str, name: str, value: float, labels: dict[str, str]) -> None:
            expected.append(metric_line(operation, name, labels, value, self.now_ns))

        for number, (labels, count) in enumerate(product(LABELS, COUNTS)):
            self.now_ns = TIMES_NS[number % len(TIMES_NS)]
            recorder.counter("c", labels).increment(count)
            expect("increment_counter", "c", count, labels)
            recorder.counter("c", labels).absolute(count)
            expect("set_counter", "c", count, labels)
        for number, (labels, value) in enumerate(product(LABELS, NUMBERS)):
            self.now_ns = TIMES_NS[number % len(TIMES_NS)]
            recorder.gauge("g", labels).increment(value)
            expect("increment_gauge", "g", value, labels)
            recorder.gauge("g", labels).decrement(value)
            expect("decrement_gauge", "g", value, labels)
            recorder.gauge("g", labels).set(value)
            expect("set_gauge", "g", value, labels)
            recorder.histogram("h", labels).record(value)
            expect("record_histogram", "h", value, labels)
        for name in ("größe.東京/🦀 \x1b", "n" * 60_000):
            recorder.counter(name, {"v": name[:1000]}).increment(7)
            expect("increment_counter", name, 7, {"v": name[:1000]})
        recorder.histogram("many").record_many(2.5, 300)
        for _ in range(300):
            expect("record_histogram", "many", 2.5, {})
        recorder.histogram("duration").record(timedelta(milliseconds=1.5))
        expect("record_histogram", "duration", 0.0015, {})

        await receiver.until_lines(len(expected))
        factory.stop(LIMIT)
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        self.assert_lines(receiver.only("metric"), expected)

    async def test_everyDescription(self) -> None:
        """The client receives descriptions with every unit, before and after it connects."""
        factory = self.factory()
        recorder = factory.recorder
        describe = {
            "counter": recorder.describe_counter,
            "gauge": recorder.describe_gauge,
            "histogram": recorder.describe_histogram,
        }
        expected = []
        for kind in describe:
            for unit in Unit:
                describe[kind](f"all_{unit}", unit, f"in {unit}: µs, 東京 🦀\n\x1b")
                expected.append(
                    metadata_line(kind, f"all_{unit}", unit.value, f"in {unit}: µs, 東京 🦀\n\x1b")
                )
            # The same name for three kinds.
            describe[kind]("nothing_said")
            expected.append(metadata_line(kind, "nothing_said"))
            describe[kind]("unit", "bytes")
            expected.append(metadata_line(kind, "unit", "bytes"))
            describe[kind]("description", description="d" * 60_000)
            expected.append(metadata_line(kind, "description", None, "d" * 60_000))
        recorder.counter("total").increment()

        receiver = self.receive(await self.listen(factory))
        await receiver.until_lines(1)
        total = metric_line("set_counter", "total", {}, 1, self.now_ns)
        self.assert_lines(receiver.lines, [*expected, total])

        recorder.describe_gauge("late", "percent", "described late")
        recorder.gauge("late").set(1)
        await receiver.until_lines(2)
        recorder.describe_gauge("late", "seconds", "described again")
        await receiver.until_lines(len(expected) + 2, "metadata")
        self.assert_lines(
            receiver.lines[len(expected) + 1 :],
            [
                metadata_line("gauge", "late", "percent", "described late"),
                metric_line("set_gauge", "late", {}, 1.0, self.now_ns),
                metadata_line("gauge", "late", "seconds", "described again"),
            ],
        )

    async def test_totalsAtConnect(self) -> None:
        """A client receives descriptions, then totals as set operations, then events."""
        factory = self.factory()
        recorder = factory.recorder
        recorder.describe_counter("c", "count", "counted")
        for _ in range(5000):
            recorder.counter("c", route="/").increment()
        recorder.counter("c", empty="").increment(2**64 - 1)
        recorder.counter("wrapped").increment(2**64 - 1)
        recorder.counter("wrapped").increment(3)
        recorder.counter("elsewhere").absolute(12)
        recorder.gauge("g").set(1.5)
        recorder.gauge("g").decrement(0.25)
        recorder.gauge("g", value="nan").set(math.nan)
        recorder.gauge("g", value="-inf").decrement(math.inf)
        recorder.histogram("h").record(1)

        receiver = self.receive(await self.listen(factory))
        await receiver.until_lines(7)
        connected_ns, self.now_ns = self.now_ns, self.now_ns + 1
        recorder.counter("c", route="/").increment(2)
        recorder.histogram("h").record(2)
        await receiver.until_lines(9)
        self.assertEqual(receiver.lines[0], metadata_line("counter", "c", "count", "counted"))
        totals = [
            metric_line("set_counter", "c", {"route": "/"}, 5000, connected_ns),
            metric_line("set_counter", "c", {"empty": ""}, 2**64 - 1, connected_ns),
            metric_line("set_counter", "wrapped", {}, 2, connected_ns),
            metric_line("set_counter", "elsewhere", {}, 12, connected_ns),
            metric_line("set_gauge", "g", {}, 1.25, connected_ns),
            metric_line("set_gauge", "g", {"value": "nan"}, math.nan, connected_ns),
            metric_line("set_gauge", "g", {"value": "-inf"}, -math.inf, connected_ns),
        ]
        self.assertEqual(sorted(map(as_text, receiver.lines[1:8])), sorted(map(as_text, totals)))
        # The status, the two boundaries of the snapshot, and the total of the histogram.
        self.assertEqual([line["what"] for line in receiver.others], ["empty"] * 4)
        self.assert_lines(
            receiver.lines[8:],
            [
                metric_line("increment_counter", "c", {"route": "/"}, 2, self.now_ns),
                metric_line("record_histogram", "h", {}, 2.0, self.now_ns),
            ],
        )
        self.assertEqual(receiver.bits(), lasting(exact_totals(factory)))

    async def test_gone(self) -> None:
        """
        A client skips `Gone` and complete snapshots: it keeps the last total of a gone series, and
        the totals of the others are exact.
        """
        gone, other = counter_key("gone"), counter_key("other")
        events: list[Event] = [
            Snapshot.BEGIN_COMPLETE,
            *(Metric(key, Operation.SET_COUNTER, 1, 1) for key in (gone, other)),
            Snapshot.END,
            Gone(gone, 1),
            Metric(other, Operation.INCREMENT_COUNTER, 2, 1),
            *(Snapshot.BEGIN_COMPLETE, Metric(other, Operation.SET_COUNTER, 7, 1), Snapshot.END),
            Metric(other, Operation.INCREMENT_COUNTER, 1, 1),
        ]
        receiver = self.receive(await self.listen(serving(events)))
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        self.assertEqual(receiver.bits(), {gone: 1, other: 8})
        self.assertEqual([line["what"] for line in receiver.others], ["empty"] * 5)

    async def test_histogramTotal(self) -> None:
        """
        A client skips totals of histograms, also within a snapshot, and receives samples and other
        totals.
        """
        other = counter_key("other")
        histogram = Key(MetricKind.HISTOGRAM, "h")
        distribution = Distribution.of([-1.0, 0.0, math.inf, *range(1000)])
        events: list[Event] = [
            Status("demo", 1),
            Snapshot.BEGIN_COMPLETE,
            Metric(other, Operation.SET_COUNTER, 7, 1),
            HistogramTotal(histogram, distribution, 1),
            Snapshot.END,
            HistogramTotal(histogram, distribution, 1),
            Metric(histogram, Operation.RECORD_HISTOGRAM, 2.0, 1),
            Metric(other, Operation.INCREMENT_COUNTER, 1, 1),
        ]
        receiver = self.receive(await self.listen(serving(events)))
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        self.assertEqual(receiver.bits(), {other: 8})
        self.assert_lines(
            receiver.only("metric"),
            [
                metric_line("set_counter", "other", {}, 7, 1),
                metric_line("record_histogram", "h", {}, 2.0, 1),
                metric_line("increment_counter", "other", {}, 1, 1),
            ],
        )
        self.assertEqual([line["what"] for line in receiver.others], ["empty"] * 5)

    async def test_halfClosed(self) -> None:
        """A half-closed client receives empty events as probes, and further events."""
        self.patch(connection, "PROBE_INTERVAL", 0.01)
        factory = self.factory()
        factory.recorder.counter("c").increment()
        receiver = self.receive(await self.half_closed(await self.listen(factory)))
        await receiver.until_lines(1)
        before = len(receiver.others)
        await receiver.until(lambda: len(receiver.others) >= before + 2, "two empty events")
        factory.recorder.counter("c").increment()
        await receiver.until_lines(2)
        self.assertEqual(receiver.bits(), lasting(exact_totals(factory)))
        factory.stop(LIMIT)
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        self.assertEqual({line["what"] for line in receiver.others}, {"empty"})

    async def test_defaultSettings(self) -> None:
        """A client receives the default stream: real times, own metrics, and extensions."""
        before_ns = time.time_ns()
        factory = MetricsFactory(reactor)
        receiver = self.receive(await self.listen(factory))
        # The first event, the stream status, is an extension that the client does not know.
        await receiver.until(lambda: receiver.text, "an unknown event")
        self.assertEqual(json.loads(receiver.text[0]), {"what": "empty"})
        factory.recorder.counter("c").increment()
        await receiver.until(
            lambda: any(line["name"] == "txmetrics_clients" for line in receiver.only("metric")),
            "own metrics",
        )
        factory.stop(LIMIT)
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        after_ns = time.time_ns()
        for line in receiver.only("metric"):
            recorded_ns = line["seconds"] * 1_000_000_000 + line["nanos"]
            self.assertTrue(before_ns <= recorded_ns <= after_ns, line)

    def assert_lines(self, actual: list[Line], expected: list[Line]) -> None:
        """Compare lines one by one, so that a failure shows only one."""
        for number, (one, other) in enumerate(zip(actual, expected, strict=False)):
            self.assertEqual(as_text(one), as_text(other), f"line {number}")
        self.assertEqual(len(actual), len(expected))


class ObserverTests(PeersTestCase):
    """The Rust viewer shows this library's stream."""

    def setUp(self) -> None:
        super().setUp()
        screen_module()

    async def test_shows(self) -> None:
        """
        The viewer first shows all earlier names, labels and totals, then new events.
        """
        factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
        recorder = factory.recorder
        for unit in Unit:
            recorder.describe_gauge(f"gauge_{unit}", unit)
            recorder.gauge(f"gauge_{unit}").set(1536)
        for _ in range(2000):
            recorder.counter("requests_total", method="GET", route="/ä").increment()
        recorder.counter("requests_total", method="", route="/ä").increment(3)
        recorder.describe_counter("sent_bytes_total", "bytes")
        recorder.counter("sent_bytes_total").absolute(5 * 2**30)
        recorder.counter("largest").increment(2**64 - 1)
        recorder.gauge("sum").set(0.25)
        recorder.gauge("sum").increment(2)
        recorder.gauge("sum").decrement(4.5)
        recorder.gauge("nan").set(math.nan)
        recorder.describe_histogram("answer_bytes", "bytes")
        recorder.describe_histogram("answer_seconds", "seconds")

        observer = self.observe(await self.listen(factory))
        expected = {
            "requests_total [method = GET, route = /ä]": "total: 2000",
            "requests_total [method = , route = /ä]": "total: 3",
            "sent_bytes_total": "total: 5.00 GiB",
            "largest": "total: 18446744073709551615",
            "sum": "current: -2.25",
            "nan": "current: NaN",
            **SHOWN_IN_UNITS,
        }
        await observer.until_shown(expected)

        recorder.counter("requests_total", method="GET", route="/ä").increment(500)
        recorder.counter("largest").absolute(1)
        recorder.gauge("gauge_bytes").increment(512)
        sizes = recorder.histogram("answer_bytes", route="/")
        # The ratio of the values is below 700: otherwise, the viewer's sketch loses low values.
        for size, count in ((1536, 1), (2048, 599), (4096, 380), (6144, 15), (32768, 5)):
            sizes.record_many(size, count)
        recorder.histogram("answer_seconds").record(timedelta(milliseconds=250))
        expected["requests_total [method = GET, route = /ä]"] = "total: 2500"
        expected["largest"] = "total: 1"
        expected["gauge_bytes"] = "current: 2.00 KiB"
        # The viewer's quantiles are accurate to four digits.
        quantile = r"(249\.9\d?|250\.?)ms"
        await observer.until_shown(
            {
                **expected,
                "answer_bytes [route = /]": "min: 1.50 KiB p50: 2.00 KiB p99: 6.00 KiB"
                " p999: 32.00 KiB max: 32.00 KiB",
                "answer_seconds": re.compile(
                    f"min: 250ms p50: {quantile} p99: {quantile} p999: {quantile} max: 250ms"
                ),
            }
        )
        await self.quit(observer, factory)

    async def test_ownMetrics(self) -> None:
        """The viewer ignores empty and unknown events, and shows own metrics."""
        factory = MetricsFactory(reactor)
        factory.recorder.counter("c").increment()
        observer = self.observe(await self.half_closed(await self.listen(factory)))
        await observer.until_among_shown({"c": "total: 1", "txmetrics_clients": "current: 1.00"})
        factory.recorder.counter("c").increment(2)
        await observer.until_among_shown({"c": "total: 3", "txmetrics_clients": "current: 1.00"})
        await self.quit(observer, factory)

    async def quit(self, observer: Observer, factory: MetricsFactory) -> None:
        """Quit the viewer, and wait until the exporter detects it."""
        observer.press("q")
        self.assertEqual(await observer.exited(), 0)
        while factory.stats().clients:
            await next_iteration()


# This library's data rates use powers of 1000; the viewer shows them as bytes.
SHOWN_IN_UNITS = {
    "gauge_count": "current: 1536.00",
    "gauge_percent": "current: 1536.00%",
    "gauge_seconds": "current: 1536s",
    "gauge_milliseconds": "current: 1.536s",
    "gauge_microseconds": "current: 1.54ms",
    "gauge_nanoseconds": "current: 1.5µs",
    "gauge_tebibytes": "current: 1.50 PiB",
    "gauge_gibibytes": "current: 1.50 TiB",
    "gauge_mebibytes": "current: 1.50 GiB",
    "gauge_kibibytes": "current: 1.50 MiB",
    "gauge_bytes": "current: 1.50 KiB",
    "gauge_terabits_per_second": "current: 1.50 KiB",
    "gauge_gigabits_per_second": "current: 1.50 KiB",
    "gauge_megabits_per_second": "current: 1.50 KiB",
    "gauge_kilobits_per_second": "current: 1.50 KiB",
    "gauge_bits_per_second": "current: 1.50 KiB",
    "gauge_count_per_second": "current: 1536.00/s",
}


class LossTests(PeersTestCase):
    """Clients that have lost events receive the exact totals when they read again."""

    SEND_BUFFER = 16 * 1024

    async def test_stoppedClient(self) -> None:
        """A client that stopped until all buffers overflowed is resynced when it reads again."""
        factory, port = await self.exporter()
        receiver = self.receive(port)
        await receiver.until_lines(1)
        receiver.signal(signal.SIGSTOP)
        await self.record_until(factory, lambda: lost(factory) > 5000)
        receiver.signal(signal.SIGCONT)
        await self.assert_resynced(factory, receiver)

    async def test_stoppedForLong(self) -> None:
        """A client that is stopped for longer than C{repair_interval} is resynced afterwards."""
        factory, port = await self.exporter(repair_interval=0.1)
        receiver = self.receive(port)
        await receiver.until_lines(1)
        receiver.signal(signal.SIGSTOP)
        await self.record_until(factory, lambda: lost(factory) > 20_000)
        factory.recorder.counter("after").increment(7)
        await self.record_until(factory, lambda: True)
        receiver.signal(signal.SIGCONT)
        await self.assert_resynced(factory, receiver)
        self.assertEqual(receiver.bits()[counter_key("after")], 7)

    async def test_busyReactor(self) -> None:
        """A fast client is resynced after the incoming side has dropped events."""
        factory, port = await self.exporter()
        receiver = self.receive(port)
        await receiver.until_lines(1)
        thread = threading.Thread(target=record, args=(factory.recorder, 10_000))
        thread.start()
        thread.join()  # blocks the reactor
        self.assertGreater(factory.stats().dropped_incoming, 5000)
        await self.assert_resynced(factory, receiver)

    async def test_stoppedObserver(self) -> None:
        """The Rust viewer shows the exact totals after it was stopped."""
        screen_module()
        factory, port = await self.exporter()
        observer = self.observe(port)
        await observer.until_among_shown({"events_total": "total: 1"})
        observer.signal(signal.SIGSTOP)
        await self.record_until(factory, lambda: lost(factory) > 5000)
        totals = factory.recorder.snapshot()
        observer.signal(signal.SIGCONT)
        level = Key(MetricKind.GAUGE, "level", (("where", "here"),))
        await observer.until_shown(
            {
                "events_total": f"total: {totals[counter_key('events_total')]}",
                "level [where = here]": f"current: {totals[level]:.2f}",
            }
        )
        self.assertGreaterEqual(repairs(factory), 1)

    async def exporter(self, repair_interval: float = 60) -> tuple[MetricsFactory, int]:
        factory = MetricsFactory(
            reactor, ExporterSettings(own_metrics=False, repair_interval=repair_interval)
        )
        factory.recorder.describe_gauge("level", "count")
        record(factory.recorder, 1)
        return factory, await self.listen(factory, self.SEND_BUFFER)

    async def record_until(self, factory: MetricsFactory, enough: Callable[[], bool]) -> None:
        """Record at a pace that the incoming buffer allows."""
        while True:
            record(factory.recorder, 500)
            await next_iteration()
            if enough():
                break

    async def assert_resynced(self, factory: MetricsFactory, receiver: Receiver) -> None:
        """Check that the client lost events, receives the exact totals, and decodes every frame."""
        totals = exact_totals(factory)
        await receiver.until(lambda: receiver.bits() == totals, f"the totals\n{totals}\n")
        [client] = factory.stats().clients
        self.assertGreater(client.dropped_client + client.dropped_incoming, 5000)
        self.assertGreaterEqual(client.repairs, 1)
        received = sum(line["operation"] == "increment_counter" for line in receiver.only("metric"))
        self.assertLess(received, receiver.bits()[counter_key("events_total")])
        factory.stop(LIMIT)
        self.assertEqual(await receiver.exited(), 0, receiver.errors)
        self.assertEqual(receiver.bits(), totals)


def record(recorder: Recorder, rounds: int) -> None:
    """Record two events in each round."""
    counter = recorder.counter("events_total")
    gauge = recorder.gauge("level", where="here")
    for number in range(rounds):
        counter.increment()
        gauge.increment(0.5 if number % 2 else -0.25)


def lost(factory: MetricsFactory) -> int:
    """Return the number of events that were dropped because the client did not read."""
    return sum(client.dropped_client for client in factory.stats().clients)


def repairs(factory: MetricsFactory) -> int:
    return sum(client.repairs for client in factory.stats().clients)


async def next_iteration() -> None:
    """Wait for the next reactor iteration."""
    await deferLater(reactor, 0)


Description = tuple[str, str, str | None, str]
Row = tuple[str, str, dict[str, str], float]

DESCRIBED: list[Description] = [
    ("counter", "rust_requests", "count", "requests served"),
    ("counter", "rust_sent", "bytes", "bytes sent so far, as a total kept elsewhere"),
    ("gauge", "rust_memory", "bytes", "memory in use"),
    ("gauge", "rust_load", "percent", "eine Größe: µs, 東京"),
    ("histogram", "rust_latency", "seconds", "time to answer"),
    ("histogram", "rust_size", "kibibytes", "size of an answer"),
    ("gauge", "rust_no_unit", None, "described without a unit"),
]


def served(number: int) -> list[Row]:
    """Return the events that `serve` sends in a round: operation, name, labels, value."""
    return [
        ("increment_counter", "rust_requests", {"route": "/a", "system": "foo"}, 1),
        ("increment_counter", "rust_requests", {"route": "/b", "system": "東京"}, 3),
        ("set_counter", "rust_sent", {}, 1024 * number),
        ("set_counter", "rust_largest", {}, 2**64 - 1),
        ("set_gauge", "rust_memory", {"pool": "main"}, 1024.0),
        ("increment_gauge", "rust_memory", {"pool": "main"}, 768.0),
        ("decrement_gauge", "rust_memory", {"pool": "main"}, 256.0),
        ("set_gauge", "rust_load", {}, 12.5),
        ("set_gauge", "rust_no_unit", {}, -2.25),
        ("set_gauge", "rust_special", {"value": "nan"}, math.nan),
        ("set_gauge", "rust_special", {"value": "inf"}, math.inf),
        ("set_gauge", "rust_special", {"value": "-inf"}, -math.inf),
        ("record_histogram", "rust_latency", {"route": "/a"}, 0.25),
        ("record_histogram", "rust_latency", {"route": "/a"}, 0.0015),
        ("record_histogram", "rust_size", {}, 2.0),
        ("record_histogram", "rust_size", {}, 2.0),
        ("record_histogram", "rust_size", {}, 2.0),
    ]


ROUND = len(served(0))
ENOUGH = 5 * ROUND
"""A number of events with at least four complete rounds, wherever they begin."""


class ServeTests(PeersTestCase):
    """This library's clients read the Rust server (tests/rust/src/bin/serve.rs)."""

    async def test_decoder(self) -> None:
        """The decoder decodes the server's stream, even byte by byte."""
        before_ns = time.time_ns()
        port, server = await self.serve()
        reading = Reading(ENOUGH)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), reading)
        await reading.done.addTimeout(LIMIT, reactor)
        server.close_input()
        self.assertEqual(await server.exited(), 0)
        reader = reading.reader
        self.assert_described(
            [(m.kind.value, m.name, m.unit, m.description) for m in reader.metadata]
        )
        self.assert_rounds(
            [
                (
                    metric.operation.name.lower(),
                    metric.key.name,
                    dict(metric.key.labels),
                    metric.value,
                )
                for metric in reader.metrics
            ]
        )
        self.assert_times(before_ns, [metric.timestamp_ns for metric in reader.metrics])

        whole = reading.received
        decoder = Decoder()
        bytewise = [event for byte in whole for event in decoder.feed(bytes([byte]))]
        self.assertEqual(repr(bytewise), repr(reader.events))

    async def test_tail(self) -> None:
        """``metrics-tcp tail --json`` prints the server's stream."""
        before_ns = time.time_ns()
        port, server = await self.serve()
        tail = self.tail(port)
        await tail.until_lines(ENOUGH)
        server.close_input()
        self.assertEqual(await server.exited(), 0)
        await tail.until(lambda: "next attempt" in tail.errors, "the message about the end")
        tail.signal(signal.SIGINT)
        self.assertEqual(await tail.exited(), 130)
        metadata, metrics = tail.only("metadata"), tail.only("metric")
        self.assertEqual(tail.lines, metadata + metrics)
        self.assertEqual(tail.others, [])
        self.assert_described(
            [(line["kind"], line["name"], line["unit"], line["description"]) for line in metadata]
        )
        self.assert_rounds(
            [
                (
                    f"{line['operation']}_{line['kind']}",
                    line["name"],
                    line["labels"],
                    line["value"] if line["kind"] == "counter" else float(line["value"]),
                )
                for line in metrics
            ]
        )
        self.assert_times(before_ns, [line["timestamp_ns"] for line in metrics])

    async def test_eventStream(self) -> None:
        """An `EventStream` yields the server's events."""
        port, server = await self.serve()
        events: list[Event] = []
        async with EventStream(reactor, port) as stream:
            async for event in stream:
                events.append(event)
                if sum(isinstance(event, Metric) for event in events) == ENOUGH:
                    break
        self.assertEqual(stream.dropped, 0)
        self.assert_rounds(
            [
                (
                    metric.operation.name.lower(),
                    metric.key.name,
                    dict(metric.key.labels),
                    metric.value,
                )
                for metric in events
                if isinstance(metric, Metric)
            ]
        )
        server.close_input()
        self.assertEqual(await server.exited(), 0)

    async def test_slowEventStream(self) -> None:
        """A slow `EventStream` with C{when_full="drop"} drops events, and continues to the end."""
        port, server = await self.serve()
        async with EventStream(reactor, port, buffer_size=10, when_full="drop") as stream:
            while stream.dropped < 100:
                await next_iteration()
            self.assertIsInstance(await stream.__anext__(), Metric)
            server.close_input()
            async for _ in stream:
                pass
        self.assertEqual(await server.exited(), 0)

    def assert_described(self, described: list[Description]) -> None:
        # The Rust server sends descriptions in any order.
        self.assertEqual(sorted(described, key=repr), sorted(DESCRIBED, key=repr))

    def assert_rounds(self, rows: list[Row]) -> None:
        """Check that the rows are complete rounds, beginning anywhere in a round."""
        begin = next(index for index, row in enumerate(rows) if row[:3] == served(0)[0][:3])
        first = next(int(row[3]) for row in rows[begin:] if row[1] == "rust_sent") // 1024
        expected = served(first - 1)[ROUND - begin :]
        for number in range(first, first + len(rows) // ROUND + 1):
            expected += served(number)
        # As text, in which NaN equals itself.
        self.assertEqual(list(map(repr, rows)), list(map(repr, expected[: len(rows)])))

    def assert_times(self, before_ns: int, timestamps_ns: list[int]) -> None:
        """Check that timestamps are sorted, and lie within the time of this test."""
        expected = sorted([before_ns, *timestamps_ns, time.time_ns()])
        self.assertEqual(expected[1:-1], timestamps_ns)


class Reading(Protocol):
    """
    Decodes a stream, and disconnects after a number of metrics.

    @ivar received: the bytes of the stream.
    @ivar done: fires after the disconnect.
    """

    def __init__(self, enough: int) -> None:
        """
        @param enough: the number of metrics.
        """
        self.reader = Reader()
        self.received = b""
        self.done: Deferred[None] = Deferred()
        self._enough = enough

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.reader.feed(data)
        if len(self.reader.metrics) >= self._enough:
            cast(ITCPTransport, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)
