"""
``metrics-tcp observe`` as a process, where it ends before it shows anything.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from tests.daemon import LEFT_TO_THE_SYSTEM


class CommandTests(SynchronousTestCase):
    """What is wrong is said in one line, before the screen is taken."""

    def run_command(
        self, *arguments: str, terminal: bool = False, **environment: str
    ) -> tuple[int, str]:
        """Its exit code, and all that it has written."""
        command = [sys.executable, "-m", "txmetrics_tcp", "observe", *arguments]
        options: dict[str, object] = {
            "cwd": ROOT,
            "env": os.environ | {"PYTHONPATH": str(ROOT)} | LEFT_TO_THE_SYSTEM | environment,
            "timeout": 60,
        }
        if not terminal:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
            )  # type: ignore[call-overload]
            return done.returncode, done.stdout + done.stderr
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, **options)  # type: ignore[call-overload]
            os.set_blocking(ours, False)
            return done.returncode, os.read(ours, 65536).decode().replace("\r\n", "\n")
        finally:
            os.close(ours)
            os.close(theirs)

    def test_noTerminal(self) -> None:
        code, said = self.run_command("5000")
        self.assertEqual(code, 1)
        self.assertRegex(said, r"\Ametrics-tcp observe: this needs a terminal, .*input.*\n\Z")

    def test_badEndpoint(self) -> None:
        for arguments in [("nonsense:",), ("5000", "host:port:1"), ("5000", "\x1b[2J:")]:
            code, said = self.run_command(*arguments, terminal=True)
            self.assertEqual(code, 2)
            self.assertRegex(said, r"\Ametrics-tcp observe: [^\n\x1b]+\n\Z")

    def test_noRecording(self) -> None:
        path = Path(self.mktemp())
        path.write_text("something else")
        code, said = self.run_command(str(path.resolve()), terminal=True)
        self.assertEqual(code, 1)
        self.assertRegex(said, r"\Ametrics-tcp observe: .*: it is not a recording of metrics\n\Z")

    def test_noTextual(self) -> None:
        """Without the extra, one line says how to get it."""
        directory = Path(self.mktemp())
        (directory / "textual").mkdir(parents=True)
        (directory / "textual" / "__init__.py").write_text("raise ImportError")
        path = os.pathsep.join([str(directory.resolve()), str(ROOT)])
        code, said = self.run_command("5000", terminal=True, PYTHONPATH=path)
        self.assertEqual(code, 1)
        self.assertEqual(
            said, "metrics-tcp observe: this needs Textual: pip install 'txmetrics-tcp[observe]'\n"
        )
