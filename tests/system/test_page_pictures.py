"""
The pictures of the page in the documents.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT, environment
from tests.browser import no_browser
from tests.daemon import LIMIT

PICTURES = ("page.png", "page-histogram.png", "page-phone.png")


def size(path: Path) -> tuple[int, int]:
    """Return the width and height of a PNG file."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG"), path
    return struct.unpack(">II", data[16:24])


class PictureTests(SynchronousTestCase):
    @skipIf(no_browser, no_browser or "")
    def test_pictures(self) -> None:
        """The script takes the pictures, in the sizes of those in the documents."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        script = ROOT / "docs" / "contributing" / "make_page_pictures.py"
        command = [sys.executable, str(script), str(directory)]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, timeout=LIMIT)
        for name in PICTURES:
            self.assertEqual(size(directory / name), size(ROOT / "docs" / name), name)

    def test_small(self) -> None:
        for name in PICTURES:
            self.assertLess((ROOT / "docs" / name).stat().st_size, 250_000, name)
