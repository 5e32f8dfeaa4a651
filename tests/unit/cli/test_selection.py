"""
`metrics-tcp tail` with filters, with an end, and of a recording.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import TWISTD, Daemon
from tests.unit.recording.test_recording import record
from tests.wire_cases import CASES
from txmetrics_tcp import (
    Event,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    encode_metadata,
    encode_metric,
    parse_filter,
)
from txmetrics_tcp._model import Status
from txmetrics_tcp.cli import selection
from txmetrics_tcp.cli.selection import Selection
from txmetrics_tcp.cli.tail import Tail
from txmetrics_tcp.testing import FakeReactor

REQUESTS = Metadata(MetricKind.COUNTER, "requests_total", "count", "requests")
MEMORY = Metadata(MetricKind.GAUGE, "memory", "bytes")
STATUS = Status("shop", 1)


def request(route: str) -> Metric:
    key = Key.of(MetricKind.COUNTER, "requests_total", {"route": route})
    return Metric(key, Operation.INCREMENT_COUNTER, 1, 1)


SET = Metric(Key(MetricKind.GAUGE, "memory"), Operation.SET_GAUGE, 1.0, 1)


class SelectionTests(SynchronousTestCase):
    def select(self, filters: list[str], *events: Event) -> list[Event]:
        select = Selection([parse_filter(text) for text in filters])
        return [selected for event in events for selected in select(event)]

    def test_none(self) -> None:
        """Without filters everything passes, as it comes."""
        events = [STATUS, REQUESTS, MEMORY, request("/"), SET]
        self.assertEqual(self.select([], *events), events)

    def test_description(self) -> None:
        """A description comes before the first event that it is about, once, or not at all."""
        self.assertEqual(
            self.select(
                ["route=/a"],
                *[STATUS, MEMORY, REQUESTS, request("/"), SET, request("/a"), request("/a")],
            ),
            [STATUS, REQUESTS, request("/a"), request("/a")],
        )

    def test_describedLater(self) -> None:
        """One that is said later is shown before what comes then."""
        self.assertEqual(
            self.select(["requests"], request("/"), REQUESTS, MEMORY, request("/")),
            [request("/"), REQUESTS, request("/")],
        )

    def test_any(self) -> None:
        """One of several filters is enough; within one, all terms have to hold."""
        self.assertEqual(
            self.select(["route=/a requests", "kind:g"], request("/"), SET, request("/a")),
            [SET, request("/a")],
        )
        self.assertEqual(self.select(["route=/a kind:g"], request("/"), SET, request("/a")), [])

    def test_losses(self) -> None:
        """Losses are told whatever is filtered."""
        lost = Status("shop", 1, 5, 5)
        self.assertEqual(self.select(["nothing"], STATUS, SET, lost), [STATUS, lost])

    def test_boundedMemory(self) -> None:
        """A server that sends ever new series does not fill the memory."""
        self.patch(selection, "MAX_REMEMBERED", 10)
        select = Selection([parse_filter("c")])
        for number in range(100):
            select(Metadata(MetricKind.COUNTER, f"c{number}"))
        for number in range(100):
            key = Key(MetricKind.COUNTER, f"c{number}")
            metric = Metric(key, Operation.INCREMENT_COUNTER, 1, 1)
            described = [Metadata(MetricKind.COUNTER, key.name)] if number < 10 else []
            self.assertEqual(select(metric), [*described, metric])
        for kept in (select._wanted, select._shown, select._descriptions):
            self.assertLessEqual(len(kept), 10)


class CountTests(SynchronousTestCase):
    def test_count(self) -> None:
        """After so many events of metrics that were printed, and not before they are."""
        reactor = FakeReactor()
        log: list[object] = []
        tail = Tail(
            reactor,
            "there",
            lambda: lambda event: type(event).__name__,
            log.append,
            log.append,
            log.append,
            [parse_filter("requests")],
            2,
        )
        for event in [STATUS, REQUESTS, SET, request("/"), SET, STATUS, request("/"), request("/")]:
            tail.received(event)
        reactor.advance(0)
        self.assertEqual(log, ["Status\nMetadata\nMetric\nStatus\nMetric\n", 0])


class CommandTests(SynchronousTestCase):
    """The command itself."""

    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())
        self.stream = b"".join(case.frame for case in CASES)

    def tail(self, *arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "txmetrics_tcp", "tail"]
        return Daemon(self, *arguments, runner=command).end()

    def test_recording(self) -> None:
        """A recording is printed from its beginning to its end, with units as described."""
        frames = encode_metadata(MEMORY) + encode_metric(SET)
        Path(self.path).write_bytes(record(frames, frames, compress=True))
        status, out, said = self.tail(self.path)
        self.assertEqual((status, said), (0, ""))
        self.assertEqual(out.count("memory 1.0 B"), 2)
        self.assertEqual(out.count("metadata"), 2)

    def test_all(self) -> None:
        """Every event that there is."""
        Path(self.path).write_bytes(record(self.stream))
        status, out, _ = self.tail(self.path, "--json")
        self.assertEqual(status, 0)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(events), sum(case.event is not None for case in CASES))

    def test_cutOff(self) -> None:
        whole = record(encode_metric(SET), encode_metric(SET))
        Path(self.path).write_bytes(whole[:-40])
        status, out, said = self.tail(self.path)
        self.assertEqual((status, out.count("\n")), (0, 1))
        self.assertIn("it was cut off; this was its last whole event", said)

    def test_damaged(self) -> None:
        whole = bytearray(record(encode_metric(SET), encode_metric(SET)))
        whole[-40] ^= 1
        Path(self.path).write_bytes(whole)
        status, out, said = self.tail(self.path)
        self.assertEqual((status, out.count("\n")), (1, 1))
        self.assertIn("it is damaged behind its first", said)
        Path(self.path).write_bytes(record(encode_metric(SET), b"\x02\xff\xff"))
        status, out, said = self.tail(self.path)
        self.assertEqual((status, out.count("\n")), (1, 1))
        self.assertIn("not a metrics stream", said)

    def test_live(self) -> None:
        """Filters, an end by count and one by time, on a daemon."""
        port = str(Daemon(self, "-n", "metrics-tcp", "--listen", "0", runner=TWISTD).port)
        status, out, _ = self.tail(port, "--json", "--filter", "name:process_cpu", "--count", "1")
        self.assertEqual(status, 0)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [(event["event"], event.get("name")) for event in events],
            [
                ("status", None),
                ("metadata", "process_cpu_seconds_total"),
                ("metric", "process_cpu_seconds_total"),
            ],
        )
        status, out, _ = self.tail(port, "--filter", "nothing_like_that", "--duration", "0.3")
        self.assertEqual((status, out.count("\n")), (0, 1))

    def test_help(self) -> None:
        """-TERM at the beginning of a filter would be an option."""
        _, said, _ = self.tail("--help")
        self.assertIn("what is not wanted is written !TERM", " ".join(said.split()))

    def test_bad(self) -> None:
        Path(self.path).write_text("hello")
        for status, arguments, says in [
            (1, ["1", "--duration", "0.2"], "cannot connect to 127.0.0.1:1"),
            (1, [self.path], "it is not a recording of metrics"),
            (2, ["--filter", "kind:x"], "there is no kind 'x'"),
            (2, ["--count", "x"], "invalid number of events value: 'x'"),
            (2, ["--duration", "0"], "invalid duration value: '0'"),
        ]:
            code, _, said = self.tail(*arguments)
            self.assertEqual(code, status, said)
            self.assertIn(says, said)
            self.assertNotIn("Traceback", said)
