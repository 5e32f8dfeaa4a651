"""
The soak in benchmarks/ runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks import BENCHMARKS


class RunTests(SynchronousTestCase):
    def run_soak(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(BENCHMARKS / "soak.py"), *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    @skipIf(sys.platform != "linux", "needs Linux")
    def test_short(self) -> None:
        """A soak of a few seconds includes all kinds of clients, and passes."""
        path = Path(self.mktemp()).resolve()
        ended = self.run_soak("--minutes", "0.07", "--seed", "5", "--json", str(path))
        self.assertEqual((ended.stderr, ended.returncode), ("", 0), ended.stdout)
        self.assertTrue(ended.stdout.startswith("seed 5: "), ended.stdout)
        self.assertTrue(ended.stdout.endswith("passed; seed 5\n"), ended.stdout)
        found = json.loads(path.read_text())
        self.assertEqual(found["seed"], 5)
        witnesses = [one for one in found["evidence"]["reports"] if one["witness"]]
        self.assertEqual(
            sorted(one["manner"] for one in witnesses),
            ["drips", "half-closes", "reads", "reads", "stalls"],
        )
        self.assertGreater(min(one["events"] for one in witnesses), 0)
        self.assertEqual(sorted(found["evidence"]["recorded"]), ["a", "b", "c", "d", "reactor"])

    def test_usage(self) -> None:
        ended = self.run_soak("--minutes", "0")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("must be more than 0 and at most a week", ended.stderr)
