"""
The progress line of a command, on a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from txmetrics_tcp._view.text import cut, visible
from txmetrics_tcp.cli.output import say, write_message

INTERVAL = 0.5
"""The time, in seconds, between updates of the line."""

_CLEAR = "\r\x1b[K"


class Progress:
    """
    A line of standard error that is updated regularly, below the messages.

    If standard error is not a terminal, only the messages are printed.
    """

    def __init__(self, clock: IReactorTime, text: Callable[[], str]) -> None:
        """
        @param text: returns the progress.
        """
        self._text = text
        self._terminal = os.isatty(2) and os.environ.get("TERM") != "dumb"
        self._shown = False
        self._loop = LoopingCall(self._show)
        self._loop.clock = clock

    def start(self) -> None:
        if self._terminal:
            self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Stop the updates and clear the line."""
        if self._loop.running:
            self._loop.stop()
        self._clear()

    def say(self, text: str) -> None:
        """Print a message of one line."""
        self._clear()
        say(text)

    def _show(self) -> None:
        with suppress(OSError):
            # Some terminals report a width of 0.
            columns = os.get_terminal_size(2).columns or 80
            # A full line would wrap.
            text = cut(visible(self._text()), columns - 1)
            write_message(f"{_CLEAR}{text}", 0)
            self._shown = True

    def _clear(self) -> None:
        if self._shown:
            self._shown = False
            write_message(_CLEAR, 0)
