"""
What the package logs in a test.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from twisted.logger import LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase


def log_events(case: SynchronousTestCase, *modules: ModuleType) -> list[LogEvent]:
    """
    Have some modules log nowhere else for the rest of a test.

    @return: what is logged, as it comes.
    """
    events: list[LogEvent] = []
    _observe(case, modules, events.append)
    return events


def log_lines(case: SynchronousTestCase, *modules: ModuleType) -> list[str]:
    """
    The same.

    @return: the text of each line, as they come.
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
