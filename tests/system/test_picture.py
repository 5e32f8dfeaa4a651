"""
The screenshot of the viewer in the README.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment
from tests.daemon import LIMIT


class PictureTests(SynchronousTestCase):
    def test_picture(self) -> None:
        """The script draws the screenshot; the stored one has the same main parts."""
        path = Path(self.mktemp()).resolve()
        script = ROOT / "docs" / "contributing" / "make_picture.py"
        command = [sys.executable, str(script), str(path)]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, timeout=LIMIT)
        for text in (path.read_text(), (ROOT / "docs" / "reference" / "observe.svg").read_text()):
            for part in [
                "LIVE",
                "http_request_seconds",
                "p999",
                "missed&#160;1,204",
                "last&#160;ev",
            ]:
                self.assertIn(part, text)
