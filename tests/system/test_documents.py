"""
Tests of the documents: commands and scripts run, links and names exist.
"""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import ROOT, nats, needs
from tests.documents import DOCS, PAGES, Reader, blocks
from txmetrics_tcp import DOCS as URL

_STARTS_A_SERVER = re.compile(
    r"\btwistd\b|listen_address|MetricsFactory\(|metrics-tcp (replay|run)"
)
_LINK = re.compile(rf"(?:{re.escape(URL)}|{{DOCS}})/([\w/-]+)\.html(?:#([\w-]+))?")


class PageTests(SynchronousTestCase):
    def check(self, path: Path) -> None:
        """Run all commands and scripts of a page, in order."""
        page = list(blocks(path))
        missing = needs("openssl")
        if missing and any("openssl" in block.code for block in page):
            raise SkipTest(missing)
        if nats.missing and path.name == "nats.md":
            raise SkipTest(nats.missing)
        if path.name == "README.md":
            # The gate runs this block: it is the test command.
            del page[[block.language for block in page].index("sh") + 1]
        reader = Reader(self)
        if not any(_STARTS_A_SERVER.search(block.code) for block in page):
            reader.start_daemon()
        for block in page:
            reader.do(block)
        reader.finish()


for _path in PAGES:
    if list(blocks(_path)):
        _name = re.sub(r"\W(\w)", lambda found: found[1].upper(), str(_path.relative_to(ROOT)))
        setattr(PageTests, f"test_{_name}", lambda self, path=_path: self.check(path))


class LinkTests(SynchronousTestCase):
    def test_absoluteLinks(self) -> None:
        """Absolute links to the documentation lead to existing pages and sections."""
        sources = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml"]
        sources += (ROOT / "txmetrics_tcp").rglob("*.py")
        links = {link for source in sources for link in _LINK.findall(source.read_text())}
        self.assertGreater(len(links), 10)
        for page, section in links:
            text = next(DOCS.glob(f"{page}.*")).read_text()
            headings = re.findall(r"(?m)^#+ (.*)$", text)
            slugs = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in headings}
            if section:
                self.assertIn(section, slugs, page)


class ContributorTests(SynchronousTestCase):
    def test_commands(self) -> None:
        """CONTRIBUTING.md names existing environments, test modules and scripts."""
        text = (ROOT / "CONTRIBUTING.md").read_text()
        tox = (ROOT / "tox.ini").read_text()
        environments = re.findall(r"tox run -e ([\w,-]+)", text)
        self.assertTrue(environments)
        for name in ",".join(environments).split(","):
            self.assertRegex(tox, rf"\b{name}\b")
        modules = re.findall(r"\btests(?:\.\w+)*\b(?!/)", text)
        self.assertTrue(modules)
        for name in modules:
            self.assertTrue(find_spec(name), name)
        scripts = re.findall(r"(?:python|bash) ([\w/.]+\.(?:py|sh)|\.ci/\w+)", text)
        self.assertTrue(scripts)
        for script in scripts:
            self.assertTrue((ROOT / script).exists(), script)

    def test_faults(self) -> None:
        """The fault matrix names existing tests."""
        modules: defaultdict[str, str] = defaultdict(str)
        for path in (ROOT / "tests").rglob("test_*.py"):
            modules[path.stem] += "\n" + path.read_text()
        module = group = ""
        page = (DOCS / "contributing" / "faults.md").read_text()
        cells = re.findall(r"(?m)\| ([^|]*) \|$", page)
        names = re.findall(r"`([\w.]+)`", " ".join(cells))
        self.assertGreater(len(names), 30)
        for name in names:
            for part in name.strip(".").split("."):
                if part in modules:
                    module = part
                elif part.startswith("test_"):
                    body = re.split(rf"\nclass {group}\b", modules[module])[1]
                    self.assertIn(f"def {part}(", body.split("\nclass ")[0], name)
                else:
                    group = part
                    self.assertRegex(modules[module], rf"\nclass {group}\b", name)
