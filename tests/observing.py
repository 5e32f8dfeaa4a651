"""
Runs the viewer without a terminal and without a network.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

from textual.events import Key as Pressed
from textual.pilot import Pilot

from txmetrics_tcp import Event, Key, Metadata, Metric, MetricKind, Operation, Status
from txmetrics_tcp._view.series import SourceView
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.row import Row
from txmetrics_tcp.observe.sources import Source, State

SECOND = 1_000_000_000
WHEN = 1_795_363_464 * SECOND
"""2026-11-22T16:04:24Z"""

_told: WeakKeyDictionary[ObserveApp, list[str]] = WeakKeyDictionary()
"""What each app has said in its corner."""

HOPS = 3
"""From how many widgets to the next a message may go, more than any does."""


class FedSource(Source):
    """
    A source that a test feeds.

    @ivar seconds_passed: the time, for the view and for all else.
    """

    def __init__(self, label: str = "here:1") -> None:
        self.seconds_passed = 1000.0
        super().__init__(label, SourceView(self.clock), self.clock)
        self.started = self.stopped = 0
        self.turn(State.CONNECTED)
        self.view.connected()

    def clock(self) -> float:
        return self.seconds_passed

    def turn(self, state: State, note: str = "") -> None:
        self._turn(state, note)

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.stopped += 1

    def feed(self, events: Iterable[Event], seconds: float = 1.0) -> None:
        """Let time pass, and events come."""
        self.seconds_passed += seconds
        self.view.ingest(events)


def event(
    operation: Operation, name: str, value: float, labels: dict[str, str] | None = None
) -> Metric:
    return Metric(Key.of(operation.kind, name, labels), operation, value, WHEN)


def count(name: str, value: int = 1, **labels: str) -> Metric:
    return event(Operation.INCREMENT_COUNTER, name, value, labels)


def gauge(name: str, value: float, **labels: str) -> Metric:
    return event(Operation.SET_GAUGE, name, value, labels)


def sample(name: str, value: float, **labels: str) -> Metric:
    return event(Operation.RECORD_HISTOGRAM, name, value, labels)


def some_events() -> list[Event]:
    """A few series of each kind; their order by name is not that by value or by rate."""
    return [
        Status("a program", 1),
        Metadata(MetricKind.HISTOGRAM, "latency", "seconds", "How long it took."),
        Metadata(MetricKind.GAUGE, "memory", "bytes", "In use."),
        count("answers", 30, route="/", status="200"),
        count("answers", 10, route="/users", status="404"),
        count("bytes_sent", 20),
        gauge("memory", 1536.0),
        *(sample("latency", number / 1000, route="/") for number in range(1, 101)),
    ]


Scenario = Callable[[Pilot[int], ObserveApp], Awaitable[None]]


def watch(
    scenario: Scenario,
    *sources: Source,
    size: tuple[int, int] = (120, 40),
    export_dir: Path | None = None,
) -> ObserveApp:
    """
    Run the viewer for as long as a scenario takes.

    @return: the app, when it has ended.
    """
    if not sources:
        source = FedSource()
        source.feed(some_events())
        sources = (source,)
    app = ObserveApp(sources, export_dir)
    app.animation_level = "none"
    _told[app] = []
    notify = app.notify

    def note(message: str, **how: Any) -> None:
        _told[app].append(message)
        # The app's own four seconds are soon over on a machine that is busy.
        notify(message, **{**how, "timeout": 3600})

    app.notify = note  # type: ignore[method-assign]

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:

            async def until_settled(least: float) -> None:
                await settle(pilot)

            # After each key the pilot would wait until this process needs no more time of the
            # processor, which takes long where it always needs some.
            with (
                mock.patch("textual.app.wait_for_idle", until_settled),
                mock.patch("textual.pilot.wait_for_idle", until_settled),
            ):
                await draw(pilot, app)
                await scenario(pilot, app)

    # A loop of its own, and none afterwards: trial runs on another reactor.
    loop = asyncio.new_event_loop()
    # In Python's development mode it would look at each coroutine's frames, of which there are
    # thousands.
    loop.set_debug(False)
    # A viewer allocates so much as it starts that collecting garbage takes a quarter of the time.
    gc.disable()
    try:
        loop.run_until_complete(run())
    finally:
        gc.enable()
        loop.close()
    return app


async def settle(pilot: Pilot[int]) -> None:
    """
    Wait until all widgets have handled what they were sent, and what they have sent each other
    for that.
    """
    for _ in range(HOPS):
        # Until the messages are handled that are there now.
        await pilot.pause(0)


def type_fast(app: ObserveApp, *keys: str) -> None:
    """Press keys before any of them is handled."""
    for key in keys:
        app.post_message(Pressed(key, key if len(key) == 1 else None))


async def draw(pilot: Pilot[int], app: ObserveApp) -> None:
    """Have a frame drawn now."""
    for source in app.rows.sources:
        source.tick()
    app.redraw()
    await pilot.pause()


def drawn(widget: Any) -> list[str]:
    """What a widget that draws lines shows."""
    if hasattr(widget, "get_strips"):
        return [strip.text for strip in widget.get_strips()]
    return [widget.render_line(y).text for y in range(widget.size.height)]


def drawn_text(app: ObserveApp, selector: str) -> str:
    """What the screen shows where the first line of a widget is, with what is in that."""
    region = app.screen.query_one(selector).region
    line = app.screen._compositor.render_strips()[region.y]
    return line.crop(region.x, region.right).text


def listed(app: ObserveApp) -> list[str]:
    """What the table lists: series as text, and the titles of groups."""
    return [str(line.key) if isinstance(line, Row) else line.title for line in app.rows.lines]


def told(app: ObserveApp) -> list[str]:
    """What the app has said in its corner."""
    return _told[app]
