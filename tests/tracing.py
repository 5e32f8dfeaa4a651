"""
Interrupts code at any line, as signal handlers and finalizers do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Line = tuple[str, int]


@contextmanager
def tracing(is_traced: Callable[[str], bool], reached: Callable[[Line], object]) -> Iterator[None]:
    """
    Call a function before each line of some files is executed, and when a function is entered. The
    line raises the function's exceptions.

    @param is_traced: returns whether to trace a file.
    """

    def trace_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            reached((frame.f_code.co_filename, frame.f_lineno))
        return trace_line

    def trace_call(frame: FrameType, event: str, argument: Any) -> Any:
        return trace_line(frame, "line", None) if is_traced(frame.f_code.co_filename) else None

    # The trace function of a debugger or of coverage.
    before = sys.gettrace()
    sys.settrace(trace_call)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_of(is_traced: Callable[[str], bool], run: Callable[[], object]) -> list[Line]:
    """Return the lines that a function executes, each once, in order of their first execution."""
    lines: dict[Line, None] = {}
    with tracing(is_traced, lambda line: lines.setdefault(line)):
        run()
    return list(lines)
