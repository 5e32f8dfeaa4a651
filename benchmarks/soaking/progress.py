"""
What a soak shows while it runs: one line that changes on a terminal, a line now and then elsewhere.
"""

from __future__ import annotations

import shutil
import time
from typing import TextIO

INTERVAL = 60.0
"""How often, in seconds, a line is written where there is no terminal."""


class Progress:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._last = time.monotonic()
        self._shown = False

    def update(self, text: str) -> None:
        """Show how things are."""
        if self._terminal:
            width = shutil.get_terminal_size().columns
            self._out.write(f"\r\x1b[K{text[: width - 1]}")
            self._out.flush()
            self._shown = True
        elif time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            self.line(text)

    def line(self, text: str) -> None:
        """Say something that stays."""
        self.clear()
        print(text, file=self._out, flush=True)

    def clear(self) -> None:
        if self._shown:
            self._out.write("\r\x1b[K")
            self._shown = False
