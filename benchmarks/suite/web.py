"""
The cost of the page for browsers, for what serves it and in the browser.

``python -m suite.web PORT KIND`` is a process that follows a server; the kinds are C{view}, a plain
client's view, and C{page}.  The command C{stats} answers its processor time and its events.
``python -m suite.web PORT COUNT`` is C{COUNT} viewers of a page; C{stats} answers their bytes.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from suite.bench import Bench, Subject, left_out
from suite.figures import OURS, Goal, Row, Section
from suite.observing import PIECE, RATE, send
from suite.peers import PATIENCE, NoFigure, Peer, Server, python, until
from suite.streams import mixed
from tests.browser import Browser, no_browser
from txmetrics_tcp import Key, Metric, MetricKind, Operation, SourceView
from txmetrics_tcp.web._feed import INTERVAL
from txmetrics_tcp.web._frames import Table

SERIES = 10_000

VIEW = "a plain client's view"
VIEWERS = {"ours, no viewer": (0, 2), "ours, one viewer": (1, 8), "ours, 20 viewers": (20, 13)}
"""The numbers of viewers, and the goals beyond a plain client's view, in percent of a core."""

TAKEN = 0.95
"""The share of the events that must be taken; otherwise the machine is the limit."""

FIRST_ROWS = """
    addEventListener("DOMContentLoaded", () => {
        const observer = new MutationObserver(() => {
            if (!document.querySelector("#body .row .text")?.textContent) return;
            performance.mark("rows");
            observer.disconnect();
        });
        observer.observe(document.getElementById("body"), { childList: true, subtree: true });
    });
"""
"""A script that notes when the page has rows."""

NOTE_CHANGES = """
    window.seen = [];
    const value = () => document.querySelector("#body .row .value").textContent;
    let last = value();
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => seen.push(performance.timeOrigin + performance.now());
    new MutationObserver(() => {
        if (value() === last) return;
        last = value();
        // Runs after the browser has drawn the frame.
        port2.postMessage(null);
    }).observe(document.getElementById("body"), { childList: true, subtree: true });
"""
"""A script that notes in C{seen} when the value of the first row has changed, in milliseconds."""

TITLE = "The page for browsers"

HOW = """\
"A frame" is what a page gets after an increment of each of 10,000 counters, a tenth of them, or
one. A process that follows a prepared stream of 100,000 events a second, of 10,000 counters, gauges
and histograms in equal numbers, serves the page, with its history, to viewers that read all frames;
its processor time is compared with that of a client that keeps only the view. The browser is
headless Chromium, on the same host, with the stream of 100,000 events a second. "First rows" is the
time from the beginning of the navigation; the browser has the page's files in its cache. "Drawing"
is what the page does in an animation frame, sorted by rate. "Increment to pixel" is the time from
an increment in an exporter of 1,000 series, which is otherwise idle, until the browser has drawn
the new value; exporter, page and browser are three processes."""


def frames(bench: Bench) -> list[Row]:
    """Measure changes of a table."""
    now = 0.0
    table = Table(1, lambda: now)
    view = SourceView(lambda: now)
    table.add(view, lambda: now)
    keys = [
        Key.of(MetricKind.COUNTER, f"requests_{number % 100}", {"route": f"/{number:04}"})
        for number in range(SERIES)
    ]
    events = [Metric(key, Operation.INCREMENT_COUNTER, 1, None) for key in keys]
    view.ingest(events)
    table.advance()
    rows = []
    for what, step in (("of all", 1), ("of a tenth", 10), ("of one", SERIES)):
        samples = []
        for _ in bench.rounds(30):
            now += 1.0
            view.ingest(events[::step])
            version = table.version
            begun = time.process_time()
            table.advance()
            table.frame(version)
            samples.append((time.process_time() - begun) * 1e3)
        rows.append(Row.of(f"a frame {what}", "ms", {OURS: samples}, None, Goal(3, False, "ms")))
    return rows


@cache
def prepared(series: int) -> list[bytes]:
    """Return the pieces of a stream of many series."""
    frames = mixed(list(MetricKind), series, max(series, 3_000) // PIECE * PIECE)
    return [b"".join(frames[at : at + PIECE]) for at in range(0, len(frames), PIECE)]


@contextmanager
def stream(series: int) -> Iterator[int]:
    """Send a stream to one client, and yield the port."""
    pieces = prepared(series)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=send, args=(listening, pieces, RATE), daemon=True).start()
        yield listening.getsockname()[1]


@contextmanager
def following(kind: str, series: int) -> Iterator[Server]:
    """Start a process that follows a stream, and wait until it has all series."""
    with stream(series) as port, Server(True, [*python("suite.web"), str(port), kind]) as server:
        until(lambda: server.ask("stats")["events"] > 2 * series, PATIENCE, "no events")
        yield server


def cost(bench: Bench, kind: str, viewers: int) -> float:
    """
    Measure a process that follows the stream.

    @return: its processor time, in percent of a core.
    """
    with ExitStack() as stack:
        server = stack.enter_context(following(kind, 1_000 if bench.quick else SERIES))
        reading = None
        if viewers:
            command = [*python("suite.web"), str(server.port), str(viewers)]
            reading = stack.enter_context(Peer(command))
            until(lambda: min(reading.ask("stats")["bytes"]) > 100_000, PATIENCE, "no frames")
        before, begun = server.ask("stats"), time.perf_counter()
        time.sleep(0.5 if bench.quick else 4.0)
        after, seconds = server.ask("stats"), time.perf_counter() - begun
    taken = (after["events"] - before["events"]) / seconds
    if taken < TAKEN * RATE:
        raise NoFigure(f"{taken:,.0f} of {RATE:,} events a second were taken")
    return float(after["cpu_seconds"] - before["cpu_seconds"]) / seconds * 100


def costs(bench: Bench) -> list[Row]:
    """Measure the processes in turns."""
    # A quick run has no time for all of them.
    names = list(VIEWERS)[-1:] if bench.quick else list(VIEWERS)
    kinds = {VIEW: ("view", 0), **{name: ("page", VIEWERS[name][0]) for name in names}}
    subjects = [Subject(name, True) for name in kinds]
    (cpu,) = bench.alternate(3, lambda one: (cost(bench, *kinds[one.name]),), subjects)
    rows = [Row.of(f"processor time, {SERIES:,} series", "% of a core", cpu)]
    for name in names:
        beyond = {name: [one - base for one, base in zip(cpu[name], cpu[VIEW], strict=True)]}
        goal = Goal(VIEWERS[name][1], False, "%")
        rows.append(Row.of("beyond a plain client's view", "% of a core", beyond, None, goal))
    return rows


def drawing(bench: Bench, series: int, limit: float) -> list[Row]:
    """Measure the browser."""
    first: list[float] = []
    drawn: dict[str, list[float]] = {"median": [], "99th percentile": []}
    with following("page", series) as server, Browser() as browser:
        address = f"http://127.0.0.1:{server.port}/"
        browser.open(address)
        browser.wait_for("metrics.live.series.size === given[0]", series)
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", source=FIRST_ROWS)
        for _ in bench.rounds(3):
            browser.open(f"{address}#sort=-rate")
            browser.wait_for("performance.getEntriesByName('rows').length")
            first.append(browser.run("return performance.getEntriesByName('rows')[0].startTime"))
            browser.wait_for("metrics.drawTimes.length >= given[0]", 10)
            browser.run("metrics.drawTimes.length = 0")
            browser.wait_for("metrics.drawTimes.length >= given[0]", 10 if bench.quick else 100)
            times = sorted(browser.run("return metrics.drawTimes"))
            drawn["median"].append(times[len(times) // 2])
            drawn["99th percentile"].append(times[len(times) * 99 // 100])
    what = f"{series:,} series"
    return [
        Row.of(f"{what}: first rows", "ms", {OURS: first}, None, Goal(limit, False, "ms")),
        Row.of(f"{what}: drawing, median", "ms", {OURS: drawn["median"]}),
        Row.of(
            f"{what}: drawing, 99th percentile",
            "ms",
            {OURS: drawn["99th percentile"]},
            None,
            Goal(16, False, "ms"),
        ),
    ]


def pixels(bench: Bench) -> list[Row]:
    """Measure the time from an increment to its pixels."""
    samples = []
    with (
        bench.peers.server(True, 1024, 1000) as server,
        Server(True, [*python("suite.web"), str(server.port), "page"]) as page,
        Browser() as browser,
    ):
        server.record(count=1)
        browser.open(f"http://127.0.0.1:{page.port}/#sort=-name")
        # The last series is the one without a number.
        browser.wait_for("metrics.live.series.size > 1000")
        browser.wait_for("metrics.rows.lines[0]?.labels.every(([name]) => name !== 'number')")
        browser.run(NOTE_CHANGES)
        for number in bench.rounds(200):
            # The increments are spread over the time between two frames.
            time.sleep(number * 0.37 % 1 * INTERVAL)
            begun = time.time()
            server.record(count=1)
            browser.wait_for("seen.length > given[0]", number)
            samples.append(browser.run("return seen.at(-1)") - begun * 1e3)
    samples.sort()
    last = [samples[len(samples) * 99 // 100]]
    return [
        Row.of("increment to pixel", "ms", {OURS: samples}, None, Goal(100, False, "ms")),
        Row.of(
            "increment to pixel, 99th percentile",
            "ms",
            {OURS: last},
            None,
            Goal(200, False, "ms"),
        ),
    ]


def run(bench: Bench) -> Section:
    rows = frames(bench)
    with left_out("processor time of the page"):
        rows += costs(bench)
    if no_browser:
        print(f"left out: the browser: it {no_browser}", flush=True)
    else:
        rows += pixels(bench)
        rows += drawing(bench, 1_000, 400)
        if not bench.quick:
            rows += drawing(bench, SERIES, 800)
    return Section(TITLE, HOW, rows)


def follow(port: str, kind: str) -> None:
    """Follow a server, and serve the page if the kind is C{page}."""
    from twisted.web.resource import Resource

    from suite.server import reactor, serve
    from txmetrics_tcp._net.endpoints import client_endpoint
    from txmetrics_tcp.observe.sources import LiveSource
    from txmetrics_tcp.web import MetricsWeb
    from txmetrics_tcp.web._site import PageSite

    page: Any = Resource()
    if kind == "page":
        web = MetricsWeb(reactor, port, history=600)
        web.startService()
        (source,) = web._sources
        page = web.resource
    else:
        source = LiveSource(reactor, port, client_endpoint(reactor, port))
        source.start()

    def answer(_word: str, _options: dict[str, float]) -> dict[str, object]:
        return {"cpu_seconds": time.process_time(), "events": source.view.events}

    serve(PageSite(reactor, page), answer)


def view(port: int, count: int) -> None:
    """Read the streams of a page."""
    from suite.commands import commands, say

    read = [0] * count

    def receive(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            while data := client.recv(1 << 18):
                read[number] += len(data)

    for number in range(count):
        threading.Thread(target=receive, args=(number,), daemon=True).start()
    say({})
    for _ in commands():
        say({"bytes": read})


if __name__ == "__main__":
    if sys.argv[2].isdigit():
        view(int(sys.argv[1]), int(sys.argv[2]))
    else:
        follow(*sys.argv[1:])
