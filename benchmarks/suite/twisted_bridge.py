"""
The cost of measuring Twisted, Scrapy, logging and asyncio.

``python -m suite.twisted_bridge COUNT`` measures each call without and with the bridge, and prints
nanoseconds by name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.host import nanoseconds, timer
from suite.peers import environment, python

TITLE = "Measuring Twisted, Scrapy and logging"

ALONE = "without"
ASYNCIO = "sample of asyncio's lag"

GOALS = {
    "twisted.web request": 10_000,
    "twisted.logger event": 1_500,
    "LoopingCall call": 4_000,
    "logging record": 1_500,
    "Scrapy inc_value": 2_500,
}
"""By name, the goal for the cost on top, in nanoseconds."""

HOW = """\
The least processor time of 25 times 1,000 calls in a loop, without the loop: without the bridge and
with it, in turns, in the same process. Without a client, so it includes applying the log to the
totals. A request is a GET on a fake connection that stays open, answered with four bytes; an event
has one other observer, and a record one other handler, that do nothing; a looping call is made by a
fake clock and does nothing. Readings are made once a second, samples of the lag ten times."""


def run(bench: Bench) -> Section:
    measured: dict[str, list[float]] = {}
    for _ in bench.rounds(5):
        command = [*python("suite.twisted_bridge"), "100" if bench.quick else "1000"]
        done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=True)
        for name, value in json.loads(done.stdout).items():
            measured.setdefault(name, []).append(value)
    rows = []
    for name, goal in GOALS.items():
        if f"alone {name}" not in measured:
            print(f"left out: {name}: not installed", flush=True)
            continue
        alone, with_bridge = measured[f"alone {name}"], measured[f"measured {name}"]
        on_top = [b - a for a, b in zip(alone, with_bridge, strict=True)]
        rows.append(Row.of(name, "ns", {OURS: with_bridge, ALONE: alone}, ALONE))
        rows.append(Row.of(f"{name}, on top", "ns", {OURS: on_top}, None, Goal(goal, False, "ns")))
    for name in ("reading of the thread pool", "sample of the reactor's lag", ASYNCIO):
        rows.append(Row.of(name, "ns", {OURS: measured[name]}, None, Goal(20_000, False, "ns")))
    return Section(TITLE, HOW, rows)


def main() -> None:
    from twisted.internet.address import IPv4Address
    from twisted.internet.task import Clock, LoopingCall
    from twisted.logger import Logger, LogPublisher
    from twisted.python.threadpool import ThreadPool
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    from txmetrics_tcp import MetricsFactory, set_global_recorder
    from txmetrics_tcp._collectors.reactor_lag import LagSampler, LagService
    from txmetrics_tcp.bridges import twisted as bridge
    from txmetrics_tcp.bridges.asyncio import LoopMeasurement
    from txmetrics_tcp.bridges.logging import CountingHandler
    from txmetrics_tcp.testing import FakeReactor, PausingTransport

    count = int(sys.argv[1])
    recorder = MetricsFactory(FakeReactor()).recorder
    set_global_recorder(recorder)
    found: dict[str, float] = {}

    def nanos(call: Callable[[], object]) -> float:
        return nanoseconds(timer("call()", {"call": call}), count)

    def measure(
        name: str, alone: Callable[[], object] | None, measured: Callable[[], object]
    ) -> None:
        """Measure the calls in turns."""
        for _ in range(5):
            if alone is not None:
                key = f"alone {name}"
                found[key] = min(found.get(key, 1e9), nanos(alone))
            key = f"measured {name}" if alone else name
            found[key] = min(found.get(key, 1e9), nanos(measured))

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            return b"page"

    def request(site: Site) -> Callable[[], object]:
        peer = IPv4Address("TCP", "127.0.0.1", 1)
        transport = PausingTransport(peer=peer)
        transport.connect(site.buildProtocol(peer))

        def get() -> None:
            transport.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            transport.drain()

        return get

    def page() -> Site:
        # The log of requests is not measured.
        site = Site(Page(), reactor=Clock())
        site.log = lambda request: None
        return site

    site = page()
    bridge.measure_site(site)
    measure("twisted.web request", request(page()), request(site))

    def log(*observers: Any) -> Callable[[], object]:
        log = Logger("shop", observer=LogPublisher(lambda event: None, *observers))
        return lambda: log.info("an event")

    measure("twisted.logger event", log(), log(bridge.CountingObserver()))

    def loop(measured: bool) -> Callable[[], object]:
        loop = LoopingCall(int)
        loop.clock = clock = Clock()
        if measured:
            bridge.measure_looping_call(loop, "loop")
        loop.start(1.0)
        return lambda: clock.advance(1.0)

    measure("LoopingCall call", loop(False), loop(True))

    class Nothing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pass

    def logger(*handlers: logging.Handler) -> Callable[[], object]:
        logger = logging.getLogger(f"shop.{len(handlers)}")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        for handler in (Nothing(), *handlers):
            logger.addHandler(handler)
        return lambda: logger.info("a record")

    measure("logging record", logger(), logger(CountingHandler()))

    try:
        from scrapy.settings import Settings
        from scrapy.statscollectors import MemoryStatsCollector

        from txmetrics_tcp.bridges.scrapy import StreamingStatsCollector
    except ImportError:
        pass
    else:
        crawler: Any = SimpleNamespace(settings=Settings(), spidercls=SimpleNamespace(name="s"))
        key = "downloader/response_status_count/200"
        alone, measured = MemoryStatsCollector(crawler), StreamingStatsCollector(crawler)
        measure("Scrapy inc_value", lambda: alone.inc_value(key), lambda: measured.inc_value(key))

    reactor: Any = SimpleNamespace(getThreadPool=lambda: pool)
    pool = ThreadPool(0, 10)
    measure("reading of the thread pool", None, bridge._ThreadPoolCollector(recorder, reactor))

    def sample(sampler: LagSampler) -> Callable[[], object]:
        def take() -> None:
            sampler._sample()
            sampler.stop()

        return take

    clock: Any = Clock()
    lag = LagService(recorder, 1.0, clock)
    measure("sample of the reactor's lag", None, sample(lag._sampler))
    event_loop = asyncio.new_event_loop()
    measurement = LoopMeasurement(recorder, 1.0, event_loop)
    measure(ASYNCIO, None, sample(measurement._sampler))
    event_loop.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
