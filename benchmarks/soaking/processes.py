"""
The processes of a soak beside the one under test: crowds of clients, which are stopped and killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent


class Crowd:
    """
    A process of clients; see `soaking.crowd`.

    @ivar reports: what its clients said when they left; any thread may look.
    @ivar finishing: how many clients read to the end; None until it is known.
    """

    def __init__(self, port: int, seed: int, name: str, first: int, witnesses: int, places: int):
        """
        @param first: the first of its clients' addresses, as a number.
        """
        self.name = name
        self.reports: list[dict[str, Any]] = []
        self.finishing: int | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        arguments = map(str, (port, seed, name, first, witnesses, places))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "soaking.crowd", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
            # The interrupt key is for whoever leads.
            start_new_session=True,
            text=True,
        )
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Vanish, with all clients."""
        with self._process:
            self._process.kill()
        self._listening.join()
        self._errors.close()

    def next(self) -> None:
        """Let clients come and go; called again, let those that are there read to the end."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def trouble(self, timeout: float) -> str | None:
        """Wait for its end: what went wrong."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"the clients of {self.name} do not end within {timeout:.0f} seconds"
        self._listening.join()
        self._errors.seek(0)
        errors = self._errors.read().strip()
        if status or errors:
            return f"the clients of {self.name} ended with status {status}: {errors}"
        return None

    @property
    def ended(self) -> bool:
        """Whether it will say no more."""
        return not self._listening.is_alive()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # One that is killed may have been about to say something.
            with suppress(ValueError):
                said = json.loads(line)
                if "finishing" in said:
                    self.finishing = said["finishing"]
                else:
                    self.reports.append(said)
