"""
The cost of a viewer for a website.

``python -m suite.website KIND`` is the process of the site; the kinds are C{bare}, without metrics,
C{instrumented}, without an exporter, and C{exported}. The command C{stats} answers the site's
processor time and, for an exporter, its port and statistics.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from suite.bench import Bench, Subject, left_out
from suite.figures import Goal, Row, Section
from suite.peers import PATIENCE, NoFigure, Peer, PeerError, Server, python, until
from txmetrics_tcp import (
    MetricsFactory,
    counter,
    describe_histogram,
    gauge,
    histogram,
    set_global_recorder,
)

BARE = "not instrumented"
NO_EXPORTER = "no exporter"
NO_VIEWER = "ours, no viewer"
VIEWER = "ours, one viewer"
SITES = {
    BARE: ("bare", 0),
    NO_EXPORTER: ("instrumented", 0),
    NO_VIEWER: ("exported", 0),
    VIEWER: ("exported", 1),
}
"""The kinds of site and the numbers of viewers, by column."""

RATE = 1_000
CONNECTIONS = 16
EVENTS = 4
"""The number of events that a request records."""

THROUGHPUT = Goal(0.97)
SHARE = Goal(3, False, "%")

LOAD_WAITS = 0.2
"""The share of time that the load generator must spend waiting; otherwise it may be the limit."""

TITLE = "A website"

HOW = """\
A site of twisted.web, in a process of its own, renders a page of 2 KB and logs each request with
Twisted's logger. A request records four events: a counter with route and status, a gauge of
requests in progress, up and down, and a histogram of seconds. The exporter has its default
settings. Another process sends 1,000 requests a second over 16 connections for 1.5 seconds. Then,
"at full speed", it sends a request over each connection as soon as the previous one is answered; it
waits for the site at least a fifth of the time. A latency begins when the request is due. "Beyond
no exporter" is the difference of the processor times of a pair, as a share of one core."""


def run(bench: Bench) -> Section:
    rows = []
    with left_out("all figures"):
        answered, cpu, median, p99, full = bench.alternate(
            5,
            lambda subject: measure(bench, *SITES[subject.name]),
            [Subject(name, True) for name in SITES],
        )
        beyond = {name: shares_beyond(cpu[name], cpu[NO_EXPORTER]) for name in (NO_VIEWER, VIEWER)}
        at = f"at {RATE:,} requests/s"
        rows = [
            Row.of(f"responses {at}", "1/s", answered, NO_EXPORTER, THROUGHPUT),
            Row.of(f"processor time {at}", "µs a request", cpu, NO_EXPORTER),
            Row.of(f"processor time beyond no exporter, {at}", "% of a core", beyond, None, SHARE),
            Row.of(f"median latency {at}", "µs", median, NO_EXPORTER),
            Row.of(f"99th percentile {at}", "µs", p99, NO_EXPORTER),
            Row.of("responses at full speed", "1/s", full, NO_EXPORTER),
        ]
    return Section(TITLE, HOW, rows)


def shares_beyond(cpu: list[float], base: list[float]) -> list[float]:
    """Return the differences of processor times per request, in percent of a core."""
    return [(one - other) * RATE / 1e4 for one, other in zip(cpu, base, strict=True)]


def measure(bench: Bench, kind: str, viewers: int) -> tuple[float, ...]:
    """
    Measure one site.

    @return: at 1,000 requests a second, the responses a second, the processor time of one in
        microseconds, and the median and 99th percentile of latencies in microseconds; at full
        speed, the responses a second.
    """
    seconds = 0.3 if bench.quick else 1.5
    with ExitStack() as stack:
        site: Server = stack.enter_context(Server(True, [*python("suite.website"), kind]))
        if viewers:
            port = site.ask("stats")["port"]
            stack.enter_context(bench.peers.reader(port, viewers))
            until(lambda: len(site.ask("stats")["clients"]) == viewers, PATIENCE, "no viewer")
        load: Peer = stack.enter_context(
            Peer([*python("suite.http_load"), str(site.port), str(CONNECTIONS)])
        )
        load.ask("load", rate=0, seconds=seconds / 4)  # warms up
        before = site.cpu_seconds()
        steady = load.ask("load", rate=RATE, seconds=seconds)
        cpu = site.cpu_seconds() - before
        full = load.ask("load", rate=0, seconds=seconds)
        for account in site.ask("stats").get("clients", ()):
            check(account, steady["requests"] + full["requests"])
    if full["waited"] < LOAD_WAITS:
        raise NoFigure(f"the load generator waited only {full['waited']:.0%} of the time")
    return (
        steady["requests"] / steady["seconds"],
        cpu / steady["requests"] * 1e6,
        steady["p50"] * 1e6,
        steady["p99"] * 1e6,
        full["requests"] / full["seconds"],
    )


def check(account: dict[str, Any], requests: int) -> None:
    """
    Check that the exporter sent a viewer the events of all requests.

    @raise PeerError: it did not.
    """
    sent = account["written"] + account["waiting"]
    if sent < requests * EVENTS or account["dropped_client"] or account["dropped_incoming"]:
        raise PeerError(f"{requests} requests, but the viewer's account is {account}")


def main(kind: str) -> None:
    from twisted.web.resource import Resource
    from twisted.web.server import Request, Site

    from suite.server import reactor, serve

    class Page(Resource):
        isLeaf = True

        def render_GET(self, request: Request) -> bytes:
            request.setHeader(b"content-type", b"text/html; charset=utf-8")
            items = "".join(f"<li><a href='/orders/{one:05}'>Order {one}</a>" for one in range(50))
            return f"<!DOCTYPE html><title>Orders</title><ul>{items}</ul>".encode()

    requests = counter("http_requests_total", route="/")
    in_progress = gauge("http_requests_in_progress")
    seconds = histogram("http_request_seconds", route="/")
    describe_histogram("http_request_seconds", "seconds", "Time to render a page.")

    class Instrumented(Page):
        @in_progress.track_inprogress()
        @seconds.time()
        def render_GET(self, request: Request) -> bytes:
            page = super().render_GET(request)
            requests.labels(status=str(request.code)).increment()
            return page

    exporter: dict[str, Any] = {}
    if kind == "exported":
        factory = MetricsFactory(reactor)
        set_global_recorder(factory.recorder)
        exporter["port"] = reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port

    def answer(_word: str, _options: dict[str, float]) -> dict[str, object]:
        if exporter:
            exporter.update(asdict(factory.stats()))
        return {"cpu_seconds": time.process_time(), **exporter}

    page = Page() if kind == "bare" else Instrumented()
    serve(Site(page), answer)


if __name__ == "__main__":
    main(sys.argv[1])
