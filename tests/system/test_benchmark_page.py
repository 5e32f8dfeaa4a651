"""
The benchmarks in benchmarks/ run without cargo.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks import BENCHMARKS


class RunTests(SynchronousTestCase):
    def test_quick(self) -> None:
        """Benchmarks that need the Rust reader are left out."""
        page = Path(self.mktemp()).resolve()
        page.parent.mkdir(parents=True, exist_ok=True)
        ended = subprocess.run(
            [
                *(sys.executable, str(BENCHMARKS / "run.py"), "--quick"),
                *("--only", "snapshot", "latency", "website", "web", "collecting"),
                *("--page", str(page)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PATH": str(page.parent / "nothing")},
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("latency: not measured", ended.stderr)
        text = page.read_text()
        for part in (
            "- reader: Python; ",
            "- a system call",
            "| snapshot() (ms) | ",
            "| a frame of one (ms) | ",
            "| processor time an event (µs) | ",
        ):
            self.assertIn(part, text)
        # A machine with other work may be too slow for them.
        for part, what in (
            ("| responses at full speed (1/s) | ", "all figures"),
            ("| beyond a plain client's view (% of a core) | ", "processor time of the page"),
        ):
            self.assertTrue(part in text or f"left out: {what}: " in ended.stdout, part)
