"""
Draw the screenshot of the viewer, docs/reference/observe.svg::

    python docs/contributing/make_picture.py [FILE]

The screenshot shows two simulated shops.  The simulation uses fixed seeds and a fixed clock, so
the screenshot only changes when the viewer does.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from txmetrics_tcp import Event, Key, Metadata, Metric, MetricKind, Operation, Status
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.export import plain_svg
from txmetrics_tcp.observe.sources import Source, State

PICTURE = Path(__file__).resolve().parents[1] / "reference" / "observe.svg"
SIZE = 132, 36
SECONDS = 95
WHEN = 1_795_363_464

DESCRIPTIONS = (
    Metadata(MetricKind.COUNTER, "http_requests_total", "count", "Answered requests."),
    Metadata(MetricKind.HISTOGRAM, "http_request_seconds", "seconds", "From accept to last byte."),
    Metadata(MetricKind.HISTOGRAM, "db_query_seconds", "seconds", "Duration of a query."),
    Metadata(MetricKind.HISTOGRAM, "reactor_lag_seconds", "seconds", "Delay of timers."),
    Metadata(MetricKind.GAUGE, "process_resident_bytes", "bytes", "Memory in use."),
    Metadata(MetricKind.COUNTER, "network_sent_bytes_total", "bytes", "Sent bytes."),
    Metadata(MetricKind.GAUGE, "cpu_usage_percent", "percent", "Usage of all processors."),
)

ROUTES = (("/", 55, 0.004), ("/api/orders", 24, 0.021), ("/api/users", 31, 0.009))


class Shop(Source):
    """A simulated source with its own clock."""

    def __init__(self, label: str, seed: int) -> None:
        self._numbers = random.Random(seed)
        self._second = 0.0
        super().__init__(label, SourceView(self.view_now), self.view_now)
        self.view.connected()
        self._set_state(State.CONNECTED)

    def view_now(self) -> float:
        return self._second

    def feed(self, second: int, share: float, status: Status) -> None:
        """Simulate one second."""
        self._second = second + 0.99
        if second == 0:
            self.view.ingest([status, *DESCRIPTIONS])
        self.view.ingest(self._events(second, share))
        if second > SECONDS - 5:
            self.tick()

    def _events(self, second: int, share: float) -> Iterator[Event]:
        numbers = self._numbers
        when = (WHEN + second) * 1_000_000_000
        wave = 1 + 0.5 * math.sin(second / 9) + 0.2 * math.sin(second / 2.3)

        def event(operation: Operation, name: str, value: float, **labels: object) -> Metric:
            moment = when + numbers.randrange(1_000_000_000)
            return Metric(Key.of(operation.kind, name, labels), operation, value, moment)

        sent = 0
        for route, base, seconds in ROUTES:
            requests = int(base * wave * share * numbers.uniform(0.8, 1.2))
            failed = numbers.random() < 0.05
            labels = {"method": "GET", "route": route}
            yield event(
                Operation.INCREMENT_COUNTER, "http_requests_total", requests, **labels, status=200
            )
            if failed:
                yield event(
                    Operation.INCREMENT_COUNTER, "http_requests_total", 1, **labels, status=500
                )
            for _ in range(requests):
                took = numbers.lognormvariate(math.log(seconds), 0.6)
                yield event(Operation.RECORD_HISTOGRAM, "http_request_seconds", took, route=route)
                sent += numbers.randrange(800, 24_000)
        for table in ("orders", "users"):
            for _ in range(int(12 * wave * share)):
                took = numbers.lognormvariate(-6.2, 0.8)
                yield event(Operation.RECORD_HISTOGRAM, "db_query_seconds", took, table=table)
        yield event(Operation.RECORD_HISTOGRAM, "reactor_lag_seconds", numbers.expovariate(900))
        yield event(Operation.INCREMENT_COUNTER, "network_sent_bytes_total", sent, device="eth0")
        memory = (212 + second % 40 * 0.9 + numbers.random()) * 2**20
        yield event(Operation.SET_GAUGE, "process_resident_bytes", memory)
        busy = round(38 * wave * share + numbers.random() * 6, 1)
        yield event(Operation.SET_GAUGE, "cpu_usage_percent", busy)
        queued = float(max(0, int(8 * (wave - 0.9) + numbers.randrange(3))))
        yield event(Operation.SET_GAUGE, "queue_length", queued, queue="mail")


async def picture() -> str:
    shops = [Shop("127.0.0.1:5000", 1), Shop("web2.example:5000", 2)]
    status = Status("shop 2.4", 1)
    for second in range(SECONDS):
        for shop, share in zip(shops, (1.0, 0.6), strict=True):
            shop.feed(second, share, status)
    shops[1].view.ingest([Status("shop 2.4", 1, 0, 1204)])
    app = ObserveApp(shops)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("slash", *"-status=500", "enter")
        await pilot.press("home", *["down"] * 6, "enter")
        # A series keeps its last events only while its details are open.
        for second in range(SECONDS, SECONDS + 3):
            for shop, share in zip(shops, (1.0, 0.6), strict=True):
                shop.feed(second, share, status)
        app.redraw()
        await pilot.pause()
        return plain_svg(app.export_screenshot(title=app.TITLE))


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    path.write_text(asyncio.run(picture()), encoding="utf-8")
