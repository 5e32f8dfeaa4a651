"""
Selection of the events that ``metrics-tcp tail`` prints, by filters and by count.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.recordings import MEMORY, SET
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
    parse_filter,
)
from txmetrics_tcp._model import Status
from txmetrics_tcp.cli import selection
from txmetrics_tcp.cli.messages import ConnectionMessages
from txmetrics_tcp.cli.selection import Selection
from txmetrics_tcp.cli.tail import Printer, Tail
from txmetrics_tcp.testing import FakeReactor

REQUESTS = Metadata(MetricKind.COUNTER, "requests_total", "count", "requests")
STATUS = Status("shop", 1)


def request(route: str) -> Metric:
    key = Key.of(MetricKind.COUNTER, "requests_total", {"route": route})
    return Metric(key, Operation.INCREMENT_COUNTER, 1, 1)


class SelectionTests(SynchronousTestCase):
    def select(self, filters: list[str], *events: Event) -> list[Event]:
        select = Selection([parse_filter(text) for text in filters])
        return [selected for event in events for selected in select(event)]

    def test_noFilters(self) -> None:
        """Without filters, all events are selected in their order."""
        events = [STATUS, REQUESTS, MEMORY, request("/"), SET]
        self.assertEqual(self.select([], *events), events)

    def test_description(self) -> None:
        """A description is selected once, before the first selected event of its metric."""
        self.assertEqual(
            self.select(
                ["route=/a"],
                *[STATUS, MEMORY, REQUESTS, request("/"), SET, request("/a"), request("/a")],
            ),
            [STATUS, REQUESTS, request("/a"), request("/a")],
        )

    def test_lateDescription(self) -> None:
        """A description that follows events of its metric precedes the next selected event."""
        self.assertEqual(
            self.select(["requests"], request("/"), REQUESTS, MEMORY, request("/")),
            [request("/"), REQUESTS, request("/")],
        )

    def test_severalFilters(self) -> None:
        """A series must match one filter, and all terms of this filter."""
        self.assertEqual(
            self.select(["route=/a requests", "kind:g"], request("/"), SET, request("/a")),
            [SET, request("/a")],
        )
        self.assertEqual(self.select(["route=/a kind:g"], request("/"), SET, request("/a")), [])

    def test_gone(self) -> None:
        """A gone series is selected like its events."""
        gone = [Gone(request(route).key, 1) for route in ("/", "/a")]
        self.assertEqual(self.select(["route=/a"], REQUESTS, *gone), [REQUESTS, gone[1]])
        self.assertEqual(self.select([], REQUESTS, *gone), [REQUESTS, *gone])

    def test_histogramTotal(self) -> None:
        """The total of a histogram is selected like its samples, after its description."""
        described = Metadata(MetricKind.HISTOGRAM, "latency")
        totals = [
            HistogramTotal(
                Key.of(MetricKind.HISTOGRAM, "latency", {"route": route}), Distribution.of([1.0])
            )
            for route in ("/", "/a")
        ]
        self.assertEqual(
            self.select(["route=/a"], REQUESTS, described, *totals), [described, totals[1]]
        )
        self.assertEqual(self.select([], described, *totals), [described, *totals])

    def test_status(self) -> None:
        """A status is selected with any filter, since it reports dropped events."""
        lost = Status("shop", 1, 5, 5)
        self.assertEqual(self.select(["nothing"], STATUS, SET, lost), [STATUS, lost])

    def test_boundedMemory(self) -> None:
        """The memory is bounded, even if the server keeps sending new series."""
        self.patch(selection, "CACHE_BYTES", 100_000)
        select = Selection([parse_filter("c")])
        long = "c" * 9_000
        for number in range(100):
            select(Metadata(MetricKind.COUNTER, f"{long}{number}"))
            select(Metadata(MetricKind.COUNTER, "c", description=f"{number}"))
            self.assertLess(sum(len(name) for _, name in select._descriptions), 100_000)
        for number in range(100):
            key = Key(MetricKind.COUNTER, f"{long}{number}")
            metric = Metric(key, Operation.INCREMENT_COUNTER, 1, 1)
            described = [Metadata(MetricKind.COUNTER, key.name)] if number < 10 else []
            self.assertEqual(select(metric), [*described, metric])
            self.assertEqual(select(metric), [metric])
            self.assertLess(sum(len(key.name) for key in select._matches), 100_000)
            self.assertLess(sum(len(name) for _, name in select._shown), 100_000)
        # What is selected makes room for further descriptions.
        described = [Metadata(MetricKind.COUNTER, "c" * 90_000), Metadata(MetricKind.COUNTER, "c")]
        select(described[0])
        key = Key(MetricKind.COUNTER, described[0].name)
        metric = Metric(key, Operation.INCREMENT_COUNTER, 1, 1)
        self.assertEqual(select(metric), [described[0], metric])


class CountTests(SynchronousTestCase):
    def test_count(self) -> None:
        """C{--count} stops after N printed metric events, when they have been written."""
        reactor = FakeReactor()
        log: list[object] = []
        printer = Printer(reactor, log.append, log.append, log.append, 2)
        messages = ConnectionMessages("there", reactor, log.append, False)
        # The count is over all sources.
        tail, other = (
            Tail(
                printer,
                messages,
                lambda: lambda event: type(event).__name__,
                [parse_filter("requests")],
            )
            for _ in range(2)
        )
        for event in [STATUS, REQUESTS, SET, request("/"), SET, STATUS, request("/"), request("/")]:
            tail.received(event)
        other.received(request("/"))
        reactor.advance(0)
        self.assertEqual(log, ["Status\nMetadata\nMetric\nStatus\nMetric\n", 0])
