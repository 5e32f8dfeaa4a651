"""
The counts that ``metrics-tcp tail`` prints instead of initial descriptions and totals.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, run, serving
from tests.recordings import MEMORY, REQUESTS, SET, increment, record
from tests.unit.codec.test_wire import encode
from txmetrics_tcp import (
    Distribution,
    Event,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    Snapshot,
    Status,
)
from txmetrics_tcp._recording.blocks import MAGIC
from txmetrics_tcp.cli import tail
from txmetrics_tcp.cli.tail import COUNTS_DELAY
from txmetrics_tcp.testing import PausingTransport

BEGIN, END = Snapshot.BEGIN_COMPLETE, Snapshot.END
LOST = Status("s", 1, 5, 0)
ORDERS = Metadata(MetricKind.COUNTER, "requests_total", "count", "How many.")
TOTAL = Metric(REQUESTS, Operation.SET_COUNTER, 41, 1)
ONE = Metric(REQUESTS, Operation.INCREMENT_COUNTER, 1, 1)
GONE = Gone(SET.key, 1)
LATENCY = HistogramTotal(Key(MetricKind.HISTOGRAM, "latency"), Distribution.of([1.0, 2.0]), 1)


def frames(*events: Event) -> bytes:
    return b"".join(map(encode, events))


def shortened(out: str) -> list[str]:
    """Return lines with counts without their hint, and of other lines the kind."""
    lines = []
    for line in out.splitlines():
        text, hint, _ = line.partition(" (--verbose prints them)")
        first, second, *_ = text.split()
        counts = " ".join(text.split())
        lines.append(counts if hint else second if ":" in first else first)
    return lines


class SummaryTests(SynchronousTestCase):
    def assert_prints(self, events: list[Event], *expected: str, filters: str = "") -> None:
        """Check the lines of a recording, of a live stream and of a raw capture."""
        stream = frames(*events)
        path = self.mktemp()
        Path(path).write_bytes(record(stream))
        options = ["--filter", filters] if filters else []
        recorded = run("tail", path, *options)
        self.assertEqual(shortened(recorded.out), [*expected])
        Path(path).write_bytes(stream)
        for ended in (
            run("tail", "--raw", path, *options),
            run("tail", "5000", "--duration", "9", *options, on=serving(stream)),
        ):
            self.assertEqual(ended.out, recorded.out)

    def test_snapshot(self) -> None:
        """One line stands for descriptions and totals; events follow it."""
        self.assert_prints(
            [LOST, ORDERS, MEMORY, BEGIN, TOTAL, SET, END, ONE, SET],
            "status",
            "snapshot 2 descriptions, 2 totals",
            "counter/increment",
            "gauge/set",
        )
        self.assert_prints([ORDERS, BEGIN, TOTAL, END], "snapshot 1 description, 1 total")

    def test_histogramTotals(self) -> None:
        """Totals of histograms are counted like others; outside a snapshot, they are printed."""
        self.assert_prints(
            [LOST, BEGIN, TOTAL, LATENCY, LATENCY, END, LATENCY, BEGIN, LATENCY, END],
            *["status", "snapshot 3 totals", "histogram/set", "snapshot 1 total"],
        )
        self.assert_prints(
            [LOST, BEGIN, TOTAL, SET, LATENCY, END, LATENCY, ONE],
            *["status", "snapshot 1 total", "histogram/set"],
            filters="kind:h",
        )

    def test_nothing(self) -> None:
        """Without descriptions and totals, there is no line."""
        self.assert_prints([LOST, BEGIN, END, ONE], "status", "counter/increment")

    def test_noSnapshot(self) -> None:
        """A Rust server sends descriptions only."""
        self.assert_prints(
            [ORDERS, MEMORY, ONE, SET], "metadata 2 descriptions", "counter/increment", "gauge/set"
        )

    def test_lateDescription(self) -> None:
        """A description after the beginning of the stream is printed."""
        self.assert_prints(
            [BEGIN, TOTAL, END, MEMORY, SET], "snapshot 1 total", "metadata", "gauge/set"
        )
        self.assert_prints([ONE, MEMORY, SET], "counter/increment", "metadata", "gauge/set")
        self.assert_prints([GONE, MEMORY], "gauge/gone", "metadata")

    def test_resync(self) -> None:
        """A resync is one line, too, also with a description or a status within."""
        self.assert_prints(
            [LOST, ORDERS, ONE, LOST, Snapshot.BEGIN, TOTAL, MEMORY, LOST, SET, END, ONE],
            *["status", "metadata 1 description", "counter/increment", "status", "status"],
            *["snapshot 1 description, 2 totals", "counter/increment"],
        )

    def test_unfinished(self) -> None:
        """A snapshot that the stream, or another event, ends is counted up to there."""
        self.assert_prints([ORDERS, BEGIN, TOTAL], "snapshot 1 description, 1 total")
        for event, printed in (ONE, "counter/increment"), (GONE, "gauge/gone"):
            self.assert_prints(
                [ORDERS, BEGIN, SET, event, SET, BEGIN, TOTAL, SET, END],
                *["snapshot 1 description, 1 total", printed, "gauge/set", "snapshot 2 totals"],
            )

    def test_filters(self) -> None:
        """With filters, only what they select is counted."""
        events: list[Event] = [LOST, ORDERS, MEMORY, BEGIN, TOTAL, SET, END, ONE, SET]
        counts = "snapshot 1 description, 1 total"
        self.assert_prints(events, "status", counts, "gauge/set", filters="memory")
        self.assert_prints(events, "status", filters="nothing")
        self.assert_prints([ORDERS, MEMORY, ONE, SET], "metadata", "gauge/set", filters="memory")

    def test_connections(self) -> None:
        """Each connection has its own counts, also if it ends within a snapshot."""
        path = self.mktemp()
        one = frames(ORDERS, BEGIN, TOTAL)
        Path(path).write_bytes(record(one) + record(one)[len(MAGIC) :])
        counts = "snapshot 1 description, 1 total"
        self.assertEqual(shortened(run("tail", path).out), [counts, counts])

        def served(transport: PausingTransport) -> None:
            transport.receive(one)
            transport.lose()

        on = CommandReactor(served)
        code, out, said = run("tail", "5000", "--duration", "2", on=on)
        self.assertEqual(code, 0)
        self.assertEqual(shortened(out), [counts] * said.count("disconnected from"))

    def test_delay(self) -> None:
        """If no event follows, the line is printed after a while, and events after it at once."""
        stream = frames(ORDERS, BEGIN, TOTAL)
        on = CommandReactor(lambda transport: transport.receive(stream))
        printed: list[tuple[float, str]] = []
        write = lambda text: printed.append((on.seconds(), text))  # noqa: E731
        with mock.patch.object(tail, "standard_output", lambda: mock.Mock(write=write)):
            run("tail", "5000", "--duration", "9", on=on)
        ((when, text),) = printed
        self.assertEqual(when, COUNTS_DELAY)
        self.assertEqual(shortened(text), ["snapshot 1 description, 1 total"])

    def test_all(self) -> None:
        """With C{--verbose} and C{--json}, each description and total is printed."""
        events: list[Event] = [LOST, ORDERS, BEGIN, TOTAL, LATENCY, END, ONE]
        for options in ["-v"], ["--verbose"], ["--json"]:
            options += ["5000", "--duration", "1"]
            _, out, _ = run("tail", *options, on=serving(frames(*events)))
            self.assertEqual(out.count("\n"), len(events))

    def test_count(self) -> None:
        """C{--count} counts printed metric events: totals only with C{--verbose}."""
        stream = frames(ORDERS, BEGIN, TOTAL, LATENCY, END) + increment(7) + increment(8)
        shown = ([], " 8\n"), (["-v"], " max 2.0\n"), (["--json"], '"negative":[]}\n')
        for options, last in shown:
            code, out, _ = run("tail", "5000", "--count", "2", *options, on=serving(stream))
            self.assertEqual((code, out.endswith(last)), (0, True), out)
