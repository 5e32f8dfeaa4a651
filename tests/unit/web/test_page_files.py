"""
The files of the page: what a browser loads, and what of it is someone else's.
"""

from __future__ import annotations

import re
from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT

PAGE = ROOT / "txmetrics_tcp" / "web" / "page"

DIGESTS = {
    # dist/uPlot.iife.min.js, LICENSE and dist/uPlot.esm.js of the npm package uplot 1.6.32.
    PAGE / "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    PAGE / "uplot-license.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    ROOT / "tests" / "vendored" / "uPlot-1.6.32.esm.js": (
        "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba"
    ),
}


class FileTests(SynchronousTestCase):
    def test_keys(self) -> None:
        """docs/reference/viewer.md describes all keys of the page."""
        reference = (ROOT / "docs" / "reference" / "viewer.md").read_text("utf-8")
        keys = re.findall(r'^    \["(.+?)", "(.+?)", ', (PAGE / "keys.js").read_text("utf-8"), re.M)
        self.assertGreater(len(keys), 20)
        for shown, does in keys:
            names = " ".join(f"`{name}`" for name in shown.split())
            self.assertIn(f"| {names} | {does} |", reference)

    def test_uPlot(self) -> None:
        """It is unchanged, with its license; its readable source is in the sdist."""
        for path, digest in DIGESTS.items():
            self.assertEqual(sha256(path.read_bytes()).hexdigest(), digest, path.name)
        version = "v1.6.32"
        self.assertIn(version, (PAGE / "uplot.js").read_text()[:200])
        self.assertIn("The MIT License", (PAGE / "uplot-license.txt").read_text())

    def test_noMarkup(self) -> None:
        """Text from servers becomes text only, and no address leaves the server."""
        for path in PAGE.glob("*.js"):
            if path.name == "uplot.js":
                continue
            source = path.read_text()
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                self.assertNotIn(word, source, path.name)
            self.assertNotIn("://", source, path.name)
