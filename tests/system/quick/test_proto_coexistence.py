"""
This library works together with other packages that have an `event.proto`.

protobuf has one pool of descriptors in a process, and rejects a second file or symbol with the same
name. The order of imports matters, and an import cannot be undone, so every case runs in a separate
process.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment
from tests.daemon import LIMIT
from tests.data.check_coexistence import COPY, OURS, REFERENCE, UNRELATED


class CoexistenceTests(SynchronousTestCase):
    def check(self, first: str, second: str, check: str) -> None:
        script = ROOT / "tests" / "data" / "check_coexistence.py"
        # "python" is protobuf's pure implementation, the only one on some platforms.
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

    def test_library_then_reference(self) -> None:
        self.check(OURS, REFERENCE, "same_bytes")

    def test_reference_then_library(self) -> None:
        self.check(REFERENCE, OURS, "same_bytes")

    def test_library_then_copy(self) -> None:
        self.check(OURS, COPY, "copy_usable")

    def test_copy_then_library(self) -> None:
        self.check(COPY, OURS, "copy_usable")

    def test_library_then_unrelated(self) -> None:
        self.check(OURS, UNRELATED, "both_usable")

    def test_unrelated_then_library(self) -> None:
        self.check(UNRELATED, OURS, "both_usable")
