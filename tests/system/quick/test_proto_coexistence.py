"""
This library's messages beside those of other packages that brought an `event.proto` of their own.

protobuf has one pool of descriptors for a process and refuses a second file of the same name or
a second symbol of the same name. Both orders of import count, and an import cannot be undone: so
every case is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment
from tests.daemon import LIMIT
from tests.data.check_coexistence import OURS, REFERENCE, UNRELATED


class CoexistenceTests(SynchronousTestCase):
    def check(self, first: str, second: str, check: str) -> None:
        script = ROOT / "tests" / "data" / "check_coexistence.py"
        # "python" is protobuf's pure implementation, which some platforms have only.
        for implementation in ("", "python"):
            env = environment()
            if implementation:
                env["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = implementation
            ended = subprocess.run(
                [sys.executable, str(script), first, second, check],
                env=env,
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
            self.assertEqual((ended.returncode, ended.stdout), (0, "checked\n"), ended.stderr)

    def test_ours_then_the_reference(self) -> None:
        self.check(OURS, REFERENCE, "same_bytes")

    def test_the_reference_then_ours(self) -> None:
        self.check(REFERENCE, OURS, "same_bytes")

    def test_ours_then_an_unrelated(self) -> None:
        self.check(OURS, UNRELATED, "both_usable")

    def test_an_unrelated_then_ours(self) -> None:
        self.check(UNRELATED, OURS, "both_usable")
