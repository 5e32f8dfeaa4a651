"""
Run the viewer without a terminal and without a network.
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

_messages: WeakKeyDictionary[ObserveApp, list[str]] = WeakKeyDictionary()
"""The messages that each app has shown as toasts."""

HOPS = 3
"""An upper limit for the number of widgets that pass on a message."""


class FedSource(Source):
    """
    A source that gets its events from a test.

    @ivar seconds_passed: the time on the source's and the view's clock.
    """

    def __init__(self, label: str = "here:1") -> None:
        self.seconds_passed = 1000.0
        super().__init__(label, SourceView(self.clock), self.clock)
        self.started = self.stopped = 0
        self.set_state(State.CONNECTED)
        self.view.connected()

    def clock(self) -> float:
        return self.seconds_passed

    def set_state(self, state: State, note: str = "") -> None:
        self._set_state(state, note)

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.stopped += 1

    def feed(self, events: Iterable[Event], seconds: float = 1.0) -> None:
        """Advance the clock, then ingest events."""
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
    """Return events of each kind.  Sorting by name, value and rate gives different orders."""
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
    Run the viewer until a scenario ends.

    @return: the app, after it has ended.
    """
    if not sources:
        source = FedSource()
        source.feed(some_events())
        sources = (source,)
    app = ObserveApp(sources, export_dir)
    app.animation_level = "none"
    _messages[app] = []
    notify = app.notify

    def note(message: str, **how: Any) -> None:
        _messages[app].append(message)
        # The default of four seconds is too short on a busy machine.
        notify(message, **{**how, "timeout": 3600})

    app.notify = note  # type: ignore[method-assign]

    async def run() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:

            async def until_settled(least: float) -> None:
                await settle(pilot)

            # By default, the pilot waits after each key until this process uses no CPU time, which
            # takes long if it is always busy.
            with (
                mock.patch("textual.app.wait_for_idle", until_settled),
                mock.patch("textual.pilot.wait_for_idle", until_settled),
            ):
                await draw(pilot, app)
                await scenario(pilot, app)

    # Use a separate loop, closed afterwards, because trial runs on another reactor.
    loop = asyncio.new_event_loop()
    # Debug mode, the default in Python's development mode, traces thousands of coroutines.
    loop.set_debug(False)
    # Garbage collection would take a quarter of the viewer's start time.
    gc.disable()
    try:
        loop.run_until_complete(run())
    finally:
        gc.enable()
        loop.close()
    return app


async def settle(pilot: Pilot[int]) -> None:
    """
    Wait until all widgets have handled their messages, including messages sent in response.
    """
    for _ in range(HOPS):
        # Handles the messages that are queued now.
        await pilot.pause(0)


async def resize(pilot: Pilot[int], width: int, height: int) -> None:
    """Resize the terminal, and wait until the screen has its new size, which Textual delays."""
    await pilot.resize_terminal(width, height)
    while pilot.app.screen.size != (width, height):
        await settle(pilot)
    await settle(pilot)


def type_fast(app: ObserveApp, *keys: str) -> None:
    """Queue all keys before any of them is handled."""
    for key in keys:
        app.post_message(Pressed(key, key if len(key) == 1 else None))


async def draw(pilot: Pilot[int], app: ObserveApp) -> None:
    """Draw a frame now."""
    for source in app.rows.sources:
        source.tick()
    app.redraw()
    await pilot.pause()


def drawn(widget: Any) -> list[str]:
    """Return the lines that a widget draws."""
    if hasattr(widget, "get_strips"):
        return [strip.text for strip in widget.get_strips()]
    return [widget.render_line(y).text for y in range(widget.size.height)]


def drawn_text(app: ObserveApp, selector: str) -> str:
    """Return the text on the screen in the first line of a widget, including its children."""
    region = app.screen.query_one(selector).region
    line = app.screen._compositor.render_strips()[region.y]
    return line.crop(region.x, region.right).text


def listed(app: ObserveApp) -> list[str]:
    """Return the listed series as text, and the titles of listed groups."""
    return [str(line.key) if isinstance(line, Row) else line.title for line in app.rows.lines]


def messages(app: ObserveApp) -> list[str]:
    """Return the messages that the app has shown as toasts."""
    return _messages[app]
