"""
Interruptions at any line of a module, as a signal handler or a finalizer may come anywhere.
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
    Call a function before each line of some files is executed, and as each function is entered;
    what it raises, the line raises.

    @param is_traced: whether a file is one of them.
    """

    def trace_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            reached((frame.f_code.co_filename, frame.f_lineno))
        return trace_line

    def trace_call(frame: FrameType, event: str, argument: Any) -> Any:
        return trace_line(frame, "line", None) if is_traced(frame.f_code.co_filename) else None

    # That of a debugger, or of what measures coverage.
    before = sys.gettrace()
    sys.settrace(trace_call)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_of(is_traced: Callable[[str], bool], run: Callable[[], object]) -> list[Line]:
    """The lines that a function executes, each once, in the order in which they come."""
    lines: dict[Line, None] = {}
    with tracing(is_traced, lambda line: lines.setdefault(line)):
        run()
    return list(lines)
