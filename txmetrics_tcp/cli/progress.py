"""
How far a command has come, on a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from txmetrics_tcp._view.text import visible
from txmetrics_tcp.cli.output import say

INTERVAL = 0.5
"""How often, in seconds, what is shown is renewed."""

_CLEAR = "\r\x1b[K"


class Progress:
    """
    One line of standard error that is written anew again and again, below the remarks.

    Where standard error is no terminal, there are only the remarks.
    """

    def __init__(self, clock: IReactorTime, text: Callable[[], str]) -> None:
        """
        @param text: says how far it is.
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
        """Show nothing more, and take away what is shown."""
        if self._loop.running:
            self._loop.stop()
        self._clear()

    def say(self, text: str) -> None:
        """Make a remark of one line."""
        self._clear()
        say(text)

    def _show(self) -> None:
        with suppress(OSError):
            # Some do not know how wide they are.
            columns = os.get_terminal_size(2).columns or 80
            # A line that is full would be two.
            text = visible(self._text())[: columns - 1]
            os.write(2, f"{_CLEAR}{text}".encode())
            self._shown = True

    def _clear(self) -> None:
        if self._shown:
            self._shown = False
            with suppress(OSError):
                os.write(2, _CLEAR.encode())
