"""
Captures the package's log in a test.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from twisted.logger import LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase


def log_events(case: SynchronousTestCase, *modules: ModuleType) -> list[LogEvent]:
    """
    Capture all log events of some modules for the rest of a test.

    @return: a list to which events are appended.
    """
    events: list[LogEvent] = []
    _observe(case, modules, events.append)
    return events


def log_lines(case: SynchronousTestCase, *modules: ModuleType) -> list[str]:
    """
    Capture all log lines of some modules for the rest of a test.

    @return: a list to which the text of each line is appended.
    """
    lines: list[str] = []

    _observe(case, modules, lambda event: lines.append(event["log_format"].format(**event)))
    return lines


def _observe(
    case: SynchronousTestCase,
    modules: tuple[ModuleType, ...],
    observer: Callable[[LogEvent], object],
) -> None:
    for module in modules:
        case.patch(module, "_log", Logger(namespace="test", observer=observer))
