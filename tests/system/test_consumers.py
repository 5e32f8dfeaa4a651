"""
The consumers in examples/consumers, which decode a stream with the protobuf library of their
language, and a Go program that serves unusual frames (tests/consumers/odd/main.go).

tests/consumers/build.sh builds them; `VARIABLE` has their directory.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.trial.unittest import SkipTest

from tests import environment
from tests.daemon import METRICS_TCP, Daemon, DaemonTestCase
from tests.loopback import SMALL, LoopbackTestCase, reactor
from tests.programs import Stream, total
from tests.reader import Bits, Reader, bits, exact_totals
from tests.rust_peers import Peer, Printer, lasting
from txmetrics_tcp import Key, MetricKind

VARIABLE = "TXMETRICS_CONSUMERS"
"""The environment variable with the directory of the programs."""

LONG = 900 * 1024
"""The length of the long texts that odd serves."""

MAX_FRAME = 1 << 20

Totals = dict[Key, Bits]
Event = dict[str, Any]

_P = TypeVar("_P", bound=Peer)


def program(name: str, *path: str) -> str:
    """
    Return the path of a file of a program.

    @raise SkipTest: the program is not built.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise SkipTest("needs the consumers (tests/consumers/build.sh)")
    directory = Path(folder, name).resolve()
    if not directory.is_dir():
        raise SkipTest(
            f"needs {name!r} in the directory of the consumers (tests/consumers/build.sh)"
        )
    return str(directory.joinpath(*path))


def interpreter(name: str) -> str:
    """
    Return the path of a program that runs a consumer.

    @raise SkipTest: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise SkipTest(f"needs {name}")
    return path


def java() -> list[str]:
    classes = f"{program('java', 'classes')}:{program('java', 'dependency')}/*"
    return [interpreter("java"), "-cp", classes, "Consume"]


COMMANDS = {
    "go": lambda: [program("go", "consume")],
    "javascript": lambda: [interpreter("node"), program("javascript", "consume.mjs")],
    "java": java,
    "rust": lambda: [program("rust", "consume")],
    "python": lambda: [sys.executable, program("python", "consume.py")],
}
"""The command of each consumer, without its argument."""


def built() -> tuple[dict[str, list[str]], list[str]]:
    """
    Return the commands of the consumers by language, and why others are missing.

    @raise SkipTest: all are missing.
    """
    commands, missing = {}, []
    for language, command in COMMANDS.items():
        try:
            commands[language] = command()
        except SkipTest as reason:
            missing.append(str(reason))
    if not commands:
        raise SkipTest(missing[0])
    return commands, missing


def key_from(kind: str, name: str, labels: Iterable[tuple[str, str]]) -> Key:
    pairs = [(label, value) for label, value in labels]
    return Key(MetricKind(kind), name, tuple(sorted(pairs)))


def printed_series(language: str, text: str) -> Key:
    """Return the series that a consumer has printed, in the notation of its language."""
    labels: Any
    match language:
        case "python" | "rust":
            kind, name, labels = ast.literal_eval(text)
        case "javascript":
            kind, name, labels = json.loads(text)
        case "go":
            # counter "name" map["label":"value" …]
            kind = text.partition(" ")[0]
            name, *strings = map(json.loads, re.findall(r'"(?:[^"\\]|\\.)*"', text))
            labels = zip(strings[::2], strings[1::2], strict=True)
        case "java":
            # counter [name, {label=value, …}]
            kind, _, text = text.partition(" ")
            name, text = text[1:-2].split(", {")
            labels = [pair.split("=") for pair in text.split(", ") if pair]
    return key_from(kind, name, labels.items() if isinstance(labels, dict) else labels)


def printed_totals(language: str, lines: Iterable[str]) -> Totals:
    """Return the totals that a consumer has printed."""
    totals: Totals = {}
    for line in lines:
        series, text = line.split("\t")
        key = printed_series(language, series)
        assert key not in totals, line
        totals[key] = bits(float(text) if key.kind is MetricKind.GAUGE else int(text))
    return totals


def reported_totals(text: str) -> Totals:
    """Return the totals that ``metrics-tcp stats --json`` has printed."""
    return {
        key_from(one["kind"], one["name"], one["labels"].items()): bits(
            float(one["value"]) if one["kind"] == "gauge" else one["value"]
        )
        for one in json.loads(text)["series"]
    }


class Consumer(Printer):
    """A consumer in some language."""

    async def totals(self) -> Totals:
        """Wait until the stream ends, and return the totals."""
        status = await self.exited()
        assert (status, self.errors) == (0, ""), f"{self.name}: status {status}: {self.errors}"
        return printed_totals(self.name, self.text)


class StatsCommand(Printer):
    """``metrics-tcp stats --json``."""

    async def report(self) -> str:
        """Wait until the server disconnects, and return the report."""
        await self.until(lambda: "disconnected from" in self.errors, "the end of the stream")
        self.signal(signal.SIGINT)
        await self.exited()
        [line] = self.text
        return line


class ConsumersTestCase(LoopbackTestCase):
    """
    A test that runs all consumers that are built. If some are missing, it is skipped at its end.
    """

    def setUp(self) -> None:
        super().setUp()
        self._commands, self._missing = built()

    def skip_if_missing(self) -> None:
        """
        Called at the end of a test.

        @raise SkipTest: a consumer is missing.
        """
        if self._missing:
            raise SkipTest("; ".join(self._missing))

    def spawn(self, peer: _P, *command: str) -> _P:
        # Java's standard output has the encoding of the locale.
        env = environment() | {"LC_ALL": "C.UTF-8"}
        reactor.spawnProcess(peer, command[0], command, env)
        self.addCleanup(lambda: Deferred.fromCoroutine(peer.kill()))
        return peer

    def consume(self, language: str, port: int) -> Consumer:
        return self.spawn(Consumer(language), *self._commands[language], "127.0.0.1", str(port))

    def consume_all(self, port: int) -> list[Consumer]:
        return [self.consume(language, port) for language in self._commands]

    def command(self, peer: _P, *arguments: str) -> _P:
        """Start a command of metrics-tcp."""
        return self.spawn(peer, sys.executable, "-m", "txmetrics_tcp", *arguments)

    def stats(self, port: int) -> StatsCommand:
        arguments = ("stats", f"127.0.0.1:{port}", "--json", "--duration", "1h")
        return self.command(StatsCommand("stats"), *arguments)

    async def listen(self, factory: Any) -> int:
        """Listen with a factory, and return the port."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        return port

    @property
    def port(self) -> int:
        """The exporter's port."""
        address: Any = self.address
        port: int = address.port
        return port

    async def until_following(self, number: int) -> None:
        """Wait until this number of clients receives all later events."""
        while len(self.factory.stats().clients) < number:
            await deferLater(reactor, 0.01)


class DaemonConsumersTests(DaemonTestCase):
    """The consumers and ``metrics-tcp stats`` read the daemon's stream."""

    def test_totals(self) -> None:
        """When the daemon stops, all have the same totals of counters and gauges."""
        commands, missing = built()
        daemon = Daemon(self, "-n", "metrics-tcp", "--listen=0", "--interval=0.1")
        address = ("127.0.0.1", str(daemon.port))
        consumers = {
            language: Daemon(self, *address, runner=command)
            for language, command in commands.items()
        }
        options = ("--json", "--duration", "1h")
        stats = Daemon(self, "stats", ":".join(address), *options, runner=METRICS_TCP)
        stream = Stream(self, daemon.port)
        clients = len(consumers) + 2

        def connected(reader: Reader) -> bool:
            for consumer in consumers.values():
                self.assertIsNone(consumer.process.poll(), "a consumer has ended")
            return total(reader, "txmetrics_clients") == clients

        stream.read_until(connected)
        daemon.process.terminate()
        stream.read_all()
        stats.wait_for("disconnected from")
        stats.process.send_signal(signal.SIGINT)
        _, output, _ = stats.end()
        expected = lasting(reported_totals(output[output.index("{") :]))
        self.assertIn("process_cpu_seconds_total", {key.name for key in expected})
        self.assertEqual(expected, lasting(stream.reader.bits()))
        for language, consumer in consumers.items():
            status, output, errors = consumer.end()
            self.assertEqual((status, errors), (0, ""))
            self.assertEqual(lasting(printed_totals(language, output.splitlines())), expected)
        if missing:
            raise SkipTest("; ".join(missing))


class ExporterConsumersTests(ConsumersTestCase):
    """The consumers read the stream of an exporter in this process."""

    async def test_values(self) -> None:
        """
        Totals and numbers of samples are exact, with unusual numbers and texts, and whether they
        are from before or after the connection.
        """
        factory = await self.exporter(buffer_size=None)
        recorder = self.service.recorder
        recorder.counter("wraps").increment(2**64 - 1)
        recorder.counter("exact").absolute(2**53 + 1)
        recorder.counter("largest").increment(2**64 - 1)
        recorder.counter("zero").increment(0)
        recorder.counter("größe.東京 🦀", {"größe": "µs 東京 🦀", "__proto__": "1"}).increment()
        recorder.gauge("one name").set(-0.0)
        recorder.gauge("one name", empty="").set(1.5)
        recorder.counter("one name").increment(2)
        recorder.counter("one name", empty="").increment(3)
        for number, value in enumerate(NUMBERS):
            recorder.gauge("before", number=str(number)).set(value)

        consumers = self.consume_all(self.port)
        stats = self.stats(self.port)
        await self.until_following(len(consumers) + 1)
        recorder.counter("wraps").increment(3)
        recorder.counter("exact").increment(2)
        recorder.counter("set").absolute(2**64 - 1)
        recorder.counter("set").absolute(2**53 + 1)
        recorder.gauge("one name").increment(-0.0)
        recorder.gauge("new", operation="decrement").decrement(0.0)
        recorder.gauge("new", operation="increment").increment(-0.0)
        recorder.gauge("rounds").set(1e16)
        for _ in range(3):
            recorder.gauge("rounds").increment(1.0)
        recorder.gauge("rounds").decrement(0.1)
        samples = {
            Key(MetricKind.HISTOGRAM, "one name", ()): 1,
            Key(MetricKind.HISTOGRAM, "one name", (("empty", ""),)): 2,
            Key(MetricKind.HISTOGRAM, "many", ()): 0,
        }
        recorder.histogram("one name").record(math.nan)
        recorder.histogram("one name", empty="").record_many(-0.0, 2)
        for number, value in enumerate(NUMBERS):
            recorder.gauge("before", number=str(number)).increment(0.1)
            recorder.gauge("after", number=str(number)).set(value)
            recorder.histogram("many").record(value)
            samples[Key(MetricKind.HISTOGRAM, "many", ())] += 1
        await self.service.stop()

        expected = exact_totals(factory) | samples
        self.assertEqual(expected[Key(MetricKind.COUNTER, "wraps", ())], 2)
        self.assertEqual(expected[Key(MetricKind.GAUGE, "one name", ())], bits(-0.0))
        await self.compare(consumers, expected)
        self.assertEqual(reported_totals(await stats.report()), expected)
        self.skip_if_missing()

    async def test_stalled(self) -> None:
        """A consumer that stalls until events are dropped has exact totals in the end."""
        # Clients that a relay connects have small send buffers.
        factory = await self.exporter(buffer_size=100, repair_interval=0.1)
        factory.send_buffer = SMALL
        recorder = self.service.recorder
        relay = StallingRelay(self.port)
        consumers = self.consume_all(await self.listen(relay))
        await self.until_following(len(consumers))
        padding = "x" * 1000
        while not all(one.dropped_client and one.repairs for one in factory.stats().clients):
            for number in range(200):
                labels = {"number": str(number % 7), "padding": padding}
                recorder.counter("counter", labels).increment(2**60 + number)
                recorder.gauge("gauge", labels).increment(0.1)
                recorder.gauge("gauge", labels).decrement(0.3)
            await deferLater(reactor, 0.01)
        relay.resume()
        recorder.counter("counter", padding="").increment(2**63)
        recorder.gauge("gauge", padding="").decrement(1.0)
        await self.service.stop()
        await self.compare(consumers, exact_totals(factory))
        self.skip_if_missing()

    async def compare(self, consumers: Iterable[Consumer], expected: Mapping[Key, Bits]) -> None:
        for consumer in consumers:
            self.assertEqual(await consumer.totals(), expected, consumer.name)


NUMBERS = [
    0.0,
    -0.0,
    0.1,
    -2.25,
    5e-324,
    -2.2250738585072009e-308,
    2.2250738585072014e-308,
    2e-3,
    123456789.0,
    9007199254740993.0,
    1e21,
    1e22,
    2.0**63,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    math.nan,
]


class StallingRelay(ProxyFactory):
    """Forwards connections to a port. It reads nothing from that port until `resume`."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.protocol = _RelayServer
        self.stalled: list[_RelayClient] = []

    def resume(self) -> None:
        for client in self.stalled:
            client.transport.resumeProducing()  # type: ignore[union-attr]


class _RelayClient(ProxyClient):
    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.peer.factory.stalled.append(self)  # type: ignore[union-attr]


class _RelayClientFactory(ProxyClientFactory):
    protocol = _RelayClient
    noisy = False


class _RelayServer(ProxyServer):
    clientProtocolFactory = _RelayClientFactory


class StreamEndTests(ConsumersTestCase):
    """How the consumers end."""

    async def outcomes(self, data: bytes, close: bool) -> dict[str, tuple[int, bool]]:
        """
        Serve data to each consumer.

        @param close: whether to close the connection after that.
        @return: the exit status, and whether there is a message, by language.
        """

        class Serve(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(data)
                if close:
                    self.transport.loseConnection()

        consumers = self.consume_all(await self.listen(Factory.forProtocol(Serve)))
        return {one.name: (await one.exited(), bool(one.errors)) for one in consumers}

    def all(self, status: int) -> dict[str, tuple[int, bool]]:
        return {language: (status, bool(status)) for language in self._commands}

    async def test_noServer(self) -> None:
        """Without a server, they fail with a message."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        port = listening.getHost().port
        await listening.stopListening()
        consumers = self.consume_all(port)
        for consumer in consumers:
            self.assertEqual(await consumer.exited(), 1, consumer.name)
            self.assertRegex(consumer.errors, "(?i)refused", consumer.name)
        self.skip_if_missing()

    async def test_cutOff(self) -> None:
        """If the connection is closed within a frame or its length, they fail."""
        for data in (b"\x00\x05", b"\x00\x05\x0a", b"\x00\x80"):
            self.assertEqual(await self.outcomes(data, close=True), self.all(1))
        self.skip_if_missing()

    async def test_invalid(self) -> None:
        """If a frame is not a message, or its length is too long, they fail."""
        self.assertEqual(await self.outcomes(b"\x01\x07", close=False), self.all(1))
        self.assertEqual(await self.outcomes(b"\x80" * 11 + b"\x00", close=False), self.all(1))
        self.skip_if_missing()

    async def test_largestFrame(self) -> None:
        """They accept frames of 1 MiB."""
        # One unknown field, with a head of five bytes.
        content = b"\xa2\x06\xfb\xff\x3f" + bytes(MAX_FRAME - 5)
        self.assertEqual(await self.outcomes(b"\x80\x80\x40" + content, close=True), self.all(0))
        self.skip_if_missing()


class OddFramesTests(ConsumersTestCase):
    """Programs of this library and all consumers read the stream that odd serves."""

    async def odd(self) -> int:
        """Start odd, and return its port."""
        odd = self.spawn(Printer("odd"), program("odd", "odd"))
        await odd.until(lambda: odd.text, "the port")
        return int(odd.text[0])

    async def events(self, endpoint: str, *options: str) -> list[Event]:
        """Return what ``metrics-tcp tail --json`` prints."""
        tail = self.command(Printer("tail"), "tail", endpoint, "--json", *options)
        self.assertEqual(await tail.exited(), 0, tail.errors)
        return [json.loads(shortened(line)) for line in tail.text]

    def check_events(self, events: list[Event]) -> None:
        # As text, in which NaN equals itself, and 0.0 and -0.0 differ.
        for actual, expected in zip(map(json.dumps, events), map(json.dumps, ODD), strict=False):
            self.assertEqual(actual, expected)
        self.assertEqual(len(events), len(ODD))

    async def test_tail(self) -> None:
        """C{tail} prints every event."""
        endpoint = str(await self.odd())
        self.check_events(await self.events(endpoint, "--count", str(ODD_METRICS)))

    async def test_record(self) -> None:
        """C{record} records every frame, and a recording has the same events and totals."""
        path = str(Path(self.mktemp()).resolve())
        arguments = ("record", path, str(await self.odd()), "--count", str(ODD_METRICS))
        record = self.command(Printer("record"), *arguments)
        self.assertEqual(await record.exited(), 0, record.errors)
        self.check_events(await self.events(path))
        stats = self.command(Printer("stats"), "stats", path, "--json")
        self.assertEqual(await stats.exited(), 0, stats.errors)
        self.check_report(stats.text[0])

    async def test_stats(self) -> None:
        """C{stats} has the totals, and the number of events that it could not use."""
        self.check_report(await self.stats(await self.odd()).report())

    async def test_consumers(self) -> None:
        """Every consumer has the same totals as C{stats}."""
        program("odd")
        consumers = [self.consume(language, await self.odd()) for language in self._commands]
        for consumer in consumers:
            await consumer.exited()
            consumer.text = list(map(shortened, consumer.text))
            self.assertEqual(await consumer.totals(), ODD_TOTALS, consumer.name)
        self.skip_if_missing()

    def check_report(self, text: str) -> None:
        text = shortened(text)
        self.assertEqual(reported_totals(text), ODD_TOTALS)
        report = json.loads(text)
        self.assertEqual((report["events"], report["unknown"]), (ODD_METRICS, 5))


def shortened(text: str) -> str:
    """Replace the long texts of odd, for readable messages."""
    return text.replace("x" * LONG, "<long>")


# What odd serves


def metric(
    operation: str,
    name: str,
    value: float | str,
    labels: Mapping[str, str] | None = None,
    timestamp_ns: int | None = None,
    time: str | None = None,
    text: str | None = None,
) -> Event:
    """Return the JSON line of a metric."""
    action, _, kind = operation.partition("_")
    line = {
        "event": "metric",
        "time": time,
        "timestamp_ns": timestamp_ns,
        "kind": kind,
        "operation": action,
        "name": name,
        "labels": labels or {},
        "value": value,
    }
    return line if text is None else {**line, "value_text": text}


def metadata(kind: str, name: str, unit: str | None = None, description: str = "") -> Event:
    """Return the JSON line of a description."""
    return {
        "event": "metadata",
        "kind": kind,
        "name": name,
        "unit": unit,
        "description": description,
    }


def gone(
    kind: str,
    name: str,
    labels: Mapping[str, str] | None = None,
    timestamp_ns: int | None = None,
    time: str | None = None,
) -> Event:
    """Return the JSON line of a gone series."""
    return {
        "event": "gone",
        "time": time,
        "timestamp_ns": timestamp_ns,
        "kind": kind,
        "name": name,
        "labels": labels or {},
    }


def histogram_total(name: str, **fields: Any) -> Event:
    """Return the JSON line of the total of a histogram."""
    return {
        "event": "histogram_total",
        "time": None,
        "timestamp_ns": None,
        "kind": "histogram",
        "name": name,
        "labels": {},
        "count": 0,
        "sum": 0.0,
        "min": None,
        "max": None,
        "zeros": 0,
        "not_finite": 0,
        "scale": 0,
        "positive": [],
        "negative": [],
        **fields,
    }


ODD = [
    # A complete snapshot
    metric("increment_counter", "absent", 1),
    {"event": "snapshot", "boundary": "begin", "complete": True},
    metric("set_counter", "present", 5),
    {"event": "snapshot", "boundary": "end"},
    # Lengths
    metric("increment_counter", "padded_frame", 1),
    metric("increment_counter", "padded_frame", 1),
    metric("increment_counter", "padded_value", 7),
    # Unknown fields
    metric("increment_counter", "unknown_fields", 2),
    metric("increment_counter", "unknown_fields", 3),
    metric(
        "increment_counter",
        "unknown_fields",
        4,
        timestamp_ns=1_000_000_000,
        time="1970-01-01T00:00:01.000000000Z",
    ),
    # Gone series
    metric("increment_counter", "gone", 1, {"a": "1", "b": ""}),
    metric("set_gauge", "gone", 1.0),
    metric("increment_counter", "stays", 1),
    gone("counter", "gone", {"a": "1", "b": ""}),
    gone("gauge", "gone", None, 7_000_000_000, "1970-01-01T00:00:07.000000000Z"),
    gone("histogram", "stays"),
    gone("counter", ""),
    # Totals of histograms
    metric("record_histogram", "total", 1.0, {"a": "1"}),
    histogram_total(
        "total",
        time="1970-01-01T00:00:09.000000010Z",
        timestamp_ns=9_000_000_010,
        labels={"a": "1"},
        count=9 + 2**40,
        sum=0.5,
        min=-8.0,
        max=8.0,
        zeros=3,
        not_finite=1,
        positive=[[-1, 2], [2, 4]],
        negative=[[0, 2**40]],
    ),
    metric("record_histogram", "total", 2.0, {"a": "1"}),
    histogram_total(""),
    # Labels
    metric("increment_counter", "labels", 1, {"a": "last", "b": ""}),
    metric("increment_counter", "labels", 2, {"a": "last", "b": ""}),
    metric("increment_counter", "labels", 4, {"a": "last"}),
    metric("increment_counter", "labels", 8, {"a": "last"}),
    metric("increment_counter", "labels", 16, {"absent value": ""}),
    metric("increment_counter", "labels", 32, {"": "absent key"}),
    metric("increment_counter", "labels", 64, {"": ""}),
    metric("increment_counter", "labels", 128, {"__proto__": "1"}),
    metric("increment_counter", "labels", 256, {"a": "b,c", "a,b": "c"}),
    metric("increment_counter", "labels", 512, {"a": "b,c", "a,b": "c"}),
    # The order of fields
    metric(
        "set_gauge",
        "order",
        -0.0,
        {"y": "2", "z": "1"},
        3_000_000_004,
        "1970-01-01T00:00:03.000000004Z",
    ),
    metric(
        "set_gauge",
        "order",
        "-Infinity",
        {"y": "2", "z": "1"},
        5_000_000_006,
        "1970-01-01T00:00:05.000000006Z",
    ),
    # Fields that occur more than once
    metric("set_counter", "repeated", 2**63, text="9223372036854775808"),
    metric(
        "increment_counter",
        "split",
        2**64 - 1,
        {"a": "1", "b": "2"},
        7_000_000_008,
        "1970-01-01T00:00:07.000000008Z",
        "18446744073709551615",
    ),
    metric("increment_counter", "variant", 1),
    metadata("histogram", "variant"),
    # Default values
    metric("increment_counter", "zero", 0),
    metric("set_gauge", "zero", 0.0),
    metadata("counter", "zero", ""),
    metadata("counter", ""),
    # Timestamps
    metric("record_histogram", "time", "NaN"),
    metric(
        "record_histogram",
        "time",
        1.7976931348623157e308,
        timestamp_ns=0,
        time="1970-01-01T00:00:00.000000000Z",
    ),
    metric(
        "record_histogram",
        "time",
        5e-324,
        timestamp_ns=-1,
        time="1969-12-31T23:59:59.999999999Z",
    ),
    metric(
        "record_histogram",
        "time",
        1.0,
        timestamp_ns=253_402_300_799_999_999_999,
        time="9999-12-31T23:59:59.999999999Z",
    ),
    # Large frames
    metadata("counter", "large", description="<long>"),
    metric("increment_counter", "large", 1, {"long": "<long>"}),
    metric("increment_counter", "end", 1),
]
"""The JSON lines of all events that a client can use, with long texts `shortened`."""

ODD_METRICS = 38
"""The number of metric events among them, totals of histograms included."""

ODD_TOTALS: Totals = {
    Key(MetricKind.COUNTER, "present", ()): 5,
    Key(MetricKind.COUNTER, "padded_frame", ()): 2,
    Key(MetricKind.COUNTER, "padded_value", ()): 7,
    Key(MetricKind.COUNTER, "unknown_fields", ()): 9,
    Key(MetricKind.COUNTER, "stays", ()): 1,
    Key(MetricKind.HISTOGRAM, "total", (("a", "1"),)): 11 + 2**40,
    Key(MetricKind.HISTOGRAM, "", ()): 0,
    Key(MetricKind.COUNTER, "labels", (("a", "last"), ("b", ""))): 3,
    Key(MetricKind.COUNTER, "labels", (("a", "last"),)): 12,
    Key(MetricKind.COUNTER, "labels", (("absent value", ""),)): 16,
    Key(MetricKind.COUNTER, "labels", (("", "absent key"),)): 32,
    Key(MetricKind.COUNTER, "labels", (("", ""),)): 64,
    Key(MetricKind.COUNTER, "labels", (("__proto__", "1"),)): 128,
    Key(MetricKind.COUNTER, "labels", (("a", "b,c"), ("a,b", "c"))): 768,
    Key(MetricKind.GAUGE, "order", (("y", "2"), ("z", "1"))): bits(-math.inf),
    Key(MetricKind.COUNTER, "repeated", ()): 2**63,
    Key(MetricKind.COUNTER, "split", (("a", "1"), ("b", "2"))): 2**64 - 1,
    Key(MetricKind.COUNTER, "variant", ()): 1,
    Key(MetricKind.COUNTER, "zero", ()): 0,
    Key(MetricKind.GAUGE, "zero", ()): bits(0.0),
    Key(MetricKind.HISTOGRAM, "time", ()): 4,
    Key(MetricKind.COUNTER, "large", (("long", "<long>"),)): 1,
    Key(MetricKind.COUNTER, "end", ()): 1,
}
"""The totals after all events, and the numbers of samples."""
